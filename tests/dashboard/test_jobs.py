"""Jobs with real processes: a stand-in for `python -m ravl` that sleeps, ends, or ignores SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from dashboard.serving import jobs
from ravl.config import MitigationConfig
from ravl.errors import ConfigError, RunError
from ravl.ledger import Job, Ledger

SLEEP = "import time; print('working', flush=True); time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
)
PARENT = (
    "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); " + SLEEP
)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    book = Ledger(tmp_path)
    yield book
    for job in book.jobs():
        if job.pid is not None and jobs.alive(job):
            os.killpg(job.pid, signal.SIGKILL)
    book.close()


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[list[str]]]:
    """Make jobs run a piece of Python instead of `-m ravl ...`; returns the list of commands that were asked for."""
    real = subprocess.Popen

    def use(code: str) -> list[list[str]]:
        asked: list[list[str]] = []

        def popen(command: list[str], **options: object) -> subprocess.Popen[bytes]:
            asked.append(command)
            return real([sys.executable, "-c", code], **options)  # type: ignore[call-overload, no-any-return]

        monkeypatch.setattr(jobs.subprocess, "Popen", popen)
        return asked

    return use


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_start_runs_ravl_in_a_session_of_its_own(
    ledger: Ledger, tmp_path: Path, worker: Callable[[str], list[list[str]]]
) -> None:
    asked = worker(SLEEP)
    job = jobs.start(ledger, tmp_path, "discover", "Audit a", ["discover", "--name=a"], run="r")
    assert asked == [
        [sys.executable, "-m", "ravl", "discover", "--name=a", "--workspace", str(tmp_path), "--job", str(job.id)]
    ]
    assert job.pid is not None
    assert os.getpgid(job.pid) == job.pid != os.getpgid(0)
    assert job.pid_started == pytest.approx(psutil.Process(job.pid).create_time())
    assert (job.kind, job.title, job.run, job.arguments) == ("discover", "Audit a", "r", ("discover", "--name=a"))
    wait_for(lambda: jobs.log_tail(job) == "working")
    assert Path(job.log) == tmp_path / "jobs" / f"{job.id}.log"


def test_one_job_at_a_time(ledger: Ledger, tmp_path: Path, worker: Callable[[str], list[list[str]]]) -> None:
    worker(SLEEP)
    jobs.start(ledger, tmp_path, "demo", "Demo", ["demo"])
    with pytest.raises(ConfigError, match="one job runs on local at a time"):
        jobs.start(ledger, tmp_path, "demo", "Demo", ["demo"])


def test_a_process_that_cannot_start_fails_the_job(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.sys, "executable", str(tmp_path / "missing"))
    with pytest.raises(RunError, match="could not be started"):
        jobs.start(ledger, tmp_path, "demo", "Demo", ["demo"])
    assert [job.status for job in ledger.jobs()] == ["failed"]


def test_cancel_ends_the_whole_group(ledger: Ledger, tmp_path: Path, worker: Callable[[str], list[list[str]]]) -> None:
    worker(PARENT)
    job = jobs.start(ledger, tmp_path, "demo", "Demo", ["demo"])
    wait_for(lambda: jobs.log_tail(job) == "working")
    assert job.pid is not None
    family = [psutil.Process(job.pid), *psutil.Process(job.pid).children()]
    assert len(family) == 2
    jobs.cancel(ledger, job).join(20)
    assert ledger.job(job.id).status == "cancelled"
    wait_for(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family))


def test_cancel_kills_what_ignores_it(ledger: Ledger, tmp_path: Path, worker: Callable[[str], list[list[str]]]) -> None:
    worker(STUBBORN)
    job = jobs.start(ledger, tmp_path, "demo", "Demo", ["demo"])
    wait_for(lambda: jobs.log_tail(job) == "deaf")
    jobs.cancel(ledger, job, grace=0.2).join(20)
    assert not jobs.alive(job)
    assert ledger.job(job.id).status == "cancelled"


def test_the_workers_last_word_wins(ledger: Ledger, tmp_path: Path, worker: Callable[[str], list[list[str]]]) -> None:
    worker(SLEEP)
    job = jobs.start(ledger, tmp_path, "demo", "Demo", ["demo"])
    ledger.end_job(job.id, "done")
    jobs.cancel(ledger, job, grace=0.2).join(20)
    assert ledger.job(job.id).status == "done"


def test_a_foreign_process_with_the_same_number_is_never_signalled(ledger: Ledger) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", SLEEP], stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        job = ledger.add_job("demo", "Demo", ["demo"], "local")
        ledger.update_job(job.id, pid=bystander.pid, pid_started=psutil.Process(bystander.pid).create_time() - 100)
        jobs.cancel(ledger, ledger.job(job.id), grace=0.1).join(20)
        assert bystander.poll() is None
        assert ledger.job(job.id).status == "cancelled"
    finally:
        bystander.kill()
        bystander.wait()


def test_reconcile_leaves_the_living_alone(
    ledger: Ledger, tmp_path: Path, worker: Callable[[str], list[list[str]]]
) -> None:
    worker(SLEEP)
    job = jobs.start(ledger, tmp_path, "demo", "Demo", ["demo"])
    assert jobs.reconcile(ledger) == []
    assert ledger.job(job.id).status == "queued"


def test_reconcile_finds_the_lost_and_they_can_be_resumed(
    ledger: Ledger, tmp_path: Path, worker: Callable[[str], list[list[str]]]
) -> None:
    worker("print('gone')")
    job = jobs.start(ledger, tmp_path, "discover", "Audit a", ["discover", "--name=a"], run="r")
    wait_for(lambda: not jobs.alive(ledger.job(job.id)))
    [lost] = jobs.reconcile(ledger)
    assert (lost.id, lost.status) == (job.id, "lost")
    assert "Resume" in lost.reason
    assert jobs.reconcile(ledger) == []
    again = jobs.resume(ledger, tmp_path, lost)
    assert (again.kind, again.title, again.arguments, again.run) == (lost.kind, lost.title, lost.arguments, "r")
    assert again.id != lost.id


def test_a_zombie_and_a_reused_number_are_gone(ledger: Ledger) -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])  # not waited for: stays a zombie
    wait_for(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
    zombie = ledger.add_job("demo", "Zombie", [], "a")
    ledger.update_job(zombie.id, pid=child.pid, pid_started=psutil.Process(child.pid).create_time())
    reused = ledger.add_job("demo", "Reused", [], "b")
    ledger.update_job(reused.id, pid=os.getpid(), pid_started=psutil.Process().create_time() - 100)
    assert {job.id for job in jobs.reconcile(ledger)} == {zombie.id, reused.id}
    child.wait()


def test_a_job_that_is_being_started_is_not_lost(ledger: Ledger) -> None:
    job = ledger.add_job("demo", "Demo", [], "local")
    assert jobs.reconcile(ledger) == []
    ledger.update_job(job.id, created=(datetime.now(UTC) - timedelta(minutes=5)).isoformat())
    assert [lost.id for lost in jobs.reconcile(ledger)] == [job.id]


def make_job(ledger: Ledger) -> Job:
    return ledger.add_job("demo", "Demo", [], "local")


@pytest.mark.parametrize(
    ("done", "total", "spent", "expected"),
    [(25, 100, 10, 30.0), (0, 100, 10, None), (100, 100, 10, None), (50, 100, 0, 0.0)],
)
def test_remaining_seconds(ledger: Ledger, done: int, total: int, spent: float, expected: float | None) -> None:
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    job = replace(make_job(ledger), status="running", done=done, total=total, stage_started=begun.isoformat())
    assert jobs.remaining_seconds(job, begun + timedelta(seconds=spent)) == expected


def test_remaining_seconds_after_a_resume_count_the_new_steps_alone(ledger: Ledger) -> None:
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    job = replace(make_job(ledger), status="running", done=60, total=130, stage_started=begun.isoformat())
    job = replace(job, facts={"resumed_at": 50})
    assert jobs.remaining_seconds(job, begun + timedelta(seconds=20)) == 140
    assert jobs.remaining_seconds(replace(job, done=50), begun + timedelta(seconds=20)) is None


def test_remaining_seconds_is_unknown_before_a_stage_and_after_the_end(ledger: Ledger) -> None:
    job = replace(make_job(ledger), status="running", done=1, total=2)
    assert jobs.remaining_seconds(job) is None
    assert jobs.remaining_seconds(replace(job, status="done", stage_started="2026-01-01T00:00:00+00:00")) is None


def test_log_tail(ledger: Ledger, tmp_path: Path) -> None:
    log = tmp_path / "log"
    job = replace(make_job(ledger), log=str(log))
    assert jobs.log_tail(job) == ""
    log.write_bytes(b"first\n" * 10_000 + b"bar 1%\rbar 50%\rbar 99%\nlast \xff\n")
    assert jobs.log_tail(job, lines=3).splitlines() == ["bar 99%", "last �"]
    assert jobs.log_tail(replace(job, log="")) == ""


def test_discover_arguments_keep_strange_values_whole() -> None:
    arguments = jobs.discover_arguments(
        "n",
        "-folder",
        "m",
        classes=("a b", "-c"),
        templates=("a {}", "-- {}"),
        regions="grid:3",
        encoder="crop",
        rule="paper",
        split_half=True,
        seed=7,
    )
    assert arguments == [
        *("discover", "--name=n", "--images=-folder", "--model=m", "--classes=a b,-c"),
        *(
            "--template=a {}",
            "--template=-- {}",
            "--regions=grid:3",
            "--encoder=crop",
            "--rule=paper",
            "--split-half",
            "--seed=7",
        ),
    ]


def test_mitigate_arguments() -> None:
    arguments = jobs.mitigate_arguments(
        "r", "n", "train", test="test", features=(3, 0), steps=10, batch_size=8, lr=1e-4
    )
    assert arguments == [
        *("mitigate", "--run=r", "--name=n", "--images=train", "--method=ravl", "--test=test", "--features=3,0"),
        *("--steps=10", "--batch-size=8", "--lr=0.0001"),
    ]


def test_the_arguments_of_a_folder_give_its_configuration_again() -> None:
    """Whatever can be set on the screen: the command that is rebuilt from config.json has the same settings."""
    from ravl.cli import _parser

    settings = {"steps": 10, "batch_size": 8, "lr": 1e-4, "patience": 2, "micro_batch": 3, "region_share": 0.25}
    settings |= {"lora_rank": 4, "seed": 5, "families": "top", "precision": "fp32", "method": "paper"}
    settings["gradient_checkpointing"] = True
    for chosen in (settings, {"steps": 10, "batch_size": 8}):
        config = MitigationConfig(features=(3, 0), **chosen)
        about = {"run": "r", "train": "/train", "test": "/test", "config": config.to_dict()}
        arguments = jobs.again_arguments("n", about)
        assert arguments == jobs.mitigate_arguments("r", "n", "/train", test="/test", features=(3, 0), **chosen)
        found = vars(_parser().parse_args(arguments))
        assert {key: found[key] for key in settings} == {key: getattr(config, key) for key in settings}
        assert (found["images"], found["test"], found["features"]) == ("/train", "/test", "3,0")
        assert not found["no_reaudit"]
    assert jobs.mitigate_arguments("r", "n", "t", steps=1, batch_size=2, reaudit=False)[-1] == "--no-reaudit"


def test_the_command_line_takes_the_arguments() -> None:
    from ravl.cli import _parser

    parser = _parser()
    tail = ["--workspace", "w", "--job", "1"]
    found = parser.parse_args(
        [*jobs.discover_arguments("n", "-i", "m", classes=("-a",), templates=("-{}",), seed=3), *tail]
    )
    assert (found.images, found.classes, found.template, found.seed, found.job) == ("-i", "-a", ["-{}"], 3, 1)
    found = parser.parse_args(
        [*jobs.mitigate_arguments("r", "n", "t", features=(1,), steps=2, batch_size=4, lr=0.5), *tail]
    )
    assert (found.run, found.name, found.features, found.steps, found.batch_size, found.lr) == (
        "r",
        "n",
        "1",
        2,
        4,
        0.5,
    )
    assert parser.parse_args([*jobs.demo_arguments("radiograph"), *tail]).audit_only


def test_argument(ledger: Ledger) -> None:
    job = replace(make_job(ledger), arguments=("discover", "--name=a=b", "--images=x"))
    assert jobs.argument(job, "--name") == "a=b"
    assert jobs.argument(job, "--model") == ""
