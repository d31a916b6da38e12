"""Deciding and handing over: `verdict`, `export`, `import`, `report`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ravl.cli.shared import add_command, add_run, find_run, print_json
from ravl.config import DECISIONS
from ravl.errors import ConfigError

if TYPE_CHECKING:
    from ravl.importing import Found, Imported

FORMATS = ("json", "csv", "coco", "groups", "artifacts", "card", "log")
"""Those of `ravl.export`, which is not loaded to print a help text."""

OVERLAP = 0.5
"""That of `ravl.importing`."""


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
    sub.set_defaults(workspace=None)  # with --check, a workspace that is named is one to compare with
    sub.add_argument("--run", help="a run's id, or its beginning")
    sub.add_argument("--format", choices=FORMATS, default="json")
    sub.add_argument("--out", metavar="FILE")
    sub.add_argument(
        "--check",
        metavar="FILE",
        help="check an exported list or log instead: its schema, references and digests; with --run or --workspace "
        "given, also that the record still holds what the file speaks of",
    )

    sub = add_command(commands, import_)
    add_run(sub)
    sub.add_argument("file", metavar="FILE", help="confirmed list of another run (ravl export --format json)")
    sub.add_argument("--reviewer", required=True, metavar="NAME", help="who takes the decisions over")
    sub.add_argument(
        "--overlap",
        type=float,
        default=OVERLAP,
        metavar="SHARE",
        help="two features are the same from this share of common regions on (%(default)s)",
    )

    sub = add_command(commands, report)
    add_run(sub)
    sub.add_argument("--out", required=True, metavar="FILE", help="an HTML file")


def verdict(options: argparse.Namespace) -> int:
    """Record a person's decision about one feature."""
    from ravl.discovery.scoring import pull_class_name
    from ravl.ledger import Ledger, seen_digest

    run = find_run(options)
    scores = run.features()
    if options.feature not in scores.existing:
        raise ConfigError(
            f"--feature must be one of the {len(scores.existing)} features of {run.id}, got {options.feature}. "
            "ravl show lists them."
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
    """Write what people decided to a file, or check such a file."""
    if options.check is not None:
        return _check(options)
    if options.run is None or options.out is None:
        raise ConfigError("--run and --out must be given, or --check. Say what to export, and where to.")
    from ravl import export as exporting
    from ravl.ledger import Ledger

    run = find_run(options)
    ledger = Ledger(run.path.parents[1])
    text = exporting.text(run, ledger, options.format)
    confirmed, gone = exporting.features(run, ledger, options.format)
    ledger.close()
    out = Path(options.out).expanduser()
    exporting.write(text, out)
    if options.json:
        counts = {"features": confirmed, "left_out": gone}
        print_json({"run": run.id, "format": options.format, **counts, "out": str(out.resolve())})
    elif options.format == "log":
        print(f"The audit log of {run.id} written to {out}.")
    else:
        left = f" {gone} more left out: a merge or a split retired what was decided on. Decide anew." if gone else ""
        print(f"{confirmed} confirmed feature{'' if confirmed == 1 else 's'} written to {out}.{left}")
    return 0


def _check(options: argparse.Namespace) -> int:
    """Exit code 2 for a file that is not what it says it is."""
    from ravl.export.check import load, problems
    from ravl.ledger import Ledger

    path = Path(options.check).expanduser()
    document = load(path)
    workspace = _compared(options)
    ledger = None if workspace is None else Ledger(workspace)
    found = problems(document, ledger)
    if ledger is not None:
        ledger.close()
    if options.json:
        listed = [{"path": problem.path, "problem": problem.sentence} for problem in found]
        print_json({"file": str(path), "valid": not found, "problems": listed})
    elif found:
        for problem in found:
            print(f"{problem.path} {problem.sentence}")
    else:
        print(f"{path} is valid: {document['schema']}, version {document['schema_version']}.")
    return 2 if found else 0


def _compared(options: argparse.Namespace) -> Path | None:
    """The workspace whose record a file is compared with: that of --run, or --workspace; None where neither is given.

    Raises ConfigError for a workspace without a record, which would be made, and hold nothing.
    """
    if options.run is not None:
        return find_run(options).path.parents[1]
    if options.workspace is None:
        return None
    workspace = Path(options.workspace).expanduser()
    if not (workspace / "ravl.db").is_file():
        raise ConfigError(
            f"--workspace must be a folder with the record ravl.db, but {workspace} has none. Leave the option out to "
            "check the file alone."
        )
    return workspace


def import_(options: argparse.Namespace) -> int:
    """Take over what people confirmed in another run, where the same regions are found; to be reviewed again."""
    from ravl.export.check import confirmed_list, load
    from ravl.importing import take_over
    from ravl.ledger import Ledger

    run = find_run(options)
    path = Path(options.file).expanduser()
    document = confirmed_list(load(path), str(path))
    ledger = Ledger(run.path.parents[1])
    imported = take_over(document, run, ledger, options.reviewer, options.overlap)
    ledger.close()
    if options.json:
        listed = [{**vars(entry), "overlap": round(entry.overlap, 6)} for entry in imported.found]
        counts = {"common_images": imported.common, "images": imported.images}
        print_json({"run": run.id, "from": imported.source, "least": options.overlap, **counts, "features": listed})
    else:
        print(_told(imported, options.overlap))
    return 0


_OUTCOMES = {
    "taken over": "taken over as {match}, to be reviewed again",
    "decided before": "is {match}, which a person called {decision} before; that stands",
    "different": "nothing here shares enough of its regions; the nearest is {match}",
    "none": "no region here is one of its regions",
}


def _told(imported: Imported, least: float) -> str:
    """What became of every feature, for the terminal."""
    taken = sum(entry.outcome == "taken over" for entry in imported.found)
    lines = [
        f"{taken} of {len(imported.found)} features of {imported.source} taken over "
        f"({imported.common} of {imported.images} images are in both; features are the same from an overlap of "
        f"{least:g} on)"
    ]
    return "\n".join([*lines, *map(_line, imported.found)])


def _line(entry: Found) -> str:
    said = _OUTCOMES[entry.outcome].format(match=f"feature {entry.match}", decision=entry.decision)
    counts = f"{entry.shared} common regions of {entry.regions} there and {entry.others} here"
    counted = f" (overlap {entry.overlap:.2f}: {counts})" if entry.match is not None else ""
    return f"{entry.feature:>8}  {entry.name}: {said}{counted}"


def report(options: argparse.Namespace) -> int:
    """Write one HTML file that tells the whole audit, with its pictures inside."""
    from dashboard.reporting import report_text
    from ravl import export as exporting
    from ravl.ledger import Ledger

    run = find_run(options)
    ledger = Ledger(run.path.parents[1])
    text = report_text(run, ledger)
    ledger.close()
    out = Path(options.out).expanduser()
    exporting.write(text, out)
    if options.json:
        print_json({"run": run.id, "bytes": len(text.encode()), "out": str(out.resolve())})
    else:
        print(f"The report of {run.id} written to {out} ({len(text.encode()) / 2**20:.1f} MB).")
    return 0
