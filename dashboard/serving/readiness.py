"""Can this machine fine-tune this model? The device that was found, and the memory that a step needs. No torch.

The device is asked for once, of `ravl doctor` in a process of its own, since finding it takes torch and some seconds;
the memory is reckoned from the headers of the model's files.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Thread

import numpy as np
import psutil

from dashboard.serving.server import environment
from ravl.config import EmbeddingConfig, MitigationConfig
from ravl.discovery.regions import choose_encoder
from ravl.errors import ConfigError, ModelError
from ravl.mitigation.baselines import METHODS
from ravl.mitigation.footprint import (
    SAMPLE,
    Sizes,
    images_at_once,
    model_folder,
    read_sizes,
    step_bytes,
    uses_half,
)
from ravl.tables import ImageSet, Regions
from ravl.vlm.geometry import Geometry

_PATIENCE = 120.0
"""Seconds that the doctor may take."""


@dataclass(frozen=True)
class Machine:
    """Where a training would run. device: cuda, mps or cpu. name: of a GPU, else empty. free, total: bytes."""

    device: str
    name: str
    free: int
    total: int


@dataclass(frozen=True)
class Need:
    """What a step needs. step: bytes; None where the model's size is not known, and `unknown` says why."""

    step: int | None
    unknown: str = ""


class Probe:
    """Asks for the device in the background. machine: None until it is known; problem: why it never will be."""

    def __init__(self, workspace: Path) -> None:
        self.machine: Machine | None = None
        self.problem = ""
        self.thread = Thread(target=self._ask, args=(workspace,), daemon=True, name="probe-device")
        self.thread.start()

    @property
    def pending(self) -> bool:
        return self.machine is None and not self.problem

    def _ask(self, workspace: Path) -> None:
        command = [sys.executable, "-m", "ravl", "doctor", "--json", "--workspace", str(workspace)]
        try:
            ended = subprocess.run(
                command, capture_output=True, text=True, timeout=_PATIENCE, check=False, env=environment()
            )
            facts = json.loads(ended.stdout)["device"]["facts"]
            self.machine = Machine(str(facts["device"]), str(facts["name"]), int(facts["free"]), int(facts["total"]))
        except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
            self.problem = f"the device could not be found out ({type(error).__name__}). Run ravl doctor in a terminal."


def needs_features(method: str) -> bool:
    """Whether a method cannot do without a confirmed feature."""
    return METHODS[method].needs_features


def free_now(machine: Machine) -> int:
    """Free bytes: of the machine's memory at this moment, of a GPU's as it was when it was asked."""
    return machine.free if machine.device == "cuda" else int(psutil.virtual_memory().available)


def need(
    model: str, images: ImageSet, regions: Regions, embedding: EmbeddingConfig, config: MitigationConfig, device: str
) -> Need:
    """Memory of one step, as the training itself reckons it, with the regions of the audited images.

    The training images are cut the same way, but may show other shares of an image.
    """
    folder = model_folder(model)
    if folder is None:
        return Need(None, "The model is not on this machine yet, so its size is not known before it is downloaded.")
    try:
        sizes = _sizes(folder, (folder / "config.json").stat().st_mtime_ns)
        tokens = _region_tokens(folder, sizes, images, regions, embedding)
    except (ModelError, ConfigError, OSError, ValueError) as error:
        return Need(None, str(error))
    half = uses_half(config, device)
    return Need(step_bytes(sizes, sizes.learning(config), config, images_at_once(config), tokens, half))


@cache
def _sizes(folder: Path, changed: int) -> Sizes:
    return read_sizes(folder)


def _region_tokens(folder: Path, sizes: Sizes, images: ImageSet, regions: Regions, embedding: EmbeddingConfig) -> float:
    """Mean number of tokens that the regions of an image have together, from a sample of them."""
    if not len(regions) or not len(images):
        return 0.0
    names = ("preprocessor_config.json", "processor_config.json")
    path = next((folder / name for name in names if (folder / name).exists()), folder / names[0])
    found = json.loads(path.read_text(encoding="utf-8"))
    geometry = Geometry.of(found.get("image_processor", found), sizes.image, sizes.patch)
    rows = slice(0, SAMPLE)
    masks = [regions.mask_of(row) for row in range(min(SAMPLE, len(regions)))]
    counts = geometry.patches(images.size[regions.image[rows]], regions.box[rows], masks).sum(1)
    tokens = choose_encoder(embedding.encoder, counts) == "tokens"
    return (1.0 + (float(np.mean(counts)) if tokens else sizes.patches)) * len(regions) / len(images)
