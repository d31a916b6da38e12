"""Models of the transformers library with image and text features: CLIP, MetaCLIP, SigLIP, and others of the kind.

| family | prefix | from the last tokens to a vector | texts |
|---|---|---|---|
| CLIP, MetaCLIP 1 and 2, AltCLIP, Chinese CLIP | class token | class token, norm, projection | padded to the longest |
| SigLIP; SigLIP 2 of a fixed resolution | none | norm, attention pool over the tokens | padded to full length |
| any other `AutoModel` with both features | - | not looked into: regions are cut out | padded to the longest |

SigLIP 2 with variable resolution (NaFlex) is refused: its patches depend on each image's shape.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ravl.errors import ModelError
from ravl.vlm.geometry import Geometry
from ravl.vlm.model import DualEncoder
from ravl.vlm.references import Reference, allow_pickle, loading
from ravl.vlm.towers import TokenTower, Tower, WholeTower, class_token, same

ADAPTABLE = {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}
"""The matrices of a layer that can get low-rank adapters."""


def load(reference: Reference, device: torch.device, pickled: bool | None = None) -> DualEncoder:
    """Load a save_pretrained directory or a hub id; no code that comes with a model is run.

    Raises ModelError for a model without image and text features, and where a part is missing, unsafe or broken.
    """
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    where = reference.where
    config = loading(where, "configuration", lambda: AutoConfig.from_pretrained(where, trust_remote_code=False))
    _check_kind(where, config)
    pickled = allow_pickle() if pickled is None else pickled
    module, loaded = loading(
        where,
        "weights",
        lambda: AutoModel.from_pretrained(
            *(where,),
            config=config,
            use_safetensors=None if pickled else True,
            dtype=torch.float32,
            output_loading_info=True,
            trust_remote_code=False,
        ),
    )
    if loaded["missing_keys"] or loaded.get("mismatched_keys"):
        broken = sorted(map(str, [*loaded["missing_keys"], *loaded.get("mismatched_keys", [])]))
        raise ModelError(
            f"the weights must fill the whole model, but {where} lacks {len(broken)} of its tensors "
            f"(first: {broken[0]}). Save the model again with save_pretrained."
        )
    tokenizer = loading(where, "tokenizer", lambda: AutoTokenizer.from_pretrained(where, trust_remote_code=False))
    processor = loading(
        where,
        "image preprocessing",
        lambda: AutoImageProcessor.from_pretrained(where, backend="pil", trust_remote_code=False),
    )
    return assemble(reference.name, module, tokenizer, processor, device)


def assemble(name: str, module: Any, tokenizer: Any, processor: Any, device: torch.device) -> DualEncoder:
    """Put a loaded model, its tokenizer and its image processor together. Raises ModelError as `load` does."""
    module = module.to(device).eval()

    def prepare(images: list[Image.Image]) -> Tensor:
        return processor(images=images, return_tensors="pt")["pixel_values"]  # type: ignore[no-any-return]

    def forward(pixels: Tensor) -> Tensor:
        return module.get_image_features(pixels.to(device)).pooler_output  # type: ignore[no-any-return]

    vision: Any = getattr(module.config, "vision_config", None)
    example = loading(name, "image preprocessing", lambda: prepare([_noise()]))
    side = _input_side(name, vision, example)
    tower, why = _tower(module, vision, side, forward, example)
    patch = int(vision.patch_size) if tower.encoder else side

    def write(path: Path) -> None:
        """An ordinary `save_pretrained` directory with tokenizer and preprocessing."""
        for part in (module, tokenizer, processor):
            part.save_pretrained(path)

    last: Any = getattr(module, "visual_projection", None)
    projection = ("vision_model.head.",) if last is None else ("visual_projection.",)
    read = _reader(module, tokenizer, device)
    with torch.no_grad():
        dim = int(read(["a"]).shape[1])
    return DualEncoder(
        name=name,
        module=module,
        device=device,
        dim=dim,
        tower=tower,
        geometry=Geometry.of(processor.to_dict(), side, patch),
        prepare=prepare,
        settings=processor.to_dict(),
        read=read,
        vocabulary=_vocabulary(tokenizer) + _untold(module.config),
        write=write,
        parts={"tower": ("vision_model.", "visual_projection."), "projection": projection},
        why=why,
        last=[(last.weight, 0)] if isinstance(last, nn.Linear) and last.bias is None else [],
        adaptable=_adaptable(module),
    )


def _check_kind(where: str, config: Any) -> None:
    from transformers import AutoModel

    if config.model_type == "siglip2":
        raise ModelError(
            f"the model must see pictures of one size, but {where} is a SigLIP 2 of variable resolution (NaFlex). "
            "Choose one of a fixed resolution, such as google/siglip2-base-patch16-224."
        )
    kind = AutoModel._model_mapping.get(type(config), None)
    if not (hasattr(kind, "get_image_features") and hasattr(kind, "get_text_features")):
        raise ModelError(
            f"the model must have image and text features, as CLIP and SigLIP do, but {where} has model_type "
            f"{config.model_type!r}. Convert it, or choose another model."
        )


def _noise() -> Image.Image:
    """A picture that tells towers apart: no two of its patches are alike."""
    values = torch.rand(96, 80, 3, generator=torch.Generator().manual_seed(0))
    return Image.fromarray((values * 255).to(torch.uint8).numpy())


def _input_side(name: str, vision: Any, example: Tensor) -> int:
    """Side of the model's input. Raises ModelError where preprocessing and model do not fit together."""
    side = int(getattr(vision, "image_size", 0) or 0) if hasattr(vision, "patch_size") else example.shape[-1]
    if example.ndim != 4 or tuple(example.shape[-2:]) != (side, side):
        raise ModelError(
            f"the model's preprocessing must produce {side} x {side} pixels, but that of {name} produces "
            f"{' x '.join(map(str, example.shape[2:]))}. Correct its preprocessor_config.json."
        )
    return side


def _tower(
    module: Any, vision: Any, side: int, forward: Callable[[Tensor], Tensor], example: Tensor
) -> tuple[Tower, str]:
    """The vision tower taken apart, if that gives the same answers as the whole; else the whole. And why."""
    taken_apart = _token_tower(module, vision, side, example)
    kind = module.config.model_type
    reason = f"towers of the type {kind} are not known"
    if taken_apart is not None:
        reason = same(taken_apart, forward, example)
        if not reason:
            return taken_apart, "regions are embedded by their own patches (tokens): the model is a vision transformer"
    return WholeTower(forward, module, example), f"regions are cut out (crop): {reason}"


def _token_tower(module: Any, vision: Any, side: int, example: Tensor) -> TokenTower | None:
    """None for a tower of another structure than those in the table."""
    tower: Any = getattr(module, "vision_model", None)
    layers = getattr(getattr(tower, "encoder", None), "layers", None)
    if layers is None or not hasattr(tower, "post_layernorm") or not hasattr(vision, "patch_size"):
        return None
    head: Any = getattr(tower, "head", None)
    projection: Any = getattr(module, "visual_projection", None)
    device = next(tower.parameters()).device
    normed = getattr(tower, "pre_layrnorm", None)  # spelled like this by transformers

    def embed(pixels: Tensor) -> Tensor:
        tokens = tower.embeddings(pixels.to(device))
        return tokens if normed is None else normed(tokens)  # type: ignore[no-any-return]

    def end_of_clip(tokens: Tensor) -> Tensor:
        return projection(tower.post_layernorm(class_token(layers[-1], tokens)))  # type: ignore[no-any-return]

    def end_of_siglip(tokens: Tensor) -> Tensor:
        return head(tower.post_layernorm(layers[-1](tokens, attention_mask=None)))  # type: ignore[no-any-return]

    if normed is not None and projection is not None:
        end = end_of_clip
    elif head is not None:
        end = end_of_siglip
    else:
        return None
    n_patches = (side // int(vision.patch_size)) ** 2
    with torch.no_grad():
        prefix = embed(example).shape[1] - n_patches
    steps = [_step(layer) for layer in layers]
    width, mlp = int(vision.hidden_size), int(vision.intermediate_size)
    clip = end is end_of_clip
    return TokenTower(embed, steps, end, prefix, n_patches, width, mlp, alone=clip, short=clip)


def _step(layer: Any) -> Callable[[Tensor], Tensor]:
    def run(tokens: Tensor) -> Tensor:
        return layer(tokens, attention_mask=None)  # type: ignore[no-any-return]

    return run


def _reader(module: Any, tokenizer: Any, device: torch.device) -> Callable[[list[str]], Tensor]:
    """Texts -> (T, D). SigLIP reads the last token, so it needs the padding it was trained with."""
    text = module.config.text_config
    full = module.config.model_type.startswith("siglip")
    # positions of RoBERTa-like towers start behind the padding's id
    known = int(text.max_position_embeddings) - (
        2 if "roberta" in text.model_type or "altclip" in text.model_type else 0
    )
    limit = min(known, int(tokenizer.model_max_length))
    names = ("input_ids",) if full else ("input_ids", "attention_mask", "token_type_ids")

    def read(texts: list[str]) -> Tensor:
        padding = "max_length" if full else True
        tokens = tokenizer(texts, padding=padding, truncation=True, max_length=limit, return_tensors="pt")
        inputs = {name: tokens[name].to(device) for name in names if name in tokens}
        return module.get_text_features(**inputs).pooler_output  # type: ignore[no-any-return]

    return read


def _vocabulary(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return json.dumps(tokenizer.get_vocab(), sort_keys=True)
    settings = json.loads(backend.to_str())
    for of_the_last_call in ("truncation", "padding"):
        settings.pop(of_the_last_call, None)
    return json.dumps(settings, sort_keys=True)


def _untold(config: Any) -> str:
    """What a configuration says that changes answers and is not in the weights, where it differs from a plain CLIP."""
    told = {} if config.model_type == "clip" else {"model_type": config.model_type}
    for part in ("text_config", "vision_config"):
        tower: Any = getattr(config, part, None)
        for name in ("hidden_act", "layer_norm_eps"):
            value = getattr(tower, name, None)
            if value is not None and value != getattr(type(tower)(), name, None):
                told[f"{part}.{name}"] = value
    return json.dumps(told, sort_keys=True) if told else ""


def _adaptable(module: Any) -> nn.Module | None:
    encoder = getattr(getattr(module, "vision_model", None), "encoder", None)
    if encoder is None:
        return None
    names = {name.rpartition(".")[2] for name, _ in encoder.named_modules()}
    return encoder if names >= ADAPTABLE else None
