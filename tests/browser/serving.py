"""A browser, and the dashboard of a workspace for it to open."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dashboard.serving.server import environment, streamlit_command

SECONDS = 1000  # playwright counts in milliseconds
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    *("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"),
    *("--disable-component-update", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
]


def find_browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None and os.environ.get("CI"):
        pytest.fail(f"a browser must be installed for this test, found none of {', '.join(BROWSERS)}")
    if found is None:
        pytest.skip(f"no browser here: none of {', '.join(BROWSERS)}")
    return found


@contextmanager
def served(workspace: Path) -> Iterator[str]:
    """The address of a dashboard that runs as long as the block; its output goes to `server.log`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/"
    log = open(workspace / "server.log", "wb")  # noqa: SIM115 - closed below
    process = subprocess.Popen(streamlit_command(workspace, port), env=environment(workspace), stdout=log, stderr=log)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}_stcore/health", timeout=2).close()
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                assert process.poll() is None, (workspace / "server.log").read_text()
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(20)
        log.close()
