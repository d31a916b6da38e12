"""The `ravl` command: one function per sub-command. Exit code 0 done, 2 bad input, 1 failure.

With `--json` one document goes to stdout and nothing else; progress and errors go to stderr.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from ravl import __version__
from ravl.cli import auditing, deciding, making, purging, reading, repairing, screen
from ravl.errors import RavlError


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ravl", description="Find, confirm and repair the spurious features a vision-language model relies on."
    )
    parser.add_argument("--version", action="version", version=f"ravl-dashboard {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for group in (reading, auditing, making, deciding, repairing, screen, purging):
        group.add_commands(commands)
    return parser
