"""A fine-tuning on pairs of image and free text: captions that name no class still take part."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import ravl
from ravl.cli.repairing import _comparison_text
from ravl.errors import ConfigError
from tests.models import small_clip
from tests.worlds import COLOURS, colour_folder


def test_captions_tell_the_training_classes(tmp_path: Path) -> None:
    small_clip(tmp_path / "model", tuple(COLOURS))
    val, train = colour_folder(tmp_path / "val", 8), colour_folder(tmp_path / "train", 8, seed=1)
    run = ravl.discover(
        *(val, tmp_path / "model"), clustering="kmedoids", until="evidence", workspace=tmp_path / "w", device="cpu",
        classes=("apple|fruit", "leaf", "sky"),
    )  # fmt: skip
    said = {"apple": "a red fruit", "leaf": "a photo of a leaf, no apple", "sky": "the sky"}
    with open(train / "pairs.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("image_path", "caption"))
        for i, path in enumerate(sorted(train.glob("*/*.png"))):
            caption = said[path.parent.name] if i % 4 else "an apple and a leaf" if i % 8 else "something"
            rows.writerow((path.relative_to(train), caption))
    feature = int(run.features().feature[0])
    result = ravl.mitigate(run, train / "pairs.csv", features=[feature], steps=3, batch_size=8, device="cpu")
    assert result["labels"] == {"count": 18, "n": 24}
    assert "captions name one class in 18 of 24 training images" in _comparison_text(result)

    # neither a label nor a caption: refused before anything is computed
    with open(train / "blank.csv", "w", newline="", encoding="utf-8") as file:
        file.write((train / "pairs.csv").read_text(encoding="utf-8").replace("something", " "))
    with pytest.raises(ConfigError, match="must have a label or a caption, but 3 of 24 have neither"):
        ravl.mitigate(run, train / "blank.csv", features=[feature], steps=3, batch_size=8, device="cpu", name="new")
    assert not run.mitigation("new").exists

    # of many classes those that changed most are printed
    names = [f"class {i}" for i in range(30)]
    before = {name: {"accuracy": 0.5, "n": 4} for name in names}
    after = {name: {"accuracy": 0.5 + i / 100, "n": 4} for i, name in enumerate(names)}
    sides = {side: {**result[side], "per_class": rows} for side, rows in (("before", before), ("after", after))}
    lines = _comparison_text({**result, **sides}).splitlines()
    assert [line.split("  ")[0] for line in lines if line.startswith("class ")] == names[:9:-1]
    assert "and 10 more classes, which changed less (--json lists all)" in lines
