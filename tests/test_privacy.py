"""Identifiers planted in DICOM headers, file names and folders are found nowhere: not in the workspace, in what is
printed, in exports, or in the pages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ravl.cli import main
from ravl.data import load_images
from ravl.store import AuditRun
from tests.dashboard.screen import open_app
from tests.medical import CANARIES, dicom, found, nodes, texts, written
from tests.models import small_clip

ROOT = Path(__file__).parents[1]
NAMES = ("apple", "leaf")


def patients(root: Path, n: int = 30) -> Path:
    """`n` files per class, in a folder per patient; every header holds an identifier, and three files are broken."""
    rng = np.random.default_rng(0)
    for y, name in enumerate(NAMES):
        for i in range(n):
            folder = root / name / f"{CANARIES[0]}_{CANARIES[2]}"
            folder.mkdir(parents=True, exist_ok=True)
            values = rng.integers(0, 2000, (48, 48)).astype(np.uint16)
            values[:24, : 24 * (y + 1)] += 1500
            options = {"Modality": "DX", "ViewPosition": ("PA", "AP")[i % 2], "Manufacturer": "Acme"}
            data = written(dicom(values, True, BurnedInAnnotation=("NO", "YES")[i == 0], **options))
            path = folder / f"{CANARIES[0]}.{CANARIES[3]}.{i}{('.dcm', '')[i % 2]}"
            path.write_bytes(data if i else data[: len(data) - 2000])
    (root / NAMES[0] / f"{CANARIES[1]}.dcm").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A workspace after check, discover, a verdict and an export; and all that these printed."""
    root = tmp_path_factory.mktemp("clinic")
    images = patients(root / "images")
    small_clip(root / "model", NAMES)
    workspace, said = root / "ws", ""
    for command in (
        ("check", "--images", images, "--json"),
        ("discover", "--images", images, "--model", root / "model", "--clustering", "kmedoids", "--rule", "paper"),
    ):
        limit = ["--device", "cpu"] if command[0] == "discover" else []
        done = subprocess.run(
            [sys.executable, "-m", "ravl", *map(str, command), "--workspace", str(workspace), *limit],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        assert done.returncode in (0, 2), done.stderr
        said += done.stdout + done.stderr
        assert done.returncode == 0, said
    (run,) = (workspace / "runs").glob("*/run.json")
    feature = str(AuditRun(run.parent).features().feature[0])
    decide = ["--run", run.parent.name, "--feature", feature, "--decision", "spurious", "--reviewer", "A. Turing"]
    assert main(["verdict", *decide, "--workspace", str(workspace)]) == 0
    for kind in ("json", "csv"):
        out = ["--format", kind, "--out", str(workspace / "exports" / f"list.{kind}")]
        (workspace / "exports").mkdir(exist_ok=True)
        assert main(["export", "--run", run.parent.name, "--workspace", str(workspace), *out]) == 0
    return workspace, said


def test_the_search_itself_finds_what_is_there(tmp_path: Path) -> None:
    pd.DataFrame({"a": [CANARIES[0]] * 3}).to_parquet(tmp_path / "a.parquet")
    np.savez_compressed(tmp_path / "a.npz", a=np.frombuffer(CANARIES[0].encode(), np.uint8))
    for name in ("a.parquet", "a.npz"):
        assert any(map(found, texts(tmp_path / name)))


def test_nothing_in_the_workspace(audited: tuple[Path, str]) -> None:
    workspace, _ = audited
    files = [path for path in workspace.rglob("*") if path.is_file()]
    assert len(files) > 15
    for path in files:
        assert not found(str(path.relative_to(workspace)))
        for text in texts(path):
            assert not found(text), path
    assert workspace.stat().st_mode & 0o077 == 0
    assert (workspace / "key").stat().st_mode & 0o077 == 0


def test_nothing_in_what_is_printed(audited: tuple[Path, str]) -> None:
    _, said = audited
    assert "BurnedInAnnotation" not in said  # check printed a document here
    assert '"burned_in": 0' in said  # the two that say so are broken
    assert "cannot be decoded" in said
    assert not found(said)


def test_what_is_kept_instead(audited: tuple[Path, str]) -> None:
    workspace, _ = audited
    (run,) = (workspace / "runs").glob("*/run.json")
    images = AuditRun(run.parent).images()
    assert set(images.headers) == {
        *("modality", "photometric", "view_position", "manufacturer", "burned_in", "rendering", "patient")
    }
    assert set(images.headers["manufacturer"]) == {"Acme"}
    assert len(set(images.headers["patient"])) == 1
    assert len(images.skipped) == 3
    assert [picture.size for picture in load_images(images, [0, 5])] == [(48, 48)] * 2


@pytest.mark.parametrize("view", ["start", "overview", "features", "region_map", "review", "repair", "export"])
def test_nothing_on_the_pages(audited: tuple[Path, str], view: str, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, _ = audited
    monkeypatch.setenv("RAVL_WORKSPACE", str(workspace))
    app = open_app(view)
    shown = [str(node.proto) for node in nodes(app._tree) if getattr(node, "proto", None) is not None]
    assert len(shown) > 5
    assert not any(found(text) for text in shown)
