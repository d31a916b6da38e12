"""Whole audits: planted truth, other data with another model, and killed runs that continue."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest

import ravl
from ravl.planted.digits import CLASSES, TARGET
from tests.models import small_clip
from tests.worlds import COLOURS, colour_folder, colour_manifest, digit_folder


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
from ravl import vlm
images, workspace, *at = sys.argv[1:]
vlm.load("demo", "cpu")  # imports once what every audit needs
for stage, done in (place.split(":") for place in at):
    def report(step):
        if step.stage == stage and step.done >= int(done):
            os.kill(os.getpid(), signal.SIGKILL)
    child = os.fork()
    if not child:
        ravl.discover(images, "demo", workspace=workspace, device="cpu", report=report)
        os._exit(1)  # it was not killed
    print(stage, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Audits one after the other, each in a process of its own that is killed where `at` says."""


@pytest.mark.slow
def test_a_run_killed_in_any_stage_continues_to_the_same_files(tmp_path, python):
    images, _ = digit_folder(tmp_path / "images", 200, seed=2)
    stages = {"embeddings": 128, "zero_shot": 1, "features": 0, "exemplars": 1, "counterfactuals": 1, "projection": 0}
    at = [f"{stage}:{done}" for stage, done in stages.items()]
    ended = python(_KILLED, images, tmp_path / "killed", *at).splitlines()
    assert ended == [f"{stage} {-signal.SIGKILL}" for stage in stages]
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
