"""Regions that a detector or a segmenter proposes: which of its boxes are kept, and how masks become squares.

Kept are, by falling score, boxes of at least `min_score`, cut to what the model sees, whose share of the view lies
between `min_area` and `max_area`, and which overlap no better one by more than `nms` (intersection over union); at most
`most`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ravl.config import RegionsConfig
from ravl.tables import Regions, Report, Step, quiet

_BLOCK = 8  # images decoded at a time


@dataclass(frozen=True)
class Proposed:
    """What a proposer says about one image of W x H pixels.

    box: (n, 4) float x0, y0, x1, y1 in pixels. score: (n,) any order, larger is better. step: side in pixels of the
    squares of a mask. mask: per box None, or (ceil(H / step), ceil(W / step)) bool over the whole image.
    """

    box: NDArray[np.floating[Any]]
    score: NDArray[np.floating[Any]]
    step: int = 1
    mask: Sequence[NDArray[np.bool_] | None] = ()


class Proposer(Protocol):
    """Finds things in images. fingerprint: of its weights and configuration."""

    @property
    def fingerprint(self) -> str: ...

    def propose(self, image: Image.Image) -> Proposed:
        """Boxes of an upright RGB image."""
        ...


def proposed(
    view: NDArray[np.integer[Any]], config: RegionsConfig, proposer: Proposer, images_of: Any, report: Report = quiet
) -> Regions:
    """The regions that a proposer finds in images; an image may have none. They have no common positions.

    view: (I, 4) what the model sees of each image. images_of: decodes images by their ids.
    """
    owner: list[int] = []
    boxes: list[NDArray[np.int64]] = [np.zeros((0, 4), np.int64)]
    steps: list[int] = []
    bits: list[NDArray[np.uint8]] = [np.zeros(0, np.uint8)]
    for start in range(0, len(view), _BLOCK):
        ids = range(start, min(start + _BLOCK, len(view)))
        for i, image in zip(ids, images_of(ids), strict=True):
            found = proposer.propose(image)
            for row, box in zip(*keep(found, np.asarray(view[i], np.int64), config), strict=True):
                mask = found.mask[row] if len(found.mask) else None
                own, step, packed = (box, 0, bits[0]) if mask is None else _squares(mask, found.step, image.size)
                owner.append(i)
                boxes.append(own[None])
                steps.append(step)
                bits.append(packed)
        report(Step("regions", ids.stop, len(view)))
    n = len(owner)
    return Regions(
        np.array(owner, np.int32), np.concatenate(boxes).astype(np.int32), np.full(n, -1, np.int16), len(view),
        np.array(steps, np.int32), np.concatenate(bits),
    )  # fmt: skip


def keep(
    found: Proposed, view: NDArray[np.int64], config: RegionsConfig
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the boxes that are kept, best first, and (k, 4) their whole pixels inside of the view."""
    box, score = np.asarray(found.box, np.float64).reshape(-1, 4), np.asarray(found.score, np.float64)
    good = np.isfinite(box).all(1) & np.isfinite(score) & (score >= config.min_score)
    low = np.maximum(np.floor(np.where(good[:, None], box[:, :2], 0)), view[:2])
    high = np.minimum(np.ceil(np.where(good[:, None], box[:, 2:], 0)), view[2:])
    side = (high - low).clip(0)
    share = side.prod(1) / max(1, int((view[2:] - view[:2]).prod()))
    rows = np.flatnonzero(good & (side > 0).all(1) & (share >= config.min_area) & (share <= config.max_area))
    rows = rows[np.argsort(-score[rows], kind="stable")]
    cut = np.concatenate([low, high], 1).astype(np.int64)
    chosen = rows[suppressed(cut[rows], config.nms)][: config.most]
    return chosen, cut[chosen]


def suppressed(box: NDArray[np.int64], limit: float) -> NDArray[np.int64]:
    """Rows that survive non-maximum suppression of boxes (n, 4), best first: none overlaps a better survivor by more
    than `limit` (intersection over union).
    """
    area = (box[:, 2:] - box[:, :2]).prod(1).astype(np.float64)
    left = np.arange(len(box))
    kept = []
    while len(left):
        best, rest = left[0], left[1:]
        kept.append(best)
        side = np.minimum(box[best, 2:], box[rest, 2:]) - np.maximum(box[best, :2], box[rest, :2])
        shared = side.clip(0).prod(1)
        left = rest[shared <= limit * (area[best] + area[rest] - shared)]
    return np.array(kept, np.int64)


def _squares(
    mask: NDArray[np.bool_], step: int, size: tuple[int, int]
) -> tuple[NDArray[np.int64], int, NDArray[np.uint8]]:
    """Box, step and packed bits of a mask, as `Regions` holds them; a mask that fills its box is none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    corners = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) * step
    box = np.minimum(corners, [*size, *size])
    return box, 0 if part.all() else step, np.packbits(part)[: 0 if part.all() else None]
