"""The ledger's file: opened by several processes at once, and transactions that wait for each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, IntegrityError

from ravl.errors import RunError
from ravl.ledger.schema import SCHEMA_VERSION, complete

BUSY_SECONDS = 30.0
"""How long a writer waits for another one."""

_WRITES = "ravl_writes"  # execution option of a transaction


class Database:
    """One SQLite file in WAL mode, with the tables of this version.

    What goes wrong in a transaction is a RunError, but for what the tables refuse: that stays an IntegrityError.
    """

    def __init__(self, path: Path) -> None:
        """Open or create it. Raises RunError when that is impossible, or a newer ravl made it."""
        self.path = path
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
        with self.reading() as connection:
            found = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
        if found > SCHEMA_VERSION:
            raise RunError(
                f"{self.path} has schema version {found}, but this ravl reads up to {SCHEMA_VERSION}. "
                "Open it with the newer ravl-dashboard that wrote it."
            )
        if found == SCHEMA_VERSION:
            return
        with self.writing() as connection:
            complete(connection, found)

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that holds the lock for writing from its beginning."""
        with self._told("written"), self._engine.execution_options(**{_WRITES: True}).begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that waits for nobody and sees one state."""
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
