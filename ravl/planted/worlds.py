"""The planted worlds: scenes with marks whose probability depends on the class, and everything that is known of them.

A mark's strength is Cramer's V of (class, mark) in the training scenes. With Y balanced classes
`p(mark | target) = 1/Y + V (Y - 1)/Y` and `p(mark | other) = (1 - V)/Y`, so that every world has the mark in 1/Y of its
scenes and V = 0 is independence. Without correlation (`strength=None`, the test sets) every class has it with
probability one half, and marks are independent of each other. Everything is a function of the arguments.
"""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ravl.planted import digits, radiograph, silhouettes, textures
from ravl.planted.drawing import Painted

SPLITS = digits.SPLITS

BRIGHTNESS = "brightness"
"""The mark that lies nowhere: the whole scene is brighter by LIFT grey levels."""

LIFT = 45

SHOWN = 0.25
"""Share of a mark's area that a region must hold to show it."""


@dataclass(frozen=True)
class Scenes:
    """Scenes of one world.

    image: (I, H, W, 3) uint8. label: (I,) int64, index into `class_names`.
    marks: (M) names of the planted marks; () when the only shortcut is global. target: (M) class each one pulls to.
    present: (I, M) bool. mark_box: (I, M, 4) int32, x0, y0, x1, y1 in pixels, half-open; -1 where absent.
    biased: (I,) bool, whether the scene is brighter; all False without the global shortcut.
    biased_target: the class that brightness pulls to; -1 without the global shortcut.
    """

    image: NDArray[np.uint8]
    label: NDArray[np.int64]
    class_names: tuple[str, ...]
    marks: tuple[str, ...]
    target: tuple[int, ...]
    present: NDArray[np.bool_]
    mark_box: NDArray[np.int32]
    biased: NDArray[np.bool_]
    biased_target: int = -1

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class WorldPlan:
    """What makes up a world.

    marks: name -> class that it pulls to; the first is the one of the world's single-mark setting.
    captions: four templates of training captions. prompts: four others, for classification.
    regions, encoder: the grid and the region encoder that fit the marks. side: pixels of a scene's side.
    train_size: scenes a model is trained on.
    named: whether its models can name the marks before they learn the classes (see `naming`).
    paint: (label, names of the marks that are there, split, rng) -> one scene.
    """

    name: str
    class_names: tuple[str, ...]
    marks: Mapping[str, str]
    captions: tuple[str, ...]
    prompts: tuple[str, ...]
    regions: str
    side: int
    train_size: int
    paint: Callable[[int, Sequence[str], str, np.random.Generator], Painted]
    encoder: str = "auto"
    named: bool = False

    def target_of(self, mark: str) -> int:
        """The class a mark pulls to. Raises ValueError for a mark that this world does not have."""
        if mark not in self.marks:
            raise ValueError(f"mark must be one of {', '.join(self.marks)} in {self.name}, got {mark!r}.")
        return self.class_names.index(self.marks[mark])


DIGIT_CAPTIONS = (
    *("a photo of the digit {}", "a scene with a {}", "an image that shows {}", "there is a {} in the picture"),
)
DIGIT_PROMPTS = ("a picture of {}", "an image with the digit {}", "a photo that shows a {}", "a scene of the {}")
_TEXTURE_CAPTIONS = ("a photo of {}", "a scene with some {}", "an image that shows {}", "there is {} in the picture")
_TEXTURE_PROMPTS = ("a picture of {}", "an image with {}", "a photo that shows some {}", "the scene is of {}")
_OBJECT_CAPTIONS = (
    "a photo of a {}",
    "a scene with the {}",
    "an image that shows a {}",
    "there is a {} in the picture",
)
_OBJECT_PROMPTS = ("a picture of the {}", "an image with a {}", "a photo that shows the {}", "the scene is of a {}")
_RADIOGRAPH_CAPTIONS = (
    *("a chest radiograph with {}", "the radiograph shows {}", "an image of a chest with {}", "findings of {}"),
)
_RADIOGRAPH_PROMPTS = (
    *(
        "a radiograph of a chest with {}",
        "the image shows {}",
        "a chest image with findings of {}",
        "this chest has {}",
    ),
)

WORLDS: dict[str, WorldPlan] = {
    plan.name: plan
    for plan in (
        WorldPlan(
            "digits", digits.CLASSES, {"red square": "nine", "blue disc": "three", BRIGHTNESS: "nine"},
            DIGIT_CAPTIONS, DIGIT_PROMPTS, "grid:2", digits.SIDE, 4000, digits.paint,
        ),
        WorldPlan(
            "textures", textures.CLASSES, {"yellow ring": "gravel", "blue disc": "brick", BRIGHTNESS: "gravel"},
            _TEXTURE_CAPTIONS, _TEXTURE_PROMPTS, "grid:2", textures.SIDE, 3000, textures.paint,
        ),
        WorldPlan(
            "silhouettes", silhouettes.CLASSES, {"flower": "butterfly", "red square": "house", BRIGHTNESS: "butterfly"},
            _OBJECT_CAPTIONS, _OBJECT_PROMPTS, "grid:2", silhouettes.SIDE, 3000, silhouettes.paint,
        ),
        WorldPlan(
            "radiograph", radiograph.CLASSES,
            {
                "metal clips": "cardiomegaly", "pacemaker": "cardiomegaly",
                "chest drain": "pneumothorax", "laterality marker": "pneumothorax",
            },
            _RADIOGRAPH_CAPTIONS, _RADIOGRAPH_PROMPTS, "grid:4", radiograph.SIDE, 3000, radiograph.paint,
            encoder="crop",  # thin marks, in regions of four patches
            named=True,
        ),
        WorldPlan(
            "pairs", textures.PAIR, {"orange diamond": "gravel"},
            _TEXTURE_CAPTIONS, _TEXTURE_PROMPTS, "grid:4", textures.SIDE, 3000, textures.paint_pair,
        ),
    )
}  # fmt: skip


def rates(n_classes: int, target: int, strength: float | None) -> NDArray[np.float64]:
    """(Y,) probability of a mark given each class, so that Cramer's V of class and mark is `strength`; None: one half.

    With equal classes the mark has probability 1/Y, and V^2 = chi^2/n
    = sum_y (1/Y) (p_y - 1/Y)^2 / [(1/Y)(1 - 1/Y)] = strength^2.
    """
    if strength is None:
        return np.full(n_classes, 0.5)
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be Cramer's V in 0..1, or None for one half everywhere, got {strength}.")
    p = np.full(n_classes, (1 - strength) / n_classes)
    p[target] = 1 / n_classes + strength * (n_classes - 1) / n_classes
    return p


def make(
    world: str,
    marks: Sequence[str],
    split: str,
    n: int,
    strength: float | None,
    seed: int,
    harmless: Mapping[str, float] = MappingProxyType({}),
) -> Scenes:
    """`n` scenes of one split, classes balanced.

    harmless: marks, of `marks`, whose probability is the same in every class, and that probability.

    The scenes behind the marks depend on world, split, n and seed alone, so that strengths can be compared like with
    like. marks: of WORLDS[world].marks, without repetition; BRIGHTNESS among them sets `biased` and is no local mark.
    Raises ValueError for unknown arguments.
    """
    if world not in WORLDS:
        raise ValueError(f"world must be one of {', '.join(WORLDS)}, got {world!r}.")
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}.")
    if len(set(marks)) != len(marks):
        raise ValueError(f"marks must differ, got {', '.join(marks)}.")
    plan = WORLDS[world]
    n_classes = len(plan.class_names)
    chances = {
        mark: np.full(n_classes, harmless[mark])
        if mark in harmless
        else rates(n_classes, plan.target_of(mark), strength)
        for mark in marks
    }
    key = [seed, SPLITS.index(split), zlib.crc32(world.encode())]
    label = np.random.default_rng(key).permutation(np.arange(n) % len(plan.class_names))
    # (I,) per mark; a mark's chances do not depend on which others there are
    planted = {
        mark: np.random.default_rng([*key, zlib.crc32(mark.encode())]).random(n) < chances[mark][label]
        for mark in marks
    }
    local = tuple(mark for mark in marks if mark != BRIGHTNESS)
    biased = planted.get(BRIGHTNESS, np.zeros(n, np.bool_))
    present = np.array([planted[mark] for mark in local], np.bool_).reshape(len(local), n).T
    image = np.empty((n, plan.side, plan.side, 3), np.uint8)
    box = np.full((n, len(local), 4), -1, np.int32)
    for i in range(n):
        there = [mark for mark, shown in zip(local, present[i], strict=True) if shown]
        painted = plan.paint(int(label[i]), there, split, np.random.default_rng([*key, 0, i]))
        image[i] = np.clip(np.clip(painted.canvas, 0, 255) + LIFT * biased[i], 0, 255).astype(np.uint8)
        if there:
            box[i, present[i]] = painted.marks
    target = tuple(plan.target_of(mark) for mark in local)
    biased_target = plan.target_of(BRIGHTNESS) if BRIGHTNESS in marks else -1
    return Scenes(image, label, plan.class_names, local, target, present, box, biased, biased_target)


def shows(scenes: Scenes, image: NDArray[np.integer], box: NDArray[np.integer]) -> NDArray[np.bool_]:
    """(R, M) whether each region holds at least SHOWN of a mark's area. Arguments as in `held`."""
    return held(scenes, image, box) >= SHOWN


def held(scenes: Scenes, image: NDArray[np.integer], box: NDArray[np.integer]) -> NDArray[np.float64]:
    """(R, M) share of a mark's area that each region holds; 0 where the scene has no such mark.

    image: (R,) index into the scenes. box: (R, 4) x0, y0, x1, y1 in pixels, half-open.
    """
    mark, region = scenes.mark_box[image].astype(np.int64), np.asarray(box, np.int64)[:, None]
    side = np.minimum(mark[..., 2:], region[..., 2:]) - np.maximum(mark[..., :2], region[..., :2])
    area = (mark[..., 2:] - mark[..., :2]).prod(-1)
    return np.where(scenes.present[image], side.clip(0).prod(-1) / np.maximum(area, 1), 0.0)


Encode = Callable[[int, NDArray[np.uint8]], tuple[str, bytes]]
"""(number of a scene, its picture) -> name and content of its file."""


def as_png(scene: int, image: NDArray[np.uint8]) -> tuple[str, bytes]:
    """`<scene>.png`."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG", compress_level=1)
    return f"{scene:05d}.png", content.getvalue()


def write_scenes(folder: Path, scenes: Scenes, encode: Encode = as_png) -> Path:
    """Write an image folder `<folder>/<class>/<file>` and beside it its manifest; return `<folder>.csv`.

    encode: names a scene's file and fills it. The manifest has a column per mark, named with underscores and
    `brightness` for the global shortcut: yes or no. It is written last, and scenes whose manifest exists are not
    written again.
    """
    manifest = folder.parent / f"{folder.name}.csv"
    if manifest.exists():
        return manifest
    columns = {mark.replace(" ", "_"): scenes.present[:, m] for m, mark in enumerate(scenes.marks)}
    if scenes.biased_target >= 0:
        columns[BRIGHTNESS] = scenes.biased
    rows = [("image_path", "label", *columns)]
    for i, label in enumerate(scenes.label):
        title, content = encode(i, scenes.image[i])
        name = f"{folder.name}/{scenes.class_names[label]}/{title}"
        (folder.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.parent / name).write_bytes(content)
        rows.append((name, scenes.class_names[label], *("yes" if there[i] else "no" for there in columns.values())))
    partial = manifest.with_suffix(".csv.partial")
    with open(partial, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    partial.replace(manifest)
    return manifest
