"""Every repair ends with an audit of the tuned model, which is linked, compared and resumable."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ravl
from ravl import api, audit, cli, reaudit, vlm
from ravl.config import RegionsConfig
from ravl.errors import DataError, ModelError, RunError
from ravl.ledger import Ledger
from ravl.mitigation.card import model_card
from ravl.mitigation.rematch import rematch
from ravl.store import AuditRun, list_runs, origin_of
from tests.models import small_clip
from tests.worlds import COLOURS, colour_folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("place")
    small_clip(root / "model", tuple(COLOURS))
    for seed, name in enumerate(("val", "train")):
        colour_folder(root / name, 12, seed=seed)
    return root


@pytest.fixture(scope="module")
def run(place: Path) -> AuditRun:
    options: dict[str, Any] = {"regions": "grid:2", "clustering": "kmedoids", "seed": 3, "device": "cpu"}
    return ravl.discover(place / "val", place / "model", until="evidence", workspace=place / "w", **options)


def tune(run: AuditRun, place: Path, name: str, **options: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"features": [0], "steps": 2, "batch_size": 8, "device": "cpu", "name": name, **options}
    return ravl.mitigate(run, place / "train", **settings)


@pytest.fixture(scope="module")
def repaired(run: AuditRun, place: Path) -> dict[str, Any]:
    book = Ledger(place / "w")
    book.add_verdict(run.id, 1, "sky", "spurious", "Ada", "0" * 16, "a *frame*")
    book.close()
    return tune(run, place, "whole")


def test_the_tuned_model_is_audited_with_the_same_settings_on_the_same_images(
    run: AuditRun, repaired: dict[str, Any]
) -> None:
    part, folder = repaired["reaudit"], run.mitigation("whole")
    again = AuditRun(run.path.parent / part["run"])
    assert again.name == f"{run.name}-after-whole"
    assert again.config == replace(run.config, model=str(folder.model))
    prints = again.about["fingerprints"]
    assert prints["data"] == run.about["fingerprints"]["data"]
    assert prints["model"] == repaired["fingerprints"]["tuned_model"] != run.about["fingerprints"]["model"]
    assert again.has("evidence")
    assert not again.has("projection")  # nor has the first
    assert folder.result == repaired
    assert json.loads(json.dumps(repaired, allow_nan=False)) == repaired


def test_both_runs_know_each_other(run: AuditRun, repaired: dict[str, Any]) -> None:
    folder = run.mitigation("whole")
    assert folder.audit == repaired["reaudit"]["run"]
    origin = origin_of(run.path.parent / repaired["reaudit"]["run"])
    assert origin is not None
    assert (origin.run, origin.mitigation) == (run.id, "whole")
    assert origin_of(run.path) is None
    assert run.mitigation("never").audit is None


def test_every_feature_of_both_audits_is_told_once(run: AuditRun, repaired: dict[str, Any]) -> None:
    part = repaired["reaudit"]
    again = AuditRun(run.path.parent / part["run"])
    for when, audited in (("before", run), ("after", again)):
        ids = sorted(row[when] for row in part["features"] if row[when] is not None)
        assert ids == np.unique(audited.feature_label()[audited.feature_label() >= 0]).tolist()
        right = audited.zero_shot().correct
        assert (part["accuracy"][when]["count"], part["accuracy"][when]["n"]) == (int(right.sum()), len(right))
        assert part["flagged"][when] == int(audited.evidence().flagged.sum())
    names = {row["before"]: row["name"] for row in part["features"] if row["before"] is not None}
    assert names[1] == "a *frame*"
    assert [row["before"] for row in part["features"] if row["treated"]] == [0]


def test_an_audit_beside_itself_has_not_changed(run: AuditRun) -> None:
    side = reaudit.audited(run)
    rows = rematch(run.regions(), side, side)
    assert {(row.before, row.jaccard, row.status) for row in rows} == {(f, 1.0, "same") for f in side.ids}
    wrong = ~run.zero_shot().correct
    single = np.diff(run.regions().starts) < 2
    outside = run.feature_label()[side.deciding] < 0
    assert sum(row.both for row in rows) == int((wrong & ~single & ~outside).sum())
    tested = run.evidence().feature[run.evidence().tested].tolist()
    assert [f for f, about in side.about.items() if about.fixed is not None] == tested


def test_the_card_tells_the_second_audit(run: AuditRun, repaired: dict[str, Any]) -> None:
    text = (run.mitigation("whole").model / "README.md").read_text(encoding="utf-8")
    part = repaired["reaudit"]
    assert f"(audit {part['run']})" in text
    assert f"{part['accuracy']['after']['count']} of {part['accuracy']['after']['n']} now" in text
    assert "Not done." not in text
    grown = {**part["features"][0], "status": "grew", "worse": True, "name": "a *frame*"}
    told = {**repaired, "reaudit": {**part, "features": [grown]}}
    card = model_card("m", ("a",), ("{}",), told)
    assert "- **Grew: a \\*frame\\***" in card
    assert "does not prove" not in card.split("## Audit of this model")[1].split("## Prompts")[0]


def test_the_same_call_audits_nothing_twice(
    run: AuditRun, place: Path, repaired: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaudit, "discover", lambda *_: pytest.fail("it is there already"))
    assert tune(run, place, "whole") == repaired


def test_it_can_be_left_out_and_made_up_for(run: AuditRun, place: Path) -> None:
    before = {other.id for other in list_runs(place / "w")}
    result = tune(run, place, "later", reaudit=False)
    assert "reaudit" not in result
    assert {other.id for other in list_runs(place / "w")} == before
    again = tune(run, place, "later")
    assert {key: value for key, value in again.items() if key != "reaudit"} == result
    assert {other.id for other in list_runs(place / "w")} - before == {again["reaudit"]["run"]}


@pytest.mark.parametrize("at", ["features", "evidence", "link", "card", "result"])
def test_a_kill_at_any_point_is_made_up_for(
    run: AuditRun, place: Path, repaired: dict[str, Any], monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """The process ends in a stage of the audit, or just before a file is written."""
    name = f"killed-{at}"
    tune(run, place, name, reaudit=False)

    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if at in ("features", "evidence"):
            stage = AuditRun.stage
            patch.setattr(AuditRun, "stage", lambda self, n, f: killed() if n == at else stage(self, n, f))
        else:
            method = {"link": "link", "card": "save_card", "result": "save_result"}[at]
            patch.setattr("ravl.store.MitigationFolder." + method, killed)
        with pytest.raises(KeyboardInterrupt):
            tune(run, place, name)
    assert run.mitigation(name).finished  # before and after are told all the same
    runs = len(list_runs(place / "w"))
    result = tune(run, place, name)
    assert len(list_runs(place / "w")) == runs  # it is the same run that goes on
    assert run.mitigation(name).audit == result["reaudit"]["run"]
    same = ("before", "after", "part_of", "status", "regions")
    assert [{k: row[k] for k in same} for row in result["reaudit"]["features"]] == [
        {k: row[k] for k in same} for row in repaired["reaudit"]["features"]
    ]


def test_features_that_people_merged_are_matched_again(run: AuditRun, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "w", tmp_path / "w")
    own = AuditRun(tmp_path / "w" / "runs" / run.id)
    first = tune(own, place, "regrouped", method="standard")
    second = AuditRun(own.path.parent / first["reaudit"]["run"])
    ids = np.unique(second.families().family)[:2].tolist()
    api.regroup(second, "merge", ids, "Ada", device="cpu")
    again = tune(own, place, "regrouped", method="standard")
    assert again["reaudit"]["revisions"] == [0, 1]
    assert not {row["after"] for row in again["reaudit"]["features"]} & set(ids)


def test_unlike_images_are_refused(place: Path, tmp_path: Path) -> None:
    colour_folder(tmp_path / "val", 6, seed=5)
    options: dict[str, Any] = {"clustering": "kmedoids", "device": "cpu", "workspace": tmp_path / "w"}
    own = ravl.discover(tmp_path / "val", place / "model", until="evidence", **options)
    picture = tmp_path / "val" / "sky" / "000.png"
    picture.write_bytes((tmp_path / "val" / "sky" / "001.png").read_bytes())
    with pytest.raises(DataError, match=r"must be those of the first audit.* has changed since.*--no-reaudit"):
        tune(own, place, "m")
    assert own.mitigation("m").finished
    assert [other.id for other in list_runs(tmp_path / "w")] == [own.id]  # nothing was begun


def test_another_model_in_the_folder_is_refused(run: AuditRun, place: Path) -> None:
    tune(run, place, "swapped", reaudit=False)
    folder = run.mitigation("swapped")
    shutil.copy(place / "model" / "model.safetensors", folder.model / "model.safetensors")
    with pytest.raises(ModelError, match="it has changed since"):
        tune(run, place, "swapped")


def test_other_regions_are_refused(run: AuditRun, place: Path) -> None:
    config = replace(run.config, regions=RegionsConfig.parse("grid:3"))
    other = audit.discover(config, vlm.load(str(place / "model"), "cpu"), place / "w", "cut", until="evidence")
    with pytest.raises(RunError, match=r"must cut the images as .* did to be compared"):
        reaudit.compared(run, other, [])


def test_names_that_are_long_make_a_name_that_is_allowed(place: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"clustering": "kmedoids", "device": "cpu", "workspace": tmp_path / "w", "name": "r" * 70}
    own = ravl.discover(place / "val", place / "model", until="evidence", **options)
    result = tune(own, place, "m" * 70)
    assert len(AuditRun(own.path.parent / result["reaudit"]["run"]).name) == 79


def test_the_command_says_what_grew(
    run: AuditRun, place: Path, repaired: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run.mitigation("whole")
    arguments = ["mitigate", f"--run={run.id}", f"--workspace={place / 'w'}", f"--images={place / 'train'}"]
    arguments += ["--features=0", "--steps=2", "--batch-size=8", "--device=cpu", "--name=whole"]
    part = repaired["reaudit"]
    quiet = [{**row, "status": "same", "worse": False} for row in part["features"]]
    folder.save_result({**repaired, "reaudit": {**part, "features": quiet}})
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert f"audit of the tuned model: {part['run']}" in text
    assert "no feature grew beyond chance; that does not prove that no shortcut grew" in text
    loud = {**quiet[0], "status": "grew", "worse": True, "name": "clip"}
    loud["pull_class"] = {"before": "sky", "after": None}
    folder.save_result({**repaired, "reaudit": {**part, "features": [loud]}})
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    counts = [loud["errors"][when]["count"] for when in ("before", "after")]
    assert f"grew: clip, pulls to sky; errors decided there: {counts[0]} -> {counts[1]} of 36 images" in text
    assert "does not prove" not in text
    folder.save_result(repaired)
