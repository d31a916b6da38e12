from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ravl.config import RegionsConfig
from ravl.discovery.regions import choose_encoder, decompose
from ravl.errors import ConfigError


@st.composite
def views(draw):
    k = draw(st.integers(1, 6))
    boxes = []
    for _ in range(draw(st.integers(0, 4))):
        x0, y0 = draw(st.integers(0, 30)), draw(st.integers(0, 30))
        boxes.append([x0, y0, x0 + draw(st.integers(k, 40)), y0 + draw(st.integers(k, 40))])
    return k, np.array(boxes, np.int32).reshape(-1, 4)


@settings(deadline=None, max_examples=60)
@given(views())
def test_cells_cover_the_view_exactly_once_and_nothing_else(case):
    k, view = case
    regions = decompose(view, RegionsConfig(k=k))
    assert len(regions) == len(view) * k * k
    assert regions.n_images == len(view)
    for i, (x0, y0, x1, y1) in enumerate(view):
        painted = np.zeros((80, 80), int)
        for a, b, c, d in regions.box[regions.rows_of(i)]:
            assert a < c
            assert b < d
            painted[b:d, a:c] += 1
        inside = np.zeros((80, 80), int)
        inside[y0:y1, x0:x1] = 1
        assert np.array_equal(painted, inside)


def test_positions_run_row_by_row_and_cuts_are_rounded():
    regions = decompose(np.array([[10, 0, 17, 4], [0, 5, 4, 9]]), RegionsConfig(k=2))
    # 7 pixels: the cut lies at floor(3.5 + 0.5) = 4
    assert regions.box.tolist()[:4] == [[10, 0, 14, 2], [14, 0, 17, 2], [10, 2, 14, 4], [14, 2, 17, 4]]
    assert regions.position.tolist() == [0, 1, 2, 3] * 2
    assert regions.image.tolist() == [0] * 4 + [1] * 4


def test_cells_differ_by_at_most_one_pixel():
    box = decompose(np.array([[0, 0, 23, 10]]), RegionsConfig(k=5)).box
    width = box[:, 2] - box[:, 0]
    assert set(width) == {4, 5}


@pytest.mark.parametrize("k", [1, 3])
def test_no_images_give_no_regions(k):
    regions = decompose(np.zeros((0, 4), np.int32), RegionsConfig(k=k))
    assert len(regions) == 0
    assert regions.n_images == 0


def test_one_region_is_the_view():
    assert decompose(np.array([[3, 4, 9, 8]]), RegionsConfig(k=1)).box.tolist() == [[3, 4, 9, 8]]


def test_a_view_smaller_than_the_grid_is_refused_with_a_way_out():
    view = np.array([[0, 0, 9, 9], [2, 2, 5, 9]])
    with pytest.raises(ConfigError, match=r"at least 4 x 4 pixels.*got 3 x 7 for image 1 \(1 of 2.*grid:3"):
        decompose(view, RegionsConfig(k=4))
    assert len(decompose(view, RegionsConfig(k=3))) == 18


@pytest.mark.parametrize("box", [[5, 0, 5, 9], [0, 9, 4, 2], [-1, 0, 4, 4]])
def test_boxes_that_are_none_are_refused(box):
    with pytest.raises(ValueError, match="view must hold boxes"):
        decompose(np.array([box]), RegionsConfig(k=1))


@pytest.mark.parametrize(
    ("requested", "counts", "chosen"),
    [
        ("auto", [4, 9], "tokens"),
        ("auto", [4, 3], "crop"),
        ("auto", [0, 0], "crop"),
        ("auto", [], "tokens"),
        ("tokens", [1, 9], "tokens"),
        ("tokens", [], "tokens"),
        ("crop", [0, 9], "crop"),
        ("crop", [9, 9], "crop"),
    ],
)
def test_encoder_choice(requested, counts, chosen):
    assert choose_encoder(requested, np.array(counts, int)) == chosen


def test_tokens_without_a_patch_are_refused():
    with pytest.raises(ConfigError, match=r"got none in 2 of 3 regions.*coarser grid"):
        choose_encoder("tokens", np.array([0, 5, 0]))


def test_unknown_encoder_is_refused():
    with pytest.raises(ValueError, match="auto, tokens or crop, got 'roi'"):
        choose_encoder("roi", np.array([4]))
