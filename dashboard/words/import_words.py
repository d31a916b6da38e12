"""Every sentence about a confirmed list of another audit that is taken over. Text is Markdown; counts come first."""

from __future__ import annotations

from collections.abc import Mapping

from dashboard.words.wording import DECISIONS, count, plain
from ravl.importing import OVERLAP, Found, Imported

PURPOSE = (
    "The JSON of another audit of the same images, such as one of a newer model. You see first what of it is found "
    "here; nothing is recorded before you say so."
)

AFTER = (
    "Each becomes a decision of yours, marked as imported and to be reviewed again: nobody has seen these regions yet."
)


def taken(found: Imported) -> int:
    """How many features would be, or were, taken over."""
    return sum(entry.outcome == "taken over" for entry in found.found)


def summary(found: Imported) -> str:
    """What of a list is found in this audit."""
    images = f"{found.common:,} of the {count(found.images, 'image')} of the list"
    n = len(found.found)
    if not n:
        return "The list holds no confirmed feature."
    which = "The only feature" if n == 1 else f"**{taken(found)} of {n} features**"
    verb = "can be taken over" if n > 1 or taken(found) else "cannot be taken over"
    return f"{which} of *{plain(found.source)}* {verb}. {images} are in this audit too."


def line(entry: Found, titles: Mapping[int, str]) -> str:
    """What becomes of one feature. titles: of the features here."""
    there = f"**{plain(entry.name or f'Feature {entry.feature}')}**, confirmed by {plain(entry.reviewer)}"
    here = "" if entry.match is None else plain(titles.get(entry.match, f"Feature {entry.match}"))
    said = {
        "taken over": f"is **{here}** here, and would be taken over",
        "decided before": f"is **{here}** here, which somebody called *{_called(entry)}* already; that stands",
        "different": f"is not found here; {here} is the nearest, and shares too little with it",
        "none": "is not found here: none of its regions is a region of this audit",
    }
    return f"{there}, {said[entry.outcome]}."


def _called(entry: Found) -> str:
    return DECISIONS.get(entry.decision, entry.decision).lower()


def counts(entry: Found) -> str:
    """The regions behind it."""
    if entry.match is None:
        return f"{count(entry.regions, 'region')} there, on images that both audits know."
    return (
        f"{count(entry.shared, 'region')} in common, of {entry.regions:,} there and {entry.others:,} here: an overlap "
        f"of {entry.overlap:.2f}. From {OVERLAP:g} on they are one feature."
    )


def recorded(found: Imported) -> str:
    """What was done."""
    n = taken(found)
    return f"Taken over: {count(n, 'decision')} of {plain(found.source)}. Review {'it' if n == 1 else 'them'} again."
