"""Before and after a fine-tuning: what the Repair page shows, from the group accuracies of both models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboard.reading.opened import Rate
from ravl.evaluation import MIN_COUNT
from ravl.tables import GroupAccuracy

KINDS = ("overall", "class", "group", "feature")


@dataclass(frozen=True)
class Change:
    """One group under both models, on the same images. change: in [-1, 1], NaN without images."""

    name: str
    kind: str
    before: Rate
    after: Rate

    @property
    def change(self) -> float:
        return self.after.share - self.before.share


@dataclass(frozen=True)
class Comparison:
    """Everything a fine-tuning changed.

    overall: all test images. worst_before, worst_after: the worst group of either model, and what the other one does
    there; None without groups. classes, features, groups: what got worse first. worse: all rows of those three
    whose accuracy fell, the largest fall first.
    """

    overall: Change
    worst_before: Change | None
    worst_after: Change | None
    classes: tuple[Change, ...]
    features: tuple[Change, ...]
    groups: tuple[Change, ...]
    worse: tuple[Change, ...]


def compare(before: GroupAccuracy, after: GroupAccuracy) -> Comparison:
    """Put two evaluations side by side. Raises ValueError when they are not about the same groups."""
    if list(before.name) != list(after.name) or not np.array_equal(before.n, after.n):
        raise ValueError("before and after must be evaluations of the same groups, got different names or counts.")
    rows = [
        Change(
            str(before.name[i]),
            str(before.kind[i]),
            Rate(int(before.right[i]), int(before.n[i])),
            Rate(int(after.right[i]), int(after.n[i])),
        )
        for i in range(len(before.name))
    ]
    by_kind = {kind: tuple(sorted((row for row in rows if row.kind == kind), key=_fall)) for kind in KINDS}
    worst = [evaluation.worst(MIN_COUNT) for evaluation in (before, after)]
    fallen = [row for kind in KINDS[1:] for row in by_kind[kind] if row.change < 0]
    return Comparison(
        overall=next(iter(by_kind["overall"]), Change("overall", "overall", Rate(0, 0), Rate(0, 0))),
        worst_before=None if worst[0] is None else rows[worst[0]],
        worst_after=None if worst[1] is None else rows[worst[1]],
        classes=by_kind["class"],
        features=by_kind["feature"],
        groups=by_kind["group"],
        worse=tuple(sorted(fallen, key=_fall)),
    )


def _fall(row: Change) -> tuple[bool, float]:
    return math.isnan(row.change), row.change if not math.isnan(row.change) else 0.0


@dataclass(frozen=True)
class Curve:
    """One line of a chart: its name and its points; steps rise."""

    name: str
    steps: tuple[float, ...]
    values: tuple[float, ...]


LOSSES = {
    "total": "total",
    "loss": "total",
    "contrastive": "contrastive",
    "relevant": "relevant regions (L_R)",
    "spurious": "spurious regions (L_A)",
}
ACCURACIES = {"overall": "overall", "worst_group": "worst group"}

MAX_STEPS = 600
"""Points per line; more are thinned out evenly, and the last one is kept."""


def curves(log: list[dict[str, Any]], names: dict[str, str]) -> tuple[Curve, ...]:
    """The lines of a training log for the given keys; absent keys give none, NaN and null points are left out."""
    found = []
    for key, name in names.items():
        points = [(float(row["step"]), float(row[key])) for row in log if row.get(key) is not None and "step" in row]
        points = [point for point in points if not math.isnan(point[1])]
        if points:
            stride = -(-len(points) // MAX_STEPS)
            thin = [*points[:-1:stride], points[-1]]
            found.append(Curve(name, tuple(step for step, _ in thin), tuple(value for _, value in thin)))
    return tuple(found)
