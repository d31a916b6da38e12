"""Data sets of the Hugging Face library, saved in a folder: nothing is downloaded here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ravl import api
from ravl.data import read_images
from ravl.data.hub import copied
from ravl.errors import DataError

datasets = pytest.importorskip("datasets")


def rows(n: int = 6) -> Any:
    pictures = [Image.fromarray(np.full((5, 4, 3), 30 * i, np.uint8)) for i in range(n)]
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "text": datasets.Value("string"),
        }
    )
    columns = {"image": pictures, "label": [i % 2 for i in range(n)], "text": [f"n° {i}" for i in range(n)]}
    return datasets.Dataset.from_dict(columns, features=features)


def test_a_saved_set_is_copied_once(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": rows(4), "val": rows(6)}).save_to_disk(str(tmp_path / "saved"))
    manifest = copied(f"hf:{tmp_path / 'saved'}@val", tmp_path / "ws")
    images = read_images(manifest)
    assert images.class_names == ("cat", "dog")
    assert images.label.tolist() == [0, 1] * 3
    assert images.size.tolist() == [[4, 5]] * 6
    assert images.caption is not None
    assert images.caption[5] == "n° 5"
    changed = manifest.stat().st_mtime_ns
    assert copied(f"hf:{tmp_path / 'saved'}@val", tmp_path / "ws").stat().st_mtime_ns == changed
    with pytest.raises(DataError, match=r"has the splits train, val, got none\. Write hf:.*@train"):
        copied(f"hf:{tmp_path / 'saved'}", tmp_path / "ws")
    with pytest.raises(DataError, match="has the splits train, val, got test"):
        copied(f"hf:{tmp_path / 'saved'}@test", tmp_path / "ws")


def test_a_set_without_splits_through_the_api(tmp_path: Path) -> None:
    rows().save_to_disk(str(tmp_path / "saved"))
    document = api.check(f"hf:{tmp_path / 'saved'}", workspace=tmp_path / "ws")
    assert document["classes"] == {"cat": 3, "dog": 3}
    assert (tmp_path / "ws" / "datasets").is_dir()


def test_what_is_no_set_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.Dataset.from_dict({"url": ["https://x/a.png"], "label": [0]}).save_to_disk(str(tmp_path / "urls"))
    with pytest.raises(DataError, match="must have a column of images, got url, label"):
        copied(f"hf:{tmp_path / 'urls'}", tmp_path / "ws")
    with pytest.raises(DataError, match="cannot be opened"):
        copied("hf:no/such-set", tmp_path / "ws")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"needs the library datasets: pip install 'ravl-dashboard\[hf\]'"):
        copied("hf:a/b", tmp_path / "ws")
