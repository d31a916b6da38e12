"""Small CLIP models of the real class, made from a configuration, for tests that need a model directory."""

from __future__ import annotations

from pathlib import Path

import torch


def small_clip(
    folder: Path, words: tuple[str, ...], image_size: int = 48, patch_size: int = 8, layers: int = 3
) -> Path:
    """Write an untrained `save_pretrained` directory with tokenizer and preprocessing, and return it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    vocabulary = {word: i for i, word in enumerate(("<pad>", "<unk>", "<start>", "<end>", "a", "photo", "of", *words))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 2), ("<end>", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", bos_token="<start>", eos_token="<end>"
    )
    text = {"vocab_size": len(vocabulary), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 12}
    text |= {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": layers, "num_attention_heads": 2}
    vision |= {"image_size": image_size, "patch_size": patch_size}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"shortest_edge": image_size}
    CLIPImageProcessorPil(size=size, crop_size={"height": image_size, "width": image_size}).save_pretrained(folder)
    return folder
