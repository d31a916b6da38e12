"""What nobody foresaw: written to the workspace's log with where it happened, told on the screen in a sentence."""

from __future__ import annotations

import os
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path

LOG = "dashboard.log"
"""The file in the workspace, readable by its owner alone: a trace may hold file names."""


def note(error: BaseException, workspace: Path) -> str:
    """Write the trace of an error to the log and return what to tell. Plain text, without any detail of the error."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    trace = "".join(traceback.format_exception(error))
    print(f"{at} {trace}", file=sys.stderr, flush=True)
    file = workspace / LOG
    try:
        number = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(number, "a", encoding="utf-8", errors="replace") as log:
            log.write(f"{at}\n{trace}\n")
    except OSError:
        where = "the terminal in which the dashboard was started"
    else:
        where = str(file)
    return (
        f"Something went wrong here that is a fault of RAVL, not of yours. What is recorded already is kept. At {at} "
        f"the details were written to {where}."
    )
