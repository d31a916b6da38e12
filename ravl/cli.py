"""The `ravl` command: one function per sub-command. Exit code 0 done, 2 bad input, 1 failure.

With `--json` one document goes to stdout and nothing else; progress and errors go to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ravl import __version__
from ravl.api import WORKSPACE
from ravl.benchmark.command import add_options as benchmark_options
from ravl.config import (
    DECISIONS,
    AuditConfig,
    ClusteringConfig,
    EmbeddingConfig,
    EvidenceConfig,
    MitigationConfig,
    PromptsConfig,
    RegionsConfig,
    SignificanceConfig,
)
from ravl.errors import ConfigError, RavlError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ravl.store import AuditRun
    from ravl.tables import Report, Step


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except RavlError as error:
        print(f"ravl: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("ravl: interrupted; the same command continues.", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1


def entry() -> None:
    """The installed command: what nobody foresaw is told in a sentence too (exit code 1), not as a traceback."""
    if not os.environ.get("RAVL_TRACEBACK"):
        sys.excepthook = _tell
    sys.exit(main())


def _tell(kind: type[BaseException], error: BaseException, trace: object) -> None:
    reason = f"{kind.__name__}: {error}".splitlines()[0]
    print(f"ravl: failed with {reason}. This is a fault of ravl; RAVL_TRACEBACK=1 shows where.", file=sys.stderr)


# --- commands ----------------------------------------------------------------------------------------------------


def discover(options: argparse.Namespace) -> int:
    """Find what a model cheats on."""
    from ravl import api

    with _reporting(options) as report:
        run = api.discover(
            options.images,
            options.model,
            classes=_names(options.classes),
            templates=options.template or PromptsConfig().templates,
            tau=options.tau,
            regions=options.regions,
            encoder=options.encoder,
            clustering=options.clustering,
            cluster_on=options.cluster_on,
            rule=options.rule,
            split_half=options.split_half,
            seed=options.seed,
            device=options.device,
            workspace=options.workspace,
            name=options.name,
            report=report,
        )
        _note_run(options, run.id)
    _show(options, run)
    return 0


def show(options: argparse.Namespace) -> int:
    """Print the findings of a finished audit again."""
    _show(options, _run(options))
    return 0


def verdict(options: argparse.Namespace) -> int:
    """Record a person's decision about one feature."""
    from ravl.discovery.scoring import pull_class_name
    from ravl.ledger import Ledger, seen_digest

    run = _run(options)
    scores = run.features()
    if options.feature not in scores.feature:
        raise ConfigError(
            f"--feature must be one of the {len(scores)} features of {run.id} (0 .. {len(scores) - 1}), "
            f"got {options.feature}. ravl show lists them."
        )
    seen = seen_digest((run.feature_label() == options.feature).nonzero()[0])
    pull = pull_class_name(scores, options.feature, run.images().class_names)
    ledger = Ledger(run.path.parents[1])
    stored = ledger.add_verdict(
        run.id, options.feature, pull, options.decision, options.reviewer, seen, options.name, options.note
    )
    ledger.close()
    if options.json:
        _print_json(vars(stored))
    else:
        print(
            f"Recorded: feature {stored.feature} of {run.id} is {stored.decision}, by {stored.reviewer} at {stored.at}."
        )
    return 0


def regroup(options: argparse.Namespace) -> int:
    """Merge features that show the same thing, or split one into its clusters, and score again."""
    from ravl import api

    run = _run(options)
    _note_run(options, run.id)
    kind, text = ("merge", options.merge) if options.merge else ("split", options.split)
    with _reporting(options) as report:
        run = api.regroup(
            run, kind, _feature_ids(text), options.reviewer, note=options.note, device=options.device, report=report
        )
    _show(options, run)
    return 0


def export(options: argparse.Namespace) -> int:
    """Write the confirmed spurious features to a file."""
    from ravl import export as exporting
    from ravl.ledger import Ledger

    run = _run(options)
    ledger = Ledger(run.path.parents[1])
    document = exporting.confirmed(run, ledger)
    ledger.close()
    out = Path(options.out).expanduser()
    exporting.write(document, options.format, out)
    if options.json:
        _print_json({"run": run.id, "features": len(document["features"]), "out": str(out.resolve())})
    else:
        print(f"{len(document['features'])} confirmed features written to {out}.")
    return 0


def mitigate(options: argparse.Namespace) -> int:
    """Fine-tune the audited model away from its confirmed spurious features, and compare."""
    from ravl import api

    run = _run(options)
    _note_run(options, run.id)
    features = None if options.features is None else _feature_ids(options.features)
    with _reporting(options) as report:
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
            lora_rank=options.lora_rank,
            seed=options.seed,
            name=options.name,
            device=options.device,
            report=_telling_memory(report),
        )
    if not result:  # another process than the first
        return 0
    if options.json:
        _print_json(result)
    else:
        print(_comparison_text(result))
    return 0


def demo(options: argparse.Namespace) -> int:
    """Audit the built-in demo and open the dashboard with it."""
    from ravl import api
    from ravl.planted.digits import CLASSES, write_demo
    from ravl.store import open_workspace
    from ravl.tables import Step

    if not options.audit_only:
        _check_port(options.host, options.port)
    workspace = open_workspace(options.workspace)
    with _reporting(options) as report:
        report(Step("data", 0, 1))
        data = write_demo(workspace / "demo-data")
        report(Step("data", 1, 1))
        run = api.discover(data / "val", "demo", classes=CLASSES, workspace=workspace, name="demo", report=report)
        _note_run(options, run.id)
    if options.audit_only:
        _show(options, run)
        return 0
    return _serve(options, workspace)


def benchmark(options: argparse.Namespace) -> int:
    """Measure methods of discovery on models whose spurious feature is known."""
    from ravl.benchmark.command import run

    document = run(options)
    if options.json:
        _print_json(document)
    return 0


def app(options: argparse.Namespace) -> int:
    """Open the dashboard of a workspace."""
    from ravl.store import open_workspace

    _check_port(options.host, options.port)
    return _serve(options, open_workspace(options.workspace))


def doctor(options: argparse.Namespace) -> int:
    """Check this machine: versions, device, memory, port, workspace."""
    from ravl.doctor import examine

    checks = examine(options.workspace, options.host, options.port)
    if options.json:
        _print_json({check.name: {"ok": check.ok, "found": check.found, "advice": check.advice} for check in checks})
    else:
        for check in checks:
            print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<12} {check.found}")
            if not check.ok:
                print(f"      {'':<12} {check.advice}")
    return 0 if all(check.ok for check in checks) else 1


# --- shared steps ------------------------------------------------------------------------------------------------


@contextmanager
def _reporting(options: argparse.Namespace) -> Iterator[Report]:
    from ravl import progress

    if not _speaks():
        yield lambda step: None
        return
    if options.job is None:
        with progress.terminal() as report:
            yield report
        return
    from ravl.ledger import Ledger

    ledger = Ledger(Path(options.workspace))
    try:
        with progress.job_row(ledger, options.job) as report:
            yield report
    except progress.Cancelled:
        raise KeyboardInterrupt from None


def _speaks() -> bool:
    """Whether this is the first, or only, process: of those that accelerate launch starts, one speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def _telling_memory(report: Report) -> Report:
    """Also print what a training will need, once, before it starts."""

    def tell(step: Step) -> None:
        if "memory_gb" in step.facts and _speaks():
            needed, free = step.facts["memory_gb"], step.facts["memory_free_gb"]
            print(f"a step needs about {needed:.2g} GB of memory, {free:.2g} GB are free", file=sys.stderr)
        report(step)

    return tell


def _note_run(options: argparse.Namespace, run: str) -> None:
    if options.job is not None:
        from ravl.ledger import Ledger

        Ledger(Path(options.workspace)).update_job(options.job, run=run)


def _run(options: argparse.Namespace) -> AuditRun:
    from ravl.store import AuditRun

    return AuditRun.find(options.workspace, options.run)


def _show(options: argparse.Namespace, run: AuditRun) -> None:
    from ravl.summary import findings, findings_text

    document = findings(run)
    if options.json:
        _print_json(document)
    else:
        print(findings_text(document))


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",")) if text else ()


def _feature_ids(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdigit() for part in parts):
        raise ConfigError(f"features must be ids separated by commas, such as 0,3, got {text!r}.")
    return [int(part) for part in parts]


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
    for name in after["per_class"]:
        old, new = before["per_class"][name], after["per_class"][name]
        lines.append(f"{name:<28}{percent(old['accuracy']):>8}{percent(new['accuracy']):>8}   {new['n']}")
    for feature in result["features"]:
        fixed, broken = (f"{feature[part]['count']} of {feature[part]['n']}" for part in ("fixed", "broken"))
        name = feature["name"] or f"feature {feature['feature']}"
        lines.append(f"where {name} shows: {fixed} errors fixed, {broken} right answers lost")
    changed = result["images"]
    lines.append(f"images: {changed['became_right']} became right, {changed['became_wrong']} became wrong")
    lines.append(f"tuned model: {result['model']}")
    return "\n".join(lines)


def _check_port(host: str, port: int) -> None:
    from ravl.doctor import loopback, port_problem

    if not loopback(host):
        print(f"ravl: {host} can be reached from other machines; there is no login.", file=sys.stderr)
    if problem := port_problem(host, port):
        raise ConfigError(problem)


def _serve(options: argparse.Namespace, workspace: Path) -> int:
    from ravl.serve import serve

    return serve(workspace, options.host, options.port, open_browser=not options.no_browser)


# --- options -----------------------------------------------------------------------------------------------------


def _help(config: type[Any], name: str) -> str:
    from dataclasses import fields

    return next(str(item.metadata["help"]) for item in fields(config) if item.name == name).replace("%", "%%")


_REGIONS = (
    "grid:K for K x K cells (2: the paper's quadrants), grid:2+4 for several grids, grid:3@0.5 for cells that overlap "
    "by half, slic:N for N superpixels, boxes for those of the manifest, boxes:FILE.json for a COCO file (%(default)s)"
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ravl", description="Find, confirm and repair the spurious features a vision-language model relies on."
    )
    parser.add_argument("--version", action="version", version=f"ravl-dashboard {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(function: Callable[[argparse.Namespace], int], *, json_too: bool = True, job: bool = False) -> Any:
        text = (function.__doc__ or "").strip()
        sub = commands.add_parser(function.__name__, help=text, description=text)
        sub.set_defaults(command=function, job=None, json=False)
        sub.add_argument("--workspace", default=WORKSPACE, metavar="DIR", help="where audits are kept (%(default)s)")
        if json_too:
            sub.add_argument("--json", action="store_true", help="print one JSON document")
        if job:
            sub.add_argument("--job", type=int, help=argparse.SUPPRESS)
            sub.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (%(default)s)")
        return sub

    def choice(sub: Any, flag: str, config: type[Any], field: str) -> None:
        item = config.__dataclass_fields__[field]
        sub.add_argument(flag, choices=item.metadata["choices"], default=item.default, help=_help(config, field))

    sub = add(discover, job=True)
    sub.add_argument("--images", required=True, metavar="PATH", help="folder class/image, or a manifest (CSV, Parquet)")
    sub.add_argument("--model", required=True, metavar="REF", help="save_pretrained directory, hub id, or 'demo'")
    sub.add_argument("--classes", metavar="A,B,C", help=_help(PromptsConfig, "classes"))
    sub.add_argument(
        "--template", action="append", metavar="TEXT", help="prompt with {} for the class; may be repeated"
    )
    sub.add_argument("--tau", type=_tau, default=PromptsConfig().tau, help=_help(PromptsConfig, "tau"))
    sub.add_argument("--regions", default=str(RegionsConfig()), metavar="HOW", help=_REGIONS)
    choice(sub, "--encoder", EmbeddingConfig, "encoder")
    choice(sub, "--clustering", ClusteringConfig, "method")
    choice(sub, "--cluster-on", ClusteringConfig, "cluster_on")
    choice(sub, "--rule", EvidenceConfig, "rule")
    sub.add_argument("--split-half", action="store_true", help=_help(SignificanceConfig, "split_half"))
    sub.add_argument("--seed", type=int, default=0, help=_help(AuditConfig, "seed"))
    sub.add_argument("--name", default="audit", help="what the run's folder is called first (%(default)s)")

    sub = add(show)
    sub.add_argument("--run", required=True, help="a run's id, or its beginning")

    sub = add(verdict)
    sub.add_argument("--run", required=True, help="a run's id, or its beginning")
    sub.add_argument("--feature", required=True, type=int, metavar="ID", help="feature id")
    sub.add_argument("--decision", required=True, choices=DECISIONS)
    sub.add_argument("--reviewer", required=True, metavar="NAME", help="who decides")
    sub.add_argument("--name", default="", metavar="TEXT", help="what the feature shows")
    sub.add_argument("--note", default="", metavar="TEXT", help="why")

    sub = add(regroup, job=True)
    sub.add_argument("--run", required=True, help="a run's id, or its beginning")
    what = sub.add_mutually_exclusive_group(required=True)
    what.add_argument("--merge", metavar="IDS", help="features to join to one, such as 1,4")
    what.add_argument("--split", metavar="ID", help="feature to take apart into its clusters")
    sub.add_argument("--reviewer", required=True, metavar="NAME", help="who decides")
    sub.add_argument("--note", default="", metavar="TEXT", help="why")

    sub = add(export)
    sub.add_argument("--run", required=True, help="a run's id, or its beginning")
    sub.add_argument("--format", choices=("json", "csv"), default="json")
    sub.add_argument("--out", required=True, metavar="FILE")

    sub = add(mitigate, job=True)
    sub.add_argument("--run", required=True, help="a run's id, or its beginning")
    sub.add_argument("--images", required=True, metavar="TRAIN", help="training images: folder or manifest")
    sub.add_argument("--test", metavar="TEST", help="held-out images for the comparison")
    sub.add_argument("--features", metavar="IDS", help="feature ids, such as 0,3 (default: those confirmed)")
    choice(sub, "--method", MitigationConfig, "method")
    sub.epilog = "On several GPUs: accelerate launch --num_processes 4 -m ravl mitigate ..., with the same options."
    numbers: tuple[tuple[str, str, type], ...] = (
        ("--steps", "steps", int),
        ("--batch-size", "batch_size", int),
        ("--lr", "lr", float),
    )
    numbers += (("--micro-batch", "micro_batch", int), ("--patience", "patience", int))
    numbers += (("--region-share", "region_share", float), ("--lora-rank", "lora_rank", int))
    for flag, field, kind in numbers:
        default = MitigationConfig.__dataclass_fields__[field].default
        sub.add_argument(flag, type=kind, default=default, help=_help(MitigationConfig, field))
    choice(sub, "--families", MitigationConfig, "families")
    choice(sub, "--precision", MitigationConfig, "precision")
    sub.add_argument("--seed", type=int, default=0, help=_help(MitigationConfig, "seed"))
    sub.add_argument("--name", help="what the result is called (default: method and digest of the settings)")

    benchmark_options(add(benchmark))

    for function, json_too in ((demo, True), (app, False), (doctor, True)):
        sub = add(function, json_too=json_too, job=function is demo)
        sub.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
        sub.add_argument("--port", type=int, default=8501, help="port to listen on (%(default)s)")
        if function is not doctor:
            sub.add_argument("--no-browser", action="store_true", help="do not open a browser window")
        if function is demo:
            sub.add_argument("--audit-only", action="store_true", help="print the findings and stop")
    return parser


def _tau(text: str) -> float | str:
    return text if text == "model" else float(text)
