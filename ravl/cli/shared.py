"""What the commands share: arguments read, progress told, results printed."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ravl.api import WORKSPACE
from ravl.config import AuditConfig, PromptsConfig
from ravl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ravl.store import AuditRun
    from ravl.tables import Report

Command = Callable[[argparse.Namespace], int]


def add_command(
    commands: Any, function: Command, *, json_too: bool = True, job: bool = False, model: bool = True
) -> Any:
    """A sub-command named after its function, with the options that every command has. Returns its parser.

    commands: what `add_subparsers` returned. job: it can run as a job of the dashboard. model: such a job has a model,
    which runs on a device.
    """
    text = (function.__doc__ or "").strip()
    sub = commands.add_parser(function.__name__.rstrip("_"), help=text, description=text)  # `import_` is `import`
    sub.set_defaults(command=function, job=None, json=False)
    sub.add_argument("--workspace", default=WORKSPACE, metavar="DIR", help=f"where audits are kept ({WORKSPACE})")
    if json_too:
        sub.add_argument("--json", action="store_true", help="print one JSON document")
    if job:
        sub.add_argument("--job", type=int, help=argparse.SUPPRESS)
    if job and model:
        sub.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (%(default)s)")
    return sub


def add_run(sub: Any) -> None:
    """The option that names an audit."""
    sub.add_argument("--run", required=True, help="a run's id, or its beginning")


def add_reviewer(sub: Any, what: str) -> None:
    """`--reviewer`; and how that is known, which the dashboard passes on to its jobs and nobody else has to give."""
    sub.add_argument("--reviewer", required=True, metavar="NAME", help=what)
    sub.add_argument("--identity", default="self-declared", help=argparse.SUPPRESS)


def add_images(sub: Any, required: bool = True) -> None:
    """The options that say which images are read, and how."""
    sub.add_argument(
        "--images",
        required=required,
        metavar="SET",
        help="folder class/image, manifest (CSV, Parquet) or COCO file; SET@val for one split",
    )
    sub.add_argument(
        "--classes",
        metavar="A,B,C",
        help=help_of(PromptsConfig, "classes") + "; synonyms for captions: 'A|other word,B'",
    )
    add_choice(sub, "--frames", AuditConfig, "frames")
    sub.add_argument("--hide-names", action="store_true", help=help_of(AuditConfig, "hide_names"))


def add_choice(sub: Any, flag: str, config: type[Any], field: str) -> None:
    """An option whose values and default are those of a configuration field."""
    item = config.__dataclass_fields__[field]
    sub.add_argument(flag, choices=item.metadata["choices"], default=item.default, help=help_of(config, field))


def add_number(sub: Any, flag: str, config: type[Any], field: str, kind: type) -> None:
    """An option with a number whose default is that of a configuration field."""
    default = config.__dataclass_fields__[field].default
    sub.add_argument(flag, type=kind, default=default, help=help_of(config, field))


def help_of(config: type[Any], name: str) -> str:
    """The help text of a configuration field, as argparse wants it."""
    return next(str(item.metadata["help"]) for item in fields(config) if item.name == name).replace("%", "%%")


@contextmanager
def reporting(options: argparse.Namespace) -> Iterator[Report]:
    from ravl import progress

    if not speaks():
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


def speaks() -> bool:
    """Whether this is the first, or only, process: of those that accelerate launch starts, one speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def note_run(options: argparse.Namespace, run: str) -> None:
    if options.job is not None:
        from ravl.ledger import Ledger

        Ledger(Path(options.workspace)).update_job(options.job, run=run)


def find_run(options: argparse.Namespace) -> AuditRun:
    from ravl.store import AuditRun

    return AuditRun.find(WORKSPACE if options.workspace is None else options.workspace, options.run)


def print_findings(options: argparse.Namespace, run: AuditRun) -> None:
    from ravl.summary import findings, findings_text

    document = findings(run)
    if options.json:
        print_json(document)
    else:
        print(findings_text(document))


def print_json(document: Any) -> None:
    print(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))


def names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",")) if text else ()


def feature_ids(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdigit() for part in parts):
        raise ConfigError(f"features must be ids separated by commas, such as 0,3, got {text!r}.")
    return [int(part) for part in parts]
