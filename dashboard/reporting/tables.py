"""Tables of the report. The columns are those of the screen."""

from __future__ import annotations

import math
from collections.abc import Callable

from dashboard.reading.evidence import Effect, Removal
from dashboard.reading.opened import Rate
from dashboard.reading.repaired import Moved
from dashboard.reading.summaries import ClassRow, Fact, Finding
from dashboard.words import claims, wording
from ravl.report import Cell, Table

MAX_CLASSES = 40
"""Classes in one table; there may be a thousand."""

MAX_FEATURES = 500


def share(value: Rate) -> Cell:
    """`12 of 58 (21%)` over a bar."""
    return Cell(wording.rate(value), bar=None if math.isnan(value.share) else value.share)


def fact_table(caption: str, rows: tuple[Fact, ...], note: str = "") -> Table:
    return Table(caption, (), tuple((Cell(row.name), Cell(row.value)) for row in rows), note)


def accuracy_table(classes: tuple[tuple[str, Rate], ...]) -> Table:
    """Accuracy per class, the worst first."""
    shown = classes[:MAX_CLASSES]
    rest = len(classes) - len(shown)
    note = f"{wording.count(rest, 'more class', 'more classes')} with at least the last of these rates." if rest else ""
    rows = tuple((Cell(name), share(value)) for name, value in shown)
    return Table("Accuracy per class, the worst first", ("Class", "Right"), rows, note, "narrow")


def class_table(rows: tuple[ClassRow, ...], level: float) -> Table:
    """Accuracy per class with and without a feature."""
    shown = rows[:MAX_CLASSES]
    rest = len(rows) - len(shown)
    more = f" {wording.count(rest, 'more class', 'more classes')} lost less, or cannot be compared." if rest else ""
    body = tuple(
        (
            Cell(row.name, note="errors go here" if row.pulls else ""),
            share(row.inside),
            share(row.outside),
            Cell(wording.points(row.difference.value), note=claims.span(row.difference)),
        )
        for row in shown
    )
    head = ("Class", "Right with the feature", "Right without it", "Difference, interval")
    return Table("With and without the feature", head, body, f"{wording.interval(level)}{more}", "even")


def effect_table(view: Removal) -> Table:
    """What each way of removing a feature does: a column per way."""
    names = [claims.OPERATORS[effect.operator][0] for effect in view.effects]
    lines: list[tuple[str, list[Cell]]] = [
        ("Wrong images that become right", _row(view, lambda effect: effect.fixed)),
        ("The same, with another piece removed instead", _row(view, lambda effect: effect.control)),
        ("p, exact McNemar test of the two", [Cell(claims.probability(effect.p)) for effect in view.effects]),
        ("q, corrected for all features", [Cell(claims.probability(effect.q)) for effect in view.effects]),
        ("Right images of other classes that stay right", _row(view, lambda effect: effect.kept)),
    ]
    if view.pull:
        lines += [
            (f"Right images of {view.pull} that stay right", _row(view, lambda effect: effect.pull_kept)),
            (f"All images of {view.pull}, right after removal", _row(view, lambda effect: effect.pull_after)),
            (f"Images of {view.pull} that never showed it, right", [share(view.never)] * len(names)),
        ]
    rows = tuple((Cell(label), *cells) for label, cells in lines)
    return Table("What each way of removing the feature does", ("", *names), rows)


def _row(view: Removal, part: Callable[[Effect], Rate]) -> list[Cell]:
    return [share(part(effect)) for effect in view.effects]


def change_table(caption: str, rows: tuple[Moved, ...]) -> Table:
    """Accuracy per group before and after."""
    body = tuple(
        (
            Cell(row.name),
            share(row.before.rate),
            share(row.after.rate),
            Cell(wording.points(row.change.value), note=claims.span(row.change)),
        )
        for row in rows
    )
    return Table(caption, ("Group", "Right before", "Right after", "Change, interval"), body, layout="even")


def feature_table(rows: tuple[Finding, ...], caption: str = "Features, ranked") -> Table:
    """A line per feature."""
    body = tuple(
        (
            Cell(wording.title(row)),
            Cell(row.pull or "–"),
            Cell(claims.errors_gone(row)),
            Cell(claims.evidence(row)),
            Cell(claims.beyond(row.beyond)),
            Cell(claims.probability(row.q)),
            Cell(f"{row.n_images:,}", note=f"{row.n_errors:,} wrong"),
        )
        for row in rows[:MAX_FEATURES]
    )
    rest = len(rows) - len(body)
    note = f"{wording.count(rest, 'more feature')} with less evidence." if rest else ""
    head = ("Feature", "Mistaken for", "Errors that go", "Evidence", "Gap above chance", "q", "Images")
    return Table(caption, head, body, note)
