"""The only door to models: `load` turns a reference into a model, and `save` is a method of it.

`ravl.vlm.references` says which references there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ravl.vlm.interface import Encoded, VisionLanguageModel

if TYPE_CHECKING:
    from ravl.vlm.model import DualEncoder

__all__ = ["Encoded", "VisionLanguageModel", "load"]


def load(reference: str, device: str = "auto", pickled: bool | None = None) -> DualEncoder:
    """Load a model of transformers or open_clip (see `ravl.vlm.references`); its `name` is the resolved reference.

    device: auto, cpu, cuda, cuda:N or mps. pickled: whether weights may be no safetensors; they are then read by
    torch's restricted loader. None: whether the environment variable RAVL_ALLOW_PICKLE is 1.
    Raises ModelError when there is no such model, or its weights, tokenizer or preprocessing are missing or unsafe.
    """
    from ravl.vlm.references import pick_device, resolve

    found, target = resolve(reference, pickled), pick_device(device)
    if found.family == "open_clip":
        from ravl.vlm import open_clip

        return open_clip.load(found, target, pickled)
    from ravl.vlm import transformers_dual

    return transformers_dual.load(found, target, pickled)
