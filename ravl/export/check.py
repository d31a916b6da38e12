"""Is an exported file what it says it is? Its JSON Schema first, then what no schema says: references and digests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ravl.chain import Entry, digest, first_break
from ravl.errors import ConfigError
from ravl.export.confirmed import SCHEMA as LIST
from ravl.export.confirmed import SCHEMA_VERSION as LIST_VERSION
from ravl.export.log import SCHEMA as LOG
from ravl.export.log import SCHEMA_VERSION as LOG_VERSION
from ravl.ledger import Ledger, seen_digest

SCHEMAS = {LIST: (LIST_VERSION, "confirmed-features"), LOG: (LOG_VERSION, "audit-log")}
"""What can be checked: version and name of the schema file by the document's `schema`."""


@dataclass(frozen=True)
class Problem:
    """What is wrong in one sentence, and where: a JSON path such as `$.features[0].name`."""

    path: str
    sentence: str


def schema(name: str) -> dict[str, Any]:
    """The published JSON Schema of a kind of document, a key of SCHEMAS."""
    version, file = SCHEMAS[name]
    text = (files("ravl") / "schemas" / f"{file}-{version}.json").read_text(encoding="utf-8")
    return json.loads(text)  # type: ignore[no-any-return]


def load(path: Path) -> Any:
    """Read a JSON file strictly. Raises ConfigError when it cannot be read, is no JSON, or names a key twice."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"the file must be a file that can be read, but {path}: {error.strerror or error}."
        ) from error
    return parse(content, str(path))


def parse(content: bytes, name: str) -> Any:
    """The same for the content of a file. name: what it is called in an error."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(
            f"the file must be text in UTF-8, but {name} is not. Give a file that ravl export wrote."
        ) from None
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(f"the file must hold JSON, but {name} does not: {reason}. Export it again.") from None


def confirmed_list(document: Any, name: str) -> dict[str, Any]:
    """The document, when it is a valid list of confirmed features. Raises ConfigError, which says what it is instead.

    name: what the file is called in the error.
    """
    if found := problems(document):
        more = f" ({len(found) - 1} more; ravl export --check lists them)" if len(found) > 1 else ""
        raise ConfigError(f"the file must be a valid list, but in {name} {found[0].path} {found[0].sentence}{more}")
    if document["schema"] != LIST:
        raise ConfigError(
            f"the file must be a list of confirmed features, got {document['schema']}. Export one as json."
        )
    return dict(document)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def problems(document: Any, ledger: Ledger | None = None) -> list[Problem]:
    """Everything that is wrong with a document; empty where it is valid.

    ledger: the file must also fit this record: it has the entries that the file speaks of. References and digests are
    looked at only in a document that follows its schema.
    """
    name = document.get("schema") if isinstance(document, dict) else None
    if name not in SCHEMAS:
        return [Problem("$.schema", f"must be one of {', '.join(SCHEMAS)}, got {_short(name)}.")]
    version = SCHEMAS[name][0]
    if document.get("schema_version") != version:
        found = _short(document.get("schema_version"))
        return [Problem("$.schema_version", f"must be {version}, got {found}. Export it with the matching ravl.")]
    broken = _against_schema(document, schema(name))
    if broken:
        return broken
    rules: Callable[[Any, Ledger | None], Iterator[Problem]] = _confirmed if name == LIST else _log
    return list(rules(document, ledger))


# --- the schema ------------------------------------------------------------------------------------------------------


def _against_schema(document: Any, rules: dict[str, Any]) -> list[Problem]:
    from jsonschema import Draft202012Validator

    errors = sorted(Draft202012Validator(rules).iter_errors(document), key=lambda error: list(map(str, error.path)))
    return [Problem(error.json_path, _sentence(error)) for error in map(_deepest, errors)]


def _deepest(error: Any) -> Any:
    """Of an alternative, what is wrong with the one that nearly fits: `null` is the other one."""
    while error.validator == "anyOf" and error.context and error.instance is not None:
        error = max(error.context, key=lambda inner: len(inner.absolute_path) + (inner.schema.get("type") != "null"))
    return error


_TYPES = {"object": "an object", "array": "a list", "string": "a text", "integer": "a whole number"}
_TYPES |= {"number": "a number", "boolean": "true or false", "null": "null"}


def _sentence(error: Any) -> str:
    found, wanted = _short(error.instance), error.validator_value
    if error.validator == "required":
        missing = [name for name in wanted if name not in error.instance]
        return f"must have the key {missing[0]!r}, but does not."
    if error.validator == "type":
        kinds = [wanted] if isinstance(wanted, str) else wanted
        return f"must be {' or '.join(_TYPES[kind] for kind in kinds)}, got {found}."
    say = {
        "const": f"must be {wanted!r}, got {found}.",
        "enum": f"must be one of {', '.join(map(str, wanted)) if isinstance(wanted, list) else ''}, got {found}.",
        "maximum": f"must be at most {wanted}, got {found}.",
        "minimum": f"must be at least {wanted}, got {found}.",
        "minLength": f"must be a text of at least {wanted} character, got {found}.",
        "minItems": f"must have at least {wanted} entries, got {found}.",
        "maxItems": f"must have at most {wanted} entries, got {found}.",
        "pattern": f"must look like {wanted}, got {found}.",
    }
    return say.get(error.validator, f"must follow the schema: {error.message}")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 60 else f"{text[:57]}..."


# --- what no schema says ---------------------------------------------------------------------------------------------


def _confirmed(document: dict[str, Any], ledger: Ledger | None) -> Iterator[Problem]:
    own = digest({key: value for key, value in document.items() if key != "sha256"})
    if own != document["sha256"]:
        yield Problem("$.sha256", f"must be the digest of the rest, {own}: the file was changed after the export.")
    images, classes = {}, document["class_names"]
    for i, image in enumerate(document["images"]):
        if image["image"] in images:
            yield Problem(f"$.images[{i}].image", f"must occur once, but {image['image']!r} is listed before.")
        images[image["image"]] = image
        for key in ("label", "predicted"):
            if image[key] not in classes:
                yield Problem(f"$.images[{i}].{key}", f"must be one of class_names, got {_short(image[key])}.")
    features: set[int] = set()
    regions: set[int] = set()
    for i, feature in enumerate(document["features"]):
        path = f"$.features[{i}]"
        if feature["feature"] in features:
            yield Problem(f"{path}.feature", f"must occur once, but {feature['feature']} is listed before.")
        features.add(feature["feature"])
        yield from _boxes(path, feature, images, regions)
        yield from _numbers(path, feature, classes)
        yield from _decided(path, feature)
    if ledger is not None:
        yield from _known("$.record", document["record"], ledger)


def _boxes(path: str, feature: dict[str, Any], images: dict[str, Any], regions: set[int]) -> Iterator[Problem]:
    for j, region in enumerate(feature["regions"]):
        here, number = f"{path}.regions[{j}]", region["region"]
        if number in regions:
            yield Problem(f"{here}.region", f"must belong to one feature, but {number} is listed before.")
        regions.add(number)
        image = images.get(region["image"])
        if image is None:
            yield Problem(f"{here}.image", f"must be one of images, got {_short(region['image'])}.")
            continue
        x0, y0, x1, y1 = region["box"]
        width, height = image["width"], image["height"]
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            yield Problem(f"{here}.box", f"must lie inside the image of {width} x {height}, got {region['box']}.")


def _numbers(path: str, feature: dict[str, Any], classes: list[str]) -> Iterator[Problem]:
    pull, scores, regions = feature["pull_class"], feature["scores"], feature["regions"]
    if pull is not None and pull not in classes:
        yield Problem(f"{path}.pull_class", f"must be one of class_names or null, got {_short(pull)}.")
    if scores is None:
        if regions:
            yield Problem(f"{path}.regions", f"must be empty where scores are null, got {len(regions)}.")
        return
    shown = {region["image"] for region in regions}
    for key, value in (("n_regions", len(regions)), ("n_images", len(shown))):
        if scores[key] != value:
            yield Problem(f"{path}.scores.{key}", f"must be {value}, as the regions say, got {scores[key]}.")
    rows = scores["per_class"]
    if [row["class"] for row in rows] != classes:
        yield Problem(f"{path}.scores.per_class", "must have one entry for each of class_names, in their order.")
    for y, row in enumerate(rows):
        for side in ("in", "out"):
            if row[f"right_{side}"] > row[f"n_{side}"]:
                yield Problem(
                    f"{path}.scores.per_class[{y}].right_{side}",
                    f"must be at most n_{side}, {row[f'n_{side}']}, got {row[f'right_{side}']}.",
                )


def _decided(path: str, feature: dict[str, Any]) -> Iterator[Problem]:
    ids = np.array([region["region"] for region in feature["regions"]], np.int64)
    matches = seen_digest(ids) == feature["seen"]
    if matches != feature["seen_matches"]:
        yield Problem(f"{path}.seen_matches", f"must be {str(matches).lower()}, as the digest of the regions says.")
    own = [event for event in feature["history"] if event["reviewer"] == feature["reviewer"]]
    if not own:
        yield Problem(f"{path}.reviewer", f"must occur in history, got {_short(feature['reviewer'])}.")
    elif own[-1]["decision"] != "spurious":
        found = own[-1]["decision"]
        yield Problem(f"{path}.history", f"must end with spurious, as far as this reviewer goes, got {found}.")
    for key in ("at", "note", "seen"):
        if own and own[-1][key] != feature[key]:
            yield Problem(f"{path}.{key}", "must be that of the reviewer's last entry of history, but differs.")
    for j, event in enumerate(feature["history"]):
        try:
            datetime.fromisoformat(event["at"])
        except ValueError:
            yield Problem(f"{path}.history[{j}].at", f"must be a date that exists, got {_short(event['at'])}.")


def _log(document: dict[str, Any], ledger: Ledger | None) -> Iterator[Problem]:
    entries = [Entry(**{key: entry[key] for key in Entry.__dataclass_fields__}) for entry in document["entries"]]
    if broken := first_break(entries):
        yield Problem("$.entries", broken)
        return
    for i, entry in enumerate(entries):
        if entry.event is not None and entry.event.get("event") != entry.kind:
            yield Problem(f"$.entries[{i}].kind", f"must be that of its event, got {_short(entry.kind)}.")
        if entry.event is not None and entry.event.get("run", document["run"]) != document["run"]:
            yield Problem(f"$.entries[{i}].event.run", f"must be the run of the log, got {_short(entry.event['run'])}.")
    if ledger is not None and entries:
        yield from _known("$.entries", {"entries": len(entries), "sha256": entries[-1].sha256}, ledger)


def _known(path: str, state: dict[str, Any], ledger: Ledger) -> Iterator[Problem]:
    """Whether the ledger once was in a state; it may have grown since."""
    entries = ledger.entries()
    number = int(state["entries"])  # JSON Schema calls 2.0 whole, too
    if number > len(entries):
        yield Problem(path, f"speaks of {number} entries, but {ledger.path} has {len(entries)}: some were removed.")
    elif number and entries[number - 1].sha256 != state["sha256"]:
        yield Problem(path, f"has another digest at entry {number} than {ledger.path}: that record was written anew.")
    if fault := ledger.fault():
        yield Problem(path, f"belongs to a record that does not hold together: {fault}")
