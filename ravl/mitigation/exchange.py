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

from ravl.data.painting import fill_mean


@dataclass(frozen=True)
class Exchanged:
    """An image after the exchange.

    image: the argument itself where nothing was exchanged. spurious: (n,) bool, regions that show the feature now.
    removed: (n,) bool, regions painted over: they show nothing, so they are neither relevant nor spurious.
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
) -> Exchanged:
    """Remove the image's spurious regions, or paste one in, each with `probability`. The arguments stay as they are.

    All spurious regions of an image go at once: as long as one is left, the shortcut still works. They are painted in
    the image's mean colour. A pasted crop is stretched over the region it covers; each other region and each crop is
    equally likely.

    boxes: (n, 4) in pixels of the image, not overlapping. spurious: (n,) bool. keep: index of the region that must not
    be covered, or None. bank: crops of spurious regions; empty: nothing is pasted. probability: in [0, 1]. Three random
    numbers are drawn in every case, so that what happens to one image does not depend on those before it.
    """
    chance, where, which = rng.random(3)
    untouched = Exchanged(image, spurious.copy(), np.zeros(len(boxes), bool))
    if chance >= probability:
        return untouched
    if spurious.any():
        return Exchanged(fill_mean(image, boxes[spurious]), np.zeros(len(boxes), bool), spurious.copy())
    places = [i for i in range(len(boxes)) if i != keep]
    if not places or not len(bank):
        return untouched
    place = places[int(where * len(places))]
    x0, y0, x1, y1 = (int(v) for v in boxes[place])
    pasted = image.copy()
    pasted.paste(bank[int(which * len(bank))].resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC), (x0, y0))
    shown = spurious.copy()
    shown[place] = True
    return Exchanged(pasted, shown, np.zeros(len(boxes), bool))
