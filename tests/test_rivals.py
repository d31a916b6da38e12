from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ravl.benchmark import rivals, slices
from ravl.benchmark.rivals import Audit, Ranked
from ravl.tables import NOISE, Exemplars
from tests import oracles
from tests.test_scoring import random_world, world


def audit_of(regions, zero_shot, label, dim: int = 3, seed: int = 0) -> Audit:
    rng = np.random.default_rng(seed)
    closeness, vectors = rng.random(len(regions)), rng.normal(size=(regions.n_images, dim))
    return Audit.of(regions, zero_shot, label, closeness, vectors)


def random_audit(seed: int, **sizes) -> Audit:
    regions, zero_shot, feature, _ = random_world(seed, **sizes)
    return audit_of(regions, zero_shot, feature, seed=seed)


def planted() -> Audit:
    """Three classes. Feature 0, a mark, sits in half of the images of every class and makes all of them class 2.

    Feature 1 is the object, in every image. Feature 2 is a background in every third image, whatever the answer.
    """
    label = np.repeat([0, 1, 2], 12)
    marked = np.tile([True, False], 18)
    called = np.where(marked, 2, label)
    called[(label == 2) & (np.arange(36) % 4 == 1)] = 0  # the target is not always read without the mark
    rows, owner, feature = [], [], []
    for i in range(36):
        cells = [([1, 1, 8], 0)] if marked[i] else []
        cells += [(np.eye(3)[label[i]] * 3 + 1, 1)] + ([([1, 1, 1], 2)] if i % 3 == 0 else [])
        rows += [row for row, _ in cells]
        feature += [f for _, f in cells]
        owner += [i] * len(cells)
    return audit_of(*world(np.eye(3)[called] * 5 + 1, rows, owner, label, 3), np.array(feature))


# --- the order of each method against its definition -----------------------------------------------------------------


def check_order(ranked: Ranked, score: dict[int, float]) -> None:
    """Features by falling score, undefined last, ties by id."""
    want = sorted(score, key=lambda c: (math.isnan(score[c]), -score[c] if score[c] == score[c] else 0, c))
    rounded = {c: round(s, 5) if s == s else s for c, s in score.items()}
    got = [rounded[c] for c in ranked.order.tolist()]
    np.testing.assert_array_equal(got, [rounded[c] for c in want])
    assert sorted(ranked.order.tolist()) == sorted(score)


def accuracies(audit: Audit, feature: int):
    """Per class (n_in, right_in, n_out, right_out), counted with loops."""
    return oracles.score(audit.regions, audit.zero_shot, audit.label, feature).counts


@pytest.mark.parametrize("seed", range(6))
def test_the_unweighted_gap_equals_its_definition(seed):
    audit = random_audit(seed, n_images=20)
    score = {}
    for c in audit.scores.feature.tolist():
        sides = [(a / n, b / m) for n, a, m, b in accuracies(audit, c) if n and m]
        score[c] = sum(abs(a - b) for a, b in sides) if sides else math.nan
    check_order(rivals.unweighted_gap(audit), score)


@pytest.mark.parametrize("seed", range(6))
def test_the_weighted_gap_equals_its_definition(seed):
    audit = random_audit(seed, n_images=20)
    features = audit.scores.feature.tolist()
    check_order(
        rivals.weighted_gap(audit),
        {c: oracles.score(audit.regions, audit.zero_shot, audit.label, c).gap for c in features},
    )


@pytest.mark.parametrize("seed", range(6))
def test_the_paper_ranks_and_flags_as_the_scores_do(seed):
    audit = random_audit(seed)
    ranked = rivals.gap_and_influence(audit)
    assert ranked.order.tolist() == audit.scores.feature.tolist()
    assert ranked.flagged.tolist() == audit.scores.passes.tolist()
    assert ranked.pull.tolist() == audit.scores.pull_class.tolist()


def trove_pairs(audit: Audit, feature: int) -> list[tuple[float, bool]]:
    """(ECS + SBS, passes) of every class where both are defined: TRoVe's two scores, written with loops."""
    zero_shot, regions = audit.zero_shot, audit.regions
    n_classes = zero_shot.image.shape[1]
    predicted = [oracles.first_best([float(p) for p in row]) for row in zero_shot.image]
    pairs = []
    for y, (n, a, m, b) in enumerate(accuracies(audit, feature)):
        confidence = [
            float(zero_shot.region[r, predicted[i]])
            for r, i in enumerate(regions.image.tolist())
            if audit.label[r] == feature and zero_shot.label[i] == y and predicted[i] != y
        ]
        if n and m and confidence:
            fall, bias = b / m - a / n, sum(confidence) / len(confidence)
            pairs.append((fall + bias, fall > 0.1 and bias > 1 / n_classes and 0.15 <= n / (n + m) <= 0.85))
    return pairs


@pytest.mark.parametrize("seed", range(12))
def test_trove_equals_its_definition(seed):
    audit = random_audit(seed, n_images=30, n_classes=3)
    ranked = rivals.trove(audit)
    score, passing = {}, set()
    for c in audit.scores.feature.tolist():
        pairs = trove_pairs(audit, c)
        good = [s for s, passes in pairs if passes]
        passing |= {c} if good else set()
        score[c] = max(good) + 1000 if good else max((s for s, _ in pairs), default=math.nan)
    check_order(ranked, score)
    assert set(ranked.order[ranked.flagged].tolist()) == passing


def test_trove_flags_somewhere_in_these_worlds_and_not_everywhere():
    shares = [rivals.trove(random_audit(seed, n_images=30, n_classes=3)).flagged.mean() for seed in range(12)]
    assert 0.05 < np.mean(shares) < 0.95


def test_trove_does_not_judge_what_is_nearly_everywhere():
    # 20 images of each class, the feature in 19: 95 % of the class
    label, owner = np.repeat([0, 1], 20), np.repeat(np.arange(40), 2)
    called = np.where(np.arange(40) % 20 < 19, 1, 0)
    feature = np.array([[0 if i % 20 < 19 else NOISE, 1] for i in range(40)]).reshape(-1)
    rows = [row for i in range(40) for row in ([1, 9], [1, 1])]
    audit = audit_of(*world(np.eye(2)[called] + 0.1, rows, owner, label, 2), feature)
    ranked = rivals.trove(audit)
    assert ranked.order[0] == 0  # the best score, but
    assert not ranked.flagged.any()


# --- what an answer holds --------------------------------------------------------------------------------------------


def test_the_planted_feature_is_first_for_every_method_of_regions_but_chance():
    audit = planted()
    for method in rivals.RANKERS:
        ranked = method(audit)
        assert ranked.order[0] == 0, ranked.name
        assert ranked.pull[0] == 2, ranked.name
        assert ranked.flagged[0], ranked.name


def test_members_are_the_features_regions_nearest_to_the_medoid_first():
    audit = random_audit(3)
    ranked = rivals.weighted_gap(audit)
    for feature, members in zip(ranked.order, ranked.members, strict=True):
        assert sorted(members.tolist()) == np.flatnonzero(audit.label == feature).tolist()
        assert np.all(np.diff(audit.closeness[members]) <= 0)


def test_methods_without_a_rule_flag_their_first_feature_only():
    audit = random_audit(0)
    for ranked in (rivals.random_order(audit, 1), rivals.unweighted_gap(audit), rivals.weighted_gap(audit)):
        assert ranked.flagged.tolist() == [True] + [False] * (len(ranked.order) - 1)


def test_a_random_order_depends_on_its_seed_alone():
    audit = random_audit(0)
    orders = [tuple(rivals.random_order(audit, seed).order.tolist()) for seed in range(20)]
    assert len(set(orders)) > 10
    assert rivals.random_order(audit, 5).order.tolist() == list(orders[5])


@pytest.mark.parametrize("method", [*rivals.RANKERS, lambda audit: rivals.random_order(audit, 0)])
def test_an_audit_without_features_gives_an_empty_answer(method):
    regions, zero_shot, feature, _ = random_world(0)
    ranked = method(audit_of(regions, zero_shot, np.full(len(feature), NOISE)))
    assert len(ranked.order) == len(ranked.members) == len(ranked.flagged) == len(ranked.pull) == 0


@pytest.mark.parametrize("method", rivals.RANKERS)
def test_one_class_without_errors_is_answered(method):
    regions, zero_shot = world(np.ones((4, 1)), np.ones((8, 1)), np.repeat(np.arange(4), 2), np.zeros(4, int), 1)
    ranked = method(audit_of(regions, zero_shot, np.array([0, 0, 0, 1, 1, 1, 1, NOISE])))
    assert sorted(ranked.order.tolist()) == [0, 1]
    assert ranked.pull.tolist() == [-1, -1]


def test_columns_that_do_not_fit_are_refused():
    regions, zero_shot, feature, _ = random_world(0)
    with pytest.raises(ValueError, match="one value per region"):
        Audit.of(regions, zero_shot, feature, np.zeros(3), np.zeros((regions.n_images, 2)))
    with pytest.raises(ValueError, match=r"image_vec must have shape \(60, D\)"):
        Audit.of(regions, zero_shot, feature, np.zeros(len(regions)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"lengths \[1, 2\]"):
        Ranked("x", np.array([0]), (np.array([0]),), np.array([0, 1]), np.array([True]))


# --- methods of images -----------------------------------------------------------------------------------------------


def images_of_blobs(seed: int = 0, n: int = 200) -> tuple[Audit, np.ndarray]:
    """Two classes; in class 0 a quarter of the images, a blob of their own, is called 1; single errors elsewhere."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    failing = (label == 0) & (np.arange(n) % 8 == 0)
    called = np.where(failing | (np.arange(n) % 50 == 2), 1 - label, label)
    vectors = rng.normal(0, 0.3, (n, 6)) + np.where(label == 1, 2.0, 0)[:, None] * np.eye(6)[0]
    vectors += failing[:, None] * 3 * np.eye(6)[1]
    regions, zero_shot = world(np.eye(2)[called] * 8 + 1, np.ones((n, 2)), np.arange(n), label, 2)
    audit = Audit.of(regions, zero_shot, np.zeros(n, int), np.zeros(n), vectors.astype(np.float32))
    return audit, failing


@pytest.mark.parametrize("method", [lambda audit: slices.domino(audit, 0), slices.failure_directions])
def test_methods_of_images_find_the_failing_blob(method):
    audit, failing = images_of_blobs(n=800)
    ranked = method(audit)
    assert ranked.of_images
    assert failing[ranked.members[0][:10]].all()
    assert ranked.pull[0] == 1
    assert ranked.flagged.tolist() == [True] + [False] * (len(ranked.order) - 1)


def test_the_likelihood_of_the_mixture_never_falls_and_its_shares_are_probabilities():
    audit, _ = images_of_blobs()
    truth, prediction = np.eye(2)[audit.zero_shot.label], audit.zero_shot.image.astype(float)
    fit = slices._fit_mixture(audit.image_vec.astype(float), truth, prediction, np.random.default_rng(0))
    assert len(fit.log_likelihood) > 2
    assert np.all(np.diff(fit.log_likelihood) > -1e-6)
    np.testing.assert_allclose(np.exp(fit.log_responsibility).sum(1), 1)
    used = np.exp(fit.log_responsibility).sum(0) > 1e-3
    for share in (fit.true_share, fit.predicted_share):
        np.testing.assert_allclose(share[used].sum(1), 1, atol=1e-6)


def test_the_density_of_the_mixture_equals_the_formula():
    rng = np.random.default_rng(0)
    z, mean, variance = rng.normal(size=(5, 3)), rng.normal(size=(4, 3)), rng.uniform(0.5, 2, (4, 3))
    got = slices._log_density(z, mean, variance)
    for i in range(5):
        for s in range(4):
            want = sum(
                -((float(z[i, d]) - float(mean[s, d])) ** 2) / (2 * float(variance[s, d]))
                - math.log(2 * math.pi * float(variance[s, d])) / 2
                for d in range(3)
            )
            assert got[i, s] == pytest.approx(want)


def test_a_slice_shows_the_images_that_are_likeliest_its_own_and_at_least_ten():
    audit, _ = images_of_blobs()
    ranked = slices.domino(audit, 0)
    assert set(np.concatenate(ranked.members).tolist()) == set(range(200))
    for members in ranked.members:
        assert len(set(members.tolist())) == len(members) >= slices.LEAST_IMAGES


def test_a_class_without_errors_has_no_direction():
    regions, zero_shot = world(np.eye(2)[[0] * 20 + [1] * 20] + 0.1, np.ones((40, 2)), np.arange(40), [0] * 40, 2)
    audit = audit_of(regions, zero_shot, np.zeros(40, int))
    ranked = slices.failure_directions(audit)
    assert ranked.order.tolist() == [0]  # class 1 has no image at all
    assert set(ranked.members[0].tolist()) <= set(range(40))
    perfect = audit_of(*world(np.eye(2)[[0, 1] * 10] + 0.1, np.ones((20, 2)), np.arange(20), [0, 1] * 10, 2), [0] * 20)
    assert len(slices.failure_directions(perfect).order) == 0


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000))
def test_random_audits_are_answered_by_all_methods_of_images(seed):
    audit = random_audit(seed, n_images=24, n_classes=2)
    for ranked in (slices.domino(audit, seed), slices.failure_directions(audit)):
        assert all(len(members) for members in ranked.members)
        assert all(members.max() < 24 for members in ranked.members)
        assert ((ranked.pull >= -1) & (ranked.pull < 2)).all()


# --- ours ------------------------------------------------------------------------------------------------------------


def test_the_permutation_test_alone_flags_what_chance_does_not_explain_and_ranks_by_excess():
    audit = planted()
    order = audit.scores.feature.tolist()
    told = {  # feature -> supported, q, excess gap, replicated
        0: (True, 0.04, 0.5, -1),
        1: (True, float("nan"), float("nan"), -1),
        2: (False, 0.01, 0.9, -1),
    }
    supported, q, excess, replicated = (np.array([told[c][k] for c in order]) for k in range(4))
    chance = SimpleNamespace(supported=supported, q=q, excess_gap=excess, replicated=replicated)
    ranked = rivals.permutation_only(audit.scores, chance, audit.label, audit.closeness, 0.05)
    assert ranked.order.tolist() == [0, 2, 1]
    assert ranked.flagged.tolist() == [True, False, False]
    assert ranked.pull[0] == 2
    chance.replicated = np.where(np.array(order) == 0, 0, -1)  # not found in both halves
    assert not rivals.permutation_only(audit.scores, chance, audit.label, audit.closeness, 0.05).flagged.any()


def test_ours_takes_the_audits_order_and_shows_its_exemplars_first():
    audit = planted()
    members = np.flatnonzero(audit.label == 0)
    shown = members[[5, 2]]
    exemplars = Exemplars([0, 0], shown, audit.regions.image[shown], [0, 0], [2, 1], [2, 1], [2, 1])
    evidence = SimpleNamespace(feature=np.array([0, 2, 1]), flagged=np.array([True, False, False]))
    ranked = rivals.with_evidence(audit.scores, evidence, exemplars, audit.label, audit.closeness)
    assert ranked.order.tolist() == [0, 2, 1]
    assert ranked.flagged.tolist() == [True, False, False]
    assert ranked.members[0][:2].tolist() == shown.tolist()
    assert sorted(ranked.members[0].tolist()) == members.tolist()
    assert np.all(np.diff(audit.closeness[ranked.members[0][2:]]) <= 0)
    assert ranked.pull.tolist() == [int(audit.scores.pull_class[audit.scores.row_of(c)]) for c in (0, 2, 1)]
