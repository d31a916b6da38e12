"""A second look at features that mix two things.

A model that leans on a mark sees mark and object of its class as one: they may fall into one cluster. Removing it then
fixes the errors that the mark causes, and takes away what the object's own images need; or it fixes them and does no
harm, but half of what a person is shown, and a repair would take away, is innocent. So the regions of such a feature
are clustered among themselves, around their own mean, where what they have in common no longer counts, and every part
is judged as a feature of its own, with nothing kept of the first judgement.

Looked at are features that fix errors and harm, and flagged ones whose strongest exemplars gather in one part. Of a
flagged feature the division is kept only where the parts that are flagged in their turn explain more errors per region:
a mark that falls apart by what lies around it is one thing, and stays one.

Deviation: Varma et al. 2024 cluster once. The effects of removal choose *what* is clustered again, never which regions
go where.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.config import AuditConfig
from ravl.discovery.clustering import parts, reduce
from ravl.discovery.evidence import fixes_beyond_control, needed
from ravl.discovery.relabelling import relabelled
from ravl.tables import NOISE, Clustering, Evidence, Exemplars

MIXED = ("harm", "partial")
"""Reasons for which a feature that fixes errors is looked at again: removing it also took away what was needed."""

DENSER = 1.25
"""How many times as many errors per region the flagged parts of a flagged feature must explain."""


@dataclass(frozen=True)
class Division:
    """A feature that falls apart. members: (n,) its regions. part: (n,) ids from 0, at least two, or NOISE."""

    members: NDArray[np.int64]
    part: NDArray[np.int64]


def mixed(evidence: Evidence, config: AuditConfig) -> NDArray[np.int32]:
    """Ids of the features whose removal fixes errors beyond the control, and harms."""
    fixes = fixes_beyond_control(asdict(evidence), config.evidence, config.significance.alpha)
    enough = fixes.sum(1) >= needed(evidence.operators, config.evidence)
    chosen: NDArray[np.int32] = evidence.feature[enough & np.isin(evidence.reason, MIXED)]
    return chosen


def divisions(
    clustering: Clustering,
    features: NDArray[Any],
    position: NDArray[np.integer[Any]],
    feature_of: NDArray[np.integer[Any]],
    evidence: Evidence,
    exemplars: Exemplars,
    config: AuditConfig,
) -> dict[int, Division]:
    """The features that fall apart and whose parts deserve to be judged, by id.

    features: (R, M), the vectors that were clustered. position: (R,) as in `Regions`. feature_of: (R,) feature ids or
    NOISE.
    """
    harmful = set(mixed(evidence, config).tolist())
    found = {}
    for feature in sorted(harmful.union(evidence.feature[evidence.flagged].tolist())):
        members = np.flatnonzero(feature_of == feature)
        vectors = reduce(clustering, np.asarray(features[members]), position[members])
        part = parts(vectors, config.clustering, np.random.default_rng([config.seed, feature]))
        strongest = np.isin(members, exemplars.region[exemplars.rows_of(feature)])
        if part.max(initial=NOISE) < 1:
            continue
        if feature in harmful or gathered(part, strongest, config.significance.alpha):
            found[feature] = Division(members, part)
    return found


def gathered(part: NDArray[np.integer[Any]], strongest: NDArray[np.bool_], alpha: float) -> bool:
    """Whether more of the strongest regions lie in one part than a draw at random would put there.

    Hypergeometric, one-sided, Bonferroni over the parts. part: (n,) ids from 0 or NOISE. strongest: (n,).
    """
    from scipy.stats import hypergeom  # slow to import, and the screen only reads what is kept

    n_parts = int(part.max(initial=NOISE)) + 1
    inside = np.bincount(part[strongest & (part != NOISE)], minlength=n_parts)
    size = np.bincount(part[part != NOISE], minlength=n_parts)
    p = hypergeom.sf(inside - 1, len(part), size, int(strongest.sum()))
    return bool((p * n_parts < alpha).any())


def divided(
    clustering: Clustering,
    features: NDArray[Any],
    position: NDArray[np.integer[Any]],
    chosen: Iterable[Division],
) -> tuple[Clustering, NDArray[np.bool_]]:
    """The clustering with the parts of each division in place of the clusters of its feature.

    Returns the clustering and (C,) which of its clusters are such parts. Arguments as in `divisions`.
    """
    label = clustering.label.astype(np.int64)
    new = clustering.n_clusters
    for division in chosen:
        label[division.members] = np.where(division.part == NOISE, NOISE, division.part + new)
        new += int(division.part.max()) + 1
    clusters, was = relabelled(clustering, features, position, label)
    return clusters, was >= clustering.n_clusters


def worth_keeping(
    looked: Mapping[int, Division], before: Evidence, after: Evidence, feature_after: NDArray[np.integer[Any]]
) -> dict[int, Division]:
    """The divisions to keep, now that their parts have been judged: all of those that harmed, and of the flagged ones
    those whose flagged parts explain DENSER times as many errors per region.

    before: names the features of `looked`. after, feature_after: (R,), the judgement of the parts.
    """
    flagged = set(before.feature[before.flagged].tolist())
    return {
        feature: division
        for feature, division in looked.items()
        if feature not in flagged or _denser(feature, division, before, after, feature_after)
    }


def _denser(
    feature: int, division: Division, before: Evidence, after: Evidence, feature_after: NDArray[np.integer[Any]]
) -> bool:
    whole = float(before.error_share[before.feature == feature][0]) / len(division.members)
    own = after.flagged & np.isin(after.feature, feature_after[division.members])
    n_regions = np.isin(feature_after, after.feature[own]).sum()
    return bool(own.any() and after.error_share[own].sum() / n_regions >= DENSER * whole)
