"""DICOM files: one frame becomes 8-bit grey or RGB, and of the headers only an allow-list is ever read.

The order is that of the standard (PS3.3 C.11, C.7.6.3.1.2; PS3.4 N.2): stored values, modality LUT or rescale, VOI LUT
or window, and, where the photometric interpretation is MONOCHROME1, one inversion. Where a file states no window, the
range of its own values is shown; which of these was done is recorded. Padding is black.

No value of any other header is parsed, and no message repeats one: messages of pydicom are replaced, because they quote
what they could not read. The patient's id leaves here only as a keyed digest.
"""

from __future__ import annotations

import io
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ravl.data.hiding import keyed
from ravl.errors import DataError

FRAMES = ("refuse", "first", "middle")
"""Which frame of a file with several is meant."""

_DEFLATED = "1.2.840.10008.1.2.1.99"
_PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")  # not compressed
_TAGS = (
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel", "PlanarConfiguration"),
    *("Rows", "Columns", "NumberOfFrames", "PhotometricInterpretation", "PixelData", "FloatPixelData"),
    *("DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelPaddingValue"),
    *("PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "SharedFunctionalGroupsSequence"),
    *("PerFrameFunctionalGroupsSequence", "RedPaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData"),
    *("GreenPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableData"),
    *("BluePaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableData"),
    *("Modality", "ViewPosition", "Manufacturer", "BurnedInAnnotation", "PatientID"),
)
_CODE = re.compile(r"[A-Z0-9_ ]{1,16}")  # what the standard allows in a code string
_NAME = re.compile(r"[\w .,&+/()-]{1,64}")

_ADVICE = {
    "JPEG Lossless": "which needs python-gdcm, no part of ravl: pip install python-gdcm, or decompress the file",
    "JPEG-LS": "which needs pyjpegls, no part of ravl: pip install pyjpegls, or decompress the file",
    "JPEG Extended": "of which only 8 bits are read; decompress the file",
    "JPEG 2000": "which needs the extra dicom: pip install 'ravl-dashboard[dicom]'",
    "RLE": "which needs the extra dicom: pip install 'ravl-dashboard[dicom]'",
}
_UNKNOWN = "which is not read; decompress the file"

_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Shown:
    """pixels: (H, W) or (H, W, 3) uint8. headers: modality, photometric, view_position, manufacturer, burned_in,
    rendering (how values became grey) and patient (a keyed digest), each a text, "" where the file does not say.
    """

    pixels: NDArray[np.uint8]
    headers: dict[str, str]


def decode_dicom(data: bytes, frames: str, salt: str) -> Shown:
    """Decode the content of a DICOM file. frames: one of FRAMES. salt: hexadecimal key, or nothing: no patient.

    Raises DataError with a message that continues the sentence which begins with the file's name.
    """
    try:
        import pydicom
    except ImportError:
        raise DataError("is a DICOM file, which needs pydicom: pip install 'ravl-dashboard[dicom]'") from None
    with _silent():
        dataset = _read(pydicom, data)
        frame, count = _frame(dataset, frames)
        values = _stored(pydicom, dataset, data, frame)
        pixels, rendering = _grey(dataset, values, frame) if values.ndim == 2 else (_colour(dataset, values), "colour")
        if count > 1:
            rendering += f", frame {frame + 1} of {count}"
        return Shown(pixels, _headers(dataset, rendering, salt))


@contextmanager
def _silent() -> Iterator[None]:
    """What pydicom says may reach no log: it quotes header values. Filters belong to the process: one at a time."""
    logger = logging.getLogger("pydicom")
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, logger.disabled = logger.disabled, True
        try:
            yield
        finally:
            logger.disabled = before


def _read(pydicom: Any, data: bytes) -> Any:
    try:
        if _syntax(data) == _DEFLATED:  # a few bytes may become gigabytes
            raise DataError("is a deflated DICOM file, which is not read; save it uncompressed")
        return pydicom.dcmread(io.BytesIO(data), specific_tags=list(_TAGS))
    except DataError:
        raise
    except Exception:  # noqa: BLE001 - whatever is wrong with hostile bytes, the file is unusable and its text unsayable
        raise DataError("is a damaged DICOM file; copy it again") from None


def _syntax(data: bytes) -> str:
    """The transfer syntax of the file meta information (explicit, little endian); pydicom would inflate first."""
    place = 132
    while data[place : place + 2] == b"\x02\x00":
        kind = data[place + 4 : place + 6]
        long = kind in (b"OB", b"OW", b"OF", b"SQ", b"UT", b"UN")
        start = place + (12 if long else 8)
        length = int.from_bytes(data[place + 8 : start] if long else data[place + 6 : start], "little")
        if data[place + 2 : place + 4] == b"\x10\x00":
            return data[start : start + length].rstrip(b"\0 ").decode("ascii", "replace")
        place = start + length
    return ""


def _frame(dataset: Any, frames: str) -> tuple[int, int]:
    """Number of the frame that is shown, from 0, and how many there are."""
    count = _whole(dataset.get("NumberOfFrames"), 1)
    rows, columns = (_whole(dataset.get(name), 0) for name in ("Rows", "Columns"))
    if rows < 1 or columns < 1 or count < 1:
        raise DataError("is a DICOM file without an image")
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and rows * columns > limit:
        raise DataError(f"has more than {limit} pixels; scale it down")
    if count > 1 and frames == "refuse":
        raise DataError(f"has {count} frames; say which one to audit with --frames first or --frames middle")
    return (count // 2 if frames == "middle" else 0), count


def _whole(value: Any, missing: int) -> int:
    try:
        return missing if value is None else int(str(value))
    except ValueError:
        raise DataError("is a DICOM file with a damaged header; copy it again") from None


def _stored(pydicom: Any, dataset: Any, data: bytes, frame: int) -> NDArray[Any]:
    """(H, W), or (H, W, 3) RGB, as the file holds them."""
    syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    if syntax is None:
        raise DataError("is a damaged DICOM file; copy it again")
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise DataError("is a DICOM file without an image")
    _check_decoder(pydicom, syntax)
    try:
        many = _whole(dataset.get("NumberOfFrames"), 1) > 1
        values: NDArray[Any] = pydicom.pixels.pixel_array(dataset, index=frame if many else None)
        if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
            values = pydicom.pixels.apply_color_lut(values, dataset)[..., :3]
    except MemoryError:
        raise DataError("needs more memory than there is; scale it down") from None
    except Exception:  # noqa: BLE001 - as above
        compressed = f" ({_plain(syntax)})" if str(syntax) not in _PLAIN else ""
        raise DataError(f"has pixels that cannot be decoded{compressed}; copy or convert it again") from None
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] != 3) or 0 in values.shape:
        raise DataError("is a DICOM file of an unknown shape; save it as PNG")
    return values


def _check_decoder(pydicom: Any, syntax: Any) -> None:
    """Raise DataError that says what a compressed transfer syntax needs."""
    if str(syntax) in _PLAIN:
        return
    try:
        available = pydicom.pixels.get_decoder(syntax).is_available
    except (NotImplementedError, ValueError):
        available = False
    if not available:
        name = _plain(syntax)
        advice = next((text for start, text in _ADVICE.items() if name.startswith(start)), _UNKNOWN)
        raise DataError(f"is compressed as {name}, {advice}")


def _plain(syntax: Any) -> str:
    """The registered name of a transfer syntax; a private one is not repeated."""
    return "a private format" if syntax.is_private or syntax.name == str(syntax) else str(syntax.name)


# --- from values to grey ---------------------------------------------------------------------------------------------


def _grey(dataset: Any, values: NDArray[Any], frame: int) -> tuple[NDArray[np.uint8], str]:
    """Modality LUT, VOI LUT, inversion; and in words what was done."""
    padding = _padding(dataset, values)
    try:
        modal, said = _modality(dataset, values, frame)
        level, how = _voi(dataset, modal, padding, frame)
    except DataError:
        raise
    except Exception:  # noqa: BLE001 - lookup tables of hostile files
        raise DataError("has a lookup table that cannot be applied; save it as PNG") from None
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        level = 1 - level
        how += ", inverted"
    level[padding] = 0
    return np.rint(255 * level.clip(0, 1)).astype(np.uint8), said + how


def _padding(dataset: Any, values: NDArray[Any]) -> NDArray[np.bool_]:
    """(H, W) pixels that hold no image."""
    first, last = (dataset.get(name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if not isinstance(first, int):
        return np.zeros(values.shape, bool)
    low, high = sorted((first, last if isinstance(last, int) else first))
    inside: NDArray[np.bool_] = (values >= low) & (values <= high)
    return inside if not inside.all() else np.zeros(values.shape, bool)


def _modality(dataset: Any, values: NDArray[Any], frame: int) -> tuple[NDArray[np.floating[Any]], str]:
    kind = np.float32 if values.dtype.itemsize <= 2 else np.float64
    if dataset.get("ModalityLUTSequence"):
        from pydicom.pixels.processing import apply_modality_lut

        return apply_modality_lut(values, dataset).astype(np.float64), "modality LUT, "
    part = _functional(dataset, "PixelValueTransformationSequence", frame, "RescaleSlope")
    slope, intercept = _number(part.get("RescaleSlope")), _number(part.get("RescaleIntercept"))
    if slope is None and intercept is None:
        return values.astype(kind), ""
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    if slope == 0:
        raise DataError("has a rescale slope of 0, so every pixel is equal; export it again")
    return (values.astype(np.float64) * slope + intercept).astype(kind), f"rescaled by {slope:g} and {intercept:g}, "


def _voi(
    dataset: Any, values: NDArray[np.floating[Any]], padding: NDArray[np.bool_], frame: int
) -> tuple[NDArray[np.floating[Any]], str]:
    """(H, W) from 0 to 1, by the first VOI LUT, else by the first window, else by the range of the values."""
    if not np.isfinite(values).all():
        raise DataError("holds values that are not finite; replace them")
    if dataset.get("VOILUTSequence"):
        from pydicom.pixels.processing import apply_voi

        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        table = apply_voi(values.astype(np.int64), dataset)
        return table.astype(np.float64) / (2**bits - 1), "VOI LUT"
    part = _functional(dataset, "FrameVOILUTSequence", frame, "WindowCenter")
    center, width = _number(part.get("WindowCenter")), _number(part.get("WindowWidth"))
    function = str(part.get("VOILUTFunction") or "LINEAR")
    if center is not None and width is not None and width >= (1 if function == "LINEAR" else 1e-9):
        return windowed(values, center, width, function), f"window {center:g} / {width:g}"
    shown = values[~padding]
    low, high = float(shown.min()), float(shown.max())
    level = (values - low) / (high - low) if high > low else np.zeros(values.shape)
    return level.astype(values.dtype), f"no window, values {low:g} to {high:g}"


def windowed(
    values: NDArray[np.floating[Any]], center: float, width: float, function: str = "LINEAR"
) -> NDArray[np.floating[Any]]:
    """Values through a window, 0 to 1 (PS3.3 C.11.2.1.2 and C.11.2.1.3). function: LINEAR, LINEAR_EXACT or SIGMOID.

    LINEAR: ((x - (c - 0.5)) / (w - 1) + 0.5), cut to 0 .. 1; with w = 1 a threshold at c - 0.5. LINEAR_EXACT: ((x - c)
    / w + 0.5), cut. SIGMOID: 1 / (1 + exp(-4 (x - c) / w)). Any other function is taken for LINEAR.
    """
    if function == "SIGMOID":
        level: NDArray[np.floating[Any]] = 1 / (1 + np.exp((-4 * (values - center) / width).clip(-80, 80)))
        return level
    if function == "LINEAR_EXACT":
        return ((values - center) / width + 0.5).clip(0, 1)
    if width == 1:
        return (values > center - 0.5).astype(values.dtype)
    return ((values - (center - 0.5)) / (width - 1) + 0.5).clip(0, 1)


def _functional(dataset: Any, sequence: str, frame: int, name: str) -> Any:
    """Where a value of one frame stands: in the file itself, else in the frame's or the shared functional groups."""
    if name in dataset:
        return dataset
    per_frame, shared = (dataset.get(f"{part}FunctionalGroupsSequence") for part in ("PerFrame", "Shared"))
    groups = [per_frame[frame]] if per_frame and frame < len(per_frame) else []
    for group in (*groups, *(shared or ())[:1]):
        if group.get(sequence):
            return group[sequence].value[0]
    return dataset


def _number(value: Any) -> float | None:
    """The first of perhaps several numbers; None where there is none."""
    if value is None or value == "":
        return None
    if not isinstance(value, (int, float, str)):
        value = value[0] if len(value) else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _colour(dataset: Any, values: NDArray[Any]) -> NDArray[np.uint8]:
    """The high 8 bits of every channel."""
    if values.dtype == np.uint8:
        return values
    bits = 16 if dataset.get("PhotometricInterpretation") == "PALETTE COLOR" else _whole(dataset.get("BitsStored"), 16)
    return (values >> max(0, bits - 8)).clip(0, 255).astype(np.uint8)


# --- what is said about a file ---------------------------------------------------------------------------------------


def _headers(dataset: Any, rendering: str, salt: str) -> dict[str, str]:
    """The allow-list; what is no value of its kind is dropped, so that no free text comes through a code."""
    patient = str(dataset.get("PatientID") or "").strip()
    return {
        "modality": _kept(dataset.get("Modality"), _CODE),
        "photometric": _kept(dataset.get("PhotometricInterpretation"), _CODE),
        "view_position": _kept(dataset.get("ViewPosition"), _CODE),
        "manufacturer": _kept(dataset.get("Manufacturer"), _NAME),
        "burned_in": _kept(dataset.get("BurnedInAnnotation"), re.compile("YES|NO")),
        "rendering": rendering,
        "patient": keyed(patient, salt) if patient and salt else "",
    }


def _kept(value: Any, form: re.Pattern[str]) -> str:
    text = str(value or "").strip()
    return text if form.fullmatch(text) else ""
