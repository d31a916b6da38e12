"""What the colours of the map mean: one code per region, and a legend entry with a count per code. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboard.opened import Audit
from dashboard.palette import Palette
from dashboard.summaries import Finding
from dashboard.wording import DECISIONS

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
    """Colour code per region and what the codes mean. codes: (R,) uint8. entries: (name, colour, regions) per code."""

    codes: NDArray[np.uint8]
    entries: tuple[tuple[str, str, int], ...]


def colouring(
    audit: Audit, by: str, rows: tuple[Finding, ...], colours: Palette, focus: int | None = None
) -> Colouring:
    """Colour all regions by one of COLOURINGS. focus: a feature that gets a colour of its own even if it ranks low.

    Groups beyond the number of distinguishable colours share one grey entry, and so does what belongs to no group.
    """
    image = audit.regions.image
    if by == "right":
        right = audit.zero_shot.correct[image]
        return _coded(
            np.where(right, 0, 1),
            (("image classified right", colours.right), ("image classified wrong", colours.wrong)),
        )
    if by == "verdict":
        return _by_verdict(audit, rows, colours)
    if by == "feature":
        return _by_feature(audit, rows, colours, focus)
    classes = audit.zero_shot.label[image] if by == "class" else audit.zero_shot.predicted[image]
    return _by_class(audit, classes, colours)


def _by_class(audit: Audit, classes: NDArray[np.integer[Any]], colours: Palette) -> Colouring:
    sizes = np.bincount(classes, minlength=len(audit.class_names))
    own = np.sort(np.argsort(-sizes, kind="stable")[: len(colours.categories)])
    entries = [(audit.class_names[y], colours.categories[i]) for i, y in enumerate(own)]
    return _coded(_codes(classes, own.tolist()), (*entries, ("other classes", colours.muted)))


def _by_feature(audit: Audit, rows: tuple[Finding, ...], colours: Palette, focus: int | None) -> Colouring:
    ranked = [row.feature for row in rows]
    room = len(colours.categories)
    own = ranked[:room]
    if focus in ranked and focus not in own:
        own = [*own[: room - 1], focus]
    name = {row.feature: row.name or f"Feature {row.feature}" for row in rows}
    entries = [(name[feature], colours.categories[i]) for i, feature in enumerate(own)]
    label = audit.feature_of
    codes = np.where(label < 0, len(own) + 1, _codes(label, own))
    return _coded(codes, (*entries, ("other features", colours.muted), ("no feature", colours.faint)))


def _by_verdict(audit: Audit, rows: tuple[Finding, ...], colours: Palette) -> Colouring:
    kinds = ("spurious", "core", "mixed", "unsure")
    shades = (colours.wrong, colours.right, colours.categories[3], colours.categories[4])
    decided = [(row.feature, kinds.index(row.decision)) for row in rows if row.decision in kinds]
    label = audit.feature_of
    codes = np.where(label < 0, len(kinds) + 1, len(kinds))
    for feature, code in decided:
        codes[label == feature] = code
    entries = [(DECISIONS[kind], shade) for kind, shade in zip(kinds, shades, strict=True)]
    return _coded(codes, (*entries, ("not decided", colours.muted), ("no feature", colours.faint)))


def _codes(value: NDArray[np.integer[Any]], own: list[int]) -> NDArray[np.int64]:
    """(N,) the place of each value in `own`; len(own) for any other."""
    codes = np.full(len(value), len(own))
    for code, group in enumerate(own):
        codes[value == group] = code
    return codes


def _coded(codes: NDArray[np.integer[Any]], entries: tuple[tuple[str, str], ...]) -> Colouring:
    """Count each code; entries without a region are dropped and the codes closed up."""
    sizes = np.bincount(codes, minlength=len(entries))
    used = np.flatnonzero(sizes)
    new = np.zeros(len(entries), np.uint8)
    new[used] = np.arange(len(used))
    return Colouring(new[codes], tuple((entries[i][0], entries[i][1], int(sizes[i])) for i in used))
