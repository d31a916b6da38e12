"""Clusters that show one and the same feature are joined (a red square often falls into one cluster per position).

Two clusters are compatible when they look alike, or act alike:

    near    the cosine of their medoids, in the space they were found in, reaches `near`
    alike   the cosine of their signed gaps over the classes reaches `alike`, and they have the same pull class

A family is a set of clusters of which every two are compatible (complete linkage: the pair that is compatible by the
widest margin is joined first).

Deviation: the paper (Varma et al. 2024) takes the top cluster alone, so that the others of the same mark would be used
as positives. Of the two errors, joining a mark with an object is the worse one: the object would then be trained away.
So whatever is doubtful stays apart, and a person can join it:

- Complete linkage, not single: one cluster between a mark and an object would chain all their clusters together. Nor
  average: it lets one close pair outvote pairs that are not compatible at all.
- `alike` asks that both clusters have enough evidence, a gap beyond chance (q < alpha) and errors they decide. Gaps
  that are noise point anywhere, so that among many clusters some are alike by accident; and joining accidents that
  agree would make a chance gap look significant. As it is, both parts of such a family were beyond chance before.
- `alike` asks for four classes in common, since among fewer the same pull class already gives the same signs: with
  three classes, a mark and the anatomy of the class that it pulls to were joined.
  An undefined gap counts as 0: over the common classes alone, the few classes of an object would decide. And clusters
  whose medoids point apart (a cosine below 0) show different things, whatever they do.
- However near, clusters that act apart are never joined: those that decide errors for different pull classes, and those
  whose shares of decided errors, among the errors on images that show them, differ by more than one half beyond doubt
  (Newcombe interval). In the space of final embeddings, objects of the class that a mark pulls to lie as near as 0.9 to
  the mark.

Measured with K-Medoids (k = 15 .. 80) and HDBSCAN in both spaces: mean share of a mark's regions in the single cluster,
and in the family, that holds most of them; and the precision of both, and of the family without the last rule:

    digits, red square                            .70  1.00    .99  .99  .98
    textures, two marks of different pull         .71   .98    .96  .94  .93
    two textures, a diamond across cells, vit7    .85   .92    .85  .85  .78
    the same, vit14                               .63   .81    .97  .95  .91

Without any effect, families are flagged (q < .05) no more often than alpha allows: in 4 % of 480 simulated audits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.config import FamiliesConfig, SignificanceConfig
from ravl.discovery.significance import gap_p_values, newcombe, q_values
from ravl.discovery.zero_shot import product
from ravl.errors import ConfigError
from ravl.tables import Clustering, Families, FeatureScores

MIN_DECIDED = 5
"""Errors that a cluster must decide for its pull class to say something."""
MIN_SHARED = 4
"""Classes in which the gaps of both clusters must be defined."""
MAX_APART = 0.5
"""Difference of the shares of errors that two clusters decide, above which they act apart."""
_ZERO = 1e-6
"""Rounding of a cosine in single precision."""
_NEVER = -3.0
"""Margin of a pair that must not be joined; margins of other pairs are at least -2."""

Matrix = NDArray[np.float64]


def group(
    clustering: Clustering,
    cluster_scores: FeatureScores,
    config: FamiliesConfig,
    significance: SignificanceConfig = SignificanceConfig(),
    seed: int = 0,
    parts: NDArray[np.bool_] | None = None,
) -> Families:
    """Join the clusters that show the same feature. Feature ids fall with the number of regions (equal numbers: the
    smallest cluster first), so that they are the cluster ids where nothing is joined.

    cluster_scores: of the single clusters. significance: what is enough evidence, and a gap beyond chance. parts: (C,)
    clusters that a mixed feature was divided into; they were together for being near, so that they are joined to others
    only when they act alike.
    Raises ValueError when the scores are not those of the clusters.
    """
    n = clustering.n_clusters
    if sorted(cluster_scores.feature.tolist()) != list(range(n)):
        found = f"{len(cluster_scores)} features" if len(cluster_scores) != n else "other ids"
        raise ValueError(f"cluster_scores must hold every cluster 0 .. {n - 1} once, got {found}.")
    if not config.enabled or n < 2:
        return Families(np.arange(n, dtype=np.int32), np.full(n, ""))
    by_id = np.argsort(cluster_scores.feature)
    near = _medoid_cosine(clustering) - config.near + _ZERO
    if parts is not None:
        near[parts[:, None] | parts] = _NEVER
    alike = _alike(clustering, cluster_scores, by_id, config, significance, seed)
    family = _complete_linkage(np.where(_apart(cluster_scores, by_id), _NEVER, np.maximum(near, alike)))
    n_regions = np.bincount(family, weights=cluster_scores.n_regions[by_id])
    first = np.unique(family, return_index=True)[1]
    new_id = np.argsort(np.lexsort((first, -n_regions))).astype(np.int32)
    together = (family[:, None] == family) & ~np.eye(n, dtype=bool)
    looks = (together & (near >= 0)).any(1)
    return Families(new_id[family], np.where(looks, "near", np.where(together.any(1), "alike", "")))


def merge(families: Families, features: Sequence[int]) -> Families:
    """Make one new feature of several; its id follows the highest one given so far, the old ids are retired.

    All other features keep their ids, so that decisions about them still hold. Raises ConfigError for fewer than two
    different features, or one that does not exist (any more).
    """
    chosen = sorted(set(features))
    if len(chosen) < 2:
        raise ConfigError(f"features must name at least two to merge, got {list(features)}.")
    for feature in chosen:
        _clusters(families, feature)
    inside = np.isin(families.family, chosen)
    return Families(np.where(inside, families.n_features, families.family), np.where(inside, "edited", families.reason))


def split(families: Families, feature: int) -> Families:
    """Make every cluster of a feature one of its own; their ids follow the highest one given so far, in cluster order.

    All other features keep their ids. Raises ConfigError for a feature of one cluster, or one that does not exist
    (any more).
    """
    clusters = _clusters(families, feature)
    if len(clusters) < 2:
        raise ConfigError(f"feature must hold at least two clusters to be split, got {feature}, which is one cluster.")
    family, reason = families.family.copy(), families.reason.copy()
    family[clusters] = families.n_features + np.arange(len(clusters))
    reason[clusters] = ""
    return Families(family, reason)


def _apart(scores: FeatureScores, by_id: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(C, C) whether two clusters act apart (see the module), so that they must not be joined."""
    pull, decided, errors = scores.pull_class[by_id], scores.n_decided[by_id], scores.n_errors[by_id]
    decides = decided >= MIN_DECIDED
    contradict = (pull[:, None] != pull) & decides[:, None] & decides
    more = newcombe(decided[:, None], errors[:, None], decided, errors)[0] > MAX_APART  # NaN, False, without errors
    apart: NDArray[np.bool_] = contradict | more | more.T
    return apart


def _alike(
    clustering: Clustering,
    scores: FeatureScores,
    by_id: NDArray[np.int64],
    config: FamiliesConfig,
    significance: SignificanceConfig,
    seed: int,
) -> Matrix:
    """(C, C) cosine of the signed gaps minus `alike`; _NEVER where they must not be compared (see the module)."""
    q = q_values(scores, gap_p_values(scores, significance, seed), significance)[by_id]
    pull = scores.pull_class[by_id]
    acts = (q < significance.alpha) & (pull >= 0) & (scores.n_decided[by_id] >= MIN_DECIDED)  # NaN: not enough
    defined = ~np.isnan(scores.class_gap[by_id])
    gap = np.where(defined, scores.class_gap[by_id], 0).astype(np.float64)
    length = np.linalg.norm(gap, axis=1, keepdims=True)
    unit = np.divide(gap, length, out=np.zeros_like(gap), where=length > 0)
    allowed = acts[:, None] & acts & (pull[:, None] == pull) & (_medoid_cosine(clustering) >= 0)
    allowed &= product(defined.astype(np.float64), defined.T.astype(np.float64)) >= MIN_SHARED
    return np.where(allowed, product(unit, unit.T) - config.alike + _ZERO, _NEVER)


def _medoid_cosine(clustering: Clustering) -> Matrix:
    vectors = clustering.medoid_vector.astype(np.float64)
    cosine: Matrix = product(vectors, vectors.T)
    return cosine


def _complete_linkage(margin: Matrix) -> NDArray[np.int64]:
    """(C,) set of each cluster, numbered from 0: the pair of sets of the largest least margin is joined, while >= 0."""
    from scipy.cluster.hierarchy import fcluster, linkage

    rows, columns = np.triu_indices(len(margin), 1)
    farthest = 1 - _NEVER
    distance = np.clip(1 - margin[rows, columns], 0, farthest)  # a margin of 0 is a distance of 1
    tree: Any = linkage(distance, "complete")
    joined: NDArray[np.int64] = fcluster(tree, 1.0, "distance").astype(np.int64) - 1
    return joined


def _clusters(families: Families, feature: int) -> NDArray[np.int64]:
    clusters = families.clusters_of(feature)
    if not len(clusters):
        known = ", ".join(map(str, np.unique(families.family).tolist()))
        raise ConfigError(
            f"feature must be one of {known or 'none, as there is no cluster'}, got {feature}. "
            "It may have been merged or split since you looked: ravl show lists those there are."
        )
    return clusters
