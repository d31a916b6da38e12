"""The ledger: decisions that nobody can change, jobs one at a time, several processes at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ravl.config import DECISIONS
from ravl.errors import ConfigError, RunError
from ravl.ledger import ACTIVE, ENDED, SCHEMA_VERSION, WITHDRAWN, ChangedError, Job, Ledger, seen_digest, standing
from ravl.tables import Verdict


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    book = Ledger(tmp_path)
    yield book
    book.close()


def decide(ledger: Ledger, feature: int = 1, decision: str = "spurious", **more: Any) -> Verdict:
    given_ = {"run": "run", "pull_class": "nine", "reviewer": "Ada", "seen": "ff"} | more
    return ledger.add_verdict(feature=feature, decision=decision, **given_)


@pytest.fixture
def raw(ledger: Ledger) -> Iterator[sqlite3.Connection]:
    """The database without our code in between."""
    connection = sqlite3.connect(ledger.path, isolation_level=None)
    yield connection
    connection.close()


# --- verdicts ------------------------------------------------------------------------------------------------------


def test_a_verdict_is_kept_as_it_was_given(ledger: Ledger) -> None:
    stored = decide(ledger, 3, "core", name=" Quadrat 🟥 ", note='\'; DROP TABLE verdicts; --\n"x"', reviewer=" Ada ")
    assert (stored.id, stored.name, stored.reviewer) == (1, "Quadrat 🟥", "Ada")
    assert stored.note == '\'; DROP TABLE verdicts; --\n"x"'
    assert stored.at.endswith("+00:00")
    assert ledger.history("run") == [stored]
    again = Ledger(ledger.path.parent)
    assert again.history("run") == [stored]
    again.close()


def test_the_last_verdict_holds(ledger: Ledger) -> None:
    for decision in DECISIONS:
        decide(ledger, 1, decision)
    decide(ledger, 2, "core")
    decide(ledger, 2, WITHDRAWN)
    decide(ledger, 4, WITHDRAWN)
    decide(ledger, 1, "spurious", run="another")
    holding = ledger.verdicts("run")
    assert {feature: verdict.decision for feature, verdict in holding.items()} == {1: DECISIONS[-1]}
    decide(ledger, 2, "mixed")
    assert ledger.verdicts("run")[2].decision == "mixed"
    assert [v.decision for v in ledger.history("run", 2)] == ["core", WITHDRAWN, "mixed"]
    assert [v.id for v in ledger.history("run")] == [1, 2, 3, 4, 5, 6, 7, 9]
    assert ledger.verdicts("nothing") == {}


def test_a_reviewer_withdraws_nobody_elses_decision(ledger: Ledger) -> None:
    decide(ledger, 1, "spurious", reviewer="Ada")
    decide(ledger, 1, "core", reviewer="Bo")
    assert ledger.verdicts("run")[1].reviewer == "Bo"
    decide(ledger, 1, WITHDRAWN, reviewer="Bo")
    assert ledger.verdicts("run")[1].reviewer == "Ada"
    decide(ledger, 1, WITHDRAWN, reviewer="Ada")
    assert ledger.verdicts("run") == {}


def test_a_withdrawal_takes_back_one_decision(ledger: Ledger) -> None:
    """What the reviewer had decided before stands again, in its place: what another decided later still holds."""
    decide(ledger, 1, "spurious", reviewer="Ada")
    decide(ledger, 1, "mixed", reviewer="Ada")
    decide(ledger, 1, WITHDRAWN, reviewer="Ada")
    assert (ledger.verdicts("run")[1].decision, ledger.verdicts("run")[1].id) == ("spurious", 1)
    decide(ledger, 1, "core", reviewer="Bo")
    decide(ledger, 1, "unsure", reviewer="Ada")
    decide(ledger, 1, WITHDRAWN, reviewer="Ada")
    assert ledger.verdicts("run")[1].reviewer == "Bo"
    both = standing(ledger.history("run"))
    assert {key: v.decision for key, v in both.items()} == {("Ada", 1): "spurious", ("Bo", 1): "core"}


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([*DECISIONS, WITHDRAWN])), max_size=12))
def test_what_holds_is_the_last_word_per_feature(
    tmp_path_factory: pytest.TempPathFactory, words: list[tuple[int, str]]
) -> None:
    book = Ledger(tmp_path_factory.mktemp("ledger"))
    said: dict[int, list[str]] = {}
    for feature, decision in words:
        decide(book, feature, decision)
        before = said.get(feature, [])
        said[feature] = before[:-1] if decision == WITHDRAWN else [*before, decision]
    assert {f: v.decision for f, v in book.verdicts("run").items()} == {f: own[-1] for f, own in said.items() if own}
    assert [(v.feature, v.decision) for v in book.history("run")] == words
    book.close()


def test_a_decision_needs_a_known_word_and_a_person(ledger: Ledger) -> None:
    with pytest.raises(ConfigError, match="decision must be one of spurious, core, mixed, unsure, got 'Spurious'"):
        decide(ledger, decision="Spurious")
    with pytest.raises(ConfigError, match="reviewer must be a name"):
        decide(ledger, reviewer=" \t")
    assert ledger.history("run") == []


@pytest.mark.parametrize("identity", ["self-declared", "proxy", "oidc"])
def test_a_verdict_says_how_it_is_known_who_decided(ledger: Ledger, identity: str) -> None:
    assert decide(ledger).identity == "self-declared"
    stored = decide(ledger, identity=identity)
    assert ledger.history("run")[-1] == stored
    assert stored.identity == identity
    with pytest.raises(ConfigError, match="identity must be one of self-declared, proxy, oidc, got 'god'"):
        decide(ledger, identity="god")


def test_a_decision_on_what_has_changed_since_is_refused(ledger: Ledger) -> None:
    first = decide(ledger, after=0)
    decide(ledger, feature=2, after=0)  # another feature is no obstacle
    with pytest.raises(ChangedError, match=rf"feature 1 must be as it was shown, but {first.reviewer} changed") as told:
        decide(ledger, decision="core", after=0)
    assert told.value.newer == first
    assert [verdict.feature for verdict in ledger.history("run")] == [1, 2]
    assert decide(ledger, decision="core", after=first.id).decision == "core"


def test_of_two_who_decide_at_once_one_is_told(ledger: Ledger) -> None:
    def attempt(who: str) -> bool:
        try:
            return bool(decide(ledger, reviewer=who, after=0).id)
        except ChangedError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, [f"reader {i}" for i in range(8)])) == 1
    assert len(ledger.history("run")) == 1


def test_a_ledger_without_identities_is_completed(tmp_path: Path) -> None:
    """As version 2 left it: the decisions stay, and are self-declared, as all were."""
    old = sqlite3.connect(tmp_path / "ravl.db", isolation_level=None)
    columns = "id INTEGER PRIMARY KEY, run, feature, pull_class, decision, name, note, reviewer, at, seen"
    old.execute(f"CREATE TABLE verdicts ({columns})")
    old.execute("INSERT INTO verdicts VALUES (1, 'run', 4, 'eel', 'mixed', '', '', 'Ada', '2026-01-01', 'd')")
    groupings = "id INTEGER PRIMARY KEY, run, kind, features, made, note, reviewer, at"
    old.execute(f"CREATE TABLE groupings ({groupings})")
    old.execute("INSERT INTO groupings VALUES (1, 'run', 'merge', '[1, 2]', '[4]', '', 'Ada', '2026-01-01')")
    old.execute("PRAGMA user_version = 2")
    old.close()
    book = Ledger(tmp_path)
    assert [(g.made, g.identity) for g in book.groupings("run")] == [((4,), "self-declared")]
    assert [(v.feature, v.identity) for v in book.history("run")] == [(4, "self-declared")]
    assert decide(book, identity="proxy").identity == book.history("run")[-1].identity == "proxy"
    book.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE verdicts SET decision = 'core'",
        "UPDATE verdicts SET note = note",
        "DELETE FROM verdicts",
        "DELETE FROM verdicts WHERE id = 1",
        "REPLACE INTO verdicts SELECT * FROM verdicts",
        "INSERT OR REPLACE INTO verdicts VALUES (1, 'run', 1, '', 'core', '', '', 'Eve', '', '', 'oidc')",
        "INSERT INTO verdicts VALUES (1, 'run', 1, '', 'core', '', '', 'Eve', '', '', 'oidc') "
        "ON CONFLICT (id) DO UPDATE SET decision = 'core'",
    ],
)
def test_the_database_itself_refuses_to_change_a_verdict(
    statement: str, ledger: Ledger, raw: sqlite3.Connection
) -> None:
    before = [decide(ledger), decide(ledger, 2)]
    with pytest.raises(sqlite3.IntegrityError, match="verdicts are append-only"):
        raw.execute(statement)
    assert ledger.history("run") == before


def test_a_verdict_needs_every_column(ledger: Ledger, raw: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="NOT NULL"):
        raw.execute("INSERT INTO verdicts (run, feature) VALUES ('run', 1)")


def test_reviewers_the_latest_first(ledger: Ledger) -> None:
    assert ledger.reviewers() == []
    for name in ("Ada", "Bob", "Eve", "Ada"):
        decide(ledger, reviewer=name)
    assert ledger.reviewers() == ["Ada", "Eve", "Bob"]


def test_the_digest_is_about_the_set_of_regions() -> None:
    assert seen_digest(np.array([3, 1, 2])) == seen_digest(np.array([1, 2, 3], np.int32))
    some = [seen_digest(np.array(ids, np.int64)) for ids in ([], [0], [1], [0, 1], [0, 2], [256])]
    assert len(set(some)) == 6
    assert all(len(digest) == 16 for digest in some)


# --- jobs ----------------------------------------------------------------------------------------------------------


def queue(ledger: Ledger, device: str = "local", **more: Any) -> Job:
    return ledger.add_job("discover", "An audit", ["discover", "--images", "a b", "ü"], device, **more)


def test_a_job_from_queue_to_end(ledger: Ledger) -> None:
    job = queue(ledger, run="r")
    assert (job.id, job.status, job.active) == (1, "queued", True)
    assert job.arguments == ("discover", "--images", "a b", "ü")
    assert (job.facts, job.done, job.total, job.reason, job.pid, job.finished) == ({}, 0, 0, "", None, None)
    ledger.update_job(1, status="running", pid=7, pid_started=1.5, stage="images", done=2, total=4, facts={"loss": 0.5})
    job = ledger.job(1)
    assert (job.status, job.pid, job.pid_started, job.done, job.facts) == ("running", 7, 1.5, 2, {"loss": 0.5})
    ledger.end_job(1, "done")
    job = ledger.job(1)
    assert (job.status, job.active) == ("done", False)
    assert job.finished is not None


@pytest.mark.parametrize("status", ENDED)
def test_the_first_end_counts(status: str, ledger: Ledger) -> None:
    queue(ledger)
    ledger.end_job(1, status, "because")
    ended = ledger.job(1)
    for other in ENDED:
        ledger.end_job(1, other, "late")
    ledger.update_job(1, status="running", stage="images", done=9)
    assert ledger.job(1) == ended


def test_an_end_is_an_end(ledger: Ledger) -> None:
    queue(ledger)
    with pytest.raises(ValueError, match="status must be one of done, failed, cancelled, lost, got 'running'"):
        ledger.end_job(1, "running")


@pytest.mark.parametrize("status", ACTIVE)
def test_one_job_per_device(status: str, ledger: Ledger, raw: sqlite3.Connection) -> None:
    queue(ledger)
    ledger.update_job(1, status=status)
    with pytest.raises(
        ConfigError, match=r"one job runs on local at a time, and one is running. Wait for it, or cancel it"
    ):
        queue(ledger)
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        raw.execute(
            "INSERT INTO jobs (kind, title, arguments, device, status, created) "
            "VALUES ('', '', '', 'local', 'queued', '')"
        )
    assert queue(ledger, "cuda:1").id == 2
    ledger.end_job(1, "failed", "x")
    assert queue(ledger).id == 3
    assert [job.id for job in ledger.jobs()] == [3, 2, 1]
    assert [job.id for job in ledger.jobs(kind="mitigate")] == []


def test_jobs_by_run_and_kind(ledger: Ledger) -> None:
    queue(ledger, "a", run="one")
    queue(ledger, "b", run="two")
    assert [job.id for job in ledger.jobs(run="two")] == [2]
    assert [job.id for job in ledger.jobs(kind="discover", run="one")] == [1]


def test_an_unknown_job(ledger: Ledger) -> None:
    with pytest.raises(ConfigError, match="job must be the number of a job of this workspace, got 5"):
        ledger.job(5)


# --- processes, threads, damage ------------------------------------------------------------------------------------

WRITER = """
import sys
from ravl.errors import ConfigError
from ravl.ledger import Ledger
workspace, who = sys.argv[1:]
ledger = Ledger(workspace)
for i in range(40):
    ledger.add_verdict("run", i, "nine", "spurious", who, "ff")
try:
    ledger.add_job("discover", who, [], "local")
    print("job")
except ConfigError as error:
    print("refused")
"""


def test_two_processes_write_at_once(tmp_path: Path, process: Callable[..., Any]) -> None:
    """Both create the database, both write: nothing is lost, and one of them gets the device."""
    started = [process(WRITER, tmp_path, who) for who in ("Ada", "Bob")]
    ends = [p.communicate(timeout=120) for p in started]
    assert [p.returncode for p in started] == [0, 0], ends
    assert sorted(out for out, _ in ends) == ["job\n", "refused\n"]
    book = Ledger(tmp_path)
    history = book.history("run")
    assert [v.id for v in history] == list(range(1, 81))
    for who in ("Ada", "Bob"):
        assert [v.feature for v in history if v.reviewer == who] == list(range(40))
    book.close()


def test_many_open_a_new_ledger_at_once(tmp_path: Path) -> None:
    def open_and_write(i: int) -> int:
        book = Ledger(tmp_path)
        number = decide(book, i).id
        book.close()
        return number

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(open_and_write, range(16))) == list(range(1, 17))


def test_a_writer_waits_and_a_reader_does_not(ledger: Ledger, raw: sqlite3.Connection) -> None:
    decide(ledger)
    raw.execute("BEGIN IMMEDIATE")  # another process is in the middle of writing
    raw.execute("INSERT INTO verdicts SELECT 2, run, 9, '', 'core', '', '', 'Eve', '', '', 'oidc' FROM verdicts")
    assert [v.feature for v in ledger.history("run")] == [1]
    assert [v.feature for v in Ledger(ledger.path.parent).history("run")] == [1]  # opening reads only
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(decide, ledger, 2)
        raw.execute("COMMIT")
        assert waiting.result(60).id == 3


def test_a_writer_that_waited_too_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ravl.ledger.database.BUSY_SECONDS", 0.1)
    book = Ledger(tmp_path)
    blocker = sqlite3.connect(book.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(
        RunError, match=r"ravl.db could not be written: database is locked. Check the disk, then try again"
    ):
        decide(book)
    blocker.close()
    assert decide(book).id == 1
    book.close()


def test_what_is_committed_survives_a_power_cut(ledger: Ledger) -> None:
    with ledger._database.writing() as connection:
        pragmas = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("journal_mode", "synchronous")
        ]
    assert pragmas == ["wal", 2]  # 2 is FULL


def test_a_newer_ledger_is_refused(ledger: Ledger, raw: sqlite3.Connection) -> None:
    assert raw.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    raw.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(RunError, match=rf"has schema version {SCHEMA_VERSION + 1}, but this ravl reads up to"):
        Ledger(ledger.path.parent)


def test_a_ledger_from_before_versions_is_completed(ledger: Ledger, raw: sqlite3.Connection) -> None:
    verdict = decide(ledger)
    raw.execute("DROP TRIGGER verdicts_REPLACE")
    raw.execute("PRAGMA user_version = 0")
    again = Ledger(ledger.path.parent)
    assert again.history("run") == [verdict]
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        raw.execute("REPLACE INTO verdicts SELECT * FROM verdicts")
    again.close()


def test_databases_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"ravl.db could not be read: unable to open database file"):
        Ledger(tmp_path / "missing")
    (tmp_path / "ravl.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(RunError, match="file is not a database"):
        Ledger(tmp_path)


def test_a_damaged_table_is_told(ledger: Ledger, raw: sqlite3.Connection) -> None:
    raw.execute("DROP TABLE jobs")
    with pytest.raises(RunError, match="could not be read: no such table: jobs"):
        ledger.jobs()


def test_a_path_with_characters_of_a_url(tmp_path: Path) -> None:
    odd = tmp_path / "a?mode=ro#b%20c @ü"
    odd.mkdir()
    book = Ledger(odd)
    decide(book)
    book.close()
    assert (odd / "ravl.db").exists()
