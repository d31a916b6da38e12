"""Crops and full images with their boxes, as one piece of HTML a page. Pure: PIL images in, text out.

Every picture carries an alt text, every card a caption; all text of users is escaped here.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dashboard.words.wording import escaped
from ravl.data.painting import Masks, blur, fill_mean, inpaint, replaced

Box = tuple[int, int, int, int]

TILE = 192
"""Longest side of a picture in a card, in pixels: twice what is shown, for sharp screens."""

READING = 480
"""Longest side of an enlarged region."""

LARGE = 1400
"""Longest side of the enlarged picture."""

_OUTLINE = ("#000000", "#F0E442")  # a dark rim around a bright line: seen on any ground, and by any eye
_HATCH = ("#8A9099", "#C3C8CE")

_PAINTERS: dict[str, Callable[[Image.Image, NDArray[np.integer[Any]], Masks], Image.Image]] = {
    "mean_fill": fill_mean,
    "blur": blur,
    "inpaint": inpaint,
}
"""Operators that change pixels the same way each time; the others are shown as a hatched place."""


@dataclass(frozen=True)
class Card:
    """One region in a gallery. crop, whole: data URIs, or None where the file cannot be read (`missing` says why)."""

    key: int
    crop: str | None
    whole: str | None
    alt_crop: str
    alt_whole: str
    caption: str
    note: str = ""
    wrong: bool = False
    missing: str = ""


@dataclass(frozen=True)
class Pair:
    """One image with and without a feature. before, after: data URIs, or None where the file cannot be read.

    called_before, called_after: what the model says, and whether that is right.
    """

    key: int
    before: str | None
    after: str | None
    alt_before: str
    alt_after: str
    called_before: tuple[str, bool]
    called_after: tuple[str, bool]
    caption: str
    missing: str = ""


@dataclass(frozen=True)
class Section:
    """Some pairs under a heading. note: a smaller line below it."""

    heading: str
    note: str
    pairs: tuple[Pair, ...]


def fitted(image: Image.Image, side: int, enlarge: bool = True, smooth: bool = True) -> Image.Image:
    """The image with its longest side at `side` pixels; a smaller one is left alone unless `enlarge`.

    smooth: whether an enlarged one is smoothed; else its pixels are seen.
    """
    scale = side / max(image.size)
    if scale >= 1 and not enlarge:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    larger = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return image.resize(size, larger if scale > 1 else Image.Resampling.LANCZOS)


def cropped(image: Image.Image, box: Box, side: int = TILE, smooth: bool = True) -> Image.Image:
    """The region alone."""
    return fitted(image.convert("RGB").crop(box), side, smooth=smooth)


def outlined(image: Image.Image, boxes: Sequence[Box], side: int = TILE, smooth: bool = True) -> Image.Image:
    """The whole image with a box drawn around each region."""
    whole = fitted(image.convert("RGB"), side, smooth=smooth).copy()
    scale = (whole.width / image.width, whole.height / image.height) * 2
    draw = ImageDraw.Draw(whole)
    line = max(2, side // 96)
    for box in boxes:
        x0, y0, x1, y1 = (round(v * s) for v, s in zip(box, scale, strict=True))
        inner = (x0, y0, min(x1, whole.width) - 1, min(y1, whole.height) - 1)
        for rim, colour, width in ((1, _OUTLINE[0], line + 2), (0, _OUTLINE[1], line)):
            corners = (inner[0] - rim, inner[1] - rim, inner[2] + rim, inner[3] + rim)
            draw.rectangle(corners, outline=colour, width=width)
    return whole


def removed(image: Image.Image, boxes: Sequence[Box], masks: Masks, operator: str, side: int = TILE) -> Image.Image:
    """The whole image without its regions, as the model was given it; a large one is painted at the size it is shown.

    What the model was not given at all (token_drop), or what is not kept (transplant), is hatched.
    """
    image, places, masks = _shrunk(image.convert("RGB"), boxes, masks, side)
    if operator in _PAINTERS:
        return fitted(_PAINTERS[operator](image, places, masks), side)
    hole = replaced(Image.new("L", image.size, 0), places, masks, Image.new("L", image.size, 255))
    whole = fitted(image, side).copy()
    whole.paste(_hatched(whole.size), (0, 0), hole.resize(whole.size, Image.Resampling.NEAREST))
    return whole


def _shrunk(
    image: Image.Image, boxes: Sequence[Box], masks: Masks, side: int
) -> tuple[Image.Image, NDArray[np.int64], Masks]:
    """Image, boxes and masks at `side` pixels, if they are larger: filling in a large image takes seconds."""
    places = np.asarray(boxes, np.int64).reshape(-1, 4)
    if max(image.size) <= side:
        return image, places, masks
    small = fitted(image, side)
    scale = np.array([small.width / image.width, small.height / image.height] * 2)
    corners = np.round(places * scale).astype(np.int64)
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 1)
    if masks is None:
        return small, corners, None
    sizes = (corners[:, 2:] - corners[:, :2]).tolist()
    return small, corners, [None if m is None else _resized(m, size) for m, size in zip(masks, sizes, strict=True)]


def _resized(mask: NDArray[np.bool_], size: list[int]) -> NDArray[np.bool_]:
    return np.asarray(Image.fromarray(mask).resize((size[0], size[1]), Image.Resampling.NEAREST), bool)


def _hatched(size: tuple[int, int]) -> Image.Image:
    ground = Image.new("RGB", size, _HATCH[0])
    draw = ImageDraw.Draw(ground)
    step = max(8, max(size) // 24)
    for x in range(-size[1], size[0], step):
        draw.line((x, size[1], x + size[1], 0), fill=_HATCH[1], width=max(2, step // 4))
    return ground


def data_uri(image: Image.Image) -> str:
    """The picture inside the page itself: nothing is written to disk, nothing is served at an address of its own."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def cards_html(cards: tuple[Card, ...], clickable: bool = True) -> str:
    """A wrapping grid of figures: the crop, the full image with its box, the caption. Buttons carry `data-key`."""
    return f'<div class="ravl-cards">{"".join(_card(card, clickable) for card in cards)}</div>'


def strip_html(cards: tuple[Card, ...]) -> str:
    """One row of crops without captions, for an overview; what does not fit is cut off."""
    pictures = "".join(_picture(card.crop, card.alt_crop, card.missing) for card in cards)
    return f'<div class="ravl-strip">{pictures}</div>'


def pairs_html(sections: Sequence[Section]) -> str:
    """Images before and after, the first section over the whole width, the others side by side below."""
    first, *rest = [_section(section) for section in sections if section.pairs] or [""]
    below = f'<div class="ravl-beside">{"".join(rest)}</div>' if rest else ""
    return f'<div class="ravl-pairs">{first}{below}</div>'


def _section(section: Section) -> str:
    note = f"<p>{escaped(section.note)}</p>"
    pairs = "".join(_pair(pair) for pair in section.pairs)
    return f'<section><h4>{escaped(section.heading)}</h4>{note}<div class="grid">{pairs}</div></section>'


def _pair(pair: Pair) -> str:
    sides = "".join(
        f"<span class='side'>{_picture(uri, alt, pair.missing)}<span class='said'>{_mark(right)} "
        f"{escaped(called)}</span></span>"
        for uri, alt, (called, right) in (
            (pair.before, pair.alt_before, pair.called_before),
            (pair.after, pair.alt_after, pair.called_after),
        )
    )
    if pair.before:
        label = escaped(f"Enlarge: {pair.alt_before}; {pair.alt_after}")
        sides = f'<button type="button" class="pair" data-key="{pair.key}" aria-label="{label}">{sides}</button>'
    else:
        sides = f'<div class="pair">{sides}</div>'
    return f"<figure>{sides}<figcaption>{escaped(pair.caption)}</figcaption></figure>"


def _mark(right: bool) -> str:
    kind, sign, spoken = ("right", "✓", "right") if right else ("wrong", "✗", "wrong")
    return f'<span class="mark {kind}" role="img" aria-label="{spoken}">{sign}</span>'


def _card(card: Card, clickable: bool) -> str:
    pictures = _picture(card.crop, card.alt_crop, card.missing) + _picture(card.whole, card.alt_whole, card.missing)
    if clickable and card.whole:
        label = escaped(f"Enlarge: {card.alt_whole}")
        pictures = f'<button type="button" class="pair" data-key="{card.key}" aria-label="{label}">{pictures}</button>'
    else:
        pictures = f'<div class="pair">{pictures}</div>'
    mark = (
        '<span class="mark wrong" aria-hidden="true">✗</span>'
        if card.wrong
        else '<span class="mark right" aria-hidden="true">✓</span>'
    )
    note = f"<small>{escaped(card.note)}</small>" if card.note else ""
    caption = f"<figcaption>{mark}<span>{escaped(card.caption)}{note}</span></figcaption>"
    return f"<figure>{pictures}{caption}</figure>"


def _picture(uri: str | None, alt: str, missing: str) -> str:
    if uri is None:
        return f'<span class="gone" role="img" aria-label="{escaped(alt)}">{escaped(missing)}</span>'
    return f'<img src="{uri}" alt="{escaped(alt)}">'


CSS = """
.ravl-cards { display: grid; gap: 14px 12px;
  grid-template-columns: repeat(auto-fill, minmax(var(--ravl-card, 180px), 1fr)); }
.ravl-cards figure, .ravl-pairs figure { margin: 0; min-width: 0; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 4px; width: 100%; padding: 4px; margin: 0;
  box-sizing: border-box; border: 1px solid color-mix(in srgb, currentColor 18%, transparent); border-radius: 6px;
  background: none; font: inherit; color: inherit; text-align: left; }
button.pair { cursor: zoom-in; }
button.pair:hover { border-color: color-mix(in srgb, currentColor 55%, transparent); }
button.pair:focus-visible { outline: 2px solid currentColor; outline-offset: 2px; }
.pair img, .pair .gone { width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 3px;
  display: block; background: color-mix(in srgb, currentColor 6%, transparent); }
.ravl-pairs { display: grid; gap: 18px; }
.ravl-pairs section { min-width: 0; }
.ravl-pairs h4 { font-size: 14px; font-weight: 600; margin: 0 0 2px; }
.ravl-pairs p:empty { margin: 0; }
.ravl-pairs p { font-size: 13px; line-height: 1.35; opacity: .75; margin: 0 0 6px; }
.ravl-pairs .grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 12px; }
.ravl-beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(250px, 1fr)); gap: 0 12px; }
.ravl-beside section { display: grid; grid-template-rows: subgrid; grid-row: span 3; align-content: start; }
.ravl-beside .grid { grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); align-content: start;
  padding-bottom: 10px; }
.side { min-width: 0; }
.said { display: block; font-size: 13px; line-height: 1.35; padding: 3px 2px 0; overflow-wrap: anywhere; }
.ravl-pairs figcaption { font-size: 12px; opacity: .72; padding: 3px 4px 0; overflow-wrap: anywhere; }
.gone { font-size: 11px; line-height: 1.3; padding: 8px; box-sizing: border-box; text-align: left; overflow: hidden; }
.ravl-cards figcaption { display: flex; gap: 6px; font-size: 13px; line-height: 1.35; padding: 4px 4px 0; }
.ravl-cards figcaption span:last-child { overflow-wrap: anywhere; }
.ravl-cards small { display: block; font-size: 12px; opacity: .72; }
.mark { font-weight: 700; }
.ravl-strip { display: flex; flex-wrap: wrap; gap: 6px; overflow: hidden; height: 76px; }
.ravl-strip img, .ravl-strip .gone { width: 76px; height: 76px; flex: none; object-fit: cover; border-radius: 4px; }
"""
"""Works on any ground: it only mixes the text colour."""
