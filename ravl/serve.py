"""Start the dashboard's web server, wait until it answers, and open a browser."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import FrameType
from typing import NoReturn

from dashboard.serving.server import environment, streamlit_command
from ravl.errors import RunError

START_SECONDS = 60.0


def serve(workspace: Path, host: str, port: int, open_browser: bool, accepted: bool = False) -> int:
    """Serve until interrupted or told to end; returns 0. Raises RunError when the server ends before it answers.

    accepted: that others can reach it though there is no login.
    """
    signal.signal(signal.SIGTERM, _end)  # else this process ends alone, and leaves the server behind
    process = subprocess.Popen(
        streamlit_command(workspace, port, host), env=environment(workspace, accepted), stdout=subprocess.DEVNULL
    )
    url = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"
    try:
        _wait(process, url)
        print(f"The dashboard is at {url} (stop it with Ctrl+C).", file=sys.stderr)
        print(f"From another machine: ssh -L {port}:127.0.0.1:{port} {_host_name()}", file=sys.stderr, flush=True)
        if open_browser:
            import webbrowser

            webbrowser.open(url)
        return process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        process.terminate()
        process.wait()


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RunError(
                f"the dashboard ended with code {process.returncode} before it answered. See the lines above."
            )
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)  # not listening yet
    raise RunError(f"the dashboard did not answer at {url} within {START_SECONDS:.0f} seconds. Try another --port.")


def _host_name() -> str:
    import socket

    return socket.gethostname()
