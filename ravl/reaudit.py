"""The audit of a tuned model: the same configuration on the same images, compared feature by feature with the first.

Removing one shortcut can strengthen another; so every repair ends here.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from ravl.audit import discover
from ravl.config import PROPOSERS
from ravl.discovery.evidence import needed
from ravl.discovery.scoring import best_region, pull_class_name
from ravl.errors import ModelError, RunError
from ravl.ledger import Ledger
from ravl.mitigation.card import model_card
from ravl.mitigation.comparison import rate
from ravl.mitigation.rematch import About, Audited, document, rematch
from ravl.store import AuditRun, MitigationFolder
from ravl.tables import Regions, Report, columns
from ravl.vlm.interface import VisionLanguageModel

_PART = 36
"""Characters that each of the two names gives to the new run's: a run's name has at most 80."""


def is_current(run: AuditRun, folder: MitigationFolder) -> bool:
    """Whether the tuned model is audited, and matched with the features of either audit as they are now."""
    kept = folder.result.get("reaudit")
    if kept is None or not (run.path.parent / kept["run"] / "run.json").exists():
        return False
    return bool(kept["revisions"] == [run.revision, AuditRun(run.path.parent / kept["run"]).revision])


def reaudit(run: AuditRun, folder: MitigationFolder, vlm: VisionLanguageModel, report: Report) -> dict[str, Any]:
    """Audit the tuned model as `run` audited the first one, link both runs, and add `reaudit` to the result.

    vlm: the model of `folder.model`. A run that was interrupted is continued. Returns the whole result.
    Raises ModelError when `vlm` is not the model of this result; DataError when the audited images have changed since;
    RunError when they are cut into other regions, so that no feature can be compared.
    """
    begun = time.perf_counter()
    result = folder.result
    if vlm.fingerprint != result["fingerprints"]["tuned_model"]:
        raise ModelError(
            f"the model in {folder.model} must be the one that {folder.name} saved, but it has changed since. "
            "Run ravl mitigate again under another --name."
        )
    with folder.locked():
        config = replace(run.config, model=vlm.name)
        name = f"{run.name[:_PART]}-after-{folder.name[:_PART]}"
        until = "projection" if run.has("projection") else "evidence"
        data = run.about["fingerprints"]["data"]
        proposer = None
        if config.regions.kind in PROPOSERS:
            from ravl.vlm.proposals import load

            proposer = load(config.regions)
        found = discover(config, vlm, run.path.parents[1], name, report, until, data, proposer)
        folder.link(found.path)
        result = {**result, "reaudit": {**compared(run, found, result["features"]), "seconds": _since(begun)}}
        classes, templates = run.images().class_names, run.config.prompts.templates
        folder.save_card(model_card(run.config.model, classes, templates, result))
        folder.save_result(result)
    return result


def compared(run: AuditRun, found: AuditRun, treated: list[dict[str, Any]]) -> dict[str, Any]:
    """What the second audit says beside the first, as strict JSON. treated: `features` of the repair's result.

    Keys: run; revisions of both runs that were compared; accuracy {before, after} on the audited images; flagged
    {before, after}, how many features the audit's rule flags; features (see `ravl.mitigation.rematch.document`).
    """
    regions = run.regions()
    if _differ(regions, found.regions()):
        raise RunError(
            f"{found.id} must cut the images as {run.id} did to be compared with it, but its regions are others. "
            "The preprocessing of the tuned model has changed; run ravl mitigate again under another --name."
        )
    before, after = audited(run), audited(found)
    names = _names(run) | {about["feature"]: about["name"] for about in treated if about["name"]}
    rows = rematch(regions, before, after)
    return {
        "run": found.id,
        "revisions": [run.revision, found.revision],
        "accuracy": {when: rate(int((~side.wrong).sum()), len(side.wrong)) for when, side in _sides(before, after)},
        "flagged": {when: sum(about.flagged for about in side.about.values()) for when, side in _sides(before, after)},
        "features": document(rows, before, after, names, [about["feature"] for about in treated]),
    }


def audited(run: AuditRun) -> Audited:
    """One audit as the matching needs it."""
    regions, zero_shot, scores, evidence = run.regions(), run.zero_shot(), run.features(), run.evidence()
    names, trials = run.images().class_names, run.counterfactuals()
    agree = needed(trials.operators, run.config.evidence)
    about = {}
    for place, feature in enumerate(evidence.feature.tolist()):
        rows = trials.rows_of(feature)
        wrong = rows[~zero_shot.correct[trials.image[rows]]]
        gone = (trials.after[wrong] == zero_shot.label[trials.image[wrong]][:, None]).sum(1) >= agree
        about[feature] = About(
            pull_class=pull_class_name(scores, feature, names),
            flagged=bool(evidence.flagged[place]),
            grade=str(evidence.grade[place]),
            fixed=(int(gone.sum()), len(wrong)) if len(rows) else None,
        )
    deciding = np.where(np.diff(regions.starts) > 1, best_region(regions, zero_shot), -1)
    return Audited(run.feature_label(), ~zero_shot.correct, deciding, about)


def _differ(one: Regions, other: Regions) -> bool:
    pairs = zip(columns(one).values(), columns(other).values(), strict=True)
    return not all(np.array_equal(a, b) for a, b in pairs)


def _sides(before: Audited, after: Audited) -> tuple[tuple[str, Audited], ...]:
    return ("before", before), ("after", after)


def _names(run: AuditRun) -> dict[int, str]:
    """What people call the features of a run."""
    ledger = Ledger(run.path.parents[1])
    verdicts, made = ledger.verdicts(run.id), ledger.names(run.id)
    ledger.close()
    return made | {feature: verdict.name for feature, verdict in verdicts.items() if verdict.name}


def _since(begun: float) -> float:
    return round(time.perf_counter() - begun, 2)
