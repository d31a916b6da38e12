"""Clusters whose members have changed: each gets the medoid and the threshold of those that it holds now.

So new regions are assigned by the same rule as ever (`clustering.assign`), and all later steps work as on clusters that
the algorithm found.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.discovery.clustering import MEMBER_PERCENTILE, reduce
from ravl.discovery.zero_shot import product
from ravl.errors import ConfigError
from ravl.tables import NOISE, Clustering

_ZERO = 1e-6  # rounding of a cosine in single precision


def relabelled(
    clustering: Clustering, features: NDArray[Any], position: NDArray[np.integer[Any]], label: NDArray[np.int64]
) -> tuple[Clustering, NDArray[np.int64]]:
    """The clustering with other members, and what its clusters were called in `label`.

    Cluster ids fall with size again, equal sizes by the smallest member; a cluster without members is gone.
    features: (R, M), the vectors that were clustered. position: (R,) as in `Regions`. label: (R,) cluster ids of
    `clustering`, ids from n_clusters on for new clusters, or NOISE.
    Returns the clustering and (C,) the id in `label` of each of its clusters. Raises ConfigError where a new cluster
    holds regions without a direction only.
    """
    n = max(clustering.n_clusters, int(label.max(initial=NOISE)) + 1)
    extra = n - clustering.n_clusters
    medoid = np.append(clustering.medoid, np.zeros(extra)).astype(np.int32)
    vector = np.vstack([clustering.medoid_vector, np.zeros((extra, len(clustering.components)))]).astype(np.float32)
    lowest = np.append(clustering.min_similarity, np.zeros(extra)).astype(np.float32)
    strength = clustering.strength.copy()
    moved = label != clustering.label
    strength[moved & (label == NOISE)] = 0
    touched = np.union1d(label[moved], clustering.label[moved])
    for cluster in touched[touched != NOISE].tolist():
        members = np.flatnonzero(label == cluster)
        if not len(members):
            continue
        middle, vectors = _middle(clustering, features, position, members)
        cosine = product(vectors, vectors[middle])
        medoid[cluster], vector[cluster] = members[middle], vectors[middle]
        lowest[cluster] = np.percentile(cosine, MEMBER_PERCENTILE) - _ZERO
        new = moved[members]
        strength[members[new]] = cosine[new].clip(0, 1)
    order = _by_size(label, n)
    place = np.full(n + 1, NOISE)
    place[order] = np.arange(len(order))  # the last entry stands for noise
    rule = (clustering.position_mean, clustering.center, clustering.components)
    return Clustering(place[label], strength, medoid[order], *rule, vector[order], lowest[order]), order


def _middle(
    clustering: Clustering, features: NDArray[Any], position: NDArray[np.integer[Any]], members: NDArray[np.int64]
) -> tuple[int, NDArray[np.float32]]:
    """Place of the medoid among the members of a cluster, and their vectors (n, K): see `kmedoids.medoids_of`."""
    vectors = reduce(clustering, np.asarray(features[members]), position[members])
    if not vectors.any():
        raise ConfigError(
            "a feature must be of regions that can be compared, but these equal the mean of their position. "
            "Draw around others."
        )
    return int(np.argmax(product(vectors, vectors.sum(0, dtype=np.float64).astype(np.float32)))), vectors


def _by_size(label: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Clusters that have members, the largest first; equal sizes by the smallest member."""
    own = np.flatnonzero(label != NOISE)
    size, smallest = np.bincount(label[own], minlength=n), np.full(n, len(label))
    np.minimum.at(smallest, label[own], own)
    order: NDArray[np.int64] = np.lexsort((smallest, -size))
    return order[: np.count_nonzero(size)]
