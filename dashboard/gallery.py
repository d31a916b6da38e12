"""Crops and full images with their boxes, as one piece of HTML a page. Pure: PIL images in, text out.

Every picture carries an alt text, every card a caption; all text of users is escaped here.
"""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass

from PIL import Image, ImageDraw

Box = tuple[int, int, int, int]

TILE = 192
"""Longest side of a picture in a card, in pixels: twice what is shown, for sharp screens."""

LARGE = 1400
"""Longest side of the enlarged picture."""

_OUTLINE = ("#000000", "#F0E442")  # a dark rim around a bright line: seen on any ground, and by any eye


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


def fitted(image: Image.Image, side: int, enlarge: bool = True) -> Image.Image:
    """The image with its longest side at `side` pixels; a smaller one is left alone unless `enlarge`."""
    scale = side / max(image.size)
    if scale >= 1 and not enlarge:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS)


def cropped(image: Image.Image, box: Box, side: int = TILE) -> Image.Image:
    """The region alone."""
    return fitted(image.convert("RGB").crop(box), side)


def outlined(image: Image.Image, box: Box, side: int = TILE) -> Image.Image:
    """The whole image with the region's box drawn around it."""
    whole = fitted(image.convert("RGB"), side).copy()
    scale = (whole.width / image.width, whole.height / image.height) * 2
    x0, y0, x1, y1 = (round(v * s) for v, s in zip(box, scale, strict=True))
    draw = ImageDraw.Draw(whole)
    line = max(2, side // 96)
    inner = (x0, y0, min(x1, whole.width) - 1, min(y1, whole.height) - 1)
    for rim, colour, width in ((1, _OUTLINE[0], line + 2), (0, _OUTLINE[1], line)):
        corners = (inner[0] - rim, inner[1] - rim, inner[2] + rim, inner[3] + rim)
        draw.rectangle(corners, outline=colour, width=width)
    return whole


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


def _card(card: Card, clickable: bool) -> str:
    pictures = _picture(card.crop, card.alt_crop, card.missing) + _picture(card.whole, card.alt_whole, card.missing)
    if clickable and card.whole:
        label = html.escape(f"Enlarge: {card.alt_whole}", quote=True)
        pictures = f'<button type="button" class="pair" data-key="{card.key}" aria-label="{label}">{pictures}</button>'
    else:
        pictures = f'<div class="pair">{pictures}</div>'
    mark = (
        '<span class="mark wrong" aria-hidden="true">✗</span>'
        if card.wrong
        else '<span class="mark right" aria-hidden="true">✓</span>'
    )
    note = f"<small>{html.escape(card.note)}</small>" if card.note else ""
    caption = f"<figcaption>{mark}<span>{html.escape(card.caption)}{note}</span></figcaption>"
    return f"<figure>{pictures}{caption}</figure>"


def _picture(uri: str | None, alt: str, missing: str) -> str:
    if uri is None:
        return (
            f'<span class="gone" role="img" aria-label="{html.escape(alt, quote=True)}">{html.escape(missing)}</span>'
        )
    return f'<img src="{uri}" alt="{html.escape(alt, quote=True)}" loading="lazy">'


CSS = """
.ravl-cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(180px, 1fr)); gap: 14px 12px; }
.ravl-cards figure { margin: 0; min-width: 0; }
.ravl-cards .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 4px; width: 100%; padding: 4px; margin: 0;
  border: 1px solid color-mix(in srgb, currentColor 18%, transparent); border-radius: 6px; background: none;
  font: inherit; color: inherit; }
.ravl-cards button.pair { cursor: zoom-in; }
.ravl-cards button.pair:hover { border-color: color-mix(in srgb, currentColor 55%, transparent); }
.ravl-cards button.pair:focus-visible { outline: 2px solid currentColor; outline-offset: 2px; }
.ravl-cards img, .ravl-cards .gone { width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 3px;
  display: block; background: color-mix(in srgb, currentColor 6%, transparent); }
.gone { font-size: 11px; line-height: 1.3; padding: 8px; box-sizing: border-box; text-align: left; overflow: hidden; }
.ravl-cards figcaption { display: flex; gap: 6px; font-size: 13px; line-height: 1.35; padding: 4px 4px 0; }
.ravl-cards figcaption span:last-child { overflow-wrap: anywhere; }
.ravl-cards small { display: block; font-size: 12px; opacity: .72; }
.mark { font-weight: 700; }
.ravl-strip { display: flex; flex-wrap: wrap; gap: 6px; overflow: hidden; height: 76px; }
.ravl-strip img, .ravl-strip .gone { width: 76px; height: 76px; flex: none; object-fit: cover; border-radius: 4px; }
"""
"""Works on any ground: it only mixes the text colour."""
