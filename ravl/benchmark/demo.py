"""`ravl benchmark demo`, `make benchmark`: evaluated on the demos' planted worlds, where the spurious mark is known.

Discovery: share of the first feature's ten exemplars that show the mark (P@10), its pull class, how many features pass
the paper's rule and how many are flagged. Mitigation: accuracy overall and of the worst true group (class x mark) on
held-out images without correlation, before and after each method. Each for several seeds; of the digits also for both
clusterings and both encoders. `siglip` and `resnet` are models of other families, trained on the digits for each seed.
Resumable: finished models and runs in the workspace are reused. `--worlds` names some of these.
Writes `assets/benchmark/demo.json` of the digits, and `demo-NAME.json` of each other.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ravl
from ravl.benchmark.quotes import demo_name
from ravl.data.hiding import paths_of
from ravl.errors import ConfigError
from ravl.planted.demos import DEMOS, Demo
from ravl.store import AuditRun, open_workspace, write_json

FOLDER = Path("assets/benchmark")


@dataclass(frozen=True)
class Plan:
    """What is measured of one demo. ways: (clustering, encoder) of the audits."""

    ways: tuple[tuple[str, str], ...]
    discovery_seeds: int
    methods: tuple[str, ...]
    mitigation_seeds: int


PLANS = {
    "digits": Plan(
        tuple((clustering, encoder) for clustering in ("hdbscan", "kmedoids") for encoder in ("tokens", "crop")),
        *(5, ("standard", "paper", "ravl"), 3),
    ),
    "radiograph": Plan((("hdbscan", "crop"),), 3, ("standard", "ravl"), 3),
}


FAMILIES = {"siglip": "tokens", "resnet": "roi"}
"""Models of other families than CLIP, and the region encoder that each is audited with."""
FAMILY_SEEDS = 3
WORLDS = (*DEMOS, *FAMILIES)


def run(workspace_folder: str | Path, device: str, worlds: Sequence[str] = ()) -> dict[str, Any]:
    """Measure some of WORLDS, all where none is named; write a table each and return them by name.

    workspace_folder: where finished models and runs are kept. Raises ConfigError for a name that is not known.
    """
    for world in worlds:
        if world not in WORLDS:
            raise ConfigError(f"--worlds must name some of {', '.join(WORLDS)}, got {world!r}.")
    workspace = open_workspace(workspace_folder)
    documents = {}
    for world in worlds or WORLDS:
        if world in FAMILIES:
            documents[world] = _family(world, workspace, device)
        else:
            documents[world] = _measured(DEMOS[world], PLANS[world], workspace, device)
        write_json(FOLDER / f"{demo_name(world)}.json", documents[world])
    return documents


def _measured(demo: Demo, plan: Plan, workspace: Path, device: str) -> dict[str, Any]:
    data = demo.write(workspace)
    settings = demo.settings() | {"workspace": workspace, "device": device}
    discovery = []
    for clustering, encoder in plan.ways:
        for seed in range(plan.discovery_seeds):
            way = {"clustering": clustering, "encoder": encoder, "seed": seed}
            discovery.append(_told({**way, **_first_feature(ravl.discover(data / "val", **(settings | way)), demo)}))
    audit = ravl.discover(data / "val", **settings)
    how = STEPS | dict(demo.repair)
    seeds = range(plan.mitigation_seeds)
    mitigation = [row for seed in seeds for row in _repairs(audit, demo, data, plan.methods, how, seed, device)]
    return {**how, "discovery": discovery, "mitigation": mitigation}


def _family(family: str, workspace: Path, device: str) -> dict[str, Any]:
    """A model of another family for each seed: trained on digits, audited and repaired."""
    from ravl.planted.tiny_families import cached_family  # needs torch, and open_clip for one of them

    demo, discovery, mitigation = DEMOS["digits"], [], []
    data = demo.write(workspace)
    for seed in range(FAMILY_SEEDS):
        way = {"clustering": "hdbscan", "encoder": FAMILIES[family], "seed": seed}
        model = cached_family(family, workspace / "models", seed)
        settings = demo.settings() | {"model": str(model), "workspace": workspace, "device": device}
        audit = ravl.discover(data / "val", **(settings | way))
        discovery.append(_told({**way, **_first_feature(audit, demo)}))
        mitigation += _repairs(audit, demo, data, ("standard", "ravl"), STEPS, seed, device)
    return {**STEPS, "discovery": discovery, "mitigation": mitigation}


STEPS = {"steps": 300, "batch_size": 128}
"""Of a repair, unless a demo says otherwise."""


def _repairs(
    audit: AuditRun, demo: Demo, data: Path, methods: Sequence[str], how: Mapping[str, int], seed: int, device: str
) -> list[dict[str, Any]]:
    """A row per method: the audit's first feature is treated."""
    rows = []
    for method in methods:
        result = ravl.mitigate(
            audit,
            data / "train",
            test=data / "test.csv",  # says where the mark is
            features=[int(audit.evidence().feature[0])],
            method=method,
            reaudit=False,  # compared are trainings
            steps=how["steps"],
            batch_size=how["batch_size"],
            seed=seed,
            device=device,
        )
        rows.append(_told({"method": method, "seed": seed, **_comparison(result, demo)}))
    return rows


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """The row, once it is on stderr."""
    print(row, file=sys.stderr, flush=True)
    return row


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
