"""From answers to counts, tests and grades; every count is made again by plain loops."""

from __future__ import annotations

from dataclasses import replace
from math import comb
from types import SimpleNamespace

import numpy as np
import pytest

from ravl.config import EvidenceConfig, ScoringConfig, SignificanceConfig
from ravl.discovery.evidence import Never, mcnemar, never_shown, shortfalls, weigh
from ravl.discovery.scoring import score_features
from ravl.discovery.significance import newcombe, significance
from ravl.tables import BY_OPERATOR, NOISE, RATES, Counterfactuals, Regions, ZeroShot

OPS = ("token_drop", "mean_fill", "inpaint")


def quadrants(n: int) -> Regions:
    box = [[0, 0, 8, 8], [8, 0, 16, 8], [0, 8, 8, 16], [8, 8, 16, 16]]
    return Regions(np.repeat(np.arange(n), 4), np.tile(box, (n, 1)), np.tile(np.arange(4), n), n)


class Case:
    """A made-up audit: `n` images per class of three; feature 0 pulls to class 2.

    Images with the feature (the first half of each class) are answered `with_it`, the others `without_it`, as rates of
    being right; errors go to class 2 (to class 0 for class 2).
    """

    def __init__(self, n=60, with_it=(0.2, 0.3, 0.9), without_it=(0.9, 0.9, 0.5)) -> None:
        self.label = np.repeat(np.arange(3), n)
        self.has = np.tile(np.arange(n) < n // 2, 3)
        place = np.tile(np.arange(n) % (n // 2), 3) / (n // 2)
        right = place < np.where(self.has, np.array(with_it)[self.label], np.array(without_it)[self.label])
        self.predicted = np.where(right, self.label, np.where(self.label == 2, 0, 2))
        self.regions = quadrants(len(self.label))
        region = np.full((len(self.label), 4, 3), 1 / 3)
        region[np.arange(len(self.label)), 1] = np.eye(3)[self.label] * 0.3 + 0.7 / 3
        region[self.has, 0] = (0.05, 0.05, 0.9)
        image = np.eye(3)[self.predicted] * 0.7 + 0.1
        self.zero_shot = ZeroShot(image, region.reshape(-1, 3), self.label)
        self.feature_of = np.full((len(self.label), 4), NOISE)
        self.feature_of[self.has, 0] = 0
        self.feature_of = self.feature_of.ravel()
        self.score()

    def score(self) -> None:
        self.scores = score_features(self.regions, self.zero_shot, self.feature_of, 1, ScoringConfig())
        nowhere = np.full(len(self.regions), NOISE)
        self.never = never_shown(self.scores, self.regions, self.zero_shot, self.feature_of, nowhere)
        self.chance = significance(
            self.scores, self.regions, self.zero_shot, self.feature_of, SignificanceConfig(), seed=0
        )

    def answers(self, after, control=None, pasted_after=()) -> Counterfactuals:
        """after(image, operator) -> class; control likewise, for misclassified images."""
        image = np.flatnonzero(self.has)
        wrong = self.predicted[image] != self.label[image]
        control = control or (lambda i, o: self.predicted[i])
        made = np.array([[after(i, o) for o in range(3)] for i in image])
        instead = np.array([[control(i, o) if w else -1 for o in range(3)] for i, w in zip(image, wrong, strict=True)])
        n = len(pasted_after)
        zeros = np.zeros(n, int)
        return Counterfactuals(
            OPS, np.zeros(len(image)), image, made, instead, zeros, np.arange(n), zeros, zeros, pasted_after
        )

    def weigh(self, found: Counterfactuals, **config):
        return weigh(found, self.scores, self.chance, self.zero_shot, self.never, EvidenceConfig(**config), 0.05)


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


def as_if_never_there(case: Case):
    """What a model that relies on a mark answers without it: as on images that never had it."""
    rank = {int(i): place for place, i in enumerate(np.flatnonzero(case.has))}

    def after(image: int, operator: int) -> int:
        y = case.label[image]
        half = len(case.label) // 6
        good = (rank[image] % half) / half < (0.9, 0.9, 0.5)[y]
        return int(y) if good else (0 if y == 2 else 2)

    return after


def test_a_shortcut_is_causal(case):
    evidence = case.weigh(case.answers(as_if_never_there(case)))
    assert (evidence.grade[0], evidence.reason[0], bool(evidence.flagged[0])) == ("causal", "causal", True)


def test_nothing_depends_on_it(case):
    evidence = case.weigh(case.answers(lambda i, o: case.predicted[i]))
    assert (evidence.grade[0], evidence.reason[0], bool(evidence.flagged[0])) == ("context", "no effect", False)
    assert evidence.error_share[0] == 0


def test_any_patch_of_that_size_does_the_same(case):
    after = as_if_never_there(case)
    evidence = case.weigh(case.answers(after, control=after))
    assert evidence.reason[0] == "no effect"


def test_one_operator_is_not_enough(case):
    after = as_if_never_there(case)
    evidence = case.weigh(case.answers(lambda i, o: after(i, o) if o == 1 else case.predicted[i]))
    assert (evidence.grade[0], evidence.reason[0]) == ("context", "disagree")


def two_and_a_weak_third(case: Case, every: int):
    """Two operators take the feature away; the third does so in one of `every` images."""
    after = as_if_never_there(case)
    return case.answers(lambda i, o: after(i, o) if o != 1 or i % every == 0 else case.predicted[i])


def test_two_operators_are_enough_where_the_third_is_weaker(case):
    found = two_and_a_weak_third(case, 3)
    evidence = case.weigh(found, min_effect=0.3)
    effect = (evidence.only_feature[0] - evidence.only_control[0]) / evidence.n_control[0]
    assert effect[1] < 0.3 < effect[0]  # it does not agree, but it is not shown to contradict
    assert (evidence.grade[0], evidence.reason[0]) == ("causal", "causal")
    assert case.weigh(found, min_effect=0.3, agree=3).grade[0] != "causal"


def test_an_operator_that_is_shown_to_do_nothing_contradicts(case):
    evidence = case.weigh(two_and_a_weak_third(case, 10**6))
    assert (evidence.fixed[0] > 10).tolist() == [True, False, True]
    assert (evidence.grade[0], evidence.reason[0], bool(evidence.flagged[0])) == ("context", "disagree", False)


def test_an_operator_that_could_not_be_applied_does_not_contradict(case):
    after = as_if_never_there(case)
    found = case.answers(after)
    after_of, control_of = found.after.copy(), found.control.copy()
    after_of[:, 1] = control_of[:, 1] = -1
    evidence = case.weigh(replace(found, after=after_of, control=control_of))
    assert evidence.n_control[0, 1] == 0
    assert evidence.grade[0] == "causal"


def test_errors_that_go_without_a_control_prove_nothing_and_are_not_said_to_stay(case):
    after = as_if_never_there(case)
    found = case.answers(after)
    alone = case.weigh(replace(found, control=np.full_like(found.control, -1)))  # images of one region
    assert (alone.fixed[0] > 10).all()
    assert (alone.grade[0], alone.reason[0], bool(alone.flagged[0])) == ("undecided", "inconclusive", False)
    control = found.control.copy()
    kept = np.flatnonzero(control[:, 0] >= 0)[:4]
    control[np.setdiff1d(np.arange(len(control)), kept)] = -1
    few = case.weigh(replace(found, control=control))
    assert (few.n_control[0] <= 4).all()
    assert few.reason[0] == "inconclusive"


def test_an_average_is_only_as_sure_as_the_class_it_rests_on():
    """Of class 0, 300 images never had the feature, but 3 lost it; of class 1, where 100 lost it, a single one."""
    scores = SimpleNamespace(n_in=np.array([[3, 100, 50]]), pull_class=np.array([2]))
    after = np.array([[[3, 100, 50]]])
    counts = {"n_after": after, "right_after": np.array([[[2, 60, 30]]])}
    for right in (0, 1):
        never = Never(np.array([[300, 1, 40]]), np.array([[290, right, 30]]))
        value, low, high = (float(x[0, 0]) for x in shortfalls(counts, scores, never, False))
        assert value == pytest.approx((3 * 290 / 300 + 100 * right) / 103 - 62 / 103)
        assert low < 0 < high  # not known
        alone = newcombe(*(np.array(x) for x in (right, 1, 62, 103)))
        assert (low, high) == pytest.approx(alone, abs=0.05)
    equal = Never(np.array([[50, 50, 40]]), np.array([[45, 45, 30]]))
    halves = counts | {"n_after": np.array([[[40, 40, 50]]]), "right_after": np.array([[[30, 30, 30]]])}
    _, low, high = (float(x[0, 0]) for x in shortfalls(halves, scores, equal, False))
    assert (low, high) == pytest.approx(newcombe(*(np.array(x) for x in (90, 100, 60, 80))), abs=1e-9)


def test_an_object_whose_removal_leaves_nothing_to_see_is_core():
    """Two of three classes: the empty image is called class 0, so errors of class 0 go; class 2 is lost with it."""
    case = Case(with_it=(0.2, 0.9, 0.9), without_it=(0.9, 0.9, 0.8))
    evidence = case.weigh(case.answers(lambda i, o: case.label[i] if case.label[i] != 2 else 0))
    assert (evidence.fixed[0] > 10).all()
    assert (evidence.grade[0], evidence.reason[0], bool(evidence.flagged[0])) == ("core", "harm", False)


def test_removal_that_breaks_other_classes_is_no_evidence(case):
    right = case.predicted == case.label
    after = as_if_never_there(case)
    evidence = case.weigh(case.answers(lambda i, o: 2 if right[i] and case.label[i] != 2 else after(i, o)))
    assert evidence.reason[0] == "harm"


def test_a_part_of_what_is_wrong_is_no_shortcut():
    """Every other error goes, but the images stay far from those that never had the feature."""
    case = Case(n=240)
    after = as_if_never_there(case)
    evidence = case.weigh(case.answers(lambda i, o: after(i, o) if i % 2 else case.predicted[i]))
    assert (evidence.fixed[0] > 10).all()
    assert (evidence.other_shortfall[0] > 0.2).all()
    assert (evidence.grade[0], evidence.reason[0], bool(evidence.flagged[0])) == ("context", "partial", False)


def test_what_every_image_of_the_pull_class_shows_cannot_be_told_from_the_class():
    case = Case()
    always = case.label == 2
    case.has = case.has | always
    case.feature_of = np.full((len(case.label), 4), NOISE)
    case.feature_of[case.has, 0] = 0
    case.feature_of = case.feature_of.ravel()
    case.score()
    evidence = case.weigh(case.answers(lambda i, o: case.label[i] if case.label[i] != 2 else case.predicted[i]))
    assert np.isnan(evidence.pull_shortfall).all()
    assert (evidence.grade[0], evidence.reason[0], bool(evidence.flagged[0])) == ("undecided", "unproven", False)


def test_shortfalls_by_hand(case):
    after = as_if_never_there(case)
    evidence = case.weigh(case.answers(after))
    s, image = case.scores, np.flatnonzero(case.has)
    for side, classes in (("pull", [2]), ("other", [0, 1])):
        own = [i for i in image if case.label[i] in classes]
        expected = np.mean([s.right_out[0, case.label[i]] / s.n_out[0, case.label[i]] for i in own])
        found = np.mean([after(i, 0) == case.label[i] for i in own])
        assert getattr(evidence, f"{side}_shortfall")[0] == pytest.approx([expected - found] * 3, abs=1e-6)


def test_too_few_images_say_nothing():
    case = Case(n=6)  # nine images with the feature
    evidence = case.weigh(case.answers(lambda i, o: case.label[i]))
    assert (evidence.grade[0], evidence.reason[0], bool(evidence.flagged[0])) == ("undecided", "support", False)


def test_a_gap_that_chance_explains():
    case = Case(with_it=(0.6, 0.6, 0.6), without_it=(0.6, 0.6, 0.6))
    evidence = case.weigh(case.answers(lambda i, o: case.label[i]))
    assert (evidence.grade[0], evidence.reason[0]) == ("undecided", "chance")


def test_every_count(case):
    rng = np.random.default_rng(3)
    table, other = rng.integers(-1, 3, (2, len(case.label), 3))
    pasted = [2, 2, 0, 1, 2]
    found = case.answers(lambda i, o: table[i, o], lambda i, o: other[i, o], pasted)
    evidence = case.weigh(found)
    pull = int(case.scores.pull_class[0])
    assert pull == 2
    for o in range(3):
        n = dict.fromkeys(BY_OPERATOR, 0)
        for row, i in enumerate(found.image):
            a, c, y = found.after[row, o], found.control[row, o], case.label[i]
            if a < 0:
                continue
            n["n_pull_all"] += y == pull
            n["pull_right_after"] += y == pull and a == y
            if case.predicted[i] != y:
                n["n_errors"] += 1
                n["fixed"] += a == y
                if c >= 0:
                    n["n_control"] += 1
                    n["control_fixed"] += c == y
                    n["only_feature"] += a == y and c != y
                    n["only_control"] += a != y and c == y
            elif y == pull:
                n["n_pull"] += 1
                n["pull_kept"] += a == y
            else:
                n["n_other"] += 1
                n["other_kept"] += a == y
        for name in set(BY_OPERATOR) - set(RATES):
            assert getattr(evidence, name)[0, o] == n[name], name
    first = [(int(case.label[i]), int(a)) for i, a in zip(found.image, found.after[:, 0], strict=True) if a >= 0]
    assert evidence.n_after[0].tolist() == [sum(y == k for y, _ in first) for k in range(3)]
    assert evidence.right_after[0].tolist() == [sum(y == a == k for y, a in first) for k in range(3)]
    assert (evidence.n_pasted[0], evidence.induced[0]) == (5, 3)
    wrong = [r for r, i in enumerate(found.image) if case.predicted[i] != case.label[i]]
    fixed = sum(sum(found.after[r] == case.label[found.image[r]]) >= 2 for r in wrong)
    assert evidence.error_share[0] == pytest.approx(fixed / np.count_nonzero(case.predicted != case.label))


def test_images_that_may_show_a_feature_are_no_examples_of_those_without(case):
    doubtful = np.full(len(case.regions), NOISE)
    doubtful[[4 * 35 + 2, 4 * 36, 4 * 36 + 1, 4 * 100]] = 0  # images 35, 36 and 100; the last two have no feature else
    never = never_shown(case.scores, case.regions, case.zero_shot, case.feature_of, doubtful)
    free = [i for i in range(len(case.label)) if not case.has[i] and i not in (35, 36, 100)]
    for y in range(3):
        own = [i for i in free if case.label[i] == y]
        assert never.n[0, y] == len(own)
        assert never.right[0, y] == sum(case.predicted[i] == y for i in own)


def test_mcnemar_is_the_exact_two_sided_binomial():
    b, c = np.array([[0, 5], [9, 3], [4, 0]]), np.array([[0, 5], [1, 2], [0, 0]])
    p, q = mcnemar(b, c, np.ones((3, 2), bool))
    for place in np.ndindex(3, 2):
        n = int(b[place] + c[place])
        low = min(int(b[place]), int(c[place]))
        expected = min(1.0, 2 * sum(comb(n, k) for k in range(low + 1)) / 2**n)
        assert p[place] == pytest.approx(expected)
    for column in range(2):  # Benjamini-Hochberg, written out
        order = np.argsort(p[:, column])
        scaled = p[order, column] * 3 / np.arange(1, 4)
        expected = np.minimum.accumulate(scaled[::-1])[::-1].clip(max=1)
        assert q[order, column] == pytest.approx(expected)
    assert np.isnan(mcnemar(b, c, np.zeros((3, 2), bool))[0]).all()


def test_the_papers_rule_flags_what_passes_it(case):
    evidence = case.weigh(case.answers(lambda i, o: case.predicted[i]), rule="paper")
    assert bool(evidence.flagged[0]) == bool(case.scores.passes[0]) is True
    assert evidence.grade[0] == "context"


def test_no_features(case):
    nothing = score_features(case.regions, case.zero_shot, np.full(len(case.regions), NOISE), 0, ScoringConfig())
    chance = significance(
        nothing, case.regions, case.zero_shot, np.full(len(case.regions), NOISE), SignificanceConfig(), seed=0
    )
    none = np.zeros(0, int)
    found = Counterfactuals(OPS, none, none, np.zeros((0, 3)), np.zeros((0, 3)), none, none, none, none, none)
    never = never_shown(nothing, case.regions, case.zero_shot, case.feature_of, case.feature_of)
    evidence = weigh(found, nothing, chance, case.zero_shot, never, EvidenceConfig(), 0.05)
    assert len(evidence) == 0
