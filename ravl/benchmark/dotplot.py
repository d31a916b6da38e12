"""A dot plot with intervals, written by hand as SVG: readable on light and on dark ground."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

LEFT, PANEL, GAP, LINE, TOP, BOTTOM = 215, 130, 28, 26, 58, 34
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.small { font-size: 11px; fill: #57606a }
.head { font-weight: 600 }
.grid { stroke: #d0d7de; stroke-width: 1 }
.dot { fill: #57606a } .bar { stroke: #57606a; stroke-width: 2 }
.ring { fill: none; stroke: #57606a; stroke-width: 1.5 }
.ours .dot { fill: #0969da } .ours .bar { stroke: #0969da } .ours text { font-weight: 600 }
.ours .ring { stroke: #0969da }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9198a1 } .grid { stroke: #3d444d }
  .dot { fill: #9198a1 } .bar { stroke: #9198a1 } .ring { stroke: #9198a1 }
  .ours .dot { fill: #4493f8 } .ours .bar { stroke: #4493f8 } .ours .ring { stroke: #4493f8 }
}"""


@dataclass(frozen=True)
class Span:
    """A number in [0, 1] and its interval; NaN where there is none. ring: a second number, drawn hollow."""

    value: float
    low: float
    high: float
    ring: float = math.nan


@dataclass(frozen=True)
class Line:
    """A line of the plot, a span for every panel. ours: drawn in colour."""

    name: str
    ours: bool
    spans: tuple[Span, ...]


def dot_plot(caption: str, panels: Sequence[str], lines: Sequence[Line], alternative: str) -> str:
    """One panel per figure, each from 0 to 1; a missing figure has no dot. alternative: the plot in words."""
    width = LEFT + len(panels) * (PANEL + GAP)
    bottom = TOP + LINE * len(lines)
    height = bottom + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="{escape(alternative)}">',
        f"<style>{_STYLE}</style>",
        f'<text class="small" x="10" y="18">{escape(caption)}</text>',
    ]
    for place, title in enumerate(panels):
        x = LEFT + place * (PANEL + GAP)
        parts.append(f'<text class="head" x="{x + PANEL / 2:.0f}" y="44" text-anchor="middle">{escape(title)}</text>')
        for tick in (0.0, 0.5, 1.0):
            at = x + tick * PANEL
            parts.append(f'<line class="grid" x1="{at:.0f}" y1="{TOP - 6}" x2="{at:.0f}" y2="{bottom}"/>')
            parts.append(f'<text class="small" x="{at:.0f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
    for row, line in enumerate(lines):
        parts += _line(line, panels, TOP + LINE * row + LINE // 2)
    return "\n".join([*parts, "</svg>", ""])


def _line(line: Line, panels: Sequence[str], y: int) -> list[str]:
    parts = [f'<g class="{"ours" if line.ours else "rival"}">', f'<text x="10" y="{y + 4}">{escape(line.name)}</text>']
    for place, (title, span) in enumerate(zip(panels, line.spans, strict=True)):
        x = LEFT + place * (PANEL + GAP)
        if not math.isnan(span.ring):
            parts.append(f'<circle class="ring" cx="{_at(x, span.ring)}" cy="{y}" r="4.5"/>')
        if math.isnan(span.value):
            continue
        tip = f"{line.name}, {title}: {span.value:.2f} [{span.low:.2f}, {span.high:.2f}]"
        parts += [
            f'<line class="bar" x1="{_at(x, span.low)}" y1="{y}" x2="{_at(x, span.high)}" y2="{y}"/>',
            f'<circle class="dot" cx="{_at(x, span.value)}" cy="{y}" r="4.5"><title>{escape(tip)}</title></circle>',
        ]
    return [*parts, "</g>"]


def _at(left: float, value: float) -> str:
    return f"{left + PANEL * min(max(value, 0.0), 1.0):.1f}"
