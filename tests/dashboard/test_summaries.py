"""What the pages say about the small run, against counts made with loops."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from dashboard.reading import summaries
from dashboard.reading.opened import Audit, Rate, difference, read_audit
from ravl.ledger import Ledger
from ravl.store import AuditRun
from ravl.tables import columns
from tests.dashboard.conftest import CLASSES, has_mark


@pytest.fixture
def audit(run: AuditRun) -> Audit:
    return read_audit(run)


def test_findings_of_the_mark(audit: Audit) -> None:
    first = summaries.findings(audit, {})[0]
    marked = [(y, i) for y in range(3) for i in range(20) if has_mark(y, i)]
    assert (first.rank, first.feature, first.pull, first.flagged) == (1, 1, "eel", True)
    assert first.n_regions == first.n_images == len(marked)
    assert first.n_errors == first.decided == sum(y != 2 for y, _ in marked)
    assert first.called == first.decided + 1  # one dog without the mark is called "eel" too
    assert [row.rank for row in summaries.findings(audit, {})] == [1, 2, 3]


def test_a_made_feature_keeps_its_name_until_a_decision_gives_another(
    run: AuditRun, audit: Audit, book: Ledger
) -> None:
    book.add_grouping(run.id, "select", [0], [2], "Ada", "a corner")
    named = {row.feature: row.name for row in summaries.findings(audit, {}, book.names(run.id))}
    assert named == {1: "", 2: "a corner", 0: ""}
    book.add_verdict(run.id, 2, "", "core", "Bo", audit.seen(2), "top right")
    rows = summaries.findings(audit, book.verdicts(run.id), book.names(run.id))
    assert {row.feature: row.name for row in rows}[2] == "top right"


def test_findings_carry_the_evidence(audit: Audit) -> None:
    rows = summaries.findings(audit, {})
    assert [(row.feature, row.flagged, row.grade, row.reason) for row in rows] == [
        (1, True, "causal", "causal"),
        (2, False, "context", "no effect"),
        (0, False, "undecided", "support"),
    ]
    assert [row.explained for row in rows] == [Rate(14, 18), Rate(0, 18), None]  # of all errors
    assert [(row.fixed, row.control) for row in rows] == [
        (Rate(14, 15), Rate(1, 15)),
        (Rate(0, 10), Rate(0, 10)),
        (Rate(0, 0), Rate(0, 0)),
    ]
    first = rows[0]
    assert 0 < first.beyond.low < first.beyond.value < first.beyond.high
    assert first.beyond.value < first.gap  # chance takes its part
    assert first.q < 0.05
    assert math.isnan(rows[2].q)


def test_an_error_counts_when_enough_operators_fix_it(audit: Audit) -> None:
    found, label, correct = audit.counterfactuals, audit.zero_shot.label, audit.zero_shot.correct
    for agree in (1, 2, 3):
        config = replace(audit.config, evidence=replace(audit.config.evidence, agree=agree))
        fixed, control = summaries.fixed_errors(replace(audit, config=config), 1)
        rows = [r for r in range(len(found)) if found.feature[r] == 1 and not correct[found.image[r]]]
        for rate, answers in ((fixed, found.after), (control, found.control)):
            agreed = sum(sum(answer == label[found.image[r]] for answer in answers[r]) >= agree for r in rows)
            assert (rate.right, rate.n) == (agreed, 15)
    assert [row.fixed.right for row in summaries.findings(replace(audit, config=config), {})] == [13, 0, 0]


def test_the_rank_is_that_of_the_evidence(audit: Audit) -> None:
    order = np.array([2, 1, 0])
    turned = replace(audit.evidence, **{k: v[order] for k, v in columns(audit.evidence).items() if k != "operators"})
    rows = summaries.findings(replace(audit, evidence=turned), {})
    assert [(row.rank, row.feature, row.reason) for row in rows] == [
        (1, 0, "support"),
        (2, 2, "no effect"),
        (3, 1, "causal"),
    ]


def test_a_feature_that_decides_nothing_pulls_nowhere(audit: Audit) -> None:
    last = summaries.findings(audit, {})[-1]
    assert (last.feature, last.pull, last.decided, last.called) == (0, "", 0, 0)
    assert math.isnan(last.gap)  # every image has it


def test_verdicts_join_their_feature(audit: Audit, book: Ledger) -> None:
    book.add_verdict(audit.run, 1, "eel", "spurious", "Ada", audit.seen(1), "red square")
    book.add_verdict(audit.run, 2, "", "core", "Ada", audit.seen(2))
    book.add_verdict(audit.run, 2, "", "withdrawn", "Ada", audit.seen(2))
    rows = summaries.findings(audit, book.verdicts(audit.run))
    assert [(row.feature, row.name, row.decision) for row in rows] == [
        (1, "red square", "spurious"),
        (2, "", ""),
        (0, "", ""),
    ]
    assert [[row.feature for row in summaries.pick(rows, show)] for show in ("all", "flagged", "open", "decided")] == [
        [1, 2, 0],
        [1],
        [2, 0],
        [1],
    ]


def test_class_rows_put_the_greatest_loss_first(audit: Audit) -> None:
    rows = summaries.class_rows(audit, 1)
    assert [row.name for row in rows] == ["cat", "dog *", "eel"]
    assert [(row.inside, row.outside) for row in rows] == [
        (Rate(0, 12), Rate(8, 8)),
        (Rate(0, 3), Rate(16, 17)),
        (Rate(12, 12), Rate(6, 8)),
    ]
    assert [row.pulls for row in rows] == [False, False, True]
    assert rows[0].gap < rows[1].gap < 0 < rows[2].gap
    assert [row.difference for row in rows] == [difference(row.inside, row.outside, 0.95) for row in rows]
    assert rows[0].difference.value == -1


def test_class_rows_without_a_comparison_come_last(audit: Audit) -> None:
    rows = summaries.class_rows(audit, 2)  # only cats show it
    assert [math.isnan(row.gap) for row in rows] == [False, True, True]
    assert rows[1].inside == Rate(0, 0)
    assert math.isnan(rows[1].inside.share)
    with pytest.raises(KeyError, match="feature must be one of"):
        summaries.class_rows(audit, 9)


def test_exemplars_say_what_the_image_was_called(audit: Audit) -> None:
    crops = summaries.exemplars(audit, 1)
    assert len(crops) == 6
    assert [crop.contribution for crop in crops] == sorted((crop.contribution for crop in crops), reverse=True)
    first = crops[0]
    assert (first.truth, first.called, first.right, first.against) == ("cat", "eel", False, "eel")
    assert first.box == (24, 24, 48, 48)
    assert first.region == 4 * first.image + 3
    assert summaries.exemplars(audit, 1, 2) == crops[:2]
    assert summaries.exemplars(audit, 9) == ()


def test_crops_of_any_regions(audit: Audit) -> None:
    crops = summaries.crops(audit, np.array([7, 0]))
    assert [(crop.region, crop.image, crop.box) for crop in crops] == [(7, 1, (24, 24, 48, 48)), (0, 0, (0, 0, 24, 24))]
    assert math.isnan(crops[0].contribution)
    assert summaries.crops(audit, np.arange(0)) == ()


def test_overview(audit: Audit, book: Ledger) -> None:
    view = summaries.overview(audit, {})
    assert view.overall == Rate(42, 60)
    assert view.classes == (("cat", Rate(8, 20)), ("dog *", Rate(16, 20)), ("eel", Rate(18, 20)))
    assert view.noise == Rate(143, 240)
    assert view.worst == summaries.WorstGroup("cat with feature 1", Rate(0, 12))
    assert [row.feature for row in view.flagged] == [row.feature for row in view.waiting] == [1]
    assert view.confirmed == ()
    assert [row.feature for row in view.others] == [2, 0]
    assert view.rule == "evidence"
    book.add_verdict(audit.run, 1, "eel", "spurious", "Ada", audit.seen(1), "red square")
    decided = summaries.overview(audit, book.verdicts(audit.run))
    assert decided.waiting == ()
    assert [row.feature for row in decided.confirmed] == [1]
    assert decided.worst == summaries.WorstGroup("cat with red square", Rate(0, 12))


def test_worst_group_without_a_flagged_feature_is_a_class(audit: Audit) -> None:
    plain = replace(audit, evidence=replace(audit.evidence, flagged=np.zeros(3, bool)))
    assert summaries.worst_group(plain, {}) == summaries.WorstGroup("cat", Rate(8, 20))


def test_review_goes_through_the_rows(audit: Audit, book: Ledger) -> None:
    rows = summaries.findings(audit, {})
    view = summaries.review(rows, None, only_flagged=False)
    assert (view.position, view.decided) == (0, 0)
    assert (view.neighbour(-1), view.neighbour(1), view.neighbour(5)) == (None, 2, None)
    view = summaries.review(rows, 0, only_flagged=False)
    assert view.current is not None
    assert (view.current.feature, view.neighbour(-1), view.neighbour(1)) == (0, 2, None)
    book.add_verdict(audit.run, 1, "eel", "unsure", "Ada", audit.seen(1))
    decided = summaries.findings(audit, book.verdicts(audit.run))
    view = summaries.review(decided, None, only_flagged=False)
    assert (view.position, view.decided) == (1, 1)  # the first that is not decided


def test_review_of_flagged_features_keeps_one_that_was_asked_for(audit: Audit) -> None:
    rows = summaries.findings(audit, {})
    assert [row.feature for row in summaries.review(rows, None, only_flagged=True).rows] == [1]
    asked = summaries.review(rows, 0, only_flagged=True)
    assert [row.feature for row in asked.rows] == [1, 0]
    assert asked.current is not None
    assert asked.current.feature == 0
    assert summaries.review((), None, only_flagged=False).current is None


def test_facts_name_content_and_settings(run: AuditRun, audit: Audit) -> None:
    found = {fact.name: fact.value for fact in summaries.facts(run, audit)}
    assert found["Images"] == f"60 from {run.config.images}"
    assert found["Classes"] == "3: " + ", ".join(CLASSES)
    assert (found["Fingerprint of data"], found["Fingerprint of model"]) == ("feed", "beef")
    assert found["Regions"].startswith("240 (grid:2)")
    assert found["Removed by"] == "token_drop, mean_fill, inpaint"
