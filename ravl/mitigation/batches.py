"""Training batches: images after the exchange, their regions and captions, made ahead in the background.

A batch is a function of seed and step alone, so a training can be continued at any step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, compress, cycle
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ravl.config import MitigationConfig
from ravl.data import load_images
from ravl.mitigation.exchange import Exchanged, exchange
from ravl.tables import ImageSet, Regions
from ravl.vlm.transformers_clip import TransformersClip

BANK_SIZE = 256
"""Crops of spurious regions that exchange pastes from."""
CACHE_BYTES = 2**30
"""Image sets of up to so many bytes of pixels stay decoded in memory."""

Read = Callable[[Sequence[int]], list[Image.Image]]
"""Decodes images by their ids, in that order."""


@dataclass(frozen=True)
class TrainingSet:
    """Training images with what the audited model said about their regions.

    spurious: (R,) bool, regions of a confirmed feature. keep: (I,) int, the region of an image that speaks most for its
    class (-1 without regions). caption: (I,) str. encoder, context: how regions are embedded, as in the audit.
    """

    images: ImageSet
    regions: Regions
    spurious: NDArray[np.bool_]
    keep: NDArray[np.integer[Any]]
    caption: NDArray[np.str_]
    encoder: str
    context: float

    def __post_init__(self) -> None:
        wanted = {"spurious": len(self.regions), "keep": len(self.images), "caption": len(self.images)}
        for name, length in wanted.items():
            if len(getattr(self, name)) != length:
                raise ValueError(f"TrainingSet.{name} must have length {length}, got {len(getattr(self, name))}.")
        if self.encoder not in ("tokens", "crop"):
            raise ValueError(f"TrainingSet.encoder must be tokens or crop, got {self.encoder!r}.")


@dataclass(frozen=True)
class Batch:
    """B images with n regions, on the CPU; the regions are None where the method does not use them.

    pixels: (B, 3, H, W). label: (B,) class. caption: (B,) index into the distinct captions. owner: (n,) image of a
    region, within the batch. spurious: (n,) bool. regions: (n, N) bool patches for the encoder tokens, (n, 3, H, W)
    pixels for crop. Regions that exchange has painted over are left out.
    """

    pixels: Tensor
    label: Tensor
    caption: Tensor
    owner: Tensor | None = None
    spurious: Tensor | None = None
    regions: Tensor | None = None


def captions_of(images: ImageSet, templates: Sequence[str]) -> NDArray[np.str_]:
    """(I,) the set's own captions; else the class names in the prompts, each class going through them in turn."""
    if images.caption is not None:
        return images.caption
    names = [name.replace("_", " ") for name in images.class_names]
    # not str.format: a class name or template may hold other braces
    texts = [cycle([template.replace("{}", name) for template in templates]) for name in names]
    return np.array([next(texts[y]) for y in images.label], np.str_)


class Batches:
    """Makes the batch of a step from nothing but the seed and the step. captions: the distinct ones, sorted."""

    def __init__(self, vlm: TransformersClip, data: TrainingSet, config: MitigationConfig) -> None:
        self.vlm, self.data, self.config = vlm, data, config
        self.captions, self._caption = np.unique(data.caption, return_inverse=True)
        self._size = min(config.batch_size, len(data.images))
        self._read = reader(data.images)

    def make(self, step: int) -> Batch:
        """Every epoch is a new order of the images; a rest that fills no batch is left out of it."""
        images, regions = self.data.images, self.data.regions
        epoch, place = divmod(step, len(images) // self._size)
        order = np.random.default_rng([self.config.seed, 0, epoch]).permutation(len(images))
        rows = order[place * self._size : (place + 1) * self._size]
        rng = np.random.default_rng([self.config.seed, 1, step])
        shown = [self._shown(i, picture, rng) for i, picture in zip(rows, self._read(rows.tolist()), strict=True)]
        pixels = self.vlm.pixels([s.image for s in shown])
        label = torch.from_numpy(images.label[rows].astype(np.int64))
        caption = torch.from_numpy(self._caption[rows])
        if self.config.method == "standard":
            return Batch(pixels, label, caption)
        left = [regions.box[regions.rows_of(i)][~s.removed] for i, s in zip(rows, shown, strict=True)]
        masks = [list(compress(regions.masks_of(i), ~s.removed)) for i, s in zip(rows, shown, strict=True)]
        owner = np.repeat(np.arange(len(rows)), [len(box) for box in left])
        spurious = torch.from_numpy(np.concatenate([s.spurious[~s.removed] for s in shown]))
        if self.data.encoder == "tokens":
            inputs = self.vlm.patches(images.size[rows][owner], np.concatenate(left), list(chain(*masks)))
        else:
            inputs = self.vlm.crop_pixels([s.image for s in shown], left, self.data.context, masks)
        return Batch(pixels, label, caption, torch.from_numpy(owner), spurious, inputs)

    def _shown(self, image: int, picture: Image.Image, rng: np.random.Generator) -> Exchanged:
        own = self.data.regions.rows_of(image)
        spurious = self.data.spurious[own]
        if self.config.method != "ravl":
            return Exchanged(picture, spurious, np.zeros(len(spurious), bool))
        keep = int(self.data.keep[image]) - own.start if self.data.keep[image] >= 0 else None
        boxes, masks = self.data.regions.box[own], self.data.regions.masks_of(image)
        return exchange(picture, boxes, spurious, keep, self._bank, self.config.exchange, rng, masks)

    @cached_property
    def _bank(self) -> list[Image.Image]:
        """Crops of up to BANK_SIZE spurious regions, none larger than what the model sees of a whole image.

        Outside of its mask a region's crop is transparent.
        """
        rows = np.flatnonzero(self.data.spurious)
        if len(rows) > BANK_SIZE:
            rows = np.sort(np.random.default_rng([self.config.seed, 2]).choice(rows, BANK_SIZE, replace=False))
        side = self.vlm.geometry.input_size
        bank = []
        for row in rows:
            (picture,) = self._read([int(self.data.regions.image[row])])
            crop = picture.crop(tuple(int(v) for v in self.data.regions.box[row]))  # type: ignore[arg-type]
            if (mask := self.data.regions.mask_of(int(row))) is not None:
                crop.putalpha(Image.fromarray(mask))
            crop.thumbnail((side, side))
            bank.append(crop)
        return bank


def reader(images: ImageSet) -> Read:
    """Decodes images of a set; one of up to CACHE_BYTES is decoded once and kept. For one thread."""
    if 4 * int(images.size.astype(np.int64).prod(1).sum()) > CACHE_BYTES:  # Pillow keeps four bytes a pixel
        return lambda ids: load_images(images, ids)
    kept: dict[int, Image.Image] = {}

    def read(ids: Sequence[int]) -> list[Image.Image]:
        missing = [i for i in dict.fromkeys(ids) if i not in kept]
        kept.update(zip(missing, load_images(images, missing), strict=True))
        return [kept[i] for i in ids]

    return read


def ahead(make: Callable[[int], Batch], steps: range) -> Iterator[Batch]:
    """The batches of these steps in order; the next one is made in the background while the caller works."""
    with ThreadPoolExecutor(1) as background:
        waiting: deque[Future[Batch]] = deque()
        for step in steps:
            waiting.append(background.submit(make, step))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
