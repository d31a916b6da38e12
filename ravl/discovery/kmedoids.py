"""K-Medoids of unit vectors with cosine distance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.config import ClusteringConfig
from ravl.discovery.zero_shot import product
from ravl.tables import NOISE

CLARA_ABOVE = 10_000
"""Vectors above which the medoids are sought in random samples."""
CLARA_SAMPLE = 5_000
MAX_CANDIDATES = 32
"""Numbers of clusters that are tried."""
_ZERO = 1e-6
"""Distance below which two vectors are the same but for rounding."""

Vectors = NDArray[np.float32]
Labels = NDArray[np.int64]


def kmedoids(vectors: Vectors, n_classes: int, config: ClusteringConfig, rng: np.random.Generator) -> Labels:
    """Labels of unit vectors; clusters 0 .. C - 1, none empty.

    Deviation: at most MAX_CANDIDATES values of k, evenly spread over [2Y, 5Y), are compared, each from one start. Above
    CLARA_ABOVE vectors the medoids are sought in a random sample per restart (CLARA, Kaufman and Rousseeuw 1990), and
    the sample whose medoids suit all vectors best is kept.
    """
    n = len(vectors)
    if n == 0:
        return np.zeros(0, np.int64)
    whole = n <= CLARA_ABOVE
    sample = vectors if whole else vectors[rng.choice(n, CLARA_SAMPLE, replace=False)]
    k = config.k or _choose_k(sample, n_classes, rng)
    k = min(k, max(1, len(sample) // 2))
    best, cost = np.zeros(n, np.int64), math.inf
    for _ in range(config.restarts):
        if not whole:
            sample = vectors[rng.choice(n, CLARA_SAMPLE, replace=False)]
        medoids = sample[medoids_of(sample, _alternate(sample, k, rng))]
        cosine = product(vectors, medoids.T)
        total = float(np.sum(1 - cosine.max(1), dtype=np.float64))
        if total < cost:
            best, cost = cosine.argmax(1), total
    return np.unique(best, return_inverse=True)[1]


def _choose_k(vectors: Vectors, n_classes: int, rng: np.random.Generator) -> int:
    low, high = 2 * max(n_classes, 1), 5 * max(n_classes, 1) - 1
    spread = np.linspace(low, high, min(MAX_CANDIDATES, high - low + 1)).round().astype(int)
    candidates = np.unique(spread.clip(1, max(1, len(vectors) // 2)))
    if len(candidates) == 1:
        return int(candidates[0])
    return int(candidates[np.argmax([silhouette(vectors, _alternate(vectors, int(k), rng)) for k in candidates])])


def _alternate(vectors: Vectors, k: int, rng: np.random.Generator, steps: int = 100) -> Labels:
    """One run of K-Medoids: assign to the nearest medoid, move to the exact medoids, until nothing changes."""
    medoids = _seed(vectors, k, rng)
    label = np.zeros(len(vectors), np.int64)
    for _ in range(steps):
        # equal medoids leave one cluster empty: it is dropped
        label = np.unique(product(vectors, vectors[medoids].T).argmax(1), return_inverse=True)[1]
        moved = medoids_of(vectors, label)
        if np.array_equal(moved, medoids):
            break
        medoids = moved
    return label


def _seed(vectors: Vectors, k: int, rng: np.random.Generator) -> Labels:
    """k-medoids++: each next medoid is drawn with probability proportional to its distance 1 - cos to the nearest one.

    1 - cos is half the squared euclidean distance, so this is the k-means++ rule (Arthur and Vassilvitskii 2007).
    Fewer than k when there are fewer distinct vectors.
    """
    chosen = [int(rng.integers(len(vectors)))]
    distance = np.full(len(vectors), np.inf)
    while len(chosen) < k:
        distance = np.minimum(distance, 1 - product(vectors, vectors[chosen[-1]]))
        weight = np.where(distance > _ZERO, distance, 0)
        if not weight.any():
            break
        chosen.append(int(rng.choice(len(vectors), p=weight / weight.sum())))
    return np.array(chosen)


def silhouette(vectors: NDArray[Any], label: Labels) -> float:
    """Mean silhouette (Rousseeuw 1987) of unit vectors with the distance 1 - cos; NaN-free, 0 for a single cluster.

    Exact, at the cost of one matrix product: a vector's mean distance to a cluster is 1 minus its dot product with the
    cluster's sum over its size. A vector alone in its cluster counts 0.
    """
    size = np.bincount(label)
    if len(size) < 2:
        return 0.0
    sums = np.zeros((len(size), vectors.shape[1]), vectors.dtype)
    np.add.at(sums, label, vectors)
    rows = np.arange(len(label))
    dots = product(vectors, sums.T)
    own = size[label]
    within = (own - dots[rows, label]) / np.maximum(own - 1, 1)
    other = 1 - dots / size
    other[rows, label] = np.inf
    between = other.min(1)
    scale = np.maximum(np.maximum(within, between), 1e-12)
    return float(np.where(own > 1, (between - within) / scale, 0).mean())


def medoids_of(vectors: NDArray[Any], label: Labels) -> Labels:
    """(C,) for each cluster 0 .. C - 1, none empty, the member with the largest dot product with the members' sum.

    For unit vectors this is exactly the member with the smallest summed cosine distance. The first one of equals.
    """
    members = np.flatnonzero(label != NOISE)
    if not len(members):
        return members
    order = members[np.argsort(label[members], kind="stable")]
    starts = np.searchsorted(label[order], np.arange(label.max() + 1))
    sums = np.add.reduceat(vectors[order], starts)
    closeness = np.einsum("nk,nk->n", vectors[order], sums[label[order]])
    return order[np.lexsort((-closeness, label[order]))[starts]]
