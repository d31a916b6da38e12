"""An opened audit: the records of a run as the pages need them, and the few numbers that all pages share. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ravl.config import NO_MODEL, AuditConfig
from ravl.data import path_of
from ravl.discovery.evidence import needed
from ravl.discovery.scoring import best_region
from ravl.discovery.significance import newcombe
from ravl.errors import DataError
from ravl.ledger import seen_digest
from ravl.store import STAGES, AuditRun
from ravl.tables import (
    Counterfactuals,
    Evidence,
    Exemplars,
    FeatureScores,
    ImageSet,
    Regions,
    Significance,
    ZeroShot,
)


@dataclass(frozen=True)
class Rate:
    """`right` of `n` images. share: in [0, 1], NaN without images."""

    right: int
    n: int

    @property
    def share(self) -> float:
        return self.right / self.n if self.n else float("nan")


@dataclass(frozen=True)
class Interval:
    """A number and the ends of its confidence interval; NaN where it is undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Audit:
    """The records of a run whose evidence is weighed, and the region that decides each image's prediction.

    feature_of: (R,) int32, feature id of each region, or NOISE.
    deciding: (I,) int64, the region with the highest score for the class its image was called; -1 where an image has
    fewer than two regions, and so none that could be called the best.
    """

    run: str
    config: AuditConfig
    images: ImageSet
    regions: Regions
    zero_shot: ZeroShot
    feature_of: NDArray[np.int32]
    features: FeatureScores
    significance: Significance
    exemplars: Exemplars
    counterfactuals: Counterfactuals
    evidence: Evidence
    deciding: NDArray[np.int64]

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.images.class_names

    def members(self, feature: int) -> NDArray[np.int64]:
        """Region ids of a feature, rising."""
        return np.flatnonzero(self.feature_of == feature)

    def shows(self, feature: int) -> NDArray[np.bool_]:
        """(I,) whether an image has a region of the feature."""
        return self.regions.in_images(self.members(feature))

    def seen(self, feature: int) -> str:
        """The digest that a verdict about this feature is kept with."""
        return seen_digest(self.members(feature))

    def digests(self) -> dict[int, str]:
        """The same of every feature, from one pass over the regions."""
        order = np.argsort(self.feature_of, kind="stable")
        features, starts = np.unique(self.feature_of[order], return_index=True)
        parts = np.split(order, starts[1:])
        return {int(f): seen_digest(part) for f, part in zip(features, parts, strict=True) if f >= 0}


def read_audit(run: AuditRun) -> Audit:
    """Load what the pages need. Raises RunError when a stage up to `evidence` is missing or damaged."""
    regions, zero_shot = run.regions(), run.zero_shot()
    return Audit(
        run=run.id,
        config=run.config,
        images=run.images(),
        regions=regions,
        zero_shot=zero_shot,
        feature_of=run.feature_label(),
        features=run.features(),
        significance=run.significance(),
        exemplars=run.exemplars(),
        counterfactuals=run.counterfactuals(),
        evidence=run.evidence(),
        deciding=deciding_regions(regions, zero_shot),
    )


def deciding_regions(regions: Regions, zero_shot: ZeroShot) -> NDArray[np.int64]:
    """(I,) per image the region that scores highest for the class its image was called; -1 without a second."""
    return np.where(np.diff(regions.starts) > 1, best_region(regions, zero_shot), -1)


def agreeing(audit: Audit) -> int:
    """How many ways of removing a feature must agree: those asked for, or all where the model has fewer."""
    return needed(audit.counterfactuals.operators, audit.config.evidence)


def difference(first: Rate, second: Rate, level: float) -> Interval:
    """The first share minus the second, with Newcombe's interval; NaN if a side is empty."""
    right, n = np.array([[first.right, second.right], [first.n, second.n]])
    low, high = newcombe(right[0], n[0], right[1], n[1], level)
    return Interval(first.share - second.share, float(low), float(high))


def image_path(audit: Audit, image: int) -> Path:
    """The file of an image. Raises DataError when the image set no longer lists it, or never named one."""
    if audit.config.model == NO_MODEL and str(audit.images.file[image]) == f"row {image + 1}":
        raise DataError("This audit had embeddings that name no image file, so there is no picture to show.")
    return Path(path_of(audit.images, image))


def file_time(path: Path) -> int:
    """When a file was changed, in nanoseconds. Raises DataError, which names no file, where it cannot be asked."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        raise DataError("The image file is no longer where it was.") from None
    except OSError as error:
        raise DataError(f"The image file cannot be reached ({error.strerror or type(error).__name__}).") from None


def missing_stages(run: AuditRun) -> tuple[str, ...]:
    """Stages that are not finished, in order."""
    return tuple(stage for stage in STAGES if not run.has(stage))
