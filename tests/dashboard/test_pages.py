"""Every page in every state, and what Overview, Features and Export show."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.reading import opened, summaries
from dashboard.screen import readers
from ravl.ledger import Ledger
from ravl.store import STAGES, AuditRun
from tests.dashboard.conftest import make_run
from tests.dashboard.screen import VIEWS, address, button, checked, go, html, open_app, said

# --- every page -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
def test_page_of_an_empty_workspace_says_what_to_do(empty: Path, view: str) -> None:
    app = open_app(view)
    if view == "start":
        assert "Try it first" in said(app)
    else:
        assert "There is no audit in this workspace yet." in said(app)
        assert [link.label for link in app.get("page_link")] == ["Start a demo or a new audit"]
    assert empty.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("view", VIEWS)
def test_page_of_a_finished_audit(run: AuditRun, view: str) -> None:
    app = open_app(view)
    assert not app.error
    assert address(app)["run"] == run.id


@pytest.mark.parametrize(
    ("view", "until", "done", "awaited"),
    [
        *((view, "clusters", 5, "Weighing the evidence") for view in VIEWS[1:] if view != "region_map"),
        ("features", "counterfactuals", 10, "Weighing the evidence"),
        ("region_map", "evidence", 11, "Drawing the map"),
    ],
)
def test_page_of_an_unfinished_audit_says_how_far_it_is(
    workspace: Path, template: Path, view: str, until: str, done: int, awaited: str
) -> None:
    shutil.rmtree(workspace / "runs")
    make_run(workspace, template / "images", name="half", until=until)
    text = said(open_app(view))
    assert f"half** is not finished: {done} of {len(STAGES)} stages are done" in text
    assert f"as soon as the stage *{awaited}* is" in text


@pytest.mark.parametrize("view", VIEWS[1:])
@pytest.mark.parametrize("file", ["features.parquet", "evidence.npz"])
def test_a_damaged_file_is_a_sentence(run: AuditRun, view: str, file: str) -> None:
    (run.path / file).write_bytes(b"nonsense")
    app = open_app(view)
    assert f"{file} is damaged" in said(app)


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


# --- overview --------------------------------------------------------------------------------------------


def test_overview_puts_the_finding_before_the_numbers(run: AuditRun) -> None:
    app = open_app("overview")
    text = said(app)
    assert "**1 of 3 features** causes errors of this model: wrong answers become right when it is removed." in text
    assert "Of the 15 wrongly classified images that show it, **14 become right** when it is removed, and **1**" in text
    assert "It explains **14 of all 18 errors (78%)**." in text
    assert "In **15 of the 16 images** wrongly called *eel*" in text
    assert "2 more features: 1 without effect, 1 with too little evidence." in text
    assert "the model would be right on **53 of 60 (88%)** images instead of 42 of 60 (70%)" in text
    assert "Causes errors" in text
    assert "1 flagged feature waits" in text
    assert "right on **42 of 60 (70%)** images" in text
    assert "8 of 20" in html(app)
    assert "beef" in html(app)
    assert "34 of 40 (85%) sampled regions" in html(app)
    assert "Region 3 of image 0" in html(app)


def test_overview_follows_the_decisions(run: AuditRun, confirm: Callable[[], None]) -> None:
    confirm()
    app = open_app("overview")
    assert "red square (feature 1)" in said(app)
    assert "1 feature confirmed as spurious" in said(app)
    assert button(app, "go-next").label == "Go to Repair"


def test_a_missing_image_does_not_take_the_page_down(run: AuditRun, tmp_path: Path, template: Path) -> None:
    audit = opened.read_audit(run)
    elsewhere = replace(audit, images=replace(audit.images, root=str(tmp_path / "gone")))
    [card] = readers.cards(elsewhere, summaries.exemplars(elsewhere, 1, 1))
    assert card.crop is None
    assert "no longer where it was" in card.missing
    (tmp_path / "file").write_bytes(b"")
    below = replace(audit, images=replace(audit.images, root=str(tmp_path / "file")))
    [card] = readers.cards(below, summaries.exemplars(below, 1, 1))
    assert card.missing == "The image file cannot be reached (Not a directory)."
    broken = tmp_path / "gone" / "cat"
    broken.mkdir(parents=True)
    (broken / "00.png").write_bytes(b"nonsense")
    [card] = readers.cards(elsewhere, summaries.exemplars(elsewhere, 1, 1))
    assert "not an image" in card.missing


@pytest.mark.parametrize("page", ["start", "overview"])
def test_the_code_of_tables_is_fetched_on_the_pages_that_are_read_first(run: AuditRun, page: str) -> None:
    app = open_app(page)
    assert app.dataframe[-1].value.empty
    assert ".st-key-ahead { display: none; }" in html(app)


# --- export -----------------------------------------------------------------------------------------------------------


def downloads(app: AppTest) -> list[str]:
    return [str(item.proto.label).removeprefix("Download ") for item in app.get("download_button")]


def test_export_without_a_confirmed_feature_says_what_to_do(run: AuditRun) -> None:
    app = open_app("export")
    assert "no feature of this audit is confirmed as **spurious**" in said(app)
    assert downloads(app) == ["report", "groups", "paragraph", "log"]
    assert not app.dataframe


def test_export_offers_files_and_the_whole_history(run: AuditRun, book: Ledger) -> None:
    book.add_verdict(run.id, 1, "eel", "unsure", "Bo", "digest")
    book.add_verdict(run.id, 1, "eel", "spurious", "Ada", "of other regions", "red square")
    app = open_app("export")
    assert downloads(app) == ["report", "JSON", "CSV", "COCO", "groups", "image lists", "paragraph", "log"]
    text = said(app)
    assert "Confirmed as spurious (1)" in text
    assert "**Spurious** by Ada" in text
    assert "Its regions are not those that the decision was about." in text
    assert "has 2 entries, and its chain of digests is whole. It ends in " + book.entries()[-1].sha256 in text
    assert "ravl-strip" in html(app)
    history = app.dataframe[0].value
    assert list(history["Decision"]) == ["Spurious", "Unsure"]
    assert list(history["By"]) == ["Ada (self-declared)", "Bo (self-declared)"]


def test_export_says_when_the_record_was_changed(run: AuditRun, book: Ledger, confirm: Callable[[], None]) -> None:
    confirm()
    raw = sqlite3.connect(book.path, isolation_level=None)
    raw.execute("DROP TRIGGER verdicts_UPDATE")
    raw.execute("UPDATE verdicts SET reviewer = 'Eve'")
    raw.close()
    app = open_app("export")
    assert "does not hold together" in app.error[0].value
    assert "entry 1 (verdict) was changed" in said(app)
