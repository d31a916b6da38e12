"""Images are cut into regions: a grid over the part of each image that the model sees."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.config import RegionsConfig
from ravl.errors import ConfigError
from ravl.tables import Regions

MIN_PATCHES = 4
"""Patches a region needs for `encoder="auto"` to choose `tokens`; on fewer, a transformer has too little to read."""


def decompose(view: NDArray[np.integer[Any]], config: RegionsConfig) -> Regions:
    """Cut what the model sees of each image into k x k regions, row by row.

    The cells are half-open, do not overlap and cover the view exactly; cut j of a side that starts at x0 and is w
    pixels long lies at x0 + floor(j w / k + 1/2). Position = row * k + column.

    Deviation: Varma et al. 2024 cut the whole image, into boxes or quadrants. What a model never sees (the margins its
    preprocessing crops away) cannot cause its errors, so the grid covers its view only.

    view: (I, 4) x0, y0, x1, y1 in pixels of the upright images, half-open.
    Raises ConfigError when a view has fewer than k pixels on a side, ValueError for boxes that are none.
    """
    box = np.asarray(view, np.int64).reshape(-1, 4)
    if np.any(box[:, :2] < 0) or np.any(box[:, 2:] <= box[:, :2]):
        raise ValueError("view must hold boxes x0, y0, x1, y1 with 0 <= x0 < x1 and 0 <= y0 < y1.")
    k, n_images = config.k, len(box)
    side = box[:, 2:] - box[:, :2]
    short = np.flatnonzero(side.min(1, initial=k) < k)
    if len(short):
        width, height = side[short[0]]
        raise ConfigError(
            f"every image must show the model at least {k} x {k} pixels to be cut by {config}, got {width} x {height} "
            f"for image {short[0]} ({len(short)} of {n_images} images are too small). Use a coarser grid, such as "
            f"grid:{int(side.min())}, or leave these images out."
        )
    # (I, 2, k + 1): integers only, so that no rounding of halves can open a gap or an overlap
    cuts = box[:, :2, None] + (2 * np.arange(k + 1) * side[:, :, None] + k) // (2 * k)
    column, row = np.tile(np.arange(k), k), np.repeat(np.arange(k), k)
    x, y = cuts[:, 0], cuts[:, 1]
    cells = np.stack([x[:, column], y[:, row], x[:, column + 1], y[:, row + 1]], axis=2)
    image = np.repeat(np.arange(n_images, dtype=np.int32), k * k)
    return Regions(image, cells.reshape(-1, 4), np.tile(np.arange(k * k, dtype=np.int16), n_images), n_images)


def choose_encoder(requested: str, patch_counts: NDArray[np.integer[Any]]) -> str:
    """How regions become vectors: `tokens` or `crop`.

    `auto` gives tokens where every region holds at least MIN_PATCHES patches, else crop.

    patch_counts: (R,) patch tokens in each region. Raises ConfigError when tokens are asked for and a region has none.
    """
    counts = np.asarray(patch_counts)
    if requested not in ("auto", "tokens", "crop"):
        raise ValueError(f"requested must be auto, tokens or crop, got {requested!r}.")
    if requested == "auto":
        return "tokens" if np.all(counts >= MIN_PATCHES) else "crop"
    if requested == "tokens" and np.any(counts == 0):
        raise ConfigError(
            f"every region must hold at least one patch for the encoder tokens, got none in "
            f"{np.count_nonzero(counts == 0)} of {len(counts)} regions. Use a coarser grid, or the encoder crop."
        )
    return requested
