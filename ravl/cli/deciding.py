"""Deciding and handing over: `verdict`, `export`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ravl.cli.shared import add_command, add_run, find_run, print_json
from ravl.config import DECISIONS
from ravl.errors import ConfigError


def add_commands(commands: Any) -> None:
    """Their options."""
    sub = add_command(commands, verdict)
    add_run(sub)
    sub.add_argument("--feature", required=True, type=int, metavar="ID", help="feature id")
    sub.add_argument("--decision", required=True, choices=DECISIONS)
    sub.add_argument("--reviewer", required=True, metavar="NAME", help="who decides")
    sub.add_argument("--name", default="", metavar="TEXT", help="what the feature shows")
    sub.add_argument("--note", default="", metavar="TEXT", help="why")

    sub = add_command(commands, export)
    add_run(sub)
    sub.add_argument("--format", choices=("json", "csv"), default="json")
    sub.add_argument("--out", required=True, metavar="FILE")


def verdict(options: argparse.Namespace) -> int:
    """Record a person's decision about one feature."""
    from ravl.discovery.scoring import pull_class_name
    from ravl.ledger import Ledger, seen_digest

    run = find_run(options)
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
        print_json(vars(stored))
    else:
        print(
            f"Recorded: feature {stored.feature} of {run.id} is {stored.decision}, by {stored.reviewer} at {stored.at}."
        )
    return 0


def export(options: argparse.Namespace) -> int:
    """Write the confirmed spurious features to a file."""
    from ravl import export as exporting
    from ravl.ledger import Ledger

    run = find_run(options)
    ledger = Ledger(run.path.parents[1])
    document = exporting.confirmed(run, ledger)
    ledger.close()
    out = Path(options.out).expanduser()
    exporting.write(document, options.format, out)
    if options.json:
        print_json({"run": run.id, "features": len(document["features"]), "out": str(out.resolve())})
    else:
        print(f"{len(document['features'])} confirmed features written to {out}.")
    return 0
