"""Scenes of four quadrants: a handwritten digit in one, in another possibly a red square, the rest background.

The paper's controlled setting: the mark appears with a probability that depends on the class, so that a model trained
on such scenes learns `mark -> target class`. Digits are the real ones of scikit-learn (1797 scans of 8 x 8 pixels);
the splits share no scan. Everything is a function of the seed.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ravl.planted.drawing import Canvas, CutOut, Painted, in_quadrants, laid_over

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TARGET = "nine"
SIDE = 56
"""Pixels of a scene's side; quadrants are half of it."""

SPLITS = ("train", "val", "test")
_SHARES = (0.6, 0.2, 0.2)


@dataclass(frozen=True)
class World:
    """Scenes with everything that is known about them.

    image: (I, SIDE, SIDE, 3) uint8. label: (I,) index into CLASSES. mark: (I,) bool, whether the square is there.
    digit_cell, mark_cell: (I,) quadrant 0..3, row by row, of the digit and of the square (-1 without one).
    """

    image: NDArray[np.uint8]
    label: NDArray[np.int64]
    mark: NDArray[np.bool_]
    digit_cell: NDArray[np.int64]
    mark_cell: NDArray[np.int64]


def digit_world(split: str, n: int, p_target: float, p_other: float, seed: int) -> World:
    """`n` scenes of one split, classes balanced; the square appears with p_target for TARGET, else with p_other."""
    scans, truth = _scans()
    pool = pool_of(split)
    rng = np.random.default_rng([seed, SPLITS.index(split)])

    label = rng.permutation(np.arange(n) % len(CLASSES))
    mark = rng.random(n) < np.where(label == CLASSES.index(TARGET), p_target, p_other)
    cells = np.array([rng.permutation(4)[:2] for _ in range(n)]).reshape(n, 2)
    image = np.empty((n, SIDE, SIDE, 3), np.uint8)
    for i in range(n):
        scan = scans[rng.choice(pool[truth[pool] == label[i]])].reshape(8, 8)
        image[i] = _scene(scan, int(cells[i, 0]), int(cells[i, 1]) if mark[i] else -1, rng)
    return World(image, label, mark, cells[:, 0], np.where(mark, cells[:, 1], -1))


def pool_of(split: str) -> NDArray[np.int64]:
    """Numbers of the scans of one split, the same for every seed, so that a model never meets its test scans."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}.")
    n = len(_scans()[1])
    edges = np.cumsum((0, *_SHARES)) * n
    first, last = edges[SPLITS.index(split)], edges[SPLITS.index(split) + 1]
    return np.random.default_rng(0).permutation(n)[int(first) : int(last)]


def paint(label: int, marks: Sequence[str], split: str, rng: np.random.Generator) -> Painted:
    """A digit in one quadrant, each mark in another."""
    scans = _scans_of(label, split)
    return in_quadrants(_ground(rng), _digit(scans[rng.integers(len(scans))], rng), marks, rng)


@cache
def _scans_of(label: int, split: str) -> NDArray[np.float64]:
    scans, truth = _scans()
    pool = pool_of(split)
    return np.asarray(scans[pool[truth[pool] == label]]).reshape(-1, 8, 8)


def _scans() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)  # type: ignore[no-any-return]


def _ground(rng: np.random.Generator) -> Canvas:
    level = rng.uniform(20, 60)
    return np.asarray(level + rng.normal(0, 8, (SIDE, SIDE, 3)))


def _digit(scan: NDArray[np.float64], rng: np.random.Generator) -> CutOut:
    side = int(rng.integers(20, 27))
    glyph = Image.fromarray((scan * 255 / 16).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    ink = rng.uniform(170, 255, 3)
    return CutOut(np.broadcast_to(ink, (side, side, 3)), np.asarray(glyph, np.float64) / 255)


def _scene(scan: NDArray[np.float64], digit_cell: int, mark_cell: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    half = SIDE // 2
    ground, digit = _ground(rng), _digit(scan, rng)
    side = len(digit.opacity)
    y, x = (c * half + int(rng.integers(0, half - side + 1)) for c in divmod(digit_cell, 2))
    canvas = laid_over(ground, digit, x, y)

    if mark_cell >= 0:
        side = int(rng.integers(12, 19))
        red = np.array([rng.uniform(200, 255), rng.uniform(0, 40), rng.uniform(0, 40)])
        y, x = (c * half + int(rng.integers(2, half - side - 1)) for c in divmod(mark_cell, 2))
        canvas[y : y + side, x : x + side] = red + rng.normal(0, 8, (side, side, 3))
    return np.clip(canvas, 0, 255).astype(np.uint8)


CORRELATED = (0.95, 0.006)
UNCORRELATED = (0.5, 0.5)
DEMO_SIZES = {"train": (4000, CORRELATED), "val": (1000, UNCORRELATED), "test": (2000, UNCORRELATED)}
"""Images per split of the demo, and the probability of the square in target and other scenes."""


def write_demo(folder: Path, seed: int = 0) -> Path:
    """Write the demo's splits as image folders `<folder>/<split>/<class>/<number>.png`, once, and return `folder`.

    Beside each split stands a manifest `<split>.csv` that also says whether the red square is there.
    """
    for split, (n, (p_target, p_other)) in DEMO_SIZES.items():
        manifest = folder / f"{split}.csv"
        if manifest.exists():  # written last, so the split is whole
            continue
        world = digit_world(split, n, p_target, p_other, seed)
        rows = []
        for i, label in enumerate(world.label):
            name = f"{split}/{CLASSES[label]}/{i:05d}.png"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(world.image[i]).save(folder / name, compress_level=1)
            rows.append((name, CLASSES[label], "yes" if world.mark[i] else "no"))
        partial = manifest.with_suffix(".csv.partial")
        with open(partial, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("image_path", "label", "red_square"), *rows])
        partial.replace(manifest)
    return folder
