"""The medical demo: what is drawn and written, what the shipped model does, and that no identifier leaves the files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

import ravl
from dashboard.reporting import report_text
from dashboard.words import wording
from ravl.cli import main
from ravl.data import Reading, load_images, read_images
from ravl.data.hiding import paths_of
from ravl.ledger import Ledger
from ravl.planted import medical, tiny_clip
from ravl.planted.demos import DEMOS, DRAWN_BY, demo_of, drawn, scene_number
from ravl.planted.tiny_clip import strength_of
from ravl.planted.worlds import shows
from ravl.store import AuditRun
from tests.dashboard.screen import open_app, said
from tests.medical import SALT, SIZES, audited_demo, drawn_demo, headers_of, nodes, spotted, texts

DEMO = DEMOS["radiograph"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_demo(tmp_path_factory.mktemp("medical") / "ws")


@pytest.fixture(scope="module")
def run(workspace: Path) -> AuditRun:
    return audited_demo(workspace)


# --- what is written -------------------------------------------------------------------------------------------------


def test_the_files_show_the_drawings(workspace: Path) -> None:
    images = read_images(workspace / DEMO.folder / "test.csv", reading=Reading(salt=SALT))
    scenes = medical.drawings("test", SIZES["test"])
    assert len(images) == SIZES["test"]
    assert set(images.headers["photometric"]) == {"MONOCHROME1", "MONOCHROME2"}
    for i, picture in enumerate(load_images(images, range(20))):
        assert np.array_equal(np.asarray(picture), scenes.image[i])
    assert [images.class_names[y] for y in images.label] == [scenes.class_names[y] for y in scenes.label]
    for m, mark in enumerate(scenes.marks):
        assert ((images.groups[mark.replace(" ", "_")] == "yes") == scenes.present[:, m]).all()
    assert [scene_number(path) for path in paths_of(images)] == list(range(len(images)))


def test_the_files_are_a_function_of_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medical, "DEMO_SIZES", {"val": 6})
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        medical.write_demo(tmp_path / name, seed)
    one, same, other = (
        {p.relative_to(d): p.read_bytes() for p in d.rglob("*.*")}
        for d in (tmp_path / "one", tmp_path / "same", tmp_path / "other")
    )
    assert len(one) == 7
    assert one == same
    assert one != other
    (tmp_path / "one" / "val.csv").unlink()
    next((tmp_path / "one").rglob("*.dcm")).unlink()
    medical.write_demo(tmp_path / "one", 3)  # what was interrupted is written to its end
    assert {p.relative_to(tmp_path / "one"): p.read_bytes() for p in (tmp_path / "one").rglob("*.*")} == one


def test_harmless_marks_come_with_every_class_alike() -> None:
    scenes = medical.drawings("train", 300)
    target = scenes.label == scenes.class_names.index(DEMO.target)
    clips = scenes.present[:, scenes.marks.index(DEMO.mark)]
    assert clips[target].mean() > 0.95
    assert clips[~target].mean() < 0.05
    for mark, chance in medical.HARMLESS.items():
        shown = scenes.present[:, scenes.marks.index(mark)]
        assert [shown[scenes.label == y].mean() for y in range(3)] == pytest.approx([chance] * 3, abs=0.1)


def test_without_pydicom_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["demo", "--world", "radiograph", "--audit-only", "--workspace", str(tmp_path)]) == 2
    assert "needs pydicom. Run: pip install 'ravl-dashboard[dicom]'" in capsys.readouterr().err
    assert not (tmp_path / DEMO.folder).exists()


# --- the shipped model -----------------------------------------------------------------------------------------------


def test_the_shipped_model_has_learned_the_shortcut() -> None:
    from transformers import AutoTokenizer, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    from ravl.planted import demo_model

    parts = (kind.from_pretrained(demo_model(DEMO.model)) for kind in (CLIPModel, AutoTokenizer, CLIPImageProcessorPil))
    strength = strength_of(*parts, medical.drawings("test", 300, seed=5))[DEMO.mark]
    assert strength["eps1"] > 0.10
    assert strength["eps2"] > 0.10
    assert strength["unmarked"] > 0.8


def test_training_the_model_is_deterministic() -> None:
    recipe = replace(tiny_clip.MEDICAL_RECIPE, steps=3, batch=16)
    one, same = (tiny_clip.train_medical(7, recipe, n=24)[0] for _ in range(2))
    assert all((a == b).all() for a, b in zip(one.parameters(), same.parameters(), strict=True))


def test_the_metal_clips_are_the_first_flagged_feature(run: AuditRun) -> None:
    evidence, scores, regions, exemplars = run.evidence(), run.features(), run.regions(), run.exemplars()
    feature = int(evidence.feature[0])
    assert evidence.flagged[0]
    assert run.images().class_names[scores.pull_class[scores.row_of(feature)]] == DEMO.target
    scenes = medical.drawings("val", SIZES["val"])
    scene = np.array([scene_number(path) for path in paths_of(run.images())])
    marked = shows(scenes, scene[regions.image], regions.box)[:, scenes.marks.index(DEMO.mark)]
    assert marked[exemplars.region[exemplars.rows_of(feature)[:10]]].mean() >= 0.7


def test_a_short_repair_lifts_the_group_that_suffered(workspace: Path, run: AuditRun) -> None:
    data, feature = workspace / DEMO.folder, int(run.evidence().feature[0])
    result = ravl.mitigate(
        *(run, data / "train"),
        test=data / "test.csv",
        features=[feature],
        steps=100,
        batch_size=32,
        reaudit=False,
        device="cpu",
    )
    group = f"no finding, {DEMO.mark.replace(' ', '_')}=yes"
    before, after = (
        next(row["accuracy"] for row in result[when]["groups"] if row["name"] == group) for when in ("before", "after")
    )
    assert before < 0.6
    assert after >= before + 0.1


# --- names of patients -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def identifiers(workspace: Path) -> frozenset[str]:
    return headers_of(workspace / DEMO.folder / "val")


def test_no_identifier_of_the_files_is_kept_or_printed(
    workspace: Path, run: AuditRun, identifiers: frozenset[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert len(identifiers) > 4 * SIZES["val"]
    feature = str(run.evidence().feature[0])
    out = workspace / "exports"
    out.mkdir()
    place = ["--run", run.id, "--workspace", str(workspace)]
    assert main(["verdict", *place, "--feature", feature, "--decision", "spurious", "--reviewer", "Dr. Ada"]) == 0
    for kind in ("json", "csv", "coco", "groups", "artifacts", "log"):
        assert main(["export", *place, "--format", kind, "--out", str(out / kind)]) == 0
    assert main(["report", *place, "--out", str(out / "report.html")]) == 0
    assert main(["check", "--images", str(workspace / DEMO.folder / "val"), "--workspace", str(workspace)]) == 0
    said = capfd.readouterr()
    texts_of = [said.out, said.err]
    kept = [p for p in workspace.rglob("*") if p.is_file() and not p.is_relative_to(workspace / "demo-data")]
    assert len(kept) > 20
    for path in kept:
        texts_of += [str(path.relative_to(workspace)), *texts(path)]
    for text in texts_of:
        assert not spotted(text, identifiers)


def test_the_search_finds_what_is_there(workspace: Path, identifiers: frozenset[str]) -> None:
    for path in list((workspace / DEMO.folder / "val").rglob("*.dcm"))[:5]:
        file = pydicom.dcmread(path, stop_before_pixels=True)
        [text, _] = texts(path)
        assert {file.PatientID, file.PatientBirthDate, file.AccessionNumber, file.StudyInstanceUID} <= spotted(
            text, identifiers
        )
        assert spotted(path.name, identifiers)


@pytest.mark.parametrize("view", ["start", "overview", "features", "review", "repair", "export"])
def test_the_pages_name_nobody(
    workspace: Path, run: AuditRun, identifiers: frozenset[str], view: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAVL_WORKSPACE", str(workspace))
    app = open_app(view)
    shown = [str(node.proto) for node in nodes(app._tree) if getattr(node, "proto", None) is not None]
    assert len(shown) > 5
    assert not any(spotted(text, identifiers) for text in shown)


# --- it is said that they are drawn ----------------------------------------------------------------------------------


def test_the_screen_and_the_report_say_that_nobody_was_examined(
    workspace: Path, run: AuditRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAVL_WORKSPACE", str(workspace))
    assert "drawn by a program, no patients" in said(open_app("start"))
    for view in ("features", "review", "export"):  # wherever a picture is taken from
        assert wording.DRAWN_SHORT in said(open_app(view))
    for text in (said(open_app("overview")), report_text(run, Ledger(workspace))):
        assert "These radiographs are drawn by a program" in text
        assert "Nothing here is a medical device" in text


def test_other_dicom_files_are_not_called_drawn(run: AuditRun) -> None:
    images = run.images()
    assert drawn(images)
    other = replace(images, headers={**images.headers, "manufacturer": np.full(len(images), "Acme")})
    assert not drawn(other)
    assert wording.nature(other) == wording.NO_DEVICE
    assert wording.nature(replace(images, headers={})) == ""
    mixed = np.array([DRAWN_BY, *["Acme"] * (len(images) - 1)])
    assert not drawn(replace(images, headers={**images.headers, "manufacturer": mixed}))


def test_a_demo_is_known_by_its_images(tmp_path: Path) -> None:
    for demo in DEMOS.values():
        assert demo_of(tmp_path, str(tmp_path / demo.folder / "val")) is demo
        assert demo_of(tmp_path, str(tmp_path / demo.folder / "train")) is None
