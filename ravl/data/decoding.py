"""The one decoding rule: a file becomes an upright 8-bit RGB image, or is refused with the reason.

What a file is, its content says, not its name. DICOM files have a rule of their own (`ravl.data.dicom`).

The EXIF turn is applied. Transparent pixels are laid on white. Grey of more than 8 bits is scaled, never clipped (see
`_grey`). CMYK is converted without its colour profile. Files of several frames are refused, because it is unclear which
one was audited; the exception is MPO, what phones and cameras call .jpg, whose first frame is the photograph.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from ravl.errors import DataError

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")  # by content; none of these starts another program
_MAX_BYTES = 2**30  # no image below the pixel limit is larger

# what Pillow's readers raise on bytes that are not what they should be
_DAMAGED: tuple[type[Exception], ...] = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError)
_DAMAGED += (AttributeError, OverflowError, struct.error, zlib.error)
_DAMAGED += (AssertionError,)  # Pillow asserts that a palette image has its palette

_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262

_warning_filters = threading.Lock()


def decode(path: Path | str) -> Image.Image:
    """Read one image file as upright 8-bit RGB.

    Raises DataError with one sentence when the file is missing, empty, truncated, no image, of several frames, or has
    more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    try:
        return decode_bytes(read_file(path))
    except DataError as error:
        raise DataError(f"{path} {error}.") from error


def read_file(path: Path | str) -> bytes:
    """The bytes of a regular file. Raises DataError whose message continues the sentence that begins with the path."""
    try:
        about = os.stat(path)
        # a pipe or a device would block for ever
        if not stat.S_ISREG(about.st_mode):
            raise DataError("is not a file")
        if about.st_size > _MAX_BYTES:
            raise DataError(f"has {about.st_size / 2**30:.1f} GiB, more than the 1 GiB that is read; scale it down")
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError("does not exist") from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})") from error
    except ValueError as error:  # a NUL character in the path
        raise DataError(f"cannot be read ({error})") from error
    if not data:
        raise DataError("is empty (0 bytes)")
    return data


@dataclass(frozen=True)
class Decoded:
    """An upright RGB image, and the allowed header values of a DICOM file (see `ravl.data.dicom`)."""

    image: Image.Image
    headers: dict[str, str] = field(default_factory=dict)


def decoded(data: bytes, frames: str = "refuse", salt: str = "") -> Decoded:
    """Decode a file's content, DICOM too. Raises DataError with a message as that of `read_file`.

    frames: of a DICOM file with several: `first`, `middle`, or `refuse` it. salt: key for the patient's pseudonym.
    """
    if data[128:132] == b"DICM":
        from ravl.data.dicom import decode_dicom  # optional, and slow to import

        shown = decode_dicom(data, frames, salt)
        return Decoded(Image.fromarray(shown.pixels).convert("RGB"), shown.headers)
    return Decoded(_decode_picture(data))


def decode_bytes(data: bytes, frames: str = "refuse") -> Image.Image:
    """Decode a file's content as `decode` does. Raises DataError with a message as that of `read_file`."""
    return decoded(data, frames).image


def _decode_picture(data: bytes) -> Image.Image:
    try:
        with _pillow_warnings():
            image: Image.Image = Image.open(io.BytesIO(data), formats=_FORMATS)
            frames = int(getattr(image, "n_frames", 1))
            if image.format == "TIFF":
                image.getexif().get(ExifTags.Base.Orientation)  # kept by the image; else `load` reads it, and warns
        if frames > 1 and image.format != "MPO":
            raise DataError(f"has {frames} frames; export the frame to audit as a file of its own")
        limit = Image.MAX_IMAGE_PIXELS
        # Pillow's warning is the same check, but other threads may change the filters that make it an error
        if limit is not None and image.width * image.height > limit:
            raise Image.DecompressionBombError
        image.load()
        turn = _TURN.get(_orientation(image))
        rgb = _rgb(image)
        rgb = rgb if turn is None else rgb.transpose(turn)
    except UnidentifiedImageError:
        raise DataError(f"is not an image that can be read ({', '.join(_FORMATS)}); save it as PNG or JPEG") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"has more than {Image.MAX_IMAGE_PIXELS} pixels; scale it down") from None
    except MemoryError:
        raise DataError("needs more memory than there is; scale it down") from None
    except _DAMAGED as error:
        reason = str(error).rstrip(".") or type(error).__name__
        raise DataError(f"is damaged or truncated ({reason}); copy it again") from error
    rgb.info = {}  # camera position and names must not travel with crops
    return rgb


@contextmanager
def _pillow_warnings() -> Iterator[None]:
    """Make Pillow's size warning an error and drop those about metadata, which do not concern the pixels."""
    with _warning_filters, warnings.catch_warnings():  # the filters belong to the process: one thread at a time
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _orientation(image: Image.Image) -> Any:
    """The EXIF orientation, 1..8; 1 when the EXIF data cannot be read, as in browsers."""
    try:
        with _pillow_warnings():
            return image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DAMAGED:
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_grey(image)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), layer).convert("RGB")
    if image.mode not in ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr"):
        raise DataError(f"has the colour mode {image.mode}; save it as RGB or grey")
    return image.convert("RGB")


def _grey(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W) 8-bit grey of an image of more bits.

    16 bits: the high byte, as Pillow does for 16-bit colour; so the full range of the format counts, not the range that
    an image happens to use, and images stay comparable. 12-bit TIFF: the high 8 bits. 32-bit integers: as 16 bits where
    all values lie in 0 .. 65535, else stretched from the image's minimum to its maximum. Floats: 0 .. 1 is black to
    white; where values lie outside, stretched likewise. A fully transparent grey (PNG) is white.
    """
    value = np.asarray(image)
    if image.mode.startswith("I;16"):
        tags: Any = getattr(image, "tag_v2", {})
        level = value >> (4 if tags.get(_TIFF_BITS) == (12,) else 8)
        if tags.get(_TIFF_PHOTOMETRIC) == 0:  # white is zero; Pillow inverts 8-bit images only
            level = 255 - level
        clear = image.info.get("transparency")
        return (np.where(value == clear, 255, level) if isinstance(clear, int) else level).astype(np.uint8)
    if not np.isfinite(value).all():
        raise DataError("holds values that are not finite; replace them")
    low, high = float(value.min()), float(value.max())
    if image.mode == "I" and low >= 0 and high <= 65535:
        return (value >> 8).astype(np.uint8)
    if image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    scaled = (value.astype(np.float64) - low) / (high - low) if high > low else np.zeros(value.shape)
    return np.rint(255 * scaled).astype(np.uint8)
