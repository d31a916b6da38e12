"""Small models of the real classes, made from a configuration with random weights, for tests that need a directory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

SPECIAL = ("<pad>", "<unk>", "<start>", "<end>")
TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}


def small_tokenizer(words: tuple[str, ...], length: int = 12) -> Any:
    """Words, split at spaces, between a start and an end, which has the highest id: some text towers look for that."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate((*SPECIAL[:3], "a", "photo", "of", *words, SPECIAL[3]))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[(name, vocabulary[name]) for name in ("<start>", "<end>")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", bos_token="<start>", eos_token="<end>",
        model_max_length=length,
    )  # fmt: skip


def text_settings(tokenizer: Any) -> dict[str, Any]:
    ids = {"bos_token_id": 2, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    return {**TEXT, **ids, "vocab_size": len(tokenizer), "max_position_embeddings": 12}


def written(folder: Path, module: Any, tokenizer: Any, processor: Any) -> Path:
    for part in (module, tokenizer, processor):
        part.save_pretrained(folder)
    return folder


def seeded(build: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build()


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def small_clip(
    folder: Path, words: tuple[str, ...], image_size: int = 48, patch_size: int = 8, layers: int = 3
) -> Path:
    """Write an untrained `save_pretrained` directory with tokenizer and preprocessing, and return it."""
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = small_tokenizer(words)
    vision = {**VISION, "num_hidden_layers": layers, "image_size": image_size, "patch_size": patch_size}
    config = CLIPConfig(text_config=text_settings(tokenizer), vision_config=vision, projection_dim=24)
    processor = CLIPImageProcessorPil(size={"shortest_edge": image_size}, crop_size=_square(image_size))
    return written(folder, seeded(lambda: CLIPModel(config)), tokenizer, processor)


def small_siglip(
    folder: Path, words: tuple[str, ...], image_size: int = 48, patch_size: int = 8, layers: int = 3
) -> Path:
    """As `small_clip`: no class token, an attention pool, pictures squashed to a square, D = the towers' width."""
    from transformers import SiglipConfig, SiglipModel
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    tokenizer = small_tokenizer(words)
    vision = {**VISION, "num_hidden_layers": layers, "image_size": image_size, "patch_size": patch_size}
    text = {**text_settings(tokenizer), "projection_size": 32}
    config = SiglipConfig(text_config=text, vision_config=vision)
    processor = SiglipImageProcessorPil(size=_square(image_size))
    return written(folder, seeded(lambda: SiglipModel(config)), tokenizer, processor)


def small_metaclip(folder: Path, words: tuple[str, ...]) -> Path:
    """MetaCLIP 2."""
    from transformers import MetaClip2Config, MetaClip2Model
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = small_tokenizer(words)
    vision = {**VISION, "num_hidden_layers": 3, "image_size": 48, "patch_size": 8}
    config = MetaClip2Config(text_config=text_settings(tokenizer), vision_config=vision, projection_dim=24)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size=_square(48))
    return written(folder, seeded(lambda: MetaClip2Model(config)), tokenizer, processor)


def small_dual(folder: Path, words: tuple[str, ...]) -> Path:
    """A vision transformer beside a BERT (`VisionTextDualEncoderModel`): its tower is of a structure not known."""
    from transformers import BertConfig, VisionTextDualEncoderConfig, VisionTextDualEncoderModel, ViTConfig
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    tokenizer = small_tokenizer(words)
    vision = ViTConfig(**VISION, num_hidden_layers=2, image_size=48, patch_size=8)
    text = BertConfig(**text_settings(tokenizer))
    config = VisionTextDualEncoderConfig(vision_config=vision.to_dict(), text_config=text.to_dict(), projection_dim=24)
    processor = ViTImageProcessorPil(size=_square(48))
    return written(folder, seeded(lambda: VisionTextDualEncoderModel(config)), tokenizer, processor)


# --- open_clip -------------------------------------------------------------------------------------------------------

VIT: dict[str, Any] = {"image_size": 48, "patch_size": 8, "width": 32, "layers": 3, "head_width": 16}
RESNET: dict[str, Any] = {"image_size": 128, "patch_size": None, "width": 8, "layers": [1, 1, 1, 1], "head_width": 64}
PREPROCESS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "interpolation": "bicubic", "resize_mode": "shortest"}


def small_open_clip(
    folder: Path,
    words: tuple[str, ...],
    vision: dict[str, Any],
    preprocess: dict[str, Any] | None = None,
    bert: bool = False,
    dim: int = 24,
) -> Path:
    """Write an untrained directory in open_clip's layout, and return it. bert: with a text tower of transformers."""
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = small_tokenizer(words)
    tokenizer.save_pretrained(folder)
    text: dict[str, Any] = {"context_length": 12, "hf_tokenizer_name": "own"}
    if bert:
        from transformers import BertConfig

        BertConfig(**text_settings(tokenizer)).save_pretrained(folder / "text_tower")
        text |= {
            "hf_model_name": str(folder / "text_tower"),
            "hf_proj_type": "mlp",
            "hf_pooler_type": "cls_last_hidden_state_pooler",
        }
    else:
        text |= {"vocab_size": len(tokenizer), "width": 32, "heads": 2, "layers": 1}
    config = {"embed_dim": dim, "vision_cfg": vision, "text_cfg": text}
    whole = {"model_cfg": config, "preprocess_cfg": preprocess or PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(whole))
    module = seeded(lambda: open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False))
    seeded(lambda: _waken(module))
    save_file({k: v.clone() for k, v in module.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


def _waken(module: Any) -> None:
    """A ResNet is born with blocks that add nothing; and norms without statistics are the identity."""
    for name, tensor in module.state_dict().items():
        if name.endswith(("bn1.weight", "bn2.weight", "bn3.weight")):
            tensor.uniform_(0.5, 1.5)
        elif "running_var" in name:
            tensor.uniform_(0.5, 2.0)
        elif "running_mean" in name:
            tensor.normal_(0.0, 0.1)
