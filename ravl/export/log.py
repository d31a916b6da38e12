"""The audit log: every event of the ledger with its place in the chain (`ravl/schemas/audit-log-1.json`)."""

from __future__ import annotations

from typing import Any

from ravl.ledger import Ledger
from ravl.store import AuditRun
from ravl.tables import columns

SCHEMA = "ravl.audit-log"
SCHEMA_VERSION = 1


def audit_log(run: AuditRun, ledger: Ledger) -> dict[str, Any]:
    """The events of a run, oldest first, in the chain of the whole workspace.

    Keys: schema, schema_version, run, identity (how people are known: self-declared), entries [{position, kind, event,
    event_sha256, previous, sha256}]. The event of another run is null; its digests keep the chain closed.
    """
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "run": run.id,
        "identity": "self-declared",
        "entries": [columns(entry) for entry in ledger.entries(run.id)],
    }
