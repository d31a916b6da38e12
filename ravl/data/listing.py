"""What the readers of folders and manifests hand to the check of the images, and the orders of names and files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FORMS = (
    "a folder with one folder of images per class, or a manifest (.csv, .tsv, .parquet) with image_path and label, "
    "or a COCO file (.json)"
)
"""What an image set can be, for messages."""


@dataclass(frozen=True)
class Listing:
    """What a reader found, before any image is opened.

    classes: names found, in label order. file: paths relative to root, or absolute outside of it. label: class name
    of each. caption: text of each, or None. groups: column -> value of each. skipped: (file, reason) of images that
    need not be tried. empty: names of folders that hold no image. boxes: x0, y0, x1, y1 of every box of each image,
    or None. left_out: (file, reason) of readable images that belong to no class. An empty label means that the caption
    has to tell it.
    """

    root: Path
    classes: tuple[str, ...]
    file: list[str]
    label: list[str]
    caption: list[str] | None = None
    groups: dict[str, list[str]] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    boxes: list[list[list[float]]] | None = None
    left_out: list[tuple[str, str]] = field(default_factory=list)


_ADDRESS = re.compile(r"\s*(?:[a-z][a-z0-9+.-]+://|data:)", re.IGNORECASE)


def is_address(name: str) -> bool:
    """Whether a name is that of something elsewhere, such as https://..., s3://... or data:..."""
    return bool(_ADDRESS.match(name))


def sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct class names in order: by value if all are whole numbers, else as text."""
    unique = set(names)
    if all(re.fullmatch(r"-?[0-9]{1,18}", name) for name in unique):
        return tuple(sorted(unique, key=lambda name: (int(name), name)))
    return tuple(sorted(unique))


def natural(path: str) -> list[Any]:
    """Sort key of a path: numbers inside it by value, so that img2 comes before img10; the path itself breaks ties."""
    parts = re.split(r"([0-9]+)", path)
    return [*((int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)), (0, path)]


def few(names: Iterable[str]) -> str:
    """At most six names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
