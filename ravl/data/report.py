"""What an image set holds and what is wrong with it, as one document and as text, before any model is opened."""

from __future__ import annotations

from typing import Any

import numpy as np

from ravl.data.duplicates import duplicates
from ravl.tables import ImageSet

_SHOWN = 5  # entries of a list in the text; the document has all


def describe(images: ImageSet) -> dict[str, Any]:
    """Keys: source, n_images, classes {name: images}, captions, groups {name: {value: images}}, n_boxes; and lists.

    skipped, skipped_boxes, left_out: {file, reason}. duplicates: lists of {file, label} of equal content;
    label_clashes: those of them whose labels differ. dicom: None, or how many files say that text is burned in, and how
    many were shown in which way.
    """
    sizes = np.bincount(images.label[images.label >= 0], minlength=len(images.class_names))
    found = duplicates(images)
    return {
        "source": images.source,
        "n_images": len(images),
        "classes": {name: int(n) for name, n in zip(images.class_names, sizes, strict=True)},
        "captions": images.caption is not None,
        "groups": {name: _counts(values.tolist()) for name, values in images.groups.items()},
        "n_boxes": None if images.box is None else len(images.box),
        **{
            name: [{"file": file, "reason": reason} for file, reason in getattr(images, name)]
            for name in ("skipped", "skipped_boxes", "left_out")
        },
        "duplicates": [_named(images, ids) for ids in found.same],
        "label_clashes": [_named(images, ids) for ids in found.clash],
        "dicom": _dicom(images),
    }


def _named(images: ImageSet, ids: tuple[int, ...]) -> list[dict[str, str]]:
    return [{"file": str(images.file[i]), "label": _label(images, i)} for i in ids]


def _label(images: ImageSet, image: int) -> str:
    return images.class_names[images.label[image]] if images.label[image] >= 0 else ""


def _counts(values: list[str]) -> dict[str, int]:
    return {value: values.count(value) for value in sorted(set(values))}


def _dicom(images: ImageSet) -> dict[str, Any] | None:
    if not images.headers:
        return None
    kinds = [_kind(words) for words in images.headers["rendering"].tolist()]
    return {
        "n": int(np.count_nonzero(images.headers["photometric"] != "")),
        "burned_in": int(np.count_nonzero(images.headers["burned_in"] == "YES")),
        "patients": len(set(images.headers["patient"].tolist()) - {""}),
        "rendering": _counts([kind for kind in kinds if kind]),
    }


def _kind(rendering: str) -> str:
    """How values became grey, without the numbers."""
    for kind in ("VOI LUT", "no window", "window", "colour"):
        if kind in rendering:
            return kind
    return ""


def text(document: dict[str, Any]) -> str:
    """The document as a page for the terminal."""
    lines = [f"{document['source']}: {document['n_images']} images of {len(document['classes'])} classes"]
    lines += [f"{n:>8}  {name}" for name, n in document["classes"].items()]
    if document["captions"]:
        lines.append("with captions")
    if document["n_boxes"] is not None:
        lines.append(f"with {document['n_boxes']} boxes")
    lines += [f"group {name}: {_spelled(values)}" for name, values in document["groups"].items()]
    for name, words in (
        ("skipped", "cannot be used"),
        ("left_out", "belong to no class"),
        ("skipped_boxes", "boxes cannot be used"),
    ):
        rows = [f"{row['file']} {row['reason']}" for row in document[name]]
        lines += _some(rows, words)
    copies = sum(len(same) - 1 for same in document["duplicates"])
    rows = [" = ".join(f"{one['file']} ({one['label']})" for one in same) for same in document["duplicates"]]
    clashes = [" = ".join(f"{one['file']} ({one['label']})" for one in same) for same in document["label_clashes"]]
    lines += [f"{copies} images are copies of another", *_indented(rows)] if copies else []
    lines += [f"{len(clashes)} of these have different labels", *_indented(clashes)] if clashes else []
    if dicom := document["dicom"]:
        lines.append(
            f"{dicom['n']} DICOM files of {dicom['patients']} patients, shown by {_spelled(dicom['rendering'])}"
        )
        if dicom["burned_in"]:
            lines.append(
                f"{dicom['burned_in']} say that text is burned into the picture (BurnedInAnnotation YES): names may be "
                "seen there; look before you show them to anybody"
            )
    return "\n".join(lines)


def _some(rows: list[str], words: str) -> list[str]:
    return [f"{len(rows)} {words}", *_indented(rows)] if rows else []


def _indented(rows: list[str]) -> list[str]:
    more = [f"          and {len(rows) - _SHOWN} more (--json lists all)"] if len(rows) > _SHOWN else []
    return [f"          {row}" for row in rows[:_SHOWN]] + more


def _spelled(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} ({n})" for name, n in counts.items())
