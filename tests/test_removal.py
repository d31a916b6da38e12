from __future__ import annotations

import numpy as np
import pytest

from ravl.config import ExemplarsConfig, PromptsConfig, RegionsConfig, ScoringConfig
from ravl.discovery.regions import grid
from ravl.discovery.removal import against_class, candidates, contributions, exemplars
from ravl.discovery.scoring import score_features
from ravl.discovery.zero_shot import class_vectors, classify
from ravl.errors import ModelError
from ravl.tables import NOISE, Clustering, ZeroShot
from tests import oracles
from tests.toys import COLOURS, ColourModel, paint

NAMES = ["red", "green", "blue"]
TAU = 0.05


class World:
    """Images of four coloured quadrants, labelled, classified by the mean colour; a feature is a colour."""

    def __init__(self, cells: list[list[str]], label: list[int], model: ColourModel | None = None) -> None:
        self.model = model or ColourModel()
        self.cells = cells
        self.images = [paint(c) for c in cells]
        self.decoded: list[int] = []
        self.regions = grid(np.tile([0, 0, 16, 16], (len(cells), 1)), RegionsConfig(k=2))
        boxes = [self.regions.box[self.regions.rows_of(i)] for i in range(len(cells))]
        encoded = self.model.encode_regions(self.images, boxes, "tokens", 0)
        self.text = class_vectors(self.model, NAMES, PromptsConfig())
        self.zero_shot = classify(encoded.image, encoded.region, self.text, np.array(label, int), TAU)

    def images_of(self, ids):
        self.decoded += list(ids)
        return [self.images[i] for i in ids]

    def contributions(self, chosen, batch_size=4, **more):
        return contributions(
            self.model,
            self.images_of,
            self.text,
            TAU,
            self.regions,
            self.zero_shot,
            np.array(chosen, int),
            batch_size,
            **more,
        )

    def clustering(self, feature: list[int]) -> Clustering:
        n = max([*feature, NOISE]) + 1
        medoid = [feature.index(c) for c in range(n)]
        return Clustering(
            feature,
            np.ones(len(feature)),
            medoid,
            np.zeros((4, 2)),
            np.zeros(2),
            np.eye(2),
            np.ones((n, 2)),
            np.zeros(n),
        )

    def exemplars(self, feature: list[int], config=ExemplarsConfig(), scores=None, **more):
        scores = scores or self.scores(feature)
        return exemplars(
            self.model,
            self.images_of,
            self.text,
            TAU,
            self.regions,
            self.zero_shot,
            np.array(feature, int),
            scores,
            config,
            5,
            **more,
        )

    def scores(self, feature: list[int]):
        found = self.clustering(feature)
        return score_features(self.regions, self.zero_shot, found.label, found.n_clusters, ScoringConfig())

    def feature_by_colour(self) -> list[int]:
        return [NAMES.index(c) for cells in self.cells for c in cells]


def margin(colours: list[np.ndarray], wrong: int, true: int) -> float:
    """logit_wrong - logit_true of the mean of some colours."""
    vector = np.mean(colours, axis=0) + 1e-3
    text = np.eye(3) + 1e-3
    return (oracles.cosine(vector, text[wrong]) - oracles.cosine(vector, text[true])) / TAU


def by_hand(cells: list[str], removed: int, wrong: int, true: int) -> tuple[float, float]:
    """Contribution of one quadrant when it is dropped, and when it is painted in the mean colour."""
    colours = [np.array(COLOURS[c]) for c in cells]
    rest = [c for q, c in enumerate(colours) if q != removed]
    filled = [*rest, np.mean(colours, axis=0)]
    whole = margin(colours, wrong, true)
    return whole - margin(rest, wrong, true), whole - margin(filled, wrong, true)


def mixed_world(**more) -> World:
    """Image 0: red called blue because of one blue quadrant more. 1: green, right. 2: blue, right. 3: red, right."""
    cells = [
        ["red", "blue", "blue", "green"],
        ["green", "green", "red", "green"],
        ["blue", "blue", "red", "blue"],
        ["red", "red", "red", "blue"],
    ]
    return World(cells, [0, 1, 2, 0], **more)


def test_the_world_is_what_it_says():
    world = mixed_world()
    assert world.zero_shot.predicted.tolist() == [2, 1, 2, 0]


def test_contributions_equal_those_worked_out_by_hand():
    world = mixed_world()
    chosen = list(range(16))
    found = world.contributions(chosen)
    # the wrong prediction, then the runners-up
    assert found.against.tolist() == np.repeat([2, 0, 0, 2], 4).tolist()
    for n, r in enumerate(chosen):
        i, quadrant = divmod(r, 4)
        drop, fill = by_hand(world.cells[i], quadrant, int(found.against[n]), int(world.zero_shot.label[i]))
        np.testing.assert_allclose(found.token_drop[n], drop, atol=0.05)
        np.testing.assert_allclose(found.mean_fill[n], fill, atol=0.05)
        np.testing.assert_allclose(found.agreed[n], min(found.token_drop[n], found.mean_fill[n]))
    # in image 0 blue pushes to blue and red holds it back; green only makes both weaker
    assert found.agreed[0] < -1
    assert -1 < found.agreed[3] < 0
    assert found.agreed[1] > 1


def test_the_order_and_the_batch_do_not_matter_and_images_are_decoded_about_once():
    world = mixed_world()
    chosen = [13, 2, 2, 7, 0, 5, 15]
    whole = world.contributions(list(range(16)))
    for batch_size in (1, 3, 100):
        world.decoded.clear()
        some = world.contributions(chosen, batch_size)
        np.testing.assert_allclose(some.token_drop, whole.token_drop[chosen], atol=1e-4)
        np.testing.assert_allclose(some.mean_fill, whole.mean_fill[chosen], atol=1e-4)
        assert some.against.tolist() == whole.against[chosen].tolist()
    assert world.decoded == [0, 1, 3]


def test_progress_is_reported():
    steps = []
    mixed_world().contributions(range(10), 4, report=steps.append)
    assert [(s.stage, s.done, s.total) for s in steps] == [("exemplars", n, 10) for n in (4, 8, 10)]


def test_an_operator_the_model_lacks_is_undefined_and_does_not_count():
    world = mixed_world(model=ColourModel(drops_tokens=False))
    found = world.contributions(range(16))
    assert np.isnan(found.token_drop).all()
    np.testing.assert_array_equal(found.agreed, found.mean_fill)
    assert np.isfinite(found.agreed).all()
    assert np.isnan(world.exemplars(world.feature_by_colour()).token_drop).all()


def test_a_region_without_a_patch_cannot_be_dropped():
    class Coarse(ColourModel):
        def patch_counts(self, size, box, masks=None):
            return (np.asarray(box)[:, 0] > 0).astype(np.int64)

    world = mixed_world(model=Coarse())
    found = world.contributions(range(16))
    assert np.isnan(found.token_drop).tolist() == [True, False] * 8
    assert np.isfinite(found.agreed).all()


def test_answers_that_are_not_finite_are_refused():
    class Broken(ColourModel):
        def encode_without(self, images, boxes, masks=None):
            return np.full((len(images), 3), np.nan, np.float32)

    with pytest.raises(ModelError, match="finite numbers, got NaN or infinity from colours"):
        mixed_world(model=Broken()).contributions([0])


def test_against_is_the_wrong_prediction_or_the_runner_up():
    image = np.array([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [0.5, 0.5, 0], [0.5, 0.5, 0], [0.2, 0.2, 0.6]])
    zero_shot = ZeroShot(image, np.zeros((0, 3)), np.array([0, 1, 0, 1, 2]))
    assert against_class(zero_shot).tolist() == [1, 0, 1, 0, 0]
    assert against_class(ZeroShot(np.ones((2, 1)), np.zeros((0, 1)), np.zeros(2, int))).tolist() == [-1, -1]
    assert against_class(ZeroShot(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0, int))).tolist() == []


# --- exemplars ------------------------------------------------------------------------------------------------------


def many_images(seed: int = 0, n: int = 30) -> World:
    """Four random colours each; the label is the first one's, or that of a colour not in the image."""
    rng = np.random.default_rng(seed)
    cells = [[NAMES[c] for c in rng.integers(0, 3, 4)] for _ in range(n)]
    return World(cells, [int(rng.integers(0, 3)) for _ in range(n)])


def candidate_order(world: World, feature: list[int], c: int, pull: int, config: ExemplarsConfig) -> list[int]:
    """Candidates of a feature, by sorting plainly on what the docstring says."""
    zero_shot = world.zero_shot
    against, keys = against_class(zero_shot), {}
    for r in [r for r, f in enumerate(feature) if f == c]:
        i = int(world.regions.image[r])
        if zero_shot.predicted[i] != zero_shot.label[i]:
            best = oracles.best_region(world.regions, zero_shot, i) == r
            keys[r] = (0, 0 if best else 1, -zero_shot.region[r, zero_shot.predicted[i]], r)
        else:
            toward = pull if pull >= 0 else against[i]
            keys[r] = (1, int(toward == zero_shot.label[i]), -zero_shot.region[r, toward], r)
    ranked = sorted(keys, key=keys.__getitem__)
    errors = [r for r in ranked if keys[r][0] == 0]
    return (errors if len(errors) >= config.count else ranked)[: config.max_candidates]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("config", [ExemplarsConfig(5, 10), ExemplarsConfig(24, 200), ExemplarsConfig(1, 10)])
def test_candidates_are_ordered_and_cut_as_described(seed, config):
    world = many_images(seed)
    feature = [c if r % 5 else NOISE for r, c in enumerate(world.feature_by_colour())]
    scores = world.scores(feature)
    want = [
        r
        for c, pull in zip(scores.feature, scores.pull_class, strict=True)
        for r in candidate_order(world, feature, int(c), int(pull), config)
    ]
    found = candidates(world.regions, world.zero_shot, np.array(feature), scores, config)
    assert found.tolist() == want
    assert len(set(want)) == len(want)


def test_just_enough_errors_need_no_right_image():
    world = many_images()
    feature = world.feature_by_colour()
    wrong = ~world.zero_shot.correct[world.regions.image]
    n_errors = int(np.count_nonzero(wrong & (np.array(feature) == 0)))
    for count, right_too in ((n_errors, False), (n_errors + 1, True)):
        config = ExemplarsConfig(count)
        found = candidates(world.regions, world.zero_shot, np.array(feature), world.scores(feature), config)
        own = found[np.array(feature)[found] == 0]
        assert wrong[own[:n_errors]].all()
        assert (len(own) > n_errors) == right_too


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("config", [ExemplarsConfig(5, 10), ExemplarsConfig(24, 200), ExemplarsConfig(10, 10)])
def test_exemplars_are_the_candidates_with_the_largest_contributions(seed, config):
    world = many_images(seed)
    feature = world.feature_by_colour()
    scores = world.scores(feature)
    found = world.exemplars(feature, config, scores)
    whole = world.contributions(range(len(feature)))
    want = []
    for c, pull in zip(scores.feature, scores.pull_class, strict=True):
        order = candidate_order(world, feature, int(c), int(pull), config)
        right = {r: bool(world.zero_shot.correct[world.regions.image[r]]) for r in order}
        ranked = sorted(order, key=lambda r, right=right: (right[r], -round(float(whole.agreed[r]), 3)))
        want.append(ranked[: config.count])
    assert found.feature.tolist() == [int(c) for c, ids in zip(scores.feature, want, strict=True) for _ in ids]
    for c, ids in zip(scores.feature, want, strict=True):
        rows = found.rows_of(int(c))
        kept = found.region[rows]
        # the same contributions in the same order; equal ones (the toy world has many) may change places
        np.testing.assert_allclose(found.contribution[rows], whole.agreed[ids], atol=2e-3)
        assert (
            world.zero_shot.correct[found.image[rows]].tolist()
            == world.zero_shot.correct[world.regions.image[ids]].tolist()
        )
        assert all(feature[r] == c for r in kept)
        assert len(set(kept.tolist())) == len(kept)
    np.testing.assert_array_equal(found.image, world.regions.image[found.region])
    np.testing.assert_allclose(found.contribution, whole.agreed[found.region], atol=1e-4)
    np.testing.assert_array_equal(found.against, against_class(world.zero_shot)[found.image])
    assert np.isfinite(found.contribution).all()


def test_the_region_that_causes_the_errors_comes_first():
    # red and green images with a blue patch that turns some of them; blue is feature 0, red and green are feature 1
    cells = [["red", "blue", "blue", "green"]] * 3 + [["red", "red", "red", "blue"]] * 3 + [["green"] * 4] * 2
    world = World(cells, [0] * 6 + [1] * 2)
    feature = [0 if c == "blue" else 1 for row in cells for c in row]
    found = world.exemplars(feature)
    blue = found.rows_of(0)
    assert set(found.image[blue[:6]]) == {0, 1, 2}
    assert np.all(found.contribution[blue[:6]] > 1)
    assert np.all(found.against[blue[:6]] == 2)
    assert np.all(found.contribution[found.rows_of(1)][:3] <= 0.1)


def test_only_scored_features_have_exemplars():
    world = many_images()
    feature = world.feature_by_colour()
    scores = world.scores(feature)
    assert found_features(world.exemplars(feature, scores=scores)) == set(scores.feature.tolist())
    assert len(world.exemplars([NOISE] * len(feature))) == 0


def found_features(found) -> set[int]:
    return set(found.feature.tolist())


def test_no_images_have_no_exemplars():
    world = World([], [])
    assert len(world.exemplars([])) == 0
    assert len(world.contributions([]).agreed) == 0


def test_one_class_cannot_be_confused():
    world = mixed_world()
    world.text = world.text[:1]
    world.zero_shot = ZeroShot(np.ones((4, 1)), np.ones((16, 1)), np.zeros(4, int))
    found = world.exemplars(world.feature_by_colour())
    assert len(found) == 16
    assert set(found.against) == {-1}
    assert np.all(found.contribution == 0)


def test_images_of_one_region_are_removed_whole():
    world = mixed_world()
    world.regions = grid(np.tile([0, 0, 16, 16], (4, 1)), RegionsConfig(k=1))
    world.zero_shot = ZeroShot(world.zero_shot.image, world.zero_shot.image, world.zero_shot.label)
    found = world.exemplars([0, 0, 0, 0])
    assert np.isfinite(found.contribution).all()
    assert found.image[0] == 0  # the misclassified one
