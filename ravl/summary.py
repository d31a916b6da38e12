"""The findings of a finished audit as one document: what `ravl discover --json` prints, and the same as text."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ravl.evaluation import group_accuracy
from ravl.store import AuditRun

N_EXEMPLARS = 10


def findings(run: AuditRun) -> dict[str, Any]:
    """Summarise a finished run as strict JSON: undefined numbers are null.

    Keys: run, path, accuracy, worst_group {name, accuracy, n}, n_images, n_skipped, n_regions, noise_share, seconds per
    stage, and features, best first, each with its ten highest ranked exemplars. The worst group is taken over class x
    presence of the first feature when that passes the paper's rule, else over the classes.
    """
    images, regions, zero_shot = run.images(), run.regions(), run.zero_shot()
    clusters, scores, exemplars = run.clustering(), run.features(), run.exemplars()
    present = {}
    if len(scores) and scores.passes[0]:
        top = int(scores.feature[0])
        has = np.zeros(len(images), bool)
        has[regions.image[clusters.label == top]] = True
        present[top] = has
    names = {feature: f"feature {feature}" for feature in present}
    groups = group_accuracy(zero_shot.predicted, images.label, images.class_names, present, names, images.groups)
    worst = groups.worst()
    features = []
    for row, feature in enumerate(scores.feature.tolist()):
        pull = int(scores.pull_class[row])
        features.append(
            {
                "feature": feature,
                "pull_class": images.class_names[pull] if pull >= 0 else None,
                "influence": number(scores.influence[row]),
                "gap": number(scores.gap[row]),
                "n_regions": int(scores.n_regions[row]),
                "n_images": int(scores.n_images[row]),
                "passes": bool(scores.passes[row]),
                "exemplars": [
                    {
                        "image": str(images.file[exemplars.image[i]]),
                        "box": regions.box[exemplars.region[i]].tolist(),
                        "contribution": number(exemplars.contribution[i]),
                    }
                    for i in exemplars.rows_of(feature)[:N_EXEMPLARS]
                ],
            }
        )
    return {
        "run": run.id,
        "path": str(run.path),
        "accuracy": number(zero_shot.correct.mean()),
        "worst_group": None
        if worst is None
        else {
            "name": str(groups.name[worst]),
            "accuracy": number(groups.accuracy[worst]),
            "n": int(groups.n[worst]),
        },
        "n_images": len(images),
        "n_skipped": len(images.skipped),
        "n_regions": len(regions),
        "noise_share": number(clusters.noise_share),
        "seconds": {stage: entry["seconds"] for stage, entry in run.about["stages"].items()},
        "features": features,
    }


def findings_text(document: dict[str, Any]) -> str:
    """The document as a page for the terminal."""
    worst = document["worst_group"]
    lines = [
        f"{document['run']}: {document['n_images']} images, {document['n_regions']} regions, "
        f"{percent(document['noise_share'])} of them in no cluster",
        f"accuracy {percent(document['accuracy'])}"
        + (f"; worst group: {worst['name']}, {percent(worst['accuracy'])} of {worst['n']}" if worst else ""),
    ]
    if document["n_skipped"]:
        lines.append(f"{document['n_skipped']} images could not be read; the Overview page lists them")
    if not document["features"]:
        return "\n".join([*lines, "no feature was found: the regions form no clusters"])
    lines.append(
        f"{'feature':>8}  {'pulls to':<16}{'influence':>10}{'gap':>8}{'regions':>9}{'images':>8}  paper's rule"
    )
    for entry in document["features"][:10]:
        lines.append(
            f"{entry['feature']:>8}  {entry['pull_class'] or '-':<16}"
            f"{_plain(entry['influence']):>10}{_plain(entry['gap']):>8}"
            f"{entry['n_regions']:>9}{entry['n_images']:>8}  {'passes' if entry['passes'] else '-'}"
        )
    if len(document["features"]) > 10:
        lines.append(f"and {len(document['features']) - 10} more features (--json lists all)")
    return "\n".join(lines)


def number(value: Any) -> float | None:
    """A Python float rounded to six digits; None where it is undefined."""
    return None if math.isnan(value) else round(float(value), 6)


def percent(share: float | None) -> str:
    return "n/a" if share is None else f"{100 * share:.1f} %"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
