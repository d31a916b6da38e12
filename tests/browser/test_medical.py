"""The medical demo in a real browser: what misleads the model comes first, the radiographs are said to be drawn, and
nobody is named: not on a page, not in what the server sends, and not in the list that is handed over."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import WebSocket, expect

from ravl.ledger import Ledger, seen_digest
from ravl.planted.demos import DEMOS
from ravl.store import AuditRun
from tests.browser.test_accessibility import PAGES, open_sections
from tests.browser.window import SECONDS, Window
from tests.medical import SIZES, audited_demo, drawn_demo, headers_of, spotted

pytestmark = [pytest.mark.browser, pytest.mark.slow]

DEMO = DEMOS["radiograph"]
DRAWN = "These radiographs are drawn by a program. Nobody was examined"

TEXT = """() => {
  const all = [];
  const look = root => {
    all.push(root.innerHTML);
    root.querySelectorAll('*').forEach(element => element.shadowRoot && look(element.shadowRoot));
  };
  look(document.documentElement);
  return all.join('\\n');
}"""
"""The whole page, attributes and what is drawn by components too."""


@pytest.fixture(scope="module")
def workspace(browser_path: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_demo(tmp_path_factory.mktemp("medical") / "ws")


@pytest.fixture(scope="module")
def run(workspace: Path) -> AuditRun:
    """Audited, with one decision about what was found first."""
    found = audited_demo(workspace, until="projection")
    feature = int(found.evidence().feature[0])
    seen = seen_digest((found.feature_label() == feature).nonzero()[0])
    book = Ledger(workspace)
    book.add_verdict(found.id, feature, DEMO.target, "spurious", "Dr. Ada", seen, DEMO.mark, "stay after surgery")
    book.close()
    return found


@pytest.mark.timeout(300)
def test_the_clips_come_first_and_the_drawings_are_called_so(run: AuditRun, window: Window) -> None:
    window.open()
    page = window.page
    for place in ("stMain", "stSidebar"):
        said = page.get_by_test_id(place).get_by_text("drawn by a program, no patients")
        expect(said).to_be_visible(timeout=60 * SECONDS)
    window.open(f"overview?run={run.id}")
    expect(page.get_by_text(DRAWN)).to_be_visible(timeout=60 * SECONDS)
    expect(page.get_by_text("Nothing here is a medical device")).to_be_visible()
    first = page.locator("[class*='st-key-finding-']").first
    expect(first).to_contain_text(f"{DEMO.mark} (feature {run.evidence().feature[0]})")
    expect(first).to_contain_text("Causes errors")
    expect(first).to_contain_text(f"makes the model wrongly answer {DEMO.target}")
    expect(first.locator("img").first).to_be_visible(timeout=60 * SECONDS)
    assert window.complaints == []


@pytest.mark.timeout(300)
def test_nobody_is_named(run: AuditRun, workspace: Path, window: Window) -> None:
    identifiers = headers_of(workspace / DEMO.folder / "val")
    assert len(identifiers) > 4 * SIZES["val"]
    sent: list[str] = []

    def hear(frame: str | bytes) -> None:
        sent.append(frame if isinstance(frame, str) else frame.decode("latin-1"))

    def listen(socket: WebSocket) -> None:
        socket.on("framereceived", hear)

    page = window.page
    page.on("websocket", listen)
    for name in PAGES:
        window.open(f"{name}?run={run.id}")
        open_sections(window)
        assert not spotted(page.evaluate(TEXT), identifiers), name
    with page.expect_download() as download:  # Export is the last of them
        page.get_by_role("button", name="Download JSON").click()
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert DEMO.mark in text
    assert not spotted(text, identifiers)
    assert DEMO.mark in "".join(sent)  # it was listened to
    assert not any(spotted(frame, identifiers) for frame in sent)
    assert window.complaints == []


def test_a_name_on_a_page_would_be_found(run: AuditRun, workspace: Path, window: Window) -> None:
    """Also inside of a component, where the page's own text does not reach."""
    identifiers = headers_of(workspace / DEMO.folder / "val")
    name = sorted(word for word in identifiers if word.isalpha())[0]
    window.open(f"overview?run={run.id}")
    window.page.evaluate(
        "name => { const e = document.createElement('div'); e.attachShadow({mode: 'open'}).innerHTML = name; "
        "document.body.append(e) }",
        name,
    )
    assert spotted(window.page.evaluate(TEXT), identifiers) == {name}
