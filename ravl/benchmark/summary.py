"""Rows added up: per method over all settings, by strength and by world, with intervals, and against the goals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ravl.benchmark.rows import Row
from ravl.discovery.significance import wilson

OURS = "ours, with evidence"
CLEAR = 0.8
"""The goals are about strengths V from here on."""

Belongs = Callable[[Row], bool]


@dataclass(frozen=True)
class Summary:
    """One method over a group of settings.

    by, value: which settings: ("V >= 0.8", ""), ("all", ""), ("V", "0.90") or ("world", "digits").
    settings: that count, because a local shortcut was learned. precision_at_10: mean over these, low and high its 95 %
    bootstrap interval over settings; NaN where there is none. precision_at_50: mean. flagged, true, learned, found,
    shown, covered, pull_right: sums over these (see `Figures`). audits_without: audits with nothing to find; alarms:
    those of them with a flag; false_flags: flags in them. seconds: median of the method.
    """

    method: str
    space: str
    by: str
    value: str
    settings: int
    precision_at_10: float
    precision_at_10_low: float
    precision_at_10_high: float
    precision_at_50: float
    flagged: int
    true: int
    learned: int
    found: int
    shown: int
    covered: int
    pull_right: int
    audits_without: int
    alarms: int
    false_flags: int
    seconds: float

    @property
    def precision(self) -> float:
        """Share of the flagged features that are true; NaN where nothing is flagged."""
        return self.true / self.flagged if self.flagged else math.nan

    @property
    def recall(self) -> float:
        """Share of the learned marks that a true flagged feature shows."""
        return self.found / self.learned if self.learned else math.nan

    @property
    def region_recall(self) -> float:
        """Share of the regions (images) with a learned mark that lie in a true flagged feature."""
        return self.covered / self.shown if self.shown else math.nan

    @property
    def pull(self) -> float:
        """Share of the true flagged features whose pull class is right."""
        return self.pull_right / self.true if self.true else math.nan


@dataclass(frozen=True)
class Goal:
    """One goal of the evaluation. met: None where nothing was measured that could tell."""

    text: str
    measured: str
    met: bool | None


def summarise(rows: Sequence[Row]) -> list[Summary]:
    """All groups of all methods; methods in the order of the rows, the goals' group first."""
    groups: list[tuple[str, str, Belongs]] = [
        (f"V >= {CLEAR}", "", lambda row: row.strength >= CLEAR or row.without),
        ("all", "", lambda row: True),
    ]
    groups += [("V", f"{v:.2f}", _of_strength(v)) for v in sorted({row.strength for row in rows if not row.without})]
    groups += [("world", world, _of_world(world)) for world in dict.fromkeys(row.world for row in rows)]
    pairs = dict.fromkeys((row.method, row.space) for row in rows)
    return [
        _added_up([row for row in rows if (row.method, row.space) == pair and belongs(row)], *pair, by, value)
        for by, value, belongs in groups
        for pair in pairs
    ]


def _of_strength(strength: float) -> Belongs:
    return lambda row: row.strength == strength and not row.without


def _of_world(world: str) -> Belongs:
    return lambda row: row.world == world


def _added_up(rows: Sequence[Row], method: str, space: str, by: str, value: str) -> Summary:
    counted = [row for row in rows if row.counts]
    without = [row for row in rows if row.without]
    sums = {
        name: sum(int(getattr(row, name)) for row in counted)
        for name in ("flagged", "true", "learned", "found", "shown", "covered", "pull_right")
    }
    first = np.array([row.precision_at_10 for row in counted])
    low, high = bootstrap(first)
    return Summary(
        method,
        space,
        by,
        value,
        settings=len(counted),
        precision_at_10=_mean(first),
        precision_at_10_low=low,
        precision_at_10_high=high,
        precision_at_50=_mean(np.array([row.precision_at_50 for row in counted])),
        **sums,
        audits_without=len(without),
        alarms=sum(row.flagged > 0 for row in without),
        false_flags=sum(row.flagged for row in without),
        seconds=float(np.median([row.seconds for row in rows])) if rows else math.nan,
    )


def _mean(values: Any) -> float:
    return float(values.mean()) if len(values) else math.nan


def bootstrap(values: Any, draws: int = 2000) -> tuple[float, float]:
    """95 % percentile interval of the mean; settings are drawn with replacement, always in the same way."""
    if not len(values):
        return math.nan, math.nan
    drawn = np.random.default_rng(0).integers(len(values), size=(draws, len(values)))
    low, high = np.percentile(values[drawn].mean(1), [2.5, 97.5])
    return float(low), float(high)


def interval(right: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a rate; (0, 1) without observations."""
    if not n:
        return 0.0, 1.0
    low, high = wilson(np.array(right), np.array(n), 0.95)
    return float(low), float(high)


def goals(summaries: Sequence[Summary]) -> list[Goal]:
    """The goals of the full run, for the method with evidence, clustered as by default."""
    ours = {(s.by, s.value): s for s in summaries if (s.method, s.space) == (OURS, "auto")}
    if not ours:
        return []
    clear, everything = ours[f"V >= {CLEAR}", ""], ours["all", ""]
    alarms = f"{everything.alarms} of {everything.audits_without} audits"

    def rate(text: str, value: float, right: int, n: int, least: float) -> Goal:
        goal = f"{text} >= {least:.2f}"
        return Goal(goal, f"{value:.4f} ({right} of {n})", value >= least) if n else Goal(goal, "", None)

    first = clear.precision_at_10
    return [
        Goal(
            f"mean P@10 >= 0.95 (V >= {CLEAR}, learned)",
            f"{first:.3f} (over {clear.settings} settings)" if clear.settings else "",
            first >= 0.95 if clear.settings else None,
        ),
        rate(
            "precision of flagged features (learned)", everything.precision, everything.true, everything.flagged, 0.98
        ),
        rate(f"recall of learned marks (V >= {CLEAR})", clear.recall, clear.found, clear.learned, 0.90),
        rate("pull class right (learned)", everything.pull, everything.pull_right, everything.true, 0.95),
        Goal(
            "no false alarm in >= 30 audits with V = 0 or a global shortcut",
            alarms,
            everything.alarms == 0 if everything.audits_without >= 30 else None,
        ),
    ]
