"""Features of two audits matched by overlap, against definitions that are written out with Python's sets."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, false_discovery_control

from ravl.mitigation.comparison import paired_interval
from ravl.mitigation.rematch import STATUS, About, Audited, Row, document, identity, jaccard, rematch, tally, told
from ravl.tables import NOISE, Regions

PER_IMAGE = 3


def regions(n_images: int) -> Regions:
    boxes = np.tile([[0, 0, 4, 4], [4, 0, 8, 4], [0, 4, 4, 8]], (n_images, 1))
    return Regions(np.repeat(np.arange(n_images), PER_IMAGE), boxes, np.tile(np.arange(PER_IMAGE), n_images), n_images)


def side(feature: Any, wrong: Any, deciding: Any, flagged: tuple[int, ...] = ()) -> Audited:
    feature = np.asarray(feature, np.int32)
    about = {int(f): About("eel", int(f) in flagged, "undecided", None) for f in np.unique(feature) if f != NOISE}
    return Audited(feature, np.asarray(wrong, bool), np.asarray(deciding, np.int64), about)


# --- the oracle ------------------------------------------------------------------------------------------------------


def sets(one: Audited) -> dict[int, set[int]]:
    out: dict[int, set[int]] = {}
    for region, feature in enumerate(one.feature.tolist()):
        if feature != NOISE:
            out.setdefault(feature, set()).add(region)
    return out


def overlap(a: set[int], b: set[int]) -> float:
    return len(a & b) / len(a | b)


def best_pairs(old: dict[int, set[int]], new: dict[int, set[int]]) -> float:
    """The largest sum of Jaccard indices of at least 1/3 over all ways to pair features, by trying all."""
    ids, others = sorted(old), sorted(new)
    wide = [*others, *[None] * len(ids)]
    best = 0.0
    for chosen in set(itertools.permutations(wide, len(ids))):
        values = [overlap(old[a], new[b]) for a, b in zip(ids, chosen, strict=True) if b is not None]
        best = max(best, sum(value for value in values if value >= 1 / 3))
    return best


def decided(one: Audited, place: set[int]) -> set[int]:
    """Images whose error is decided by a region of the place."""
    return {i for i, wrong in enumerate(one.wrong.tolist()) if wrong and int(one.deciding[i]) in place}


def status_by_hand(row: Row, q: float, flagged_before: bool, flagged_after: bool) -> str:
    more = q < 0.05 and row.only_after > row.only_before
    fewer = q < 0.05 and row.only_before > row.only_after
    stranger = row.before is None and row.part_of is None
    if more:
        return "grew"
    if stranger:
        return "new"
    if flagged_after and not flagged_before and not fewer:
        return "grew"
    if row.after is None and row.part_of is None and (fewer or row.both + row.only_after == 0):
        return "gone"
    return "shrank" if fewer else "same"


def column(draw: Any, n: int, values: st.SearchStrategy[Any]) -> Any:
    return draw(st.lists(values, min_size=n, max_size=n))


@st.composite
def two_audits(draw: Any) -> tuple[Regions, Audited, Audited]:
    n = draw(st.integers(0, 12))
    found = []
    for _ in range(2):
        feature = column(draw, n * PER_IMAGE, st.integers(-1, 3))
        place = column(draw, n, st.integers(-1, PER_IMAGE - 1))
        deciding = [-1 if p < 0 else i * PER_IMAGE + p for i, p in enumerate(place)]
        flagged = tuple(draw(st.sets(st.integers(0, 3))))
        found.append(side(feature, column(draw, n, st.booleans()), deciding, flagged))
    return regions(n), found[0], found[1]


@settings(deadline=None)
@given(two_audits())
def test_rows_are_what_the_definitions_say(case: tuple[Regions, Audited, Audited]) -> None:
    cut, before, after = case
    rows = rematch(cut, before, after)
    old, new = sets(before), sets(after)
    assert sorted(row.before for row in rows if row.before is not None) == sorted(old)
    assert sorted(row.after for row in rows if row.after is not None) == sorted(new)
    pairs = [row for row in rows if row.before is not None and row.after is not None]
    assert all(row.jaccard >= 1 / 3 for row in pairs)
    assert sum(row.jaccard for row in pairs) == pytest.approx(best_pairs(old, new))

    p_values = []
    for row in rows:
        a, b = old.get(row.before, set()), new.get(row.after, set())  # type: ignore[arg-type]
        assert (row.n_before, row.n_after, row.n_shared) == (len(a), len(b), len(a & b))
        assert row.jaccard == pytest.approx(overlap(a, b))
        was, now = decided(before, a | b), decided(after, a | b)
        assert (row.both, row.only_before, row.only_after) == (len(was & now), len(was - now), len(now - was))
        own, others = (a, new) if row.after is None else (b, old)
        holders = [f for f, held in others.items() if 2 * len(own & held) > len(own)]
        if row.before is not None and row.after is not None:
            assert row.part_of is None
        else:
            assert [row.part_of] == (holders or [None])
        discordant = row.only_before + row.only_after
        exact = binomtest(row.only_before, discordant).pvalue if discordant else 1.0
        p_values.append(exact if was | now else math.nan)
        assert row.p == pytest.approx(p_values[-1], nan_ok=True)
    known = [value for value in p_values if not math.isnan(value)]
    corrected = iter(false_discovery_control(known) if known else [])
    by_p = sorted(zip(known, corrected, strict=True))
    for row in rows:
        q = math.nan if math.isnan(row.p) else min((q for p, q in by_p), key=lambda q: abs(q - row.q))
        assert row.q == pytest.approx(q, nan_ok=True)
        had = row.part_of if row.before is None else row.before
        flags = (
            had is not None and before.about[had].flagged,
            row.after is not None and after.about[row.after].flagged,
        )
        assert row.status == status_by_hand(row, row.q, *flags)
    assert [STATUS.index(row.status) for row in rows] == sorted(STATUS.index(row.status) for row in rows)


# --- cases by hand ---------------------------------------------------------------------------------------------------


def scene(n: int, errors_before: range, errors_after: range) -> tuple[Regions, Audited, Audited]:
    """The mark (feature 0) is the first region of every image; it decides the errors of the given images."""
    feature = np.where(np.arange(n * PER_IMAGE) % PER_IMAGE == 0, 0, NOISE)
    first = np.arange(n) * PER_IMAGE
    wrong = [np.isin(np.arange(n), list(images)) for images in (errors_before, errors_after)]
    return regions(n), side(feature, wrong[0], first), side(feature, wrong[1], first)


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        (range(20), range(2), "shrank"),
        (range(2), range(20), "grew"),
        (range(10), range(12), "same"),  # two more errors may be chance
        (range(10), range(5, 15), "same"),
        (range(0), range(5), "same"),  # p = 0.0625
        (range(0), range(6), "grew"),  # p = 0.03125
    ],
)
def test_a_difference_counts_only_beyond_chance(before: range, after: range, status: str) -> None:
    (row,) = rematch(*scene(30, before, after))
    assert (row.before, row.after, row.jaccard, row.status) == (0, 0, 1.0, status)


def test_a_feature_that_the_second_audit_does_not_find() -> None:
    cut, before, after = scene(30, range(20), range(2))
    lost = Audited(np.full(90, NOISE, np.int32), after.wrong, after.deciding, {})
    (row,) = rematch(cut, before, lost)
    assert (row.after, row.part_of, row.status) == (None, None, "gone")
    stays = Audited(np.full(90, NOISE, np.int32), before.wrong, before.deciding, {})
    (row,) = rematch(cut, before, stays)
    assert (row.after, row.status) == (None, "same")  # no feature any more, but its regions decide as many errors


def test_a_part_is_neither_gone_nor_new() -> None:
    cut, before, after = scene(40, range(20), range(2))
    everything = side(np.zeros(120), after.wrong, after.deciding, (0,))
    whole = side(np.zeros(120), before.wrong, before.deciding, (0,))
    few = side(np.where(np.arange(120) < 30, before.feature, NOISE), before.wrong, before.deciding)
    rows = {row.before: row for row in rematch(cut, few, everything)}
    assert (rows[0].after, rows[0].part_of, rows[0].status) == (None, 0, "shrank")
    assert (rows[None].after, rows[None].part_of, rows[None].status) == (0, None, "new")
    split = side(np.where(np.arange(120) < 30, after.feature, NOISE), after.wrong, after.deciding, (0,))
    rows = {row.before: row for row in rematch(cut, whole, split)}
    assert (rows[None].part_of, rows[None].newly_flagged) == (0, False)  # what it is a part of was flagged before


def test_what_is_flagged_now_and_was_not_before_is_told() -> None:
    cut, before, after = scene(30, range(10), range(12))
    flagged = side(after.feature, after.wrong, after.deciding, (0,))
    (row,) = rematch(cut, before, flagged)
    assert row.status == "grew"
    (row,) = rematch(cut, side(before.feature, before.wrong, before.deciding, (0,)), flagged)
    assert row.status == "same"
    fewer = side(after.feature, np.zeros(30, bool), after.deciding, (0,))
    (row,) = rematch(cut, before, fewer)
    assert row.status == "shrank"  # errors fell; that the rule flags what is left is told in its own column


def test_the_document_is_strict_json_and_says_what_to_read() -> None:
    cut, before, after = scene(30, range(3), range(20))
    tested = {0: About("cat", True, "causal", (5, 7))}
    second = Audited(after.feature, after.wrong, after.deciding, tested)
    found = document(rematch(cut, before, second), before, second, {0: "clip"}, [0])
    (row,) = json.loads(json.dumps(found, allow_nan=False))
    assert (row["before"], row["after"], row["status"], row["worse"], row["treated"]) == (0, 0, "grew", True, True)
    assert row["fixed"]["before"] is None
    assert (row["fixed"]["after"]["count"], row["fixed"]["after"]["n"]) == (5, 7)
    errors = row["errors"]
    assert (errors["n"], errors["before"]["count"], errors["after"]["count"]) == (30, 3, 20)
    assert errors["interval"] == pytest.approx(paired_interval(3, 0, 17, 30), abs=1e-6)
    assert row["pull_class"] == {"before": "eel", "after": "cat"}
    assert identity(row) == ("clip", "cat")
    assert [why for why, _ in told([row])] == ["grew"]
    still = {**row, "status": "same", "worse": False}
    assert [why for why, _ in told([still])] == ["still flagged"]
    assert tally([row, still]) == "1 grew, 0 new, 1 same, 0 shrank, 0 gone"
    unnamed = {**row, "name": "", "before": None, "pull_class": {"before": None, "after": None}}
    assert identity(unnamed) == ("feature 0 of the new audit", "")


def test_nothing_to_match() -> None:
    none = side([], [], [])
    assert rematch(regions(0), none, none) == ()
    noise = side(np.full(6, NOISE), [True, False], [0, -1])
    assert rematch(regions(2), noise, noise) == ()
    shared, index = jaccard(none, none)
    assert shared.shape == index.shape == (0, 0)


def test_audits_of_other_regions_are_refused() -> None:
    cut, before, after = scene(4, range(1), range(1))
    with pytest.raises(ValueError, match="before must be about 15 regions of 5 images"):
        rematch(regions(5), before, after)
    short = Audited(after.feature, after.wrong[:3], after.deciding, after.about)
    with pytest.raises(ValueError, match="after must be about 12 regions of 4 images"):
        rematch(cut, before, short)
