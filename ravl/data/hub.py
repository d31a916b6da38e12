"""Data sets of the Hugging Face `datasets` library (extra `hf`): `hf:ID@split`, or a folder that it saved.

Its images lie inside of Arrow files. They are copied out once, byte for byte and one row at a time, into the workspace,
beside a manifest with the other columns; from there they are read like any other manifest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ravl.data.listing import few
from ravl.data.manifest import text_of
from ravl.data.sources import HUB
from ravl.errors import DataError
from ravl.tables import Report, Step, quiet

_LABELS = ("label", "labels", "fine_label", "class")
_CAPTIONS = ("caption", "text")
_ENDINGS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"RIFF": "webp", b"GIF8": "gif", b"BM": "bmp", b"II*\0": "tif"}


def copied(reference: str, folder: Path, report: Report = quiet) -> Path:
    """Copy a data set's split below `folder` and return its manifest; one that is there already is used again.

    reference: `hf:ID`, `hf:ID@split` or `hf:FOLDER`, with @split. Raises DataError for what is none.
    """
    import pandas as pd

    name, _, split = reference.removeprefix(HUB).partition("@")
    rows, called = _opened(name, split)
    image = _column(name, rows, ("image", "img", "picture", "photo"))
    place = folder / f"{re.sub(r'[^A-Za-z0-9]+', '-', name)[-40:].strip('-')}-{called}-{rows._fingerprint}"
    manifest = place / "list.parquet"
    if manifest.exists():
        return manifest
    (place / "images").mkdir(parents=True, exist_ok=True)
    names = {column: _names(rows.features[column]) for column in rows.column_names if column != image}
    table: dict[str, list[str]] = {"image_path": [], **{column: [] for column in names}}
    for i, row in enumerate(_undecoded(rows, image)):
        data = _bytes(row[image])
        path = place / "images" / f"{i:07d}.{_ending(data)}"
        path.write_bytes(data)
        table["image_path"].append(f"images/{path.name}")
        for column, values in names.items():
            cell = row[column]
            table[column].append(values[cell] if values and isinstance(cell, int) and cell >= 0 else text_of(cell))
        report(Step("data", i + 1, len(rows)))
    for wanted, known in (("label", _LABELS), ("caption", _CAPTIONS)):
        found = next((column for column in known if column in table), None)
        if found and wanted not in table:
            table[wanted] = table.pop(found)
    partial = manifest.with_suffix(".partial")
    pd.DataFrame(table).to_parquet(partial, index=False)
    partial.replace(manifest)
    return manifest


def _opened(name: str, split: str) -> tuple[Any, str]:
    """The rows of a split, mapped from disk, and the split's name."""
    try:
        import datasets
    except ImportError:
        raise DataError(f"{HUB}{name} needs the library datasets: pip install 'ravl-dashboard[hf]'") from None
    where = Path(name).expanduser()
    saved = (where / "dataset_info.json").exists() or (where / "dataset_dict.json").exists()
    try:
        found = datasets.load_from_disk(str(where)) if saved else datasets.load_dataset(name)
    except Exception as error:  # the library raises its own, and those of every format and of the network
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise DataError(
            f"{HUB}{name} must be a data set of the hub or a folder, but cannot be opened ({reason})."
        ) from error
    if isinstance(found, datasets.Dataset):
        return found, split or "all"
    splits = sorted(found)
    if not split and len(splits) == 1:
        split = splits[0]
    if split not in found:
        raise DataError(
            f"{HUB}{name} has the splits {few(splits)}, got {split or 'none'}. Write {HUB}{name}@{splits[0]}."
        )
    return found[split], split


def _column(name: str, rows: Any, known: tuple[str, ...]) -> str:
    images = [column for column, feature in rows.features.items() if type(feature).__name__ == "Image"]
    found = [column for column in known if column in images] or images
    if not found:
        raise DataError(
            f"{HUB}{name} must have a column of images, got {few(rows.column_names)}. Addresses of images are not "
            "downloaded."
        )
    return found[0]


def _undecoded(rows: Any, image: str) -> Iterator[dict[str, Any]]:
    import datasets

    yield from rows.cast_column(image, datasets.Image(decode=False))


def _names(feature: Any) -> list[str]:
    """Class names of a column of numbers that has some."""
    return list(getattr(feature, "names", None) or [])


def _bytes(cell: Any) -> bytes:
    """The file of one image; nothing is fetched from an address."""
    data = (cell or {}).get("bytes")
    if data is None and cell and cell.get("path") and Path(cell["path"]).is_file():
        data = Path(cell["path"]).read_bytes()
    return data or b""  # listed as empty when the set is read


def _ending(data: bytes) -> str:
    if data[128:132] == b"DICM":
        return "dcm"
    return next((ending for start, ending in _ENDINGS.items() if data.startswith(start)), "img")
