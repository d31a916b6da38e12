"""Every format of the export, read back by other programs' rules."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ravl import export, reaudit
from ravl.api import confirmed_features
from ravl.chain import GENESIS, digest
from ravl.cli import deciding, main
from ravl.config import AuditConfig
from ravl.errors import ConfigError, RunError
from ravl.export.check import problems
from ravl.export.lists import as_card
from ravl.export.material import read
from ravl.ledger import Ledger, seen_digest
from ravl.store import AuditRun
from ravl.tables import Clustering, Families, FeatureScores, ImageSet, Regions, ZeroShot

NAN = float("nan")
HEADER = ",".join(export.CSV_COLUMNS) + "\r\n"
FULL = Path("/dev/full")
CLASSES = ("cat", "dög", "eel")
LABEL = np.array([0, 1, -1, 0, 1, 0, -1, 2])
"""Feature of each region; image i has the regions 2 i and 2 i + 1."""
CALLED = (0, 2, 1, 2)
"""Class that each image is called; the second one is wrong."""


@pytest.fixture
def run(tmp_path: Path) -> AuditRun:
    """Four images of two regions each, three features, ranked 1, 0, 2."""
    run = AuditRun.create(tmp_path, "small", AuditConfig("/images", "demo"), {"data": "d", "model": "m"})
    files = np.array(["cat/1.png", "cat/=2.png", "dög/3, 4.png", "eel/5.png"])
    run.stage("images", lambda: ImageSet("/images", files, np.array([0, 0, 1, 2]), np.full((4, 2), 8), CLASSES))
    box = np.tile([[0, 0, 4, 8], [4, 0, 8, 8]], (4, 1))
    run.stage("regions", lambda: Regions(np.repeat(np.arange(4), 2), box, np.tile([0, 1], 4), 4))
    probability = np.full((4, 3), 0.1)
    probability[np.arange(4), CALLED] = 0.8
    zero_shot = ZeroShot(probability, np.full((8, 3), 1 / 3), np.array([0, 0, 1, 2]))
    run.stage("zero_shot", lambda: zero_shot)
    ones = np.ones((3, 2))
    clusters = Clustering(
        LABEL, np.ones(8), [0, 1, 7], np.zeros((1, 3)), np.zeros(3), np.ones((2, 3)), ones, np.ones(3)
    )
    run.stage("clusters", lambda: clusters)
    run.stage("families", lambda: Families(np.arange(3), np.full(3, "")))
    counts = np.arange(9).reshape(3, 3)
    scores = FeatureScores(
        feature=np.array([1, 0, 2]),
        pull_class=np.array([2, -1, 0]),
        influence=np.array([2 / 3, NAN, 0.5]),
        gap=np.array([0.1, NAN, 0.5]),
        two_sided=np.array([True, False, True]),
        passes=np.array([True, False, False]),
        n_regions=np.array([2, 3, 1]),
        n_images=np.array([2, 3, 1]),
        n_errors=np.array([1, 0, 1]),
        n_decided=np.array([1, 0, 0]),
        class_gap=np.array([[-0.25, NAN, 0.5], [NAN, NAN, NAN], [0, 0, 0]]),
        n_in=counts + 1,
        right_in=counts,
        n_out=counts + 3,
        right_out=counts + 2,
    )
    run.stage("features", lambda: scores)
    return run


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    book = Ledger(tmp_path)
    yield book
    book.close()


def decide(ledger: Ledger, run: AuditRun, feature: int, decision: str = "spurious", **more: str) -> None:
    seen = seen_digest(np.flatnonzero(feature == LABEL))
    given = {"pull_class": "eel", "reviewer": "Ada", "seen": seen, "name": "", "note": ""} | more
    ledger.add_verdict(run.id, feature, decision=decision, **given)


def strictly(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_everything_about_a_confirmed_feature(run: AuditRun, ledger: Ledger) -> None:
    decide(ledger, run, 1, name="red square", note="seen on 2 images")
    document = strictly(export.as_json(export.confirmed(run, ledger)))
    verdict = ledger.verdicts(run.id)[1]
    about = run.about
    own = document.pop("sha256")
    assert own == digest(document)
    images = [("cat/1.png", "cat", "cat"), ("cat/=2.png", "cat", "eel"), ("dög/3, 4.png", "dög", "dög")]
    images += [("eel/5.png", "eel", "eel")]
    assert document == {
        "schema": "ravl.confirmed-features",
        "schema_version": 2,
        "record": {"entries": 1, "sha256": ledger.entries()[-1].sha256},
        "class_names": ["cat", "dög", "eel"],
        "images": [
            {"image": image, "width": 8, "height": 8, "label": label, "predicted": predicted}
            for image, label, predicted in images
        ],
        "run": {
            "id": run.id,
            "revision": 0,
            "name": "small",
            "created": about["created"],
            "packages": about["packages"],
            "config": about["config"],
        },
        "fingerprints": {"data": "d", "model": "m"},
        "features": [
            {
                "feature": 1,
                "name": "red square",
                "pull_class": "eel",
                "scores": {
                    "influence": 0.666667,
                    "gap": 0.1,
                    "passes": True,
                    "two_sided": True,
                    "n_regions": 2,
                    "n_images": 2,
                    "n_errors": 1,
                    "n_decided": 1,
                    "per_class": [
                        {"class": "cat", "gap": -0.25, "n_in": 1, "right_in": 0, "n_out": 3, "right_out": 2},
                        {"class": "dög", "gap": None, "n_in": 2, "right_in": 1, "n_out": 4, "right_out": 3},
                        {"class": "eel", "gap": 0.5, "n_in": 3, "right_in": 2, "n_out": 5, "right_out": 4},
                    ],
                },
                "regions": [
                    {"region": 1, "image": "cat/1.png", "box": [4, 0, 8, 8]},
                    {"region": 4, "image": "dög/3, 4.png", "box": [0, 0, 4, 8]},
                ],
                "reviewer": "Ada",
                "at": verdict.at,
                "note": "seen on 2 images",
                "seen": verdict.seen,
                "seen_matches": True,
                "history": [
                    {
                        **{"decision": "spurious", "name": "red square", "pull_class": "eel", "reviewer": "Ada"},
                        **{"at": verdict.at, "note": "seen on 2 images", "seen": verdict.seen},
                    }
                ],
            }
        ],
    }


def test_the_whole_history_of_a_feature(run: AuditRun, ledger: Ledger) -> None:
    for decision in ("unsure", "withdrawn", "spurious"):
        decide(ledger, run, 1, decision)
    decide(ledger, run, 2)
    first = export.confirmed(run, ledger)["features"][0]
    assert [event["decision"] for event in first["history"]] == ["unsure", "withdrawn", "spurious"]


def test_only_what_is_held_to_be_spurious(run: AuditRun, ledger: Ledger) -> None:
    assert export.confirmed(run, ledger)["features"] == []
    decide(ledger, run, 2)
    decide(ledger, run, 1, "core")
    decide(ledger, run, 0)
    assert [feature["feature"] for feature in export.confirmed(run, ledger)["features"]] == [0, 2]
    decide(ledger, run, 2, "unsure")
    decide(ledger, run, 0, "withdrawn")
    decide(ledger, run, 1)
    found = export.confirmed(run, ledger)["features"]
    assert [(feature["feature"], feature["name"]) for feature in found] == [(1, "feature 1")]


def test_undefined_numbers_are_null(run: AuditRun, ledger: Ledger) -> None:
    decide(ledger, run, 0)
    [feature] = strictly(export.as_json(export.confirmed(run, ledger)))["features"]
    assert feature["pull_class"] is None
    assert (feature["scores"]["influence"], feature["scores"]["gap"]) == (None, None)
    assert [row["gap"] for row in feature["scores"]["per_class"]] == [None] * 3
    row = next(csv.DictReader(io.StringIO(export.as_csv(export.confirmed(run, ledger)))))
    assert (row["influence"], row["pull_class"], row["passes"]) == ("", "", "false")


def test_regions_that_are_not_those_that_were_seen(run: AuditRun, ledger: Ledger) -> None:
    decide(ledger, run, 1, seen=seen_digest(np.array([1, 5])))
    assert export.confirmed(run, ledger)["features"][0]["seen_matches"] is False


def test_a_feature_that_is_gone(run: AuditRun, ledger: Ledger) -> None:
    """The clusters were computed again, and are fewer; the decision is still told."""
    decide(ledger, run, 9)
    document = strictly(export.as_json(export.confirmed(run, ledger)))
    [feature] = document["features"]
    assert (feature["scores"], feature["regions"], feature["pull_class"]) == (None, [], None)
    assert feature["name"] == "feature 9"
    [row] = csv.DictReader(io.StringIO(export.as_csv(document), newline=""))
    assert (row["feature"], row["region"], row["image"], row["gap"]) == ("9", "", "", "")


def test_a_row_per_region(run: AuditRun, ledger: Ledger) -> None:
    note = 'a "quoted", two-line\nnote; ü'
    decide(ledger, run, 1, name="red square", note=note)
    decide(ledger, run, 0)
    document = export.confirmed(run, ledger)
    text = export.as_csv(document)
    assert text.startswith(HEADER)
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    expected = [
        (str(feature["feature"]), str(region["region"]), region["image"], [str(x) for x in region["box"]])
        for feature in document["features"]
        for region in feature["regions"]
    ]
    assert [(r["feature"], r["region"], r["image"], [r[k] for k in ("x0", "y0", "x1", "y1")]) for r in rows] == expected
    assert {row["note"] for row in rows if row["feature"] == "1"} == {note}
    assert {row["run"] for row in rows} == {run.id}
    table = pd.read_csv(io.StringIO(text, newline=""))
    assert table["influence"].tolist()[-1] == pytest.approx(0.666667)
    assert table["seen_matches"].tolist() == [True] * 5


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("x")'])
def test_a_spreadsheet_runs_nothing(text: str, run: AuditRun, ledger: Ledger) -> None:
    decide(ledger, run, 1)
    document = export.confirmed(run, ledger)
    feature = document["features"][0] | {"name": text, "note": text, "reviewer": text, "pull_class": text}
    feature["regions"][0]["image"] = text
    row = next(csv.DictReader(io.StringIO(export.as_csv(document | {"features": [feature]}), newline="")))
    for column in ("name", "note", "reviewer", "pull_class", "image"):
        assert row[column] == f"'{text}"
    harmless = next(csv.DictReader(io.StringIO(export.as_csv(document | {"features": [feature | {"name": "a=b"}]}))))
    assert harmless["name"] == "a=b"


def test_an_image_set_without_confirmed_features(run: AuditRun, ledger: Ledger) -> None:
    assert export.as_csv(export.confirmed(run, ledger)) == HEADER


def test_every_format_says_the_same_twice(run: AuditRun, ledger: Ledger) -> None:
    decide(ledger, run, 1, note="ü\nline")
    decide(ledger, run, 0)
    first = {format: export.text(run, ledger, format) for format in export.FORMATS}
    again = Ledger(ledger.path.parent)
    assert {format: export.text(AuditRun(run.path), again, format) for format in export.FORMATS} == first
    again.close()
    assert all(text.endswith("\n") for text in first.values())


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    out = tmp_path / "new" / "a.json"
    for text in ("ü\r\nline", "less"):  # the second time it is replaced
        export.write(text, out)
        assert out.read_bytes() == text.encode()
        assert os.listdir(out.parent) == [out.name]
    (tmp_path / "link").symlink_to(out)
    export.write("", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert out.read_bytes() == b""


def test_an_unknown_format(run: AuditRun, ledger: Ledger) -> None:
    with pytest.raises(ConfigError, match=r"--format must be one of json, csv, coco, .*, got 'xml'"):
        export.text(run, ledger, "xml")


def test_a_made_feature_is_exported_under_its_name(run: AuditRun, ledger: Ledger) -> None:
    ledger.add_grouping(run.id, "select", [0], [1], "Ada", "red square")
    decide(ledger, run, 1)
    assert [feature["name"] for feature in export.confirmed(run, ledger)["features"]] == ["red square"]
    assert list(json.loads(export.text(run, ledger, "artifacts"))) == ["red square"]
    document = json.loads(export.text(run, ledger, "json"))
    assert problems(document, ledger) == []
    assert confirmed_features(run) == {1: "red square"}
    assert reaudit._names(run) == {1: "red square"}
    decide(ledger, run, 1, name="frame")
    assert [verdict.name for verdict in read(run, ledger).confirmed] == ["frame"]
    assert reaudit._names(run) == {1: "frame"}


def test_the_command_counts_what_the_format_names(
    run: AuditRun, ledger: Ledger, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A feature that a merge retired is in the list, and in no file of boxes or images."""
    decide(ledger, run, 7)
    decide(ledger, run, 1)
    given = ("--workspace", str(tmp_path), "--run", run.id, "--out", str(tmp_path / "file"))
    for name, said in {
        **dict.fromkeys(("json", "csv"), 2),
        **dict.fromkeys(("coco", "groups", "artifacts", "card"), 1),
    }.items():
        assert main(["export", *given, "--format", name]) == 0
        told = capsys.readouterr().out
        assert told.startswith(f"{said} confirmed feature{'s' if said > 1 else ''} written to")
        assert ("1 more left out: a merge or a split retired what was decided on" in told) == (said == 1)


def test_the_command_knows_every_format() -> None:
    assert tuple(export.FORMATS) == deciding.FORMATS


# --- other formats ---------------------------------------------------------------------------------------------------


def test_coco(run: AuditRun, ledger: Ledger) -> None:
    """As a reader of COCO takes it: by ids, boxes as x, y, width, height."""
    decide(ledger, run, 1, name="red square")
    decide(ledger, run, 0)
    decide(ledger, run, 9)  # a feature that the run does not have
    document = strictly(export.text(run, ledger, "coco"))
    names = {category["id"]: category["name"] for category in document["categories"]}
    files = {image["id"]: image["file_name"] for image in document["images"]}
    assert sorted(names.values()) == ["feature 0", "red square"]
    assert len(files) == len(document["images"]) == 4
    assert {(image["width"], image["height"]) for image in document["images"]} == {(8, 8)}
    found = [(names[a["category_id"]], files[a["image_id"]], a["bbox"]) for a in document["annotations"]]
    left, right = [0, 0, 4, 8], [4, 0, 4, 8]
    assert found == [
        ("feature 0", "cat/1.png", left),
        ("red square", "cat/1.png", right),
        ("feature 0", "cat/=2.png", right),
        ("red square", "dög/3, 4.png", left),
        ("feature 0", "dög/3, 4.png", right),
    ]
    ids = [annotation["id"] for annotation in document["annotations"]]
    assert len(set(ids)) == len(ids)
    assert min(*ids, *names, *files) == 1
    assert {(annotation["area"], annotation["iscrowd"]) for annotation in document["annotations"]} == {(32, 0)}


def test_groups(run: AuditRun, ledger: Ledger) -> None:
    """The group is the class and, bit by bit, the confirmed features."""
    decide(ledger, run, 1, name="red square")
    decide(ledger, run, 0)
    table = pd.read_csv(io.StringIO(export.text(run, ledger, "groups")))
    assert list(table.columns) == [
        *("image", "label", "label_index", "predicted", "predicted_index", "feature_0", "feature_1"),
        *("group", "group_name"),
    ]
    assert table["image"].tolist() == ["cat/1.png", "cat/=2.png", "dög/3, 4.png", "eel/5.png"]
    assert table["predicted"].tolist() == ["cat", "eel", "dög", "eel"]
    assert table["feature_0"].tolist() == [1, 1, 1, 0]
    assert table["feature_1"].tolist() == [1, 0, 1, 0]
    assert table["group"].tolist() == [0 * 4 + 1 + 2, 0 * 4 + 1, 1 * 4 + 1 + 2, 2 * 4]
    assert table["group_name"].tolist() == [
        "cat with feature 0 and red square",
        "cat with feature 0",
        "dög with feature 0 and red square",
        "eel",
    ]
    assert (table["group"] // 4).tolist() == table["label_index"].tolist()


def test_groups_without_a_confirmed_feature_are_the_classes(run: AuditRun, ledger: Ledger) -> None:
    table = pd.read_csv(io.StringIO(export.text(run, ledger, "groups")))
    assert table["group"].tolist() == table["label_index"].tolist() == [0, 0, 1, 2]
    assert "feature_0" not in table


def test_a_path_of_the_groups_is_no_formula_and_stays_a_path(tmp_path: Path, ledger: Ledger) -> None:
    run = AuditRun.create(tmp_path, "flat", AuditConfig("/images", "demo"), {"data": "e", "model": "m"})
    run.stage("images", lambda: ImageSet("/images", np.array(["=1.png"]), np.array([0]), np.full((1, 2), 8), ("=x",)))
    run.stage("regions", lambda: Regions(np.zeros(0, int), np.zeros((0, 4)), np.zeros(0, int), 1))
    run.stage("zero_shot", lambda: ZeroShot(np.ones((1, 1)), np.ones((0, 1)), np.array([0])))
    none, flat = np.zeros(0), np.zeros((0, 3))
    run.stage(
        "clusters", lambda: Clustering(none, none, none, np.zeros((1, 3)), np.zeros(3), flat, np.zeros((0, 0)), none)
    )
    run.stage("families", lambda: Families(none, np.zeros(0, str)))
    per_class = np.zeros((0, 1))
    run.stage("features", lambda: FeatureScores(*[none] * 10, *[per_class] * 5))
    [row] = csv.DictReader(io.StringIO(export.text(run, ledger, "groups")))
    assert (row["image"], row["label"], row["group_name"]) == ("./=1.png", "'=x", "'=x")
    assert problems(export.confirmed(run, ledger)) == []


def test_artifacts(run: AuditRun, ledger: Ledger) -> None:
    decide(ledger, run, 1, name="mark")
    decide(ledger, run, 0)
    assert strictly(export.text(run, ledger, "artifacts")) == {
        "feature 0": ["cat/1.png", "cat/=2.png", "dög/3, 4.png"],
        "mark": ["cat/1.png", "dög/3, 4.png"],
    }
    decide(ledger, run, 0, name="mark")
    assert set(strictly(export.text(run, ledger, "artifacts"))) == {"mark (feature 0)", "mark (feature 1)"}


def test_the_paragraph_of_a_model_card(run: AuditRun, ledger: Ledger) -> None:
    assert "No feature was confirmed" in as_card(read(run, ledger))
    decide(ledger, run, 1, name="red *square* <b>")
    text = as_card(read(run, ledger))
    assert "right on 3 of 4 images." in text
    assert r"**red \*square\* \<b\>** is confirmed as spurious by Ada, and pulls to eel" in text
    assert "right on 2 of 2 images that show it and on 1 of 2 that do not" in text


def test_the_audit_log(run: AuditRun, ledger: Ledger) -> None:
    assert strictly(export.text(run, ledger, "log"))["entries"] == []
    decide(ledger, run, 1)
    ledger.add_verdict("another", 1, "", "core", "Bo", "ff")
    decide(ledger, run, 1, "withdrawn")
    document = strictly(export.text(run, ledger, "log"))
    assert (document["schema"], document["run"], document["identity"]) == ("ravl.audit-log", run.id, "self-declared")
    first, other, last = document["entries"]
    assert (first["position"], first["previous"], first["event"]["reviewer"]) == (1, GENESIS, "Ada")
    assert other["event"] is None
    assert last["event"]["decision"] == "withdrawn"
    assert problems(document) == []


# --- where it goes ---------------------------------------------------------------------------------------------------


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path, tmp_path / "file" / "a.json"):
        with pytest.raises(RunError, match="could not be written"):
            export.write("text", out)
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.skipif(not FULL.is_char_device(), reason="needs a device that is always full")
def test_a_device_is_written_to_and_stays_one() -> None:
    with pytest.raises(
        RunError, match=r"/dev/full could not be written: No space left on device\. Choose another --out"
    ):
        export.write("text", FULL)
    export.write("text", Path(os.devnull))
    assert FULL.is_char_device()
    assert Path(os.devnull).is_char_device()


def test_a_pipe_is_written_to(run: AuditRun, ledger: Ledger) -> None:
    code = (
        "import sys; from pathlib import Path; from ravl import export; from ravl.ledger import Ledger; "
        "from ravl.store import AuditRun; run = AuditRun(sys.argv[1]); "
        "export.write(export.text(run, Ledger(run.path.parents[1]), 'csv'), Path('/dev/stdout'))"
    )
    command = [sys.executable, "-c", code, str(run.path)]
    done = subprocess.run(command, capture_output=True, check=True, cwd=Path(__file__).parents[1])
    assert done.stdout == HEADER.encode()


def test_a_run_that_is_not_finished(tmp_path: Path, ledger: Ledger) -> None:
    unfinished = AuditRun.create(tmp_path, "begun", AuditConfig("/images", "demo"), {})
    with pytest.raises(RunError, match="has not finished the stage 'images' yet"):
        export.confirmed(unfinished, ledger)
