"""What the colours of the map mean: one code per region, and a legend entry with a count per code. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dashboard.choosing.filters import Facet, facets
from dashboard.pictures.palette import Palette
from dashboard.reading.opened import Audit
from dashboard.reading.summaries import Finding

COLOURINGS = {
    "feature": "Feature",
    "class": "Class",
    "called": "Prediction",
    "right": "Right or wrong",
    "verdict": "Decision",
}
"""What the map can be coloured by."""


@dataclass(frozen=True)
class Colouring:
    """Colour code per region and what the codes mean.

    codes: (R,) uint8. entries: (name, colour, regions) per code. facet: which of the filters it is. keys: per code the
    values of that facet that share it. quiet: per code, whether it is what is left over, drawn below all others.
    """

    codes: NDArray[np.uint8]
    entries: tuple[tuple[str, str, int], ...]
    facet: str
    keys: tuple[frozenset[str], ...]
    quiet: tuple[bool, ...]


@dataclass(frozen=True)
class _Entry:
    name: str
    colour: str
    keys: frozenset[str]
    quiet: bool = False


def colouring(
    audit: Audit, by: str, rows: tuple[Finding, ...], colours: Palette, focus: int | None = None
) -> Colouring:
    """Colour all regions by one of COLOURINGS. focus: a feature that gets a colour of its own even if it ranks low.

    Groups beyond the number of distinguishable colours share one grey entry, and so does what belongs to no group.
    """
    facet = facets(audit, rows)[by]
    if by == "right":
        return _coded(facet, [_one(facet, 0, colours.right), _one(facet, 1, colours.wrong)])
    if by == "verdict":
        shades = (colours.wrong, colours.right, colours.categories[3], colours.categories[4])
        kinds = [_one(facet, place, shade) for place, shade in enumerate(shades)]
        return _coded(facet, [*kinds, _one(facet, 4, colours.muted, True), _one(facet, 5, colours.faint, True)])
    room = len(colours.categories)
    if by == "feature":
        ranked = [row.feature for row in rows]
        own = ranked[:room]
        if focus in ranked and focus not in own:
            own = [*own[: room - 1], focus]
        name = {row.feature: row.name or f"Feature {row.feature}" for row in rows}
        entries = [
            _Entry(name[feature], colours.categories[i], frozenset([str(feature)])) for i, feature in enumerate(own)
        ]
        others = _Entry("other features", colours.muted, frozenset(map(str, ranked)) - frozenset(map(str, own)), True)
        return _coded(facet, [*entries, others, _one(facet, len(ranked), colours.faint, True)])
    sizes = np.bincount(facet.code, minlength=len(facet.keys))
    most = np.sort(np.argsort(-sizes, kind="stable")[:room]).tolist()
    entries = [_one(facet, y, colours.categories[i]) for i, y in enumerate(most)]
    rest = frozenset(facet.keys) - frozenset(facet.keys[y] for y in most)
    return _coded(facet, [*entries, _Entry("other classes", colours.muted, rest, True)])


def _one(facet: Facet, place: int, colour: str, quiet: bool = False) -> _Entry:
    return _Entry(facet.labels[place], colour, frozenset([facet.keys[place]]), quiet)


def _coded(facet: Facet, entries: list[_Entry]) -> Colouring:
    """Count each entry; those without a region are dropped and the codes closed up."""
    where = {key: code for code, entry in enumerate(entries) for key in entry.keys}
    codes = np.array([where.get(key, 0) for key in facet.keys], np.int64)[facet.code]
    sizes = np.bincount(codes, minlength=len(entries))
    used = np.flatnonzero(sizes)
    new = np.zeros(len(entries), np.uint8)
    new[used] = np.arange(len(used))
    kept = [entries[i] for i in used]
    return Colouring(
        new[codes],
        tuple((entry.name, entry.colour, int(sizes[i])) for i, entry in zip(used, kept, strict=True)),
        facet.name,
        tuple(entry.keys for entry in kept),
        tuple(entry.quiet for entry in kept),
    )
