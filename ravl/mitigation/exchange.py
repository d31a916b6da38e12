"""Region exchange: break the correlation in the training pixels themselves.

With probability p a spurious region is removed from its image, and with probability p a crop from a bank of spurious
regions is pasted into an image that has none, over a region that is not the image's best one for its own class. So the
feature appears with every class and is missing with every class. Deviation: the paper only changes the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ravl.data.painting import fill_mean, paste, stretched


@dataclass(frozen=True)
class Exchanged:
    """An image after the exchange.

    image: the argument itself where nothing was exchanged. spurious: (n,) bool, regions that show the feature now.
    removed: (n,) bool, regions painted over, at least by half: they are neither relevant nor spurious any more.
    """

    image: Image.Image
    spurious: NDArray[np.bool_]
    removed: NDArray[np.bool_]


def exchange(
    image: Image.Image,
    boxes: NDArray[np.integer[Any]],
    spurious: NDArray[np.bool_],
    keep: int | None,
    bank: Sequence[Image.Image],
    probability: float,
    rng: np.random.Generator,
    masks: Sequence[NDArray[np.bool_] | None] | None = None,
) -> Exchanged:
    """Remove the image's spurious regions, or paste one in, each with `probability`. The arguments stay as they are.

    All spurious regions of an image go at once: as long as one is left, the shortcut still works. They are painted in
    the image's mean colour. A pasted crop is stretched over the box it is put in; each box that leaves at least half of
    the region to keep, and each crop, is equally likely. Regions may overlap: one that is covered by more than half is
    removed, or spurious, like the one that was meant.

    boxes: (n, 4) in pixels of the image. spurious: (n,) bool. keep: index of the region that must not be covered, or
    None. bank: crops of spurious regions; one with an alpha channel covers where it is opaque; empty: nothing is
    pasted. probability: in [0, 1]. Three random numbers are drawn in every case, so that what happens to one image does
    not depend on those before it. masks: per box the part that is the region, (h, w) bool, or None for all of it.
    """
    parts = [None] * len(boxes) if masks is None else list(masks)
    chance, where, which = rng.random(3)
    untouched = Exchanged(image, spurious.copy(), np.zeros(len(boxes), bool))
    if chance >= probability:
        return untouched
    area = np.zeros((image.height, image.width), bool)
    if spurious.any():
        gone = np.flatnonzero(spurious)
        for i in gone:
            area[_inside(boxes[i])] |= True if parts[i] is None else parts[i]
        filled = fill_mean(image, boxes[gone], [parts[i] for i in gone])
        return Exchanged(filled, np.zeros(len(boxes), bool), spurious | _covered(area, boxes, parts))
    places = [i for i in range(len(boxes)) if keep is None or not _hides(boxes[i], boxes[keep], parts[keep])]
    if not places or not len(bank):
        return untouched
    place = places[int(where * len(places))]
    crop = stretched(bank[int(which * len(bank))], boxes[place])
    area[_inside(boxes[place])] = np.asarray(crop.getchannel("A")) > 0 if crop.mode == "RGBA" else True
    if not area.any():  # a thin mask may vanish when it is scaled down
        return untouched
    pasted = paste(image, crop, boxes[place])
    shown = _covered(area, boxes, parts)
    shown[place] = True
    return Exchanged(pasted, shown, np.zeros(len(boxes), bool))


def _inside(box: NDArray[np.integer[Any]]) -> tuple[slice, slice]:
    x0, y0, x1, y1 = (int(v) for v in box)
    return slice(y0, y1), slice(x0, x1)


def _covered(
    area: NDArray[np.bool_], boxes: NDArray[np.integer[Any]], masks: Sequence[NDArray[np.bool_] | None]
) -> NDArray[np.bool_]:
    """(n,) whether more than half of each region lies in an area (H, W) of the image."""
    shares = [area[_inside(box)][... if mask is None else mask].mean() for box, mask in zip(boxes, masks, strict=True)]
    return np.array(shares).reshape(len(boxes)) > 0.5


def _hides(place: NDArray[np.integer[Any]], box: NDArray[np.integer[Any]], mask: NDArray[np.bool_] | None) -> bool:
    """Whether a box covers more than half of a region."""
    area = np.zeros((int(box[3] - box[1]), int(box[2] - box[0])), bool)
    corner = np.tile(box[:2], 2)
    area[_inside(np.maximum(np.asarray(place, np.int64) - corner, 0))] = True
    return bool(area[... if mask is None else mask].mean() > 0.5)
