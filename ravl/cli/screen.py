"""The screen and the machine: `demo`, `app`, `doctor`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ravl.cli.shared import add_command, note_run, print_findings, print_json, reporting
from ravl.errors import ConfigError
from ravl.planted.demos import DEMOS

ACCEPTED = "--accept-no-login"
"""The option without which only this machine can reach the dashboard."""


def add_commands(commands: Any) -> None:
    """Their options."""
    for function, json_too in ((demo, True), (app, False), (doctor, True)):
        sub = add_command(commands, function, json_too=json_too, job=function is demo)
        sub.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
        sub.add_argument("--port", type=int, default=8501, help="port to listen on (%(default)s)")
        if function is not doctor:
            sub.add_argument("--no-browser", action="store_true", help="do not open a browser window")
            sub.add_argument(
                ACCEPTED,
                action="store_true",
                help="listen on another address than this machine's own, though whoever reaches it sees all images "
                "and may decide",
            )
        if function is demo:
            sub.add_argument(
                "--world",
                choices=tuple(DEMOS),
                default="digits",
                help="digits: handwriting and a red square; radiograph: drawn chest radiographs as DICOM files, and "
                "metal clips (%(default)s)",
            )
            sub.add_argument("--audit-only", action="store_true", help="print the findings and stop")


def demo(options: argparse.Namespace) -> int:
    """Audit a built-in demo and open the dashboard with it."""
    from ravl import api
    from ravl.store import open_workspace
    from ravl.tables import Step

    if not options.audit_only:
        check_address(options)
    chosen, workspace = DEMOS[options.world], open_workspace(options.workspace)
    with reporting(options) as report:
        report(Step("data", 0, 1))
        data = chosen.write(workspace)
        report(Step("data", 1, 1))
        where = {"device": options.device, "workspace": workspace}
        run = api.discover(data / "val", **chosen.settings(), **where, name=chosen.name, report=report)
        note_run(options, run.id)
    if options.audit_only:
        print_findings(options, run)
        return 0
    return serve_workspace(options, workspace)


def app(options: argparse.Namespace) -> int:
    """Open the dashboard of a workspace."""
    from ravl.store import open_workspace

    check_address(options)
    return serve_workspace(options, open_workspace(options.workspace))


def doctor(options: argparse.Namespace) -> int:
    """Check this machine: versions, device, memory, port, workspace."""
    from ravl.doctor import examine

    checks = examine(options.workspace, options.host, options.port)
    if options.json:
        keys = ("ok", "found", "advice", "facts")
        print_json({check.name: {key: getattr(check, key) for key in keys} for check in checks})
    else:
        for check in checks:
            print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<12} {check.found}")
            if not check.ok:
                print(f"      {'':<12} {check.advice}")
    return 0 if all(check.ok for check in checks) else 1


def check_address(options: argparse.Namespace) -> None:
    """Raise ConfigError for an address that others can reach, unless that is accepted, and for a port that is taken."""
    from ravl.doctor import loopback, port_problem

    if not loopback(options.host):
        if not options.accept_no_login:
            raise ConfigError(
                f"--host must be an address of this machine alone, such as 127.0.0.1, got {options.host!r}. There is "
                "no login: whoever reaches it sees all images and may decide. Use an SSH tunnel (ssh -L "
                f"{options.port}:127.0.0.1:{options.port} ...), or put a proxy with a login before it; where everybody "
                f"on the network may see it, add {ACCEPTED}."
            )
        print(f"ravl: {options.host} can be reached from other machines; there is no login.", file=sys.stderr)
    if problem := port_problem(options.host, options.port):
        raise ConfigError(problem)


def serve_workspace(options: argparse.Namespace, workspace: Path) -> int:
    from ravl.serve import serve

    return serve(workspace, options.host, options.port, not options.no_browser, options.accept_no_login)
