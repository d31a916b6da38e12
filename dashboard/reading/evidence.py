"""What removing a feature shows, as the pages need it: counts, images before and after, the expected gain. Pure.

The counting and grading is done in `ravl.discovery.evidence`; here it is only laid out, image by image where it helps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dashboard.reading.comparison import Comparison, compare
from dashboard.reading.opened import Audit, Interval, Rate, agreeing, difference
from dashboard.reading.summaries import fixed_errors
from ravl.evaluation import group_accuracy
from ravl.tables import Significance

# --- counts ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Effect:
    """What one way of removing a feature does to the images that show it.

    fixed: wrong images that become right. control: of those with other regions of equal area, that become right when
    these are removed instead. kept: right images of other classes than the pull class that stay right. pull_kept: right
    images of the pull class that stay right. pull_after: all images of the pull class, right after removal. p, q: exact
    McNemar test of fixed against control, and corrected over the features; NaN where untested.
    """

    operator: str
    fixed: Rate
    control: Rate
    kept: Rate
    pull_kept: Rate
    pull_after: Rate
    p: float
    q: float


@dataclass(frozen=True)
class Side:
    """One half of a shortcut's signature: right images with and without the feature; difference: with minus without."""

    inside: Rate
    outside: Rate
    difference: Interval


@dataclass(frozen=True)
class Removal:
    """Everything the evidence panel says about one feature.

    pull: its pull class, empty without one. agree: how many operators have to agree. effects: by operator; empty where
    the feature was not removed. fixed, control: as in `Effect`, by as many operators as must agree. other_broken,
    pull_broken: right images of other classes, and of the pull class, that turn wrong, likewise. induced: right images
    of other classes that are called `pull` once the feature is pasted into them. never: right images of the pull class
    that never showed the feature. harm: their share minus that of the pull class's images that lost it, by the first
    operator. pull_side, other_side: accuracy with and without the feature, of the pull class and of the other
    comparable classes. replicated: None where that was not asked. scored: images that were classified again, of all
    that show the feature.
    """

    feature: int
    pull: str
    agree: int
    effects: tuple[Effect, ...]
    fixed: Rate
    control: Rate
    other_broken: Rate
    pull_broken: Rate
    induced: Rate
    never: Rate
    harm: Interval
    pull_side: Side
    other_side: Side
    p: float
    excess_influence: float
    replicated: bool | None
    scored: Rate

    @property
    def tested(self) -> bool:
        return bool(self.effects)


def removal(audit: Audit, feature: int) -> Removal:
    """Lay out the evidence about one feature. Raises KeyError for an unknown id."""
    scores, chance, evidence, found = audit.features, audit.significance, audit.evidence, audit.counterfactuals
    place, row, test = evidence.row_of(feature), scores.row_of(feature), chance.row_of(feature)
    pull = int(scores.pull_class[row])
    effects = tuple(_effect(audit, place, column) for column in range(len(evidence.operators)))
    tested = bool(evidence.tested[place])
    never = Rate(int(scores.right_out[row, pull]), int(scores.n_out[row, pull])) if pull >= 0 else Rate(0, 0)
    lost = effects[0].pull_after if tested else Rate(0, 0)
    fixed, control = fixed_errors(audit, feature)
    other_broken, pull_broken = _broken(audit, feature, pull)
    replicated = int(chance.replicated[test])
    return Removal(
        feature=feature,
        pull=audit.class_names[pull] if pull >= 0 else "",
        agree=agreeing(audit),
        effects=effects if tested else (),
        fixed=fixed,
        control=control,
        other_broken=other_broken,
        pull_broken=pull_broken,
        induced=Rate(int(evidence.induced[place]), int(evidence.n_pasted[place])),
        never=never,
        harm=difference(never, lost, audit.config.significance.level),
        pull_side=_side(chance, test, "pull"),
        other_side=_side(chance, test, "other"),
        p=float(chance.p[test]),
        excess_influence=float(chance.excess_influence[test]),
        replicated=None if replicated < 0 else bool(replicated),
        scored=Rate(len(found.rows_of(feature)), int(scores.n_images[row])),
    )


def _effect(audit: Audit, place: int, column: int) -> Effect:
    evidence = audit.evidence

    def rate(part: str, whole: str) -> Rate:
        return Rate(int(getattr(evidence, part)[place, column]), int(getattr(evidence, whole)[place, column]))

    return Effect(
        evidence.operators[column],
        rate("fixed", "n_errors"),
        rate("control_fixed", "n_control"),
        rate("other_kept", "n_other"),
        rate("pull_kept", "n_pull"),
        rate("pull_right_after", "n_pull_all"),
        float(evidence.p[place, column]),
        float(evidence.q[place, column]),
    )


def _side(chance: Significance, row: int, name: str) -> Side:
    inside, outside = (Rate(*map(int, getattr(chance, f"{name}_{end}")[row])) for end in ("in", "out"))
    value, low, high = (float(getattr(chance, f"{name}_{end}")[row]) for end in ("diff", "low", "high"))
    return Side(inside, outside, Interval(value, low, high))


def _broken(audit: Audit, feature: int, pull: int) -> tuple[Rate, Rate]:
    """Right images, of other classes and of the pull class, that turn wrong by as many operators as must agree."""
    found = audit.counterfactuals
    rows = found.rows_of(feature)
    rows = rows[audit.zero_shot.correct[found.image[rows]]]
    after, label = found.after[rows], audit.zero_shot.label[found.image[rows]]
    known = (after >= 0).any(1)
    wrong = ((after >= 0) & (after != label[:, None])).sum(1) >= agreeing(audit)
    other, own = (
        Rate(int(np.count_nonzero(wrong & chosen)), int(np.count_nonzero(known & chosen)))
        for chosen in (label != pull, label == pull)
    )
    return other, own


# --- images ----------------------------------------------------------------------------------------------------------


OUTCOMES = ("fixed", "stays", "kept", "broken")
"""What removal can do to an image: an error goes, an error stays, a right answer stays, a right answer breaks."""


@dataclass(frozen=True)
class Trial:
    """One image with and without the feature. regions: ids of all of the feature's regions in it, which are removed."""

    feature: int
    image: int
    regions: tuple[int, ...]
    boxes: tuple[tuple[int, int, int, int], ...]
    operator: str
    truth: str
    called: str
    after: str

    @property
    def was_right(self) -> bool:
        return self.called == self.truth

    @property
    def is_right(self) -> bool:
        return self.after == self.truth


@dataclass(frozen=True)
class Outcome:
    """The images of one of OUTCOMES. count: how many, of all wrong (or all right) ones. shown: the first of them."""

    kind: str
    count: Rate
    shown: tuple[Trial, ...]


def outcomes(audit: Audit, feature: int, operator: str, limits: Mapping[str, int]) -> tuple[Outcome, ...]:
    """The images that show a feature by what removing it with one operator does, in the order of OUTCOMES.

    limits: how many images of each kind are shown. The most harmful exemplars come first, then by id; among the right
    ones, those of other classes than the pull class before its own. Raises ValueError for an operator that was not
    used.
    """
    found, zero_shot = audit.counterfactuals, audit.zero_shot
    if operator not in found.operators:
        raise ValueError(f"operator must be one of {', '.join(found.operators)}, got {operator!r}.")
    after_all = found.after[:, found.operators.index(operator)]
    rows = found.rows_of(feature)
    rows = rows[after_all[rows] >= 0]
    image, after = found.image[rows].astype(np.int64), after_all[rows]
    was, now = zero_shot.correct[image], after == zero_shot.label[image]
    of_pull = zero_shot.label[image] == audit.features.pull_class[audit.features.row_of(feature)]
    order = np.lexsort((image, _places(audit, feature)[image], was & of_pull))
    kinds = {"fixed": ~was & now, "stays": ~was & ~now, "kept": was & now, "broken": was & ~now}
    out = []
    for kind in OUTCOMES:
        chosen = order[kinds[kind][order]]
        n = int(np.count_nonzero(~was if kind in ("fixed", "stays") else was))
        shown = chosen[: limits.get(kind, 0)]
        trials = tuple(_trial(audit, feature, int(image[i]), operator, int(after[i])) for i in shown)
        out.append(Outcome(kind, Rate(len(chosen), n), trials))
    return tuple(out)


def _places(audit: Audit, feature: int) -> NDArray[np.int64]:
    """(I,) place of each image among the feature's exemplars; one beyond the last for all others."""
    images = audit.exemplars.image[audit.exemplars.rows_of(feature)]
    places = np.full(len(audit.images), len(images))
    for place, image in reversed(list(enumerate(images.tolist()))):
        places[image] = place
    return places


def _trial(audit: Audit, feature: int, image: int, operator: str, after: int) -> Trial:
    rows = audit.regions.rows_of(image)
    regions = tuple((rows.start + np.flatnonzero(audit.feature_of[rows] == feature)).tolist())
    boxes = tuple((x0, y0, x1, y1) for x0, y0, x1, y1 in audit.regions.box[list(regions)].tolist())
    truth, called = int(audit.zero_shot.label[image]), int(audit.zero_shot.predicted[image])
    names = audit.class_names
    return Trial(feature, image, regions, boxes, operator, names[truth], names[called], names[after])


# --- what the model would do if it did not see them ------------------------------------------------------------------


@dataclass(frozen=True)
class Expected:
    """Accuracy now and if some features were invisible, measured by removing them; nothing is trained.

    operator: how they were removed. showing: images that show any of them. unscored: those among them that were not
    classified again, and keep their answer. several: those that show more than one of the features; they are scored
    without one at a time.
    """

    comparison: Comparison
    features: tuple[int, ...]
    operator: str
    showing: int
    unscored: int
    several: int


def expected(audit: Audit, features: Sequence[int], names: Mapping[int, str]) -> Expected | None:
    """What to expect if the features were invisible. None where none of them was removed.

    features: ids in rank order. names: what people call features.
    """
    tested = tuple(feature for feature in features if len(audit.counterfactuals.rows_of(feature)))
    if not tested:
        return None
    zero_shot, images = audit.zero_shot, audit.images
    present = {feature: audit.shows(feature) for feature in tested}
    counts = np.sum(list(present.values()), axis=0)
    after, scored = predicted_without(audit, tested)
    before, then = (
        group_accuracy(answer, images.label, audit.class_names, present, names, images.groups)
        for answer in (zero_shot.predicted, after)
    )
    return Expected(
        compare(before, then),
        tested,
        audit.counterfactuals.operators[0],
        int(np.count_nonzero(counts)),
        int(np.count_nonzero((counts > 0) & ~scored)),
        int(np.count_nonzero(counts > 1)),
    )


def predicted_without(audit: Audit, features: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(I,) the class every image is called without the features, and whether it was classified again.

    By the first operator. An image that shows several features was scored without each of them, never without all: the
    first of `features` whose removal changes the answer counts, so an error that two of them hold up together stays.
    Images that were not classified again keep their answer.
    """
    found, before = audit.counterfactuals, audit.zero_shot.predicted
    predicted, scored = before.astype(np.int64), np.zeros(len(before), bool)
    for feature in features:
        rows = found.rows_of(feature)
        rows = rows[found.after[rows, 0] >= 0]
        image, after = found.image[rows], found.after[rows, 0]
        scored[image] = True
        new = predicted[image] == before[image]
        predicted[image[new]] = after[new]
    return predicted, scored
