"""What discovery finds: scores of classes, clusters, features and their exemplars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.tables.record import column, row_of

NOISE = -1
"""Cluster id of a region that belongs to no cluster."""


_BLOCK = 8192  # rows looked at together


@dataclass(frozen=True)
class ZeroShot:
    """Zero-shot class probabilities, rows sum to 1. image: (I, Y) and region: (R, Y) float32; label: (I,) int16."""

    image: NDArray[np.float32]
    region: NDArray[np.float32]
    label: NDArray[np.int16]

    def __post_init__(self) -> None:
        column(self, "image", np.float32, (None, None))
        column(self, "region", np.float32, (None, self.image.shape[1]))
        column(self, "label", np.int16, (len(self.image),))
        for name in ("image", "region"):
            scores = getattr(self, name)
            for start in range(0, len(scores), _BLOCK):  # region scores of many classes are larger than memory
                rows = scores[start : start + _BLOCK].sum(1)
                if not np.allclose(rows, 1, atol=1e-3):
                    raise ValueError(f"ZeroShot.{name} rows must sum to 1, got {rows.min():.3f} .. {rows.max():.3f}.")

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(I,) the class of the highest image score."""
        return self.image.argmax(1) if len(self.image) else np.zeros(0, np.int64)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(I,) whether the prediction is the label."""
        return np.equal(self.predicted, self.label)


@dataclass(frozen=True)
class Clustering:
    """Regions grouped into clusters, and the rule that assigns new regions.

    label: (R,) int32, cluster id or NOISE; ids run from 0 by falling size.
    strength: (R,) float32 in [0, 1], how firmly a region belongs to its cluster.
    medoid: (C,) int32, the region closest to all others of its cluster.
    position_mean: (P, M) float32, mean vector of each region position (one row when there are no positions).
    center: (M,) float32, the mean that is subtracted after the position mean.
    components: (K, M) float32, the principal axes.
    medoid_vector: (C, K) float32, unit vectors of the medoids in the reduced space.
    min_similarity: (C,) float32, 5th percentile of the members' cosine to their medoid; a new region joins the
        nearest medoid when its cosine reaches this, else it is noise.
    """

    label: NDArray[np.int32]
    strength: NDArray[np.float32]
    medoid: NDArray[np.int32]
    position_mean: NDArray[np.float32]
    center: NDArray[np.float32]
    components: NDArray[np.float32]
    medoid_vector: NDArray[np.float32]
    min_similarity: NDArray[np.float32]

    def __post_init__(self) -> None:
        column(self, "label", np.int32, (None,))
        column(self, "strength", np.float32, (len(self.label),))
        column(self, "medoid", np.int32, (None,))
        column(self, "center", np.float32, (None,))
        column(self, "position_mean", np.float32, (None, len(self.center)))
        column(self, "components", np.float32, (None, len(self.center)))
        column(self, "medoid_vector", np.float32, (len(self.medoid), len(self.components)))
        column(self, "min_similarity", np.float32, (len(self.medoid),))
        if len(self.label) and not NOISE <= self.label.min() <= self.label.max() < len(self.medoid):
            raise ValueError(f"Clustering.label must lie in -1 .. {len(self.medoid) - 1}, got {self.label.max()}.")

    @property
    def n_clusters(self) -> int:
        return len(self.medoid)

    @property
    def noise_share(self) -> float:
        """Share of the regions that belong to no cluster; NaN without regions."""
        return float(np.mean(self.label == NOISE)) if len(self.label) else float("nan")


@dataclass(frozen=True)
class Families:
    """Which clusters are one feature.

    family: (C,) int32 >= 0, feature id of every cluster. An id that an edit retired is never given again, so that a
        feature may be without clusters.
    reason: (C,) str, what joins a cluster to the others of its feature: near, alike or edited; "" where it is alone.
    """

    family: NDArray[np.int32]
    reason: NDArray[np.str_]

    def __post_init__(self) -> None:
        column(self, "family", np.int32, (None,))
        column(self, "reason", np.str_, (len(self.family),))
        if len(self.family) and self.family.min() < 0:
            raise ValueError(f"Families.family must be at least 0, got {self.family.min()}.")
        if strange := set(self.reason.tolist()) - {"", "near", "alike", "edited"}:
            raise ValueError(f"Families.reason must be near, alike, edited or empty, got {min(strange)!r}.")

    @property
    def n_features(self) -> int:
        """One more than the highest feature id."""
        return int(self.family.max(initial=-1)) + 1

    def features_of(self, label: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """(R,) feature id of regions with cluster ids `label`; NOISE stays NOISE. Raises ValueError for other ids."""
        label = np.asarray(label, np.int64)
        if len(label) and not NOISE <= label.min() <= label.max() < len(self.family):
            found = f"{label.min()} .. {label.max()}"
            raise ValueError(f"label must lie in {NOISE} .. {len(self.family) - 1}, got {found}.")
        feature: NDArray[np.int32] = np.append(self.family, np.int32(NOISE))[label]  # the last entry stands for noise
        return feature

    def clusters_of(self, feature: int) -> NDArray[np.int64]:
        """Ids of the clusters of one feature, rising; empty for a retired id."""
        return np.flatnonzero(self.family == feature)


@dataclass(frozen=True)
class FeatureScores:
    """The paper's scores, one entry per feature id ever given, best first.

    feature: (F,) int32, feature id.
    pull_class: (F,) int16, most frequent wrong prediction where the feature decides; -1 where it decides no error.
    influence: (F,) float32 in [0, 1]; NaN where no class loses accuracy or no such error can be judged.
    gap: (F,) float32 >= 0, sum of |gap_y| over the classes where it is defined; NaN where it is nowhere defined.
    two_sided: (F,) bool, some class gains and some class loses.
    passes: (F,) bool, the paper's rule.
    n_regions, n_images, n_errors: (F,) int32, regions; images with the feature; misclassified ones among those.
    n_decided: (F,) int32, errors whose best region for the wrong predicted class shows the feature.
    class_gap: (F, Y) float32 in [-1, 1], signed gap_y; NaN where one side is empty.
    n_in, right_in, n_out, right_out: (F, Y) int32, images with / without the feature per class, and how many are right.
    """

    feature: NDArray[np.int32]
    pull_class: NDArray[np.int16]
    influence: NDArray[np.float32]
    gap: NDArray[np.float32]
    two_sided: NDArray[np.bool_]
    passes: NDArray[np.bool_]
    n_regions: NDArray[np.int32]
    n_images: NDArray[np.int32]
    n_errors: NDArray[np.int32]
    n_decided: NDArray[np.int32]
    class_gap: NDArray[np.float32]
    n_in: NDArray[np.int32]
    right_in: NDArray[np.int32]
    n_out: NDArray[np.int32]
    right_out: NDArray[np.int32]

    def __post_init__(self) -> None:
        column(self, "feature", np.int32, (None,))
        n = len(self.feature)
        dtypes: dict[str, Any] = {"pull_class": np.int16, "influence": np.float32, "gap": np.float32}
        dtypes |= {"two_sided": np.bool_, "passes": np.bool_, "n_regions": np.int32, "n_images": np.int32}
        dtypes |= {"n_errors": np.int32, "n_decided": np.int32}
        for name, dtype in dtypes.items():
            column(self, name, dtype, (n,))
        classes = np.asarray(self.class_gap).shape[-1]
        column(self, "class_gap", np.float32, (n, classes))
        for name in ("n_in", "right_in", "n_out", "right_out"):
            column(self, name, np.int32, (n, classes))

    def __len__(self) -> int:
        return len(self.feature)

    @property
    def existing(self) -> NDArray[np.int32]:
        """Ids of the features that some region shows, best first: not those that a merge or a split retired."""
        return self.feature[self.n_regions > 0]

    def row_of(self, feature: int) -> int:
        """The row of a feature id. Raises KeyError for an unknown id."""
        return row_of(self.feature, feature)


@dataclass(frozen=True)
class Exemplars:
    """Crops that stand for a feature, one row each, grouped by feature and ranked by falling error contribution.

    feature, region, image: (N,) int32 ids.
    against: (N,) int16, the class the true class is compared with: the wrong prediction, or the runner-up if right.
    contribution: (N,) float32, in logits: the smallest over the removal operators (they have to agree).
    token_drop, mean_fill: (N,) float32, the contribution by each operator; NaN where an operator cannot be applied.
    """

    feature: NDArray[np.int32]
    region: NDArray[np.int32]
    image: NDArray[np.int32]
    against: NDArray[np.int16]
    contribution: NDArray[np.float32]
    token_drop: NDArray[np.float32]
    mean_fill: NDArray[np.float32]

    def __post_init__(self) -> None:
        column(self, "feature", np.int32, (None,))
        dtypes: dict[str, Any] = {"region": np.int32, "image": np.int32, "against": np.int16}
        dtypes |= {"contribution": np.float32, "token_drop": np.float32, "mean_fill": np.float32}
        for name, dtype in dtypes.items():
            column(self, name, dtype, (len(self.feature),))

    def __len__(self) -> int:
        return len(self.feature)

    def rows_of(self, feature: int) -> NDArray[np.int64]:
        """Row numbers of one feature, best first."""
        return np.flatnonzero(self.feature == feature)


@dataclass(frozen=True)
class Agreement:
    """How far the encoder `tokens` agrees with `crop` on a sample of n regions; NaN where nothing could be compared.

    cosine: mean cosine of the two embeddings of a region, in [-1, 1]. same_class: share of the regions whose best class
    is the same, in [0, 1]. spearman: rank correlation over the regions, in [-1, 1], of the score for the class that is
    predicted for the region's image; also NaN where one encoder gives all regions the same score.
    """

    n: int
    cosine: float
    same_class: float
    spearman: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", int(self.n))
        for name in ("cosine", "same_class", "spearman"):
            object.__setattr__(self, name, float(getattr(self, name)))
            value, low = getattr(self, name), 0 if name == "same_class" else -1
            if not (np.isnan(value) or low - 1e-3 <= value <= 1 + 1e-3) or (not self.n and not np.isnan(value)):
                raise ValueError(f"Agreement.{name} must lie in {low} .. 1, or be NaN without regions, got {value}.")
