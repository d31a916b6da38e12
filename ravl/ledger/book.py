"""The ledger itself: what is written to it, and how it is read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from ravl.chain import Entry, first_break
from ravl.config import DECISIONS
from ravl.errors import ConfigError
from ravl.ledger.database import Database
from ravl.ledger.records import ACTIVE, ENDED, GROUPING_KINDS, WITHDRAWN, ChangedError, Grouping, Job, now, standing
from ravl.ledger.schema import CHAIN, GROUPINGS, JOBS, VERDICTS
from ravl.tables import IDENTITIES, Verdict, columns


class Ledger:
    """The database of one workspace."""

    def __init__(self, workspace: Path | str) -> None:
        """Open or create `<workspace>/ravl.db`. Raises RunError when that is impossible, or a newer ravl made it."""
        self._database = Database(Path(workspace) / "ravl.db")

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    def close(self) -> None:
        self._database.close()

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
        with self._database.writing() as connection:
            if after is not None:
                _unchanged(connection, run, verdict.feature, after)
            number = _key(connection.execute(VERDICTS.insert().values(row)))
            CHAIN.seal(connection, "verdict", {**row, "id": number})
        return replace(verdict, id=number)

    def history(self, run: str, feature: int | None = None) -> list[Verdict]:
        """All decisions of a run (or of one of its features), oldest first."""
        query = sa.select(VERDICTS).where(VERDICTS.c.run == run).order_by(VERDICTS.c.id)
        if feature is not None:
            query = query.where(VERDICTS.c.feature == int(feature))
        with self._database.reading() as connection:
            return [Verdict(**row) for row in connection.execute(query).mappings()]

    def verdicts(self, run: str) -> dict[int, Verdict]:
        """The decision that holds for each feature: the last one that its own reviewer did not withdraw."""
        latest = sorted(standing(self.history(run)).values(), key=lambda verdict: verdict.id)
        return {verdict.feature: verdict for verdict in latest}

    def spurious(self, run: str) -> dict[int, Verdict]:
        """The decisions `spurious` that hold, by rising feature; with the name that a feature was made with, where the
        decision gives none."""
        names = self.names(run)
        return {
            feature: replace(verdict, name=verdict.name or names.get(feature, ""))
            for feature, verdict in sorted(self.verdicts(run).items())
            if verdict.decision == "spurious"
        }

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
        if kind not in GROUPING_KINDS:
            raise ConfigError(f"kind must be one of {', '.join(GROUPING_KINDS)}, got {kind!r}.")
        if not reviewer.strip():
            raise ConfigError("reviewer must be a name, got none. A change is kept together with who made it.")
        _known(identity)
        ids, new = tuple(int(f) for f in features), tuple(int(f) for f in made)
        grouping = Grouping(run, kind, ids, new, note.strip(), reviewer.strip(), now(), identity)
        row = {**columns(grouping), "features": json.dumps(ids), "made": json.dumps(new)}
        row.pop("id")
        with self._database.writing() as connection:
            number = _key(connection.execute(GROUPINGS.insert().values(row)))
            CHAIN.seal(connection, "grouping", {**row, "id": number})
        return replace(grouping, id=number)

    def groupings(self, run: str) -> list[Grouping]:
        """All merges, splits and made features of a run, oldest first."""
        query = sa.select(GROUPINGS).where(GROUPINGS.c.run == run).order_by(GROUPINGS.c.id)
        with self._database.reading() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        lists = ({**row, **{key: tuple(json.loads(row[key])) for key in ("features", "made")}} for row in rows)
        return [Grouping(**row) for row in lists]

    def names(self, run: str) -> dict[int, str]:
        """What people called the features that they made, until a decision calls them otherwise."""
        return {made: row.note for row in self.groupings(run) if row.kind == "select" and row.note for made in row.made}

    def reviewers(self) -> list[str]:
        """Everyone who decided something in this workspace, the latest first."""
        query = sa.select(VERDICTS.c.reviewer).group_by(VERDICTS.c.reviewer).order_by(sa.func.max(VERDICTS.c.id).desc())
        with self._database.reading() as connection:
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
        with self._database.writing() as connection:
            CHAIN.seal(connection, "import", {**event, "verdicts": [int(number) for number in verdicts]})

    def entries(self, run: str | None = None) -> list[Entry]:
        """The chain, oldest first. run: events of other runs are withheld."""
        with self._database.reading() as connection:
            return CHAIN.entries(connection, run)

    def fault(self) -> str:
        """What shows that events were changed, left out or slipped in: one sentence; empty where nothing does."""
        with self._database.reading() as connection:
            return first_break(CHAIN.entries(connection)) or CHAIN.loose(connection)

    # --- jobs ---------------------------------------------------------------------------------------------------

    def add_job(self, kind: str, title: str, arguments: list[str], device: str, run: str = "") -> Job:
        """Queue a job. Raises ConfigError when the device already has one."""
        row = {"kind": kind, "title": title, "arguments": json.dumps(arguments), "device": device, "run": run}
        row |= {"status": "queued", "created": now()}
        try:
            with self._database.writing() as connection:
                stored = connection.execute(JOBS.insert().values(row))
        except IntegrityError as error:
            raise ConfigError(
                f"one job runs on {device} at a time, and one is running. Wait for it, or cancel it."
            ) from error
        return self.job(_key(stored))

    def job(self, job: int) -> Job:
        """One job by id. Raises ConfigError for an unknown one."""
        with self._database.reading() as connection:
            row = connection.execute(sa.select(JOBS).where(JOBS.c.id == job)).mappings().first()
        if row is None:
            raise ConfigError(f"job must be the number of a job of this workspace, got {job}.")
        return _job(row)

    def jobs(self, kind: str | None = None, run: str | None = None) -> list[Job]:
        """All jobs, newest first."""
        query = sa.select(JOBS).order_by(JOBS.c.id.desc())
        if kind is not None:
            query = query.where(JOBS.c.kind == kind)
        if run is not None:
            query = query.where(JOBS.c.run == run)
        with self._database.reading() as connection:
            return [_job(row) for row in connection.execute(query).mappings()]

    def update_job(self, job: int, **values: Any) -> None:
        """Change columns of an active job; an ended job is left as it is. `facts` is given as a dict."""
        if "facts" in values:
            values["facts"] = json.dumps(values["facts"])
        with self._database.writing() as connection:
            connection.execute(JOBS.update().where(JOBS.c.id == job, JOBS.c.status.in_(ACTIVE)).values(values))

    def end_job(self, job: int, status: str, reason: str = "") -> None:
        """The final word on a job, one of ENDED; only the first one counts."""
        if status not in ENDED:
            raise ValueError(f"status must be one of {', '.join(ENDED)}, got {status!r}.")
        self.update_job(job, status=status, reason=reason, finished=now())


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
    of = VERDICTS.c
    query = sa.select(VERDICTS).where(of.run == run, of.feature == feature, of.id > after).order_by(of.id.desc())
    newer = connection.execute(query).mappings().first()
    if newer is not None:
        raise ChangedError(Verdict(**newer))


def _key(stored: sa.CursorResult[Any]) -> int:
    """Id of the row that was just inserted."""
    key = stored.inserted_primary_key
    assert key is not None  # every table has one
    return int(key[0])
