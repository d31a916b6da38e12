"""Crops, boxes, and the HTML that holds them."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from dashboard import brand, gallery, markup
from dashboard.comparison import Change
from dashboard.gallery import Card
from dashboard.palette import LIGHT
from dashboard.summaries import ClassRow, Fact, Rate
from ravl.store import STAGES

CARD = Card(7, "data:c", "data:w", "crop alt", "whole alt", "eight, called nine", "contribution +2.0", wrong=True)
EVIL = '"><script>alert(1)</script>'


class Reader(HTMLParser):
    """Collects tags with their attributes, and refuses unbalanced HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def scene() -> Image.Image:
    """100 x 50, black, with a red rectangle in 60..80 x 10..30."""
    pixels = np.zeros((50, 100, 3), np.uint8)
    pixels[10:30, 60:80] = (255, 0, 0)
    return Image.fromarray(pixels)


def test_crop_is_the_box_and_nothing_else() -> None:
    crop = np.asarray(gallery.cropped(scene(), (60, 10, 80, 30), 40))
    assert crop.shape == (40, 40, 3)
    assert (crop == (255, 0, 0)).all()


@pytest.mark.parametrize(
    ("size", "side", "expected"), [((100, 50), 200, (200, 100)), ((50, 100), 20, (10, 20)), ((1, 900), 90, (1, 90))]
)
def test_fitted(size: tuple[int, int], side: int, expected: tuple[int, int]) -> None:
    assert gallery.fitted(Image.new("RGB", size), side).size == expected


def test_fitted_leaves_small_images_alone_when_asked() -> None:
    assert gallery.fitted(scene(), 500, enlarge=False).size == (100, 50)


@pytest.mark.parametrize("box", [(60, 10, 80, 30), (0, 0, 100, 50), (50, 25, 100, 50), (99, 49, 100, 50)])
def test_the_outline_lies_on_the_box_and_leaves_the_image_as_it_is(box: gallery.Box) -> None:
    image = scene()
    before = np.asarray(image).copy()
    drawn = np.asarray(gallery.outlined(image, box, 200)).astype(int)
    assert np.array_equal(np.asarray(image), before)
    assert drawn.shape == (100, 200, 3)
    yellow = np.argwhere((drawn == (0xF0, 0xE4, 0x42)).all(2))
    y0, x0 = yellow.min(0)
    y1, x1 = yellow.max(0) + 1
    assert (x0, y0, x1, y1) == pytest.approx([2 * v for v in box], abs=3)


def test_grey_images_can_be_shown() -> None:
    grey = Image.new("L", (10, 10), 128)
    assert gallery.outlined(grey, (0, 0, 5, 5)).mode == gallery.cropped(grey, (0, 0, 5, 5)).mode == "RGB"


def test_pictures_live_in_the_page() -> None:
    uri = gallery.data_uri(scene())
    head, _, body = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(body))).size == (100, 50)


def test_cards_have_alt_texts_captions_and_numbers() -> None:
    page = Reader(gallery.cards_html((CARD, replace(CARD, key=8, wrong=False))))
    assert [image["alt"] for image in page.all("img")] == ["crop alt", "whole alt"] * 2
    assert [button["data-key"] for button in page.all("button")] == ["7", "8"]
    assert page.all("button")[0]["aria-label"] == "Enlarge: whole alt"
    assert page.text == "✗eight, called ninecontribution +2.0✓eight, called ninecontribution +2.0"
    assert Reader(gallery.cards_html((CARD,), clickable=False)).all("button") == []


def test_a_missing_file_is_said_in_place_of_its_picture() -> None:
    page = Reader(gallery.cards_html((replace(CARD, crop=None, whole=None, missing="gone <away>"),)))
    assert page.all("img") == page.all("button") == []
    assert page.text.count("gone <away>") == 2
    assert [span["aria-label"] for span in page.all("span") if span.get("class") == "gone"] == ["crop alt", "whole alt"]


def test_nothing_of_a_user_becomes_html() -> None:
    card = Card(1, None, None, EVIL, EVIL, EVIL, EVIL, missing=EVIL)
    row = ClassRow(EVIL, Rate(1, 2), Rate(0, 0), float("nan"), True)
    pages = (
        gallery.cards_html((card, replace(CARD, alt_crop=EVIL, alt_whole=EVIL))),
        gallery.strip_html((card,)),
        markup.class_table((row,), LIGHT, EVIL),
        markup.change_table((Change(EVIL, "group", Rate(1, 2), Rate(2, 2)),), LIGHT, EVIL),
        markup.rate_table(((EVIL, Rate(1, 2)),), LIGHT, EVIL),
        markup.fact_table((Fact(EVIL, EVIL),)),
        markup.legend(((EVIL, "#000000", 3),)),
    )
    for html in pages:
        assert Reader(html).all("script") == []


def test_no_cards() -> None:
    assert Reader(gallery.cards_html(())).tags == [("div", {"class": "ravl-cards"})]


def test_tables_show_every_count() -> None:
    rows = (
        ClassRow("eight", Rate(12, 58), Rate(240, 260), -0.3, False),
        ClassRow("nine", Rate(0, 0), Rate(1, 4), float("nan"), True),
    )
    page = Reader(markup.class_table(rows, LIGHT, "nine"))
    for part in ("12 of 58", "240 of 260", "21%", "92%", "−72 points", "no images", "errors go here"):
        assert part in page.text
    spoken = [span["aria-label"] for span in page.all("span") if span.get("role") == "img"]
    assert spoken == ["without 92%, with 21%", "without 25%, with n/a"]
    change = Reader(markup.change_table((Change("cat", "class", Rate(1, 4), Rate(4, 4)),), LIGHT, "Classes"))
    assert "+75 points" in change.text
    assert "1 of 4" in change.text
    assert Reader(markup.rate_table((("cat", Rate(0, 0)),), LIGHT, "x")).text.endswith("no images")


@pytest.mark.parametrize(
    ("current", "done", "signs"), [("", False, "○" * 8), ("embeddings", False, "✓✓●○○○○○"), ("", True, "✓" * 8)]
)
def test_stage_list(current: str, done: bool, signs: str) -> None:
    page = Reader(markup.stage_list(current, done))
    assert "".join(letter for letter in page.text if letter in "✓●○") == signs
    assert len(STAGES) == 8


def test_brand_is_drawn_here() -> None:
    assert brand.icon(32).size == (32, 32)
    assert "http" not in brand.LOGO.replace("http://www.w3.org/2000/svg", "")
