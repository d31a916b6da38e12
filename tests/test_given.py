"""Audits of precomputed embeddings: the same findings as with the model, but nothing that only a model could show."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

import ravl
from ravl import api
from ravl.cli import main
from ravl.config import NO_MODEL
from ravl.data.embeddings import read_embeddings
from ravl.discovery.zero_shot import class_vectors
from ravl.errors import ConfigError, DataError, RavlError
from ravl.planted.digits import CLASSES, TARGET
from ravl.store import AuditRun
from ravl.summary import findings, findings_text
from tests.worlds import digit_folder


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> AuditRun:
    """The demo model's own audit, on the final embeddings, as what is given is the final one."""
    root = tmp_path_factory.mktemp("audited")
    images, _ = digit_folder(root / "digits", 300, seed=11)
    return ravl.discover(
        images, "demo", classes=CLASSES, cluster_on="final", workspace=root / "ws", device="cpu", until="evidence"
    )


def rows(run: AuditRun, official: bool) -> pd.DataFrame:
    """What the run computed as a table; official: in the columns of the authors' example."""
    images, regions = run.images(), run.regions()
    image, region = (np.asarray(run.array(f"{part}_embeddings"), np.float32) for part in ("image", "region"))
    labels = [images.class_names[y] for y in images.label]
    cut = [regions.rows_of(i) for i in range(len(images))]
    boxes, own = [regions.box[c].tolist() for c in cut], [region[c].tolist() for c in cut]
    if official:
        return pd.DataFrame(
            {
                "image_size": [[56, 56]] * len(images),
                "pixel_data": [[[[0]]]] * len(images),
                "true_label": labels,
                "split": "val",
                "num_regions": 4,
                "region_coord": boxes,
                "reg_labels": [[label, None, None, None] for label in labels],
                "img_emb": [[row.tolist()] for row in image],  # 1 x D
                "reg_emb": own,
            }
        )
    paths = [str(Path(images.root) / name) for name in images.file]
    table = {"image_path": paths, "label": labels, "boxes": boxes, "site": ["AB"[i % 2] for i in range(len(images))]}
    return pd.DataFrame({**table, "image_embedding": image.tolist(), "region_embeddings": own})


@pytest.fixture(scope="module")
def files(audited: AuditRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    rows(audited, True).to_parquet(folder / "official.parquet")
    rows(audited, False).to_parquet(folder / "own.parquet")
    np.save(folder / "text.npy", audited.class_vectors())
    table = pd.DataFrame({"class": CLASSES, "embedding": audited.class_vectors().tolist()})
    table.to_parquet(folder / "text.parquet")
    apart = folder / "apart"
    apart.mkdir()
    listed = rows(audited, False)[["label", "boxes"]]
    listed["boxes"] = listed["boxes"].map(json.dumps)
    listed.to_csv(apart / "images.csv", index=False)
    for part in ("image", "region"):
        np.save(apart / f"{part}_embeddings.npy", np.asarray(audited.array(f"{part}_embeddings")))
    return folder


def given(files: Path, workspace: Path, name: str = "official.parquet", **options: Any) -> AuditRun:
    options = {"text_embeddings": files / "text.npy", "classes": CLASSES, "until": "evidence"} | options
    return ravl.discover(embeddings=files / name, workspace=workspace, **options)


def test_the_authors_columns_give_the_findings_of_the_model(audited: AuditRun, files: Path, tmp_path: Path) -> None:
    run = given(files, tmp_path)
    np.testing.assert_allclose(run.zero_shot().image, audited.zero_shot().image, atol=2e-3)
    assert (run.zero_shot().predicted == audited.zero_shot().predicted).mean() > 0.99
    # the stored embeddings are rounded, so that two clusters of about one size may change places
    assert adjusted_rand_score(run.clustering().label, audited.clustering().label) > 0.9
    scores, chance = run.features(), run.significance()
    top = scores.feature[0]
    row = chance.row_of(int(top))
    assert scores.passes[0]
    assert CLASSES[scores.pull_class[0]] == TARGET
    assert chance.q[row] < 0.05
    assert run.config.model == NO_MODEL


def test_nothing_is_called_a_cause_without_a_model(audited: AuditRun, files: Path, tmp_path: Path) -> None:
    evidence, unknown = given(files, tmp_path).evidence(), {"untested", "support", "chance", "not replicated"}
    assert set(audited.evidence().reason) - unknown  # with the model there is more to say
    assert set(evidence.grade) == {"undecided"}
    assert set(evidence.reason) <= unknown
    assert "untested" in evidence.reason
    assert not evidence.flagged.any()
    assert not evidence.tested.any()
    assert np.isnan(evidence.error_share).all()


def test_the_papers_rule_flags_as_published(files: Path, tmp_path: Path) -> None:
    run = given(files, tmp_path, rule="paper")
    evidence, scores = run.evidence(), run.features()
    passing = {int(f) for f, passes in zip(scores.feature, scores.passes, strict=True) if passes}
    assert set(evidence.feature[evidence.flagged].tolist()) == passing != set()
    assert set(evidence.grade) == {"undecided"}


def test_findings_say_that_nothing_was_tested(files: Path, tmp_path: Path) -> None:
    document = findings(given(files, tmp_path))
    json.dumps(document, allow_nan=False)
    first = document["features"][0]
    assert first["error_share"] is None
    assert first["removal"] == []
    assert first["exemplars"][0]["contribution"] is None
    assert "undecided: no model to remove it with" in findings_text(document)
    assert "nothing could be tested by removal, since this audit had no model" in findings_text(document)
    assert "no local shortcut was found" not in findings_text(document)
    few = [{**entry, "reason": "support"} for entry in document["features"]]
    assert "too few images or errors to tell whether" in findings_text({**document, "features": few})


@pytest.mark.parametrize("name", ["own.parquet", "apart"])
@pytest.mark.parametrize("text", ["text.npy", "text.parquet"])
def test_every_form_gives_the_same(files: Path, tmp_path: Path, name: str, text: str) -> None:
    one, other = (given(files, tmp_path / n, n, text_embeddings=files / text) for n in ("official.parquet", name))
    np.testing.assert_array_equal(one.array("region_embeddings"), other.array("region_embeddings"))
    assert one.clustering().label.tolist() == other.clustering().label.tolist()
    assert one.evidence().feature.tolist() == other.evidence().feature.tolist()


def test_pictures_are_shown_where_they_are_named(files: Path, tmp_path: Path) -> None:
    from ravl.data import load_images

    images = given(files, tmp_path, "own.parquet").images()
    assert load_images(images, [3])[0].size == (56, 56)
    assert images.groups["site"].tolist()[:2] == ["A", "B"]
    nameless = given(files, tmp_path).images()
    assert nameless.file[3] == "row 4"
    with pytest.raises(DataError, match="row 4 does not exist"):
        load_images(nameless, [3])


def test_scores_stand_for_text(audited: AuditRun, files: Path, tmp_path: Path) -> None:
    table, zero_shot, regions = rows(audited, False), audited.zero_shot(), audited.regions()
    table["image_scores"] = zero_shot.image.tolist()
    table["region_scores"] = [np.log(zero_shot.region[regions.rows_of(i)]).tolist() for i in range(len(table))]
    table.to_parquet(tmp_path / "scores.parquet")
    run = given(tmp_path, tmp_path / "ws", "scores.parquet", text_embeddings=None)
    np.testing.assert_allclose(run.zero_shot().image, zero_shot.image, atol=1e-6)
    np.testing.assert_allclose(run.zero_shot().region, zero_shot.region, atol=1e-5)


def test_the_same_call_continues(files: Path, tmp_path: Path) -> None:
    assert given(files, tmp_path).id == given(files, tmp_path).id
    assert given(files, tmp_path, tau=0.05).id != given(files, tmp_path).id


def test_embeddings_are_read_in_blocks(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ravl.data.embedding_files._BLOCK", 64)
    whole = read_embeddings(files / "official.parquet", files / "text.npy", CLASSES)
    parts = list(whole.blocks(0))
    assert max(len(image) for _, image, _ in parts) <= 64
    later = list(whole.blocks(100))
    np.testing.assert_array_equal(
        np.concatenate([i for _, i, _ in parts])[100:], np.concatenate([i for _, i, _ in later])
    )
    np.testing.assert_array_equal(
        np.concatenate([r for _, _, r in parts])[400:], np.concatenate([r for _, _, r in later])
    )


def test_features_can_be_merged_without_a_model(files: Path, tmp_path: Path) -> None:
    run = given(files, tmp_path)
    two = run.evidence().feature[:2].tolist()
    scores = run.features()
    changed = api.regroup(run, "merge", two, "A. Turing")
    both = changed.features()
    assert both.n_regions[both.row_of(max(both.feature))] == sum(scores.n_regions[scores.row_of(f)] for f in two)
    assert set(changed.evidence().grade) == {"undecided"}


def test_what_needs_the_model_is_refused(files: Path, tmp_path: Path) -> None:
    run = given(files, tmp_path)
    with pytest.raises(ConfigError, match=r"fine-tuning needs the model, but .* was made from embeddings alone"):
        ravl.mitigate(run, tmp_path, features=[0])
    with pytest.raises(ConfigError, match="making a feature needs the model"):
        api.add_feature(run, [0, 1, 2], "square", "Ada")
    with pytest.raises(ConfigError, match="--tau must be a number"):
        given(files, tmp_path, tau="model")
    for options in ({}, {"images": "x"}, {"model": "demo"}, {"images": "x", "embeddings": "y"}):
        with pytest.raises(ConfigError, match="an audit needs --images and --model, or --embeddings alone"):
            ravl.discover(**options, workspace=tmp_path)  # type: ignore[arg-type]


def test_the_command_line(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["discover", "--embeddings", files / "official.parquet", "--text-embeddings", files / "text.parquet"]
    assert main([str(part) for part in (*command, "--workspace", tmp_path, "--json")]) == 0
    assert json.loads(capsys.readouterr().out)["features"][0]["grade"] == "undecided"


# --- hostile input ---------------------------------------------------------------------------------------------------


def small(**changes: Any) -> pd.DataFrame:
    table = {
        "label": ["a", "b", "a"],
        "boxes": [[[0, 0, 2, 2]], [[0, 0, 2, 2], [2, 2, 4, 4]], []],
        "image_embedding": [[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]],
        "region_embeddings": [[[1.0, 0.0]], [[0.0, 1.0], [1.0, 1.0]], []],
    }
    return pd.DataFrame({name: value for name, value in {**table, **changes}.items() if value is not None})


def read(folder: Path, table: pd.DataFrame, text: Any = "text", **options: Any) -> list[Any]:
    table.to_parquet(folder / "a.parquet")
    np.save(folder / "text.npy", np.eye(2))
    named = {"text": folder / "text.npy", "none": None}.get(text, text)
    found = read_embeddings(folder / "a.parquet", named, options.get("classes", ("a", "b")))
    return [found, *found.blocks(0)]


def test_images_may_have_any_number_of_regions(tmp_path: Path) -> None:
    found, (done, image, region) = read(tmp_path, small())
    assert done == 3
    np.testing.assert_allclose(image, [[1, 0], [0, 1], [0.5**0.5, 0.5**0.5]], rtol=1e-6)
    assert region.shape == (3, 2)
    assert np.diff(found.regions.starts).tolist() == [1, 2, 0]
    assert found.images.size.tolist() == [[2, 2], [4, 4], [1, 1]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": None}, "must have the columns label and boxes"),
        ({"boxes": None}, "must have the columns label and boxes"),
        ({"image_embedding": None}, "lacks image_embedding"),
        ({"label": ["a", None, "b"]}, "must have a label in every row, but row 2"),
        ({"label": ["a", "c", "b"]}, "must be one of the classes a, b, got 'c'"),
        ({"label": ["a", "a", "a"]}, "at least two classes"),
        ({"boxes": [[[0, 0, 2, 2]], [[0, 0, 0, 2], [2, 2, 4, 4]], []]}, "not so in row 2"),
        ({"boxes": [[[0, 0, 2]], [], []]}, "not so in row 1"),
        ({"boxes": ["[[", "", ""]}, "not so in row 1"),
        ({"boxes": [[[0.0, 0, np.nan, 2]], [], []]}, "not so in row 1"),
        ({"image_size": [[3, 3]] * 3}, "one of row 2 lies outside of 3 x 3"),
        ({"image_size": [["x", "y"]] * 3}, "sizes in whole pixels"),
        ({"image_embedding": [[1.0, 0.0], [0.0], [1.0, 1.0]]}, "embeddings of one length in image_embedding"),
        ({"image_embedding": [[1.0, 0.0], None, [1.0, 1.0]]}, "image_embedding in every row, but 1 are missing"),
        ({"image_embedding": [["x", "y"]] * 3}, "must hold numbers in image_embedding, got"),
        ({"image_embedding": [[1.0, np.nan]] * 3}, "must hold finite embeddings other than 0"),
        ({"image_embedding": [[0.0, 0.0]] * 3}, "must hold finite embeddings other than 0"),
        ({"region_embeddings": [[[1.0, 0.0]], [[0.0, 1.0]], []]}, r"rows 1 \.\. 3 have 2 for 3 boxes"),
        ({"image_embedding": [[1.0, 0, 0]] * 3}, "text embeddings must have 3 numbers"),
        ({"image_path": ["https://x/a.png"] * 3}, "Nothing is downloaded"),
        ({"true_label": ["a"] * 3}, "must have one of true_label and label, got both"),
    ],
)
def test_tables_that_cannot_be_used(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, small(**changes))


def test_text_that_cannot_be_used(tmp_path: Path) -> None:
    table = small()
    with pytest.raises(DataError, match=r"no --text-embeddings are given and .* has no column image_scores"):
        read(tmp_path, table, "none")
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path, table, tmp_path / "missing.npy")
    with pytest.raises(DataError, match=r"a row per class \(a, b, c\), got \(2, 2\)"):
        read(tmp_path, table, classes=("a", "b", "c"))
    with pytest.raises(DataError, match=r"the order of the classes in .* must be given: --classes a,b"):
        read(tmp_path, table, classes=())
    pd.DataFrame({"class": ["a"], "embedding": [[1.0, 0.0]]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="'b' has none"):
        read(tmp_path, table, tmp_path / "t.parquet")
    for scores in (
        {"image_scores": [[1.0]] * 3},
        {"image_scores": [[1.0, 0.0]] * 3, "region_scores": [[[1.0, 0]]] * 2 + [[]]},
    ):
        with pytest.raises(DataError, match=r"numbers per class in|for 3 rows of 2 classes|has no column region"):
            read(tmp_path, small(**scores), "none")


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (pytest.fail, ("it was opened",))

    (tmp_path / "example_eval.pkl").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match=r"can run code when it is opened\. Write its table with pandas' to_parquet"):
        read_embeddings(tmp_path / "example_eval.pkl", None, ())
    for name in ("image_embeddings.npy", "region_embeddings.npy"):
        np.save(tmp_path / name, np.array([Bomb()], object), allow_pickle=True)
    pd.DataFrame({"label": ["a", "b"], "boxes": ["[]", "[]"]}).to_csv(tmp_path / "images.csv")
    with pytest.raises(DataError, match="must be an array of numbers"):
        read_embeddings(tmp_path, None, ())


def test_no_file_no_parquet_and_a_damaged_one(tmp_path: Path) -> None:
    for content in (None, b"", b"PAR1 and nothing else"):
        if content is not None:
            (tmp_path / "x.parquet").write_bytes(content)
        with pytest.raises(RavlError, match="must be a Parquet file"):
            read_embeddings(tmp_path / "x.parquet", None, ())
    small().to_parquet(tmp_path / "x.parquet")
    data = bytearray((tmp_path / "x.parquet").read_bytes())
    data[40:200] = b"\xff" * 160
    (tmp_path / "x.parquet").write_bytes(bytes(data))
    with pytest.raises(RavlError):
        list(read_embeddings(tmp_path / "x.parquet", None, ()).blocks(0))


def test_the_vectors_of_the_classes_are_those_of_the_model(audited: AuditRun) -> None:
    from ravl import vlm

    loaded = vlm.load("demo", "cpu")
    np.testing.assert_allclose(
        class_vectors(loaded, CLASSES, audited.config.prompts), audited.class_vectors(), atol=1e-6
    )
