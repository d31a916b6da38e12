"""The whole loop in a real browser: audit, look, lasso, decide, fine-tune, compare, export."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from ravl.ledger import Ledger, seen_digest
from ravl.store import AuditRun, list_runs
from tests.browser.window import SECONDS, Window

pytestmark = [pytest.mark.browser, pytest.mark.slow]

STEPS = 10


@pytest.mark.timeout(420)
def test_from_the_audit_to_the_repaired_model(window: Window, workspace: Path, some_images: dict[str, Path]) -> None:
    [run] = list_runs(workspace)
    window.open()
    window.button("Open")
    expect(
        window.page.get_by_text(re.compile(r"wrongly called .*, the deciding region looks like this"))
    ).to_be_visible()
    look_at_a_feature(window)
    lasso_the_map(window, run)
    confirm_the_feature(window, workspace, run)
    fine_tune(window, run, some_images)
    export(window, run)
    assert {host for host in window.hosts if host.count(".")} == {"127.0.0.1"}
    assert window.complaints == []


def look_at_a_feature(window: Window) -> None:
    """The ranked table's first feature, its crops, one of them enlarged, and images with and without it."""
    window.go("Features")
    cards = window.page.locator(".ravl-cards figure")
    expect(cards).to_have_count(8)
    assert re.match(
        r"Region \d+ of image \d+: \w+, called \w+", cards.first.locator("img").first.get_attribute("alt") or ""
    )
    expect(cards.first.locator("small")).to_contain_text("contribution +")
    expect(window.page.locator(".ravl-table.wide-4")).to_contain_text("errors go here")
    enlarge(window, cards, pictures=1)
    removal = re.compile(
        r"Of the [\d,]+ wrongly classified images that show it, [\d,al]+ become right when it is removed"
    )
    expect(window.page.get_by_text(removal)).to_be_visible()
    pairs = window.page.locator(".ravl-pairs figure")
    expect(window.page.locator(".ravl-pairs h4").first).to_contain_text("Errors that go: ")
    expect(pairs.first.locator(".said")).to_have_text([re.compile("^✗ called "), re.compile("^✓ called ")])
    enlarge(window, pairs, pictures=2)
    before = pairs.first.locator("img").nth(1).get_attribute("src")
    window.page.get_by_role("radio", name="Painted over").click()
    window.settle()
    expect(window.page.get_by_text("painted in the image's mean colour")).to_be_visible()
    expect(pairs.first.locator("img").nth(1)).not_to_have_attribute("src", before or "")


def enlarge(window: Window, cards: Locator, pictures: int) -> None:
    """A click on a card shows it large; Escape closes it."""
    cards.first.locator("button").click()
    dialog = window.page.get_by_role("dialog")
    expect(dialog.locator("img")).to_have_count(pictures)
    expect(dialog.locator("img").first).to_be_visible()
    window.page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


def lasso_the_map(window: Window, run: AuditRun) -> None:
    """What the page counts inside the lasso is what the map shows as selected; clearing takes it away."""
    window.go("Map")
    field, shown = window.page.locator(".field"), window.page.locator(".map[data-drawn]")
    expect(shown).to_have_attribute("data-shown", str(len(run.regions())), timeout=60 * SECONDS)
    box = field.bounding_box()
    assert box is not None
    turns = [math.tau * step / 16 for step in range(17)]
    path = [
        (box["x"] + box["width"] * (0.5 + 0.45 * math.cos(t)), box["y"] + box["height"] * (0.5 + 0.45 * math.sin(t)))
        for t in turns
    ]
    window.page.mouse.move(*path[0])
    window.page.mouse.down()
    for point in path[1:]:
        window.page.mouse.move(*point)
    window.page.mouse.up()
    counts = window.page.get_by_test_id("stMain").locator("strong", has_text=re.compile(r"regions?, .* images?, "))
    expect(counts).to_be_visible(timeout=60 * SECONDS)
    regions, images, wrong = (int(n.replace(",", "")) for n in re.findall(r"[\d,]*\d", counts.inner_text()))
    expect(shown).to_have_attribute("data-lifted", str(regions))
    assert 0 < regions < len(run.regions())
    assert 0 < wrong <= images <= regions
    expect(window.page.locator(".ravl-cards figure").first).to_be_visible()
    window.button("Clear")
    expect(counts).to_have_count(0)
    expect(shown).to_have_attribute("data-lifted", "0")


def confirm_the_feature(window: Window, workspace: Path, run: AuditRun) -> None:
    """Name, keyboard, ledger; undo and again; a reload keeps audit and feature."""
    feature = int(run.evidence().feature[0])
    window.go("Review")
    window.type("Your name", "Dr. Ada")
    expect(window.page.get_by_text("Deciding as")).to_be_visible(timeout=30 * SECONDS)
    window.type("What it shows", "red square")
    expect(window.page.get_by_role("button", name="Spurious")).to_be_enabled(timeout=30 * SECONDS)
    window.page.wait_for_timeout(1000)  # the text has arrived when the page is still again
    window.page.locator("h1").click()  # the shortcuts sleep while an input has the focus
    ledger = Ledger(workspace)
    undo = window.page.get_by_role("button", name="Undo")
    for key, decisions in (
        ("s", ["spurious"]),
        ("z", ["spurious", "withdrawn"]),
        ("s", ["spurious", "withdrawn", "spurious"]),
    ):
        window.page.keyboard.press(key)
        for _ in range(100):
            if len(ledger.history(run.id)) == len(decisions):
                break
            window.page.wait_for_timeout(100)
        assert [verdict.decision for verdict in ledger.history(run.id)] == decisions
        # the next key counts once the page shows what this one did
        (expect(undo).to_be_enabled if key == "s" else expect(undo).to_be_disabled)()
        window.settle()
    verdict = ledger.verdicts(run.id)[feature]
    ledger.close()
    assert (verdict.name, verdict.reviewer) == ("red square", "Dr. Ada")
    assert verdict.seen == seen_digest((run.feature_label() == feature).nonzero()[0])
    window.page.reload()
    window.settle()
    expect(window.page.get_by_role("heading", name=f"red square (feature {feature})")).to_be_visible()
    assert f"run={run.id}" in window.page.url


def fine_tune(window: Window, run: AuditRun, some_images: dict[str, Path]) -> None:
    """A short fine-tuning, left and found again, until before and after are there."""
    window.go("Repair")
    expect(window.page.get_by_role("button", name="Start fine-tuning")).to_be_visible()
    window.type("Training images", str(some_images["train"]), hurried=True)
    window.type("Test images for the comparison", str(some_images["test"]), hurried=True)
    window.type("Steps", str(STEPS), role="spinbutton", hurried=True)
    window.type("Images per step", "16", role="spinbutton", hurried=True)
    window.button("Start fine-tuning")  # faster than the page is drawn: what was typed last is what counts
    expect(window.page.get_by_text("Fine-tuning “ravl” of demo").first).to_be_visible()
    window.go("Overview")
    window.page.reload()  # the job is a process of its own
    window.go("Repair")
    expect(window.page.get_by_role("heading", name="Before and after")).to_be_visible(timeout=240 * SECONDS)
    expect(window.page.get_by_text(re.compile(r"test images, before on [\d,]+ of 120"))).to_be_visible()
    expect(window.page.get_by_text("The repaired model was audited with the settings of this audit")).to_be_visible(
        timeout=240 * SECONDS
    )
    folder = run.mitigation("ravl")
    assert folder.finished
    expect(window.page.get_by_text(str(folder.model))).to_be_visible()
    assert (folder.model / "config.json").exists()


def export(window: Window, run: AuditRun) -> None:
    """The downloaded list names the confirmed feature and all of its regions."""
    window.go("Export")
    with window.page.expect_download() as download:
        window.page.get_by_role("button", name="Download JSON").click()
    document = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert document["run"]["id"] == run.id
    [feature] = document["features"]
    members = (run.feature_label() == feature["feature"]).nonzero()[0]
    assert (feature["name"], feature["reviewer"], feature["seen_matches"]) == ("red square", "Dr. Ada", True)
    assert [region["region"] for region in feature["regions"]] == members.tolist()
