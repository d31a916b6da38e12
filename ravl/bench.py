"""`make bench`: what the stages cost, as ratios measured in one run on this machine. Nothing is asserted here.

Writes `assets/bench.json`, which the README quotes.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ravl import vlm
from ravl.config import ClusteringConfig, MitigationConfig, RegionsConfig, ScoringConfig
from ravl.discovery.clustering import cluster
from ravl.discovery.regions import grid
from ravl.discovery.scoring import score_features
from ravl.discovery.zero_shot import classify
from ravl.mitigation.baselines import METHODS
from ravl.mitigation.batches import Batch
from ravl.mitigation.gradients import Gradients
from ravl.mitigation.objective import Objective
from ravl.mitigation.training import trainable, update
from ravl.planted.digits import CLASSES, SIDE, UNCORRELATED, digit_world
from ravl.tables import Regions
from ravl.vlm.differentiable import LearningModel

BATCH, N_IMAGES, REPEATS = 64, 1000, 9
TRAINED = 128
"""Images of a training step."""


def main() -> None:
    """Measure, print and write the table."""
    model = vlm.load("demo", "cpu")
    world = digit_world("val", N_IMAGES, *UNCORRELATED, seed=0)
    images = [Image.fromarray(pixels) for pixels in world.image]
    sizes = np.full((N_IMAGES, 2), SIDE)
    regions = grid(model.view(sizes), RegionsConfig())
    patches = model.places(sizes[regions.image], regions.box)
    pixels = model.pixels(images)
    # blocks of images with the rows of their four regions
    blocks = [(slice(a, a + BATCH), slice(4 * a, 4 * (a + BATCH))) for a in range(0, N_IMAGES, BATCH)]
    owners = [torch.from_numpy(regions.image[rows].astype(np.int64) - own.start) for own, rows in blocks]

    @torch.inference_mode()
    def plain() -> None:
        for own, _ in blocks:
            model.module.get_image_features(pixels[own])

    @torch.inference_mode()
    def tokens() -> None:
        for (own, rows), owner in zip(blocks, owners, strict=True):
            model.region_vectors(pixels[own], owner, patches[rows])

    crops = [
        (images[own], [regions.box[4 * i : 4 * i + 4] for i in range(own.start, min(own.stop, N_IMAGES))])
        for own, _ in blocks
    ]

    def crop() -> None:
        for block, boxes in crops:
            model.encode_images(
                [image.crop(tuple(box)) for image, own in zip(block, boxes, strict=True) for box in own]
            )

    step = step_seconds(
        model, world.label, regions, world.mark_cell[regions.image] == regions.position, pixels, patches
    )
    base, by_tokens = interleaved(plain, tokens)
    by_crop = min(timed(crop) for _ in range(2))

    encoded = model.encode_regions(images, [regions.box[4 * i : 4 * i + 4] for i in range(N_IMAGES)], "tokens", 0.0)
    text = model.encode_texts([f"a photo of {name}" for name in CLASSES])
    zero_shot = classify(encoded.image, encoded.region, text, world.label, 0.07)

    def find(method: str) -> Callable[[], None]:
        def run() -> None:
            config = ClusteringConfig(method=method)
            found = cluster(encoded.feature, regions, len(CLASSES), config, np.random.default_rng(0))
            score_features(regions, zero_shot, found.label, found.n_clusters, ScoringConfig())

        return run

    find("hdbscan")()  # imports and compiles
    seconds = {method: statistics.median(timed(find(method)) for _ in range(3)) for method in ("hdbscan", "kmedoids")}
    table = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "images": N_IMAGES,
        "regions": len(regions),
        "seconds_plain_forward": round(base, 3),
        "ratio_tokens_to_plain_forward": round(by_tokens / base, 3),
        "ratio_crop_with_preprocessing_to_plain_forward": round(by_crop / base, 3),
        "seconds_plain_training_step": round(step["standard"], 3),
        "ratio_ravl_to_plain_training_step": round(step["ravl"] / step["standard"], 3),
        "ratio_paper_to_plain_training_step": round(step["paper"] / step["standard"], 3),
        "seconds_hdbscan_and_scoring": round(seconds["hdbscan"], 3),
        "seconds_kmedoids_and_scoring": round(seconds["kmedoids"], 3),
    }
    for name, value in table.items():
        print(f"{name.replace('_', ' '):<50} {value}")
    Path("assets/bench.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def step_seconds(
    model: LearningModel,
    label: NDArray[np.int64],
    regions: Regions,
    spurious: NDArray[np.bool_],
    pixels: Tensor,
    patches: Tensor,
) -> dict[str, float]:
    """Median seconds of a training step of 128 ready-made images by method, measured in turn; `regions` has four each.

    The exchange costs nothing here: images are made in the background.
    """
    text = torch.from_numpy(model.encode_texts([f"a photo of {name}" for name in CLASSES]))
    classes = torch.from_numpy(label[:TRAINED])
    weights = trainable(model, METHODS["standard"].learns)
    optimizer = torch.optim.AdamW(weights.values(), lr=1e-6)
    works = {}
    for method in ("standard", "paper", "ravl"):
        config, rows = MitigationConfig(method=method), slice(0, 4 * round(TRAINED * METHODS[method].region_share))
        entering = (
            torch.from_numpy(regions.image[rows].astype(np.int64)),
            torch.from_numpy(spurious[rows]),
            patches[rows],
        )
        given = entering if METHODS[method].term == "regions" else (None, None, None)
        batch = Batch(pixels[:TRAINED], classes, classes, torch.zeros_like(classes), 0, *given)
        objective = Objective(text, text, 1 / model.tau, config, n_groups=1, own_captions=False)
        works[method] = partial(
            update, partial(Gradients(model, weights, objective, "tokens", TRAINED), batch), weights, optimizer, 1e-6
        )
    for work in works.values():
        work()
    rounds = [{method: timed(work) for method, work in works.items()} for _ in range(REPEATS)]
    return {method: statistics.median(each[method] for each in rounds) for method in works}


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleaved(first: Callable[[], None], second: Callable[[], None]) -> tuple[float, float]:
    """Median seconds of two pieces of work, measured in turn so that a busy machine slows both alike."""
    first()
    second()
    pairs = [(timed(first), timed(second)) for _ in range(REPEATS)]
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)


if __name__ == "__main__":
    main()
