"""A training step by method: seconds and memory beside those of a plain contrastive step.

    python -m ravl.bench steps --models b32,l14 --batch 128 --device cuda

builds models of the size of CLIP ViT-B/32 and ViT-L/14 with random weights and writes `assets/bench-steps.json`. What
the weights are changes neither time nor memory.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ravl import vlm
from ravl.bench.timing import in_turn
from ravl.config import MitigationConfig, RegionsConfig
from ravl.discovery.regions import grid
from ravl.errors import ConfigError
from ravl.mitigation.baselines import METHODS
from ravl.mitigation.batches import Batch
from ravl.mitigation.footprint import uses_half
from ravl.mitigation.gradients import Gradients
from ravl.mitigation.objective import Objective
from ravl.mitigation.training import trainable, update
from ravl.planted.digits import CLASSES
from ravl.planted.tiny_clip import TOWERS, build
from ravl.tables import Regions
from ravl.vlm.differentiable import LearningModel

COMPARED = ("standard", "paper", "ravl")
OUT = "assets/bench-steps.json"


@dataclass(frozen=True)
class Training:
    """What steps are made of: ready images, their regions, and which of these are spurious.

    label: (B,) classes. pixels: (B, 3, H, W). regions: of these images, the same number of each. spurious: (R,) bool.
    places: (R, ...) where the regions lie, as the model needs it.
    """

    label: NDArray[np.int64]
    pixels: Tensor
    regions: Regions
    spurious: NDArray[np.bool_]
    places: Tensor


def works_of(model: LearningModel, training: Training, micro: int, half: bool) -> dict[str, Callable[[], object]]:
    """One training step by method. micro: images embedded at once. half: in bfloat16.

    Of the batch, as many images have their regions in the loss as in a training by that method. The exchange costs
    nothing here: images are made in the background.
    """
    text = torch.from_numpy(model.encode_texts([f"a photo of {name}" for name in CLASSES])).to(model.device)
    classes = torch.from_numpy(training.label)
    weights = trainable(model, METHODS["standard"].learns)
    optimizer = torch.optim.AdamW(weights.values(), lr=1e-6)
    n, each = len(classes), len(training.regions) // len(classes)
    works: dict[str, Callable[[], object]] = {}
    for method in COMPARED:
        config, rows = MitigationConfig(method=method), slice(0, each * round(n * METHODS[method].region_share))
        entering = (
            torch.from_numpy(training.regions.image[rows].astype(np.int64)),
            torch.from_numpy(training.spurious[rows]),
            training.places[rows],
        )
        given = entering if METHODS[method].term == "regions" else (None, None, None)
        batch = Batch(training.pixels, classes, classes, torch.zeros_like(classes), 0, *given)
        objective = Objective(text, text, 1 / model.tau, config, n_groups=1, own_captions=False)
        gradients = Gradients(model, weights, objective, "tokens", micro, half)
        works[method] = partial(update, partial(gradients, batch), weights, optimizer, 1e-6)
    return works


# --- models as large as CLIP's ----------------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m ravl.bench steps`."""
    parser.add_argument("--models", default="b32,l14", help=f"of {', '.join(sorted(TOWERS))} (%(default)s)")
    parser.add_argument("--batch", type=int, default=128, help="images of a step (%(default)s)")
    parser.add_argument("--micro", type=int, help="images embedded at once (default: all)")
    parser.add_argument("--grid", type=int, default=3, help="regions: a grid of so many cells a side (%(default)s)")
    parser.add_argument("--repeats", type=int, default=9, help="steps by method; the median counts (%(default)s)")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="auto: bf16 on CUDA")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (%(default)s)")
    parser.add_argument("--out", default=OUT, metavar="FILE", help="(%(default)s)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure, print and write the table; returns it. Raises ConfigError for a model that is not known."""
    names = [name.strip() for name in options.models.split(",")]
    for name in names:
        if name not in TOWERS:
            raise ConfigError(f"--models must name some of {', '.join(sorted(TOWERS))}, got {name!r}.")
    rows: list[dict[str, Any]] = []
    for name in names:
        rows += _measured(name, options)
        for row in rows[-len(COMPARED) :]:
            print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    table = {
        "device": _device_name(rows[0]["device"]),
        "torch": torch.__version__,
        "batch": options.batch,
        "micro_batch": options.micro or options.batch,
        "regions_per_image": options.grid**2,
        "precision": rows[0]["precision"],
        "steps": [{key: value for key, value in row.items() if key not in ("device", "precision")} for row in rows],
    }
    Path(options.out).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return table


def _measured(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        for part in build(0, architecture=name):
            part.save_pretrained(folder)
        model = vlm.load(folder, options.device)
    half = uses_half(MitigationConfig(precision=options.precision), model.device.type)
    training = _invented(model, TOWERS[name].side, options.batch, options.grid)
    works = works_of(model, training, options.micro or options.batch, half)
    if model.device.type == "cuda":
        works = {method: partial(_finished, work) for method, work in works.items()}
    seconds = in_turn(works, options.repeats)
    memory = {method: _peak_memory(work, model.device) for method, work in works.items()}
    return [
        {
            "device": str(model.device),
            "precision": "bf16" if half else "fp32",
            "model": name,
            "method": method,
            "seconds": round(seconds[method], 4),
            "ratio": round(seconds[method] / seconds["standard"], 3),
            **_memory_columns(memory, method),
        }
        for method in COMPARED
    ]


def _invented(model: LearningModel, side: int, batch: int, cells: int) -> Training:
    """Noise; every second image has one spurious region."""
    rng = np.random.default_rng(0)
    images = [Image.fromarray(pixels) for pixels in rng.integers(0, 256, (batch, side, side, 3), np.uint8)]
    sizes = np.full((batch, 2), side)
    regions = grid(model.view(sizes), RegionsConfig(k=cells))
    spurious = np.zeros(len(regions), np.bool_)
    spurious[:: 2 * cells**2] = True
    places = model.places(sizes[regions.image], regions.box)
    return Training(rng.integers(0, len(CLASSES), batch), model.pixels(images), regions, spurious, places)


def _finished(work: Callable[[], object]) -> None:
    work()
    torch.cuda.synchronize()


def _peak_memory(work: Callable[[], object], device: torch.device) -> float | None:
    """Gigabytes that a step needs at most; None where the device does not tell."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device) / 1e9


def _memory_columns(memory: Mapping[str, float | None], method: str) -> dict[str, float]:
    own, plain = memory[method], memory["standard"]
    return {} if own is None or plain is None else {"gb": round(own, 2), "ratio_of_gb": round(own / plain, 3)}


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{platform.machine()} {device}"
