"""The summary of discovery as a dot plot."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ravl.benchmark.dotplot import Line, Span, dot_plot
from ravl.benchmark.summary import CLEAR, OURS, Summary, interval


def _rate(right: int, n: int) -> Span:
    return Span(right / n, *interval(right, n)) if n else Span(math.nan, math.nan, math.nan)


PANELS: tuple[tuple[str, Callable[[Summary], Span]], ...] = (
    ("P@10", lambda s: Span(s.precision_at_10, s.precision_at_10_low, s.precision_at_10_high)),
    ("precision of flags", lambda s: _rate(s.true, s.flagged)),
    ("recall of marks", lambda s: _rate(s.found, s.learned)),
    ("false alarms", lambda s: _rate(s.alarms, s.audits_without)),
)


def picture(summaries: Sequence[Summary]) -> str:
    """One line per method, one panel per figure."""
    lines = [Line(s.method, s.method == OURS, tuple(figure(s) for _, figure in PANELS)) for s in summaries]
    told = [f"{s.method} {s.precision_at_10:.2f}" for s in summaries if s.settings]
    return dot_plot(
        f"Learned settings with V >= {CLEAR}; false alarms (fewer is better): audits with nothing to find. "
        "Bars: 95 % intervals.",
        [title for title, _ in PANELS],
        lines,
        "Mean P@10 by method: " + ", ".join(told),
    )
