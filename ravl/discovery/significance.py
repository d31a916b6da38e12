"""What of a feature's scores chance alone would give, and how much evidence there is.

The paper (Varma et al. 2024, arXiv 2411.04097) has no null: a sum of absolute values is never 0 by chance, and an
influence of 0.25 is what one region of four has anyway. So each feature gets (METHOD, section 6)

    chance    the mean gap when correctness is permuted among the images of a class
    gap*      = gap - chance, with p = (1 + #{gap_perm >= gap}) / (n_perm + 1), q (Benjamini-Hochberg), and an interval
    influence* = (hits - sum h_i) / (n - sum h_i), h_i = share of image i's regions that lie in the feature
    both halves of a shortcut's signature: accuracy with minus without the feature, of its pull class and of the others

A class is comparable when it has images on both sides, `in` (with the feature) and `out`. All but influence* is a
function of the counts in `FeatureScores`, and random draws are seeded by these counts: so no number depends on the
order of images, the numbering of classes, or on which other features there are (but q does, by its nature).
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.config import ScoringConfig, SignificanceConfig
from ravl.discovery.scoring import class_gaps, score_features
from ravl.tables import NOISE, FeatureScores, Regions, Significance, ZeroShot

_TIE = 1e-9
"""Gaps closer than this are equal: the same counts in another order of summation."""
_BLOCK = 2000
"""Permutations drawn at once, which bounds the memory at many classes."""

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def significance(
    scores: FeatureScores,
    regions: Regions,
    zero_shot: ZeroShot,
    label_of_region: NDArray[np.integer[Any]],
    config: SignificanceConfig,
    seed: int,
) -> Significance:
    """Test every scored feature; rows as in `scores`.

    label_of_region: (R,) feature ids or NOISE, those that the scores were made from. seed: of every random draw.
    Raises ValueError when the label does not fit the regions or the scores.
    """
    label = _checked(scores, regions, label_of_region)
    excess = observed_gap(scores) - chance_gap(scores)
    low, high = gap_interval(scores, config, seed)
    p = gap_p_values(scores, config, seed)
    enough = supported(scores, config)
    replicated = np.full(len(scores), -1)
    if config.split_half:
        replicated = _replicated(scores, regions, zero_shot, label, config, seed) & enough
    return Significance(
        feature=scores.feature,
        n_comparable=_comparable(scores).sum(1),
        excess_gap=excess.astype(np.float32),
        gap_low=low.astype(np.float32),
        gap_high=high.astype(np.float32),
        p=p,
        q=q_values(scores, p, config),
        supported=enough,
        excess_influence=excess_influence(scores, regions, zero_shot, label).astype(np.float32),
        replicated=replicated.astype(np.int8),
        **_signature(scores, config.level),
    )


# --- two rates ------------------------------------------------------------------------------------------------------


def wilson(right: NDArray[Any], n: NDArray[Any], level: float = 0.95) -> Floats:
    """(2, ...) lower and upper limit of a rate right / n, elementwise; NaN where n = 0 (Wilson 1927).

    The rates p that the normal test would not reject: |right/n - p| <= z sqrt(p (1 - p) / n).
    Raises ValueError unless 0 <= right <= n.
    """
    from scipy.special import ndtri

    right, n = np.broadcast_arrays(np.asarray(right, np.float64), np.asarray(n, np.float64))
    strange = ~((right >= 0) & (right <= n))
    if strange.any():
        raise ValueError(f"right must lie in 0 .. n, got {right[strange][0]:g} of {n[strange][0]:g}.")
    z = float(ndtri(0.5 + level / 2))
    with np.errstate(divide="ignore", invalid="ignore"):  # n = 0: NaN
        rate = right / n
        center = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(rate * (1 - rate) / n + (z / (2 * n)) ** 2)
    # in exact arithmetic the limits lie in [0, 1] and around the rate; the rounding must not take them out
    limits: Floats = np.stack([np.minimum(np.maximum(center - half, 0), rate), np.maximum(center + half, rate)])
    return np.minimum(limits, 1)


def newcombe(
    right_a: NDArray[Any], n_a: NDArray[Any], right_b: NDArray[Any], n_b: NDArray[Any], level: float = 0.95
) -> Floats:
    """(2, ...) limits of a difference of two rates a - b, elementwise; NaN where a side is empty.

    Newcombe's hybrid score interval (1998, Statistics in Medicine 17, 873-890, method 10): the distance from the
    difference to its limits is the euclidean sum of the distances of the two rates to their Wilson limits.
    """
    (low_a, high_a), (low_b, high_b) = wilson(right_a, n_a, level), wilson(right_b, n_b, level)
    a, b = _rate(right_a, n_a), _rate(right_b, n_b)
    low = a - b - np.hypot(a - low_a, high_b - b)
    high = a - b + np.hypot(high_a - a, b - low_b)
    return np.stack([low, high])


def paired_limits(only_a: NDArray[Any], only_b: NDArray[Any], n: NDArray[Any], level: float = 0.95) -> Floats:
    """(2, ...) limits of a difference of two rates a - b of the same n cases, elementwise; NaN where n = 0.

    only_a, only_b: cases that count on one side alone. Wald's limits after half a case was added to each cell of the
    table of pairs (Agresti and Min 2005, Statistics in Medicine 24, 729-740), kept within -1 .. 1.
    """
    from scipy.special import ndtri

    b, c, n = (np.asarray(x, np.float64) for x in (only_a, only_b, n))
    b, c, cases = b + 0.5, c + 0.5, np.where(n > 0, n + 2, np.nan)
    middle = (b - c) / cases
    half = float(ndtri(0.5 + level / 2)) * np.sqrt(b + c - (b - c) ** 2 / cases) / cases
    return np.clip(np.stack([middle - half, middle + half]), -1, 1)


def standardised(right: NDArray[Any], n: NDArray[Any], weight: NDArray[Any]) -> tuple[Floats, Floats]:
    """Average over classes (the last axis) of the rates right / n, and of how many cases it is worth, elementwise.

    weight: of each class, e.g. how many images of it stand on the other side of a comparison; classes with n = 0 must
    have none. An average of equal rates has the variance of one rate of (sum w)^2 / sum(w^2 / n) cases (Kish 1965).
    NaN and 0 where nothing has weight. Sums are in order of size, so that the numbering of classes changes nothing.
    """
    right, n, weight = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (right, n, weight)))
    total, n = weight.sum(-1), np.maximum(n, 1)
    worth = _rate(total**2, np.sort(weight**2 / n, axis=-1).sum(-1))
    rate = _rate(np.sort(weight * (right / n), axis=-1).sum(-1), total)
    return np.minimum(rate, 1), np.nan_to_num(worth)


def _rate(right: NDArray[Any], n: NDArray[Any]) -> Floats:
    right, n = np.broadcast_arrays(np.asarray(right, np.float64), np.asarray(n, np.float64))
    out: Floats = np.divide(right, n, out=np.full(n.shape, np.nan), where=n > 0)
    return out


# --- the gap against chance -----------------------------------------------------------------------------------------


def observed_gap(scores: FeatureScores) -> Floats:
    """(F,) sum_y |gap_y| from the counts, in double precision; NaN where no class is comparable."""
    return _total(class_gaps(scores.n_in, scores.right_in, scores.n_out, scores.right_out))


def chance_gap(scores: FeatureScores) -> Floats:
    """(F,) mean gap when correctness is permuted within class; NaN where no class is comparable.

    Exact, not simulated: by the null X right images fall on `in`, X hypergeometric, and since
    gap_y = 2 (X - E X) / max(n_in, n_out), its mean size is that of the mean absolute deviation of X.
    """
    n_in, n_out = scores.n_in.astype(np.int64), scores.n_out.astype(np.int64)
    deviation = _mean_deviation(n_in, scores.right_in.astype(np.int64) + scores.right_out, n_in + n_out)
    mean = 2 * deviation / np.maximum(np.maximum(n_in, n_out), 1)
    return _total(np.where(_comparable(scores), mean, np.nan))


def gap_p_values(scores: FeatureScores, config: SignificanceConfig, seed: int) -> Floats:
    """(F,) p = (1 + #{gap_perm >= gap}) / (n_perm + 1); NaN where no class is comparable.

    Where no permutation reaches the gap, p could not fall below 1 / (permutations + 1), which after the correction for
    many features may be more than alpha. There, and only there, the draws go on until p could reach alpha / 2 divided
    by the number of features. p stays valid: for these features it can only grow beyond that of the first draws.
    """
    comparable, observed = _comparable(scores), observed_gap(scores)
    finest = math.ceil(2 * int(eligible(scores, config).sum()) / config.alpha)
    p = np.full(len(scores), np.nan)
    for f in np.flatnonzero(comparable.any(1)):
        rows = np.stack([scores.n_in[f], scores.n_out[f], scores.right_in[f] + scores.right_out[f]], axis=1)
        margins = _sorted(rows[comparable[f]])
        rng = _generator("permutation", margins, seed)
        least, drawn = observed[f] - _TIE, config.permutations
        reached = _count_reaching(least, margins, drawn, rng)
        if reached == 0 and finest > drawn:
            reached, drawn = _count_reaching(least, margins, finest - drawn, rng), finest
        p[f] = (1 + reached) / (drawn + 1)
    return p


def null_gaps(margins: Counts, draws: int, rng: np.random.Generator) -> Floats:
    """(draws,) gaps of one feature with the correctness of images permuted within each class.

    A permutation of a class of n_in + n_out images, `right` of them right, puts a hypergeometric number of right ones
    on `in`; nothing else of it matters. So these numbers are drawn, at a cost that does not depend on the images.

    margins: (Y, 3) n_in, n_out and right per class, both sides not empty.
    """
    n_in, n_out, right = margins.T
    varies = (right > 0) & (right < n_in + n_out)  # else all gaps are 0
    n_in, n_out, right = n_in[varies], n_out[varies], right[varies]
    right_in = rng.hypergeometric(right, n_in + n_out - right, n_in, size=(draws, len(right)))
    n_in, n_out = np.broadcast_to(n_in, right_in.shape), np.broadcast_to(n_out, right_in.shape)
    gaps: Floats = np.abs(class_gaps(n_in, right_in, n_out, right - right_in)).sum(1)
    return gaps


def _count_reaching(least: float, margins: Counts, draws: int, rng: np.random.Generator) -> int:
    sizes = [min(_BLOCK, draws - start) for start in range(0, draws, _BLOCK)]
    return sum(int(np.count_nonzero(null_gaps(margins, size, rng) >= least)) for size in sizes)


def _mean_deviation(n: Counts, right: Counts, total: Counts) -> Floats:
    """E |X - E X| of X = right ones among n drawn from `total` without replacement, elementwise; 0 where X is certain.

    De Moivre's telescoping sum (Diaconis and Zabell 1991), for the hypergeometric: with k the first integer > E X,
    sum_{x >= k} (x - E X) P(x) = k (total - right - n + k) P(k) / total, and the mean deviation is twice that.
    """
    from scipy.special import gammaln

    k = n * right // np.maximum(total, 1) + 1
    possible = (k <= np.minimum(n, right)) & (k >= n + right - total)
    k = np.where(possible, k, np.maximum(0, n + right - total))

    def log_choose(a: Counts, b: Counts) -> Floats:
        out: Floats = gammaln(a + 1) - gammaln(b + 1) - gammaln(a - b + 1)
        return out

    chance = np.exp(log_choose(right, k) + log_choose(total - right, n - k) - log_choose(total, n))
    return np.where(possible, 2 * k * (total - right - n + k) * chance / np.maximum(total, 1), 0)


def gap_interval(scores: FeatureScores, config: SignificanceConfig, seed: int) -> Floats:
    """(2, F) bootstrap interval of gap*, images resampled; NaN where no class is comparable.

    Images of the same class, side and correctness are alike, so that resampling images is a multinomial draw of the
    counts. Deviation from the plain percentile interval: a resampled gap has the noise of the sample and its own, and
    sums of absolute values grow with noise; so the draws are shifted to have the mean gap*. Without the shift the
    interval excluded 0 for up to 19 % of features without any effect (10 classes, 2000 images), with it for under 1 %;
    under effects it covers the mean of gap* in 93-97 % of samples. gap* is what lies beyond chance: where there is an
    effect it is smaller than the gap of infinitely many images, since that would have no chance part to subtract.
    """
    comparable, excess = _comparable(scores), observed_gap(scores) - chance_gap(scores)
    limits = np.full((2, len(scores)), np.nan)
    tail = (1 - config.level) / 2
    for f in np.flatnonzero(comparable.any(1)):
        counts = (scores.right_in[f], scores.n_in[f], scores.right_out[f], scores.n_out[f])
        right_in, n_in, right_out, n_out = (count[comparable[f]] for count in counts)
        cells = _sorted(np.stack([right_in, n_in - right_in, right_out, n_out - right_out], axis=1))
        images = int(scores.n_in[f].sum() + scores.n_out[f].sum())
        share = np.append(cells.ravel(), images - cells.sum()) / images  # the last one: images of no comparable class
        rng = _generator("bootstrap", np.vstack([cells, [[images, 0, 0, 0]]]), seed)
        drawn = rng.multinomial(images, share, size=config.bootstrap)[:, :-1].reshape(config.bootstrap, -1, 4)
        right_in, wrong_in, right_out, wrong_out = np.moveaxis(drawn, 2, 0)
        gaps = np.nansum(np.abs(class_gaps(right_in + wrong_in, right_in, right_out + wrong_out, right_out)), axis=1)
        limits[:, f] = np.quantile(gaps - gaps.mean() + excess[f], [tail, 1 - tail])
    return limits


# --- how much evidence ----------------------------------------------------------------------------------------------


def eligible(scores: FeatureScores, config: SignificanceConfig) -> NDArray[np.bool_]:
    """(F,) whether a feature could have enough evidence: enough images with and without it, and enough errors at all.

    Over the comparable classes. No permutation within class changes this, so that it may select what is tested.
    """
    comparable = _comparable(scores)
    images, right = scores.n_in + scores.n_out, scores.right_in + scores.right_out
    n_in, n_out, errors = (
        np.where(comparable, count, 0).sum(1) for count in (scores.n_in, scores.n_out, images - right)
    )
    enough: NDArray[np.bool_] = (np.minimum(n_in, n_out) >= config.min_images) & (errors >= config.min_errors)
    return enough


def supported(scores: FeatureScores, config: SignificanceConfig) -> NDArray[np.bool_]:
    """(F,) whether a feature has enough evidence: `eligible`, and enough of the errors on images with the feature."""
    errors_in = np.where(_comparable(scores), scores.n_in - scores.right_in, 0).sum(1)
    enough: NDArray[np.bool_] = eligible(scores, config) & (errors_in >= config.min_errors)
    return enough


def q_values(scores: FeatureScores, p: Floats, config: SignificanceConfig) -> Floats:
    """(F,) p corrected for many features (Benjamini and Hochberg 1995); NaN where a feature is not supported.

    Deviation: the correction runs over all `eligible` features, those without support counting with p = 1, and not
    over the supported ones alone. Support asks for errors with the feature, and a feature that has them by chance has a
    small p by the same chance: of features selected like that, more than a share alpha has p < alpha without an effect.
    """
    from scipy.stats import false_discovery_control

    tested, enough = eligible(scores, config), supported(scores, config)
    q = np.full(len(scores), np.nan)
    if tested.any():
        q[tested] = false_discovery_control(np.where(enough, p, 1)[tested], method="bh")
    return np.where(enough, np.maximum(q, p), np.nan)  # never below p, also in the last digit


def _replicated(
    scores: FeatureScores,
    regions: Regions,
    zero_shot: ZeroShot,
    label: Counts,
    config: SignificanceConfig,
    seed: int,
) -> NDArray[np.int8]:
    """(F,) 1 where p < alpha in both of two halves of the images, with one and the same pull class; else 0.

    The halves hold equal shares of every class, to within one image. Unlike all else here, they depend on the order of
    the images.
    """
    rng = np.random.default_rng([seed, len(zero_shot.label)])
    order = np.lexsort((rng.random(len(zero_shot.label)), zero_shot.label))
    second = np.zeros(len(order), bool)
    second[order[1::2]] = True
    found, pulls = [], []
    for half in (~second, second):
        rows = half[regions.image]
        image = (np.cumsum(half) - 1)[regions.image[rows]]
        own = Regions(image, regions.box[rows], regions.position[rows], int(half.sum()))
        answers = ZeroShot(zero_shot.image[half], zero_shot.region[rows], zero_shot.label[half])
        part = score_features(own, answers, label[rows], int(scores.feature.max(initial=-1)) + 1, ScoringConfig())
        place = np.argsort(part.feature)[scores.feature]
        found.append(gap_p_values(part, config, seed)[place] < config.alpha)  # NaN: not found
        pulls.append(part.pull_class[place])
    both: NDArray[np.bool_] = found[0] & found[1] & (pulls[0] == pulls[1]) & (pulls[0] >= 0)
    return both.astype(np.int8)


# --- influence and signature ----------------------------------------------------------------------------------------


def excess_influence(scores: FeatureScores, regions: Regions, zero_shot: ZeroShot, label: NDArray[Any]) -> Floats:
    """(F,) influence* = (hits - sum h) / (n - sum h), at most 1; NaN where n = sum h.

    Over the n judged errors of all classes together: misclassified images with the feature and with several regions.
    hits: those whose best region for the wrong class lies in the feature. h_i: share of the image's regions that do,
    which is what a best region chosen blindly would give. Deviation: the paper's influence is the largest of the
    classes' shares, and so the larger by chance the more classes there are. No p is given: regions with an object are
    best more often than the background is, whatever they do, so that blind choice is no null to test against.
    """
    row_of = np.full(int(scores.feature.max(initial=-1)) + 1, -1)
    row_of[scores.feature] = np.arange(len(scores))
    clustered = label != NOISE
    n_rows = max(len(scores), 1)
    keys, regions_in = np.unique(
        regions.image[clustered].astype(np.int64) * n_rows + row_of[label[clustered]], return_counts=True
    )
    image, row = keys // n_rows, keys % n_rows
    n_regions = np.diff(regions.starts)[image]
    judged = ~zero_shot.correct[image] & (n_regions > 1)
    share, row = (regions_in / n_regions)[judged], row[judged]
    order = np.lexsort((share, row))  # a sum in order of size is the same for every order of the images
    n = np.bincount(row, minlength=len(scores))
    blind = np.bincount(row[order], weights=share[order], minlength=len(scores))
    return _rate(scores.n_decided - blind, n - blind)


def _signature(scores: FeatureScores, level: float) -> dict[str, Any]:
    """Columns pull_* and other_* of `Significance`: counts, differences of accuracy in - out, Newcombe intervals.

    Deviation: the other classes are the comparable ones. A class that never shows the feature would be counted on one
    side only, and its accuracy would pass for an effect of the feature. For the same reason the accuracy without it is
    `standardised` to the classes of the images with it: a feature that is frequent in a hard class has no effect by
    that alone.
    """
    has_pull = scores.pull_class >= 0
    is_pull = np.arange(scores.n_in.shape[1]) == scores.pull_class[:, None]
    is_other = _comparable(scores) & ~is_pull & has_pull[:, None]
    found: dict[str, Any] = {}
    for side, chosen in (("pull", is_pull), ("other", is_other)):
        for place in ("in", "out"):
            counts = getattr(scores, f"right_{place}"), getattr(scores, f"n_{place}")
            found[f"{side}_{place}"] = np.stack([np.where(chosen, count, 0).sum(1) for count in counts], axis=1)
        right, n = found[f"{side}_in"].T
        without, worth = standardised(
            scores.right_out, scores.n_out, np.where(chosen & (scores.n_out > 0), scores.n_in, 0)
        )
        found[f"{side}_diff"] = (_rate(right, n) - without).astype(np.float32)
        limits = newcombe(right, n, np.nan_to_num(without) * worth, worth, level).astype(np.float32)
        found[f"{side}_low"], found[f"{side}_high"] = limits
    return found


# --- counts ---------------------------------------------------------------------------------------------------------


def _comparable(scores: FeatureScores) -> NDArray[np.bool_]:
    """(F, Y) whether a class has images with and without the feature."""
    both: NDArray[np.bool_] = (scores.n_in > 0) & (scores.n_out > 0)
    return both


def _total(gap_y: Floats) -> Floats:
    """(F,) sum of sizes, in order of size, so that renumbering the classes cannot change the last digit."""
    total = np.nansum(np.sort(np.abs(gap_y), axis=1), axis=1)
    return np.where(np.isnan(gap_y).all(1), np.nan, total)


def _sorted(rows: NDArray[Any]) -> Counts:
    """The rows in rising order, first column first: the same whatever the classes are called."""
    return rows[np.lexsort(rows.T[::-1])].astype(np.int64)  # type: ignore[no-any-return]


def _generator(purpose: str, rows: Counts, seed: int) -> np.random.Generator:
    """Random numbers that depend on the purpose, the counts and the seed, and on nothing else."""
    digest = hashlib.sha256(f"{purpose} {seed} {rows.shape} ".encode() + rows.astype("<i8").tobytes()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def _checked(scores: FeatureScores, regions: Regions, label_of_region: NDArray[np.integer[Any]]) -> Counts:
    label = np.asarray(label_of_region, np.int64)
    if label.shape != (len(regions),):
        raise ValueError(f"label_of_region must have shape ({len(regions)},), got {label.shape}.")
    known = np.isin(label, scores.feature) | (label == NOISE)
    if not known.all():
        raise ValueError(f"label_of_region must hold scored features or {NOISE}, got {label[~known][0]}.")
    n_regions = np.bincount(label[label != NOISE], minlength=int(scores.feature.max(initial=-1)) + 1)[scores.feature]
    if not np.array_equal(n_regions, scores.n_regions):
        raise ValueError(
            f"label_of_region must be what the features were scored from, {scores.n_regions.tolist()} regions each, "
            f"got {n_regions.tolist()}. Score them again after an edit."
        )
    return label
