"""The parts that tables share: a frame, a rate with its count, a change with its interval, a scale; as HTML.

Text of users is escaped here, except in cells, heads and bodies: those are HTML already.
"""

from __future__ import annotations

import math

from dashboard.reading.opened import Interval, Rate
from dashboard.words.claims import span
from dashboard.words.wording import escaped, percent, points


def table(caption: str, head: str, body: str, kind: str = "wide-4") -> str:
    """A real table for screen readers, in a frame that scrolls. head, body: HTML. kind: class of its widths."""
    top = f"<thead><tr>{head}</tr></thead>" if head else ""
    spoken = escaped(caption)
    return (
        f'<div class="ravl-scroll" tabindex="0" role="region" aria-label="{spoken}">'
        f'<table class="ravl-table {kind}"><caption>{spoken}</caption>'
        f"{top}<tbody>{body}</tbody></table></div>"
    )


def head(*cells: str) -> str:
    """Heads of columns. cells: HTML."""
    return "".join(f"<th scope='col'>{cell}</th>" for cell in cells)


def rate_cell(value: Rate) -> str:
    """A rate and the counts that it comes from."""
    return (
        f"<b>{percent(value.share)}</b> <small>{value.right:,} of {value.n:,}</small>"
        if value.n
        else "<small>no images</small>"
    )


def change_cell(change: Interval, missing: str) -> str:
    """A change of a rate in points, with its interval. missing: why there may be none."""
    if math.isnan(change.value):
        return f'<small title="{escaped(missing)}">–</small>'
    amount, unit = points(change.value).split(" ")
    return f"<b>{amount}</b> <small>{unit}</small> <small class='span'>{span(change)}</small>"


def scale(first: Rate, second: Rate, colours: tuple[str, str], labels: tuple[str, str]) -> str:
    """A line from 0 to 100% with a hollow mark for the first rate and a full one for the second."""
    spoken = f"{labels[0]} {percent(first.share)}, {labels[1]} {percent(second.share)}"
    marks = ""
    shares = [(rate.share, colour) for rate, colour in zip((first, second), colours, strict=True)]
    if all(rate.n for rate in (first, second)):
        low, high = sorted(100 * share for share, _ in shares)
        marks += f'<i style="left:{low:.1f}%;width:{high - low:.1f}%;background:{colours[1]}"></i>'
    for (share, colour), hollow in zip(shares, (True, False), strict=True):
        if not math.isnan(share):
            fill = "var(--ravl-ground, transparent)" if hollow else colour
            marks += f'<em style="left:{100 * share:.1f}%;border-color:{colour};background:{fill}"></em>'
    return f'<span class="scale" role="img" aria-label="{escaped(spoken)}"><span>{marks}</span></span>'


def legend_pair(colours: tuple[str, str], labels: tuple[str, str]) -> str:
    """What the two marks of a `scale` mean."""
    hollow = f'<em class="key" style="border-color:{colours[0]}"></em>{escaped(labels[0])}'
    full = f'<em class="key" style="border-color:{colours[1]};background:{colours[1]}"></em>{escaped(labels[1])}'
    return f"{hollow} &nbsp; {full}"


def bar(value: Rate, colour: str) -> str:
    """A bar as long as a rate; for the eye alone, the number stands beside it."""
    width = 0.0 if math.isnan(value.share) else 100 * value.share
    return f'<span class="bar" aria-hidden="true"><i style="width:{width:.1f}%;background:{colour}"></i></span>'


def tag(text: str) -> str:
    """A remark behind a name."""
    return f' <span class="tag">{escaped(text)}</span>'
