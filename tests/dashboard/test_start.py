"""Start: the audits there are, a new one, and jobs that run, failed or got lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ravl.config import NO_MODEL
from ravl.ledger import Ledger
from ravl.planted.demos import DEMOS
from ravl.store import STAGES, AuditRun
from tests.dashboard.conftest import make_run
from tests.dashboard.screen import alive, button, checked, html, open_app, said


def test_start_lists_audits_with_their_state(
    workspace: Path, template: Path, run: AuditRun, confirm: Callable[[], None]
) -> None:
    make_run(workspace, template / "images", name="half", until="clusters")
    confirm()
    text = said(open_app())
    assert "**small**" in text
    assert "1 decision" in text
    assert f"5 of {len(STAGES)} stages" in text
    assert "not finished" in text


@pytest.mark.parametrize("world", DEMOS)
def test_start_runs_a_demo(empty: Path, started: list[list[str]], world: str) -> None:
    app = open_app()
    assert "nothing here is a medical device" in said(app)
    button(app, f"start-demo-{world}").click().run()
    assert started == [["demo", "--audit-only", f"--world={world}"]]
    assert "Demo: " in said(checked(app))
    assert "waiting to start" in said(app)
    assert button(app, "start-audit").disabled


def test_start_takes_a_new_audit(template: Path, workspace: Path, started: list[list[str]]) -> None:
    app = open_app()
    assert button(app, "start-audit").disabled
    app.text_input(key="new-images").input(str(template / "images"))
    app.text_input(key="new-model").input("openai/clip-vit-base-patch32")
    app.text_area(key="new-classes").input("cat\n\n dog \neel")
    app.text_area(key="new-templates").input("a {}\nthe {}")
    app.number_input(key="new-grid").set_value(3)
    app.selectbox(key="new-clustering").select("kmedoids")
    app.selectbox(key="new-rule").select("paper")
    app.run()
    assert not button(checked(app), "start-audit").disabled
    button(app, "start-audit").click().run()
    checked(app)
    assert started == [
        [
            *("discover", "--name=images", f"--images={template / 'images'}", "--model=openai/clip-vit-base-patch32"),
            *("--classes=cat,dog,eel", "--template=a {}", "--template=the {}"),
            *("--regions=grid:3", "--encoder=auto", "--clustering=kmedoids", "--rule=paper", "--seed=0"),
        ]
    ]


@pytest.mark.parametrize(
    ("field", "value", "part"),
    [
        ("new-images", "/no/such/folder", "There is no file or folder"),
        ("new-model", "what is this", "neither a folder nor a hub name"),
        ("new-templates", "a photo", "must contain {} once"),
        ("new-classes", "a,b", "comma"),
    ],
)
def test_start_says_what_is_wrong(template: Path, workspace: Path, field: str, value: str, part: str) -> None:
    app = open_app()
    app.text_input(key="new-images").input(str(template / "images"))
    app.text_input(key="new-model").input("demo")
    widgets = {item.key: item for item in [*app.text_input, *app.text_area]}
    widgets[field].input(value)
    app.run()
    assert part in said(checked(app))
    assert button(app, "start-audit").disabled


def test_check_inputs_counts_before_anything_runs(template: Path, workspace: Path) -> None:
    app = open_app()
    app.text_input(key="new-images").input(str(template / "images"))
    app.text_input(key="new-model").input("demo")
    button(app.run(), "check-inputs").click().run()
    text = said(checked(app))
    assert "**60 images** in 3 classes." in text
    assert "the audit can start" in text
    assert list(app.dataframe[0].value["Images"]) == [20, 20, 20]
    app.text_input(key="new-images").input(str(template)).run()
    assert "The inputs changed since they were checked" in said(app)


def test_a_failed_check_promises_nothing(template: Path, workspace: Path) -> None:
    app = open_app()
    app.text_input(key="new-images").input(str(template / "images"))
    app.text_input(key="new-model").input("demo")
    app.text_area(key="new-classes").input("cat\ndog")
    button(app.run(), "check-inputs").click().run()
    text = said(checked(app))
    assert "Every label must be one of the classes cat, dog" in text
    assert "can start" not in text
    assert not app.get("progress")
    app.text_input(key="new-images").input("/nowhere/at/all")
    button(app.run(), "check-inputs").click().run()
    assert said(checked(app)).count("/nowhere/at/all") == 1


def test_check_inputs_tells_of_images_that_can_spoil_an_audit(template: Path, workspace: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(template / "images", tmp_path / "twice"))
    shutil.copy(folder / "cat" / "00.png", folder / "eel" / "copy.png")
    app = open_app()
    app.text_input(key="new-images").input(str(folder))
    button(app.run(), "check-inputs").click().run()
    assert "**1 image under two labels.** The same picture is listed with different labels" in said(checked(app))


def test_check_inputs_takes_what_an_audit_takes(template: Path, workspace: Path) -> None:
    """Synonyms behind a class, and a data set of the hub, which is not here yet."""
    app = open_app()
    app.text_input(key="new-images").input(str(template / "images"))
    app.text_input(key="new-model").input("demo")
    app.text_area(key="new-classes").input("cat|kitten\ndog\neel")
    button(app.run(), "check-inputs").click().run()
    text = said(checked(app))
    assert "**60 images** in 3 classes." in text
    assert "the audit can start" in text
    app.text_input(key="new-images").input("hf:some/images@test")
    button(app.run(), "check-inputs").click().run()
    text = said(checked(app))
    assert "are copied into the workspace when the audit starts, so they cannot be checked before" in text
    assert "must be" not in text
    assert not button(app, "start-audit").disabled


def test_check_inputs_of_nothing_is_a_sentence(workspace: Path) -> None:
    app = open_app()
    button(app, "check-inputs").click().run()
    assert "Images must be a folder or a manifest" in said(checked(app))


def test_a_failed_job_can_be_tried_again(workspace: Path, book: Ledger, started: list[list[str]]) -> None:
    failed = book.add_job("discover", "Audit half", ["discover", "--name=half"], "local")
    book.end_job(failed.id, "failed", "no image could be read.")
    app = open_app()
    assert "No image could be read" in said(app)
    assert button(app, f"resume-{failed.id}").label == "Try again"
    button(app, f"resume-{failed.id}").click().run()
    assert started == [["discover", "--name=half"]]


def test_a_lost_job_can_be_resumed(workspace: Path, book: Ledger, started: list[list[str]]) -> None:
    lost = book.add_job("discover", "Audit half", ["discover", "--name=half"], "local")
    book.update_job(lost.id, pid=2**22 + 1, pid_started=1.0)
    app = open_app()
    assert "Its process ended without a word" in said(app)
    button(app, f"resume-{lost.id}").click().run()
    assert started == [["discover", "--name=half"]]
    checked(app)


def test_a_running_job_shows_its_progress_and_its_log(workspace: Path, book: Ledger) -> None:
    job = book.add_job("discover", "Audit half", ["discover", "--name=half"], "local")
    log = workspace / "log"
    log.write_text("working hard\n")
    book.update_job(
        job.id, status="running", stage="embeddings", done=30, total=60, log=str(log), created="2999-01-01T00:00:00Z"
    )
    book.update_job(job.id, **alive())
    app = open_app()
    assert "Audit half** – running" in said(app)
    assert "● </span>" not in html(app)
    assert "Embedding regions" in html(app)
    assert [piece.value for piece in app.code] == ["working hard"]
    assert not button(app, f"cancel-{job.id}").disabled


def test_an_ended_job_can_be_dismissed(workspace: Path, book: Ledger) -> None:
    job = book.add_job("discover", "Audit half", ["discover", "--name=half"], "local")
    book.end_job(job.id, "failed", "out of memory")
    app = open_app()
    assert "Out of memory" in said(app)
    button(app, f"dismiss-{job.id}").click().run()
    assert "Out of memory" not in said(checked(app))


def test_an_audit_cut_short_elsewhere_can_be_continued(
    workspace: Path, template: Path, started: list[list[str]]
) -> None:
    half = make_run(workspace, template / "images", name="half", until="clusters")
    app = open_app()
    button(app, f"continue-{half.id}").click().run()
    checked(app)
    assert started == [
        [
            *("discover", "--name=half", f"--images={template / 'images'}", "--model=demo"),
            *("--classes=cat,dog *,eel", "--template=a photo of {}", "--regions=grid:2", "--encoder=auto"),
            *("--clustering=hdbscan", "--cluster-on=auto", "--tau=0.07", "--rule=evidence"),
            *("--frames=refuse", "--seed=0"),
        ]
    ]


def test_an_audit_without_a_model_is_not_continued_here(workspace: Path, template: Path) -> None:
    half = make_run(workspace, template / "images", name="half", until="clusters", model=NO_MODEL)
    app = open_app()
    assert button(app, f"continue-{half.id}").disabled
    assert "Run the same ravl discover --embeddings command again" in said(app)
