"""Image sets from every kind of source. Every image is decoded once, which is how damage is found."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ravl.config import AuditConfig
from ravl.data.boxes import with_boxes
from ravl.data.captions import class_of
from ravl.data.checking import Checked, check_files
from ravl.data.hiding import pseudonym
from ravl.data.listing import Listing, few, natural
from ravl.data.sources import list_source, parse
from ravl.errors import DataError
from ravl.tables import ImageSet, Report, Step, quiet

_MAX_CLASSES = 32_767  # labels are int16


@dataclass(frozen=True)
class Reading:
    """How a set is read.

    frames: which frame of a DICOM file with several is meant, `first` or `middle`; `refuse` lists it as unusable.
    salt: hexadecimal key of the pseudonyms that stand for the names of DICOM files; empty: a new one.
    hide_names: pseudonyms for other files too. synonyms: other words for each class, in label order, for captions.
    unlabelled: what happens to images whose caption names no class, or several: `leave out`, or `keep` with label -1.
    """

    frames: str = "refuse"
    salt: str = ""
    hide_names: bool = False
    synonyms: tuple[tuple[str, ...], ...] = ()
    unlabelled: str = "leave out"

    @classmethod
    def of(cls, config: AuditConfig, salt: str, unlabelled: str = "leave out") -> Reading:
        """As an audit reads its images."""
        return cls(config.frames, salt, config.hide_names, config.prompts.synonyms, unlabelled)


def read_images(
    path: Path | str,
    classes: Iterable[str] = (),
    max_unreadable: float = 0.05,
    report: Report = quiet,
    reading: Reading = Reading(),
) -> ImageSet:
    """List, decode and fingerprint an image set.

    path: a folder `class/image` (deeper folders belong to their class; hidden files are ignored; files are ordered by
    path, numbers by value); such a folder with `metadata.csv`, `.jsonl` or `.parquet` (see `ravl.data.metadata`); a
    manifest, `.csv`, `.tsv` or `.parquet`, with the columns `image_path` and `label` or `caption`, and perhaps `split`
    and `boxes`: a JSON list of [x0, y0, x1, y1] in pixels of the upright image, half-open, or nothing where an image
    has none; or a COCO file (see `ravl.data.coco`). `path@split` is one split: a folder below, or rows of that `split`.
    Each further column of 2 to MAX_GROUP_VALUES distinct values becomes a group column. Paths in a manifest are
    relative to its folder; those that lead out of it are kept, as absolute paths. A row without a label is of the class
    that its caption names (see `ravl.data.captions`).
    classes: class names in label order. Without them the folder names, or the distinct labels, sorted (as numbers if
    all are); then a folder without images is no class. A class may have no image, but two must have some.
    max_unreadable: share, 0..1, of the listed images that may be missing or unreadable; they are in `skipped`. The
    same share of the boxes may be empty or lie outside of their image; they are in `skipped_boxes`.

    Raises DataError when the set cannot be audited, with one sentence that says what to do.
    """
    source = parse(path)
    wanted = tuple(name.strip() for name in classes)
    listing = list_source(source, wanted)
    names = _class_names(wanted, listing)
    listing = _labelled(listing, names, reading)
    _check_classes(listing.label, source.path)

    checked: list[Checked] = []
    salt = reading.salt or secrets.token_hex(32)
    report(Step("images", 0, len(listing.file)))
    for one in check_files([os.path.join(listing.root, name) for name in listing.file], reading.frames, salt):
        checked.append(one)
        report(Step("images", len(checked), len(listing.file)))
    hidden = reading.hide_names or _medical(listing, checked)
    shown = [pseudonym(name, salt) if hidden else name for name in listing.file]
    good = [not one.reason for one in checked]
    bad = [(name, one.reason) for name, one in zip(shown, checked, strict=True) if one.reason]
    early = [(pseudonym(name, salt) if hidden else name, reason) for name, reason in listing.skipped]
    skipped = sorted([*early, *bad], key=lambda row: natural(row[0]))
    _check_share(skipped, sum(good), max_unreadable)
    _check_classes(list(compress(listing.label, good)), source.path, len(skipped))
    unused = [name for name in listing.empty if name not in names]
    skipped += [(f"{name}/", "holds no image, so it is not used as a class") for name in unused]
    images = _image_set(listing, names, good, list(compress(checked, good)))
    left_out = [(pseudonym(name, salt) if hidden else name, reason) for name, reason in listing.left_out]
    images = replace(
        images,
        file=np.array(list(compress(shown, good)), np.str_),
        skipped=tuple(skipped),
        left_out=tuple(left_out),
        source=str(source),
        salt=salt if hidden else "",
        frames=reading.frames,
    )
    if listing.boxes is None:
        return images
    return with_boxes(images, list(compress(listing.boxes, good)), str(source), max_unreadable)


def _medical(listing: Listing, checked: list[Checked]) -> bool:
    """Whether any file is DICOM, by content or name: then all names of the set are hidden."""
    named = any(name.lower().endswith((".dcm", ".dicom")) for name in listing.file)
    return named or any(one.headers for one in checked)


def _labelled(listing: Listing, names: tuple[str, ...], reading: Reading) -> Listing:
    """Give rows without a label the class that their caption names, and leave out, or keep, those where none is."""
    if all(listing.label):
        return listing
    captions = listing.caption or [""] * len(listing.file)
    words = [(name, *synonyms) for name, synonyms in zip(names, _padded(reading.synonyms, len(names)), strict=True)]
    said = [class_of(caption, words) for caption in captions]
    label = [given or (names[y] if y >= 0 else "") for given, y in zip(listing.label, said, strict=True)]
    if not any(label):
        raise DataError(
            f"at least two classes must be named by the captions, but none of {len(label)} captions names one of "
            f"{few(names)}. Give the words of the captions with --classes, such as 'pneumothorax|collapsed lung'."
        )
    if reading.unlabelled == "keep":
        return replace(listing, label=label)
    keep = [bool(one) for one in label]
    left = [
        (name, f"has a caption that names {'several classes' if y == -2 else 'no class'}")
        for name, one, y in zip(listing.file, label, said, strict=True)
        if not one
    ]
    return replace(
        listing,
        file=list(compress(listing.file, keep)),
        label=list(compress(label, keep)),
        caption=None if listing.caption is None else list(compress(listing.caption, keep)),
        groups={name: list(compress(values, keep)) for name, values in listing.groups.items()},
        boxes=None if listing.boxes is None else list(compress(listing.boxes, keep)),
        left_out=[*listing.left_out, *left],
    )


def _padded(synonyms: tuple[tuple[str, ...], ...], count: int) -> list[tuple[str, ...]]:
    return [*synonyms, *[()] * (count - len(synonyms))][:count]


def _class_names(wanted: tuple[str, ...], listing: Listing) -> tuple[str, ...]:
    """Class names in label order; refuses names that a model cannot tell apart, and labels without a class."""
    names = wanted or listing.classes
    if len(names) > _MAX_CLASSES:
        raise DataError(f"there must be at most {_MAX_CLASSES} classes, got {len(names)}. Check the label column.")
    if not names:
        raise DataError(
            "classes must be named when captions tell them, got none. Give --classes in the words of the captions."
        )
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
    known = [label for label in labels if label]
    if len(set(known)) == 1:
        rest = f" ({skipped} could not be read)" if skipped else ""
        raise DataError(
            f"images of at least two classes are needed, but all {len(known)} of {where}{rest} are {known[0]!r}, "
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


def _image_set(listing: Listing, names: tuple[str, ...], good: list[bool], checked: list[Checked]) -> ImageSet:
    """Keep the good rows and digest them: paths, labels, contents, captions, groups and class names."""
    files, labels = list(compress(listing.file, good)), list(compress(listing.label, good))
    caption = None if listing.caption is None else list(compress(listing.caption, good))
    groups = {name: list(compress(values, good)) for name, values in listing.groups.items()}
    # JSON keeps the fields apart, so that no two different sets spell the same bytes
    fingerprint = hashlib.blake2b(json.dumps([names, list(groups), caption is None]).encode(), digest_size=16)
    for i, one in enumerate(checked):
        row = [files[i], labels[i], one.digest, caption[i] if caption else "", [groups[name][i] for name in groups]]
        fingerprint.update(json.dumps(row).encode())
    index = {name: i for i, name in enumerate(names)} | {"": -1}
    return ImageSet(
        root=str(listing.root),
        file=np.array(files, np.str_),
        label=np.array([index[name] for name in labels], np.int16),
        size=np.array([(one.width, one.height) for one in checked], np.int32),
        class_names=names,
        caption=None if caption is None else np.array(caption, np.str_),
        groups={name: np.array(values, np.str_) for name, values in groups.items()},
        fingerprint=fingerprint.hexdigest(),
        digest=np.array([one.digest for one in checked], np.str_),
        headers=_headers(checked),
    )


def _headers(checked: list[Checked]) -> dict[str, NDArray[np.str_]]:
    """The columns of allowed headers, where any file has some."""
    names = dict.fromkeys(name for one in checked for name in one.headers)
    return {name: np.array([one.headers.get(name, "") for one in checked], np.str_) for name in names}
