"""What is known about a feature beyond its scores: chance, counterfactuals, and the grade they add up to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.tables.record import column, columns, row_of


@dataclass(frozen=True)
class Significance:
    """What of a feature's scores is beyond chance, row by row with `FeatureScores`.

    In and out are images with and without the feature; differences are the accuracy in minus the accuracy out.

    feature: (F,) int32. n_comparable: (F,) int32, classes with images on both sides.
    excess_gap: (F,) float32, the gap minus its mean by chance; gap_low, gap_high: its bootstrap interval.
    p: (F,) float64 in (0, 1], permutation test of the gap. These four are NaN where the gap is undefined.
    q: (F,) float64 in [p, 1], p corrected for the number of features; NaN where the feature is not supported.
    supported: (F,) bool, enough images with and without the feature, and enough errors with it, in comparable classes.
    excess_influence: (F,) float32 <= 1: 1 where the feature decides every error, 0 where as many as chance would, below
        0 where fewer; NaN where no error can be judged, or where no other region could have decided.
    pull_diff, pull_low, pull_high: (F,) float32 in [-1, 1], of the pull class; NaN where a side is empty.
    other_diff, other_low, other_high: the same of the other comparable classes together, with as many images of each
        class on both sides as show the feature.
    pull_in, pull_out, other_in, other_out: (F, 2) int32, right images and all images; 0 without a pull class.
    replicated: (F,) int8, 1 found in both halves of the images, 0 not, -1 not asked.
    """

    feature: NDArray[np.int32]
    n_comparable: NDArray[np.int32]
    excess_gap: NDArray[np.float32]
    gap_low: NDArray[np.float32]
    gap_high: NDArray[np.float32]
    p: NDArray[np.float64]
    q: NDArray[np.float64]
    supported: NDArray[np.bool_]
    excess_influence: NDArray[np.float32]
    pull_diff: NDArray[np.float32]
    pull_low: NDArray[np.float32]
    pull_high: NDArray[np.float32]
    other_diff: NDArray[np.float32]
    other_low: NDArray[np.float32]
    other_high: NDArray[np.float32]
    pull_in: NDArray[np.int32]
    pull_out: NDArray[np.int32]
    other_in: NDArray[np.int32]
    other_out: NDArray[np.int32]
    replicated: NDArray[np.int8]

    def __post_init__(self) -> None:
        column(self, "feature", np.int32, (None,))
        n = len(self.feature)
        pairs = ("pull_in", "pull_out", "other_in", "other_out")
        special: dict[str, Any] = {"n_comparable": np.int32, "p": np.float64, "q": np.float64}
        special |= {"supported": np.bool_, "replicated": np.int8}
        for name in columns(self):
            if name in pairs:
                column(self, name, np.int32, (n, 2))
            elif name != "feature":
                column(self, name, special.get(name, np.float32), (n,))
        for name in pairs:
            count = getattr(self, name)
            if not np.all((count[:, 0] >= 0) & (count[:, 0] <= count[:, 1])):
                raise ValueError(f"Significance.{name} must hold 0 <= right <= all, got {count.tolist()}.")
        for name, least in (("p", 0.0), ("q", self.p)):  # comparisons with NaN are false
            value = getattr(self, name)
            if np.any(value < least) or np.any(value > 1):
                raise ValueError(f"Significance.{name} must lie in [{'p' if name == 'q' else 0}, 1], got {value}.")
        if np.any(np.isnan(self.q) == self.supported):
            raise ValueError("Significance.q must be NaN exactly where a feature is not supported.")
        for side in ("gap", "pull", "other"):
            if np.any(getattr(self, f"{side}_low") > getattr(self, f"{side}_high")):
                raise ValueError(f"Significance.{side}_low must not exceed {side}_high.")
        if not np.isin(self.replicated, (-1, 0, 1)).all():
            raise ValueError(f"Significance.replicated must be 1, 0 or -1, got {self.replicated}.")

    def __len__(self) -> int:
        return len(self.feature)

    def row_of(self, feature: int) -> int:
        """The row of a feature id. Raises KeyError for an unknown id."""
        return row_of(self.feature, feature)


@dataclass(frozen=True)
class Counterfactuals:
    """What the model answers when features are removed from images, and when they are pasted into others.

    operators: O names. Removal, one row per (feature, image that shows it), grouped by feature in rank order:
    feature, image: (N,) int32. after: (N, O) int16, the class with all of the feature's regions removed; -1 where the
    operator cannot be applied. control: (N, O) int16, the class with other regions of the same image and of equal area
    removed instead; only for misclassified images, -1 elsewhere and where no such regions are left.
    Pasting, one row per trial: pasted_feature, pasted_image, pasted_region (whose crop), pasted_place (region it
    covers): (P,) int32. pasted_after: (P,) int16, the class.
    """

    operators: tuple[str, ...]
    feature: NDArray[np.int32]
    image: NDArray[np.int32]
    after: NDArray[np.int16]
    control: NDArray[np.int16]
    pasted_feature: NDArray[np.int32]
    pasted_image: NDArray[np.int32]
    pasted_region: NDArray[np.int32]
    pasted_place: NDArray[np.int32]
    pasted_after: NDArray[np.int16]

    def __post_init__(self) -> None:
        object.__setattr__(self, "operators", tuple(str(name) for name in self.operators))
        column(self, "feature", np.int32, (None,))
        n = len(self.feature)
        column(self, "image", np.int32, (n,))
        for name in ("after", "control"):
            column(self, name, np.int16, (n, len(self.operators)))
        column(self, "pasted_feature", np.int32, (None,))
        for name in ("pasted_image", "pasted_region", "pasted_place"):
            column(self, name, np.int32, (len(self.pasted_feature),))
        column(self, "pasted_after", np.int16, (len(self.pasted_feature),))

    def __len__(self) -> int:
        return len(self.feature)

    def rows_of(self, feature: int) -> NDArray[np.int64]:
        """Removal rows of one feature."""
        return np.flatnonzero(self.feature == feature)


GRADES = ("causal", "core", "context", "undecided")
"""What removal says about a feature; computed, never a verdict."""

REASONS = (
    *("causal", "support", "chance", "not replicated", "no effect", "harm", "partial", "unproven", "disagree"),
    *("inconclusive", "untested"),
)
"""Why a feature has its grade: see `ravl.discovery.evidence`."""


BY_OPERATOR = (
    *("n_errors", "fixed", "n_control", "control_fixed", "only_feature", "only_control", "n_pull", "pull_kept"),
    *("n_other", "other_kept", "n_pull_all", "pull_right_after", "pull_shortfall", "other_shortfall", "p", "q"),
)
"""Columns of `Evidence` with one number per operator."""

RATES = ("pull_shortfall", "other_shortfall", "p", "q")
"""Those of BY_OPERATOR that are no counts."""


@dataclass(frozen=True)
class Evidence:
    """What removing a feature shows, one entry per feature in rank order: flagged ones first, best first.

    operators: O names. feature: (F,) int32. flagged: (F,) bool, by the audit's rule. grade, reason: (F,) str, one of
    GRADES and REASONS. error_share: (F,) float32 in [0, 1], share of all errors of the image set that become right
    when the feature is removed, by as many operators as must agree; NaN where it was not removed.
    Counts by operator, (F, O) int32, 0 where it was not removed:
    n_errors, fixed: misclassified images with the feature that were scored again; of these, right without it.
    n_control, control_fixed: those that have a control; of these, right without the control regions.
    only_feature, only_control: discordant pairs: right without the feature only, without the control regions only.
    n_pull, pull_kept: right images of the pull class; of these, still right. n_other, other_kept: of all other classes.
    n_pull_all, pull_right_after: all images of the pull class with the feature; of these, right without it.
    pull_shortfall, other_shortfall: (F, O) float32, accuracy of images that never had the feature minus that of images
    that lost it, of the pull class and of all other classes; NaN where there is nothing to compare.
    p, q: (F, O) float32, exact McNemar test of the discordant pairs, corrected over the features; NaN where untested.
    n_pasted, induced: (F,) int32, right images of other classes it was pasted into; of these, called the pull class.
    n_after, right_after: (F, Y) int32, images with the feature per class that were scored again, and how many of them
    are right without it by the first operator.
    """

    operators: tuple[str, ...]
    feature: NDArray[np.int32]
    flagged: NDArray[np.bool_]
    grade: NDArray[np.str_]
    reason: NDArray[np.str_]
    error_share: NDArray[np.float32]
    n_errors: NDArray[np.int32]
    fixed: NDArray[np.int32]
    n_control: NDArray[np.int32]
    control_fixed: NDArray[np.int32]
    only_feature: NDArray[np.int32]
    only_control: NDArray[np.int32]
    n_pull: NDArray[np.int32]
    pull_kept: NDArray[np.int32]
    n_other: NDArray[np.int32]
    other_kept: NDArray[np.int32]
    n_pull_all: NDArray[np.int32]
    pull_right_after: NDArray[np.int32]
    pull_shortfall: NDArray[np.float32]
    other_shortfall: NDArray[np.float32]
    p: NDArray[np.float32]
    q: NDArray[np.float32]
    n_pasted: NDArray[np.int32]
    induced: NDArray[np.int32]
    n_after: NDArray[np.int32]
    right_after: NDArray[np.int32]

    def __post_init__(self) -> None:
        object.__setattr__(self, "operators", tuple(str(name) for name in self.operators))
        column(self, "feature", np.int32, (None,))
        n, n_operators, classes = len(self.feature), len(self.operators), np.asarray(self.n_after).shape[-1]
        singles: dict[str, Any] = {"flagged": np.bool_, "grade": np.str_, "reason": np.str_, "error_share": np.float32}
        for name, dtype in (singles | {"n_pasted": np.int32, "induced": np.int32}).items():
            column(self, name, dtype, (n,))
        for name in BY_OPERATOR:
            column(self, name, np.float32 if name in RATES else np.int32, (n, n_operators))
        for name in ("n_after", "right_after"):
            column(self, name, np.int32, (n, classes))
        for name, allowed in (("grade", GRADES), ("reason", REASONS)):
            if strange := set(getattr(self, name).tolist()) - set(allowed):
                raise ValueError(f"Evidence.{name} must be one of {', '.join(allowed)}, got {sorted(strange)[0]!r}.")

    def __len__(self) -> int:
        return len(self.feature)

    @property
    def tested(self) -> NDArray[np.bool_]:
        """(F,) whether the feature was removed from its images."""
        out: NDArray[np.bool_] = self.n_after.sum(1) > 0
        return out

    def row_of(self, feature: int) -> int:
        """The rank (0 = best) of a feature id. Raises KeyError for an unknown id."""
        return row_of(self.feature, feature)
