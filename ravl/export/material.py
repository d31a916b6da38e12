"""A run with what people decided about it, read once for all formats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ravl.ledger import Ledger
from ravl.store import AuditRun
from ravl.tables import FeatureScores, ImageSet, Regions, Verdict, ZeroShot


@dataclass(frozen=True)
class Material:
    """feature_of: (R,) feature of each region, or NOISE. confirmed: the verdicts `spurious` that hold, by feature id;
    with the name that a feature was made with, where the verdict gives none.

    A confirmed feature may be one that the run no longer has: its clusters were computed again, or a merge or a split
    retired it.
    """

    run: AuditRun
    images: ImageSet
    regions: Regions
    zero_shot: ZeroShot
    feature_of: NDArray[np.int32]
    scores: FeatureScores
    confirmed: tuple[Verdict, ...]

    @property
    def present(self) -> tuple[Verdict, ...]:
        """Those of features that the run still has."""
        return tuple(verdict for verdict in self.confirmed if self.has(verdict.feature))

    def has(self, feature: int) -> bool:
        return feature in self.scores.existing

    def members(self, feature: int) -> NDArray[np.int64]:
        """Region ids of a feature, rising."""
        return np.flatnonzero(self.feature_of == feature)

    def shows(self, feature: int) -> NDArray[np.bool_]:
        """(I,) whether an image has a region of the feature."""
        return self.regions.in_images(self.members(feature))


def read(run: AuditRun, ledger: Ledger) -> Material:
    """Raises RunError when the run's features are not computed yet."""
    images, regions, feature_of, scores = run.images(), run.regions(), run.feature_label(), run.features()
    held = ledger.spurious(run.id).values()
    return Material(run, images, regions, run.zero_shot(), feature_of, scores, tuple(held))


def called(verdict: Verdict) -> str:
    """What a confirmed feature is called: its name, else its number."""
    return verdict.name or f"feature {verdict.feature}"
