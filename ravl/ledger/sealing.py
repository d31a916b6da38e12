"""The chain of digests (`ravl.chain`) in the ledger's database: a table of links beside the tables of events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from ravl.chain import GENESIS, Entry, canonical, digest, link


@dataclass(frozen=True)
class Sealing:
    """The links of some tables of events. tables: by the name of what a row is, such as `verdict`.

    An event that is no row of a table is kept in its link.
    """

    meta: sa.MetaData
    tables: Mapping[str, sa.Table]
    table: sa.Table = field(init=False)

    def __post_init__(self) -> None:
        columns = (
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("kind", sa.String, nullable=False),
            sa.Column("event", sa.Integer, nullable=False),  # id in the table of its kind, else 0
            sa.Column("payload", sa.String, nullable=False),  # the event itself, where no table has it
            sa.Column("event_sha256", sa.String, nullable=False),
            sa.Column("sha256", sa.String, nullable=False),
        )
        object.__setattr__(self, "table", sa.Table("chain", self.meta, *columns))

    def seal(self, connection: sa.Connection, kind: str, row: Mapping[str, Any]) -> None:
        """Append an event, in the transaction that wrote it."""
        last = connection.execute(sa.select(self.table.c.sha256).order_by(self.table.c.id.desc()).limit(1)).scalar()
        event = self._event(kind, row)
        own = digest(event)
        place = (
            {"event": row["id"], "payload": ""} if kind in self.tables else {"event": 0, "payload": canonical(event)}
        )
        values = {"kind": kind, **place, "event_sha256": own, "sha256": link(last or GENESIS, own)}
        connection.execute(self.table.insert().values(values))

    def adopt(self, connection: sa.Connection, version: int, at: str) -> None:
        """Take events from before the chain into it, oldest first, behind an entry that says so.

        version: the schema version of the ledger that had no chain.
        """
        known = self._known(connection)
        found = {key: row for key, row in self._rows(connection).items() if key not in known}
        if not found:
            return
        self.seal(connection, "adoption", {"at": at, "schema_version": version, "events": len(found)})
        for (kind, _), row in sorted(found.items(), key=lambda item: (item[1]["at"], item[0])):
            self.seal(connection, kind, row)

    def entries(self, connection: sa.Connection, run: str | None = None) -> list[Entry]:
        """The chain, oldest first. run: events of other runs are withheld. A row that is gone is an empty event."""
        rows, before, out = self._rows(connection), GENESIS, []
        for number, kind, key, payload, own, sha256 in connection.execute(
            sa.select(self.table).order_by(self.table.c.id)
        ):
            event = self._event(kind, rows.get((kind, key), {})) if kind in self.tables else json.loads(payload)
            shown = event if run is None or event.get("run", run) == run else None
            out.append(Entry(number, kind, shown, own, before, sha256))
            before = sha256
        return out

    def loose(self, connection: sa.Connection) -> str:
        """The first event without a link, in one sentence; empty where every event has one."""
        loose = sorted(set(self._rows(connection)) - self._known(connection))
        return f"{loose[0][0]} {loose[0][1]} is in no entry of the chain: it was not written by ravl." if loose else ""

    def _known(self, connection: sa.Connection) -> set[tuple[str, int]]:
        links = connection.execute(sa.select(self.table.c.kind, self.table.c.event))
        return {(kind, key) for kind, key in links}

    def _rows(self, connection: sa.Connection) -> dict[tuple[str, int], dict[str, Any]]:
        """Every event that has a row, by kind and id."""
        return {
            (kind, row["id"]): dict(row)
            for kind, table in self.tables.items()
            for row in connection.execute(sa.select(table)).mappings()
        }

    def _event(self, kind: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row as the chain counts it.

        Columns that hold their default are left out, and so are nulls: a later version can add such columns, and what
        was chained before keeps its digest.
        """
        columns = self.tables[kind].columns if kind in self.tables else ()
        usual = {column.name: _default(column) for column in columns}
        return {"event": kind, **{key: value for key, value in row.items() if value not in (None, usual.get(key))}}


def _default(column: sa.Column[Any]) -> str | None:
    """What the database writes where a column is not given."""
    default = column.server_default
    return str(default.arg) if isinstance(default, sa.DefaultClause) else None
