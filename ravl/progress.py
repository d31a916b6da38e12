"""Where progress goes: a bar in the terminal, or a job's row in the ledger."""

from __future__ import annotations

import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from ravl.errors import RavlError
from ravl.ledger import Ledger, now
from ravl.tables import Report, Step

LABELS = {
    "data": "Drawing the demo's images",
    "images": "Reading images",
    "model": "Loading the model",
    "regions": "Cutting regions",
    "embeddings": "Embedding regions",
    "zero_shot": "Zero-shot scores",
    "clusters": "Clustering regions",
    "families": "Joining clusters to features",
    "features": "Scoring features",
    "significance": "Testing against chance",
    "exemplars": "Ranking exemplars",
    "counterfactuals": "Removing features, re-scoring",
    "evidence": "Weighing the evidence",
    "agreement": "Checking the region encoder",
    "projection": "Drawing the map",
    "assignment": "Finding features in new images",
    "before": "Evaluating the audited model",
    "training": "Fine-tuning",
    "after": "Evaluating the tuned model",
}
"""What a person reads for each stage."""

HEARTBEAT_SECONDS = 5.0


class Cancelled(BaseException):
    """Raised in the worker by SIGTERM. Not an Exception: nothing below the command may swallow it."""


@contextmanager
def terminal() -> Iterator[Report]:
    """Report to stderr: one bar per stage on a terminal, one line per stage elsewhere."""
    if sys.stderr.isatty():
        with _bars() as report:
            yield report
        return
    ended: set[str] = set()

    def line(step: Step) -> None:
        if step.done >= step.total and step.stage not in ended:
            ended.add(step.stage)
            print(f"{LABELS.get(step.stage, step.stage)}: {step.total} of {step.total}", file=sys.stderr, flush=True)

    yield line


@contextmanager
def _bars() -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bars = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[facts]}"),
    )
    with Progress(*bars, console=Console(stderr=True)) as progress:
        tasks: dict[str, Any] = {}

        def draw(step: Step) -> None:
            facts = "  ".join(f"{name} {value:.3f}" for name, value in step.facts.items())
            if step.stage not in tasks:
                label = f"{LABELS.get(step.stage, step.stage):<32}"
                tasks[step.stage] = progress.add_task(label, total=max(step.total, 1), facts=facts)
            progress.update(tasks[step.stage], completed=step.done, total=max(step.total, 1), facts=facts)

        yield draw


@contextmanager
def job_row(ledger: Ledger, job: int) -> Iterator[Report]:
    """Own a job's row from start to end: process, heartbeat, progress and the final word with its reason.

    A SIGTERM ends the job as cancelled; a RavlError or a fault ends it as failed; both are raised again.
    """
    process = psutil.Process()
    ledger.update_job(
        job, status="running", pid=process.pid, pid_started=process.create_time(), started=now(), heartbeat=now()
    )
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            ledger.update_job(job, heartbeat=now())

    def cancel(signum: int, frame: object) -> None:
        raise Cancelled

    shown: dict[str, Any] = {"stage": "", "at": 0.0, "from": {}}

    def report(step: Step) -> None:
        new, last = step.stage != shown["stage"], step.done >= step.total
        if not (new or last or time.monotonic() - shown["at"] > 0.5):
            return
        begun = {"stage_started": now()} if new else {}
        if new:  # a stage that is continued did not do its first part now: the pace is that of the rest
            shown["from"] = {"resumed_at": step.done} if 0 < step.done < step.total else {}
        facts = step.facts | shown["from"]
        ledger.update_job(
            job, stage=step.stage, done=step.done, total=step.total, facts=facts, heartbeat=now(), **begun
        )
        if new:
            print(f"{now()} {LABELS.get(step.stage, step.stage)}", flush=True)
        shown.update(stage=step.stage, at=time.monotonic())

    before = signal.signal(signal.SIGTERM, cancel)
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield report
    except Cancelled:
        ledger.end_job(job, "cancelled", "Cancelled by a person; what was finished is kept.")
        raise
    except RavlError as error:
        ledger.end_job(job, "failed", str(error))
        raise
    except BaseException as error:
        traceback.print_exception(error)
        ledger.end_job(job, "failed", f"{type(error).__name__}: {error}. The log has the details.")
        raise
    else:
        ledger.end_job(job, "done")
    finally:
        stop.set()
        thread.join()
        signal.signal(signal.SIGTERM, before)
