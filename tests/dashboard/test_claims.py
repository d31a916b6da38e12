"""Sentences about evidence: counts beside every rate, right grammar in every case, nothing that Markdown swallows."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from dashboard.reading import evidence, opened, summaries
from dashboard.reading.evidence import OUTCOMES, Outcome, Trial
from dashboard.reading.opened import Audit, Interval, Rate
from dashboard.reading.summaries import ClassRow, Finding
from dashboard.words import claims
from ravl.config import OPERATORS
from ravl.store import AuditRun
from ravl.tables import REASONS

NOTHING = Interval(math.nan, math.nan, math.nan)
ROW = Finding(
    rank=1,
    feature=3,
    name="",
    pull="nine",
    flagged=True,
    grade="causal",
    reason="causal",
    explained=Rate(53, 267),
    fixed=Rate(53, 55),
    control=Rate(1, 55),
    influence=0.6,
    gap=1.2,
    beyond=Interval(0.75, 0.63, 0.87),
    q=0.0004,
    decided=41,
    called=63,
    n_regions=70,
    n_images=66,
    n_errors=55,
    verdict=None,
)
TRIAL = Trial(3, 12, (48,), ((0, 0, 5, 5),), "token_drop", "eight", "nine", "eight")


@pytest.fixture
def audit(run: AuditRun) -> Audit:
    return opened.read_audit(run)


def test_every_reason_operator_and_outcome_has_words() -> None:
    assert set(claims.EVIDENCE) == set(claims.MEANS) == set(claims._REST) == set(REASONS)
    assert len(set(claims.EVIDENCE.values())) == len(REASONS)
    assert set(claims.OPERATORS) == set(OPERATORS)
    assert set(claims.OUTCOMES) == set(OUTCOMES)


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Interval(0.75, 0.63, 0.87), "0.75 (0.63 to 0.87)"),
        (Interval(-0.021, -0.1, 0.04), "−0.02 (−0.10 to 0.04)"),
        (Interval(-0.002, -0.004, 0.001), "0.00 (0.00 to 0.00)"),
        (NOTHING, "–"),
    ],
)
def test_beyond(value: Interval, text: str) -> None:
    assert claims.beyond(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0004, "<0.001"), (0.0123, "0.012"), (0.4567, "0.46"), (1.0, "1.00"), (math.nan, "–")]
)
def test_probability(value: float, text: str) -> None:
    assert claims.probability(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Interval(-0.5, -0.62, -0.41), "−62 to −41 points"),
        (Interval(0.2, -0.004, 0.31), "0 to +31 points"),
        (NOTHING, ""),
    ],
)
def test_span(value: Interval, text: str) -> None:
    assert claims.span(value) == text


# --- one feature -----------------------------------------------------------------------------------------------------


def test_claim_of_a_shortcut() -> None:
    assert claims.claim(ROW) == (
        "Of the 55 wrongly classified images that show it, **53 become right** when it is removed, and **1** when "
        "another piece of the same size is removed from the same images."
    )
    assert claims.meaning(ROW) == "It explains **53 of all 267 errors (20%)**."
    lead = "**What these regions show makes the model wrongly answer *nine*.**"
    assert claims.told(ROW) == f"{lead} {claims.claim(ROW)} {claims.meaning(ROW)}"
    without = replace(ROW, pull="")
    assert claims.lead(without) == ""
    assert claims.told(without).startswith(claims.claim(without))
    assert claims.meaning(without).startswith(claims.MEANS["causal"])


@pytest.mark.parametrize(
    ("fixed", "control", "text"),
    [
        (Rate(55, 55), Rate(0, 55), "that show it, **all become right** when it is removed, and **none** when another"),
        (
            Rate(0, 55),
            Rate(55, 55),
            "that show it, **none becomes right** when it is removed, and **all** when another",
        ),
        (Rate(1, 55), Rate(0, 55), "that show it, **1 becomes right** when it is removed, and **none** when another"),
        (
            Rate(1200, 3000),
            Rate(1, 3000),
            "Of the 3,000 wrongly classified images that show it, **1,200 become right**",
        ),
        (Rate(1, 1), Rate(0, 1), "image that shows it **becomes right** when it is removed, and it stays wrong when"),
        (Rate(0, 1), Rate(1, 1), "image that shows it **stays wrong** when it is removed, and it becomes right when"),
        (Rate(1, 1), Rate(0, 1), "is removed from the same image."),
        (Rate(53, 55), Rate(2, 40), "is removed, and **2 of 40 (5%)** when another piece"),
        (Rate(10, 10), Rate(0, 1), "is removed, and **0 of 1 (0%)** when another piece"),
        (Rate(53, 55), Rate(0, 0), "is removed; there is no other piece of that size to compare with."),
        (Rate(0, 0), Rate(0, 0), "It was removed as a test, but no wrongly classified image shows it."),
    ],
)
def test_claim_by_counts(fixed: Rate, control: Rate, text: str) -> None:
    assert text in claims.claim(replace(ROW, fixed=fixed, control=control))


def test_claim_of_what_was_not_removed() -> None:
    row = replace(ROW, explained=None, reason="support", grade="undecided")
    assert claims.claim(row) == "It was not removed as a test."
    assert claims.errors_gone(row) == "not tested"
    assert "does not make it harmless" in claims.meaning(row)
    assert claims.errors_gone(ROW) == "53 of 267 (20%)"
    sampled = replace(ROW, n_errors=90)
    assert claims.errors_gone(sampled) == "about 53 of 267 (20%)"
    assert "It explains **about 53 of all 267 errors (20%)**." in claims.meaning(sampled)


@pytest.mark.parametrize("reason", REASONS)
def test_only_a_cause_is_said_to_explain(reason: str) -> None:
    said = claims.meaning(replace(ROW, reason=reason))
    assert ("It explains" in said) == (reason == "causal")
    assert claims.evidence(replace(ROW, reason=reason)) == claims.EVIDENCE[reason]


def test_effect_names_the_class_that_suffers() -> None:
    rows = (
        ClassRow("ei*ght", Rate(12, 58), Rate(240, 260), Interval(-0.71, -0.8, -0.59), -0.3, False),
        ClassRow("nine", Rate(50, 50), Rate(10, 40), Interval(0.75, 0.6, 0.85), 0.4, True),
    )
    assert claims.effect(rows) == (
        "*ei\\*ght* is recognised in 12 of 58 (21%) images that show it, and in 240 of 260 (92%) that do not: "
        "a difference of −80 to −59 points."
    )
    assert claims.effect(rows[1:]) == claims.effect(()) == ""
    assert claims.effect((replace(rows[0], gap=math.nan),)) == ""


def test_side_effects(audit: Audit) -> None:
    view = evidence.removal(audit, 1)
    assert claims.side_effects(view) == (
        "Of the 12 right images of *eel* that show it, **3** turn wrong without it. "
        "Pasted into 5 right images of other classes, it turns 3 of them into *eel*."
    )
    other = replace(view, other_broken=Rate(0, 30), pull_broken=Rate(9, 12), induced=Rate(0, 0))
    assert claims.side_effects(other) == (
        "Of the 30 right images of other classes that show it, none turns wrong without it. "
        "Of the 12 right images of *eel* that show it, **9** turn wrong without it: there the right answer rests on it."
    )
    none = replace(view, pull="", other_broken=Rate(1, 1), pull_broken=Rate(0, 0), induced=Rate(0, 0))
    assert claims.side_effects(none) == "The only right image that shows it **turns wrong** without it."
    assert "shows it stays right" in claims.side_effects(replace(none, other_broken=Rate(0, 1)))
    assert "show it, **1** turns wrong" in claims.side_effects(replace(none, other_broken=Rate(1, 9)))
    assert claims.side_effects(evidence.removal(audit, 0)) == ""


@pytest.mark.parametrize("kind", OUTCOMES)
def test_headings_carry_their_counts(kind: str) -> None:
    title, note = claims.heading(Outcome(kind, Rate(12, 55), ()))
    assert title.endswith(": 12 of 55 (22%)")
    assert bool(note) == (kind != "fixed")


def test_pictures_are_described_for_eyes_and_ears() -> None:
    assert claims.trial_caption(TRIAL) == "is eight · image 12"
    assert claims.trial_alts(TRIAL) == (
        "Image 12, which is eight, with the feature: called nine",
        "the same without it: called eight",
    )


def test_panel_note(audit: Audit) -> None:
    view = evidence.removal(audit, 1)
    assert claims.panel_note(view, "token_drop") == (
        "Hatched: the model is not shown this part at all; nothing is painted in its place. The counts below are of "
        "this way alone; the sentences count an image when at least 2 of the 3 ways agree."
    )
    assert "when all 3 ways agree" in claims.panel_note(replace(view, agree=3), "token_drop")
    sampled = replace(view, effects=view.effects[:1], scored=Rate(20, 27))
    assert claims.panel_note(sampled, "inpaint") == (
        "The place is filled in from what lies around it. 20 of 27 (74%) images that show it were tried."
    )


def test_statistics(audit: Audit) -> None:
    rows = summaries.findings(audit, {})
    found = {fact.name: fact.value for fact in claims.statistics(rows[0], evidence.removal(audit, 1))}
    assert found["Signature: eel, with and without"] == "12 of 12 (100%) and 6 of 8 (75%): −5 to +59 points"
    assert found["Pasted into other images: then called eel"] == "3 of 5 (60%)"
    assert found["Gap, as in the paper"] == "1.28"
    assert "Found in both halves of the images" not in found
    asked = replace(evidence.removal(audit, 1), replicated=False)
    assert claims.statistics(rows[0], asked)[-2].value == "no"
    empty = {fact.name: fact.value for fact in claims.statistics(rows[2], evidence.removal(audit, 0))}
    assert empty["Gap above chance, with its interval"] == "–"
    assert not any("Signature" in name or "Pasted" in name for name in empty)


def test_harm(audit: Audit) -> None:
    assert claims.harm(evidence.removal(audit, 1)) == (
        "eel without the feature from the start is recognised in 6 of 8 (75%) images, after removal in 9 of 12 (75%): "
        "a loss of −38 to +33 points."
    )
    assert claims.harm(evidence.removal(audit, 0)) == claims.harm(evidence.removal(audit, 2)) == ""


# --- all features ----------------------------------------------------------------------------------------------------


def test_headline(audit: Audit) -> None:
    view = summaries.overview(audit, {})
    assert claims.headline(view) == (
        "**1 of 3 features** causes errors of this model: wrong answers become right when it is removed."
    )
    two = replace(view, findings=tuple(replace(row, flagged=row.feature > 0) for row in view.findings))
    assert claims.headline(two) == (
        "**2 of 3 features** cause errors of this model: wrong answers become right when they are removed."
    )
    none = replace(view, findings=tuple(replace(row, flagged=False) for row in view.findings))
    assert claims.headline(none) == (
        "**No local shortcut was found.** None of the 3 features was shown to cause errors."
    )
    assert "The only feature was not shown" in claims.headline(replace(none, findings=none.findings[:1]))
    assert "No features were found" in claims.headline(replace(view, findings=()))


def test_no_all_clear_where_nothing_could_be_told(audit: Audit) -> None:
    view = summaries.overview(audit, {})
    rows = tuple(replace(row, flagged=False, reason="support") for row in view.findings)
    untested = replace(view, findings=tuple(replace(row, reason="untested") for row in rows[:1]) + rows[1:])
    assert claims.headline(untested) == (
        "**Nothing could be tested by removal**: this audit had embeddings and no model. **1 of 3 features** differs "
        "by more than chance; whether it causes errors is not known."
    )
    few = claims.headline(replace(view, findings=rows))
    assert few.startswith("**Whether there is a local shortcut cannot be told.** There are too few images or errors")
    assert "any of the 3 features" in few
    told = (*rows[1:], replace(rows[0], reason="no effect"))
    assert "No local shortcut was found" in claims.headline(replace(view, findings=told))


def test_headline_of_the_papers_rule(audit: Audit) -> None:
    view = replace(summaries.overview(audit, {}), rule="paper")
    assert claims.headline(view) == "**1 of 3 features** passes the paper's rule."
    none = replace(view, findings=tuple(replace(row, flagged=False) for row in view.findings))
    assert claims.headline(none) == "None of the 3 features passes the paper's rule."


def test_what_finding_nothing_does_not_prove() -> None:
    text = claims.not_proven()
    assert "does not prove" in text
    for word in ("brightness", "sharpness", "smaller than a region", "few images", "cause no error"):
        assert word in text


def test_rest_is_counted_by_reason() -> None:
    rows = tuple(
        replace(ROW, reason=reason) for reason in ("no effect", "support", "no effect", "no effect", "support")
    )
    assert claims.rest(rows, more=True) == "5 more features: 3 without effect, 2 with too little evidence."
    assert claims.rest(rows[1:2], more=True) == "1 more feature with too little evidence."
    assert claims.rest(rows[2:4], more=False) == "2 features without effect."
    assert claims.rest((), more=True) == ""


def test_expected(audit: Audit) -> None:
    view = evidence.expected(audit, [1], {1: "red*"})
    assert view is not None
    assert claims.expected(view) == (
        "If this feature were invisible, the model would be right on **53 of 60 (88%)** images instead of "
        "42 of 60 (70%). In the worst group, *cat with red\\**, it would be right on **12 of 12 (100%)** instead of "
        "0 of 12 (0%). The worst group would then be *eel with red\\** with 9 of 12 (75%)."
    )
    assert claims.expected_basis(view) == ("Measured before any training: 27 images classified again with it left out.")
    two = evidence.expected(audit, [1, 2], {})
    assert two is not None
    assert claims.expected(two).startswith("If these 2 features were invisible")
    assert "10 images show several of them" in claims.expected_basis(two)
    assert "1 more image that" in claims.expected_basis(replace(view, unscored=1))


def test_expected_says_what_stays_and_what_falls(audit: Audit) -> None:
    view = evidence.expected(audit, [1], {})
    assert view is not None
    change = view.comparison
    same = next(row for row in change.groups if row.name == "eel without feature 1")
    stays = replace(view, comparison=replace(change, worst_before=same, worst_after=same))
    text = claims.expected(stays)
    assert "The worst group, *eel without feature 1*, would stay at 6 of 8 (75%)." in text
    assert text.endswith("*eel with feature 1* would fall from 12 of 12 (100%) to 9 of 12 (75%).")
    alone = replace(view, comparison=replace(change, worst_before=None, worst_after=None, worse=()))
    assert claims.expected(alone).endswith("42 of 60 (70%).")
