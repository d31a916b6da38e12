"""What a reviewer is to see: which decisions, which of them have to be made again, and what comes next. Pure.

In a blind reading a person sees no decision but her own; what others decided about a feature is shown to her once she
has decided on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from dashboard.choosing.carried import Carried, sentence
from dashboard.reading.summaries import Finding, Review
from dashboard.words.wording import DECISIONS, moment
from ravl.ledger import Grouping
from ravl.readings import by_reader
from ravl.tables import Verdict


def holding(history: Sequence[Verdict], blind: str = "") -> dict[int, Verdict]:
    """The decision that holds for each feature: the latest that its own reader did not withdraw.

    blind: a reader's name; then only the decisions of hers.
    """
    readers = by_reader(history)
    chosen = [readers.get(blind, {})] if blind else list(readers.values())
    latest = sorted((verdict for own in chosen for verdict in own.values()), key=lambda verdict: verdict.id)
    return {verdict.feature: verdict for verdict in latest}


def known(history: Sequence[Verdict], feature: int, blind: str = "") -> tuple[Verdict, ...]:
    """The events about a feature that may be shown, oldest first; to a blind reader all, once she has decided."""
    events = tuple(verdict for verdict in history if verdict.feature == feature)
    if blind and feature not in holding(events, blind):
        return tuple(verdict for verdict in events if verdict.reviewer == blind)
    return events


def last_event(history: Sequence[Verdict], feature: int) -> int:
    """Id of the last event about a feature; 0 without one."""
    return max((verdict.id for verdict in history if verdict.feature == feature), default=0)


def judged(
    rows: Iterable[Finding],
    holding: Mapping[int, Verdict],
    digests: Mapping[int, str],
    groupings: Sequence[Grouping] = (),
    before: Mapping[int, Carried] = MappingProxyType({}),
) -> tuple[Finding, ...]:
    """The features with the decisions that hold, and why some have to be looked at again.

    digests: of the regions that each feature has now. groupings: merges and splits, oldest first. before: decisions of
    earlier audits of the same regions.
    """
    came = {feature: grouping for grouping in groupings for feature in grouping.made}
    out = []
    for row in rows:
        verdict, grouping = holding.get(row.feature), came.get(row.feature)
        if verdict is not None:
            again = "" if verdict.seen == digests.get(row.feature) else _changed(verdict)
            row = replace(row, name=verdict.name or row.name, verdict=verdict, again=again)
        elif grouping is not None:
            row = replace(row, again=_regrouped(grouping, holding))
        elif row.feature in before:
            row = replace(row, again=sentence(before[row.feature]))
        out.append(row)
    return tuple(out)


def _said(verdict: Verdict) -> str:
    name = f" “{verdict.name}”" if verdict.name else ""
    return f"{DECISIONS[verdict.decision].lower()}{name} by {verdict.reviewer}"


def _changed(verdict: Verdict) -> str:
    return (
        f"It was called {_said(verdict)} on {moment(verdict.at)}, but other regions belong to it now. "
        "Look at it again: the decision stays as it is until then."
    )


def _regrouped(grouping: Grouping, holding: Mapping[int, Verdict]) -> str:
    """Empty where nobody had decided on a part of it."""
    parts = [f"feature {f}: {_said(holding[f])}" for f in grouping.features if f in holding]
    if not parts:
        return ""
    what = {"merge": "merged", "split": "split"}.get(grouping.kind, "chose regions of")
    return f"{grouping.reviewer} {what} what it was part of. Decided before: {'; '.join(parts)}. Decide on it anew."


def following(view: Review, feature: int) -> int | None:
    """The feature to go to after one is decided: the next that waits, from its place on and then from the top."""
    ids = [row.feature for row in view.rows]
    start = ids.index(feature) + 1 if feature in ids else 0
    around = [*view.rows[start:], *view.rows[:start]]
    return next((row.feature for row in around if row.waits and row.feature != feature), None)
