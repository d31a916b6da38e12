"""Images are cut into regions: by grids or superpixels over the part that the model sees, or by people's own boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ravl.config import ENCODERS, PROPOSERS, RegionsConfig
from ravl.discovery.proposals import Proposer, proposed
from ravl.errors import ConfigError
from ravl.tables import ImageSet, Regions, Report, Step, quiet

WORKING_SIDE = 160
"""Longest side, in pixels, of the picture that superpixels are sought in: bounds their cost and the size of masks."""

_BLOCK = 32  # images decoded at a time

MIN_PATCHES = 4
"""Patches a region needs for `encoder="auto"` to choose `tokens` or `roi`; on fewer, a model has too little to read."""


ImagesOf = Callable[[Sequence[int]], list[Image.Image]]
"""Decodes images by their ids, in that order."""


def decompose(
    images: ImageSet,
    view: NDArray[np.integer[Any]],
    config: RegionsConfig,
    images_of: ImagesOf,
    report: Report = quiet,
    proposer: Proposer | None = None,
) -> Regions:
    """Cut images into regions: `grid`, `superpixels`, `own_boxes` or `proposed`, as the configuration says.

    view: (I, 4) what the model sees of each image, as x0, y0, x1, y1. Only superpixels and proposals decode images.
    proposer: needed by the kinds in PROPOSERS alone.
    Raises ConfigError for images that cannot be cut like this, DataError for images that cannot be decoded any more.
    """
    if config.kind in PROPOSERS:
        if proposer is None:
            raise ValueError(f"proposer must be given for regions of the kind {config.kind!r}.")
        return proposed(view, config, proposer, images_of, report)
    if config.kind == "slic":
        return superpixels(view, config.segments, images_of, report)
    return own_boxes(images) if config.kind == "boxes" else grid(view, config)


def own_boxes(images: ImageSet) -> Regions:
    """People's own boxes, as they are, also where the model does not see them. Raises ConfigError without any column.

    They have no common positions.
    """
    if images.box is None or images.box_image is None:
        raise ConfigError(
            "the images must have boxes to be cut by them, but the manifest has no column boxes and no file is named. "
            "Add the column, or give a COCO file as boxes:FILE.json."
        )
    return Regions(images.box_image, images.box, np.full(len(images.box), -1), len(images))


def grid(view: NDArray[np.integer[Any]], config: RegionsConfig) -> Regions:
    """Cut what the model sees of each image into k x k cells, row by row, for each k of `config.scales` in turn.

    Cells are half-open; those of one scale cover the view exactly. With an overlap o, a side that starts at x0 and is w
    pixels long has cells of s = w / (k - (k - 1) o) pixels, one every (1 - o) s, so that neighbours share o s; every
    edge e is rounded to x0 + floor(e + 1/2). Positions are numbered through: cell (row, column) of a scale has the
    position row * k + column after all cells of the scales before it.

    Deviation: Varma et al. 2024 cut the whole image, into boxes or quadrants. What a model never sees (the margins its
    preprocessing crops away) cannot cause its errors, so the grid covers its view only.

    view: (I, 4) x0, y0, x1, y1 in pixels of the upright images, half-open.
    Raises ConfigError when a view has fewer than k pixels on a side, ValueError for boxes that are none.
    """
    box = _checked(view)
    overlap = Fraction(str(config.overlap)).limit_denominator(10_000)
    cells = np.concatenate([_cells(box, k, overlap, config) for k in config.scales], axis=1)
    n_images, n_cells = cells.shape[:2]
    image = np.repeat(np.arange(n_images, dtype=np.int32), n_cells)
    return Regions(image, cells.reshape(-1, 4), np.tile(np.arange(n_cells, dtype=np.int16), n_images), n_images)


def _checked(view: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    box = np.asarray(view, np.int64).reshape(-1, 4)
    if np.any(box[:, :2] < 0) or np.any(box[:, 2:] <= box[:, :2]):
        raise ValueError("view must hold boxes x0, y0, x1, y1 with 0 <= x0 < x1 and 0 <= y0 < y1.")
    return box


def _cells(box: NDArray[np.int64], k: int, overlap: Fraction, config: RegionsConfig) -> NDArray[np.int64]:
    """(I, k k, 4) the cells of one scale."""
    n_images, side = len(box), box[:, 2:] - box[:, :2]
    short = np.flatnonzero(side.min(1, initial=k) < k)
    if len(short):
        width, height = side[short[0]]
        raise ConfigError(
            f"every image must show the model at least {k} x {k} pixels to be cut by {config}, got {width} x {height} "
            f"for image {short[0]} ({len(short)} of {n_images} images are too small). Use a coarser grid, such as "
            f"grid:{int(side.min())}, or leave these images out."
        )
    # in integers, so that no rounding of halves can open a gap: cell j begins at j move / parts of the side
    whole, move = overlap.denominator, overlap.denominator - overlap.numerator
    parts = k * whole - (k - 1) * overlap.numerator
    begin = np.arange(k) * move
    low, high = (
        box[:, :2, None] + (2 * edge * side[:, :, None] + parts) // (2 * parts) for edge in (begin, begin + whole)
    )  # (I, 2, k) each
    column, row = np.tile(np.arange(k), k), np.repeat(np.arange(k), k)
    return np.stack([low[:, 0, column], low[:, 1, row], high[:, 0, column], high[:, 1, row]], axis=2)


def superpixels(
    view: NDArray[np.integer[Any]], n_segments: int, images_of: ImagesOf, report: Report = quiet
) -> Regions:
    """Cut what the model sees of each image into about `n_segments` superpixels: SLIC (Achanta et al. 2012), in its
    form SLICO, which adapts to the contrast of each segment, so that noise does not melt everything into one.

    Every pixel of the view belongs to exactly one region, which is its mask within its box. They are sought in the view
    reduced by a whole number so that no side exceeds WORKING_SIDE; edges follow the squares of that size. A few pixels
    give fewer segments. They have no common positions.

    view: (I, 4) as in `grid`. Cost: every image is decoded; about 6 ms each for the segments.
    """
    box = _checked(view)
    image, boxes, steps, masks = [], [np.zeros((0, 4), np.int64)], [], [np.zeros(0, np.uint8)]
    for start in range(0, len(box), _BLOCK):
        ids = range(start, min(start + _BLOCK, len(box)))
        for i, picture in zip(ids, images_of(ids), strict=True):
            x0, y0, x1, y1 = box[i].tolist()
            step = -(-max(x1 - x0, y1 - y0) // WORKING_SIDE)
            small = np.asarray(picture.crop((x0, y0, x1, y1)).reduce(step))
            for left, top, mask in _segments(small, n_segments):
                whole = mask.all()
                height, width = mask.shape
                corners = np.array([left, top, left + width, top + height]) * step + [x0, y0, x0, y0]
                image.append(i)
                boxes.append(np.minimum(corners, box[i, [2, 3, 2, 3]])[None])
                steps.append(0 if whole else step)
                masks.append(np.packbits(mask)[: 0 if whole else None])
        report(Step("regions", ids.stop, len(box)))
    n = len(image)
    return Regions(
        np.array(image, np.int32), np.concatenate(boxes), np.full(n, -1), len(box),
        np.array(steps, np.int32), np.concatenate(masks),
    )  # fmt: skip


def _segments(pixels: NDArray[np.uint8], n_segments: int) -> Iterator[tuple[int, int, NDArray[np.bool_]]]:
    """Left, top and mask (h, w) of each superpixel of an RGB picture (H, W, 3)."""
    from skimage.segmentation import slic

    label = slic(pixels, n_segments=n_segments, slic_zero=True, start_label=0, channel_axis=-1)
    for segment in np.unique(label):
        inside = label == segment
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        yield int(columns[0]), int(rows[0]), inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def choose_encoder(
    requested: str, patch_counts: NDArray[np.integer[Any]], offered: tuple[str, ...] = ("tokens", "crop")
) -> str:
    """How regions become vectors: `tokens`, `roi` or `crop`. offered: what the model can, the best first.

    `auto` gives the best where every region holds at least MIN_PATCHES patches, else crop.

    patch_counts: (R,) patches in each region. Raises ConfigError for an encoder that the model does not offer, and when
    tokens or roi are asked for and a region holds no patch.
    """
    counts = np.asarray(patch_counts)
    if requested not in ("auto", *ENCODERS):
        raise ValueError(f"requested must be auto, {', '.join(ENCODERS)}, got {requested!r}.")
    if requested == "auto":
        return offered[0] if np.all(counts >= MIN_PATCHES) else "crop"
    if requested not in offered:
        raise ConfigError(f"the encoder must be {' or '.join(offered)} for this model, got {requested}. Try auto.")
    if requested != "crop" and np.any(counts == 0):
        raise ConfigError(
            f"every region must hold at least one patch for the encoder {requested}, got none in "
            f"{np.count_nonzero(counts == 0)} of {len(counts)} regions. Use a coarser grid, or the encoder crop."
        )
    return requested
