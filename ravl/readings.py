"""Two readers of one audit: whose decision is whose, where they differ, and how far they agree beyond chance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from ravl.ledger import standing
from ravl.tables import Verdict

_Z = 1.959963984540054  # of a two-sided 95% interval


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa of two readers. n: features that both decided. agreed: those they decided alike.

    value: 1 = always alike, 0 = as often alike as chance would have it, in [-1, 1]; low, high: its 95% interval. value
    is NaN without features, and where both gave one and the same answer throughout: chance explains all of it then.
    """

    n: int
    agreed: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Pair:
    """Two readers, their agreement, and the features they decided differently: (her decision, his decision) each."""

    first: str
    second: str
    kappa: Kappa
    differ: tuple[tuple[Verdict, Verdict], ...]


def kappa(first: Sequence[str], second: Sequence[str]) -> Kappa:
    """Cohen's kappa (1960) of two lists of answers about the same things; the interval is that of Fleiss et al. (1969).

    The interval is an approximation for many features, cut off at -1 and 1. Raises ValueError for lists of different
    length.
    """
    if len(first) != len(second):
        raise ValueError(f"second must have one answer for each of the {len(first)} of first, got {len(second)}.")
    n, agreed = len(first), sum(a == b for a, b in zip(first, second, strict=True))
    rows, columns = Counter(first), Counter(second)
    by_chance = sum(rows[answer] * columns[answer] for answer in rows)  # of n * n
    if not n or by_chance == n * n:
        return Kappa(n, agreed, math.nan, math.nan, math.nan)
    chance, share = by_chance / n**2, agreed / n
    value = (share - chance) / (1 - chance)
    cells = Counter(zip(first, second, strict=True))
    weights = {pair: (columns[pair[0]] + rows[pair[1]]) / n for pair in cells}
    same = sum(c / n * (1 - weights[a, b] * (1 - value)) ** 2 for (a, b), c in cells.items() if a == b)
    other = (1 - value) ** 2 * sum(c / n * weights[a, b] ** 2 for (a, b), c in cells.items() if a != b)
    variance = (same + other - (value - chance * (1 - value)) ** 2) / (n * (1 - chance) ** 2)
    half = _Z * math.sqrt(max(variance, 0.0))  # rounding may leave a little less than nothing
    return Kappa(n, agreed, value, max(-1.0, value - half), min(1.0, value + half))


def by_reader(history: Iterable[Verdict]) -> dict[str, dict[int, Verdict]]:
    """For each reader, in the order of their first decision, the decision of theirs that stands for each feature.

    history: events of one run, oldest first. A reader's own last one that is not withdrawn stands; nobody's decision
    takes the place of another's here.
    """
    events = list(history)
    readers: dict[str, dict[int, Verdict]] = {verdict.reviewer: {} for verdict in events}
    for (reader, feature), verdict in standing(events).items():
        readers[reader][feature] = verdict
    return readers


def compared(first: dict[int, Verdict], second: dict[int, Verdict]) -> tuple[tuple[Verdict, Verdict], ...]:
    """Both decisions about each feature that both readers decided on the same regions, by feature id."""
    both = sorted(set(first) & set(second))
    return tuple((first[f], second[f]) for f in both if first[f].seen == second[f].seen)


def pairs(history: Iterable[Verdict]) -> tuple[Pair, ...]:
    """Every two readers who decided on a feature in common."""
    readers = by_reader(history)
    out = []
    for one, other in combinations(readers, 2):
        found = compared(readers[one], readers[other])
        if found:
            agreement = kappa([a.decision for a, _ in found], [b.decision for _, b in found])
            out.append(Pair(one, other, agreement, tuple((a, b) for a, b in found if a.decision != b.decision)))
    return tuple(out)
