"""A feature made of a selection: what stands in its way, and the job that makes it. No streamlit, no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboard.choosing import map_words
from dashboard.choosing.filters import Facet, Filters
from dashboard.reading.opened import Audit
from dashboard.serving import jobs
from dashboard.serving.identity import Person
from dashboard.words.wording import WITHOUT_MODEL, message
from ravl.config import NO_MODEL
from ravl.discovery.making import check
from ravl.errors import ConfigError
from ravl.ledger import Job, Ledger
from ravl.store import AuditRun, writing

KIND = "feature"


def problem(audit: Audit, regions: NDArray[np.int64], found: Mapping[str, Facet], filters: Filters) -> str:
    """Why a selection cannot become a feature, as a sentence; empty when it can."""
    if audit.config.model == NO_MODEL:
        return WITHOUT_MODEL["feature"]
    shaped = [found[facet].title for facet in filters.active if found[facet].outcome]
    if shaped:
        return map_words.outcome(shaped)
    try:
        check(regions, audit.feature_of)
    except ConfigError as error:
        return message(str(error))
    return ""


def start(
    book: Ledger, workspace: Path, run: AuditRun, regions: NDArray[np.integer[Any]], name: str, who: Person
) -> Job:
    """Write the region ids to a file of their own and start the job. Raises what `jobs.start` does."""
    ids = sorted(int(region) for region in regions)
    digest = hashlib.blake2b(f"{run.id} {ids}".encode(), digest_size=8).hexdigest()
    file = Path(workspace) / "selections" / f"{digest}.json"
    with writing(file) as partial:
        partial.write_text(json.dumps(ids), encoding="utf-8")
    return jobs.start(
        book, workspace, KIND, map_words.job_title(name, run.name), arguments(run.id, file, name, who), run.id
    )


def arguments(run: str, file: Path, name: str, who: Person) -> list[str]:
    """Arguments of `ravl feature`."""
    return ["feature", f"--run={run}", f"--regions={file}", f"--name={name}", *jobs.by(who)]
