"""People's decisions and jobs: SQLAlchemy Core on SQLite in WAL mode.

Verdicts are append-only: the database itself refuses to change or delete one, and a chain of digests over all events
(`ravl.chain`) shows where somebody got around that. One job runs per device: a partial unique index refuses a second.

`book`  the ledger itself.  `records`  what it holds.  `schema`  its tables.  `database`  its file and transactions.
`sealing`  the chain in its tables.
"""

from ravl.ledger.book import Ledger
from ravl.ledger.records import (
    ACTIVE,
    ENDED,
    GROUPING_KINDS,
    WITHDRAWN,
    ChangedError,
    Grouping,
    Job,
    now,
    seen_digest,
    standing,
)
from ravl.ledger.schema import SCHEMA_VERSION

__all__ = [
    "ACTIVE",
    "ENDED",
    "GROUPING_KINDS",
    "SCHEMA_VERSION",
    "WITHDRAWN",
    "ChangedError",
    "Grouping",
    "Job",
    "Ledger",
    "now",
    "seen_digest",
    "standing",
]
