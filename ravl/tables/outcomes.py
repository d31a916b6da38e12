"""What people decide, what a repair needs and what it achieves, and how far a computation is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.tables.record import column


@dataclass(frozen=True)
class Assignment:
    """What the audited model says about images it was not audited on; a repair takes it once and keeps it.

    predicted: (I,) int16 class. feature: (R,) int32 feature id of each region, or NOISE. best: (I,) int32, the region
    with the highest score for the image's true class; -1 for an image without regions.
    """

    predicted: NDArray[np.int16]
    feature: NDArray[np.int32]
    best: NDArray[np.int32]

    def __post_init__(self) -> None:
        column(self, "predicted", np.int16, (None,))
        column(self, "feature", np.int32, (None,))
        column(self, "best", np.int32, (len(self.predicted),))


@dataclass(frozen=True)
class GroupAccuracy:
    """Accuracy of one model on one image set, by group. A group with no image has accuracy NaN.

    name: (G,) str, readable group name. kind: (G,) str, one of overall, class, feature, group.
    class_index: (G,) int16, -1 where the group spans classes. feature: (G,) int32, -1 where none is concerned.
    present: (G,) int8, 1 with the feature, 0 without, -1 where no feature is concerned. n, right: (G,) int32.

    Kinds: `overall` one row; `class` one per class; `feature` two per feature (with, without); `group` one per class
    and presence of any of the features, or per class and value of a group column. The worst group is of kind `group`.
    """

    name: NDArray[np.str_]
    kind: NDArray[np.str_]
    class_index: NDArray[np.int16]
    feature: NDArray[np.int32]
    present: NDArray[np.int8]
    n: NDArray[np.int32]
    right: NDArray[np.int32]

    def __post_init__(self) -> None:
        column(self, "name", np.str_, (None,))
        dtypes: dict[str, Any] = {"kind": np.str_, "class_index": np.int16, "feature": np.int32, "present": np.int8}
        dtypes |= {"n": np.int32, "right": np.int32}
        for name, dtype in dtypes.items():
            column(self, name, dtype, (len(self.name),))

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """(G,) right / n; NaN for an empty group."""
        out = np.full(len(self.n), np.nan)
        np.divide(self.right, self.n, out=out, where=self.n > 0)
        return out

    def worst(self, min_count: int = 10) -> int | None:
        """Row of the worst `group` with at least `min_count` images (with at least one, if none is that large)."""
        for least in (min_count, 1):
            rows = np.flatnonzero((self.kind == "group") & (self.n >= least))
            if len(rows):
                return int(rows[np.argmin(self.accuracy[rows])])
        return None


IDENTITIES = ("self-declared", "proxy", "oidc")
"""How a reviewer's name is known: typed by whoever sits there, told by a proxy that checks it, or signed in."""


@dataclass(frozen=True)
class Verdict:
    """One person's decision about one feature of one run. The last one that is not withdrawn holds; none is changed.

    decision: spurious, core, mixed, unsure, or withdrawn (an undo of the reviewer's last decision, itself recorded).
    at: UTC, ISO 8601.
    seen: digest of the feature's region ids, so that a decision cannot silently move to other regions.
    identity: how it is known who decided, one of IDENTITIES.
    """

    run: str
    feature: int
    pull_class: str
    decision: str
    name: str
    note: str
    reviewer: str
    at: str
    seen: str
    id: int = 0
    identity: str = IDENTITIES[0]


@dataclass(frozen=True)
class Step:
    """Progress of a long computation: `done` of `total` units of `stage`, with the numbers worth showing."""

    stage: str
    done: int
    total: int
    facts: dict[str, float] = field(default_factory=dict)


Report = Callable[[Step], None]
"""Where progress goes: a terminal bar, a job's row, or nowhere."""


def quiet(step: Step) -> None:
    """Report to nobody."""
