"""One real demo audit for all browser tests, computed once; each test module changes a copy of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.window import Window, demo_workspace, find_browser, opened, served

PER_CLASS = 12


@pytest.fixture(scope="session")
def browser_path() -> str:
    return find_browser()


@pytest.fixture(scope="session")
def demo(browser_path: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the real demo audit was computed. Not to be changed."""
    return demo_workspace(tmp_path_factory.mktemp("demo") / "workspace")


@pytest.fixture(scope="module")
def workspace(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(demo, tmp_path_factory.mktemp("browser") / "workspace"))


@pytest.fixture(scope="module")
def server(workspace: Path) -> Iterator[str]:
    with served(workspace) as address:
        yield address


@pytest.fixture
def window(browser_path: str, server: str, tmp_path: Path) -> Iterator[Window]:
    with opened(browser_path, server, tmp_path / "profile") as view:
        yield view


@pytest.fixture(scope="module")
def some_images(workspace: Path) -> dict[str, Path]:
    """A few training and test images, so that the fine-tuning is short."""
    for split in ("train", "test"):
        for source in sorted((workspace / "demo-data" / split).iterdir()):
            if source.is_dir():
                target = workspace / "few" / split / source.name
                target.mkdir(parents=True)
                for file in sorted(source.iterdir())[:PER_CLASS]:
                    shutil.copy(file, target)
    return {split: workspace / "few" / split for split in ("train", "test")}
