"""The order of the stages: `discover` finds what a model cheats on.

Each stage is loaded when its file exists, else computed, saved whole and reported; so a killed run continues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ravl.config import AuditConfig
from ravl.data import load_images, read_images
from ravl.discovery.clustering import cluster
from ravl.discovery.embedding import encode
from ravl.discovery.projection import project
from ravl.discovery.regions import decompose
from ravl.discovery.removal import exemplars
from ravl.discovery.scoring import score_features
from ravl.discovery.zero_shot import class_vectors, classify
from ravl.store import AuditRun
from ravl.tables import ImageSet, Regions, Report, Step, quiet
from ravl.vlm.interface import VisionLanguageModel


def discover(
    config: AuditConfig, vlm: VisionLanguageModel, workspace: Path, name: str, report: Report = quiet
) -> AuditRun:
    """Audit a model on an image set: the paper's discovery, top to bottom. Returns the finished run.

    The same configuration on the same content continues, or returns, the run that exists.
    Raises DataError, ConfigError or ModelError for input that cannot be audited, RunError when the disk fails.
    """
    images = read_images(config.images, config.prompts.classes, config.max_unreadable, report)
    prints = {"data": images.fingerprint, "model": vlm.fingerprint, "preprocessing": vlm.preprocessing}
    run = AuditRun.create(workspace, name, config, prints)
    with run.locked():
        _stages(run, images, vlm, report)
    return run


def _stages(run: AuditRun, images: ImageSet, vlm: VisionLanguageModel, report: Report) -> None:
    config = run.config

    def stage(name: str, compute: Callable[[], Any]) -> Any:
        report(Step(name, 0, 1))
        record = run.stage(name, compute)
        report(Step(name, 1, 1))
        return record

    def images_of(ids: Sequence[int]) -> list[Image.Image]:
        return load_images(images, ids)

    images = run.stage("images", lambda: images)
    regions = stage("regions", lambda: decompose(vlm.view(images.size), config.regions))
    _embed(run, images, regions, vlm, report)
    final = run.array("region_embeddings")
    space = run.array("region_features") if config.clustering.cluster_on == "middle" else final

    tau = temperature(config, vlm)
    text = run.stage("text", lambda: class_vectors(vlm, images.class_names, config.prompts))
    image = run.array("image_embeddings")
    zero_shot = stage("zero_shot", lambda: classify(image, final, text, images.label, tau))
    rng = np.random.default_rng(config.seed)
    clusters = stage("clusters", lambda: cluster(space, regions, len(text), config.clustering, rng))
    scores = stage(
        "features", lambda: score_features(regions, zero_shot, clusters.label, clusters.n_clusters, config.scoring)
    )
    batch = config.embedding.batch_size
    run.stage(
        "exemplars",
        lambda: exemplars(
            vlm, images_of, text, tau, regions, zero_shot, clusters, scores, config.exemplars, batch, report
        ),
    )
    stage("projection", lambda: project(space, clusters, regions, config.projection, config.seed))


def _embed(run: AuditRun, images: ImageSet, regions: Regions, vlm: VisionLanguageModel, report: Report) -> None:
    """Fill the run's embedding arrays, block by block."""
    shapes = {
        "image_embeddings": (len(images), vlm.dim),
        "region_embeddings": (len(regions), vlm.dim),
        "region_features": (len(regions), vlm.feature_dim),
    }

    def blocks(start: int) -> Iterator[tuple[int, dict[str, tuple[int, NDArray[Any]]]]]:
        for done, encoded in encode(vlm, images, regions, run.config.embedding, start, report):
            first = done - len(encoded.image)
            row = int(regions.starts[first])
            yield (
                done,
                {
                    "image_embeddings": (first, encoded.image),
                    "region_embeddings": (row, encoded.region),
                    "region_features": (row, encoded.feature),
                },
            )

    run.embed(shapes, blocks)
    report(Step("embeddings", len(images), len(images)))


def temperature(config: AuditConfig, vlm: VisionLanguageModel) -> float:
    """The softmax temperature of a run: the configured number, or the model's own."""
    return vlm.tau if config.prompts.tau == "model" else float(config.prompts.tau)
