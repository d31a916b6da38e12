"""The map's arithmetic against slow oracles: membership of a polygon, counts, and the sample."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dashboard.reading import opened, selection
from ravl.store import AuditRun
from tests.dashboard.conftest import make_map

SQUARE = ((0.0, 0.0), (2.0, 0.0), (2.0, 2.0), (0.0, 2.0))


def winding_is_odd(x: float, y: float, shape: selection.Shape) -> bool:
    """The even-odd rule, one edge at a time: how many edges does a ray to the right cross?"""
    crossings = 0
    for number, (x0, y0) in enumerate(shape):
        x1, y1 = shape[(number + 1) % len(shape)]
        if (y0 > y) != (y1 > y):
            at = x0 + (y - y0) / (y1 - y0) * (x1 - x0)
            crossings += at > x
    return crossings % 2 == 1


def test_inside_a_square_and_a_dart() -> None:
    points = np.array([(1, 1), (3, 1), (-1, 1), (1, 3), (1.9, 1.9), (np.nan, 1), (np.inf, 1)])
    assert selection.inside(points, SQUARE).tolist() == [True, False, False, False, True, False, False]
    dart = ((0.0, 0.0), (4.0, 0.0), (2.0, 1.0), (2.0, 4.0))  # concave at (2, 1)
    assert selection.inside(np.array([(3.0, 1.5), (2.5, 0.5), (1.5, 2.0)]), dart).tolist() == [False, True, True]


def test_a_bow_tie_encloses_both_wings_and_a_double_loop_nothing() -> None:
    bow = ((0.0, 0.0), (2.0, 2.0), (2.0, 0.0), (0.0, 2.0))
    assert selection.inside(np.array([(0.2, 1.0), (1.8, 1.0), (1.0, 0.2)]), bow).tolist() == [True, True, False]
    twice = SQUARE + SQUARE
    assert not selection.inside(np.array([(1.0, 1.0)]), twice).any()


@pytest.mark.parametrize("shape", [(), ((0.0, 0.0),), ((0.0, 0.0), (1.0, 1.0)), ((1.0, 1.0),) * 5])
def test_what_encloses_nothing(shape: selection.Shape) -> None:
    assert not selection.inside(np.array([(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)]), shape).any()


def test_no_points() -> None:
    assert selection.inside(np.zeros((0, 2)), SQUARE).shape == (0,)
    assert selection.enclosed(np.zeros((0, 2)), (SQUARE,)).shape == (0,)


numbers = st.integers(-20, 20).map(lambda n: n / 4 + 0.1)  # on no edge of a polygon whose corners are whole


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(0, 40), st.just(2)), elements=numbers),
    st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=3, max_size=9),
)
def test_inside_agrees_with_the_oracle(points: np.ndarray, corners: list[tuple[int, int]]) -> None:
    shape = tuple((float(x), float(y)) for x, y in corners)
    expected = [winding_is_odd(float(x), float(y), shape) for x, y in points]
    close = [edge_distance(x, y, shape) < 1e-5 for x, y in points]
    found = selection.inside(points, shape)
    assert all(skip or got == want for got, want, skip in zip(found, expected, close, strict=True))


def edge_distance(x: float, y: float, shape: selection.Shape) -> float:
    best = np.inf
    for number, (x0, y0) in enumerate(shape):
        x1, y1 = shape[(number + 1) % len(shape)]
        length = (x1 - x0) ** 2 + (y1 - y0) ** 2
        t = 0.0 if not length else min(1.0, max(0.0, ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length))
        best = min(best, float(np.hypot(x - x0 - t * (x1 - x0), y - y0 - t * (y1 - y0))))
    return best


def on_edge(x: float, y: float, shape: selection.Shape) -> bool:
    """Exactly, with fractions."""
    px, py = Fraction(x), Fraction(y)
    for number, (x0, y0) in enumerate(shape):
        (ax, ay), (bx, by) = map(Fraction, (x0, y0)), map(Fraction, shape[(number + 1) % len(shape)])
        turn = (bx - ax) * (py - ay) - (by - ay) * (px - ax)
        if turn == 0 and min(ax, bx) <= px <= max(ax, bx) and min(ay, by) <= py <= max(ay, by):
            return True
    return False


whole = st.integers(-4, 4).map(float)


@settings(max_examples=150, deadline=None)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 40), st.just(2)), elements=whole),
    st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=7),
)
def test_edges_and_corners_are_inside(points: np.ndarray, corners: list[tuple[int, int]]) -> None:
    """Points and corners on one small grid: most points lie on edges, in corners, or at the height of a corner."""
    shape = tuple((float(x), float(y)) for x, y in corners)
    flat = len({x for x, _ in shape}) < 2 or len({y for _, y in shape}) < 2
    for (x, y), found in zip(points.tolist(), selection.inside(points, shape).tolist(), strict=True):
        edge, odd = on_edge(x, y, shape), winding_is_odd(x, y, shape)
        exact = all((y1 - y0) in (0, 1, 2, 4, -1, -2, -4) for (_, y0), (_, y1) in pairwise((*shape, shape[0])))
        if flat:
            assert not found
        elif exact or not edge:  # a third of a whole number has no exact binary fraction
            assert found == (edge or odd), (x, y)


def test_a_box_holds_its_border() -> None:
    points = np.array([(0, 0), (2, 0), (2, 2), (1, 2), (0, 1), (2.0001, 1), (1, -0.0001)])
    assert selection.inside(points, SQUARE).tolist() == [True] * 5 + [False] * 2
    box = np.random.default_rng(0).uniform(-1, 3, (5000, 2)).astype(np.float32)
    expected = ((box >= 0) & (box <= 2)).all(1)
    assert np.array_equal(selection.inside(box, SQUARE), expected)


def test_shapes_of_an_event() -> None:
    event = {
        "selection": {
            "point_indices": [3],
            "box": [{"xref": "x", "yref": "y", "x": [5, 1], "y": [2, 4]}],
            "lasso": [{"xref": "x", "yref": "y", "x": [0, 1, 0], "y": [0, 0, 1]}],
        }
    }
    box, lasso = selection.shapes_of(event)
    assert box == ((1.0, 2.0), (5.0, 2.0), (5.0, 4.0), (1.0, 4.0))
    assert lasso == ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))


@pytest.mark.parametrize(
    "event", [None, {}, {"selection": None}, {"selection": {"points": [], "box": [], "lasso": []}}]
)
def test_an_event_without_shapes(event: dict[str, object] | None) -> None:
    assert selection.shapes_of(event) == ()


def test_enclosed_is_the_union_of_the_shapes() -> None:
    points = np.array([(0.5, 0.5), (10.5, 0.5), (5.0, 5.0)])
    other = ((10.0, 0.0), (11.0, 0.0), (11.0, 1.0), (10.0, 1.0))
    assert selection.enclosed(points, (SQUARE, other)).tolist() == [0, 1]
    assert selection.enclosed(points, ()).tolist() == []


def test_chosen_counts_images_once(run: AuditRun) -> None:
    audit = opened.read_audit(run)
    points = make_map(run.clustering())
    around = ((8.5, 8.5), (11.5, 8.5), (11.5, 11.5), (8.5, 11.5))  # feature 1: the mark
    ids = selection.enclosed(points, (around,))
    assert ids.tolist() == [r for r in range(240) if audit.feature_of[r] == 1]
    assert selection.chosen(audit, ids) == selection.Chosen(27, 27, 15, ((1, 27),))
    everything = selection.chosen(audit, np.arange(240))
    assert (everything.regions, everything.images, everything.wrong) == (240, 60, 18)
    assert everything.features == ((-1, 143), (0, 60), (1, 27), (2, 10))
    assert selection.chosen(audit, np.arange(0)) == selection.Chosen(0, 0, 0, ())


def test_wrong_first(run: AuditRun) -> None:
    audit = opened.read_audit(run)
    right = audit.zero_shot.correct[audit.regions.image]
    order = selection.wrong_first(audit, np.arange(240))
    assert sorted(order.tolist()) == list(range(240))
    assert not right[order[: 4 * 18]].any()
    assert right[order[4 * 18 :]].all()
    assert selection.wrong_first(audit, np.arange(240), only_wrong=True).tolist() == order[: 4 * 18].tolist()


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.int64, st.integers(0, 300), elements=st.integers(-1, 5)), st.integers(1, 120))
def test_sample_keeps_the_share_of_every_group(group: np.ndarray, limit: int) -> None:
    shown = selection.sample(group, limit)
    assert np.array_equal(shown, np.unique(shown))
    assert len(shown) == min(len(group), limit)
    assert np.array_equal(shown, selection.sample(group, limit))
    for value in np.unique(group):
        exact = min(1.0, limit / len(group)) * np.count_nonzero(group == value)
        assert abs(np.count_nonzero(group[shown] == value) - exact) <= len(np.unique(group))


def test_sample_shows_the_smallest_group() -> None:
    group = np.zeros(10_000, int)
    group[17] = 1
    assert 17 in selection.sample(group, 100)


def test_template_is_untouched(template: Path) -> None:
    """Guards the fixture: these tests count on its numbers."""
    assert len(list((template / "images").glob("*/*.png"))) == 60
