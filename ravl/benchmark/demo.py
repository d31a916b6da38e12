"""`ravl benchmark demo`, `make benchmark`: an evaluation on the demo's planted world, where the spurious mark is known.

Discovery: share of the first feature's ten exemplars that show the mark (P@10), its pull class, how many features pass
the paper's rule and how many are flagged, for both clusterings, both encoders and five seeds. Mitigation: accuracy
overall and of the worst true group (class x mark) on held-out images without correlation, before and after each method,
for three seeds. Resumable: finished runs in the workspace are reused. Writes `assets/benchmark/demo.json`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import ravl
from ravl.planted.digits import CLASSES, DEMO_SIZES, TARGET, digit_world, write_demo
from ravl.store import AuditRun, open_workspace, write_json

DISCOVERY_SEEDS, MITIGATION_SEEDS = range(5), range(3)
METHODS = ("standard", "paper", "ravl")
STEPS = 300
RESULT = Path("assets/benchmark/demo.json")


def run(workspace_folder: str | Path, device: str) -> dict[str, Any]:
    """Run every setting, write the table and return it. workspace_folder: where finished runs are kept."""
    workspace = open_workspace(workspace_folder)
    data = write_demo(workspace / "demo-data")

    discovery = []
    for clustering in ("hdbscan", "kmedoids"):
        for encoder in ("tokens", "crop"):
            for seed in DISCOVERY_SEEDS:
                audit = ravl.discover(
                    data / "val",
                    "demo",
                    classes=CLASSES,
                    clustering=clustering,
                    encoder=encoder,
                    seed=seed,
                    workspace=workspace,
                    device=device,
                )
                row = {"clustering": clustering, "encoder": encoder, "seed": seed, **_first_feature(audit)}
                discovery.append(row)
                print(row, file=sys.stderr, flush=True)

    audit = ravl.discover(data / "val", "demo", classes=CLASSES, workspace=workspace, device=device)
    feature = int(audit.evidence().feature[0])
    mitigation = []
    for seed in MITIGATION_SEEDS:
        for method in METHODS:
            result = ravl.mitigate(
                audit,
                data / "train",
                test=data / "test.csv",  # says where the mark is
                features=[feature],
                method=method,
                reaudit=False,  # compared are trainings
                steps=STEPS,
                seed=seed,
                device=device,
            )
            row = {"method": method, "seed": seed, **_comparison(result)}
            mitigation.append(row)
            print(row, file=sys.stderr, flush=True)
    document = {"steps": STEPS, "discovery": discovery, "mitigation": mitigation}
    write_json(RESULT, document)
    return document


def _first_feature(run: AuditRun) -> dict[str, Any]:
    """P@10, precision and recall of the first feature against the planted truth."""
    n, rates = DEMO_SIZES["val"]
    world = digit_world("val", n, *rates, seed=0)
    images, regions, scores, exemplars = run.images(), run.regions(), run.features(), run.exemplars()
    scene = np.array([int(Path(name).stem) for name in images.file])
    marked = world.mark_cell[scene][regions.image] == regions.position
    evidence = run.evidence()
    feature = int(evidence.feature[0])
    members = run.feature_label() == feature
    first = exemplars.region[exemplars.rows_of(feature)[:10]]
    pull = int(scores.pull_class[scores.row_of(feature)])
    return {
        "precision_at_10": round(float(marked[first].mean()), 3),
        "precision": round(float(marked[members].mean()), 3),
        "recall": round(float(members[marked].mean()), 3),
        "pull_class_right": pull >= 0 and CLASSES[pull] == TARGET,
        "passing": int(scores.passes.sum()),
        "flagged": int(evidence.flagged.sum()),
        "features": len(scores),
    }


def _comparison(result: dict[str, Any]) -> dict[str, Any]:
    """Accuracies in the true groups, class x mark; the features' inferred groups are left out here."""
    row: dict[str, Any] = {"seconds": result["seconds"], "best_step": result["best_step"]}
    for when in ("before", "after"):
        true = [group for group in result[when]["groups"] if "red_square=" in group["name"]]
        worst = min(true, key=lambda group: group["accuracy"])
        row |= {f"overall_{when}": result[when]["overall"], f"worst_{when}": worst["accuracy"]}
        row |= {f"worst_group_{when}": worst["name"], f"worst_n_{when}": worst["n"]}
    return row
