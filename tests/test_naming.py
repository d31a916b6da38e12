"""Models that learn to name a world's marks before they learn its classes."""

from dataclasses import replace

import numpy as np
import pytest

from ravl.planted import keeping, naming, tiny_clip
from ravl.planted.keeping import cached_model, cached_start
from ravl.planted.tiny_clip import RECIPES, Recipe
from ravl.planted.worlds import WORLDS, make

SEED = 103


def test_every_set_of_marks_has_a_name_of_its_own_with_its_marks_alone():
    marks = ("red square", "blue disc", "yellow ring")
    present = np.random.default_rng(0).random((60, 3)) < 0.5
    names, name_of = naming.naming(marks, present)
    assert len(set(names)) == len(names) == 8
    for there, name in zip(present, name_of, strict=True):
        assert [mark in names[name] for mark in marks] == there.tolist()
    assert names[naming.naming(marks, np.zeros((1, 3), bool))[1][0]] == naming.UNMARKED


def test_marks_that_lie_nowhere_are_not_named():
    assert naming.marks_of(WORLDS["digits"]) == ("red square", "blue disc")


def test_a_start_reads_the_words_of_marks_and_classes():
    plan = replace(WORLDS["radiograph"], train_size=8)
    tokenizer = naming.train_start(plan, "vit7", SEED, Recipe(steps=1, batch=8, rate=1e-3))[1]
    for word in (*plan.marks, *plan.class_names, naming.UNMARKED, *plan.prompts):
        assert tokenizer.unk_token_id not in tokenizer(word.replace("{}", ""))["input_ids"]


def test_a_start_names_the_marks_of_scenes_it_has_not_seen_and_none_of_their_classes():
    plan = replace(WORLDS["textures"], train_size=400)
    parts = naming.train_start(plan, "vit8", SEED, replace(RECIPES["vit8"], steps=150, batch=32))
    scenes = make("textures", naming.marks_of(plan), "test", 200, None, SEED)
    names, name_of = naming.naming(scenes.marks, scenes.present)
    told = tiny_clip.predictions(*parts, replace(plan, class_names=names), scenes.image)
    assert (told == name_of).mean() > 0.7  # of four names: .25 by chance
    classes = tiny_clip.predictions(*parts, plan, scenes.image)
    assert (classes == scenes.label).mean() < 1.6 / len(plan.class_names)


def test_training_a_start_is_deterministic():
    plan = replace(WORLDS["radiograph"], train_size=24)
    seen = []
    for _ in range(2):
        naming.train_start(plan, "vit7", SEED, Recipe(3, 8, 1e-3, crops=0.5), lambda step: seen.append(step.facts))
    assert seen[:3] == seen[3:]


@pytest.fixture
def small(monkeypatch):
    """Radiographs that train in a moment."""
    monkeypatch.setitem(WORLDS, "radiograph", replace(WORLDS["radiograph"], train_size=32))
    monkeypatch.setattr(naming, "START_RECIPE", Recipe(steps=2, batch=8, rate=1e-3))
    monkeypatch.setattr(tiny_clip, "TEST_SIZE", 60)
    recipe = Recipe(steps=1, batch=8, rate=1e-3)
    return {"world": "radiograph", "architecture": "vit7", "marks": ("metal clips",), "seed": SEED, "recipe": recipe}


def test_models_of_a_seed_go_on_from_one_start(small, tmp_path, monkeypatch):
    started, went_on = [], []
    train_start, train_world = naming.train_start, tiny_clip.train_world

    def starting(*arguments, **named):
        parts = train_start(*arguments, **named)
        started.append({name: value.clone() for name, value in parts[0].state_dict().items()})
        return parts

    def going_on(*arguments):
        went_on.append({name: value.clone() for name, value in arguments[-1][0].state_dict().items()})
        return train_world(*arguments)

    monkeypatch.setattr(naming, "train_start", starting)
    monkeypatch.setattr(tiny_clip, "train_world", going_on)
    folders = [cached_model(tmp_path, **small, strength=strength) for strength in (0.8, 0.9)]
    assert (len(started), len(went_on)) == (1, 2)
    for weights in went_on:
        assert all((weights[name] == value).all() for name, value in started[0].items())
    start = cached_start(tmp_path, WORLDS["radiograph"], "vit7", SEED)
    assert sorted(tmp_path.iterdir()) == sorted([*folders, start])
    cached_model(tmp_path, **small | {"seed": SEED + 1}, strength=0.8)
    assert len(started) == 2


def test_another_start_makes_another_model_and_a_kept_one_needs_no_start(small, tmp_path, monkeypatch):
    first = cached_model(tmp_path, **small, strength=0.8)
    keeping.shutil.rmtree(cached_start(tmp_path, WORLDS["radiograph"], "vit7", SEED))
    assert cached_model(tmp_path, **small, strength=0.8) == first
    assert list(tmp_path.iterdir()) == [first]
    monkeypatch.setattr(naming, "START_RECIPE", Recipe(steps=2, batch=8, rate=2e-3))
    assert cached_model(tmp_path, **small, strength=0.8) != first
