"""What `--images` may be: one reference, `PATH`, `PATH@SPLIT` or `hf:NAME@SPLIT`, and the reader that lists it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ravl.data.coco import list_coco
from ravl.data.folder import list_folder
from ravl.data.listing import FORMS, Listing, few, is_address
from ravl.data.manifest import SUFFIXES, list_manifest
from ravl.data.metadata import list_metadata, metadata_file
from ravl.errors import DataError

HUB = "hf:"
"""How a reference to a Hugging Face data set begins."""

_SPLIT = re.compile(r"(.+)@([\w][\w.-]*)")


@dataclass(frozen=True)
class Source:
    """A folder or file on this machine, absolute, and the split that is meant, or nothing."""

    path: Path
    split: str = ""

    def __str__(self) -> str:
        return f"{self.path}@{self.split}" if self.split else str(self.path)


def parse(reference: str | Path) -> Source:
    """Take a reference apart. An existing path is that path, whatever it holds; else the last @ begins the split.

    Raises DataError for an address: nothing is downloaded.
    """
    text = str(reference)
    if is_address(text):
        raise DataError(
            f"images must be on this machine, got an address ({text.split(':')[0]}://...). Nothing is downloaded: copy "
            "the images here first."
        )
    where = Path(os.path.abspath(Path(text).expanduser()))
    found = _SPLIT.fullmatch(text)
    if found and not os.path.lexists(where):
        return Source(Path(os.path.abspath(Path(found[1]).expanduser())), found[2])
    return Source(where)


def list_source(source: Source, wanted: tuple[str, ...]) -> Listing:
    """What a source lists, before any image is opened. wanted: class names asked for, or ().

    Raises DataError for what is no image set.
    """
    path, split = source.path, source.split
    if path.is_dir():
        return _list_folder(path.resolve(), split, wanted)
    if not path.exists():
        raise DataError(f"images must be {FORMS}, but {path} does not exist. Check the path.")
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return list_manifest(path, split)
    if suffix == ".json":
        if split:
            raise DataError(f"a COCO file is one split, so {source} must be written without @{split}.")
        return list_coco(path)
    raise DataError(f"images must be {FORMS}, got the file {path}.")


def _list_folder(root: Path, split: str, wanted: tuple[str, ...]) -> Listing:
    folder = root / split if split else root
    for place in dict.fromkeys((folder, root)):  # a split may have its own metadata, or share the whole set's
        if metadata := metadata_file(place):
            return list_metadata(metadata, split if place == root else "")
    if split and not folder.is_dir():
        there = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        raise DataError(f"the split must be a folder of {root} ({few(there) or 'it has none'}), got {split!r}.")
    return list_folder(folder, wanted)
