from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from ravl.config import FamiliesConfig, ScoringConfig, SignificanceConfig
from ravl.discovery.families import MIN_DECIDED, group, merge, split
from ravl.discovery.scoring import score_features
from ravl.discovery.significance import gap_p_values, q_values
from ravl.errors import ConfigError
from ravl.tables import NOISE, Clustering, Families, FeatureScores
from tests import oracles
from tests.test_scoring import random_world, world
from tests.test_significance import scores_of

CONFIG = FamiliesConfig()
TESTS = SignificanceConfig(permutations=1000)
NO_GAP = (0.0, 0.0, 0.0, 0.0)
MARK = (-0.6, -0.6, -0.6, 0.4)
"""Right answers that a feature of pull class 3 costs each of the classes 0 .. 2, and wins class 3."""


def clustering_of(vectors) -> Clustering:
    """Clusters with these medoids in the reduced space; without regions, which families do not look at."""
    vectors = np.asarray(vectors, np.float64)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    n, dim = vectors.shape
    return Clustering([], [], np.zeros(n), np.zeros((1, dim)), np.zeros(dim), np.eye(dim), vectors, np.zeros(n))


def direction(degrees: float) -> tuple[float, float]:
    return float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))


def scores_with(effects, pull=3, decided=40, sizes=None, images=60, empty=(), order=None) -> FeatureScores:
    """A row per effect: 60 images in and 60 out per class, half of them right outside, `effect` more or fewer inside.

    pull, decided: one for all or one each. empty: (row, class) without images inside. order: of the rows.
    """
    n = len(effects)
    n_in, n_out = np.full((n, 4), images), np.full((n, 4), images)
    right_out = np.full((n, 4), images // 2)
    right_in = np.rint(images * (0.5 + np.asarray(effects, float).reshape(n, 4) / 2)).astype(int)
    for row, y in empty:
        n_in[row, y] = right_in[row, y] = 0
    rows = np.arange(n) if order is None else np.asarray(order)
    sizes = np.arange(n, 0, -1) * 100 if sizes is None else np.asarray(sizes)
    given = {"pull_class": np.broadcast_to(pull, n), "n_decided": np.broadcast_to(decided, n), "n_regions": sizes}
    given |= {"feature": np.arange(n)}
    counts = (count[rows] for count in (n_in, right_in, n_out, right_out))
    return scores_of(*counts, **{name: column[rows] for name, column in given.items()})


def sets_of(families: Families) -> set[frozenset[int]]:
    return {frozenset(families.clusters_of(f).tolist()) for f in np.unique(families.family)}


def joined(angles, scores, config=CONFIG) -> list[int]:
    return group(clustering_of([direction(a) for a in angles]), scores, config, TESTS).family.tolist()


# --- looking alike --------------------------------------------------------------------------------------------------


def test_clusters_that_look_alike_are_one_feature():
    found = group(clustering_of([direction(0), direction(200), direction(50)]), scores_with([NO_GAP] * 3), CONFIG)
    assert found.family.tolist() == [0, 1, 0]  # cos 50 degrees = 0.64
    assert found.reason.tolist() == ["near", "", "near"]
    assert found.n_features == 2
    assert joined([0, 200, 56], scores_with([NO_GAP] * 3)) == [0, 1, 2]  # cos 56 degrees = 0.56
    assert joined([0, 200, 56], scores_with([NO_GAP] * 3), FamiliesConfig(near=0.5)) == [0, 1, 0]


def test_a_chain_does_not_become_one_feature():
    """Each lies near the next, the last one points away from the first."""
    assert joined([0, 44, 90, 133], scores_with([NO_GAP] * 4)) == [0, 0, 1, 1]
    # single linkage would join all; the closest pair comes first, and then 90 lies near only one of them
    assert joined([0, 40, 90], scores_with([NO_GAP] * 3)) == [0, 0, 1]
    assert joined([0, 50, 90], scores_with([NO_GAP] * 3)) == [0, 1, 1]


def test_near_clusters_that_pull_to_different_classes_stay_apart():
    scores = scores_with([MARK] * 2, pull=[3, 1])
    assert joined([0, 10], scores) == [0, 1]
    few = scores_with([NO_GAP] * 2, pull=[3, 1], decided=[10, MIN_DECIDED - 1], images=12)
    assert joined([0, 10], few) == [0, 0]  # four errors say little about the class they pull to


def test_near_clusters_of_which_only_one_decides_errors_stay_apart():
    """The mark shows in 162 errors and decides most of them, the object in 120 and decides hardly any."""
    assert joined([0, 10], scores_with([MARK, NO_GAP], decided=[150, 3])) == [0, 1]
    assert joined([0, 10], scores_with([NO_GAP, MARK], decided=[3, 150])) == [0, 1]
    assert joined([0, 10], scores_with([MARK, NO_GAP], decided=[150, 60])) == [0, 0]
    assert joined([0, 10], scores_with([MARK] * 2, decided=[0, 0])) == [0, 0]


# --- acting alike ---------------------------------------------------------------------------------------------------


def test_clusters_of_equal_effect_are_one_feature():
    """One mark in four clusters, as one per position: they look like strangers (cosine 0.17 to each other)."""
    found = group(clustering_of([direction(0), direction(80)]), scores_with([MARK] * 2), CONFIG, TESTS)
    assert found.family.tolist() == [0, 0]
    assert found.reason.tolist() == ["alike", "alike"]


@pytest.mark.parametrize(
    ("scores", "angle", "why"),
    [
        (scores_with([MARK, (-0.6, 0.6, -0.6, 0.4)]), 80, "the gaps differ"),
        (scores_with([MARK] * 2, pull=[3, 1]), 80, "different pull classes"),
        (scores_with([MARK] * 2, pull=-1, decided=0), 80, "no error is decided"),
        (scores_with([MARK] * 2, decided=[40, MIN_DECIDED - 1]), 80, "too few errors are decided"),
        (scores_with([MARK, tuple(g / 20 for g in MARK)]), 80, "the second gap is within chance"),
        (scores_with([MARK] * 2), 95, "they point apart"),
        (scores_with([MARK] * 2, empty=[(1, 0)]), 80, "three classes in common"),
    ],
)
def test_clusters_that_might_not_act_alike_stay_apart(scores, angle, why):
    strict = FamiliesConfig(alike=0.9)
    assert joined([0, angle], scores, strict) == [0, 1], why


@pytest.mark.parametrize("seed", range(6))
def test_chance_alone_joins_nothing_by_its_effect(seed):
    """Features that are shown whatever the errors are, in two to four classes, all of them ever so near to acting."""
    regions, zero_shot, feature, n = random_world(seed, 400, 6, 2 + seed % 3, 24)
    scores = score_features(regions, zero_shot, feature, n, ScoringConfig())
    apart = clustering_of(np.eye(n))
    assert group(apart, scores, FamiliesConfig(alike=0), TESTS).n_features == n


def test_a_mark_split_over_four_clusters_is_put_together():
    """From regions and answers: one mark, a quarter of its regions in each of clusters 0 .. 3, objects in 4 .. 7."""
    rng = np.random.default_rng(0)
    n, n_classes = 800, 4
    label = np.arange(n) % n_classes
    marked, place = rng.random(n) < 0.5, rng.integers(0, 4, n)
    called = np.where(marked & (rng.random(n) < 0.8), 0, label)
    called = np.where(rng.random(n) < 0.1, rng.integers(0, n_classes, n), called)
    cluster = np.full((n, 4), NOISE)
    region = rng.dirichlet(np.ones(n_classes), (n, 4))
    cluster[np.arange(n), place] = np.where(marked, place, NOISE)
    region[np.arange(n)[marked], place[marked]] = (0.97, 0.01, 0.01, 0.01)
    cluster[np.arange(n), (place + 1) % 4] = 4 + label
    image = 0.6 * np.eye(n_classes)[called] + 0.1
    regions, zero_shot = world(image, region.reshape(-1, n_classes), np.repeat(np.arange(n), 4), label, n_classes)
    scores = score_features(regions, zero_shot, cluster.ravel(), 8, ScoringConfig())
    found = group(clustering_of(np.eye(8) + 0.02), scores, CONFIG, TESTS)
    assert sets_of(found) == {frozenset(range(4)), *(frozenset([c]) for c in range(4, 8))}
    assert found.reason.tolist() == ["alike"] * 4 + [""] * 4
    assert found.clusters_of(0).tolist() == [0, 1, 2, 3]  # the largest feature now


# --- every rule at once, against the definition ---------------------------------------------------------------------


def random_parts(seed: int):
    """Clusters of a few looks, effects and pull classes, with gaps and decisions that now and then contradict them."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 12))
    vectors = rng.normal(size=(3, 5))[rng.integers(0, 3, n)] + rng.normal(scale=0.6, size=(n, 5))
    kinds = np.array([MARK, NO_GAP, (0.5, -0.6, -0.5, -0.5), (-0.6, -0.5, 0.4, -0.6)])
    effects = kinds[rng.integers(0, 4, n)] * rng.uniform(0.1, 1, (n, 1)) + rng.normal(scale=0.15, size=(n, 4))
    empty = [(c, y) for c in range(n) for y in range(4) if rng.random() < 0.1]
    decided = np.where(rng.random(n) < 0.5, rng.integers(0, 9, n), rng.integers(20, 60, n))
    pull = np.where(decided == 0, -1, rng.choice([3, 3, 3, 0], n))
    order, sizes = rng.permutation(n), rng.integers(20, 200, n)
    effects = effects.clip(-0.95, 0.8)
    decided = np.minimum(decided, scores_with(effects, images=30, empty=empty).n_errors)
    return clustering_of(vectors), scores_with(effects, pull, decided, sizes, 30, empty, order)


def parts_of(clustering: Clustering, scores: FeatureScores) -> list[oracles.Part]:
    q = q_values(scores, gap_p_values(scores, TESTS, 0), TESTS)
    parts = []
    for c in range(clustering.n_clusters):
        row = scores.row_of(c)
        counts = int(scores.n_decided[row]), int(scores.n_errors[row])
        pull, beyond = int(scores.pull_class[row]), bool(q[row] < TESTS.alpha)
        parts.append(oracles.Part(clustering.medoid_vector[c].tolist(), scores.class_gap[row], pull, *counts, beyond))
    return parts


@pytest.mark.parametrize("seed", range(40))
def test_families_equal_the_definition(seed):
    clustering, scores = random_parts(seed)
    config = FamiliesConfig(near=(0.6, 0.75)[seed % 2], alike=(0.8, 0.6, 0.95)[seed % 3])
    found = group(clustering, scores, config, TESTS)
    parts = parts_of(clustering, scores)
    assert sets_of(found) == oracles.families(parts, config.near, config.alike)
    for members in sets_of(found):
        for a, b in combinations(members, 2):
            assert oracles.margin(parts[a], parts[b], config.near, config.alike) >= -1e-6


def test_the_definition_was_tested_on_all_its_branches():
    reasons = [group(*random_parts(seed), CONFIG, TESTS).reason.tolist() for seed in range(40)]
    assert {r for row in reasons for r in row} == {"", "near", "alike"}


@pytest.mark.parametrize("seed", range(8))
def test_feature_ids_fall_with_the_number_of_regions(seed):
    clustering, scores = random_parts(seed)
    found = group(clustering, scores, CONFIG, TESTS)
    size = {c: int(scores.n_regions[scores.row_of(c)]) for c in range(clustering.n_clusters)}
    keys = [(-sum(size[c] for c in found.clusters_of(f)), min(found.clusters_of(f))) for f in range(found.n_features)]
    assert keys == sorted(keys)
    assert found.family.dtype == np.int32


def test_equal_sizes_keep_the_order_of_the_clusters():
    scores = scores_with([NO_GAP] * 4, sizes=[5, 5, 5, 5])
    assert joined([0, 90, 180, 270], scores) == [0, 1, 2, 3]
    assert joined([0, 180, 0, 180], scores_with([NO_GAP] * 4, sizes=[5, 5, 5, 5])) == [0, 1, 0, 1]
    assert joined([0, 180, 90, 180], scores_with([NO_GAP] * 4, sizes=[9, 5, 5, 5])) == [1, 0, 2, 0]


@pytest.mark.parametrize("seed", range(5))
def test_the_names_of_the_clusters_do_not_matter(seed):
    clustering, scores = random_parts(seed)
    n = clustering.n_clusters
    new = np.random.default_rng(seed).permutation(n)
    moved = clustering_of(clustering.medoid_vector[np.argsort(new)])
    changed = {name: getattr(scores, name) for name in FeatureScores.__dataclass_fields__}
    renamed = FeatureScores(**changed | {"feature": new[scores.feature]})
    first, second = group(clustering, scores, CONFIG, TESTS), group(moved, renamed, CONFIG, TESTS)
    assert {frozenset(new[list(s)].tolist()) for s in sets_of(first)} == sets_of(second)
    assert first.reason.tolist() == second.reason[new].tolist()


def test_clusters_stay_alone_where_that_is_asked_for():
    found = group(clustering_of([direction(0)] * 3), scores_with([MARK] * 3, sizes=[1, 2, 3]), FamiliesConfig(False))
    assert found.family.tolist() == [0, 1, 2]
    assert found.reason.tolist() == [""] * 3


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_clusters_to_join(n):
    clustering = clustering_of(np.eye(2)[:n])
    found = group(clustering, scores_with([NO_GAP] * n), CONFIG, TESTS)
    assert found.family.tolist() == list(range(n))
    assert found.n_features == n
    assert found.features_of(np.full(3, NOISE)).tolist() == [NOISE] * 3
    assert found.clusters_of(5).tolist() == []


def test_scores_of_other_clusters_are_refused():
    clustering = clustering_of(np.eye(3))
    with pytest.raises(ValueError, match=r"every cluster 0 .. 2 once, got 2 features"):
        group(clustering, scores_with([NO_GAP] * 2), CONFIG)
    gappy = {name: getattr(scores_with([NO_GAP] * 3), name) for name in FeatureScores.__dataclass_fields__}
    with pytest.raises(ValueError, match="got other ids"):
        group(clustering, FeatureScores(**gappy | {"feature": [0, 1, 3]}), CONFIG)
    with pytest.raises(ConfigError, match="near must lie in"):
        FamiliesConfig(near=1.5)


# --- a person's edits -----------------------------------------------------------------------------------------------


def families_of(*family: int) -> Families:
    return Families(np.array(family, int), np.full(len(family), ""))


def test_merging_leaves_all_other_ids_alone():
    before = families_of(0, 1, 2, 1, 3)
    after = merge(before, [3, 1])
    assert after.family.tolist() == [0, 4, 2, 4, 4]
    assert after.reason.tolist() == ["", "edited", "", "edited", "edited"]
    assert after.n_features == 5
    assert after.clusters_of(1).tolist() == after.clusters_of(3).tolist() == []  # retired
    assert before.family.tolist() == [0, 1, 2, 1, 3]


def test_splitting_leaves_all_other_ids_alone():
    after = split(Families(np.array([0, 1, 0, 2, 0]), np.array(["near", "", "near", "", "alike"])), 0)
    assert after.family.tolist() == [3, 1, 4, 2, 5]
    assert after.reason.tolist() == [""] * 5


def test_no_edit_gives_a_retired_id_again():
    step, seen = families_of(0, 1, 2, 3), set(range(4))
    for edit in ((merge, [0, 1]), (split, 4), (merge, [2, 6]), (merge, [7, 5]), (split, 8)):
        before = step
        step = edit[0](step, edit[1])
        fresh = set(step.family.tolist()) - set(before.family.tolist())
        assert fresh
        assert not fresh & seen
        seen |= fresh
    assert sorted(step.family.tolist()) == [3, 9, 10, 11]


def test_edited_features_can_be_scored():
    regions, zero_shot, label, n = random_world(1)
    families = split(merge(families_of(*range(n)), [1, 4]), 6)
    scores = score_features(regions, zero_shot, families.features_of(label), families.n_features, ScoringConfig())
    assert scores.n_regions[scores.row_of(1)] == 0  # retired
    assert scores.n_regions[scores.row_of(7)] == np.count_nonzero(label == 1)


@pytest.mark.parametrize(
    ("edit", "argument", "message"),
    [
        (merge, [1], r"at least two to merge, got \[1\]"),
        (merge, [1, 1], "at least two"),
        (merge, [1, 7], "one of 0, 1, 2, got 7"),
        (split, 7, "one of 0, 1, 2, got 7"),
        (split, NOISE, "one of 0, 1, 2, got -1"),
        (split, 1, "at least two clusters to be split, got 1, which is one cluster"),
    ],
)
def test_edits_that_cannot_be_made(edit, argument, message):
    with pytest.raises(ConfigError, match=message):
        edit(families_of(0, 1, 2, 0), argument)


def test_nothing_can_be_edited_where_there_is_nothing():
    with pytest.raises(ConfigError, match="none, as there is no cluster, got 0"):
        split(families_of(), 0)


# --- the record -----------------------------------------------------------------------------------------------------


def test_regions_take_the_feature_of_their_cluster():
    families = families_of(2, 0, 2)
    assert families.features_of(np.array([0, NOISE, 2, 1])).tolist() == [2, NOISE, 2, 0]
    assert families.features_of(np.zeros(0, int)).dtype == np.int32
    assert families.n_features == 3
    assert families.clusters_of(2).tolist() == [0, 2]
    for wrong in ([3], [-2]):
        with pytest.raises(ValueError, match=r"label must lie in -1 .. 2, got"):
            families.features_of(np.array(wrong))


@pytest.mark.parametrize(
    ("family", "reason", "message"),
    [
        ([0, -1], ["", ""], "at least 0, got -1"),
        ([0, 0.5], ["", ""], "whole numbers"),
        ([0, 1], [""], r"reason must have shape \(2,\)"),
        ([0, 0], ["near", "far"], "near, alike, edited or empty, got 'far'"),
    ],
)
def test_families_that_cannot_be(family, reason, message):
    with pytest.raises(ValueError, match=message):
        Families(np.array(family), np.array(reason))
