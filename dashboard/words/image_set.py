"""What somebody should know about the audited images themselves: what was left out, copies, and names burned in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dashboard.words.wording import count
from ravl.data.duplicates import duplicates
from ravl.tables import ImageSet


@dataclass(frozen=True)
class Concern:
    """One thing to know. title: with its count. meaning: a sentence. rows: by column name, all of one length; empty
    where the sentence says all. serious: whether it can spoil what the audit says."""

    title: str
    meaning: str
    rows: dict[str, list[str]]
    serious: bool = False


def concerns(images: ImageSet) -> tuple[Concern, ...]:
    """All there is to say, the serious ones first; empty where nothing is wrong."""
    found = duplicates(images)
    clashes = set(found.clash)
    copies = tuple(ids for ids in found.same if ids not in clashes)
    marked = images.headers.get("burned_in")
    burned = np.flatnonzero(marked == "YES") if marked is not None else np.zeros(0, np.int64)
    every = (
        _repeated(
            images,
            found.clash,
            "image under two labels",
            "images under two labels",
            "The same picture is listed with different labels, so that at least one answer counts as wrong whatever "
            "the model says. Correct the labels and audit again.",
            serious=True,
        ),
        _listed(
            [(str(images.file[i]), "the header says so (BurnedInAnnotation YES)") for i in burned.tolist()],
            "image with text burned in",
            "images with text burned in",
            "Names may be seen in the picture itself, where nothing can hide them. Look before you show it to anybody.",
            serious=True,
        ),
        _listed(
            images.unreadable, "file left out", "files left out", "What cannot be read is not used, and counts nowhere."
        ),
        _listed(
            images.unseen,
            "image that cannot be shown",
            "images that cannot be shown",
            "The file cannot be read. The embeddings were given, so the image counts like every other.",
        ),
        _listed(
            images.empty_folders,
            "folder without images",
            "folders without images",
            "Such a folder is not used as a class.",
        ),
        _listed(
            images.left_out, "image of no class", "images of no class", "They belong to none of the audited classes."
        ),
        _listed(images.skipped_boxes, "box left out", "boxes left out", "They cannot be used as regions."),
        _repeated(
            images,
            copies,
            "image listed more than once",
            "images listed more than once",
            "Copies count as often as they are listed, so that counts and intervals look surer than they are.",
        ),
    )
    return tuple(concern for concern in every if concern)


def left_out(images: ImageSet) -> str:
    """What was listed and could not be used, each kind for itself, in a sentence or several; empty for nothing."""
    unread, unseen, empty = (len(rows) for rows in (images.unreadable, images.unseen, images.empty_folders))
    said = (
        f"{count(unread, 'file')} could not be read and {_form(unread, 'counts', 'count')} nowhere." if unread else "",
        f"{count(unseen, 'image')} cannot be shown, but {_form(unseen, 'counts', 'count')}: the embeddings were given."
        if unseen
        else "",
        f"{count(empty, 'folder')} without images {_form(empty, 'is no class', 'are no classes')}." if empty else "",
    )
    return " ".join(filter(None, said))


def _form(n: int, one: str, many: str) -> str:
    return one if n == 1 else many


def _listed(
    rows: tuple[tuple[str, str], ...] | list[tuple[str, str]], one: str, many: str, meaning: str, serious: bool = False
) -> Concern | None:
    if not rows:
        return None
    columns = {"File": [file for file, _ in rows], "Reason": [reason for _, reason in rows]}
    return Concern(count(len(rows), one, many), meaning, columns, serious)


def _repeated(
    images: ImageSet, sets: tuple[tuple[int, ...], ...], one: str, many: str, meaning: str, serious: bool = False
) -> Concern | None:
    if not sets:
        return None
    columns: dict[str, list[str]] = {"File": [], "Label": [], "Same picture as": []}
    for ids in sets:
        for i in ids:
            label = int(images.label[i])
            columns["File"].append(str(images.file[i]))
            columns["Label"].append(images.class_names[label] if label >= 0 else "")
            columns["Same picture as"].append(", ".join(str(images.file[j]) for j in ids if j != i))
    return Concern(count(len(sets), one, many), meaning, columns, serious)
