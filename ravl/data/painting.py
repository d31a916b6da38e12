"""Boxes cut out of images, and painted over. Boxes are x0, y0, x1, y1 in pixels, half-open."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def mean_colour(image: Image.Image) -> tuple[int, ...]:
    """The mean of each channel of an RGB image, rounded, 0 .. 255."""
    return tuple(int(v) for v in np.asarray(image).reshape(-1, 3).mean(0).round())


def fill_mean(image: Image.Image, boxes: NDArray[np.integer[Any]]) -> Image.Image:
    """A copy of the image with its boxes (n, 4) painted in the image's mean colour."""
    filled, colour = image.copy(), mean_colour(image)
    for box in boxes:
        filled.paste(colour, tuple(int(v) for v in box))  # type: ignore[arg-type]
    return filled


def square_crop(image: Image.Image, box: NDArray[np.integer[Any]], context: float) -> Image.Image:
    """Cut out a box with a margin of `context` times its size, clipped to the image, padded to a square.

    The padding has the crop's mean colour, so that no new edge of a foreign colour appears.
    """
    x0, y0, x1, y1 = (int(v) for v in box)
    dx, dy = round(context * (x1 - x0)), round(context * (y1 - y0))
    cut = image.crop((max(0, x0 - dx), max(0, y0 - dy), min(image.width, x1 + dx), min(image.height, y1 + dy)))
    if cut.width == cut.height:
        return cut
    side = max(cut.size)
    square = Image.new("RGB", (side, side), mean_colour(cut))
    square.paste(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
    return square
