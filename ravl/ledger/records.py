"""What the ledger holds beside verdicts (`ravl.tables.Verdict`), and its words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.errors import ConfigError
from ravl.tables import IDENTITIES, Verdict

WITHDRAWN = "withdrawn"
GROUPING_KINDS = ("merge", "split", "select")
ACTIVE = ("queued", "running")
ENDED = ("done", "failed", "cancelled", "lost")


@dataclass(frozen=True)
class Grouping:
    """A person's change to the features of a run.

    kind: one of GROUPING_KINDS. features: ids that went, made: ids that came.
    select: a feature was made of regions drawn around; features: those that lost regions, note: what the new one shows.
    at: UTC, ISO 8601. identity: how it is known who did it, one of IDENTITIES. No line of this kind is ever changed.
    """

    run: str
    kind: str
    features: tuple[int, ...]
    made: tuple[int, ...]
    note: str
    reviewer: str
    at: str
    identity: str = IDENTITIES[0]
    id: int = 0


@dataclass(frozen=True)
class Job:
    """One row of the job table. Times are UTC, ISO 8601; None where it has not happened yet.

    status: queued, running, done, failed, cancelled, or lost (its process is gone). arguments: of `python -m ravl`.
    pid_started: start time of the process in seconds since the epoch, which tells it from a later one with its pid.
    """

    id: int
    kind: str
    title: str
    arguments: tuple[str, ...]
    device: str
    status: str
    run: str
    stage: str
    done: int
    total: int
    facts: dict[str, float]
    reason: str
    log: str
    pid: int | None
    pid_started: float | None
    created: str
    started: str | None
    stage_started: str | None
    heartbeat: str | None
    finished: str | None

    @property
    def active(self) -> bool:
        return self.status in ACTIVE


def standing(history: Iterable[Verdict]) -> dict[tuple[str, int], Verdict]:
    """The decision of each person about each feature that stands, by (reviewer, feature). history: oldest first.

    A withdrawal takes back the last decision of that person which still stands, and nothing more: what she decided
    before it stands again.
    """
    words: dict[tuple[str, int], list[Verdict]] = {}
    for verdict in history:
        own = words.setdefault((verdict.reviewer, verdict.feature), [])
        if verdict.decision != WITHDRAWN:
            own.append(verdict)
        elif own:
            own.pop()
    return {key: own[-1] for key, own in words.items() if own}


class ChangedError(ConfigError):
    """Somebody decided on a feature after it was shown. newer: the last of these decisions."""

    def __init__(self, newer: Verdict) -> None:
        self.newer = newer
        super().__init__(
            f"feature {newer.feature} must be as it was shown, but {newer.reviewer} changed it to {newer.decision} at "
            f"{newer.at[:19].replace('T', ' ')} UTC. Nothing was recorded; look at it again, then decide."
        )


def seen_digest(region_ids: NDArray[np.integer[Any]]) -> str:
    """Digest of the regions a decision is about: 16 hex digits of the sorted ids."""
    ids = np.sort(np.asarray(region_ids, np.int64))
    return hashlib.blake2b(ids.tobytes(), digest_size=8).hexdigest()


def now() -> str:
    """The time in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
