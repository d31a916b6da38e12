"""Taking over decisions of another audit: boxes and features are matched by overlap, and no decision is replaced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ravl import export
from ravl.cli import deciding, main
from ravl.config import AuditConfig
from ravl.errors import ConfigError
from ravl.export.check import problems
from ravl.importing import OVERLAP, SAME, Imported, same_boxes, take_over
from ravl.ledger import Ledger, seen_digest
from ravl.store import AuditRun
from ravl.tables import Clustering, Families, FeatureScores, ImageSet, Regions, ZeroShot

FILES = ("a/1.png", "a/2.png", "b/3.png", "b/4.png")
NOISE = -1


def make_run(
    workspace: Path, name: str, label: list[int], files: tuple[str, ...] = FILES, side: int = 8, shift: int = 0
) -> AuditRun:
    """Two regions an image, left and right, shifted down by some pixels; label: feature of each region, in order."""
    run = AuditRun.create(workspace, name, AuditConfig(f"/{name}", "demo"), {"data": name, "model": "m"})
    n, features = len(files), max(label) + 1
    size = np.full((n, 2), side)
    run.stage("images", lambda: ImageSet(f"/{name}", np.array(files), np.arange(n) % 2, size, ("cat", "eel")))
    box = np.tile([[0, shift, 4, 8], [4, shift, 8, 8]], (n, 1))
    run.stage("regions", lambda: Regions(np.repeat(np.arange(n), 2), box, np.tile([0, 1], n), n))
    run.stage("zero_shot", lambda: ZeroShot(np.full((n, 2), 0.5), np.full((2 * n, 2), 0.5), np.arange(n) % 2))
    ones, flat = np.ones(features), np.ones((features, 2))
    places = np.arange(features)
    centers = (np.zeros((1, 3)), np.zeros(3), np.ones((2, 3)))
    run.stage("clusters", lambda: Clustering(np.array(label), np.ones(len(label)), places, *centers, flat, ones))
    run.stage("families", lambda: Families(places, np.full(features, "")))
    regions = np.array([label.count(feature) for feature in range(features)])
    images = np.array([len({i // 2 for i, own in enumerate(label) if own == f}) for f in range(features)])
    numbers = (places, np.ones(features), *[ones / 2] * 2, *[ones > 0] * 2, regions, images, *[np.zeros(features)] * 2)
    run.stage("features", lambda: FeatureScores(*numbers, *[np.zeros((features, 2))] * 5))
    return run


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    book = Ledger(tmp_path)
    yield book
    book.close()


def listed(run: AuditRun, ledger: Ledger, *features: int) -> dict[str, Any]:
    """The list of a run in which these features are confirmed."""
    for feature in features:
        seen = seen_digest(np.flatnonzero(run.feature_label() == feature))
        ledger.add_verdict(run.id, feature, "eel", "spurious", "Ada", seen, f"mark {feature}", "not a cat")
    document = export.confirmed(run, ledger)
    assert problems(document) == []
    return document


def outcomes(found: Imported) -> list[tuple[int, str, int | None]]:
    return [(entry.feature, entry.outcome, entry.match) for entry in found.found]


# --- boxes -----------------------------------------------------------------------------------------------------------

CORNERS = arrays(np.int64, st.tuples(st.integers(0, 4), st.just(4)), elements=st.integers(0, 9))


def boxes(corners: np.ndarray) -> np.ndarray:
    low = np.minimum(corners[:, :2], corners[:, 2:])
    return np.concatenate([low, np.maximum(corners[:, :2], corners[:, 2:]) + 1], 1).reshape(-1, 4)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Pixel by pixel."""
    pixels = [{(x, y) for x in range(b[0], b[2]) for y in range(b[1], b[3])} for b in (one, other)]
    return len(pixels[0] & pixels[1]) / len(pixels[0] | pixels[1])


@given(CORNERS, CORNERS)
def test_boxes_are_matched_one_to_one_the_best_first(one: np.ndarray, other: np.ndarray) -> None:
    """The greedy rule, written a second time."""
    one, other = boxes(one), boxes(other)
    pairs = sorted(((-overlap(a, b), i, j) for i, a in enumerate(one) for j, b in enumerate(other)))
    free, found = set(range(len(one))), set()
    for negative, i, j in pairs:
        if -negative >= SAME and i in free and j not in found:
            free.remove(i)
            found.add(j)
    assert same_boxes(one, other).tolist() == sorted(found)


def test_large_boxes_do_not_overflow() -> None:
    large = np.array([[0, 0, 60_000, 60_000]], np.int32)
    assert same_boxes(large, large).tolist() == [0]


# --- features --------------------------------------------------------------------------------------------------------


def test_the_same_regions_under_another_number(tmp_path: Path, ledger: Ledger) -> None:
    there = make_run(tmp_path, "there", [0, 1, 0, 1, 0, NOISE, NOISE, 1])
    here = make_run(tmp_path, "here", [2, 0, 2, 0, 2, 1, 1, 0], shift=1)
    document = listed(there, ledger, 1, 0)
    found = take_over(document, here, ledger, " Cleo ")
    assert outcomes(found) == [(0, "taken over", 2), (1, "taken over", 0)]
    assert (found.source, found.common, found.images) == (there.id, 4, 4)
    assert [(entry.regions, entry.others, entry.shared, entry.overlap) for entry in found.found] == [(3, 3, 3, 1.0)] * 2
    verdict = ledger.verdicts(here.id)[2]
    assert (verdict.decision, verdict.reviewer, verdict.name, verdict.pull_class) == (
        "spurious",
        "Cleo",
        "mark 0",
        "eel",
    )
    assert verdict.note.startswith(f"Imported from {there.id}, review again: there Ada called feature 0 spurious on 2")
    assert "3 regions are the same, of 3 there and 3 here. Their note: not a cat" in verdict.note
    assert verdict.seen == "imported:" + seen_digest(np.array([0, 2, 4]))
    again = export.confirmed(here, ledger)
    assert [feature["seen_matches"] for feature in again["features"]] == [False, False]
    assert problems(again) == []
    event = ledger.entries()[-1].event or {}
    assert (event["event"], event["from"], event["sha256"]) == ("import", there.id, document["sha256"])
    assert event["verdicts"] == [verdict.id for verdict in ledger.history(here.id)]


def test_the_share_that_is_needed(tmp_path: Path, ledger: Ledger) -> None:
    """Three of the four regions there and one more here: 3 of 5."""
    there = make_run(tmp_path, "there", [0, 0, 0, 0, NOISE, NOISE, NOISE, NOISE])
    here = make_run(tmp_path, "here", [0, 0, 0, NOISE, NOISE, 0, 1, 1])
    document = listed(there, ledger, 0)
    for least, outcome in ((0.61, "different"), (0.6, "taken over")):
        [entry] = take_over(document, here, ledger, "Cleo", least).found
        assert (entry.outcome, entry.match, entry.shared, entry.overlap) == (outcome, 0, 3, pytest.approx(0.6))
    assert [entry.kind for entry in ledger.entries()] == ["verdict", "verdict", "import"]  # nothing for the first


def test_a_decision_is_never_replaced(tmp_path: Path, ledger: Ledger) -> None:
    label = [0, 1, 0, 1, 0, 1, 0, 1]
    there, here = make_run(tmp_path, "there", label), make_run(tmp_path, "here", label)
    document = listed(there, ledger, 0, 1)
    ledger.add_verdict(here.id, 0, "", "core", "Bo", "ff")
    found = take_over(document, here, ledger, "Cleo")
    assert outcomes(found) == [(0, "decided before", 0), (1, "taken over", 1)]
    assert (found.found[0].decision, ledger.verdicts(here.id)[0].decision) == ("core", "core")
    again = take_over(document, here, ledger, "Cleo")
    assert [entry.outcome for entry in again.found] == ["decided before"] * 2
    assert len(ledger.history(here.id)) == 2


def test_one_feature_here_is_taken_once(tmp_path: Path, ledger: Ledger) -> None:
    """Here both are one feature: the larger one gets it, the other is told what it overlaps with."""
    there = make_run(tmp_path, "there", [0, 0, 0, 0, 0, 0, 1, 1])
    here = make_run(tmp_path, "here", [0] * 8)
    found = take_over(listed(there, ledger, 0, 1), here, ledger, "Cleo", least=0.2)
    assert outcomes(found) == [(0, "taken over", 0), (1, "different", 0)]
    assert [entry.overlap for entry in found.found] == [0.75, 0.25]


def test_only_common_images_count(tmp_path: Path, ledger: Ledger) -> None:
    """Known by path, or by a file name that is unique in both; never by a name that two have, nor of another size."""
    there = make_run(tmp_path, "there", [0, NOISE] * 4)
    moved = ("x/1.png", "x/2.png", "y/2.png", "b/4.png", "new.png")
    here = make_run(tmp_path, "here", [0, NOISE] * 5, moved)
    found = take_over(listed(there, ledger, 0), here, ledger, "Cleo")
    assert (found.common, found.images) == (2, 4)
    [entry] = found.found
    assert (entry.outcome, entry.regions, entry.others, entry.shared) == ("taken over", 2, 2, 2)
    larger = make_run(tmp_path, "larger", [0, NOISE] * 4, side=9)
    found = take_over(export.confirmed(there, ledger), larger, ledger, "Cleo")
    assert (found.common, outcomes(found)) == (0, [(0, "none", None)])


def test_no_common_region(tmp_path: Path, ledger: Ledger) -> None:
    there = make_run(tmp_path, "there", [0, NOISE] * 4)
    here = make_run(tmp_path, "here", [NOISE, 0] * 4)
    assert outcomes(take_over(listed(there, ledger, 0), here, ledger, "Cleo")) == [(0, "none", None)]
    empty = make_run(tmp_path, "empty", [0] * 8)
    assert take_over(listed(empty, ledger), here, ledger, "Cleo").found == ()
    assert ledger.history(here.id) == []


def test_what_cannot_be_imported(tmp_path: Path, ledger: Ledger) -> None:
    there, here = (make_run(tmp_path, name, [0] * 8) for name in ("there", "here"))
    document = listed(there, ledger, 0)
    with pytest.raises(ConfigError, match="must be the list of another run"):
        take_over(document, there, ledger, "Cleo")
    with pytest.raises(ConfigError, match="--reviewer must be a name"):
        take_over(document, here, ledger, " ")
    for least in (0.0, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="--overlap must be above 0 and at most 1"):
            take_over(document, here, ledger, "Cleo", least)
    assert ledger.history(here.id) == []


def test_the_command(tmp_path: Path, ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    label = [0, 1, 0, 1, 0, 1, 0, 1]
    there, here = make_run(tmp_path, "there", label), make_run(tmp_path, "here", label)
    file = tmp_path / "list.json"
    file.write_text(export.as_json(listed(there, ledger, 0, 1)))
    call = ["import", "--workspace", str(tmp_path), "--run", here.id, str(file), "--reviewer", "Cleo"]
    ledger.add_verdict(here.id, 1, "", "core", "Bo", "ff")
    assert main([*call, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["run"], told["from"], told["least"], told["common_images"]) == (here.id, there.id, OVERLAP, 4)
    assert [(entry["outcome"], entry["overlap"]) for entry in told["features"]] == [
        ("taken over", 1.0),
        ("decided before", 1.0),
    ]
    assert main(call) == 0
    out = capsys.readouterr().out
    assert "0 of 2 features of" in out
    assert "mark 1: is feature 1, which a person called core before; that stands (overlap 1.00: 4 common" in out
    log = tmp_path / "log.json"
    log.write_text(export.text(there, ledger, "log"))
    assert main([*call[:5], str(log), *call[6:]]) == 2
    assert "must be a list of confirmed features, got ravl.audit-log" in capsys.readouterr().err
    file.write_text(file.read_text().replace("mark 0", "mark 9"))
    assert main(call) == 2
    assert "$.sha256 must be the digest of the rest" in capsys.readouterr().err
    assert deciding.OVERLAP == OVERLAP
