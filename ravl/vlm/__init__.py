"""The only door to models: `load` turns a reference into a `VisionLanguageModel`, and `save` is a method of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ravl.vlm.interface import Encoded, VisionLanguageModel

if TYPE_CHECKING:
    from ravl.vlm.transformers_clip import TransformersClip

__all__ = ["Encoded", "VisionLanguageModel", "load"]


def load(reference: str, device: str = "auto") -> TransformersClip:
    """Load a CLIP model of the transformers library.

    reference: a `save_pretrained` directory, a hub id, or `demo`. device: auto, cpu, cuda, cuda:N or mps.
    Raises ModelError when there is no such model, or its weights, tokenizer or preprocessing are missing or unsafe.
    """
    from ravl.vlm.transformers_clip import TransformersClip

    return TransformersClip.load(reference, device)
