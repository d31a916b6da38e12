"""What the pages show about one audit: pure functions from records and verdicts to one documented dataclass each."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboard.reading.opened import Audit, Interval, Rate, agreeing, difference
from ravl.evaluation import MIN_COUNT, group_accuracy
from ravl.store import AuditRun
from ravl.tables import Verdict

# --- features --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """One feature as a row of the ranked table.

    rank: 1 = best, in the order of the evidence. name: given by a reviewer, else empty. pull: class the errors go to,
    empty without one.
    flagged: by the audit's rule. grade, reason: see `ravl.discovery.evidence`. explained: errors that become right when
    the feature is removed, of all errors; None where it was not removed. fixed, control: of the wrong images that show
    it, those that become right without it, and without another piece of the same size.
    gap, influence: the paper's scores. beyond: the gap above chance. q: its corrected p. NaN where undefined.
    decided of called: images wrongly called `pull` whose deciding region shows the feature, of all wrongly called so.
    n_errors: wrong images among n_images with the feature. again: why the decision has to be made again, plain text;
    empty where it has not.
    """

    rank: int
    feature: int
    name: str
    pull: str
    flagged: bool
    grade: str
    reason: str
    explained: Rate | None
    fixed: Rate
    control: Rate
    influence: float
    gap: float
    beyond: Interval
    q: float
    decided: int
    called: int
    n_regions: int
    n_images: int
    n_errors: int
    verdict: Verdict | None
    again: str = ""

    @property
    def decision(self) -> str:
        """The decision that holds, or empty."""
        return self.verdict.decision if self.verdict else ""

    @property
    def waits(self) -> bool:
        """Whether a person has to decide on it, for the first time or again."""
        return not self.decision or bool(self.again)


def findings(
    audit: Audit, verdicts: dict[int, Verdict], names: Mapping[int, str] = MappingProxyType({})
) -> tuple[Finding, ...]:
    """All features in rank order, but those that a merge or split retired: no region is theirs any more.

    names: of features that people made, until a decision names them.
    """
    wrong = ~audit.zero_shot.correct
    decider = np.append(audit.feature_of, -1)[audit.deciding]  # index -1 (no deciding region) finds noise
    called = Counter(audit.zero_shot.predicted[wrong].tolist())
    decided = Counter(zip(decider[wrong].tolist(), audit.zero_shot.predicted[wrong].tolist(), strict=True))
    scores = audit.features
    there = [f for f in audit.evidence.feature.tolist() if scores.n_regions[scores.row_of(f)] > 0]
    rows = (_finding(audit, rank, f, verdicts, called, decided) for rank, f in enumerate(there, 1))
    return named(rows, names)


def named(rows: Iterable[Finding], names: Mapping[int, str]) -> tuple[Finding, ...]:
    """The features, those without a name of a decision under the one they were made with."""
    return tuple(replace(row, name=row.name or names.get(row.feature, "")) for row in rows)


def _finding(
    audit: Audit,
    rank: int,
    feature: int,
    verdicts: dict[int, Verdict],
    called: Mapping[int, int],
    decided: Mapping[tuple[int, int], int],
) -> Finding:
    """called: wrong images by predicted class; decided: the same by the feature of their deciding region too."""
    scores, chance, evidence = audit.features, audit.significance, audit.evidence
    place, row, test = evidence.row_of(feature), scores.row_of(feature), chance.row_of(feature)
    verdict = verdicts.get(feature)
    pull, share = int(scores.pull_class[row]), float(evidence.error_share[place])
    fixed, control = fixed_errors(audit, feature)
    n_wrong = sum(called.values())
    return Finding(
        rank=rank,
        feature=feature,
        name=verdict.name if verdict else "",
        pull=audit.class_names[pull] if pull >= 0 else "",
        flagged=bool(evidence.flagged[place]),
        grade=str(evidence.grade[place]),
        reason=str(evidence.reason[place]),
        explained=None if math.isnan(share) else Rate(round(share * n_wrong), n_wrong),
        fixed=fixed,
        control=control,
        influence=float(scores.influence[row]),
        gap=float(scores.gap[row]),
        beyond=Interval(float(chance.excess_gap[test]), float(chance.gap_low[test]), float(chance.gap_high[test])),
        q=float(chance.q[test]),
        decided=decided.get((feature, pull), 0),
        called=called.get(pull, 0),
        n_regions=int(scores.n_regions[row]),
        n_images=int(scores.n_images[row]),
        n_errors=int(scores.n_errors[row]),
        verdict=verdict,
    )


def fixed_errors(audit: Audit, feature: int) -> tuple[Rate, Rate]:
    """Wrong images that become right when the feature, and when other regions of equal area are removed.

    By as many operators as must agree. The second counts only images that have such other regions.
    """
    found, agree = audit.counterfactuals, agreeing(audit)
    rows = found.rows_of(feature)
    rows = rows[~audit.zero_shot.correct[found.image[rows]]]
    label = audit.zero_shot.label[found.image[rows]][:, None]
    known, paired = (found.after[rows] >= 0).any(1), (found.control[rows] >= 0).any(1)
    fixed, control = (((answer == label).sum(1) >= agree) for answer in (found.after[rows], found.control[rows]))
    return (
        Rate(int(np.count_nonzero(fixed)), int(np.count_nonzero(known))),
        Rate(int(np.count_nonzero(control & paired)), int(np.count_nonzero(paired))),
    )


def pick(rows: tuple[Finding, ...], show: str) -> tuple[Finding, ...]:
    """The rows of one filter: `all`, `flagged` (by the audit's rule), `open` (no decision), `decided` or `again`."""
    tests: dict[str, Callable[[Finding], bool]] = {
        "all": lambda row: True,
        "flagged": lambda row: row.flagged,
        "open": lambda row: not row.decision,
        "decided": lambda row: bool(row.decision),
        "again": lambda row: bool(row.again),
    }
    return tuple(row for row in rows if tests[show](row))


def search(rows: tuple[Finding, ...], pull: str, text: str) -> tuple[Finding, ...]:
    """The rows whose errors go to the class `pull` and in which `text` occurs, whatever its case; empty means any."""
    words = text.casefold().split()

    def found(row: Finding) -> bool:
        note = row.verdict.note if row.verdict else ""
        said = f"feature {row.feature} {row.name} {note} {row.pull} {row.decision}".casefold()
        return (not pull or row.pull == pull) and all(word in said for word in words)

    return tuple(row for row in rows if found(row))


@dataclass(frozen=True)
class ClassRow:
    """Accuracy of one class with and without a feature.

    difference: with minus without, in [-1, 1], with its Newcombe interval. gap: the same weighted, as the paper has it.
    Both NaN if a side is empty.
    """

    name: str
    inside: Rate
    outside: Rate
    difference: Interval
    gap: float
    pulls: bool


def class_rows(audit: Audit, feature: int) -> tuple[ClassRow, ...]:
    """One row per class that has images; the class that loses most comes first, undefined ones last."""
    scores = audit.features
    row = scores.row_of(feature)
    rows = []
    for y, name in enumerate(audit.class_names):
        inside = Rate(int(scores.right_in[row, y]), int(scores.n_in[row, y]))
        outside = Rate(int(scores.right_out[row, y]), int(scores.n_out[row, y]))
        if inside.n + outside.n:
            change = difference(inside, outside, audit.config.significance.level)
            pulls = y == int(scores.pull_class[row])
            rows.append(ClassRow(name, inside, outside, change, float(scores.class_gap[row, y]), pulls))
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
    """The first page of an audit.

    rule: by which features are flagged. classes: (name, accuracy), the worst first. noise: regions outside every
    feature.
    """

    rule: str
    overall: Rate
    classes: tuple[tuple[str, Rate], ...]
    worst: WorstGroup | None
    noise: Rate
    findings: tuple[Finding, ...]

    @property
    def flagged(self) -> tuple[Finding, ...]:
        return pick(self.findings, "flagged")

    @property
    def others(self) -> tuple[Finding, ...]:
        """Features that are not flagged."""
        return tuple(row for row in self.findings if not row.flagged)

    @property
    def waiting(self) -> tuple[Finding, ...]:
        """Flagged features that a person has to decide on."""
        return tuple(row for row in self.flagged if row.waits)

    @property
    def confirmed(self) -> tuple[Finding, ...]:
        return tuple(row for row in self.findings if row.decision == "spurious")


def overview(audit: Audit, verdicts: dict[int, Verdict], rows: tuple[Finding, ...] | None = None) -> Overview:
    """Accuracy, noise and findings of one audit. rows: its features, where they are known already."""
    correct, label = audit.zero_shot.correct, audit.zero_shot.label
    classes = [
        (name, Rate(int(np.count_nonzero(correct & (label == y))), int(np.count_nonzero(label == y))))
        for y, name in enumerate(audit.class_names)
    ]
    present = sorted((row for row in classes if row[1].n), key=lambda row: row[1].share)
    n_noise = int(np.count_nonzero(audit.feature_of < 0))
    listed = findings(audit, verdicts) if rows is None else rows
    return Overview(
        rule=audit.config.evidence.rule,
        overall=Rate(int(np.count_nonzero(correct)), len(correct)),
        classes=tuple(present),
        worst=worst_group(audit, {row.feature: row.name for row in listed}),
        noise=Rate(n_noise, len(audit.regions)),
        findings=listed,
    )


def worst_group(audit: Audit, names: dict[int, str]) -> WorstGroup | None:
    """The worst of class x presence of the first feature, if that is flagged, else of the classes; None without images.

    names: what people call features.
    """
    evidence, images = audit.evidence, audit.images
    top = int(evidence.feature[0]) if len(evidence) and evidence.flagged[0] else None
    present = {} if top is None else {top: audit.shows(top)}
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
    n = about.get("n_divided", 0)
    rows = [
        ("Images", f"{len(audit.images):,} from {config.images}"),
        ("Classes", f"{len(audit.class_names)}: {_first(audit.class_names)}"),
        ("Model", config.model),
        ("Prompts", ", ".join(config.prompts.templates)),
        ("Regions", f"{len(audit.regions):,} ({config.regions}), encoder {config.embedding.encoder}"),
        ("Clustering", f"{config.clustering.method} on {config.clustering.cluster_on} features, seed {config.seed}"),
        *([("Second look", f"{n} mixed {'feature' if n == 1 else 'features'} divided")] if n else []),
        ("Removed by", ", ".join(audit.counterfactuals.operators)),
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

    only_flagged: go through the flagged features and those to be decided again only, and through `feature`, which
    somebody asked for.
    """
    listed = tuple(row for row in rows if row.flagged or row.again or row.feature == feature) if only_flagged else rows
    decided = sum(not row.waits for row in listed)
    asked = [i for i, row in enumerate(listed) if row.feature == feature]
    waiting = [i for i, row in enumerate(listed) if row.waits]
    return Review(listed, next(iter([*asked, *waiting, 0])), decided)
