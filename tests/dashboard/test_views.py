"""Every page on a small real run, through Streamlit's own test runner; selections and lassos are given as state."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import jobs
from dashboard.server import application
from ravl.ledger import Job, Ledger
from ravl.store import AuditRun
from tests.dashboard.conftest import make_mitigation, make_run

VIEWS = ("start", "overview", "features", "region_map", "review", "repair", "export")


def open_app(view: str = "start", **query: str) -> AppTest:
    app = AppTest.from_file(str(application()), default_timeout=30)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    return checked(app) if view == "start" else go(app, view)


def go(app: AppTest, view: str) -> AppTest:
    app.switch_page(f"views/{view}.py").run()
    return checked(app)


def checked(app: AppTest) -> AppTest:
    assert not app.exception, app.exception
    return app


def address(app: AppTest) -> dict[str, str]:
    """Query parameters, which the test runner holds as text or as lists of it."""
    return {name: value if isinstance(value, str) else value[0] for name, value in dict(app.query_params).items()}


def said(app: AppTest) -> str:
    """All prose of the page, without Markdown's escapes."""
    pieces = [*app.title, *app.subheader, *app.markdown, *app.caption, *app.info, *app.warning, *app.error]
    return "\n".join(str(piece.value) for piece in pieces).replace("\\", "")


def html(app: AppTest) -> str:
    return "\n".join(piece.proto.body for piece in app.get("html"))


def button(app: AppTest, key: str) -> Any:
    return app.button(key=key)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Jobs are added to the ledger, but no process is spawned; returns the arguments of each."""
    asked: list[list[str]] = []

    def start(
        ledger: Ledger,
        workspace: Path,
        kind: str,
        title: str,
        arguments: list[str],
        run: str = "",
        device: str = "local",
    ) -> Job:
        asked.append(arguments)
        return ledger.add_job(kind, title, arguments, device, run)

    monkeypatch.setattr(jobs, "start", start)
    return asked


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAVL_WORKSPACE", str(tmp_path / "new"))
    return tmp_path / "new"


@pytest.fixture
def confirm(run: AuditRun, book: Ledger) -> Callable[[], None]:
    def add() -> None:
        book.add_verdict(run.id, 1, "eel", "spurious", "Ada", "digest", "red square", "not an eel")

    return add


# --- every page ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
def test_page_of_an_empty_workspace_says_what_to_do(empty: Path, view: str) -> None:
    app = open_app(view)
    if view == "start":
        assert "Try it first: the demo" in said(app)
    else:
        assert "There is no audit in this workspace yet." in said(app)
        assert [link.label for link in app.get("page_link")] == ["Start the demo or a new audit"]
    assert empty.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("view", VIEWS)
def test_page_of_a_finished_audit(run: AuditRun, view: str) -> None:
    app = open_app(view)
    assert not app.error
    assert address(app)["run"] == run.id


@pytest.mark.parametrize(
    ("view", "stage"), [("overview", "features"), ("region_map", "features"), ("export", "clusters")]
)
def test_page_of_an_unfinished_audit_says_how_far_it_is(workspace: Path, template: Path, view: str, stage: str) -> None:
    shutil.rmtree(workspace / "runs")
    make_run(workspace, template / "images", name="half", until="clusters")
    app = open_app(view)
    assert "half** is not finished: 5 of 8 stages are done" in said(app)
    assert stage


@pytest.mark.parametrize("view", VIEWS[1:])
def test_a_damaged_file_is_a_sentence(run: AuditRun, view: str) -> None:
    (run.path / "features.parquet").write_bytes(b"nonsense")
    app = open_app(view)
    assert "features.parquet is damaged" in said(app)


def test_a_run_of_a_newer_version_is_listed_with_its_reason(run: AuditRun) -> None:
    about = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**about, "schema_version": 999}))
    assert "schema version 999" in said(open_app())


def test_an_unwritable_workspace_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAVL_WORKSPACE", str(tmp_path / "file" / "w"))
    app = open_app()
    assert "Choose another one with --workspace" in said(app)


def test_audit_and_feature_of_the_address_win(workspace: Path, template: Path, run: AuditRun) -> None:
    make_run(workspace, template / "images", name="other")
    app = open_app(run=run.id)
    assert app.selectbox(key="run-picker").value == run.id
    app = open_app("features", run=run.id, feature="2")
    assert "Feature 2" in [piece.value for piece in app.subheader]
    app = open_app("features", run="no such run", feature="x")
    assert not app.error


def test_the_picker_changes_the_audit_and_the_address(workspace: Path, template: Path, run: AuditRun) -> None:
    other = make_run(workspace, template / "images", name="other")
    app = open_app(run=run.id, feature="2")
    app.selectbox(key="run-picker").select(other.id).run()
    assert address(checked(app)) == {"run": other.id}
    go(app, "overview")
    assert address(app)["run"] == other.id


# --- start -----------------------------------------------------------------------------------------------------------


def test_start_lists_audits_with_their_state(
    workspace: Path, template: Path, run: AuditRun, confirm: Callable[[], None]
) -> None:
    make_run(workspace, template / "images", name="half", until="clusters")
    confirm()
    text = said(open_app())
    assert "**small**" in text
    assert "1 decision" in text
    assert "5 of 8 stages" in text
    assert "not finished" in text


def test_start_runs_the_demo(empty: Path, started: list[list[str]]) -> None:
    app = open_app()
    button(app, "start-demo").click().run()
    assert started == [["demo", "--audit-only"]]
    assert "Demo audit" in said(checked(app))
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
    app.run()
    assert not button(checked(app), "start-audit").disabled
    button(app, "start-audit").click().run()
    checked(app)
    assert started == [
        [
            *("discover", "--name=images", f"--images={template / 'images'}", "--model=openai/clip-vit-base-patch32"),
            *("--classes=cat,dog,eel", "--template=a {}", "--template=the {}"),
            *("--regions=grid:3", "--encoder=auto", "--clustering=kmedoids", "--seed=0"),
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
    assert [list(frame.value["Images"]) for frame in app.dataframe] == [[20, 20, 20]]
    app.text_input(key="new-images").input(str(template)).run()
    assert "The inputs changed since they were checked" in said(app)


def test_check_inputs_of_nothing_is_a_sentence(workspace: Path) -> None:
    app = open_app()
    button(app, "check-inputs").click().run()
    assert "Images must be a folder or a manifest" in said(checked(app))


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


def alive() -> dict[str, Any]:
    import os

    import psutil

    return {"pid": os.getpid(), "pid_started": psutil.Process().create_time()}


# --- overview and features -------------------------------------------------------------------------------------------


def test_overview_puts_the_finding_before_the_numbers(run: AuditRun) -> None:
    app = open_app("overview")
    text = said(app)
    assert "**1 of 3 features** explains errors of this model." in text
    assert "In **15 of the 16 images** wrongly called *eel*" in text
    assert "1 flagged feature waits" in text
    assert "right on **42 of 60 (70%)** images" in text
    assert "8 of 20" in html(app)
    assert "beef" in html(app)
    assert "Region 3 of image 0" in html(app)


def test_overview_follows_the_decisions(run: AuditRun, confirm: Callable[[], None]) -> None:
    confirm()
    app = open_app("overview")
    assert "red square (feature 1)" in said(app)
    assert "1 feature confirmed as spurious" in said(app)
    assert button(app, "go-next").label == "Go to Repair"


def test_features_are_ranked_and_the_first_is_shown(run: AuditRun) -> None:
    app = open_app("features")
    table = app.dataframe[0].value
    assert list(table["Feature"]) == ["Feature 1", "Feature 2", "Feature 0"]
    assert list(table["Errors decided"]) == ["15 of 16", "–", "–"]
    assert list(table["Wrong images"]) == ["15 of 27", "10 of 10", "18 of 60"]
    assert table[""][0].startswith("data:image/jpeg")
    assert "27 regions in 27 images, 15 of them classified wrongly (56%)" in said(app)
    assert "0 of 12" in html(app)
    assert "errors go here" in html(app)
    assert address(app)["feature"] == "1"


def test_features_can_be_filtered(run: AuditRun, confirm: Callable[[], None]) -> None:
    confirm()
    app = open_app("features")
    filters = {"flagged": ["red square (feature 1)"], "open": ["Feature 2", "Feature 0"]}
    for choice, names in filters.items():
        app.segmented_control(key="feature-filter").select(choice).run()
        assert list(checked(app).dataframe[0].value["Feature"]) == names


def test_a_chosen_row_becomes_the_feature_of_all_pages(run: AuditRun) -> None:
    app = open_app("features", feature="2")
    assert "Feature 2" in [piece.value for piece in app.subheader]
    go(app, "review")
    assert "Feature 2" in [piece.value for piece in app.subheader]
    assert address(app)["feature"] == "2"


def test_a_missing_image_does_not_take_the_page_down(run: AuditRun, tmp_path: Path, template: Path) -> None:
    from dashboard import readers, summaries

    audit = summaries.read_audit(run)
    from dataclasses import replace

    elsewhere = replace(audit, images=replace(audit.images, root=str(tmp_path / "gone")))
    [card] = readers.cards(elsewhere, summaries.exemplars(elsewhere, 1, 1))
    assert card.crop is None
    assert "no longer where it was" in card.missing
    broken = tmp_path / "gone" / "cat"
    broken.mkdir(parents=True)
    (broken / "00.png").write_bytes(b"nonsense")
    [card] = readers.cards(elsewhere, summaries.exemplars(elsewhere, 1, 1))
    assert "not an image" in card.missing


# --- map -------------------------------------------------------------------------------------------------------------

AROUND_MARK = {"x": [8.5, 11.5, 11.5, 8.5], "y": [8.5, 8.5, 11.5, 11.5]}


def lasso(app: AppTest, run: AuditRun) -> AppTest:
    app.session_state[f"ravl:shapes:{run.id}"] = (tuple(zip(AROUND_MARK["x"], AROUND_MARK["y"], strict=True)),)
    app.run()
    return checked(app)


def test_map_has_one_trace_and_a_legend(run: AuditRun) -> None:
    app = open_app("region_map")
    [chart] = app.get("plotly_chart")
    figure = json.loads(chart.proto.spec)
    assert [trace["type"] for trace in figure["data"]] == ["scattergl"]
    assert figure["layout"]["dragmode"] == "lasso"
    for entry in ("Feature 1", "no feature", ">143<"):
        assert entry in html(app)


@pytest.mark.parametrize("by", ["class", "called", "right", "verdict"])
def test_map_can_be_coloured(run: AuditRun, by: str) -> None:
    app = open_app("region_map")
    app.segmented_control(key="map-colour").select(by).run()
    assert not checked(app).error
    assert "ravl-legend" in html(app)


def test_a_lasso_shows_counts_and_crops(run: AuditRun) -> None:
    app = lasso(open_app("region_map"), run)
    assert "**27 regions, 27 images, 15 wrong**" in said(app)
    assert "27 of Feature 1" in said(app)
    button(app, "clear-selection").click().run()
    assert "regions," not in said(checked(app))


def test_a_lasso_outlives_the_page(run: AuditRun) -> None:
    app = lasso(open_app("region_map"), run)
    go(app, "review")
    go(app, "region_map")
    assert "**27 regions, 27 images, 15 wrong**" in said(app)


def test_a_feature_can_be_chosen_without_a_mouse(run: AuditRun) -> None:
    app = open_app("region_map")
    app.selectbox(key=f"map-feature-{run.id}").select(2).run()
    assert "**10 regions, 10 images, 10 wrong**" in said(checked(app))


def test_a_large_map_says_that_it_shows_a_sample(run: AuditRun, monkeypatch: pytest.MonkeyPatch) -> None:
    from dashboard import readers, selection

    monkeypatch.setattr(readers.selection, "sample", lambda group: selection.np.arange(100))
    app = open_app("region_map")
    assert "100 of 240 regions are drawn" in said(app)


# --- review ----------------------------------------------------------------------------------------------------------


def named(app: AppTest, name: str = "Dr. Ada") -> AppTest:
    app.text_input(key="reviewer-name").input(name).run()
    return checked(app)


def test_nobody_decides_without_a_name(run: AuditRun, book: Ledger) -> None:
    app = open_app("review")
    assert all(button(app, f"decide-{decision}").disabled for decision in ("spurious", "core", "mixed", "unsure"))
    assert "Give your name first" in said(app)
    named(app)
    assert "Deciding as **Dr. Ada**" in said(app)
    assert not button(app, "decide-core").disabled
    assert book.history(run.id) == []


@pytest.mark.parametrize("decision", ["spurious", "core", "mixed", "unsure"])
def test_a_decision_is_written_at_once_with_what_was_seen(run: AuditRun, book: Ledger, decision: str) -> None:
    from dashboard import summaries

    app = named(open_app("review"))
    app.text_input(key=f"name-{run.id}-1").input("red square")
    app.text_area(key=f"note-{run.id}-1").input("corner")
    button(app.run(), f"decide-{decision}").click().run()
    [verdict] = book.history(run.id)
    assert (verdict.feature, verdict.decision, verdict.pull_class) == (1, decision, "eel")
    assert (verdict.name, verdict.note, verdict.reviewer) == ("red square", "corner", "Dr. Ada")
    assert verdict.seen == summaries.read_audit(run).seen(1)
    assert "1 of 1 decided" in html_and_progress(checked(app))
    assert [toast.value for toast in app.toast]


def html_and_progress(app: AppTest) -> str:
    return "\n".join(piece.proto.text for piece in app.get("progress"))


def test_undo_withdraws_and_keeps_the_text(run: AuditRun, book: Ledger) -> None:
    app = named(open_app("review"))
    assert button(app, "undo").disabled
    app.text_input(key=f"name-{run.id}-1").input("red square")
    button(app.run(), "decide-spurious").click().run()
    button(app, "undo").click().run()
    assert [verdict.decision for verdict in book.history(run.id)] == ["spurious", "withdrawn"]
    assert book.verdicts(run.id) == {}
    assert app.text_input(key=f"name-{run.id}-1").value == "red square"
    button(app, "decide-mixed").click().run()
    assert book.verdicts(run.id)[1].name == "red square"
    assert "History (3)" in [expander.label for expander in checked(app).expander]


def test_text_can_be_changed_after_a_decision(run: AuditRun, book: Ledger) -> None:
    app = named(open_app("review"))
    button(app, "decide-spurious").click().run()
    assert "record-text" not in [item.key for item in app.button]
    app.text_area(key=f"note-{run.id}-1").input("seen twice").run()
    button(app, "record-text").click().run()
    assert [(v.decision, v.note) for v in book.history(run.id)] == [("spurious", ""), ("spurious", "seen twice")]
    assert "record-text" not in [item.key for item in checked(app).button]


def test_unsaved_text_is_kept_when_the_page_is_left(run: AuditRun, book: Ledger) -> None:
    app = named(open_app("review"))
    app.text_area(key=f"note-{run.id}-1").input("half a thought").run()
    go(app, "overview")
    go(app, "review")
    assert app.text_area(key=f"note-{run.id}-1").value == "half a thought"
    assert book.history(run.id) == []
    button(app, "decide-unsure").click().run()
    assert book.verdicts(run.id)[1].note == "half a thought"


def test_next_and_previous(run: AuditRun) -> None:
    app = open_app("review")
    assert button(app, "go-left").disabled
    assert button(app, "go-right").disabled  # one feature is flagged
    app.toggle(key="review-flagged").set_value(False).run()
    shown = []
    for _ in range(2):
        button(app, "go-right").click().run()
        shown.append(app.subheader[0].value)
    assert shown == ["Feature 2", "Feature 0"]
    assert button(checked(app), "go-right").disabled
    button(app, "go-left").click().run()
    assert app.subheader[0].value == "Feature 2"


def test_the_last_reviewer_is_offered_and_can_be_changed(run: AuditRun, confirm: Callable[[], None]) -> None:
    confirm()
    app = open_app("review")
    assert "Deciding as **Ada**" in said(app)
    button(app, "rename").click().run()
    app.text_input(key="reviewer-name").input("Bo").run()
    assert "Deciding as **Bo**" in said(checked(app))


def test_shortcuts(run: AuditRun) -> None:
    app = open_app("review")
    keys = {item.key: item.proto.shortcut.lower() for item in app.button if item.proto.shortcut}
    wanted = {"decide-spurious": "s", "decide-core": "g", "decide-mixed": "m", "decide-unsure": "u", "undo": "z"}
    assert wanted.items() <= keys.items()
    assert {keys["go-left"], keys["go-right"]} == {"left", "right"}
    assert len(set(keys.values())) == len(keys)


def test_a_ledger_that_cannot_be_written_is_a_sentence(run: AuditRun, monkeypatch: pytest.MonkeyPatch) -> None:
    from ravl.errors import RunError

    def refuse(*args: object, **kwargs: object) -> None:
        raise RunError("ravl.db could not be written: disk full. Check the disk, then try again.")

    app = named(open_app("review"))
    monkeypatch.setattr(Ledger, "add_verdict", refuse)
    button(app, "decide-core").click().run()
    assert "disk full" in said(checked(app))


# --- repair ----------------------------------------------------------------------------------------------------------


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
    assert "out of memory" in said(app)
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


# --- export ----------------------------------------------------------------------------------------------------------


def test_export_of_nothing_says_what_to_do(run: AuditRun) -> None:
    app = open_app("export")
    assert "There is nothing to export yet" in said(app)
    assert app.get("download_button") == []


def test_export_offers_files_and_the_whole_history(run: AuditRun, book: Ledger, confirm: Callable[[], None]) -> None:
    book.add_verdict(run.id, 1, "eel", "unsure", "Bo", "digest")
    confirm()
    app = open_app("export")
    assert [item.proto.label for item in app.get("download_button")] == ["Download JSON", "Download CSV"]
    history = app.dataframe[0].value
    assert list(history["Decision"]) == ["Spurious", "Unsure"]
    assert list(history["By"]) == ["Ada", "Bo"]
