"""Sentences about decisions and readers, and the pure functions behind the queue."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from dashboard.choosing import reviewing
from dashboard.reading import opened, summaries
from dashboard.serving import faults
from dashboard.serving.identity import Person
from dashboard.words import phrases
from ravl.ledger import WITHDRAWN
from ravl.readings import Kappa, Pair
from ravl.store import AuditRun
from ravl.tables import Verdict


def verdict(number: int, feature: int = 1, decision: str = "core", reviewer: str = "Ada", **more: str) -> Verdict:
    given = {"name": "", "note": "", "seen": "d", "identity": "self-declared"} | more
    at = f"2026-01-31T10:0{number}:07.123+00:00"
    return Verdict("run", feature, "eel", decision, reviewer=reviewer, at=at, id=number, **given)


def test_a_past_decision_says_who_and_how_that_is_known() -> None:
    said = phrases.past(verdict(1, name="a *drain*", note="two\nlines", identity="oidc"))
    assert said == "**Genuine** by Ada (signed in), 2026\\-01\\-31 10:01 UTC: a \\*drain\\* · two lines".replace(
        "\\-", "-"
    )
    assert phrases.past(verdict(1)).endswith("UTC")


def test_a_long_note_is_cut_and_says_so() -> None:
    said = phrases.shortened("x" * 10_000)
    assert len(said) < 650
    assert said.endswith("… (10,000 characters)")
    assert phrases.shortened("short") == "short"


def test_meeting_on_one_feature() -> None:
    said = phrases.changed_by(verdict(3, name="<b>drain</b>", reviewer="B*o"), "spurious")
    assert said.startswith("**Changed by B\\*o at 10:03:07 UTC**, after this page was drawn: *\\<b\\>drain\\</b\\>*")
    assert "now **genuine**. Your decision (spurious) was not recorded." in said
    assert "decision withdrawn. Nothing was undone." in phrases.changed_by(verdict(3, decision=WITHDRAWN), "")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Kappa(0, 0, math.nan, math.nan, math.nan), "on no feature in common"),
        (Kappa(4, 4, math.nan, math.nan, math.nan), "one and the same answer throughout"),
        (
            Kappa(9, 7, 0.61, 0.25, 0.97),
            "is 0.61: 0 is chance, 1 is full agreement. On 9 features it is known no better",
        ),
        (Kappa(9, 1, -0.2, -0.5, 0.1), "is −0.20: 0 is chance"),
    ],
)
def test_kappa_in_words(found: Kappa, said: str) -> None:
    assert said in phrases.kappa(found)


def test_agreement_counts_first() -> None:
    pair = Pair("A_da", "Bo", Kappa(9, 7, 0.61, 0.25, 0.97), ())
    assert phrases.agreement(pair).startswith("A\\_da and Bo decided alike on **7 of 9 (78%)** features.")
    one = replace(pair, kappa=Kappa(1, 1, math.nan, math.nan, math.nan))
    assert phrases.agreement(one) == "A\\_da and Bo decided on one feature in common, and agree about it."


def test_who_decides_is_marked() -> None:
    assert phrases.deciding_as(Person("A*a", "self-declared")) == "Deciding as **A\\*a** (self-declared)"
    assert phrases.deciding_as(Person("Ada", "proxy")).endswith("(as the proxy says)")


# --- the queue -------------------------------------------------------------------------------------------------------


def test_what_comes_next_goes_around(run: AuditRun) -> None:
    rows = summaries.findings(opened.read_audit(run), {})  # ranked 1, 2, 0
    view = summaries.review(rows, 2, only_flagged=False)
    assert [reviewing.following(view, feature) for feature in (1, 2, 0, 99)] == [2, 0, 1, 1]
    decided = tuple(replace(row, verdict=verdict(1)) for row in rows)
    view = summaries.review(decided, 2, only_flagged=False)
    assert reviewing.following(view, 1) is None
    again = (decided[0], replace(decided[1], again="other regions"), decided[2])
    assert reviewing.following(summaries.review(again, 0, only_flagged=False), 0) == 2


def test_a_blind_reader_holds_her_own_decisions_only() -> None:
    history = [verdict(1), verdict(2, reviewer="Bo", decision="mixed"), verdict(3, feature=2, reviewer="Bo")]
    assert {f: v.reviewer for f, v in reviewing.holding(history).items()} == {1: "Bo", 2: "Bo"}
    assert {f: v.reviewer for f, v in reviewing.holding(history, "Ada").items()} == {1: "Ada"}
    assert reviewing.holding(history, "nobody") == {}
    assert len(reviewing.known(history, 1, "Ada")) == 2  # she decided: all is shown
    assert reviewing.known(history, 2, "Ada") == ()
    assert (reviewing.last_event(history, 1), reviewing.last_event(history, 7)) == (2, 0)


def test_an_unwritable_log_is_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = faults.note(ValueError("detail"), tmp_path / "missing")
    assert "the terminal in which the dashboard was started" in told
    assert "ValueError: detail" in capsys.readouterr().err
