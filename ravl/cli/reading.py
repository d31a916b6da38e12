"""Image sets: `check`."""

from __future__ import annotations

import argparse
from typing import Any

from ravl.cli.shared import add_command, add_images, names, print_json, reporting


def add_commands(commands: Any) -> None:
    """Their options."""
    add_images(add_command(commands, check, job=True, model=False))


def check(options: argparse.Namespace) -> int:
    """Read an image set without any model: what it holds, what cannot be used, copies and clashing labels."""
    from ravl import api
    from ravl.data.report import text

    with reporting(options) as report:
        document = api.check(
            options.images,
            classes=names(options.classes),
            frames=options.frames,
            hide_names=options.hide_names,
            workspace=options.workspace,
            report=report,
        )
    if options.json:
        print_json(document)
    else:
        print(text(document))
    return 0
