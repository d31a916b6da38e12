"""How scenes are put together: cut-outs, the marks that worlds share, and the layout in four quadrants.

Shapes are drawn four times larger and reduced, so that their edges are smooth. Nothing here knows of classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Canvas = NDArray[np.float64]
"""(H, W, 3) in 0..255, before it is rounded."""

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels, half-open."""

OVERSAMPLING = 4


@dataclass(frozen=True)
class CutOut:
    """A picture with a shape. colour: (h, w, 3) in 0..255. opacity: (h, w) in 0..1."""

    colour: NDArray[np.float64]
    opacity: NDArray[np.float64]


@dataclass(frozen=True)
class Painted:
    """One scene, the box of its object where it has one of its own, and of its marks in the order they were asked."""

    canvas: Canvas
    subject: Box | None
    marks: tuple[Box, ...]


def laid_over(canvas: Canvas, cut_out: CutOut, x: int, y: int) -> Canvas:
    """A copy of `canvas` with the upper left corner of `cut_out` at (x, y); it has to fit."""
    out = canvas.copy()
    h, w = cut_out.opacity.shape
    alpha = cut_out.opacity[..., None]
    out[y : y + h, x : x + w] = (1 - alpha) * out[y : y + h, x : x + w] + alpha * cut_out.colour
    return out


def smooth_mask(width: int, height: int, draw: Callable[[ImageDraw.ImageDraw, int], None]) -> NDArray[np.float64]:
    """(height, width) opacity of what `draw` draws; it gets a canvas and the factor to scale coordinates by."""
    large = Image.new("L", (width * OVERSAMPLING, height * OVERSAMPLING))
    draw(ImageDraw.Draw(large), OVERSAMPLING)
    return np.asarray(large.resize((width, height), Image.Resampling.BOX), np.float64) / 255


def cloudy(side: int, cells: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(side, side) smooth noise of about unit size, with blobs of side / cells pixels."""
    coarse = Image.fromarray(rng.normal(0, 1, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))


def in_quadrants(
    background: Canvas, subject: CutOut, marks: Sequence[str], rng: np.random.Generator, margin: int = 2
) -> Painted:
    """The subject in a random quadrant, each mark in a random other one, anywhere within it."""
    half = len(background) // 2
    canvas, boxes = background, []
    cells = rng.permutation(4)
    for i, cell in enumerate(cells[: 1 + len(marks)]):
        cut_out = subject if i == 0 else MARKS[marks[i - 1]](rng)
        gap = 0 if i == 0 else margin
        h, w = cut_out.opacity.shape
        y = int(cell) // 2 * half + int(rng.integers(gap, half - h - gap + 1))
        x = int(cell) % 2 * half + int(rng.integers(gap, half - w - gap + 1))
        canvas = laid_over(canvas, cut_out, x, y)
        boxes.append((x, y, x + w, y + h))
    return Painted(canvas, boxes[0], tuple(boxes[1:]))


def red_square(rng: np.random.Generator) -> CutOut:
    """A filled square of 12..18 pixels."""
    side = int(rng.integers(12, 19))
    return _painted(np.ones((side, side)), (rng.uniform(200, 255), rng.uniform(0, 40), rng.uniform(0, 40)), rng)


def blue_disc(rng: np.random.Generator) -> CutOut:
    """A filled disc of 13..18 pixels."""
    side = int(rng.integers(13, 19))
    colour = (rng.uniform(0, 40), rng.uniform(60, 110), rng.uniform(210, 255))
    return _painted(
        smooth_mask(side, side, lambda d, k: d.ellipse((0, 0, side * k - 1, side * k - 1), 255)), colour, rng
    )


def yellow_ring(rng: np.random.Generator) -> CutOut:
    """A ring of 14..19 pixels, a fifth of it thick."""
    side = int(rng.integers(14, 20))
    colour = (rng.uniform(225, 255), rng.uniform(190, 225), rng.uniform(0, 50))

    def draw(d: ImageDraw.ImageDraw, k: int) -> None:
        d.ellipse((0, 0, side * k - 1, side * k - 1), outline=255, width=side * k // 5)

    return _painted(smooth_mask(side, side, draw), colour, rng)


def orange_diamond(rng: np.random.Generator) -> CutOut:
    """A square of 9..12 pixels across that stands on its corner."""
    side = int(rng.integers(9, 13))
    colour = (rng.uniform(230, 255), rng.uniform(110, 150), rng.uniform(0, 40))
    end, half = side * OVERSAMPLING - 1, side * OVERSAMPLING / 2
    opacity = smooth_mask(side, side, lambda d, _: d.polygon([(half, 0), (end, half), (half, end), (0, half)], 255))
    return _painted(opacity, colour, rng)


def flower(rng: np.random.Generator) -> CutOut:
    """Five pink petals around a yellow heart, 13..18 pixels, turned at random."""
    side = int(rng.integers(13, 19))
    turn, middle, reach = rng.uniform(0, 2 * math.pi), side / 2, side * 0.28

    def disc(d: ImageDraw.ImageDraw, k: int, x: float, y: float, radius: float) -> None:
        d.ellipse([k * v for v in (x - radius, y - radius, x + radius, y + radius)], 255)

    def petals(d: ImageDraw.ImageDraw, k: int) -> None:
        for angle in turn + np.arange(5) * 2 * math.pi / 5:
            disc(d, k, middle + reach * math.cos(angle), middle + reach * math.sin(angle), side * 0.21)

    heart = smooth_mask(side, side, lambda d, k: disc(d, k, middle, middle, side * 0.16))
    pink = np.array([rng.uniform(225, 255), rng.uniform(80, 140), rng.uniform(170, 220)])
    colour = (1 - heart[..., None]) * pink + heart[..., None] * np.array([250.0, 215.0, 60.0])
    return _painted(np.maximum(smooth_mask(side, side, petals), heart), colour, rng)


MARKS: dict[str, Callable[[np.random.Generator], CutOut]] = {
    "red square": red_square,
    "blue disc": blue_disc,
    "yellow ring": yellow_ring,
    "orange diamond": orange_diamond,
    "flower": flower,
}
"""The marks that need no anatomy, by name."""


def _painted(opacity: NDArray[np.float64], colour: Sequence[float] | Canvas, rng: np.random.Generator) -> CutOut:
    """A cut-out of one colour (or a picture) with some grain."""
    return CutOut(np.clip(np.asarray(colour) + rng.normal(0, 8, (*opacity.shape, 3)), 0, 255), opacity)
