"""A browser, and the dashboard of a workspace for it to open."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
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


@dataclass(frozen=True)
class Server:
    """A web server that answers. pid: its process."""

    address: str
    pid: int


@contextmanager
def answering(command: Callable[[int], list[str]], env: dict[str, str], log: Path) -> Iterator[Server]:
    """A server of Streamlit that runs as long as the block; its output goes to `log`. command: from the port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/"
    with open(log, "wb") as output:
        process = subprocess.Popen(command(port), env=env, stdout=output, stderr=output)
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"{address}_stcore/health", timeout=2).close()
                    break
                except (urllib.error.URLError, ConnectionError, TimeoutError):
                    assert process.poll() is None, log.read_text()
                    time.sleep(0.1)
            yield Server(address, process.pid)
        finally:
            process.terminate()
            process.wait(20)


def dashboard(workspace: Path) -> AbstractContextManager[Server]:
    """The dashboard of a workspace, for as long as the block."""
    return answering(partial(streamlit_command, workspace), environment(workspace), workspace / "server.log")


@contextmanager
def served(workspace: Path) -> Iterator[str]:
    """The address of a dashboard that runs as long as the block; its output goes to `server.log`."""
    with dashboard(workspace) as server:
        yield server.address
