"""K-Medoids: its candidates, its samples, and the silhouette that chooses."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import adjusted_rand_score, silhouette_score

from ravl.config import ClusteringConfig
from ravl.discovery import kmedoids as module
from ravl.discovery.kmedoids import silhouette
from ravl.tables import NOISE
from tests import oracles
from tests.test_clustering import KMEDOIDS, blobs, check, regions_of, run


def test_kmedoids_candidates_are_two_to_five_times_the_classes(monkeypatch):
    tried = []
    original = module._alternate

    def record(vectors, k, rng, steps=100):
        tried.append(k)
        return original(vectors, k, rng, steps)

    monkeypatch.setattr(module, "_alternate", record)
    features, _ = blobs()
    run(features, regions_of(100), ClusteringConfig(method="kmedoids", restarts=1), n_classes=3)
    assert tried[:-1] == list(range(6, 15))
    assert tried[-1] in tried[:-1]
    tried.clear()
    run(features, regions_of(100), ClusteringConfig(method="kmedoids", restarts=1), n_classes=30)
    assert len(tried) == module.MAX_CANDIDATES + 1
    assert min(tried) == 60
    assert max(tried) == 149


def test_silhouette_equals_the_definition_and_scikit_learn():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    label = np.append(rng.integers(0, 4, 39), 4)  # one cluster of one
    np.testing.assert_allclose(silhouette(vectors, label), oracles.silhouette(vectors, label), rtol=1e-6)
    np.testing.assert_allclose(silhouette(vectors, label), silhouette_score(vectors, label, metric="cosine"), rtol=1e-6)
    assert silhouette(vectors, np.zeros(40, int)) == 0


def test_kmedoids_on_samples_agrees_with_kmedoids_on_all(monkeypatch):
    features, truth = blobs()
    monkeypatch.setattr(module, "CLARA_ABOVE", 150)
    monkeypatch.setattr(module, "CLARA_SAMPLE", 100)
    found = run(features, regions_of(100), KMEDOIDS)
    check(found, 400)
    assert adjusted_rand_score(truth, found.label) > 0.99
    assert not np.any(found.label == NOISE)
