"""What people decided about a run, for other programs: every format as one text, the same for the same decisions.

No text says when it was made, so two exports of one state are the same file; `record` says which state it was.
"""

from ravl.export.confirmed import SCHEMA, SCHEMA_VERSION, as_json, confirmed
from ravl.export.formats import FORMATS, Format, features, text, write
from ravl.export.log import audit_log
from ravl.export.rows import CSV_COLUMNS, as_csv, as_groups

__all__ = [
    "CSV_COLUMNS",
    "FORMATS",
    "SCHEMA",
    "SCHEMA_VERSION",
    "Format",
    "as_csv",
    "as_groups",
    "as_json",
    "audit_log",
    "confirmed",
    "features",
    "text",
    "write",
]
