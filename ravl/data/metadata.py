"""Image folders with a metadata file, as the Hugging Face image folder has it: a row per image, by `file_name`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ravl.data.coco import is_box
from ravl.data.listing import Listing, is_address
from ravl.data.manifest import Columns, listing_of, read_table, text_of
from ravl.errors import DataError

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def metadata_file(folder: Path) -> Path | None:
    """The metadata file of a folder, if it has one."""
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def list_metadata(path: Path, split: str = "") -> Listing:
    """List the rows of a metadata file. split: only files below the folder of this name.

    `file_name` is relative to the file's folder. Without a column `label` an image belongs to the class whose folder
    holds it. `text` is another name for `caption`; `objects` holds {"bbox": [[x, y, width, height], ...]}.
    Raises DataError for what is no such file.
    """
    table = _read_lines(path) if path.suffix == ".jsonl" else read_table(path)
    if "file_name" not in table:
        found = ", ".join(map(repr, table)) or "none"
        raise DataError(f"{path} must have the column file_name, got {found}. Name the image of every row there.")
    if "text" in table and "caption" not in table:
        table["caption"] = table.pop("text")
    if "objects" in table and "boxes" not in table:
        table["boxes"] = [_corners(path, i, text) for i, text in enumerate(table.pop("objects"))]
    if split and "split" not in table:
        table["split"] = [_first_folder(name) for name in table["file_name"]]
    if "label" not in table:
        depth = 1 if split and table["split"] == [_first_folder(name) for name in table["file_name"]] else 0
        table["label"] = [_class_folder(path, i, name, depth) for i, name in enumerate(table["file_name"])]
    return listing_of(path, table, Columns(file="file_name"), split)


def _first_folder(name: str) -> str:
    return name.replace("\\", "/").split("/")[0].strip()


def _class_folder(path: Path, row: int, name: str, depth: int) -> str:
    """The folder that an image lies in, `depth` folders below that of the metadata file."""
    parts = [part for part in name.replace("\\", "/").strip().split("/") if part not in ("", ".")]
    if is_address(name):
        return "?"  # refused with its row later
    if len(parts) < depth + 2 or ".." in parts:
        raise DataError(  # the row, not the name: it may be a patient's
            f"{path} must have a column label, or file names such as class/image.png, but the name in row {row + 1} "
            "has no such folder. Add the column."
        )
    return parts[depth]


def _corners(path: Path, row: int, text: str) -> str:
    """The boxes of one row as a manifest has them: corners instead of sizes, or nothing."""
    try:
        objects = json.loads(text) if text.strip() else {}
        boxes = objects.get("bbox", [])
        good = isinstance(boxes, list) and all(map(is_box, boxes))
    except (ValueError, RecursionError, AttributeError):
        good = False
    if not good:
        raise DataError(
            f"{path} must have objects with a list bbox of [x, y, width, height] in every row, got {text[:60]!r} "
            f"in row {row + 1}. Write {{}} where there is none."
        )
    return json.dumps([[x, y, x + width, y + height] for x, y, width, height in boxes])


def _read_lines(path: Path) -> dict[str, list[str]]:
    """The columns of a file with one JSON object per line; a row that lacks one is empty there."""
    rows: list[dict[str, Any]] = []
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise DataError(f"{path} must hold one JSON object per line, but line {number} is none.")
                rows.append(row)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} must hold one JSON object per line, but cannot be read so ({error}).") from error
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [text_of(row.get(name)) for row in rows] for name in names}
