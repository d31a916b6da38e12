"""Making features: `feature`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ravl.cli.shared import add_command, add_reviewer, add_run, find_run, note_run, print_findings, reporting, speaks
from ravl.errors import ConfigError


def add_commands(commands: Any) -> None:
    """Their options."""
    sub = add_command(commands, feature, job=True)
    add_run(sub)
    sub.add_argument(
        "--regions", required=True, metavar="FILE|IDS", help="region ids such as 4,17,80, or a JSON file with a list"
    )
    sub.add_argument("--name", required=True, metavar="TEXT", help="what the feature shows")
    add_reviewer(sub, "who makes it")


def feature(options: argparse.Namespace) -> int:
    """Make a feature of chosen regions, and score the audit again."""
    from ravl import api

    run = find_run(options)
    note_run(options, run.id)
    regions = _region_ids(options.regions)
    with reporting(options) as report:
        run, made = api.add_feature(
            run,
            regions,
            options.name,
            options.reviewer,
            identity=options.identity,
            device=options.device,
            report=report,
        )
    if speaks() and not options.json:
        print(f"Feature {made} was made of {len(set(regions))} regions.")
    print_findings(options, run)
    return 0


def _region_ids(text: str) -> list[int]:
    """Ids from the command line or a JSON file. Raises ConfigError for anything else."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if parts and all(part.isdecimal() for part in parts):
        return [int(part) for part in parts]
    try:
        found = json.loads(Path(text).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"--regions must be region ids such as 4,17,80, or a JSON file with a list of them, but {text!r} cannot be "
            f"read: {error.strerror or error}."
        ) from error
    except ValueError as error:
        raise ConfigError(f"--regions must be a JSON list of region ids, but {text} holds something else.") from error
    if not isinstance(found, list) or not all(type(item) is int and item >= 0 for item in found):
        raise ConfigError(f"--regions must be a JSON list of region ids, but {text} holds something else.")
    return found
