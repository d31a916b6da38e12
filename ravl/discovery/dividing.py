"""A second look at features that mix two things.

A model that leans on a mark sees mark and object of its class as one: they may fall into one cluster. Removing it then
fixes the errors that the mark causes, and takes away what the object's own images need. Neither a person nor a repair
can do anything with such a feature. So its regions are clustered among themselves, around their own mean, where what
they have in common no longer counts, and every part is judged as a feature of its own, with nothing kept of the first
judgement. Features that are causal as they are, and those that fix nothing, are left alone.

Deviation: Varma et al. 2024 cluster once. The effects of removal choose *what* is clustered again, never which regions
go where.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.config import AuditConfig
from ravl.discovery.clustering import parts, reduce
from ravl.discovery.evidence import fixes_beyond_control, needed
from ravl.discovery.relabelling import relabelled
from ravl.tables import NOISE, Clustering, Evidence

MIXED = ("harm", "partial")
"""Reasons for which a feature that fixes errors is looked at again: removing it also took away what was needed."""


def mixed(evidence: Evidence, config: AuditConfig) -> NDArray[np.int32]:
    """Ids of the features whose removal fixes errors beyond the control, and harms."""
    fixes = fixes_beyond_control(asdict(evidence), config.evidence, config.significance.alpha)
    enough = fixes.sum(1) >= needed(evidence.operators, config.evidence)
    chosen: NDArray[np.int32] = evidence.feature[enough & np.isin(evidence.reason, MIXED)]
    return chosen


def divided(
    clustering: Clustering,
    features: NDArray[Any],
    position: NDArray[np.integer[Any]],
    feature_of: NDArray[np.integer[Any]],
    chosen: NDArray[np.integer[Any]],
    config: AuditConfig,
) -> tuple[Clustering, NDArray[np.bool_]] | None:
    """The clustering with the parts of each chosen feature in place of its clusters; None where nothing falls apart.

    Returns the clustering and (C,) which of its clusters are such parts.
    features: (R, M), the vectors that were clustered. position: (R,) as in `Regions`. feature_of: (R,) feature ids or
    NOISE. chosen: ids of features.
    """
    label = clustering.label.astype(np.int64)
    new = clustering.n_clusters
    for feature in chosen.tolist():
        members = np.flatnonzero(feature_of == feature)
        vectors = reduce(clustering, np.asarray(features[members]), position[members])
        part = parts(vectors, config.clustering, np.random.default_rng([config.seed, feature]))
        if part.max(initial=NOISE) < 1:
            continue
        label[members] = np.where(part == NOISE, NOISE, part + new)
        new += int(part.max()) + 1
    if new == clustering.n_clusters:
        return None
    clusters, was = relabelled(clustering, features, position, label)
    return clusters, was >= clustering.n_clusters
