from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ravl.config import ScoringConfig
from ravl.discovery.scoring import best_for_class, best_region, class_gaps, pull_class_name, score_features
from ravl.tables import NOISE, FeatureScores, Regions, ZeroShot, columns
from tests import oracles


def probabilities(rows, n_classes: int):
    rows = np.asarray(rows, float).reshape(-1, n_classes)
    return rows / rows.sum(1, keepdims=True)


def world(image_rows, region_rows, owner, label, n_classes):
    """Probabilities from weights, one row per image and per region; `owner` is the image of each region."""
    owner = np.asarray(owner, np.int32)
    regions = Regions(owner, np.tile([0, 0, 1, 1], (len(owner), 1)), np.full(len(owner), -1), len(label))
    return regions, ZeroShot(
        probabilities(image_rows, n_classes), probabilities(region_rows, n_classes), np.asarray(label)
    )


@st.composite
def worlds(draw, max_images: int = 9):
    """Small worlds with ties, images of no, one or several regions, empty sides, unused classes and features."""
    n_classes, n_images, n_features = draw(st.integers(1, 3)), draw(st.integers(0, max_images)), draw(st.integers(0, 3))
    owner = [i for i in range(n_images) for _ in range(draw(st.integers(0, 3)))]
    weights = st.lists(st.integers(1, 4), min_size=n_classes, max_size=n_classes)
    image_rows = [draw(weights) for _ in range(n_images)]
    region_rows = [draw(weights) for _ in owner]
    label = [draw(st.integers(0, n_classes - 1)) for _ in range(n_images)]
    feature = np.array([draw(st.integers(NOISE, n_features - 1)) for _ in owner], int)
    return (*world(image_rows, region_rows, owner, label, n_classes), feature, n_features)


def random_world(seed: int, n_images: int = 60, per_image: int = 4, n_classes: int = 4, n_features: int = 6):
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(n_images), per_image)
    feature = rng.integers(NOISE, n_features, len(owner))
    rows = [rng.dirichlet(np.ones(n_classes), n) for n in (n_images, len(owner))]
    return (*world(*rows, owner, rng.integers(0, n_classes, n_images), n_classes), feature, n_features)


def check_row(scores: FeatureScores, row: int, want: oracles.Score, config: ScoringConfig) -> None:
    np.testing.assert_allclose(scores.class_gap[row], want.class_gap, atol=1e-6)
    np.testing.assert_allclose(scores.gap[row], want.gap, atol=1e-6)
    np.testing.assert_allclose(scores.influence[row], want.influence, atol=1e-6)
    for name in ("two_sided", "pull_class", "n_regions", "n_images", "n_errors", "n_decided"):
        assert getattr(scores, name)[row] == getattr(want, name), name
    counts = zip(scores.n_in[row], scores.right_in[row], scores.n_out[row], scores.right_out[row], strict=True)
    assert [tuple(map(int, c)) for c in counts] == want.counts
    assert scores.passes[row] == want.passes(config.min_influence, config.two_sided)


@settings(deadline=None, max_examples=150)
@given(worlds(), st.booleans(), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_scores_equal_the_definition(case, two_sided, least):
    regions, zero_shot, feature, n_features = case
    config = ScoringConfig(least, two_sided)
    scores = score_features(regions, zero_shot, feature, n_features, config)
    assert sorted(scores.feature) == list(range(n_features))
    for row, c in enumerate(scores.feature):
        check_row(scores, row, oracles.score(regions, zero_shot, feature, c), config)


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_the_definition_in_larger_worlds(seed):
    regions, zero_shot, feature, n_features = random_world(seed)
    scores = score_features(regions, zero_shot, feature, n_features, ScoringConfig())
    for row, c in enumerate(scores.feature):
        check_row(scores, row, oracles.score(regions, zero_shot, feature, c), ScoringConfig())
    assert np.isfinite(scores.influence).sum() >= 4  # otherwise this world would test little


@settings(deadline=None, max_examples=100)
@given(worlds())
def test_best_region_equals_the_definition(case):
    regions, zero_shot, *_ = case
    want = [oracles.best_region(regions, zero_shot, i) for i in range(regions.n_images)]
    assert best_region(regions, zero_shot).tolist() == want


def test_the_best_region_can_be_asked_for_any_class():
    regions, zero_shot = world([[1, 1]] * 3, [[3, 1], [1, 3], [2, 2], [1, 1]], [0, 0, 0, 2], [0, 0, 0], 2)
    assert best_for_class(regions, zero_shot.region, np.array([0, 0, 0])).tolist() == [0, -1, 3]
    assert best_for_class(regions, zero_shot.region, np.array([1, 1, 1])).tolist() == [1, -1, 3]


def test_rows_are_ranked_passing_first_then_by_gap_then_by_id():
    for seed in range(20):
        regions, zero_shot, feature, n_features = random_world(seed, n_images=14, n_features=9)
        scores = score_features(regions, zero_shot, feature, n_features + 2, ScoringConfig())
        keys = [
            (not p, -g if g == g else np.inf, c)
            for p, g, c in zip(scores.passes, scores.gap, scores.feature, strict=True)
        ]
        assert keys == sorted(keys)
        assert np.isnan(scores.gap[-2:]).all()  # two features without a region
        assert scores.feature[-2:].tolist() == [9, 10]


def test_equal_features_are_ranked_by_id():
    # the same two regions in every image, in three features that nobody tells apart
    regions, zero_shot = world([[3, 1], [1, 3]] * 3, [[1, 1]] * 18, np.repeat(np.arange(6), 3), [0, 0, 1, 1, 0, 1], 2)
    scores = score_features(regions, zero_shot, np.tile([2, 0, 1], 6), 3, ScoringConfig())
    assert scores.feature.tolist() == [0, 1, 2]


def planted():
    """Two classes. Feature 0 (a mark) sits in one of two regions of some images and pulls them to class 1.

    Class 0: 4 images with the mark, all called class 1; 4 without, all right. Class 1: 2 with, right; 2 without, wrong.
    """
    label = [0] * 8 + [1] * 4
    called = [1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0]
    marked = [True] * 4 + [False] * 4 + [True] * 2 + [False] * 2
    image_rows = [[4, 1] if c == 0 else [1, 4] for c in called]
    region_rows, feature = [], []
    for m in marked:
        region_rows += [[1, 9] if m else [3, 2], [1, 1]]
        feature += [0 if m else NOISE, 1]
    return world(image_rows, region_rows, np.repeat(np.arange(12), 2), label, 2), np.array(feature)


def test_a_planted_mark_has_the_scores_worked_out_by_hand():
    (regions, zero_shot), feature = planted()
    scores = score_features(regions, zero_shot, feature, 2, ScoringConfig())
    assert scores.feature.tolist() == [0, 1]
    # both classes are half in, half out: weight 1; class 0 loses everything, class 1 gains everything
    assert scores.class_gap[0].tolist() == [-1, 1]
    assert scores.gap[0] == 2
    assert scores.influence[0] == 1
    assert scores.two_sided[0]
    assert scores.passes[0]
    assert scores.pull_class[0] == 1
    assert (scores.n_images[0], scores.n_errors[0], scores.n_decided[0]) == (6, 4, 4)
    # the other feature is in every image: no side without it, so nothing is defined
    assert np.isnan(scores.gap[1])
    assert np.isnan(scores.class_gap[1]).all()
    assert np.isnan(scores.influence[1])
    assert not scores.passes[1]
    assert pull_class_name(scores, 0, ["cat", "dog"]) == "dog"


def test_the_pull_class_has_no_name_where_no_error_is_decided():
    regions, zero_shot = world([[2, 1]] * 2, [[1, 1]] * 4, [0, 0, 1, 1], [0, 0], 2)
    scores = score_features(regions, zero_shot, np.zeros(4, int), 1, ScoringConfig())
    assert scores.pull_class.tolist() == [-1]
    assert pull_class_name(scores, 0, ["cat", "dog"]) == ""
    with pytest.raises(KeyError, match="got 7"):
        pull_class_name(scores, 7, ["cat", "dog"])


def test_the_two_sided_rule_can_be_switched_off():
    # class 0 loses, class 1 has no image at all
    label, called = [0] * 6, [1, 1, 1, 0, 0, 0]
    image_rows = [[4, 1] if c == 0 else [1, 4] for c in called]
    feature = np.array([0, 1] * 3 + [NOISE, 1] * 3)
    regions, zero_shot = world(image_rows, [[1, 9], [1, 1]] * 6, np.repeat(np.arange(6), 2), label, 2)
    strict = score_features(regions, zero_shot, feature, 1 + 1, ScoringConfig())
    loose = score_features(regions, zero_shot, feature, 1 + 1, ScoringConfig(two_sided=False))
    assert not strict.two_sided.any()
    assert not strict.passes.any()
    assert loose.passes[loose.row_of(0)]


def test_images_with_one_region_decide_nothing():
    regions, zero_shot = world([[1, 3], [3, 1]], [[1, 3], [3, 1]], [0, 1], [0, 0], 2)
    scores = score_features(regions, zero_shot, np.array([0, NOISE]), 1, ScoringConfig(two_sided=False))
    assert scores.class_gap[0, 0] == -1
    assert np.isnan(scores.influence[0])
    assert scores.pull_class[0] == -1
    assert not scores.passes[0]
    assert (scores.n_errors[0], scores.n_decided[0]) == (1, 0)


@settings(deadline=None, max_examples=40)
@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_of_images_does_not_matter(case, random):
    regions, zero_shot, feature, n_features = case
    order = list(range(regions.n_images))
    random.shuffle(order)
    rows = [r for i in order for r in range(*regions.rows_of(i).indices(len(regions)))]
    owner = np.repeat(np.arange(len(order)), np.diff(regions.starts)[order] if order else [])
    moved = Regions(owner, regions.box[rows], regions.position[rows], regions.n_images)
    shuffled = ZeroShot(zero_shot.image[order], zero_shot.region[rows], zero_shot.label[order])
    first = score_features(regions, zero_shot, feature, n_features, ScoringConfig())
    second = score_features(moved, shuffled, feature[rows], n_features, ScoringConfig())
    for name, column in columns(first).items():
        np.testing.assert_array_equal(column, columns(second)[name], err_msg=name)


@pytest.mark.parametrize("seed", range(4))
def test_renumbering_the_classes_renumbers_the_columns_only(seed):
    regions, zero_shot, feature, n_features = random_world(seed, n_classes=9)
    first = score_features(regions, zero_shot, feature, n_features, ScoringConfig())
    new = np.random.default_rng(seed).permutation(9)  # class y is now called new[y]
    old = np.argsort(new)
    renamed = ZeroShot(zero_shot.image[:, old], zero_shot.region[:, old], new[zero_shot.label])
    second = score_features(regions, renamed, feature, n_features, ScoringConfig())
    for name, column in columns(first).items():
        other = columns(second)[name]
        if column.ndim == 2:
            np.testing.assert_array_equal(column, other[:, new], err_msg=name)
        elif name != "pull_class":  # its ties go to the lowest id, which is another one now
            np.testing.assert_array_equal(column, other, err_msg=name)


def test_renumbering_the_features_renumbers_the_rows_only():
    regions, zero_shot, feature, n_features = random_world(5)
    new = np.random.default_rng(0).permutation(n_features)
    first = score_features(regions, zero_shot, feature, n_features, ScoringConfig())
    second = score_features(
        regions, zero_shot, np.where(feature == NOISE, NOISE, new[feature]), n_features, ScoringConfig()
    )
    for c in range(n_features):
        a, b = first.row_of(c), second.row_of(int(new[c]))
        assert first.gap[a] == second.gap[b]
        np.testing.assert_equal(first.influence[a], second.influence[b])


def test_gaps_lie_within_one_and_empty_sides_are_undefined():
    n_in, n_out = np.array([0, 3, 2, 5]), np.array([4, 0, 6, 5])
    gap = class_gaps(n_in, np.array([0, 3, 2, 0]), n_out, np.array([1, 0, 3, 5]))
    assert np.isnan(gap[:2]).all()
    # w = 2 * 2 / 8, accuracies 1 and 1/2; then w = 1, accuracies 0 and 1
    assert gap[2:].tolist() == [0.25, -1]


@pytest.mark.parametrize("n_features", [0, 2])
def test_nothing_in_gives_nothing_out(n_features):
    regions, zero_shot = world(np.zeros((0, 3)), np.zeros((0, 3)), [], np.zeros(0, int), 3)
    scores = score_features(regions, zero_shot, np.zeros(0, int), n_features, ScoringConfig())
    assert scores.feature.tolist() == list(range(n_features))
    assert scores.class_gap.shape == (n_features, 3)
    assert np.isnan(scores.gap).all()
    assert best_region(regions, zero_shot).tolist() == []


def test_all_noise_gives_no_feature():
    regions, zero_shot, feature, _ = random_world(0)
    assert len(score_features(regions, zero_shot, np.full(len(feature), NOISE), 0, ScoringConfig())) == 0


def test_one_class_has_no_errors():
    regions, zero_shot = world(np.ones((4, 1)), np.ones((8, 1)), np.repeat(np.arange(4), 2), np.zeros(4, int), 1)
    scores = score_features(regions, zero_shot, np.array([0, 0, 0, 1, 1, 1, 1, NOISE]), 2, ScoringConfig())
    assert scores.gap.tolist() == [0, 0]
    assert np.isnan(scores.influence).all()
    assert not scores.passes.any()


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ([0, 0, 0], r"shape \(4,\), got \(3,\)"),
        ([0, 0, 0, 2], "lie in -1 .. 1, got 0 .. 2"),
        ([0, -2, 0, 0], "lie in -1 .. 1, got -2 .. 0"),
    ],
)
def test_labels_that_do_not_fit_are_refused(feature, message):
    regions, zero_shot = world([[2, 1]] * 2, [[1, 1]] * 4, [0, 0, 1, 1], [0, 0], 2)
    with pytest.raises(ValueError, match=message):
        score_features(regions, zero_shot, np.array(feature), 2, ScoringConfig())
