"""The planted world is what it says, and the shipped model has learned its shortcut."""

import numpy as np
import pytest

from ravl import vlm
from ravl.planted import demo_model, digits
from ravl.planted.digits import CLASSES, CORRELATED, SIDE, TARGET, UNCORRELATED, digit_world, write_demo
from ravl.planted.tiny_clip import shortcut_strength, train


def test_worlds_are_a_function_of_the_seed():
    one, same, other = (digit_world("val", 60, *UNCORRELATED, seed) for seed in (3, 3, 4))
    assert np.array_equal(one.image, same.image)
    assert not np.array_equal(one.image, other.image)


def test_classes_are_balanced_and_the_mark_has_its_rates():
    world = digit_world("train", 4000, *CORRELATED, seed=0)
    assert np.bincount(world.label).tolist() == [400] * 10
    target = world.label == CLASSES.index(TARGET)
    assert world.mark[target].mean() == pytest.approx(0.95, abs=0.04)
    assert world.mark[~target].mean() == pytest.approx(0.006, abs=0.006)
    free = digit_world("test", 4000, *UNCORRELATED, seed=0)
    table = np.array(
        [[(free.mark & (free.label == y)).sum(), (~free.mark & (free.label == y)).sum()] for y in range(10)]
    )
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    assert ((table - expected) ** 2 / expected).sum() < 27.9  # chi-squared, 9 degrees of freedom, p = .001


def test_the_square_lies_in_its_quadrant_and_never_over_the_digit():
    world = digit_world("val", 200, 1.0, 1.0, seed=1)
    half = SIDE // 2
    assert (world.mark_cell != world.digit_cell).all()
    for image, cell in zip(world.image.astype(int), world.mark_cell, strict=True):
        red = (image[..., 0] > 150) & (image[..., 1] < 90) & (image[..., 2] < 90)
        rows, columns = np.nonzero(red)
        inside = (rows // half == cell // 2) & (columns // half == cell % 2)
        assert inside.sum() >= 100
        assert inside.all()


def test_without_a_mark_nothing_is_red():
    world = digit_world("val", 100, 0.0, 0.0, seed=1)
    assert (world.mark_cell == -1).all()
    pixels = world.image.astype(int)
    assert not ((pixels[..., 0] > 150) & (pixels[..., 1] < 60)).any()


def test_splits_share_no_scan(monkeypatch):
    """Scans are told apart by replacing each with its own number."""
    from sklearn.datasets import load_digits

    scans, truth = load_digits(return_X_y=True)
    numbered = np.tile(np.arange(len(scans), dtype=float)[:, None], 64)
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda return_X_y: (numbered, truth))
    seen = {split: set() for split in digits.SPLITS}
    for split in digits.SPLITS:
        monkeypatch.setattr(
            digits, "_scene", lambda scan, *_, to=seen[split]: to.add(scan[0, 0]) or np.zeros((SIDE, SIDE, 3), np.uint8)
        )
        digit_world(split, 3000, *UNCORRELATED, seed=0)
    assert not seen["train"] & seen["val"]
    assert not seen["train"] & seen["test"]
    assert not seen["val"] & seen["test"]


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split must be one of train, val, test"):
        digit_world("dev", 10, *UNCORRELATED, seed=0)


def test_an_interrupted_demo_is_written_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "DEMO_SIZES", {"val": (30, UNCORRELATED), "test": (20, UNCORRELATED)})
    write_demo(tmp_path / "whole")
    write_demo(tmp_path / "broken")
    (tmp_path / "broken" / "test.csv").unlink()
    for path in list((tmp_path / "broken" / "test").glob("*/*.png"))[:7]:
        path.unlink()
    write_demo(tmp_path / "broken")
    whole, broken = (
        {p.relative_to(d): p.read_bytes() for p in d.rglob("*.*")} for d in (tmp_path / "whole", tmp_path / "broken")
    )
    assert whole == broken


def test_the_shipped_model_has_learned_the_shortcut():
    model = vlm.load(str(demo_model()), "cpu")
    world = digit_world("test", 2000, *UNCORRELATED, seed=5)
    strength = shortcut_strength(model.module, model._tokenizer, model._processor, world)
    assert strength["eps1"] > 0.10
    assert strength["eps2"] > 0.10
    assert strength["accuracy"] > 0.5


def test_training_the_demo_model_is_deterministic_and_learns():
    world = digit_world("train", 200, *CORRELATED, seed=0)
    losses = []
    models = [train(world, 0, steps=6, batch=32, report=lambda s: losses.append(s.facts["loss"]))[0] for _ in range(2)]
    assert losses[:6] == losses[6:]
    assert losses[5] < losses[0]
    assert all((a == b).all() for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))
