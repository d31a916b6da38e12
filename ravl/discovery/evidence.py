"""What the counterfactuals say about each feature: counts, tests, and a grade that is computed, never a verdict.

    fix       = share of the errors among images with the feature that become right without it
    control   = the same without other regions of the same image and of equal area
    keep      = share of the right images of other classes than the pull class that stay right
    break     = share of the right images of the pull class that turn wrong
    shortfall = accuracy of images that never had the feature, minus accuracy of those that lost it; over the same
                classes, once for the pull class and once for all others
    induce    = share of right images of other classes that are called the pull class once the feature is pasted in

An operator *agrees* when fix - control >= `min_effect` on the errors that have a control, the exact McNemar test of fix
against control holds after Benjamini-Hochberg over the features, both shortfalls are shown to be at most
`max_shortfall` (upper limit), and keep is not shown to be below `min_keep`. It *contradicts* when fix - control is
shown to be less than `min_effect` (upper limit): what goes when a region is greyed, but not when it is filled in from
its edges, hangs on the greying. What is neither is not known. Grades, with their reasons:

    causal     `agree` operators agree, and none contradicts               causal
    core       removing it breaks what was right, and that is missed       harm
    context    a gap beyond chance, but its errors do not depend on it     no effect, partial, disagree
    undecided  too few images, or a gap that chance explains               support, chance, not replicated, unproven
               too few errors, or other regions, to tell what removal does inconclusive

Deviation: Varma et al. 2024 have no such test. The shortfall says what removing must do: a spurious feature leaves an
ordinary image of its class behind, one that is recognised as well as those that never had it. Errors alone do not show
that. Where an empty image already looks like one class, taking a misread object away "fixes" its errors, and where the
whole image is at fault, taking any part of it away fixes some (reason: partial). Where hardly any image of the pull
class lacks the feature, it cannot be told from the class itself (reason: unproven). The bound on `keep` is loose,
since a mark can also hold up right answers: where it pulls to two classes, or where taking it away frees the pull of
another mark in the same image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.config import EvidenceConfig
from ravl.discovery.significance import newcombe, paired_limits, standardised, wilson
from ravl.tables import BY_OPERATOR, Counterfactuals, Evidence, FeatureScores, Regions, Significance, ZeroShot

Counts = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Never:
    """Images without any trace of a feature: n, and right ones among them; (F, Y) int, per feature and class."""

    n: NDArray[np.int64]
    right: NDArray[np.int64]


Shortfall = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""A shortfall and its lower and upper limit, (F, O) each."""


def weigh(
    found: Counterfactuals,
    scores: FeatureScores,
    significance: Significance,
    zero_shot: ZeroShot,
    never: Never,
    config: EvidenceConfig,
    alpha: float,
) -> Evidence:
    """Count, test, grade and rank all features of `scores`; those that were not removed have zero counts.

    never: the images that never had a feature, in the order of `scores` (see `never_shown`).

    Flagged by `rule="evidence"`: enough support, q < alpha, replicated where that was asked for, and causal. By
    `rule="paper"`: those that pass the paper's rule. Rank: flagged first, then by falling share of errors, then by the
    order of `scores`; under the paper's rule the order of `scores` is kept.
    """
    n, agree = len(scores), needed(found.operators, config)
    counts = counted(found, scores, zero_shot)
    fixed_share = np.array([_fixed_errors(found, scores, row, zero_shot, agree) for row in range(n)])
    sides = {"pull": shortfalls(counts, scores, never, True), "other": shortfalls(counts, scores, never, False)}
    grade, reason = grades(counts, sides, significance, config, agree, alpha)
    flagged: NDArray[np.bool_] = np.equal(grade, "causal") if config.rule == "evidence" else scores.passes
    order = np.arange(n)
    if config.rule == "evidence":
        order = np.lexsort((np.arange(n), -np.nan_to_num(fixed_share, nan=-1), ~flagged))
    columns: dict[str, Any] = {name: column[order] for name, column in counts.items()}
    columns |= {name: columns[name][:, 0] for name in ("n_after", "right_after")}
    columns |= {f"{side}_shortfall": value[order] for side, (value, _, _) in sides.items()}
    columns |= {"flagged": flagged[order], "grade": grade[order], "reason": reason[order]}
    columns |= {"feature": scores.feature[order], "error_share": fixed_share[order]}
    return Evidence(operators=found.operators, **columns)


def needed(operators: tuple[str, ...], config: EvidenceConfig) -> int:
    """How many operators must agree: those asked for, or all where a model has fewer."""
    return min(config.agree, len(operators))


def counted(found: Counterfactuals, scores: FeatureScores, zero_shot: ZeroShot) -> Counts:
    """What became of the images of each feature, (F, O) each, and the test of fix against control, `p` and `q`."""
    n, classes = len(scores), zero_shot.image.shape[1]
    counts: Counts = {name: np.zeros((n, len(found.operators)), np.int64) for name in BY_OPERATOR}
    counts |= {"n_pasted": np.zeros(n, np.int64), "induced": np.zeros(n, np.int64)}
    counts |= {name: np.zeros((n, len(found.operators), classes), np.int64) for name in ("n_after", "right_after")}
    for row in range(n):
        _count(counts, row, found, int(scores.feature[row]), int(scores.pull_class[row]), zero_shot)
    counts["p"], counts["q"] = mcnemar(counts["only_feature"], counts["only_control"], counts["n_control"] > 0)
    return counts


def _count(counts: Counts, row: int, found: Counterfactuals, feature: int, pull: int, zero_shot: ZeroShot) -> None:
    """Fill one feature's row of every count."""
    rows = found.rows_of(feature)
    image, after, control = found.image[rows], found.after[rows], found.control[rows]
    label, was_right = zero_shot.label[image].astype(np.int64), zero_shot.correct[image]
    known, right = after >= 0, after == label[:, None]
    paired = known & (control >= 0)
    control_right = paired & (control == label[:, None])
    wrong, of_pull = ~was_right[:, None], (label == pull)[:, None]
    for name, these in (
        ("n_errors", wrong & known),
        ("fixed", wrong & known & right),
        ("n_control", wrong & paired),
        ("control_fixed", wrong & control_right),
        ("only_feature", wrong & paired & right & ~control_right),
        ("only_control", wrong & paired & ~right & control_right),
        ("n_pull", ~wrong & of_pull & known),
        ("pull_kept", ~wrong & of_pull & known & right),
        ("n_other", ~wrong & ~of_pull & known),
        ("other_kept", ~wrong & ~of_pull & known & right),
        ("n_pull_all", of_pull & known),
        ("pull_right_after", of_pull & known & right),
    ):
        counts[name][row] = these.sum(0)
    for column in range(len(found.operators)):
        for name, these in (("n_after", known), ("right_after", known & right)):
            counts[name][row, column] = np.bincount(label[these[:, column]], minlength=zero_shot.image.shape[1])
    pasted = found.pasted_after[found.pasted_feature == feature]
    counts["n_pasted"][row], counts["induced"][row] = len(pasted), int((pasted == pull).sum())


def _fixed_errors(found: Counterfactuals, scores: FeatureScores, row: int, zero_shot: ZeroShot, agree: int) -> float:
    """Share of all errors of the image set that become right without the feature; NaN where it was not removed.

    An error counts when `agree` operators fix it. Where a sample was scored again, its share stands for all errors
    among the images with the feature.
    """
    rows = found.rows_of(int(scores.feature[row]))
    wrong = rows[~zero_shot.correct[found.image[rows]]]
    n_all = int(np.count_nonzero(~zero_shot.correct))
    if not len(wrong) or not n_all:
        return 0.0 if len(rows) and n_all else float("nan")
    right = found.after[wrong] == zero_shot.label[found.image[wrong]][:, None]
    return float((right.sum(1) >= agree).mean() * scores.n_errors[row] / n_all)


def mcnemar(
    only_feature: NDArray[np.int64], only_control: NDArray[np.int64], tested: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(F, O) two-sided exact McNemar p-values of the discordant pairs, and per operator corrected over the features.

    Under the null either half of a discordant pair is equally likely: binomial with 1/2 (McNemar 1947, exact form).
    The correction is Benjamini and Hochberg's (1995). NaN where there is no pair at all.
    """
    from scipy.stats import binomtest, false_discovery_control  # slow to import, and the screen only reads what is kept

    p, q = np.full((2, *only_feature.shape), np.nan)
    for place in np.argwhere(tested):
        b, c = (int(counts[tuple(place)]) for counts in (only_feature, only_control))
        p[tuple(place)] = binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    for column in range(p.shape[1]):
        known = ~np.isnan(p[:, column])
        if known.any():
            q[known, column] = false_discovery_control(p[known, column])
    return p, q


def grades(
    counts: Counts,
    sides: dict[str, Shortfall],
    significance: Significance,
    config: EvidenceConfig,
    agree: int,
    alpha: float,
) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """(F,) grade and reason of each feature; the first reason that applies, in the order written here.

    sides: the shortfalls of the `pull` class and of all `other` ones.
    """
    keep_high = wilson(counts["other_kept"], counts["n_other"])[1]
    right_after = counts["right_after"].sum(2)
    loses = {
        "pull": counts["pull_right_after"] < counts["n_pull"],
        "other": right_after - counts["pull_right_after"] < counts["n_other"],
    }
    with np.errstate(invalid="ignore"):  # NaN compares as False
        chance = ~(significance.q < alpha)
        fixes, fails = fixes_beyond_control(counts, config, alpha), fixes_too_little(counts, config)
        breaks = keep_high < config.min_keep
        restored = np.logical_and(*(high <= config.max_shortfall for _, _, high in sides.values()))
        missed = {side: (low > 0) & (high > config.max_shortfall) for side, (_, low, high) in sides.items()}
    harms = breaks | (missed["pull"] & loses["pull"]) | (missed["other"] & loses["other"])
    cases: list[tuple[str, Any]] = [
        ("support", ~significance.supported),
        ("chance", chance),
        ("not replicated", significance.replicated == 0),
        ("causal", ((fixes & restored & ~breaks).sum(1) >= agree) & ~fails.any(1)),
        ("harm", harms.sum(1) >= agree),
        ("disagree", fixes.any(1) & fails.any(1)),
        ("partial", (fixes & (missed["pull"] | missed["other"])).sum(1) >= agree),
        ("unproven", (fixes & ~breaks).sum(1) >= agree),
        ("disagree", fixes.any(1)),
        ("no effect", fails.sum(1) >= agree),
    ]
    reason: NDArray[np.str_] = np.select([which for _, which in cases], [name for name, _ in cases], "inconclusive")
    grade = np.full(len(reason), "undecided", "<U9")
    for one, names in (("causal", ("causal",)), ("core", ("harm",)), ("context", ("no effect", "partial", "disagree"))):
        grade[np.isin(reason, names)] = one
    return grade, reason


def fixes_beyond_control(counts: Counts, config: EvidenceConfig, alpha: float) -> NDArray[np.bool_]:
    """(F, O) whether removal by each operator fixes enough errors, more than that of other regions would.

    counts: at least only_feature, only_control, n_control and q of `Evidence`, (F, O) each.
    """
    effect = share(counts["only_feature"] - counts["only_control"], counts["n_control"])
    with np.errstate(invalid="ignore"):  # NaN compares as False
        enough: NDArray[np.bool_] = (effect >= config.min_effect) & (counts["q"] < alpha)
    return enough


def fixes_too_little(counts: Counts, config: EvidenceConfig) -> NDArray[np.bool_]:
    """(F, O) whether removal by each operator is shown to fix less than it must. counts: as above, without q."""
    high = paired_limits(counts["only_feature"], counts["only_control"], counts["n_control"])[1]
    with np.errstate(invalid="ignore"):  # NaN, where nothing had a control, compares as False
        fails: NDArray[np.bool_] = high < config.min_effect
    return fails


def never_shown(
    scores: FeatureScores, regions: Regions, zero_shot: ZeroShot, feature_of: NDArray[Any], doubtful: NDArray[Any]
) -> Never:
    """Count the images that certainly show no region of a feature.

    feature_of: (R,) feature ids or NOISE. doubtful: (R,) what the rule for new regions says of those in noise, NOISE
    elsewhere. Clustering leaves the rim of a feature in noise; an image with such a region counts as one without the
    feature in the scores, but is no example of what images without it look like.
    """
    n_classes = zero_shot.image.shape[1]
    label, right = zero_shot.label.astype(np.int64), zero_shot.correct
    counts = np.zeros((2, len(scores), n_classes), np.int64)
    for row, feature in enumerate(scores.feature.tolist()):
        free = np.ones(len(label), bool)
        free[regions.image[(feature_of == feature) | (doubtful == feature)]] = False
        counts[0, row] = np.bincount(label[free], minlength=n_classes)
        counts[1, row] = np.bincount(label[free & right], minlength=n_classes)
    return Never(counts[0], counts[1])


def shortfalls(counts: Counts, scores: FeatureScores, never: Never, of_pull: bool) -> Shortfall:
    """(F, O) accuracy expected from images without the feature minus that of images that lost it, and its limits.

    Over the pull class, or over all others; of these the classes that have images on both sides. What is expected is
    the accuracy of a class without the feature, averaged over the images that lost it, so that classes that show it
    more often weigh the same on both sides. The limits are Newcombe's, which take that average for one rate of as many
    images as it is worth (see `standardised`). NaN where there is no such class.
    """
    n_classes = scores.n_in.shape[1]
    pull = np.arange(n_classes) == scores.pull_class[:, None]
    chosen: NDArray[np.bool_] = (pull if of_pull else ~pull) & (never.n > 0)
    n_after = np.where(chosen[:, None], counts["n_after"], 0)
    right_after = np.where(chosen[:, None], counts["right_after"], 0).sum(2)
    n = n_after.sum(2)
    expected, worth = standardised(never.right[:, None], never.n[:, None], n_after)
    low, high = newcombe(np.nan_to_num(expected) * worth, worth, right_after, n)
    return expected - share(right_after, n), low, high


def share(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """part / whole, elementwise; NaN where whole is 0."""
    out: NDArray[np.float64] = np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
    return out
