"""A real browser page, and what a person does with it: what the tests in this folder share."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from dashboard.serving.server import environment
from tests.browser.serving import ARGUMENTS, SECONDS, find_browser, served

__all__ = ["SECONDS", "Window", "demo_workspace", "find_browser", "opened", "served", "watched"]


@dataclass
class Window:
    """A browser page, and everything it asked for or complained about."""

    page: Page
    address: str
    hosts: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str = "") -> None:
        self.page.goto(self.address + path)
        self.settle()

    def go(self, title: str) -> None:
        """Follow a link of the menu."""
        self.page.get_by_test_id("stSidebarNav").get_by_role("link", name=title).click()
        expect(self.page.get_by_role("heading", name=title, level=1)).to_be_visible(timeout=30 * SECONDS)
        self.settle()

    def settle(self) -> None:
        self.page.wait_for_selector("h1", timeout=60 * SECONDS)
        self.page.wait_for_function(
            "() => !document.querySelector('[data-testid=stStatusWidget]')", timeout=60 * SECONDS
        )

    def type(self, label: str, text: str, role: str = "textbox", hurried: bool = False) -> None:
        """Fill an input and leave it, which is what sends its value. hurried: do not wait for the page to answer."""
        self.page.get_by_role(role, name=label, exact=True).fill(text)  # type: ignore[arg-type]
        self.page.keyboard.press("Tab")
        if not hurried:
            self.settle()

    def button(self, label: str) -> None:
        self.page.get_by_test_id("stMain").get_by_role("button", name=label).click()
        self.settle()


@contextmanager
def opened(browser: str, address: str, profile: Path, width: int = 1280, height: int = 900) -> Iterator[Window]:
    """A browser of its own with one page."""
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=browser,
            headless=True,
            args=ARGUMENTS,
            viewport={"width": width, "height": height},
            accept_downloads=True,
        )
        context.set_default_timeout(30 * SECONDS)
        yield watched(context.pages[0], address)
        context.close()


def watched(page: Page, address: str) -> Window:
    """A page whose requests and errors are noted."""
    view = Window(page, address)
    page.on("request", lambda request: view.hosts.add(re.split(r"[/?:]+", request.url)[1]))
    page.on("pageerror", lambda error: view.complaints.append(str(error)))
    return view


def demo_workspace(folder: Path) -> Path:
    """A workspace in which the real demo audit was computed."""
    command = [sys.executable, "-m", "ravl", "demo", "--audit-only", "--workspace", str(folder)]
    subprocess.run(command, env=environment(), check=True, stdout=subprocess.DEVNULL, timeout=900)
    return folder
