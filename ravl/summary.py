"""The findings of a finished audit as one document: what `ravl discover --json` prints, and the same as text."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ravl.evaluation import as_document, group_accuracy
from ravl.store import AuditRun
from ravl.tables import BY_OPERATOR, RATES, Evidence, FeatureScores, ImageSet, Regions, Significance, columns

N_EXEMPLARS = 10

REASONS = {
    "causal": "errors go when it is removed",
    "support": "too few images or errors",
    "chance": "chance explains the gap",
    "not replicated": "not found in both halves",
    "no effect": "errors stay when it is removed",
    "harm": "removal breaks right answers",
    "partial": "removal repairs only a part",
    "unproven": "not to be told from the class itself",
    "disagree": "ways of removing it disagree",
    "inconclusive": "too few errors to tell what removal does",
    "untested": "no model to remove it with",
}
"""Why a feature has its grade, in a few words."""


def findings(run: AuditRun) -> dict[str, Any]:
    """Summarise a finished run as strict JSON: undefined numbers are null.

    Keys: run, path, rule, accuracy, worst_group {name, accuracy, n}, n_images, n_skipped (could not be read, so they
    count nowhere), n_unseen (could not be read, but their embeddings were given), n_empty_folders, n_errors, n_regions,
    noise_share, encoder of the regions {name, why} (null for audits that kept none), agreement of the fast region
    encoder with `crop` {n, cosine, same_class, spearman}, seconds per stage, and features, best first (see
    `_features`). The worst group is taken over class x presence of the first feature when that is flagged, else over
    the classes.
    """
    images, regions, zero_shot = run.images(), run.regions(), run.zero_shot()
    evidence, feature_of = run.evidence(), run.feature_label()
    present = {}
    if len(evidence) and evidence.flagged[0]:
        top = int(evidence.feature[0])
        present[top] = regions.in_images(feature_of == top)
    names = {feature: f"feature {feature}" for feature in present}
    groups = group_accuracy(zero_shot.predicted, images.label, images.class_names, present, names, images.groups)
    return {
        "run": run.id,
        "path": str(run.path),
        "rule": run.config.evidence.rule,
        "accuracy": number(zero_shot.correct.mean()),
        "worst_group": as_document(groups)["worst_group"],
        "n_images": len(images),
        "n_skipped": len(images.unreadable),
        "n_unseen": len(images.unseen),
        "n_empty_folders": len(images.empty_folders),
        "n_errors": int(np.count_nonzero(~zero_shot.correct)),
        "n_regions": len(regions),
        "noise_share": number(run.clustering().noise_share),
        "encoder": run.about.get("encoder"),
        "agreement": {name: number(value) for name, value in columns(run.agreement()).items()},
        "seconds": {stage: entry["seconds"] for stage, entry in run.about["stages"].items()},
        "features": _features(run, images, regions),
    }


def _features(run: AuditRun, images: ImageSet, regions: Regions) -> list[dict[str, Any]]:
    """Every feature in rank order, but those that a merge or a split retired.

    Keys: feature, pull_class, flagged (by the audit's rule), passes (the paper's rule), grade and reason of the
    evidence, influence, influence_above_chance, gap, gap_above_chance with its interval, p, q, supported, n_regions,
    n_images, n_errors, error_share, signature (accuracy differences of the pull class and of the others), removal (by
    operator, with counts), pasted, per_class (the signed gap and its counts) and ten exemplars.
    """
    scores, chance, evidence, exemplars = run.features(), run.significance(), run.evidence(), run.exemplars()
    existing, features = set(scores.existing.tolist()), []
    for place, feature in enumerate(evidence.feature.tolist()):
        if feature not in existing:
            continue
        row, test = scores.row_of(feature), chance.row_of(feature)
        pull = int(scores.pull_class[row])
        features.append(
            {
                "feature": feature,
                "pull_class": images.class_names[pull] if pull >= 0 else None,
                "flagged": bool(evidence.flagged[place]),
                "passes": bool(scores.passes[row]),
                "grade": str(evidence.grade[place]),
                "reason": str(evidence.reason[place]),
                "influence": number(scores.influence[row]),
                "influence_above_chance": number(chance.excess_influence[test]),
                "gap": number(scores.gap[row]),
                "gap_above_chance": number(chance.excess_gap[test]),
                "gap_interval": [number(chance.gap_low[test]), number(chance.gap_high[test])],
                "p": number(chance.p[test]),
                "q": number(chance.q[test]),
                "supported": bool(chance.supported[test]),
                "n_regions": int(scores.n_regions[row]),
                "n_images": int(scores.n_images[row]),
                "n_errors": int(scores.n_errors[row]),
                "error_share": number(evidence.error_share[place]),
                "signature": _signature(chance, test),
                "removal": _removal(evidence, place),
                "pasted": {"n": int(evidence.n_pasted[place]), "induced": int(evidence.induced[place])},
                "per_class": per_class(scores, row, images.class_names),
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
    return features


def _signature(chance: Significance, row: int) -> dict[str, Any]:
    return {
        side: {
            "difference": number(getattr(chance, f"{side}_diff")[row]),
            "interval": [number(getattr(chance, f"{side}_low")[row]), number(getattr(chance, f"{side}_high")[row])],
            "with": getattr(chance, f"{side}_in")[row].tolist(),
            "without": getattr(chance, f"{side}_out")[row].tolist(),
        }
        for side in ("pull", "other")
    }


def _removal(evidence: Evidence, row: int) -> list[dict[str, Any]]:
    return [
        {
            "operator": operator,
            **{
                name: number(value) if name in RATES else int(value)
                for name, value in ((name, getattr(evidence, name)[row, column]) for name in BY_OPERATOR)
            },
        }
        for column, operator in enumerate(evidence.operators)
        if evidence.tested[row]
    ]


def per_class(scores: FeatureScores, row: int, class_names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The signed gap of every class, and the counts it comes from."""
    counts = ("n_in", "right_in", "n_out", "right_out")
    return [
        {
            "class": name,
            "gap": number(scores.class_gap[row, y]),
            **{count: int(getattr(scores, count)[row, y]) for count in counts},
        }
        for y, name in enumerate(class_names)
    ]


def findings_text(document: dict[str, Any]) -> str:
    """The document as a page for the terminal."""
    worst = document["worst_group"]
    lines = [
        f"{document['run']}: {document['n_images']} images, {document['n_regions']} regions, "
        f"{percent(document['noise_share'])} of them in no cluster",
        f"accuracy {percent(document['accuracy'])}"
        + (f"; worst group: {worst['name']}, {percent(worst['accuracy'])} of {worst['n']}" if worst else ""),
    ]
    if document.get("encoder"):
        lines.append(f"encoder {document['encoder']['name']}: {document['encoder']['why']}")
    lines += _left_out(document)
    if not document["features"]:
        return "\n".join([*lines, "no feature was found: the regions form no clusters"])
    flagged = sum(entry["flagged"] for entry in document["features"])
    lines.append(f"{flagged} of {len(document['features'])} features flagged by the rule {document['rule']!r}")
    lines.append(
        f"{'feature':>8}  {'pulls to':<16}{'errors':>8}{'influence':>10}{'gap':>8}{'q':>8}{'images':>8}  evidence"
    )
    for entry in document["features"][:10]:
        mark = "  FLAGGED" if entry["flagged"] else ""
        lines.append(
            f"{entry['feature']:>8}  {entry['pull_class'] or '-':<16}{percent(entry['error_share']):>8}"
            f"{_plain(entry['influence']):>10}{_plain(entry['gap']):>8}{_plain(entry['q']):>8}"
            f"{entry['n_images']:>8}  {entry['grade']}: {REASONS[entry['reason']]}{mark}"
        )
    if not flagged and document["rule"] == "evidence":
        lines.append(_nothing_shown([entry["reason"] for entry in document["features"]]))
    if len(document["features"]) > 10:
        lines.append(f"and {len(document['features']) - 10} more features (--json lists all)")
    return "\n".join(lines)


def _nothing_shown(reasons: list[str]) -> str:
    """What it means that no feature is flagged: only what was tested may be called clear."""
    n, untested = len(reasons), reasons.count("untested")
    if untested:
        verb = "differs" if untested == 1 else "differ"
        return (
            f"nothing could be tested by removal, since this audit had no model: {untested} of {n} features {verb} by "
            "more than chance, and whether they cause errors is not known"
        )
    if set(reasons) <= {"support", "inconclusive"}:
        return "there are too few images or errors to tell whether there is a local shortcut"
    return "no local shortcut was found; that does not prove that there is none (see the README's limits)"


def _left_out(document: dict[str, Any]) -> list[str]:
    """What was listed and could not be used, each kind for itself."""
    lines = []
    if n := document["n_skipped"]:
        lines.append(f"{n} image{_s(n)} could not be read; the Overview page lists {'it' if n == 1 else 'them'}")
    if n := document["n_unseen"]:
        lines.append(f"{n} image{_s(n)} could not be read and cannot be shown; the given embeddings are used")
    if n := document["n_empty_folders"]:
        lines.append(f"{n} folder{_s(n)} without images {'is no class' if n == 1 else 'are no classes'}")
    return lines


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def number(value: Any) -> float | None:
    """A Python float rounded to six digits; None where it is undefined."""
    return None if math.isnan(value) else round(float(value), 6)


def percent(share: float | None) -> str:
    return "n/a" if share is None else f"{100 * share:.1f} %"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
