"""Long work as processes of their own: start, cancel, and notice the ones that died. No streamlit, no torch.

A job is a row of the ledger plus `python -m ravl ...` in a session of its own, so it survives a reload of the page and
a restart of the web server. The worker writes its progress and its end into the row; this module writes the beginning,
a cancellation, and `lost` when the process is gone without a word.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

import psutil

from dashboard.serving.identity import Person
from dashboard.serving.server import environment
from ravl.errors import RunError
from ravl.ledger import Job, Ledger

DEVICE = "local"
"""The device key of every job started here: one job at a time on this machine."""

GRACE_SECONDS = 5.0
"""How long a cancelled worker may take to finish its checkpoint before it is killed."""

_START_SECONDS = 30.0  # a queued row may be without a process for this long, while it is being started
_CLOCK_SECONDS = 2.0  # tolerance on a process's start time, which the system derives from its own clock
_TAIL_BYTES = 32_768
_LOST = "Its process ended without a word (killed, out of memory, or the machine was restarted). Resume continues it."


def start(
    ledger: Ledger,
    workspace: Path | str,
    kind: str,
    title: str,
    arguments: list[str],
    run: str = "",
    device: str = DEVICE,
) -> Job:
    """Add a job and spawn `python -m ravl <arguments> --workspace W --job ID`; its output goes to `jobs/<ID>.log`.

    Raises ConfigError when the device is busy, RunError when the log or the process cannot be created.
    """
    job = ledger.add_job(kind, title, arguments, device, run)
    log = Path(workspace).resolve() / "jobs" / f"{job.id}.log"
    command = [
        sys.executable,
        "-m",
        "ravl",
        *arguments,
        "--workspace",
        str(Path(workspace).resolve()),
        "--job",
        str(job.id),
    ]
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own: it outlives this server and can be stopped as a whole
                env=environment(),
            )
    except OSError as error:
        reason = f"The job could not be started: {error.strerror or error}. Check the disk and the memory, then resume."
        ledger.end_job(job.id, "failed", reason)
        raise RunError(reason) from error
    started = psutil.Process(
        process.pid
    ).create_time()  # a child that ended already still answers: it is not reaped yet
    ledger.update_job(job.id, pid=process.pid, pid_started=started, log=str(log))
    Thread(target=process.wait, daemon=True, name=f"reap-{job.id}").start()  # no zombie is left behind
    return ledger.job(job.id)


def resume(ledger: Ledger, workspace: Path | str, job: Job) -> Job:
    """Start an ended job again with the same arguments; finished stages and checkpoints are kept by the worker."""
    return start(ledger, workspace, job.kind, job.title, list(job.arguments), job.run, job.device)


def cancel(ledger: Ledger, job: Job, grace: float = GRACE_SECONDS) -> Thread:
    """Ask a job to stop (SIGTERM to its whole group) and return at once.

    The returned thread waits for `grace` seconds, kills what is left, and notes the job as cancelled; a worker that
    says so itself comes first. Nothing is signalled when the process is gone or its number is another one's by now.
    """
    process = _process(job)
    if process is not None:
        _signal_group(process, signal.SIGTERM)
    finisher = Thread(target=_finish_cancel, args=(ledger, job, process, grace), daemon=True, name=f"cancel-{job.id}")
    finisher.start()
    return finisher


def _finish_cancel(ledger: Ledger, job: Job, process: psutil.Process | None, grace: float) -> None:
    if process is not None:
        _, alive = psutil.wait_procs([process], timeout=grace)
        if alive:
            _signal_group(process, signal.SIGKILL)
            psutil.wait_procs([process], timeout=grace)
    ledger.end_job(job.id, "cancelled", "Stopped on request. Finished stages and checkpoints are kept.")


def _signal_group(process: psutil.Process, number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)  # the worker leads its session, so its group has its number
    except ProcessLookupError:
        return  # it ended in between, which is what was asked for


def reconcile(ledger: Ledger) -> list[Job]:
    """Mark active jobs whose process is gone as `lost`, and return them. Cheap: run it whenever a page is drawn."""
    lost = []
    for job in ledger.jobs():
        if not job.active or _process(job) is not None or _is_starting(job):
            continue
        ledger.end_job(job.id, "lost", _LOST)
        latest = ledger.job(job.id)
        if latest.status == "lost":  # else the worker had the last word in between
            lost.append(latest)
    return lost


def alive(job: Job) -> bool:
    """Whether the very process that was started for this job still runs."""
    return _process(job) is not None


def _process(job: Job) -> psutil.Process | None:
    if job.pid is None or job.pid_started is None:
        return None
    try:
        process = psutil.Process(job.pid)
        same = abs(process.create_time() - job.pid_started) < _CLOCK_SECONDS
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def _is_starting(job: Job) -> bool:
    return job.pid is None and job.status == "queued" and seconds_since(job.created) < _START_SECONDS


def seconds_since(moment: str, at: datetime | None = None) -> float:
    """Seconds between a moment of the ledger (UTC, ISO 8601) and `at` (default: now)."""
    return ((at or datetime.now(UTC)) - datetime.fromisoformat(moment)).total_seconds()


def remaining_seconds(job: Job, at: datetime | None = None) -> float | None:
    """Expected seconds until the current stage ends, from its pace so far; None while that cannot be said."""
    done = job.done - int(job.facts.get("resumed_at", 0))  # what was done before a resume took no time now
    if not job.active or not job.stage_started or done <= 0 or job.total <= job.done:
        return None
    spent = seconds_since(job.stage_started, at)
    return max(0.0, spent) * (job.total - job.done) / done


def log_tail(job: Job, lines: int = 40) -> str:
    """The last lines of a job's log; empty when there is none. Bars that redraw a line leave their last state only."""
    if not job.log or not Path(job.log).is_file():
        return ""
    with open(job.log, "rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _TAIL_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    shown = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n")]
    return "\n".join(shown[-lines:]).strip()


# --- the commands ----------------------------------------------------------------------------------------------------


def discover_arguments(
    name: str,
    images: str,
    model: str,
    *,
    classes: tuple[str, ...] = (),
    templates: tuple[str, ...] = (),
    regions: str = "",
    encoder: str = "",
    clustering: str = "",
    cluster_on: str = "",
    tau: str = "",
    rule: str = "",
    split_half: bool = False,
    frames: str = "",
    hide_names: bool = False,
    seed: int = 0,
) -> list[str]:
    """Arguments of `ravl discover`; empty settings are left to its defaults.

    Values are joined to their flag with `=`, so that one beginning with a dash is still a value.
    """
    arguments = ["discover", f"--name={name}", f"--images={images}", f"--model={model}"]
    arguments += [f"--classes={','.join(classes)}"] if classes else []
    arguments += [f"--template={template}" for template in templates]
    optional = {"--regions": regions, "--encoder": encoder, "--clustering": clustering}
    optional |= {"--cluster-on": cluster_on, "--tau": tau, "--rule": rule, "--frames": frames}
    arguments += [f"{flag}={value}" for flag, value in optional.items() if value]
    arguments += ["--split-half"] if split_half else []
    arguments += ["--hide-names"] if hide_names else []
    return [*arguments, f"--seed={seed}"]


def demo_arguments(world: str) -> list[str]:
    """Arguments of `ravl demo`, which draws a demo's images and audits its model on them."""
    return ["demo", "--audit-only", f"--world={world}"]


def mitigate_arguments(
    run: str,
    name: str,
    images: str,
    *,
    test: str = "",
    features: tuple[int, ...] = (),
    method: str = "ravl",
    steps: int,
    batch_size: int,
    lr: float | None = None,
    families: str = "auto",
    patience: int | None = None,
    micro_batch: int | None = None,
    precision: str = "auto",
    region_share: float | None = None,
    lora_rank: int | None = None,
    gradient_checkpointing: bool = False,
    seed: int = 0,
    reaudit: bool = True,
) -> list[str]:
    """Arguments of `ravl mitigate`. The name is always given, so that resuming finds the same folder."""
    arguments = ["mitigate", f"--run={run}", f"--name={name}", f"--images={images}", f"--method={method}"]
    arguments += [f"--test={test}"] if test else []
    arguments += [f"--features={','.join(map(str, features))}"] if features else []
    arguments += [f"--steps={steps}", f"--batch-size={batch_size}"]
    numbers = {"--lr": lr, "--patience": patience, "--micro-batch": micro_batch}
    numbers |= {"--region-share": region_share, "--lora-rank": lora_rank, "--seed": seed or None}
    arguments += [f"{flag}={value!r}" for flag, value in numbers.items() if value is not None]
    words = {"--families": families, "--precision": precision}
    arguments += [f"{flag}={value}" for flag, value in words.items() if value != "auto"]
    arguments += ["--gradient-checkpointing"] if gradient_checkpointing else []
    return arguments if reaudit else [*arguments, "--no-reaudit"]


def again_arguments(name: str, about: Mapping[str, Any]) -> list[str]:
    """The same arguments as of a fine-tuning that was begun, from its config.json: they continue or complete it."""
    config = about["config"]
    given = ("method", "steps", "batch_size", "lr", "families", "patience", "micro_batch", "precision", "region_share")
    settings = {key: config[key] for key in (*given, "lora_rank", "gradient_checkpointing", "seed")}
    features = tuple(config["features"])
    return mitigate_arguments(about["run"], name, about["train"], test=about["test"], features=features, **settings)


def regroup_arguments(run: str, kind: str, features: tuple[int, ...], who: Person, note: str = "") -> list[str]:
    """Arguments of `ravl regroup`. kind: merge or split."""
    arguments = ["regroup", f"--run={run}", f"--{kind}={','.join(map(str, features))}", *by(who)]
    return [*arguments, f"--note={note}"] if note else arguments


def by(who: Person) -> list[str]:
    """The arguments that say who it is, and how that is known."""
    return [f"--reviewer={who.name}", *([] if who.declared else [f"--identity={who.identity}"])]


def argument(job: Job, flag: str) -> str:
    """The value given with `flag` (`--name`) in a job's arguments; empty without it."""
    values = [item.partition("=")[2] for item in job.arguments if item.startswith(f"{flag}=")]
    return values[-1] if values else ""
