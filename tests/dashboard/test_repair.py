"""Repair: setting up a fine-tuning, watching it, and what it changed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from streamlit.testing.v1 import AppTest

from dashboard.screen import repair_panels
from dashboard.serving import jobs, readiness
from dashboard.serving.readiness import Need, Probe
from ravl.config import NO_MODEL, MitigationConfig
from ravl.data import Reading, read_images
from ravl.ledger import Ledger, seen_digest
from ravl.store import AuditRun
from tests.dashboard.conftest import make_mitigation, make_run
from tests.dashboard.screen import alive, button, checked, html, open_app, said


def test_repair_needs_a_confirmed_feature(run: AuditRun) -> None:
    app = open_app("repair")
    assert "No feature is confirmed as **spurious** yet" in said(app)
    assert [link.label for link in app.get("page_link")] == ["Decide on the features"]


def test_an_audit_without_features_has_nothing_to_repair_or_hand_over(workspace: Path, template: Path) -> None:
    shutil.rmtree(workspace / "runs")
    make_run(workspace, template / "images", noise=True, tested=())
    for view in ("repair", "export"):
        app = open_app(view)
        assert "This audit found no features, so there is nothing to" in said(app)
        assert [link.label for link in app.get("page_link")] == ["To the overview"]
    assert "can be made a feature" in said(open_app("overview"))
    app = open_app("region_map")
    assert "or choose a feature" not in said(app)
    assert not [box for box in app.selectbox if box.label == "Feature"]


def test_an_audit_without_a_model_has_nothing_to_repair(workspace: Path, template: Path) -> None:
    made = make_run(workspace, template / "images", name="given", model=NO_MODEL)
    app = open_app("repair", run=made.id)
    assert "there is no model to fine-tune" in said(app)
    assert "start-tuning" not in [item.key for item in app.button]


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


def test_repair_shows_before_and_after(run: AuditRun, confirm: Callable[[], None]) -> None:
    confirm()
    make_mitigation(run)
    app = open_app("repair")
    text = said(app)
    assert "**53 of 60 (88%)** test images" in text
    assert "**1 group got worse**, which chance may explain: *eel with red *square**, from 12 of 12 (100%)" in text
    assert [(m.label.replace("\\", ""), m.value, m.delta) for m in app.metric] == [
        ("All test images", "88%", "+18 points"),
        ("Was the worst, is now the second worst: cat with red *square*", "92%", "+92 points"),
        ("Is now the worst: eel with red *square*", "83%", "-17 points"),
    ]
    assert [code.value for code in app.code] == [str(run.mitigation("ravl").model)]
    page = html(app)
    for part in ("10 of 12", "was the second worst", "may be chance"):
        assert part in page
    assert "where it shows, **11 of 15 (73%)** errors are right now, and 2 of 12 (17%) right answers are lost" in text
    assert "were called *eel* in 15 of 15 (100%), now in **4 of 15 (27%)**" in text
    assert "of the 213 regions of no treated feature **213 (100%)** get the class" in text
    assert "On images that show no treated feature it is right on **32 of 33 (97%)**" in text
    assert len(app.get("plotly_chart")) == 2
    assert "The weights whose worst group is best are kept." in text


def test_a_curve_without_a_point_is_promised(run: AuditRun, confirm: Callable[[], None]) -> None:
    confirm()
    make_mitigation(run, finished=False)
    run.mitigation("ravl").write_log([{"step": 0.0, "overall": 0.7, "worst_group": 0.2}])
    app = open_app("repair")
    assert len(app.get("plotly_chart")) == 1
    assert "The loss is shown after the first steps." in said(app)


def test_repair_shows_the_images_that_changed(run: AuditRun, confirm: Callable[[], None], template: Path) -> None:
    confirm()
    make_mitigation(run)
    app = open_app("repair")
    text = said(app)
    assert "2 images became wrong" in text
    assert "13 images became right, 12 of them shown" in text
    galleries = changed_galleries(app)
    assert [page.count("<figure>") for page in galleries] == [2, 12]
    assert "✓</span> eel → <span" in galleries[0]
    assert "is eel" in galleries[0]
    assert "data:image/jpeg" in galleries[1]
    button(app, "all-changed-True-ravl").click().run()
    assert [page.count("<figure>") for page in changed_galleries(checked(app))] == [2, 13]


def test_images_with_hidden_names_are_shown(run: AuditRun, confirm: Callable[[], None], template: Path) -> None:
    """DICOM files always have pseudonyms: the name that is kept is no path."""
    confirm()
    make_mitigation(run)
    hidden = read_images(template / "images", reading=Reading(salt="ab" * 32, hide_names=True))
    assert not any((template / "images" / name).exists() for name in hidden.file)
    run.mitigation("ravl").save_images(hidden)
    galleries = changed_galleries(open_app("repair"))
    assert [page.count("data:image/jpeg") for page in galleries] == [2, 12]
    assert not any("no longer" in page for page in galleries)


def test_an_image_that_is_gone_is_said(workspace: Path, book: Ledger, tmp_path: Path, template: Path) -> None:
    shutil.rmtree(workspace / "runs")
    shutil.copytree(template / "images", tmp_path / "own")
    own = make_run(workspace, tmp_path / "own")
    book.add_verdict(own.id, 1, "eel", "spurious", "Ada", "d")
    make_mitigation(own)
    (tmp_path / "own" / "eel" / "00.png").unlink()
    galleries = changed_galleries(open_app("repair"))
    assert galleries[0].count("no longer where it was") == 1
    shutil.rmtree(tmp_path / "own" / "eel")
    (tmp_path / "own" / "eel").write_bytes(b"")  # a folder that became a file cannot be asked for its files
    assert "cannot be reached (Not a directory)" in changed_galleries(open_app("repair"))[0]


def changed_galleries(app: AppTest) -> list[str]:
    """The HTML of the galleries of changed images, as their component gets it."""
    pages = [element.proto.json for element in app.get("bidi_component")]
    return [json.loads(page)["html"] for page in pages if "ravl-changed" in page]


def test_what_grew_is_in_red_words_and_at_the_top(run: AuditRun, confirm: Callable[[], None]) -> None:
    confirm()
    make_mitigation(run)
    app = open_app("repair")
    text = said(app)
    red = [line for line in text.splitlines() if line.startswith(":red[")]
    assert len(red) == 2
    assert "In the audit of the repaired model, 1 feature grew, or is new and flagged." in red[0]
    assert "**Grew: Feature 2**, which pulls to dog *. It decides 10 errors now, before 0, of 60 images" in red[1]
    assert text.index(red[0]) < text.index("1 group got worse")
    assert "**Smaller, but still flagged: red *square* (feature 1)**" in text
    assert "No feature grew" not in text
    assert "Every feature of both audits (3)" in [expander.label for expander in app.expander]
    assert "The audit small-after-ravl-x is no longer in this workspace." in text


def test_that_nothing_grew_is_said_with_what_it_does_not_prove(run: AuditRun, confirm: Callable[[], None]) -> None:
    confirm()
    make_mitigation(run)
    folder = run.mitigation("ravl")
    part = folder.result["reaudit"]
    calm = [{**row, "worse": False, "status": "same"} for row in part["features"]]
    folder.save_result({**folder.result, "reaudit": {**part, "features": calm}})
    text = said(open_app("repair"))
    assert "**No feature grew beyond chance, and none is newly flagged.** That does not prove that no shortcut" in text
    assert ":red[" not in text


def test_both_audits_lead_to_each_other(run: AuditRun, workspace: Path, template: Path, book: Ledger) -> None:
    book.add_verdict(run.id, 1, "eel", "spurious", "Ada", "d")
    make_mitigation(run)
    other = make_run(workspace, template / "images", name="small-after-ravl")
    folder = run.mitigation("ravl")
    part = {**folder.result["reaudit"], "run": other.id}
    folder.save_result({**folder.result, "reaudit": part})
    folder.link(other.path)
    app = open_app("repair", run=run.id)
    [link] = [link for link in app.get("page_link") if "audit of the repaired model" in link.label]
    assert f"run={other.id}" in link.query_string
    assert "merged or split since" not in said(app)
    folder.save_result({**folder.result, "reaudit": {**part, "revisions": [0, 1]}})
    assert "merged or split since both audits were compared" in said(open_app("repair", run=run.id))
    app = open_app("repair", run=other.id)
    assert "This audit is of a repaired model: fine-tuning *ravl* of the audit *small* made it." in said(app)
    assert f"run={run.id}" in app.get("page_link")[0].query_string


def test_a_repair_without_second_audit_can_make_up_for_it(
    run: AuditRun, confirm: Callable[[], None], started: list[list[str]]
) -> None:
    confirm()
    make_mitigation(run, audited=False)
    app = open_app("repair")
    assert "Not done yet. Removing one shortcut can strengthen another" in said(app)
    button(app, "reaudit-ravl").click().run()
    assert started == [
        [
            *("mitigate", f"--run={run.id}", "--name=ravl", "--images=/train", "--method=ravl", "--features=1"),
            *("--steps=20", "--batch-size=8"),
        ]
    ]
    checked(app)


def test_before_and_after_are_shown_while_the_second_audit_runs(
    run: AuditRun, book: Ledger, confirm: Callable[[], None]
) -> None:
    confirm()
    make_mitigation(run, audited=False)
    job = book.add_job("mitigate", "Fine-tuning", ["mitigate", "--name=ravl"], "local", run.id)
    book.update_job(job.id, status="running", stage="clusters", done=0, total=1, **alive())
    app = open_app("repair")
    assert "Clustering regions" in html(app) + "".join(str(bar.proto.text) for bar in app.get("progress"))
    assert "Before and after" in said(app)
    assert "Not done yet" not in said(app)


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
    assert [error.value for error in app.error] == ["Out of memory"]
    button(app, f"resume-{job.id}").click().run()
    assert started == [["mitigate", "--name=ravl"]]
    checked(app)


def test_a_worker_that_was_killed_is_lost_and_can_be_resumed(
    run: AuditRun, book: Ledger, confirm: Callable[[], None], started: list[list[str]]
) -> None:
    confirm()
    make_mitigation(run, finished=False)
    job = book.add_job("mitigate", "Fine-tuning", ["mitigate", "--name=ravl"], "local", run.id)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as worker:
        begun = psutil.Process(worker.pid).create_time()
        book.update_job(job.id, status="running", stage="training", pid=worker.pid, pid_started=begun)
        assert "running" in said(open_app("repair"))
        worker.kill()
        worker.wait()
    app = open_app("repair")
    assert "Fine-tuning** – lost" in said(app)
    assert "Its process ended without a word" in plain_of(app.warning[0].value)
    button(app, f"resume-{job.id}").click().run()
    assert started == [["mitigate", "--name=ravl"]]


def plain_of(text: str) -> str:
    return text.replace("\\", "")


def test_a_repair_of_the_command_line_can_be_continued(
    run: AuditRun, confirm: Callable[[], None], started: list[list[str]]
) -> None:
    confirm()
    make_mitigation(run, finished=False)
    app = open_app("repair")
    assert "ravl is not finished. What it has done so far is kept." in said(app)
    button(app, "continue-ravl").click().run()
    assert started[0][:4] == ["mitigate", f"--run={run.id}", "--name=ravl", "--images=/train"]


def test_device_and_memory_are_said_before_it_starts(
    run: AuditRun, confirm: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    confirm()
    asked: list[MitigationConfig] = []

    def wanted(model: str, *rest: Any) -> Need:
        asked.append(rest[3])
        return Need(10**9 if rest[3].micro_batch == 4 else 10**15)

    monkeypatch.setattr(readiness, "need", wanted)
    app = open_app("repair")
    text = said(app)
    assert "It will run on **the processor alone (CPU)**. A step needs about **1000000.0 GB** of memory" in text
    assert [line for line in text.splitlines() if "That is more than is free" in line]
    app.number_input(key="tune-micro").set_value(4)
    text = said(app.run())
    assert "A step needs about **1.0 GB** of memory" in text
    assert "more than is free" not in text
    assert asked[-1].micro_batch == 4


def test_a_device_that_is_not_known_yet(run: AuditRun, confirm: Callable[[], None], monkeypatch: Any) -> None:
    confirm()
    monkeypatch.setattr(Probe, "_ask", lambda probe, workspace: None)
    assert "Looking whether this machine has a GPU …" in said(open_app("repair"))
    monkeypatch.setattr(Probe, "_ask", lambda probe, workspace: setattr(probe, "problem", "no answer"))
    repair_panels.probe.clear()
    assert "No answer" in said(open_app("repair"))


def test_every_setting_reaches_the_command(
    run: AuditRun, confirm: Callable[[], None], template: Path, started: list[list[str]]
) -> None:
    confirm()
    app = open_app("repair")
    app.text_input(key=f"tune-train-{run.id}").input(str(template / "images"))
    for key, value in (("lr", 1e-4), ("micro", 4), ("lora", 8), ("patience", 2), ("share", 0.5), ("seed", 7)):
        app.number_input(key=f"tune-{key}").set_value(value)
    app.selectbox(key="tune-precision").select("fp32")
    app.selectbox(key="tune-families").select("top")
    app.checkbox(key="tune-reaudit").uncheck()
    button(app.run(), "start-tuning").click().run()
    assert set(started[0][8:]) == {
        *("--lr=0.0001", "--micro-batch=4", "--lora-rank=8", "--patience=2", "--region-share=0.5", "--seed=7"),
        *("--precision=fp32", "--families=top", "--no-reaudit"),
    }


def test_a_decision_about_other_regions_is_chosen_by_hand_only(
    run: AuditRun, book: Ledger, confirm: Callable[[], None]
) -> None:
    confirm()
    book.add_verdict(run.id, 2, "", "spurious", "Ada", "of others", "corner")
    app = open_app("repair")
    boxes = {str(box.key): box.value for box in app.checkbox if str(box.key).startswith("treat-")}
    assert boxes == {f"treat-{run.id}-1": True, f"treat-again-{run.id}-2": False}
    assert said(app).count("Its regions are not those that the decision was about, so it is not chosen.") == 1
    app.checkbox(key=f"treat-again-{run.id}-2").check().run()
    assert checked(app).checkbox(key=f"treat-again-{run.id}-2").value


def test_several_features_are_treated_at_once(
    run: AuditRun, book: Ledger, confirm: Callable[[], None], template: Path, started: list[list[str]]
) -> None:
    confirm()
    seen = seen_digest(np.flatnonzero(run.feature_label() == 2))
    book.add_verdict(run.id, 2, "", "spurious", "Ada", seen, "corner")
    app = open_app("repair")
    assert [box.value for box in app.checkbox if str(box.key).startswith("treat-")] == [True, True]
    app.text_input(key=f"tune-train-{run.id}").input(str(template / "images"))
    button(app.run(), "start-tuning").click().run()
    assert "--features=1,2" in started[0]


def test_what_was_just_started_is_what_is_shown(run: AuditRun, book: Ledger, confirm: Callable[[], None]) -> None:
    confirm()
    make_mitigation(run, "old")
    make_mitigation(run, "older")
    app = open_app("repair")
    app.selectbox(key=f"tuning-{run.id}").select("old").run()
    job = book.add_job("mitigate", "Fine-tuning", ["mitigate", "--name=new"], "local", run.id)
    book.update_job(job.id, status="running", **alive())
    app.run()
    assert app.selectbox(key=f"tuning-{run.id}").value == "new"
    app.selectbox(key=f"tuning-{run.id}").select("old").run()
    assert app.selectbox(key=f"tuning-{run.id}").value == "old"  # people may look at another one meanwhile
    assert "Before and after" in said(checked(app))


def test_cancel_asks_the_job_to_stop(run: AuditRun, book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(jobs, "cancel", lambda ledger, job: asked.append(job.id))
    job = book.add_job("mitigate", "Fine-tuning", ["mitigate", "--name=ravl"], "local", run.id)
    book.update_job(job.id, status="running", **alive())
    app = open_app("repair")
    button(app, f"cancel-{job.id}").click().run()
    assert asked == [job.id]
    assert button(checked(app), f"cancel-{job.id}").label == "Stopping …"
