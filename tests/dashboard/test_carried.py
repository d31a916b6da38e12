"""Decisions of an earlier audit: recalled where the regions are mostly the same, never taken over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.choosing.carried import LEAST, carried
from dashboard.reading import opened
from ravl.ledger import Ledger
from ravl.store import AuditRun
from ravl.tables import Verdict
from tests.dashboard.conftest import make_run
from tests.dashboard.screen import open_app, said

LABELS = st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3)), max_size=40)


def verdict(feature: int) -> Verdict:
    return Verdict("old", feature, "eel", "core", "", "", "Ada", "2026-01-01T00:00:00", "d", feature + 1)


@given(LABELS)
def test_the_best_match_by_sets(pairs: list[tuple[int, int]]) -> None:
    """A second way: sets of region ids and their Jaccard index."""
    now, then = np.array(pairs, int).reshape(-1, 2).T
    found = carried("old", now, then, {feature: verdict(feature) for feature in range(4)})
    sets = [{f: set(np.flatnonzero(labels == f).tolist()) for f in range(4)} for labels in (now, then)]
    for feature, item in found.items():
        here, there = sets[0][feature], sets[1][item.verdict.feature]
        assert (item.overlap.right, item.overlap.n) == (len(here & there), len(here | there))
        assert item.overlap.share >= LEAST
    for feature in range(4):
        shares = [len(sets[0][feature] & o) / len(sets[0][feature] | o) for o in sets[1].values() if o]
        assert (feature in found) == (max(shares, default=0) >= LEAST and bool(sets[0][feature])) or any(
            share == LEAST for share in shares
        )  # at exactly a half two features may both be the best


def test_other_regions_recall_nothing() -> None:
    assert carried("old", np.zeros(3, int), np.zeros(4, int), {0: verdict(0)}) == {}
    assert carried("old", np.full(3, -1), np.zeros(3, int), {0: verdict(0)}) == {}
    assert carried("old", np.zeros(3, int), np.zeros(3, int), {7: verdict(7)}) == {}


@pytest.fixture
def earlier(workspace: Path, template: Path, book: Ledger) -> AuditRun:
    """A decided audit, and a newer one of the same data with other settings."""
    [run] = [AuditRun(path.parent) for path in workspace.glob("runs/*/run.json")]
    seen = opened.read_audit(run).seen(1)
    book.add_verdict(run.id, 1, "eel", "spurious", "Ada", seen, "red square")
    make_run(workspace, template / "images", name="newer", extra=2)
    return run


def test_a_newer_audit_asks_to_decide_again(earlier: AuditRun, book: Ledger) -> None:
    app = open_app("review")
    text = said(app)
    assert "Ada called a feature of the earlier audit small spurious “red square” on" in text
    assert "This one has 27 of 27 (100%) of the regions in common with it" in text
    assert "0 of 1 decided" in "\n".join(piece.proto.text for piece in app.get("progress"))
    assert len(book.history(earlier.id)) == 1


def test_the_earlier_audit_is_not_told_of_a_newer_one(earlier: AuditRun) -> None:
    assert "the earlier audit" not in said(open_app("review", run=earlier.id))
