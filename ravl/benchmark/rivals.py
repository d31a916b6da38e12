"""Other methods that look for spurious features, on the regions, embeddings and predictions of the same audit.

Each answers with the same record, `Ranked`. Methods of regions rank the audit's clusters, so that they differ in
nothing but their score; the regions of a cluster are shown as in the papers, nearest to the medoid first, and the pull
class is the one of `FeatureScores` for all of them, since none but Varma et al. 2024 names one. Methods of images see
image embeddings and predictions only: their features are lists of images.

A method with a rule flags what passes it. A method that only ranks (random, both gaps, Domino, failure directions)
flags its first feature: whoever asks it gets an answer, also where there is nothing to find.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.config import ScoringConfig
from ravl.discovery.scoring import score_features
from ravl.tables import NOISE, Evidence, Exemplars, FeatureScores, Regions, Significance, ZeroShot

Numbers = NDArray[np.floating[Any]]
Ids = NDArray[np.int64]

TROVE_LEAST_FALL = 0.1
"""A class must lose more accuracy than this where the feature is (epsilon of TRoVe's published code)."""
TROVE_LEAST_SHARE = 0.15
"""A feature must be in at least this share of the class's images, and missing from as many (same source)."""


@dataclass(frozen=True)
class Audit:
    """What every method may look at.

    label: (R,) int64 cluster of each region, or NOISE. closeness: (R,) float32 cosine to the medoid of its cluster.
    image_vec: (I, D) float32 image embeddings. scores: the paper's scores of the clusters.
    """

    regions: Regions
    zero_shot: ZeroShot
    label: Ids
    closeness: NDArray[np.float32]
    image_vec: NDArray[np.float32]
    scores: FeatureScores

    @classmethod
    def of(
        cls,
        regions: Regions,
        zero_shot: ZeroShot,
        label: NDArray[np.integer[Any]],
        closeness: Numbers,
        image_vec: NDArray[Any],
    ) -> Audit:
        """The audit of a clustering, with the paper's scores worked out. Raises ValueError for a wrong shape."""
        label = np.asarray(label)
        scores = score_features(regions, zero_shot, label, int(label.max(initial=-1)) + 1, ScoringConfig())
        closeness = np.asarray(closeness, np.float32)
        image_vec = np.asarray(image_vec, np.float32)
        if closeness.shape != label.shape:
            raise ValueError(f"closeness must have shape {label.shape}, one value per region, got {closeness.shape}.")
        if image_vec.ndim != 2 or len(image_vec) != regions.n_images:
            raise ValueError(f"image_vec must have shape ({regions.n_images}, D), got {image_vec.shape}.")
        return cls(regions, zero_shot, label.astype(np.int64), closeness, image_vec, scores)


@dataclass(frozen=True)
class Ranked:
    """One method's answer, best feature first.

    order: (F,) int64 feature ids. members: per ranked feature its region ids (image ids when `of_images`), the ones it
    would show first in front. pull: (F,) int64 class, -1 where none is named. flagged: (F,) bool, called spurious.
    """

    name: str
    order: Ids
    members: tuple[Ids, ...]
    pull: Ids
    flagged: NDArray[np.bool_]
    of_images: bool = False

    def __post_init__(self) -> None:
        lengths = {len(self.order), len(self.members), len(self.pull), len(self.flagged)}
        if len(lengths) > 1:
            raise ValueError(f"Ranked columns must have one entry per feature, got lengths {sorted(lengths)}.")


def random_order(audit: Audit, seed: int) -> Ranked:
    """The clusters in a random order: what an answer is worth by chance."""
    score = np.random.default_rng(seed).random(len(audit.scores))
    return _ranked_regions("random", audit, score, None)


def unweighted_gap(audit: Audit) -> Ranked:
    """sum_y |acc_in_y - acc_out_y| over the classes with images on both sides: the gap without its weights w_y."""
    scores = audit.scores
    with np.errstate(invalid="ignore", divide="ignore"):  # an empty side: NaN, left out of the sum
        difference = np.abs(scores.right_in / scores.n_in - scores.right_out / scores.n_out)
    difference[~np.isfinite(difference)] = np.nan
    total = np.where(np.isnan(difference).all(1), np.nan, np.nansum(difference, 1))
    return _ranked_regions("gap, unweighted", audit, total, None)


def weighted_gap(audit: Audit) -> Ranked:
    """The paper's performance gap alone (Varma et al. 2024): nothing is pruned."""
    return _ranked_regions("gap", audit, audit.scores.gap, None)


def gap_and_influence(audit: Audit) -> Ranked:
    """The paper's discovery (Varma et al. 2024): pruned by influence, two-sided as in its code, ranked by gap."""
    score = np.nan_to_num(audit.scores.gap, nan=-1) + 1e3 * audit.scores.passes
    return _ranked_regions("gap + influence (paper)", audit, score, audit.scores.passes)


def trove(audit: Audit) -> Ranked:
    """TRoVe's score (Varma et al. 2025, arXiv 2512.01048, and its published code), carried from frames to regions.

    There a feature is a cluster of frames, a sequence is right or wrong, and a frame, repeated to a "static sequence",
    has a prediction of its own. Here a sequence is an image, its frames are its regions, and a region's own class
    probabilities stand for the static sequence. For feature c and class y:

        ECS = acc_out_y - acc_in_y                         > .1, with c in 15 .. 85 % of the class's images
        SBS = mean probability of the wrong prediction     > 1 / Y, over the regions in c of misclassified images of y

    and a pair (c, y) that passes both has the score ECS + SBS. A feature has the best score of its pairs; it is flagged
    when one passes. Features without a passing pair follow, by their best unpruned score.

    Deviation: the clusters are the audit's, not those of a spherical K-Means, so that all methods rank the same ones.
    """
    scores, regions, zero_shot = audit.scores, audit.regions, audit.zero_shot
    n_in, n_out = scores.n_in.astype(float), scores.n_out.astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):  # an empty side or class: NaN, no pair
        contribution = scores.right_out / n_out - scores.right_in / n_in
        share = n_in / (n_in + n_out)
    bias = _static_bias(regions, zero_shot, audit.label, len(scores))[scores.feature]
    pair = np.nan_to_num(contribution + bias, nan=-np.inf)
    passes = np.isfinite(pair) & (contribution > TROVE_LEAST_FALL) & (bias > 1 / bias.shape[1])
    passes &= (share >= TROVE_LEAST_SHARE) & (share <= 1 - TROVE_LEAST_SHARE)
    best = np.where(passes, pair, -np.inf).max(1, initial=-np.inf)
    rest = pair.max(1, initial=-np.inf)
    score = np.where(passes.any(1), best + 1e3, rest)
    return _ranked_regions("TRoVe", audit, np.where(np.isfinite(score), score, np.nan), passes.any(1))


def _static_bias(regions: Regions, zero_shot: ZeroShot, label: Ids, n_features: int) -> NDArray[np.float64]:
    """(C, Y) mean probability that regions in c give to the wrong prediction of their image, by the image's class."""
    n_classes = zero_shot.image.shape[1]
    wrong = np.flatnonzero((label != NOISE) & ~zero_shot.correct[regions.image])
    image = regions.image[wrong]
    cell = label[wrong] * n_classes + zero_shot.label[image]
    total = np.bincount(cell, zero_shot.region[wrong, zero_shot.predicted[image]], n_features * n_classes)
    count = np.bincount(cell, minlength=n_features * n_classes)
    mean: NDArray[np.float64] = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    return mean.reshape(n_features, n_classes)


def permutation_only(
    scores: FeatureScores, significance: Significance, feature_of: Ids, closeness: Numbers, alpha: float
) -> Ranked:
    """Ours without removal: features with enough support whose gap chance does not explain (q < alpha), by excess gap.

    scores, significance: of features, row by row. feature_of, closeness: (R,) feature id, and cosine to the medoid of
    the region's cluster.
    """
    passes = significance.supported & (np.nan_to_num(significance.q, nan=1) < alpha) & (significance.replicated != 0)
    excess = np.nan_to_num(significance.excess_gap, nan=-np.inf)
    order = np.lexsort((scores.feature, -excess, ~passes))
    feature, pull = scores.feature[order], scores.pull_class[order]
    return ranked_by("ours, permutation test only", feature, passes[order], feature_of, nearest_first(closeness), pull)


def with_evidence(
    scores: FeatureScores, evidence: Evidence, exemplars: Exemplars, feature_of: Ids, closeness: Numbers
) -> Ranked:
    """Ours: the audit's own order and flags; each feature shows its exemplars (by error contribution) first."""
    place = nearest_first(closeness) + len(exemplars)
    place[exemplars.region] = np.arange(len(exemplars))
    pull = np.array([scores.pull_class[scores.row_of(feature)] for feature in evidence.feature.tolist()], np.int64)
    return ranked_by("ours, with evidence", evidence.feature, evidence.flagged, feature_of, place, pull)


RANKERS: tuple[Callable[[Audit], Ranked], ...] = (unweighted_gap, weighted_gap, gap_and_influence, trove)
"""The methods of regions that need nothing but the audit."""


def ranked_by(
    name: str,
    order: NDArray[np.integer[Any]],
    flagged: NDArray[np.bool_],
    label: Ids,
    first: Ids,
    pull: NDArray[np.integer[Any]],
) -> Ranked:
    """An answer from features in order: the members of each are its regions, by `first` (R,), lowest in front."""
    by_place = np.argsort(first, kind="stable")
    members = [by_place[label[by_place] == feature] for feature in order]
    return Ranked(name, np.asarray(order, np.int64), tuple(members), np.asarray(pull, np.int64), np.asarray(flagged))


def nearest_first(closeness: Numbers) -> Ids:
    """(R,) place of every region when all are sorted by falling closeness; ties by id."""
    place = np.empty(len(closeness), np.int64)
    place[np.argsort(-closeness, kind="stable")] = np.arange(len(closeness))
    return place


def _ranked_regions(name: str, audit: Audit, score: Numbers, flagged: NDArray[np.bool_] | None) -> Ranked:
    """Features by falling score, NaN last, ties by id. `score` and `flagged` are aligned with `audit.scores`; without
    a rule the first feature is flagged."""
    scores = audit.scores
    order = np.lexsort((scores.feature, -np.nan_to_num(score, nan=-np.inf)))
    chosen = np.arange(len(order)) == 0 if flagged is None else flagged[order]
    return ranked_by(
        name, scores.feature[order], chosen, audit.label, nearest_first(audit.closeness), scores.pull_class[order]
    )
