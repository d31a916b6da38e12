"""A confirmed list of another audit, taken over where this one has the same regions. A person looks at it again.

Two boxes on one image are the same region when they cover the same place: an intersection over union of at least SAME.
Two features are the same when enough of their regions are: the regions that both have, of those that either has (the
Jaccard index), on the images that both audits know. A decision is never replaced.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.discovery.scoring import pull_class_name
from ravl.errors import ConfigError
from ravl.ledger import Ledger
from ravl.store import AuditRun
from ravl.tables import IDENTITIES, ImageSet

SAME = 0.5
"""Intersection over union from which on two boxes are one region."""

OVERLAP = 0.5
"""Jaccard index of the regions from which on two features are one."""

Ints = NDArray[np.integer[Any]]


ELSEWHERE = "imported:"
"""What stands before the digest of regions that were seen in another audit."""


@dataclass(frozen=True)
class Found:
    """What became of one feature of the list.

    feature, name, reviewer: of the list. regions: those on images that both audits know. match: the feature of this run
    that shares most of them, None without any. others: its regions on these images. shared: regions that both have.
    outcome: taken over, decided before (a person's decision stands), different (too little is shared), or none (no
    image, or no region, in common).
    """

    feature: int
    name: str
    reviewer: str
    match: int | None
    regions: int
    others: int
    shared: int
    outcome: str
    decision: str = ""

    @property
    def overlap(self) -> float:
        """The Jaccard index, in [0, 1]; 0 without a region."""
        either = self.regions + self.others - self.shared
        return self.shared / either if either else 0.0


@dataclass(frozen=True)
class Imported:
    """source: the run of the list. common: images that both audits know, of so many in the list."""

    source: str
    common: int
    images: int
    found: tuple[Found, ...]


def compare(document: dict[str, Any], run: AuditRun, ledger: Ledger, least: float = OVERLAP) -> Imported:
    """Match a checked list with the features of a run; nothing is recorded. least: see `take_over`.

    Raises ConfigError for a share outside (0, 1], or for a list of this very run.
    """
    if not 0 < least <= 1:
        raise ConfigError(f"--overlap must be above 0 and at most 1, got {least}.")
    source = document["run"]["id"]
    if source == run.id:
        raise ConfigError(f"the file must be the list of another run, but it is that of {run.id} itself.")
    rows = _same_images(document["images"], run.images())
    found = _matched(document, run, rows, ledger, least)
    return Imported(source, int((rows >= 0).sum()), len(rows), found)


def take_over(
    document: dict[str, Any],
    run: AuditRun,
    ledger: Ledger,
    reviewer: str,
    least: float = OVERLAP,
    identity: str = IDENTITIES[0],
) -> Imported:
    """Match a checked list with the features of a run, and record what fits as decisions to be reviewed again.

    Each is kept with the digest of the regions that were seen in the *other* audit, marked as such, so that wherever
    decisions are shown it is plain that nobody saw these regions with these numbers. least: Jaccard index from which on
    two features are one. identity: how it is known who takes them over, one of IDENTITIES.
    Raises ConfigError without a reviewer, for a share outside (0, 1], or for a list of this very run.
    """
    if not reviewer.strip():
        raise ConfigError("--reviewer must be a name, got none. A decision is kept together with who takes it over.")
    imported = compare(document, run, ledger, least)
    source, scores, class_names = imported.source, run.features(), run.images().class_names
    stored = []
    for entry, feature in zip(imported.found, document["features"], strict=True):
        if entry.outcome == "taken over" and entry.match is not None:
            pull = pull_class_name(scores, entry.match, class_names)
            note = _note(source, entry, feature)
            seen = f"{ELSEWHERE}{feature['seen']}"
            taken = ledger.add_verdict(
                run.id, entry.match, pull, "spurious", reviewer, seen, feature["name"], note, identity
            )
            stored.append(taken.id)
    if stored:
        ledger.add_import(run.id, source, document["sha256"], reviewer, stored, identity)
    return imported


def _note(source: str, entry: Found, feature: dict[str, Any]) -> str:
    said = f" Their note: {feature['note']}" if feature["note"] else ""
    return (
        f"Imported from {source}, review again: there {feature['reviewer']} called feature {entry.feature} spurious on "
        f"{feature['at'][:10]}; {entry.shared} regions are the same, of {entry.regions} there and {entry.others} "
        f"here.{said}"
    )


def _same_images(listed: list[dict[str, Any]], images: ImageSet) -> Ints:
    """Per image of the list its number in this run, or -1: by its path, else by a file name that is unique in both.

    An image of another size is another image.
    """
    paths = [image["image"] for image in listed]
    here = images.file.tolist()
    by_path = {path: i for i, path in enumerate(here)}
    unique = _unique(here)
    names = _unique(paths)
    out = np.full(len(paths), -1)
    for row, image in enumerate(listed):
        name = PurePosixPath(image["image"]).name
        number = by_path.get(image["image"], unique.get(name, -1) if names.get(name) == row else -1)
        if number >= 0 and images.size[number].tolist() == [image["width"], image["height"]]:
            out[row] = number
    return out


def _unique(paths: list[str]) -> dict[str, int]:
    """{file name: row} of the names that occur once."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, path in enumerate(paths):
        rows[PurePosixPath(path).name].append(row)
    return {name: found[0] for name, found in rows.items() if len(found) == 1}


def _matched(document: dict[str, Any], run: AuditRun, rows: Ints, ledger: Ledger, least: float) -> tuple[Found, ...]:
    """What becomes of each feature. A feature of this run is taken once: by the one that shares most with it."""
    candidates = _candidates(document, run, rows)
    decided = {feature: verdict.decision for feature, verdict in ledger.verdicts(run.id).items()}
    out: dict[int, Found] = {}
    taken: set[int] = set()
    for place, option in sorted(candidates, key=lambda item: (-item[1].overlap, item[0])):
        fits = option.match is not None and option.overlap >= least
        if place in out or option.match in taken or not fits:
            continue
        taken.add(int(option.match or 0))
        decision = decided.get(int(option.match or 0), "")
        out[place] = replace(option, outcome="decided before" if decision else "taken over", decision=decision)
    best: dict[int, Found] = {}  # what is told of those that nothing is left for
    for place, option in candidates:
        best[place] = max(best.get(place, option), option, key=lambda item: item.overlap)
    return tuple(out.get(place, best[place]) for place in range(len(document["features"])))


def _candidates(document: dict[str, Any], run: AuditRun, rows: Ints) -> list[tuple[int, Found]]:
    """(place in the list, how it compares) for every feature of this run that shares a region with one of the list.

    One that shares none with any has a single line without a match.
    """
    regions, label = run.regions(), run.feature_label()
    number = {image["image"]: int(row) for image, row in zip(document["images"], rows, strict=True)}
    known = np.isin(regions.image, rows[rows >= 0])
    sizes = {int(f): int(np.count_nonzero(known & (label == f))) for f in run.features().feature}
    out = []
    for place, feature in enumerate(document["features"]):
        boxes: dict[int, list[list[int]]] = defaultdict(list)
        for region in feature["regions"]:
            if number[region["image"]] >= 0:
                boxes[number[region["image"]]].append(region["box"])
        shared: Counter[int] = Counter()
        for image, own in boxes.items():
            near = regions.rows_of(image)
            shared.update(label[near.start + same_boxes(np.array(own), regions.box[near])].tolist())
        none = Found(
            feature["feature"], feature["name"], feature["reviewer"], None, sum(map(len, boxes.values())), 0, 0, "none"
        )
        options = [
            replace(none, match=f, others=sizes[f], shared=count, outcome="different")
            for f, count in shared.items()
            if f in sizes
        ]
        out += [(place, option) for option in options or [none]]
    return out


def same_boxes(one: Ints, other: Ints) -> NDArray[np.int64]:
    """Rows of `other` (M, 4) that are the same region as a box of `one` (N, 4); a box has at most one partner."""
    one, other = np.asarray(one, np.int64), np.asarray(other, np.int64)
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    both = np.prod(np.maximum(high - low, 0), axis=2)
    area, other_area = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (one, other))
    share = both / (area[:, None] + other_area[None] - both)
    free, partners = np.ones(len(one), bool), np.zeros(len(other), bool)
    for place in np.argsort(-share, axis=None, kind="stable"):
        i, j = divmod(int(place), len(other))
        if share[i, j] < SAME:
            break
        if free[i] and not partners[j]:
            free[i], partners[j] = False, True
    return np.flatnonzero(partners)
