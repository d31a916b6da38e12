from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from ravl.config import ClusteringConfig
from ravl.discovery import clustering as module
from ravl.discovery.clustering import assign, cluster, parts, reduce
from ravl.tables import NOISE, Clustering, Regions, columns
from tests import oracles

SMALL = ClusteringConfig(n_components=8, min_cluster_size=15)
KMEDOIDS = ClusteringConfig(method="kmedoids", n_components=8, k=5)


def regions_of(n_images: int, positions: int = 4) -> Regions:
    n = n_images * positions
    position = np.tile(np.arange(positions), n_images)
    return Regions(np.repeat(np.arange(n_images), positions), np.tile([0, 0, 1, 1], (n, 1)), position, n_images)


def loose_regions(n: int) -> Regions:
    """Regions without positions, one per image."""
    return Regions(np.arange(n), np.tile([0, 0, 1, 1], (n, 1)), np.full(n, -1), n)


def blobs(seed: int = 0, n_images: int = 100, positions: int = 4, dim: int = 24, n_blobs: int = 5, noise: float = 0.0):
    """Directions around orthogonal centres, lengths of their own, on top of a large mean per position.

    Returns features (R, M) float32 and the planted label, with a share of uniformly random directions as noise.
    """
    rng = np.random.default_rng(seed)
    n = n_images * positions
    centers = np.linalg.qr(rng.normal(size=(dim, dim)))[0][:n_blobs]
    truth = rng.permutation(np.arange(n) % n_blobs)
    direction = centers[truth] + rng.normal(scale=0.15 / np.sqrt(dim), size=(n, dim))
    stray = rng.random(n) < noise
    direction[stray] = rng.normal(size=(stray.sum(), dim))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    means = rng.normal(scale=5, size=(positions, dim))
    features = direction * rng.uniform(2, 4, (n, 1)) + means[np.arange(n) % positions]
    return features.astype(np.float32), np.where(stray, NOISE, truth)


def run(features, regions, config, seed: int = 0, n_classes: int = 2) -> Clustering:
    return cluster(features, regions, n_classes, config, np.random.default_rng(seed))


def check(found: Clustering, n: int) -> None:
    """What holds for every clustering."""
    assert found.label.shape == found.strength.shape == (n,)
    for name, column in columns(found).items():
        assert np.isfinite(column).all(), name
    assert np.all((found.strength >= 0) & (found.strength <= 1))
    assert np.all(found.strength[found.label == NOISE] == 0)
    size = np.bincount(found.label[found.label != NOISE], minlength=found.n_clusters)
    assert np.all(size > 0)
    assert np.all(np.diff(size) <= 0)
    np.testing.assert_array_equal(found.label[found.medoid], np.arange(found.n_clusters))
    np.testing.assert_allclose(np.linalg.norm(found.medoid_vector, axis=1), 1, atol=1e-5)


# --- planted truth ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [SMALL, KMEDOIDS], ids=["hdbscan", "kmedoids"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_planted_blobs_are_found(config, dtype):
    features, truth = blobs()
    found = run(features.astype(dtype), regions_of(100), config)
    check(found, 400)
    assert found.n_clusters == 5
    assert adjusted_rand_score(truth, found.label) > 0.99
    assert found.components.shape[0] <= 8


@pytest.mark.parametrize("seed", range(3))
def test_hdbscan_keeps_stray_regions_out_of_the_planted_clusters(seed):
    features, truth = blobs(seed, noise=0.3)
    found = run(features, regions_of(100), ClusteringConfig(n_components=20))
    planted = truth != NOISE
    assert adjusted_rand_score(truth[planted], found.label[planted]) > 0.95
    for blob in range(5):
        top = np.bincount(found.label[truth == blob] + 1).argmax() - 1
        assert top != NOISE
        firm = (found.label == top) & (found.strength > 0.3)  # a cluster may have a fringe, and says so
        assert np.mean(truth[firm] == blob) > 0.85
        assert firm.sum() > 0.8 * (truth == blob).sum()
    assert np.mean(found.label[~planted] == NOISE) > 0.5


def nested(seed: int = 0, n_images: int = 200):
    """Of each image's four regions three are background; the fourth is one of three things that lie close together.

    Returns features, the regions, and what each region shows: 0 background, 1 to 3 the things.
    """
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(24, 24)))[0]
    shows = np.zeros((n_images, 4), int)
    shows[np.arange(n_images), rng.integers(0, 4, n_images)] = 1 + rng.permutation(np.arange(n_images) % 3)
    shows = shows.ravel()
    things = np.stack([axes[0], *(axes[1] + 0.25 * axes[2 + k] for k in range(3))])
    direction = things[shows] + rng.normal(scale=0.2 / np.sqrt(24), size=(len(shows), 24))
    return direction.astype(np.float32), regions_of(n_images), shows


def test_what_nearly_all_images_show_is_clustered_again():
    features, regions, shows = nested()
    plain = run(features, regions, replace(SMALL, max_spread=1.0))
    finer = run(features, regions, replace(SMALL, max_spread=0.75))
    check(finer, len(shows))
    things = shows > 0
    assert len(set(plain.label[things]) - {NOISE}) == 1  # everything that is not background
    for kind in (1, 2, 3):
        own = finer.label[shows == kind]
        label = np.bincount(own[own != NOISE]).argmax()
        assert np.mean(own == label) > 0.8
        assert np.mean(shows[finer.label == label] == kind) > 0.95


def test_what_some_images_show_is_left_whole():
    features, _ = blobs()
    plain = run(features, regions_of(100), replace(SMALL, max_spread=1.0))
    finer = run(features, regions_of(100), replace(SMALL, max_spread=0.9))
    np.testing.assert_array_equal(plain.label, finer.label)


def test_position_means_do_not_split_a_cluster():
    features, truth = blobs(positions=4)
    with_positions = run(features, regions_of(100), SMALL)
    without = run(features, loose_regions(400), SMALL)
    assert adjusted_rand_score(truth, with_positions.label) > 0.99
    # without them the four position means are what is seen
    assert adjusted_rand_score(truth, without.label) < 0.5


def test_kmedoids_chooses_k_by_silhouette():
    features, truth = blobs(n_blobs=7)
    found = run(features, regions_of(100), ClusteringConfig(method="kmedoids", n_components=8), n_classes=2)
    assert found.n_clusters == 7  # of the candidates 4 .. 9
    assert adjusted_rand_score(truth, found.label) > 0.99


# --- the formulas ----------------------------------------------------------------------------------------


def test_position_means_and_center():
    features, _ = blobs(n_images=30)
    found = run(features, regions_of(30), SMALL)
    for p in range(4):
        np.testing.assert_allclose(found.position_mean[p], features[p::4].astype(float).mean(0), rtol=1e-5, atol=1e-5)
    left = features - found.position_mean[np.arange(120) % 4]
    np.testing.assert_allclose(found.center, left.mean(0), atol=1e-4)


def test_the_axes_are_the_principal_ones_of_the_unit_vectors():
    features, _ = blobs()
    found = run(features, regions_of(100), SMALL)
    left = features.astype(float) - found.position_mean[np.arange(400) % 4]
    left /= np.linalg.norm(left, axis=1, keepdims=True)
    _, _, axes = np.linalg.svd(left, full_matrices=False)
    k = len(found.components)
    # the same space, orthonormal, with a sign that does not depend on the solver
    np.testing.assert_allclose(found.components.T @ found.components, axes[:k].T @ axes[:k], atol=1e-4)
    np.testing.assert_allclose(found.components @ found.components.T, np.eye(k), atol=1e-5)
    assert np.all(found.components[np.arange(k), np.abs(found.components).argmax(1)] > 0)


@pytest.mark.parametrize("config", [SMALL, KMEDOIDS], ids=["hdbscan", "kmedoids"])
def test_medoids_and_thresholds_equal_the_definition(config):
    features, _ = blobs(n_images=40, noise=0.2)
    regions = regions_of(40)
    found = run(features, regions, config)
    vectors = [oracles.reduced(found, f, p) for f, p in zip(features, regions.position, strict=True)]
    assert found.n_clusters == 5
    core = found.label.copy()
    if config is SMALL:  # what the algorithm itself put there, before regions in noise joined
        own = module._fit_hdbscan(np.array(vectors, np.float32), 15, config.min_samples)[0]
        core[own == NOISE] = NOISE
    for c in range(found.n_clusters):
        members = np.flatnonzero(core == c)
        closeness = [sum(oracles.cosine(vectors[i], vectors[j]) for j in members) / len(members) for i in members]
        assert found.medoid[c] == members[oracles.first_best(closeness)]
        own = [oracles.cosine(vectors[i], vectors[found.medoid[c]]) for i in members]
        np.testing.assert_allclose(found.min_similarity[c], np.percentile(own, 5), atol=1e-5)
        np.testing.assert_allclose(found.medoid_vector[c], vectors[found.medoid[c]], atol=1e-5)
        if config is KMEDOIDS:
            np.testing.assert_allclose(found.strength[members], np.clip(own, 0, 1), atol=1e-5)


def test_what_hdbscan_leaves_over_joins_where_it_is_closer_than_half_of_the_members():
    features, _ = blobs(2, dim=8, noise=0.3)
    position = np.arange(400) % 4
    found = run(features, regions_of(100), SMALL)
    vectors = [oracles.reduced(found, f, p) for f, p in zip(features, position, strict=True)]
    cosine = np.array([[oracles.cosine(v, medoid) for medoid in found.medoid_vector] for v in vectors])
    core = module._fit_hdbscan(np.array(vectors, np.float32), 15, SMALL.min_samples)[0]
    medoid_core = core[found.medoid]  # the algorithm's own names of the clusters
    joined = 0
    for i in np.flatnonzero(core == NOISE):
        best = int(cosine[i].argmax())
        members = cosine[core == medoid_core[best], best]
        joins = cosine[i, best] >= np.percentile(members, 50) - 1e-6
        assert found.label[i] == (best if joins else NOISE)
        joined += joins
    assert joined > 10


@pytest.mark.parametrize("config", [SMALL, KMEDOIDS], ids=["hdbscan", "kmedoids"])
def test_parts_are_told_apart_by_what_they_do_not_share(config):
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    truth = np.repeat([0, 1], [60, 40])
    vectors = axes[0] + 0.4 * axes[1 + truth] + rng.normal(scale=0.04, size=(100, 12))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    assert (vectors[:60] @ vectors[60:].T).min() > 0.7
    found = parts(vectors, config, np.random.default_rng(0))
    known = found != NOISE
    assert known.mean() > 0.8
    assert set(found[known]) == {0, 1}
    assert adjusted_rand_score(truth[known], found[known]) == 1


def test_above_max_fit_parts_are_found_in_a_sample_and_the_others_join_by_the_rule(monkeypatch):
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    truth = rng.permutation(np.repeat([0, 1], [600, 400]))
    vectors = axes[0] + 0.4 * axes[1 + truth] + rng.normal(scale=0.04, size=(1000, 12))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    seen, fit = [], module._fit_hdbscan
    monkeypatch.setattr(module, "_fit_hdbscan", lambda v, *asked: seen.append((len(v), *asked)) or fit(v, *asked))

    def parted(max_fit, seed=0):
        return parts(vectors, replace(SMALL, max_fit=max_fit, min_cluster_size=60), np.random.default_rng(seed))

    whole, found = parted(1000), parted(250)
    assert seen == [(1000, 60, SMALL.min_samples), (250, 15, SMALL.min_samples)]
    assert np.array_equal(whole, parted(20_000))
    assert np.array_equal(found, parted(250))
    assert not np.array_equal(found, parted(250, seed=1))
    known = found != NOISE
    assert known.mean() > 0.85
    assert set(found[known]) == {0, 1}
    assert adjusted_rand_score(truth[known], found[known]) == 1


def test_reduce_and_assign_equal_the_definition():
    features, _ = blobs(noise=0.2)
    found = run(features[:200], regions_of(50), SMALL)
    new, position = features[200:], np.arange(200) % 4
    want = [oracles.reduced(found, f, p) for f, p in zip(new, position, strict=True)]
    np.testing.assert_allclose(reduce(found, new, position), want, atol=1e-4)
    got = assign(found, new, position)
    assert got.tolist() == [oracles.assigned(found, f, p) for f, p in zip(new, position, strict=True)]
    assert set(got) == {NOISE, *range(found.n_clusters)}
    assert found.n_clusters >= 5
    assert got.dtype == np.int32


@pytest.mark.parametrize("size", [10, 20, 30, 40])
def test_no_cluster_is_smaller_than_asked_for(size):
    features, _ = blobs(noise=0.5)
    found = run(features, regions_of(100), ClusteringConfig(min_cluster_size=size))
    assert found.n_clusters > 0
    assert np.bincount(found.label[found.label != NOISE]).min() >= size


# --- metamorphic -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [SMALL, KMEDOIDS], ids=["hdbscan", "kmedoids"])
def test_adding_a_constant_changes_nothing(config):
    features, _ = blobs(noise=0.1)
    constant = np.random.default_rng(1).normal(scale=3, size=features.shape[1])
    first, second = run(features, regions_of(100), config), run(features + constant, regions_of(100), config)
    np.testing.assert_array_equal(first.label, second.label)


@pytest.mark.parametrize("config", [SMALL, KMEDOIDS], ids=["hdbscan", "kmedoids"])
def test_rotating_and_scaling_the_space_changes_nothing(config):
    features, _ = blobs(noise=0.1)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(24, 24)))[0]
    first, second = run(features, regions_of(100), config), run(7 * features @ turn, regions_of(100), config)
    np.testing.assert_array_equal(first.label, second.label)


@pytest.mark.parametrize("config", [SMALL, KMEDOIDS], ids=["hdbscan", "kmedoids"])
def test_permuting_the_images_permutes_the_labels(config):
    features, _ = blobs()
    order = np.random.default_rng(1).permutation(100)
    rows = (order[:, None] * 4 + np.arange(4)).ravel()
    first, second = run(features, regions_of(100), config), run(features[rows], regions_of(100), config)
    assert adjusted_rand_score(first.label[rows], second.label) == 1


@pytest.mark.parametrize("config", [SMALL, KMEDOIDS], ids=["hdbscan", "kmedoids"])
def test_the_same_seed_gives_the_same_clustering_and_storage_does_not_matter(config, tmp_path):
    features, _ = blobs(noise=0.2)
    stored = np.lib.format.open_memmap(tmp_path / "f.npy", mode="w+", dtype=np.float16, shape=features.shape)
    stored[:] = features
    first, second = run(np.array(stored), regions_of(100), config, 3), run(stored, regions_of(100), config, 3)
    for name, column in columns(first).items():
        np.testing.assert_array_equal(column, columns(second)[name], err_msg=name)


def test_blocks_do_not_matter(monkeypatch):
    features, _ = blobs(noise=0.2)
    first = run(features, regions_of(100), SMALL)
    new = assign(first, features, np.arange(400) % 4)
    monkeypatch.setattr(module, "_BLOCK", 33)
    second = run(features, regions_of(100), SMALL)
    np.testing.assert_array_equal(first.label, second.label)
    np.testing.assert_allclose(first.position_mean, second.position_mean, atol=1e-6)
    np.testing.assert_array_equal(assign(second, features, np.arange(400) % 4), new)


# --- samples ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [SMALL, KMEDOIDS], ids=["hdbscan", "kmedoids"])
def test_above_max_fit_the_rest_is_assigned_by_the_rule(config):
    features, truth = blobs()
    sampled = ClusteringConfig(**{**vars(config), "max_fit": 200, "min_cluster_size": 40})
    found = run(features, regions_of(100), sampled)
    check(found, 400)
    assert found.n_clusters == 5
    joined = found.label != NOISE
    assert joined.mean() > 0.9
    assert adjusted_rand_score(truth[joined], found.label[joined]) > 0.99
    by_rule = assign(found, features, np.arange(400) % 4)
    # the sample keeps the algorithm's labels, the other half has exactly those of the rule
    sample = module._sample(regions_of(100).image, np.arange(400) % 4, 200, np.random.default_rng(0))
    rest = np.setdiff1d(np.arange(400), sample)
    np.testing.assert_array_equal(found.label[rest], by_rule[rest])
    assert np.any(found.label[rest] == NOISE)


def test_the_sample_is_of_whole_images_and_represents_every_position():
    image = np.concatenate([np.repeat(np.arange(250), 2), np.repeat(np.arange(250, 375), 4)])
    position = np.concatenate([np.tile([0, 1], 250), np.tile([0, 2, 2, 0], 125)])
    rows = module._sample(image, position, 100, np.random.default_rng(0))
    assert np.all(np.diff(rows) > 0)
    assert np.array_equal(rows, np.flatnonzero(np.isin(image, image[rows])))  # all regions of its images
    assert 90 < len(rows) <= 100
    assert np.bincount(position[rows]) / len(rows) == pytest.approx([0.5, 0.25, 0.25], abs=0.02)
    assert np.array_equal(rows, module._sample(image, position, 100, np.random.default_rng(0)))
    other = module._sample(image, position, 100, np.random.default_rng(1))
    assert not np.array_equal(rows, other)
    assert module._sample(image, position, 1000, np.random.default_rng(0)).tolist() == list(range(1000))


def test_of_a_grid_the_sample_holds_every_position_equally_often():
    image, position = np.repeat(np.arange(300), 4), np.tile(np.arange(4), 300)
    rows = module._sample(image, position, 203, np.random.default_rng(0))
    assert np.bincount(position[rows]).tolist() == [50] * 4


def test_where_no_image_is_small_enough_the_sample_is_of_rows():
    image, position = np.repeat([0, 1], 500), np.tile([0, 0, 0, 1], 250)
    rows = module._sample(image, position, 100, np.random.default_rng(0))
    assert np.bincount(position[rows]).tolist() == [75, 25]
    assert np.all(np.diff(rows) > 0)


def test_above_max_fit_what_nearly_all_images_show_is_clustered_again():
    """Two looks of a background and a mark that some images show: told apart in a sample as in the whole."""
    rng = np.random.default_rng(1)
    axes = np.linalg.qr(rng.normal(size=(32, 8)))[0].T * np.sqrt(32)
    looks = np.stack([axes[0] + 0.3 * axes[2 + i] for i in range(3)] + [axes[1] + 0.3 * axes[5 + i] for i in range(2)])
    kind = np.tile(np.repeat([0, 1, 3, 4], 4), 2000).reshape(2000, 16)
    kind[rng.random(2000) < 0.3, 0] = 2
    truth = kind.ravel()
    features = (looks[truth] + 0.2 * rng.normal(size=(len(truth), 32))).astype(np.float32)
    regions = Regions(np.repeat(np.arange(2000), 16), np.tile([0, 0, 4, 4], (32_000, 1)), np.full(32_000, -1), 2000)
    found = run(features, regions, ClusteringConfig(max_fit=2000))
    marks = np.bincount(found.label[(truth == 2) & (found.label != NOISE)], minlength=found.n_clusters)
    own = found.label == marks.argmax()
    assert np.mean(truth[own] == 2) == 1
    assert np.mean(found.label[truth == 2] == marks.argmax()) > 0.7


def test_only_the_rows_that_are_asked_for_are_assigned():
    features, _ = blobs()
    found, position = run(features, regions_of(100), SMALL), np.arange(400) % 4
    rows = np.random.default_rng(0).permutation(400)[:123]
    assert np.array_equal(assign(found, features, position, rows), assign(found, features, position)[rows])


# --- degenerate ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["hdbscan", "kmedoids"])
@pytest.mark.parametrize(
    "features",
    [
        np.zeros((0, 6)),
        np.ones((1, 6)),
        np.arange(12.0).reshape(2, 6),
        np.full((60, 6), 0.1),
        np.zeros((60, 6)),
        np.repeat(np.eye(6), 2, axis=0),
        np.tile(np.eye(2, 6), (30, 1)),
        np.tile(np.eye(3, 6), (20, 1)),
        np.linspace(0, 1, 40)[:, None] * np.ones((1, 6)),
        np.random.default_rng(0).normal(size=(40, 1)),
        np.random.default_rng(0).normal(size=(10, 300)),
    ],
    ids=["none", "one", "two", "equal", "zero", "few", "two values", "three values", "a line", "one dim", "few, wide"],
)
def test_degenerate_input_gives_a_valid_clustering(method, features):
    for regions in (loose_regions(len(features)), regions_of(len(features), 1)):
        found = run(features.astype(np.float16), regions, ClusteringConfig(method=method))
        check(found, len(features))
        new = assign(found, features, regions.position)
        assert new.shape == (len(features),)
        assert np.isfinite(reduce(found, features, regions.position)).all()
        if found.n_clusters:
            np.testing.assert_array_equal(new[found.medoid], np.arange(found.n_clusters))


def test_equal_regions_are_noise():
    found = run(np.full((60, 6), 0.1, np.float16), regions_of(15), SMALL)
    assert found.n_clusters == 0
    assert found.noise_share == 1


@pytest.mark.parametrize("constant", [0.1, 1e4])
def test_rounding_is_not_taken_for_a_direction(constant):
    # three groups that differ in the last bit of float32: nothing that a model could have meant
    last_bit = np.spacing(np.float32(constant))
    features = (np.float32(constant) + last_bit * np.tile(np.eye(3, 6), (20, 1))).astype(np.float32)
    assert len(np.unique(features, axis=0)) == 3
    for method in ("hdbscan", "kmedoids"):
        found = run(features, loose_regions(60), ClusteringConfig(method=method, min_cluster_size=5, k=3))
        assert found.n_clusters == 0
        assert not reduce(found, features, np.full(60, -1)).any()


def test_a_region_without_a_direction_is_noise_even_for_a_cluster_that_takes_all():
    axes = np.eye(2, 3)
    takes_all = Clustering([0], [1], [0], np.ones((1, 3)), np.zeros(3), axes, np.array([[1.0, 0.0]]), np.array([-1.0]))
    features = np.array([[1, 1, 1], [0, 1, 1], [1, 1, 9]])  # the mean itself, the opposite, off the axes
    assert assign(takes_all, features, np.zeros(3, int)).tolist() == [NOISE, 0, NOISE]


def test_identical_copies_form_clusters_that_take_their_copies_back():
    features = np.tile(np.eye(3, 6), (20, 1))
    for method in ("hdbscan", "kmedoids"):
        found = run(features, loose_regions(60), ClusteringConfig(method=method, min_cluster_size=10, k=3))
        assert found.n_clusters == 3
        np.testing.assert_array_equal(assign(found, features, np.full(60, -1)), found.label)
        assert found.medoid.tolist() == [0, 1, 2]  # equal sizes: by the smallest member


def test_more_medoids_than_regions_are_not_made_up():
    found = run(
        np.random.default_rng(0).normal(size=(10, 4)), loose_regions(10), ClusteringConfig(method="kmedoids", k=50)
    )
    check(found, 10)
    assert 1 <= found.n_clusters <= 5


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    features, _ = blobs(n_images=20)
    found = run(features, regions_of(20), SMALL)
    features[37, 2] = bad
    with pytest.raises(ValueError, match="features must be finite, got NaN or infinity in row 37"):
        run(features, regions_of(20), SMALL)
    with pytest.raises(ValueError, match="features must be finite"):
        assign(found, features, np.arange(80) % 4)


def test_wrong_shapes_and_positions_are_refused():
    features, _ = blobs(n_images=20)
    found = run(features, regions_of(20), SMALL)
    with pytest.raises(ValueError, match=r"shape \(76, M\), one row per region, got \(80, 24\)"):
        run(features, regions_of(19), SMALL)
    with pytest.raises(ValueError, match=r"shape \(80, 24\).*got \(80, 23\)"):
        reduce(found, features[:, 1:], np.zeros(80, int))
    with pytest.raises(ValueError, match=r"shape \(3, 24\)"):
        assign(found, features, np.zeros(3, int))
    for wrong in (4, -1):
        with pytest.raises(ValueError, match=r"position must lie in 0 \.\. 3"):
            assign(found, features, np.full(80, wrong))


def test_nothing_new_is_assigned_to_nothing():
    features, _ = blobs(n_images=20)
    found = run(features, regions_of(20), SMALL)
    assert assign(found, features[:0], np.zeros(0, int)).tolist() == []
    assert reduce(found, features[:0], np.zeros(0, int)).shape == (0, len(found.components))
