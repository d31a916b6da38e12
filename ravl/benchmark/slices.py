"""Rivals that see whole images: they find groups of images on which a model fails, and name no region.

Their members are image ids, ten of which are looked at for P@10. Where half of the audited images show the mark, half
of a random list does too: these figures start at the mark's share of the images, those of regions at its share of the
regions, which is smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.benchmark.rivals import Audit, Ids, Ranked
from ravl.discovery.zero_shot import product, unit
from ravl.tables import ZeroShot

Matrix = NDArray[np.float64]

LEAST_IMAGES = 10
"""Images that a group shows at least: a smaller one is filled up with those that come next."""
LEAST_SLICE = 5
"""Images whose likeliest slice it is; slices with fewer come last (ours asks for five errors, too)."""
DOMINO_AXES = 30
DOMINO_SLICES = 25
"""Components of the mixture, at least; more where the confusion matrix has more cells (as its code asks for)."""
SVM_PENALTIES = np.logspace(-6, 0, 7)
"""The values of C that Jain et al. search."""
_EPS = float(np.finfo(float).eps)


def domino(audit: Audit, seed: int) -> Ranked:
    """Domino (Eyuboglu et al. 2022, arXiv 2203.14960): an error-aware Gaussian mixture, fitted by EM.

    A slice s draws an embedding z from a diagonal Gaussian, a true class from a categorical and a predicted class from
    another; soft predictions are averaged over, as in the published code:

        log p(z, y, f) = log sum_s w_s N(z; mu_s, var_s) (y . p_s) (f . q_s)

    Slices start from the cells of the confusion matrix. Their error is the largest excess of predicted over true class
    share, max_y (q_sy - p_sy), which ranks them; that class is the pull class. Members: the images whose likeliest
    slice it is, by falling responsibility.

    Deviation: 30 principal axes instead of 128 (the images number about a thousand). Both likelihood weights are 1, as
    in the code. In the rival's favour, slices of fewer than five images come last (else single errors come first), and
    of slices whose errors differ by less than .01 the larger one comes first.
    """
    zero_shot = audit.zero_shot
    truth = np.eye(zero_shot.image.shape[1])[zero_shot.label]
    prediction = zero_shot.image.astype(float)
    axes = _principal(audit.image_vec, DOMINO_AXES)
    fit = _fit_mixture(axes, truth, prediction, np.random.default_rng(seed))
    size = np.bincount(fit.log_responsibility.argmax(1), minlength=len(fit.true_share))
    nearest = np.argsort(-fit.log_responsibility, axis=0, kind="stable")
    members = [nearest[: max(LEAST_IMAGES, n), s] if n else nearest[:0, s] for s, n in enumerate(size)]
    excess = fit.predicted_share - fit.true_share
    score = np.where(size >= LEAST_SLICE, excess.max(1, initial=0).round(2), -1)
    return _ranked_images("Domino", members, score, excess.argmax(1))


@dataclass(frozen=True)
class Mixture:
    """A fitted mixture of S slices. log_responsibility: (I, S). true_share, predicted_share: (S, Y), rows sum to 1."""

    log_responsibility: Matrix
    true_share: Matrix
    predicted_share: Matrix
    log_likelihood: list[float]
    """Mean per image, one value per step of EM; never falls."""


def _fit_mixture(z: Matrix, truth: Matrix, prediction: Matrix, rng: np.random.Generator, steps: int = 100) -> Mixture:
    """EM until the mean log-likelihood gains less than 1e-3. z: (I, D); truth, prediction: (I, Y) rows sum to 1."""
    cells = np.einsum("iy,iz->iyz", truth, prediction).reshape(len(z), truth.shape[1] ** 2)
    n_slices = max(DOMINO_SLICES, cells.shape[1])
    start = np.tile(cells, -(-n_slices // cells.shape[1]))[:, :n_slices]
    responsibility = start / start.sum(1, keepdims=True) + 1e-3 * rng.random(start.shape)
    responsibility /= responsibility.sum(1, keepdims=True)
    history: list[float] = []
    for _ in range(steps):
        size = responsibility.sum(0) + 10 * _EPS
        mean = product(responsibility.T, z) / size[:, None]
        variance = np.maximum(product(responsibility.T, z**2) / size[:, None] - mean**2, 0) + 1e-6
        true_share = product(responsibility.T, truth) / size[:, None]
        predicted_share = product(responsibility.T, prediction) / size[:, None]
        logs = np.log(size / len(z)) + _log_density(z, mean, variance)
        logs += np.log(product(truth, true_share.T) + _EPS) + np.log(product(prediction, predicted_share.T) + _EPS)
        top = logs.max(1, keepdims=True)
        total = top + np.log(np.exp(logs - top).sum(1, keepdims=True))
        responsibility = np.exp(logs - total)
        history.append(float(total.mean()))
        if len(history) > 1 and abs(history[-1] - history[-2]) < 1e-3:
            break
    return Mixture(logs - total, true_share, predicted_share, history)


def _log_density(z: Matrix, mean: Matrix, variance: Matrix) -> Matrix:
    """(I, S) log density of diagonal Gaussians, the square written out so that no (I, S, D) array is needed."""
    square = product(z**2, (1 / variance).T) - 2 * product(z, (mean / variance).T) + (mean**2 / variance).sum(1)
    out: Matrix = -0.5 * (square + np.log(2 * np.pi * variance).sum(1))
    return out


def failure_directions(audit: Audit) -> Ranked:
    """Jain et al. 2023 (arXiv 2206.14754): in each class a linear SVM tells right from wrong by the image embedding.

    Embeddings are whitened and normalised; C is chosen by the balanced accuracy in two-fold cross-validation, which
    also scores the class (how consistent its failure is). Members: the class's images on the failing side, the most
    extreme first. Pull class: the most frequent wrong prediction among them. A class with fewer than two errors or two
    right answers has no direction. Feature ids are classes.
    """
    vectors = _whitened(audit.image_vec)
    zero_shot = audit.zero_shot
    members: list[Ids] = []
    score, pull = [], []
    for y in range(zero_shot.image.shape[1]):
        rows = np.flatnonzero(zero_shot.label == y)
        right = zero_shot.correct[rows]
        if min(right.sum(), (~right).sum()) < 2:
            failing, quality = np.zeros(0, np.int64), 0.0
        else:
            decision, quality = _direction(vectors[rows], right)
            order = np.argsort(decision, kind="stable")
            failing = rows[order[: max(LEAST_IMAGES, int((decision < 0).sum()))]]
        members.append(failing)
        score.append(quality)
        pull.append(_most_frequent_error(zero_shot, failing))
    return _ranked_images("failure directions", members, np.array(score), np.array(pull, np.int64))


def _direction(vectors: NDArray[np.float32], right: NDArray[np.bool_]) -> tuple[Matrix, float]:
    """(n,) signed distances to the plane between right (> 0) and wrong, and the cross-validated balanced accuracy."""
    from sklearn.model_selection import cross_val_score
    from sklearn.svm import SVC

    machines = [SVC(kernel="linear", C=c, class_weight="balanced") for c in SVM_PENALTIES]
    quality = [float(cross_val_score(m, vectors, right, cv=2, scoring="balanced_accuracy").mean()) for m in machines]
    best = int(np.argmax(quality))
    return machines[best].fit(vectors, right).decision_function(vectors), quality[best]


def _whitened(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    spread = vectors.std(0) if len(vectors) else np.ones(vectors.shape[1])
    return unit((vectors - vectors.mean(0)) / np.where(spread > 0, spread, 1))


def _principal(vectors: NDArray[np.float32], n_axes: int) -> Matrix:
    """(I, K) coordinates on the leading principal axes, K <= n_axes and no more than the rank."""
    centred = vectors.astype(float) - vectors.mean(0)
    left, value, _ = np.linalg.svd(centred, full_matrices=False)
    rank = max(1, int(np.count_nonzero(value > 1e-6 * value.max(initial=1e-300))))
    kept = min(n_axes, rank)
    return left[:, :kept] * value[:kept]  # type: ignore[no-any-return]


def _most_frequent_error(zero_shot: ZeroShot, images: Ids) -> int:
    """The wrong class predicted most often on these images, the lowest of equals; -1 where all are right."""
    predicted = zero_shot.predicted[images[~zero_shot.correct[images]]]
    return int(np.bincount(predicted).argmax()) if len(predicted) else -1


def _ranked_images(name: str, members: list[Ids], score: NDArray[Any], pull: NDArray[Any]) -> Ranked:
    """Groups of images by falling score, ties by size, then by id; empty ones left out; the first is flagged."""
    size = np.array([len(group) for group in members])
    order = np.lexsort((-size, -score))
    order = order[size[order] > 0]
    flagged = np.arange(len(order)) == 0
    kept = tuple(members[s] for s in order)
    return Ranked(name, order, kept, pull[order].astype(np.int64), flagged, of_images=True)
