"""What purge deletes, and everything that it must not."""

from __future__ import annotations

import ast
import importlib
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboard.serving import faults
from ravl.cli import main
from ravl.config import AuditConfig
from ravl.errors import ConfigError, RunError
from ravl.ledger import Ledger
from ravl.planted.demos import DEMOS
from ravl.store import AuditRun, purging, workspace_key
from tests.test_architecture import FILES


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Two runs with crops, a database, a log, somebody else's file and a link to pictures elsewhere."""
    place = tmp_path / "ws"
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "a.png").write_bytes(b"x")
    for name in ("one", "two"):
        run = AuditRun.create(place, name, AuditConfig(str(pictures), "demo"), {"data": name})
        (run.path / "thumbs").mkdir()
        (run.path / "thumbs" / "0.jpg").write_bytes(b"crop")
        (run.path / "linked").symlink_to(pictures)
    workspace_key(place)
    ledger = Ledger(place)
    ledger.add_verdict(runs(place)[0], 0, "x", "spurious", "A. Turing", "digest", "name", "note")
    ledger.close()
    (place / "notes.txt").write_text("mine")
    return place


def runs(place: Path) -> list[str]:
    return sorted(path.parent.name for path in place.glob("runs/*/run.json"))


def call(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_a_run_is_deleted_and_nothing_else(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = runs(workspace)
    assert call("purge", "--workspace", workspace, "--run", "one", "--yes", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["deleted"] == [str(workspace / "runs" / one)]
    assert document["files"] >= 2
    assert runs(workspace) == [two]
    assert (workspace.parent / "pictures" / "a.png").exists()
    ledger = Ledger(workspace)
    assert ledger.verdicts(one)
    ledger.close()


def test_logs_of_its_jobs_go_with_a_run(workspace: Path) -> None:
    one, two = runs(workspace)
    ledger = Ledger(workspace)
    (workspace / "jobs").mkdir()
    logs = {}
    for run in (one, two):
        job = ledger.add_job("discover", "title", ["discover"], "cpu" if run == one else "cuda")
        ledger.update_job(job.id, run=run)
        logs[run] = workspace / "jobs" / f"{job.id}.log"
        logs[run].write_text("patients/jane.dcm cannot be read")
    ledger.close()
    assert call("purge", "--workspace", workspace, "--run", one, "--yes") == 0
    assert (logs[one].exists(), logs[two].exists()) == (False, True)


def test_the_whole_workspace(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("purge", "--workspace", workspace, "--all", "--yes") == 0
    assert "Left where they are, since ravl did not write them: notes.txt" in capsys.readouterr().out
    assert os.listdir(workspace) == ["notes.txt"]
    assert (workspace.parent / "pictures" / "a.png").exists()


def test_a_workspace_of_nothing_else_goes_altogether(workspace: Path) -> None:
    (workspace / "notes.txt").unlink()
    assert call("purge", "--workspace", workspace, "--all", "--yes") == 0
    assert not workspace.exists()


def test_without_consent_nothing_is_deleted(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(workspace.rglob("*"))
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
    assert call("purge", "--workspace", workspace, "--all") == 2
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: "one")
    assert call("purge", "--workspace", workspace, "--run", "one") == 2
    assert sorted(workspace.rglob("*")) == before


def test_the_name_typed_in_full_is_consent(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = runs(workspace)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: one)
    assert call("purge", "--workspace", workspace, "--run", "one") == 0
    assert runs(workspace) == [two]


def test_a_folder_that_is_no_workspace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigError, match="must be a folder that ravl made"):
            purging.purge(place)
    (tmp_path / "runs").symlink_to(tmp_path / "photos")
    with pytest.raises(ConfigError, match="must be a folder that ravl made"):
        purging.purge(tmp_path)
    assert (tmp_path / "photos").exists()


def test_a_run_elsewhere_is_refused(workspace: Path, tmp_path: Path) -> None:
    other = AuditRun.create(tmp_path / "other", "three", AuditConfig("x", "demo"), {})
    with pytest.raises(ConfigError, match="must be a run of the workspace"):
        purging.purge(workspace, str(other.path))
    with pytest.raises(ConfigError, match="must name a run"):
        purging.purge(workspace, "four")
    assert other.path.exists()


@pytest.mark.parametrize("name", ["one", ""])
def test_a_run_at_work_is_not_deleted(workspace: Path, name: str) -> None:
    run = AuditRun.find(workspace, "one")
    with run.locked(), pytest.raises(RunError, match="being computed by another process"):
        purging.purge(workspace, name)
    assert len(runs(workspace)) == 2


@pytest.mark.parametrize("name", ["one", ""])
def test_a_run_whose_model_is_fine_tuned_is_not_deleted(workspace: Path, name: str) -> None:
    tuning = AuditRun.find(workspace, "one").mitigation("ravl-1")
    tuning.begin({"run": "one"})
    with tuning.locked(), pytest.raises(RunError, match="ravl-1 is being computed by another process"):
        purging.purge(workspace, name)
    assert tuning.exists
    purging.purge(workspace, name)  # once it has ended
    assert not tuning.path.exists()


@pytest.mark.parametrize("document", [None, "{"])
def test_a_damaged_run_is_deleted_by_its_full_name(workspace: Path, document: str | None) -> None:
    one, two = runs(workspace)
    about = workspace / "runs" / one / "run.json"
    about.unlink() if document is None else about.write_text(document)
    assert call("purge", "--workspace", workspace, "--run", one, "--yes") == 0
    assert sorted(os.listdir(workspace / "runs")) == [".lock", two]


# --- what ravl writes ------------------------------------------------------------------------------------------------

SPELLED_ELSEWHERE = {key: {demo.folder for demo in DEMOS.values()} for key in ("demo.folder", "self.folder")}
"""Names below a workspace that are no constant of their module, and what they are; `self` is a demo."""


def below_the_workspace(tree: ast.AST) -> Iterator[str]:
    """The source of x in every `workspace / x / ...` of a module, however the workspace is spelled."""
    for node in ast.walk(tree):
        first = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and not isinstance(node.left, ast.BinOp)
        if first and re.search(r"\bworkspace\b", ast.unparse(node.left)):
            yield ast.unparse(node.right)


def written_by(module: str, path: Path) -> set[str]:
    """The names directly below a workspace that a module makes paths of."""
    found: set[str] = set()
    for source in below_the_workspace(ast.parse(path.read_text(encoding="utf-8"))):
        if source in SPELLED_ELSEWHERE:
            found |= SPELLED_ELSEWHERE[source]
        elif source.isidentifier():
            found.add(getattr(importlib.import_module(module), source))
        else:
            found.add(ast.literal_eval(source))
    return {name.split("/")[0] for name in found}


def test_everything_that_is_written_is_known() -> None:
    """The benchmark is left out: its folder is no workspace of a person."""
    modules = {name: path for name, path in FILES.items() if not name.startswith(("ravl.bench", "ravl.benchmark"))}
    written = set().union(*(written_by(name, path) for name, path in modules.items()))
    assert {"runs", "jobs", "datasets", "demo-data", "selections", "key", "dashboard.log"} <= written
    assert written - {purging.DATABASE} <= set(purging.OWN)


def test_the_log_and_the_selections_of_the_screen_go_too(workspace: Path) -> None:
    (workspace / "notes.txt").unlink()
    faults.note(ValueError("patients/jane.dcm"), workspace)
    (workspace / "selections").mkdir()
    (workspace / "selections" / "0.json").write_text("[1]")
    assert call("purge", "--workspace", workspace, "--all", "--yes") == 0
    assert not workspace.exists()
