"""People's own boxes: rounded to whole pixels, clipped to their images, and looked up in COCO files."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ravl.data.coco import read_coco
from ravl.data.hiding import paths_of
from ravl.data.listing import few
from ravl.errors import DataError
from ravl.tables import ImageSet

Boxes = Sequence[Sequence[float]]
"""x0, y0, x1, y1 of each box of one image, as somebody wrote them."""

_ROUNDING = 1e-6  # of a pixel: sums such as x + width are not exact


def with_boxes(images: ImageSet, boxes: Sequence[Boxes], source: str, max_unusable: float) -> ImageSet:
    """The same images with these boxes in place of their own, and a fingerprint that covers both.

    A pixel that a box touches belongs to it; what lies outside of the image is cut off. Boxes that are empty, or
    outside altogether, are listed in `skipped_boxes`; images without a box stay in the set.

    boxes: one entry per image. source: where they come from, for messages. max_unusable: share, 0..1, of the boxes that
    may be unusable. Raises DataError when more are.
    """
    return _attach(images, boxes, [""] * len(images), source, max_unusable)


def with_coco(images: ImageSet, path: Path | str, max_unusable: float) -> ImageSet:
    """The same images with the boxes of a COCO detection file in place of their own (see `with_boxes`).

    The file's `bbox` is x, y, width, height in pixels of the upright image. Its `file_name` is a path relative to the
    image set's root or to the file's own folder, or a name that only one image has; where no path fits any image, the
    names at their ends count. Records of other images are ignored, and so are categories. Where a record states another
    width and height than the image has, its boxes were drawn on another picture, such as the one before the EXIF turn,
    and are listed as unusable.

    Raises DataError when the file cannot be read or fits no image, or a name fits several.
    """
    where = Path(os.path.abspath(Path(path).expanduser()))
    found = read_coco(where)
    records = found.image
    image_of = _match(images, records, where)
    stated = {key: (record.get("width"), record.get("height")) for key, record in records.items()}
    boxes: list[list[list[float]]] = [[] for _ in range(len(images))]
    problem = [""] * len(images)
    for key, i in image_of.items():
        size = tuple(images.size[i].tolist())
        if all(type(v) is int for v in stated[key]) and stated[key] != size:
            problem[i] = f"was drawn on {_pixels(stated[key])}, but the upright image has {_pixels(size)}"
    for annotation in found.annotation:
        x, y, width, height = annotation["bbox"]
        if annotation["image_id"] in image_of:
            boxes[image_of[annotation["image_id"]]].append([x, y, x + width, y + height])
    return _attach(images, boxes, problem, str(where), max_unusable)


def _attach(
    images: ImageSet, boxes: Sequence[Boxes], problem: Sequence[str], source: str, max_unusable: float
) -> ImageSet:
    """problem: why all boxes of an image are unusable, or empty."""
    kept: list[list[int]] = []
    owner: list[int] = []
    skipped: list[tuple[str, str]] = []
    for i, own in enumerate(boxes):
        size = images.size[i].tolist()
        for number, box in enumerate(own, 1):
            clipped, reason = _clip(box, size[0], size[1])
            if reason := problem[i] or reason:
                written = ", ".join(f"{v:g}" for v in box)
                skipped.append((str(images.file[i]), f"box {number} [{written}] {reason}"))
            else:
                kept.append(clipped)
                owner.append(i)
    total = len(kept) + len(skipped)
    if len(skipped) > max_unusable * total + 1e-9:
        examples = "; ".join(f"{name}: {reason}" for name, reason in skipped[:3])
        raise DataError(
            f"at most {100 * max_unusable:g} % of the boxes of {source} may be empty or lie outside of their image, "
            f"but {len(skipped)} of {total} do: {examples}. Correct them, in pixels of the upright image."
        )
    spelled = json.dumps([images.fingerprint, owner, kept])
    return replace(
        images,
        box_image=np.array(owner, np.int32),
        box=np.array(kept, np.int32).reshape(-1, 4),
        skipped_boxes=tuple(skipped),
        fingerprint=hashlib.blake2b(spelled.encode(), digest_size=16).hexdigest(),
    )


def _clip(box: Sequence[float], width: int, height: int) -> tuple[list[int], str]:
    """The whole pixels of an image that a box touches, and why there are none, or nothing."""
    if not all(map(math.isfinite, box)):
        return [], "is not finite"
    low = [math.floor(v + _ROUNDING) for v in box[:2]]
    high = [math.ceil(v - _ROUNDING) for v in box[2:]]
    if high[0] <= low[0] or high[1] <= low[1]:
        return [], "is empty"
    clipped = [max(low[0], 0), max(low[1], 0), min(high[0], width), min(high[1], height)]
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        return [], f"lies outside of the image, which has {_pixels((width, height))}"
    return clipped, ""


def _pixels(size: Sequence[Any]) -> str:
    return f"{size[0]} x {size[1]} pixels"


def _match(images: ImageSet, records: dict[Any, dict[str, Any]], where: Path) -> dict[Any, int]:
    """Image of the set for every record id that is one. Raises DataError when none is, or a bare name is ambiguous.

    Where the set hides names, those of the file are hidden too: they may be a patient's.
    """
    by_path = {os.path.normpath(path): i for i, path in enumerate(paths_of(images))}
    by_name: dict[str, list[int]] = {}
    for path, i in by_path.items():
        by_name.setdefault(os.path.basename(path), []).append(i)
    names = {key: record["file_name"].replace("\\", "/") for key, record in records.items()}
    entry = {key: number for number, key in enumerate(records, 1)}
    found: dict[Any, int] = {}
    for key, name in names.items():
        for folder in (images.root, where.parent):
            path = os.path.normpath(os.path.join(folder, name))
            if path in by_path:
                found[key] = by_path[path]
                break
    taken = set(found.values())
    same_name = Counter(os.path.basename(name) for name in set(names.values()))
    for key, name in names.items():
        bare = os.path.basename(name)
        fitting = [i for i in by_name.get(bare, []) if i not in taken]
        other = bool(taken) and bare != name  # a path like those that fit, so of an image that is not in the set
        if key in found or not fitting or other:
            continue
        if len(by_name[bare]) > 1 or same_name[bare] > 1:
            which = "" if images.salt else f" ({name!r})"
            several = len(fitting) if images.salt else few(str(images.file[i]) for i in fitting)
            raise DataError(
                f"every file_name of {where} must fit one image, but that of entry {entry[key]}{which} may be any of "
                f"{several}. Write paths relative to {images.root}."
            )
        found[key] = fitting[0]
    if not found:
        tried = "" if images.salt else f" ({few(names.values()) or 'none'})"
        example = "" if images.salt else f", such as {few(images.file[:1])}"
        raise DataError(
            f"at least one file_name of {where} must be that of an image, but none of {len(records)} is{tried}. "
            f"Write paths relative to {images.root}{example}."
        )
    return found
