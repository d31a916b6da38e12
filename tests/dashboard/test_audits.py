"""The Start page's tables: the state of an audit, names, and the check of inputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dashboard.reading import audits
from ravl.ledger import Job, Ledger
from ravl.store import STAGES, AuditRun
from ravl.tables import ImageSet
from tests.dashboard.conftest import make_run


@pytest.fixture
def half(workspace: Path, template: Path) -> AuditRun:
    return make_run(workspace, template / "images", name="half", until="zero_shot")


def job(book: Ledger, status: str, *arguments: str, kind: str = "discover", run: str = "") -> Job:
    made = book.add_job(kind, "title", list(arguments), "local", run)
    book.end_job(made.id, status)
    return book.job(made.id)


def test_a_finished_audit(run: AuditRun) -> None:
    row = audits.audit_row(run, [], 2)
    assert (row.status, row.stages_done, row.decided, row.name, row.model) == (
        "finished",
        len(STAGES),
        2,
        "small",
        "demo",
    )


@pytest.mark.parametrize("status", ["running", "queued", "failed", "cancelled", "lost"])
def test_an_unfinished_audit_has_the_state_of_its_job(half: AuditRun, book: Ledger, status: str) -> None:
    about = replace(job(book, "done", "discover", "--name=half"), status=status)
    row = audits.audit_row(half, [about], 0)
    assert (row.status, row.stages_done, row.job) == (status, 4, about)


def test_an_unfinished_audit_that_nothing_computes(half: AuditRun, book: Ledger) -> None:
    other = job(book, "failed", "discover", "--name=other")
    tuning = job(book, "failed", "mitigate", "--name=half", kind="mitigate", run=half.id)
    assert audits.audit_row(half, [tuning, other], 0).status == "stopped"
    assert audits.audit_row(half, [job(book, "done", "discover", "--name=half")], 0).status == "stopped"


def test_which_job_concerns_a_run(half: AuditRun, book: Ledger) -> None:
    assert audits.concerns(job(book, "done", "discover", "--name=half"), half)
    assert audits.concerns(job(book, "done", "x", run=half.id), half)
    assert not audits.concerns(job(book, "done", "discover", "--name=half", run="another"), half)
    assert not audits.concerns(job(book, "done", "demo", kind="demo"), half)


def test_last_words_are_those_not_tried_again(book: Ledger) -> None:
    failed = job(book, "failed", "discover", "--name=a")
    job(book, "lost", "discover", "--name=b")
    job(book, "done", "discover", "--name=b")
    job(book, "failed", "mitigate", kind="mitigate")
    again = job(book, "cancelled", "discover", "--name=c")
    assert [row.id for row in audits.last_words(book.jobs(), audits.AUDIT_KINDS)] == [again.id, failed.id]


def test_a_failed_job_of_a_finished_audit_has_nothing_more_to_say(run: AuditRun, book: Ledger) -> None:
    job(book, "failed", "discover", f"--name={run.name}")
    assert audits.last_words(book.jobs(), audits.AUDIT_KINDS, [run]) == ()


@pytest.mark.parametrize(
    ("wanted", "taken", "name"),
    [
        ("val", [], "val"),
        ("val", ["val"], "val-2"),
        ("val", ["val", "val-2"], "val-3"),
        ("my images!", [], "my-images"),
        ("../../etc", [], "etc"),
        ("", [], "audit"),
        ("äö", [], "audit"),
        ("x" * 200, [], "x" * 60),
    ],
)
def test_free_name_is_one_that_the_command_line_takes(wanted: str, taken: list[str], name: str) -> None:
    from ravl.store import check_name

    found = audits.free_name(wanted, taken)
    assert found == name
    check_name(found)


def images(labels: list[int], names: tuple[str, ...], skipped: int = 0) -> ImageSet:
    n = len(labels)
    left_out = tuple((f"bad{i}.png", "is empty") for i in range(skipped))
    return ImageSet(
        "/data", np.array([f"{i}.png" for i in range(n)], str), labels, np.ones((n, 2)), names, skipped=left_out
    )


def test_good_inputs_raise_no_warning() -> None:
    check = audits.check_inputs(images([0] * 30 + [1] * 40, ("cat", "dog")))
    assert (check.n_images, check.counts, check.warnings) == (70, (("cat", 30), ("dog", 40)), ())


@pytest.mark.parametrize(
    ("labels", "names", "skipped", "part"),
    [
        ([], ("cat",), 0, "There are no images"),
        ([0] * 30, ("cat",), 0, "belong to one class"),
        ([0] * 30 + [1] * 30, ("cat", "dog", "eel"), 0, "No images of eel"),
        ([0] * 30 + [1] * 5, ("cat", "dog"), 0, "Fewer than 20 images of dog"),
        ([0] * 30 + [1] * 30, ("cat", "dog"), 3, "3 listed files"),
    ],
)
def test_weak_inputs_are_named(labels: list[int], names: tuple[str, ...], skipped: int, part: str) -> None:
    check = audits.check_inputs(images(labels, names, skipped))
    assert any(part in warning for warning in check.warnings)
    assert len(check.skipped) == skipped


def test_an_empty_folder_is_no_file() -> None:
    found = replace(images([0] * 30 + [1] * 30, ("cat", "dog")), skipped=(("a.png", "is empty"), ("old/", "no image")))
    assert audits.check_inputs(found).warnings == (
        "1 listed file cannot be read and is left out; see below.",
        "1 folder without images is no class.",
    )


def test_model_note(tmp_path: Path) -> None:
    saved = tmp_path / "model"
    saved.mkdir()
    assert audits.model_note(str(saved))[0] is False
    (saved / "config.json").write_text("{}")
    assert audits.model_note(str(saved)) == (True, f"The model is read from {saved}.")
    assert audits.model_note("openai/clip-vit-base-patch32")[0]
    assert audits.model_note("demo")[0]
    assert audits.model_note("hf-hub:org/repo")[0]
    assert audits.model_note("open_clip:ViT-B-32/laion2b_s34b_b79k")[0]
    assert not audits.model_note("open_clip:ViT-B-32")[0]
    of_open_clip = tmp_path / "resnet"
    of_open_clip.mkdir()
    (of_open_clip / "open_clip_config.json").write_text("{}")
    assert audits.model_note(str(of_open_clip))[0]
    assert audits.model_note(f"local-dir:{of_open_clip}") == (True, f"The model is read from {of_open_clip}.")
    assert [audits.model_note(text)[0] for text in ("", "  ", "no such thing", str(saved / "config.json"))] == [
        False
    ] * 4


def test_an_audit_can_be_repeated_for_another_model(run: AuditRun) -> None:
    arguments = audits.repeated(run.config, "again", "/models/new")
    assert arguments[:4] == ["discover", "--name=again", f"--images={run.config.images}", "--model=/models/new"]
    assert "--regions=grid:2" in arguments
    assert "--template=a photo of {}" in arguments
    assert "--rule=evidence" in arguments
    assert "--split-half" not in arguments
    halves = replace(run.config, significance=replace(run.config.significance, split_half=True))
    halves = replace(halves, evidence=replace(halves.evidence, rule="paper"))
    assert {"--rule=paper", "--split-half"} <= set(audits.repeated(halves, "again", "/models/new"))
    words = (("tomcat",), (), ())
    hidden = replace(run.config, hide_names=True, prompts=replace(run.config.prompts, synonyms=words))
    found = audits.repeated(hidden, "again", "/models/new")
    assert "--hide-names" in found
    assert f"--classes={run.config.prompts.classes[0]}|tomcat" in next(a for a in found if a.startswith("--classes"))


def test_what_is_wrong_with_a_reference_to_images(tmp_path: Path) -> None:
    assert audits.images_problem(str(tmp_path)) == ""
    assert audits.images_problem(f"{tmp_path}@val") == ""  # which splits there are is told by the reader
    assert audits.images_problem("hf:somebody/images@train") == ""  # the hub is not asked
    assert (
        audits.images_problem(str(tmp_path / "none"))
        == f"There is no file or folder {tmp_path / 'none'} on this machine."
    )
    assert "must be on this machine, got an address" in audits.images_problem("https://example.org/images.zip")


def test_demo_split(tmp_path: Path) -> None:
    val = tmp_path / "demo-data" / "val"
    assert audits.demo_split(tmp_path, str(val), "train") == str(tmp_path / "demo-data" / "train")
    drawn = tmp_path / "demo-data" / "radiographs"
    assert audits.demo_split(tmp_path, str(drawn / "val"), "test") == str(drawn / "test")
    assert audits.demo_split(tmp_path, "/data/val", "train") == ""
