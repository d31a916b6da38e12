"""Small labelled picture sets on disk, for tests of whole commands."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from ravl.planted.digits import CLASSES, World, digit_world

COLOURS = {"apple": (200, 40, 40), "leaf": (40, 180, 60), "sky": (60, 90, 220)}


def colour_folder(root: Path, n: int = 20, size: tuple[int, int] = (80, 50), seed: int = 0) -> Path:
    """`n` pictures per class of COLOURS as `class/number.png`, wider than high."""
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.normal(0, 25, (size[1], size[0], 3)) + colour
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(root / name / f"{i:03d}.png")
    return root


def colour_manifest(root: Path) -> Path:
    """A manifest over `colour_folder`, with a caption and a group column."""
    rows = [("image_path", "label", "caption", "site")]
    for path in sorted(root.glob("*/*.png")):
        name = path.parent.name
        rows.append((f"{name}/{path.name}", name, f"a photo of {name}", "A" if int(path.stem) % 2 else "B"))
    with open(root / "list.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return root / "list.csv"


def digit_folder(root: Path, n: int, seed: int, split: str = "val") -> tuple[Path, World]:
    """An uncorrelated digit world as an image folder; file names are the scenes' numbers."""
    world = digit_world(split, n, 0.5, 0.5, seed)
    for i, label in enumerate(world.label):
        folder = root / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(world.image[i]).save(folder / f"{i:05d}.png", compress_level=1)
    return root, world
