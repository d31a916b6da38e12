"""Repairing: `mitigate`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from ravl.cli.shared import (
    add_choice,
    add_command,
    add_number,
    add_run,
    feature_ids,
    find_run,
    help_of,
    note_run,
    print_json,
    reporting,
    speaks,
)
from ravl.config import MitigationConfig

if TYPE_CHECKING:
    from ravl.tables import Report, Step

SHOWN_CLASSES = 20
"""Classes in the text; of more, those that changed most."""


def add_commands(commands: Any) -> None:
    """Their options."""
    sub = add_command(commands, mitigate, job=True)
    add_run(sub)
    sub.add_argument("--images", required=True, metavar="TRAIN", help="training images: folder or manifest")
    sub.add_argument("--test", metavar="TEST", help="held-out images for the comparison")
    sub.add_argument("--features", metavar="IDS", help="feature ids, such as 0,3 (default: those confirmed)")
    add_choice(sub, "--method", MitigationConfig, "method")
    sub.epilog = "On several GPUs: accelerate launch --num_processes 4 -m ravl mitigate ..., with the same options."
    for flag, field in (("--steps", "steps"), ("--batch-size", "batch_size"), ("--micro-batch", "micro_batch")):
        add_number(sub, flag, MitigationConfig, field, int)
    for flag, field in (("--patience", "patience"), ("--lora-rank", "lora_rank")):
        add_number(sub, flag, MitigationConfig, field, int)
    for flag, field in (("--lr", "lr"), ("--region-share", "region_share")):
        add_number(sub, flag, MitigationConfig, field, float)
    add_choice(sub, "--families", MitigationConfig, "families")
    add_choice(sub, "--precision", MitigationConfig, "precision")
    text = help_of(MitigationConfig, "gradient_checkpointing")
    sub.add_argument("--gradient-checkpointing", action="store_true", help=text)
    sub.add_argument("--seed", type=int, default=0, help=help_of(MitigationConfig, "seed"))
    sub.add_argument(
        "--no-reaudit", action="store_true", help="do not audit the tuned model; the same command without it still can"
    )
    sub.add_argument("--name", help="what the result is called (default: method and digest of the settings)")


def mitigate(options: argparse.Namespace) -> int:
    """Fine-tune the audited model away from its confirmed spurious features, and compare."""
    from ravl import api

    run = find_run(options)
    note_run(options, run.id)
    features = None if options.features is None else feature_ids(options.features)
    with reporting(options) as report:
        result = api.mitigate(
            run,
            options.images,
            test=options.test,
            features=features,
            method=options.method,
            steps=options.steps,
            batch_size=options.batch_size,
            lr=options.lr,
            families=options.families,
            patience=options.patience,
            micro_batch=options.micro_batch,
            precision=options.precision,
            region_share=options.region_share,
            gradient_checkpointing=options.gradient_checkpointing,
            lora_rank=options.lora_rank,
            seed=options.seed,
            name=options.name,
            reaudit=not options.no_reaudit,
            device=options.device,
            report=_telling_memory(report),
        )
    if not result:  # another process than the first
        return 0
    if options.json:
        print_json(result)
    else:
        print(_comparison_text(result))
    return 0


def _telling_memory(report: Report) -> Report:
    """Also print what a training will need, once, before it starts."""

    def tell(step: Step) -> None:
        if "memory_gb" in step.facts and speaks():
            needed, free = step.facts["memory_gb"], step.facts["memory_free_gb"]
            print(f"a step needs about {needed:.2g} GB of memory, {free:.2g} GB are free", file=sys.stderr)
        report(step)

    return tell


def _comparison_text(result: dict[str, Any]) -> str:
    def percent(value: float | None) -> str:
        return "  n/a" if value is None else f"{100 * value:5.1f}"

    before, after = result["before"], result["after"]
    worse = [row for row in result["changes"] if row["kind"] == "group" and (row["change"] or 0) < 0]
    lines = [""]
    for row in worse[:5]:
        low, high = (percent(limit).strip() for limit in row["interval"])
        old, new = (percent(row[when]["rate"]).strip() for when in ("before", "after"))
        lines.append(f"got worse: {row['name']}, {old} -> {new} % of {row['n']} (change {low} to {high}, level 95 %)")
    lines += [] if worse else ["no group got worse"]
    lines.append(f"{'':<28}{'before':>8}{'after':>8}   images")
    n = sum(entry["n"] for entry in after["per_class"].values())
    lines.append(f"{'overall':<28}{percent(before['overall']):>8}{percent(after['overall']):>8}   {n}")
    for when, groups in (("before", before), ("after", after)):
        worst = groups["worst_group"]
        if worst is not None:
            lines.append(f"worst group {when}: {worst['name']}, {percent(worst['accuracy']).strip()} % of {worst['n']}")
    rows = [(name, before["per_class"][name], row) for name, row in after["per_class"].items()]
    if len(rows) > SHOWN_CLASSES:
        rows.sort(key=lambda row: -abs((row[2]["accuracy"] or 0) - (row[1]["accuracy"] or 0)))
    for name, old, new in rows[:SHOWN_CLASSES]:
        lines.append(f"{name:<28}{percent(old['accuracy']):>8}{percent(new['accuracy']):>8}   {new['n']}")
    if (more := len(rows) - SHOWN_CLASSES) > 0:
        lines.append(f"and {more} more classes, which changed less (--json lists all)")
    for feature in result["features"]:
        fixed, broken = (f"{feature[part]['count']} of {feature[part]['n']}" for part in ("fixed", "broken"))
        name = feature["name"] or f"feature {feature['feature']}"
        lines.append(f"where {name} shows: {fixed} errors fixed, {broken} right answers lost")
    changed = result["images"]
    lines.append(f"images: {changed['became_right']} became right, {changed['became_wrong']} became wrong")
    lines += _reaudit_lines(result.get("reaudit"))
    named = result.get("labels")
    if named and named["count"] < named["n"]:
        lines.append(
            f"captions name one class in {named['count']} of {named['n']} training images; the others take part in the "
            "contrastive loss alone"
        )
    lines.append(f"tuned model: {result['model']}")
    return "\n".join(lines)


def _reaudit_lines(part: dict[str, Any] | None) -> list[str]:
    """What the audit of the tuned model found, what grew first."""
    if part is None:
        return ["the tuned model was not audited; the same command without --no-reaudit does it"]
    from ravl.mitigation.rematch import identity, tally, told

    lines = [f"audit of the tuned model: {part['run']}"]
    for why, row in told(part["features"]):
        name, pull = identity(row)
        flag = ", flagged now" if row["flagged"]["after"] and why != "still flagged" else ""
        errors = row["errors"]
        counts = f"{errors['before']['count']} -> {errors['after']['count']} of {errors['n']} images"
        pulls = f", pulls to {pull}" if pull else ""
        lines.append(f"{why}: {name}{pulls}{flag}; errors decided there: {counts}")
    if not any(row["worse"] for row in part["features"]):
        lines.append(
            "no feature grew beyond chance; that does not prove that no shortcut grew (see the README's limits)"
        )
    return [*lines, f"features of both audits: {tally(part['features'])}"]
