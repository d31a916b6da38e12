"""The part of the report about who did what: the events of the audit in their chain."""

from __future__ import annotations

from typing import Any

from dashboard.serving.identity import HOW
from dashboard.words import wording
from ravl.chain import Entry
from ravl.ledger import Ledger
from ravl.report import Cell, Piece, Prose, Section, Table
from ravl.store import AuditRun

MAX_ROWS = 500

PROVES = (
    "Each entry's digest is made of the entry before and of its own content, so no entry can be changed or left out "
    "without breaking those after it. Whoever can write the database could write the whole chain anew; it would then "
    "end in another digest than the one noted here. Names are self-declared where an entry does not say otherwise."
)
"""What the chain is good for. Markdown."""


def section(run: AuditRun, ledger: Ledger) -> Section:
    """Every decision, withdrawal, grouping and import of a run, and whether the record holds together."""
    entries = ledger.entries(run.id)
    own = [entry for entry in entries if entry.event is not None]
    pieces: list[Piece] = [Prose(state(entries, ledger.fault())), Prose(PROVES, "small")]
    if own:
        rows = tuple(_row(entry) for entry in own[-MAX_ROWS:])
        rest = len(own) - len(rows)
        note = f"{rest:,} earlier entries are in the audit log (ravl export with the format log)." if rest else ""
        head = ("Entry", "When (UTC)", "What", "By", "Name and note", "Digest")
        pieces.append(Table("Every entry of this audit, oldest first", head, rows, note, "log"))
    else:
        pieces.append(Prose("Nobody has decided anything in this audit yet."))
    return Section("record", "Who decided what", tuple(pieces))


def state(entries: list[Entry], fault: str) -> str:
    """Whether the record holds together, in Markdown."""
    if fault:
        return f"**The record of this workspace does not hold together:** {wording.plain(fault)}"
    if not entries:
        return "The record of this workspace is empty."
    return (
        f"The record of this workspace has {wording.count(len(entries), 'entry', 'entries')}, and its chain of digests "
        f"is whole. It ends in {entries[-1].sha256}."
    )


def _row(entry: Entry) -> tuple[Cell, ...]:
    event = entry.event or {}
    when = wording.moment(event["at"]).removesuffix(" UTC") if event.get("at") else ""
    written = "\n".join(str(event[key]) for key in ("name", "note") if event.get(key))
    return (
        Cell(str(entry.position)),
        Cell(when),
        Cell(what(entry.kind, event)),
        Cell(_by(event)),
        Cell(written),
        Cell(entry.sha256[:12]),
    )


def _by(event: dict[str, Any]) -> str:
    how = HOW.get(event.get("identity", ""), "")
    return f"{event.get('reviewer', '')}{f' ({how})' if how else ''}"


def what(kind: str, event: dict[str, Any]) -> str:
    """An event in a few words. Plain text."""
    if kind == "verdict" and event.get("decision"):
        return f"feature {event['feature']}: {wording.DECISIONS.get(event['decision'], event['decision'])}"
    if kind == "grouping" and event.get("kind") == "select":
        return f"selected regions of features {event['features']} into {event['made']}"
    if kind == "grouping" and event.get("kind"):
        return f"{event['kind']} of features {event['features']} into {event['made']}"
    if kind == "import":
        return f"imported from {event['from']}: {wording.count(len(event['verdicts']), 'decision')}"
    if kind == "adoption":
        return f"{wording.count(event['events'], 'event')} from before the chain taken into it"
    return kind
