"""`ravl benchmark demo`, `make benchmark`: evaluated on the demos' planted worlds, where the spurious mark is known.

Discovery: share of the first feature's ten exemplars that show the mark (P@10), its pull class, how many features pass
the paper's rule and how many are flagged. Mitigation: accuracy overall and of the worst true group (class x mark) on
held-out images without correlation, before and after each method. Each for several seeds; of the digits also for both
clusterings and both encoders. Resumable: finished runs in the workspace are reused. `--worlds` names some of the demos.
Writes `assets/benchmark/demo.json` of the digits and `demo-radiograph.json`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ravl
from ravl.data.hiding import paths_of
from ravl.errors import ConfigError
from ravl.planted.demos import DEMOS, Demo
from ravl.store import AuditRun, open_workspace, write_json

FOLDER = Path("assets/benchmark")


@dataclass(frozen=True)
class Plan:
    """What is measured of one demo. ways: (clustering, encoder) of the audits. result: name of the table."""

    result: str
    ways: tuple[tuple[str, str], ...]
    discovery_seeds: int
    methods: tuple[str, ...]
    mitigation_seeds: int


PLANS = {
    "digits": Plan(
        "demo.json",
        tuple((clustering, encoder) for clustering in ("hdbscan", "kmedoids") for encoder in ("tokens", "crop")),
        *(5, ("standard", "paper", "ravl"), 3),
    ),
    "radiograph": Plan("demo-radiograph.json", (("hdbscan", "crop"),), 3, ("standard", "ravl"), 3),
}


def run(workspace_folder: str | Path, device: str, worlds: Sequence[str] = ()) -> dict[str, Any]:
    """Measure the demos of some worlds, of all where none is named; write a table each and return them by world.

    workspace_folder: where finished runs are kept. Raises ConfigError for a world without a demo.
    """
    for world in worlds:
        if world not in DEMOS:
            raise ConfigError(f"--worlds must name some of {', '.join(DEMOS)}, got {world!r}.")
    workspace = open_workspace(workspace_folder)
    documents = {}
    for world in worlds or DEMOS:
        documents[world] = _measured(DEMOS[world], PLANS[world], workspace, device)
        write_json(FOLDER / PLANS[world].result, documents[world])
    return documents


def _measured(demo: Demo, plan: Plan, workspace: Path, device: str) -> dict[str, Any]:
    data = demo.write(workspace)
    settings = demo.settings() | {"workspace": workspace, "device": device}
    discovery = []
    for clustering, encoder in plan.ways:
        for seed in range(plan.discovery_seeds):
            way = {"clustering": clustering, "encoder": encoder, "seed": seed}
            discovery.append({**way, **_first_feature(ravl.discover(data / "val", **(settings | way)), demo)})
            print(discovery[-1], file=sys.stderr, flush=True)
    audit = ravl.discover(data / "val", **settings)
    feature = int(audit.evidence().feature[0])
    how: dict[str, Any] = {"steps": 300, "batch_size": 128} | dict(demo.repair)
    mitigation = []
    for seed in range(plan.mitigation_seeds):
        for method in plan.methods:
            result = ravl.mitigate(
                audit,
                data / "train",
                test=data / "test.csv",  # says where the mark is
                features=[feature],
                method=method,
                reaudit=False,  # compared are trainings
                steps=how["steps"],
                batch_size=how["batch_size"],
                seed=seed,
                device=device,
            )
            mitigation.append({"method": method, "seed": seed, **_comparison(result, demo)})
            print(mitigation[-1], file=sys.stderr, flush=True)
    return {**how, "discovery": discovery, "mitigation": mitigation}


def _first_feature(run: AuditRun, demo: Demo) -> dict[str, Any]:
    """P@10, precision and recall of the first feature against the planted truth."""
    scores, exemplars, evidence = run.features(), run.exemplars(), run.evidence()
    marked = demo.marked(paths_of(run.images()), run.regions())
    feature = int(evidence.feature[0])
    members = run.feature_label() == feature
    first = exemplars.region[exemplars.rows_of(feature)[:10]]
    pull = int(scores.pull_class[scores.row_of(feature)])
    return {
        "precision_at_10": round(float(marked[first].mean()), 3),
        "precision": round(float(marked[members].mean()), 3),
        "recall": round(float(members[marked].mean()), 3),
        "pull_class_right": pull >= 0 and run.images().class_names[pull] == demo.target,
        "first_is_flagged": bool(evidence.flagged[0]),
        "passing": int(scores.passes.sum()),
        "flagged": int(evidence.flagged.sum()),
        "features": len(scores),
    }


def _comparison(result: dict[str, Any], demo: Demo) -> dict[str, Any]:
    """Accuracies in the true groups, class x mark; the features' inferred groups are left out here."""
    column = f"{demo.mark.replace(' ', '_')}="
    row: dict[str, Any] = {"seconds": result["seconds"], "best_step": result["best_step"]}
    for when in ("before", "after"):
        true = [group for group in result[when]["groups"] if column in group["name"]]
        worst = min(true, key=lambda group: group["accuracy"])
        row |= {f"overall_{when}": result[when]["overall"], f"worst_{when}": worst["accuracy"]}
        row |= {f"worst_group_{when}": worst["name"], f"worst_n_{when}": worst["n"]}
    return row
