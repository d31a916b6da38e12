"""Regions that look alike are grouped into features, and new regions are assigned to them by a saved rule.

The space: the mean of each region position is subtracted (a transformer's tokens carry where they are), the rest is
normalised, projected on the principal axes, and normalised again. So every vector is a direction, and one geometry
serves all: for unit vectors |a - b|^2 = 2 (1 - cos), so that the euclidean distance of HDBSCAN, the cosine of K-Medoids
and the cosine of the assignment rule order pairs alike. Without the last normalisation, regions that the axes say
little about would gather at the origin and form a dense cluster of nothing.

Deviation: Varma et al. 2024 run K-Medoids on the final embeddings as they are. Both algorithms are here; HDBSCAN is the
default since it may leave regions without a feature, as noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.config import ClusteringConfig
from ravl.discovery.kmedoids import kmedoids, medoids_of
from ravl.discovery.zero_shot import product, unit
from ravl.tables import NOISE, Clustering, Regions

MEMBER_PERCENTILE = 5
JOINING_PERCENTILE = 50
LEAST = 15
"""Regions of the smallest cluster of HDBSCAN in small image sets."""
REFINEMENTS = 3
"""How often a cluster within a cluster is clustered again."""
_BLOCK = 8192
_ZERO = 1e-6
"""Length, relative to the vector it is left over from, below which a difference is rounding and has no direction."""

Vectors = NDArray[np.float32]
Labels = NDArray[np.int64]


def cluster(
    features: NDArray[Any], regions: Regions, n_classes: int, config: ClusteringConfig, rng: np.random.Generator
) -> Clustering:
    """Group regions into features.

    HDBSCAN: euclidean, excess of mass, `min_samples`, smallest cluster max(15, 0.5 % of the regions) unless given.
    K-Medoids: cosine, k-medoids++ seeding, `restarts`; k by silhouette over [2Y, 5Y) (Varma et al. 2024) unless given.
    Ids fall with size (equal sizes: the smallest member first). The medoid is the member with the largest mean cosine
    to all members. Strength is HDBSCAN's membership probability, or the cosine to the medoid.

    Deviation: HDBSCAN leaves much of a group in noise, of a planted mark up to six in ten regions. Those that are
    closer to the medoid than half of the members join; with a looser rule, what surrounds a mark joined too. Above
    `max_fit` regions the algorithm sees those of a sample of the images, spread evenly over the positions; the rest is
    assigned by the rule of `assign`, and medoids and thresholds are those of the sample. A given smallest size shrinks
    with the sample.
    Regions equal to the mean of their position have no direction and are noise.

    features: (R, M), may be a float16 memory map; never held in float32 as a whole beyond `max_fit` rows.
    Raises ValueError for a wrong shape or values that are not finite.
    """
    if features.ndim != 2 or len(features) != len(regions):
        raise ValueError(f"features must have shape ({len(regions)}, M), one row per region, got {features.shape}.")
    position = _position_row(regions.position, int(regions.position.max(initial=0)) + 1)
    means = _position_means(features, position)
    center = np.zeros(features.shape[1], np.float32)  # what is left after the position means has mean 0
    fit = _sample(regions.image, position, config.max_fit, rng)
    residual = _residuals(features[fit], position[fit], means, center)
    axes = _principal_axes(residual, config.n_components)
    vectors = _directions(residual, axes)
    usable = np.flatnonzero(vectors.any(1))
    fit, vectors = fit[usable], vectors[usable]

    if config.method == "hdbscan":
        found, firmness = _hdbscan(vectors, regions.image[fit], len(features), config)
    else:
        found, firmness = kmedoids(vectors, n_classes, config, rng), None
    medoids = medoids_of(vectors.astype(np.float64), found)
    cosine = _own_cosine(vectors, medoids, found)
    lowest, typical = (_similarity(cosine, found, q) for q in (MEMBER_PERCENTILE, JOINING_PERCENTILE))

    label = np.full(len(features), NOISE, np.int32)
    strength = np.zeros(len(features), np.float32)
    label[fit], strength[fit] = found, (cosine if firmness is None else firmness).clip(0, 1)
    rule = Clustering(label, strength, fit[medoids].astype(np.int32), means, center, axes, vectors[medoids], lowest)
    closer = replace(rule, min_similarity=typical)
    label, strength = label.copy(), strength.copy()
    for joining, rows in ((closer, fit[found == NOISE]), (rule, np.setdiff1d(np.arange(len(features)), fit))):
        label[rows], strength[rows] = _join(joining, features, position, rows)
    return _by_size(rule, label, strength.clip(0, 1))


def reduce(clustering: Clustering, features: NDArray[Any], position: NDArray[np.integer[Any]]) -> Vectors:
    """(n, K) float32 unit vectors of regions in the space of the clustering; zeros where a region has no direction.

    features: (n, M), float16 or wider. position: (n,) as in `Regions`; -1 is allowed where the run has one shared mean.
    Raises ValueError for a position without a mean, wrong shapes, or values that are not finite.
    """
    _check_rows(clustering, features, position)
    row = _position_row(position, len(clustering.position_mean))
    blocks = [vectors for _, vectors in _blocks(clustering, features, row, np.arange(len(features)))]
    return np.concatenate(blocks) if blocks else np.zeros((0, len(clustering.components)), np.float32)


def assign(
    clustering: Clustering,
    features: NDArray[Any],
    position: NDArray[np.integer[Any]],
    rows: NDArray[np.integer[Any]] | None = None,
) -> NDArray[np.int32]:
    """(n,) cluster id of new regions: the nearest medoid if the cosine reaches its `min_similarity`, else NOISE.

    By construction about 5 % of a cluster's own regions would not join it again. Arguments and Raises as in `reduce`.
    rows: (n,) the regions that are asked for, None: all. `features` may be a memory map, which is read in blocks.
    """
    _check_rows(clustering, features, position)
    row = _position_row(position, len(clustering.position_mean))
    asked: Labels = np.arange(len(features)) if rows is None else np.asarray(rows, np.int64)
    return _join(clustering, features, row, asked)[0]


def parts(vectors: Vectors, config: ClusteringConfig, rng: np.random.Generator) -> Labels:
    """(n,) what regions of one feature show, once they are clustered among themselves around their own mean; or NOISE.

    HDBSCAN: as any clusters, of at least `min_cluster_size` or LEAST regions; what it leaves over joins the nearest
    part by the rule for new regions (see `assign`), since all of it was one feature before. Of more than `max_fit`
    regions it sees that many random ones, and the others join likewise; a given smallest size shrinks with them.
    K-Medoids: two parts.
    vectors: (n, K) unit vectors from `reduce`.
    """
    own = _around_own_mean(vectors, config)
    if config.method != "hdbscan":
        return kmedoids(own, 1, replace(config, k=2), rng)
    n, size = len(own), config.min_cluster_size
    fit = np.arange(n) if n <= config.max_fit else np.sort(rng.choice(n, config.max_fit, replace=False))
    least = LEAST if size is None else max(2, round(size * len(fit) / n))
    seen = own[fit]
    found = _fit_hdbscan(seen, least, config.min_samples)[0]
    label = np.full(n, NOISE)
    label[fit] = found
    medoids = medoids_of(seen.astype(np.float64), found)
    if not len(medoids):
        return label
    lowest = _similarity(_own_cosine(seen, medoids, found), found, MEMBER_PERCENTILE)
    cosine = product(own, seen[medoids].T)
    nearest = cosine.argmax(1)
    joins = (label == NOISE) & (cosine.max(1) >= lowest[nearest])
    return np.where(joins, nearest, label)


# --- the space ------------------------------------------------------------------------------------------------------


def _position_row(position: NDArray[np.integer[Any]], n_rows: int) -> Labels:
    """Row of the position means for each region; regions without positions (-1) share the only row."""
    row = np.asarray(position, np.int64)
    if n_rows == 1:
        row = np.where(row == -1, 0, row)
    if len(row) and not 0 <= row.min() <= row.max() < n_rows:
        raise ValueError(f"position must lie in 0 .. {n_rows - 1}, got {row.min()} .. {row.max()}.")
    return row


def _position_means(features: NDArray[Any], position: Labels) -> Vectors:
    """(P, M) mean vector per position; the mean of all where a position has no region. Refuses NaN and infinity."""
    n_rows = int(position.max(initial=0)) + 1
    total = np.zeros((n_rows, features.shape[1]))
    for start in range(0, len(features), _BLOCK):
        block = np.asarray(features[start : start + _BLOCK], np.float64)
        broken = ~np.isfinite(block).all(1)
        if broken.any():
            raise ValueError(f"features must be finite, got NaN or infinity in row {start + int(broken.argmax())}.")
        rows = position[start : start + _BLOCK]
        for p in np.unique(rows):
            total[p] += block[rows == p].sum(0)
    count = np.bincount(position, minlength=n_rows)[:, None]
    overall = total.sum(0) / max(len(features), 1)
    return np.where(count > 0, total / np.maximum(count, 1), overall).astype(np.float32)


def _sample(image: NDArray[np.int32], position: Labels, size: int, rng: np.random.Generator) -> Labels:
    """At most `size` rows, rising: all those of random images, since how many images show a cluster counts.

    Images with equally many regions at every position are represented by their share, to within one image; so is every
    position, to within one row, where all images have the same ones. Where no whole image is small enough, single rows
    are drawn, each position by its share.
    """
    if len(position) <= size:
        return np.arange(len(position))
    number = np.unique(image, return_inverse=True)[1].astype(np.int64)
    n_images, n_positions = int(number.max()) + 1, int(position.max()) + 1
    held = np.bincount(number * n_positions + position, minlength=n_images * n_positions).reshape(n_images, n_positions)
    n_rows, kinds = held.sum(1), np.unique(held, axis=0, return_inverse=True)[1].reshape(-1)
    shuffled = np.lexsort((rng.random(n_images), kinds))
    for n in range(n_images * size // len(position), 0, -1):  # a few turns at most: nearly as many rows as are wanted
        chosen = np.zeros(n_images, bool)
        chosen[shuffled[np.arange(n) * n_images // n]] = True
        if n_rows[chosen].sum() <= size:
            return np.flatnonzero(chosen[number])
    shuffled = np.lexsort((rng.random(len(position)), position))
    return np.sort(shuffled[np.arange(size) * len(position) // size])


def _residuals(features: NDArray[Any], position: Labels, means: Vectors, center: Vectors) -> Vectors:
    """Unit vectors of what is left of each feature without its position's mean; zero where that is only rounding."""
    rows = np.asarray(features, np.float32)
    if not np.isfinite(rows).all():
        raise ValueError("features must be finite, got NaN or infinity. Check the model's region features.")
    left = rows - means[position] - center
    left[np.linalg.norm(left, axis=1) <= _ZERO * np.linalg.norm(rows, axis=1)] = 0
    return unit(left)


def _principal_axes(residual: Vectors, n_components: int) -> Vectors:
    """(K, M) leading eigenvectors of the second moment, at least one and no more than its rank; largest entry positive.

    The directions are not centred a second time: they are differences from a mean already.
    """
    moment = product(residual.T.astype(np.float64), residual.astype(np.float64))
    value, vector = np.linalg.eigh(moment)  # rising
    rank = int(np.count_nonzero(value > 1e-10 * max(value[-1], 1e-300))) if len(value) else 0
    axes = vector[:, ::-1][:, : max(1, min(n_components, rank))].T
    largest = np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], axis=1)
    return (axes * np.where(largest < 0, -1, 1)).astype(np.float32)  # type: ignore[no-any-return]


def _directions(residual: Vectors, axes: Vectors) -> Vectors:
    reduced = product(residual, axes.T)
    reduced[np.linalg.norm(reduced, axis=1) <= _ZERO] = 0
    return unit(reduced)


def _check_rows(clustering: Clustering, features: NDArray[Any], position: NDArray[Any]) -> None:
    expected = (len(position), len(clustering.center))
    if features.shape != expected:
        raise ValueError(f"features must have shape {expected}, one row per position, got {features.shape}.")


def _blocks(
    clustering: Clustering, features: NDArray[Any], position: Labels, rows: Labels
) -> Iterator[tuple[slice, Vectors]]:
    """Unit vectors of the chosen rows, block by block, with their place among the chosen."""
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        left = _residuals(features[block], position[block], clustering.position_mean, clustering.center)
        yield slice(start, start + len(block)), _directions(left, clustering.components)


def _join(
    clustering: Clustering, features: NDArray[Any], position: Labels, rows: Labels
) -> tuple[NDArray[np.int32], Vectors]:
    """Feature id by the rule of `assign`, and cosine to its medoid (0 for noise), of the chosen rows."""
    label = np.full(len(rows), NOISE, np.int32)
    closeness = np.zeros(len(rows), np.float32)
    for place, vectors in _blocks(clustering, features, position, rows):
        if not clustering.n_clusters:
            continue
        cosine = product(vectors, clustering.medoid_vector.T)
        nearest, best = cosine.argmax(1), cosine.max(1)
        joins = (best >= clustering.min_similarity[nearest]) & vectors.any(1)
        label[place], closeness[place] = np.where(joins, nearest, NOISE), np.where(joins, best, 0)
    return label, closeness


def _by_size(rule: Clustering, label: NDArray[np.int32], strength: Vectors) -> Clustering:
    """The same clustering with its ids by falling size; equal sizes by the smallest member."""
    n = rule.n_clusters
    size = np.bincount(label[label != NOISE], minlength=n)
    smallest = np.full(n, len(label))
    np.minimum.at(smallest, label[label != NOISE], np.flatnonzero(label != NOISE))
    order = np.lexsort((smallest, -size))
    new_id = np.empty(n + 1, np.int32)
    new_id[order], new_id[NOISE] = np.arange(n), NOISE  # the last entry stands for noise
    return Clustering(
        new_id[label],
        strength,
        rule.medoid[order],
        rule.position_mean,
        rule.center,
        rule.components,
        rule.medoid_vector[order],
        rule.min_similarity[order],
    )


# --- the algorithms -------------------------------------------------------------------------------------------------


def _hdbscan(
    vectors: Vectors, image: NDArray[np.int32], n_regions: int, config: ClusteringConfig
) -> tuple[Labels, Vectors]:
    """Labels and membership probabilities; clusters 0 .. C - 1, none empty.

    Deviation: excess of mass prefers few large clusters, in a pilot one of all background and one of everything else.
    What nearly all images show cannot be told from what they have in common: it has no images without it. So a cluster
    that more than `max_spread` of the images show is clustered again within itself, around its own mean, and falls
    apart where it holds at least two clusters.

    image: (n,) image of each vector.
    """
    n, size = len(vectors), config.min_cluster_size
    least = max(LEAST, math.ceil(0.005 * n)) if size is None else max(2, round(size * min(1.0, n / max(n_regions, 1))))
    return _split_widespread(vectors, image, config.max_spread * len(np.unique(image)), least, config, REFINEMENTS)


def _split_widespread(
    vectors: Vectors,
    image: NDArray[np.int32],
    most_images: float,
    least: int,
    config: ClusteringConfig,
    deeper: int,
) -> tuple[Labels, Vectors]:
    label, strength = _fit_hdbscan(vectors, least, config.min_samples)
    found = [np.flatnonzero(label == c) for c in range(int(label.max(initial=NOISE)) + 1)]
    n_found = 0
    for members in found:
        inner: Labels = np.zeros(len(members), np.int64)
        if deeper and len(np.unique(image[members])) > most_images:
            own = _around_own_mean(vectors[members], config)
            split, firmness = _split_widespread(own, image[members], most_images, least, config, deeper - 1)
            if split.max(initial=NOISE) > 0:
                inner, strength[members] = split, firmness
        label[members] = np.where(inner == NOISE, NOISE, inner + n_found)
        n_found += int(inner.max(initial=0)) + 1
    return label, strength


def _around_own_mean(vectors: Vectors, config: ClusteringConfig) -> Vectors:
    residual = unit(vectors - vectors.mean(0))
    return _directions(residual, _principal_axes(residual, config.n_components))


def _fit_hdbscan(vectors: Vectors, least: int, min_samples: int) -> tuple[Labels, Vectors]:
    n = len(vectors)
    if n < max(least, min_samples + 1):
        return np.full(n, NOISE), np.zeros(n, np.float32)
    from hdbscan import HDBSCAN

    model = HDBSCAN(
        min_cluster_size=least,
        min_samples=min_samples,
        metric="euclidean",
        cluster_selection_method="eom",
        core_dist_n_jobs=1,  # more would start processes
    ).fit(vectors.astype(np.float64))
    return model.labels_.astype(np.int64), model.probabilities_.astype(np.float32)


def _own_cosine(vectors: Vectors, medoids: Labels, label: Labels) -> Vectors:
    """(n,) cosine of every vector to its cluster's medoid; 0 for noise."""
    if not len(medoids):
        return np.zeros(len(vectors), np.float32)
    return np.where(label == NOISE, 0, np.einsum("nk,nk->n", vectors, vectors[medoids][label]))


def _similarity(cosine: Vectors, label: Labels, percentile: float) -> NDArray[Any]:
    """(C,) the cosine that so many percent of a cluster's own members do not reach. cosine: from `_own_cosine`."""
    clusters = range(int(label.max(initial=NOISE)) + 1)
    return np.array([np.percentile(cosine[label == c], percentile) for c in clusters]) - _ZERO
