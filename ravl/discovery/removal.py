"""How much of an error a region causes: the region is removed from its image and the image is classified again.

With logit_y(x) = cos(x, text_y) / tau, the error contribution of region r to image x is

    [logit_against(x) - logit_true(x)] - [logit_against(x without r) - logit_true(x without r)]

where `against` is the predicted class of a misclassified image, and the runner-up of one that is right. It is positive
where the region pushes the model away from the truth. Removing can itself disturb a model, so it is done by each
operator the model has, and the smallest result counts: the operators have to agree.

Deviation: Varma et al. 2024 show the regions nearest to the medoid. Here a feature's exemplars are the regions whose
removal changes most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.config import ExemplarsConfig
from ravl.discovery.operators import encode_removed, usable
from ravl.discovery.regions import ImagesOf
from ravl.discovery.scoring import best_region
from ravl.discovery.zero_shot import product, unit
from ravl.errors import ModelError
from ravl.tables import Exemplars, FeatureScores, Regions, Report, Step, ZeroShot, quiet
from ravl.vlm.interface import VisionLanguageModel

OPERATORS = ("token_drop", "mean_fill")
"""How a single region is removed: the least disturbing way, and one that every model can do."""


@dataclass(frozen=True)
class Contributions:
    """Error contribution of N regions in logits, by each operator; NaN where it cannot be applied.

    token_drop, mean_fill: (N,) float32. against: (N,) int16, the class the truth is compared with; -1 if there is one
    class only, where nothing can be confused and every contribution is 0.
    """

    token_drop: NDArray[np.float32]
    mean_fill: NDArray[np.float32]
    against: NDArray[np.int16]

    @property
    def agreed(self) -> NDArray[np.float32]:
        """(N,) the smallest contribution over the operators; NaN where none can be applied."""
        smallest: NDArray[np.float32] = np.fmin(self.token_drop, self.mean_fill)
        return smallest


def against_class(zero_shot: ZeroShot) -> NDArray[np.int16]:
    """(I,) the class each image is, or could be, mistaken for: the wrong prediction, else the runner-up; -1 if none."""
    if zero_shot.image.shape[1] < 2:
        return np.full(len(zero_shot.label), -1, np.int16)
    # the wrong prediction of a misclassified image is also the best of the classes that are not its label
    others = zero_shot.image.copy()
    others[np.arange(len(others)), zero_shot.label] = -1  # below every probability
    best_other: NDArray[np.int16] = others.argmax(1).astype(np.int16)
    return best_other


def contributions(
    vlm: VisionLanguageModel,
    images_of: ImagesOf,
    text: NDArray[np.float32],
    tau: float,
    regions: Regions,
    zero_shot: ZeroShot,
    chosen: NDArray[np.integer[Any]],
    batch_size: int,
    report: Report = quiet,
) -> Contributions:
    """The error contribution of each chosen region, by each operator of the model.

    Regions are worked on in the order of their images, `batch_size` at a time, so that an image is decoded about once.
    Cost: one forward pass per region and operator, and one per image. A region that holds no patch token cannot be
    dropped: its token_drop is NaN.

    text: (Y, D) unit vectors. chosen: (N,) region ids.
    Raises ModelError when the model answers with numbers that are not finite.
    """
    operators = usable(vlm, OPERATORS)
    chosen = np.asarray(chosen, np.int64)
    against = against_class(zero_shot)
    result = {name: np.full(len(chosen), np.nan, np.float32) for name in OPERATORS}
    order = np.argsort(chosen, kind="stable")  # region ids rise with their images
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch, which = np.unique(regions.image[chosen[rows]], return_inverse=True)
        images = images_of(batch.tolist())
        repeated = [images[j] for j in which]
        image, boxes = batch[which], regions.box[chosen[rows], None]  # (B,), (B, 1, 4)
        true, wrong = zero_shot.label[image], against[image]
        masks = [[regions.mask_of(int(region))] for region in chosen[rows]]
        before = _margin(vlm, vlm.encode_images(images)[which], text, tau, true, wrong)
        for name in operators:
            without = encode_removed(vlm, repeated, list(boxes), masks, name, [None] * len(rows))
            after = _margin(vlm, without.vector, text, tau, true, wrong)
            result[name][rows] = np.where(without.possible, before - after, np.nan)
        report(Step("exemplars", start + len(rows), len(order)))
    return Contributions(result["token_drop"], result["mean_fill"], against[regions.image[chosen]])


def _margin(
    vlm: VisionLanguageModel,
    vectors: NDArray[np.float32],
    text: NDArray[np.float32],
    tau: float,
    true: NDArray[np.integer[Any]],
    wrong: NDArray[np.integer[Any]],
) -> NDArray[np.float32]:
    """(B,) logit_wrong - logit_true; 0 where there is no wrong class."""
    if not np.isfinite(vectors).all():
        raise ModelError(
            f"the model must answer with finite numbers, got NaN or infinity from {vlm.name}. Check its weights."
        )
    logits = product(unit(vectors), unit(text).T) / np.float32(tau)
    rows = np.arange(len(vectors))
    return np.where(wrong >= 0, logits[rows, wrong] - logits[rows, true], 0).astype(np.float32)


def exemplars(
    vlm: VisionLanguageModel,
    images_of: ImagesOf,
    text: NDArray[np.float32],
    tau: float,
    regions: Regions,
    zero_shot: ZeroShot,
    feature_of: NDArray[np.integer[Any]],
    scores: FeatureScores,
    config: ExemplarsConfig,
    batch_size: int,
    report: Report = quiet,
) -> Exemplars:
    """The regions that stand for each feature: those of misclassified images first, then by falling error contribution.

    feature_of: (R,) feature id of each region, or NOISE.
    Per feature, at most `max_candidates` regions (see `candidates`) are removed and re-scored, and `count` are kept.
    Features come in the order of `scores`; ties in contribution keep the candidates' order. Regions that no operator
    can remove are left out. Raises ModelError as `contributions` does.
    """
    region = candidates(regions, zero_shot, feature_of, scores, config)
    found = contributions(vlm, images_of, text, tau, regions, zero_shot, region, batch_size, report)
    rank = _rank(scores)[feature_of[region]]
    right = zero_shot.correct[regions.image[region]]
    order = np.lexsort((-found.agreed, right, rank))
    order = order[~np.isnan(found.agreed[order])]
    kept = order[_place(rank[order]) < config.count]
    return Exemplars(
        feature_of[region[kept]].astype(np.int32),
        region[kept].astype(np.int32),
        regions.image[region[kept]],
        found.against[kept],
        found.agreed[kept],
        found.token_drop[kept],
        found.mean_fill[kept],
    )


def candidates(
    regions: Regions,
    zero_shot: ZeroShot,
    feature_of: NDArray[np.integer[Any]],
    scores: FeatureScores,
    config: ExemplarsConfig,
) -> NDArray[np.int64]:
    """Ids of the regions worth removing, feature by feature in the order of `scores`, the most promising first.

    First those of misclassified images: the image's best region for its wrong prediction before its others, then by
    falling score for that class. Where a feature has fewer than `count` of these, those of right images follow: by
    falling score for the feature's pull class, images of that very class last (there it pulls toward the truth); for
    the image's runner-up class where the feature has no pull class. At most `max_candidates` per feature; ties by id.
    """
    rank = _rank(scores)[feature_of]
    members = np.flatnonzero(rank >= 0)
    rank, image = rank[members], regions.image[members]
    right, label = zero_shot.correct[image], zero_shot.label[image]
    pull = scores.pull_class[rank]
    toward = np.where(right & (pull >= 0), pull, against_class(zero_shot)[image])
    score = np.where(toward >= 0, zero_shot.region[members, toward], 0)
    decides = best_region(regions, zero_shot)[image] == members
    order = np.lexsort((-score, np.where(right, toward == label, ~decides), right, rank))
    n_errors = np.bincount(rank[~right], minlength=len(scores))
    limit = np.where(n_errors >= config.count, np.minimum(n_errors, config.max_candidates), config.max_candidates)
    chosen: NDArray[np.int64] = members[order[_place(rank[order]) < limit[rank[order]]]]
    return chosen


def _rank(scores: FeatureScores) -> NDArray[np.int64]:
    """(F + 1,) row of every feature id in `scores`; -1 in the last entry, which noise finds."""
    rank = np.full(int(scores.feature.max(initial=-1)) + 2, -1)
    rank[scores.feature] = np.arange(len(scores))
    return rank


def _place(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of every entry within its group, from 0; equal groups stand together, in rising order."""
    return np.arange(len(group)) - np.searchsorted(group, group)
