"""Crops, boxes, and the HTML that holds them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from dashboard.pictures import brand, cells, gallery, markup
from dashboard.pictures.gallery import Card, Pair, Section
from dashboard.pictures.palette import LIGHT
from dashboard.reading.evidence import Effect, Removal, Side
from dashboard.reading.opened import Interval, Rate
from dashboard.reading.summaries import ClassRow, Fact
from ravl.data.painting import blur, fill_mean, inpaint
from ravl.store import STAGES

CARD = Card(7, "data:c", "data:w", "crop alt", "whole alt", "eight, called nine", "contribution +2.0", wrong=True)
N = len(STAGES)
EVIL = '"><script>alert(1)</script>'
PAIR = Pair(
    7, "data:b", "data:a", "before alt", "after alt", ("called nine", False), ("called eight", True), "is eight"
)
NOTHING = Interval(float("nan"), float("nan"), float("nan"))
EFFECT = Effect("token_drop", Rate(53, 55), Rate(1, 55), Rate(20, 21), Rate(3, 47), Rate(4, 48), 0.0001, 0.04)
SIDE = Side(Rate(1, 2), Rate(0, 0), NOTHING)
REMOVAL = Removal(
    *(3, "nine", 2, (EFFECT, replace(EFFECT, operator="inpaint", q=float("nan"))), Rate(53, 55), Rate(1, 55)),
    *(Rate(1, 21), Rate(44, 47), Rate(45, 100), Rate(10, 53), NOTHING, SIDE, SIDE, 0.001, 0.5, None, Rate(9, 9)),
)


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
    drawn = np.asarray(gallery.outlined(image, (box,), 200)).astype(int)
    assert np.array_equal(np.asarray(image), before)
    assert drawn.shape == (100, 200, 3)
    yellow = np.argwhere((drawn == (0xF0, 0xE4, 0x42)).all(2))
    y0, x0 = yellow.min(0)
    y1, x1 = yellow.max(0) + 1
    assert (x0, y0, x1, y1) == pytest.approx([2 * v for v in box], abs=3)


def test_every_region_is_outlined() -> None:
    drawn = np.asarray(gallery.outlined(scene(), ((0, 0, 20, 20), (60, 10, 80, 30)), 100)).astype(int)
    yellow = (drawn == (0xF0, 0xE4, 0x42)).all(2)
    assert yellow[:20, :20].any()
    assert yellow[10:30, 60:80].any()
    assert not yellow[:, 25:55].any()


@pytest.mark.parametrize(("operator", "paint"), [("mean_fill", fill_mean), ("blur", blur), ("inpaint", inpaint)])
def test_what_the_model_was_given_is_shown(operator: str, paint: Callable[..., Image.Image]) -> None:
    boxes = ((60, 10, 80, 30),)
    shown = gallery.removed(scene(), boxes, None, operator, 100)
    assert np.array_equal(np.asarray(shown), np.asarray(paint(scene(), np.array(boxes))))


@pytest.mark.parametrize("operator", ["token_drop", "transplant"])
def test_what_the_model_was_not_given_is_hatched(operator: str) -> None:
    before = np.asarray(scene()).copy()
    shown = np.asarray(gallery.removed(scene(), ((60, 10, 80, 30), (0, 0, 10, 10)), None, operator, 200)).astype(int)
    assert shown.shape == (100, 200, 3)
    assert np.array_equal(np.asarray(scene()), before)
    hatch = [tuple(int(shade[i : i + 2], 16) for i in (1, 3, 5)) for shade in gallery._HATCH]
    places = np.any([(shown == shade).all(2) for shade in hatch], axis=0)
    expected = np.zeros((100, 200), bool)
    expected[20:60, 120:160] = expected[:20, :20] = True
    assert np.array_equal(places, expected)
    assert len(np.unique(shown[expected], axis=0)) == 2  # stripes: told from any flat ground


def test_only_the_part_of_a_region_is_hatched() -> None:
    mask = np.zeros((20, 20), bool)
    mask[:10] = True
    shown = np.asarray(gallery.removed(scene(), ((60, 10, 80, 30),), [mask], "token_drop", 100)).astype(int)
    assert (shown[21:30, 60:80] == (255, 0, 0)).all()
    assert not (shown[10:19, 60:80] == (255, 0, 0)).all(2).any()


@pytest.mark.parametrize("operator", ["token_drop", "mean_fill"])
def test_a_large_image_is_painted_at_the_size_it_is_shown(operator: str) -> None:
    mask = np.zeros((400, 400), bool)
    mask[:, :200] = True
    large = scene().resize((2000, 1000), Image.Resampling.NEAREST)
    shown = np.asarray(gallery.removed(large, ((1200, 200, 1600, 600),), [mask], operator, 200)).astype(int)
    assert shown.shape == (100, 200, 3)
    red = (np.abs(shown - (255, 0, 0)) < 60).all(2)
    assert red[22:58, 142:158].all()
    assert not red[22:58, 124:138].any()


def test_grey_images_can_be_shown() -> None:
    grey = Image.new("L", (10, 10), 128)
    assert gallery.outlined(grey, ((0, 0, 5, 5),)).mode == gallery.cropped(grey, (0, 0, 5, 5)).mode == "RGB"


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


def test_pairs_say_what_is_called_right_before_and_after() -> None:
    sections = (
        Section("Errors that go: 2 of 3 (67%)", "", (PAIR, replace(PAIR, key=8))),
        Section("Errors that stay: 0 of 3 (0%)", "nothing", ()),
        Section("Right: 1 of 1", "a note", (replace(PAIR, key=9),)),
    )
    page = Reader(gallery.pairs_html(sections))
    assert [image["alt"] for image in page.all("img")] == ["before alt", "after alt"] * 3
    assert [button["data-key"] for button in page.all("button")] == ["7", "8", "9"]
    assert page.all("button")[0]["aria-label"] == "Enlarge: before alt; after alt"
    marks = [span["aria-label"] for span in page.all("span") if str(span.get("class", "")).startswith("mark")]
    assert marks == ["wrong", "right"] * 3
    assert "Errors that go: 2 of 3 (67%)✗ called nine✓ called eightis eight" in page.text
    assert "stay" not in page.text  # a section without images is left out
    assert "Right: 1 of 1a note" in page.text


def test_no_pairs() -> None:
    assert Reader(gallery.pairs_html(())).tags == [("div", {"class": "ravl-pairs"})]


def test_a_pair_whose_file_is_gone_cannot_be_enlarged() -> None:
    gone = Section("x", "", (replace(PAIR, before=None, after=None, missing="gone <away>"),))
    page = Reader(gallery.pairs_html((gone,)))
    assert page.all("img") == page.all("button") == []
    assert page.text.count("gone <away>") == 2


def test_a_missing_file_is_said_in_place_of_its_picture() -> None:
    page = Reader(gallery.cards_html((replace(CARD, crop=None, whole=None, missing="gone <away>"),)))
    assert page.all("img") == page.all("button") == []
    assert page.text.count("gone <away>") == 2
    assert [span["aria-label"] for span in page.all("span") if span.get("class") == "gone"] == ["crop alt", "whole alt"]


def test_nothing_of_a_user_becomes_html() -> None:
    card = Card(1, None, None, EVIL, EVIL, EVIL, EVIL, missing=EVIL)
    row = ClassRow(EVIL, Rate(1, 2), Rate(0, 0), NOTHING, float("nan"), True)
    pair = Pair(1, "data:x", None, EVIL, EVIL, (EVIL, True), (EVIL, False), EVIL, EVIL)
    pages = (
        gallery.cards_html((card, replace(CARD, alt_crop=EVIL, alt_whole=EVIL))),
        gallery.strip_html((card,)),
        markup.class_table((row,), LIGHT, EVIL),
        markup.rate_table(((EVIL, Rate(1, 2)),), LIGHT, EVIL),
        markup.fact_table((Fact(EVIL, EVIL),), EVIL),
        markup.effect_table(replace(REMOVAL, pull=EVIL)),
        gallery.pairs_html((Section(EVIL, EVIL, (pair, replace(pair, before=None))),)),
        markup.legend(((EVIL, "#000000", 3),)),
    )
    for html in pages:
        assert Reader(html).all("script") == []


def test_no_cards() -> None:
    assert Reader(gallery.cards_html(())).tags == [("div", {"class": "ravl-cards"})]


def test_tables_show_every_count() -> None:
    rows = (
        ClassRow("eight", Rate(12, 58), Rate(240, 260), Interval(-0.716, -0.81, -0.59), -0.3, False),
        ClassRow("nine", Rate(0, 0), Rate(1, 4), NOTHING, float("nan"), True),
    )
    page = Reader(markup.class_table(rows, LIGHT, "nine"))
    for part in (
        "12 of 58",
        "240 of 260",
        "21%",
        "92%",
        "−72 points",
        "−81 to −59 points",
        "no images",
        "errors go here",
    ):
        assert part in page.text
    spoken = [span["aria-label"] for span in page.all("span") if span.get("role") == "img"]
    assert spoken == ["without 92%, with 21%", "without 25%, with n/a"]
    assert Reader(markup.rate_table((("cat", Rate(0, 0)),), LIGHT, "x")).text.endswith("no images")


def test_a_change_too_small_for_a_whole_point_is_not_shown_as_none() -> None:
    def text(change: Interval) -> str:
        return Reader(cells.change_cell(change, "one side has no images")).text

    assert text(Interval(0.004, -0.002, 0.01)).startswith("+0.4 points")
    assert text(Interval(-0.0004, -0.01, 0.01)).startswith("0.0 points")
    assert text(Interval(0.0, 0.0, 0.0)).startswith("0 points")
    assert text(NOTHING) == "–"


def test_effect_table_has_a_count_in_every_cell() -> None:
    page = Reader(markup.effect_table(REMOVAL))
    for part in (
        "Left out",
        "Filled in",
        "53 of 55",
        "1 of 55",
        "20 of 21",
        "3 of 47",
        "4 of 48",
        "10 of 53",
        "<0.001",
    ):
        assert part in page.text
    assert len(page.all("td")) == 8 * 2
    assert {cell["scope"] for cell in page.all("th")} == {"row", "col"}
    without = Reader(markup.effect_table(replace(REMOVAL, pull="")))
    assert len(without.all("td")) == 5 * 2


@pytest.mark.parametrize(
    ("current", "done", "signs"),
    [("", False, "○" * N), ("embeddings", False, "✓✓●" + "○" * (N - 3)), ("", True, "✓" * N)],
)
def test_stage_list(current: str, done: bool, signs: str) -> None:
    page = Reader(markup.stage_list(current, done))
    assert "".join(letter for letter in page.text if letter in "✓●○") == signs


def test_brand_is_drawn_here() -> None:
    assert brand.icon(32).size == (32, 32)
    assert "http" not in brand.LOGO.replace("http://www.w3.org/2000/svg", "")
