"""Two readers: kappa against a second way of computing it, and which decision is whose."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from ravl.config import DECISIONS
from ravl.ledger import WITHDRAWN
from ravl.readings import by_reader, compared, kappa, pairs
from ravl.tables import Verdict

ANSWERS = st.lists(st.tuples(st.sampled_from(DECISIONS), st.sampled_from(DECISIONS)), min_size=2, max_size=60)


def kappa_of_table(shares: np.ndarray) -> float:
    chance = shares.sum(1) @ shares.sum(0)
    return float((np.trace(shares) - chance) / (1 - chance))


def spread(shares: np.ndarray, n: int) -> float:
    """Standard error by the delta method: the numerical gradient against the multinomial covariance."""
    flat, step = shares.ravel(), 1e-6
    slope = np.zeros(len(flat))
    for i in range(len(flat)):
        up, down = flat.copy(), flat.copy()
        up[i] += step
        down[i] -= step
        slope[i] = (kappa_of_table(up.reshape(shares.shape)) - kappa_of_table(down.reshape(shares.shape))) / (2 * step)
    covariance = np.diag(flat) - np.outer(flat, flat)
    return float(np.sqrt(max(slope @ covariance @ slope, 0) / n))


@given(ANSWERS)
def test_kappa_is_that_of_another_library_and_its_interval_that_of_the_delta_method(
    answers: list[tuple[str, str]],
) -> None:
    first, second = zip(*answers, strict=True)
    found = kappa(first, second)
    assert (found.n, found.agreed) == (len(answers), sum(a == b for a, b in answers))
    if len(set(first) | set(second)) == 1:
        assert math.isnan(found.value)
        return
    assert found.value == pytest.approx(cohen_kappa_score(first, second), abs=1e-9)
    table = np.array([[answers.count((a, b)) for b in DECISIONS] for a in DECISIONS]) / len(answers)
    half = 1.959964 * spread(table, len(answers))
    assert found.low == pytest.approx(max(-1, found.value - half), abs=1e-4)
    assert found.high == pytest.approx(min(1, found.value + half), abs=1e-4)


def test_a_textbook_table() -> None:
    """Cohen's table of two readers who say yes or no about 50 proposals: 20 and 15 alike, 5 and 10 not."""
    cells = {("yes", "yes"): 20, ("yes", "no"): 5, ("no", "yes"): 10, ("no", "no"): 15}
    first, second = zip(*(pair for pair, n in cells.items() for _ in range(n)), strict=True)
    found = kappa(first, second)
    assert (found.n, found.agreed) == (50, 35)
    assert found.value == pytest.approx(0.4)


def test_where_kappa_is_not_defined() -> None:
    assert math.isnan(kappa([], []).value)
    alike = kappa(["core"] * 5, ["core"] * 5)
    assert (alike.n, alike.agreed) == (5, 5)
    assert all(math.isnan(value) for value in (alike.value, alike.low, alike.high))
    assert kappa(["core", "mixed"], ["core", "mixed"]).value == 1
    assert kappa(["core"] * 3, ["mixed"] * 3).value == 0  # chance alone would not let them agree either
    with pytest.raises(ValueError, match="one answer for each of the 1"):
        kappa(["core"], [])


def event(number: int, reader: str, feature: int, decision: str, seen: str = "d") -> Verdict:
    return Verdict("run", feature, "nine", decision, "", "", reader, f"2026-01-01T00:00:{number:02d}", seen, number)


def test_each_reader_keeps_the_last_decision_of_their_own() -> None:
    history = [
        event(1, "Ada", 1, "spurious"),
        event(2, "Bo", 1, "core"),
        event(3, "Ada", 2, "mixed"),
        event(4, "Ada", 2, WITHDRAWN),
        event(5, "Bo", 2, "unsure"),
        event(6, "Bo", 1, "mixed"),
        event(7, "Bo", 2, "core"),
        event(8, "Bo", 2, WITHDRAWN),
        event(9, "Cy", 2, "core"),
        event(10, "Cy", 2, WITHDRAWN),
    ]
    found = by_reader(history)
    assert list(found) == ["Ada", "Bo", "Cy"]
    assert found["Cy"] == {}
    assert {f: v.decision for f, v in found["Ada"].items()} == {1: "spurious"}
    assert {f: v.decision for f, v in found["Bo"].items()} == {1: "mixed", 2: "unsure"}
    [pair] = pairs(history)
    assert (pair.first, pair.second, pair.kappa.n, pair.kappa.agreed) == ("Ada", "Bo", 1, 0)
    assert [(a.decision, b.decision) for a, b in pair.differ] == [("spurious", "mixed")]


def test_what_was_decided_on_other_regions_is_not_compared() -> None:
    first, second = {1: event(1, "Ada", 1, "core", "old")}, {1: event(2, "Bo", 1, "core", "new")}
    assert compared(first, second) == ()
    assert pairs([first[1], second[1]]) == ()
    assert pairs([]) == ()


def test_every_two_of_three_readers_are_compared() -> None:
    decisions = dict(zip(("Ada", "Bo", "Cy"), product(("core", "mixed"), repeat=2), strict=False))
    history = [event(i, who, f, said[f]) for i, (who, said) in enumerate(decisions.items()) for f in (0, 1)]
    assert [(pair.first, pair.second) for pair in pairs(history)] == [("Ada", "Bo"), ("Ada", "Cy"), ("Bo", "Cy")]
