"""Every method of mitigation through a whole repair, and that each does what it declares and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import ravl
from ravl import api, cli, repair, vlm
from ravl.config import MitigationConfig
from ravl.errors import ConfigError
from ravl.ledger import Ledger
from ravl.store import AuditRun
from ravl.tables import NOISE, Families
from tests.models import small_clip
from tests.worlds import COLOURS, colour_folder


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
    chosen = repair.treated(found, MitigationConfig(method=method, families=families))
    assert chosen.tolist() == [True, True, not top, not top, True]
    assert len(repair.treated(Families(np.zeros(0), np.zeros(0)), MitigationConfig(method="paper"))) == 0


def test_regions_of_the_other_clusters_count_as_relevant(run: AuditRun, place: Path) -> None:
    feature = merged_feature(run)
    clusters = run.families().clusters_of(feature)
    sizes = np.bincount(run.clustering().label[run.clustering().label != NOISE])
    assert len(clusters) >= 2
    assert clusters[0] == clusters[np.argmax(sizes[clusters])]
    for families in ("all", "top"):
        result = ravl.mitigate(
            run, place / "train", features=[feature], steps=1, families=families, method="paper", device="cpu",
            name=f"clusters-{families}",
        )  # fmt: skip
        folder = run.mitigation(f"clusters-{families}")
        feature_of = np.load(folder.path / "assignment-train.npz")["feature"]
        assert result["n_spurious_training_regions"] == int((feature_of == feature).sum())
    every, top = (run.mitigation(f"clusters-{f}").result["n_spurious_training_regions"] for f in ("all", "top"))
    assert 0 < top < every


# --- the comparison --------------------------------------------------------------------------------------------------


def test_a_result_tells_what_was_compared(run: AuditRun, place: Path) -> None:
    feature = merged_feature(run)
    book = Ledger(place / "w")
    book.add_verdict(run.id, feature, "sky", "spurious", "Dr. A. Turing", "0" * 16, "a frame")
    book.close()
    options = {"features": [feature], "steps": 1, "batch_size": 8, "device": "cpu", "name": "told"}
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
    assert cli.main(arguments) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0].startswith(("got worse: ", "no group got worse"))
    result = run.mitigation("printed").result
    (fixed,) = [about["fixed"] for about in result["features"]]
    assert f"{fixed['count']} of {fixed['n']} errors fixed" in lines[-3]
    images = result["images"]
    assert lines[-2] == f"images: {images['became_right']} became right, {images['became_wrong']} became wrong"
    assert lines[-1] == f"tuned model: {result['model']}"
