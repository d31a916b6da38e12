"""The one rule by which image files become pixels: upright, three channels, eight bits.

The EXIF turn is applied, CMYK and palettes are converted, transparency is laid on white, 16-bit and floating point
greys are scaled to eight bits rather than clipped. What is ambiguous or damaged is refused with a reason.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ravl.errors import DataError


def decode(path: Path | BinaryIO) -> Image.Image:
    """Read an image file as an upright RGB image.

    Raises DataError with the reason in a few words: missing, empty, truncated, not an image, animated, too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", message=".*(Corrupt EXIF|Truncated File Read|Metadata Warning).*")
            with Image.open(path) as opened:
                frames = getattr(opened, "n_frames", 1)
                if frames > 1:
                    raise DataError(f"has {frames} frames; save the frame to audit as a file of its own")
                opened.load()
                return to_rgb(ImageOps.exif_transpose(opened))
    except FileNotFoundError:
        raise DataError("does not exist") from None
    except UnidentifiedImageError:
        empty = isinstance(path, Path) and path.stat().st_size == 0
        raise DataError("is empty (0 bytes)" if empty else "is not an image that can be read") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise DataError("has more pixels than is safe to decode; scale it down") from None
    except PermissionError:
        raise DataError("may not be read; permission is denied") from None
    except IsADirectoryError:
        raise DataError("is a folder, not an image") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError) as error:
        # Pillow raises any of these for damaged files, depending on the format
        raise DataError(f"is damaged or truncated ({error})") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB. 16-bit values are divided by 257; 32-bit and float greys are stretched from minimum to maximum,
    unless floats already lie in 0 .. 1."""
    if image.mode.startswith("I;16"):
        return _grey(np.asarray(image, np.float64) / 257)
    if image.mode in ("I", "F"):
        values = np.asarray(image, np.float64)
        if image.mode == "I" and values.min() >= 0 and 255 < values.max() <= 65535:
            return _grey(values / 257)  # 16-bit PNG in older Pillow
        if image.mode == "F" and np.nanmin(values) >= 0 and np.nanmax(values) <= 1:
            return _grey(values * 255)
        low, high = np.nanmin(values), np.nanmax(values)
        return _grey((values - low) / (high - low) * 255 if high > low else np.zeros_like(values))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layered).convert("RGB")
    return image.convert("RGB")


def _grey(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Image.Image:
    eight = np.clip(np.nan_to_num(values).round(), 0, 255).astype(np.uint8)
    return Image.fromarray(eight).convert("RGB")
