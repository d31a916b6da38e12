"""Training batches: images after the exchange, their regions and captions, made ahead in the background.

A batch is a function of seed and step alone, and what happens to an image one of seed, step and its place: so a
training can be continued at any step, and a batch be divided among processes.
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
from ravl.errors import ConfigError
from ravl.mitigation.baselines import METHODS, draw_weights, region_share
from ravl.mitigation.exchange import Exchanged, exchange
from ravl.mitigation.processes import Processes
from ravl.tables import ImageSet, Regions
from ravl.vlm.differentiable import LearningModel

BANK_SIZE = 256
"""Crops of spurious regions that exchange pastes from."""
CACHE_BYTES = 2**30
"""Image sets of up to so many bytes of pixels stay decoded in memory."""

_NO_BOX = np.zeros((0, 4), np.int32)

Read = Callable[[Sequence[int]], list[Image.Image]]
"""Decodes images by their ids, in that order."""


@dataclass(frozen=True)
class TrainingSet:
    """Training images with what the audited model said about their regions.

    spurious: (R,) bool, regions of a confirmed feature. keep: (I,) int, the region of an image that speaks most for its
    class (-1 without regions). caption: (I,) str. encoder, context: how regions are embedded, as in the audit.
    group: (I,) int ids from 0. wrong: (I,) bool, images that the audited model gets wrong.
    """

    images: ImageSet
    regions: Regions
    spurious: NDArray[np.bool_]
    keep: NDArray[np.integer[Any]]
    caption: NDArray[np.str_]
    encoder: str
    context: float
    group: NDArray[np.integer[Any]]
    wrong: NDArray[np.bool_]

    def __post_init__(self) -> None:
        wanted = {
            "spurious": len(self.regions),
            **dict.fromkeys(("keep", "caption", "group", "wrong"), len(self.images)),
        }
        for name, length in wanted.items():
            if len(getattr(self, name)) != length:
                raise ValueError(f"TrainingSet.{name} must have length {length}, got {len(getattr(self, name))}.")
        if self.encoder not in ("tokens", "roi", "crop"):
            raise ValueError(f"TrainingSet.encoder must be tokens, roi or crop, got {self.encoder!r}.")


@dataclass(frozen=True)
class Batch:
    """B images, and of those that are this process's the pixels and regions, on the CPU.

    label: (B,) class. caption: (B,) index into the distinct captions. group: (B,) its id. first: number of the first
    image of this process. pixels: (b, 3, H, W). The others are None where the method does not use regions:
    owner: (n,) image of a region, among the b. spurious: (n,) bool. regions: (n, 3, H, W) pixels for the
    encoder crop, else their places (`LearningModel.places`). Regions that exchange has painted over are left out.
    """

    pixels: Tensor
    label: Tensor
    caption: Tensor
    group: Tensor
    first: int = 0
    owner: Tensor | None = None
    spurious: Tensor | None = None
    regions: Tensor | None = None


def captions_of(images: ImageSet, templates: Sequence[str]) -> NDArray[np.str_]:
    """(I,) the set's own captions; else the class names in the prompts, each class going through them in turn.

    A labelled image without a caption, in a set with captions, has the first prompt of its class: equal captions are
    positives of each other, and no text at all would be one caption for all classes.
    An image without a label has a caption of its own: where a caption names no class or several, it enters the
    contrastive loss and none of the losses that ask for a class (see `ravl.data.captions`).
    Raises ConfigError for images with neither: there is nothing to learn from them.
    """
    names = [name.replace("_", " ") for name in images.class_names]
    # not str.format: a class name or template may hold other braces
    prompts = [[template.replace("{}", name) for template in templates] for name in names]
    if images.caption is None:
        texts = [cycle(own) for own in prompts]
        return np.array([next(texts[y]) for y in images.label], np.str_)
    blank = [not caption.strip() for caption in images.caption.tolist()]
    if lost := int(np.count_nonzero(blank & (images.label < 0))):
        raise ConfigError(
            f"every training image must have a label or a caption, but {lost} of {len(images)} have neither. Fill in "
            "the captions, or leave these rows out."
        )
    rows = zip(images.caption.tolist(), blank, images.label.tolist(), strict=True)
    return np.array([prompts[y][0] if none else caption for caption, none, y in rows], np.str_)


class Batches:
    """Makes the batch of a step from nothing but seed and step. captions: the distinct ones, sorted. size: B."""

    def __init__(
        self, vlm: LearningModel, data: TrainingSet, config: MitigationConfig, processes: Processes = Processes()
    ) -> None:
        self.vlm, self.data, self.config, self.method = vlm, data, config, METHODS[config.method]
        self._processes = processes
        self.captions, self._caption = np.unique(data.caption, return_inverse=True)
        self.size = min(config.batch_size, len(data.images))
        self._weights = draw_weights(self.method.drawn, data.group, data.wrong)
        self._read = reader(data.images)

    def make(self, step: int) -> Batch:
        images, regions, seed = self.data.images, self.data.regions, self.config.seed
        whole = self._drawn(step)
        own = self._processes.share(len(whole))
        rows = whole[own.start : own.stop]
        pictures = zip(own, rows, self._read(rows.tolist()), strict=True)
        shown = [self._shown(i, picture, np.random.default_rng([seed, 1, step, k])) for k, i, picture in pictures]
        pixels = self.vlm.pixels([s.image for s in shown])
        columns = (images.label.astype(np.int64), self._caption, self.data.group)
        label, caption, group = (torch.from_numpy(column[whole]) for column in columns)
        if self.method.term != "regions":
            return Batch(pixels, label, caption, group, own.start)
        stays = [
            ~s.removed & part for s, part in zip(shown, self._taking_part(step)[own.start : own.stop], strict=True)
        ]
        left = [regions.box[regions.rows_of(i)][stay] for i, stay in zip(rows, stays, strict=True)]
        masks = [list(compress(regions.masks_of(i), stay)) for i, stay in zip(rows, stays, strict=True)]
        owner = np.repeat(np.arange(len(rows)), [len(box) for box in left])
        marked = [s.spurious[stay] for s, stay in zip(shown, stays, strict=True)]
        spurious = torch.from_numpy(np.concatenate([np.zeros(0, bool), *marked]))
        if self.data.encoder == "crop":
            inputs = self.vlm.crop_pixels([s.image for s in shown], left, self.data.context, masks)
        else:
            inputs = self.vlm.places(images.size[rows][owner], np.concatenate([_NO_BOX, *left]), list(chain(*masks)))
        return Batch(pixels, label, caption, group, own.start, torch.from_numpy(owner), spurious, inputs)

    def _drawn(self, step: int) -> NDArray[np.integer[Any]]:
        """Images of a step. With weights each is drawn for itself, and may come twice.

        Else every epoch is a new order of the images; a rest that fills no batch is left out of it.
        """
        n, seed = len(self.data.images), self.config.seed
        if self._weights is not None:
            return np.random.default_rng([seed, 0, step]).choice(n, self.size, p=self._weights)
        epoch, place = divmod(step, n // self.size)
        order = np.random.default_rng([seed, 0, epoch]).permutation(n)
        return order[place * self.size : (place + 1) * self.size]

    def _taking_part(self, step: int) -> NDArray[np.bool_]:
        """(B,) the images whose regions the losses see; the others are as images without regions."""
        count = max(1, round(region_share(self.config) * self.size))
        order = np.random.default_rng([self.config.seed, 4, step]).permutation(self.size)
        return order < count

    def _shown(self, image: int, picture: Image.Image, rng: np.random.Generator) -> Exchanged:
        own = self.data.regions.rows_of(image)
        spurious = self.data.spurious[own]
        if not self.method.exchange:
            return Exchanged(picture, spurious, np.zeros(len(spurious), bool))
        keep = int(self.data.keep[image]) - own.start if self.data.keep[image] >= 0 else None
        boxes, masks = self.data.regions.box[own], self.data.regions.masks_of(image)
        bank = self._bank if self.method.exchange == "both" else []
        return exchange(picture, boxes, spurious, keep, bank, self.config.exchange, rng, masks)

    @cached_property
    def _bank(self) -> list[Image.Image]:
        """Crops of up to BANK_SIZE spurious regions, none larger than what the model sees of a whole image.

        Outside of its mask a region's crop is transparent.
        """
        rows = np.flatnonzero(self.data.spurious)
        if len(rows) > BANK_SIZE:
            rows = np.sort(np.random.default_rng([self.config.seed, 2]).choice(rows, BANK_SIZE, replace=False))
        side = self.vlm.input_size
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
