"""The mark: a picture with one region outlined. Drawn here, so that nothing is fetched from anywhere."""

from __future__ import annotations

from PIL import Image, ImageDraw

_GREY, _BLUE, _ORANGE = "#7A828C", "#3D8BC4", "#E07B2A"  # seen on light and on dark ground

LOGO = f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 104 28" role="img" aria-label="RAVL">
<rect x="1.5" y="2.5" width="23" height="23" rx="3" fill="none" stroke="{_GREY}" stroke-width="2"/>
<rect x="12.5" y="13.5" width="8" height="8" rx="1" fill="{_ORANGE}" stroke="{_ORANGE}" stroke-width="2"/>
<text x="34" y="21" font-family="Source Sans, Helvetica, Arial, sans-serif" font-size="20" font-weight="700"
 letter-spacing="1.5" fill="{_BLUE}">RAVL</text></svg>"""
"""The mark with the name, as SVG."""


def icon(side: int = 64) -> Image.Image:
    """The mark alone, for the browser's tab."""
    scale = side / 32
    image = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    pen = ImageDraw.Draw(image)
    frame, region = [v * scale for v in (2, 2, 30, 30)], [v * scale for v in (16, 16, 25, 25)]
    pen.rounded_rectangle(frame, radius=4 * scale, outline=_GREY, width=round(3 * scale))
    pen.rounded_rectangle(region, radius=scale, fill=_ORANGE)
    return image
