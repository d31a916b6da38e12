"""One row per setting and arm of the evaluation of repairs: what is measured, kept, and written as CSV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ravl.benchmark.arms import AUDITED, WITHOUT, Arm
from ravl.benchmark.settings import Setting


@dataclass(frozen=True)
class Measured:
    """A model on fresh scenes without correlation. overall: accuracy. worst, worst_group, worst_n: accuracy, name and
    scenes of the worst true group, class x marks. eps1, eps2: (M,) how much it relies on each mark (`reliance`).
    alone1, alone2: (M,) the same on the scenes without any other mark, where no other shortcut hides it."""

    overall: float
    worst: float
    worst_group: str
    worst_n: int
    eps1: tuple[float, ...]
    eps2: tuple[float, ...]
    alone1: tuple[float, ...]
    alone2: tuple[float, ...]


@dataclass(frozen=True)
class Found:
    """What the audit found. flagged: features; true: those that show a mark; learned: marks that the model relies on;
    found: those that a flagged feature shows."""

    flagged: int
    true: int
    learned: int
    found: int


@dataclass(frozen=True)
class Repair:
    """One arm on one setting. Lists (marks, eps1 ... alone2) have one entry per mark, joined by + in the CSV.

    flagged, true, learned, found: see `Found`. arm, kind: see `Arm`. treated: features that were treated; regions:
    training regions that show them. changed: 0 where the arm left the model as it was, since nothing was flagged.
    overall ... alone2: see `Measured`. overall_change: against the audited model. closed: share of the distance between
    the worst groups of the audited model and of the one without the shortcut; NaN where there is none.
    best_step: -1 where nothing was trained by steps. seconds: of the training.
    """

    setting: str
    world: str
    architecture: str
    marks: str
    strength: float
    seed: int
    setting_kind: str
    flagged: int
    true: int
    learned: int
    found: int
    arm: str
    kind: str
    treated: int
    regions: int
    changed: int
    overall: float
    overall_change: float
    worst: float
    worst_group: str
    worst_n: int
    closed: float
    eps1: str
    eps2: str
    alone1: str
    alone2: str
    best_step: int
    seconds: float

    @property
    def counts(self) -> bool:
        """Whether the audited model relies on a mark at all."""
        return self.learned > 0

    @property
    def discovered(self) -> bool:
        """Whether the audit found every mark that the model relies on."""
        return self.counts and self.found == self.learned

    @property
    def group(self) -> str:
        """The world, with two marks told apart."""
        return f"{self.world}, two marks" if self.setting_kind == "two marks" else self.world


def repair_of(
    setting: Setting,
    found: Found,
    arm: Arm,
    measured: Measured,
    *,
    treated: int,
    regions: int,
    changed: bool,
    best_step: int | None,
    seconds: float,
) -> Repair:
    """Put one row together; numbers are rounded as they are kept. What needs other arms follows (`related`)."""
    return Repair(
        setting=setting.id,
        world=setting.world,
        architecture=setting.architecture,
        marks="+".join(setting.marks),
        strength=setting.strength,
        seed=setting.seed,
        setting_kind=setting.kind,
        flagged=found.flagged,
        true=found.true,
        learned=found.learned,
        found=found.found,
        arm=arm.name,
        kind=arm.kind,
        treated=treated,
        regions=regions,
        changed=int(changed),
        overall=round(measured.overall, 4),
        overall_change=math.nan,
        worst=round(measured.worst, 4),
        worst_group=measured.worst_group,
        worst_n=measured.worst_n,
        closed=math.nan,
        eps1=_joined(measured.eps1),
        eps2=_joined(measured.eps2),
        alone1=_joined(measured.alone1),
        alone2=_joined(measured.alone2),
        best_step=-1 if best_step is None else best_step,
        seconds=round(seconds, 1),
    )


def related(rows: Sequence[Repair]) -> list[Repair]:
    """The rows of one setting with what compares them: the change overall, and the share of the distance closed."""
    by_arm = {row.arm: row for row in rows}
    audited, ceiling = by_arm[AUDITED], by_arm[WITHOUT]
    distance = ceiling.worst - audited.worst
    return [
        replace(
            row,
            overall_change=round(row.overall - audited.overall, 4),
            closed=round((row.worst - audited.worst) / distance, 4) if distance > 0 else math.nan,
        )
        for row in rows
    ]


def per_mark(text: str) -> list[float]:
    """The numbers of a joined column, one per mark."""
    return [float(part) for part in text.split("+")]


def _joined(values: Sequence[float]) -> str:
    return "+".join(f"{value:.4f}" for value in values)


def sorted_repairs(rows: Sequence[Repair], settings: Sequence[Setting]) -> list[Repair]:
    """Rows in the order of the settings; the rows of one setting stay in their order."""
    place: dict[str, Any] = {setting.id: i for i, setting in enumerate(settings)}
    return sorted(rows, key=lambda row: place[row.setting])
