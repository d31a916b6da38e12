"""A linear vision-language model made of mean colours: it answers the protocol without torch, checkable by hand.

An image's vector is its mean colour; removing a box takes its pixels out of the mean (`token_drop`) or paints them in
the mean colour (`mean_fill`). A text's vector is the colour it names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ravl.vlm.interface import OPERATORS, Encoded

COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}
SIDE = 8
"""Patches per side."""


def unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


@dataclass
class ColourModel:
    """Sees the whole image in SIDE x SIDE patches. dim 3, feature_dim 6 (mean and spread of the colour)."""

    name: str = "colours"
    dim: int = 3
    feature_dim: int = 6
    tau: float = 0.05
    fingerprint: str = "c0"
    preprocessing: str = "p0"
    operators: tuple[str, ...] = OPERATORS

    def view(self, size: NDArray[np.integer]) -> NDArray[np.int32]:
        return np.hstack([np.zeros_like(size), size]).astype(np.int32)

    def patch_counts(self, size: NDArray[np.integer], box: NDArray[np.integer]) -> NDArray[np.int64]:
        center = (np.arange(SIDE) + 0.5) / SIDE
        x, y = center * np.asarray(size)[:, :1], center * np.asarray(size)[:, 1:]
        columns = (x >= box[:, 0:1]) & (x < box[:, 2:3])
        rows = (y >= box[:, 1:2]) & (y < box[:, 3:4])
        return columns.sum(1) * rows.sum(1)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return unit(
            np.array([sum(np.array(c) * (n in t) for n, c in COLOURS.items()) + 1e-3 for t in texts]).reshape(-1, 3)
        )

    def encode_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        return unit(np.array([np.asarray(i).reshape(-1, 3).mean(0) / 255 + 1e-3 for i in images]).reshape(-1, 3))

    def encode_regions(
        self, images: Sequence[Image.Image], boxes: Sequence[NDArray[np.integer]], encoder: str, context: float
    ) -> Encoded:
        crops = [i.crop(tuple(map(int, b))) for i, own in zip(images, boxes, strict=True) for b in own]
        pixels = [np.asarray(c).reshape(-1, 3) / 255 for c in crops]
        feature = np.array([np.hstack([p.mean(0), p.std(0)]) for p in pixels], np.float32).reshape(-1, 6)
        return Encoded(self.encode_images(images), self.encode_images(crops), feature)

    def encode_without(
        self, images: Sequence[Image.Image], boxes: Sequence[NDArray[np.integer]], operator: str
    ) -> NDArray[np.float32]:
        means = []
        for image, own in zip(images, boxes, strict=True):
            pixels = np.asarray(image) / 255
            kept = np.ones(pixels.shape[:2], bool)
            for x0, y0, x1, y1 in own:
                kept[y0:y1, x0:x1] = False
            rest = pixels[kept].mean(0) if kept.any() else np.zeros(3)
            share = kept.mean() if operator == "mean_fill" else 1
            means.append(share * rest + (1 - share) * pixels.reshape(-1, 3).mean(0) + 1e-3)
        return unit(np.array(means).reshape(-1, 3))


def paint(cells: Sequence[str], side: int = 16) -> Image.Image:
    """A side x side image of four quadrants, named row by row."""
    image, half = Image.new("RGB", (side, side)), side // 2
    for place, name in enumerate(cells):
        colour = tuple(round(255 * v) for v in COLOURS[name])
        x, y = half * (place % 2), half * (place // 2)
        image.paste(colour, (x, y, x + half, y + half))
    return image
