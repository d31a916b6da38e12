"""COCO detection files: as an image set of their own, and as a table of boxes for one."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ravl.data.listing import Listing, few, is_address, sorted_names
from ravl.errors import DataError


def is_box(value: Any) -> bool:
    """Whether a JSON value is a list of four numbers."""
    if not isinstance(value, list) or len(value) != 4:
        return False
    return all(type(v) is float or (type(v) is int and abs(v) < 2**53) for v in value)


@dataclass(frozen=True)
class Coco:
    """image: records by id. annotation: those that name one of them. category: what the file says, unchecked."""

    image: dict[Any, dict[str, Any]]
    annotation: list[dict[str, Any]]
    category: Any


def read_coco(path: Path) -> Coco:
    """The images and boxes of a COCO detection file. Raises DataError for what is none."""
    document = _read_json(path)
    names = ("images", "annotations")
    images, annotations = (document.get(name) if isinstance(document, dict) else None for name in names)
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise DataError(
            f"{path} must be a COCO file, a JSON object with the lists images and annotations, but lacks them. "
            "Export it for object detection."
        )
    records: dict[Any, dict[str, Any]] = {}
    for i, record in enumerate(images):
        if (
            not isinstance(record, dict)
            or type(record.get("id")) not in (int, str)
            or not isinstance(record.get("file_name"), str)
        ):
            raise DataError(f"every image of {path} must have an id and a file_name, but entry {i + 1} has not.")
        if record["id"] in records:
            # the entry, not the id: tools that have no numbers write the file's name there
            raise DataError(f"every image of {path} must have an id of its own, but entry {i + 1} repeats one.")
        records[record["id"]] = record
    for i, annotation in enumerate(annotations):
        if not isinstance(annotation, dict) or not is_box(annotation.get("bbox")):
            raise DataError(
                f"every annotation of {path} must have a bbox [x, y, width, height], but entry {i + 1} has not."
            )
        if type(annotation.get("image_id")) not in (int, str) or annotation["image_id"] not in records:
            raise DataError(
                f"every annotation of {path} must have the image_id of one of its images, but entry {i + 1} has not."
            )
    return Coco(records, annotations, document.get("categories"))


def list_coco(path: Path) -> Listing:
    """List the images of a COCO detection file. An image belongs to the category that all of its boxes have.

    Images without a box, or with boxes of several categories, belong to no class and are left out by name. The boxes
    are people's own boxes. `file_name` is a path relative to the file's folder, to the folder above it, or to a folder
    `images` or named like the split (`instances_val.json`: `val`) in one of them: the first place where a file is.
    Raises DataError for what is no such file, or where no image is found.
    """
    found = read_coco(path)
    records, names = found.image, _categories(path, found.category)
    labels: dict[Any, set[str]] = {key: set() for key in records}
    boxes: dict[Any, list[list[float]]] = {key: [] for key in records}
    for i, annotation in enumerate(found.annotation):
        category = annotation.get("category_id")
        if type(category) not in (int, str) or category not in names:
            raise DataError(
                f"every annotation of {path} must have the category_id of a category, but entry {i + 1} has not."
            )
        x, y, width, height = annotation["bbox"]
        labels[annotation["image_id"]].add(names[category])
        boxes[annotation["image_id"]].append([x, y, x + width, y + height])
    if away := [number for number, record in enumerate(records.values(), 1) if is_address(record["file_name"])]:
        raise DataError(
            f"{path} must name files on this machine, but image {away[0]} has an address. Nothing is downloaded."
        )
    root = _root(path, [record["file_name"] for record in records.values()])
    listing = Listing(root, (), [], [], boxes=[])
    seen: set[str] = set()
    for number, (key, record) in enumerate(records.items(), 1):
        name = _relative(root, record["file_name"])
        if len(labels[key]) != 1:
            several = f"shows boxes of several classes ({few(sorted(labels[key]))})" if labels[key] else "has no box"
            listing.left_out.append((name, f"{several}, so it belongs to no class"))
            continue
        if name in seen:
            raise DataError(f"{path} must list every image once, but image {number} is listed again.")
        seen.add(name)
        listing.file.append(name)
        listing.label.append(next(iter(labels[key])))
        assert listing.boxes is not None
        listing.boxes.append(boxes[key])
    if not listing.file:
        raise DataError(f"{path} must have images whose boxes are of one category, but none of {len(records)} is so.")
    known = sorted_names(listing.label)
    return Listing(root, known, listing.file, listing.label, boxes=listing.boxes, left_out=listing.left_out)


def _categories(path: Path, categories: Any) -> dict[Any, str]:
    """Class name by category id. Two categories of one name are one class."""
    if not isinstance(categories, list) or not categories:
        raise DataError(f"{path} must have a list of categories, so that images have a class, but has none.")
    names: dict[Any, str] = {}
    for i, category in enumerate(categories):
        good = isinstance(category, dict) and type(category.get("id")) in (int, str)
        if not good or not isinstance(category.get("name"), str) or not category["name"].strip():
            raise DataError(f"every category of {path} must have an id and a name, but entry {i + 1} has not.")
        names[category["id"]] = category["name"].strip()
    return names


def _root(path: Path, names: list[str]) -> Path:
    """The first of the usual places where one of the first images is."""
    above, split = path.parent.resolve(), path.stem.rsplit("_", 1)[-1]
    places = [folder / part for folder in (above, above.parent) for part in ("", "images", split)]
    for place in places:
        if any(os.path.isfile(os.path.join(place, name.replace("\\", "/"))) for name in names[:20] if "\0" not in name):
            return place
    raise DataError(
        f"the images of {path} must lie in its folder, or in {few(str(place) for place in places[1:])}, but "
        f"none of the first {min(20, len(names))} does. Move the file to its images."
    )


def _relative(root: Path, name: str) -> str:
    path = os.path.normpath(os.path.join(root, name.replace("\\", "/")))
    return Path(path).relative_to(root).as_posix() if Path(path).is_relative_to(root) else path


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"the boxes must be in a COCO file, but {path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} must be a COCO file, but is not JSON ({error}). Export it again.") from error
