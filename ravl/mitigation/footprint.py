"""How much memory a step of fine-tuning needs, from sizes alone: no model is opened, and no torch is needed.

So the screen can tell it before anything starts, from a model's config.json and the headers of its weights.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ravl.config import MitigationConfig
from ravl.errors import ModelError
from ravl.mitigation.baselines import METHODS, region_share

LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
"""All matrices of a transformer layer: those that get an adapter with `lora_rank`."""

SAMPLE = 256
"""Regions whose patches are counted."""

_PARTS = {"tower": ("vision_model.", "visual_projection."), "projection": ("visual_projection.",)}
"""Beginnings of the names of the weights that a method's `learns` means, in a CLIP model of transformers."""

_MAX_HEADER = 100 * 2**20


@dataclass(frozen=True)
class Sizes:
    """What the memory of a step depends on. weights: name -> shape of every parameter of the model.

    width, mlp, layers: of the vision tower. image, patch: sides in pixels.
    """

    weights: Mapping[str, tuple[int, ...]]
    width: int
    mlp: int
    layers: int
    image: int
    patch: int

    @property
    def patches(self) -> int:
        return (self.image // self.patch) ** 2

    @property
    def every(self) -> int:
        """Numbers in all weights."""
        return sum(map(math.prod, self.weights.values()))

    def learning(self, config: MitigationConfig) -> int:
        """Numbers that learn: weights, or with `lora_rank` the adapters beside those of the vision tower."""
        learns, rank = METHODS[config.method].learns, config.lora_rank
        beginnings = tuple(beginning for part in learns for beginning in _PARTS[part])
        own = {name: shape for name, shape in self.weights.items() if name.startswith(beginnings)}
        if rank is None or "tower" not in learns:
            return sum(map(math.prod, own.values()))
        parts = {name: name.split(".") for name in own}
        adapted = [own[name] for name, part in parts.items() if part[-1] == "weight" and part[-2] in LAYERS]
        rest = [shape for name, shape in own.items() if not name.startswith("vision_model.")]
        return rank * sum(map(sum, adapted)) + sum(map(math.prod, rest))


def step_bytes(
    sizes: Sizes, learning: int, config: MitigationConfig, images: int, region_tokens: float, half: bool
) -> int:
    """Bytes that a step with `images` at once needs on the device: `total_bytes`, from sizes alone.

    learning: numbers that learn. region_tokens: tokens that the regions of an image have together, on average.
    half: whether the model runs in bfloat16. The layers keep 8 d + 3 m floats per token in each layer of width d and
    MLP width m, half a layer at the end, where only the class token goes on.
    """
    method = METHODS[config.method]
    tokens = 1.0 + sizes.patches
    if method.term == "regions":
        tokens += region_share(config) * region_tokens
    kept = 8 * sizes.width + 3 * sizes.mlp
    layers = sizes.layers - 0.5 if "tower" in method.learns else 1  # frozen: one at a time
    return total_bytes(sizes.every, learning, images, sizes.image, tokens * kept * layers, half)


def total_bytes(every: int, learning: int, images: int, side: int, kept: float, half: bool) -> int:
    """Bytes that a step needs on the device.

    every, learning: numbers in all weights, and in those that learn. images: embedded at once, of `side` pixels each.
    kept: floats that the layers keep of an image and its regions for the backward pass. half: as in `step_bytes`.

    Weights; gradient and the two moments of AdamW for those that learn; pixels; and what the layers keep. In bfloat16
    this takes 2.4 bytes instead of 4, as norms stay in float32, and the weights are there a second time in 2 bytes. Not
    counted: what the allocator holds in reserve, and a few vectors per image.
    """
    fixed = 4 * every + 12 * learning + (2 * every if half else 0)
    pixels = 4 * 3 * side**2
    return int(fixed + images * (pixels + kept * (2.4 if half else 4)))


def images_at_once(config: MitigationConfig) -> int:
    """Images that one process embeds at once, unless memory runs out."""
    return min(config.micro_batch or config.batch_size, config.batch_size)


def uses_half(config: MitigationConfig, device: str) -> bool:
    """Whether the model runs in bfloat16 on a device: cuda, mps or cpu."""
    return config.precision == "bf16" or (config.precision == "auto" and device == "cuda")


# --- from a model's files --------------------------------------------------------------------------------------------


def model_folder(reference: str) -> Path | None:
    """Where a model's files are on this machine; None for a hub id that is not in the local cache.

    The newest snapshot in HF_HUB_CACHE, else below HF_HOME, else in the user's cache.
    """
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return folder
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")
    found = (cache / f"models--{reference.replace('/', '--')}" / "snapshots").glob("*/config.json")
    return max((path.parent for path in found), key=lambda path: path.stat().st_mtime, default=None)


def read_sizes(folder: Path) -> Sizes:
    """The sizes of a `save_pretrained` directory of a CLIP model. Raises ModelError for another one, or a broken one.

    Missing entries of the vision configuration are those of transformers' CLIPVisionConfig.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind, vision = config.get("model_type", "clip"), config.get("vision_config") or {}
        weights: dict[str, tuple[int, ...]] = {}
        for path in sorted(folder.glob("*.safetensors")):
            weights |= {name: tuple(entry["shape"]) for name, entry in _header(path).items() if name != "__metadata__"}
        sizes = (("hidden_size", 768), ("intermediate_size", 3072), ("num_hidden_layers", 12))
        sizes += (("image_size", 224), ("patch_size", 32))  # type: ignore[assignment]
        numbers = [int(vision.get(name, default)) for name, default in sizes]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ModelError(
            f"the model's files must say how large it is, but those in {folder} cannot be read ({error}). "
            "Save it again with save_pretrained."
        ) from error
    if kind != "clip":
        raise ModelError(
            f"what a step of a {kind} model needs is not known before it is loaded; the training tells it at its start."
        )
    if not weights:
        raise ModelError(f"a model directory must hold safetensors, but {folder} does not. Save the model again.")
    buffers = "position_ids"  # in files of older versions; not a weight
    return Sizes({name: shape for name, shape in weights.items() if not name.endswith(buffers)}, *numbers)


def _header(path: Path) -> dict[str, Any]:
    """The table of contents of a safetensors file: its length in 8 bytes, then JSON."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _MAX_HEADER:
            raise ValueError(f"{path.name} is no safetensors file")
        return json.loads(file.read(length))  # type: ignore[no-any-return]
