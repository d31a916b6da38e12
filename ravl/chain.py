"""A chain of digests over the ledger's events: whoever changes, drops or moves an entry breaks those after it.

An entry's digest is made of the digest before it and of its own event's. So an event can be withheld (it belongs to
another run, say) and the chain still be followed. What this proves: the entries are those that led to the last digest.
It does not prove who wrote them, nor that the whole chain was not written anew: compare the last digest with one that
was noted elsewhere, in an export or a printed report.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

GENESIS = "0" * 64
"""What stands for the digest before the first entry."""


@dataclass(frozen=True)
class Entry:
    """One link. event: None where it is withheld. event_sha256, previous, sha256: 64 hex digits."""

    position: int
    kind: str
    event: dict[str, Any] | None
    event_sha256: str
    previous: str
    sha256: str


def canonical(document: Any) -> str:
    """JSON with sorted keys, no spaces, no escapes: the same text for the same content.

    Raises ValueError for NaN and infinity.
    """
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(document: Any) -> str:
    """SHA-256 of the canonical JSON in UTF-8, 64 hex digits.

    Half of a surrogate pair, which a file name or a pasted text may hold and UTF-8 cannot, counts as its bytes.
    """
    return hashlib.sha256(canonical(document).encode("utf-8", "surrogatepass")).hexdigest()


def link(previous: str, event_sha256: str) -> str:
    """SHA-256 of the text `previous`, a line break, `event_sha256`."""
    return hashlib.sha256(f"{previous}\n{event_sha256}".encode()).hexdigest()


def first_break(entries: Iterable[Entry]) -> str:
    """What is wrong with the first entry that does not fit, in one sentence; empty where the chain is whole."""
    before = GENESIS
    for position, entry in enumerate(entries, 1):
        if entry.position != position:
            return f"entry {position} must follow here, but the next one is entry {entry.position}."
        if entry.event is not None and digest(entry.event) != entry.event_sha256:
            return f"entry {position} ({entry.kind}) was changed: its content does not have its digest."
        if entry.previous != before:
            return f"entry {position} ({entry.kind}) does not follow the one before it: one was changed or left out."
        if link(before, entry.event_sha256) != entry.sha256:
            return f"entry {position} ({entry.kind}) was changed: its digest does not follow from the one before."
        before = entry.sha256
    return ""
