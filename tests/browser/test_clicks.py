"""What a newcomer clicks who reads nothing: from the page that `make demo` opens to a list with a confirmed feature."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from ravl.store import list_runs
from tests.browser.window import SECONDS, Window

pytestmark = [pytest.mark.browser, pytest.mark.slow]

MOST = 10
REVIEWER = "Dr. Ada"


def walk(window: Window, at: Callable[[str], None]) -> tuple[list[str], Path]:
    """The way, and what was clicked on it; the downloaded list. at: called on each page, with its name."""
    page, clicks = window.page, list[str]()
    main = page.get_by_test_id("stMain")

    def click(what: Locator, name: str) -> None:
        expect(what).to_be_visible(timeout=60 * SECONDS)
        window.settle()
        what.click()
        clicks.append(name)

    def reach(title: str, name: str) -> None:
        expect(page.get_by_role("heading", name=title, level=1)).to_be_visible(timeout=60 * SECONDS)
        expect(main.locator("img").first).to_be_visible(timeout=60 * SECONDS)
        window.settle()
        at(name)

    window.open()
    at("start")
    click(main.get_by_role("button", name="Open"), "Open")
    reach("Overview", "overview")
    click(main.get_by_role("button", name="Go to Review"), "Go to Review")
    reach("Review", "review")
    click(main.get_by_role("textbox", name="Your name"), "Your name")
    page.keyboard.type(REVIEWER)
    # no Enter, no Tab: whoever has typed a name clicks on
    click(main.get_by_role("button", name="Spurious"), "Spurious")
    click(main.get_by_role("link", name="Hand the list over"), "Hand the list over")
    reach("Export", "export")
    with page.expect_download() as download:
        click(main.get_by_role("button", name="Download JSON"), "Download JSON")
    return clicks, Path(download.value.path())


@pytest.mark.timeout(240)
def test_a_confirmed_list_in_few_clicks(window: Window, workspace: Path) -> None:
    [run] = list_runs(workspace)
    clicks, file = walk(window, lambda name: None)
    assert len(clicks) <= MOST, clicks
    [feature] = json.loads(file.read_text(encoding="utf-8"))["features"]
    assert (feature["feature"], feature["reviewer"]) == (int(run.evidence().feature[0]), REVIEWER)
    assert window.complaints == []
