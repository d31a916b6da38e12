"""A run folder of any size without a model: images in a few files, regions in blobs on the map.

What the dashboard reads is as large as in a real run; the embeddings, which it never opens, have two columns.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ravl.config import AuditConfig, PromptsConfig
from ravl.discovery.evidence import never_shown, weigh
from ravl.discovery.scoring import score_features
from ravl.discovery.significance import significance
from ravl.store import AuditRun
from ravl.tables import (
    Agreement,
    Clustering,
    Counterfactuals,
    Exemplars,
    Families,
    ImageSet,
    Regions,
    ZeroShot,
)

CLASSES = ("cat", "dog", "eel", "fox", "gnu", "hen")
CELLS, SIDE = 10, 320  # 100 regions an image, photographs of a common size
N_CLUSTERS = 24
NOISE_SHARE = 0.2
OPERATORS = ("token_drop", "mean_fill")


def write_large_run(workspace: Path, n_regions: int, name: str = "large", files: int = 200) -> AuditRun:
    """A finished run of `n_regions` regions, 100 an image; at most `files` different pictures are written."""
    rng = np.random.default_rng(0)
    n_images = n_regions // CELLS**2
    root = workspace / f"{name}-images"
    images = _images(root, n_images, min(files, n_images), rng)
    run = AuditRun.create(
        workspace,
        name,
        AuditConfig(str(root), "demo", prompts=PromptsConfig(CLASSES)),
        {"data": name, "model": "beef", "preprocessing": "cafe"},
    )
    step = SIDE // CELLS
    corner = np.stack(np.meshgrid(np.arange(CELLS), np.arange(CELLS)), -1).reshape(-1, 2) * step
    boxes = np.tile(np.concatenate([corner, corner + step], 1), (n_images, 1))
    regions = Regions(np.repeat(np.arange(n_images), CELLS**2), boxes, np.tile(np.arange(CELLS**2), n_images), n_images)
    label = np.where(rng.random(n_regions) < NOISE_SHARE, -1, rng.integers(0, N_CLUSTERS, n_regions))
    size = np.bincount(label[label >= 0], minlength=N_CLUSTERS)
    label = np.append(np.argsort(np.argsort(-size, kind="stable")), -1)[label]  # ids by falling size
    medoid = [int(np.flatnonzero(label == c)[0]) for c in range(N_CLUSTERS)]
    vectors = np.eye(N_CLUSTERS)
    clustering = Clustering(
        label,
        (label >= 0) * 0.9,
        medoid,
        np.zeros((1, N_CLUSTERS)),
        np.zeros(N_CLUSTERS),
        np.eye(N_CLUSTERS),
        vectors,
        np.full(N_CLUSTERS, 0.5),
    )
    zero_shot = ZeroShot(
        _rows(rng, n_images, images.label), _rows(rng, n_regions, images.label[regions.image]), images.label
    )
    families = Families(np.arange(N_CLUSTERS), [""] * N_CLUSTERS)
    config = run.config
    scores = score_features(regions, zero_shot, label, N_CLUSTERS, config.scoring)
    chance = significance(scores, regions, zero_shot, label, config.significance, 0)
    found = _removed(scores.feature, regions, zero_shot, label, config.evidence.max_images)
    records = {
        "images": images,
        "regions": regions,
        "zero_shot": zero_shot,
        "clusters": clustering,
        "families": families,
        "features": scores,
        "significance": chance,
        "exemplars": _exemplars(scores.feature, regions, zero_shot, label, config.exemplars.count),
        "counterfactuals": found,
        "evidence": weigh(
            found,
            scores,
            chance,
            zero_shot,
            never_shown(scores, regions, zero_shot, label, label),
            config.evidence,
            config.significance.alpha,
        ),
        "agreement": Agreement(0, np.nan, np.nan, np.nan),
        "projection": _map(rng, label),
    }
    for stage, record in records.items():
        run.stage(stage, lambda record=record: record)
        if stage == "regions":
            _embed(run, n_images, n_regions)
    return AuditRun(run.path)


def _images(root: Path, n: int, files: int, rng: np.random.Generator) -> ImageSet:
    """Noise is the worst case of a decoder, flat colour the best: half of each."""
    root.mkdir(parents=True)
    for i in range(files):
        pixels = np.full((SIDE, SIDE, 3), rng.integers(0, 255, 3), np.uint8)
        pixels[: SIDE // 2] = rng.integers(0, 255, (SIDE // 2, SIDE, 3))
        Image.fromarray(pixels).save(root / f"{i:04d}.jpg", quality=90)
    names = np.array([f"{i % files:04d}.jpg" for i in range(n)])
    return ImageSet(
        str(root), names, np.arange(n) % len(CLASSES), np.full((n, 2), SIDE), CLASSES, fingerprint=root.name
    )


def _rows(rng: np.random.Generator, n: int, label: np.ndarray) -> np.ndarray:
    """Probabilities that are right for about three of four."""
    rows = rng.random((n, len(CLASSES)), np.float32)
    rows[np.arange(n), label] += 0.6
    return rows / rows.sum(1, keepdims=True)


def _removed(
    features: NDArray[np.int32], regions: Regions, zero_shot: ZeroShot, label: NDArray[np.int64], most: int
) -> Counterfactuals:
    """Removal from up to `most` images of each feature: one wrong answer of four becomes right, all else stays."""
    rng = np.random.default_rng(1)
    showing = [np.unique(regions.image[label == feature]) for feature in features]
    images = [np.sort(rng.choice(own, min(most, len(own)), replace=False)) for own in showing]
    image = np.concatenate(images)
    answer = zero_shot.predicted[image]
    after = np.where(rng.random(len(image)) < 0.25, zero_shot.label[image], answer)
    control = np.where(zero_shot.correct[image], -1, answer)
    none = np.zeros(0, int)
    return Counterfactuals(
        OPERATORS,
        np.repeat(features, list(map(len, images))),
        image,
        np.stack([after] * len(OPERATORS), 1),
        np.stack([control] * len(OPERATORS), 1),
        *([none] * 5),
    )


def _exemplars(
    features: NDArray[np.int32], regions: Regions, zero_shot: ZeroShot, label: NDArray[np.int64], count: int
) -> Exemplars:
    """The first regions of each feature."""
    chosen = [np.flatnonzero(label == feature)[:count] for feature in features]
    region, n = np.concatenate(chosen), list(map(len, chosen))
    image = regions.image[region]
    second, first = np.argsort(zero_shot.image[image], axis=1)[:, -2:].T
    against = np.where(zero_shot.correct[image], second, first)
    contribution = np.concatenate([np.linspace(1, 0, each) for each in n])
    return Exemplars(np.repeat(features, n), region, image, against, contribution, contribution, contribution)


def _map(rng: np.random.Generator, label: np.ndarray) -> np.ndarray:
    """A blob for each cluster on a ring or inside it, noise everywhere."""
    turn = np.arange(N_CLUSTERS) * 2.4
    center = np.stack([np.cos(turn), np.sin(turn)], 1) * (3 + 7 * np.arange(N_CLUSTERS)[:, None] / N_CLUSTERS)
    at = np.append(center, [[0, 0]], 0)[label]
    spread = np.where(label < 0, 5.0, 0.8)[:, None]
    return (at + rng.normal(0, 1, (len(label), 2)) * spread).astype(np.float32)


def _embed(run: AuditRun, n_images: int, n_regions: int) -> None:
    shapes = {"image_embeddings": (n_images, 2), "region_embeddings": (n_regions, 2), "region_features": (n_regions, 2)}
    run.embed(shapes, lambda start: iter([(n_images, {k: (0, np.ones(s, np.float32)) for k, s in shapes.items()})]))
