"""Sentences: counts beside every rate, right grammar, and nothing of a user's that Markdown could swallow."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from dashboard.reading import opened, summaries
from dashboard.reading.opened import Rate
from dashboard.reading.selection import Chosen
from dashboard.reading.summaries import Crop
from dashboard.words import wording
from ravl.config import MitigationConfig
from ravl.ledger import Ledger
from ravl.store import AuditRun
from ravl.tables import Agreement
from tests.dashboard.test_claims import ROW

CROP = Crop(12, 3, (0, 0, 5, 5), "eight", "nine", False, "nine", 2.04)


def test_finding() -> None:
    assert (
        wording.finding(ROW) == "In **41 of the 63 images** wrongly called *nine*, the deciding region looks like this."
    )
    assert "In **all 63 images** wrongly" in wording.finding(replace(ROW, decided=63))
    assert "In **the only image** wrongly" in wording.finding(replace(ROW, decided=1, called=1))
    assert wording.finding(replace(ROW, pull="", called=0)) == "No error is decided by regions that look like this."


@pytest.mark.parametrize(
    ("reference", "shown"),
    [
        ("/data/big/chest/val", "…/chest/val"),
        ("/chest/val", "/chest/val"),
        ("chest/a/b/val", "chest/a/b/val"),
        ("hf:sets/of/chests@val", "hf:sets/of/chests@val"),
    ],
)
def test_short_path(reference: str, shown: str) -> None:
    assert wording.short_path(reference) == shown


@pytest.mark.parametrize("name", ["a*b", "[x](y)", "$1$", ":red[x]", "<b>", "`c`", "a_b_c", "# h", "~~s~~", "{}"])
def test_users_text_is_escaped(name: str) -> None:
    shown = wording.plain(name)
    assert shown.replace("\\", "") == name.replace("\\", "")
    assert all(shown[i - 1] == "\\" for i, letter in enumerate(shown) if letter in "*[]$:<>`_#~{}")
    assert wording.plain(name) in wording.finding(replace(ROW, pull=name))


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0%"), (1, "100%"), (0.001, "<1%"), (0.999, ">99%"), (0.254, "25%"), (math.nan, "n/a")]
)
def test_percent_never_rounds_to_nothing_or_all(share: float, text: str) -> None:
    assert wording.percent(share) == text


def test_messages_begin_like_sentences() -> None:
    assert wording.message("a_b must be c.").replace("\\", "") == "A_b must be c."
    assert wording.message("") == ""


def test_rates_carry_their_counts() -> None:
    assert wording.rate(Rate(1200, 5000)) == "1,200 of 5,000 (24%)"
    assert wording.rate(Rate(0, 0)) == "no images"


@pytest.mark.parametrize(("value", "text"), [(2.04, "+2.0"), (-1.26, "−1.3"), (0.01, "0.0"), (-0.04, "0.0")])
def test_signed(value: float, text: str) -> None:
    assert wording.signed(value, 1) == text


def test_interval_says_what_its_level_means() -> None:
    assert "in 95 of 100 such audits" in wording.interval(0.95)
    assert "in 99.9 of 100 such audits" in wording.interval(0.999)


def test_rule() -> None:
    assert wording.rule(ROW) == "Flagged"
    assert wording.rule(replace(ROW, flagged=False)) == "–"


def test_crops_are_described_for_eyes_and_ears() -> None:
    assert wording.crop_caption(CROP) == ("eight, called nine", "contribution +2.0")
    assert wording.crop_caption(replace(CROP, called="eight", right=True, contribution=math.nan)) == (
        "eight, called so",
        "",
    )
    assert wording.crop_alt(CROP, whole=False) == "Region 12 of image 3: eight, called nine"
    assert wording.crop_alt(CROP, whole=True) == "Image 3 with region 12 outlined: eight, called nine"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (40, "40 s"), (170, "3 min"), (7500, "2 h 5 min"), (89, "89 s")]
)
def test_duration(seconds: float, text: str) -> None:
    assert wording.duration(seconds) == text


@pytest.mark.parametrize(("year", "text"), [(2026, "3 Jan 14:05"), (2027, "3 Jan 2026")])
def test_a_moment_where_there_is_little_room(year: int, text: str) -> None:
    assert wording.brief_moment("2026-01-03T14:05:59.123+00:00", year) == text


def test_counts_have_their_plural() -> None:
    assert wording.count(1, "image") == "1 image"
    assert wording.count(2_000, "image") == "2,000 images"
    assert wording.count(0, "class", "classes") == "0 classes"


def test_overview_sentences(run: AuditRun, book: Ledger) -> None:
    audit = opened.read_audit(run)
    view = summaries.overview(audit, {})
    assert wording.worst(view.worst) == "The worst group is *cat with feature 1*: 0 of 12 (0%) right."
    assert wording.worst(None) == ""
    assert wording.next_step(view, repaired=False) == ("review", "1 flagged feature waits for a person's decision.")
    assert "belong to no feature" in wording.noise(view.noise)
    assert wording.noise(Rate(0, 0)) == "There are no regions."
    book.add_verdict(run.id, 1, "eel", "core", "Ada", audit.seen(1))
    assert wording.next_step(summaries.overview(audit, book.verdicts(run.id)), False)[0] == "export"
    book.add_verdict(run.id, 1, "eel", "spurious", "Ada", audit.seen(1))
    assert wording.next_step(summaries.overview(audit, book.verdicts(run.id)), False)[0] == "repair"


def test_overview_without_findings(run: AuditRun) -> None:
    view = summaries.overview(opened.read_audit(run), {})
    tame = replace(view, findings=tuple(replace(row, flagged=False) for row in view.findings))
    assert wording.next_step(tame, repaired=False)[0] == "features"
    assert wording.next_step(replace(view, findings=()), repaired=False)[0] == "map"


@pytest.mark.parametrize("name", ["עברית", "مربع أحمر", "red מרובע"])
def test_a_name_from_right_to_left_is_set_apart(name: str) -> None:
    """Else the digits after it are drawn before it: `called עברית, 14 of 15` would read `15 of 14`."""
    assert wording.plain(name) == f"\u2068{name}\u2069"
    assert wording.escaped(name) == f"\u2068{name}\u2069"


@pytest.mark.parametrize("sign", [*"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"])
def test_a_name_turns_no_text_around_it(sign: str) -> None:
    assert wording.plain(f"red{sign} square") == "red square"
    assert wording.escaped(f"<{sign}b>") == "&lt;b&gt;"
    assert wording.isolated(f"{sign}עברית{sign}") == "\u2068עברית\u2069"


def test_names_without_direction_stay_as_they_are() -> None:
    for name in ("", "red square", "🟥 Ünal", "犬"):
        assert wording.isolated(name) == name
    assert wording.escaped('"><b>') == "&quot;&gt;&lt;b&gt;"


def test_agreement_of_the_region_encoder() -> None:
    assert wording.agreement(Agreement(40, 0.914, 0.85, 0.8)) == (
        "sees the same class as in a cut-out for 34 of 40 (85%) sampled regions "
        "(mean cosine 0.91, rank correlation 0.80)"
    )
    assert "rank correlation –" in wording.agreement(Agreement(40, 0.9, 0.85, math.nan))
    assert wording.agreement(Agreement(0, math.nan, math.nan, math.nan)) == ""


def test_selection() -> None:
    chosen = Chosen(412, 97, 61, ((3, 400), (-1, 10), (0, 2)))
    assert wording.selection(chosen) == "**412 regions, 97 images, 61 wrong**"
    assert wording.selection(Chosen(0, 0, 0, ())) == "No region lies inside. Draw around some points."
    assert wording.selection_features(chosen, (ROW,), limit=2).replace("\\", "") == (
        "400 of Feature 3, 10 of no feature and of 1 more feature."
    )


def test_a_change_that_rounds_to_nothing_is_not_called_nothing() -> None:
    assert wording.points(-0.004) == "−0.4 points"
    assert wording.points(0.0) == "0 points"
    assert wording.points(-0.126) == "−13 points"
    assert wording.points(math.nan) == "n/a"


def test_compared() -> None:
    text = wording.compared({"compared_on": "/data/test", "best_step": 50, "seconds": 170.0}).replace("\\", "")
    assert text.startswith("Compared on /data/test. The weights of step 50 were kept")
    assert text.endswith("It took 3 min.")
    assert "audited model" in wording.compared({"best_step": 0})
    assert wording.compared({}) == ""


def test_progress(book: Ledger) -> None:
    job = book.add_job("demo", "Demo", [], "local")
    assert wording.progress(job, None) == "Starting …"
    running = replace(job, status="running", stage="embeddings", done=400, total=1000)
    assert wording.progress(running, 130.0) == "Embedding regions: 400 of 1,000, about 2 min left"
    assert wording.progress(replace(running, stage="features", done=0, total=1), None) == "Scoring features …"
    assert wording.stage("some_thing") == "Some thing"


def test_every_decision_and_status_has_a_word() -> None:
    from ravl.config import DECISIONS
    from ravl.ledger import ACTIVE, ENDED, WITHDRAWN

    assert {*DECISIONS, WITHDRAWN} == set(wording.DECISIONS)
    assert set(DECISIONS) == set(wording.MEANING)
    assert {*ACTIVE, *ENDED} <= set(wording.STATUS)


def test_every_method_has_words() -> None:
    assert set(wording.METHODS) == set(field_choices())
    assert len(set(wording.METHODS.values())) == len(wording.METHODS)


def field_choices() -> tuple[str, ...]:
    return tuple(MitigationConfig.__dataclass_fields__["method"].metadata["choices"])
