"""What `make bench-screen` measured: rows of numbers, a table of them, a file, and the README's sentence. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ravl.benchmark.markdown import between
from ravl.store import read_json

FILE = "assets/bench-screen.json"
MARKER = "screen"
"""Of the README's sentence: it stands between <!-- screen --> and <!-- /screen -->."""

PAINT, FIRST, AGAIN = "first paint", "page, first visit", "page, later visit"
DECISION, LASSO, MEMORY = "decision to the next feature", "lasso to its crops", "memory"
GOALS: Mapping[str, float] = {PAINT: 2, FIRST: 1, AGAIN: 1, DECISION: 0.3, LASSO: 1, MEMORY: 600}
"""At most so many seconds, of memory megabytes."""

EMPTY = "an empty page of Streamlit"
"""The yardstick, measured beside the rest: `st.write("hello")`."""


@dataclass(frozen=True)
class Row:
    """What was measured several times. what: one of GOALS. of: the page, say. unit: s or MB (of a million bytes)."""

    what: str
    of: str
    unit: str
    n: int
    lower: float
    median: float
    upper: float
    values: tuple[float, ...]


def row(what: str, of: str, values: Sequence[float]) -> Row:
    """The quartiles of at least one value, interpolated between the values (as numpy and R do by default)."""
    unit, digits = ("MB", 0) if what == MEMORY else ("s", 3)
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else 3 * [values[0]]
    lower, median, upper = (round(value, digits) for value in quartiles)
    return Row(what, of, unit, len(values), lower, median, upper, tuple(round(value, digits) for value in values))


def yardstick(rows: Iterable[Row], what: str) -> Row | None:
    """The empty page by which a row is measured: its paint for all that is seconds, its memory for memory."""
    wanted = MEMORY if what == MEMORY else PAINT
    return next((row for row in rows if (row.what, row.of) == (wanted, EMPTY)), None)


def ratio(rows: Iterable[Row], own: Row) -> float | None:
    """How many times the empty page's median a median is; None without an empty page."""
    found = yardstick(rows, own.what)
    return own.median / found.median if found else None


def table(rows: Sequence[Row]) -> str:
    """A line a row, with the ratio to the empty page and the goal, for a terminal."""
    head = ("what", "of", "n", "lower", "median", "upper", "", "x empty", "goal")
    lines = [head] + [
        (
            row.what,
            row.of,
            str(row.n),
            *(_number(value, row.unit) for value in (row.lower, row.median, row.upper)),
            row.unit,
            f"{times:.2f}" if (times := ratio(rows, row)) is not None else "",
            "" if row.of == EMPTY else f"<= {GOALS[row.what]:g}",
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    words = (0, 1, 6)  # columns that are no numbers
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place in words else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _number(value: float, unit: str) -> str:
    return f"{value:.0f}" if unit == "MB" else f"{value:.2f}"


def document(rows: Sequence[Row], about: Mapping[str, Any]) -> dict[str, Any]:
    """What is written into FILE. about: commit, machine, versions, and what was measured."""
    told = [{**asdict(row), "values": list(row.values), "times_empty_page": _rounded(ratio(rows, row))} for row in rows]
    return {**about, "goals": dict(GOALS), "rows": told}


def rows_of(document: Mapping[str, Any]) -> list[Row]:
    """The rows of a file."""
    return [
        Row(**{**{name: saved[name] for name in Row.__dataclass_fields__}, "values": tuple(saved["values"])})
        for saved in document["rows"]
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


# --- README ---------------------------------------------------------------------------------------------------------


def sentence(document: Mapping[str, Any]) -> str:
    """The README's sentence about a full measurement. Raises ValueError where a kind of row is missing."""
    rows = rows_of(document)
    medians = {what: [row.median for row in rows if row.what == what and row.of != EMPTY] for what in GOALS}
    if missing := [what for what, found in medians.items() if not found]:
        raise ValueError(f"rows must hold {', '.join(GOALS)}, got none of {', '.join(missing)}. Measure all of it.")
    [paint] = (row for row in rows if row.what == PAINT and row.of != EMPTY)
    empty = yardstick(rows, PAINT)
    beside = f" (an empty page of Streamlit: {empty.median:.1f} s)" if empty else ""
    return (
        f"How long one waits (medians on {document['machine']}; `make bench-screen`): the demo's first page stands "
        f"{paint.median:.1f} s after the server answers{beside}; its other pages take {_span(medians[FIRST])} s at the "
        f"first visit and {_span(medians[AGAIN])} s later; a decision brings the next feature in "
        f"{_span(medians[DECISION])} s, a lasso on {document['lassoed']:,} regions its crops in "
        f"{_span(medians[LASSO])} s; the server takes up to {max(medians[MEMORY]):.0f} MB with "
        f"{document['regions']:,} regions open ([all numbers]({FILE}))."
    )


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def with_sentence(readme: str, root: Path) -> str:
    """The README with the sentence that the committed file of the repository `root` says; unchanged without one.

    Raises ValueError where the opening marker is missing.
    """
    file = root / FILE
    return between(readme, sentence(read_json(file)), MARKER) if file.exists() else readme
