"""Drawing: a template whose every text is escaped, and the few signs of Markdown that the sentences use."""

from __future__ import annotations

import re
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from ravl.report.pieces import Document

_SIGNS = re.compile(r"\\(.)|(\*\*)|(\*)", re.DOTALL)
_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff\ud800-\udfff]")  # no page of HTML may hold these


def draw(document: Document) -> str:
    """The whole page: HTML with its style sheet and pictures inside, no script, nothing to load."""
    place = files("ravl.report")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_printable
    )
    environment.filters["prose"] = prose
    template = environment.from_string((place / "page.html").read_text(encoding="utf-8"))
    style = Markup((place / "page.css").read_text(encoding="utf-8"))
    return template.render(document=document, style=style) + "\n"


def prose(text: str) -> Markup:
    """Markdown with `**strong**`, `*stressed*` and backslash escapes as HTML; everything else is text.

    A sign without its partner ends with the text.
    """
    out: list[Markup] = []
    open_: list[str] = []
    at = 0
    for found in _SIGNS.finditer(text):
        out.append(escape(_printable(text[at : found.start()])))
        at = found.end()
        if found[1] is not None:
            out.append(escape(_printable(found[1])))
            continue
        tag = "strong" if found[2] else "em"
        if tag in open_:  # what was opened inside ends with it
            while (last := open_.pop()) != tag:
                out.append(Markup(f"</{last}>"))
            out.append(Markup(f"</{tag}>"))
        else:
            open_.append(tag)
            out.append(Markup(f"<{tag}>"))
    out.append(escape(_printable(text[at:])))
    out += [Markup(f"</{tag}>") for tag in reversed(open_)]
    return Markup("").join(out)


def _printable(value: object) -> object:
    """Text without what no page may hold: control characters, halves of surrogate pairs."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", value)
    return value
