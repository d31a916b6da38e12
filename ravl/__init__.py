"""RAVL finds, confirms and repairs the spurious features that a vision-language model relies on.

The pipeline, in the order of the paper (Varma et al., NeurIPS 2024, arXiv 2411.04097):

`data`       labelled images from a folder or a manifest
`vlm`        the model: images, regions and texts as vectors
`discovery`  regions, zero_shot, clustering, scoring, removal, projection: what causes the errors
`audit`      discover(): these stages in order, resumable
`ledger`     what people decided about each feature; `export` hands it over
`mitigation` loss, exchange, training, repair: fine-tuning that ignores the confirmed features
`evaluation` accuracy by group, before and after

From Python: `run = ravl.discover("photos/", "my-clip/")`, then `ravl.AuditRun`, `ravl.mitigate(run, "train/")`.
Importing this package loads neither torch nor any other heavy library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["AuditRun", "discover", "mitigate"]

if TYPE_CHECKING:
    from ravl.api import discover, mitigate
    from ravl.store import AuditRun


def __getattr__(name: str) -> Any:
    if name in ("discover", "mitigate"):
        from ravl import api

        return getattr(api, name)
    if name == "AuditRun":
        from ravl.store import AuditRun

        return AuditRun
    raise AttributeError(f"module 'ravl' has no attribute {name!r}")
