"""The run folder: the only module that knows file names.

A file that exists is whole: everything is written to a partial name, synced and renamed. That is what makes a run
resumable after a kill, and safe to read while it is being computed. A run's configuration never changes.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ravl.config import AuditConfig, digest
from ravl.errors import ConfigError, RunError
from ravl.tables import Clustering, Exemplars, FeatureScores, GroupAccuracy, ImageSet, Regions, ZeroShot, columns

SCHEMA_VERSION = 1
STAGES = ("images", "regions", "embeddings", "zero_shot", "clusters", "features", "exemplars", "projection")
"""The stages of an audit, in order."""

EMBEDDINGS = ("image_embeddings", "region_embeddings", "region_features")
"""Arrays of the embeddings stage: output embeddings of images and regions, middle-layer features of regions."""

_PACKAGES = ("ravl-dashboard", "torch", "transformers", "numpy", "scikit-learn", "hdbscan", "umap-learn")


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a partial path next to `path`; sync it and move it into place when the block ends without an error.

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
        raise _disk_error(error, path) from error


def _disk_error(error: OSError, path: Path) -> Exception:
    reasons = {
        errno.ENOSPC: "the disk is full. Free some space",
        errno.EDQUOT: "the disk quota is used up. Free some space",
        errno.EROFS: "the disk is read-only. Choose another --workspace",
        errno.EACCES: "permission is denied. Choose another --workspace",
        errno.EPERM: "permission is denied. Choose another --workspace",
    }
    reason = reasons.get(error.errno or 0, f"{error.strerror or error}. Check the disk")
    return RunError(f"{path} could not be written: {reason} and run the same command again; finished stages are kept.")


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


def open_workspace(path: Path | str) -> Path:
    """Create the workspace, readable by its owner alone, and return its absolute path.

    Raises ConfigError when it cannot be created or written to.
    """
    folder = Path(path).expanduser().resolve()
    try:
        new = not folder.exists()
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        if new:
            folder.chmod(0o700)  # thumbnails of patients are patient data
    except OSError as error:
        raise ConfigError(
            f"the workspace must be a folder that can be written to, but {folder} cannot: "
            f"{error.strerror}. Choose another one with --workspace."
        ) from error
    if not os.access(folder / "runs", os.W_OK):
        raise ConfigError(f"the workspace must be writable, but {folder} is not. Choose another one with --workspace.")
    return folder


# --- how each record is laid out in a file ---------------------------------------------------------------------


def _save_npz(path: Path, record: Any) -> None:
    with open(path, "wb") as file:
        np.savez(file, **columns(record))


def _loader(kind: type[Any]) -> Callable[[Path], Any]:
    def load(path: Path) -> Any:
        with np.load(path, allow_pickle=False) as saved:
            # single numbers come back as 0-d arrays
            return kind(**{f.name: saved[f.name][()] if saved[f.name].ndim == 0 else saved[f.name] for f in fields(kind)})

    return load


def _save_regions(path: Path, regions: Regions) -> None:
    _save_npz(path, regions)


def _load_regions(path: Path) -> Regions:
    with np.load(path, allow_pickle=False) as saved:
        return Regions(saved["image"], saved["box"], saved["position"], int(saved["n_images"]))


def _save_images(path: Path, images: ImageSet) -> None:
    table = pd.DataFrame({"file": images.file, "label": images.label})
    table["class_name"] = np.asarray(images.class_names)[images.label] if len(images) else np.zeros(0, str)
    table["width"], table["height"] = images.size[:, 0], images.size[:, 1]
    if images.caption is not None:
        table["caption"] = images.caption
    for name, column in images.groups.items():
        table[f"group:{name}"] = column
    table.attrs = {
        "root": images.root,
        "class_names": list(images.class_names),
        "skipped": [list(row) for row in images.skipped],
        "fingerprint": images.fingerprint,
    }
    table.to_parquet(path, index=False)


def _load_images(path: Path) -> ImageSet:
    table = pd.read_parquet(path)
    groups = {c.removeprefix("group:"): table[c].to_numpy(str) for c in table.columns if c.startswith("group:")}
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
    )


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


def _table_loader(kind: type[Any]) -> Callable[[Path], Any]:
    def load(path: Path) -> Any:
        table = pd.read_parquet(path)
        return kind(**{f.name: table[f.name].to_numpy(str if table[f.name].dtype.kind in "OT" else None) for f in fields(kind)})

    return load


def _save_array(path: Path, array: NDArray[Any]) -> None:
    with open(path, "wb") as file:
        np.save(file, array, allow_pickle=False)


def _load_array(path: Path) -> NDArray[Any]:
    return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _File:
    name: str
    save: Callable[[Path, Any], None]
    load: Callable[[Path], Any]


_FILES = {
    "images": _File("images.parquet", _save_images, _load_images),
    "regions": _File("regions.npz", _save_regions, _load_regions),
    "text": _File("text.npy", _save_array, _load_array),
    "zero_shot": _File("zero_shot.npz", _save_npz, _loader(ZeroShot)),
    "clusters": _File("clusters.npz", _save_npz, _loader(Clustering)),
    "features": _File("features.parquet", _save_features, _load_features),
    "exemplars": _File("exemplars.parquet", _save_table, _table_loader(Exemplars)),
    "projection": _File("projection.npy", _save_array, _load_array),
}


class AuditRun:
    """One audit on disk. Reading a stage that is not finished raises RunError; `has` asks first."""

    def __init__(self, path: Path | str) -> None:
        """Open an existing run folder. Raises RunError for a newer schema or a damaged folder."""
        self.path = Path(path)
        about = read_json(self.path / "run.json")
        if about["schema_version"] > SCHEMA_VERSION:
            raise RunError(
                f"{self.path.name} has schema version {about['schema_version']}, but this ravl reads up to "
                f"{SCHEMA_VERSION}. Open it with ravl-dashboard {about['packages']['ravl-dashboard']} or newer."
            )
        self.id: str = self.path.name
        self.name: str = about["name"]
        self.config = AuditConfig.from_dict(about["config"])
        self._lock: IO[str] | None = None

    # --- creating and finding -----------------------------------------------------------------------------------

    @classmethod
    def create(cls, workspace: Path, name: str, config: AuditConfig, fingerprints: dict[str, str]) -> AuditRun:
        """The run of this name, configuration and content: an existing one is continued, else a new one is made.

        fingerprints: content digests of `data`, `model` and `preprocessing`; they are part of the run's identity.
        """
        tag = digest({"config": config.to_dict(), "fingerprints": fingerprints})
        runs = open_workspace(workspace) / "runs"
        for folder in sorted(runs.glob(f"{name}-*-{tag}")):
            if (folder / "run.json").exists():
                return cls(folder)
        folder = runs / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{tag}"
        about = {
            "schema_version": SCHEMA_VERSION,
            "name": name,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "packages": {package: _version(package) for package in _PACKAGES},
            "config": config.to_dict(),
            "fingerprints": fingerprints,
            "stages": {},
        }
        write_json(folder / "run.json", about)
        return cls(folder)

    @classmethod
    def find(cls, workspace: Path | str, name: str) -> AuditRun:
        """Open a run by its folder, its id, or a beginning of its id that fits one run only (the newest of one name).

        Raises ConfigError that lists what there is.
        """
        if (Path(name) / "run.json").exists():
            return cls(Path(name).resolve())
        runs = list_runs(workspace)
        exact = [run for run in runs if name in (run.id, run.name)]
        if exact:
            return exact[0]
        fitting = [run for run in runs if name and run.id.startswith(name)]
        if len(fitting) == 1:
            return fitting[0]
        known = ", ".join(run.id for run in runs[:8]) or "none yet; make one with ravl discover"
        found = "fits several" if fitting else "is none of them"
        raise ConfigError(f"--run must name a run of the workspace {workspace}, but {name!r} {found}. Runs: {known}.")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for writing; a second process is refused. The lock dies with its process."""
        try:
            file = open(self.path / "run.lock", "w", encoding="utf-8")  # noqa: SIM115 - held for the whole block
        except OSError as error:
            raise _disk_error(error, self.path / "run.lock") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(f"{self.id} is being computed by another process. Wait for it, or stop it first.") from None
            yield

    # --- stages -------------------------------------------------------------------------------------------------

    def has(self, stage: str) -> bool:
        """Whether a stage is finished."""
        if stage == "embeddings":
            return all((self.path / f"{name}.npy").exists() for name in EMBEDDINGS)
        return (self.path / _FILES[stage].name).exists()

    @property
    def finished(self) -> bool:
        return all(self.has(stage) for stage in STAGES)

    def load(self, stage: str) -> Any:
        """Read a finished stage. Raises RunError when it is not finished or damaged."""
        file = _FILES[stage]
        path = self.path / file.name
        if not path.exists():
            raise RunError(f"{self.id} has not finished the stage {stage!r} yet. Run the same ravl discover command again.")
        try:
            return file.load(path)
        except (ValueError, KeyError, OSError) as error:
            raise RunError(f"{path} is damaged ({error}). Delete the file and run the same command again.") from error

    def stage(self, name: str, compute: Callable[[], Any]) -> Any:
        """Load the stage if it is finished; else compute it, save it whole, and note how long it took."""
        if self.has(name):
            return self.load(name)
        start = time.perf_counter()
        record = compute()
        with writing(self.path / _FILES[name].name) as partial:
            _FILES[name].save(partial, record)
        self._note_seconds(name, time.perf_counter() - start)
        return self.load(name)

    def embed(
        self, shapes: dict[str, tuple[int, int]], blocks: Callable[[int], Iterator[tuple[int, dict[str, tuple[int, NDArray[Any]]]]]]
    ) -> None:
        """Fill the embedding arrays block by block; a killed run continues after its last whole block.

        shapes: rows and columns of each of EMBEDDINGS. blocks(start): yields (images done, {array: (first row, values)})
        from image `start` on. Stored as float16.
        """
        if self.has("embeddings"):
            return
        begun = time.perf_counter()
        marker = self.path / "embeddings.progress.json"
        progress = read_json(marker) if marker.exists() else {"images": 0, "seconds": 0.0}
        partials = {name: self.path / f"{name}.npy.partial" for name in shapes}
        try:
            arrays = {
                name: self._partial_array(path, shapes[name], progress["images"] > 0)
                for name, path in partials.items()
                if not (self.path / f"{name}.npy").exists()
            }
            before = progress["seconds"]
            if arrays:
                for done, rows in blocks(progress["images"]):
                    for name, (first, values) in rows.items():
                        if name in arrays:
                            arrays[name][first : first + len(values)] = values
                    for array in arrays.values():
                        if isinstance(array, np.memmap):
                            array.flush()
                    progress = {"images": done, "seconds": before + time.perf_counter() - begun}
                    write_json(marker, progress)
            for name in arrays:
                with open(partials[name], "rb") as file:
                    os.fsync(file.fileno())
                os.replace(partials[name], self.path / f"{name}.npy")
            marker.unlink(missing_ok=True)
        except OSError as error:
            raise _disk_error(error, self.path) from error
        self._note_seconds("embeddings", progress["seconds"])

    def _partial_array(self, path: Path, shape: tuple[int, int], resume: bool) -> NDArray[np.float16]:
        if 0 in shape:
            _save_array(path, np.zeros(shape, np.float16))
            return np.zeros(shape, np.float16)
        if not (resume and path.exists()):
            # allocate the whole file now: a full disk must fail here, not as a bus error inside a mapping
            with open(path, "wb") as file:
                header = {"descr": "<f2", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                os.posix_fallocate(file.fileno(), 0, file.tell() + 2 * shape[0] * shape[1]) if hasattr(
                    os, "posix_fallocate"
                ) else file.truncate(file.tell() + 2 * shape[0] * shape[1])
        return np.lib.format.open_memmap(path, mode="r+")  # type: ignore[no-any-return]

    def _note_seconds(self, stage: str, seconds: float) -> None:
        about = read_json(self.path / "run.json")
        about["stages"][stage] = {"seconds": round(seconds, 3)}
        write_json(self.path / "run.json", about)

    # --- reading ------------------------------------------------------------------------------------------------

    @property
    def about(self) -> dict[str, Any]:
        """run.json: schema version, packages, full configuration, fingerprints, seconds per stage."""
        return read_json(self.path / "run.json")  # type: ignore[no-any-return]

    def images(self) -> ImageSet:
        return self.load("images")  # type: ignore[no-any-return]

    def regions(self) -> Regions:
        return self.load("regions")  # type: ignore[no-any-return]

    def zero_shot(self) -> ZeroShot:
        return self.load("zero_shot")  # type: ignore[no-any-return]

    def clustering(self) -> Clustering:
        return self.load("clusters")  # type: ignore[no-any-return]

    def features(self) -> FeatureScores:
        return self.load("features")  # type: ignore[no-any-return]

    def exemplars(self) -> Exemplars:
        return self.load("exemplars")  # type: ignore[no-any-return]

    def projection(self) -> NDArray[np.float32]:
        """(R, 2) float32 map coordinates."""
        return self.load("projection")  # type: ignore[no-any-return]

    def array(self, name: str) -> NDArray[np.float16]:
        """One of EMBEDDINGS as a read-only memory map of float16 rows."""
        path = self.path / f"{name}.npy"
        if not path.exists():
            raise RunError(f"{self.id} has not finished the stage 'embeddings' yet. Run the same ravl discover command again.")
        empty = 0 in np.load(path, allow_pickle=False).shape if path.stat().st_size < 256 else False
        return np.load(path, mmap_mode=None if empty else "r", allow_pickle=False)  # type: ignore[no-any-return]

    # --- mitigation ---------------------------------------------------------------------------------------------

    def mitigations(self) -> list[MitigationFolder]:
        """Fine-tunings of this run, newest first."""
        folders = [MitigationFolder(path.parent) for path in self.path.glob("mitigation/*/config.json")]
        return sorted(folders, key=lambda folder: folder.about["created"], reverse=True)

    def mitigation(self, name: str) -> MitigationFolder:
        """The folder of one fine-tuning; nothing is created."""
        return MitigationFolder(self.path / "mitigation" / name)


class MitigationFolder:
    """One fine-tuning on disk: config.json, log.jsonl, checkpoint/, model/ and groups.parquet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.model = path / "model"
        self.checkpoint = path / "checkpoint"

    @property
    def exists(self) -> bool:
        return (self.path / "config.json").exists()

    @property
    def finished(self) -> bool:
        return (self.path / "groups.parquet").exists() and (self.path / "result.json").exists()

    @property
    def about(self) -> dict[str, Any]:
        """config.json: created, run, settings, fingerprints of training and test data."""
        return read_json(self.path / "config.json")  # type: ignore[no-any-return]

    def begin(self, about: dict[str, Any]) -> None:
        """Write config.json once. A folder begun with other settings is refused with ConfigError."""
        about = json.loads(json.dumps(about))  # tuples become lists, as in the file
        if self.exists:
            saved = self.about
            changed = [key for key in about if key != "created" and saved.get(key) != about[key]]
            if changed:
                raise ConfigError(
                    f"--name must be new when settings change, but {self.name!r} exists with another {', '.join(changed)}. "
                    "Choose another --name."
                )
            return
        write_json(self.path / "config.json", {"created": datetime.now(UTC).isoformat(timespec="seconds"), **about})

    def log(self) -> list[dict[str, float]]:
        """Lines of log.jsonl: step, loss parts and, at evaluations, worst_group and overall. A torn last line is left out."""
        path = self.path / "log.jsonl"
        if not path.exists():
            return []
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = []
        for number, line in enumerate(lines):
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                if number < len(lines) - 1:
                    raise RunError(f"{path} is damaged in line {number + 1}. Delete the folder and run again.") from None
        return rows

    def write_log(self, rows: list[dict[str, float]]) -> None:
        """Replace the log (on resume: what was logged after the checkpoint is dropped)."""
        with writing(self.path / "log.jsonl") as partial:
            partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def append_log(self, row: dict[str, float]) -> None:
        try:
            with open(self.path / "log.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise _disk_error(error, self.path / "log.jsonl") from error

    def save_groups(self, before: GroupAccuracy, after: GroupAccuracy, changed: NDArray[np.int32]) -> None:
        """Keep accuracies before and after, and per test image -1 (became wrong), 0 (same) or 1 (became right)."""
        table = pd.concat([pd.DataFrame(columns(g)).assign(when=w) for w, g in (("before", before), ("after", after))])
        with writing(self.path / "changed.npy") as partial:
            _save_array(partial, changed)
        with writing(self.path / "groups.parquet") as partial:
            table.to_parquet(partial, index=False)

    def groups(self) -> tuple[GroupAccuracy, GroupAccuracy]:
        """Group accuracies before and after."""
        table = pd.read_parquet(self.path / "groups.parquet")
        before, after = (table[table["when"] == when] for when in ("before", "after"))

        def record(part: pd.DataFrame) -> GroupAccuracy:
            return GroupAccuracy(
                **{f.name: part[f.name].to_numpy(str if f.name in ("name", "kind") else None) for f in fields(GroupAccuracy)}
            )

        return record(before), record(after)

    def save_result(self, result: dict[str, Any]) -> None:
        """Write result.json, the last file: the document that `ravl mitigate --json` prints."""
        write_json(self.path / "result.json", result)

    @property
    def result(self) -> dict[str, Any]:
        return read_json(self.path / "result.json")  # type: ignore[no-any-return]


def list_runs(workspace: Path | str) -> list[AuditRun]:
    """All runs of a workspace, newest first. Damaged folders are left out (see `damaged_runs`)."""
    runs = [run for run in map(_try_open, _run_folders(workspace)) if isinstance(run, AuditRun)]
    return sorted(runs, key=lambda run: run.about["created"], reverse=True)


def damaged_runs(workspace: Path | str) -> list[tuple[str, str]]:
    """(folder name, reason) of run folders that cannot be opened."""
    opened = [(folder.name, _try_open(folder)) for folder in _run_folders(workspace)]
    return [(name, str(error)) for name, error in opened if isinstance(error, RunError)]


def _run_folders(workspace: Path | str) -> list[Path]:
    return [path.parent for path in Path(workspace).expanduser().resolve().glob("runs/*/run.json")]


def _try_open(folder: Path) -> AuditRun | RunError:
    try:
        return AuditRun(folder)
    except RunError as error:
        return error


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
