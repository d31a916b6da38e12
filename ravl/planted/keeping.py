"""Trained models on disk: each is there whole or not at all, and is trained once."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.planted import naming, tiny_clip
from ravl.planted.worlds import WORLDS, Scenes, WorldPlan, make
from ravl.tables import Report, quiet


def cached_model(
    folder: Path,
    world: str,
    architecture: str,
    marks: Sequence[str],
    strength: float,
    seed: int,
    recipe: tiny_clip.Recipe | None = None,
    report: Report = quiet,
) -> Path:
    """The directory of the model of one setting, trained now if `folder` lacks it; it is there whole or not at all.

    Its name holds a digest of all that makes the model, the scenes' pixels among it, so that a change trains anew.
    A model of a world whose marks are `named` goes on from `cached_start`. `setting.json` in it has the setting, the
    seconds of training and `strength_of` on TEST_SIZE scenes of `tiny_clip`.
    """
    plan, tower = WORLDS[world], tiny_clip.tower_of(architecture)
    recipe = recipe or tiny_clip.recipe_of(plan, architecture)
    setting: dict[str, Any] = {
        "world": world,
        "architecture": architecture,
        "marks": list(marks),
        "strength": strength,
        "seed": seed,
        **_making(plan, tower, recipe, make(world, marks, "train", 64, strength, seed)),
    }
    if plan.named:
        setting["start"], _ = _start_of(plan, architecture, seed)
    words = (world, architecture, *(mark.replace(" ", "_") for mark in marks), f"V{strength:g}", f"s{seed}")
    target = folder / "-".join((*words, digest(setting)))
    if target.exists():
        return target
    first = tiny_clip.load(cached_start(folder, plan, architecture, seed, report)) if "start" in setting else None
    begun = time.perf_counter()
    parts = tiny_clip.train_world(plan, architecture, marks, strength, seed, recipe, report, first)
    setting["seconds"] = round(time.perf_counter() - begun, 1)
    setting["reliance"] = tiny_clip.strength_of(*parts, make(world, marks, "test", tiny_clip.TEST_SIZE, None, seed))
    _keep(parts, setting, target)
    return target


def cached_start(folder: Path, plan: WorldPlan, architecture: str, seed: int, report: Report = quiet) -> Path:
    """The directory of the model that a seed's models of a world start from, trained now if `folder` lacks it.

    As `cached_model`. Two processes that lack the same one both train it, and the first to end keeps its own.
    """
    name, setting = _start_of(plan, architecture, seed)
    target = folder / name
    if not target.exists():
        begun = time.perf_counter()
        parts = naming.train_start(plan, architecture, seed, naming.START_RECIPE, report)
        setting["seconds"] = round(time.perf_counter() - begun, 1)
        _keep(parts, setting, target)
    return target


def _start_of(plan: WorldPlan, architecture: str, seed: int) -> tuple[str, dict[str, Any]]:
    """Its name, and all that makes it."""
    sample = make(plan.name, naming.marks_of(plan), "train", 64, None, seed + naming.OTHER_SCENES)
    setting: dict[str, Any] = {"world": plan.name, "architecture": architecture, "seed": seed}
    setting |= _making(plan, tiny_clip.tower_of(architecture), naming.START_RECIPE, sample)
    return f"{plan.name}-{architecture}-start-s{seed}-{digest(setting)}", setting


def _making(plan: WorldPlan, tower: tiny_clip.Architecture, recipe: tiny_clip.Recipe, sample: Scenes) -> dict[str, Any]:
    # what a recipe does not use is left out, so that a new possibility makes no new model
    used = {name: value for name, value in asdict(recipe).items() if name != "crops" or value}
    return {
        "recipe": used,
        "train_size": plan.train_size,
        "captions": plan.captions,
        "tower": asdict(tower),
        "trainer": tiny_clip.TRAINER,
        "scenes": pixels_digest(sample.image),
    }


def _keep(parts: tiny_clip.Parts, setting: dict[str, Any], target: Path) -> None:
    with whole(target) as partial:
        for part in parts:
            part.save_pretrained(partial)
        (partial / "setting.json").write_text(json.dumps(setting, indent=1) + "\n", encoding="utf-8")


def digest(setting: dict[str, Any]) -> str:
    """Ten hex digits that change with anything in what makes a model."""
    return hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:10]


def pixels_digest(image: NDArray[np.uint8]) -> str:
    """Of scenes' pixels."""
    return hashlib.sha256(image.tobytes()).hexdigest()


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """Yield a folder beside `target` that becomes it when the block ends without an error.

    Where another process has been faster with the same, its folder stays.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{target.name}.partial-", dir=target.parent))
    try:
        yield partial
        partial.chmod(0o755)
        partial.rename(target)
    except OSError:
        if not target.exists():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
