"""Tables in Markdown, and text between two markers of a file."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ravl.benchmark.summary import Goal, interval

WORDS = {True: "met", False: "**not met**", None: "not measured"}


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body)]


def decimal(value: float, digits: int = 2, sign: bool = False) -> str:
    """A number; nothing for NaN."""
    return "" if math.isnan(value) else f"{value:{'+' if sign else ''}.{digits}f}"


def with_interval(value: float, low: float, high: float) -> str:
    """A mean with the ends of its interval; nothing for NaN."""
    return "" if math.isnan(value) else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def rate(right: int, n: int) -> str:
    """A rate with its counts and interval; nothing without observations."""
    if not n:
        return ""
    low, high = interval(right, n)
    return f"{right / n:.2f} ({right}/{n}) [{low:.2f}, {high:.2f}]"


def goal_lines(found: Sequence[Goal]) -> list[str]:
    """A table of the goals."""
    return table(("goal", "measured", ""), [(goal.text, goal.measured, WORDS[goal.met]) for goal in found])


def told_errors(errors: dict[str, str]) -> list[str]:
    """Settings that failed, and why."""
    return [f"{name}: {reason}" for name, reason in errors.items()]


def between(text: str, block: str, name: str) -> str:
    """A text with what stands between <!-- name --> and <!-- /name --> replaced, the latter added where it is missing.

    Raises ValueError where the opening marker is missing.
    """
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, marker, rest = text.partition(opening)
    if not marker:
        raise ValueError(f"README.md must hold the marker {opening}, got none. Put it where the numbers belong.")
    _, closed, after = rest.partition(closing)
    return f"{before}{opening}\n{block}\n{closing}{after if closed else rest}"
