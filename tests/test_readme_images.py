"""Every command of the README's section on images, run as it stands there, on sets of the kinds it speaks of."""

from __future__ import annotations

import io
import json
import re
import shlex
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ravl.cli import main
from tests.medical import dicom, written

README = Path(__file__).parents[1] / "README.md"


@dataclass(frozen=True)
class Outcome:
    """What one command returned and printed."""

    code: int
    out: str
    err: str


def commands() -> list[str]:
    text = README.read_text(encoding="utf-8")
    blocks = re.findall(r"<!-- images[^>]*-->\n```sh\n(.*?)```\n<!-- /images -->", text, re.DOTALL)
    return [line.removeprefix(".venv/bin/ravl ") for block in blocks for line in block.splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small set of every kind, under the names that the README uses."""
    root = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(0)

    def picture(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).save(path)
        return path

    for folder in ("photos", "splits/train", "splits/val", "described"):
        for name in ("cat", "dog"):
            for i in range(2):
                picture(root / folder / name / f"{i}.png")
    files = [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(2)]
    pd.DataFrame({"file_name": files, "text": files}).to_csv(root / "described" / "metadata.csv", index=False)
    paths = [f"photos/{name}" for name in files]
    listed = pd.DataFrame({"image_path": paths, "label": ["cat", "cat", "dog", "dog"], "split": ["train", "val"] * 2})
    listed.to_csv(root / "list.csv", index=False)
    captions = ["a kitten", "no dog, a cat", "the hound", "a dog"]
    pd.DataFrame({"image_path": paths, "caption": captions}).to_csv(root / "captions.csv", index=False)
    document = {
        "images": [{"id": i, "file_name": picture(root / "val" / f"{i}.png").name} for i in range(2)],
        "annotations": [{"image_id": i, "category_id": i, "bbox": [0, 0, 3, 3]} for i in range(2)],
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_val.json").write_text(json.dumps(document))
    for y, name in enumerate(("clear", "effusion")):
        (root / "scans" / name).mkdir(parents=True)
        frames = rng.integers(0, 4096, (3, 8, 8), np.uint16) + np.uint16(y)
        (root / "scans" / name / "a.dcm").write_bytes(written(dicom(frames)))
    vectors(root, rng)
    saved(root, paths)
    return root


def vectors(root: Path, rng: np.random.Generator) -> None:
    """60 images of two classes with four regions each, around one direction per class."""
    n, classes = 60, np.eye(2, 6)
    label = np.arange(n) % 2
    region = classes[label[:, None]] + rng.normal(0, 0.3, (n, 4, 6))
    image = region.mean(1)
    boxes = [[[0, 0, 4, 4], [4, 0, 8, 4], [0, 4, 4, 8], [4, 4, 8, 8]]] * n
    named = [("cat", "dog")[y] for y in label]
    table = {"label": named, "boxes": boxes, "image_embedding": image.tolist(), "region_embeddings": region.tolist()}
    pd.DataFrame(table).to_parquet(root / "vectors.parquet")
    pd.DataFrame({"class": ["cat", "dog"], "embedding": classes.tolist()}).to_parquet(root / "classes.parquet")
    np.save(root / "classes.npy", classes)
    (root / "vectors").mkdir()
    listed = pd.DataFrame({"label": named, "boxes": [json.dumps(own) for own in boxes]})
    listed.to_csv(root / "vectors" / "images.csv", index=False)
    np.save(root / "vectors" / "image_embeddings.npy", image)
    np.save(root / "vectors" / "region_embeddings.npy", region.reshape(-1, 6))


def saved(root: Path, paths: list[str]) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    columns = {"image": [str(root / path) for path in paths], "label": [0, 0, 1, 1]}
    rows = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict({"train": rows}).save_to_disk(str(root / "saved"))


@pytest.fixture(scope="module")
def outcomes(place: Path) -> list[Outcome]:
    """What became of each command, in the order of the README, in one workspace: it deletes what it has audited."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for command in commands():
            out, err = io.StringIO(), io.StringIO()
            with redirect_stdout(out), redirect_stderr(err):
                code = main(shlex.split(command))
            found.append(Outcome(code, out.getvalue(), err.getvalue()))
    return found


def test_there_are_commands() -> None:
    assert len(commands()) >= 13


@pytest.mark.parametrize(("number", "command"), list(enumerate(commands())), ids=commands())
def test_a_command_of_the_readme(number: int, command: str, outcomes: list[Outcome]) -> None:
    assert outcomes[number].code == 0, f"{command}: {outcomes[number].err}"
    assert outcomes[number].out.strip()
