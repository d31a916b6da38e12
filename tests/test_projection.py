from __future__ import annotations

import json
import math

import numpy as np
import pytest

from ravl.config import ClusteringConfig, ProjectionConfig
from ravl.discovery import projection
from ravl.discovery.clustering import cluster, reduce
from ravl.discovery.projection import nearest, neighbours, project
from ravl.tables import Regions

CONFIG = ProjectionConfig(n_neighbors=10)


def world(n: int = 120, n_blobs: int = 3, dim: int = 12, seed: int = 0):
    """Well separated directions: features, their clustering, regions without positions, and the blob of each."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % n_blobs
    features = 4 * np.eye(dim)[truth] + rng.normal(scale=0.2, size=(n, dim))
    regions = Regions(np.arange(n), np.tile([0, 0, 1, 1], (n, 1)), np.full(n, -1), n)
    found = cluster(features, regions, 2, ClusteringConfig(n_components=6), rng)
    return features, found, regions, truth


def separation(places, truth) -> float:
    """Smallest distance between two blobs' centres, over the largest distance of a member from its own."""
    centers = np.array([places[truth == b].mean(0) for b in np.unique(truth)])
    spread = max(np.linalg.norm(places[truth == b] - c, axis=1).max() for b, c in enumerate(centers))
    between = min(np.linalg.norm(a - b) for i, a in enumerate(centers) for b in centers[:i])
    return between / spread


def test_blobs_stay_apart_on_the_map_and_a_seed_gives_one_map():
    features, found, regions, truth = world()
    places = project(features, found, regions, CONFIG, 3)
    assert places.shape == (120, 2)
    assert places.dtype == np.float32
    assert np.isfinite(places).all()
    assert separation(places, truth) > 2
    np.testing.assert_array_equal(project(features, found, regions, CONFIG, 3), places)
    assert not np.array_equal(project(features, found, regions, CONFIG, 4), places)


def test_above_max_fit_the_rest_is_placed_among_its_neighbours(monkeypatch):
    features, found, regions, truth = world(n=200)
    monkeypatch.setattr(projection, "MAX_FIT", 80)
    places = project(features, found, regions, CONFIG, 0)
    assert np.isfinite(places).all()
    assert separation(places, truth) > 2
    chosen = np.sort(np.random.default_rng(0).choice(200, 80, replace=False))
    vectors = reduce(found, features, regions.position)
    i = int(np.setdiff1d(np.arange(200), chosen)[7])
    close = np.argsort(-(vectors[chosen] @ vectors[i]))[: projection.NEIGHBOURS_TO_PLACE]
    np.testing.assert_allclose(places[i], places[chosen[close]].mean(0), rtol=1e-5)


def test_copies_are_laid_out_too():
    features, _, regions, truth = world(n=90)
    features = np.repeat(features[:30], 3, axis=0)
    found = cluster(features, regions, 2, ClusteringConfig(), np.random.default_rng(0))
    places = project(features, found, regions, CONFIG, 0)
    assert np.isfinite(places).all()
    assert separation(places, np.repeat(truth[:30], 3)) > 1


@pytest.mark.parametrize("n", [0, 1, 2, 11])
def test_too_few_regions_get_their_principal_coordinates(n):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, 5))
    regions = Regions(np.arange(n), np.tile([0, 0, 1, 1], (n, 1)), np.full(n, -1), n)
    found = cluster(features, regions, 2, ClusteringConfig(), rng)
    places = project(features, found, regions, CONFIG, 0)
    assert places.shape == (n, 2)
    want = np.zeros((n, 2))
    want[:, : min(2, len(found.components))] = reduce(found, features, regions.position)[:, :2]
    np.testing.assert_array_equal(places, want.astype(np.float32))


@pytest.mark.parametrize("features", [np.ones((50, 5)), np.zeros((50, 5)), np.tile(np.eye(5), (10, 1))])
def test_equal_regions_lie_on_each_other(features):
    regions = Regions(np.arange(50), np.tile([0, 0, 1, 1], (50, 1)), np.full(50, -1), 50)
    found = cluster(features, regions, 2, ClusteringConfig(), np.random.default_rng(0))
    places = project(features, found, regions, CONFIG, 0)
    assert np.isfinite(places).all()
    for i in range(5, 50):
        np.testing.assert_array_equal(places[i], places[i % 5])


def test_nearest_equals_sorting_everything(monkeypatch):
    rng = np.random.default_rng(0)
    vectors, among = rng.normal(size=(30, 4)).astype(np.float32), rng.normal(size=(20, 4)).astype(np.float32)
    monkeypatch.setattr(projection, "_BLOCK", 7)
    index, product = nearest(vectors, among, 6)
    for i in range(30):
        dots = [float(sum(a * b for a, b in zip(vectors[i], row, strict=True))) for row in among]
        want = sorted(range(20), key=lambda j: -dots[j])[:6]
        assert index[i].tolist() == want
        np.testing.assert_allclose(product[i], [dots[j] for j in want], rtol=1e-4, atol=1e-6)


def test_neighbours_are_oneself_and_the_nearest_others():
    vectors = np.random.default_rng(0).normal(size=(25, 4))
    vectors[20:] = vectors[3]  # copies of one another, more than are asked for
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index, distance = neighbours(vectors.astype(np.float32), 4)
    for i in range(25):
        others = sorted(math.dist(vectors[i], vectors[j]) for j in range(25) if j != i)
        assert index[i, 0] == i
        assert distance[i, 0] == 0
        assert len(set(index[i])) == 4
        np.testing.assert_allclose(distance[i, 1:], others[:3], atol=1e-3)
        np.testing.assert_allclose(distance[i], [math.dist(vectors[i], vectors[j]) for j in index[i]], atol=1e-3)


def test_features_that_are_not_finite_are_refused():
    features, found, regions, _ = world(n=60)
    features[3, 1] = np.nan
    with pytest.raises(ValueError, match="features must be finite"):
        project(features, found, regions, CONFIG, 0)


_DRAWN = """
import json, os
os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
import torch, umap
from numba import get_num_threads
from numba.extending import is_jitted
from ravl.discovery.projection import project
from tests.test_projection import CONFIG, world
features, found, regions, _ = world()
project(features, found, regions, CONFIG, 0)
names = [(module, name) for module in (umap.umap_, umap.layouts) for name in vars(module)]
compiled = [f for f in (getattr(*place) for place in names) if is_jitted(f) and f.signatures]
print(json.dumps([torch.get_num_threads(), get_num_threads(), [f.stats.cache_path is not None for f in compiled]]))
"""


def test_a_map_changes_no_number_of_threads_and_its_code_is_compiled_once(python):
    """In a process of its own: numba starts its threads once."""
    threads, of_numba, kept = json.loads(python(_DRAWN))
    assert (threads, of_numba) == (1, 2)
    assert len(kept) >= 4
    assert all(kept)
