"""Deleting: `purge`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ravl.cli.shared import add_command, print_json
from ravl.errors import ConfigError


def add_commands(commands: Any) -> None:
    """Their options."""
    sub = add_command(commands, purge)
    what = sub.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--run", help="delete this audit: crops, embeddings, results, fine-tuned models, logs of its jobs"
    )
    what.add_argument("--all", action="store_true", help="delete everything that ravl wrote into the workspace")
    sub.add_argument("--yes", action="store_true", help="do not ask")


def purge(options: argparse.Namespace) -> int:
    """Delete an audit, or the whole workspace, for good. Image sets and models elsewhere are never touched."""
    from ravl.store import purging

    run = options.run or ""
    found = purging.contents(options.workspace, run)
    name = found.paths[0].name if run else str(Path(options.workspace).expanduser().resolve())
    logs = _logs(Path(options.workspace), name) if run else ()
    if not options.yes:
        _confirm(found, name, run != "")
    done = purging.purge(options.workspace, run, logs)
    document = {
        "deleted": [str(path) for path in (*done.paths, *logs)],
        "files": done.n_files,
        "bytes": done.n_bytes,
        "kept": list(done.kept),
    }
    if options.json:
        print_json(document)
        return 0
    print(f"{done.n_files} files deleted ({done.n_bytes / 2**20:.1f} MiB).")
    if run:
        print("Decisions about this audit stay in the database: names and notes that people typed, and no picture.")
    elif done.kept:
        print(f"Left where they are, since ravl did not write them: {', '.join(done.kept)}.")
    return 0


def _logs(workspace: Path, run: str) -> tuple[Path, ...]:
    """Logs of the jobs that worked on a run."""
    from ravl.ledger import Ledger

    if not (workspace / "ravl.db").exists():
        return ()
    ledger = Ledger(workspace)
    logs = [workspace / "jobs" / f"{job.id}.log" for job in ledger.jobs(run=run)]
    ledger.close()
    return tuple(log for log in logs if log.exists())


def _confirm(found: Any, name: str, single: bool) -> None:
    """Ask for the name in full. Raises ConfigError when it is not given, or there is nobody to ask."""
    what = f"the audit {name}" if single else f"everything in the workspace {name}"
    print(f"This deletes {what}: {found.n_files} files, {found.n_bytes / 2**20:.1f} MiB. It cannot be undone.")
    word = name if single else "delete everything"
    if not sys.stdin.isatty():
        raise ConfigError("--yes must be given where nobody can be asked. Nothing was deleted.")
    if input(f"Type '{word}' to go on: ").strip() != word:
        raise ConfigError("nothing was deleted, since the name was not typed.")
