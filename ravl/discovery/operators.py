"""Ways to remove regions from an image before it is classified again.

token_drop   a vision transformer leaves the regions' patch tokens out; nothing else changes
mean_fill    they are painted in the image's mean colour
blur         they are blurred until nothing can be told
inpaint      they are filled in from their edges (Telea 2004)
transplant   they show what another image of the same class, without the feature, has at that place

Each disturbs an image in its own way, which is why no claim rests on a single one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ravl.config import OPERATORS
from ravl.data.painting import Masks, blur, fill_mean, inpaint, transplant
from ravl.errors import ModelError
from ravl.vlm.interface import VisionLanguageModel

Painter = Callable[[Image.Image, NDArray[np.integer[Any]], Masks], Image.Image]

PAINTERS: dict[str, Painter] = {"mean_fill": fill_mean, "blur": blur, "inpaint": inpaint}


def usable(vlm: VisionLanguageModel, wanted: Sequence[str]) -> tuple[str, ...]:
    """Those of the wanted operators that a model can apply, in the order of OPERATORS.

    Painting works for every model, dropping tokens only for one that has them. Raises ModelError when none is left.
    """
    can = {name for name in OPERATORS if name != "token_drop" or vlm.drops_tokens}
    left = tuple(name for name in OPERATORS if name in wanted and name in can)
    if not left:
        raise ModelError(
            f"the model must be able to remove regions by one of {', '.join(wanted)}, but {vlm.name} cannot. "
            f"Choose among {', '.join(sorted(can))}."
        )
    return left


@dataclass(frozen=True)
class Removed:
    """Images without some of their regions. vector: (B, D) unit vectors. possible: (B,) bool, whether the operator
    could be applied; the vector is 0 where not."""

    vector: NDArray[np.float32]
    possible: NDArray[np.bool_]


def encode_removed(
    vlm: VisionLanguageModel,
    images: Sequence[Image.Image],
    boxes: Sequence[NDArray[np.integer[Any]]],
    masks: Sequence[Masks],
    operator: str,
    donors: Sequence[Image.Image | None],
) -> Removed:
    """Embed the images without their boxes (n_i, 4).

    masks: per image as in `ravl.data.painting`. donors: for transplant; a row whose donor is None is not possible, nor
    is a row of token_drop where no patch would be left out. Raises ModelError for vectors that are not finite.
    """
    whole = [many or [None] * len(own) for own, many in zip(boxes, masks, strict=True)]
    possible = np.ones(len(images), bool)
    if operator == "token_drop":
        possible = _holds_patches(vlm, images, boxes, whole)
    elif operator == "transplant":
        possible = np.array([donor is not None for donor in donors], bool)
    rows = np.flatnonzero(possible).tolist()
    vector = np.zeros((len(images), vlm.dim), np.float32)
    if rows:
        own = ([images[r] for r in rows], [boxes[r] for r in rows], [whole[r] for r in rows])
        vector[rows] = _encode(vlm, *own, operator, [donors[r] for r in rows])
    if not np.isfinite(vector).all():
        raise ModelError(
            f"the model must answer with finite numbers, got NaN or infinity from {vlm.name}. Check its weights."
        )
    return Removed(vector, possible)


def _encode(
    vlm: VisionLanguageModel,
    images: list[Image.Image],
    boxes: list[NDArray[np.integer[Any]]],
    masks: list[Sequence[NDArray[np.bool_] | None]],
    operator: str,
    donors: list[Image.Image | None],
) -> NDArray[np.float32]:
    if operator == "token_drop":
        return vlm.encode_without(images, boxes, masks)
    if operator == "transplant":
        rows = zip(images, boxes, masks, donors, strict=True)
        return vlm.encode_images([transplant(i, b, m, d) for i, b, m, d in rows if d is not None])
    painter = PAINTERS[operator]
    return vlm.encode_images([painter(i, b, m) for i, b, m in zip(images, boxes, masks, strict=True)])


def _holds_patches(
    vlm: VisionLanguageModel,
    images: Sequence[Image.Image],
    boxes: Sequence[NDArray[np.integer[Any]]],
    masks: Sequence[Sequence[NDArray[np.bool_] | None]],
) -> NDArray[np.bool_]:
    """(B,) whether any patch of an image lies in its boxes."""
    owner = np.repeat(np.arange(len(images)), [len(own) for own in boxes])
    sizes = np.array([i.size for i in images]).reshape(-1, 2)[owner]
    flat = np.concatenate([np.asarray(own).reshape(-1, 4) for own in boxes]) if len(boxes) else np.zeros((0, 4), int)
    counts = vlm.patch_counts(sizes, flat, [mask for many in masks for mask in many])
    holds: NDArray[np.bool_] = np.bincount(owner, weights=counts, minlength=len(images)) > 0
    return holds
