"""Readers of labelled image sets: a folder `class/image`, or a manifest in CSV or Parquet.

Every image is decoded once while reading, since only decoding finds a truncated file. What cannot be used is listed with
its reason; above a stated share it is an error.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ravl.data.decoding import decode
from ravl.errors import DataError
from ravl.tables import ImageSet, Report, Step, quiet

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
MANIFEST_SUFFIXES = (".csv", ".parquet")
MAX_GROUP_VALUES = 64
_THREADS = 4


@dataclass(frozen=True)
class _Listing:
    """What a folder or manifest says, before any image is opened. Columns have one entry per row."""

    root: Path
    file: list[str]
    label: list[str]
    class_names: tuple[str, ...]
    caption: list[str] | None
    groups: dict[str, list[str]]


@dataclass(frozen=True)
class _Read:
    """One image that was opened: its upright size and content digest, or the reason why not."""

    size: tuple[int, int]
    content: str
    reason: str


def read_images(
    path: str | Path, classes: Sequence[str] = (), max_unreadable: float = 0.05, report: Report = quiet
) -> ImageSet:
    """Read a labelled image set.

    path: a folder with one sub-folder per class, or a `.csv` / `.parquet` manifest with the columns image_path, label and
    optionally caption, paths relative to the manifest. Further columns with at most 64 values become group columns.
    classes: names in label order; empty: the folder names or labels, sorted. max_unreadable: share of images that may be
    listed as skipped.
    Raises DataError: nothing there, unknown classes, fewer than two classes, too many unreadable images.
    """
    source = Path(path).expanduser()
    if not source.exists():
        raise DataError(f"--images must be a folder or a manifest file, but {source} does not exist.")
    if source.is_dir():
        listing = _list_folder(source.resolve(), tuple(classes))
    elif source.suffix.lower() in MANIFEST_SUFFIXES:
        listing = _list_manifest(source.resolve(), tuple(classes))
    else:
        raise DataError(
            f"--images must be a folder or a .csv or .parquet manifest, but {source} is another kind of file."
        )
    return _decode_all(listing, source, max_unreadable, report)


def load_images(images: ImageSet, ids: Iterable[int]) -> list[Image.Image]:
    """Decode some images of a set, in the order of `ids`. Raises DataError when a file is gone or has changed its size."""

    def load(i: int) -> Image.Image:
        path = Path(images.root) / str(images.file[i])
        try:
            image = decode(path)
        except DataError as error:
            raise DataError(
                f"the image {path} was readable before, but now it {error}. Restore it, or audit again."
            ) from error
        if image.size != tuple(images.size[i]):
            raise DataError(f"the image {path} has changed since the audit began. Restore it, or audit again.")
        return image

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(load, ids))


def _list_folder(root: Path, classes: tuple[str, ...]) -> _Listing:
    folders = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    found = {name: _files_in(root / name) for name in folders}
    direct = {name for name, files in found.items() if any(f.count("/") == 0 for f in files)}
    if not any(found.values()):
        raise DataError(
            f"--images must hold one folder per class with images inside, but {root} has "
            f"{'no folders' if not folders else f'{len(folders)} folders without images'}. "
            f"Readable suffixes: {' '.join(SUFFIXES)}."
        )
    splits = [name for name in folders if name.lower() in ("train", "val", "valid", "validation", "test", "dev")]
    if splits and not direct:
        raise DataError(
            f"--images must be one split with class folders, but {root} holds splits. Give {root / splits[0]}."
        )
    names = _class_names([name for name in folders if found[name]], classes, f"folder of {root}")
    rows = [(f"{name}/{file}", name) for name in folders for file in found[name]]
    return _Listing(root, [r[0] for r in rows], [r[1] for r in rows], names, None, {})


def _files_in(folder: Path) -> list[str]:
    found = []
    for base, inner, files in os.walk(folder, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in files:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                found.append((Path(base) / name).relative_to(folder).as_posix())
    return sorted(found)


def _list_manifest(path: Path, classes: tuple[str, ...]) -> _Listing:
    try:
        if path.suffix.lower() == ".csv":
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        else:
            table = pd.read_parquet(path)
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise DataError(f"the manifest {path} could not be read: {error}. Save it as UTF-8 CSV or Parquet.") from error
    if missing := [name for name in ("image_path", "label") if name not in table.columns]:
        raise DataError(
            f"the manifest {path} must have the columns image_path and label, but lacks {' and '.join(missing)}. "
            f"Its columns: {', '.join(map(str, table.columns))}."
        )
    if not len(table):
        raise DataError(f"the manifest {path} must list images, but has no rows.")
    table = table.fillna("").astype(str).apply(lambda column: column.str.strip())
    if empty := int((table["label"] == "").sum() + (table["image_path"] == "").sum()):
        raise DataError(
            f"the manifest {path} must give every row an image_path and a label, but {empty} cells are empty."
        )
    files = [_relative(path.parent, name) for name in table["image_path"]]
    if doubled := [name for name, count in Counter(files).items() if count > 1]:
        raise DataError(
            f"the manifest {path} must list each image once, but {doubled[0]} appears more often "
            f"({len(doubled)} such images). Remove the doubles."
        )
    names = _class_names(_sorted_labels(set(table["label"])), classes, f"label of {path}")
    extra = [c for c in table.columns if c not in ("image_path", "label", "caption")]
    groups = {str(c): list(table[c]) for c in extra if 1 < table[c].nunique() <= MAX_GROUP_VALUES}
    caption = list(table["caption"]) if "caption" in table.columns else None
    return _Listing(path.parent, files, list(table["label"]), names, caption, groups)


def _relative(root: Path, name: str) -> str:
    """Paths inside the manifest's folder are kept relative to it; others stay as they are."""
    path = Path(name)
    if path.is_absolute() and path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return path.as_posix()


def _sorted_labels(labels: set[str]) -> list[str]:
    numeric = all(label.lstrip("-").isdigit() for label in labels)
    return sorted(labels, key=int) if numeric else sorted(labels)


def _class_names(found: list[str], classes: tuple[str, ...], where: str) -> tuple[str, ...]:
    """The class names in label order, checked against what the data holds."""
    if any(not name.strip() for name in classes) or len(set(classes)) < len(classes):
        raise DataError(f"--classes must be different names separated by commas, got {','.join(classes)!r}.")
    if unknown := [name for name in found if classes and name not in classes]:
        raise DataError(
            f"every class needs a prompt, but the {where} {unknown[0]!r} is not among the classes {', '.join(classes)}. "
            "Add it to --classes, or take its images out."
        )
    if len(found) < 2:
        raise DataError(
            f"an audit needs images of at least two classes, but the only {where} is {found[0]!r}. "
            "Add images of another class."
        )
    return classes or tuple(found)


def _decode_all(listing: _Listing, source: Path, max_unreadable: float, report: Report) -> ImageSet:
    total = len(listing.file)
    read: list[_Read] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for result in pool.map(_examine, [listing.root / name for name in listing.file]):
            read.append(result)
            if len(read) % 64 == 0 or len(read) == total:
                report(Step("images", len(read), total))
    good = [i for i, result in enumerate(read) if not result.reason]
    skipped = tuple((listing.file[i], result.reason) for i, result in enumerate(read) if result.reason)
    if not good or len(skipped) > max_unreadable * total:
        first = "; ".join(f"{name} {reason}" for name, reason in skipped[:3])
        raise DataError(
            f"at most {100 * max_unreadable:g} % of the images may be unreadable, but {len(skipped)} of {total} in {source} "
            f"are: {first}. Repair or remove them."
        )
    if len({listing.label[i] for i in good}) < 2:
        raise DataError(f"an audit needs readable images of at least two classes, but {source} has those of one only.")
    index = {name: k for k, name in enumerate(listing.class_names)}
    hasher = hashlib.blake2b(digest_size=8)
    hasher.update("\0".join(listing.class_names).encode())
    for i in good:
        caption = "" if listing.caption is None else listing.caption[i]
        hasher.update("\0".join((listing.file[i], listing.label[i], caption, read[i].content)).encode())
    return ImageSet(
        root=str(listing.root),
        file=np.array([listing.file[i] for i in good]),
        label=np.array([index[listing.label[i]] for i in good]),
        size=np.array([read[i].size for i in good]),
        class_names=listing.class_names,
        caption=None if listing.caption is None else np.array([listing.caption[i] for i in good], str),
        groups={name: np.array([column[i] for i in good], str) for name, column in listing.groups.items()},
        skipped=skipped,
        fingerprint=hasher.hexdigest(),
    )


def _examine(path: Path) -> _Read:
    try:
        content = path.read_bytes()
        if not content:
            return _Read((0, 0), "", "is empty (0 bytes)")
        image = decode(BytesIO(content))
    except FileNotFoundError:
        return _Read((0, 0), "", "does not exist")
    except OSError as error:
        return _Read((0, 0), "", f"may not be read ({error.strerror})")
    except DataError as error:
        return _Read((0, 0), "", str(error))
    return _Read(image.size, hashlib.blake2b(content, digest_size=8).hexdigest(), "")
