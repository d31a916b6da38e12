"""Drawn silhouettes in one quadrant of a scene, in any pose, on a noisy ground."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

from ravl.planted.drawing import Canvas, CutOut, Painted, cloudy, in_quadrants, smooth_mask

CLASSES = ("butterfly", "fish", "tree", "house", "cup", "star")
SIDE = 56

Points = NDArray[np.float64]


def _polygon(*xy: float) -> Points:
    return np.array(xy, np.float64).reshape(-1, 2)


def _ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> Points:
    t = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    u, v = rx * np.cos(t), ry * np.sin(t)
    return np.stack([x + c * u - s * v, y + s * u + c * v], 1)


def _star() -> Points:
    t = -math.pi / 2 + np.arange(10) * math.pi / 5
    radius = np.where(np.arange(10) % 2, 0.4, 1.0)
    return np.stack([radius * np.cos(t), radius * np.sin(t)], 1)


_SHAPES: dict[str, tuple[tuple[bool, Points], ...]] = {
    "butterfly": (
        (True, _ellipse(-0.48, -0.38, 0.52, 0.36, 35)),
        (True, _ellipse(0.48, -0.38, 0.52, 0.36, -35)),
        (True, _ellipse(-0.38, 0.42, 0.38, 0.3, -40)),
        (True, _ellipse(0.38, 0.42, 0.38, 0.3, 40)),
        (True, _ellipse(0, 0, 0.1, 0.75)),
        (False, _ellipse(-0.55, -0.42, 0.16, 0.13)),
        (False, _ellipse(0.55, -0.42, 0.16, 0.13)),
    ),
    "fish": (
        (True, _ellipse(-0.2, 0, 0.75, 0.42)),
        (True, _polygon(0.4, 0, 0.95, -0.5, 0.8, 0, 0.95, 0.5)),
        (True, _polygon(-0.3, -0.3, 0.05, -0.75, 0.2, -0.3)),
        (False, _ellipse(-0.62, -0.1, 0.09, 0.09)),
    ),
    "tree": (
        (True, _polygon(-0.13, 0.4, 0.13, 0.4, 0.13, 0.98, -0.13, 0.98)),
        (True, _polygon(0, -0.98, 0.42, -0.35, -0.42, -0.35)),
        (True, _polygon(0, -0.6, 0.57, 0.1, -0.57, 0.1)),
        (True, _polygon(0, -0.15, 0.7, 0.6, -0.7, 0.6)),
    ),
    "house": (
        (True, _polygon(-0.65, -0.1, 0.65, -0.1, 0.65, 0.85, -0.65, 0.85)),
        (True, _polygon(0, -0.85, 0.9, -0.1, -0.9, -0.1)),
        (False, _polygon(-0.15, 0.3, 0.2, 0.3, 0.2, 0.85, -0.15, 0.85)),
        (False, _polygon(-0.5, 0.1, -0.25, 0.1, -0.25, 0.35, -0.5, 0.35)),
    ),
    "cup": (
        (True, _ellipse(0.5, -0.05, 0.42, 0.42)),
        (False, _ellipse(0.5, -0.05, 0.24, 0.24)),
        (True, _polygon(-0.8, -0.65, 0.5, -0.65, 0.35, 0.75, -0.65, 0.75)),
    ),
    "star": ((True, _star()),),
}
"""Filled areas and holes, drawn in this order, in -1..1."""


def silhouette(name: str, side: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(side, side) opacity of a shape, turned by up to 30 degrees, stretched, and mirrored half of the time."""
    angle = math.radians(rng.uniform(-30, 30))
    stretch = rng.uniform(0.8, 1.0, 2) * (rng.choice((-1, 1)), 1)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    shapes = [(filled, points * stretch @ turn.T) for filled, points in _SHAPES[name]]
    # the pose may reach beyond the square, so it is reduced to fit
    reach = max(float(np.abs(points).max()) for _, points in shapes)

    def draw(d: ImageDraw.ImageDraw, k: int) -> None:
        for filled, points in shapes:
            d.polygon([tuple(p) for p in ((points / reach + 1) / 2 * (side * k - 1))], 255 if filled else 0)

    return smooth_mask(side, side, draw)


def paint(label: int, marks: Sequence[str], split: str, rng: np.random.Generator) -> Painted:
    """A silhouette in one quadrant, each mark in another. The splits differ by their seeds alone."""
    side = int(rng.integers(21, 28))
    opacity = silhouette(CLASSES[label], side, rng) * rng.uniform(0.85, 1.0)
    ink = np.clip(rng.uniform(165, 235) + rng.uniform(-20, 20, 3), 0, 255)
    subject = CutOut(np.broadcast_to(ink, (side, side, 3)), opacity)
    return in_quadrants(_ground(rng), subject, marks, rng)


def _ground(rng: np.random.Generator) -> Canvas:
    level = rng.uniform(40, 80) + 10 * cloudy(SIDE, 7, rng)
    return level[..., None] + rng.normal(0, 12, (SIDE, SIDE, 3))
