"""A thousand classes: class text is embedded once, and region scores live in files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ravl.config import AuditConfig, PromptsConfig
from ravl.discovery import zero_shot
from ravl.discovery.scoring import best_region
from ravl.discovery.zero_shot import class_vectors, classify
from ravl.errors import RunError
from ravl.store import AuditRun
from ravl.tables import Regions, ZeroShot
from tests.toys import ColourModel


def vectors(n: int, dim: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def mapped(array: Any) -> bool:
    """Whether an array is a part of a file."""
    while array is not None and not isinstance(array, np.memmap):
        array = array.base
    return array is not None


def test_class_text_is_embedded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def encode(self: Any, texts: Sequence[str]) -> NDArray[np.float32]:
        asked.extend(texts)
        return vectors(len(texts), 3, len(asked))

    monkeypatch.setattr(ColourModel, "encode_texts", encode)
    names = [f"class {i}" for i in range(1000)]
    text = class_vectors(ColourModel(), names, PromptsConfig(templates=("a {}", "{}")))
    assert text.shape == (1000, 3)
    assert len(asked) == len(set(asked)) == 2000


def test_large_scores_lie_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image, region, text = (vectors(n, 8, n) for n in (30, 120, 1000))
    label = np.arange(30) % 1000
    small = classify(image, region, text, label, 0.07)
    monkeypatch.setattr(zero_shot, "_IN_MEMORY", 1000)
    large = classify(image, region, text, label, 0.07)
    assert mapped(large.region)
    np.testing.assert_array_equal(large.region, small.region)
    with pytest.raises(ValueError, match="read-only"):
        large.region[0, 0] = 1

    run = AuditRun.create(tmp_path, "many", AuditConfig("x", "demo"), {})
    loaded: ZeroShot = run.stage("zero_shot", lambda: large)
    assert mapped(loaded.region)
    np.testing.assert_array_equal(loaded.region, small.region)
    box = np.tile([0, 0, 1, 1], (120, 1))
    regions = Regions(np.repeat(np.arange(30), 4), box, np.tile(np.arange(4), 30), 30)
    assert best_region(regions, loaded).tolist() == best_region(regions, small).tolist()


def test_scores_without_a_region_and_damaged_files(tmp_path: Path) -> None:
    run = AuditRun.create(tmp_path, "none", AuditConfig("x", "demo"), {})
    empty = ZeroShot(np.full((2, 4), 0.25), np.zeros((0, 4)), np.zeros(2))
    assert run.stage("zero_shot", lambda: empty).region.shape == (0, 4)
    file = run.path / "zero_shot.npz"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(RunError, match="is damaged"):
        run.load("zero_shot")
