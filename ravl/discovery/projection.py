"""A two-dimensional map of all regions, for looking at. It is never in the path of a decision."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.config import ProjectionConfig
from ravl.discovery.clustering import reduce
from ravl.discovery.zero_shot import product
from ravl.tables import Clustering, Regions

MAX_FIT = 20_000
"""Regions that UMAP lays out, single-threaded; the others are placed among their neighbours."""
NEIGHBOURS_TO_PLACE = 5
_BLOCK = 256
"""Rows that are compared at once: 16 bytes for each of MAX_FIT others, so 80 MB."""


def project(
    features: NDArray[Any], clustering: Clustering, regions: Regions, config: ProjectionConfig, seed: int
) -> NDArray[np.float32]:
    """(R, 2) float32 finite map coordinates: a seeded UMAP (McInnes et al. 2018) of the space that was clustered.

    Distances are euclidean between unit vectors, which order as cosines do. UMAP starts from the first principal axes
    and runs on one thread, so that equal input and seed give equal maps. Above MAX_FIT regions it lays out a random
    sample, and every other region goes to the mean place of its NEIGHBOURS_TO_PLACE nearest sampled ones.
    With fewer than n_neighbors + 2 different regions UMAP has nothing to lay out, and the map is the first two
    principal coordinates (0 where there are none).

    features: (R, M), may be a float16 memory map. Raises ValueError as `reduce` does.
    """
    vectors = reduce(clustering, features, regions.position)
    chosen = np.arange(len(vectors))
    if len(vectors) > MAX_FIT:
        chosen = np.sort(np.random.default_rng(seed).choice(len(vectors), MAX_FIT, replace=False))
    if len(np.unique(vectors[chosen], axis=0)) < config.n_neighbors + 2:
        flat = np.zeros((len(vectors), 2), np.float32)
        flat[:, : min(2, vectors.shape[1])] = vectors[:, :2]
        return flat
    layout = _umap(vectors[chosen], config, seed)
    if len(chosen) == len(vectors):
        return layout
    places: NDArray[np.float32] = layout[nearest(vectors, vectors[chosen], NEIGHBOURS_TO_PLACE)[0]].mean(1)
    places[chosen] = layout
    return places


def _umap(vectors: NDArray[np.float32], config: ProjectionConfig, seed: int) -> NDArray[np.float32]:
    with warnings.catch_warnings():
        # without TensorFlow, which only its parametric variant needs, umap warns on import
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        from umap import UMAP, layouts, umap_

    _keep_compiled(layouts, umap_)
    # exact neighbours by matrix products: umap's own search takes 15 s for 4000 regions (a Python call per pair)
    index, distance = neighbours(vectors, config.n_neighbors)
    with warnings.catch_warnings(), _one_thread():
        # nothing is transformed later, so no search index is needed
        warnings.filterwarnings("ignore", r"precomputed_knn\[2\]", UserWarning)
        model = UMAP(
            n_neighbors=config.n_neighbors,
            min_dist=config.min_dist,
            init="pca",  # the spectral start is slower, and fails with a warning where the graph falls into parts
            precomputed_knn=(index, distance),
            random_state=seed,
            n_jobs=1,
        )
        return np.asarray(model.fit_transform(vectors), np.float32)


def _keep_compiled(*modules: ModuleType) -> None:
    """Keep what numba compiles of these modules on disk, beside what umap keeps there itself.

    Compiling takes five seconds of every process that draws a map, more than all other stages of a small audit.
    """
    from numba.extending import is_jitted

    for module in modules:
        for function in vars(module).values():
            if is_jitted(function):
                function.enable_caching()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run numba's parallel loops on one thread, and leave OpenMP as it was.

    Numba starts a thread per core when the first such loop runs, and by that tells OpenMP, which torch shares, to use
    every core from then on: also where OMP_NUM_THREADS said less because several processes run side by side.
    """
    import numba
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="openmp"):
        before = numba.get_num_threads()
        numba.set_num_threads(1)
        try:
            yield
        finally:
            numba.set_num_threads(before)


def neighbours(vectors: NDArray[np.float32], n: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(N, n) the nearest unit vectors of each, and their euclidean distances, from near to far; N > n.

    Every vector is its own first neighbour at distance 0, also where others are equal to it.
    """
    index, cosine = nearest(vectors, vectors, n)
    itself = np.arange(len(vectors))[:, None]
    others = np.argsort(index == itself, axis=1, kind="stable")[:, : n - 1]
    index, cosine = np.take_along_axis(index, others, 1), np.take_along_axis(cosine, others, 1)
    distance = np.sqrt(np.maximum(2 - 2 * cosine, 0))
    return np.hstack([itself, index]), np.hstack([np.zeros_like(distance[:, :1]), distance])


def nearest(
    vectors: NDArray[np.float32], among: NDArray[np.float32], n: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(len(vectors), n) rows of `among` with the largest dot products, best first, and these products."""
    index = np.empty((len(vectors), n), np.int64)
    dots = np.empty((len(vectors), n), np.float32)
    for start in range(0, len(vectors), _BLOCK):
        block = product(vectors[start : start + _BLOCK], among.T)
        some = np.argpartition(-block, n - 1, axis=1)[:, :n]
        values = np.take_along_axis(block, some, 1)
        order = np.argsort(-values, axis=1, kind="stable")
        index[start : start + _BLOCK] = np.take_along_axis(some, order, 1)
        dots[start : start + _BLOCK] = np.take_along_axis(values, order, 1)
    return index, dots
