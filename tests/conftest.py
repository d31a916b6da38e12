"""Plumbing of the tests: no network, few threads, no clock, slow files first, and processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# before any test module imports a library that reads these
os.environ.update({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
# two threads, and in all processes of pytest-xdist no more than there are cores: else they wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "2")
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # a worker, which inherits what its parent has just set
    threads = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ["OMP_NUM_THREADS"] = str(max(1, min(2, threads)))

settings.register_profile("ravl", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("ravl")

ROOT = Path(__file__).parents[1]
Process = Callable[..., "subprocess.Popen[str]"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that hold a slow test come first, so that no worker begins one when the others are done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def process() -> Process:
    """Start a fresh Python process that runs a text, in the repository's folder: process(code, *arguments)."""

    def start(code: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    return start


@pytest.fixture
def python(process: Process) -> Callable[..., str]:
    """Run a text in a fresh Python process to its end, and return what it printed; it must end well."""

    def run(code: str, *arguments: object) -> str:
        with process(code, *arguments) as started:
            out, errors = started.communicate(timeout=120)
        assert started.returncode == 0, errors
        return out

    return run
