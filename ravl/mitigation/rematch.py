"""Which features of an audit are there again in the audit of the tuned model, and which of them grew.

Both audits are of the same images and the same regions, so a feature of either is a set of regions, and two features
are alike as far as their sets overlap.

Partners. Jaccard's index is J = |A and B| / |A or B|. Partners are one to one; they are chosen so that the sum of J is
largest (Kuhn 1955), and only where J >= 1/3: the two sets share at least half of their mean size. A feature without a
partner, more than half of whose regions lie in one feature of the other audit, is *part of* that one.

Errors. An error is decided by the region that scores highest for the wrong class that its image is called, as in the
paper's influence; images with a single region have no such region. The place of a pair is A or B, all regions that
either audit gives to the feature, so that a new clustering alone moves no error into it or out of it. Counted are the
images whose error is decided in that place, by the audited and by the tuned model. These are answers about the same
images, so the change has Newcombe's interval for paired proportions, and chance is told from change by the exact
McNemar test, corrected over all rows (Benjamini and Hochberg 1995); q < 0.05 is beyond chance.

Status, the first that fits:
    grew    more errors beyond chance; or a flag of the second audit on what had none in the first, unless errors fell
            beyond chance (of a feature that only the second audit has, the flag stands beside `new`)
    new     only the second audit has it, and it is part of nothing
    gone    only the first audit has it, it is part of nothing, and no error is left there, or fewer beyond chance
    shrank  fewer errors beyond chance
    same    anything else
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.discovery.evidence import mcnemar
from ravl.mitigation.comparison import as_number, paired_interval, rate
from ravl.tables import NOISE, Regions

MIN_JACCARD = 1 / 3
"""Least overlap of partners."""

MIN_HELD = 1 / 2
"""A feature is part of another one that holds more than this share of its regions."""

ALPHA = 0.05
"""False discovery rate of changes."""

STATUS = ("grew", "new", "same", "shrank", "gone")
"""In the order in which rows are told: what a person has to look at comes first."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class About:
    """What one audit says about a feature. fixed: errors that go when it is removed, and all tested; None: untested."""

    pull_class: str
    flagged: bool
    grade: str
    fixed: tuple[int, int] | None


@dataclass(frozen=True)
class Audited:
    """One audit as the matching needs it.

    feature: (R,) int32 feature of every region, or NOISE. wrong: (I,) bool. deciding: (I,) int64, the region that
    decides what an image is called, -1 for none. about: feature id -> what the audit says about it.
    """

    feature: NDArray[np.int32]
    wrong: Bools
    deciding: NDArray[np.int64]
    about: Mapping[int, About]

    @property
    def ids(self) -> list[int]:
        """Features with at least one region, rising."""
        found: list[int] = np.unique(self.feature[self.feature != NOISE]).tolist()
        return found


@dataclass(frozen=True)
class Row:
    """One feature in both audits. before, after: its id there, None where it has no partner.

    part_of: for a feature without partner the one of the other audit that holds most of it, else None.
    n_before, n_after, n_shared: regions. images: all of the audit. both, only_before, only_after: those whose error is
    decided in its place by both models, or by one of them. p, q: NaN where no error was ever decided there.
    newly_flagged: the second audit flags it, and the first flagged neither it nor what it is part of.
    """

    before: int | None
    after: int | None
    part_of: int | None
    n_before: int
    n_after: int
    n_shared: int
    images: int
    both: int
    only_before: int
    only_after: int
    p: float
    q: float
    newly_flagged: bool

    @property
    def jaccard(self) -> float:
        """Overlap of the two region sets; 0 without partner."""
        return self.n_shared / (self.n_before + self.n_after - self.n_shared)

    @property
    def rises(self) -> bool:
        """Whether more errors are decided there, beyond chance."""
        return self.q < ALPHA and self.only_after > self.only_before

    @property
    def falls(self) -> bool:
        """Whether fewer errors are decided there, beyond chance."""
        return self.q < ALPHA and self.only_before > self.only_after

    @property
    def status(self) -> str:
        """One of STATUS (see the module)."""
        alone = self.part_of is None
        if self.rises or (self.newly_flagged and not self.falls and not (self.before is None and alone)):
            return "grew"
        if self.before is None and alone:
            return "new"
        left = self.both + self.only_after
        if self.after is None and alone and (self.falls or not left):
            return "gone"
        return "shrank" if self.falls else "same"


def jaccard(one: Audited, other: Audited) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(A, B) regions that two features share, and Jaccard's index, in the order of `ids`."""
    a, b = one.ids, other.ids
    inside = (one.feature != NOISE) & (other.feature != NOISE)
    shared = np.zeros((len(a), len(b)), np.int64)
    np.add.at(shared, (np.searchsorted(a, one.feature[inside]), np.searchsorted(b, other.feature[inside])), 1)
    sizes = [
        np.array([np.count_nonzero(side.feature == f) for f in ids], np.int64) for side, ids in ((one, a), (other, b))
    ]
    whole = sizes[0][:, None] + sizes[1][None] - shared
    return shared, shared / np.maximum(whole, 1)


def rematch(regions: Regions, before: Audited, after: Audited) -> tuple[Row, ...]:
    """Every feature of both audits once, in the order of STATUS, then by how many errors it decides now.

    Raises ValueError when an audit is not about these regions.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import, and the screen only reads what is kept

    for name, side in (("before", before), ("after", after)):
        images = (regions.n_images,)
        if side.feature.shape != (len(regions),) or side.wrong.shape != images or side.deciding.shape != images:
            raise ValueError(f"{name} must be about {len(regions)} regions of {regions.n_images} images, got others.")
    old, new = before.ids, after.ids
    shared, index = jaccard(before, after)
    pairs = [(i, j) for i, j in zip(*linear_sum_assignment(-np.where(index >= MIN_JACCARD, index, 0)), strict=True)]
    pairs = [(int(i), int(j)) for i, j in pairs if index[i, j] >= MIN_JACCARD]
    held_by_new = _holders(shared, [int((before.feature == f).sum()) for f in old])
    held_by_old = _holders(shared.T, [int((after.feature == f).sum()) for f in new])
    first, second = {i for i, _ in pairs}, {j for _, j in pairs}
    places: list[tuple[int | None, int | None, int | None]] = [(old[i], new[j], None) for i, j in pairs]
    places += [(old[i], None, _at(new, held_by_new[i])) for i in range(len(old)) if i not in first]
    places += [(None, new[j], _at(old, held_by_old[j])) for j in range(len(new)) if j not in second]

    counted = [_count(before, after, *place) for place in places]
    discordant = np.array([[row[1:3] for row in counted]], np.int64).reshape(-1, 2, 1)
    ever = np.array([sum(row) > 0 for row in counted], bool).reshape(-1, 1)
    p, q = mcnemar(discordant[:, 0], discordant[:, 1], ever)
    rows = []
    for k, (one, other, part_of) in enumerate(places):
        a, b = _members(before, one), _members(after, other)
        had = one if one is not None else part_of
        was_flagged = had is not None and before.about[had].flagged
        newly = other is not None and after.about[other].flagged and not was_flagged
        sizes = (int(a.sum()), int(b.sum()), int((a & b).sum()))
        rows.append(
            Row(one, other, part_of, *sizes, len(before.wrong), *counted[k], float(p[k, 0]), float(q[k, 0]), newly)
        )
    return tuple(
        sorted(rows, key=lambda row: (STATUS.index(row.status), -(row.both + row.only_after), -row.only_before))
    )


def document(
    rows: Sequence[Row], before: Audited, after: Audited, names: Mapping[int, str], treated: Sequence[int]
) -> list[dict[str, Any]]:
    """The rows as strict JSON. names: by the ids of the first audit. treated: those that the training treated.

    Keys: before, after, part_of (ids or null), name, treated, status, worse (it grew, or is new and flagged), jaccard,
    regions {before, after, shared}, errors {n, before, after, only_before, only_after, change, interval, p, q},
    and pull_class, flagged, grade, fixed as {before, after}, null where that audit has no such feature.
    """
    return [_entry(row, before, after, names, treated) for row in rows]


def told(rows: Sequence[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The rows of a document that people must read, with why: `grew`, `new` (and flagged), or `still flagged`."""
    found = [(str(row["status"]), row) for row in rows if row["worse"]]
    return found + [("still flagged", row) for row in rows if row["flagged"]["after"] and not row["worse"]]


def tally(rows: Sequence[dict[str, Any]]) -> str:
    """`1 grew, 0 new, 4 same, 1 shrank, 0 gone`."""
    return ", ".join(f"{sum(row['status'] == status for row in rows)} {status}" for status in STATUS)


def identity(row: dict[str, Any]) -> tuple[str, str]:
    """How a row's feature is called, by name or by id, and the class it pulls to (empty for none); plain text."""
    feature = f"feature {row['after']} of the new audit" if row["before"] is None else f"feature {row['before']}"
    return row["name"] or feature, row["pull_class"]["after"] or row["pull_class"]["before"] or ""


def _entry(
    row: Row, before: Audited, after: Audited, names: Mapping[int, str], treated: Sequence[int]
) -> dict[str, Any]:
    abouts = {
        "before": None if row.before is None else before.about[row.before],
        "after": None if row.after is None else after.about[row.after],
    }
    n, was, now = row.images, row.both + row.only_before, row.both + row.only_after
    change = (now - was) / n if n else math.nan
    low, high = paired_interval(row.both, row.only_before, row.only_after, n)
    newly = row.newly_flagged and row.status == "new"
    return {
        **{"before": row.before, "after": row.after, "part_of": row.part_of, "status": row.status},
        "name": "" if row.before is None else names.get(row.before, ""),
        "treated": row.before in treated,
        "worse": row.status == "grew" or newly,
        "jaccard": as_number(row.jaccard),
        "regions": {"before": row.n_before, "after": row.n_after, "shared": row.n_shared},
        "errors": {
            **{"n": n, "before": rate(was, n), "after": rate(now, n)},
            **{"only_before": row.only_before, "only_after": row.only_after, "change": as_number(change)},
            **{"interval": [as_number(low), as_number(high)], "p": as_number(row.p), "q": as_number(row.q)},
        },
        "pull_class": {when: about and (about.pull_class or None) for when, about in abouts.items()},
        "flagged": {when: about and about.flagged for when, about in abouts.items()},
        "grade": {when: about and about.grade for when, about in abouts.items()},
        "fixed": {when: rate(*about.fixed) if about and about.fixed else None for when, about in abouts.items()},
    }


def _holders(shared: NDArray[np.int64], sizes: list[int]) -> list[int | None]:
    """For each row the column that holds more than MIN_HELD of it, or None."""
    if not shared.shape[1]:
        return [None] * len(sizes)
    best = shared.argmax(1)
    return [int(j) if shared[i, j] > MIN_HELD * sizes[i] else None for i, j in enumerate(best)]


def _at(ids: list[int], place: int | None) -> int | None:
    return None if place is None else ids[place]


def _members(side: Audited, feature: int | None) -> Bools:
    return np.zeros(len(side.feature), bool) if feature is None else side.feature == feature


def _count(
    before: Audited, after: Audited, one: int | None, other: int | None, part_of: int | None
) -> tuple[int, int, int]:
    """Images whose error is decided in the place of a pair: by both models, by the first alone, by the second alone."""
    place = np.append(_members(before, one) | _members(after, other), False)  # the last entry stands for no region
    was, now = before.wrong & place[before.deciding], after.wrong & place[after.deciding]
    return int((was & now).sum()), int((was & ~now).sum()), int((now & ~was).sum())
