"""Image sets from a manifest: a CSV, TSV or Parquet table with a row per image."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

from ravl.data.coco import is_box
from ravl.data.listing import Listing, few, is_address, sorted_names
from ravl.errors import DataError

SUFFIXES = (".csv", ".tsv", ".parquet")
"""How a manifest's name ends, in lower case."""

MAX_GROUP_VALUES = 64
"""A further column of a manifest with more distinct values (an id, a date) is no group column."""

_SEPARATORS = {".csv": (",", "commas"), ".tsv": ("\t", "tabs")}


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are called."""

    file: str = "image_path"
    label: str = "label"
    caption: str = "caption"
    boxes: str = "boxes"
    split: str = "split"


MANIFEST = Columns()


def list_manifest(path: Path, split: str = "") -> Listing:
    """List the rows of a manifest, in their order; with a split those whose column `split` names it.

    Without a column `label` the captions have to tell the class. Raises DataError for what is no manifest.
    """
    kind = path.suffix.lower()
    table = read_table(path)
    needed = (MANIFEST.file, MANIFEST.caption if MANIFEST.caption in table else MANIFEST.label)
    if any(column not in table for column in needed):
        separated = f", separated by {_SEPARATORS[kind][1]}" if kind in _SEPARATORS else ""
        found = few(map(repr, table)) or "none"
        raise DataError(f"{path} must have the columns image_path and label{separated}, got {found}. Rename them.")
    return listing_of(path, table, MANIFEST, split)


def listing_of(path: Path, table: dict[str, list[str]], names: Columns, split: str) -> Listing:
    """What a table lists. Columns of 2 to MAX_GROUP_VALUES values beside the named ones are groups."""
    if not table[names.file]:
        raise DataError(f"{path} must list at least one image, got none. Add a row per image.")
    for column in (names.file, names.label):
        if empty := [i for i, value in enumerate(table.get(column, ())) if not value.strip()]:
            raise DataError(f"{path} must have a {column} in every row, but row {empty[0] + 1} has none. Fill it in.")
    if away := [i for i, name in enumerate(table[names.file]) if is_address(name)]:
        raise DataError(
            f"{path} must name files on this machine, but row {away[0] + 1} has an address "
            f"({len(away)} of {len(table[names.file])} rows). Nothing is downloaded: copy the images here first."
        )
    table = _rows_of(path, table, names, split)
    root = path.parent.resolve()
    files = [_located(root, name.strip()) for name in table[names.file]]
    first = dict(zip(reversed(files), range(len(files), 0, -1), strict=True))
    if twice := [i for i, name in enumerate(files, 1) if first[name] != i]:
        raise DataError(  # rows, not names: a file's name may be a patient's
            f"{path} must list every image once, but {len(twice)} are listed again, such as that of row "
            f"{first[files[twice[0] - 1]]} in row {twice[0]}. Remove the repeated rows."
        )
    labels = [name.strip() for name in table[names.label]] if names.label in table else [""] * len(files)
    used = (names.file, names.label, names.caption, names.boxes)
    further = {name: values for name, values in table.items() if name and name not in used}
    # a column of one value tells no images apart
    groups = {name: values for name, values in further.items() if 1 < len(set(values)) <= MAX_GROUP_VALUES}
    boxes = [_boxes(path, i, text) for i, text in enumerate(table[names.boxes])] if names.boxes in table else None
    known = sorted_names(label for label in labels if label)
    return Listing(root, known, files, labels, table.get(names.caption), groups, boxes=boxes)


def _rows_of(path: Path, table: dict[str, list[str]], names: Columns, split: str) -> dict[str, list[str]]:
    """The rows of a split; all of them where none is named."""
    if not split:
        return table
    if names.split not in table:
        raise DataError(f"{path} must have the column split to be cut to @{split}, but has none. Add it.")
    keep = [value.strip() == split for value in table[names.split]]
    if not any(keep):
        there = few(sorted({value.strip() for value in table[names.split]}))
        raise DataError(f"the split of {path} must be one of {there}, got {split!r}.")
    return {name: list(compress(values, keep)) for name, values in table.items()}


def read_table(path: Path) -> dict[str, list[str]]:
    """The columns of a CSV, TSV or Parquet file as text. Raises DataError for what cannot be read as one."""
    return _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_text(path)


def _boxes(path: Path, row: int, text: str) -> list[list[float]]:
    """The boxes of one row; an empty field has none."""
    try:
        boxes = json.loads(text) if text.strip() else []
    except (ValueError, RecursionError):
        boxes = None
    if not isinstance(boxes, list) or not all(map(is_box, boxes)):
        raise DataError(
            f"{path} must have a list of boxes in every row of the column boxes, such as [[0, 0, 40, 30]], got "
            f"{text[:60]!r} in row {row + 1}. Write [x0, y0, x1, y1] per box in pixels, and [] where there is none."
        )
    return boxes


def _located(root: Path, name: str) -> str:
    """A listed path relative to root, with forward slashes; absolute where it leads out of root."""
    path = os.path.normpath(os.path.join(root, name))
    if "\\" in name and not os.path.exists(path):  # a manifest written on Windows
        path = os.path.normpath(os.path.join(root, name.replace("\\", "/")))
    return Path(path).relative_to(root).as_posix() if Path(path).is_relative_to(root) else path


def _read_text(path: Path) -> dict[str, list[str]]:
    """The columns of a CSV or TSV file. Blank lines are left out; every other one has as many fields as the first."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=_SEPARATORS[path.suffix.lower()][0], strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows: list[list[str]] = []
            for row in reader:
                if row and len(row) != len(header):
                    raise DataError(
                        f"{path} must have {len(header)} fields in every line, got {len(row)} in line "
                        f"{reader.line_num}. Put fields that contain the separator in quotes."
                    )
                if row:
                    rows.append(row)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} must be a table in UTF-8, but cannot be read as one ({error}). Save it again."
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    return _table(path, header, [[row[i] for row in rows] for i in range(len(header))])


def _read_parquet(path: Path) -> dict[str, list[str]]:
    """The columns of a Parquet file as text; missing values are empty, whole numbers have no decimal point."""
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # damage is an ArrowInvalid, which is a ValueError
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(
            f"{path} must be a Parquet table, but cannot be read as one ({reason}). Write it again."
        ) from error
    columns = [[text_of(value) for value in frame.iloc[:, i].tolist()] for i in range(frame.shape[1])]
    return _table(path, [str(name) for name in frame.columns], columns)


def text_of(value: Any) -> str:
    """A cell as text: missing values are empty, whole numbers have no point, lists and objects are JSON."""
    if isinstance(value, float):  # a column of whole numbers with gaps is read as floats
        return "" if value != value else str(int(value)) if value.is_integer() else str(value)
    if type(value).__name__ in ("ndarray", "list", "dict"):  # boxes that are no text, but lists of numbers
        return json.dumps(value, default=lambda v: v.tolist() if hasattr(v, "tolist") else str(v))
    return "" if value is None or type(value).__name__ in ("NAType", "NaTType") else str(value)


def _table(path: Path, header: list[str], values: list[list[str]]) -> dict[str, list[str]]:
    if twice := [name for name, count in Counter(header).items() if name and count > 1]:
        raise DataError(f"{path} must have every column once, got {twice[0]!r} twice. Rename or remove one.")
    return dict(zip(header, values, strict=True))
