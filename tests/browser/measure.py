"""How long one waits for the screen, and how much memory the server takes: `make bench-screen`.

Real servers and a real browser; what is timed is timed in the browser, from a click, a key or the beginning of a
navigation to the frame after the one in which all that was waited for stood there. Nothing is asserted. In each round
the server, the browser's profile and the workspace are new, and an empty page of Streamlit is measured beside them, so
that numbers of different machines can be read as ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError
from playwright.sync_api import expect, sync_playwright

from dashboard.serving.server import OPTIONS, environment
from ravl.benchmark.provenance import commit, machine
from ravl.store import list_runs, writing
from tests.browser import measured, serving
from tests.browser.large import write_large_run
from tests.browser.measured import AGAIN, DECISION, EMPTY, FILE, FIRST, LASSO, MEMORY, PAINT
from tests.browser.serving import Server, find_browser
from tests.browser.test_map import MapPage, lassoes, timed
from tests.browser.test_review import announce
from tests.browser.window import SECONDS, Window, demo_workspace, opened

ROOT = Path(__file__).parents[2]
PAUSE = 500
"""Milliseconds that a reader looks at a page before the next click."""

LASSOED = 50_000
"""Regions of the run on which lassoes are timed."""

MAIN = "[data-testid=stMain]"
PARTS = {
    "Start": ("Audits", '[class*="st-key-open-"] button', ".st-key-start-audit button"),
    "Overview": ("Overview", ".ravl-strip img", ".st-key-go-next", '[aria-label="What was audited"]'),
    "Features": ("Features", "[data-testid=stDataFrame] canvas", "figure img", ".st-key-numbers", ".st-key-family"),
    "Map": ("Map", ".map[data-drawn] canvas", ".st-key-map-side"),
    "Review": ("Review", "figure img", ".st-key-decide-unsure", '[data-testid="stTextArea"]', ".ravl-keys"),
    "Repair": ("Repair", ".ravl-strip img", ".st-key-start-tuning button"),
    "Export": ("Export", '[class*="st-key-confirmed-"] img', ".st-key-row-log", "[data-testid=stDataFrame] canvas"),
}
"""Of each page of the menu, in the order in which they are visited: its heading, and what must be seen on it."""

# Watches for what is waited for, in every frame, also within the components; `spent` counts milliseconds.
WATCH = """
window.ravl = (() => {
  const every = (selector, root = document) => [...root.querySelectorAll(selector),
    ...[...root.querySelectorAll('*')].flatMap((e) => (e.shadowRoot ? every(selector, e.shadowRoot) : []))];
  const seen = (e) => e.checkVisibility({ opacityProperty: true, visibilityProperty: true })
    && e.getBoundingClientRect().height > 0;
  const main = () => document.querySelector('[data-testid=stMain]');
  const rests = () => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning';
  const whole = () => every('img', main()).every((image) => image.complete);
  const watch = { spent: null };
  watch.tell = () => [main()?.querySelector('h3')?.innerText, every('figure img', main())[0]?.src];
  watch.missing = ([title, ...parts]) => parts.filter((part) => !every(part, main()).some(seen));
  watch.page = ([title, ...parts]) => main()?.querySelector('h1')?.innerText.trim() === title
    && watch.missing([title, ...parts]).length === 0 && whole();
  watch.rested = (page) => rests() && watch.page(page);
  watch.text = (text) => main()?.innerText.includes(text);
  watch.next = (old) => { const now = watch.tell();
    return now[0] && now[1] && now[0] !== old[0] && now[1] !== old[1] && whole(); };
  watch.until = (name, argument, begun = 0) => { const look = () => { if (watch[name](argument))
    requestAnimationFrame(() => { watch.spent = performance.now() - begun; }); else requestAnimationFrame(look); };
    look(); };
  watch.after = (kind, name, argument) => { watch.spent = null;
    addEventListener(kind, () => watch.until(name, argument, performance.now()), { once: true, capture: true }); };
  return watch;
})();
"""


def spent(window: Window) -> float:
    """Seconds that were waited, once the waiting is over."""
    window.page.wait_for_function("() => window.ravl.spent !== null", timeout=120 * SECONDS)
    return float(window.page.evaluate("() => window.ravl.spent")) / 1000


def painted(window: Window, address: str, test: str, wanted: object) -> float:
    """Seconds from the beginning of the navigation to an address until `test` holds."""
    window.page.add_init_script(f"{WATCH}\nwindow.ravl.until({json.dumps(test)}, {json.dumps(wanted)});")
    window.page.goto(address, wait_until="commit")
    return spent(window)


def visited(window: Window, title: str) -> float:
    """Seconds from a click in the menu until the page is whole and the server rests."""
    window.page.wait_for_timeout(PAUSE)
    window.page.evaluate("wanted => window.ravl.after('click', 'rested', wanted)", list(PARTS[title]))
    window.page.get_by_test_id("stSidebarNav").get_by_role("link", name=title).click()
    try:
        return spent(window)
    except PlaywrightTimeoutError as error:
        missing = window.page.evaluate("wanted => window.ravl.missing(wanted)", list(PARTS[title]))
        raise RuntimeError(f"{title} must show {', '.join(PARTS[title][1:])}, but it lacks {missing}.") from error


def decided(window: Window, n: int) -> list[float]:
    """Seconds from the key of a decision until the next feature and its crops stand there, for n decisions."""
    announce(window, "Dr. Ada")
    window.page.get_by_test_id("stMain").get_by_text("Only flagged").click()
    window.settle()
    found = []
    for _ in range(n):
        window.page.wait_for_timeout(PAUSE)
        window.page.locator("h1").click()  # no field has the focus
        window.page.evaluate("() => window.ravl.after('keydown', 'next', window.ravl.tell())")
        window.page.keyboard.press("s")
        found.append(spent(window))
    window.settle()
    return found


def weighed(server: Server) -> float:
    """Megabytes of the server's process that are resident, what it maps included."""
    return float(psutil.Process(server.pid).memory_info().rss) / 1e6


def hello(folder: Path) -> AbstractContextManager[Server]:
    """A server of an empty page, with the dashboard's options."""
    script = folder / "hello.py"
    script.write_text('import streamlit as st\n\nst.write("hello")\n', encoding="utf-8")

    def command(port: int) -> list[str]:
        options = [f"--{name}={value}" for name, value in OPTIONS]
        address = ["--server.address=127.0.0.1", f"--server.port={port}"]
        return [sys.executable, "-m", "streamlit", "run", str(script), *address, *options]

    return serving.answering(command, environment(), folder / "hello.log")


class Found(defaultdict[tuple[str, str], list[float]]):
    """Measured values, by what was measured of what."""

    def __init__(self) -> None:
        super().__init__(list)

    def note(self, what: str, of: str, *values: float) -> None:
        """Keep values and show that it goes on."""
        self[what, of] += values
        print(f"{what}, {of}: {', '.join(f'{value:.3g}' for value in values)}", file=sys.stderr, flush=True)


def round_of_the_demo(found: Found, browser: str, demo: Path, folder: Path) -> None:
    """An empty page; then, with a new server, profile and ledger, all pages of the demo twice, and its decisions."""
    with hello(folder) as server, opened(browser, server.address, folder / "hello-profile") as window:
        found.note(PAINT, EMPTY, painted(window, server.address, "text", "hello"))
        found.note(MEMORY, EMPTY, weighed(server))
    workspace = Path(shutil.copytree(demo, folder / "workspace"))
    [run] = list_runs(workspace)
    with serving.dashboard(workspace) as server, opened(browser, server.address, folder / "profile") as window:
        # heading and row of the audit; that the rest of the page is there is timed at a later visit
        found.note(PAINT, "the demo", painted(window, server.address, "page", list(PARTS["Start"][:2])))
        window.settle()
        for what in (FIRST, AGAIN):
            for title in [*list(PARTS)[1:], "Start"]:
                if what == FIRST and title == "Start":
                    continue  # it was painted first
                found.note(what, title, visited(window, title))
                if what == FIRST and title == "Review":
                    found.note(DECISION, "the demo", *decided(window, len(run.evidence()) - 1))
                if title == "Repair":  # a process of its own looks for a device, once
                    expect(window.page.get_by_text("Looking for a device")).to_have_count(0)
        found.note(MEMORY, "the demo, all pages visited", weighed(server))


def lasso(found: Found, browser: str, folder: Path, n: int) -> None:
    """Lassoes on a run of LASSOED regions."""
    folder.mkdir()
    run = write_large_run(folder, LASSOED)
    with serving.dashboard(folder) as server, opened(browser, server.address, folder / "profile", 1280, 720) as window:
        view = MapPage(window.page.context, server.address, run)
        view.page.wait_for_timeout(1000)
        found.note(LASSO, f"{LASSOED:,} regions", *(seconds for seconds, _ in lassoes(view, n)))


def memory(found: Found, browser: str, folder: Path, n_regions: int) -> None:
    """The server's memory while a person goes through a run of n_regions, and the most that it ever took."""
    folder.mkdir()
    begun = time.perf_counter()
    run = write_large_run(folder, n_regions)
    print(f"a run of {n_regions:,} regions, made in {time.perf_counter() - begun:.0f} s", file=sys.stderr)
    of = f"{n_regions:,} regions"
    with serving.dashboard(folder) as server, opened(browser, server.address, folder / "profile", 1280, 720) as window:
        for title in ("Overview", "Features"):
            window.open(f"{title.lower()}?run={run.id}")
            window.page.wait_for_timeout(PAUSE)
            found.note(MEMORY, f"{of}, {title}", weighed(server))
        view = MapPage(window.page.context, server.address, run)
        window.settle()
        found.note(MEMORY, f"{of}, Map", weighed(server))
        timed(view, 0.5, 0.5, 0.2)
        found.note(MEMORY, f"{of}, Map with a selection", weighed(server))
        if (status := Path(f"/proc/{server.pid}/status")).exists():
            kilobytes = status.read_text().partition("VmHWM:")[2].split()[0]
            found.note(MEMORY, f"{of}, at its highest", int(kilobytes) * 1024 / 1e6)


def about(browser: str, options: argparse.Namespace) -> dict[str, Any]:
    """By what, where and how it was measured."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=serving.ARGUMENTS)
        name = f"Chromium {chromium.version}"
        chromium.close()
    return {
        "commit": commit(ROOT / "dashboard", ROOT / "tests" / "browser"),
        "machine": machine(),
        "versions": {"streamlit": version("streamlit"), "browser": name},
        "load_average_before": round(os.getloadavg()[0], 2),
        "rounds": options.rounds,
        "lassoed": LASSOED,
        "regions": options.regions,
    }


def main() -> None:
    """Measure, print the table, and write the file; the committed one puts its sentence into the README."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser.measure", description="How long one waits.")
    parser.add_argument("--rounds", type=int, default=5, help="servers that are started (%(default)s)")
    parser.add_argument("--lassoes", type=int, default=9, help="(%(default)s)")
    parser.add_argument("--regions", type=int, default=1_000_000, help="of the run that memory is for (%(default)s)")
    parser.add_argument("--demo", type=Path, metavar="WORKSPACE", help="with the audited demo (default: audit it)")
    parser.add_argument(
        "--out", type=Path, default=ROOT / FILE, metavar="FILE", help=f"(default: {FILE}, and the README)"
    )
    options = parser.parse_args()
    browser, found = find_browser(), Found()
    told = about(browser, options)
    expect.set_options(timeout=60 * SECONDS)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        demo = options.demo or demo_workspace(Path(place) / "demo")
        for number in range(options.rounds):
            folder = Path(place) / f"round-{number}"
            folder.mkdir()
            round_of_the_demo(found, browser, demo, folder)
        lasso(found, browser, Path(place) / "lasso", options.lassoes)
        memory(found, browser, Path(place) / "memory", options.regions)
    rows = [measured.row(what, of, values) for (what, of), values in found.items()]
    rows.sort(key=lambda row: list(measured.GOALS).index(row.what))
    print(measured.table(rows))
    options.out.write_text(json.dumps(measured.document(rows, told), indent=1) + "\n", encoding="utf-8")
    if options.out == ROOT / FILE:
        readme = ROOT / "README.md"
        text = measured.with_sentence(readme.read_text(encoding="utf-8"), ROOT)
        with writing(readme) as partial:
            partial.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
