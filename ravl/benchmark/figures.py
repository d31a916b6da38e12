"""What an answer is worth when the truth is known. All figures are counts, so that settings can be added up."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ravl.benchmark.rivals import Ranked

FIRST = 10
"""Members looked at for P@10."""
MORE = 50
"""Members looked at for P@K, and of a list of images to decide whether it is true."""


@dataclass(frozen=True)
class Truth:
    """What is known about the N regions (or images) of an audit and its M marks.

    shows: (N, M) bool, the mark is seen there. target: (M,) int64, the class the mark was planted with.
    planted: (M,) bool, the mark goes with its class in the training data (not so when V = 0: every flag is false).
    learned: (M,) bool, the model relies on it (eps1 and eps2 > .10); only these can be missed.
    touches: (N, M) bool, some of the mark is there, but perhaps too little of it to count as shown; None: not known.
    """

    shows: NDArray[np.bool_]
    target: NDArray[np.int64]
    planted: NDArray[np.bool_]
    learned: NDArray[np.bool_]
    touches: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        lengths = (self.shows.shape[1:], self.target.shape, self.planted.shape, self.learned.shape)
        if len(set(lengths)) > 1:
            raise ValueError(f"Truth columns must agree in the number of marks, got shapes {lengths}.")
        if np.any(self.learned & ~self.planted):
            raise ValueError("a mark that was not planted cannot have been learned.")


@dataclass(frozen=True)
class Figures:
    """The figures of one answer.

    precision_at_10, precision_at_50: share of the first 10 (50) members of the first feature that show the same planted
        mark; of all members where there are fewer, 0 without a feature, NaN where nothing was planted.
    flagged: features called spurious; true: those of which at least half the members show the same planted mark (of a
        list of images: half of its first 50).
    learned: marks that could be found; found: those that a true flagged feature shows.
    shown: members (regions or images) that show a learned mark; covered: those that lie in a true flagged feature.
    pull_right: true flagged features whose pull class is their mark's target.
    false_shows, false_touches: of every flagged feature that is not true, the share of its members that show the
        planted mark that most of them show, and the share that hold at least some of it; joined by +.
    """

    precision_at_10: float
    precision_at_50: float
    flagged: int
    true: int
    learned: int
    found: int
    shown: int
    covered: int
    pull_right: int
    false_shows: str = ""
    false_touches: str = ""


def figures(ranked: Ranked, truth: Truth) -> Figures:
    """Mark one answer. Members and `truth.shows` must both be regions, or both be images."""
    marks = [
        mark_of(members[:MORE] if ranked.of_images else members, truth) if flagged else -1
        for members, flagged in zip(ranked.members, ranked.flagged, strict=True)
    ]
    true = [place for place, mark in enumerate(marks) if mark >= 0]
    shown = np.asarray((truth.shows & truth.learned).any(1))
    covered = np.zeros(len(shown), np.bool_)
    for place in true:
        covered[ranked.members[place]] = True
    found = {marks[place] for place in true}
    wrong = [members for place, members in enumerate(ranked.members) if ranked.flagged[place] and marks[place] < 0]
    return Figures(
        _precision_at(FIRST, ranked, truth),
        _precision_at(MORE, ranked, truth),
        flagged=int(ranked.flagged.sum()),
        true=len(true),
        learned=int(truth.learned.sum()),
        found=len(found & set(np.flatnonzero(truth.learned).tolist())),
        shown=int(shown.sum()),
        covered=int((covered & shown).sum()),
        pull_right=sum(int(ranked.pull[place]) == int(truth.target[marks[place]]) for place in true),
        false_shows=_listed(_shares(members, truth).max(initial=0) for members in wrong),
        false_touches=_listed(_touched(members, truth) for members in wrong),
    )


def mark_of(members: NDArray[np.int64], truth: Truth) -> int:
    """The planted mark that most of these members show, if at least half do; else -1."""
    share = _shares(members, truth)
    return int(share.argmax()) if len(members) and share.max(initial=0) >= 0.5 else -1


def _precision_at(k: int, ranked: Ranked, truth: Truth) -> float:
    if not truth.planted.any():
        return math.nan
    if not len(ranked.order) or not len(ranked.members[0]):
        return 0.0
    return float(_shares(ranked.members[0][:k], truth).max())


def _touched(members: NDArray[np.int64], truth: Truth) -> float:
    """The share of the members that hold some of the planted mark that most of them show; NaN where it is not known."""
    if truth.touches is None:
        return math.nan
    share = _shares(members, truth)
    return float(truth.touches[members, int(share.argmax())].mean()) if share.any() else 0.0


def _listed(shares: Iterable[float]) -> str:
    return "+".join(f"{share:.3f}" for share in shares)


def _shares(members: NDArray[np.int64], truth: Truth) -> NDArray[np.float64]:
    """(M,) share of the members that show each mark; 0 for marks that were not planted."""
    count = truth.shows[members].sum(0)
    out: NDArray[np.float64] = np.where(truth.planted, count / max(len(members), 1), 0.0)
    return out
