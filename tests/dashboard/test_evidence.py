"""What removal shows, against counts made with loops over the small run."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from dashboard.reading import evidence, opened
from dashboard.reading.evidence import OUTCOMES, Effect
from dashboard.reading.opened import Audit, Rate, difference
from ravl.config import EvidenceConfig
from ravl.discovery.significance import newcombe
from ravl.store import AuditRun
from ravl.tables import Counterfactuals
from tests.dashboard.conftest import OPERATORS, PULL

EVERYTHING = dict.fromkeys(OUTCOMES, 99)


@pytest.fixture
def audit(run: AuditRun) -> Audit:
    return opened.read_audit(run)


def answers(audit: Audit, feature: int) -> dict[int, np.ndarray]:
    """Image -> the three answers without a feature, read row by row."""
    found = audit.counterfactuals
    return {int(i): a for f, i, a in zip(found.feature, found.image, found.after, strict=True) if f == feature}


# --- counts ----------------------------------------------------------------------------------------------------------


def test_removal_of_the_mark(audit: Audit) -> None:
    view = evidence.removal(audit, 1)
    label, correct = audit.zero_shot.label, audit.zero_shot.correct
    after = answers(audit, 1)
    wrong = [i for i in after if not correct[i]]
    eels = [i for i in after if label[i] == PULL]
    assert view.tested
    assert (view.pull, view.agree) == ("eel", 2)
    assert [effect.operator for effect in view.effects] == list(OPERATORS)
    for column, effect in enumerate(view.effects):
        assert effect.fixed == Rate(sum(after[i][column] == label[i] for i in wrong), len(wrong))
        assert effect.pull_after == Rate(sum(after[i][column] == PULL for i in eels), len(eels))
        assert effect.pull_kept == effect.pull_after  # every eel with the mark was right
        assert effect.kept == Rate(0, 0)  # and no other was
        assert effect.control == Rate(1, 15)
        assert effect.p <= effect.q < 0.05
    assert (view.fixed, view.control) == (Rate(14, 15), Rate(1, 15))
    assert (view.other_broken, view.pull_broken) == (Rate(0, 0), Rate(3, 12))
    assert view.induced == Rate(3, 5)
    assert view.never == Rate(6, 8)
    assert view.harm == difference(Rate(6, 8), Rate(9, 12), 0.95)
    assert view.scored == Rate(27, 27)
    assert view.replicated is None


def test_both_sides_of_the_signature(audit: Audit) -> None:
    view = evidence.removal(audit, 1)
    scores, row, others = audit.features, audit.features.row_of(1), [y for y in range(3) if y != PULL]
    n_in, n_out, right_out = (count[row, others].tolist() for count in (scores.n_in, scores.n_out, scores.right_out))
    expected = sum(n * right / out for n, right, out in zip(n_in, right_out, n_out, strict=True)) / sum(n_in)
    worth = sum(n_in) ** 2 / sum(n**2 / out for n, out in zip(n_in, n_out, strict=True))
    for side, inside, outside, (share, n) in (
        (view.pull_side, Rate(12, 12), Rate(6, 8), (6 / 8, 8)),
        (view.other_side, Rate(0, 15), Rate(24, 25), (expected, worth)),
    ):
        assert (side.inside, side.outside) == (inside, outside)
        low, high = newcombe(*(np.array(x) for x in (inside.right, inside.n, share * n, n)))
        found = side.difference
        assert (found.value, found.low, found.high) == pytest.approx((inside.share - share, low, high), abs=1e-6)


def test_removal_of_a_feature_that_was_not_removed(audit: Audit) -> None:
    view = evidence.removal(audit, 0)
    assert not view.tested
    assert view.effects == ()
    assert (view.pull, view.fixed, view.induced, view.never) == ("", Rate(0, 0), Rate(0, 0), Rate(0, 0))
    assert math.isnan(view.harm.value)
    assert view.scored == Rate(0, 60)
    with pytest.raises(KeyError, match="feature must be one of"):
        evidence.removal(audit, 9)


def test_right_answers_that_break_are_told_by_class(audit: Audit) -> None:
    found = audit.counterfactuals
    feature_two = replace(audit, features=replace(audit.features, pull_class=np.full(3, 0)))
    assert evidence.removal(feature_two, 1).other_broken == Rate(3, 12)  # the eels are another class now
    alone = found.after.copy()
    alone[:, 1:] = -1  # one operator only: never two that agree
    lonely = replace(audit, counterfactuals=replace(found, after=alone))
    assert evidence.removal(lonely, 1).pull_broken == Rate(0, 12)


def test_replication_is_three_valued(audit: Audit) -> None:
    for value, said in ((-1, None), (0, False), (1, True)):
        chance = replace(audit.significance, replicated=np.full(3, value))
        assert evidence.removal(replace(audit, significance=chance), 1).replicated is said


# --- images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("feature", [1, 2])
def test_every_image_has_one_outcome(audit: Audit, operator: str, feature: int) -> None:
    found = evidence.outcomes(audit, feature, operator, EVERYTHING)
    assert [outcome.kind for outcome in found] == list(OUTCOMES)
    after = answers(audit, feature)
    column = OPERATORS.index(operator)
    seen = [trial.image for outcome in found for trial in outcome.shown]
    assert sorted(seen) == sorted(after)
    for outcome in found:
        was, now = outcome.kind in ("kept", "broken"), outcome.kind in ("kept", "fixed")
        for trial in outcome.shown:
            assert (trial.was_right, trial.is_right) == (was, now)
            assert trial.after == audit.class_names[after[trial.image][column]]
            assert trial.truth == audit.class_names[audit.zero_shot.label[trial.image]]
            assert trial.called == audit.class_names[audit.zero_shot.predicted[trial.image]]
        right = sum(audit.zero_shot.correct[list(after)])
        assert outcome.count == Rate(len(outcome.shown), right if was else len(after) - right)


def test_outcomes_in_numbers(audit: Audit) -> None:
    found = {outcome.kind: outcome for outcome in evidence.outcomes(audit, 1, "inpaint", {"fixed": 4, "kept": 1})}
    assert [found[kind].count for kind in OUTCOMES] == [Rate(13, 15), Rate(2, 15), Rate(9, 12), Rate(3, 12)]
    assert [len(found[kind].shown) for kind in OUTCOMES] == [4, 0, 1, 0]


def test_the_most_harmful_exemplars_come_first(audit: Audit) -> None:
    turned = replace(
        audit.exemplars, **{name: getattr(audit.exemplars, name)[::-1] for name in ("feature", "region", "image")}
    )
    audit = replace(audit, exemplars=turned)
    ranked = [int(i) for i in turned.image[turned.rows_of(1)]]
    fixed = [trial.image for trial in evidence.outcomes(audit, 1, "token_drop", EVERYTHING)[0].shown]
    assert fixed[: len(ranked)] == ranked
    assert fixed[len(ranked) :] == sorted(fixed[len(ranked) :])


def test_counter_examples_of_other_classes_come_before_the_pull_class(audit: Audit) -> None:
    wrong = audit.zero_shot.image.copy()
    wrong[5] = np.eye(3)[0] * 0.7 + 0.1  # a cat with the mark is right
    audit = replace(audit, zero_shot=replace(audit.zero_shot, image=wrong))
    kept = evidence.outcomes(audit, 1, "token_drop", EVERYTHING)[2].shown
    assert [trial.truth for trial in kept] == ["cat"] + ["eel"] * 9


def test_a_trial_holds_all_regions_of_the_feature_in_its_image(audit: Audit) -> None:
    label = audit.feature_of.copy()
    label[1] = 1  # the first image shows the mark twice
    audit = replace(audit, feature_of=label)
    [first] = [t for t in evidence.outcomes(audit, 1, "token_drop", EVERYTHING)[0].shown if t.image == 0]
    assert first.regions == (1, 3)
    assert first.boxes == ((24, 0, 48, 24), (24, 24, 48, 48))
    assert (first.feature, first.operator) == (1, "token_drop")


def test_outcomes_where_an_operator_cannot_be_applied(audit: Audit) -> None:
    found = audit.counterfactuals
    after = found.after.copy()
    after[found.image < 20, 0] = -1
    partly = replace(audit, counterfactuals=replace(found, after=after))
    assert evidence.outcomes(partly, 1, "token_drop", EVERYTHING)[0].count == Rate(2, 3)  # the dogs
    assert evidence.outcomes(partly, 1, "mean_fill", EVERYTHING)[0].count == Rate(14, 15)
    with pytest.raises(ValueError, match="operator must be one of token_drop, mean_fill, inpaint, got 'blur'"):
        evidence.outcomes(partly, 1, "blur", EVERYTHING)


def test_outcomes_of_a_feature_that_was_not_removed(audit: Audit) -> None:
    for outcome in evidence.outcomes(audit, 0, "token_drop", EVERYTHING):
        assert (outcome.count, outcome.shown) == (Rate(0, 0), ())


# --- expected --------------------------------------------------------------------------------------------------------


def test_expected_if_the_mark_were_invisible(audit: Audit) -> None:
    view = evidence.expected(audit, [1], {1: "red square"})
    assert view is not None
    change = view.comparison
    assert (change.overall.before, change.overall.after) == (Rate(42, 60), Rate(53, 60))
    assert change.worst_before is not None
    assert change.worst_after is not None
    assert (change.worst_before.name, change.worst_before.before, change.worst_before.after) == (
        "cat with red square",
        Rate(0, 12),
        Rate(12, 12),
    )
    assert (change.worst_after.name, change.worst_after.after) == ("eel with red square", Rate(9, 12))
    assert (view.features, view.operator) == ((1,), "token_drop")
    assert (view.showing, view.unscored, view.several) == (27, 0, 0)
    per_class = {row.name: row.after for row in change.classes}
    assert per_class == {"cat": Rate(20, 20), "dog *": Rate(18, 20), "eel": Rate(15, 20)}


def test_predictions_without_a_feature_are_the_first_operators(audit: Audit) -> None:
    predicted, scored = evidence.predicted_without(audit, [1])
    after = answers(audit, 1)
    for image in range(60):
        expected = after[image][0] if image in after else audit.zero_shot.predicted[image]
        assert predicted[image] == expected
        assert scored[image] == (image in after)
    assert np.array_equal(evidence.predicted_without(audit, [])[0], audit.zero_shot.predicted)


def test_of_several_features_the_first_that_changes_an_answer_counts(audit: Audit) -> None:
    """Image 0 shows both: feature 2 says 1 without it, feature 1 says 0; image 1 changes by feature 2 alone."""
    columns = [[1, 1, 2, 2], [0, 1, 0, 1]]
    after = np.array([[0] * 3, [2] * 3, [1] * 3, [1] * 3])
    none = np.zeros(0, int)
    found = Counterfactuals(OPERATORS, *columns, after, np.full((4, 3), -1), none, none, none, none, none)
    audit = replace(audit, counterfactuals=found)
    assert evidence.predicted_without(audit, [1, 2])[0][:2].tolist() == [0, 1]
    assert evidence.predicted_without(audit, [2, 1])[0][:2].tolist() == [1, 1]
    view = evidence.expected(audit, [1, 2], {})
    assert view is not None
    assert (view.showing, view.unscored, view.several) == (27, 25, 10)


def test_images_that_were_not_scored_keep_their_answer(audit: Audit) -> None:
    found = audit.counterfactuals
    after = found.after.copy()
    after[found.image == 3] = -1
    view = evidence.expected(replace(audit, counterfactuals=replace(found, after=after)), [1], {})
    assert view is not None
    assert (view.unscored, view.comparison.overall.after) == (1, Rate(52, 60))


def test_nothing_to_expect_of_features_that_were_not_removed(audit: Audit) -> None:
    assert evidence.expected(audit, [0], {}) is None
    assert evidence.expected(audit, [], {}) is None
    both = evidence.expected(audit, [0, 1], {})
    assert both is not None
    assert both.features == (1,)


def test_agreement_follows_the_configuration(audit: Audit) -> None:
    for agree in (1, 2, 3):
        config = replace(audit.config, evidence=EvidenceConfig(agree=agree))
        view = evidence.removal(replace(audit, config=config), 1)
        assert (view.agree, view.fixed) == (agree, Rate({1: 14, 2: 14, 3: 13}[agree], 15))
        assert all(isinstance(effect, Effect) for effect in view.effects)
