"""What a repair changed, read from the document that `ravl mitigate` leaves, for the Repair page to draw. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboard.reading.opened import Interval, Rate
from ravl.tables import ImageSet

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Estimate:
    """A rate, and the ends of its interval; NaN without images."""

    rate: Rate
    low: float
    high: float


@dataclass(frozen=True)
class Moved:
    """One group of images under both models. change: after - before, with the interval for paired rates."""

    name: str
    kind: str
    before: Estimate
    after: Estimate
    change: Interval

    @property
    def beyond_chance(self) -> bool:
        """Whether the interval of the change leaves zero out."""
        return self.change.low > 0 or self.change.high < 0


@dataclass(frozen=True)
class Pull:
    """How often images of other classes are called a feature's class, by one model: with the feature, and without."""

    with_it: Estimate
    without: Estimate


@dataclass(frozen=True)
class TreatedFeature:
    """A treated feature on the test images. pull: the class it pulls to, empty for none; then both rates are None.

    fixed: of the errors on images that show it, those that are right now. broken: of the right answers there, those
    that are wrong now.
    """

    feature: int
    name: str
    pull: str
    fixed: Estimate
    broken: Estimate
    before: Pull | None
    after: Pull | None


@dataclass(frozen=True)
class Outcome:
    """Everything a repair changed.

    overall: all test images. free: those that show no treated feature. worst: (what it is, group) of the worst and the
    second worst group before and after, each group once. groups, classes, features: the largest fall first.
    worse: every row of these three that fell, those beyond chance first, then by the fall.
    regions: share of the regions of no treated feature that get the class of their image, before and after; n_regions.
    """

    overall: Moved
    free: Moved | None
    worst: tuple[tuple[str, Moved], ...]
    groups: tuple[Moved, ...]
    classes: tuple[Moved, ...]
    features: tuple[Moved, ...]
    worse: tuple[Moved, ...]
    treated: tuple[TreatedFeature, ...]
    regions: tuple[float, float]
    n_regions: int


def outcome(result: Document) -> Outcome:
    """Read a result. Raises KeyError for a document that is none."""
    rows = [_moved(row) for row in result["changes"]]
    kinds = {kind: tuple(row for row in rows if row.kind == kind) for kind in ("overall", "class", "group", "feature")}
    fallen = [row for row in rows if row.kind != "overall" and row.change.value < 0]
    free, regions = result.get("without_features"), result.get("regions")
    return Outcome(
        overall=kinds["overall"][0],
        free=None if free is None else _moved(free),
        worst=_worst(result, kinds["group"]),
        groups=kinds["group"],
        classes=kinds["class"],
        features=kinds["feature"],
        worse=tuple(sorted(fallen, key=lambda row: (not row.beyond_chance, row.change.value))),
        treated=tuple(map(_treated, result["features"])),
        regions=(math.nan, math.nan) if regions is None else (_float(regions["before"]), _float(regions["after"])),
        n_regions=0 if regions is None else int(regions["n"]),
    )


def _worst(result: Document, groups: Sequence[Moved]) -> tuple[tuple[str, Moved], ...]:
    """The four places, a group that holds several of them once."""
    by_name = {row.name: row for row in groups}
    places: dict[str, list[str]] = {}
    for key, place in (("worst_group", "worst"), ("second_worst_group", "second worst")):
        for when, verb in (("before", "was"), ("after", "is now")):
            group = result[when].get(key)
            if group is not None and group["name"] in by_name:
                places.setdefault(group["name"], []).append(f"{verb} the {place}")
    return tuple((_said(said), by_name[name]) for name, said in places.items())


def _said(places: list[str]) -> str:
    text = ", ".join(places)
    for place in ("worst", "second worst"):
        text = text.replace(f"was the {place}, is now the {place}", f"was and is the {place}")
    return text


def _treated(row: Document) -> TreatedFeature:
    rates = row["pull_rate"]

    def pull(when: str) -> Pull | None:
        return None if rates is None else Pull(_estimate(rates[when]["with"]), _estimate(rates[when]["without"]))

    return TreatedFeature(
        feature=int(row["feature"]),
        name=row["name"] or "",
        pull=row["pull_class"] or "",
        fixed=_estimate(row["fixed"]),
        broken=_estimate(row["broken"]),
        before=pull("before"),
        after=pull("after"),
    )


def _moved(row: Document) -> Moved:
    low, high = map(_float, row["interval"])
    change = Interval(_float(row["change"]), low, high)
    return Moved(row["name"], row["kind"], _estimate(row["before"]), _estimate(row["after"]), change)


def _estimate(value: Document) -> Estimate:
    low, high = map(_float, value["interval"])
    return Estimate(Rate(int(value["count"]), int(value["n"])), low, high)


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)


# --- the audit of the tuned model ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Again:
    """One feature in the audits of both models (`ravl.mitigation.rematch`). Ids are None where an audit has none.

    status: grew, new, same, shrank or gone. worse: it grew, or is new and flagged. errors: the images whose error is
    decided where it is, of all. fixed: errors that go when it is removed, of those tested; None where untested.
    """

    before: int | None
    after: int | None
    part_of: int | None
    name: str
    pull: str
    treated: bool
    status: str
    worse: bool
    errors: Moved
    q: float
    flagged_before: bool
    flagged_after: bool
    fixed_before: Rate | None
    fixed_after: Rate | None


@dataclass(frozen=True)
class SecondAudit:
    """The audit of the tuned model beside the first one. rows: what grew first."""

    run: str
    revisions: tuple[int, int]
    before: Rate
    after: Rate
    flagged_before: int
    flagged_after: int
    rows: tuple[Again, ...]

    @property
    def worse(self) -> tuple[Again, ...]:
        """What grew, or is new and flagged."""
        return tuple(row for row in self.rows if row.worse)

    @property
    def still_flagged(self) -> tuple[Again, ...]:
        """What the second audit flags though it did not grow."""
        return tuple(row for row in self.rows if row.flagged_after and not row.worse)


def second_audit(result: Document) -> SecondAudit | None:
    """Read the part of a result about the audit of the tuned model; None where there is none."""
    part = result.get("reaudit")
    if part is None:
        return None
    before, after = (Rate(int(part["accuracy"][when]["count"]), int(part["accuracy"][when]["n"])) for when in _WHEN)
    first, second = part["revisions"]
    return SecondAudit(
        run=part["run"],
        revisions=(first, second),
        before=before,
        after=after,
        flagged_before=int(part["flagged"]["before"]),
        flagged_after=int(part["flagged"]["after"]),
        rows=tuple(map(_again, part["features"])),
    )


_WHEN = ("before", "after")


def _again(row: Document) -> Again:
    errors, pull, flagged, fixed = row["errors"], row["pull_class"], row["flagged"], row["fixed"]
    rates = [None if fixed[when] is None else Rate(int(fixed[when]["count"]), int(fixed[when]["n"])) for when in _WHEN]
    return Again(
        before=row["before"],
        after=row["after"],
        part_of=row["part_of"],
        name=row["name"] or "",
        pull=pull["after"] or pull["before"] or "",
        treated=bool(row["treated"]),
        status=row["status"],
        worse=bool(row["worse"]),
        errors=_moved({"name": "", "kind": "errors", **errors}),
        q=_float(errors["q"]),
        flagged_before=bool(flagged["before"]),
        flagged_after=bool(flagged["after"]),
        fixed_before=rates[0],
        fixed_after=rates[1],
    )


# --- images that changed ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChangedImage:
    """One test image that both models answer differently, one of them rightly. image: its row in the test set."""

    image: int
    truth: str
    before: str
    after: str
    right_now: bool


def changed_images(images: ImageSet, answers: NDArray[np.integer[Any]], right_now: bool) -> tuple[ChangedImage, ...]:
    """Those that became right, or those that became wrong, in the order of the set. answers: (2, I) before, after."""
    was, now = (answer == images.label for answer in answers)
    names = images.class_names
    rows = np.flatnonzero(~was & now if right_now else was & ~now)
    return tuple(
        ChangedImage(i, names[images.label[i]], names[answers[0, i]], names[answers[1, i]], right_now)
        for i in rows.tolist()
    )


def spread(items: Sequence[ChangedImage], limit: int) -> tuple[ChangedImage, ...]:
    """At most `limit` of them, taken in turn from every pair of truth and wrong answer, so that none fills the page."""
    kinds: dict[tuple[str, str, str], list[ChangedImage]] = {}
    for item in items:
        kinds.setdefault((item.truth, item.before, item.after), []).append(item)
    largest = sorted(kinds.values(), key=len, reverse=True)
    turns = max(map(len, largest), default=0)
    mixed = [kind[turn] for turn in range(turns) for kind in largest if turn < len(kind)]
    return tuple(mixed[:limit])
