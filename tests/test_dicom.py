"""DICOM files: the order of the lookup tables, windows, frames, compression, and what is never said."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels import apply_windowing
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from ravl.data import Reading, load_images, read_images
from ravl.data.decoding import decode_bytes, decoded
from ravl.data.dicom import windowed
from ravl.data.report import describe, text
from ravl.errors import DataError
from tests.medical import CANARIES, SALT, dicom, written

LEVELS = np.array([[0, 1000, 2000], [3000, 4000, 4095]], np.uint16)


def grey(dataset: FileDataset, **options: Any) -> list[list[int]]:
    found = np.asarray(decode_bytes(written(dataset), **options))
    assert (found == found[..., :1]).all()
    return found[..., 0].tolist()


def rendering(dataset: FileDataset) -> str:
    return decoded(written(dataset)).headers["rendering"]


def test_without_a_window_the_range_of_the_values_is_shown() -> None:
    dataset = dicom(LEVELS)
    assert grey(dataset) == [[0, 62, 125], [187, 249, 255]]
    assert rendering(dataset) == "no window, values 0 to 4095"


def test_a_window_cuts() -> None:
    dataset = dicom(LEVELS, WindowCenter=2000, WindowWidth=2000)
    assert grey(dataset) == [[0, 0, 128], [255, 255, 255]]
    assert rendering(dataset) == "window 2000 / 2000"


def test_of_several_windows_the_first_counts() -> None:
    several = dicom(LEVELS, WindowCenter=[2000, 100], WindowWidth=[2000, 5])
    assert grey(several) == grey(dicom(LEVELS, WindowCenter=2000, WindowWidth=2000))


def test_the_rescale_comes_before_the_window() -> None:
    """Hounsfield units: the window speaks of the rescaled values."""
    dataset = dicom(LEVELS, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
    expected = windowed(LEVELS.astype(float) - 1024, 40, 400)
    assert grey(dataset) == np.rint(255 * expected).astype(int).tolist()
    assert rendering(dataset) == "rescaled by 1 and -1024, window 40 / 400"


def test_monochrome1_is_inverted_once_and_last() -> None:
    plain, inverted = (
        grey(dicom(LEVELS, PhotometricInterpretation=kind, WindowCenter=2000, WindowWidth=2000))
        for kind in ("MONOCHROME2", "MONOCHROME1")
    )
    assert (np.array(plain) + inverted == 255).all()
    assert inverted[0][0] == 255
    # a presentation LUT shape says the same again, and must not turn it back
    again = dicom(LEVELS, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE", WindowCenter=2000)
    again.WindowWidth = 2000
    assert grey(again) == inverted


def table(values: list[int], first: int, bits: int) -> Sequence:
    item = Dataset()
    item.LUTDescriptor = [len(values), first, bits]
    item.add_new("LUTData", "US", values)
    return Sequence([item])


def test_a_voi_lut_goes_before_a_window() -> None:
    dataset = dicom(np.array([[0, 1, 2, 3]], np.uint16), WindowCenter=100, WindowWidth=1)
    dataset.VOILUTSequence = table([0, 255, 51, 102], 0, 8)
    assert grey(dataset) == [[0, 255, 51, 102]]
    assert rendering(dataset) == "VOI LUT"


def test_a_modality_lut_comes_first() -> None:
    dataset = dicom(np.array([[0, 1, 2]], np.uint16), WindowCenter=150.5, WindowWidth=101)
    dataset.ModalityLUTSequence = table([100, 200, 150], 0, 16)
    dataset.ModalityLUTSequence[0].ModalityLUTType = "US"
    assert grey(dataset) == [[0, 255, 128]]
    assert rendering(dataset) == "modality LUT, window 150.5 / 101"


@given(
    center=st.integers(-2000, 4000),
    width=st.integers(2, 5000),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    signed=st.booleans(),
)
def test_windows_are_those_of_pydicom(center: int, width: int, function: str, signed: bool) -> None:
    values = np.linspace(-1000 if signed else 0, 4000, 40).astype(np.int16 if signed else np.uint16)[None]
    dataset = dicom(values, WindowCenter=center, WindowWidth=width, VOILUTFunction=function, BitsStored=16, HighBit=15)
    with np.errstate(over="ignore"):
        expected = apply_windowing(values, dataset)  # scaled to the range of the stored bits
    low, high = (-(2**15), 2**15 - 1) if signed else (0, 2**16 - 1)
    np.testing.assert_allclose(
        windowed(values.astype(float), center, width, function), (expected - low) / (high - low), atol=1e-12
    )


@pytest.mark.parametrize(("center", "width"), [(2000, 0), (2000, -5), (None, 3), ("", "")])
def test_a_window_that_is_none_is_not_used(center: Any, width: Any) -> None:
    dataset = dicom(LEVELS, WindowCenter=center, WindowWidth=width)
    assert grey(dataset) == grey(dicom(LEVELS))


def test_padding_is_black_and_stretches_nothing() -> None:
    values = np.array([[-2000, 0, 100]], np.int16)
    for kind, expected in (("MONOCHROME2", [0, 0, 255]), ("MONOCHROME1", [0, 255, 0])):
        dataset = dicom(values, PhotometricInterpretation=kind)
        dataset.add_new("PixelPaddingValue", "SS", -2000)
        assert grey(dataset) == [expected]


def test_a_picture_of_one_value_is_black() -> None:
    assert grey(dicom(np.full((2, 2), 7, np.uint16))) == [[0, 0], [0, 0]]


# --- frames ----------------------------------------------------------------------------------------------------------


def stack() -> FileDataset:
    return dicom(np.stack([np.full((2, 3), 1000 * k, np.uint16) + [0, 1, 2] for k in range(4)]))


def test_several_frames_need_a_policy() -> None:
    with pytest.raises(
        DataError, match=r"^has 4 frames; say which one to audit with --frames first or --frames middle$"
    ):
        decode_bytes(written(stack()))
    first, middle = (decoded(written(stack()), policy) for policy in ("first", "middle"))
    assert first.headers["rendering"] == "no window, values 0 to 2, frame 1 of 4"
    assert middle.headers["rendering"] == "no window, values 2000 to 2002, frame 3 of 4"


def test_windows_of_functional_groups() -> None:
    """Enhanced CT and MR keep windows and rescale per frame, or for all frames."""
    dataset = stack()
    window, rescale, shared = Dataset(), Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 1001, 3
    rescale.RescaleSlope, rescale.RescaleIntercept = 1, -1000
    shared.PixelValueTransformationSequence = Sequence([rescale])
    frames = []
    for k in range(4):
        frame, own = Dataset(), Dataset()
        own.WindowCenter, own.WindowWidth = 1000 * (k - 1) + 1.5, 3
        frame.FrameVOILUTSequence = Sequence([own])
        frames.append(frame)
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    found = decoded(written(dataset), "middle")
    assert found.headers["rendering"] == "rescaled by 1 and -1000, window 1001.5 / 3, frame 3 of 4"
    assert np.asarray(found.image)[0, :, 0].tolist() == [0, 128, 255]


# --- colour and compression ------------------------------------------------------------------------------------------


def test_rgb_stays_as_it_is() -> None:
    values = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    found = decode_bytes(written(dicom(values, PhotometricInterpretation="RGB")))
    np.testing.assert_array_equal(np.asarray(found), values)


def test_a_palette_is_looked_up() -> None:
    dataset = dicom(np.array([[0, 1]], np.uint8), PhotometricInterpretation="PALETTE COLOR")
    for colour, levels in (("Red", (255, 0)), ("Green", (0, 128)), ("Blue", (10, 20))):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [2, 0, 16])
        data = (np.array(levels, np.uint16) * 257).tobytes()
        setattr(dataset, f"{colour}PaletteColorLookupTableData", data)
    assert np.asarray(decode_bytes(written(dataset)))[0].tolist() == [[255, 0, 10], [0, 128, 20]]


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, ImplicitVRLittleEndian])
def test_lossless_compression_changes_nothing(syntax: str) -> None:
    values = np.random.default_rng(1).integers(0, 4096, (64, 48), np.uint16)
    dataset = dicom(values)
    expected = grey(dataset)
    if syntax == ImplicitVRLittleEndian:
        dataset.file_meta.TransferSyntaxUID = syntax
    else:
        dataset.compress(syntax)
    assert grey(dataset) == expected


@pytest.mark.parametrize(
    ("syntax", "message"),
    [
        (JPEGLosslessSV1, r"^is compressed as JPEG Lossless, .*, which needs python-gdcm, no part of ravl"),
        (JPEGLSLossless, r"^is compressed as JPEG-LS Lossless .*, which needs pyjpegls, no part of ravl"),
        ("1.2.840.10008.1.2.4.102", r"^is compressed as MPEG-4 .*, which is not read; decompress the file$"),
        ("1.2.3.4.777", r"^(is compressed as a private format, which is not read|is a damaged DICOM file)"),
    ],
)
def test_compression_that_is_not_read_says_what_it_needs(syntax: str, message: str) -> None:
    dataset = dicom(LEVELS)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    with pytest.raises(DataError, match=message):
        decode_bytes(written(dataset, enforce=False))


# --- hostile files ---------------------------------------------------------------------------------------------------


def test_a_deflated_file_is_refused_before_it_is_inflated() -> None:
    dataset = dicom(LEVELS)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    with pytest.raises(DataError, match="deflated"):
        decode_bytes(written(dataset))


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    with pytest.raises(DataError, match="has more than 5 pixels"):
        decode_bytes(written(dicom(LEVELS)))


@pytest.mark.parametrize("name", ["Rows", "PixelData", "BitsAllocated", "SamplesPerPixel", "PhotometricInterpretation"])
def test_a_file_without_what_it_needs(name: str) -> None:
    dataset = dicom(LEVELS)
    del dataset[name]
    with pytest.raises(DataError):
        decode_bytes(written(dataset))


PLANTED = written(dicom(LEVELS, True, WindowCenter=2000, WindowWidth=500))


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12), st.floats(0.2, 1))
def test_damaged_bytes_give_a_picture_or_a_reason(damage: list[tuple[float, int]], share: float) -> None:
    data = bytearray(PLANTED)
    for place, value in damage:
        data[int(place * (len(data) - 1))] = value
    data[128:132] = b"DICM"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said = ""
        try:
            assert decode_bytes(bytes(data[: max(140, int(share * len(data)))])).mode == "RGB"
        except DataError as error:
            said = str(error)
    assert not any(word in said for word in CANARIES)


def test_without_pydicom_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match=r"needs pydicom: pip install 'ravl-dashboard\[dicom\]'"):
        decode_bytes(written(dicom(LEVELS)))


def test_a_picture_with_nonsense_numbers() -> None:
    dataset = dicom(np.array([[np.nan, 1.0]], np.float32))
    with pytest.raises(DataError, match="not finite"):
        decode_bytes(written(dataset))
    with pytest.raises(DataError, match="slope of 0"):
        decode_bytes(written(dicom(LEVELS, RescaleSlope=0, RescaleIntercept=3)))


# --- what is read of the headers -------------------------------------------------------------------------------------


def test_only_the_allowed_headers_are_kept() -> None:
    dataset = dicom(
        LEVELS, True, Modality="CR", ViewPosition="PA", Manufacturer="Acme Imaging", BurnedInAnnotation="YES"
    )
    found = decoded(written(dataset), salt=SALT).headers
    patient = found.pop("patient")
    assert len(patient) == 16
    assert found == {
        "modality": "CR",
        "photometric": "MONOCHROME2",
        "view_position": "PA",
        "manufacturer": "Acme Imaging",
        "burned_in": "YES",
        "rendering": "no window, values 0 to 4095",
    }


def test_free_text_does_not_come_through_a_code() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dicom(LEVELS, Modality="Jane Doe", ViewPosition="born 1.2.1950", BurnedInAnnotation="Jane")
    found = decoded(written(dataset)).headers
    assert (found["modality"], found["view_position"], found["burned_in"]) == ("", "", "")


def test_the_patients_digest_follows_the_key() -> None:
    data = written(dicom(LEVELS))
    same, other = (decoded(data, salt=salt).headers["patient"] for salt in (SALT, "ff" * 32))
    assert same == decoded(data, salt=SALT).headers["patient"]
    assert same != other
    assert decoded(data).headers["patient"] == ""


# --- sets ------------------------------------------------------------------------------------------------------------


def medical_folder(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for y, name in enumerate(("effusion", "clear")):
        (root / name).mkdir(parents=True)
        for i in range(4):
            ending = ("", ".dcm", ".7", ".DCM")[i]
            values = rng.integers(0, 4096, (12, 10), np.uint16)
            path = root / name / f"{CANARIES[0]}_{y}{i}{ending}"
            path.write_bytes(written(dicom(values, True, Modality="CR", ViewPosition=("PA", "AP")[i % 2])))
    return root


def test_a_folder_of_dicom_files_shows_no_name(tmp_path: Path) -> None:
    images = read_images(medical_folder(tmp_path), reading=Reading(salt=SALT))
    assert len(images) == 8
    assert images.groups == {}
    assert set(images.headers["view_position"]) == {"PA", "AP"}
    assert not any(word in " ".join(images.file) for word in CANARIES)
    assert len(set(images.file)) == 8
    assert [picture.size for picture in load_images(images, range(8))] == [(10, 12)] * 8
    again = read_images(tmp_path, reading=Reading(salt=SALT))
    assert again.file.tolist() == images.file.tolist()
    other = read_images(tmp_path)
    assert set(other.file).isdisjoint(images.file)
    assert other.fingerprint == images.fingerprint  # the same audit, whatever stands for the names


def test_text_that_is_burned_in_is_told(tmp_path: Path) -> None:
    for y, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        data = written(dicom(LEVELS + np.uint16(y), BurnedInAnnotation="YES"))
        (tmp_path / name / "x.dcm").write_bytes(data)
    document = describe(read_images(tmp_path))
    assert document["dicom"] == {"n": 2, "burned_in": 2, "patients": 1, "rendering": {"no window": 2}}
    assert "2 say that text is burned into the picture" in text(document)


def test_an_unreadable_file_is_listed_without_its_name(tmp_path: Path) -> None:
    medical_folder(tmp_path)
    (tmp_path / "clear" / f"{CANARIES[0]}.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 60)
    (tmp_path / f"{CANARIES[0]}.dcm").write_bytes(b"")
    images = read_images(tmp_path, max_unreadable=0.5)
    assert len(images.skipped) == 2
    assert CANARIES[0] not in str(images.skipped)
    with pytest.raises(DataError) as caught:
        read_images(tmp_path, max_unreadable=0)
    assert CANARIES[0] not in str(caught.value)


def test_a_file_that_is_gone_is_told_without_its_name(tmp_path: Path) -> None:
    images = read_images(medical_folder(tmp_path))
    for path in tmp_path.rglob(f"{CANARIES[0]}*"):
        path.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        load_images(images, [0])
    assert CANARIES[0] not in str(caught.value)
    for path in tmp_path.rglob(f"{CANARIES[0]}*"):
        path.unlink()


def test_other_names_are_hidden_on_request(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4), "red" if name == "a" else "blue").save(tmp_path / name / f"{CANARIES[0]}.png")
    images = read_images(tmp_path, reading=Reading(hide_names=True))
    assert CANARIES[0] not in str(images.file)
    assert len(load_images(images, [0, 1])) == 2
