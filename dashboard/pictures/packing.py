"""What the map's component is sent: positions, colours and selections as bytes that a browser reads at once. Pure.

A frame is the box around all points. Positions go as 16-bit shares of it, and what is drawn comes back on a grid of
65 536 cells over three times the frame (a lasso may leave it). All counting uses the very shapes on that grid, and so
does the address: a reload finds the same regions.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboard.reading.selection import Shape

LEVELS = 65_535
HIDDEN = 255
"""Colour code of a point that is not drawn."""
MAX_CORNERS = 400
"""Corners of one drawn shape; the browser simplifies to fewer."""
MAX_SHAPES = 20

Cells = tuple[tuple[int, int], ...]
"""A shape on the grid."""


@dataclass(frozen=True)
class Frame:
    """The box around all finite points; never empty. low, high: (x, y)."""

    low: tuple[float, float]
    high: tuple[float, float]


def frame_of(points: NDArray[np.floating[Any]]) -> Frame:
    """The frame of points (N, 2)."""
    finite = np.isfinite(points).all(1)
    if not finite.any():
        return Frame((0.0, 0.0), (1.0, 1.0))
    inside = points[finite]
    low, high = inside.min(0).astype(np.float64), inside.max(0).astype(np.float64)
    high = np.where(high > low, high, low + 1)
    return Frame((float(low[0]), float(low[1])), (float(high[0]), float(high[1])))


def packed(header: Mapping[str, Any], *arrays: NDArray[Any]) -> bytes:
    """A JSON header with its length (4 bytes, little-endian) in front, then the arrays, one after the other."""
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 4)  # arrays begin at a multiple of 4
    return b"".join((len(text).to_bytes(4, "little"), text, *(np.ascontiguousarray(a).tobytes() for a in arrays)))


def positions(points: NDArray[np.floating[Any]], frame: Frame) -> NDArray[np.uint16]:
    """(2, N) little-endian: x of all points as shares of the frame, then y. Points that are not finite lie at 0."""
    low, high = np.array(frame.low), np.array(frame.high)
    share = np.nan_to_num((points.astype(np.float64) - low) / (high - low), nan=0.0, posinf=0.0, neginf=0.0)
    placed: NDArray[np.uint16] = np.rint(share.clip(0, 1) * LEVELS).T.astype("<u2")
    return placed


def bits(mask: NDArray[np.bool_]) -> str:
    """A mask as base64, eight points a byte, the first in the lowest bit."""
    return base64.b64encode(np.packbits(mask, bitorder="little").tobytes()).decode("ascii")


def to_grid(shape: Shape, frame: Frame) -> Cells:
    """A shape on the grid; of more than MAX_CORNERS corners as many, evenly along it."""
    (x0, y0), (x1, y1) = frame.low, frame.high
    kept = list(range(len(shape)))
    if len(shape) > MAX_CORNERS:  # else it could not be read back
        kept = [place * len(shape) // MAX_CORNERS for place in range(MAX_CORNERS)]
    return tuple((_cell(shape[i][0], x0, x1), _cell(shape[i][1], y0, y1)) for i in kept)


def _cell(value: float, low: float, high: float) -> int:
    share = ((value - low) / (high - low) + 1) / 3
    return round(min(max(share, 0.0), 1.0) * LEVELS)


def from_grid(cells: Cells, frame: Frame) -> Shape:
    """A shape on the grid, in the coordinates of the points."""
    (x0, y0), (x1, y1) = frame.low, frame.high
    return tuple((x0 + (3 * gx / LEVELS - 1) * (x1 - x0), y0 + (3 * gy / LEVELS - 1) * (y1 - y0)) for gx, gy in cells)


def cells_of(flat: Any) -> Cells | None:
    """A shape as the browser sends it, [x0, y0, x1, y1, ...] on the grid; None for anything else."""
    if not isinstance(flat, list) or len(flat) % 2 or not 6 <= len(flat) <= 2 * MAX_CORNERS:
        return None
    if not all(type(value) is int and 0 <= value <= LEVELS for value in flat):
        return None
    return tuple(zip(flat[::2], flat[1::2], strict=True))


def written(shapes: tuple[Cells, ...]) -> str:
    """Shapes as text for an address: base64 of 16-bit corners, shapes joined with dots."""
    return ".".join(
        base64.urlsafe_b64encode(np.array(cells, "<u2").tobytes()).decode("ascii").rstrip("=") for cells in shapes
    )


def read(text: str) -> tuple[Cells, ...]:
    """The shapes of such a text; none when it is damaged."""
    shapes = []
    for part in text.split(".")[:MAX_SHAPES] if text else ():
        try:
            raw = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
        except ValueError:
            return ()
        cells = cells_of(np.frombuffer(raw, "<u2").tolist()) if len(raw) % 4 == 0 else None
        if cells is None:
            return ()
        shapes.append(cells)
    return tuple(shapes)
