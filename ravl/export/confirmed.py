"""The list of confirmed features with everything about them, as JSON (`ravl/schemas/confirmed-features-2.json`)."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from ravl.chain import GENESIS, digest
from ravl.export.material import Material, called, read
from ravl.ledger import Ledger, seen_digest
from ravl.store import AuditRun
from ravl.summary import per_class
from ravl.tables import FeatureScores, Verdict

SCHEMA = "ravl.confirmed-features"
SCHEMA_VERSION = 2

SCORES = ("influence", "gap", "passes", "two_sided", "n_regions", "n_images", "n_errors", "n_decided")
EVENT = ("decision", "name", "pull_class", "reviewer", "at", "note", "seen")


def confirmed(run: AuditRun, ledger: Ledger) -> dict[str, Any]:
    """The features of a run whose holding verdict is `spurious`, as strict JSON (undefined numbers are null).

    Keys: schema, schema_version, run {id, name, created, revision, packages, config}, fingerprints, record (the state
    of the ledger: number of entries of its chain and the last digest), class_names, images (all that were audited),
    features, sha256 of all the rest. A feature: feature, name, pull_class, scores (with per_class: the signed gap and
    the counts it comes from), regions [{region, image, box}], reviewer, at, note, seen, seen_matches: whether its
    regions are those that the person saw; history, oldest first.
    A feature that the run no longer has (its clusters were computed again, or a merge or a split retired it) has scores
    null and no regions.
    Raises RunError when the run's features are not computed yet.
    """
    about, found = run.about, read(run, ledger)
    document = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "run": {
            **{"id": run.id, "revision": run.revision},
            **{key: about[key] for key in ("name", "created", "packages", "config")},
        },
        "fingerprints": about["fingerprints"],
        "record": record(ledger),
        "class_names": list(found.images.class_names),
        "images": _images(found),
        "features": [_feature(verdict, found, ledger) for verdict in found.confirmed],
    }
    return {**document, "sha256": digest(document)}


def record(ledger: Ledger) -> dict[str, Any]:
    """The state of the ledger: {entries, sha256 of the last one}."""
    entries = ledger.entries()
    return {"entries": len(entries), "sha256": entries[-1].sha256 if entries else GENESIS}


def _images(found: Material) -> list[dict[str, Any]]:
    images, names = found.images, found.images.class_names
    columns = (images.file, images.size, images.label, found.zero_shot.predicted)
    return [
        {
            **{"image": str(file), "width": int(size[0]), "height": int(size[1])},
            **{"label": names[label], "predicted": names[predicted]},
        }
        for file, size, label, predicted in zip(*columns, strict=True)
    ]


def _feature(verdict: Verdict, found: Material, ledger: Ledger) -> dict[str, Any]:
    members, scores, names = found.members(verdict.feature), found.scores, found.images.class_names
    row = scores.row_of(verdict.feature) if found.has(verdict.feature) else None
    pull = -1 if row is None else int(scores.pull_class[row])
    regions = found.regions
    return {
        "feature": verdict.feature,
        "name": called(verdict),
        "pull_class": names[pull] if pull >= 0 else None,
        "scores": None if row is None else _scores(scores, row, names),
        "regions": [
            {"region": int(r), "image": str(found.images.file[regions.image[r]]), "box": regions.box[r].tolist()}
            for r in members
        ],
        "reviewer": verdict.reviewer,
        "at": verdict.at,
        "note": verdict.note,
        "seen": verdict.seen,
        "seen_matches": seen_digest(members) == verdict.seen,
        "history": [
            {name: getattr(past, name) for name in EVENT} for past in ledger.history(found.run.id, verdict.feature)
        ],
    }


def _scores(scores: FeatureScores, row: int, class_names: tuple[str, ...]) -> dict[str, Any]:
    return {
        **{name: _number(getattr(scores, name)[row]) for name in SCORES},
        "per_class": per_class(scores, row, class_names),
    }


def _number(value: np.generic) -> bool | int | float | None:
    """A numpy number as JSON knows it: six decimals, null for NaN."""
    plain: bool | int | float = value.item()
    if not isinstance(plain, float):
        return plain
    return round(plain, 6) if math.isfinite(plain) else None


def as_json(document: dict[str, Any]) -> str:
    """The document as JSON text."""
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
