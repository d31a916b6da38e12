"""`ravl benchmark`: the options of the command, and what it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ravl.benchmark.settings import Setting, chosen, full, quick, repaired
from ravl.errors import ConfigError, RunError

if TYPE_CHECKING:
    from ravl.benchmark.auditing import Place

FOLDER = "ravl-benchmark"
"""Where models, scenes and audits are kept unless another --workspace is given."""
SHIPPED = "assets/benchmark/models"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `ravl benchmark`."""
    parser.set_defaults(workspace=FOLDER)
    parser.add_argument(
        "what",
        choices=("discovery", "mitigation", "demo"),
        help="discovery: all methods on models whose spurious feature is known; mitigation: all ways to repair them; "
        "demo: the demos' own tables",
    )
    parser.add_argument("--quick", action="store_true", help="the settings whose models are shipped, within a minute")
    parser.add_argument("--worlds", default="", metavar="A,B", help="only the settings of these worlds")
    parser.add_argument("--out", metavar="DIR", help="where the tables go (default: report/ in the workspace)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="settings at once (%(default)s)")
    parser.add_argument("--only-train", action="store_true", help="train the models and stop")
    parser.add_argument("--fresh", action="store_true", help="measure again what is measured; models are kept")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (%(default)s)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run what was asked for and return its document.

    The same command continues a run that was killed. Raises ConfigError for options that do not fit, and RunError at
    the end when a setting failed.
    """
    if options.jobs < 1:
        raise ConfigError(f"--jobs must be at least 1, got {options.jobs}.")
    if options.what == "demo":
        from ravl.benchmark import demo

        return demo.run(options.workspace, options.device, _worlds(options))
    return _mitigation(options) if options.what == "mitigation" else _discovery(options)


def _discovery(options: argparse.Namespace) -> dict[str, Any]:
    from ravl.benchmark import discovery, report

    settings, place = _chosen(quick() if options.quick else full(), options), _place(options)
    outcome = discovery.run(settings, place, **_how(options))
    document: dict[str, Any] = {"settings": len(settings), "errors": outcome.errors}
    if not options.only_train:
        out = _out(options, place)
        document = report.write_report(out, settings, outcome.rows, outcome.errors, outcome.commits)
        tell(f"tables in {out}")
    return _or_failed(document, outcome.errors, len(settings), place.folder / "errors")


def _mitigation(options: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict

    from ravl.benchmark import arms, mitigation, repair_report
    from ravl.benchmark.repairs import Repair
    from ravl.benchmark.rows import record_from

    settings, place = _chosen(quick()[:1] if options.quick else repaired(), options), _place(options)
    plan = mitigation.Plan(place)
    if options.quick:
        plan = mitigation.Plan(place, mitigation.QUICK, arms.QUICK)
    outcome = mitigation.run(settings, plan, **_how(options))
    document: dict[str, Any] = {"settings": len(settings), "errors": outcome.errors}
    if not options.only_train:
        out, rows = _out(options, place), [record_from(row, Repair) for row in outcome.rows]
        how = asdict(plan.protocol)
        document = repair_report.write_report(out, settings, rows, outcome.errors, outcome.commits, how)
        tell(f"tables in {out}")
    return _or_failed(document, outcome.errors, len(settings), plan.folder / "errors")


def _chosen(settings: Sequence[Setting], options: argparse.Namespace) -> tuple[Setting, ...]:
    return chosen(settings, _worlds(options))


def _worlds(options: argparse.Namespace) -> list[str]:
    return [world.strip() for world in options.worlds.split(",") if world.strip()]


def _place(options: argparse.Namespace) -> Place:
    from ravl.benchmark.auditing import Place
    from ravl.store import open_workspace

    folder = open_workspace(options.workspace)
    # the quick run measures less of a setting: its rows must not be taken for the full run's
    if options.quick:
        return Place(folder / "quick", options.device, shipped_models(), spaces=("auto",))
    return Place(folder, options.device)


def _how(options: argparse.Namespace) -> dict[str, Any]:
    return {"jobs": options.jobs, "only_train": options.only_train, "fresh": options.fresh, "tell": tell}


def _out(options: argparse.Namespace, place: Place) -> Path:
    return Path(options.out).expanduser() if options.out else place.folder / "report"


def _or_failed(document: dict[str, Any], errors: dict[str, str], n: int, where: Path) -> dict[str, Any]:
    """The document. Raises RunError when a setting failed."""
    if errors:
        name, reason = next(iter(errors.items()))
        raise RunError(
            f"{len(errors)} of {n} settings failed, first {name}: {reason} "
            f"See {where}; the same command tries them again."
        )
    return document


def shipped_models() -> Path:
    """The folder of the models of the quick run; one that does not exist where they are not shipped."""
    return Path(__file__).resolve().parents[2] / SHIPPED


def tell(line: str) -> None:
    """One line of progress, to stderr."""
    print(line, file=sys.stderr, flush=True)
