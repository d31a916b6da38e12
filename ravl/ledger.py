"""People's decisions and jobs: SQLAlchemy Core on SQLite in WAL mode.

Verdicts are append-only: the database itself refuses to change or delete one, and a chain of digests over all events
(`ravl.chain`) shows where somebody got around that. One job runs per device: a partial unique index refuses a second.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.exc import DatabaseError, IntegrityError

from ravl.chain import Entry, first_break
from ravl.config import DECISIONS
from ravl.errors import ConfigError, RunError
from ravl.sealing import Sealing
from ravl.tables import IDENTITIES, Verdict, columns

SCHEMA_VERSION = 6
"""Kept in the database as `user_version`. 2: groupings. 4: the chain. 5: how a reviewer is known, 6: of groupings."""

BUSY_SECONDS = 30.0
"""How long a writer waits for another one."""

WITHDRAWN = "withdrawn"
GROUPINGS = ("merge", "split", "select")
ACTIVE = ("queued", "running")
ENDED = ("done", "failed", "cancelled", "lost")

_WRITES = "ravl_writes"  # execution option of a transaction

_meta = sa.MetaData()
_verdicts = sa.Table(
    "verdicts",
    _meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run", sa.String, nullable=False, index=True),
    sa.Column("feature", sa.Integer, nullable=False),
    sa.Column("pull_class", sa.String, nullable=False),
    sa.Column("decision", sa.String, nullable=False),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("note", sa.String, nullable=False),
    sa.Column("reviewer", sa.String, nullable=False),
    sa.Column("at", sa.String, nullable=False),
    sa.Column("seen", sa.String, nullable=False),
    sa.Column("identity", sa.String, nullable=False, server_default=IDENTITIES[0]),  # since version 5
)
_groupings = sa.Table(
    "groupings",
    _meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run", sa.String, nullable=False, index=True),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("features", sa.String, nullable=False),
    sa.Column("made", sa.String, nullable=False),
    sa.Column("note", sa.String, nullable=False),
    sa.Column("reviewer", sa.String, nullable=False),
    sa.Column("at", sa.String, nullable=False),
    sa.Column("identity", sa.String, nullable=False, server_default=IDENTITIES[0]),  # since version 6
)
_CHAIN = Sealing(_meta, {"verdict": _verdicts, "grouping": _groupings})
_jobs = sa.Table(
    "jobs",
    _meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("title", sa.String, nullable=False),
    sa.Column("arguments", sa.String, nullable=False),
    sa.Column("device", sa.String, nullable=False),
    sa.Column("status", sa.String, nullable=False),
    sa.Column("run", sa.String, nullable=False, server_default=""),
    sa.Column("stage", sa.String, nullable=False, server_default=""),
    sa.Column("done", sa.Integer, nullable=False, server_default="0"),
    sa.Column("total", sa.Integer, nullable=False, server_default="0"),
    sa.Column("facts", sa.String, nullable=False, server_default="{}"),
    sa.Column("reason", sa.String, nullable=False, server_default=""),
    sa.Column("log", sa.String, nullable=False, server_default=""),
    sa.Column("pid", sa.Integer),
    sa.Column("pid_started", sa.Float),
    sa.Column("created", sa.String, nullable=False),
    sa.Column("started", sa.String),
    sa.Column("stage_started", sa.String),
    sa.Column("heartbeat", sa.String),
    sa.Column("finished", sa.String),
)
sa.Index("one_job_per_device", _jobs.c.device, unique=True, sqlite_where=_jobs.c.status.in_(ACTIVE))


def _append_only(table: str) -> tuple[str, ...]:
    """Triggers that refuse to change or delete a row."""
    refuse = f"BEGIN SELECT RAISE(ABORT, '{table} are append-only'); END"
    return (
        f"CREATE TRIGGER IF NOT EXISTS {table}_UPDATE BEFORE UPDATE ON {table} {refuse}",
        f"CREATE TRIGGER IF NOT EXISTS {table}_DELETE BEFORE DELETE ON {table} {refuse}",
        # INSERT OR REPLACE deletes the old row without asking the trigger above
        f"CREATE TRIGGER IF NOT EXISTS {table}_REPLACE BEFORE INSERT ON {table} "
        f"WHEN EXISTS (SELECT 1 FROM {table} WHERE id = NEW.id) {refuse}",
    )


@dataclass(frozen=True)
class Grouping:
    """A person's change to the features of a run. kind: one of GROUPINGS. features: ids that went, made: ids that came.

    select: a feature was made of regions drawn around; features: those that lost regions, note: what the new one shows.
    at: UTC, ISO 8601. identity: how it is known who did it, one of IDENTITIES. No line of this kind is ever changed.
    """

    run: str
    kind: str
    features: tuple[int, ...]
    made: tuple[int, ...]
    note: str
    reviewer: str
    at: str
    identity: str = IDENTITIES[0]
    id: int = 0


@dataclass(frozen=True)
class Job:
    """One row of the job table. Times are UTC, ISO 8601; None where it has not happened yet.

    status: queued, running, done, failed, cancelled, or lost (its process is gone). arguments: of `python -m ravl`.
    pid_started: start time of the process in seconds since the epoch, which tells it from a later one with its pid.
    """

    id: int
    kind: str
    title: str
    arguments: tuple[str, ...]
    device: str
    status: str
    run: str
    stage: str
    done: int
    total: int
    facts: dict[str, float]
    reason: str
    log: str
    pid: int | None
    pid_started: float | None
    created: str
    started: str | None
    stage_started: str | None
    heartbeat: str | None
    finished: str | None

    @property
    def active(self) -> bool:
        return self.status in ACTIVE


class ChangedError(ConfigError):
    """Somebody decided on a feature after it was shown. newer: the last of these decisions."""

    def __init__(self, newer: Verdict) -> None:
        self.newer = newer
        super().__init__(
            f"feature {newer.feature} must be as it was shown, but {newer.reviewer} changed it to {newer.decision} at "
            f"{newer.at[:19].replace('T', ' ')} UTC. Nothing was recorded; look at it again, then decide."
        )


def seen_digest(region_ids: NDArray[np.integer[Any]]) -> str:
    """Digest of the regions a decision is about: 16 hex digits of the sorted ids."""
    ids = np.sort(np.asarray(region_ids, np.int64))
    return hashlib.blake2b(ids.tobytes(), digest_size=8).hexdigest()


class Ledger:
    """The database of one workspace."""

    def __init__(self, workspace: Path | str) -> None:
        """Open or create `<workspace>/ravl.db`. Raises RunError when that is impossible, or a newer ravl made it."""
        self.path = Path(workspace) / "ravl.db"
        # URL.create, because a path may hold characters that mean something in a URL
        url = sa.URL.create("sqlite", database=str(self.path))
        self._engine = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS})
        sa.event.listen(self._engine, "connect", _configure)
        sa.event.listen(self._engine, "begin", _begin)
        try:
            _patiently(self._prepare)
        except RunError:
            self.close()
            raise

    def _prepare(self) -> None:
        """Create the tables, once. Opening a ledger that has them only reads."""
        with self._reading() as connection:
            found = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
        if found > SCHEMA_VERSION:
            raise RunError(
                f"{self.path} has schema version {found}, but this ravl reads up to {SCHEMA_VERSION}. "
                "Open it with the newer ravl-dashboard that wrote it."
            )
        if found == SCHEMA_VERSION:
            return
        with self._writing() as connection:
            _meta.create_all(connection)
            for table in (_verdicts.name, _groupings.name):
                if "identity" not in {column["name"] for column in sa.inspect(connection).get_columns(table)}:
                    connection.exec_driver_sql(
                        f"ALTER TABLE {table} ADD COLUMN identity VARCHAR NOT NULL DEFAULT '{IDENTITIES[0]}'"
                    )
            for table in (_verdicts.name, _groupings.name, _CHAIN.table.name):
                for trigger in _append_only(table):
                    connection.exec_driver_sql(trigger)
            _CHAIN.adopt(connection, found, now())
            connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._told("written"), self._engine.execution_options(**{_WRITES: True}).begin() as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with self._told("read"), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except DatabaseError as error:
            raise RunError(f"{self.path} could not be {what}: {error.orig}. Check the disk, then try again.") from error

    def close(self) -> None:
        self._engine.dispose()

    # --- verdicts -----------------------------------------------------------------------------------------------

    def add_verdict(
        self,
        run: str,
        feature: int,
        pull_class: str,
        decision: str,
        reviewer: str,
        seen: str,
        name: str = "",
        note: str = "",
        identity: str = IDENTITIES[0],
        after: int | None = None,
    ) -> Verdict:
        """Append one decision and return it as stored. Raises ConfigError without a reviewer or a known decision.

        identity: how it is known who decides, one of IDENTITIES. after: id of the last event about this feature that
        the person knew of (0 for none); with a later one nothing is written, and ChangedError says who made it.
        """
        if decision not in (*DECISIONS, WITHDRAWN):
            raise ConfigError(f"decision must be one of {', '.join(DECISIONS)}, got {decision!r}.")
        if not reviewer.strip():
            raise ConfigError("reviewer must be a name, got none. A decision is kept together with who made it.")
        _known(identity)
        verdict = Verdict(
            run=run,
            feature=int(feature),
            pull_class=pull_class,
            decision=decision,
            name=name.strip(),
            note=note.strip(),
            reviewer=reviewer.strip(),
            at=now(),
            seen=seen,
            identity=identity,
        )
        row = {key: value for key, value in columns(verdict).items() if key != "id"}
        with self._writing() as connection:
            if after is not None:
                _unchanged(connection, run, verdict.feature, after)
            number = _key(connection.execute(_verdicts.insert().values(row)))
            _CHAIN.seal(connection, "verdict", {**row, "id": number})
        return replace(verdict, id=number)

    def history(self, run: str, feature: int | None = None) -> list[Verdict]:
        """All decisions of a run (or of one of its features), oldest first."""
        query = sa.select(_verdicts).where(_verdicts.c.run == run).order_by(_verdicts.c.id)
        if feature is not None:
            query = query.where(_verdicts.c.feature == int(feature))
        with self._reading() as connection:
            return [Verdict(**row) for row in connection.execute(query).mappings()]

    def verdicts(self, run: str) -> dict[int, Verdict]:
        """The decision that holds for each feature: the last one that its own reviewer did not withdraw."""
        standing: dict[tuple[int, str], Verdict] = {}
        for verdict in self.history(run):
            standing.pop((verdict.feature, verdict.reviewer), None)  # so that the order is that of the last words
            standing[verdict.feature, verdict.reviewer] = verdict
        return {verdict.feature: verdict for verdict in standing.values() if verdict.decision != WITHDRAWN}

    def add_grouping(
        self,
        run: str,
        kind: str,
        features: Sequence[int],
        made: Sequence[int],
        reviewer: str,
        note: str = "",
        identity: str = IDENTITIES[0],
    ) -> Grouping:
        """Append that a person merged, split or made features. Raises ConfigError without reviewer or known kind.

        identity: how it is known who did it, one of IDENTITIES.
        """
        if kind not in GROUPINGS:
            raise ConfigError(f"kind must be one of {', '.join(GROUPINGS)}, got {kind!r}.")
        if not reviewer.strip():
            raise ConfigError("reviewer must be a name, got none. A change is kept together with who made it.")
        _known(identity)
        ids, new = tuple(int(f) for f in features), tuple(int(f) for f in made)
        grouping = Grouping(run, kind, ids, new, note.strip(), reviewer.strip(), now(), identity)
        row = {**columns(grouping), "features": json.dumps(ids), "made": json.dumps(new)}
        row.pop("id")
        with self._writing() as connection:
            number = _key(connection.execute(_groupings.insert().values(row)))
            _CHAIN.seal(connection, "grouping", {**row, "id": number})
        return replace(grouping, id=number)

    def groupings(self, run: str) -> list[Grouping]:
        """All merges, splits and made features of a run, oldest first."""
        query = sa.select(_groupings).where(_groupings.c.run == run).order_by(_groupings.c.id)
        with self._reading() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        lists = ({**row, **{key: tuple(json.loads(row[key])) for key in ("features", "made")}} for row in rows)
        return [Grouping(**row) for row in lists]

    def names(self, run: str) -> dict[int, str]:
        """What people called the features that they made, until a decision calls them otherwise."""
        return {made: row.note for row in self.groupings(run) if row.kind == "select" and row.note for made in row.made}

    def reviewers(self) -> list[str]:
        """Everyone who decided something in this workspace, the latest first."""
        query = (
            sa.select(_verdicts.c.reviewer).group_by(_verdicts.c.reviewer).order_by(sa.func.max(_verdicts.c.id).desc())
        )
        with self._reading() as connection:
            return list(connection.execute(query).scalars())

    # --- the chain ----------------------------------------------------------------------------------------------

    def add_import(
        self,
        run: str,
        source: str,
        sha256: str,
        reviewer: str,
        verdicts: Sequence[int],
        identity: str = IDENTITIES[0],
    ) -> None:
        """Append that decisions of another run were taken over. source: its id. sha256: of the file they came from.

        verdicts: ids of the decisions that it led to. identity: how it is known who did it, one of IDENTITIES.
        """
        _known(identity)
        event = {"run": run, "from": source, "sha256": sha256, "reviewer": reviewer.strip(), "at": now()}
        event |= {} if identity == IDENTITIES[0] else {"identity": identity}  # as where a table has the event
        with self._writing() as connection:
            _CHAIN.seal(connection, "import", {**event, "verdicts": [int(number) for number in verdicts]})

    def entries(self, run: str | None = None) -> list[Entry]:
        """The chain, oldest first. run: events of other runs are withheld."""
        with self._reading() as connection:
            return _CHAIN.entries(connection, run)

    def fault(self) -> str:
        """What shows that events were changed, left out or slipped in: one sentence; empty where nothing does."""
        with self._reading() as connection:
            return first_break(_CHAIN.entries(connection)) or _CHAIN.loose(connection)

    # --- jobs ---------------------------------------------------------------------------------------------------

    def add_job(self, kind: str, title: str, arguments: list[str], device: str, run: str = "") -> Job:
        """Queue a job. Raises ConfigError when the device already has one."""
        row = {"kind": kind, "title": title, "arguments": json.dumps(arguments), "device": device, "run": run}
        row |= {"status": "queued", "created": now()}
        try:
            with self._writing() as connection:
                stored = connection.execute(_jobs.insert().values(row))
        except IntegrityError as error:
            raise ConfigError(
                f"one job runs on {device} at a time, and one is running. Wait for it, or cancel it."
            ) from error
        return self.job(_key(stored))

    def job(self, job: int) -> Job:
        """One job by id. Raises ConfigError for an unknown one."""
        with self._reading() as connection:
            row = connection.execute(sa.select(_jobs).where(_jobs.c.id == job)).mappings().first()
        if row is None:
            raise ConfigError(f"job must be the number of a job of this workspace, got {job}.")
        return _job(row)

    def jobs(self, kind: str | None = None, run: str | None = None) -> list[Job]:
        """All jobs, newest first."""
        query = sa.select(_jobs).order_by(_jobs.c.id.desc())
        if kind is not None:
            query = query.where(_jobs.c.kind == kind)
        if run is not None:
            query = query.where(_jobs.c.run == run)
        with self._reading() as connection:
            return [_job(row) for row in connection.execute(query).mappings()]

    def update_job(self, job: int, **values: Any) -> None:
        """Change columns of an active job; an ended job is left as it is. `facts` is given as a dict."""
        if "facts" in values:
            values["facts"] = json.dumps(values["facts"])
        with self._writing() as connection:
            connection.execute(_jobs.update().where(_jobs.c.id == job, _jobs.c.status.in_(ACTIVE)).values(values))

    def end_job(self, job: int, status: str, reason: str = "") -> None:
        """The final word on a job, one of ENDED; only the first one counts."""
        if status not in ENDED:
            raise ValueError(f"status must be one of {', '.join(ENDED)}, got {status!r}.")
        self.update_job(job, status=status, reason=reason, finished=now())


def _patiently(prepare: Callable[[], None]) -> None:
    """Try again while another process creates the database: turning to WAL does not wait for a lock as a write does."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return prepare()
        except RunError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def now() -> str:
    """The time in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _job(row: sa.RowMapping) -> Job:
    values = dict(row)
    values["arguments"] = tuple(json.loads(values["arguments"]))
    values["facts"] = json.loads(values["facts"])
    return Job(**values)


def _known(identity: str) -> None:
    if identity not in IDENTITIES:
        raise ConfigError(f"identity must be one of {', '.join(IDENTITIES)}, got {identity!r}.")


def _unchanged(connection: sa.Connection, run: str, feature: int, after: int) -> None:
    """Raise ConfigError if there is an event about the feature after the one with the id `after`."""
    of = _verdicts.c
    query = sa.select(_verdicts).where(of.run == run, of.feature == feature, of.id > after).order_by(of.id.desc())
    newer = connection.execute(query).mappings().first()
    if newer is not None:
        raise ChangedError(Verdict(**newer))


def _key(stored: sa.CursorResult[Any]) -> int:
    """Id of the row that was just inserted."""
    key = stored.inserted_primary_key
    assert key is not None  # both tables have one
    return int(key[0])


def _configure(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # transactions begin where `_begin` says, so that they hold DDL as well
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # a decision survives a power cut
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    # a writer takes its lock at once: waiting works then, while turning a reader into a writer may fail at once
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
