"""Patches of real pictures from scikit-image in one quadrant; the splits use different parts of each picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from ravl.planted.drawing import MARKS, Canvas, CutOut, Painted, cloudy, in_quadrants, laid_over

CLASSES = ("brick", "gravel", "coins", "print", "tissue", "stars")
PAIR = ("grass", "gravel")
"""The two classes of the hard world, about equally bright and coarse."""

SIDE = 56
_SOURCES = {"coins": "coins", "print": "page", "tissue": "immunohistochemistry", "stars": "hubble_deep_field"}
"""Names of scikit-image's pictures where they differ from the class."""

_SHARES = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}
_MIN_CONTRAST = 8.0
"""Standard deviation below which a patch is empty paper or bare ground between coins, and drawn again."""


@cache
def _picture(name: str) -> NDArray[np.uint8]:
    """(h, w) grey picture under even light, longer side across."""
    from skimage import data

    grey = Image.fromarray(getattr(data, _SOURCES.get(name, name))()).convert("L")
    grey.thumbnail((512, 512), Image.Resampling.LANCZOS)
    # the light falls from one side; without that the splits' parts would differ in brightness
    light = np.asarray(grey.filter(ImageFilter.GaussianBlur(48)), np.float64)
    picture = np.clip(np.asarray(grey) - light + light.mean(), 0, 255).astype(np.uint8)
    return np.asarray(picture if picture.shape[1] >= picture.shape[0] else picture.T)


def source_area(name: str, split: str) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the part of a class's picture that a split's patches are cut from."""
    height, width = _picture(name).shape
    first, last = _SHARES[split]
    return round(first * width), 0, round(last * width), height


def patch(name: str, split: str, side: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(side, side) grey patch from the split's part of a picture, at a random scale, turn, brightness and contrast."""
    x0, y0, x1, y1 = source_area(name, split)
    # the same scales in all splits, so those that the narrowest part has room for
    narrow = source_area(name, "test")
    room = min(narrow[2] - narrow[0], y1 - y0) / 2 - 1
    while True:
        # half the diagonal of the square that is cut out, so that it stays inside however it is turned
        reach = min(rng.uniform(1.8, 2.8) * side / math.sqrt(2), room * rng.uniform(0.8, 1.0))
        cx, cy = rng.uniform(x0 + reach, x1 - reach), rng.uniform(y0 + reach, y1 - reach)
        angle = math.radians(rng.uniform(-20, 20))
        corners = angle - math.pi * np.array([3, 5, 7, 1]) / 4
        quad = np.stack([cx + reach * np.cos(corners), cy + reach * np.sin(corners)], 1)
        large = Image.fromarray(_picture(name)).transform(
            (2 * side, 2 * side), Image.Transform.QUAD, quad.ravel().tolist(), Image.Resampling.BILINEAR
        )
        grey = np.asarray(large.resize((side, side), Image.Resampling.BOX), np.float64)
        if grey.std() >= _MIN_CONTRAST:
            break
    return np.clip(rng.uniform(0.85, 1.15) * grey + rng.uniform(-12, 12), 0, 255)


def paint(label: int, marks: Sequence[str], split: str, rng: np.random.Generator) -> Painted:
    """A texture in one quadrant of a plain scene, each mark in another."""
    side = int(rng.integers(24, 29))
    grey = patch(CLASSES[label], split, side, rng)
    return in_quadrants(_ground(rng), _square(grey, rng), marks, rng)


def paint_pair(label: int, marks: Sequence[str], split: str, rng: np.random.Generator) -> Painted:
    """One of two textures anywhere, each mark anywhere beside it."""
    side = int(rng.integers(24, 33))
    grey = patch(PAIR[label], split, side, rng)
    x, y = (int(v) for v in rng.integers(0, SIDE - side + 1, 2))
    canvas = laid_over(_ground(rng), _square(grey, rng), x, y)
    subject = (x, y, x + side, y + side)
    taken, boxes = [subject], []
    for mark in marks:
        cut_out = MARKS[mark](rng)
        h, w = cut_out.opacity.shape
        while True:
            x, y = int(rng.integers(0, SIDE - w + 1)), int(rng.integers(0, SIDE - h + 1))
            if all(x >= b[2] or y >= b[3] or x + w <= b[0] or y + h <= b[1] for b in taken):
                break
        canvas = laid_over(canvas, cut_out, x, y)
        boxes.append((x, y, x + w, y + h))
        taken.append(boxes[-1])
    return Painted(canvas, subject, tuple(boxes))


def _ground(rng: np.random.Generator) -> Canvas:
    level = rng.uniform(40, 80) + 6 * cloudy(SIDE, 5, rng)
    return level[..., None] + rng.normal(0, 8, (SIDE, SIDE, 3))


def _square(grey: NDArray[np.float64], rng: np.random.Generator) -> CutOut:
    tint = rng.uniform(0.9, 1.1, 3)
    return CutOut(np.clip(grey[..., None] * tint, 0, 255), np.ones(grey.shape))
