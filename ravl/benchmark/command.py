"""`ravl benchmark`: the options of the command, and what it runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ravl.benchmark.settings import chosen, full, quick
from ravl.errors import ConfigError, RunError

FOLDER = "ravl-benchmark"
"""Where models, scenes and audits are kept unless another --workspace is given."""
SHIPPED = "assets/benchmark/models"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `ravl benchmark`."""
    parser.set_defaults(workspace=FOLDER)
    parser.add_argument(
        "what",
        choices=("discovery", "demo"),
        help="discovery: all methods on models whose spurious feature is known; demo: the demo's own table",
    )
    parser.add_argument("--quick", action="store_true", help="two settings whose models are shipped, within a minute")
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

        return demo.run(options.workspace, options.device)
    return _discovery(options)


def _discovery(options: argparse.Namespace) -> dict[str, Any]:
    from ravl.benchmark import discovery, report
    from ravl.store import open_workspace

    worlds = [world.strip() for world in options.worlds.split(",") if world.strip()]
    settings = chosen(quick() if options.quick else full(), worlds)
    folder = open_workspace(options.workspace)
    # the quick run measures less of a setting: its rows must not be taken for the full run's
    place = discovery.Place(folder, options.device)
    if options.quick:
        place = discovery.Place(folder / "quick", options.device, shipped_models(), spaces=("middle",))
    outcome = discovery.run(
        settings, place, jobs=options.jobs, only_train=options.only_train, fresh=options.fresh, tell=tell
    )
    document: dict[str, Any] = {"settings": len(settings), "errors": outcome.errors}
    if not options.only_train:
        out = Path(options.out).expanduser() if options.out else place.folder / "report"
        document = report.write_report(out, settings, outcome.rows, outcome.errors, outcome.commits)
        tell(f"tables in {out}")
    if outcome.errors:
        name, reason = next(iter(outcome.errors.items()))
        raise RunError(
            f"{len(outcome.errors)} of {len(settings)} settings failed, first {name}: {reason} "
            f"See {place.folder / 'errors'}; the same command tries them again."
        )
    return document


def shipped_models() -> Path:
    """The folder of the models of the quick run; one that does not exist where they are not shipped."""
    return Path(__file__).resolve().parents[2] / SHIPPED


def tell(line: str) -> None:
    """One line of progress, to stderr."""
    print(line, file=sys.stderr, flush=True)
