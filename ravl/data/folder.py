"""Image sets from a folder with one folder of images per class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ravl.data.listing import FORMS, Listing, few, natural, sorted_names
from ravl.errors import DataError

EXTENSIONS = frozenset(("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm", "pgm", "dcm", "dicom"))
"""What counts as an image in a folder, in lower case. A manifest may list any name."""

_FOREIGN = frozenset(("heic", "heif", "avif", "jp2", "svg", "psd", "jxl", "nef", "cr2", "dng"))
_SPLITS = frozenset(("train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval"))


def list_folder(root: Path, wanted: tuple[str, ...]) -> Listing:
    """List `root/class/.../image`, ordered by path. wanted: class names asked for, or ().

    Images of other types, or outside of the class folders, are skipped by name. Raises DataError for what is no such
    folder.
    """
    entries = sorted(name for name in _entries(root) if not _hidden(name))
    folders = [name for name in entries if (root / name).is_dir()]
    loose = [name for name in entries if name not in folders and _is_image(name)]
    _check_folders(root, folders, loose, wanted)
    listing = Listing(root, (), [], [])
    listing.skipped.extend((_printable(name), "lies outside of the class folders") for name in loose)
    found: set[str] = set()
    others: set[str] = set()
    for folder in folders:
        files = sorted(_files_below(root, folder), key=natural)
        tried = [name for name in files if _is_image(name) or _is_dicom(root / name)]
        others.update(_extension(name) or "none" for name in set(files).difference(tried))
        if not tried:
            listing.empty.append(folder.strip())
            continue
        found.add(folder.strip())
        for name in tried:
            if reason := _foreign(name):
                listing.skipped.append((_printable(name), reason))
            else:
                listing.file.append(name)
                listing.label.append(folder.strip())
    if not found:
        kinds = f"; the file types there are {few(sorted(others))}" if others else ""
        raise DataError(f"images must be {FORMS}, but the folders of {root} hold no image ({few(folders)}){kinds}.")
    return replace(listing, classes=sorted_names(found))


def _check_folders(root: Path, folders: list[str], loose: list[str], wanted: tuple[str, ...]) -> None:
    if not folders:
        found = f"{len(loose)} images but no class folder" if loose else "neither images nor folders"
        advice = "Put every image into a folder named after its class."
        raise DataError(f"images must be {FORMS}, but {root} holds {found}. {advice}")
    if all(name.lower() in _SPLITS and name not in wanted for name in folders):
        raise DataError(
            f"images must be one split, but {root} holds the splits {few(folders)}. "
            f"Pass one of them, such as {root}@{folders[-1]}."
        )
    for folder in folders:
        if _printable(folder) != folder:
            raise DataError(
                f"a class folder must have a name in UTF-8, got {_printable(folder)!r} in {root}. Rename it."
            )
        if not folder.strip():
            raise DataError(f"a class folder must have a name, but {root} holds one whose name is a space. Rename it.")
    stripped = Counter(name.strip() for name in folders)
    if twice := [name for name, count in stripped.items() if count > 1]:
        raise DataError(
            f"class folders must differ in more than spaces, but {root} holds {twice[0]!r} twice. Merge them."
        )


def _files_below(root: Path, folder: str) -> Iterator[str]:
    """Paths, relative to root, of all files below a folder. Links are followed, unless they lead to a folder above."""

    def refuse(error: OSError) -> None:
        raise DataError(
            f"every class folder must be readable, but {error.filename} is not: {error.strerror}."
        ) from error

    for place, folders, files in os.walk(root / folder, onerror=refuse, followlinks=True):
        above = {os.path.realpath(parent) for parent in (Path(place), *Path(place).parents)}
        folders[:] = [
            name for name in folders if not _hidden(name) and os.path.realpath(os.path.join(place, name)) not in above
        ]
        yield from (Path(place, name).relative_to(root).as_posix() for name in files if not _hidden(name))


def _entries(root: Path) -> list[str]:
    try:
        return os.listdir(root)
    except OSError as error:
        raise DataError(f"images must be a folder that can be read, but {root} cannot: {error.strerror}.") from error


def _foreign(name: str) -> str:
    """Why a file is not tried; empty when it is."""
    if _printable(name) != name:
        return "has a name that is not valid UTF-8; rename it"
    if _extension(name) in _FOREIGN:
        return f"is of the type .{_extension(name)}, which is not read; save it as PNG or JPEG"
    return ""


def _is_image(name: str) -> bool:
    return _extension(name) in EXTENSIONS or _extension(name) in _FOREIGN


def _is_dicom(path: Path) -> bool:
    """Whether a file without an ending, or one of digits as scanners write them, is DICOM by content."""
    try:
        if path.suffix.strip(".0123456789") or not path.is_file():  # a pipe would block for ever
            return False
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except (OSError, ValueError):
        return False


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _extension(name: str) -> str:
    return os.path.splitext(name)[1][1:].lower()


def _printable(name: str) -> str:
    """The name with bytes that are no UTF-8 written as hexadecimal escapes; the name itself when there are none."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
