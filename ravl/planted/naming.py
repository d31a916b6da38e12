"""Small CLIPs that can name what lies in a scene before they learn its classes.

A model that people fine-tune has seen millions of captions: it can tell a metal clip from a heart before it has seen
one radiograph of theirs. A small model that learns hearts and clips from the classes alone can say no more of a clip
than "cardiomegaly", so that a clip and a heart lie at one place of its final embedding. So the models of some worlds
start from one, shared by all models of a seed, that was trained on captions which name the marks of other scenes. In
those every mark is in half of the scenes, whatever the class: nothing in them ties a mark to a class.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from ravl.planted.tiny_clip import RECIPES, Parts, Recipe, build, fit
from ravl.planted.worlds import BRIGHTNESS, WorldPlan, make
from ravl.tables import Report, quiet

START_RECIPE = replace(RECIPES["vit7"], steps=1000, batch=64, rate=1.5e-3, crops=0.5)

UNMARKED = "nothing else"
"""The caption's word where no mark is."""

OTHER_SCENES = 1000
"""Added to a model's seed: the scenes that it learns names from are not those that it learns classes from."""


def train_start(
    plan: WorldPlan, architecture: str, seed: int, recipe: Recipe = START_RECIPE, report: Report = quiet
) -> Parts:
    """Train a fresh model to name the marks of a world; returns what `build` returns.

    Its tokenizer reads the words of the classes too, so that it can go on with `train_world`.
    """
    marks = marks_of(plan)
    scenes = make(plan.name, marks, "train", plan.train_size, None, seed + OTHER_SCENES)
    names, name_of = naming(marks, scenes.present)
    parts = build(seed, replace(plan, class_names=(*plan.class_names, *names)), architecture)
    return fit(parts, replace(plan, class_names=names), scenes.image, name_of, seed, recipe, report)


def marks_of(plan: WorldPlan) -> tuple[str, ...]:
    """The marks of a world that lie somewhere."""
    return tuple(mark for mark in plan.marks if mark != BRIGHTNESS)


def naming(marks: tuple[str, ...], present: NDArray[np.bool_]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """A name for each of the 2^M sets of marks, and (I,) which one each scene has. present: (I, M)."""
    sets = [tuple(bool(code >> m & 1) for m in range(len(marks))) for code in range(2 ** len(marks))]
    names = tuple(" ".join(compress(marks, inside)) or UNMARKED for inside in sets)
    return names, present @ (1 << np.arange(len(marks)))
