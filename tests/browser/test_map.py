"""The map in a real browser: 50 000 regions, the keyboard, reloads, two readers, themes and sizes.

Times are measured and printed, never judged: a busy machine is no fault of the map. RAVL_MAP_REPORT=FILE keeps them.
"""

from __future__ import annotations

import json
import math
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

from dashboard.pictures import packing
from dashboard.reading import selection
from ravl.ledger import Ledger
from ravl.store import AuditRun
from tests.browser.large import write_large_run
from tests.browser.serving import ARGUMENTS, SECONDS, find_browser, served

pytestmark = [pytest.mark.browser, pytest.mark.slow]

N = 50_000
COUNTS = re.compile(r"regions?, .* images?, .* wrong")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, AuditRun, Path]]:
    """A served workspace with a run of 50 000 regions."""
    find_browser()
    workspace = tmp_path_factory.mktemp("map") / "workspace"
    workspace.mkdir()
    run = write_large_run(workspace, N)
    with served(workspace) as address:
        yield address, run, workspace


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Callable[..., BrowserContext]]:
    """Opens browsers, each with a profile of its own."""
    with sync_playwright() as playwright:
        contexts = []

        def start(**options: Any) -> BrowserContext:
            context = playwright.chromium.launch_persistent_context(
                tmp_path / f"profile-{len(contexts)}",
                executable_path=find_browser(),
                headless=True,
                args=ARGUMENTS,
                viewport={"width": 1280, "height": 720},
                **options,
            )
            context.set_default_timeout(60 * SECONDS)
            contexts.append(context)
            return context

        expect.set_options(timeout=60 * SECONDS)
        yield start
        expect.set_options(timeout=5 * SECONDS)
        for context in contexts:
            context.close()


class MapPage:
    """The map in one browser."""

    def __init__(self, context: BrowserContext, address: str, run: AuditRun) -> None:
        self.page: Page = context.pages[0]
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(f"{address}map?run={run.id}")
        self.map, self.field = self.page.locator(".map[data-drawn]"), self.page.locator(".field")
        self.counts = self.page.get_by_test_id("stMain").locator("strong", has_text=COUNTS)
        expect(self.map).to_have_count(1)

    def value(self, name: str) -> str:
        return self.map.get_attribute(f"data-{name}") or ""

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A place on the page; x, y: shares of the field."""
        box = self.field.bounding_box()
        assert box is not None
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def lasso(self, x: float, y: float, radius: float, steps: int = 24) -> None:
        path = [
            self.at(x + radius * math.cos(math.tau * k / steps), y + radius * math.sin(math.tau * k / steps))
            for k in range(steps + 1)
        ]
        self.page.mouse.move(*path[0])
        self.page.mouse.down()
        for point in path[1:]:
            self.page.mouse.move(*point)
        self.page.mouse.up()

    def n_selected(self) -> int:
        """Regions of the selection, as the page says; the map shows the same number."""
        expect(self.counts).to_be_visible()
        expect(self.map).not_to_have_attribute("data-lifted", "0")
        regions = int(self.counts.inner_text().split()[0].replace(",", ""))
        expect(self.map).to_have_attribute("data-lifted", str(regions))
        return regions

    def select(self, x: float, y: float, radius: float) -> int:
        """Draw, and wait for the counts of this drawing."""
        before = self.counts.inner_text() if self.counts.count() else ""
        self.lasso(x, y, radius)
        if before:
            expect(self.counts).not_to_have_text(before)
        return self.n_selected()

    def press(self, key: str) -> None:
        self.field.press(key)


# crops of another selection than before are on the page, whole; and how long after the mouse went up
WATCH = """() => { const seen = () => document.querySelector('.st-key-map-side')?.querySelectorAll('*') ?? [];
  const host = () => [...seen()].map(e => e.shadowRoot?.querySelector('.host')).find(Boolean);
  const before = host()?.dataset.version; window.crops = null; let up = 0;
  addEventListener('pointerup', () => { up = performance.now(); const look = () => { const now = host();
    const images = [...(now?.querySelectorAll('img') ?? [])];
    if (now && now.dataset.version !== before && images.length && images.every(i => i.complete))
      window.crops = performance.now() - up; else requestAnimationFrame(look); }; look(); },
  { once: true, capture: true }); }"""


def timed(view: MapPage, x: float, y: float, radius: float) -> tuple[float, float]:
    """Seconds from mouse-up to the crops, and of the drag itself."""
    view.page.evaluate(WATCH)
    begun = time.perf_counter()
    view.lasso(x, y, radius)
    drag = time.perf_counter() - begun
    view.page.wait_for_function("() => window.crops !== null", timeout=60 * SECONDS)
    return float(view.page.evaluate("() => window.crops")) / 1000, drag


def lassoes(view: MapPage, n: int) -> list[tuple[float, float]]:
    """What `timed` gives, of `n` lassoes on a ring about the middle."""
    turns = [k * 2.4 for k in range(n)]
    return [timed(view, 0.5 + 0.12 * math.cos(turn), 0.5 + 0.12 * math.sin(turn), 0.07) for turn in turns]


@pytest.mark.timeout(240)
def test_fifty_thousand_regions(
    place: tuple[str, AuditRun, Path], browser: Callable[..., BrowserContext], capsys: pytest.CaptureFixture[str]
) -> None:
    address, run, workspace = place
    begun = time.perf_counter()
    view = MapPage(browser(), address, run)
    load = time.perf_counter() - begun
    expect(view.map).to_have_attribute("data-shown", str(N))
    view.page.wait_for_timeout(1000)
    times = lassoes(view, 9)
    n_selected = view.n_selected()

    # what is counted is what lies inside the shape that the address holds, over all regions
    [cells] = packing.read(view.page.evaluate("() => new URLSearchParams(location.search).get('draw')"))
    points = run.projection()
    inside = selection.inside(points, packing.from_grid(cells, packing.frame_of(points)))
    assert inside.sum() == n_selected

    # zoom, then recolour and decide: zoom and selection stay
    for _ in range(3):
        view.press("+")
    view.press("ArrowLeft")
    zoomed = view.value("view")
    assert zoomed.split()[2] == "3.3750"
    recoloured = []
    for colouring in ("Class", "Decision", "Right or wrong", "Feature"):
        drawn, begun = view.value("drawn"), time.perf_counter()
        view.page.get_by_role("radio", name=colouring).click()
        expect(view.map).not_to_have_attribute("data-drawn", drawn)
        recoloured.append(time.perf_counter() - begun)
        assert (view.value("view"), view.n_selected()) == (zoomed, n_selected)
    book = Ledger(workspace)
    book.add_verdict(run.id, int(run.evidence().feature[0]), "", "spurious", "Ada", "digest", "a blob")
    book.close()
    menu = view.page.get_by_test_id("stSidebarNav")
    menu.get_by_role("link", name="Review").click()
    expect(view.page.get_by_role("heading", name="Review", level=1)).to_be_visible()
    menu.get_by_role("link", name="Map").click()
    expect(view.map).to_have_count(1)
    assert (view.value("view"), view.n_selected()) == (zoomed, n_selected)
    expect(view.page.locator(".legend button", has_text="a blob")).to_be_visible()
    assert view.complaints == []

    crops, drags = zip(*times, strict=True)
    report = {
        "regions": N,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "load_s": round(load, 2),
        "mouse_up_to_crops_s": [round(t, 3) for t in crops],
        "mouse_up_to_crops_median_s": round(statistics.median(crops), 3),
        "drag_of_24_steps_median_s": round(statistics.median(drags), 3),
        "recolour_median_s": round(statistics.median(recoloured), 3),
        "paint_ms": float(view.value("paint")),
    }
    with capsys.disabled():
        print(f"\n{json.dumps(report)}")
    if os.environ.get("RAVL_MAP_REPORT"):
        Path(os.environ["RAVL_MAP_REPORT"]).write_text(json.dumps(report, indent=1), encoding="utf-8")


def test_geometry_and_painting_against_the_definition(browser: Callable[..., BrowserContext]) -> None:
    """The pure parts of the component, on a page of their own: simplifying, finding a point, and what is painted."""
    static = Path(packing.__file__).parents[1] / "static"
    code = "".join((static / name).read_text(encoding="utf-8") for name in ("geometry.js", "painting.js"))
    page = browser().pages[0]
    checks = Path(__file__).with_name("map_checks.js").read_text(encoding="utf-8")
    found = page.evaluate(f"() => {{ {code}\n{checks} }}")
    assert found == {"far": [], "cells": [], "wrong": [], "order": [], "ground": True, "painted": True}


@pytest.mark.timeout(180)
def test_the_keyboard_can_do_what_the_mouse_does(
    place: tuple[str, AuditRun, Path], browser: Callable[..., BrowserContext]
) -> None:
    view = MapPage(browser(), place[0], place[1])
    assert view.value("view") == "0.5000 0.5000 1.0000"
    for key, name in (("b", "Box"), ("p", "Move"), ("l", "Lasso")):
        view.press(key)
        expect(view.page.get_by_role("button", name=name, exact=True)).to_have_attribute("aria-pressed", "true")
    view.press("Enter")  # all that is in view
    assert view.n_selected() == N
    expect(view.page.locator(".said")).to_have_text(re.compile(r"^50,000 regions, 500 images, \d+ wrong$"))
    for _ in range(4):
        view.press("+")
    view.press("ArrowRight")
    view.press("ArrowUp")
    x, y, zoom = map(float, view.value("view").split())
    assert x > 0.5
    assert y > 0.5
    assert zoom == pytest.approx(1.5**4, abs=1e-3)
    view.press("Enter")
    expect(view.counts).not_to_have_text(re.compile("50,000"))
    assert 0 < view.n_selected() < N
    view.press("0")
    assert view.value("view") == "0.5000 0.5000 1.0000"
    view.press("Escape")
    expect(view.counts).to_have_count(0)
    expect(view.map).to_have_attribute("data-lifted", "0")
    # the legend is reached and pressed by keys, and keeps the focus when it is drawn anew
    entry = view.page.locator(".legend button").last
    entry.focus()
    entry.press("Space")
    expect(entry).to_have_attribute("aria-pressed", "false")
    expect(entry).to_be_focused()
    noise = int((place[1].feature_label() < 0).sum())
    expect(view.map).to_have_attribute("data-shown", str(N - noise))
    expect(view.page.get_by_text(f"{N - noise:,} of 50,000 regions")).to_be_visible()
    entry.press("Enter")
    expect(view.map).to_have_attribute("data-shown", str(N))
    for button in view.page.locator(".legend button").all()[:3]:  # faster than the page answers: none is lost
        button.evaluate("button => button.click()")
    expect(view.page.locator(".legend button[aria-pressed=false]")).to_have_count(3)
    assert view.complaints == []


@pytest.mark.timeout(180)
def test_a_reload_keeps_the_view_and_another_reader_has_their_own(
    place: tuple[str, AuditRun, Path], browser: Callable[..., BrowserContext]
) -> None:
    first = MapPage(browser(), place[0], place[1])
    n = first.select(0.5, 0.5, 0.1)
    first.page.keyboard.down("Shift")
    more = first.select(0.62, 0.5, 0.06)
    first.page.keyboard.up("Shift")
    assert more > n
    first.press("+")
    zoomed = first.value("view")
    second = MapPage(browser(), place[0], place[1])
    expect(second.page.get_by_text("Nothing is selected.")).to_be_visible()
    assert second.value("view") == "0.5000 0.5000 1.0000"
    other = second.select(0.45, 0.55, 0.06)
    first.page.reload()
    expect(first.map).to_have_count(1)
    assert first.n_selected() == more
    assert first.value("view") == zoomed
    assert second.n_selected() == other != more
    assert first.complaints + second.complaints == []


@pytest.mark.timeout(180)
def test_box_move_hover_and_a_smaller_window(
    place: tuple[str, AuditRun, Path], browser: Callable[..., BrowserContext]
) -> None:
    view = MapPage(browser(color_scheme="dark"), place[0], place[1])
    page = view.page
    page.mouse.move(*view.at(0.5, 0.5))
    page.mouse.move(*view.at(0.505, 0.5))
    card = page.locator(".card")
    expect(card).to_be_visible()
    expect(card.locator("p")).to_have_text(
        re.compile(r"^Region \d+, image \d+\s\w+, called \w+\s(feature \d+|no feature)$")
    )
    expect(card.locator("img")).to_have_attribute("src", re.compile("^data:image/jpeg;base64,"))
    page.get_by_role("button", name="Box", exact=True).click()
    page.mouse.move(*view.at(0.4, 0.4))
    page.mouse.down()
    page.mouse.move(*view.at(0.6, 0.6), steps=4)
    page.mouse.up()
    n = view.n_selected()
    page.get_by_role("button", name="Move", exact=True).click()
    page.mouse.move(*view.at(0.5, 0.5))
    page.mouse.down()
    page.mouse.move(*view.at(0.6, 0.5), steps=4)
    page.mouse.up()
    assert float(view.value("view").split()[0]) < 0.45
    page.mouse.wheel(0, -240)
    expect(view.map).to_have_attribute("data-view", re.compile("2.0000$"))
    assert view.n_selected() == n
    dark = page.evaluate(
        """() => { const c = [...document.querySelectorAll('*')].map(e => e.shadowRoot?.querySelector('.points'))
        .find(Boolean); return [...c.getContext('2d').getImageData(1, 1, 1, 1).data] }"""
    )
    assert max(dark[:3]) < 60
    wide = view.field.bounding_box()
    page.set_viewport_size({"width": 760, "height": 900})
    page.wait_for_function(
        """w => { const c = [...document.querySelectorAll('*')].map(e => e.shadowRoot?.querySelector('.points'))
        .find(Boolean);
        return c.width === Math.round(c.clientWidth * Math.min(2, devicePixelRatio)) && c.width !== w }""",
        arg=round(wide["width"]) if wide else 0,
    )
    assert view.n_selected() == n
    assert view.complaints == []


@pytest.mark.timeout(120)
def test_fingers_draw_and_pinch(place: tuple[str, AuditRun, Path], browser: Callable[..., BrowserContext]) -> None:
    view = MapPage(browser(has_touch=True), place[0], place[1])
    touch = view.page.context.new_cdp_session(view.page)

    def fingers(kind: str, *places: tuple[float, float]) -> None:
        points = [dict(zip("xy", view.at(*spot), strict=True), id=k) for k, spot in enumerate(places)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers("touchStart", (0.4, 0.4))
    for spot in ((0.6, 0.4), (0.6, 0.6), (0.4, 0.6), (0.4, 0.42)):
        fingers("touchMove", spot)
    fingers("touchEnd")
    n = view.n_selected()
    fingers("touchStart", (0.45, 0.5), (0.55, 0.5))
    fingers("touchMove", (0.4, 0.5), (0.6, 0.5))
    fingers("touchMove", (0.3, 0.5), (0.7, 0.5))
    fingers("touchEnd")
    assert float(view.value("view").split()[2]) > 2
    assert view.n_selected() == n
    assert view.complaints == []
