"""What a report is made of. Text is plain unless a docstring says Markdown."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Prose:
    """A paragraph of Markdown, of which `**strong**`, `*stressed*` and backslash escapes are known. tone: "", small,
    lead (larger), or note (in a box)."""

    text: str
    tone: str = ""
    kind: str = field(default="prose", init=False)


@dataclass(frozen=True)
class Points:
    """A list of sentences in Markdown."""

    items: tuple[str, ...]
    kind: str = field(default="points", init=False)


@dataclass(frozen=True)
class Picture:
    """uri: a data URI, or None where there is no picture; `missing` says why. said: a line below it.

    right: whether what it says is right; None: nothing to mark.
    """

    uri: str | None
    alt: str
    missing: str = ""
    said: str = ""
    right: bool | None = None


@dataclass(frozen=True)
class Figure:
    """Pictures side by side under one caption."""

    pictures: tuple[Picture, ...]
    caption: str
    note: str = ""
    right: bool | None = None


@dataclass(frozen=True)
class Gallery:
    """Figures under a heading. columns: of figures, on a wide page."""

    heading: str
    figures: tuple[Figure, ...]
    note: str = ""
    columns: int = 4
    kind: str = field(default="gallery", init=False)


@dataclass(frozen=True)
class Cell:
    """A cell of a table. note: a smaller second line. bar: a share in [0, 1] to draw below it. strong: stressed."""

    text: str
    note: str = ""
    bar: float | None = None
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first cell of each is its heading. head: empty for a table of names and values.

    note: Markdown below it. layout: "", narrow (as wide as it must be), even (columns as in
    its neighbours), or log (a number first, then a time, a digest last).
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    layout: str = ""
    kind: str = field(default="table", init=False)


Piece = Prose | Points | Gallery | Table


@dataclass(frozen=True)
class Section:
    """A part of the report. anchor: its place, unique. tags: short words beside the title. parts: below it."""

    anchor: str
    title: str
    pieces: tuple[Piece, ...]
    tags: tuple[str, ...] = ()
    parts: tuple[Section, ...] = ()


@dataclass(frozen=True)
class Document:
    """title, subtitle: above everything. footer: at the end of the page."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    footer: str
