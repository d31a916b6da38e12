"""Whole audits: planted truth, other data with another model, and killed runs that continue."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ravl
from ravl.planted.digits import CLASSES, TARGET
from tests.models import small_clip
from tests.worlds import COLOURS, colour_folder, colour_manifest, digit_folder

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return digit_folder(tmp_path_factory.mktemp("scenes"), 500, seed=11)


def shows_mark(run, world, image, region):
    """Whether a region is the quadrant that holds the square."""
    scene = int(Path(run.images().file[image]).stem)
    return run.regions().position[region] == world.mark_cell[scene]


@pytest.mark.parametrize("encoder", ["tokens", "crop"])
@pytest.mark.parametrize("clustering", ["hdbscan", "kmedoids"])
def test_the_planted_square_is_the_first_feature(scenes, tmp_path, clustering, encoder):
    images, world = scenes
    run = ravl.discover(
        images,
        "demo",
        classes=CLASSES,
        clustering=clustering,
        encoder=encoder,
        seed=1,
        workspace=tmp_path,
        device="cpu",
    )
    scores, exemplars, evidence = run.features(), run.exemplars(), run.evidence()
    top = int(evidence.feature[0])
    row = scores.row_of(top)
    assert scores.passes[row]
    assert (bool(evidence.flagged[0]), evidence.grade[0]) == (True, "causal")
    assert CLASSES[scores.pull_class[row]] == TARGET
    rows = exemplars.rows_of(top)[:10]
    hits = [shows_mark(run, world, exemplars.image[r], exemplars.region[r]) for r in rows]
    assert hits == [True] * 10
    assert (np.diff(exemplars.contribution[rows]) <= 0).all()
    assert (exemplars.contribution[rows] > 0).all()
    members = np.flatnonzero(run.feature_label() == top)
    precision = np.mean([shows_mark(run, world, run.regions().image[r], r) for r in members])
    assert precision > 0.9


@pytest.mark.parametrize("as_manifest", [False, True])
def test_another_model_on_other_data(tmp_path, as_manifest):
    """Nothing is tied to the demo: patch size, image shape, classes and prompts are all different."""
    model = small_clip(tmp_path / "model", tuple(COLOURS), image_size=60, patch_size=10)
    images = colour_folder(tmp_path / "pictures", n=25, size=(110, 61))
    source = colour_manifest(images) if as_manifest else images
    run = ravl.discover(
        source, model, templates=("a photo of {}", "{}"), regions="grid:3", workspace=tmp_path / "w", name="colours",
        device="cpu",
    )  # fmt: skip
    assert run.finished
    assert run.images().class_names == tuple(COLOURS)
    assert len(run.regions()) == 75 * 9
    assert np.isfinite(run.projection()).all()
    assert list(run.images().groups) == (["site"] if as_manifest else [])
    # wide pictures are cut at the sides by the model's centre crop; regions lie in what it sees
    assert run.regions().box[:, 0].min() == 24 or run.regions().box[:, 0].min() == 25
    again = ravl.discover(
        source, model, templates=("a photo of {}", "{}"), regions="grid:3", workspace=tmp_path / "w", name="colours",
        device="cpu",
    )  # fmt: skip
    assert again.id == run.id


_KILLED = """
import os, signal, sys
import ravl
images, workspace, stage, done = sys.argv[1:]
def report(step):
    if step.stage == stage and step.done >= int(done):
        os.kill(os.getpid(), signal.SIGKILL)
ravl.discover(images, "demo", workspace=workspace, device="cpu", report=report)
"""


def test_a_run_killed_in_any_stage_continues_to_the_same_files(tmp_path):
    images, _ = digit_folder(tmp_path / "images", 200, seed=2)
    for stage, done in (
        ("embeddings", 128),
        ("zero_shot", 1),
        ("features", 0),
        ("exemplars", 1),
        ("counterfactuals", 1),
        ("projection", 0),
    ):
        command = [sys.executable, "-c", _KILLED, str(images), str(tmp_path / "killed"), stage, str(done)]
        ended = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
        assert ended.returncode == -signal.SIGKILL, ended.stderr
    killed = ravl.discover(images, "demo", workspace=tmp_path / "killed", device="cpu")
    whole = ravl.discover(images, "demo", workspace=tmp_path / "whole", device="cpu")
    assert len(list((tmp_path / "killed" / "runs").glob("*/run.json"))) == 1
    names = sorted(p.name for p in whole.path.iterdir() if p.is_file())
    assert sorted(p.name for p in killed.path.iterdir() if p.is_file()) == names
    for name in set(names) - {"run.json"}:
        assert (killed.path / name).read_bytes() == (whole.path / name).read_bytes(), name
    kept, compared = killed.about, whole.about
    assert kept["config"] == compared["config"]
    assert kept["stages"].keys() == compared["stages"].keys()


def test_importing_the_package_is_light(python):
    code = "import ravl, sys, json; print(json.dumps([m for m in ('torch', 'pandas', 'numpy') if m in sys.modules]))"
    assert json.loads(python(code)) == []
