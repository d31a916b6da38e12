"""Before and after: what the audited and the tuned model say about the same images, as one strict JSON document.

Both models answer for the same images, so their rates are not independent: a change comes with Newcombe's interval for
paired proportions. Rates with and without a feature are of different images: Newcombe's interval for independent ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.discovery.significance import newcombe, wilson
from ravl.evaluation import as_document, group_accuracy
from ravl.tables import GroupAccuracy, ImageSet, Regions

Bools = NDArray[np.bool_]
Ints = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Answers:
    """Zero-shot classes that one model gives. image: (I,), region: (R,) int."""

    image: Ints
    region: Ints


@dataclass(frozen=True)
class Treated:
    """A feature that a training treats. pull_class: index of the class it pulls to, -1 for none."""

    name: str
    pull_class: int
    decision: str = ""
    reviewer: str = ""


@dataclass(frozen=True)
class TestSet:
    """Images to compare on. feature: (R,) feature of every region, by the audited model. treated: id -> feature."""

    __test__ = False  # not a test of pytest's

    images: ImageSet
    regions: Regions
    feature: NDArray[np.int32]
    treated: Mapping[int, Treated]

    @property
    def present(self) -> dict[int, Bools]:
        """(I,) for each treated feature, the images that show it."""
        return {feature: shown(self.regions, self.feature, feature) for feature in self.treated}


def shown(regions: Regions, feature: NDArray[np.int32], *chosen: int) -> Bools:
    """(I,) whether an image has a region of any of the chosen features; feature: (R,) of each region."""
    return regions.in_images(np.isin(feature, chosen))


def accuracies(test: TestSet, predicted: Ints) -> GroupAccuracy:
    """Accuracy by group of one model's answers (I,)."""
    images = test.images
    names = {feature: about.name for feature, about in test.treated.items()}
    return group_accuracy(predicted, images.label, images.class_names, test.present, names, images.groups)


def document(test: TestSet, before: Answers, after: Answers) -> dict[str, Any]:
    """What the repair changed. Undefined numbers are null; rates come with `interval` [low, high], level 95 %.

    before, after: as `ravl.evaluation.as_document`.
    changes: every group under both models, the largest fall first {name, kind, n, before, after, change, interval}.
    features: per treated feature {feature, name, pull_class, decision, reviewer, fixed: share of the errors on images
        that show it which are right now; broken: share of the right answers there which are wrong now; pull_rate:
        {before, after}, share of the images of other classes that are called the pull class, with and without it}.
    without_features: the images that show no treated feature: what the repair costs where it is not needed.
    regions: share of the regions of no treated feature that get the class of their image (n; not independent, as an
        image has several: no interval). images: how many became right, or wrong.
    """
    label = test.images.label
    groups = [accuracies(test, answers.image) for answers in (before, after)]
    both = accuracies(test, np.where(before.image == label, after.image, -1))  # right is: right in both
    rows = [_change(str(both.name[i]), str(both.kind[i]), *_counts(groups, both, i)) for i in range(len(both.name))]
    free = ~np.logical_or.reduce([np.zeros(len(label), bool), *test.present.values()])
    right = [answers.image == label for answers in (before, after)]
    return {
        "before": as_document(groups[0]),
        "after": as_document(groups[1]),
        "changes": sorted(rows, key=lambda row: math.inf if row["change"] is None else row["change"]),
        "features": [_feature(test, feature, before, after) for feature in test.treated],
        "without_features": _change("images without a treated feature", "overall", *_pairs(right[0], right[1], free)),
        "regions": _region_accuracy(test, before, after),
        "images": {
            "became_right": int((right[1] & ~right[0]).sum()),
            "became_wrong": int((right[0] & ~right[1]).sum()),
        },
    }


def paired_interval(both: int, only_before: int, only_after: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Limits of the change of a rate, after - before, on the same n images; NaN for n = 0.

    Newcombe (1998), Statistics in Medicine 17, 2635-2650, method 10: as for independent rates, from the distances of
    both rates to their Wilson limits, with their correlation phi taken off (with a continuity correction).
    """
    if not n:
        return math.nan, math.nan
    counts = np.array([both + only_after, both + only_before])
    now, was = counts / n
    (low_now, low_was), (high_now, high_was) = wilson(counts, np.full(2, n), level)
    neither = n - both - only_before - only_after
    margins = math.prod([both + only_after, both + only_before, neither + only_after, neither + only_before])
    covariance = float(both * neither - only_before * only_after)
    if covariance > 0:
        covariance = max(covariance - n / 2, 0)
    phi = covariance / math.sqrt(margins) if margins else 0.0

    def distance(a: float, b: float) -> float:
        return math.sqrt(max(a**2 - 2 * phi * a * b + b**2, 0))

    change = float(now - was)
    return change - distance(now - low_now, high_was - was), change + distance(high_now - now, was - low_was)


# --- parts of the document -------------------------------------------------------------------------------------------


def _pairs(before: Bools, after: Bools, inside: Bools) -> tuple[int, int, int, int]:
    """Images inside: all of them, right before, right after, right in both."""
    before, after = before & inside, after & inside
    return int(inside.sum()), int(before.sum()), int(after.sum()), int((before & after).sum())


def _counts(groups: list[GroupAccuracy], both: GroupAccuracy, row: int) -> tuple[int, int, int, int]:
    """The same for a group."""
    return int(both.n[row]), int(groups[0].right[row]), int(groups[1].right[row]), int(both.right[row])


def _change(name: str, kind: str, n: int, before: int, after: int, both: int) -> dict[str, Any]:
    low, high = paired_interval(both, before - both, after - both, n)
    return {
        "name": name,
        "kind": kind,
        "n": n,
        "before": rate(before, n),
        "after": rate(after, n),
        "change": as_number((after - before) / n if n else math.nan),
        "interval": [as_number(low), as_number(high)],
    }


def _feature(test: TestSet, feature: int, before: Answers, after: Answers) -> dict[str, Any]:
    about, has, label = test.treated[feature], test.present[feature], test.images.label
    was, now = before.image == label, after.image == label
    pull = about.pull_class
    return {
        "feature": feature,
        "name": about.name,
        "pull_class": test.images.class_names[pull] if pull >= 0 else None,
        "decision": about.decision,
        "reviewer": about.reviewer,
        "fixed": rate(int((has & ~was & now).sum()), int((has & ~was).sum())),
        "broken": rate(int((has & was & ~now).sum()), int((has & was).sum())),
        "pull_rate": None
        if pull < 0
        else {
            "before": _pull_rate(before.image == pull, has, label != pull),
            "after": _pull_rate(after.image == pull, has, label != pull),
        },
    }


def _pull_rate(called: Bools, has: Bools, other: Bools) -> dict[str, Any]:
    """Share of the images of other classes that are called the pull class, with and without the feature."""
    (k, n), (k0, n0) = ((int((called & other & side).sum()), int((other & side).sum())) for side in (has, ~has))
    low, high = newcombe(np.array(k), np.array(n), np.array(k0), np.array(n0))
    difference = k / n - k0 / n0 if n and n0 else math.nan
    return {
        "with": rate(k, n),
        "without": rate(k0, n0),
        "difference": as_number(difference),
        "interval": [as_number(float(low)), as_number(float(high))],
    }


def _region_accuracy(test: TestSet, before: Answers, after: Answers) -> dict[str, Any]:
    relevant = ~np.isin(test.feature, list(test.treated))
    own = test.images.label[test.regions.image[relevant]]
    share = [as_number(float((a.region[relevant] == own).mean()) if len(own) else math.nan) for a in (before, after)]
    return {"n": len(own), "before": share[0], "after": share[1]}


def rate(k: int, n: int) -> dict[str, Any]:
    """k of n with Wilson's interval: {n, count, rate, interval}; null for n = 0."""
    low, high = wilson(np.array(k), np.array(n))
    return {
        "n": n,
        "count": k,
        "rate": as_number(k / n if n else math.nan),
        "interval": [as_number(float(low)), as_number(float(high))],
    }


def as_number(value: float) -> float | None:
    """A number of the document, six digits; null for NaN."""
    return None if math.isnan(value) else round(float(value), 6)
