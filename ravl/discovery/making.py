"""A person draws around regions on the map and makes a feature of them.

The regions leave the clusters they were in and become a cluster of their own, which is a feature of its own. A cluster
that loses regions gets the medoid and the threshold of those that stay; one that loses all is gone. So new regions are
assigned by the same rule as ever (`clustering.assign`), and all later steps work as on any other feature.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.discovery.clustering import MEMBER_PERCENTILE, reduce
from ravl.discovery.zero_shot import product
from ravl.errors import ConfigError
from ravl.tables import NOISE, Clustering, Families

MIN_REGIONS = 10
"""Regions that a feature must have: with fewer, a difference in accuracy with and without it is mostly chance."""

_ZERO = 1e-6  # rounding of a cosine in single precision


def made(
    clustering: Clustering,
    families: Families,
    features: NDArray[Any],
    position: NDArray[np.integer[Any]],
    regions: NDArray[np.integer[Any]],
) -> tuple[Clustering, Families]:
    """The clusters and features of a run once `regions` are a feature; its id follows the highest one given so far.

    All other features keep their ids, also those that lose regions; one that loses all is without clusters. Cluster ids
    fall with size again, equal sizes by the smallest member.
    features: (R, M), the vectors that were clustered. position: (R,) as in `Regions`. regions: ids, in any order.
    Raises ConfigError for unknown regions, too few, those of exactly one feature, or regions without a direction.
    """
    label = clustering.label.astype(np.int64)
    chosen = np.unique(np.asarray(regions, np.int64))
    check(chosen, families.features_of(label))
    touched = np.setdiff1d(np.unique(label[chosen]), [NOISE])
    new = clustering.n_clusters
    label[chosen] = new
    medoid = np.append(clustering.medoid, 0).astype(np.int32)
    vector = np.vstack([clustering.medoid_vector, np.zeros((1, len(clustering.components)))]).astype(np.float32)
    lowest = np.append(clustering.min_similarity, 0).astype(np.float32)
    strength = clustering.strength.copy()
    for cluster in (*touched.tolist(), new):
        members = np.flatnonzero(label == cluster)
        if not len(members):
            continue
        middle, vectors = _middle(clustering, features, position, members)
        cosine = product(vectors, vectors[middle])
        medoid[cluster], vector[cluster] = members[middle], vectors[middle]
        lowest[cluster] = np.percentile(cosine, MEMBER_PERCENTILE) - _ZERO
        if cluster == new:
            strength[members] = cosine.clip(0, 1)
    family = np.append(families.family, families.n_features)
    reason = np.append(families.reason, "")
    order = _by_size(label, new + 1)
    place = np.full(new + 2, NOISE)
    place[order] = np.arange(len(order))  # the last entry stands for noise
    clusters = Clustering(
        place[label],
        strength,
        medoid[order],
        clustering.position_mean,
        clustering.center,
        clustering.components,
        vector[order],
        lowest[order],
    )
    return clusters, Families(family[order], _alone(family[order], reason[order]))


def _middle(
    clustering: Clustering, features: NDArray[Any], position: NDArray[np.integer[Any]], members: NDArray[np.int64]
) -> tuple[int, NDArray[np.float32]]:
    """Place of the medoid among the members of a cluster, and their vectors (n, K): see `clustering._medoids`."""
    vectors = reduce(clustering, np.asarray(features[members]), position[members])
    if not vectors.any():
        raise ConfigError(
            "a feature must be of regions that can be compared, but these equal the mean of their position. "
            "Draw around others."
        )
    return int(np.argmax(product(vectors, vectors.sum(0, dtype=np.float64).astype(np.float32)))), vectors


def check(regions: NDArray[np.integer[Any]], feature_of: NDArray[np.int32]) -> None:
    """Raise ConfigError unless regions can become a feature. feature_of: (R,) the features of all regions now."""
    chosen, n = np.unique(np.asarray(regions, np.int64)), len(feature_of)
    if len(chosen) and not 0 <= chosen[0] <= chosen[-1] < n:
        raise ConfigError(f"regions must be ids of the run, 0 .. {n - 1}, got {chosen[0]} .. {chosen[-1]}.")
    if len(chosen) < MIN_REGIONS:
        raise ConfigError(
            f"a feature must have at least {MIN_REGIONS} regions, got {len(chosen)}: with fewer, chance decides what "
            "is measured. Draw around more of them."
        )
    [first] = feature_of[chosen[:1]].tolist()
    if first != NOISE and np.array_equal(np.flatnonzero(feature_of == first), chosen):
        raise ConfigError(f"the regions must not be a feature already, but they are those of feature {first}.")


def _by_size(label: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Clusters that have members, the largest first; equal sizes by the smallest member."""
    own = np.flatnonzero(label != NOISE)
    size, smallest = np.bincount(label[own], minlength=n), np.full(n, len(label))
    np.minimum.at(smallest, label[own], own)
    order: NDArray[np.int64] = np.lexsort((smallest, -size))
    return order[: np.count_nonzero(size)]


def _alone(family: NDArray[np.int32], reason: NDArray[np.str_]) -> NDArray[np.str_]:
    """What joins a cluster to others: nothing, once the others are gone."""
    sizes = np.bincount(family)
    return np.where(sizes[family] > 1, reason, "")
