"""The tables of the ledger, what guards them, and how older ledgers come to have them."""

from __future__ import annotations

import sqlalchemy as sa

from ravl.ledger.records import ACTIVE, now
from ravl.ledger.sealing import Sealing
from ravl.tables import IDENTITIES

SCHEMA_VERSION = 6
"""Kept in the database as `user_version`. 2: groupings. 4: the chain. 5: how a reviewer is known, 6: of groupings."""

_meta = sa.MetaData()
VERDICTS = sa.Table(
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
GROUPINGS = sa.Table(
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
CHAIN = Sealing(_meta, {"verdict": VERDICTS, "grouping": GROUPINGS})
JOBS = sa.Table(
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
sa.Index("one_job_per_device", JOBS.c.device, unique=True, sqlite_where=JOBS.c.status.in_(ACTIVE))


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


def complete(connection: sa.Connection, found: int) -> None:
    """Give a ledger of the schema version `found`, 0 for a new one, what SCHEMA_VERSION has, in one transaction."""
    _meta.create_all(connection)
    for table in (VERDICTS.name, GROUPINGS.name):
        if "identity" not in {column["name"] for column in sa.inspect(connection).get_columns(table)}:
            connection.exec_driver_sql(
                f"ALTER TABLE {table} ADD COLUMN identity VARCHAR NOT NULL DEFAULT '{IDENTITIES[0]}'"
            )
    for table in (VERDICTS.name, GROUPINGS.name, CHAIN.table.name):
        for trigger in _append_only(table):
            connection.exec_driver_sql(trigger)
    CHAIN.adopt(connection, found, now())
    connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
