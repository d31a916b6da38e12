"""The report's page: nothing that people write becomes HTML, and nothing is loaded."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ravl.report import Cell, Document, Figure, Gallery, Picture, Points, Prose, Section, Table, draw
from ravl.report.page import prose

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><style>*{background:url(http://evil.example/x)}</style>",
    "{{ 7 * 7 }} {% raw %} {# x #}",
    "javascript:alert(1)",
    "&lt;b&gt;",
    "مربع أحمر \u202e abc",
    "👩🏽‍⚕️🟥",
    "line\none\r\n\ttwo\x00\x07\ud800",
    "*a **b \\",
)
TAGS = set(
    re.findall(
        r"\w+",
        "html head meta title style body header h1 p nav ol li a main section h2 h3 h4 table caption thead tbody tr th "
        "td div span figure img figcaption small b bdi strong em ul i footer",
    )
)


class Reader(HTMLParser):
    """Collects the tags, attributes and visible text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(text: str) -> str:
    """A page with the text in every place that takes one."""
    pictures = (Picture("data:image/jpeg;base64,AAAA", text, said=text, right=True), Picture(None, text, text))
    pieces = (
        Prose(text),
        Prose(text, "note"),
        Points((text,)),
        Gallery(text, (Figure(pictures, text, text, False),), text),
        Table(text, (text, text), ((Cell(text, text, 0.5, True), Cell(text)),), text, "even"),
        Table(text, (), ((Cell(text), Cell(text)),)),
    )
    part = Section("part", text, pieces, (text,))
    return draw(Document(text, text, (Section("all", text, pieces, (text,), (part,)),), text))


@pytest.mark.parametrize("text", HOSTILE)
def test_what_people_write_stays_text(text: str) -> None:
    read, plain = Reader(page_of(text)), Reader(page_of("harmless"))
    assert read.tags == plain.tags or {"strong", "em"} & set(read.tags)  # only the signs of Markdown add any
    assert set(read.tags) <= TAGS
    assert [name for name, _ in read.attributes] == [name for name, _ in plain.attributes]
    shown = re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text).replace("\r\n", "\n")
    assert shown in read.text.replace("\r\n", "\n")


def loaded(page: str) -> list[str]:
    """What a browser would fetch: src, href, url(), @import; not data URIs, nor places of the page itself."""
    own = re.sub(r"data:image/jpeg;base64,[A-Za-z0-9+/=]*", "", page)
    found = re.findall(r"""(?:src|href|srcset|action|poster|data)\s*=\s*["']?([^"'\s>]*)""", own)
    style = "".join(re.findall(r"<style>(.*?)</style>", own, re.DOTALL))
    return [value for value in found if value and not value.startswith("#")] + re.findall(r"url\(|@import", style)


@pytest.mark.parametrize("text", ["harmless", *HOSTILE])
def test_nothing_is_loaded(text: str) -> None:
    page = page_of(text)
    read = Reader(page)
    links = [value or "" for name, value in read.attributes if name in ("src", "href", "srcset", "action", "poster")]
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in links)
    assert "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\"" in page
    assert page.count("<style>") == 1
    assert "<script" not in page
    if text == "harmless":
        assert loaded(page) == []
        assert "http" not in page.replace("http-equiv", "")


def test_a_page_is_complete() -> None:
    page = page_of("words")
    read = Reader(page)
    assert page.startswith('<!DOCTYPE html>\n<html lang="en">')
    anchors = {value for name, value in read.attributes if name == "id"}
    assert {f"#{anchor}" for anchor in anchors} == {value for name, value in read.attributes if name == "href"}
    assert read.tags.count("img") == 4 - 2
    assert all(value for name, value in read.attributes if name == "alt")
    assert "width:50.0%" in page


def test_a_page_without_anything() -> None:
    assert "<h1" in draw(Document("", "", (), ""))


# --- Markdown --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("a **b** *c*", "a <strong>b</strong> <em>c</em>"),
        (r"\*a\* \\ \<b\>", r"*a* \ &lt;b&gt;"),
        ("**a *b* c**", "<strong>a <em>b</em> c</strong>"),
        ("*a **b* c**", "<em>a <strong>b</strong></em> c<strong></strong>"),
        ("**open", "<strong>open</strong>"),
        ("<b>&amp;", "&lt;b&gt;&amp;amp;"),
        ("", ""),
    ],
)
def test_prose(text: str, drawn: str) -> None:
    assert prose(text) == drawn


@given(st.text(alphabet="a*\\<&\"'\n ü", max_size=20))
def test_prose_is_balanced_and_loses_no_character(text: str) -> None:
    drawn = str(prose(text))
    stack = []
    for closing, tag in re.findall(r"<(/?)(strong|em)>", drawn):
        if closing:
            assert stack.pop() == tag
        else:
            stack.append(tag)
    assert stack == []
    shown = html.unescape(re.sub(r"</?(?:strong|em)>", "", drawn))
    assert shown == re.sub(r"\\(.)|\*+", lambda found: found[1] or "", text, flags=re.DOTALL)
