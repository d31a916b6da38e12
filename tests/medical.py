"""DICOM files made by pydicom, with an identifier planted in every header that can hold one; and how to look for it."""

from __future__ import annotations

import io
import re
import sqlite3
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

import ravl
from ravl.planted import medical
from ravl.planted.demos import DEMOS
from ravl.store import AuditRun

CANARIES = ("ZZQUILLFEATHER", "19500102", "9988776655", "1.2.826.0.1.3680043.2.1143.424242")
"""A name, a birth date, a number and an identifier that must never be seen again."""

SALT = "0123456789abcdef" * 4

_TEXT = ("PN", "LO", "SH", "LT", "ST", "UT", "AE", "UC", "UR")
_SKIPPED = ("Manufacturer",)  # on the allow-list, and free text


def dicom(values: NDArray[Any], planted: bool = False, **headers: Any) -> FileDataset:
    """A file with these stored values, (H, W), (F, H, W) of frames or (H, W, 3) of uint8.

    12 bits are stored of unsigned 16-bit values, else all of them. planted: with an identifier in every header that can
    hold one, which takes 70 ms.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # planted values break the rules of many headers
        return _dicom(values, planted, headers)


def _dicom(values: NDArray[Any], planted: bool, headers: dict[str, Any]) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    meta.MediaStorageSOPInstanceUID = CANARIES[3]
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.PatientID = CANARIES[2]
    if planted:
        _plant(dataset)
    colour = values.ndim == 3 and values.shape[-1] == 3 and values.dtype == np.uint8
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    elif values.ndim == 3:
        dataset.NumberOfFrames = len(values)
    dataset.Rows, dataset.Columns = values.shape[-3:-1] if colour else values.shape[-2:]
    if values.dtype == np.float32:
        dataset.BitsAllocated = 32
        dataset.FloatPixelData = values.tobytes()
    else:
        dataset.BitsAllocated = 8 * values.dtype.itemsize
        dataset.BitsStored = 12 if values.dtype == np.uint16 else dataset.BitsAllocated
        dataset.HighBit = dataset.BitsStored - 1
        dataset.PixelRepresentation = int(values.dtype.kind == "i")
        dataset.PixelData = values.tobytes() + b"\0" * (values.nbytes % 2)
        dataset["PixelData"].VR = "OB" if values.dtype.itemsize == 1 else "OW"
    for name, value in headers.items():
        if value is not None:
            setattr(dataset, name, value)
    return dataset


def _plant(dataset: Dataset) -> None:
    """An identifier in every header of text, date and identifier kind that the dictionary has, and in a private one."""
    from pydicom.datadict import DicomDictionary

    for tag, (vr, vm, _, retired, keyword) in DicomDictionary.items():
        group = tag >> 16
        if group in (0, 2, 0x0028, 0x5400, 0x7FE0) or retired or not keyword or keyword in _SKIPPED:
            continue
        value = {"DA": CANARIES[1], "DT": CANARIES[1], "UI": CANARIES[3], "IS": CANARIES[2]}.get(vr)
        value = CANARIES[0] if vr in _TEXT else value
        if value is not None and vm in ("1", "1-n") and keyword != "NumberOfFrames":
            dataset.add_new(tag, vr, value)
    item = Dataset()
    item.PatientName = CANARIES[0]
    dataset.ReferencedPatientSequence = Sequence([item])
    block = dataset.private_block(0x0011, "RAVL TEST", create=True)
    block.add_new(0x01, "LO", CANARIES[0])


def written(dataset: FileDataset, enforce: bool = True) -> bytes:
    """The bytes of the file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(buffer, dataset, enforce_file_format=enforce)
    return buffer.getvalue()


# --- the medical demo, smaller ----------------------------------------------------------------------------------------

SIZES = {"train": 150, "val": 240, "test": 180}


def drawn_demo(workspace: Path) -> Path:
    """A workspace with a smaller edition of the demo's radiographs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(medical, "DEMO_SIZES", SIZES)
        DEMOS["radiograph"].write(workspace)
    return workspace


def audited_demo(workspace: Path, until: str = "evidence") -> AuditRun:
    """The audit of the shipped model on them: 20 s on two cores, without the map."""
    demo = DEMOS["radiograph"]
    images = workspace / demo.folder / "val"
    return ravl.discover(images, **demo.settings(), workspace=workspace, device="cpu", name=demo.name, until=until)


# --- where an identifier may be ---------------------------------------------------------------------------------------


def texts(path: Path) -> Iterator[str]:
    """Everything that a file holds, also where it is compressed."""
    data = path.read_bytes()
    yield data.decode("latin-1")
    yield data.decode("utf-16-le", "replace")  # numpy's text
    if path.suffix == ".parquet":
        table = pd.read_parquet(path)
        yield table.to_csv() + str(table.attrs)
    if path.suffix == ".npz":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield from (archive.read(name).decode("latin-1") for name in archive.namelist())
    if path.suffix == ".db":
        with sqlite3.connect(path) as database:
            yield "\n".join(database.iterdump())


def found(text: str, words: Iterable[str] = CANARIES) -> list[str]:
    """Which of the words a text holds."""
    return [word for word in words if word in text]


def nodes(node: Any) -> Iterator[Any]:
    """Everything on a page of AppTest, of all depths."""
    for child in getattr(node, "children", {}).values():
        yield child
        yield from nodes(child)


def headers_of(folder: Path) -> frozenset[str]:
    """Every value in the headers of the demo's files below a folder that could tell who somebody is."""
    kept = set()
    for path in folder.rglob("*.dcm"):
        file = pydicom.dcmread(path, stop_before_pixels=True)
        names = ("PatientID", "PatientBirthDate", "AccessionNumber", "StudyDate", "StudyInstanceUID", "SOPInstanceUID")
        kept |= {str(file.get(name)) for name in names} | {*str(file.PatientName).split("^"), file.InstitutionName}
    return frozenset(kept)


def spotted(text: str, identifiers: frozenset[str]) -> set[str]:
    """Which of them a text holds. A date has to stand alone: eight digits are often a part of a number."""
    names = [word for word in identifiers if not any(map(str.isdigit, word))]
    numbers = re.findall(r"RV\d{8}|A\d{9}|2\.25\.\d+|(?<![\d.])\d{8}(?!\d)", text)
    return {*found(text, names), *identifiers.intersection(numbers)}
