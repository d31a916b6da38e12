"""A killed worker in a real browser: it is said to be lost, and Resume ends what it began, the second audit too."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from playwright.sync_api import expect

from ravl.ledger import Job, Ledger
from ravl.repair import digests
from ravl.store import AuditRun, list_runs, origin_of
from tests.browser.window import SECONDS, Window

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.mark.timeout(600)
def test_a_killed_worker_is_lost_and_resumed(window: Window, workspace: Path, some_images: dict[str, Path]) -> None:
    [run] = list_runs(workspace)
    book = Ledger(workspace)
    feature = int(run.evidence().feature[0])
    book.add_verdict(run.id, feature, "nine", "spurious", "Ada", digests(run, [feature])[feature], "red square")
    window.open(f"repair?run={run.id}")
    expect(window.page.get_by_text("of memory")).to_be_visible(timeout=120 * SECONDS)  # the device was found
    window.type("Training images", str(some_images["train"]))
    window.type("Test images for the comparison", str(some_images["test"]))
    window.type("Steps", "60", role="spinbutton")
    window.type("Images per step", "16", role="spinbutton")
    window.button("Start fine-tuning")
    for stage in ("training", "clusters"):  # of the repair, then of the second audit
        kill(window, book, stage)
        expect(window.page.get_by_text("– lost")).to_be_visible(timeout=60 * SECONDS)
        before_and_after = window.page.get_by_role("heading", name="Before and after")
        expect(before_and_after).to_have_count(0 if stage == "training" else 1)
        window.button("Resume")
        expect(window.page.get_by_role("button", name="Cancel")).to_be_visible(timeout=60 * SECONDS)
    again = window.page.get_by_text("The repaired model was audited with the settings of this audit")
    expect(again).to_be_visible(timeout=240 * SECONDS)
    second = AuditRun(run.path.parent / str(run.mitigation("ravl").audit))
    assert second.finished
    origin = origin_of(second.path)
    assert origin is not None
    assert (origin.run, origin.mitigation) == (run.id, "ravl")
    window.page.get_by_role("link", name="Open the audit of the repaired model").click()
    expect(window.page).to_have_url(re.compile(re.escape(f"run={second.id}")), timeout=60 * SECONDS)
    book.close()
    assert window.complaints == []


def kill(window: Window, book: Ledger, stage: str) -> None:
    """End the worker's process without a word, in a stage."""
    for _ in range(2400):
        job: Job | None = next(iter(book.jobs()), None)  # none yet: the page is still starting it
        if job is not None and job.stage == stage and job.pid is not None:
            os.kill(job.pid, signal.SIGKILL)
            return
        assert job is None or job.active, job.reason
        window.page.wait_for_timeout(50)
    pytest.fail(f"no job came to the stage {stage}")
