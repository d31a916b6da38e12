"""Every method of mitigation through a whole repair, and that each does what it declares and nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import ravl
from ravl import api, cli, repair, vlm
from ravl.config import MitigationConfig
from ravl.data import read_images
from ravl.errors import ConfigError
from ravl.ledger import Ledger
from ravl.mitigation import baselines
from ravl.mitigation.baselines import METHODS
from ravl.mitigation.card import model_card
from ravl.store import AuditRun, MitigationFolder
from ravl.tables import NOISE, Families, ImageSet, quiet
from tests.models import small_clip
from tests.worlds import COLOURS, colour_folder, colour_manifest


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three layers, audited images and training images."""
    root = tmp_path_factory.mktemp("place")
    small_clip(root / "model", tuple(COLOURS))
    for seed, name in enumerate(("val", "train")):
        colour_folder(root / name, 12, seed=seed)
    return root


@pytest.fixture(scope="module")
def run(place: Path) -> AuditRun:
    """An audit whose first features were merged, so that one has several clusters."""
    audited = ravl.discover(
        place / "val", place / "model", clustering="kmedoids", until="evidence", device="cpu", workspace=place / "w"
    )
    first, second = np.unique(audited.families().family)[:2].tolist()
    return api.regroup(audited, "merge", [first, second], "Ada", device="cpu")


def merged_feature(run: AuditRun) -> int:
    return int(np.argmax(np.bincount(run.families().family)))


# --- which clusters are treated --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "families", "top"),
    [("paper", "auto", True), ("ravl", "auto", False), ("paper", "all", False), ("ravl", "top", True)],
)
def test_the_paper_treats_the_top_cluster_and_the_others_treat_all(method: str, families: str, top: bool) -> None:
    found = Families(np.array([0, 4, 0, 4, 1]), np.array(["edited"] * 5))
    chosen = baselines.treated(found, baselines.top_only(MitigationConfig(method=method, families=families)))
    assert chosen.tolist() == [True, True, not top, not top, True]
    assert len(baselines.treated(Families(np.zeros(0), np.zeros(0)), True)) == 0


def test_regions_of_the_other_clusters_count_as_relevant(run: AuditRun, place: Path) -> None:
    feature = merged_feature(run)
    clusters = run.families().clusters_of(feature)
    sizes = np.bincount(run.clustering().label[run.clustering().label != NOISE])
    assert len(clusters) >= 2
    assert clusters[0] == clusters[np.argmax(sizes[clusters])]
    for families in ("all", "top"):
        result = ravl.mitigate(
            run, place / "train", features=[feature], steps=1, families=families, method="paper", device="cpu",
            reaudit=False, name=f"clusters-{families}",
        )  # fmt: skip
        folder = run.mitigation(f"clusters-{families}")
        feature_of = np.load(folder.path / "assignment-train.npz")["feature"]
        assert result["n_spurious_training_regions"] == int((feature_of == feature).sum())
    every, top = (run.mitigation(f"clusters-{f}").result["n_spurious_training_regions"] for f in ("all", "top"))
    assert 0 < top < every


# --- the methods -----------------------------------------------------------------------------------------------------


def test_the_configuration_lists_every_method() -> None:
    assert set(MitigationConfig.__dataclass_fields__["method"].metadata["choices"]) == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_ends_with_a_model_of_transformers(run: AuditRun, place: Path, method: str) -> None:
    result = ravl.mitigate(
        run, colour_manifest(place / "train"), features=[merged_feature(run)], method=method, steps=2, batch_size=8,
        device="cpu", reaudit=False, name=f"method-{method}",
    )  # fmt: skip
    assert (result["best_step"] is None) == (method == "project")
    assert result["compared_on"].startswith("the audited images, ")
    before, after = (vlm.load(str(model), "cpu").module.state_dict() for model in (place / "model", result["model"]))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    tower = ("vision_model.",) if METHODS[method].learns == ("tower",) else ()
    assert all(name.startswith(("visual_projection.", *tower)) for name in moved)


@pytest.mark.parametrize(
    ("method", "needs"),
    [("standard", False), ("jtt", False), ("vl-erm", False), ("gdro-true", False)]
    + [(name, True) for name in METHODS if name not in ("standard", "jtt", "vl-erm", "gdro-true")],
)
def test_methods_that_need_a_feature_say_so(run: AuditRun, place: Path, method: str, needs: bool) -> None:
    if needs:
        with pytest.raises(ConfigError, match="at least one feature must be confirmed"):
            ravl.mitigate(run, place / "train", features=[], method=method)
    assert METHODS[method].needs_features == needs


def test_true_groups_need_a_column(run: AuditRun, place: Path) -> None:
    with pytest.raises(ConfigError, match="training images of gdro-true must have group columns, got none"):
        ravl.mitigate(run, place / "train", features=[], method="gdro-true", steps=1, device="cpu")


def test_groups_are_numbered_without_gaps() -> None:
    images = ImageSet(
        "/", np.array(list("abcdef")), np.array([0, 0, 2, 2, 2, 0]), np.full((6, 2), 9), ("x", "y", "z"),
        groups={"site": np.array(list("AABBAB")), "sex": np.array(list("ffffmf"))},
    )  # fmt: skip
    assert baselines.inferred_groups(images, np.array([0, 1, 0, 0, 1, 0], bool)).tolist() == [0, 1, 2, 2, 3, 0]
    assert baselines.true_groups(images).tolist() == [0, 0, 3, 3, 2, 1]


def test_images_of_small_groups_and_errors_weigh_more() -> None:
    group, wrong = np.array([0, 0, 0, 1, 2, 2]), np.array([0, 0, 1, 0, 0, 1], bool)
    assert baselines.draw_weights("", group, wrong) is None
    balanced, upweighted = (baselines.draw_weights(drawn, group, wrong) for drawn in ("groups", "errors"))
    assert balanced == pytest.approx(np.array([1 / 9] * 3 + [1 / 3] + [1 / 6] * 2))
    assert upweighted == pytest.approx(np.where(wrong, 20, 1) / 44)


def test_halves_of_the_audited_images_share_no_image(run: AuditRun) -> None:
    audited = repair.audited_images(run)
    model, config = vlm.load(run.config.model, "cpu"), MitigationConfig(method="dfr", seed=5)
    task = repair._Task(run, model, {merged_feature(run): ""}, config, run.mitigation("halves"), quiet)
    training, validation = repair._sets(task, audited, audited)
    files = [set(part.images.file.tolist()) for part in (training, validation)]
    assert not files[0] & files[1]
    assert files[0] | files[1] == set(audited.images.file.tolist())
    place_of = {file: i for i, file in enumerate(audited.images.file.tolist())}
    for i, file in enumerate(training.images.file.tolist()):
        own, whole = training.regions.rows_of(i), audited.regions.rows_of(place_of[file])
        assert training.regions.box[own].tolist() == audited.regions.box[whole].tolist()
        assert training.keep[i] - own.start == audited.found.best[place_of[file]] - whole.start
        expected = audited.found.feature[whole] == merged_feature(run)
        assert training.spurious[own].tolist() == expected.tolist()
        assert training.wrong[i] == (audited.found.predicted[place_of[file]] != training.images.label[i])


@pytest.mark.parametrize("method", ["paper", "project"])
def test_a_repair_in_steps_ends_with_the_same_model(method: str, run: AuditRun, place: Path, tmp_path: Path) -> None:
    feature = merged_feature(run)
    config = MitigationConfig(method=method, steps=2, batch_size=8, features=(feature,))
    options = {"steps": 2, "batch_size": 8, "device": "cpu", "name": f"at-once-{method}"}
    whole = ravl.mitigate(run, place / "train", features=[feature], method=method, **options)
    images = read_images(place / "train", run.images().class_names)
    seen_in, trained_in = (MitigationFolder(tmp_path / name) for name in ("seen", "trained"))
    for folder in (seen_in, trained_in):
        folder.path.mkdir()
    model = vlm.load(run.config.model, "cpu")
    seen = repair.look(run, model, images, seen_in, top=method == "paper")
    told = repair.change(run, model, seen, repair.audited_images(run), {feature: ""}, config, trained_in)
    assert model.fingerprint == whole["fingerprints"]["tuned_model"]
    assert {"best_step", "n_spurious_training_regions"} <= told.keys()
    assert told == {name: whole[name] for name in told}


def test_projecting_out_leaves_nothing_along_the_features(place: Path) -> None:
    model = vlm.load(str(place / "model"), "cpu")
    rng = np.random.default_rng(0)
    region = rng.normal(size=(40, model.dim))
    region /= np.linalg.norm(region, axis=1, keepdims=True)
    feature = np.repeat([-1, 4, 9, -1], 10)
    before = model.module.visual_projection.weight.detach().clone().double().numpy()
    baselines.project_out(model, region.astype(np.float16), feature)
    after = model.module.visual_projection.weight.detach().double().numpy()
    rest = region[feature < 0].mean(0)
    directions = [region[feature == f].mean(0) - rest for f in (4, 9)]
    for direction in directions:
        assert np.abs(direction @ after).max() < 1e-3
    # everything at right angles to both directions stays: Gram-Schmidt, written out
    first = directions[0] / np.linalg.norm(directions[0])
    second = directions[1] - (directions[1] @ first) * first
    second /= np.linalg.norm(second)
    want = before - np.outer(first, first @ before) - np.outer(second, second @ before)
    assert after == pytest.approx(want, abs=1e-3)
    baselines.project_out(model, region, np.full(40, -1))  # no feature, no change
    assert np.array_equal(model.module.visual_projection.weight.detach().double().numpy(), after)
    baselines.project_out(model, region, np.repeat([2, 2], 20))  # nothing else to compare with
    assert np.isfinite(model.module.visual_projection.weight.detach().numpy()).all()


# --- the comparison --------------------------------------------------------------------------------------------------


def test_a_result_tells_what_was_compared(run: AuditRun, place: Path) -> None:
    feature = merged_feature(run)
    book = Ledger(place / "w")
    book.add_verdict(run.id, feature, "sky", "spurious", "Dr. A. Turing", "0" * 16, "a frame")
    book.close()
    options = {"features": [feature], "steps": 1, "batch_size": 8, "device": "cpu", "name": "told", "reaudit": False}
    result = ravl.mitigate(run, place / "train", **options)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    (about,) = result["features"]
    assert (about["name"], about["reviewer"]) == ("a frame", "Dr. A. Turing")
    assert result["fingerprints"]["test"] == run.images().fingerprint
    assert result["fingerprints"]["tuned_model"] == vlm.load(result["model"], "cpu").fingerprint
    relevant = run.feature_label() != feature
    own = run.images().label[run.regions().image]
    right = (run.zero_shot().region.argmax(1) == own)[relevant]
    assert result["regions"]["before"] == pytest.approx(right.mean(), abs=1e-6)
    assert result["regions"]["n"] == int(relevant.sum())
    before, after = run.mitigation("told").groups()
    assert [row["n"] for row in result["changes"] if row["kind"] == "overall"] == [int(before.n[0])] == [len(own) // 4]
    changed = np.load(run.mitigation("told").path / "changed.npy")
    assert result["images"] == {"became_right": int((changed > 0).sum()), "became_wrong": int((changed < 0).sum())}
    assert int(after.right[0] - before.right[0]) == int(changed.sum())


def test_images_of_another_content_are_not_compared(run: AuditRun, place: Path, tmp_path: Path) -> None:
    for name in ("train", "test"):
        colour_folder(tmp_path / name, 3, seed=7)
    options = {"features": [merged_feature(run)], "steps": 1, "batch_size": 4, "device": "cpu", "name": "changing"}
    options["reaudit"] = False
    first = ravl.mitigate(run, tmp_path / "train", test=tmp_path / "test", **options)
    assert ravl.mitigate(run, tmp_path / "train", test=tmp_path / "test", **options) == first
    for name in ("test", "train"):
        picture = tmp_path / name / "sky" / "000.png"
        kept = picture.read_bytes()
        picture.write_bytes((tmp_path / name / "sky" / "001.png").read_bytes())
        with pytest.raises(ConfigError, match=f"'changing' exists with another content of the {name}(ing)? images"):
            ravl.mitigate(run, tmp_path / "train", test=tmp_path / "test", **options)
        picture.write_bytes(kept)


def test_the_command_prints_what_got_worse_first(
    run: AuditRun, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    feature = merged_feature(run)
    arguments = ["mitigate", f"--run={run.id}", f"--workspace={place / 'w'}", f"--images={place / 'train'}"]
    arguments += [f"--features={feature}", "--steps=2", "--batch-size=8", "--device=cpu", "--name=printed"]
    arguments += ["--micro-batch=5", "--patience=3", "--precision=fp32", "--region-share=0.5", "--families=top"]
    arguments += ["--gradient-checkpointing", "--no-reaudit"]
    assert cli.main(arguments) == 0
    out, err = capsys.readouterr()
    assert re.search(r"^a step needs about [0-9.]+ GB of memory, [0-9.e+]+ GB are free$", err, re.MULTILINE)
    settings = run.mitigation("printed").about["config"]
    given = {"micro_batch": 5, "patience": 3, "precision": "fp32", "region_share": 0.5, "families": "top"}
    given |= {"gradient_checkpointing": True}
    assert given.items() <= settings.items()
    lines = out.strip().splitlines()
    assert lines[0].startswith(("got worse: ", "no group got worse"))
    result = run.mitigation("printed").result
    (fixed,) = [about["fixed"] for about in result["features"]]
    assert f"{fixed['count']} of {fixed['n']} errors fixed" in lines[-4]
    images = result["images"]
    assert lines[-2] == "the tuned model was not audited; the same command without --no-reaudit does it"
    assert lines[-3] == f"images: {images['became_right']} became right, {images['became_wrong']} became wrong"
    assert lines[-1] == f"tuned model: {result['model']}"


# --- the model card --------------------------------------------------------------------------------------------------


def test_the_tuned_model_is_a_directory_of_transformers_with_a_card(run: AuditRun, place: Path) -> None:
    from huggingface_hub import ModelCard
    from PIL import Image
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

    feature = merged_feature(run)
    result = ravl.mitigate(
        run, place / "train", features=[feature], steps=1, batch_size=8, device="cpu", reaudit=False,
        name="carded",
    )  # fmt: skip
    folder = run.mitigation("carded").model
    module, loaded = CLIPModel.from_pretrained(folder, output_loading_info=True)
    assert not loaded["missing_keys"]
    text = AutoTokenizer.from_pretrained(folder)(["a photo of sky"], return_tensors="pt")
    picture = Image.open(place / "train" / "sky" / "000.png")
    pixels = AutoImageProcessor.from_pretrained(folder)(images=[picture], return_tensors="pt")
    assert module(**text, **pixels).logits_per_image.shape == (1, 1)

    card = ModelCard((folder / "README.md").read_text(encoding="utf-8"))
    assert card.data.library_name == "transformers"
    assert card.data.license == "unknown"
    assert card.data.base_model is None  # a directory of this machine
    assert str(place) not in card.text
    assert "ravl" in card.data.tags
    assert "Not done. Fixing one shortcut can strengthen another" in card.text
    for print_ in (*result["fingerprints"].values(), run.id):
        assert print_ in card.text


def test_a_card_names_the_base_model_of_the_hub_and_escapes_what_people_wrote() -> None:
    from huggingface_hub import ModelCard

    rate = {"n": 4, "count": 1, "rate": 0.25, "interval": [0.1, 0.4]}
    change = {"kind": "group", "n": 4, "before": rate, "after": rate, "change": 0.0, "interval": [-0.1, 0.1]}
    about = {"feature": 3, "name": "<script>|x|\n# *red*", "pull_class": "a_b", "decision": "spurious"}
    about |= {"reviewer": "[A](http://b)", "fixed": rate, "broken": rate}
    unseen = {"feature": 4, "name": "", "pull_class": None, "decision": "", "reviewer": "", "fixed": rate}
    result = {
        **{"run": "r", "name": "n", "method": "ravl", "compared_on": "/x|y", "fingerprints": {"model": "abc"}},
        "features": [about, unseen | {"broken": rate}],
        "changes": [change | {"name": f"group | {i}"} for i in range(60)] + [change | {"name": "none", "n": 0}],
    }
    text = model_card("openai/clip-vit-base-patch32", ("a", "b"), ("a photo of {}",), result)
    card = ModelCard(text)
    assert card.data.base_model == "openai/clip-vit-base-patch32"
    assert "**\\<script\\>\\|x\\| \\# \\*red\\***" in text
    assert "\\[A\\](http://b)" in text
    assert "**feature 4**: not decided by a person" in text
    table = [line for line in text.splitlines() if line.startswith("| group")]
    assert len(table) == 40
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 6 for line in table)
    assert "20 more groups" in text


# --- several processes -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_end_where_one_does(run: AuditRun, place: Path) -> None:
    """`accelerate launch -m ravl mitigate ...` with two processes on the CPU."""
    common = [f"--run={run.id}", f"--workspace={place / 'w'}", f"--images={place / 'train'}", "--device=cpu", "--json"]
    common += [f"--features={merged_feature(run)}", "--steps=6", "--batch-size=9"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"]
    launch += ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]
    found = {}
    for name, start in (("one", [sys.executable]), ("two", launch)):
        command = [*start, "-m", "ravl", "mitigate", f"--name={name}", *common]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        ended = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, check=False)
        assert ended.returncode == 0, ended.stderr
        found[name] = json.loads(ended.stdout)  # one document, of the first process
    one, two = (vlm.load(found[name]["model"], "cpu").module.state_dict() for name in ("one", "two"))
    base = vlm.load(str(place / "model"), "cpu").module.state_dict()
    for name, weight in one.items():
        if "k_proj.bias" not in name:  # nothing depends on it: its gradient is rounding, which AdamW makes large
            assert torch.allclose(weight, two[name], rtol=1e-3, atol=1e-5), name
    assert found["one"]["best_step"] == found["two"]["best_step"] > 0
    assert max((one[name] - base[name]).abs().max().item() for name in base) > 1e-3
    logs = [run.mitigation(name).log() for name in ("one", "two")]
    assert [row["step"] for row in logs[0]] == [row["step"] for row in logs[1]]
    for a, b in zip(*logs, strict=True):
        for name in a.keys() - {"seconds"}:
            assert a[name] == (b[name] if isinstance(b[name], str) else pytest.approx(b[name], rel=1e-4)), name
