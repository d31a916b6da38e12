"""The order of the stages: `discover` finds what a model cheats on.

Each stage is loaded when its file exists, else computed, saved whole and reported; so a killed run continues.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.config import AuditConfig
from ravl.data import Reading, load_images, read_images, with_coco
from ravl.discovery.agreement import agreement
from ravl.discovery.clustering import cluster
from ravl.discovery.counterfactual import Scene, counterfactuals, worth_testing
from ravl.discovery.dividing import divided, divisions, worth_keeping
from ravl.discovery.embedding import encode, region_encoder, why_encoder
from ravl.discovery.making import made
from ravl.discovery.projection import project
from ravl.discovery.proposals import Proposer
from ravl.discovery.regions import decompose
from ravl.discovery.removal import exemplars
from ravl.discovery.zero_shot import class_vectors, classify
from ravl.errors import DataError
from ravl.stages import joined, scored, told, weighed
from ravl.store import AuditRun, workspace_key
from ravl.tables import Clustering, Families, ImageSet, Regions, Report, Step, quiet
from ravl.vlm.interface import VisionLanguageModel


def discover(
    config: AuditConfig,
    vlm: VisionLanguageModel,
    workspace: Path,
    name: str,
    report: Report = quiet,
    until: str = "projection",
    data: str = "",
    proposer: Proposer | None = None,
) -> AuditRun:
    """Audit a model on an image set: the paper's discovery, top to bottom. Returns the finished run.

    The same configuration on the same content continues, or returns, the run that exists.
    until: `evidence` leaves out the map, which no result depends on. data: the fingerprint that the images must have,
    empty for any. proposer: needed by regions that are proposed.
    Raises DataError, ConfigError or ModelError for input that cannot be audited, RunError when the disk fails.
    """
    reading = Reading.of(config, workspace_key(workspace))
    images = read_images(config.images, config.prompts.classes, config.max_unreadable, report, reading)
    if config.regions.kind == "boxes" and config.regions.file:
        images = with_coco(images, config.regions.file, config.max_unreadable)
    if data and images.fingerprint != data:
        raise DataError(
            f"the images must be those of the first audit, but the content of {config.images} has changed since. "
            "Restore them, or leave the second audit out with --no-reaudit."
        )
    prints = {"data": images.fingerprint, "model": vlm.fingerprint, "preprocessing": vlm.preprocessing}
    if proposer is not None:
        prints["proposals"] = proposer.fingerprint
    run = AuditRun.create(workspace, name, config, prints)
    with run.locked():
        _stages(run, images, vlm, report, until, proposer)
    return AuditRun(run.path)


def _stages(
    run: AuditRun, images: ImageSet, vlm: VisionLanguageModel, report: Report, until: str, proposer: Proposer | None
) -> None:
    config = run.config

    def stage(name: str, compute: Callable[[], Any]) -> Any:
        return told(run, name, compute, report)

    images = run.stage("images", lambda: images)
    images_of = partial(load_images, images)
    view = vlm.view(images.size)
    regions = stage("regions", lambda: decompose(images, view, config.regions, images_of, report, proposer))
    _embed(run, images, regions, vlm, report)
    final = run.array("region_embeddings")
    space = run.space()

    tau = temperature(config, vlm)
    text = run.stage("text", lambda: class_vectors(vlm, images.class_names, config.prompts))
    image = run.array("image_embeddings")
    stage("zero_shot", lambda: classify(image, final, text, images.label, tau))
    rng = np.random.default_rng(config.seed)
    stage("clusters", lambda: cluster(space, regions, len(text), config.clustering, rng))
    _judge(run, images, vlm, lambda: joined(run, run.clustering()), report)
    run = _look_again(run, vlm, report)
    sampling = np.random.default_rng([config.seed, 1])
    run.stage(
        "agreement",
        lambda: agreement(vlm, images_of, images, regions, final, text, config.embedding, sampling, report=report),
    )
    if until != "evidence":
        stage("projection", lambda: project(space, run.clustering(), regions, config.projection, config.seed))


def regroup(
    run: AuditRun, vlm: VisionLanguageModel, change: Callable[[Families], Families], report: Report = quiet
) -> AuditRun:
    """Score a finished run again with other features: `change` merges or splits its families. Returns the run.

    Nothing that was computed is changed: the new results stand beside the old ones, and the run points to them once
    they are whole. Raises ModelError when `vlm` is not the model that was audited, and what `change` raises.
    """
    run.check_model(vlm.name, vlm.fingerprint, vlm.preprocessing)
    with run.locked():
        return _revise(run, vlm, change(run.families()), None, report)


def add_feature(
    run: AuditRun, vlm: VisionLanguageModel, regions: NDArray[np.integer[Any]], report: Report = quiet
) -> AuditRun:
    """Score a finished run again with one feature more, that of these regions. Returns the run.

    As in `regroup`, the new results stand beside the old ones. Raises ModelError when `vlm` is not the model that was
    audited, and ConfigError for regions that cannot be a feature (see `ravl.discovery.making`).
    """
    run.check_model(vlm.name, vlm.fingerprint, vlm.preprocessing)
    with run.locked():
        clusters, families = made(run.clustering(), run.families(), run.space(), run.regions().position, regions)
        return _revise(run, vlm, families, clusters, report)


def _revise(
    run: AuditRun, vlm: VisionLanguageModel, families: Families, clusters: Clustering | None, report: Report
) -> AuditRun:
    run.adopt(_judged(run, vlm, families, clusters, report))
    return AuditRun(run.path)


def _judged(
    run: AuditRun, vlm: VisionLanguageModel, families: Families, clusters: Clustering | None, report: Report
) -> AuditRun:
    """The run as it would be with other families, judged to the end; the run itself does not point to it yet."""
    revised = run.revised(families, clusters)
    _judge(revised, run.images(), vlm, lambda: families, report)
    return revised


def _look_again(run: AuditRun, vlm: VisionLanguageModel, report: Report) -> AuditRun:
    """Divide the features that mix two things, and judge all of them anew; once, and before a person sees them.

    A division that explains no more is taken back, and what is left of them is judged anew.
    """
    config = run.config
    if run.revision or not config.evidence.second_look or config.evidence.rule == "paper":
        return run
    clustering, space, position, evidence = run.clustering(), run.space(), run.regions().position, run.evidence()
    looked = divisions(clustering, space, position, run.feature_label(), evidence, run.exemplars(), config)
    while looked:
        clusters, parts = divided(clustering, space, position, looked.values())
        again = _judged(run, vlm, joined(run, clusters, parts), clusters, report)
        kept = worth_keeping(looked, evidence, again.evidence(), again.feature_label())
        if len(kept) == len(looked):
            run.adopt(again, n_divided=len(kept))
            return AuditRun(run.path)
        looked = kept
    return run


def _judge(
    run: AuditRun, images: ImageSet, vlm: VisionLanguageModel, join: Callable[[], Families], report: Report
) -> None:
    """From clusters to evidence: what depends on which clusters form a feature."""
    config, batch = run.config, run.config.embedding.batch_size
    regions, zero_shot, text = run.regions(), run.zero_shot(), run.class_vectors()
    known = scored(run, join, report)
    feature_of, scores = known.feature_of.astype(np.int64), known.scores
    images_of = partial(load_images, images)
    tau = temperature(config, vlm)
    run.stage(
        "exemplars",
        lambda: exemplars(
            vlm, images_of, text, tau, regions, zero_shot, feature_of, scores, config.exemplars, batch, report
        ),
    )
    scene = Scene(vlm, images_of, text, regions, zero_shot, feature_of, image_keys(images), config.seed)
    tested = worth_testing(scores, known.chance, config.significance.alpha).tolist()
    pull = [int(scores.pull_class[scores.row_of(feature)]) for feature in tested]
    found = run.stage("counterfactuals", lambda: counterfactuals(scene, tested, pull, config.evidence, batch, report))
    told(run, "evidence", lambda: weighed(run, known, found), report)


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
    settings = (vlm, images, regions, run.config.embedding)
    run.note_encoder(region_encoder(*settings), why_encoder(*settings))
    report(Step("embeddings", len(images), len(images)))


def image_keys(images: ImageSet) -> NDArray[np.uint64]:
    """(I,) a digest of each image's path: random choices made with it do not depend on the order of the images.

    Where names are hidden it is one of the content, since the pseudonyms are other ones in every workspace.
    """
    names = images.digest if images.salt and images.digest is not None else images.file
    digests = [hashlib.blake2b(str(name).encode(), digest_size=8).digest() for name in names]
    return np.frombuffer(b"".join(digests), np.uint64) if digests else np.zeros(0, np.uint64)


def temperature(config: AuditConfig, vlm: VisionLanguageModel) -> float:
    """The softmax temperature of a run: the configured number, or the model's own."""
    return vlm.tau if config.prompts.tau == "model" else float(config.prompts.tau)
