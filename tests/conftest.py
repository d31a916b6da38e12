"""Plumbing of the tests: no network, few threads, no clock, and processes of their own that run as the tests do."""

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
os.environ.setdefault("OMP_NUM_THREADS", "2")

settings.register_profile("ravl", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("ravl")

ROOT = Path(__file__).parents[1]
Process = Callable[..., "subprocess.Popen[str]"]


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
