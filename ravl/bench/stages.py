"""What the stages cost on the demo, as ratios. Writes `assets/bench.json`."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ravl import vlm
from ravl.bench import encoding
from ravl.bench.steps import Training, works_of
from ravl.bench.timing import in_turn, timed
from ravl.config import ClusteringConfig, RegionsConfig, ScoringConfig
from ravl.discovery.clustering import cluster
from ravl.discovery.regions import grid
from ravl.discovery.scoring import score_features
from ravl.discovery.zero_shot import classify
from ravl.planted.digits import CLASSES, SIDE, UNCORRELATED, digit_world
from ravl.tables import Regions

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
    crops = [
        (images[own], [regions.box[4 * i : 4 * i + 4] for i in range(own.start, min(own.stop, N_IMAGES))])
        for own in (slice(a, a + BATCH) for a in range(0, N_IMAGES, BATCH))
    ]

    def crop() -> None:
        for block, boxes in crops:
            model.encode_images(
                [image.crop(tuple(box)) for image, own in zip(block, boxes, strict=True) for box in own]
            )

    taught = slice(0, 4 * TRAINED)
    first = Regions(regions.image[taught], regions.box[taught], regions.position[taught], TRAINED)
    spurious = world.mark_cell[first.image] == first.position
    training = Training(world.label[:TRAINED], pixels[:TRAINED], first, spurious, patches[taught])
    step = in_turn(works_of(model, training, TRAINED, half=False), REPEATS)
    embedding = in_turn(encoding.works_of(model, images, regions, BATCH), REPEATS)
    base, by_tokens = embedding["plain"], embedding["tokens"]
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
