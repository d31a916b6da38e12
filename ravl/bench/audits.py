"""Whole audits: seconds by stage and the largest memory, of models as large as CLIP's and of large image sets.

    python -m ravl.bench audits --models b32,siglip-b16 --images 200
    python -m ravl.bench audits --models vit12 --images 100000 --side 48 --regions grid:2

writes `assets/bench-audits.json`, a row per model, and keeps the rows of other commands. Weights and images are random:
what they show changes neither memory nor the time of all but the last stages.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ravl.errors import ConfigError
from ravl.planted.tiny_clip import TOWERS, Architecture, build
from ravl.planted.tiny_families import siglip

SIGLIP = "siglip-b16"
SIGLIP_TOWER = Architecture(side=224, patch=16, layers=12, width=768, heads=12)
"""The vision tower of SigLIP-B/16 at 224 pixels."""

OUT = "assets/bench-audits.json"
CLASSES = 10


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m ravl.bench audits`."""
    known = ", ".join((*sorted(TOWERS), SIGLIP))
    parser.add_argument("--models", default=f"b32,{SIGLIP}", help=f"of {known} (%(default)s)")
    parser.add_argument("--images", type=int, default=200, help="images of the set (%(default)s)")
    parser.add_argument("--side", type=int, default=224, help="their side in pixels (%(default)s)")
    parser.add_argument("--regions", default="grid:3", help="(%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (%(default)s)")
    parser.add_argument("--out", default=OUT, metavar="FILE", help="(%(default)s)")


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure, print and write the rows; returns all of the file. Raises ConfigError for a model that is not known."""
    names = [name.strip() for name in options.models.split(",")]
    for name in names:
        if name not in (*TOWERS, SIGLIP):
            raise ConfigError(f"--models must name some of {', '.join((*TOWERS, SIGLIP))}, got {name!r}.")
    path = Path(options.out)
    rows: dict[str, dict[str, Any]] = {row["audit"]: row for row in _read(path)}
    with tempfile.TemporaryDirectory() as folder:
        images = _invented(Path(folder) / "images", options.images, options.side)
        for name in names:
            model = written(name, Path(folder) / name)
            row = _apart(model, images, options)
            title = f"{name}, {options.images} images of {options.side} px, {options.regions}"
            rows[title] = {"audit": title, **row}
            print(f"{title}\n{json.dumps(row, indent=1)}", flush=True)
            path.write_text(json.dumps(list(rows.values()), indent=1) + "\n", encoding="utf-8")
    return list(rows.values())


def written(name: str, folder: Path) -> Path:
    """The folder of a model with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = siglip(SIGLIP_TOWER) if name == SIGLIP else build(0, architecture=name)
    for part in parts:
        part.save_pretrained(folder)
    return folder


def _invented(folder: Path, n: int, side: int) -> Path:
    """An image folder of coarse noise, so that files are small."""
    rng = np.random.default_rng(0)
    for i in range(n):
        path = folder / f"class {i % CLASSES}" / f"{i:06d}.jpg"
        if i < CLASSES:
            path.parent.mkdir(parents=True)
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
        coarse.resize((side, side), Image.Resampling.NEAREST).save(path, quality=85)
    return folder


def _apart(model: Path, images: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Audit in a process of its own, whose largest memory is then the audit's."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool, tempfile.TemporaryDirectory() as workspace:
        given = (str(model), str(images), options.regions, options.device, workspace)
        return pool.submit(_audited, *given).result()


def _audited(model: str, images: str, regions: str, device: str, workspace: str) -> dict[str, Any]:
    import ravl

    begun = time.perf_counter()
    run = ravl.discover(images, model, regions=regions, device=device, workspace=workspace)
    seconds = time.perf_counter() - begun
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    own, workers = (
        resource.getrusage(who).ru_maxrss * unit / 1e9 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {
        "machine": f"{platform.machine()}, torch {torch.__version__}, {device}",
        "images": len(run.images()),
        "regions": len(run.regions()),
        "seconds": round(seconds, 1),
        "gb": round(own, 2),
        "gb_largest_worker": round(workers, 2),
        "seconds_by_stage": {name: round(stage["seconds"], 1) for name, stage in run.about["stages"].items()},
    }


def _read(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return rows
