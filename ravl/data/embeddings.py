"""Embeddings that somebody computed elsewhere, with boxes, labels and perhaps scores: an audit without any model.

A Parquet file has a row per image:

    label              class name                                     (or true_label)
    image_embedding    D numbers                                      (or img_emb, also 1 x D)
    region_embeddings  one list of D numbers per region               (or reg_emb)
    boxes              x0, y0, x1, y1 of every region, in pixels      (or region_coord)
    image_path         optional, relative to the file: only then pictures can be shown
    width, height      optional, of the upright image                 (or image_size: height, width)
    image_scores       optional, Y numbers: logits or probabilities of the image
    region_scores      optional, Y numbers per region

and each further column of 2 to MAX_GROUP_VALUES values is a group. The names in brackets are those of the example
that the paper's authors published with their code. It is a pickled table, which is never opened here, since a pickle
can run code: write it with `to_parquet`, without `pixel_data`. `num_regions`, `reg_labels` and `pixel_data` are not
read.

Instead of a file there may be a folder: a manifest `images.csv` or `images.parquet` with `label`, `boxes` and perhaps
`image_path`, beside `image_embeddings.npy` (I, D) and `region_embeddings.npy` (R, D), in the order of rows and boxes.

Classes are told apart by their text embeddings, a .npy file (Y, D) in the order of the class names, or Parquet with the
columns `class` and `embedding`; or by the scores. Embeddings are read a block at a time and never all at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.data.checking import Checked, check_files
from ravl.data.embedding_files import IGNORED, FolderSource, ParquetSource
from ravl.data.hiding import pseudonym
from ravl.data.listing import few, is_address, sorted_names
from ravl.data.manifest import MAX_GROUP_VALUES, text_of
from ravl.errors import DataError
from ravl.tables import COUNTS_ANYWAY, ImageSet, Regions, Report, Step, quiet

_READ = ("label", "image_path", "width", "height", "image_size", "boxes", "image_scores", "region_scores")

Floats = NDArray[np.float32]
Blocks = Callable[[int], Iterator[tuple[int, Floats, Floats]]]


@dataclass(frozen=True)
class Given:
    """What an audit without a model starts from.

    text: (Y, D) unit vectors of the classes, or None. image_scores: (I, Y) and region_scores: (R, Y) logits or
    probabilities, or None. dim: D. blocks(start): yields (images done, image (b, D), region (n, D)), unit vectors, from
    image `start` on. fingerprint: of everything that was given.
    """

    images: ImageSet
    regions: Regions
    text: Floats | None
    image_scores: Floats | None
    region_scores: Floats | None
    dim: int
    blocks: Blocks
    fingerprint: str


def read_embeddings(
    path: Path | str, text: Path | str | None, classes: Sequence[str], salt: str = "", report: Report = quiet
) -> Given:
    """Read precomputed embeddings: everything but the embeddings themselves, which come in blocks.

    text: embeddings of the class names, or None where the file has scores. classes: names in label order; without them
    those of the text file, else the distinct labels, sorted. salt: key of pseudonyms, for sets that name DICOM files.
    Raises DataError for what is no such file, with one sentence that says what to do.
    """
    where = Path(os.path.abspath(Path(path).expanduser()))
    source = FolderSource(where) if where.is_dir() else ParquetSource(where)
    columns = source.columns()
    if "label" not in columns or "boxes" not in columns:
        found = few(map(repr, source.names)) or "none"
        raise DataError(f"{where} must have the columns label and boxes, got {found}. See the README for the format.")
    names, vectors = _class_vectors(text, tuple(classes), columns["label"], where)
    boxes = [_boxes_of(where, i, cell) for i, cell in enumerate(columns["boxes"])]
    images, regions = _records(where, columns, boxes, names, salt, report)
    scores: dict[str, Floats | None] = {"image_scores": None, "region_scores": None}
    if vectors is None:
        for name, rows in (("image_scores", len(images)), ("region_scores", len(regions))):
            scores[name] = _scores(where, name, columns.get(name), rows, len(names))
    dim = source.dim(len(images), len(regions))
    if vectors is not None and vectors.shape[1] != dim:
        raise DataError(
            f"the text embeddings must have {dim} numbers like those of the images, got {vectors.shape[1]}."
        )
    print_ = hashlib.blake2b(json.dumps([images.fingerprint, names, source.digest()]).encode(), digest_size=16)
    print_.update(b"" if vectors is None else vectors.tobytes())
    digest = print_.hexdigest()
    counts = np.diff(regions.starts)
    return Given(
        replace(images, fingerprint=digest),
        regions,
        vectors,
        **scores,
        dim=dim,
        blocks=lambda start: _checked_blocks(where, source.blocks(start, regions), dim, counts, start),
        fingerprint=digest,
    )


# --- the embeddings -------------------------------------------------------------------------------------------------


def _checked_blocks(
    where: Path, blocks: Iterator[tuple[int, Floats, Floats]], dim: int, counts: NDArray[np.int64], start: int
) -> Iterator[tuple[int, Floats, Floats]]:
    """Unit vectors. Raises DataError for a block of another shape, or a vector that is not finite or without length."""
    for done, image, region in blocks:
        wanted = int(counts[start:done].sum())
        if len(region) != wanted or image.shape[1] != dim or (len(region) and region.shape[1] != dim):
            raise DataError(
                f"{where} must have one region embedding of {dim} numbers per box, but rows {start + 1} .. {done} have "
                f"{len(region)} for {wanted} boxes."
            )
        yield done, _unit(where, image, start), _unit(where, region.reshape(-1, dim), start)
        start = done


def _unit(where: Path, rows: Floats, start: int) -> Floats:
    length = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(length).all() or not (length > 0).all():
        raise DataError(f"{where} must hold finite embeddings other than 0, but has another one after row {start + 1}.")
    unit: Floats = (rows / length).astype(np.float32)
    return unit


# --- the records -----------------------------------------------------------------------------------------------------


def _class_vectors(
    text: Path | str | None, classes: tuple[str, ...], labels: list[Any], where: Path
) -> tuple[tuple[str, ...], Floats | None]:
    """Class names in label order, and (Y, D) their unit vectors, or None where there is no text file."""
    spoken = [text_of(label).strip() for label in labels]
    if missing := [i for i, label in enumerate(spoken) if not label]:
        raise DataError(f"{where} must have a label in every row, but row {missing[0] + 1} has none.")
    if text is None:
        return classes or sorted_names(spoken), None
    file = Path(text).expanduser()
    if file.suffix.lower() == ".parquet":
        table = _text_table(file)
        order = classes or tuple(table)
        if unknown := [name for name in order if name not in table]:
            raise DataError(f"{file} must have an embedding of every class, but {unknown[0]!r} has none.")
        return order, _unit(file, np.stack([table[name] for name in order]), 0)
    try:
        vectors = np.asarray(np.load(file, allow_pickle=False), np.float32)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"the text embeddings must be .npy or .parquet, but {file} cannot be read ({error})."
        ) from error
    order = classes or sorted_names(spoken)
    if vectors.ndim != 2 or len(vectors) != len(order):
        raise DataError(
            f"{file} must have a row per class ({few(order)}), got {vectors.shape}. Give --classes in its order."
        )
    if not classes:
        raise DataError(f"the order of the classes in {file} must be given: --classes {','.join(order[:3])},...")
    return order, _unit(file, vectors, 0)


def _text_table(path: Path) -> dict[str, Floats]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = pq.read_table(path).to_pydict()
        names, vectors = columns["class"], columns["embedding"]
        return {str(name): np.asarray(vector, np.float32) for name, vector in zip(names, vectors, strict=True)}
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowException) as error:
        raise DataError(f"{path} must be Parquet with the columns class and embedding ({error}).") from error


def _boxes_of(where: Path, row: int, cell: Any) -> NDArray[np.int64]:
    """(n, 4) the boxes of one row, whole pixels."""
    try:
        value = json.loads(cell) if isinstance(cell, str) else cell
        boxes = np.asarray([] if value is None else value, np.float64).reshape(-1, 4)
        good = bool(np.isfinite(boxes).all() and (np.abs(boxes) < 2**30).all())
    except (ValueError, TypeError, RecursionError):
        good = False
    if not good or (boxes[:, 2:] <= boxes[:, :2]).any() or (boxes < 0).any():
        raise DataError(
            f"{where} must have boxes [x0, y0, x1, y1] with x0 < x1 and y0 < y1, but not so in row {row + 1}."
        )
    return np.stack([*np.floor(boxes[:, :2]).T, *np.ceil(boxes[:, 2:]).T], 1).astype(np.int64)


def _records(
    where: Path,
    columns: dict[str, list[Any]],
    boxes: list[NDArray[np.int64]],
    names: tuple[str, ...],
    salt: str,
    report: Report,
) -> tuple[ImageSet, Regions]:
    root = where if where.is_dir() else where.parent
    labels = [text_of(label).strip() for label in columns["label"]]
    if strange := sorted(set(labels) - set(names)):
        raise DataError(
            f"every label must be one of the classes {few(names)}, got {strange[0]!r}. Add it to --classes."
        )
    if len(set(labels)) < 2:
        raise DataError(f"images of at least two classes are needed, got {few(set(labels)) or 'none'}.")
    given = [text_of(path).strip() for path in columns.get("image_path", [""] * len(labels))]
    if any(map(is_address, given)):
        raise DataError(f"{where} must name files on this machine, got an address. Nothing is downloaded.")
    checked = _pictures(root, given, salt, report)
    hidden = any(path.lower().endswith((".dcm", ".dicom")) for path in given) or any(one.headers for one in checked)
    key = salt or secrets.token_hex(32)
    shown = [pseudonym(p, key) if p and hidden else p or f"row {i + 1}" for i, p in enumerate(given)]
    size = _sizes(where, columns, boxes, checked)
    index = {name: y for y, name in enumerate(names)}
    further = {n: [text_of(v) for v in values] for n, values in columns.items() if n not in _READ and n not in IGNORED}
    groups = {n: np.array(v, np.str_) for n, v in further.items() if 1 < len(set(v)) <= MAX_GROUP_VALUES}
    missing = [(shown[i], f"{one.reason}; {COUNTS_ANYWAY}") for i, one in enumerate(checked) if one.reason]
    images = ImageSet(
        root=str(root.resolve()),
        file=np.array(shown, np.str_),
        label=np.array([index[label] for label in labels], np.int16),
        size=size.astype(np.int32),
        class_names=names,
        groups=groups,
        skipped=tuple(missing if any(given) else ()),
        salt=key if hidden else "",
    )
    owner = np.repeat(np.arange(len(boxes)), [len(own) for own in boxes])
    flat = np.concatenate([np.zeros((0, 4), np.int64), *boxes])
    same = len(boxes) > 0 and all(np.array_equal(own, boxes[0]) for own in boxes)
    position = np.tile(np.arange(len(boxes[0])), len(boxes)) if same else np.full(len(flat), -1)
    return images, Regions(owner.astype(np.int32), flat.astype(np.int32), position.astype(np.int16), len(boxes))


def _pictures(root: Path, given: list[str], salt: str, report: Report) -> list[Checked]:
    """The images that are named, read as those of any other set; the others are unknown."""
    paths = [os.path.join(root, path) for path in given if path]
    found = []
    for one in check_files(paths, "refuse", salt):
        found.append(one)
        report(Step("images", len(found), len(paths)))
    read = iter(found)
    return [next(read) if path else Checked(0, 0, "", "") for path in given]


def _sizes(
    where: Path, columns: dict[str, list[Any]], boxes: list[NDArray[np.int64]], checked: list[Checked]
) -> NDArray[np.int64]:
    """(I, 2) width and height: of the picture, else as given, else as far as the boxes reach."""
    size = np.array([(one.width, one.height) for one in checked], np.int64).reshape(-1, 2)
    try:
        if "image_size" in columns:
            said = np.array([list(map(int, pair)) for pair in columns["image_size"]], np.int64).reshape(-1, 2)[:, ::-1]
        elif "width" in columns and "height" in columns:
            said = np.array([columns["width"], columns["height"]], np.int64).T
        else:
            said = np.zeros_like(size)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{where} must have sizes in whole pixels ({error}).") from error
    reach = np.array([own[:, 2:].max(0) if len(own) else (1, 1) for own in boxes], np.int64).reshape(-1, 2)
    size = np.where(size > 0, size, np.where(said > 0, said, reach))
    boxed = np.array([len(own) > 0 for own in boxes], bool)
    if len(outside := np.flatnonzero((reach > size).any(1) & boxed)):
        width, height = size[outside[0]]
        raise DataError(
            f"{where} must have boxes inside of their image, but one of row {outside[0] + 1} lies outside of {width} x "
            f"{height} pixels."
        )
    return size


def _scores(where: Path, name: str, cells: list[Any] | None, rows: int, n_classes: int) -> Floats:
    """(rows, Y) scores, as they are."""
    if cells is None:
        raise DataError(
            f"classes must be told apart by text embeddings or by scores, but no --text-embeddings are given and "
            f"{where} has no column {name}. Embed the class names with the same model; save them as .npy or Parquet."
        )
    try:
        values = [json.loads(cell) if isinstance(cell, str) else cell for cell in cells]
        parts = [np.asarray([] if cell is None else cell, np.float32).reshape(-1, n_classes) for cell in values]
        out = np.concatenate([np.zeros((0, n_classes), np.float32), *parts])
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{where} must have {n_classes} numbers per class in {name} ({error}).") from error
    if len(out) != rows or not np.isfinite(out).all():
        raise DataError(f"{where} must have finite {name} for {rows} rows of {n_classes} classes, got {len(out)} rows.")
    return out
