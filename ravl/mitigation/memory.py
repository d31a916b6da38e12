"""How much memory a step needs, before it is tried."""

from __future__ import annotations

import torch

from ravl.config import MitigationConfig
from ravl.mitigation.baselines import METHODS, region_share
from ravl.mitigation.batches import TrainingSet
from ravl.vlm.differentiable import LearningModel

_SAMPLE = 256
"""Regions whose patches are counted."""


def uses_half(config: MitigationConfig, device: torch.device) -> bool:
    """Whether the model runs in bfloat16."""
    return config.precision == "bf16" or (config.precision == "auto" and device.type == "cuda")


def estimate(vlm: LearningModel, data: TrainingSet, config: MitigationConfig, micro: int) -> int:
    """Bytes that a step with `micro` images at once needs on the device, if all their regions enter the loss.

    Weights; gradient and the two moments of AdamW for those that learn, which are those that ask for a gradient; and
    what the layers keep for the backward pass (`LearningModel.cost`). In bfloat16 these take 2.4 bytes instead of 4, as
    norms stay in float32, and the weights are there a second time in 2 bytes. Not counted: what the allocator holds in
    reserve, and a few vectors per image.
    """
    method = METHODS[config.method]
    half = uses_half(config, vlm.device)
    parameters = list(vlm.module.parameters())
    every, learning = sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)
    fixed = 4 * every + 12 * learning + (2 * every if half else 0)
    kept = vlm.cost("tower" in method.learns).image
    if method.term == "regions":
        kept += region_share(config) * _of_regions(vlm, data)
    pixels = 4 * 3 * vlm.input_size**2
    return int(fixed + micro * (pixels + kept * (2.4 if half else 4)))


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device; for a CPU, in the machine."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)


def _of_regions(vlm: LearningModel, data: TrainingSet) -> float:
    """Mean number of floats that a backward pass keeps of the regions of an image together."""
    regions, cost = data.regions, vlm.cost(True)
    if not len(regions):
        return 0.0
    each = cost.image
    if data.encoder != "crop":
        rows = slice(0, _SAMPLE)
        masks = [regions.mask_of(row) for row in range(min(_SAMPLE, len(regions)))]
        counts = vlm.patch_counts(data.images.size[regions.image[rows]], regions.box[rows], masks)
        each = cost.token * (cost.prefix + float(counts.mean()))
    return each * len(regions) / len(data.images)
