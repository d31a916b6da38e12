"""Tables and galleries of the Repair page as HTML. All text of users is escaped here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dashboard.pictures.cells import change_cell, head, legend_pair, rate_cell, scale, table, tag
from dashboard.pictures.palette import Palette
from dashboard.reading.opened import Rate
from dashboard.reading.repaired import Again, Estimate, Moved, Pull, TreatedFeature
from dashboard.words.claims import probability, span
from dashboard.words.repair_words import STATUS, again_title, estimate_span, treated_title
from dashboard.words.wording import escaped

CSS = """
.ravl-changed { display: grid; grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)); gap: 12px; }
.ravl-changed figure { margin: 0; min-width: 0; }
.ravl-changed .pair { grid-template-columns: 1fr; }
.ravl-changed figcaption { font-size: 13px; line-height: 1.35; padding: 3px 2px 0; overflow-wrap: anywhere; }
.ravl-changed figcaption small { display: block; font-size: 12px; opacity: .72; }
.ravl-grew th, .ravl-grew b { font-weight: 600; }
"""


def moved_table(rows: Sequence[tuple[str, Moved]], palette: Palette, caption: str) -> str:
    """Accuracy per group before and after, with the interval of the change. Each row with a remark, or an empty one."""
    colours, labels = (palette.muted, palette.accent), ("before", "after")
    body = "".join(
        f"<tr><th scope='row'>{escaped(row.name)}{_remark(said)}</th>"
        f"<td>{estimate_cell(row.before)}</td><td>{estimate_cell(row.after)}</td>"
        f"<td>{scale(row.before.rate, row.after.rate, colours, labels)}</td>"
        f"<td>{change_cell(row.change, 'no images')}</td></tr>"
        for said, row in rows
    )
    columns = ("Images", "Right before", "Right after", legend_pair(colours, labels), "Change, interval")
    return table(caption, head(*columns), body)


def treated_table(rows: Sequence[TreatedFeature]) -> str:
    """What became of the treated features on the test images."""
    body = "".join(
        f"<tr><th scope='row'>{escaped(treated_title(row))}</th>"
        f"<td>{estimate_cell(row.fixed)}</td><td>{estimate_cell(row.broken)}</td>"
        f"<td>{_pull(row, row.before)}</td><td>{_pull(row, row.after)}</td></tr>"
        for row in rows
    )
    columns = ("Feature", "Errors with it, right now", "Right answers lost", "Called its class before", "and after")
    return table("Treated features on the test images", head(*columns), body, "plain")


def _pull(row: TreatedFeature, pull: Pull | None) -> str:
    """Images of other classes that are called the feature's class."""
    if pull is None:
        return "<small>pulls to no class</small>"
    name = escaped(row.pull)
    parts = (("with it", pull.with_it), ("without", pull.without))
    lines = "".join(f"<div><small>{side}:</small> {rate_cell(value.rate)}</div>" for side, value in parts)
    return f"<div><small>others called <i>{name}</i></small></div>{lines}"


def again_table(rows: Sequence[Again], caption: str) -> str:
    """Every feature in the audits of both models, what grew first."""
    body = "".join(_again(row) for row in rows)
    columns = ("Feature", "What became of it", "Errors decided before", "and now", "Change, interval")
    return table(caption, head(*columns, "Go when removed: before, now", "Flagged: before, now"), body, "plain")


def _again(row: Again) -> str:
    was, now = row.errors.before.rate, row.errors.after.rate
    removal = ", ".join(_short(value) for value in (row.fixed_before, row.fixed_after))
    flags = ", ".join("yes" if flagged else "no" for flagged in (row.flagged_before, row.flagged_after))
    treated = tag("treated") if row.treated else ""
    return (
        f"<tr{' class=ravl-grew' if row.worse else ''}><th scope='row'>{escaped(again_title(row))}{treated}</th>"
        f"<td><b>{STATUS[row.status]}</b> <small>{escaped(_where(row))}</small></td>"
        f"<td>{_count(was)}</td><td>{_count(now)}</td>"
        f"<td><small>{span(row.errors.change)}{_q(row.q)}</small></td>"
        f"<td>{removal}</td><td>{flags}</td></tr>"
    )


def _q(value: float) -> str:
    return "" if math.isnan(value) else f", q {escaped(probability(value))}"


def _where(row: Again) -> str:
    """Its ids in both audits, or what it is part of. Plain text."""
    if row.before is not None and row.after is not None:
        return f"feature {row.after} of the new audit"
    other = "this audit" if row.before is None else "the new one"
    if row.part_of is not None:
        return (
            f"now part of feature {row.part_of} of {other}" if row.before is not None else f"was part of {row.part_of}"
        )
    return "" if row.before is None else "forms no feature any more"


def estimate_cell(value: Estimate) -> str:
    """A rate, its count, and its interval below."""
    limits = estimate_span(value)
    return rate_cell(value.rate) + (f"<small class='span'>{limits}</small>" if limits else "")


def _count(value: Rate) -> str:
    return f"<b>{value.right:,}</b> <small>of {value.n:,}</small>"


def _short(value: Rate | None) -> str:
    return "<small>not tested</small>" if value is None else f"{value.right:,} of {value.n:,}"


def _remark(text: str) -> str:
    return f" <small class='span'>{escaped(text)}</small>" if text else ""


# --- images that changed ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Thumbnail:
    """One image: its picture as a data URI (None: `missing` says why), what it shows, and what both models call it."""

    key: int
    picture: str | None
    alt: str
    truth: str
    before: str
    after: str
    right_now: bool
    missing: str = ""


def changed_html(items: Sequence[Thumbnail]) -> str:
    """A grid of pictures with truth and both answers; a click on one carries its `data-key`."""
    return f'<style>{CSS}</style><div class="ravl-changed">{"".join(map(_thumbnail, items))}</div>'


def _thumbnail(item: Thumbnail) -> str:
    alt = escaped(item.alt)
    if item.picture is None:
        gone = f'<span class="gone" role="img" aria-label="{alt}">{escaped(item.missing)}</span>'
        shown = f'<div class="pair">{gone}</div>'
    else:
        picture = f'<img src="{item.picture}" alt="{alt}" loading="lazy">'
        shown = (
            f'<button type="button" class="pair" data-key="{item.key}" aria-label="Enlarge: {alt}">{picture}</button>'
        )
    was, now = ("✗", "✓") if item.right_now else ("✓", "✗")
    answers = (
        f'<span class="mark" aria-hidden="true">{was}</span> {escaped(item.before)} → '
        f'<span class="mark" aria-hidden="true">{now}</span> {escaped(item.after)}'
    )
    return f"<figure>{shown}<figcaption>{answers}<small>is {escaped(item.truth)}</small></figcaption></figure>"
