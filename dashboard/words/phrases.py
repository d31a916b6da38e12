"""Sentences about decisions and the people who make them. Text is Markdown unless a docstring says plain text."""

from __future__ import annotations

import math

from dashboard.reading.opened import Rate
from dashboard.reading.summaries import Finding
from dashboard.serving.identity import HOW, Person
from dashboard.words.wording import DECISIONS, count, moment, number, plain, rate, title
from ravl.ledger import WITHDRAWN
from ravl.readings import Kappa, Pair
from ravl.tables import Verdict

NOTE_SHOWN = 600
"""Characters of a note that a list shows; the whole note stands in its field."""


def shortened(text: str, limit: int = NOTE_SHOWN) -> str:
    """A text cut at `limit` characters, which says that it was. Plain text."""
    return text if len(text) <= limit else f"{text[:limit].rstrip()} … ({len(text):,} characters)"


def deciding_as(who: Person) -> str:
    """Under whose name decisions are kept."""
    return f"Deciding as **{plain(who.name)}** ({HOW[who.identity]})"


def past(verdict: Verdict, whole: bool = False) -> str:
    """One decision of the history, with how it is known who made it. whole: with all of a long note."""
    written = " · ".join(part if whole else shortened(part) for part in (verdict.name, verdict.note) if part)
    said = f": {plain(written if whole else ' '.join(written.split()))}" if written else ""
    who = f"{plain(verdict.reviewer)} ({HOW[verdict.identity]})"
    return f"**{DECISIONS[verdict.decision]}** by {who}, {moment(verdict.at)}{said}"


def recorded(verdict: Verdict, row_title: str) -> str:
    """What was done just now."""
    if verdict.decision == WITHDRAWN:
        return f"Withdrawn: the decision on {plain(row_title)}."
    return f"Recorded: {plain(row_title)} is **{DECISIONS[verdict.decision].lower()}**."


def withdrawn(verdict: Verdict, again: Verdict | None) -> str:
    """What was undone, and what the same person decided before, which stands again."""
    said = f"Withdrawn: the decision on feature {verdict.feature}."
    if again is None:
        return said
    return f"{said} Your decision of {moment(again.at)} stands again: {DECISIONS[again.decision].lower()}."


def changed_by(newer: Verdict, wanted: str) -> str:
    """What happened when two people met on one feature. wanted: the decision that was not recorded, or empty."""
    what = "decision withdrawn" if newer.decision == WITHDRAWN else f"now **{DECISIONS[newer.decision].lower()}**"
    yours = f"Your decision ({DECISIONS[wanted].lower()}) was not recorded" if wanted else "Nothing was undone"
    which = f"*{plain(newer.name)}* (feature {newer.feature})" if newer.name else f"feature {newer.feature}"
    return (
        f"**Changed by {plain(newer.reviewer)} at {newer.at[11:19]} UTC**, after this page was drawn: {which}, {what}. "
        f"{yours}. Look at it again, then decide."
    )


def regrouped(row_title: str, wanted: str) -> str:
    """What happened when the feature that was decided on had been changed by then. wanted: the decision."""
    return (
        f"{plain(row_title)} was merged, split or lost regions after this page was drawn. Your decision "
        f"({DECISIONS[wanted].lower()}) was not recorded. Look at the features as they are now, then decide."
    )


def all_decided(n: int) -> str:
    """The end of the queue."""
    return f"{'The feature is' if n == 1 else f'All {n:,} features are'} decided."


BLIND = (
    "Blind reading: you see your own decisions only, on every page but Repair and Export, which work with those that "
    "hold. What others decided about a feature is shown once you have decided on it."
)


# --- two readers -----------------------------------------------------------------------------------------------------


def agreement(pair: Pair) -> str:
    """How far two readers agree, in sentences: counts first, then kappa with its interval."""
    found = pair.kappa
    who = f"{plain(pair.first)} and {plain(pair.second)}"
    if found.n == 1:
        return f"{who} decided on one feature in common, and {'agree' if found.agreed else 'differ'} about it."
    return f"{who} decided alike on **{rate(Rate(found.agreed, found.n))}** features. {kappa(found)}"


def kappa(found: Kappa) -> str:
    """Kappa with what it means; where it is undefined, why. Plain text."""
    if math.isnan(found.value):
        if not found.n:
            return "They decided on no feature in common."
        return "Both gave one and the same answer throughout, so agreement beyond chance (kappa) cannot be measured."
    return (
        f"Cohen's kappa, agreement beyond chance, is {_minus(found.value)}: 0 is chance, 1 is full agreement. "
        f"On {count(found.n, 'feature')} it is known no better than {_minus(found.low)} to {_minus(found.high)} "
        "(95% interval)."
    )


def _minus(value: float) -> str:
    return number(value).replace("-", "−")


def disagreement(first: Verdict, second: Verdict, row: Finding | None, holds: Verdict | None) -> str:
    """One feature that two readers decided differently, and which decision holds."""
    what = plain(title(row)) if row is not None else f"Feature {first.feature}"
    said = " · ".join(f"{plain(v.reviewer)}: **{DECISIONS[v.decision]}**" for v in (first, second))
    held = f". The later one holds: {DECISIONS[holds.decision].lower()}" if holds is not None else ""
    return f"{what} – {said}{held}."
