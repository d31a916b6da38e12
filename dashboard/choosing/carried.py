"""Decisions of earlier audits of the same regions: found again by overlap, never taken over silently. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dashboard.reading.opened import Rate
from dashboard.words.wording import DECISIONS, moment, rate
from ravl.store import AuditRun
from ravl.tables import Verdict

LEAST = 0.5
"""Least share of regions in common (of those in either feature) for a decision to be recalled."""


@dataclass(frozen=True)
class Carried:
    """A decision of an earlier audit. overlap: regions in common, of those that are in either feature."""

    run: str
    verdict: Verdict
    overlap: Rate


def same_regions(run: AuditRun, earlier: AuditRun) -> bool:
    """Whether an earlier audit cut the same images into the same regions, so that region ids mean the same."""
    if not (earlier.created < run.created and earlier.has("families") and earlier.has("clusters")):
        return False
    if earlier.config.regions != run.config.regions:
        return False
    return bool(earlier.about["fingerprints"]["data"] == run.about["fingerprints"]["data"])


def carried(
    name: str, now: NDArray[np.integer], then: NDArray[np.integer], holding: Mapping[int, Verdict]
) -> dict[int, Carried]:
    """For each feature the decision on the earlier feature that has most regions in common with it, if that is enough.

    name: of the earlier audit. now, then: (R,) feature id of each region in this and in the earlier audit, -1 for none.
    holding: the decisions that hold in the earlier one.
    """
    if len(now) != len(then):
        return {}
    size = np.bincount(now[now >= 0])
    found: dict[int, Carried] = {}
    for feature, verdict in holding.items():
        members = now[then == feature]
        common = np.bincount(members[members >= 0])
        if not len(common):
            continue
        best = int(common.argmax())
        overlap = Rate(int(common[best]), len(members) + int(size[best] - common[best]))
        known = found.get(best)
        if overlap.share >= LEAST and (known is None or known.overlap.share < overlap.share):
            found[best] = Carried(name, verdict, overlap)
    return found


def sentence(found: Carried) -> str:
    """What was decided before, and that it has to be decided again. Plain text."""
    verdict = found.verdict
    name = f" “{verdict.name}”" if verdict.name else ""
    said = f"{DECISIONS[verdict.decision].lower()}{name} on {moment(verdict.at)}"
    return (
        f"{verdict.reviewer} called a feature of the earlier audit {found.run} {said}. This one "
        f"has {rate(found.overlap)} of the regions in common with it. The decision is not taken over: decide again."
    )
