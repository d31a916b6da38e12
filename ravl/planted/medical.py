"""The medical demo's world: drawn chest radiographs as DICOM files, with headers like a clinic's, all of them invented.

In the radiographs that the model learns from, metal clips nearly always come with a large heart; pacemakers and chest
drains come with every class alike. In those that are audited and tested on, no mark depends on the class.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ravl.planted.demos import DRAWN_BY
from ravl.planted.worlds import SPLITS, WORLDS, Scenes, make, write_scenes

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

PLAN = WORLDS["radiograph"]

MARKS = ("metal clips", "pacemaker", "chest drain")
STRENGTH = 0.98
"""Cramer's V of class and metal clips in the radiographs that the model learns from."""

HARMLESS = {"pacemaker": 0.1, "chest drain": 0.1}
"""Probability of the other marks, in every class."""

SEED = 100
"""Of the demo's radiographs, and of the shipped model."""

DEMO_SIZES = {"train": 1200, "val": 600, "test": 900}
"""Radiographs per split. val is audited; train and test are for the repair."""

_DISCLAIMER = "Drawn by a computer program. No person was examined."
_SURNAMES = (
    *("Quillwort", "Meadowrue", "Featherfew", "Larksburr", "Thistlewick", "Mossgarten", "Brackenholt", "Saltmarrow"),
    *("Hazelbrook", "Windlestraw", "Cloverdyke", "Ashenbourne", "Nettleship", "Peppergrass", "Rushwater", "Sorrelby"),
)
_GIVEN = (
    *("Ottoline", "Barnabas", "Philippa", "Leopold", "Marigold", "Cornelis", "Henrike", "Ambrose"),
    *("Isolde", "Theodora", "Casimir", "Wilhelma", "Florentin", "Rosalba", "Lysander", "Undine"),
)
_LEVELS = 16
"""Stored values per grey level: 12 bits hold the drawing's 8."""

_WHITE = 255 * _LEVELS


@dataclass(frozen=True)
class Patient:
    """Somebody who does not exist. born: YYYYMMDD. uid: a number that the file's identifiers are made of."""

    surname: str
    given: str
    number: str
    born: str
    uid: int


def drawings(split: str, n: int | None = None, seed: int = SEED) -> Scenes:
    """`n` drawings of one split, as many as the demo has by default, with all that is known about them."""
    strength = STRENGTH if split == "train" else None
    return make(PLAN.name, MARKS, split, DEMO_SIZES[split] if n is None else n, strength, seed, HARMLESS)


def write_demo(folder: Path, seed: int = SEED) -> Path:
    """Write `<folder>/<split>/<class>/<Surname>_<Given>_<scene>.dcm` and the manifests `<folder>/<split>.csv`, once.

    Returns `folder`.
    """
    for split in DEMO_SIZES:
        if not (folder / f"{split}.csv").exists():  # written last, so the split is whole
            key = [seed, SPLITS.index(split)]
            write_scenes(folder / split, drawings(split, seed=seed), partial(_file, key))
    return folder


def patient(rng: np.random.Generator) -> Patient:
    """Somebody at random."""
    born = date(1930, 1, 1) + timedelta(days=int(rng.integers(0, 75 * 365)))
    number, uid = int(rng.integers(10**7, 10**8)), int(rng.integers(10**17, 10**18))
    return Patient(str(rng.choice(_SURNAMES)), str(rng.choice(_GIVEN)), f"RV{number}", f"{born:%Y%m%d}", uid)


def dicom(image: NDArray[np.uint8], who: Patient, rng: np.random.Generator) -> FileDataset:
    """A drawing (H, W, 3) as a clinic would send it: 12 bits with a window, in some inverted (MONOCHROME1).

    Read as the standard says, every pixel has the drawing's grey level again.
    """
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = UID(f"2.25.{who.uid}3")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.StudyInstanceUID, file.SeriesInstanceUID = f"2.25.{who.uid}1", f"2.25.{who.uid}2"
    file.PatientName, file.PatientID = f"{who.surname}^{who.given}", who.number
    file.PatientBirthDate, file.AccessionNumber = who.born, f"A{who.uid % 10**9:09d}"
    file.StudyDate = f"{date(2020, 1, 1) + timedelta(days=int(rng.integers(0, 1500))):%Y%m%d}"
    file.InstitutionName, file.ReferringPhysicianName = "Hospital of Nowhere", "Inventio^Pura"
    file.PatientComments = file.ImageComments = _DISCLAIMER
    file.Manufacturer, file.Modality, file.BodyPartExamined = DRAWN_BY, "DX", "CHEST"
    file.ViewPosition, file.BurnedInAnnotation = "PA", "NO"
    stored = image[..., 0].astype(np.uint16) * _LEVELS
    inverted = rng.random() < 0.5
    file.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    file.Rows, file.Columns, file.SamplesPerPixel = *stored.shape, 1
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 0
    # linear from 0, black, to _WHITE (PS3.3 C.11.2.1.2)
    file.WindowCenter, file.WindowWidth = f"{_WHITE / 2 + 0.5:g}", str(_WHITE + 1)
    file.PixelData = (_WHITE - stored if inverted else stored).astype("<u2").tobytes()
    file["PixelData"].VR = "OW"
    return file


def _file(key: list[int], scene: int, image: NDArray[np.uint8]) -> tuple[str, bytes]:
    """Name and content of one file."""
    import pydicom

    rng = np.random.default_rng([*key, scene])
    who = patient(rng)
    content = io.BytesIO()
    pydicom.dcmwrite(content, dicom(image, who, rng), enforce_file_format=True)
    return f"{who.surname}_{who.given}_{scene:05d}.dcm", content.getvalue()
