"""The map's arithmetic: which regions lie inside a drawn shape, and which points are shown.

The chart shows a sample and answers with the shape that was drawn; membership is decided here, over all regions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboard.reading.opened import Audit

MAX_POINTS = 100_000
"""Points drawn at most by the map's own component."""

MAX_CHART_POINTS = 30_000
"""The same by the Plotly chart: what a browser without a graphics card draws and lassoes comfortably."""

Point = tuple[float, float]
Shape = tuple[Point, ...]


def inside(points: NDArray[np.floating[Any]], shape: Shape) -> NDArray[np.bool_]:
    """(N,) whether points (N, 2) lie inside a polygon, by the even-odd rule, or on its edge.

    A polygon may cross itself; one without width or height, or of fewer than three corners, encloses nothing; points
    that are not finite are outside.
    Cost: a sort, and per edge only the points at its height.
    """
    found = np.zeros(len(points), bool)
    if len(shape) < 3:
        return found
    corners = np.asarray(shape, np.float64)
    low, high = corners.min(0), corners.max(0)
    if not (low < high).all():
        return found
    near = np.flatnonzero(np.all((points >= low) & (points <= high), axis=1))  # NaN compares false
    near = near[np.argsort(points[near, 1], kind="stable")]
    x, y = points[near].astype(np.float64).T
    odd, edge = np.zeros(len(near), bool), np.zeros(len(near), bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        bottom, top = min(y0, y1), max(y0, y1)
        first, last = np.searchsorted(y, bottom, "left"), np.searchsorted(y, top, "right")
        here = slice(first, last)
        if y0 == y1:
            edge[here] |= (x[here] >= min(x0, x1)) & (x[here] <= max(x0, x1))
            continue
        at = x0 + (y[here] - y0) * (x1 - x0) / (y1 - y0)
        edge[here] |= x[here] == at
        odd[here] ^= (x[here] < at) & (y[here] < top)  # half-open, so that a ray through a corner counts once
    found[near] = odd | edge
    return found


def shapes_of(event: Mapping[str, Any] | None) -> tuple[Shape, ...]:
    """Polygons of a Plotly selection event: its boxes as rectangles, its lassos as they are; none for an empty one."""
    chosen = (event or {}).get("selection") or {}
    found: list[Shape] = []
    for box in chosen.get("box") or []:
        (x0, x1), (y0, y1) = sorted(map(float, box["x"][:2])), sorted(map(float, box["y"][:2]))
        found.append(((x0, y0), (x1, y0), (x1, y1), (x0, y1)))
    for lasso in chosen.get("lasso") or []:
        found.append(tuple((float(x), float(y)) for x, y in zip(lasso["x"], lasso["y"], strict=True)))
    return tuple(found)


def enclosed(points: NDArray[np.floating[Any]], shapes: tuple[Shape, ...]) -> NDArray[np.int64]:
    """Ids of the points inside any of the shapes, rising."""
    found = np.zeros(len(points), bool)
    for shape in shapes:
        found |= inside(points, shape)
    return np.flatnonzero(found)


@dataclass(frozen=True)
class Chosen:
    """A selection in numbers. features: (feature id, regions of it in the selection), most first, noise as -1."""

    regions: int
    images: int
    wrong: int
    features: tuple[tuple[int, int], ...]


def chosen(audit: Audit, regions: NDArray[np.integer[Any]]) -> Chosen:
    """Count the regions of a selection, their images, and the misclassified ones among these."""
    images = np.unique(audit.regions.image[regions])
    ids, sizes = np.unique(audit.feature_of[regions], return_counts=True)
    order = np.argsort(-sizes, kind="stable")
    features = tuple((int(ids[i]), int(sizes[i])) for i in order)
    return Chosen(len(regions), len(images), int(np.count_nonzero(~audit.zero_shot.correct[images])), features)


def wrong_first(audit: Audit, regions: NDArray[np.integer[Any]], only_wrong: bool = False) -> NDArray[np.int64]:
    """A selection in the order in which it is shown: regions of misclassified images first, then by id."""
    ids = np.sort(np.asarray(regions, np.int64))
    right = audit.zero_shot.correct[audit.regions.image[ids]]
    return ids[~right] if only_wrong else ids[np.argsort(right, kind="stable")]


def sample(group: NDArray[np.integer[Any]], limit: int = MAX_POINTS, seed: int = 0) -> NDArray[np.int64]:
    """At most `limit` positions, rising; every group keeps its share, and at least one point while there is room.

    group: (N,) any integers. The same input gives the same sample.
    """
    n = len(group)
    if n <= limit:
        return np.arange(n)
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(n)
    by_group = shuffled[np.argsort(group[shuffled], kind="stable")]  # the members of a group in random order
    _, first, sizes = np.unique(group[by_group], return_index=True, return_counts=True)
    # equally spaced places in [0, 1) within each group: taking the lowest overall takes the same share of each
    place = np.empty(n)
    place[by_group] = (np.arange(n) - np.repeat(first, sizes)) / np.repeat(sizes, sizes)
    lowest = np.lexsort((rng.random(n), place))
    return np.sort(lowest[:limit])
