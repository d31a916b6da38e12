"""Images and their regions as vectors, block by block, by a model that is passed in."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ravl.config import EmbeddingConfig
from ravl.data import load_images
from ravl.discovery.regions import MIN_PATCHES, choose_encoder
from ravl.tables import ImageSet, Regions, Report, Step, quiet
from ravl.vlm.interface import Encoded, VisionLanguageModel

_COUNTED = 1024  # regions whose masks are in memory at a time


def patch_counts(vlm: VisionLanguageModel, images: ImageSet, regions: Regions) -> NDArray[np.int64]:
    """(R,) how many of the model's patches each region holds."""
    size = images.size[regions.image]
    counts = np.zeros(len(regions), np.int64)
    for start in range(0, len(regions), _COUNTED):
        rows = slice(start, start + _COUNTED)
        masks = [regions.mask_of(region) for region in range(len(regions))[rows]]
        counts[rows] = vlm.patch_counts(size[rows], regions.box[rows], masks)
    return counts


def region_encoder(vlm: VisionLanguageModel, images: ImageSet, regions: Regions, config: EmbeddingConfig) -> str:
    """`tokens`, `roi` or `crop`: what the configuration means for these regions (see `choose_encoder`)."""
    return choose_encoder(config.encoder, patch_counts(vlm, images, regions), vlm.encoders)


def why_encoder(vlm: VisionLanguageModel, images: ImageSet, regions: Regions, config: EmbeddingConfig) -> str:
    """One sentence: why `region_encoder` gives what it gives."""
    chosen = region_encoder(vlm, images, regions, config)
    if config.encoder != "auto":
        return f"the encoder {chosen} was asked for"
    if chosen == vlm.encoders[0]:
        return vlm.why
    few = int((patch_counts(vlm, images, regions) < MIN_PATCHES).sum())
    return (
        f"regions are cut out (crop): {few} of {len(regions)} hold fewer than {MIN_PATCHES} of the model's patches, "
        f"which is too little for {vlm.encoders[0]}"
    )


def encode(
    vlm: VisionLanguageModel,
    images: ImageSet,
    regions: Regions,
    config: EmbeddingConfig,
    start: int = 0,
    report: Report = quiet,
    stage: str = "embeddings",
) -> Iterator[tuple[int, Encoded]]:
    """Yield (images done, embeddings of the block) from image `start` on.

    Blocks always hold `config.batch_size` images from a multiple of it, so that a continued pass computes the same
    blocks, hence the same bits, as an unbroken one. Raises ConfigError for an encoder that the model does not
    offer, and when regions are too small for it.
    """
    encoder = region_encoder(vlm, images, regions, config)
    for first in range(start, len(images), config.batch_size):
        block = range(first, min(first + config.batch_size, len(images)))
        boxes = [regions.box[regions.rows_of(i)] for i in block]
        masks = [regions.masks_of(i) for i in block]
        yield block.stop, vlm.encode_regions(load_images(images, block), boxes, encoder, config.context, masks)
        report(Step(stage, block.stop, len(images)))
