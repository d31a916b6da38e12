"""Image sets from a folder or a manifest. Every image is decoded once, which is how damage is found."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import numpy as np

from ravl.data.boxes import with_boxes
from ravl.data.decoding import decode_bytes, read_file
from ravl.data.folder import list_folder
from ravl.data.images import in_order
from ravl.data.listing import FORMS, Listing, few, natural
from ravl.data.manifest import SUFFIXES, list_manifest
from ravl.errors import DataError
from ravl.tables import ImageSet, Report, Step, quiet

_MAX_CLASSES = 32_767  # labels are int16


def read_images(
    path: Path | str,
    classes: Iterable[str] = (),
    max_unreadable: float = 0.05,
    report: Report = quiet,
) -> ImageSet:
    """List, decode and fingerprint an image set.

    path: a folder `class/image` (deeper folders belong to their class; hidden files are ignored; files are ordered by
    path, numbers by value), or a manifest, `.csv`, `.tsv` or `.parquet`, with the columns `image_path` and `label`, and
    perhaps `caption` and `boxes`: a JSON list of [x0, y0, x1, y1] in pixels of the upright image, half-open, or nothing
    where an image has none. Each further column of 2 to MAX_GROUP_VALUES distinct values becomes a group column. Paths
    in a manifest are relative to its folder; those that lead out of it are kept, as absolute paths.
    classes: class names in label order. Without them the folder names, or the distinct labels, sorted (as numbers if
    all are); then a folder without images is no class. A class may have no image, but two must have some.
    max_unreadable: share, 0..1, of the listed images that may be missing or unreadable; they are in `skipped`. The
    same share of the boxes may be empty or lie outside of their image; they are in `skipped_boxes`.

    Raises DataError when the set cannot be audited, with one sentence that says what to do.
    """
    where = Path(os.path.abspath(Path(path).expanduser()))
    wanted = tuple(name.strip() for name in classes)
    if where.is_dir():
        listing = list_folder(where.resolve(), wanted)
    elif not where.exists():
        raise DataError(f"images must be {FORMS}, but {where} does not exist. Check the path.")
    elif where.suffix.lower() in SUFFIXES:
        listing = list_manifest(where)
    else:
        raise DataError(f"images must be {FORMS}, got the file {where}.")
    names = _class_names(wanted, listing)
    _check_classes(listing.label, where)

    checked: list[_Checked] = []
    report(Step("images", 0, len(listing.file)))
    for one in in_order(_check, [os.path.join(listing.root, name) for name in listing.file]):
        checked.append(one)
        report(Step("images", len(checked), len(listing.file)))
    good = [not one.reason for one in checked]
    bad = [(name, one.reason) for name, one in zip(listing.file, checked, strict=True) if one.reason]
    skipped = sorted([*listing.skipped, *bad], key=lambda row: natural(row[0]))
    _check_share(skipped, sum(good), max_unreadable)
    _check_classes(list(compress(listing.label, good)), where, len(skipped))
    unused = [name for name in listing.empty if name not in names]
    skipped += [(f"{name}/", "holds no image, so it is not used as a class") for name in unused]
    images = _image_set(listing, names, good, list(compress(checked, good)), skipped)
    if listing.boxes is None:
        return images
    return with_boxes(images, list(compress(listing.boxes, good)), str(where), max_unreadable)


@dataclass(frozen=True)
class _Checked:
    """width, height: upright pixels. digest: of the file's bytes. reason: why it cannot be used, or empty."""

    width: int
    height: int
    digest: str
    reason: str


def _check(path: str) -> _Checked:
    try:
        data = read_file(path)
        image = decode_bytes(data)
    except DataError as error:
        return _Checked(0, 0, "", str(error))
    return _Checked(image.width, image.height, hashlib.blake2b(data, digest_size=16).hexdigest(), "")


def _class_names(wanted: tuple[str, ...], listing: Listing) -> tuple[str, ...]:
    """Class names in label order; refuses names that a model cannot tell apart, and labels without a class."""
    names = wanted or listing.classes
    if len(names) > _MAX_CLASSES:
        raise DataError(f"there must be at most {_MAX_CLASSES} classes, got {len(names)}. Check the label column.")
    if not all(names):
        raise DataError("every class must have a name, got an empty one. Name it or remove it.")
    known: dict[str, str] = {}
    for name in names:
        if name.casefold() in known:
            raise DataError(
                f"class names must differ in more than case, got {known[name.casefold()]!r} and {name!r}. "
                "Merge or rename them."
            )
        known[name.casefold()] = name
    if strange := [name for name in listing.classes if name not in names]:
        raise DataError(
            f"every label must be one of the classes {few(names)}, but {strange[0]!r} "
            f"({listing.label.count(strange[0])} images) is not: it would be a class without prompts. "
            "Add it to the classes, or leave its images out."
        )
    return names


def _check_classes(labels: list[str], where: Path, skipped: int = 0) -> None:
    if len(set(labels)) == 1:
        rest = f" ({skipped} could not be read)" if skipped else ""
        raise DataError(
            f"images of at least two classes are needed, but all {len(labels)} of {where}{rest} are {labels[0]!r}, "
            "one class only. A model's errors are between classes: add the others, or pass the folder above."
        )


def _check_share(skipped: list[tuple[str, str]], readable: int, max_unreadable: float) -> None:
    total = len(skipped) + readable
    if readable and len(skipped) <= max_unreadable * total + 1e-9:
        return
    examples = "; ".join(f"{name} {reason}" for name, reason in skipped[:3])
    if not readable:
        raise DataError(f"at least one image must be readable, but none of {total} is: {examples}.")
    kinds = Counter("missing" if reason == "does not exist" else "unreadable" for _, reason in skipped)
    counts = " and ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    raise DataError(
        f"at most {100 * max_unreadable:g} % of the images may be missing or unreadable, but {counts} of {total} are: "
        f"{examples}. Repair or remove them."
    )


def _image_set(
    listing: Listing,
    names: tuple[str, ...],
    good: list[bool],
    checked: list[_Checked],
    skipped: list[tuple[str, str]],
) -> ImageSet:
    """Keep the good rows and digest them: paths, labels, contents, captions, groups and class names."""
    files, labels = list(compress(listing.file, good)), list(compress(listing.label, good))
    caption = None if listing.caption is None else list(compress(listing.caption, good))
    groups = {name: list(compress(values, good)) for name, values in listing.groups.items()}
    # JSON keeps the fields apart, so that no two different sets spell the same bytes
    fingerprint = hashlib.blake2b(json.dumps([names, list(groups), caption is None]).encode(), digest_size=16)
    for i, one in enumerate(checked):
        row = [files[i], labels[i], one.digest, caption[i] if caption else "", [groups[name][i] for name in groups]]
        fingerprint.update(json.dumps(row).encode())
    index = {name: i for i, name in enumerate(names)}
    return ImageSet(
        root=str(listing.root),
        file=np.array(files, np.str_),
        label=np.array([index[name] for name in labels], np.int16),
        size=np.array([(one.width, one.height) for one in checked], np.int32),
        class_names=names,
        caption=None if caption is None else np.array(caption, np.str_),
        groups={name: np.array(values, np.str_) for name, values in groups.items()},
        skipped=tuple(skipped),
        fingerprint=fingerprint.hexdigest(),
    )
