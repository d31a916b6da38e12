"""What the pages show about one audit: pure functions from records and verdicts to one documented dataclass each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.discovery.scoring import best_region
from ravl.evaluation import MIN_COUNT, group_accuracy
from ravl.ledger import seen_digest
from ravl.store import STAGES, AuditRun
from ravl.tables import Clustering, Exemplars, FeatureScores, ImageSet, Regions, Verdict, ZeroShot


@dataclass(frozen=True)
class Rate:
    """`right` of `n` images. share: in [0, 1], NaN without images."""

    right: int
    n: int

    @property
    def share(self) -> float:
        return self.right / self.n if self.n else float("nan")


@dataclass(frozen=True)
class Audit:
    """The records of a run whose features are computed, and the region that decides each image's prediction.

    deciding: (I,) int64, the region with the highest score for the class its image was called; -1 where an image has
    fewer than two regions, and so none that could be called the best.
    exemplars: None until that stage is finished.
    """

    run: str
    images: ImageSet
    regions: Regions
    zero_shot: ZeroShot
    clustering: Clustering
    features: FeatureScores
    exemplars: Exemplars | None
    deciding: NDArray[np.int64]

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.images.class_names

    def members(self, feature: int) -> NDArray[np.int64]:
        """Region ids of a feature, rising."""
        return np.flatnonzero(self.clustering.label == feature)

    def seen(self, feature: int) -> str:
        """The digest that a verdict about this feature is kept with."""
        return seen_digest(self.members(feature))


def read_audit(run: AuditRun) -> Audit:
    """Load what the pages need. Raises RunError when a stage up to `features` is missing or damaged."""
    regions, zero_shot = run.regions(), run.zero_shot()
    exemplars = run.exemplars() if run.has("exemplars") else None
    deciding = deciding_regions(regions, zero_shot)
    return Audit(run.id, run.images(), regions, zero_shot, run.clustering(), run.features(), exemplars, deciding)


def deciding_regions(regions: Regions, zero_shot: ZeroShot) -> NDArray[np.int64]:
    """(I,) per image the region that scores highest for the class its image was called; -1 without a second."""
    return np.where(np.diff(regions.starts) > 1, best_region(regions, zero_shot), -1)


# --- features --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """One feature as a row of the ranked table.

    rank: 1 = best. name: given by a reviewer, else empty. pull: class the errors go to, empty without one.
    decided of called: images wrongly called `pull` whose deciding region shows the feature, of all wrongly called so.
    influence, gap: the paper's scores, NaN where undefined. n_errors: wrong images among n_images with the feature.
    """

    rank: int
    feature: int
    name: str
    pull: str
    decided: int
    called: int
    influence: float
    gap: float
    passes: bool
    n_regions: int
    n_images: int
    n_errors: int
    verdict: Verdict | None

    @property
    def decision(self) -> str:
        """The decision that holds, or empty."""
        return self.verdict.decision if self.verdict else ""


def findings(audit: Audit, verdicts: dict[int, Verdict]) -> tuple[Finding, ...]:
    """All features in rank order."""
    scores, zero_shot = audit.features, audit.zero_shot
    wrong = ~zero_shot.correct
    label_of = np.append(audit.clustering.label, -1)  # index -1 (no deciding region) finds noise
    decider = label_of[audit.deciding]
    rows = []
    for row in range(len(scores)):
        feature, pull = int(scores.feature[row]), int(scores.pull_class[row])
        called = wrong & (zero_shot.predicted == pull)
        verdict = verdicts.get(feature)
        rows.append(
            Finding(
                rank=row + 1,
                feature=feature,
                name=verdict.name if verdict else "",
                pull=audit.class_names[pull] if pull >= 0 else "",
                decided=int(np.count_nonzero(called & (decider == feature))),
                called=int(np.count_nonzero(called)),
                influence=float(scores.influence[row]),
                gap=float(scores.gap[row]),
                passes=bool(scores.passes[row]),
                n_regions=int(scores.n_regions[row]),
                n_images=int(scores.n_images[row]),
                n_errors=int(scores.n_errors[row]),
                verdict=verdict,
            )
        )
    return tuple(rows)


def pick(rows: tuple[Finding, ...], show: str) -> tuple[Finding, ...]:
    """The rows of one filter: `all`, `flagged` (pass the rule), `open` (no decision) or `decided`."""
    tests: dict[str, Callable[[Finding], bool]] = {
        "all": lambda row: True,
        "flagged": lambda row: row.passes,
        "open": lambda row: not row.decision,
        "decided": lambda row: bool(row.decision),
    }
    return tuple(row for row in rows if tests[show](row))


@dataclass(frozen=True)
class ClassRow:
    """Accuracy of one class with and without a feature. gap: signed, weighted, in [-1, 1]; NaN if a side is empty."""

    name: str
    inside: Rate
    outside: Rate
    gap: float
    pulls: bool


def class_rows(audit: Audit, feature: int) -> tuple[ClassRow, ...]:
    """One row per class that has images; the class that loses most comes first, undefined ones last."""
    scores = audit.features
    row = scores.row_of(feature)
    rows = [
        ClassRow(
            name,
            Rate(int(scores.right_in[row, y]), int(scores.n_in[row, y])),
            Rate(int(scores.right_out[row, y]), int(scores.n_out[row, y])),
            float(scores.class_gap[row, y]),
            y == int(scores.pull_class[row]),
        )
        for y, name in enumerate(audit.class_names)
        if scores.n_in[row, y] + scores.n_out[row, y] > 0
    ]
    return tuple(sorted(rows, key=lambda item: (1, 0.0) if math.isnan(item.gap) else (0, item.gap)))


@dataclass(frozen=True)
class Crop:
    """One region with what a person needs to judge it. contribution: logits towards the error; NaN if not computed."""

    region: int
    image: int
    box: tuple[int, int, int, int]
    truth: str
    called: str
    right: bool
    against: str
    contribution: float


def crops(audit: Audit, regions: NDArray[np.integer[Any]]) -> tuple[Crop, ...]:
    """Any regions as crops, in the given order, without a contribution."""
    return tuple(_crop(audit, int(region), "", float("nan")) for region in regions)


def exemplars(audit: Audit, feature: int, limit: int | None = None) -> tuple[Crop, ...]:
    """The crops that stand for a feature, by falling error contribution."""
    if audit.exemplars is None:
        return ()
    kept = audit.exemplars
    rows = kept.rows_of(feature)[:limit]
    return tuple(
        _crop(audit, int(kept.region[r]), _class_name(audit, int(kept.against[r])), float(kept.contribution[r]))
        for r in rows
    )


def _crop(audit: Audit, region: int, against: str, contribution: float) -> Crop:
    image = int(audit.regions.image[region])
    truth, called = int(audit.zero_shot.label[image]), int(audit.zero_shot.predicted[image])
    x0, y0, x1, y1 = (int(v) for v in audit.regions.box[region])
    names = audit.class_names
    return Crop(region, image, (x0, y0, x1, y1), names[truth], names[called], truth == called, against, contribution)


def _class_name(audit: Audit, index: int) -> str:
    return audit.class_names[index] if index >= 0 else ""


# --- overview --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WorstGroup:
    """The group of images that is classified worst. name: readable, such as `nine without feature 2`."""

    name: str
    rate: Rate


@dataclass(frozen=True)
class Overview:
    """The first page of an audit. classes: (name, accuracy), the worst first. noise: regions outside every feature."""

    overall: Rate
    classes: tuple[tuple[str, Rate], ...]
    worst: WorstGroup | None
    noise: Rate
    findings: tuple[Finding, ...]

    @property
    def flagged(self) -> tuple[Finding, ...]:
        return pick(self.findings, "flagged")

    @property
    def waiting(self) -> tuple[Finding, ...]:
        """Flagged features that nobody has decided on."""
        return pick(self.flagged, "open")

    @property
    def confirmed(self) -> tuple[Finding, ...]:
        return tuple(row for row in self.findings if row.decision == "spurious")


def overview(audit: Audit, verdicts: dict[int, Verdict]) -> Overview:
    """Accuracy, noise and findings of one audit."""
    correct, label = audit.zero_shot.correct, audit.zero_shot.label
    classes = [
        (name, Rate(int(np.count_nonzero(correct & (label == y))), int(np.count_nonzero(label == y))))
        for y, name in enumerate(audit.class_names)
    ]
    present = sorted((row for row in classes if row[1].n), key=lambda row: row[1].share)
    n_noise = int(np.count_nonzero(audit.clustering.label < 0))
    return Overview(
        overall=Rate(int(np.count_nonzero(correct)), len(correct)),
        classes=tuple(present),
        worst=worst_group(audit, {feature: verdict.name for feature, verdict in verdicts.items()}),
        noise=Rate(n_noise, len(audit.regions)),
        findings=findings(audit, verdicts),
    )


def worst_group(audit: Audit, names: dict[int, str]) -> WorstGroup | None:
    """The worst of class x presence of the first feature, if that is flagged, else of the classes; None without images.

    names: what people call features.
    """
    scores, images = audit.features, audit.images
    present = {}
    if len(scores) and scores.passes[0]:
        feature = int(scores.feature[0])
        has = np.zeros(len(images), bool)
        has[audit.regions.image[audit.members(feature)]] = True
        present[feature] = has
    predicted = audit.zero_shot.predicted
    groups = group_accuracy(predicted, images.label, audit.class_names, present, names, images.groups)
    worst = groups.worst(MIN_COUNT)
    if worst is None:
        return None
    return WorstGroup(str(groups.name[worst]), Rate(int(groups.right[worst]), int(groups.n[worst])))


@dataclass(frozen=True)
class Fact:
    """One line of what was audited."""

    name: str
    value: str


def facts(run: AuditRun, audit: Audit) -> tuple[Fact, ...]:
    """What was audited, with what, and how it can be recognised again."""
    about, config = run.about, run.config
    prints = about["fingerprints"]
    seconds = sum(stage["seconds"] for stage in about["stages"].values())
    rows = [
        ("Images", f"{len(audit.images)} from {config.images}"),
        ("Classes", f"{len(audit.class_names)}: {_first(audit.class_names)}"),
        ("Model", config.model),
        ("Prompts", ", ".join(config.prompts.templates)),
        ("Regions", f"{len(audit.regions)} ({config.regions}), encoder {config.embedding.encoder}"),
        ("Clustering", f"{config.clustering.method} on {config.clustering.cluster_on} features, seed {config.seed}"),
        ("Computed", f"{about['created'].replace('T', ' ')[:16]} UTC in {seconds:.0f} s"),
        *((f"Fingerprint of {name}", value) for name, value in sorted(prints.items())),
        *(
            (package, version)
            for package, version in about["packages"].items()
            if package in ("ravl-dashboard", "torch")
        ),
    ]
    return tuple(Fact(name, str(value)) for name, value in rows)


def _first(names: tuple[str, ...], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (" …" if len(names) > limit else "")


def missing_stages(run: AuditRun) -> tuple[str, ...]:
    """Stages that are not finished, in order."""
    return tuple(stage for stage in STAGES if not run.has(stage))


# --- review ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Review:
    """Where a reviewer stands: the features to go through, the one on the screen, and how many are decided."""

    rows: tuple[Finding, ...]
    position: int
    decided: int

    @property
    def current(self) -> Finding | None:
        return self.rows[self.position] if self.rows else None

    def neighbour(self, step: int) -> int | None:
        """Feature id `step` places on (negative: back); None beyond either end."""
        place = self.position + step
        return self.rows[place].feature if 0 <= place < len(self.rows) else None


def review(rows: tuple[Finding, ...], feature: int | None, only_flagged: bool) -> Review:
    """The screen for `feature`; without one (or with an unknown one), for the first undecided.

    only_flagged: go through the flagged features only, and through `feature`, which somebody asked for.
    """
    listed = tuple(row for row in rows if row.passes or row.feature == feature) if only_flagged else rows
    decided = sum(bool(row.decision) for row in listed)
    asked = [i for i, row in enumerate(listed) if row.feature == feature]
    waiting = [i for i, row in enumerate(listed) if not row.decision]
    return Review(listed, next(iter([*asked, *waiting, 0])), decided)


def image_path(audit: Audit, image: int) -> Path:
    """The file of an image."""
    return Path(audit.images.root) / str(audit.images.file[image])
