"""No page has an accessibility fault that axe-core calls serious or critical, in light and in dark."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from ravl.ledger import Ledger, seen_digest
from ravl.store import list_runs
from tests.browser.window import SECONDS, Window, opened, served

pytestmark = [pytest.mark.browser, pytest.mark.slow]

AXE = files("axe_playwright_python") / "axe.min.js"
PAGES = ("", "overview", "features", "map", "review", "repair", "export")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]

# faults of Streamlit's own elements, which no page of ours can mend: the element, the rules, and why
EXCEPTIONS: dict[str, tuple[str, ...]] = {
    # st.navigation draws its groups as <div> between <ul> and <li>
    "[data-testid=stSidebarNavItems]": ("list", "listitem"),
}

LOOK = """async ([tags, exceptions]) => {
  const found = [];
  const strict = {type: 'tag', values: tags};
  const excused = Object.values(exceptions).flat();
  const off = Object.fromEntries(excused.map(rule => [rule, {enabled: false}]));
  found.push(...(await axe.run(document, {runOnly: strict, rules: off, resultTypes: ['violations']})).violations);
  for (const [element, rules] of Object.entries(exceptions)) {
    const rest = {include: [['body']], exclude: document.querySelector(element) ? [[element]] : []};
    const asked = {runOnly: {type: 'rule', values: rules}, resultTypes: ['violations']};
    found.push(...(await axe.run(rest, asked)).violations);
  }
  return found;
}"""


def faults(window: Window) -> list[str]:
    """What axe finds that is serious or critical, but for EXCEPTIONS: one line each, with the element."""
    window.page.wait_for_timeout(1000)
    window.settle()  # while a page is drawn, Streamlit shows a button of its own to stop it
    window.page.evaluate(AXE.read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = window.page.evaluate(LOOK, [RULES, EXCEPTIONS])
    return [
        f"{fault['impact']}: {fault['id']}: {json.dumps(node['target'])} {node['html'][:300]}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


def open_sections(window: Window) -> None:
    """Open all that can be opened, so that it is looked at too."""
    sections = window.page.get_by_test_id("stMain").locator("details")
    for place in range(sections.count()):
        if sections.nth(place).get_attribute("open") is None:
            sections.nth(place).locator("summary").click()
            window.settle()


@pytest.fixture(scope="module")
def decided(workspace: Path) -> None:
    """Two readers who differ, so that everything the pages can show is there."""
    [run] = list_runs(workspace)
    ledger = Ledger(workspace)
    for feature in run.evidence().feature.tolist():
        seen = seen_digest((run.feature_label() == feature).nonzero()[0])
        for reader, decision in (("Ada", "spurious"), ("Bo", "core")):
            ledger.add_verdict(run.id, feature, "nine", decision, reader, seen, "a mark", "seen by both")
    ledger.close()


@pytest.mark.timeout(420)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages(browser_path: str, server: str, workspace: Path, decided: None, tmp_path: Path, theme: str) -> None:
    with opened(browser_path, server, tmp_path / "profile", height=1800) as window:
        window.page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        problems = []
        for page in PAGES:
            window.open(page)
            open_sections(window)
            problems += [f"/{page} {fault}" for fault in faults(window)]
        assert not problems, "\n".join(problems)


@pytest.mark.timeout(180)
def test_dialogs(window: Window, decided: None) -> None:
    """The two that enlarge a picture."""
    problems = []
    for gallery in (".ravl-cards", ".ravl-pairs"):
        window.open("features")
        window.page.locator(f"{gallery} figure button").first.click()
        expect(window.page.get_by_role("dialog").locator("img").first).to_be_visible(timeout=30 * SECONDS)
        window.settle()
        problems += [f"{gallery} {fault}" for fault in faults(window)]
        window.page.keyboard.press("Escape")
    assert not problems, "\n".join(problems)


def test_an_empty_workspace(browser_path: str, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with served(tmp_path / "new") as address, opened(browser_path, address, tmp_path / "profile") as window:
        problems = []
        for page in PAGES:
            window.open(page)
            problems += [f"/{page} {fault}" for fault in faults(window)]
        assert not problems, "\n".join(problems)


def test_the_tool_finds_a_fault(window: Window) -> None:
    """That nothing is found must mean something."""
    window.open("overview")
    window.page.evaluate("() => { const i = document.createElement('img'); i.src = ''; document.body.append(i) }")
    assert any("image-alt" in fault for fault in faults(window))
