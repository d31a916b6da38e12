"""The features that people confirmed as spurious, for other programs: JSON with everything, CSV with a row per region.

A CSV row is one region of one confirmed feature, in the columns of CSV_COLUMNS; what belongs to the feature is repeated
in each of its rows. A text that a spreadsheet would run as a formula (it begins with =, +, -, @, a tab or a line break)
is written behind an apostrophe.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.errors import ConfigError, RunError
from ravl.ledger import Ledger, seen_digest
from ravl.store import AuditRun, writing
from ravl.summary import per_class
from ravl.tables import FeatureScores, ImageSet, Regions, Verdict

SCHEMA = "ravl.confirmed-features"
SCHEMA_VERSION = 1
FORMATS = ("json", "csv")

_SCORES = ("influence", "gap", "passes", "two_sided", "n_regions", "n_images", "n_errors", "n_decided")
_VERDICT = ("reviewer", "at", "note", "seen", "seen_matches")
CSV_COLUMNS = (
    *("run", "feature", "name", "pull_class"),
    *_SCORES,
    *_VERDICT,
    *("region", "image", "x0", "y0", "x1", "y1"),
)
"""Header of the CSV file. Boxes are in pixels of the upright image, half-open. Undefined numbers are empty."""


def confirmed(run: AuditRun, ledger: Ledger) -> dict[str, Any]:
    """The features of a run whose holding verdict is `spurious`, as strict JSON (undefined numbers are null).

    Keys: schema, schema_version, exported (UTC), run {id, name, created, packages, config}, fingerprints, features. A
    feature: feature, name, pull_class, scores (with per_class: the signed gap and the counts it comes from), regions
    [{region, image, box}], reviewer, at, note, seen, seen_matches: whether its regions are those that the person saw.
    A feature that the run no longer has (its clusters were computed again) has scores null and no regions.
    Raises RunError when the run's features are not computed yet.
    """
    about = run.about
    images, regions, feature_of, scores = run.images(), run.regions(), run.feature_label(), run.features()
    verdicts = [verdict for _, verdict in sorted(ledger.verdicts(run.id).items()) if verdict.decision == "spurious"]
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": {"id": run.id, **{key: about[key] for key in ("name", "created", "packages", "config")}},
        "fingerprints": about["fingerprints"],
        "features": [_feature(verdict, images, regions, feature_of, scores) for verdict in verdicts],
    }


def _feature(
    verdict: Verdict, images: ImageSet, regions: Regions, feature_of: NDArray[np.int32], scores: FeatureScores
) -> dict[str, Any]:
    members = np.flatnonzero(feature_of == verdict.feature)
    exists = bool(np.any(scores.feature == verdict.feature))
    pull = int(scores.pull_class[scores.row_of(verdict.feature)]) if exists else -1
    return {
        "feature": verdict.feature,
        "name": verdict.name or f"feature {verdict.feature}",
        "pull_class": images.class_names[pull] if pull >= 0 else None,
        "scores": _scores(scores, scores.row_of(verdict.feature), images.class_names) if exists else None,
        "regions": [
            {"region": int(r), "image": str(images.file[regions.image[r]]), "box": regions.box[r].tolist()}
            for r in members
        ],
        "reviewer": verdict.reviewer,
        "at": verdict.at,
        "note": verdict.note,
        "seen": verdict.seen,
        "seen_matches": seen_digest(members) == verdict.seen,
    }


def _scores(scores: FeatureScores, row: int, class_names: tuple[str, ...]) -> dict[str, Any]:
    return {
        **{name: _number(getattr(scores, name)[row]) for name in _SCORES},
        "per_class": per_class(scores, row, class_names),
    }


def _number(value: np.generic) -> bool | int | float | None:
    """A numpy number as JSON knows it: six decimals, null for NaN."""
    plain: bool | int | float = value.item()
    if not isinstance(plain, float):
        return plain
    return round(plain, 6) if math.isfinite(plain) else None


def as_json(document: dict[str, Any]) -> str:
    """The document as JSON text."""
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(document: dict[str, Any]) -> str:
    """The document as CSV text with the header CSV_COLUMNS and a row per feature and region."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(CSV_COLUMNS)
    for feature in document["features"]:
        scores = feature["scores"] or dict.fromkeys(_SCORES)
        fixed = [document["run"]["id"], feature["feature"], feature["name"], feature["pull_class"]]
        fixed += [scores[name] for name in _SCORES] + [feature[name] for name in _VERDICT]
        for region in feature["regions"] or [{"region": None, "image": None, "box": [None] * 4}]:
            writer.writerow(map(_cell, [*fixed, region["region"], region["image"], *region["box"]]))
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else value


def write(document: dict[str, Any], format: str, out: Path) -> None:
    """Write the document as `json` or `csv`, whole or not at all. A link is followed; a device or pipe is written to.

    Raises ConfigError for another format, RunError when the file cannot be written.
    """
    if format not in FORMATS:
        raise ConfigError(f"--format must be one of {', '.join(FORMATS)}, got {format!r}.")
    text = as_json(document) if format == "json" else as_csv(document)
    path = Path(out)
    if path.exists() and not path.is_file() and not path.is_dir():  # /dev/stdout must not be replaced by a file
        try:
            path.write_text(text, encoding="utf-8", newline="")
        except OSError as error:
            raise RunError(f"{path} could not be written: {error.strerror or error}. Choose another --out.") from error
        return
    with writing(Path(os.path.realpath(path))) as partial:
        partial.write_text(text, encoding="utf-8", newline="")
