"""How much memory a step needs, before it is tried."""

from __future__ import annotations

import torch

from ravl.config import MitigationConfig
from ravl.mitigation.baselines import METHODS, region_share
from ravl.mitigation.batches import TrainingSet
from ravl.mitigation.footprint import SAMPLE, total_bytes, uses_half
from ravl.vlm.differentiable import LearningModel


def estimate(vlm: LearningModel, data: TrainingSet, config: MitigationConfig, micro: int) -> int:
    """Bytes that a step with `micro` images at once needs on the device.

    Those weights learn that ask for a gradient; what the layers keep is `LearningModel.cost`.
    """
    method = METHODS[config.method]
    parameters = list(vlm.module.parameters())
    every, learning = sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)
    kept = vlm.cost("tower" in method.learns).image
    if method.term == "regions":
        kept += region_share(config) * _of_regions(vlm, data)
    return total_bytes(every, learning, micro, vlm.input_size, kept, uses_half(config, vlm.device.type))


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
        rows = slice(0, SAMPLE)
        masks = [regions.mask_of(row) for row in range(min(SAMPLE, len(regions)))]
        counts = vlm.patch_counts(data.images.size[regions.image[rows]], regions.box[rows], masks)
        each = cost.token * (cost.prefix + float(counts.mean()))
    return each * len(regions) / len(data.images)
