"""The chain of digests: an oracle for it, what it notices, and what the ledger does with it."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from ravl.chain import GENESIS, Entry, canonical, digest, first_break, link
from ravl.ledger import SCHEMA_VERSION, WITHDRAWN, Ledger
from ravl.ledger.sealing import Sealing

EVENTS = st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5), max_size=3)


def chained(events: list[dict[str, Any]]) -> list[Entry]:
    """A second way to the same chain: with sha256 alone."""
    before, out = "0" * 64, []
    for i, event in enumerate(events):
        text = json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        own = hashlib.sha256(text.encode()).hexdigest()
        now = hashlib.sha256((before + "\n" + own).encode()).hexdigest()
        out.append(Entry(i + 1, "verdict", event, own, before, now))
        before = now
    return out


def test_canonical_is_one_text_for_one_content() -> None:
    assert canonical({"b": [1, 2.5, None], "a": "ü\n"}) == '{"a":"ü\\n","b":[1,2.5,null]}'
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})
    assert digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert len(digest("\ud800")) == 64
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest(float("nan"))


@given(st.lists(EVENTS, max_size=5))
def test_a_chain_is_whole(events: list[dict[str, Any]]) -> None:
    entries = chained(events)
    assert first_break(entries) == ""
    assert first_break([replace(entry, event=None) for entry in entries]) == ""  # withheld events
    for entry in entries:
        assert (digest(entry.event), link(entry.previous, entry.event_sha256)) == (entry.event_sha256, entry.sha256)


@given(st.lists(EVENTS, min_size=2, max_size=5), st.data())
def test_every_change_is_noticed_at_its_entry(events: list[dict[str, Any]], data: st.DataObject) -> None:
    entries = chained(events)
    at = data.draw(st.integers(0, len(entries) - 1))
    entry = entries[at]
    changed = replace(entry, event={**(entry.event or {}), "more": 1})
    assert f"entry {at + 1} (verdict) was changed: its content" in first_break(
        [*entries[:at], changed, *entries[at + 1 :]]
    )
    own = digest(changed.event)
    forged = replace(changed, event_sha256=own)
    assert f"entry {at + 1} (verdict) was changed" in first_break([*entries[:at], forged, *entries[at + 1 :]])
    resealed = replace(forged, sha256=link(entry.previous, own))  # then the next one no longer fits
    broken = first_break([*entries[:at], resealed, *entries[at + 1 :]])
    assert broken == "" if at == len(entries) - 1 else f"entry {at + 2} (verdict) does not follow" in broken
    if at < len(entries) - 1:
        assert f"entry {at + 1} must follow here" in first_break([*entries[:at], *entries[at + 1 :]])


# --- in the ledger ---------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    book = Ledger(tmp_path)
    yield book
    book.close()


@pytest.fixture
def raw(ledger: Ledger) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(ledger.path, isolation_level=None)
    yield connection
    connection.close()


def decide(ledger: Ledger, feature: int = 1, decision: str = "spurious", run: str = "run", note: str = "") -> None:
    ledger.add_verdict(run, feature, "nine", decision, "Ada", "ff", "square", note)


def freed(raw: sqlite3.Connection, table: str) -> None:
    """Take the triggers away, as somebody who wants to change the past would."""
    for what in ("UPDATE", "DELETE", "REPLACE"):
        raw.execute(f"DROP TRIGGER {table}_{what}")


def test_every_event_gets_a_link(ledger: Ledger) -> None:
    assert (ledger.entries(), ledger.fault()) == ([], "")
    decide(ledger, note="ü\n🟥")
    decide(ledger, decision=WITHDRAWN)
    ledger.add_grouping("run", "merge", [1, 2], [5], "Bo", "alike")
    decide(ledger, 9, run="other")
    ledger.add_import("run", "far", "ab" * 32, " Cleo ", [4])
    entries = ledger.entries()
    assert [entry.kind for entry in entries] == ["verdict", "verdict", "grouping", "verdict", "import"]
    assert entries == [
        replace(e, kind=k.kind) for e, k in zip(chained([e.event or {} for e in entries]), entries, strict=True)
    ]
    assert ledger.fault() == ""
    first, merge, taken = (entries[i].event or {} for i in (0, 2, 4))
    assert (first["event"], first["id"], first["note"], first["decision"]) == ("verdict", 1, "ü\n🟥", "spurious")
    assert (merge["event"], merge["kind"], merge["features"], merge["reviewer"]) == (
        "grouping",
        "merge",
        "[1, 2]",
        "Bo",
    )
    assert (taken["from"], taken["reviewer"], taken["verdicts"]) == ("far", "Cleo", [4])
    assert taken["at"].endswith("+00:00")


def test_events_of_other_runs_are_withheld(ledger: Ledger) -> None:
    for run in ("one", "two", "one"):
        decide(ledger, run=run)
    ledger.add_import("two", "one", "ab" * 32, "Ada", [])
    entries = ledger.entries("one")
    assert [entry.event is None for entry in entries] == [False, True, False, True]
    assert first_break(entries) == ""
    assert [entry.sha256 for entry in entries] == [entry.sha256 for entry in ledger.entries()]


def test_how_a_reviewer_is_known_is_part_of_the_chain(ledger: Ledger, raw: sqlite3.Connection) -> None:
    decide(ledger)
    ledger.add_verdict("run", 1, "nine", "core", "Ada", "ff", identity="oidc")
    assert [(entry.event or {}).get("identity") for entry in ledger.entries()] == [None, "oidc"]
    freed(raw, "verdicts")
    raw.execute("UPDATE verdicts SET identity = 'oidc' WHERE id = 1")
    assert "entry 1 (verdict) was changed: its content" in ledger.fault()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE verdicts SET decision = 'core' WHERE id = 2", "entry 2 (verdict) was changed: its content"),
        ("DELETE FROM verdicts WHERE id = 2", "entry 2 (verdict) was changed: its content"),
        ("DELETE FROM chain WHERE id = 2", "entry 2 must follow here, but the next one is entry 3"),
        ("UPDATE chain SET sha256 = 'ff' WHERE id = 1", "entry 1 (verdict) was changed: its digest"),
        ("UPDATE chain SET event_sha256 = 'ff' WHERE id = 3", "entry 3 (verdict) was changed: its content"),
        (
            "INSERT INTO verdicts SELECT 9, run, feature, pull_class, decision, name, note, 'Eve', at, seen, identity "
            "FROM verdicts WHERE id = 1",
            "verdict 9 is in no entry of the chain",
        ),
    ],
)
def test_what_was_done_behind_its_back_is_noticed(
    statement: str, said: str, ledger: Ledger, raw: sqlite3.Connection
) -> None:
    for feature in range(3):
        decide(ledger, feature)
    freed(raw, "verdicts")
    freed(raw, "chain")
    assert ledger.fault() == ""
    raw.execute(statement)
    assert said in ledger.fault()
    decide(ledger, 7)  # deciding goes on, and the fault stays
    assert said in ledger.fault()


@pytest.mark.parametrize("statement", ["UPDATE chain SET kind = 'x'", "DELETE FROM chain"])
def test_the_chain_is_append_only(statement: str, ledger: Ledger, raw: sqlite3.Connection) -> None:
    decide(ledger)
    with pytest.raises(sqlite3.IntegrityError, match="chain are append-only"):
        raw.execute(statement)


def test_a_ledger_without_a_chain_gets_one(ledger: Ledger, raw: sqlite3.Connection) -> None:
    """Schema version 2 had all events, and no chain."""
    decide(ledger, 1)
    ledger.add_grouping("run", "split", [1], [2, 3], "Bo")
    decide(ledger, 2)
    before = (ledger.history("run"), ledger.groupings("run"))
    raw.execute("DROP TABLE chain")
    raw.execute("PRAGMA user_version = 2")
    ledger.close()
    again = Ledger(ledger.path.parent)
    assert (again.history("run"), again.groupings("run")) == before
    assert [entry.kind for entry in again.entries()] == ["adoption", "verdict", "grouping", "verdict"]
    adoption = again.entries()[0].event or {}
    assert (adoption["events"], adoption["schema_version"]) == (3, 2)
    assert again.fault() == ""
    decide(again, 3)
    assert again.entries()[-1].previous == again.entries()[-2].sha256 != GENESIS
    assert raw.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    again.close()
    reopened = Ledger(ledger.path.parent)
    assert len(reopened.entries()) == 5  # adopted once
    reopened.close()


def test_a_column_that_comes_later_changes_no_digest() -> None:
    """Null, or with a default: such columns may be added to what was chained."""

    def sealing(*columns: sa.Column[Any]) -> Sealing:
        own = (sa.Column("id", sa.Integer, primary_key=True), sa.Column("at", sa.String), sa.Column("run", sa.String))
        meta = sa.MetaData()
        return Sealing(meta, {"verdict": sa.Table("verdicts", meta, *own, *columns)})

    before = sealing()
    after = sealing(sa.Column("why", sa.String), sa.Column("identity", sa.String, server_default="self-declared"))
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        before.meta.create_all(connection)
        row = {"id": 1, "at": "2026", "run": "r"}
        connection.execute(before.tables["verdict"].insert().values(row))
        before.seal(connection, "verdict", row)
        connection.exec_driver_sql("ALTER TABLE verdicts ADD COLUMN why VARCHAR")
        connection.exec_driver_sql("ALTER TABLE verdicts ADD COLUMN identity VARCHAR NOT NULL DEFAULT 'self-declared'")
        row = {"id": 2, "at": "2027", "run": "r", "why": None, "identity": "OIDC"}
        connection.execute(after.tables["verdict"].insert().values(row))
        after.seal(connection, "verdict", row)
        entries = after.entries(connection)
        assert first_break(entries) == after.loose(connection) == ""
        assert [entry.event for entry in entries] == [
            {"event": "verdict", "id": 1, "at": "2026", "run": "r"},
            {"event": "verdict", "id": 2, "at": "2027", "run": "r", "identity": "OIDC"},
        ]
    engine.dispose()
