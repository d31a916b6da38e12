from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, ks_2samp, kstest

from ravl.config import ScoringConfig, SignificanceConfig
from ravl.discovery.scoring import class_gaps, score_features
from ravl.discovery.significance import (
    _signature as signature_of,
)
from ravl.discovery.significance import (
    chance_gap,
    eligible,
    excess_influence,
    gap_interval,
    gap_p_values,
    newcombe,
    null_gaps,
    observed_gap,
    paired_limits,
    q_values,
    significance,
    supported,
    wilson,
)
from ravl.tables import NOISE, FeatureScores, Regions, Significance, ZeroShot, columns
from tests import oracles
from tests.test_scoring import random_world, world, worlds

FAST = SignificanceConfig(permutations=1000, bootstrap=200)


def scores_of(n_in, right_in, n_out, right_out, **others) -> FeatureScores:
    """Scores from counts (F, Y); the columns that no test of the gap reads are empty."""
    n_in, right_in, n_out, right_out = (np.asarray(count) for count in (n_in, right_in, n_out, right_out))
    n = len(n_in)
    table = dict.fromkeys(("n_regions", "n_decided"), np.zeros(n, int)) | {"feature": np.arange(n)}
    table |= {"pull_class": np.full(n, -1), "influence": np.full(n, np.nan), "gap": np.full(n, np.nan)}
    table |= {"two_sided": np.zeros(n, bool), "passes": np.zeros(n, bool), "n_images": n_in.sum(1)}
    table |= {"n_errors": (n_in - right_in).sum(1), "class_gap": class_gaps(n_in, right_in, n_out, right_out)}
    return FeatureScores(**table | others, n_in=n_in, right_in=right_in, n_out=n_out, right_out=right_out)


def null_scores(rng, n_features: int, images: int, shown: float, accuracy) -> FeatureScores:
    """Features that are shown whatever the errors are. images: per class; accuracy: one per class."""
    right = rng.binomial(images, accuracy)
    n_in = rng.binomial(images, shown, (n_features, len(right)))
    right_in = rng.hypergeometric(np.broadcast_to(right, n_in.shape), images - right, n_in)
    return scores_of(n_in, right_in, images - n_in, right - right_in)


def run(case, config: SignificanceConfig = FAST, seed: int = 0) -> Significance:
    regions, zero_shot, feature, n_features = case
    scores = score_features(regions, zero_shot, feature, n_features, ScoringConfig())
    return significance(scores, regions, zero_shot, feature, config, seed)


def marked_world(seed: int = 0, n_images: int = 400, n_classes: int = 4, pull: float = 0.8, n_others: int = 3):
    """Feature 0 sits in one of four regions of half the images and pulls them to class 0; the others do nothing."""
    rng = np.random.default_rng(seed)
    label = np.arange(n_images) % n_classes
    feature = rng.integers(0, n_others + 1, (n_images, 4))
    feature[feature == 0] = NOISE
    shows = rng.random(n_images) < 0.5
    feature[shows, 0] = 0
    wrong = (label + rng.integers(1, n_classes, n_images)) % n_classes
    called = np.where(rng.random(n_images) < 0.25, wrong, label)
    called = np.where(shows & (rng.random(n_images) < pull), 0, called)
    region = rng.dirichlet(np.ones(n_classes), (n_images, 4))
    region[shows, 0] = 0.1 / n_classes + 0.9 * (np.arange(n_classes) == 0)
    image = 0.5 * np.eye(n_classes)[called] + 0.5 / n_classes
    rows = region.reshape(-1, n_classes)
    return (
        *world(image, rows, np.repeat(np.arange(n_images), 4), label, n_classes),
        feature.ravel(),
        n_others + 1,
    )


# --- two rates ------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 400), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_wilson_limits_are_the_roots_of_the_score_test(n, share, level):
    right = round(share * n)
    np.testing.assert_allclose(wilson(np.array(right), np.array(n), level), oracles.wilson(right, n, level), atol=1e-9)


@pytest.mark.parametrize(
    ("right_a", "n_a", "right_b", "n_b", "low", "high"),
    [
        (56, 70, 48, 80, 0.0524, 0.3339),
        (9, 10, 3, 10, 0.1705, 0.8090),
        (6, 7, 2, 7, 0.0582, 0.8062),
        (5, 56, 0, 29, -0.0381, 0.1926),
        (0, 10, 0, 20, -0.1611, 0.2775),
        (0, 10, 0, 10, -0.2775, 0.2775),
        (10, 10, 0, 20, 0.6791, 1.0000),
        (10, 10, 0, 10, 0.6075, 1.0000),
    ],
)
def test_newcombe_gives_the_published_limits(right_a, n_a, right_b, n_b, low, high):
    """Newcombe 1998, table II, method 10."""
    found = newcombe(np.array([right_a]), np.array([n_a]), np.array([right_b]), np.array([n_b]))
    np.testing.assert_allclose(found[:, 0], (low, high), atol=5e-5)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.floats(0, 1), st.integers(1, 60), st.floats(0, 1), st.sampled_from([0.8, 0.95]))
def test_newcombe_equals_the_definition_and_turns_around(n_a, share_a, n_b, share_b, level):
    a, b = (round(share_a * n_a), n_a), (round(share_b * n_b), n_b)
    low, high = newcombe(*map(np.array, (*a, *b)), level)
    np.testing.assert_allclose((low, high), oracles.newcombe(*a, *b, level), atol=1e-9)
    assert -1 <= low <= a[0] / n_a - b[0] / n_b <= high <= 1
    np.testing.assert_allclose(newcombe(*map(np.array, (*b, *a)), level), (-high, -low), atol=1e-12)


def test_rates_of_nothing_have_no_limits():
    n = np.array([[0, 5]])
    assert np.isnan(wilson(n, n)).tolist() == [[[True, False]], [[True, False]]]
    found = newcombe(np.array([[1], [2]]), np.array([[4], [4]]), n, n)  # sizes are spread out
    assert found.shape == (2, 2, 2)
    assert np.isnan(found).tolist() == [[[True, False]] * 2] * 2
    assert newcombe(*[np.zeros(0, int)] * 4).shape == (2, 0)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_paired_limits_equal_the_definition_and_turn_around(pairs):
    only_a, only_b = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    low, high = paired_limits(np.array(only_a), np.array(only_b), np.array(len(pairs)))
    np.testing.assert_allclose((low, high), oracles.paired_limits(pairs, 1.959963984540054), atol=1e-9)
    turned = paired_limits(np.array(only_b), np.array(only_a), np.array(len(pairs)))
    np.testing.assert_allclose(turned, (-high, -low), atol=1e-12)


@pytest.mark.parametrize(
    ("rate_a", "rate_b", "same"), [(0.1, 0.1, 0.0), (0.5, 0.3, 0.0), (0.6, 0.4, 0.3), (0.9, 0.2, 0.1)]
)
def test_paired_limits_hold_the_truth_as_often_as_they_say(rate_a, rate_b, same):
    """Pairs of which a share is alike on both sides, 40 at a time."""
    rng = np.random.default_rng(0)
    shape = (4000, 40)
    a, b = rng.random(shape) < rate_a, rng.random(shape) < rate_b
    b = np.where(rng.random(shape) < same, a, b)
    truth = rate_a - (same * rate_a + (1 - same) * rate_b)
    low, high = paired_limits((a & ~b).sum(1), (b & ~a).sum(1), np.full(4000, 40))
    assert 0.93 < np.mean((low <= truth) & (truth <= high)) < 0.985


def test_no_pairs_have_no_limits():
    assert np.isnan(paired_limits(np.array([0, 1]), np.array([0, 0]), np.array([0, 4]))).tolist() == [[True, False]] * 2


@pytest.mark.parametrize(("right", "n"), [(5, 4), (-1, 4), (1, 0), (float("nan"), 4)])
def test_counts_that_cannot_be_are_refused(right, n):
    with pytest.raises(ValueError, match=r"right must lie in 0 \.\. n"):
        wilson(np.array([right]), np.array([n]))


# --- the null of the gap --------------------------------------------------------------------------------------------

class_margins = st.tuples(st.integers(0, 9), st.integers(0, 9), st.floats(0, 1)).map(
    lambda m: (m[0], m[1], round(m[2] * (m[0] + m[1])))
)


def of_margins(classes, right_in) -> FeatureScores:
    n_in, n_out, right = (np.array([list(column)]) for column in zip(*classes, strict=True))
    return scores_of(n_in, np.array([right_in]), n_out, right - np.array([right_in]))


def draw_right_in(data, classes):
    return [data.draw(st.integers(max(0, right - n_out), min(n_in, right))) for n_in, n_out, right in classes]


@settings(deadline=None, max_examples=200)
@given(st.lists(class_margins, min_size=1, max_size=3), st.data())
def test_the_chance_gap_is_the_mean_over_all_permutations(classes, data):
    scores = of_margins(classes, draw_right_in(data, classes))
    if all(n_in == 0 or n_out == 0 for n_in, n_out, _ in classes):
        assert np.isnan(chance_gap(scores)).all()
        assert np.isnan(observed_gap(scores)).all()
        return
    want = sum(gap * p for gap, p in oracles.null_of_gap(classes).items())
    np.testing.assert_allclose(chance_gap(scores), want, atol=1e-9)


@settings(deadline=None, max_examples=25)
@given(st.lists(class_margins, min_size=1, max_size=3), st.data())
def test_p_is_the_share_of_permutations_that_reach_the_gap(classes, data):
    """To within the noise of the draws. Equal gaps reach it: with counts this small, most do."""
    scores = of_margins(classes, draw_right_in(data, classes))
    p, gap = gap_p_values(scores, SignificanceConfig(permutations=4000), 0)[0], observed_gap(scores)[0]
    if np.isnan(gap):
        assert np.isnan(p)
        return
    # a sum of rounded shares may exceed 1 in the last digit
    exact = sum(share for size, share in oracles.null_of_gap(classes).items() if size >= gap - 1e-9)
    assert abs(p - exact) <= 5 * np.sqrt(exact * max(1 - exact, 0) / 4000) + 4 / 4001


@pytest.mark.parametrize("seed", range(4))
def test_drawn_counts_are_permuted_images(seed):
    """Two samples: the gaps of drawn counts, and of images whose correctness was permuted one by one."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, (2, 3, 6, 10)[seed], 240)
    right, shows = rng.random(240) < rng.uniform(0.3, 0.95, 10)[label], rng.random(240) < (0.1, 0.3, 0.5, 0.7)[seed]
    margins = [(shows & (label == y), ~shows & (label == y), right & (label == y)) for y in np.unique(label)]
    counts = np.array([[column.sum() for column in of_class] for of_class in margins])
    drawn = null_gaps(counts[(counts[:, 0] > 0) & (counts[:, 1] > 0)], 3000, rng)
    permuted = np.array([oracles.permuted_gap(label, right, shows, rng) for _ in range(3000)])
    assert ks_2samp(drawn.round(9), permuted.round(9)).pvalue > 1e-3
    np.testing.assert_allclose(drawn.mean(), permuted.mean(), atol=5 * permuted.std() / np.sqrt(1500))
    np.testing.assert_allclose(drawn.std(), permuted.std(), rtol=0.1)


@pytest.mark.parametrize("n_classes", [1, 2, 10])
@pytest.mark.parametrize("accuracy", [0.5, 0.8, 0.97])
@pytest.mark.parametrize("shown", [0.05, 0.4])
def test_p_is_uniform_where_there_is_no_effect(n_classes, accuracy, shown):
    """Never too small (beyond the noise of 800 features); and uniform where counts are fine enough not to tie."""
    rng = np.random.default_rng([n_classes, int(100 * accuracy), int(100 * shown)])
    p = gap_p_values(null_scores(rng, 800, 120, shown, np.full(n_classes, accuracy)), FAST, 0)
    p = p[~np.isnan(p)]
    for level in (0.01, 0.05, 0.1, 0.25, 0.5):
        assert np.mean(p <= level) <= level + 3.5 * np.sqrt(level * (1 - level) / len(p))
    if n_classes == 10 and accuracy < 0.9:
        assert kstest(p, "uniform").pvalue > 1e-3


def test_the_correction_is_benjamini_and_hochbergs():
    rng = np.random.default_rng(3)
    for _ in range(20):
        scores = null_scores(rng, int(rng.integers(1, 30)), 40, 0.3, [0.5, 0.6, 0.9])
        p = gap_p_values(scores, FAST, 0)
        enough = supported(scores, FAST)
        want = oracles.corrected(np.where(enough, p, 1)[eligible(scores, FAST)].tolist())
        found = q_values(scores, p, FAST)
        np.testing.assert_allclose(found[eligible(scores, FAST)][enough[eligible(scores, FAST)]], np.array(want)[
            enough[eligible(scores, FAST)]
        ])  # fmt: skip
        assert np.array_equal(np.isnan(found), ~enough)
        assert np.all(found[enough] >= p[enough])


def test_support_by_errors_does_not_make_false_discoveries():
    """Rare features of an accurate model have five errors by accident, and then a small p by the same accident."""
    rng = np.random.default_rng(0)
    flagged, naive, audits = 0, 0, 60
    for _ in range(audits):
        scores = null_scores(rng, 40, 50, 0.04, np.full(10, 0.9))
        p, enough = gap_p_values(scores, FAST, 0), supported(scores, FAST)
        flagged += bool(np.any(q_values(scores, p, FAST) < 0.05))
        naive += bool(enough.any() and np.any(false_discovery_control(p[enough]) < 0.05))
    assert flagged <= 0.05 * audits + 3 * np.sqrt(0.05 * 0.95 * audits)
    assert naive > 0.25 * audits  # otherwise the deviation would not be needed


@pytest.mark.parametrize("n_features", [20, 400])
def test_one_true_feature_is_found_among_many(n_features):
    """With 400 features, p = 1 / 1001 would be corrected to 0.4: the draws go on where no permutation comes near."""
    rng = np.random.default_rng(n_features)
    null = null_scores(rng, n_features - 1, 100, 0.2, np.full(5, 0.8))
    n_in, right_in = np.full((1, 5), 20), np.array([[5, 4, 6, 5, 20]])
    n_out, right_out = np.full((1, 5), 80), np.array([[70, 68, 71, 69, 45]])
    scores = scores_of(*(
        np.vstack([one, getattr(null, name)])
        for one, name in ((n_in, "n_in"), (right_in, "right_in"), (n_out, "n_out"), (right_out, "right_out"))
    ))  # fmt: skip
    p = gap_p_values(scores, FAST, 0)
    q = q_values(scores, p, FAST)
    assert q[0] < 0.05
    assert np.nanmin(p[1:]) > p[0]
    assert np.count_nonzero(q < 0.05) <= 1 + 2


# --- the interval ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accuracy_in", [0.8, 0.5, 0.2])
@pytest.mark.parametrize("shown", [0.1, 0.4])
def test_the_interval_covers(accuracy_in, shown):
    """The mean of gap* over many samples, in at least 90 of 100 intervals of level 0.95; 0 where there is no effect."""
    rng = np.random.default_rng(int(100 * (accuracy_in + shown)))
    cells = np.array([[shown * a, shown * (1 - a), (1 - shown) * 0.8, (1 - shown) * 0.2] for a in [accuracy_in] * 5])

    def sample(n: int) -> FeatureScores:
        right_in, wrong_in, right_out, wrong_out = np.moveaxis(
            rng.multinomial(1000, cells.ravel() / 5, n).reshape(n, 5, 4), 2, 0
        )
        return scores_of(right_in + wrong_in, right_in, right_out + wrong_out, right_out)

    many = sample(4000)
    truth = np.mean(observed_gap(many) - chance_gap(many))
    low, high = gap_interval(sample(300), FAST, 0)
    assert np.mean((low <= truth) & (truth <= high)) > 0.9
    if accuracy_in == 0.8:
        assert abs(truth) < 0.01
        assert np.mean(low > 0) < 0.025
    if accuracy_in == 0.2:
        assert np.all(low > 0)


def test_resampled_counts_are_resampled_images():
    """The limits, from images drawn with replacement one by one."""
    rng = np.random.default_rng(1)
    label, shows = rng.integers(0, 3, 300), rng.random(300) < 0.4
    right = rng.random(300) < np.where(shows, 0.4, 0.9)
    scores = counted(label, shows, right)
    gaps = []
    for _ in range(2000):
        rows = rng.integers(0, 300, 300)
        gaps.append(observed_gap(counted(label[rows], shows[rows], right[rows]))[0])
    shift = (observed_gap(scores) - chance_gap(scores))[0] - np.mean(gaps)
    want = np.quantile(gaps, [0.025, 0.975]) + shift
    found = gap_interval(scores, SignificanceConfig(bootstrap=4000), 0)[:, 0]
    np.testing.assert_allclose(found, want, atol=0.03)
    narrow = gap_interval(scores, SignificanceConfig(bootstrap=4000, level=0.5), 0)[:, 0]
    np.testing.assert_allclose(narrow, np.quantile(gaps, [0.25, 0.75]) + shift, atol=0.03)


def counted(label, shows, right) -> FeatureScores:
    sides = (shows, shows & right, ~shows, ~shows & right)
    return scores_of(*(np.bincount(label[side], minlength=label.max() + 1)[None] for side in sides))


# --- influence and signature ----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(worlds())
def test_influence_above_chance_equals_the_definition(case):
    regions, zero_shot, feature, n_features = case
    scores = score_features(regions, zero_shot, feature, n_features, ScoringConfig())
    found = excess_influence(scores, regions, zero_shot, feature)
    want = [oracles.excess_influence(regions, zero_shot, feature, c) for c in scores.feature]
    np.testing.assert_allclose(found, want, atol=1e-12)
    assert not np.any(found > 1)


def test_influence_above_chance_is_zero_for_best_regions_chosen_blindly():
    found = [run(random_world(seed, n_images=600, n_features=5)).excess_influence for seed in range(8)]
    assert abs(np.mean(found)) < 0.01
    assert np.std(found) < 0.1


@settings(deadline=None, max_examples=100)
@given(worlds())
def test_the_signature_equals_the_definition(case):
    regions, zero_shot, feature, _ = case
    found = run(case)
    for row, c in enumerate(found.feature):
        one = oracles.score(regions, zero_shot, feature, c)
        want = oracles.signature(one)
        for name, count in want.items():
            assert tuple(getattr(found, name)[row]) == count, name
        for side in ("pull", "other"):
            (a, n_a), (b, n_b) = want[f"{side}_in"], want[f"{side}_out"]
            got = [getattr(found, f"{side}_{name}")[row] for name in ("diff", "low", "high")]
            if not (n_a and n_b):
                assert np.isnan(got).all()
                continue
            rate, n_b = (b / n_b, n_b) if side == "pull" else oracles.standardised(one)
            np.testing.assert_allclose(
                got, (a / n_a - rate, *oracles.newcombe(a, n_a, rate * n_b, n_b, 0.95)), atol=1e-6
            )


def test_a_feature_that_is_frequent_in_a_hard_class_has_no_effect_by_that():
    """Class 0 is hard and shows it in 9 of 10 images, class 1 is easy and shows it in 1 of 10; right by class alone."""
    scores = scores_of([[900, 100, 500]], [[450, 90, 350]], [[100, 900, 500]], [[50, 810, 350]])
    found = signature_of(replace(scores, pull_class=np.array([2])), 0.95)
    assert found["other_diff"][0] == pytest.approx(0, abs=1e-6)
    assert found["other_low"][0] < -0.03  # it rests on the 100 hard images without the feature
    assert found["other_high"][0] > 0.03
    (a, n_a), (b, n_b) = found["other_in"][0], found["other_out"][0]
    assert a / n_a < b / n_b - 0.3  # what the counts alone would say


def test_a_planted_mark_shows_its_signature():
    for seed in range(3):
        found = run(marked_world(seed), SignificanceConfig(split_half=True))
        row = found.row_of(0)
        assert found.supported[row]
        assert found.q[row] < 0.01
        assert found.replicated[row] == 1
        assert found.excess_influence[row] > 0.5
        assert 0 < found.gap_low[row] < found.excess_gap[row] < found.gap_high[row]
        assert found.pull_low[row] > 0
        assert found.other_high[row] < 0
        assert found.n_comparable[row] == 4
        others = np.arange(4) != row
        assert np.all(found.q[others] > 0.01)
        assert not found.replicated[others].any()


def test_no_effect_is_not_found():
    assert sum(np.count_nonzero(run(marked_world(seed, pull=0)).q < 0.05) for seed in range(12)) <= 2


def test_both_halves_must_show_the_effect():
    """A gap of which half the images know nothing is not replicated; and nobody asked is neither yes nor no."""
    assert run(marked_world(), FAST).replicated.tolist() == [-1] * 4
    weak = [run(marked_world(s, 200, pull=0.13), SignificanceConfig(split_half=True)) for s in range(12)]
    once = sum(int(found.p[found.row_of(0)] < 0.05) for found in weak)
    twice = sum(int(found.replicated[found.row_of(0)]) for found in weak)
    assert twice < once


# --- what must not matter -------------------------------------------------------------------------------------------


def compare(first: Significance, second: Significance, rows, skip: tuple[str, ...] = ()) -> None:
    for name, column in columns(first).items():
        if name != "feature" and name not in skip:
            np.testing.assert_array_equal(column, columns(second)[name][rows], err_msg=name)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_images_does_not_matter(seed):
    regions, zero_shot, feature, n_features = case = random_world(seed, n_images=90, n_classes=5)
    order = np.random.default_rng(seed).permutation(90)
    rows = np.concatenate([np.arange(*regions.rows_of(i).indices(len(regions))) for i in order])
    moved = Regions(np.repeat(np.arange(90), 4), regions.box[rows], regions.position[rows], 90)
    shuffled = ZeroShot(zero_shot.image[order], zero_shot.region[rows], zero_shot.label[order])
    compare(run(case), run((moved, shuffled, feature[rows], n_features)), slice(None))


@pytest.mark.parametrize("seed", range(3))
def test_the_names_of_the_classes_do_not_matter(seed):
    regions, zero_shot, feature, n_features = case = random_world(seed, n_images=300, n_classes=5)
    new = np.random.default_rng(seed).permutation(5)
    old = np.argsort(new)
    renamed = ZeroShot(zero_shot.image[:, old], zero_shot.region[:, old], new[zero_shot.label])
    scores, again = (score_features(regions, z, feature, n_features, ScoringConfig()) for z in (zero_shot, renamed))
    signature = tuple(f"{a}_{b}" for a in ("pull", "other") for b in ("diff", "low", "high", "in", "out"))
    first, second = run(case), run((regions, renamed, feature, n_features))
    compare(first, second, slice(None), skip=signature)
    clear = np.equal(new[scores.pull_class], again.pull_class)  # ties go to the lowest class, which is another one now
    assert clear.sum() >= 3
    for name in signature:
        np.testing.assert_array_equal(getattr(first, name)[clear], getattr(second, name)[clear], err_msg=name)


@pytest.mark.parametrize("seed", range(3))
def test_the_names_of_the_features_do_not_matter(seed):
    regions, zero_shot, feature, n_features = case = random_world(seed, n_images=90)
    new = np.random.default_rng(seed).permutation(n_features + 3)[:n_features]  # ids may have gaps
    moved = np.where(feature == NOISE, NOISE, new[feature])
    first, second = run(case), run((regions, zero_shot, moved, n_features + 3))
    compare(first, second, [second.row_of(int(new[c])) for c in first.feature])
    unused = [second.row_of(c) for c in range(n_features + 3) if c not in new]
    assert not second.supported[unused].any()
    assert np.isnan(second.p[unused]).all()


def test_the_seed_matters_and_only_the_seed():
    case = random_world(2, n_images=200)
    first, again, other = run(case), run(case), run(case, seed=1)
    compare(first, again, slice(None))
    assert np.any(first.p != other.p)
    np.testing.assert_allclose(first.p, other.p, atol=0.08)
    assert np.array_equal(first.excess_gap, other.excess_gap)  # exact, not drawn


# --- the degenerate table -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split_half", [False, True])
@pytest.mark.parametrize("n_features", [0, 2])
def test_nothing_in_gives_nothing_out(n_features, split_half):
    empty = (*world(np.zeros((0, 3)), np.zeros((0, 3)), [], np.zeros(0, int), 3), np.zeros(0, int), n_features)
    noise = (*random_world(0)[:2], np.full(240, NOISE), n_features)
    for case in (empty, noise):
        found = run(case, SignificanceConfig(split_half=split_half))
        assert len(found) == n_features
        assert not found.supported.any()
        assert found.replicated.tolist() == [0 if split_half else -1] * n_features
        for name in ("excess_gap", "gap_low", "p", "q", "excess_influence", "pull_diff", "other_high"):
            assert np.isnan(getattr(found, name)).all(), name


@pytest.mark.parametrize(("n_classes", "right"), [(1, True), (3, True), (3, False)])
def test_all_right_or_all_wrong_leaves_no_gap(n_classes, right):
    regions, zero_shot, feature, n_features = random_world(0, n_classes=n_classes)
    label = zero_shot.predicted if right else (zero_shot.predicted + 1) % n_classes
    found = run((regions, ZeroShot(zero_shot.image, zero_shot.region, label), feature, n_features))
    assert found.excess_gap.tolist() == found.gap_low.tolist() == found.gap_high.tolist() == [0] * n_features
    assert found.p.tolist() == [1] * n_features
    assert found.supported.any() != right
    assert np.isnan(found.excess_influence).all() == right


def test_one_feature_in_every_region_cannot_be_judged():
    regions, zero_shot, feature, _ = random_world(0)
    found = run((regions, zero_shot, np.zeros(len(feature), int), 1))
    assert found.n_comparable.tolist() == [0]
    assert np.isnan([found.p, found.q, found.excess_gap, found.gap_low, found.excess_influence, found.pull_diff]).all()
    assert not found.supported.any()
    assert found.pull_in[0, 1] > 0  # counts are there, but no side to compare with
    assert found.pull_out.tolist() == found.other_in.tolist() == [[0, 0]]


def test_too_little_evidence_is_said():
    """Just enough, and one image or error less, in the comparable class alone."""
    for change, enough in (((0, 0, 0), True), ((1, 0, 0), False), ((0, 1, 0), False), ((0, 0, 1), False)):
        n_in, n_out, right_in = 10 - change[0], 10 - change[1], 5 - change[0] + change[2]
        scores = scores_of([[n_in, 50]], [[right_in, 0]], [[n_out, 0]], [[7, 0]])
        assert supported(scores, FAST).tolist() == [enough], change
        assert np.isnan(q_values(scores, np.array([0.01]), FAST))[0] != enough
    assert supported(scores, SignificanceConfig(min_errors=4)).tolist() == [True]


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ([0, 0, 0], r"shape \(4,\), got \(3,\)"),
        ([0, 0, 0, 2], "scored features or -1, got 2"),
        ([0, 0, 0, NOISE], r"\[4, 0\] regions each, got \[3, 0\]. Score them again"),
    ],
)
def test_labels_that_do_not_fit_the_scores_are_refused(feature, message):
    regions, zero_shot = world([[2, 1]] * 2, [[1, 1]] * 4, [0, 0, 1, 1], [0, 0], 2)
    scores = score_features(regions, zero_shot, np.zeros(4, int), 2, ScoringConfig())
    with pytest.raises(ValueError, match=message):
        significance(scores, regions, zero_shot, np.array(feature), FAST, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p": [0.5]}, r"Significance.p must have shape \(4,\), got \(1,\)"),
        ({"p": [1.5] * 4}, r"p must lie in \[0, 1\]"),
        ({"q": [0.0] * 4}, r"q must lie in \[p, 1\]"),
        ({"supported": [False] * 4}, "q must be NaN exactly where a feature is not supported"),
        ({"gap_low": [9.0] * 4}, "gap_low must not exceed gap_high"),
        ({"pull_in": [[2, 1]] * 4}, r"pull_in must hold 0 <= right <= all"),
        ({"replicated": [2] * 4}, "replicated must be 1, 0 or -1"),
    ],
)
def test_records_that_contradict_themselves_are_refused(change, message):
    good = columns(run(marked_world()))
    with pytest.raises(ValueError, match=message):
        Significance(**good | change)


def test_rows_are_found_by_feature():
    found = run(marked_world())
    assert [int(found.feature[found.row_of(c)]) for c in range(4)] == [0, 1, 2, 3]
    with pytest.raises(KeyError, match="got 9"):
        found.row_of(9)


def test_cost(capsys):
    """Printed, not asserted: 50 features, 5000 images, 10 classes, 4 regions each."""
    regions, zero_shot, feature, n_features = random_world(0, 5000, 4, 10, 50)
    scores = score_features(regions, zero_shot, feature, n_features, ScoringConfig())
    start = time.perf_counter()
    significance(scores, regions, zero_shot, feature, SignificanceConfig(), 0)
    with capsys.disabled():
        print(f" [significance of 50 features x 5000 images: {time.perf_counter() - start:.2f} s] ", end="")
