"""How far the fast region encoder agrees with the slow one that nobody doubts: cut the region out and look at it alone.

The encoder `tokens` shows a transformer fewer patches than it was trained on, `roi` cuts a map that has seen the whole
image. `crop` shows the model a picture of the region alone, at the cost of a forward pass per region. On a sample of
regions both are computed and compared.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.config import EmbeddingConfig
from ravl.discovery.embedding import region_encoder
from ravl.discovery.regions import ImagesOf
from ravl.discovery.zero_shot import product, unit
from ravl.tables import Agreement, ImageSet, Regions, Report, Step, quiet
from ravl.vlm.interface import VisionLanguageModel

PER_IMAGE = 2
"""Regions compared per sampled image: different images tell more than more regions of one."""

_BLOCK = 16  # images in memory at a time


def agreement(
    vlm: VisionLanguageModel,
    images_of: ImagesOf,
    images: ImageSet,
    regions: Regions,
    embeddings: NDArray[Any],
    text: NDArray[np.float32],
    config: EmbeddingConfig,
    rng: np.random.Generator,
    n_sample: int = 200,
    report: Report = quiet,
) -> Agreement:
    """Compare the embeddings of a run with those of `crop` on at most `n_sample` random regions, PER_IMAGE of an image.

    With the encoder `crop` there is nothing to compare: n = 0 and NaN.

    embeddings: (R, D), may be a float16 memory map. text: (Y, D) unit vectors. config: that of the embeddings.
    Raises ValueError for embeddings of another shape or that are not finite.
    """
    if embeddings.shape != (len(regions), vlm.dim):
        raise ValueError(f"embeddings must have shape {(len(regions), vlm.dim)}, got {embeddings.shape}.")
    chosen = sample(regions, n_sample, rng)
    if not len(chosen) or region_encoder(vlm, images, regions, config) == "crop":
        return Agreement(0, math.nan, math.nan, math.nan)
    owner = regions.image[chosen]
    sampled = np.unique(owner)
    crop = np.zeros((len(chosen), vlm.dim), np.float32)
    whole = np.zeros((len(chosen), vlm.dim), np.float32)
    for start in range(0, len(sampled), _BLOCK):
        block = sampled[start : start + _BLOCK]
        rows = [np.flatnonzero(owner == i) for i in block]
        boxes = [regions.box[chosen[own]] for own in rows]
        masks = [[regions.mask_of(int(region)) for region in chosen[own]] for own in rows]
        encoded = vlm.encode_regions(images_of(block.tolist()), boxes, "crop", config.context, masks)
        place = np.concatenate(rows)
        crop[place] = encoded.region
        whole[place] = np.repeat(encoded.image, [len(own) for own in rows], axis=0)
        report(Step("agreement", start + len(block), len(sampled)))
    return compare(np.asarray(embeddings[chosen]), crop, whole, text)


def sample(regions: Regions, n_sample: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """At most `n_sample` region ids, rising: up to PER_IMAGE random ones of each of enough random images."""
    shuffled = np.lexsort((rng.random(len(regions)), regions.image))  # regions of an image in random order
    place = np.arange(len(regions)) - regions.starts[regions.image[shuffled]]
    few = shuffled[place < PER_IMAGE]
    turn = rng.permutation(regions.n_images)[regions.image[few]]
    return np.sort(few[np.argsort(turn, kind="stable")][:n_sample])


def compare(fast: NDArray[Any], slow: NDArray[Any], whole: NDArray[Any], text: NDArray[np.float32]) -> Agreement:
    """Agreement of two embeddings (n, D) of the same regions; whole: (n, D) those of their images; text: (Y, D).

    Raises ValueError for values that are not finite.
    """
    from scipy.stats import spearmanr

    for name, rows in (("fast", fast), ("slow", slow), ("whole", whole)):
        if not np.isfinite(rows).all():
            raise ValueError(f"{name} must be finite, got NaN or infinity. Check the model's weights.")
    if not len(fast):
        return Agreement(0, math.nan, math.nan, math.nan)
    directions = unit(text).T
    quick, careful = product(unit(fast), directions), product(unit(slow), directions)
    predicted = product(unit(whole), directions).argmax(1)
    scores = [part[np.arange(len(part)), predicted] for part in (quick, careful)]
    constant = any(np.ptp(score) == 0 for score in scores)
    return Agreement(
        n=len(fast),
        cosine=float(np.einsum("nd,nd->n", unit(fast), unit(slow)).mean()),
        same_class=float(np.mean(quick.argmax(1) == careful.argmax(1))),
        spearman=math.nan if constant else float(spearmanr(*scores).statistic),
    )
