"""Boxes cut out of images, and painted over. Boxes are x0, y0, x1, y1 in pixels, half-open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Masks = Sequence[NDArray[np.bool_] | None] | None
"""Per box the part of it that counts, (h, w) in its own pixels; None: the whole box."""


def mean_colour(image: Image.Image) -> tuple[int, ...]:
    """The mean of each channel of an RGB image, rounded, 0 .. 255."""
    return tuple(int(v) for v in np.asarray(image).reshape(-1, 3).mean(0).round())


def replaced(
    image: Image.Image, boxes: NDArray[np.integer[Any]], masks: Masks, source: Image.Image | tuple[int, ...]
) -> Image.Image:
    """A copy of the image whose boxes (n, 4) show the pixels of `source` at the same place.

    masks: per box None, for the whole of it, or (h, w) bool, the part that is replaced. source: an image of the same
    size, or a colour.
    """
    out = image.copy()
    for row, box in enumerate(np.asarray(boxes).reshape(-1, 4)):
        place = tuple(int(v) for v in box)
        part = source.crop(place) if isinstance(source, Image.Image) else source  # type: ignore[arg-type]
        mask = None if masks is None or masks[row] is None else Image.fromarray(np.asarray(masks[row], bool))
        out.paste(part, place, mask)  # type: ignore[arg-type]
    return out


def fill_mean(image: Image.Image, boxes: NDArray[np.integer[Any]], masks: Masks = None) -> Image.Image:
    """A copy of the image with its boxes (n, 4) painted in the image's mean colour."""
    return replaced(image, boxes, masks, mean_colour(image))


def blur(image: Image.Image, boxes: NDArray[np.integer[Any]], masks: Masks = None) -> Image.Image:
    """A copy of the image with its boxes blurred until nothing of up to half a box's size can be told.

    One Gaussian for all boxes, its standard deviation half the shorter side of the largest of them; the surroundings
    bleed in, so that the filling has the colour of the place.
    """
    sides = np.asarray(boxes).reshape(-1, 4)
    if not len(sides):
        return image.copy()
    shorter = (sides[:, 2:] - sides[:, :2]).min(1).max()
    return replaced(image, sides, masks, image.filter(ImageFilter.GaussianBlur(float(shorter) / 2)))


def inpaint(image: Image.Image, boxes: NDArray[np.integer[Any]], masks: Masks = None) -> Image.Image:
    """A copy of the image with its boxes filled in from their edges by fast marching (Telea 2004, OpenCV's).

    What lies around is carried inward; where the boxes cover the whole image there is nothing to carry, and its mean
    colour is painted.
    """
    import cv2

    hole = Image.new("L", image.size, 0)
    full = Image.new("L", image.size, 255)
    covered = np.asarray(replaced(hole, boxes, masks, full))
    if covered.all():
        return fill_mean(image, boxes, masks)
    filled = cv2.inpaint(np.asarray(image), covered, 3, cv2.INPAINT_TELEA)
    return Image.fromarray(filled)


def transplant(image: Image.Image, boxes: NDArray[np.integer[Any]], masks: Masks, donor: Image.Image) -> Image.Image:
    """A copy of the image whose boxes show what another image has at the same place, after scaling it to this size."""
    same = donor if donor.size == image.size else donor.resize(image.size, Image.Resampling.BICUBIC)
    return replaced(image, boxes, masks, same)


def stretched(crop: Image.Image, box: NDArray[np.integer[Any]]) -> Image.Image:
    """A crop scaled to the size of a box. One with an alpha channel (RGBA) becomes opaque or clear, from one half on.

    A thin shape may vanish when it is scaled down: then nothing is opaque.
    """
    x0, y0, x1, y1 = (int(v) for v in box)
    out = crop.resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC)
    if out.mode == "RGBA":
        out.putalpha(out.getchannel("A").point(lambda alpha: 255 * (alpha >= 128)))
    return out


def paste(image: Image.Image, crop: Image.Image, box: NDArray[np.integer[Any]]) -> Image.Image:
    """A copy of the image with a crop stretched over one box; where the crop is clear, the image shows."""
    fit, out = stretched(crop, box), image.copy()
    out.paste(fit.convert("RGB"), (int(box[0]), int(box[1])), fit.getchannel("A") if fit.mode == "RGBA" else None)
    return out


def square_crop(
    image: Image.Image, box: NDArray[np.integer[Any]], context: float, mask: NDArray[np.bool_] | None = None
) -> Image.Image:
    """Cut out a box with a margin of `context` times its size, clipped to the image, padded to a square.

    The padding has the crop's mean colour, so that no new edge of a foreign colour appears. mask: (h, w) bool, the part
    of the box that is the region; all else, the margin too, has that part's mean colour, so that nothing of it shows.
    """
    x0, y0, x1, y1 = (int(v) for v in box)
    dx, dy = round(context * (x1 - x0)), round(context * (y1 - y0))
    left, top = max(0, x0 - dx), max(0, y0 - dy)
    cut = image.crop((left, top, min(image.width, x1 + dx), min(image.height, y1 + dy)))
    if mask is None:
        colour = mean_colour(cut)
    else:
        region = image.crop((x0, y0, x1, y1))
        colour = mean_colour(Image.fromarray(np.asarray(region)[None, mask]))
        cut = Image.new("RGB", cut.size, colour)
        cut.paste(region, (x0 - left, y0 - top), Image.fromarray(mask))
    if cut.width == cut.height:
        return cut
    side = max(cut.size)
    square = Image.new("RGB", (side, side), colour)
    square.paste(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
    return square
