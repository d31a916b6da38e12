"""The paper's scores of a feature: performance gap and influence (Varma et al. 2024, arXiv 2411.04097).

With `in` = images that have a region in feature c, and `out` = the other images:

    gap_y     = w_y (acc_in_y - acc_out_y),  w_y = 2 min(n_in_y, n_out_y) / (n_in_y + n_out_y)
    gap       = sum_y |gap_y|                over the classes where both sides hold images
    influence = max_y hits_y / judged_y      over the classes with gap_y < 0

`judged_y` counts the misclassified images of class y that have a region in c (and another region to compare it with);
`hits_y` counts those of them whose best region for the wrong predicted class lies in c.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.config import ScoringConfig
from ravl.tables import NOISE, FeatureScores, Regions, ZeroShot


def score_features(
    regions: Regions,
    zero_shot: ZeroShot,
    label_of_region: NDArray[np.integer[Any]],
    n_features: int,
    config: ScoringConfig,
) -> FeatureScores:
    """Score features 0 .. n_features - 1; NOISE is never scored. A feature passes when its influence reaches
    `min_influence` and, if asked for, one class gains and one class loses from it (`two_sided`).

    Rows: passing features by falling gap, then the others by falling gap; NaN last; ties by feature id.
    Deviation: `two_sided` is in the authors' published code but not in the paper; here it is a named, switchable rule.
    Images with one region are skipped wherever a best region is asked for: there it would be the best by default.

    label_of_region: (R,) feature id or NOISE. Raises ValueError when it does not fit the regions or n_features.
    """
    feature_of = _checked(label_of_region, len(regions), n_features)
    n_classes = zero_shot.image.shape[1]
    feature, image = _memberships(regions, feature_of, n_features)
    truth, right = zero_shot.label[image].astype(np.int64), zero_shot.correct[image]

    def count(rows: NDArray[np.bool_], of_class: NDArray[np.int64]) -> NDArray[np.int64]:
        """(F, Y) how many of the chosen (feature, image) pairs fall on each feature and class."""
        flat = feature[rows] * n_classes + of_class[rows]
        return np.bincount(flat, minlength=n_features * n_classes).reshape(n_features, n_classes)

    n_in, right_in = count(np.ones_like(right), truth), count(right, truth)
    n_out = np.bincount(zero_shot.label, minlength=n_classes) - n_in
    right_out = np.bincount(zero_shot.label[zero_shot.correct], minlength=n_classes) - right_in
    gap_y = class_gaps(n_in, right_in, n_out, right_out)

    judged = ~right & (np.diff(regions.starts) > 1)[image]
    hit = judged & (feature_of[best_region(regions, zero_shot)[image]] == feature)
    pulls = count(hit, zero_shot.predicted[image])
    share = np.where(gap_y < 0, _divide(count(hit, truth), count(judged, truth)), np.nan)
    influence = np.nan_to_num(share, nan=-1).max(1, initial=-1)

    # summed in order of size, so that renumbering the classes cannot change the last digit
    total = np.nansum(np.sort(np.abs(gap_y), axis=1), axis=1)
    gap = np.where(np.isnan(gap_y).all(1), np.nan, total).astype(np.float32)
    two_sided: NDArray[np.bool_] = np.logical_and((gap_y > 0).any(1), (gap_y < 0).any(1))
    passes: NDArray[np.bool_] = (influence >= config.min_influence) & (influence >= 0)
    if config.two_sided:
        passes &= two_sided
    columns: dict[str, NDArray[Any]] = {
        "feature": np.arange(n_features),
        "pull_class": np.where(pulls.any(1), pulls.argmax(1), -1),
        "influence": np.where(influence < 0, np.nan, influence),
        "gap": gap,
        "two_sided": two_sided,
        "passes": passes,
        "n_regions": np.bincount(feature_of[feature_of != NOISE], minlength=n_features),
        "n_images": n_in.sum(1),
        "n_errors": (n_in - right_in).sum(1),
        "n_decided": pulls.sum(1),
        "class_gap": gap_y,
        "n_in": n_in,
        "right_in": right_in,
        "n_out": n_out,
        "right_out": right_out,
    }
    order = np.lexsort((np.arange(n_features), -np.nan_to_num(gap, nan=-1), ~passes))
    return FeatureScores(**{name: column[order] for name, column in columns.items()})


def best_region(regions: Regions, zero_shot: ZeroShot) -> NDArray[np.int64]:
    """(I,) id of the region with the highest score for its image's predicted class; -1 for images without regions.

    The first one of equals. For a misclassified image this is its best region for the wrong class.
    """
    return best_for_class(regions, zero_shot.region, zero_shot.predicted)


def best_for_class(
    regions: Regions, region_score: NDArray[np.floating[Any]], class_of_image: NDArray[np.integer[Any]]
) -> NDArray[np.int64]:
    """(I,) id of the region with the highest score (R, Y) for the class given for its image; -1 without regions."""
    return highest(regions, region_score[np.arange(len(regions)), class_of_image[regions.image]])


def highest(regions: Regions, score: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """(I,) id of the region with the highest score (R,) of each image; -1 without regions."""
    best = np.full(regions.n_images, -1, np.int64)
    if len(regions):
        order = np.lexsort((-score, regions.image))  # stable: equal scores stay in region order
        image, first = np.unique(regions.image[order], return_index=True)
        best[image] = order[first]
    return best


def pull_class_name(scores: FeatureScores, feature: int, class_names: Sequence[str]) -> str:
    """The name of a feature's pull class; empty where it decides no error. Raises KeyError for an unknown feature."""
    pull = int(scores.pull_class[scores.row_of(feature)])
    return class_names[pull] if pull >= 0 else ""


def class_gaps(
    n_in: NDArray[np.integer[Any]],
    right_in: NDArray[np.integer[Any]],
    n_out: NDArray[np.integer[Any]],
    right_out: NDArray[np.integer[Any]],
) -> NDArray[np.float64]:
    """Signed gap_y = w_y (acc_in_y - acc_out_y) in [-1, 1], elementwise; NaN where one side is empty, never 0."""
    balance = 2 * np.minimum(n_in, n_out) / np.maximum(n_in + n_out, 1)
    gap: NDArray[np.float64] = balance * (_divide(right_in, n_in) - _divide(right_out, n_out))
    return gap


def _checked(label_of_region: NDArray[np.integer[Any]], n_regions: int, n_features: int) -> NDArray[np.int64]:
    label = np.asarray(label_of_region, np.int64)
    if label.shape != (n_regions,):
        raise ValueError(f"label_of_region must have shape ({n_regions},), got {label.shape}.")
    if len(label) and not NOISE <= label.min() <= label.max() < n_features:
        found = f"{label.min()} .. {label.max()}"
        raise ValueError(f"label_of_region must lie in {NOISE} .. {n_features - 1}, got {found}.")
    return label


def _memberships(
    regions: Regions, feature_of: NDArray[np.int64], n_features: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every pair (feature, image that has a region in it), once."""
    clustered = feature_of != NOISE
    pairs = np.unique(regions.image[clustered].astype(np.int64) * max(n_features, 1) + feature_of[clustered])
    return pairs % max(n_features, 1), pairs // max(n_features, 1)


def _divide(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    out: NDArray[np.float64] = np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)
    return out
