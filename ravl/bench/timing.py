"""Seconds of pieces of work, measured in turn, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

Work = Callable[[], object]


def timed(work: Work) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turn(works: Mapping[str, Work], repeats: int) -> dict[str, float]:
    """Median seconds of each piece of work, after one call of each that does not count."""
    for work in works.values():
        work()
    rounds = [{name: timed(work) for name, work in works.items()} for _ in range(repeats)]
    return {name: statistics.median(each[name] for each in rounds) for name in works}
