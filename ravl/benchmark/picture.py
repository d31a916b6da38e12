"""The summary as a dot plot with intervals, written by hand as SVG: readable on light and on dark ground."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from ravl.benchmark.summary import CLEAR, OURS, Summary, interval

LEFT, PANEL, GAP, LINE, TOP, BOTTOM = 215, 130, 28, 26, 58, 34
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.small { font-size: 11px; fill: #57606a }
.head { font-weight: 600 }
.grid { stroke: #d0d7de; stroke-width: 1 }
.dot { fill: #57606a } .bar { stroke: #57606a; stroke-width: 2 }
.ours .dot { fill: #0969da } .ours .bar { stroke: #0969da } .ours text { font-weight: 600 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9198a1 } .grid { stroke: #3d444d }
  .dot { fill: #9198a1 } .bar { stroke: #9198a1 }
  .ours .dot { fill: #4493f8 } .ours .bar { stroke: #4493f8 }
}"""


@dataclass(frozen=True)
class Span:
    """A rate and its interval; NaN where there is none."""

    value: float
    low: float
    high: float


def _rate(right: int, n: int) -> Span:
    return Span(right / n, *interval(right, n)) if n else Span(math.nan, math.nan, math.nan)


PANELS: tuple[tuple[str, Callable[[Summary], Span]], ...] = (
    ("P@10", lambda s: Span(s.precision_at_10, s.precision_at_10_low, s.precision_at_10_high)),
    ("precision of flags", lambda s: _rate(s.true, s.flagged)),
    ("recall of marks", lambda s: _rate(s.found, s.learned)),
    ("false alarms", lambda s: _rate(s.alarms, s.audits_without)),
)


def picture(summaries: Sequence[Summary]) -> str:
    """One line per method, one panel per figure, each from 0 to 1; a missing figure has no dot."""
    width = LEFT + len(PANELS) * (PANEL + GAP)
    height = TOP + LINE * len(summaries) + BOTTOM
    bottom = TOP + LINE * len(summaries)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="{escape(_alternative(summaries))}">',
        f"<style>{_STYLE}</style>",
        f'<text class="small" x="10" y="18">Learned settings with V >= {CLEAR}; false alarms (fewer is better): '
        "audits with nothing to find. Bars: 95 % intervals.</text>".replace(">=", "&gt;="),
    ]
    for place, (title, _) in enumerate(PANELS):
        x = LEFT + place * (PANEL + GAP)
        parts.append(f'<text class="head" x="{x + PANEL / 2:.0f}" y="44" text-anchor="middle">{title}</text>')
        for tick in (0.0, 0.5, 1.0):
            at = x + tick * PANEL
            parts.append(f'<line class="grid" x1="{at:.0f}" y1="{TOP - 6}" x2="{at:.0f}" y2="{bottom}"/>')
            parts.append(f'<text class="small" x="{at:.0f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
    for row, summary in enumerate(summaries):
        parts += _line(summary, TOP + LINE * row + LINE // 2)
    return "\n".join([*parts, "</svg>", ""])


def _line(summary: Summary, y: int) -> list[str]:
    kind = "ours" if summary.method == OURS else "rival"
    parts = [f'<g class="{kind}">', f'<text x="10" y="{y + 4}">{escape(summary.method)}</text>']
    for place, (title, figure) in enumerate(PANELS):
        span = figure(summary)
        if math.isnan(span.value):
            continue
        x = LEFT + place * (PANEL + GAP)
        ends = [x + PANEL * value for value in (span.low, span.high)]
        tip = f"{summary.method}, {title}: {span.value:.2f} [{span.low:.2f}, {span.high:.2f}]"
        parts += [
            f'<line class="bar" x1="{ends[0]:.1f}" y1="{y}" x2="{ends[1]:.1f}" y2="{y}"/>',
            f'<circle class="dot" cx="{x + PANEL * span.value:.1f}" cy="{y}" r="4.5"><title>{escape(tip)}</title>'
            "</circle>",
        ]
    return [*parts, "</g>"]


def _alternative(summaries: Sequence[Summary]) -> str:
    """The picture in words."""
    told = [f"{s.method} {s.precision_at_10:.2f}" for s in summaries if s.settings]
    return "Mean P@10 by method: " + ", ".join(told)
