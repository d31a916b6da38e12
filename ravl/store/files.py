"""How records become files. A file that exists is whole: it is written to a partial name, synced and renamed."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ravl.errors import RunError
from ravl.tables import (
    Agreement,
    Clustering,
    Counterfactuals,
    Evidence,
    Exemplars,
    Families,
    FeatureScores,
    ImageSet,
    Regions,
    Significance,
    ZeroShot,
    columns,
)


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a partial path next to `path`; sync it and move it into place when the block ends without an error.

    When it ends with one, the partial file is removed: on a full disk it would be in the way of trying again.
    Raises RunError when the disk is full, read-only or not permitted.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        with suppress(OSError):  # usually it is gone already, and what happened before is what has to be told
            partial.unlink(missing_ok=True)


def allocate(file: IO[bytes], size: int) -> None:
    """Extend a file to `size` bytes that the disk has: a full one must fail here, not as a bus error in a mapping."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
    # file systems without that call (network disks, macOS): write zeros, a block at a time
    file.seek(0, os.SEEK_END)
    while (missing := size - file.tell()) > 0:
        file.write(bytes(min(missing, 2**20)))
    file.flush()


def disk_error(error: OSError, path: Path) -> Exception:
    reasons = {
        errno.ENOSPC: "the disk is full. Free some space",
        errno.EDQUOT: "the disk quota is used up. Free some space",
        errno.EROFS: "the disk is read-only. Choose another --workspace",
        errno.EACCES: "permission is denied. Choose another --workspace",
        errno.EPERM: "permission is denied. Choose another --workspace",
    }
    reason = reasons.get(error.errno or 0, f"{error.strerror or error}. Check the disk")
    return RunError(f"{path} could not be written: {reason} and run the same command again; finished stages are kept.")


@contextmanager
def locked(path: Path, what: str, wait: bool = False) -> Iterator[None]:
    """Hold a lock file. It dies with its process. Raises RunError when another one holds it and `wait` is not set."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w", encoding="utf-8")  # noqa: SIM115 - held for the whole block
    except OSError as error:
        raise disk_error(error, path) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise RunError(f"{what} is being computed by another process. Wait for it, or stop it first.") from None
        except OSError as error:
            raise disk_error(error, path) from error
        yield


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document, whole or not at all."""
    with writing(path) as partial:
        partial.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON document. Raises RunError when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} should exist, but does not. Run the audit again.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path} should hold JSON, but is damaged ({error}). Delete the file and run again.") from error
    except OSError as error:
        raise RunError(
            f"{path} cannot be read: {error.strerror or error}. Check the disk and the permissions."
        ) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what damaged Parquet, npz and npy files raise into a RunError that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise RunError(f"{path} should exist, but does not. Run the same command again.") from None
    except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RunError(f"{path} is damaged ({error}). Delete the file and run the same command again.") from error


# --- how each record is laid out in a file ---------------------------------------------------------------------


def save_npz(path: Path, record: Any) -> None:
    with open(path, "wb") as file:
        np.savez(file, **columns(record))


def load_npz(kind: type[Any]) -> Callable[[Path], Any]:
    def load(path: Path) -> Any:
        # opened here, because numpy leaves the file open when it is damaged
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as saved:
            # single numbers come back as 0-d arrays
            return kind(
                **{f.name: saved[f.name][()] if saved[f.name].ndim == 0 else saved[f.name] for f in fields(kind)}
            )

    return load


def _save_regions(path: Path, regions: Regions) -> None:
    with open(path, "wb") as file:  # masks shrink to a tenth
        np.savez_compressed(file, **{name: value for name, value in columns(regions).items() if value is not None})


def _load_regions(path: Path) -> Regions:
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as saved:
        masks = {name: saved[name] for name in ("mask_step", "mask_bits") if name in saved}
        return Regions(saved["image"], saved["box"], saved["position"], int(saved["n_images"]), **masks)


def _save_images(path: Path, images: ImageSet) -> None:
    table = pd.DataFrame({"file": images.file, "label": images.label})
    table["class_name"] = np.asarray(images.class_names)[images.label] if len(images) else np.zeros(0, str)
    table["width"], table["height"] = images.size[:, 0], images.size[:, 1]
    if images.caption is not None:
        table["caption"] = images.caption
    if images.digest is not None:
        table["digest"] = images.digest
    for kind, named in (("group", images.groups), ("header", images.headers)):
        for name, column in named.items():
            table[f"{kind}:{name}"] = column
    if images.box is not None and images.box_image is not None:  # one flat list per image
        starts = np.searchsorted(images.box_image, np.arange(1, len(images)))
        table["boxes"] = [own.ravel() for own in np.split(images.box, starts)][: len(images)]
    table.attrs = {
        "root": images.root,
        "class_names": list(images.class_names),
        "skipped": [list(row) for row in images.skipped],
        "skipped_boxes": [list(row) for row in images.skipped_boxes],
        "left_out": [list(row) for row in images.left_out],
        "fingerprint": images.fingerprint,
        "source": images.source,
        "salt": images.salt,
        "frames": images.frames,
    }
    table.to_parquet(path, index=False)


def _load_images(path: Path) -> ImageSet:
    table = pd.read_parquet(path)
    groups, headers = (
        {c.removeprefix(kind): table[c].to_numpy(str) for c in table.columns if c.startswith(kind)}
        for kind in ("group:", "header:")
    )
    boxes: dict[str, Any] = {}
    if "boxes" in table:
        own = [np.reshape(flat, (-1, 4)) for flat in table["boxes"]]
        boxes["box_image"] = np.repeat(np.arange(len(own)), [len(box) for box in own])
        boxes["box"] = np.concatenate([np.zeros((0, 4), np.int32), *own])
    return ImageSet(
        root=table.attrs["root"],
        file=table["file"].to_numpy(str),
        label=table["label"].to_numpy(),
        size=table[["width", "height"]].to_numpy(),
        class_names=tuple(table.attrs["class_names"]),
        caption=table["caption"].to_numpy(str) if "caption" in table else None,
        groups=groups,
        skipped=tuple((file, reason) for file, reason in table.attrs["skipped"]),
        fingerprint=table.attrs["fingerprint"],
        skipped_boxes=tuple((file, reason) for file, reason in table.attrs.get("skipped_boxes", ())),
        digest=table["digest"].to_numpy(str) if "digest" in table else None,
        headers=headers,
        left_out=tuple((file, reason) for file, reason in table.attrs.get("left_out", ())),
        **{name: table.attrs[name] for name in ("source", "salt", "frames") if name in table.attrs},
        **boxes,
    )


def _load_zero_shot(path: Path) -> ZeroShot:
    """Region scores are mapped, since with many classes they are larger than memory."""
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as saved:
        return ZeroShot(saved["image"], _mapped(path, "region.npy"), saved["label"])


def _mapped(path: Path, name: str) -> NDArray[Any]:
    """A stored (not compressed) array of an npz file as a read-only memory map."""
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        entry = archive.getinfo(name)
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{name} is compressed")
        file.seek(entry.header_offset + 26)  # of the local header: the lengths of the name and of the extra field
        lengths = file.read(4)
        file.seek(int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little"), os.SEEK_CUR)
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if not np.prod(shape):
            return np.zeros(shape, dtype)
        order: Literal["F", "C"] = "F" if fortran else "C"
        return np.memmap(path, dtype, "r", file.tell(), shape, order)


def _save_families(path: Path, families: Families) -> None:
    document = {name: value.tolist() for name, value in columns(families).items()}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _load_families(path: Path) -> Families:
    return Families(**json.loads(path.read_text(encoding="utf-8")))


_PER_CLASS = ("class_gap", "n_in", "right_in", "n_out", "right_out")


def _save_features(path: Path, scores: FeatureScores) -> None:
    n, classes = scores.class_gap.shape
    table = pd.DataFrame({k: np.repeat(v, classes) for k, v in columns(scores).items() if k not in _PER_CLASS})
    table.insert(1, "class_index", np.tile(np.arange(classes, dtype=np.int16), n))
    for name in _PER_CLASS:
        table[name] = getattr(scores, name).ravel()
    table.attrs = {"n_classes": classes}
    table.to_parquet(path, index=False)


def _load_features(path: Path) -> FeatureScores:
    table = pd.read_parquet(path)
    classes = int(table.attrs["n_classes"])
    first = table[table["class_index"] == 0]
    data = {
        f.name: table[f.name].to_numpy().reshape(-1, classes) if f.name in _PER_CLASS else first[f.name].to_numpy()
        for f in fields(FeatureScores)
    }
    return FeatureScores(**data)


def _save_table(path: Path, record: Any) -> None:
    pd.DataFrame(columns(record)).to_parquet(path, index=False)


def load_table(kind: type[Any]) -> Callable[[Path], Any]:
    def load(path: Path) -> Any:
        table = pd.read_parquet(path)
        return kind(
            **{f.name: table[f.name].to_numpy(str if table[f.name].dtype.kind in "OT" else None) for f in fields(kind)}
        )

    return load


def save_array(path: Path, array: NDArray[Any]) -> None:
    with open(path, "wb") as file:
        np.save(file, array, allow_pickle=False)


def _load_array(path: Path) -> NDArray[Any]:
    return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class StageFile:
    """The name of a stage's file, and how its record is written and read."""

    name: str
    save: Callable[[Path, Any], None]
    load: Callable[[Path], Any]


FILES = {
    "images": StageFile("images.parquet", _save_images, _load_images),
    "regions": StageFile("regions.npz", _save_regions, _load_regions),
    "text": StageFile("text.npy", save_array, _load_array),
    "zero_shot": StageFile("zero_shot.npz", save_npz, _load_zero_shot),
    "clusters": StageFile("clusters.npz", save_npz, load_npz(Clustering)),
    "features": StageFile("features.parquet", _save_features, _load_features),
    "families": StageFile("families.json", _save_families, _load_families),
    "significance": StageFile("significance.npz", save_npz, load_npz(Significance)),
    "counterfactuals": StageFile("counterfactuals.npz", save_npz, load_npz(Counterfactuals)),
    "evidence": StageFile("evidence.npz", save_npz, load_npz(Evidence)),
    "agreement": StageFile("agreement.npz", save_npz, load_npz(Agreement)),
    "exemplars": StageFile("exemplars.parquet", _save_table, load_table(Exemplars)),
    "projection": StageFile("projection.npy", save_array, _load_array),
}
