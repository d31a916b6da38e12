"""Every sentence of the map. Text is Markdown unless it says otherwise; counts come first."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dashboard.choosing.filters import Facet, Filters, allowed
from dashboard.reading.selection import Chosen
from dashboard.reading.summaries import Finding
from dashboard.words.wording import DECISIONS, count, plain, selection_features, title

PURPOSE = "Every region is a point; regions that look alike lie together. Draw around some to see them."


def how_to_select(features: bool) -> str:
    """Said while nothing is selected. features: whether there are any to choose from."""
    return (
        "**Nothing is selected.** Draw around points on the map to see their crops here"
        f"{', or choose a feature' if features else ''}."
    )


def drawn(shown: int, total: int) -> str:
    """What is said where not all regions are drawn."""
    return (
        f"{shown:,} of {total:,} regions are drawn, with the share of every feature kept; counts and crops of a "
        "selection are over all of them."
    )


def inside(chosen: Chosen, filtered: bool) -> str:
    """`412 regions, 97 images, 61 wrong`, or why there are none."""
    if not chosen.regions:
        return "No region lies inside" + (" and matches the filters." if filtered else ". Draw around some points.")
    return f"**{count(chosen.regions, 'region')}, {count(chosen.images, 'image')}, {chosen.wrong:,} wrong**"


def spoken(text: str) -> str:
    """The same without Markdown, for a screen reader. Plain text."""
    return text.replace("**", "")


def made_of(chosen: Chosen, rows: tuple[Finding, ...]) -> str:
    """What a selection is made of."""
    return selection_features(chosen, rows)


def rules(found: Mapping[str, Facet], filters: Filters, shown: int, total: int, limit: int = 4) -> str:
    """Which filters hold, in words, and how many regions they leave; empty without filters."""
    parts = []
    for name in filters.active:
        facet = found[name]
        kept = allowed(facet, filters)
        few = np.flatnonzero(kept if kept.sum() <= (~kept).sum() else ~kept)
        which = ", ".join(f"*{plain(facet.labels[i])}*" for i in few[:limit])
        which += f" and {len(few) - limit} more" if len(few) > limit else ""
        word = "only" if kept.sum() <= (~kept).sum() else "without"
        parts.append(f"{facet.title.lower()}: {word} {which or 'none'}")
    return f"**{shown:,} of {count(total, 'region')}** – {'; '.join(parts)}." if parts else ""


def option(facet: Facet, counts: NDArray[np.int64], key: str) -> str:
    """A value of a filter with the regions it would show. Plain text."""
    place = facet.keys.index(key)
    return f"{facet.labels[place]} ({counts[place]:,})"


# --- a feature of the selection --------------------------------------------------------------------------------------

WHAT_IT_DOES = (
    "The regions leave the features they are in and become one of their own. It is scored, tested and removed like any "
    "other, and joins the list; the tests assume that you chose it by its looks. All other features keep their numbers "
    "and decisions."
)

NO_NAME = "Say what it shows first."
NO_REVIEWER = "Give your name first: a feature is kept together with who made it."
BUSY = "One job runs at a time on this machine; wait for the running one."


def outcome(titles: list[str]) -> str:
    """Why a selection that a filter on outcomes shaped cannot become a feature."""
    return (
        f"Take the filter on {' and '.join(titles).lower()} away first: among regions chosen by what the model answered"
        ", a feature looks harmful whatever it shows."
    )


def losses(chosen: Chosen, rows: tuple[Finding, ...], limit: int = 3) -> str:
    """Which features lose regions to the new one; empty where none does."""
    by_id = {row.feature: row for row in rows}
    parts = []
    for feature, n in chosen.features:
        row = by_id.get(feature)
        if row is None:
            continue
        share = "all" if n == row.n_regions else f"{n:,} of"
        verdict = f", decided as {DECISIONS[row.decision].lower()}" if row.decision else ""
        parts.append(f"{share} {row.n_regions:,} regions of {plain(title(row))}{verdict}")
    more = len(parts) - limit
    rest = f"; and from {count(more, 'more feature')}" if more > 0 else ""
    return f"It takes {'; '.join(parts[:limit])}{rest}." if parts else ""


def made(name: str, feature: int) -> str:
    """That a feature was made."""
    return f"**{plain(name)}** is now feature {feature}, with scores and evidence."


def job_title(name: str, run: str) -> str:
    """What the job is called. Plain text."""
    return f"New feature “{name}” of {run}"
