"""A linear vision-language model made of mean colours: it answers the protocol without torch, checkable by hand.

An image's vector is its mean colour; leaving a box out takes its pixels out of the mean. A text's vector is the colour
it names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ravl import audit
from ravl.config import AuditConfig, ClusteringConfig, FamiliesConfig, PromptsConfig, RegionsConfig
from ravl.store import AuditRun
from ravl.vlm.interface import Encoded, Masks

COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}
SIDE = 8
"""Patches per side."""


def unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def shape(box: NDArray[np.integer], mask: NDArray[np.bool_] | None, width: int, height: int) -> NDArray[np.bool_]:
    """(height, width) bool: the pixels of one region of an image."""
    x0, y0, x1, y1 = (int(v) for v in box)
    out = np.zeros((height, width), bool)
    out[y0:y1, x0:x1] = True if mask is None else mask
    return out


@dataclass
class ColourModel:
    """Sees the whole image in SIDE x SIDE patches. dim 3, feature_dim 6 (mean and spread of the colour)."""

    name: str = "colours"
    dim: int = 3
    feature_dim: int = 6
    tau: float = 0.05
    fingerprint: str = "c0"
    preprocessing: str = "p0"
    drops_tokens: bool = True
    encoders: tuple[str, ...] = ("tokens", "crop")
    why: str = "regions are mean colours"

    def view(self, size: NDArray[np.integer]) -> NDArray[np.int32]:
        return np.hstack([np.zeros_like(size), size]).astype(np.int32)

    def patch_counts(
        self,
        size: NDArray[np.integer],
        box: NDArray[np.integer],
        masks: Sequence[NDArray[np.bool_] | None] | None = None,
    ) -> NDArray[np.int64]:
        counts = np.zeros(len(box), np.int64)
        for i, ((width, height), mask) in enumerate(zip(size, masks or [None] * len(box), strict=True)):
            center = (np.arange(SIDE) + 0.5) / SIDE
            shown = shape(box[i], mask, width, height)
            counts[i] = shown[np.ix_((center * height).astype(int), (center * width).astype(int))].sum()
        return counts

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return unit(
            np.array([sum(np.array(c) * (n in t) for n, c in COLOURS.items()) + 1e-3 for t in texts]).reshape(-1, 3)
        )

    def encode_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        return unit(np.array([np.asarray(i).reshape(-1, 3).mean(0) / 255 + 1e-3 for i in images]).reshape(-1, 3))

    def encode_regions(
        self,
        images: Sequence[Image.Image],
        boxes: Sequence[NDArray[np.integer]],
        encoder: str,
        context: float,
        masks: Masks = None,
    ) -> Encoded:
        shown = []
        for image, own, parts in zip(images, boxes, masks or [[None] * len(b) for b in boxes], strict=True):
            pixels = np.asarray(image)
            shown += [pixels[shape(b, m, *image.size)] for b, m in zip(own, parts, strict=True)]
        regions = self.encode_images([Image.fromarray(p[None]) for p in shown])
        feature = [np.hstack([(p / 255).mean(0), (p / 255).std(0)]) for p in shown]
        return Encoded(self.encode_images(images), regions, np.array(feature, np.float32).reshape(-1, 6))

    def encode_without(
        self, images: Sequence[Image.Image], boxes: Sequence[NDArray[np.integer]], masks: Masks = None
    ) -> NDArray[np.float32]:
        means = []
        for image, own, parts in zip(images, boxes, masks or [[None] * len(b) for b in boxes], strict=True):
            pixels = np.asarray(image) / 255
            kept = np.ones(pixels.shape[:2], bool)
            for box, mask in zip(own, parts, strict=True):
                kept &= ~shape(box, mask, *image.size)
            means.append((pixels[kept].mean(0) if kept.any() else np.zeros(3)) + 1e-3)
        return unit(np.array(means).reshape(-1, 3))


def paint(cells: Sequence[str], side: int = 16) -> Image.Image:
    """A side x side image of four quadrants, named row by row."""
    image, half = Image.new("RGB", (side, side)), side // 2
    for place, name in enumerate(cells):
        colour = tuple(round(255 * v) for v in COLOURS[name])
        x, y = half * (place % 2), half * (place // 2)
        image.paste(colour, (x, y, x + half, y + half))
    return image


def painted_folder(folder: Path, n: int) -> Path:
    """`n` pictures as `class/number.png`: quadrants of random colours, labelled by the first."""
    rng = np.random.default_rng(0)
    for i in range(n):
        cells = [str(c) for c in rng.choice(list(COLOURS), 4)]
        path = folder / cells[0] / f"{i:03d}.png"
        path.parent.mkdir(exist_ok=True)
        paint(cells).save(path)
    return folder


def small_audit(images: Path, workspace: Path) -> AuditRun:
    """An audit of a `painted_folder` in which each of six clusters is a feature."""
    config = AuditConfig(
        str(images),
        "colours",
        regions=RegionsConfig(k=2),
        prompts=PromptsConfig(tuple(COLOURS)),
        clustering=ClusteringConfig("kmedoids", k=6),
        families=FamiliesConfig(enabled=False),
    )
    return audit.discover(config, ColourModel(), workspace, "small", until="evidence")
