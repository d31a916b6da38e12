"""What the README says of the demos and of what things cost, from the files that commands wrote."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ravl.benchmark.markdown import table
from ravl.store import read_json

COSTS, AUDITS = "../bench", "../bench-audits"
"""Names of the files about costs, from the folder of the benchmarks."""


def demo_name(world: str) -> str:
    """Name of a demo's table in the folder of the benchmarks, without its ending."""
    return "demo" if world == "digits" else f"demo-{world}"


def demo_block(folder: Path) -> str:
    """The digits' demo: how sure its audit is, and what each repair gives."""
    return _demo(read_json(folder / f"{demo_name('digits')}.json"), "the red square", "make benchmark")


def medical_block(folder: Path) -> str:
    """The same of the medical demo."""
    document = read_json(folder / f"{demo_name('radiograph')}.json")
    return _demo(document, "the metal clips", "ravl benchmark demo --worlds radiograph")


def families_block(folder: Path) -> str:
    """Models of other families than CLIP: what their audits find, and what repairs give."""
    body = []
    for name, title in (("siglip", "SigLIP, `tokens`"), ("resnet", "ResNet of open_clip, `roi`")):
        file = folder / f"{demo_name(name)}.json"
        if not file.exists():
            continue
        document = read_json(file)
        audits, repairs = document["discovery"], document["mitigation"]
        plain, ours = (
            _span([r["worst_after"] for r in repairs if r["method"] == method]) for method in ("standard", "ravl")
        )
        body.append(
            (
                title,
                _span([audit["precision_at_10"] for audit in audits]),
                f"{sum(audit['first_is_flagged'] for audit in audits)} of {len(audits)}",
                _span([r["worst_before"] for r in repairs]),
                plain,
                ours,
            )
        )
    head = ("model", "P@10", "flagged", "worst group", "after `standard`", "after `ravl`")
    return "\n".join(
        [
            "Small models of other families, trained on the same digits, three seeds each (`ravl benchmark demo "
            "--worlds siglip,resnet`):",
            "",
            *table(head, body),
        ]
    )


def _demo(document: dict[str, Any], mark: str, command: str) -> str:
    audits, repairs = document["discovery"], document["mitigation"]
    n = len(audits)
    ways = {(audit["clustering"], audit["encoder"]) for audit in audits}
    over = f"{n} audits ({len(ways)} ways to cluster and embed, " if len(ways) > 1 else f"{n} audits ("
    seeds = len({audit["seed"] for audit in audits})
    least = min(audit["precision_at_10"] for audit in audits)
    right, flagged = (sum(audit[name] for audit in audits) for name in ("pull_class_right", "first_is_flagged"))
    others = sum(audit["flagged"] - audit["first_is_flagged"] for audit in audits)
    methods = list(dict.fromkeys(row["method"] for row in repairs))
    body = []
    for method in methods:
        own = [row for row in repairs if row["method"] == method]
        overall, worst = (_span([row[f"{what}_after"] for row in own]) for what in ("overall", "worst"))
        name = f"**{method}**" if method == "ravl" else method
        body.append((name, overall, worst, f"{statistics.median(row['seconds'] for row in own):.0f}"))
    first = repairs[0]
    before = ("*before*", f"{first['overall_before']:.2f}", f"{first['worst_before']:.2f}", "")
    return "\n".join(
        [
            f"Measured (`{command}`): in {over}{seeds} seeds), {_least(least)} of the first feature's ten exemplars "
            f"show {mark}, its pull class is right in {right} of {n}, and it is flagged in {flagged} of {n}; "
            f"{others or 'no'} other {'feature is' if others == 1 else 'features are'} flagged. Repairs, "
            f"{document['steps']} steps of {document['batch_size']} images, {len({r['seed'] for r in repairs})} seeds, "
            f"on held-out images where the mark depends on no class:",
            "",
            *table(("repair", "accuracy", "of the worst group", "seconds"), [before, *body]),
        ]
    )


def _least(share: float) -> str:
    return "all" if share == 1 else f"at least {share:.0%}"


def _span(values: Sequence[float]) -> str:
    low, high = (f"{value:.2f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def costs_block(folder: Path) -> str:
    """What regions and training steps cost, as ratios, and whole audits."""
    found = read_json(folder / f"{COSTS}.json")
    audits: list[dict[str, Any]] = read_json(folder / f"{AUDITS}.json")  # type: ignore[assignment]
    body = [
        (
            audit["audit"],
            f"{audit['regions']:,}",
            f"{ratio:.2f}" if (ratio := audit.get("ratio_tokens_to_plain_forward")) else "",
            f"{audit['seconds']:,.0f}",
            f"{audit['gb']:.2f}",
            ", ".join(
                f"{stage} {seconds:,.0f}"
                for stage, seconds in sorted(audit["seconds_by_stage"].items(), key=lambda item: -item[1])[:3]
                if seconds >= 1
            ),
        )
        for audit in audits
    ]
    return "\n".join(
        [
            f"What it costs (`make bench`; {found['machine']}): the regions of an image by `tokens` "
            f"{found['ratio_tokens_to_plain_forward']:.2f} times a plain forward pass; a training step of `ravl` "
            f"{found['ratio_ravl_to_plain_training_step']:.2f} times a plain one, with the paper's loss "
            f"{found['ratio_paper_to_plain_training_step']:.2f} times; clustering and scoring {found['regions']:,} "
            f"regions {found['seconds_hdbscan_and_scoring']:.1f} s with HDBSCAN, "
            f"{found['seconds_kmedoids_and_scoring']:.1f} s with K-Medoids. Whole audits on the same machine, of "
            "models with random weights:",
            "",
            *table(
                ("model and images", "regions", "`tokens`, forward passes", "seconds", "GB", "longest stages, s"), body
            ),
        ]
    )
