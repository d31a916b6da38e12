"""Repairs added up: per arm over all settings, where the audit found the mark, by world and by strength; and the goals.

Settings whose model does not rely on its mark do not count. "all" is what a user gets who trusts the audit whether it
finds something or not; "found" is the repair alone, in the settings where every mark was found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ravl.benchmark.arms import AUDITED, OURS, PAPER, WITHOUT, alone
from ravl.benchmark.repairs import Repair, per_mark
from ravl.benchmark.summary import Goal, bootstrap

SCOPES = ("all", "found")
"""Of the goals; see above."""


@dataclass(frozen=True)
class Gain:
    """One arm over a group of settings.

    by, value: which settings: ("all", ""), ("found", ""), ("world", "digits") or ("V", "0.90"). settings: how many.
    worst, overall, eps1, eps2: means over settings (eps: of their sizes, also over marks), each with the ends of its
    95 % bootstrap interval over settings. closed: of the distance between the mean worst groups of the audited model
    and of the model without the shortcut; closed_least: that of the setting with the least. overall_change,
    overall_fall: mean change against the audited model, and the change in the setting where it is lowest. eps1_shrunk,
    eps2_shrunk: share by which the mean fell. changed: settings in which the arm changed the model. seconds: median of
    the trainings. Undefined numbers are NaN.
    """

    arm: str
    kind: str
    by: str
    value: str
    settings: int
    changed: int
    worst: float
    worst_low: float
    worst_high: float
    closed: float
    closed_least: float
    overall: float
    overall_low: float
    overall_high: float
    overall_change: float
    overall_fall: float
    eps1: float
    eps1_low: float
    eps1_high: float
    eps1_shrunk: float
    eps2: float
    eps2_low: float
    eps2_high: float
    eps2_shrunk: float
    seconds: float


Belongs = Callable[[Repair], bool]


def gains(rows: Sequence[Repair]) -> list[Gain]:
    """All groups of all arms; the arms in the order of the rows."""
    rows = [row for row in rows if row.counts]
    groups: list[tuple[str, str, Belongs]] = [(scope, "", in_scope(scope)) for scope in SCOPES]
    groups += [("world", world, _of_group(world)) for world in dict.fromkeys(row.group for row in rows)]
    groups += [("V", f"{v:.2f}", _of_strength(v)) for v in sorted({row.strength for row in rows})]
    arms = list(dict.fromkeys((row.arm, row.kind) for row in rows))
    arms.sort(key=lambda arm: arm[1] == "one mark")  # not in all settings: last
    return [
        _added_up([row for row in rows if belongs(row)], *arm, by, value)
        for by, value, belongs in groups
        for arm in arms
        if any(row.arm == arm[0] and belongs(row) for row in rows)
    ]


def in_scope(scope: str) -> Belongs:
    """Whether a row belongs to one of SCOPES."""
    return lambda row: row.counts and (scope == "all" or row.discovered)


def _of_group(group: str) -> Belongs:
    return lambda row: row.group == group


def _of_strength(strength: float) -> Belongs:
    return lambda row: row.strength == strength


def _added_up(rows: Sequence[Repair], arm: str, kind: str, by: str, value: str) -> Gain:
    own = [row for row in rows if row.arm == arm]
    settings = {row.setting for row in own}
    audited = [row for row in rows if row.arm == AUDITED and row.setting in settings]
    ceiling = [row for row in rows if row.arm == WITHOUT and row.setting in settings]
    spans: dict[str, float] = {}
    for name, values in (
        ("worst", [row.worst for row in own]),
        ("overall", [row.overall for row in own]),
        ("eps1", [eps(row, "eps1") for row in own]),
        ("eps2", [eps(row, "eps2") for row in own]),
    ):
        low, high = bootstrap(np.array(values))
        spans |= {name: _mean(values), f"{name}_low": low, f"{name}_high": high}
    before = _mean([row.worst for row in audited])
    distance = _mean([row.worst for row in ceiling]) - before
    return Gain(
        arm=arm,
        kind=kind,
        by=by,
        value=value,
        settings=len(own),
        changed=sum(row.changed for row in own),
        closed=(spans["worst"] - before) / distance if distance > 0 else math.nan,
        closed_least=min((row.closed for row in own if not math.isnan(row.closed)), default=math.nan),
        overall_change=_mean([row.overall_change for row in own]),
        overall_fall=min((row.overall_change for row in own), default=math.nan),
        eps1_shrunk=_shrunk([eps(row, "eps1") for row in audited], spans["eps1"]),
        eps2_shrunk=_shrunk([eps(row, "eps2") for row in audited], spans["eps2"]),
        seconds=float(np.median([row.seconds for row in own])) if own else math.nan,
        **spans,
    )


def eps(row: Repair, name: str) -> float:
    """The mean size of eps1 or eps2 over the marks: a mark that harms its own class (eps1 < 0) is relied on too."""
    return _mean([abs(value) for value in per_mark(getattr(row, name))])


def _shrunk(before: Sequence[float], after: float) -> float:
    """The share by which a mean fell."""
    mean = _mean(before)
    return 1 - after / mean if mean > 0 else math.nan


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


# --- goals ----------------------------------------------------------------------------------------------------------


def goals(rows: Sequence[Repair], scope: str) -> list[Goal]:
    """The goals of the full run, measured on one of SCOPES."""
    rows = [row for row in rows if in_scope(scope)(row)]
    of = {(g.by, g.value, g.arm): g for g in gains(rows)}
    ours = of.get(("all", "", OURS))
    if ours is None:
        return []
    near = f"settings: {ours.settings}, least {ours.closed_least:.2f}"
    return [
        Goal(
            "share of the distance to the model without the shortcut that is closed >= 0.90",
            f"{ours.closed:.3f} ({near})",
            ours.closed >= 0.9,
        ),
        *_against_paper(of),
        _against_baselines(of),
        Goal(
            "overall accuracy falls in no setting by more than 0.005",
            f"largest fall {max(0.0, -ours.overall_fall):.4f}, mean change {ours.overall_change:+.3f}",
            ours.overall_fall >= -0.005,
        ),
        *(
            Goal(f"{name} shrinks by >= 80 %", f"{100 * share:.0f} % (to {left:.3f})", share >= 0.8)
            for name, share, left in (("eps1", ours.eps1_shrunk, ours.eps1), ("eps2", ours.eps2_shrunk, ours.eps2))
        ),
        *_two_marks(rows),
    ]


def _against_paper(of: dict[tuple[str, str, str], Gain]) -> list[Goal]:
    ours, paper = of["all", "", OURS], of.get(("all", "", PAPER))
    if paper is None:
        return []
    worlds = [value for by, value, arm in of if by == "world" and arm == PAPER]
    by_world = {w: of["world", w, OURS].worst - of["world", w, PAPER].worst for w in worlds}
    told = ", ".join(f"{world} {difference:+.3f}" for world, difference in by_world.items())
    mean = ours.worst - paper.worst
    return [
        Goal("worst group, mean above the paper's loss >= 0.05", f"{mean:+.3f}", mean >= 0.05),
        Goal("worst group below the paper's loss in no world", told, min(by_world.values()) >= 0),
    ]


def _against_baselines(of: dict[tuple[str, str, str], Gain]) -> Goal:
    text = "worst group above every method that does not know the true groups"
    ours = of["all", "", OURS].worst
    rivals = {g.arm: g.worst for g in of.values() if (g.by, g.kind) == ("all", "baseline")}
    if not rivals:
        return Goal(text, "", None)
    best = max(rivals, key=lambda name: rivals[name])
    return Goal(
        text, f"{ours:.3f}, the best of {len(rivals)} others is {best}, {rivals[best]:.3f}", ours > rivals[best]
    )


def _two_marks(rows: Sequence[Repair]) -> list[Goal]:
    """What treating one of two marks does to the other, and whether treating both cures both.

    A mark that is cured no longer hides the other: where both are there, the other is free to do harm, which raises its
    eps although the model relies on it no more than before. So the rise is also told on images without the cured mark.
    """
    two = [row for row in rows if row.setting_kind == "two marks"]
    before = {row.setting: row for row in two if row.arm == AUDITED}
    text = "treating one of two marks raises no eps of the other by more than 0.02"
    goals_of_one = [
        _untouched(text, two, before, ("eps1", "eps2")),
        _untouched(f"{text}, in images without the treated mark", two, before, ("alone1", "alone2")),
    ]
    text = "treating both marks shrinks eps1 and eps2 of both by >= 80 %"
    treated = [row for row in two if row.arm == OURS]
    if not treated:
        return [*goals_of_one, Goal(text, "", None)]
    shrunk = [
        _shrunk(
            [abs(per_mark(getattr(before[row.setting], name))[m]) for row in treated],
            _mean([abs(per_mark(getattr(row, name))[m]) for row in treated]),
        )
        for name in ("eps1", "eps2")
        for m in range(len(treated[0].marks.split("+")))
    ]
    told = ", ".join(f"{100 * share:.0f} %" for share in shrunk)
    return [
        *goals_of_one,
        Goal(text, f"eps1, then eps2: {told} (settings: {len(treated)})", min(shrunk) >= 0.8),
    ]


def _untouched(text: str, two: Sequence[Repair], before: dict[str, Repair], names: Sequence[str]) -> Goal:
    """How much the reliance on a mark rose where another one was treated."""
    rises = [
        per_mark(getattr(row, name))[other] - per_mark(getattr(before[row.setting], name))[other]
        for row in two
        if row.kind == "one mark" and row.changed
        for name in names
        for other, mark in enumerate(row.marks.split("+"))
        if row.arm != alone(mark)
    ]
    if not rises:
        return Goal(text, "", None)
    return Goal(text, f"largest {max(rises):+.3f}, mean {_mean(rises):+.3f}, of {len(rises)}", max(rises) <= 0.02)
