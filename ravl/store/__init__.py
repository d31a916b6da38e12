"""The run folder: the only package that knows file names.

A file that exists is whole: everything is written to a partial name, synced and renamed. That is what makes a run
resumable after a kill, and safe to read while it is being computed.
"""

from ravl.store.files import read_json, write_json, writing
from ravl.store.filling import EMBEDDINGS
from ravl.store.mitigation import MitigationFolder, Origin, origin_of
from ravl.store.run import SCHEMA_VERSION, STAGES, AuditRun, damaged_runs, list_runs
from ravl.store.workspace import check_name, open_workspace, workspace_key

__all__ = [
    "EMBEDDINGS",
    "SCHEMA_VERSION",
    "STAGES",
    "AuditRun",
    "MitigationFolder",
    "Origin",
    "check_name",
    "damaged_runs",
    "list_runs",
    "open_workspace",
    "origin_of",
    "read_json",
    "workspace_key",
    "write_json",
    "writing",
]
