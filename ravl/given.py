"""An audit of embeddings that were computed elsewhere: the paper's discovery without any model.

Regions are clustered on the embeddings that are given (there is no middle layer), scored, and tested against chance.
What needs the model is left out: nothing can be removed from an image, so no feature is ever graded causal, and under
the rule `evidence` none is flagged. Features whose gap is beyond chance are `undecided`, for the reason `untested`.
Under `rule="paper"` those that pass the paper's rule are flagged, as published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.config import NO_MODEL, AuditConfig
from ravl.data.embeddings import Given
from ravl.discovery.clustering import cluster
from ravl.discovery.projection import project
from ravl.discovery.removal import against_class, candidates
from ravl.discovery.zero_shot import classify, softmax
from ravl.errors import ConfigError
from ravl.stages import joined, scored, told, weighed
from ravl.store import AuditRun
from ravl.tables import (
    Agreement,
    Counterfactuals,
    Evidence,
    Exemplars,
    Families,
    FeatureScores,
    Regions,
    Report,
    Step,
    ZeroShot,
    quiet,
)

KNOWN = ("support", "chance", "not replicated")
"""Reasons that need no model; every other one becomes `untested`."""


def discover(
    config: AuditConfig, given: Given, workspace: Path, name: str, report: Report = quiet, until: str = "projection"
) -> AuditRun:
    """Audit precomputed embeddings. The same configuration on the same content continues, or returns, its run.

    until: `evidence` leaves out the map. Raises DataError for damaged embeddings, RunError when the disk fails.
    """
    prints = {"data": given.fingerprint, "model": given.fingerprint, "preprocessing": ""}
    run = AuditRun.create(workspace, name, config, prints)
    with run.locked():
        _stages(run, given, report, until)
    return run


def regroup(run: AuditRun, change: Callable[[Families], Families], report: Report = quiet) -> AuditRun:
    """Score a finished run again with other features: as `ravl.audit.regroup`, without a model."""
    with run.locked():
        families = change(run.families())
        revised = run.revised(families)
        _judge(revised, lambda: families, report)
        run.adopt(revised)
        return AuditRun(run.path)


def check_model(run: AuditRun, what: str) -> None:
    """Raise ConfigError when an audit had no model, so that `what` cannot be done."""
    if run.config.model == NO_MODEL:
        raise ConfigError(
            f"{what} needs the model, but {run.id} was made from embeddings alone. Audit the model itself: "
            "ravl discover --model."
        )


def _stages(run: AuditRun, given: Given, report: Report, until: str) -> None:
    config = run.config
    run.stage("images", lambda: given.images)
    regions = run.stage("regions", lambda: given.regions)
    _copy(run, given, report)
    image, region = run.array("image_embeddings"), run.array("region_embeddings")
    text = run.stage("text", lambda: given.text if given.text is not None else np.zeros((0, given.dim), np.float32))
    told(run, "zero_shot", lambda: _classified(given, image, region, text, config), report)
    rng = np.random.default_rng(config.seed)
    n_classes = len(given.images.class_names)
    clusters = told(run, "clusters", lambda: cluster(region, regions, n_classes, config.clustering, rng), report)
    _judge(run, lambda: joined(run, run.clustering()), report)
    nothing = float("nan")
    run.stage("agreement", lambda: Agreement(0, nothing, nothing, nothing))
    if until != "evidence":
        told(run, "projection", lambda: project(region, clusters, regions, config.projection, config.seed), report)


def _copy(run: AuditRun, given: Given, report: Report) -> None:
    """Fill the run's embedding arrays, block by block."""
    regions, total = given.regions, len(given.images)
    shapes = {
        "image_embeddings": (total, given.dim),
        "region_embeddings": (len(regions), given.dim),
        "region_features": (len(regions), 0),
    }

    def blocks(start: int) -> Iterator[tuple[int, dict[str, tuple[int, NDArray[Any]]]]]:
        first = start
        for done, image, region in given.blocks(start):
            row = int(regions.starts[first])
            yield (
                done,
                {
                    "image_embeddings": (first, image),
                    "region_embeddings": (row, region),
                    "region_features": (row, region[:, :0]),
                },
            )
            first = done
            report(Step("embeddings", done, total))

    run.embed(shapes, blocks)


def _classified(
    given: Given, image: NDArray[Any], region: NDArray[Any], text: NDArray[np.float32], config: AuditConfig
) -> ZeroShot:
    """By the text embeddings, else by the scores that were given."""
    if given.text is not None:
        return classify(image, region, text, given.images.label, float(config.prompts.tau))
    assert given.image_scores is not None
    assert given.region_scores is not None
    return ZeroShot(_probabilities(given.image_scores), _probabilities(given.region_scores), given.images.label)


def _probabilities(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows that are probabilities stay; others are logits."""
    if (scores >= 0).all() and np.allclose(scores.sum(1), 1, atol=1e-3):
        return scores
    return softmax(scores)


def _judge(run: AuditRun, join: Callable[[], Families], report: Report) -> None:
    """From clusters to what can be said without a model."""
    known = scored(run, join, report)
    run.stage(
        "exemplars",
        lambda: _exemplars(run.regions(), run.zero_shot(), known.feature_of, known.scores, run.config),
    )
    found = run.stage("counterfactuals", lambda: _nothing_removed(run.config))
    told(run, "evidence", lambda: _undecided(weighed(run, known, found)), report)


def _undecided(evidence: Evidence) -> Evidence:
    """Nothing was removed, so nothing is known about causes; the paper's rule flags as published."""
    known = np.isin(evidence.reason, KNOWN)
    n = len(evidence)
    return replace(
        evidence,
        grade=np.full(n, "undecided"),
        reason=np.where(known, evidence.reason, "untested"),
        flagged=evidence.flagged & (evidence.grade != "causal"),
    )


def _nothing_removed(config: AuditConfig) -> Counterfactuals:
    none, classes, wide = np.zeros(0, np.int32), np.zeros(0, np.int16), np.zeros((0, 1), np.int16)
    return Counterfactuals(config.evidence.operators[:1], none, none, wide, wide, none, none, none, none, classes)


def _exemplars(
    regions: Regions, zero_shot: ZeroShot, feature_of: NDArray[Any], scores: FeatureScores, config: AuditConfig
) -> Exemplars:
    """The most promising regions of every feature, in the order in which a model would be asked about them.

    What each contributes to its image's error is not known: NaN.
    """
    chosen = candidates(regions, zero_shot, feature_of, scores, config.exemplars)
    part = _part(feature_of[chosen])
    place = np.arange(len(chosen)) - np.searchsorted(part, part)
    kept = chosen[place < config.exemplars.count]
    unknown = np.full(len(kept), np.nan, np.float32)
    image = regions.image[kept]
    against = against_class(zero_shot)[image]
    region = kept.astype(np.int32)
    return Exemplars(feature_of[kept].astype(np.int32), region, image, against, unknown, unknown, unknown)


def _part(feature: NDArray[Any]) -> NDArray[np.int64]:
    """Number of the stretch of equal features that each row belongs to, from 1."""
    out: NDArray[np.int64] = np.cumsum(np.diff(feature, prepend=-1) != 0)
    return out
