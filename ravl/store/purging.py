"""Deleting a run, or everything that ravl wrote into a workspace: crops of patients are patient data.

Only what ravl writes is deleted, by name; anything else in the folder stays. Links are removed, never followed. Image
sets and models are never touched: they lie elsewhere.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ravl.errors import ConfigError
from ravl.store.files import disk_error, locked
from ravl.store.run import AuditRun, damaged_runs

OWN = (
    *("runs", "jobs", "logs", "datasets", "demo-data", "exports", "selections"),
    *("key", "key.lock", "key.partial", "dashboard.log"),
)
"""What ravl and its screen write into a workspace, beside the database and its companions (ravl.db, ravl.db-wal, ...).
"""

DATABASE = "ravl.db"


@dataclass(frozen=True)
class Purged:
    """paths: what was deleted, or would be. n_files, n_bytes: how much. kept: other entries of the workspace."""

    paths: tuple[Path, ...]
    n_files: int
    n_bytes: int
    kept: tuple[str, ...]


def contents(workspace: Path | str, run: str = "") -> Purged:
    """What purging a run, or with no run the whole workspace, would delete. Nothing is deleted.

    Raises ConfigError for a folder that is no workspace, and for a run that is none.
    """
    folder = Path(os.path.abspath(Path(workspace).expanduser()))
    if not (folder / "runs").is_dir() or (folder / "runs").is_symlink():
        raise ConfigError(f"the workspace must be a folder that ravl made, with a folder runs, but {folder} is none.")
    if run:
        paths = [_run_folder(folder, run)]
        if paths[0].parent.resolve() != (folder / "runs").resolve():
            raise ConfigError(f"--run must be a run of the workspace {folder}, got {paths[0]}.")
    else:
        paths = [entry for entry in sorted(folder.iterdir()) if _own(entry.name)]
    kept = [] if run else [entry.name for entry in sorted(folder.iterdir()) if not _own(entry.name)]
    files = [file for path in paths for file in _files(path)]
    return Purged(tuple(paths), len(files), sum(file.lstat().st_size for file in files), tuple(kept))


def purge(workspace: Path | str, run: str = "", logs: Sequence[Path] = ()) -> Purged:
    """Delete what `contents` lists; of a workspace, the folder itself too where nothing else is in it.

    logs: further files, those of a run's jobs.

    A run that is being computed is refused with RunError. Decisions about a deleted run stay in the database, which
    refuses to forget them; they hold names that people typed, but no picture.
    """
    found = contents(workspace, run)
    folder = Path(os.path.abspath(Path(workspace).expanduser()))
    with ExitStack() as held:
        for lock in (lock for path in found.paths for lock in _locks(path)):
            held.enter_context(locked(lock, lock.parent.name))  # refused while another process works on it
        try:
            for path in (*found.paths, *logs):
                if path.is_symlink() or not path.is_dir():
                    path.unlink()
                else:
                    shutil.rmtree(path)
            if not run and not found.kept:
                folder.rmdir()
        except OSError as error:
            raise disk_error(error, folder) from error
    return found


def _run_folder(workspace: Path, name: str) -> Path:
    """The folder of a run, also of a damaged one, which its full name finds. Raises ConfigError for no run."""
    damaged = name in (folder for folder, _ in damaged_runs(workspace))
    return workspace.resolve() / "runs" / name if damaged else AuditRun.find(workspace, name).path


def _locks(path: Path) -> list[Path]:
    """The lock files below a folder: an audit holds that of its run, a fine-tuning that of its own folder in it."""
    return [] if path.is_symlink() else [lock for lock in path.rglob("run.lock") if not lock.is_symlink()]


def _own(name: str) -> bool:
    return name in OWN or name == DATABASE or name.startswith((f"{DATABASE}-", f"{DATABASE}."))


def _files(path: Path) -> list[Path]:
    if path.is_symlink() or not path.is_dir():
        return [path]
    return [Path(place) / name for place, _, files in os.walk(path, followlinks=False) for name in files]
