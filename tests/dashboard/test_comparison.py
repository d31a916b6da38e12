"""Before and after, and the curves of a training log."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dashboard.reading import comparison
from dashboard.reading.summaries import Rate
from ravl.tables import GroupAccuracy
from tests.dashboard.conftest import AFTER, BEFORE, make_groups


def test_compare() -> None:
    view = comparison.compare(*make_groups(BEFORE, AFTER))
    assert (view.overall.before, view.overall.after) == (Rate(42, 60), Rate(55, 60))
    assert view.worst_before is not None
    assert view.worst_after is not None
    assert (view.worst_before.name, view.worst_before.after) == ("cat with feature 1", Rate(11, 12))
    assert (view.worst_after.name, view.worst_after.before) == ("eel with feature 1", Rate(12, 12))
    assert [row.name for row in view.groups] == ["eel with feature 1", "cat without feature 1", "cat with feature 1"]
    assert [row.change for row in view.groups] == sorted(row.change for row in view.groups)
    assert [row.name for row in view.worse] == ["eel with feature 1"]
    assert view.worse[0].change == pytest.approx(-2 / 12)
    assert {row.name for row in view.classes} == {"cat", "dog *", "eel"}
    assert len(view.features) == 2


def test_groups_without_images_come_last_and_are_not_worse() -> None:
    before, after = make_groups(BEFORE, AFTER)
    empty = np.array([60, 20, 20, 20, 0, 8, 12, 27, 33])
    pair = [
        GroupAccuracy(g.name, g.kind, g.class_index, g.feature, g.present, empty, np.minimum(g.right, empty))
        for g in (before, after)
    ]
    view = comparison.compare(*pair)
    assert view.groups[-1].name == "cat with feature 1"
    assert math.isnan(view.groups[-1].change)
    assert "cat with feature 1" not in [row.name for row in view.worse]


def test_evaluations_of_other_groups_are_refused() -> None:
    before, after = make_groups(BEFORE, AFTER)
    renamed = np.array([*after.name[:-1], "other"])
    other = GroupAccuracy(renamed, after.kind, after.class_index, after.feature, after.present, after.n, after.right)
    with pytest.raises(ValueError, match="same groups"):
        comparison.compare(before, other)


def test_no_groups_at_all() -> None:
    none = GroupAccuracy(*(np.zeros(0, t) for t in (str, str, int, int, int, int, int)))
    view = comparison.compare(none, none)
    assert view.worst_before is view.worst_after is None
    assert view.worse == ()
    assert view.overall.before.n == 0


def test_curves_read_what_the_trainer_logs() -> None:
    log = [
        {"step": 0, "worst_group": 0.2, "overall": 0.7},
        {"step": 10, "loss": 3.0, "contrastive": 2.0, "relevant": math.nan, "spurious": 0.1},
        {"step": 20, "loss": 2.5, "contrastive": 1.5, "relevant": None, "spurious": 0.1},
        {"step": 20, "worst_group": 0.5, "overall": 0.8},
    ]
    losses = comparison.curves(log, comparison.LOSSES)
    assert [(line.name, line.steps, line.values) for line in losses] == [
        ("total", (10.0, 20.0), (3.0, 2.5)),
        ("contrastive", (10.0, 20.0), (2.0, 1.5)),
        ("spurious regions (L_A)", (10.0, 20.0), (0.1, 0.1)),
    ]
    assert [line.values for line in comparison.curves(log, comparison.ACCURACIES)] == [(0.7, 0.8), (0.2, 0.5)]
    assert comparison.curves([], comparison.LOSSES) == ()


@pytest.mark.parametrize("n", [1, 2, 599, 600, 601, 12_345])
def test_long_curves_are_thinned_and_keep_their_end(n: int) -> None:
    log = [{"step": float(i), "loss": float(-i)} for i in range(n)]
    [line] = comparison.curves(log, {"loss": "total"})
    assert len(line.steps) <= comparison.MAX_STEPS + 1
    assert (line.steps[0], line.steps[-1]) == (0.0, n - 1.0)
    assert list(line.steps) == sorted(set(line.steps))
    assert all(value == -step for step, value in zip(line.steps, line.values, strict=True))
