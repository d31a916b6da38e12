"""The check of exported files: the schemas are schemas, what ravl writes is valid, and every change is a sentence."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ravl import export
from ravl.chain import digest
from ravl.cli import main
from ravl.errors import ConfigError
from ravl.export.check import SCHEMAS, load, problems, schema
from ravl.ledger import Ledger
from ravl.store import AuditRun
from tests.test_export import decide, ledger, run

__all__ = ["ledger", "run"]  # fixtures


@pytest.fixture
def document(run: AuditRun, ledger: Ledger) -> dict[str, Any]:
    decide(ledger, run, 1, name="red square", note="ü")
    decide(ledger, run, 0)
    decide(ledger, run, 9)
    return export.confirmed(run, ledger)


@pytest.fixture
def log(run: AuditRun, ledger: Ledger) -> dict[str, Any]:
    for feature in range(3):
        decide(ledger, run, feature)
    return json.loads(export.text(run, ledger, "log"))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one_and_says_what_is_what(name: str) -> None:
    rules = schema(name)
    Draft202012Validator.check_schema(rules)
    assert rules["$id"].startswith("urn:ravl:schema:")
    assert rules["properties"]["schema"]["const"] == name
    assert rules["properties"]["schema_version"]["const"] == SCHEMAS[name][0]


def test_the_schema_knows_every_key(document: dict[str, Any]) -> None:
    """A key that is written must be described: at every level of the document."""
    rules = schema("ravl.confirmed-features")

    def described(value: Any, rule: dict[str, Any], path: str) -> None:
        while "$ref" in rule:
            rule = rules["$defs"][rule["$ref"].rpartition("/")[2]]
        rule = next((one for one in rule.get("anyOf", ()) if "$ref" in one), rule)
        if "$ref" in rule:
            described(value, rule, path)
        elif isinstance(value, dict) and "properties" in rule:
            assert set(value) == set(rule["properties"]) == set(rule["required"]), path
            for key, inner in value.items():
                described(inner, rule["properties"][key], f"{path}.{key}")
        elif isinstance(value, list) and value:
            described(value[0], rule["items"], f"{path}[0]")

    described(document, rules, "$")


def test_what_is_written_is_valid(document: dict[str, Any], log: dict[str, Any], ledger: Ledger) -> None:
    assert problems(json.loads(export.as_json(document))) == []
    assert problems(log, ledger) == []


def at(document: Any, path: list[str | int]) -> Any:
    for key in path:
        document = document[key]
    return document


CHANGES: list[tuple[list[str | int], Any, str, str]] = [
    (["features", 0, "name"], 3, "$.features[0].name", "must be a text, got 3."),
    (["features", 0, "name"], "", "$.features[0].name", "must be a text of at least 1 character"),
    (["features", 0, "feature"], -1, "$.features[0].feature", "must be at least 0, got -1."),
    (["features", 0, "feature"], 2**60, "$.features[0].feature", "must be at most"),
    (["features", 0, "seen_matches"], "yes", "$.features[0].seen_matches", 'must be true or false, got "yes".'),
    (["features", 0, "pull_class"], 3, "$.features[0].pull_class", "must be a text or null, got 3."),
    (["features", 1, "scores", "gap"], "0.1", "$.features[1].scores.gap", 'must be a number or null, got "0.1".'),
    (["features", 1, "scores"], {}, "$.features[1].scores", "must have the key 'influence', but does not."),
    (["features", 0, "regions", 0, "box"], [1, 2, 3], "$.features[0].regions[0].box", "must have at least 4 entries"),
    (["features", 0, "history"], [], "$.features[0].history", "must have at least 1 entries"),
    (["features", 0, "history", 0, "decision"], "bad", "$.features[0].history[0].decision", "must be one of spurious"),
    (["features", 0, "at"], "yesterday", "$.features[0].at", "must look like"),
    (["images"], {}, "$.images", "must be a list, got {}."),
    (["sha256"], "abc", "$.sha256", "must look like"),
    (["schema_version"], 1, "$.schema_version", "must be 2, got 1. Export it with the matching ravl."),
    (["schema"], "coco", "$.schema", 'must be one of ravl.confirmed-features, ravl.audit-log, got "coco".'),
]


@pytest.mark.parametrize(("path", "value", "where", "said"), CHANGES)
def test_what_the_schema_refuses(
    path: list[str | int], value: Any, where: str, said: str, document: dict[str, Any]
) -> None:
    at(document, path[:-1])[path[-1]] = value
    [problem] = problems(document)
    assert problem.path == where
    assert said in problem.sentence


@pytest.mark.parametrize("key", ["schema_version", "run", "features", "sha256", "record"])
def test_a_missing_key(key: str, document: dict[str, Any]) -> None:
    del document[key]
    [problem] = problems(document)
    assert key in problem.path + problem.sentence


@pytest.mark.parametrize("given", [None, 3, [], "text", {}])
def test_no_document_at_all(given: Any) -> None:
    [problem] = problems(given)
    assert (problem.path, "must be one of" in problem.sentence) == ("$.schema", True)


GONE = [{"region": 7, "image": "eel/5.png", "box": [0, 0, 4, 8]}]
FIRST: list[str | int] = ["features", 0]
REFERENCES: list[tuple[list[str | int], Any, str, str]] = [
    (["images", 1, "image"], "cat/1.png", "images[1].image", "must occur once"),
    (["images", 1, "label"], "cow", "images[1].label", 'must be one of class_names, got "cow".'),
    (["features", 1, "feature"], 0, "features[1].feature", "must occur once, but 0 is listed before."),
    (["features", 1, "pull_class"], "cow", "features[1].pull_class", "must be one of class_names or null"),
    ([*FIRST, "regions", 0, "image"], "x.png", "features[0].regions[0].image", "must be one of images"),
    ([*FIRST, "regions", 0, "box"], [0, 0, 9, 8], "features[0].regions[0].box", "inside the image of 8 x 8"),
    ([*FIRST, "regions", 0, "box"], [4, 0, 4, 8], "features[0].regions[0].box", "inside the image of 8 x 8"),
    (["features", 1, "regions", 0, "region"], 0, "features[1].regions[0].region", "must belong to one feature"),
    ([*FIRST, "scores", "n_regions"], 7, "features[0].scores.n_regions", "must be 3, as the regions say"),
    ([*FIRST, "scores", "n_images"], 7, "features[0].scores.n_images", "must be 3, as the regions say"),
    ([*FIRST, "scores", "per_class", 0, "class"], "x", "features[0].scores.per_class", "one entry for each"),
    ([*FIRST, "scores", "per_class", 0, "right_in"], 99, "features[0].scores.per_class[0].right_in", "at most n_in"),
    ([*FIRST, "seen_matches"], False, "features[0].seen_matches", "must be true, as the digest"),
    ([*FIRST, "reviewer"], "Eve", "features[0].reviewer", 'must occur in history, got "Eve".'),
    ([*FIRST, "note"], "x", "features[0].note", "must be that of the reviewer's last entry of history"),
    ([*FIRST, "history", 0, "decision"], "core", "features[0].history", "must end with spurious"),
    ([*FIRST, "history", 0, "at"], "2026-02-31T00:00:00Z", "features[0].history[0].at", "a date that exists"),
    (["features", 2, "regions"], GONE, "features[2].regions", "must be empty where scores are null, got 1."),
]


@pytest.mark.parametrize(("path", "value", "where", "said"), REFERENCES)
def test_references_and_counts(
    path: list[str | int], value: Any, where: str, said: str, document: dict[str, Any]
) -> None:
    at(document, path[:-1])[path[-1]] = value
    document["sha256"] = digest({key: value for key, value in document.items() if key != "sha256"})
    found = [problem for problem in problems(document) if problem.path == f"$.{where}"]
    assert any(said in problem.sentence for problem in found), problems(document)
    assert not any(problem.path == "$.sha256" for problem in problems(document))


def test_a_changed_file_no_longer_has_its_digest(document: dict[str, Any]) -> None:
    document["run"]["name"] = "another"
    [problem] = problems(document)
    assert (problem.path, "was changed after the export" in problem.sentence) == ("$.sha256", True)


# --- the log ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda entries: entries[1]["event"].update(decision="core"), "entry 2 (verdict) was changed"),
        (lambda entries: entries.pop(1), "entry 2 must follow here, but the next one is entry 3"),
        (lambda entries: entries[2].update(sha256="0" * 64), "entry 3 (verdict) was changed"),
        (lambda entries: entries[0].update(previous="1" * 64), "entry 1 (verdict) does not follow"),
        (lambda entries: entries[0].update(kind="import"), "must be that of its event"),
    ],
)
def test_a_broken_chain_names_its_first_entry(
    change: Callable[[list[Any]], object], said: str, log: dict[str, Any]
) -> None:
    change(log["entries"])
    assert said in problems(log)[0].sentence


def test_a_file_speaks_of_a_record(
    document: dict[str, Any], log: dict[str, Any], tmp_path: Path, ledger: Ledger
) -> None:
    """Against the ledger it came from, one that grew since, and one that never had these entries."""
    decide(ledger, AuditRun(next((tmp_path / "runs").glob("*-*"))), 2)
    assert problems(document, ledger) == problems(log, ledger) == []
    (tmp_path / "other").mkdir()
    other = Ledger(tmp_path / "other")
    assert "has 0: some were removed" in problems(log, other)[0].sentence
    for feature in range(9):
        other.add_verdict("run", feature, "", "core", "Eve", "ff")
    for given in (document, log):
        [problem] = problems(given, other)
        assert "was written anew" in problem.sentence
    other.close()


# --- files and the command -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "does not: Expecting value"),
        (b"a,b\n1,2\n", "does not: Expecting value"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": 1, "a": 2}', "the key 'a' occurs twice"),
        (b"\xff\xfe\x00", "must be text in UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_file_that_is_no_json(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        load(tmp_path / "a.json")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "a.json")


def test_the_command(
    run: AuditRun, document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(export.as_json(document))
    broken = copy.deepcopy(document)
    broken["features"][0]["name"] = "\ud800 <b>"
    broken["features"][1]["feature"] = 0
    bad.write_text(json.dumps(broken))
    at_ = ["--workspace", str(tmp_path), "--run", run.id]
    assert main(["export", "--check", str(good), *at_]) == 0
    assert "is valid: ravl.confirmed-features, version 2" in capsys.readouterr().out
    assert main(["export", "--check", str(bad)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ")[0] for line in lines] == ["$.sha256", "$.features[1].feature"]
    assert main(["export", "--check", str(bad), "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert (told["valid"], [problem["path"] for problem in told["problems"]]) == (
        False,
        ["$.sha256", "$.features[1].feature"],
    )
    assert main(["export"]) == 2
    assert "--run and --out must be given, or --check" in capsys.readouterr().err


def test_a_named_workspace_is_compared_with(
    document: dict[str, Any], run: AuditRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one of the run fits; another record does not have its decisions; a folder without one is refused."""
    good = tmp_path / "good.json"
    good.write_text(export.as_json(document))
    check = ["export", "--check", str(good)]
    assert main([*check, "--workspace", str(run.path.parents[1])]) == 0
    (tmp_path / "other").mkdir()
    Ledger(tmp_path / "other").close()
    assert main(check) == 0
    assert main([*check, "--workspace", str(tmp_path / "other")]) == 2
    assert "$.record speaks of" in capsys.readouterr().out
    assert main([*check, "--workspace", str(tmp_path / "missing")]) == 2
    assert "--workspace must be a folder with the record ravl.db" in capsys.readouterr().err
    assert not (tmp_path / "missing").exists()
