"""Repair: setting up a fine-tuning, watching it, and what it changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dashboard import jobs
from ravl.ledger import Ledger
from ravl.store import AuditRun
from tests.dashboard.conftest import make_mitigation, make_run
from tests.dashboard.screen import alive, button, checked, html, open_app, said


def test_repair_needs_a_confirmed_feature(run: AuditRun) -> None:
    app = open_app("repair")
    assert "No feature is confirmed as **spurious** yet" in said(app)
    assert [link.label for link in app.get("page_link")] == ["Decide on the features"]


def test_repair_starts_a_job(
    run: AuditRun, confirm: Callable[[], None], template: Path, started: list[list[str]]
) -> None:
    confirm()
    app = open_app("repair")
    assert button(app, "start-tuning").disabled
    assert "Give a folder or a manifest of training images." in said(app)
    app.text_input(key=f"tune-train-{run.id}").input(str(template / "images"))
    app.number_input(key="tune-steps").set_value(20)
    button(app.run(), "start-tuning").click().run()
    assert started == [
        [
            *("mitigate", f"--run={run.id}", "--name=ravl", f"--images={template / 'images'}", "--method=ravl"),
            *("--features=1", "--steps=20", "--batch-size=128"),
        ]
    ]
    assert "waiting to start" in said(checked(app))


def test_repair_says_what_to_expect_of_the_chosen_features(run: AuditRun, confirm: Callable[[], None]) -> None:
    confirm()
    app = open_app("repair")
    text = said(app)
    assert "If this feature were invisible, the model would be right on **53 of 60 (88%)** images" in text
    assert "In the worst group, *cat with red square*, it would be right on **12 of 12 (100%)**" in text
    assert "Measured before any training: 27 images classified again" in text
    app.checkbox(key=f"treat-{run.id}-1").uncheck().run()
    assert "invisible" not in said(checked(app))


def test_repair_of_no_feature_is_refused(run: AuditRun, confirm: Callable[[], None], template: Path) -> None:
    confirm()
    app = open_app("repair")
    app.text_input(key=f"tune-train-{run.id}").input(str(template / "images"))
    app.checkbox(key=f"treat-{run.id}-1").uncheck().run()
    assert button(app, "start-tuning").disabled
    assert "Choose at least one confirmed feature." in said(app)
    app.selectbox(key="tune-method").select("standard").run()
    assert not button(checked(app), "start-tuning").disabled


def test_repair_prefills_the_demo(workspace: Path, template: Path, book: Ledger) -> None:
    shutil.rmtree(workspace / "runs")
    shutil.copytree(template / "images", workspace / "demo-data" / "val")
    demo = make_run(workspace, workspace / "demo-data" / "val", name="demo")
    book.add_verdict(demo.id, 1, "eel", "spurious", "Ada", "d")
    app = open_app("repair")
    assert app.text_input(key=f"tune-train-{demo.id}").value == str(workspace / "demo-data" / "train")
    assert app.text_input(key=f"tune-test-{demo.id}").value == str(workspace / "demo-data" / "test")


def test_repair_shows_before_and_after(run: AuditRun, confirm: Callable[[], None], started: list[list[str]]) -> None:
    confirm()
    make_mitigation(run)
    app = open_app("repair")
    text = said(app)
    assert "**55 of 60 (92%)** test images" in text
    assert "**1 group got worse.**" in text
    assert [(m.label.replace("\\", ""), m.value, m.delta) for m in app.metric] == [
        ("All test images", "92%", "+22 points"),
        ("Was the worst: cat with feature 1", "92%", "+92 points"),
        ("Is now the worst: eel with feature 1", "83%", "-17 points"),
    ]
    assert [code.value for code in app.code] == [str(run.mitigation("ravl").model)]
    assert "10 of 12" in html(app)
    assert len(app.get("plotly_chart")) == 2
    button(app, "reaudit-ravl").click().run()
    assert started[0][:2] == ["discover", "--name=small-after-ravl"]
    checked(app)


def test_repair_while_it_trains(run: AuditRun, book: Ledger, confirm: Callable[[], None]) -> None:
    confirm()
    make_mitigation(run, finished=False)
    job = book.add_job("mitigate", "Fine-tuning", ["mitigate", "--name=ravl"], "local", run.id)
    book.update_job(job.id, status="running", stage="training", done=5, total=20, **alive())
    app = open_app("repair")
    assert "Fine-tuning** – running" in said(app)
    assert len(app.get("plotly_chart")) == 2
    assert button(app, "start-tuning").disabled
    assert "Before and after" not in said(app)


def test_repair_that_was_cut_short_can_be_resumed(
    run: AuditRun, book: Ledger, confirm: Callable[[], None], started: list[list[str]]
) -> None:
    confirm()
    make_mitigation(run, finished=False)
    job = book.add_job("mitigate", "Fine-tuning", ["mitigate", "--name=ravl"], "local", run.id)
    book.end_job(job.id, "failed", "out of memory")
    app = open_app("repair")
    assert "Out of memory" in said(app)
    button(app, f"resume-{job.id}").click().run()
    assert started == [["mitigate", "--name=ravl"]]
    checked(app)


def test_cancel_asks_the_job_to_stop(run: AuditRun, book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(jobs, "cancel", lambda ledger, job: asked.append(job.id))
    job = book.add_job("mitigate", "Fine-tuning", ["mitigate", "--name=ravl"], "local", run.id)
    book.update_job(job.id, status="running", **alive())
    app = open_app("repair")
    button(app, f"cancel-{job.id}").click().run()
    assert asked == [job.id]
    assert button(checked(app), f"cancel-{job.id}").label == "Stopping …"
