"""What the counterfactuals say about each feature: counts, tests, and a grade that is computed, never a verdict.

    fix     = share of the errors among images with the feature that become right without it
    control = the same without other regions of the same image and of equal area
    keep    = share of the right images of other classes than the pull class that stay right
    break   = share of the right images of the pull class that turn wrong
    harm    = accuracy of the pull class on images without the feature, minus its accuracy on images that lost it
    induce  = share of right images of other classes that are called the pull class once the feature is pasted in

An operator *agrees* when fix - control >= `min_effect`, the exact McNemar test of fix against control holds after
Benjamini-Hochberg over the features, keep is not below `min_keep`, and harm is not above `max_harm`. Grades:

    causal     `agree` operators agree                                           reason: causal
    core       removing it breaks what was right                                 reason: harm
    context    a gap beyond chance, but errors do not depend on it               reason: no effect, disagree
    undecided  too few images, or a gap that chance explains                     reason: support, chance, not replicated

Deviation: Varma et al. 2024 have no such test. `harm` is what tells a misread object from a shortcut where the empty
image already looks like one class: taking the object away then "fixes" errors too, but what is left is not recognised
as well as images that never had the feature are. A spurious feature leaves an ordinary image of its class behind.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, false_discovery_control

from ravl.config import EvidenceConfig
from ravl.discovery.significance import newcombe, wilson
from ravl.tables import BY_OPERATOR, Counterfactuals, Evidence, FeatureScores, Significance, ZeroShot

Counts = dict[str, NDArray[Any]]


def weigh(
    found: Counterfactuals,
    scores: FeatureScores,
    significance: Significance,
    zero_shot: ZeroShot,
    config: EvidenceConfig,
    alpha: float,
) -> Evidence:
    """Count, test, grade and rank all features of `scores`; those that were not removed have zero counts.

    Flagged by `rule="evidence"`: enough support, q < alpha, replicated where that was asked for, and causal. By
    `rule="paper"`: those that pass the paper's rule. Rank: flagged first, then by falling share of errors, then by the
    order of `scores`; under the paper's rule the order of `scores` is kept.
    """
    n, classes = len(scores), zero_shot.image.shape[1]
    counts: Counts = {name: np.zeros((n, len(found.operators)), np.int64) for name in BY_OPERATOR}
    counts |= {"n_pasted": np.zeros(n, np.int64), "induced": np.zeros(n, np.int64)}
    counts |= {name: np.zeros((n, classes), np.int64) for name in ("n_after", "right_after")}
    fixed_share = np.full(n, np.nan)
    for row in range(n):
        pull = int(scores.pull_class[row])
        _count(counts, row, found, int(scores.feature[row]), pull, zero_shot)
        fixed_share[row] = _fixed_errors(found, scores, row, zero_shot, needed(found.operators, config))
    counts["p"], counts["q"] = mcnemar(counts["only_feature"], counts["only_control"], counts["n_control"] > 0)
    grade, reason = grades(counts, scores, significance, config, needed(found.operators, config), alpha)
    flagged = grade == "causal" if config.rule == "evidence" else scores.passes.copy()
    order = np.arange(n)
    if config.rule == "evidence":
        order = np.lexsort((np.arange(n), -np.nan_to_num(fixed_share, nan=-1), ~flagged))
    columns: dict[str, Any] = {name: column[order] for name, column in counts.items()}
    columns |= {"flagged": flagged[order], "grade": grade[order], "reason": reason[order]}
    columns |= {"feature": scores.feature[order], "error_share": fixed_share[order]}
    return Evidence(operators=found.operators, **columns)


def needed(operators: tuple[str, ...], config: EvidenceConfig) -> int:
    """How many operators must agree: those asked for, or all where a model has fewer."""
    return min(config.agree, len(operators))


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
    first = known[:, 0]
    counts["n_after"][row] = np.bincount(label[first], minlength=zero_shot.image.shape[1])
    counts["right_after"][row] = np.bincount(label[first & right[:, 0]], minlength=zero_shot.image.shape[1])
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
    scores: FeatureScores,
    significance: Significance,
    config: EvidenceConfig,
    agree: int,
    alpha: float,
) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """(F,) grade and reason of each feature; the first reason that applies, in the order of the module's table."""
    with np.errstate(invalid="ignore"):  # NaN compares as False
        chance = ~(significance.q < alpha)
        effect = share(counts["fixed"], counts["n_errors"]) - share(counts["control_fixed"], counts["n_control"])
        fixes = (effect >= config.min_effect) & (counts["q"] < alpha)
        harms = harmful(counts, scores, config)
    reason = np.select(
        [
            ~significance.supported,
            chance,
            significance.replicated == 0,
            (fixes & ~harms).sum(1) >= agree,
            (fixes & harms).sum(1) + (~fixes & harms).sum(1) >= agree,
            fixes.any(1),
        ],
        ["support", "chance", "not replicated", "causal", "harm", "disagree"],
        "no effect",
    )
    grade = np.full(len(reason), "undecided", "<U9")
    for one, names in (("causal", ("causal",)), ("core", ("harm",)), ("context", ("no effect", "disagree"))):
        grade[np.isin(reason, names)] = one
    return grade, reason


def harmful(counts: Counts, scores: FeatureScores, config: EvidenceConfig) -> NDArray[np.bool_]:
    """(F, O) whether removal breaks what was right, beyond what the counts leave open.

    Keep is judged by the upper end of its Wilson interval, harm by the lower end of its Newcombe interval: with few
    images neither can be called broken. Deviation: a plain `keep >= .9` would refuse one loss among nine.
    """
    keep_high = wilson(counts["other_kept"], counts["n_other"])[1]
    rows = np.arange(len(scores))
    pull = np.maximum(scores.pull_class, 0)
    n_out, right_out = scores.n_out[rows, pull][:, None], scores.right_out[rows, pull][:, None]
    harm_low = newcombe(right_out, n_out, counts["pull_right_after"], counts["n_pull_all"])[0]
    with np.errstate(invalid="ignore"):  # NaN: nothing to break
        broken: NDArray[np.bool_] = (keep_high < config.min_keep) | (
            (harm_low > config.max_harm) & (scores.pull_class >= 0)[:, None]
        )
    return broken


def share(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """part / whole, elementwise; NaN where whole is 0."""
    out: NDArray[np.float64] = np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
    return out
