"""The planted worlds are what they say, and the models trained on them learn their shortcuts."""

import csv
import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from ravl import vlm
from ravl.planted import demo_model, digits, radiograph, textures, tiny_clip, worlds
from ravl.planted.digits import CLASSES, CORRELATED, SIDE, TARGET, UNCORRELATED, digit_world, write_demo
from ravl.planted.keeping import cached_model
from ravl.planted.tiny_clip import ARCHITECTURES, Recipe, reliance, shortcut_strength, strength_of, train
from ravl.planted.worlds import BRIGHTNESS, LIFT, WORLDS, Scenes, make, rates, shows, write_scenes

SINGLE = [(world, mark) for world, plan in WORLDS.items() for mark in plan.marks if mark != BRIGHTNESS]


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
    parts = (kind.from_pretrained(demo_model()) for kind in (CLIPModel, AutoTokenizer, CLIPImageProcessorPil))
    strength = shortcut_strength(*parts, digit_world("test", 2000, *UNCORRELATED, seed=5))
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


# --- the worlds of the controlled evaluation -------------------------------------------------------------------------


def cramers_v(label: np.ndarray, mark: np.ndarray) -> float:
    """The textbook's formula on the table of counts, for a mark with two values."""
    table = np.array([[np.sum((label == y) & (mark == m)) for m in (False, True)] for y in np.unique(label)], float)
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    return float(np.sqrt(((table - expected) ** 2 / expected).sum() / table.sum()))


@pytest.mark.parametrize("world", WORLDS)
def test_scenes_are_a_function_of_their_arguments(world):
    marks = list(WORLDS[world].marks)[:1]
    one, same, other = (make(world, marks, "val", 12, None, seed) for seed in (103, 103, 104))
    assert np.array_equal(one.image, same.image)
    assert np.array_equal(one.mark_box, same.mark_box)
    assert not np.array_equal(one.image, other.image)
    assert len({make(world, marks, split, 6, 0.9, 103).image.tobytes() for split in worlds.SPLITS}) == 3


@pytest.mark.parametrize("world", WORLDS)
def test_scenes_are_whole(world):
    plan = WORLDS[world]
    for marks in (list(plan.marks), ()):
        scenes = make(world, marks, "train", 24, 0.7, 103)
        local = tuple(mark for mark in marks if mark != BRIGHTNESS)
        assert scenes.marks == local
        assert [scenes.class_names[t] for t in scenes.target] == [plan.marks[mark] for mark in local]
        assert scenes.image.shape == (24, plan.side, plan.side, 3)
        assert scenes.image.dtype == np.uint8
        assert scenes.image.reshape(24, -1).std(1).min() > 5
        assert np.ptp(np.bincount(scenes.label, minlength=len(plan.class_names))) <= 1
        assert scenes.present.shape == (24, len(local))
        assert scenes.mark_box.shape == (24, len(local), 4)
        assert (scenes.mark_box[~scenes.present] == -1).all()
        box = scenes.mark_box[scenes.present]
        assert ((box[:, :2] >= 0) & (box[:, :2] < box[:, 2:]) & (box[:, 2:] <= plan.side)).all()


@pytest.mark.parametrize("n_classes", [2, 3, 6, 10])
@pytest.mark.parametrize("strength", [0, 0.5, 0.7, 0.9, 0.99])
def test_rates_have_the_cramers_v_that_was_asked_for(n_classes, strength):
    p = rates(n_classes, 1, strength)
    weight = np.concatenate([p, 1 - p]) / n_classes
    label, mark = np.tile(np.arange(n_classes), 2), np.repeat([True, False], n_classes)
    counts = np.round(weight * 1e6).astype(int)
    assert cramers_v(np.repeat(label, counts), np.repeat(mark, counts)) == pytest.approx(strength, abs=2e-3)
    assert p.mean() == pytest.approx(1 / n_classes)


def test_marks_have_their_strength_and_are_independent_of_each_other():
    plant = {}
    for strength in (0, 0.7, 0.9, None):
        scenes = make("digits", ("red square", "blue disc"), "train", 1500, strength, 103)
        plant[strength] = [cramers_v(scenes.label, scenes.present[:, m]) for m in range(2)]
    # at V = 0 an estimate of it is about sqrt(9 / 1500), never 0
    assert plant[0] == pytest.approx([0, 0], abs=0.13)
    assert plant[0.7] == pytest.approx([0.7, 0.7], abs=0.06)
    assert plant[0.9] == pytest.approx([0.9, 0.9], abs=0.03)
    assert scenes.present.mean(0) == pytest.approx([0.5, 0.5], abs=0.05)
    assert abs(np.corrcoef(scenes.present.T)[0, 1]) < 0.1


@pytest.mark.parametrize(("world", "mark"), SINGLE)
def test_a_mark_changes_the_pixels_of_its_box_and_no_others(world, mark):
    """The scene behind a mark is the same without it, so the difference is the mark."""
    n, side = 24, WORLDS[world].side
    marked, bare = make(world, [mark], "val", n, None, 103), make(world, (), "val", n, None, 103)
    assert np.array_equal(marked.label, bare.label)
    assert 0 < marked.present.sum() < n
    for i in range(n):
        changed = np.abs(marked.image[i].astype(int) - bare.image[i]).max(-1) > 0
        if not marked.present[i, 0]:
            assert not changed.any()
            continue
        x0, y0, x1, y1 = marked.mark_box[i, 0]
        assert not changed[np.r_[0:y0, y1:side]].any()
        assert not changed[:, np.r_[0:x0, x1:side]].any()
        rows, columns = np.nonzero(changed)
        assert np.ptp(rows) + 1 >= 0.7 * (y1 - y0)
        assert np.ptp(columns) + 1 >= 0.7 * (x1 - x0)
        assert changed[y0:y1, x0:x1].mean() >= 0.15


@pytest.mark.parametrize("world", ["digits", "textures", "silhouettes", "pairs"])
def test_marks_never_cover_the_object_nor_each_other(world):
    plan = WORLDS[world]
    marks = [mark for mark in plan.marks if mark != BRIGHTNESS]
    for i in range(40):
        painted = plan.paint(i % len(plan.class_names), marks, "train", np.random.default_rng([103, i]))
        covered = np.zeros((plan.side, plan.side), int)
        for x0, y0, x1, y1 in (painted.subject, *painted.marks):
            covered[y0:y1, x0:x1] += 1
        assert covered.max() == 1


def test_two_marks_lie_in_different_quadrants():
    scenes = make("digits", ("red square", "blue disc"), "val", 60, 1.0, 103)
    both = make("digits", ("red square", "blue disc"), "val", 200, None, 103)
    cell = both.mark_box[..., 1] // 28 * 2 + both.mark_box[..., 0] // 28
    assert (cell[both.present.all(1), 0] != cell[both.present.all(1), 1]).all()
    assert (scenes.present[:, 0] == (scenes.label == 9)).all()
    assert (scenes.present[:, 1] == (scenes.label == 3)).all()


def test_brightness_lifts_whole_scenes_and_is_no_local_mark():
    for world in ("digits", "textures", "silhouettes"):
        bright, plain = (make(world, marks, "val", 30, None, 103) for marks in ((BRIGHTNESS,), ()))
        assert bright.marks == ()
        assert bright.present.shape == (30, 0)
        assert bright.class_names[bright.biased_target] == WORLDS[world].marks[BRIGHTNESS]
        assert 0 < bright.biased.sum() < 30
        # one grey level, because the lift comes before the rounding
        lifted = np.clip(plain.image[bright.biased].astype(int) + LIFT, 0, 255)
        assert np.abs(lifted - bright.image[bright.biased]).max() <= 1
        assert np.array_equal(plain.image[~bright.biased], bright.image[~bright.biased])
        assert plain.biased_target == -1
        assert not plain.biased.any()


def hand_made(box, present) -> Scenes:
    n, m = np.shape(present)
    image = np.zeros((n, 20, 20, 3), np.uint8)
    none = np.zeros(n, bool)
    return Scenes(image, np.zeros(n, int), ("a",), ("x", "y")[:m], (0, 0)[:m], np.array(present), np.array(box), none)


def test_a_region_shows_a_mark_from_a_quarter_of_its_area_on():
    scenes = hand_made([[[4, 4, 8, 8], [-1] * 4], [[0, 0, 4, 4], [16, 10, 20, 20]]], [[True, False], [True, True]])
    region = {
        (0, 0, 10, 10): [[True, False], [True, False]],  # all of it
        (6, 6, 20, 20): [[True, False], [False, True]],  # 4 of 16 pixels
        (7, 4, 10, 7): [[False, False], [False, False]],  # 3 of 16 pixels
        (0, 0, 5, 8): [[True, False], [True, False]],  # one column of four
        (8, 4, 12, 8): [[False, False], [False, False]],  # beside it
        (16, 18, 20, 20): [[False, False], [False, False]],  # a fifth of y
    }
    for box, expected in region.items():
        assert shows(scenes, np.array([0, 1]), np.array([box, box])).tolist() == expected
    assert shows(scenes, np.zeros(0, int), np.zeros((0, 4), int)).shape == (0, 2)
    without = hand_made(np.zeros((2, 0, 4), int), np.zeros((2, 0), bool))
    assert shows(without, np.array([0, 1, 1]), np.zeros((3, 4), int)).shape == (3, 0)


def test_a_mark_in_a_quadrant_is_shown_by_that_quadrant_alone():
    scenes = make("textures", ("yellow ring",), "val", 40, None, 103)
    image, cell = np.repeat(np.arange(40), 4), np.tile(np.arange(4), 40)
    corner = np.stack([cell % 2 * 28, cell // 2 * 28], 1)
    shown = shows(scenes, image, np.concatenate([corner, corner + 28], 1))[:, 0].reshape(40, 4)
    assert np.array_equal(shown.sum(1), scenes.present[:, 0])


def test_finite_sources_are_divided_among_the_splits():
    pools = [set(digits.pool_of(split)) for split in worlds.SPLITS]
    assert sum(map(len, pools)) == len(set.union(*pools)) == 1797
    for name in {*textures.CLASSES, *textures.PAIR}:
        parts = [textures.source_area(name, split) for split in worlds.SPLITS]
        assert all(a[2] <= b[0] for a, b in pairwise(parts))


def test_a_patch_is_cut_from_its_part_of_the_picture_alone(monkeypatch):
    """A picture whose grey level is its column tells where each pixel of a patch was."""
    height, width = 300, 400
    monkeypatch.setattr(textures, "_MIN_CONTRAST", 0)
    for split in worlds.SPLITS:
        x0, _, x1, _ = round(width * textures._SHARES[split][0]), 0, round(width * textures._SHARES[split][1]), 0
        inside = np.zeros((height, width), np.uint8)
        inside[:, x0:x1] = 255
        monkeypatch.setattr(textures, "_picture", lambda _, picture=inside: picture)
        rng = np.random.default_rng(103)
        for _ in range(30):
            grey = textures.patch("brick", split, 26, rng)
            assert np.ptp(grey) == 0


def test_the_heart_is_large_in_cardiomegaly_alone():
    rng = np.random.default_rng(103)
    for label, name in enumerate(radiograph.CLASSES):
        patients = [radiograph.anatomy_of(label, rng) for _ in range(50)]
        assert all((p.ratio > 0.5) == (name == "cardiomegaly") for p in patients)
        assert all((p.air_side != 0) == (name == "pneumothorax") for p in patients)


def test_air_beside_a_lung_is_darker_than_the_lung_of_the_other_side():
    for seed in range(6):
        body = replace(radiograph.anatomy_of(1, np.random.default_rng(seed)), air_side=1, shift=(0.0, 0.0), turn=0.0)
        density = radiograph._shadows(body, np.random.default_rng(seed))
        rows = slice(28, 56)
        left, right = density[rows, 85:92].mean(), density[rows, 20:27].mean()
        assert left < right


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cats", (), "val", 4, 0.5, 0), "world must be one of digits"),
        (("digits", ("green cross",), "val", 4, 0.5, 0), "mark must be one of red square"),
        (("digits", (), "dev", 4, 0.5, 0), "split must be one of train, val, test"),
        (("digits", ("red square",) * 2, "val", 4, 0.5, 0), "marks must differ"),
        (("digits", ("red square",), "val", 4, 1.5, 0), "strength must be Cramer's V in 0..1"),
    ],
)
def test_unknown_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(*arguments)


def test_an_unknown_architecture_is_refused(tmp_path):
    with pytest.raises(ValueError, match="architecture must be one of vit14"):
        cached_model(tmp_path, "pairs", "resnet", (), 0, 103)


def test_captions_and_prompts_are_different_texts():
    for plan in WORLDS.values():
        assert len(set(plan.captions)) == len(set(plan.prompts)) == 4
        assert not set(plan.captions) & set(plan.prompts)
        _, tokenizer, _ = tiny_clip.build(0, plan)
        texts = [t.format(name) for t in (*plan.captions, *plan.prompts) for name in plan.class_names]
        ids = tokenizer(texts)["input_ids"]
        assert tokenizer.unk_token_id not in {i for row in ids for i in row}
        assert max(map(len, ids)) <= 16
        assert len({tuple(row) for row in ids}) == len(texts)


def test_written_scenes_can_be_read_back(tmp_path):
    scenes = make("digits", ("red square", BRIGHTNESS), "val", 20, None, 103)
    manifest = write_scenes(tmp_path / "digits-0.9", scenes)
    with open(manifest, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert manifest == tmp_path / "digits-0.9.csv"
    assert list(rows[0]) == ["image_path", "label", "red_square", "brightness"]
    assert [row["red_square"] == "yes" for row in rows] == scenes.present[:, 0].tolist()
    assert [row["brightness"] == "yes" for row in rows] == scenes.biased.tolist()
    for row, image, label in zip(rows, scenes.image, scenes.label, strict=True):
        assert row["label"] == CLASSES[label]
        assert np.array_equal(np.asarray(Image.open(tmp_path / row["image_path"])), image)
    before = manifest.stat().st_mtime_ns
    write_scenes(tmp_path / "digits-0.9", scenes)
    assert manifest.stat().st_mtime_ns == before


# --- models trained on them ------------------------------------------------------------------------------------------


def test_reliance_by_hand():
    label, mark = np.repeat([0, 1, 2], 8), np.tile([True, False], 12)
    right = np.ones(24, bool)
    right[[1, 3, 5]] = False  # class 0 without the mark: 1 of 4
    right[[8, 10]] = False  # class 1 with it: 2 of 4
    right[[16, 17]] = False  # class 2 with and without it: 3 of 4
    assert reliance(right, label, mark, target=0) == {"eps1": 0.75, "eps2": 0.5}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_on_a_world_is_deterministic(architecture):
    plan = replace(WORLDS["pairs"], train_size=64)
    losses = []
    for _ in range(2):
        parts = tiny_clip.train_world(
            plan, architecture, ("orange diamond",), 0.9, 103, Recipe(5, 16, 1e-3, clip=1.0),
            report=lambda step: losses.append(step.facts["loss"]),
        )  # fmt: skip
    assert losses[:5] == losses[5:]
    strength = strength_of(*parts, make("pairs", ("orange diamond",), "test", 40, None, 103))
    assert set(strength) == {"orange diamond"}
    assert set(strength["orange diamond"]) == {"accuracy", "unmarked", "eps1", "eps2"}


@pytest.fixture
def small(monkeypatch):
    """Settings that train in a moment."""
    monkeypatch.setitem(WORLDS, "digits", replace(WORLDS["digits"], train_size=64))
    monkeypatch.setattr(tiny_clip, "TEST_SIZE", 60)
    return {
        "world": "digits",
        "architecture": "vit14",
        "marks": ("red square", BRIGHTNESS),
        "strength": 0.9,
        "seed": 103,
    }


def test_an_interrupted_model_is_not_there_and_the_next_one_is_whole(small, tmp_path, monkeypatch):
    recipe = Recipe(steps=2, batch=16, rate=1e-3)
    with monkeypatch.context() as broken:

        def stop(*_, **__):
            raise KeyboardInterrupt

        broken.setattr("transformers.PreTrainedTokenizerFast.save_pretrained", stop)
        with pytest.raises(KeyboardInterrupt):
            cached_model(tmp_path, **small, recipe=recipe)
    assert not list(tmp_path.iterdir())
    folder = cached_model(tmp_path, **small, recipe=recipe)
    assert list(tmp_path.iterdir()) == [folder]
    setting = json.loads((folder / "setting.json").read_text())
    assert setting["marks"] == ["red square", BRIGHTNESS]
    assert set(setting["reliance"]) == {"red square", BRIGHTNESS}
    assert vlm.load(str(folder), "cpu").dim == 64


def test_a_cached_model_is_trained_once_and_again_when_anything_changes(small, tmp_path, monkeypatch):
    trained = []
    real = tiny_clip.train_world
    monkeypatch.setattr(tiny_clip, "train_world", lambda *a: trained.append(a) or real(*a))
    recipe = Recipe(steps=2, batch=16, rate=1e-3)
    first = cached_model(tmp_path, **small, recipe=recipe)
    assert cached_model(tmp_path, **small, recipe=recipe) == first
    assert len(trained) == 1
    names = {first.name}
    for change in ({"strength": 0.7}, {"seed": 104}, {"marks": ("blue disc",)}, {"architecture": "vit8"}):
        names.add(cached_model(tmp_path, **{**small, **change}, recipe=recipe).name)
    names.add(cached_model(tmp_path, **small, recipe=replace(recipe, rate=2e-3)).name)
    monkeypatch.setattr(worlds, "LIFT", 50)
    names.add(cached_model(tmp_path, **small, recipe=recipe).name)
    assert len(names) == len(trained) == 7


# --- random crops in training -----------------------------------------------------------------------------------------


def test_only_models_of_a_world_of_crops_see_crops():
    assert WORLDS["radiograph"].encoder == "crop"
    for name, plan in WORLDS.items():
        recipe = tiny_clip.recipe_of(plan, "vit7")
        assert (recipe.crops > 0) == (name == "radiograph")
        assert (recipe.steps > tiny_clip.RECIPES["vit7"].steps) == (name == "radiograph")


def test_a_crop_is_an_enlarged_square_part_of_its_scene():
    """Of a scene whose values are the coordinates, a part shows an interval of each, of one length from 1/4 to 1."""
    side, seen, n = 112, 56, 200
    line = torch.linspace(-1 + 1 / side, 1 - 1 / side, side)  # centres of the pixels of a frame from -1 to 1
    scene = torch.stack([line.expand(side, side), line[:, None].expand(side, side)])
    parts = tiny_clip._parts_of(scene.expand(n, -1, -1, -1), seen, np.random.default_rng(0))
    assert parts.shape == (n, 2, seen, seen)
    across, down = parts[:, 0], parts[:, 1]
    inner = slice(4, -4)  # at the border of a scene the outermost half pixel is repeated
    assert (across[:, 0, inner] - across[:, -1, inner]).abs().max() < 1e-5  # no turn, no shear
    steps = across.diff(dim=2)[:, seen // 2, inner]
    assert (steps - steps[:, :1]).abs().max() < 1e-4
    scale = steps[:, 0] * seen / 2
    assert torch.allclose(scale, down.diff(dim=1)[:, 10, seen // 2] * seen / 2, atol=1e-3)  # square
    assert 0.249 < scale.min() < 0.27
    assert 0.97 < scale.max() < 1.001
    centre = across[:, 0].mean(1)
    assert ((centre.abs() + scale) < 1.02).all()  # inside the scene
    assert centre.abs().max() > 0.5  # and anywhere in it
    assert not torch.equal(parts[0], parts[1])


def test_full_size_scenes_have_the_processors_grey_levels():
    _, _, processor = tiny_clip.build(0, WORLDS["radiograph"], "vit7")
    grey = np.full((2, 112, 112, 3), 100, np.uint8)
    whole, usual = tiny_clip._full_size(grey, processor), tiny_clip._pixels(grey, processor)
    assert whole.shape == (2, 3, 112, 112)
    assert torch.allclose(whole[:, :, :56, :56], usual, atol=1e-5)
