"""What the browser is sent can be read back, and what it sends is checked."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboard.pictures import packing
from dashboard.pictures.packing import LEVELS, Frame

corner = st.tuples(st.integers(0, LEVELS), st.integers(0, LEVELS))
FRAME = Frame((-3.0, 10.0), (5.0, 12.0))


def test_positions_are_shares_of_the_frame() -> None:
    points = np.array([(-3, 10), (5, 12), (1, 11), (np.nan, 11), (1, np.inf)], np.float32)
    frame = packing.frame_of(points)
    assert frame == FRAME
    x, y = packing.positions(points, frame)
    assert x.tolist() == [0, LEVELS, 32768, 0, 32768]
    assert y.tolist()[:3] == [0, LEVELS, 32768]
    assert x.dtype == np.dtype("<u2")


@pytest.mark.parametrize("points", [np.zeros((0, 2)), np.full((3, 2), np.nan), np.full((3, 2), 7.0)])
def test_a_frame_is_never_empty(points: np.ndarray) -> None:
    frame = packing.frame_of(points)
    assert frame.high[0] > frame.low[0]
    assert frame.high[1] > frame.low[1]
    assert packing.positions(points, frame).shape == (2, len(points))


def test_a_message_can_be_read_back() -> None:
    arrays = np.arange(5, dtype="<u2"), np.array([1, 255, 3], np.uint8)
    message = packing.packed({"name": "points", "version": "é"}, *arrays)
    length = int.from_bytes(message[:4], "little")
    assert length % 4 == 0
    assert json.loads(message[4 : 4 + length]) == {"name": "points", "version": "é"}
    assert message[4 + length :] == arrays[0].tobytes() + arrays[1].tobytes()


def test_bits_count_from_the_lowest() -> None:
    mask = np.zeros(11, bool)
    mask[[0, 3, 10]] = True
    assert list(base64.b64decode(packing.bits(mask))) == [0b1001, 0b100]


@settings(max_examples=60, deadline=None)
@given(st.lists(corner, min_size=3, max_size=30))
def test_shapes_keep_their_cells(corners: list[tuple[int, int]]) -> None:
    """There and back, through coordinates and through the address: a reload finds the very same regions."""
    cells = tuple(corners)
    assert packing.to_grid(packing.from_grid(cells, FRAME), FRAME) == cells
    assert packing.read(packing.written((cells, cells))) == (cells, cells)


def test_a_shape_may_leave_the_frame() -> None:
    assert packing.from_grid(((0, LEVELS), (LEVELS // 3, LEVELS // 3), (LEVELS, 0)), FRAME) == pytest.approx(
        np.array([(-11.0, 14.0), (-3.0, 10.0), (13.0, 8.0)])
    )
    assert packing.to_grid(((-1e9, 1e9), (0, 11), (1e9, -1e9)), FRAME) == ((0, LEVELS), (30037, 32768), (LEVELS, 0))


@pytest.mark.parametrize(
    "sent",
    [
        *(None, "x", {}, [], [1, 2], [1, 2, 3, 4], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5, LEVELS + 1], [1, 2, 3, 4, 5, -1]),
        *([1, 2, 3, 4, 5, 6.5], [1, 2, 3, 4, 5, True], [1, 2, 3, 4, 5, None], [0] * (2 * packing.MAX_CORNERS + 2)),
    ],
)
def test_what_is_no_shape(sent: object) -> None:
    assert packing.cells_of(sent) is None


def test_a_sent_shape() -> None:
    assert packing.cells_of([1, 2, 3, 4, 5, LEVELS]) == ((1, 2), (3, 4), (5, LEVELS))


@pytest.mark.parametrize("text", ["", "!", "AAAA", "AAA", "é", "A" * 17, "." * 40])
def test_a_damaged_address_holds_no_shape(text: str) -> None:
    assert packing.read(text) == ()


def test_a_lasso_of_many_corners_can_be_read_back() -> None:
    angle = np.linspace(0, 2 * np.pi, 1237, endpoint=False)
    circle = tuple((1 + 2 * float(np.cos(a)), 11 + float(np.sin(a))) for a in angle)
    cells = packing.to_grid(circle, FRAME)
    assert len(cells) == packing.MAX_CORNERS
    assert packing.read(packing.written((cells,))) == (cells,)
    around = np.array(packing.from_grid(cells, FRAME)) - (1, 11)
    assert np.abs(np.hypot(around[:, 0] / 2, around[:, 1]) - 1).max() < 0.001
    steps = np.diff(np.unwrap(np.arctan2(around[:, 1], around[:, 0] / 2)))
    assert steps.max() < 2 * np.pi / 300  # no part of the way is left out
