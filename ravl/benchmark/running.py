"""Settings measured one after the other or in processes; what is finished is kept, and what failed is told.

In a folder:  rows/<setting>.json  a setting's rows; it is whole, and there is nothing left to do for it
              errors/<setting>.txt  why a setting failed; it is tried again next time
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from ravl.benchmark.settings import Setting
from ravl.store import read_json, write_json

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Kept:
    """What is kept of the settings. protocol: rows that were measured by another one are measured again."""

    folder: Path
    protocol: int

    def finished(self, setting: Setting) -> dict[str, Any] | None:
        """The document of a finished setting: commit and rows. None where it has still to be measured."""
        path = self._rows(setting)
        document: dict[str, Any] | None = read_json(path) if path.exists() else None
        return document if document and document["protocol"] == self.protocol else None

    def keep(self, setting: Setting, commit: str, rows: Sequence[dict[str, Any]]) -> None:
        """Write the rows of a setting, whole or not at all."""
        write_json(self._rows(setting), {"protocol": self.protocol, "commit": commit, "rows": list(rows)})

    def forget(self, setting: Setting) -> None:
        """Measure a setting again."""
        self._rows(setting).unlink(missing_ok=True)

    def note_error(self, setting: Setting, text: str) -> None:
        """Keep why a setting failed; "": it did not."""
        path = self._errors(setting)
        if not text:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def error(self, setting: Setting) -> str:
        """The last line of a setting's error; empty where there is none."""
        path = self._errors(setting)
        lines = path.read_text(encoding="utf-8").strip().splitlines() if path.exists() else []
        return lines[-1] if lines else ""

    def _rows(self, setting: Setting) -> Path:
        return self.folder / "rows" / f"{setting.id}.json"

    def _errors(self, setting: Setting) -> Path:
        return self.folder / "errors" / f"{setting.id}.txt"


@dataclass(frozen=True)
class Outcome:
    """What a run found. rows: of all finished settings, as documents; errors: setting id -> last line of why."""

    rows: tuple[dict[str, Any], ...]
    errors: dict[str, str]
    commits: tuple[str, ...]


def guarded(setting: Setting, kept: Kept, work: Callable[[], str]) -> str:
    """Do the work on one setting and return a line about it. An error is recorded and told, so that others go on."""
    begun = time.perf_counter()
    kept.note_error(setting, "")
    try:
        said = work()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is recorded, told, and tried again next time
        kept.note_error(setting, "".join(traceback.format_exception(error)))
        return f"{setting.id}  FAILED: {kept.error(setting)}"
    return f"{setting.id}  {said}  ({time.perf_counter() - begun:.0f} s)"


def run_all(
    settings: Sequence[Setting], kept: Kept, attempt: Callable[[Setting], str], jobs: int, anyway: bool, tell: Tell
) -> Outcome:
    """Attempt every setting that is not finished, and return what is.

    attempt: does one setting and returns a line about it; other processes import it by name. jobs: processes at once;
    each gets its share of the processors. anyway: attempt finished ones too. tell: gets a line per setting.
    """
    waiting = [setting for setting in settings if anyway or kept.finished(setting) is None]
    tell(f"{len(settings)} settings, {len(waiting)} to do, in {kept.folder}")
    if jobs == 1:
        for n, setting in enumerate(waiting, 1):
            tell(f"{n} of {len(waiting)}  {attempt(setting)}")
    else:
        _in_processes(waiting, kept, attempt, jobs, tell)
    found = [document for setting in settings if (document := kept.finished(setting))]
    commits = tuple(sorted({document["commit"] for document in found}))
    if len(commits) > 1:
        tell(f"the rows are of {len(commits)} states of the code ({', '.join(commits)}); --fresh measures all again")
    errors = {setting.id: kept.error(setting) for setting in settings}
    rows = tuple(row for document in found for row in document["rows"])
    return Outcome(rows, {name: reason for name, reason in errors.items() if reason}, commits)


def _in_processes(
    waiting: Sequence[Setting], kept: Kept, attempt: Callable[[Setting], str], jobs: int, tell: Tell
) -> None:
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_limit_threads, initargs=(threads,)) as pool:
        started: dict[Future[str], Setting] = {pool.submit(attempt, setting): setting for setting in waiting}
        for n, future in enumerate(as_completed(started), 1):
            reason = future.exception()  # of the process itself, such as one that was killed
            if reason is not None:
                kept.note_error(started[future], str(reason))
            said = future.result() if reason is None else f"{started[future].id}  FAILED: {reason}"
            tell(f"{n} of {len(waiting)}  {said}")


def _limit_threads(threads: int) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
