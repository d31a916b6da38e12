"""The README's pictures, of the real demo: `python -m tests.browser.pictures FOLDER` (or `make pictures`).

They are taken on the way that `test_clicks` walks, so what they show is tested whenever the tests run.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect

from tests.browser.test_clicks import walk
from tests.browser.window import SECONDS, Window, demo_workspace, find_browser, opened, served

SIZE = (1280, 720)
COLOURS = 256
LARGEST = 300_000
"""Bytes of a picture."""


def shoot(window: Window, file: Path) -> None:
    """What the window shows; with fewer colours only where it would be too large: they cost the rare ones."""
    window.settle()
    window.page.mouse.move(SIZE[0] - 2, SIZE[1] - 2)
    window.page.wait_for_timeout(1000)  # until what moves has come to rest
    picture = Image.open(io.BytesIO(window.page.screenshot())).convert("RGB")
    picture.save(file, optimize=True)
    if file.stat().st_size > LARGEST:
        picture.quantize(COLOURS, kmeans=2, dither=Image.Dither.NONE).save(file, optimize=True)
    if file.stat().st_size > LARGEST:
        sys.exit(f"{file} has {file.stat().st_size:,} bytes, more than {LARGEST:,}")


def take(window: Window, folder: Path, theme: str) -> None:
    """All pictures of one theme."""
    window.page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]

    def at(name: str) -> None:
        if name == "review":
            shoot(window, folder / f"{name}-{theme}.png")

    walk(window, at)
    window.go("Features")
    expect(window.page.locator(".ravl-cards figure").first).to_be_visible(timeout=60 * SECONDS)
    shoot(window, folder / f"features-{theme}.png")
    window.go("Map")
    window.page.get_by_role("combobox", name="Feature").click()
    window.page.get_by_role("option").first.click()
    expect(window.page.locator(".ravl-cards figure").first).to_be_visible(timeout=60 * SECONDS)
    shoot(window, folder / f"map-{theme}.png")


def main(folder: Path) -> None:
    """Audit the demo, then walk through it once in each theme."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        demo = demo_workspace(Path(place) / "workspace")
        for theme in ("light", "dark"):
            copy = shutil.copytree(demo, Path(place) / theme)
            with (
                served(copy) as address,
                opened(find_browser(), address, Path(place) / f"profile-{theme}", *SIZE) as window,
            ):
                take(window, folder, theme)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
