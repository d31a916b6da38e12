"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) in the vision tower: smaller gradients and moments.

While they are in, the base weights are locked. Before the model is saved they are merged into them, so that what is
written is an ordinary model again.
"""

from __future__ import annotations

import torch

from ravl.errors import ConfigError
from ravl.mitigation.footprint import LAYERS
from ravl.vlm.differentiable import LearningModel


def insert(vlm: LearningModel, rank: int, seed: int) -> None:
    """Put an adapter beside every matrix of the vision tower; the model's answers stay the same at first.

    Raises ConfigError without the library peft, and for a tower whose matrices it does not know.
    """
    if vlm.adaptable is None:
        raise ConfigError(
            "--lora-rank needs a model of the transformers library with a vision transformer, such as CLIP or SigLIP, "
            f"got {vlm.name}. Leave --lora-rank out."
        )
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError(
            "LoRA needs the library peft, which is not installed. Run: pip install 'ravl-dashboard[lora]'."
        ) from error
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=list(LAYERS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # peft draws one side of every adapter from the global generator
        inject_adapter_in_model(config, vlm.adaptable)  # type: ignore[no-untyped-call]
    vlm.module.eval()


def merge(vlm: LearningModel) -> None:
    """Add every adapter to its matrix and take it out again."""
    from peft.tuners.lora import LoraLayer

    encoder = vlm.adaptable
    assert encoder is not None, "adapters were put in"
    for name, layer in list(encoder.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()  # type: ignore[operator]
            parent, _, own = name.rpartition(".")
            setattr(encoder.get_submodule(parent), own, layer.get_base_layer())
