"""Every region gets one colour, the legend counts them all, and the colours stay apart."""

from __future__ import annotations

import numpy as np
import pytest

from dashboard.choosing import filters
from dashboard.pictures import colouring
from dashboard.pictures.palette import DARK, LIGHT, Palette, palette
from dashboard.reading import opened, summaries
from ravl.ledger import Ledger
from ravl.store import AuditRun


@pytest.mark.parametrize("by", list(colouring.COLOURINGS))
@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_codes_and_legend_agree(run: AuditRun, by: str, colours: Palette) -> None:
    audit = opened.read_audit(run)
    found = colouring.colouring(audit, by, summaries.findings(audit, {}), colours)
    assert found.codes.dtype == np.uint8
    counts = np.bincount(found.codes, minlength=len(found.entries))
    assert counts.tolist() == [n for _, _, n in found.entries]
    assert counts.min() > 0
    assert len({colour for _, colour, _ in found.entries}) == len(found.entries)
    facet = filters.facets(audit, summaries.findings(audit, {}))[found.facet]
    assert by == found.facet
    for code, keys in enumerate(found.keys):
        assert set(facet.code[found.codes == code].tolist()) <= {facet.keys.index(key) for key in keys}
    assert frozenset().union(*found.keys) >= {facet.keys[place] for place in np.unique(facet.code)}
    assert sum(map(len, found.keys)) == len(frozenset().union(*found.keys))


def test_meaning_of_the_codes(run: AuditRun) -> None:
    audit = opened.read_audit(run)
    rows = summaries.findings(audit, {})

    def names(by: str) -> np.ndarray:
        found = colouring.colouring(audit, by, rows, LIGHT)
        return np.array([name for name, _, _ in found.entries])[found.codes]

    image = audit.regions.image
    assert np.array_equal(names("class"), np.array(audit.class_names)[audit.zero_shot.label[image]])
    assert np.array_equal(names("called"), np.array(audit.class_names)[audit.zero_shot.predicted[image]])
    right = np.where(audit.zero_shot.correct[image], "image classified right", "image classified wrong")
    assert np.array_equal(names("right"), right)
    feature = np.array(["no feature" if f < 0 else f"Feature {f}" for f in audit.feature_of])
    assert np.array_equal(names("feature"), feature)
    assert set(names("verdict")) == {"not decided", "no feature"}


def test_decisions_colour_their_feature(run: AuditRun, book: Ledger) -> None:
    audit = opened.read_audit(run)
    book.add_verdict(run.id, 1, "eel", "spurious", "Ada", audit.seen(1), "red square")
    book.add_verdict(run.id, 0, "", "core", "Ada", audit.seen(0))
    rows = summaries.findings(audit, book.verdicts(run.id))
    found = colouring.colouring(audit, "verdict", rows, LIGHT)
    assert [(name, n) for name, _, n in found.entries] == [
        ("Spurious", 27),
        ("Genuine", 60),
        ("not decided", 10),
        ("no feature", 143),
    ]
    names = [name for name, _, _ in colouring.colouring(audit, "feature", rows, LIGHT).entries]
    assert "red square" in names


def test_what_ranks_low_is_grey_unless_it_is_the_focus(run: AuditRun) -> None:
    audit = opened.read_audit(run)
    rows = summaries.findings(audit, {})  # ranked 1, 2, 0
    two = Palette("#1", "#2", "#3", "#4", "#5", "#6", ("#a", "#b"))
    names = [name for name, _, _ in colouring.colouring(audit, "feature", rows, two).entries]
    assert names == ["Feature 1", "Feature 2", "other features", "no feature"]
    names = [name for name, _, _ in colouring.colouring(audit, "feature", rows, two, focus=0).entries]
    assert names == ["Feature 1", "Feature 0", "other features", "no feature"]
    names = [name for name, _, _ in colouring.colouring(audit, "class", rows, two).entries]
    assert names == ["cat", "dog *", "other classes"]


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.1."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("colours", "ground"), [(LIGHT, "#FFFFFF"), (DARK, "#12161C")])
def test_marks_can_be_seen_on_their_ground(colours: Palette, ground: str) -> None:
    for colour in (*colours.categories, colours.right, colours.wrong, colours.accent, colours.muted):
        bright, dim = sorted((luminance(colour), luminance(ground)), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= 1.9, colour


def test_palette() -> None:
    assert palette(dark=True) is DARK
    assert palette(dark=False) is LIGHT
    assert len(set(LIGHT.categories)) == len(LIGHT.categories) == len(DARK.categories) == len(set(DARK.categories))
