"""Deciding in a real browser: by keyboard alone, quickly, by two people at once, with names that are no HTML."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest
from playwright.sync_api import TimeoutError, expect

from ravl.ledger import Ledger, seen_digest
from ravl.store import AuditRun, list_runs
from tests.browser.window import SECONDS, Window, opened, watched

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def run(workspace: Path) -> AuditRun:
    [only] = list_runs(workspace)
    return only


ANOTHER_HEADING = (
    "old => { const h = document.querySelector('[data-testid=stMain] h3'); return h && h.innerText !== old }"
)


def shown(window: Window) -> str:
    return window.page.get_by_test_id("stMain").get_by_role("heading", level=3).first.inner_text()


def announce(window: Window, name: str) -> None:
    window.type("Your name", name)
    expect(window.page.get_by_text(f"Deciding as {name}")).to_be_visible(timeout=30 * SECONDS)


def until_decided(ledger: Ledger, run: AuditRun, n: int, window: Window) -> None:
    for _ in range(100):
        if len(ledger.history(run.id)) >= n:
            return
        window.page.wait_for_timeout(50)
    raise AssertionError(f"{n} events were expected, got {ledger.history(run.id)}")


def tab_to(window: Window, role: str, name: str) -> None:
    """Press Tab until the focus is on an element, as who has no mouse does."""
    wanted = window.page.get_by_role(role, name=name).first.element_handle()  # type: ignore[arg-type]
    for _ in range(60):
        window.page.keyboard.press("Tab")
        if window.page.evaluate("e => e === document.activeElement", wanted):
            return
    raise AssertionError(f"Tab never reached the {role} {name!r}")


@pytest.mark.timeout(300)
def test_the_whole_queue_by_keyboard_alone(window: Window, workspace: Path, run: AuditRun) -> None:
    """From the address on no mouse is used: name, option, a note, every feature decided, one undone."""
    window.open("review")
    expect(window.page.get_by_test_id("stMain").get_by_text("Only flagged")).to_be_visible(timeout=60 * SECONDS)
    tab_to(window, "switch" if window.page.get_by_role("switch").count() else "checkbox", "Only flagged")
    window.page.keyboard.press("Space")
    window.settle()
    tab_to(window, "textbox", "Your name")
    window.page.keyboard.type("Dr. Ada")
    window.page.keyboard.press("Enter")
    expect(window.page.get_by_text("Deciding as Dr. Ada")).to_be_visible(timeout=30 * SECONDS)
    tab_to(window, "textbox", "Note")
    window.page.keyboard.type("sums up guesses, my zeal")  # letters of shortcuts: they rest while one types
    window.page.keyboard.press("Tab")
    window.settle()
    window.page.wait_for_timeout(500)
    ledger = Ledger(workspace)
    assert ledger.history(run.id) == []
    n = len(run.evidence())
    seen = []
    for place, key in enumerate("sgmu"[:n]):
        seen.append(shown(window))
        window.page.keyboard.press(key)
        until_decided(ledger, run, place + 1, window)
        if place + 1 < n:  # the next key counts once the page shows the next feature
            expect(window.page.get_by_test_id("stMain").get_by_role("heading", level=3).first).not_to_have_text(
                seen[-1], timeout=30 * SECONDS
            )
        window.settle()
        window.page.wait_for_timeout(500)
    assert len(set(seen)) == n
    expect(window.page.get_by_text(f"All {n} features are decided.")).to_be_visible(timeout=30 * SECONDS)
    window.page.keyboard.press("z")
    until_decided(ledger, run, n + 1, window)
    expect(window.page.get_by_test_id("stMain").get_by_role("heading", level=3).first).to_have_text(
        seen[-1], timeout=30 * SECONDS
    )
    history = ledger.history(run.id)
    assert history[0].note == "sums up guesses, my zeal"
    assert [v.decision for v in history] == [*["spurious", "core", "mixed", "unsure"][:n], "withdrawn"]
    for verdict in history:
        assert verdict.seen == seen_digest((run.feature_label() == verdict.feature).nonzero()[0])
    ledger.close()
    assert window.complaints == []


def test_from_a_decision_to_the_next_feature_is_a_moment(window: Window, workspace: Path, run: AuditRun) -> None:
    window.open("review")
    announce(window, "Quick")
    window.page.get_by_test_id("stMain").get_by_text("Only flagged").click()
    # the page has caught up once it counts all features, not the only flagged one
    expect(window.page.get_by_text(re.compile(r"feature \d+ of (?!1\b)\d+"))).to_be_visible(timeout=60 * SECONDS)
    window.settle()
    window.page.locator("h1").click()
    spent = []
    for _ in range(6):
        before = shown(window)
        side = "Next" if len(spent) % 2 == 0 else "Previous"
        expect(window.page.get_by_test_id("stMain").get_by_role("button", name=side)).to_be_enabled()
        begun = time.monotonic()
        for attempt in range(3):  # a key that falls into a redraw is not heard: a person presses it again
            window.page.keyboard.press("ArrowRight" if side == "Next" else "ArrowLeft")
            try:
                window.page.wait_for_function(ANOTHER_HEADING, arg=before, timeout=10 * SECONDS)
                break
            except TimeoutError:
                if attempt == 2:
                    raise
        spent.append(time.monotonic() - begun)
        window.settle()
    print("seconds to another feature:", [round(seconds, 2) for seconds in spent])


@pytest.mark.timeout(300)
def test_two_browsers_on_one_feature(
    browser_path: str, server: str, workspace: Path, run: AuditRun, tmp_path: Path
) -> None:
    """Who comes second is told what the first did; the first one's page is not disturbed."""
    feature = int(run.evidence().feature[-1])
    with opened(browser_path, server, tmp_path / "first") as first:
        context = first.page.context.browser
        second = watched(first.page.context.new_page(), server)
        for view, name in ((first, "Ada"), (second, "Bo")):
            view.open(f"review?run={run.id}&feature={feature}")
            announce(view, name)
        first.type("Note", "half a thought")
        second.page.bring_to_front()
        second.button("Genuine")
        first.page.bring_to_front()
        assert first.page.get_by_role("textbox", name="Note").input_value() == "half a thought"
        first.button("Spurious")
        expect(first.page.get_by_text(re.compile("Changed by Bo at .* UTC"))).to_be_visible(timeout=30 * SECONDS)
        ledger = Ledger(workspace)
        assert ledger.history(run.id)[-1].reviewer == "Bo"
        first.button("Spurious")
        for _ in range(100):
            if ledger.history(run.id)[-1].reviewer == "Ada":
                break
            first.page.wait_for_timeout(50)
        last = ledger.history(run.id)[-1]
        assert (last.reviewer, last.decision, last.note) == ("Ada", "spurious", "half a thought")
        ledger.close()
        assert context is None or context.is_connected()
        assert first.complaints == second.complaints == []


WIDER = "() => { const m = document.querySelector('[data-testid=stMain]'); return m.scrollWidth - m.clientWidth }"
NASTY = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script> **b** $x$ :red[r] 🟥 שלום مرحبا'


@pytest.mark.timeout(300)
def test_what_people_write_is_shown_as_text(window: Window, workspace: Path, run: AuditRun) -> None:
    """HTML, Markdown, emoji, right-to-left text and a note of 10,000 characters, on every page."""
    feature = int(run.evidence().feature[0])
    ledger = Ledger(workspace)
    seen = seen_digest((run.feature_label() == feature).nonzero()[0])
    ledger.add_verdict(run.id, feature, "nine", "spurious", NASTY, seen, NASTY, NASTY + "long " * 2000)
    ledger.close()
    for page in ("", "overview", "features", "map", "review", "repair", "export"):
        window.open(f"{page}?run={run.id}&feature={feature}" if page else "")
        assert window.page.evaluate("() => window.hacked === undefined")
        assert window.page.locator("img[src='x']").count() == 0
        width = window.page.evaluate(
            "() => { const m = document.querySelector('[data-testid=stMain]'); return m.scrollWidth - m.clientWidth }"
        )
        assert width <= 0, f"/{page} is wider than the window by {width} pixels"
    window.open(f"review?run={run.id}&feature={feature}")
    expect(window.page.get_by_role("heading", name=NASTY[:40]).first).to_be_visible()
    note = window.page.get_by_role("textbox", name="Note")
    expect(note).to_have_value((NASTY + "long " * 2000).strip(), timeout=60 * SECONDS)
    window.page.get_by_text(re.compile(r"History \(")).click()
    expect(window.page.get_by_text("characters)").first).to_be_visible()
    assert window.complaints == []


def test_an_image_that_is_gone_is_said_on_its_card(window: Window, workspace: Path, run: AuditRun) -> None:
    """The rest of the page is drawn."""
    images = Path(run.images().root)
    feature = int(run.evidence().feature[0])
    exemplars = run.exemplars()
    name = str(run.images().file[exemplars.image[exemplars.rows_of(feature)][0]])
    moved = images / f"{name}.away"
    shutil.move(images / name, moved)
    try:
        window.open(f"review?run={run.id}&feature={feature}")
        expect(window.page.get_by_text("no longer where it was").first).to_be_visible()
        expect(window.page.locator(".ravl-cards figure img").nth(4)).to_be_visible()
    finally:
        shutil.move(moved, images / name)
