"""A person draws around regions on the map and makes a feature of them.

The regions leave the clusters they were in and become a cluster of their own, which is a feature of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.discovery.relabelling import relabelled
from ravl.errors import ConfigError
from ravl.tables import NOISE, Clustering, Families

MIN_REGIONS = 10
"""Regions that a feature must have: with fewer, a difference in accuracy with and without it is mostly chance."""


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
    label[chosen] = clustering.n_clusters
    clusters, order = relabelled(clustering, features, position, label)
    family = np.append(families.family, families.n_features)[order]
    return clusters, Families(family, _alone(family, np.append(families.reason, "")[order]))


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


def _alone(family: NDArray[np.int32], reason: NDArray[np.str_]) -> NDArray[np.str_]:
    """What joins a cluster to others: nothing, once the others are gone."""
    sizes = np.bincount(family)
    return np.where(sizes[family] > 1, reason, "")
