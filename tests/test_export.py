"""The export of confirmed features, read back by other programs' rules."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ravl import export
from ravl.config import AuditConfig
from ravl.errors import ConfigError, RunError
from ravl.ledger import Ledger, seen_digest
from ravl.store import AuditRun
from ravl.tables import Clustering, Families, FeatureScores, ImageSet, Regions

NAN = float("nan")
HEADER = ",".join(export.CSV_COLUMNS) + "\r\n"
FULL = Path("/dev/full")
CLASSES = ("cat", "dög", "eel")
LABEL = np.array([0, 1, -1, 0, 1, 0, -1, 2])
"""Feature of each region; image i has the regions 2 i and 2 i + 1."""


@pytest.fixture
def run(tmp_path: Path) -> AuditRun:
    """Four images of two regions each, three features, ranked 1, 0, 2."""
    run = AuditRun.create(tmp_path, "small", AuditConfig("/images", "demo"), {"data": "d", "model": "m"})
    files = np.array(["cat/1.png", "cat/=2.png", "dög/3, 4.png", "eel/5.png"])
    run.stage("images", lambda: ImageSet("/images", files, np.array([0, 0, 1, 2]), np.full((4, 2), 8), CLASSES))
    box = np.tile([[0, 0, 4, 8], [4, 0, 8, 8]], (4, 1))
    run.stage("regions", lambda: Regions(np.repeat(np.arange(4), 2), box, np.tile([0, 1], 4), 4))
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
        n_in=counts,
        right_in=counts + 1,
        n_out=counts + 2,
        right_out=counts + 3,
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
    assert datetime.fromisoformat(document.pop("exported")).tzinfo is not None
    verdict = ledger.verdicts(run.id)[1]
    about = run.about
    assert document == {
        "schema": "ravl.confirmed-features",
        "schema_version": 1,
        "run": {
            "id": run.id,
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
                        {"class": "cat", "gap": -0.25, "n_in": 0, "right_in": 1, "n_out": 2, "right_out": 3},
                        {"class": "dög", "gap": None, "n_in": 1, "right_in": 2, "n_out": 3, "right_out": 4},
                        {"class": "eel", "gap": 0.5, "n_in": 2, "right_in": 3, "n_out": 4, "right_out": 5},
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
            }
        ],
    }


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


@pytest.mark.parametrize("format", export.FORMATS)
def test_a_file_is_written_whole(format: str, run: AuditRun, ledger: Ledger, tmp_path: Path) -> None:
    decide(ledger, run, 1, note="ü\nline")
    document = export.confirmed(run, ledger)
    out = tmp_path / "new" / f"a.{format}"
    for _ in range(2):  # the second time it is replaced
        export.write(document, format, out)
        text = export.as_json(document) if format == "json" else export.as_csv(document)
        assert out.read_bytes() == text.encode()
        assert os.listdir(out.parent) == [out.name]
    (tmp_path / "link").symlink_to(out)
    export.write(document | {"features": []}, format, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert len(out.read_bytes()) < len(text.encode())


def test_an_unknown_format(run: AuditRun, ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--format must be one of json, csv, got 'xml'"):
        export.write(export.confirmed(run, ledger), "xml", tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_places_that_cannot_be_written(run: AuditRun, ledger: Ledger, tmp_path: Path) -> None:
    document = export.confirmed(run, ledger)
    (tmp_path / "file").touch()
    for out in (tmp_path, tmp_path / "file" / "a.json"):
        with pytest.raises(RunError, match="could not be written"):
            export.write(document, "json", out)
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.skipif(not FULL.is_char_device(), reason="needs a device that is always full")
def test_a_device_is_written_to_and_stays_one(run: AuditRun, ledger: Ledger) -> None:
    document = export.confirmed(run, ledger)
    with pytest.raises(
        RunError, match=r"/dev/full could not be written: No space left on device\. Choose another --out"
    ):
        export.write(document, "json", FULL)
    export.write(document, "json", Path(os.devnull))
    assert FULL.is_char_device()
    assert Path(os.devnull).is_char_device()


def test_a_pipe_is_written_to(run: AuditRun, ledger: Ledger) -> None:
    code = (
        "import sys; from pathlib import Path; from ravl import export; from ravl.ledger import Ledger; "
        "from ravl.store import AuditRun; run = AuditRun(sys.argv[1]); "
        "export.write(export.confirmed(run, Ledger(run.path.parents[1])), 'csv', Path('/dev/stdout'))"
    )
    command = [sys.executable, "-c", code, str(run.path)]
    done = subprocess.run(command, capture_output=True, check=True, cwd=Path(__file__).parents[1])
    assert done.stdout == HEADER.encode()


def test_a_run_that_is_not_finished(tmp_path: Path, ledger: Ledger) -> None:
    unfinished = AuditRun.create(tmp_path, "begun", AuditConfig("/images", "demo"), {})
    with pytest.raises(RunError, match="has not finished the stage 'images' yet"):
        export.confirmed(unfinished, ledger)
