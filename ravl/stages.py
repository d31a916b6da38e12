"""The stages that every audit has, with a model or without: from clusters to features, scores and a conclusion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.discovery.clustering import assign
from ravl.discovery.evidence import never_shown, weigh
from ravl.discovery.families import group
from ravl.discovery.scoring import score_features
from ravl.discovery.significance import significance
from ravl.store import AuditRun
from ravl.tables import (
    NOISE,
    Clustering,
    Counterfactuals,
    Evidence,
    Families,
    FeatureScores,
    Report,
    Significance,
    Step,
)


@dataclass(frozen=True)
class Scored:
    """Features and what is known of them before anything is removed. feature_of: (R,) feature ids, or NOISE."""

    families: Families
    feature_of: NDArray[np.int32]
    scores: FeatureScores
    chance: Significance


def told(run: AuditRun, name: str, compute: Callable[[], Any], report: Report) -> Any:
    """A stage of one step, with its beginning and its end reported."""
    report(Step(name, 0, 1))
    record = run.stage(name, compute)
    report(Step(name, 1, 1))
    return record


def joined(run: AuditRun, clusters: Clustering, parts: NDArray[np.bool_] | None = None) -> Families:
    """The clusters that show the same thing, joined to features; under the paper's rule every cluster is one.

    parts: (C,) clusters that a feature was divided into (see `families.group`).
    """
    config = run.config
    joins = replace(config.families, enabled=False) if config.evidence.rule == "paper" else config.families
    single = score_features(run.regions(), run.zero_shot(), clusters.label, clusters.n_clusters, config.scoring)
    return group(clusters, single, joins, config.significance, config.seed, parts)


def scored(run: AuditRun, join: Callable[[], Families], report: Report) -> Scored:
    """Join clusters to features, score them, and test them against chance."""
    config, regions, zero_shot = run.config, run.regions(), run.zero_shot()
    families: Families = told(run, "families", join, report)
    feature_of = families.features_of(run.clustering().label)
    scores: FeatureScores = told(
        run,
        "features",
        lambda: score_features(regions, zero_shot, feature_of, families.n_features, config.scoring),
        report,
    )
    chance: Significance = told(
        run,
        "significance",
        lambda: significance(scores, regions, zero_shot, feature_of, config.significance, config.seed),
        report,
    )
    return Scored(families, feature_of, scores, chance)


def weighed(run: AuditRun, known: Scored, found: Counterfactuals) -> Evidence:
    """What the counterfactuals say of the features, beside the images that never showed them."""
    zero_shot, config, alpha = run.zero_shot(), run.config, run.config.significance.alpha
    doubtful = known.families.features_of(_left_over(run))
    never = never_shown(known.scores, run.regions(), zero_shot, known.feature_of, doubtful)
    return weigh(found, known.scores, known.chance, zero_shot, never, config.evidence, alpha)


def _left_over(run: AuditRun) -> NDArray[np.int32]:
    """(R,) the cluster that the rule for new regions gives to each region in noise; NOISE for all others."""
    clusters, position = run.clustering(), run.regions().position
    label = np.full(len(position), NOISE, np.int32)
    rest = np.flatnonzero(clusters.label == NOISE)
    label[rest] = assign(clusters, run.space(), position, rest)  # not a copy of them all: it can be most of the space
    return label
