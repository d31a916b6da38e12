"""Splits, metadata files, COCO files as image sets, captions as labels, copies, addresses, reading in processes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ravl.config import class_words
from ravl.data import Reading, load_images, read_images
from ravl.data.checking import check, check_files
from ravl.data.duplicates import duplicates, shared
from ravl.data.images import in_order
from ravl.data.report import describe, text
from ravl.data.sources import parse
from ravl.errors import ConfigError, DataError
from ravl.tables import ImageSet
from tests.test_data import folder, manifest, put


def table(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        pd.DataFrame(rows).to_csv(path, index=False)
    return path


# --- splits ----------------------------------------------------------------------------------------------------------


def test_a_split_is_a_folder(tmp_path: Path) -> None:
    folder(tmp_path / "train", cat=2, dog=1)
    folder(tmp_path / "val", cat=1, dog=3)
    images = read_images(f"{tmp_path}@val")
    assert images.file.tolist() == ["cat/00.png", "dog/00.png", "dog/01.png", "dog/02.png"]
    assert images.root == str(tmp_path / "val")
    assert read_images(tmp_path / "val").fingerprint == images.fingerprint
    with pytest.raises(DataError, match=r"the split must be a folder of .* \(train, val\), got 'test'"):
        read_images(f"{tmp_path}@test")


def test_a_split_is_a_column(tmp_path: Path) -> None:
    rows = [("image_path", "label", "split", "site")]
    rows += [
        (put(tmp_path / f"{i}.png", seed=i).name, "ab"[i % 2], "train" if i < 4 else "val", "xy"[i // 2 % 2])
        for i in range(8)
    ]
    path = manifest(tmp_path / "list.csv", rows)
    images = read_images(f"{path}@val")
    assert images.file.tolist() == [f"{i}.png" for i in range(4, 8)]
    assert list(images.groups) == ["site"]
    assert set(read_images(path).groups) == {"split", "site"}
    with pytest.raises(DataError, match="must be one of train, val, got 'test'"):
        read_images(f"{path}@test")


def test_a_split_of_a_manifest_without_the_column(tmp_path: Path) -> None:
    path = manifest(tmp_path / "list.csv", [("image_path", "label"), ("a.png", "a"), ("b.png", "b")])
    with pytest.raises(DataError, match="must have the column split"):
        read_images(f"{path}@val")


def test_a_path_with_an_at_sign_is_that_path(tmp_path: Path) -> None:
    place = folder(tmp_path / "me@home", cat=1, dog=1)
    assert parse(place).split == ""
    assert len(read_images(place)) == 2
    folder(place / "val", cat=1, dog=1)
    assert str(parse(f"{place}@val")) == f"{place}@val"


# --- metadata files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_a_metadata_file(name: str, tmp_path: Path) -> None:
    for i in range(4):
        put(tmp_path / f"{i}.png", seed=i)
    table(tmp_path / name, *({"file_name": f"{i}.png", "label": i % 2, "text": f"n° {i}"} for i in range(4)))
    images = read_images(tmp_path)
    assert images.class_names == ("0", "1")
    assert images.label.tolist() == [0, 1, 0, 1]
    assert images.caption is not None
    assert images.caption.tolist() == [f"n° {i}" for i in range(4)]


def test_metadata_with_objects_and_class_folders(tmp_path: Path) -> None:
    folder(tmp_path, cat=1, dog=1)
    rows = (
        {"file_name": f"{c}/00.png", "objects": {"bbox": [[1, 0, 2, 3]], "categories": [0]}} for c in ("cat", "dog")
    )
    table(tmp_path / "metadata.jsonl", *rows)
    images = read_images(tmp_path)
    assert images.class_names == ("cat", "dog")
    assert images.box is not None
    assert images.box.tolist() == [[1, 0, 3, 3]] * 2


@pytest.mark.parametrize("shared_file", [False, True])
def test_metadata_of_a_split(shared_file: bool, tmp_path: Path) -> None:
    rows = []
    for split in ("train", "val"):
        folder(tmp_path / split, cat=1, dog=1)
        rows += [{"file_name": f"{split}/{c}/00.png", "site": s} for c, s in (("cat", "A"), ("dog", "B"))]
    if shared_file:
        table(tmp_path / "metadata.csv", *rows)
    else:
        for split in ("train", "val"):
            own = [
                {**row, "file_name": row["file_name"].removeprefix(f"{split}/")}
                for row in rows
                if row["file_name"].startswith(split)
            ]
            table(tmp_path / split / "metadata.csv", *own)
    images = read_images(f"{tmp_path}@val")
    assert images.class_names == ("cat", "dog")
    assert images.groups["site"].tolist() == ["A", "B"]
    assert [Path(name).parts[-2:] for name in images.file] == [("cat", "00.png"), ("dog", "00.png")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", "name,label\na.png,x\n", "must have the column file_name, got 'name', 'label'"),
        ("metadata.csv", "file_name\na.png\n", r"such as class/image.png, but the name in row 1 has no"),
        ("metadata.csv", "file_name\n../a/a.png\n", "a column label, or file names"),
        ("metadata.jsonl", "[1]\n", "one JSON object per line, but line 1 is none"),
        ("metadata.jsonl", '{"file_name": \n', "cannot be read so"),
        ("metadata.jsonl", "[" * 100_000, "cannot be read so"),
        ("metadata.jsonl", '{"file_name": "a.png", "label": "x", "objects": {"bbox": [[1]]}}', "a list bbox of"),
        ("metadata.jsonl", '{"file_name": "a.png", "label": "x", "objects": 3}', "a list bbox of"),
        ("metadata.jsonl", "", "must have the column file_name, got none"),
    ],
)
def test_metadata_that_cannot_be_used(name: str, content: str, message: str, tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_images(tmp_path)


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["https://x.org/a.png", "HTTP://x/a", "s3://bucket/a", "data:image/png;base64,AA"])
def test_addresses_are_refused(address: str, tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    if not address.startswith("data:"):
        with pytest.raises(DataError, match="must be on this machine"):
            read_images(address)
    rows = [("image_path", "label"), ("a.png", "x"), (f" {address}", "y")]
    with pytest.raises(DataError, match=r"row 2 has an address \(1 of 2 rows\)\. Nothing is downloaded"):
        read_images(manifest(tmp_path / "list.csv", rows), max_unreadable=1)
    table(tmp_path / "metadata.jsonl", {"file_name": "a/a.png"}, {"file_name": address})
    with pytest.raises(DataError, match="row 2 has an address"):
        read_images(tmp_path, max_unreadable=1)


# --- COCO files as image sets ----------------------------------------------------------------------------------------


def coco(path: Path, names: dict[str, list[str]], prefix: str = "") -> Path:
    """names: file -> category of each of its boxes, 2 x 2 pixels one beside the other."""
    kinds = sorted({kind for own in names.values() for kind in own})
    document: dict[str, Any] = {"images": [], "annotations": []}
    document["categories"] = [{"id": 10 + y, "name": kind} for y, kind in enumerate(kinds)]
    for i, (name, own) in enumerate(names.items()):
        document["images"].append({"id": i, "file_name": prefix + name})
        document["annotations"] += [
            {"image_id": i, "category_id": 10 + kinds.index(kind), "bbox": [k, 1, 2, 2]} for k, kind in enumerate(own)
        ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


NAMES = {"0.png": ["cat"], "1.png": ["dog", "dog"], "2.png": ["cat", "dog"], "3.png": []}


@pytest.mark.parametrize("place", ["set/boxes.json", "set/annotations/instances_val.json", "boxes.json"])
def test_a_coco_file_is_an_image_set(place: str, tmp_path: Path) -> None:
    where = {"set/boxes.json": "set", "set/annotations/instances_val.json": "set/val", "boxes.json": "images"}[place]
    for i in range(4):
        put(tmp_path / where / f"{i}.png", seed=i)
    images = read_images(coco(tmp_path / place, NAMES))
    assert images.class_names == ("cat", "dog")
    assert images.file.tolist() == ["0.png", "1.png"]
    assert images.label.tolist() == [0, 1]
    assert images.left_out == (
        ("2.png", "shows boxes of several classes (cat, dog), so it belongs to no class"),
        ("3.png", "has no box, so it belongs to no class"),
    )
    assert images.box is not None
    assert images.box.tolist() == [[0, 1, 2, 3], [0, 1, 2, 3], [1, 1, 3, 3]]
    assert len(load_images(images, [0, 1])) == 2


def broken(path: Path, **changes: Any) -> Path:
    document = json.loads(path.read_text())
    for key, value in changes.items():
        document[key] = value
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": None}, "must have a list of categories"),
        ({"categories": [{"id": 10}]}, "every category of .* must have an id and a name, but entry 1 has not"),
        ({"categories": [{"id": 1, "name": "x"}]}, "the category_id of a category, but entry 1 has not"),
        ({"annotations": []}, "whose boxes are of one category, but none of 4 is so"),
        ({"images": [{"id": i, "file_name": "https://x/a.png"} for i in range(4)]}, "has an address"),
        ({"images": [{"id": i, "file_name": "gone.png"} for i in range(4)]}, "none of the first 4 does"),
        ({"images": [{"id": i, "file_name": "0.png"} for i in range(4)]}, "every image once"),
    ],
)
def test_coco_files_that_are_no_image_set(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    for i in range(4):
        put(tmp_path / f"{i}.png", seed=i)
    with pytest.raises(DataError, match=message):
        read_images(broken(coco(tmp_path / "a.json", NAMES), **changes), max_unreadable=1)


def test_a_coco_file_has_no_splits(tmp_path: Path) -> None:
    put(tmp_path / "0.png")
    with pytest.raises(DataError, match="must be written without @val"):
        read_images(f"{coco(tmp_path / 'a.json', NAMES)}@val")


# --- captions as labels ----------------------------------------------------------------------------------------------


def captioned(root: Path, *captions: str) -> Path:
    rows = [("image_path", "caption")]
    rows += [(put(root / f"{i}.png", seed=i).name, caption) for i, caption in enumerate(captions)]
    return manifest(root / "list.csv", rows)


CAPTIONS = ("a cat", "the dog sleeps", "no dog, a cat", "a dog and a cat", "an empty room", "a hound")


def test_captions_tell_the_class(tmp_path: Path) -> None:
    path = captioned(tmp_path, *CAPTIONS)
    images = read_images(path, ("cat", "dog"))
    assert [(f, images.class_names[y]) for f, y in zip(images.file, images.label, strict=True)] == [
        ("0.png", "cat"),
        ("1.png", "dog"),
        ("2.png", "cat"),
    ]
    assert [name for name, _ in images.left_out] == ["3.png", "4.png", "5.png"]
    assert "several classes" in images.left_out[0][1]
    wide = read_images(path, ("cat", "dog"), reading=Reading(synonyms=((), ("hound",)), unlabelled="keep"))
    assert wide.label.tolist() == [0, 1, 0, -1, -1, 1]
    with pytest.raises(DataError, match="classes must be named when captions tell them"):
        read_images(path)
    with pytest.raises(DataError, match="none of 6 captions names one of horse, cow"):
        read_images(path, ("horse", "cow"))


def test_synonyms_are_written_behind_the_class() -> None:
    assert class_words(("a|b c| d", "e")) == (("a", "e"), (("b c", "d"), ()))
    assert class_words(("a", "e")) == (("a", "e"), ())
    with pytest.raises(ConfigError, match="words parted by"):
        class_words(("a||b",))


# --- copies ----------------------------------------------------------------------------------------------------------


def test_copies_and_clashing_labels_are_listed(tmp_path: Path) -> None:
    folder(tmp_path, cat=3, dog=2)
    for source, copy in (("cat/00.png", "cat/99.png"), ("cat/01.png", "dog/98.png"), ("cat/01.png", "dog/99.png")):
        (tmp_path / copy).write_bytes((tmp_path / source).read_bytes())
    images = read_images(tmp_path)
    found = duplicates(images)
    names = [[str(images.file[i]) for i in ids] for ids in found.same]
    assert names == [["cat/00.png", "cat/99.png"], ["cat/01.png", "dog/98.png", "dog/99.png"]]
    assert found.clash == (found.same[1],)
    assert found.spare == 3
    document = describe(images)
    assert document["label_clashes"][0][1] == {"file": "dog/98.png", "label": "dog"}
    assert "3 images are copies of another" in text(document)
    assert "cat/01.png (cat) = dog/98.png (dog) = dog/99.png (dog)" in text(document)


def test_no_copies(tmp_path: Path) -> None:
    images = read_images(folder(tmp_path, cat=2, dog=2))
    assert duplicates(images).same == ()
    empty = ImageSet("", np.zeros(0, str), np.zeros(0), np.zeros((0, 2)), ("a", "b"))
    assert duplicates(empty).same == ()
    assert "are copies" not in text(describe(images))


def test_what_two_sets_share(tmp_path: Path) -> None:
    train, test = read_images(folder(tmp_path / "a", cat=3, dog=2)), read_images(folder(tmp_path / "b", cat=2, dog=3))
    assert shared(test, train).tolist() == [0, 1, 2, 3]


# --- reading in processes --------------------------------------------------------------------------------------------


def test_processes_find_what_threads_find(tmp_path: Path) -> None:
    paths = [str(put(tmp_path / f"{i}.png", seed=i)) for i in range(100)]
    (tmp_path / "40.png").write_bytes(b"")
    paths.insert(7, str(tmp_path / "missing.png"))
    alone = list(check_files(paths, "refuse", "00" * 32))
    apart = list(check_files(paths, "refuse", "00" * 32, small=0))
    assert apart == alone
    assert [i for i, one in enumerate(apart) if one.reason] == [7, 41]


def test_a_file_that_kills_its_reader_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that crashes takes its process with it, but neither the run nor the files beside it."""
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import builtins, os, signal\n"
        "from PIL import PngImagePlugin as plugin\n"
        "def crash(self, *a, was=plugin.PngImageFile._open):\n"
        "    was(self, *a)\n"
        "    if self.size == (13, 4): os.kill(os.getpid(), signal.SIGSEGV)\n"
        "plugin.PngImageFile._open = crash\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(hook), os.environ.get("PYTHONPATH", "")]))
    paths = [str(put(tmp_path / f"{i}.png", seed=i, width=13 if i in (0, 20, 69) else 6)) for i in range(70)]
    found = list(check_files(paths, "refuse", "00" * 32, small=0))
    assert [i for i, one in enumerate(found) if one.reason] == [0, 20, 69]
    assert found[20].reason == "ended the process that read it; it is damaged, or too large"
    assert all(one.width == 6 for i, one in enumerate(found) if i not in (0, 20, 69))


def test_a_file_that_takes_too_long_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import time\n"
        "from PIL import PngImagePlugin as plugin\n"
        "def wait(self, *a, was=plugin.PngImageFile._open):\n"
        "    was(self, *a)\n"
        "    if self.size == (13, 4): time.sleep(600)\n"
        "plugin.PngImageFile._open = wait\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(hook), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr("ravl.data.checking.PATIENCE", 8.0)
    paths = [str(put(tmp_path / f"{i}.png", seed=i, width=13 if i == 2 else 6)) for i in range(5)]
    found = list(check_files(paths, "refuse", "00" * 32, small=0))
    assert [one.reason for one in found if one.reason] == ["was not decoded within 8 seconds; save it again"]
    assert found[2].reason


def test_few_results_wait_ahead() -> None:
    """A hundred thousand results are never in memory at once."""
    begun: list[int] = []
    results = in_order(lambda i: begun.append(i) or i, range(10_000))  # type: ignore[func-returns-value]
    assert next(results) == 0
    assert len(begun) < 50
    assert list(results) == list(range(1, 10_000))


def test_a_picture_that_is_checked_alone(tmp_path: Path) -> None:
    Image.new("RGB", (5, 3)).save(tmp_path / "a.png")
    found = check(str(tmp_path / "a.png"), "refuse", "00" * 32)
    assert (found.width, found.height, found.reason) == (5, 3, "")
