"""A small CLIP model trained from scratch on a digit world, until it relies on the red square.

An ordinary transformers `CLIPModel` with its own word-level tokenizer and the usual image processor, so that it is
loaded, audited and fine-tuned like any other. `python -m ravl.planted.tiny_clip assets/demo-model` rebuilds the demo's.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from ravl.mitigation.loss import contrastive_loss
from ravl.planted.digits import CLASSES, CORRELATED, SIDE, TARGET, UNCORRELATED, World, digit_world
from ravl.tables import Report, Step, quiet

CAPTIONS = ("a photo of the digit {}", "a scene with a {}", "an image that shows {}", "there is a {} in the picture")
PROMPTS = ("a picture of {}", "an image with the digit {}", "a photo that shows a {}", "a scene of the {}")
_SPECIAL = ("<pad>", "<unk>", "<start>", "<end>")


def build(seed: int, classes: tuple[str, ...] = CLASSES) -> tuple[Any, Any, Any]:
    """An untrained model, its tokenizer and its image processor. Vision 4 x 128 on 16 patches, text 2 x 64, D = 64."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    words = sorted({word for text in (*CAPTIONS, *PROMPTS) for word in text.replace("{}", "").split()} | set(classes))
    vocabulary = {word: i for i, word in enumerate((*_SPECIAL, *words))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    start, end = vocabulary["<start>"], vocabulary["<end>"]
    backend.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", start), ("<end>", end)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", bos_token="<start>", eos_token="<end>",
        model_max_length=16,
    )  # fmt: skip
    text = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    text |= {"vocab_size": len(vocabulary), "max_position_embeddings": 16}
    text |= {"bos_token_id": start, "eos_token_id": end, "pad_token_id": vocabulary["<pad>"]}
    vision = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4}
    vision |= {"image_size": SIDE, "patch_size": 14}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return module, tokenizer, processor


def train(world: World, seed: int, steps: int = 1600, batch: int = 128, report: Report = quiet) -> tuple[Any, Any, Any]:
    """Train a fresh model (AdamW, peak rate 1e-3, weight decay .05, one cycle); returns what `build` returns."""
    module, tokenizer, processor = build(seed)
    pixels = _pixels(world, processor)
    label = torch.from_numpy(world.label)
    tokens = [
        tokenizer([text.format(name) for name in CLASSES], padding=True, return_tensors="pt") for text in CAPTIONS
    ]
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=steps)
    rng = np.random.default_rng([seed, 1])
    module.train()
    for step in range(steps):
        rows = torch.from_numpy(rng.choice(len(label), batch, replace=False))
        caption = tokens[int(rng.integers(len(CAPTIONS)))]
        image = normalize(module.get_image_features(pixels[rows]).pooler_output, dim=-1)
        text = normalize(module.get_text_features(**_only_inputs(caption)).pooler_output, dim=-1)
        loss = contrastive_loss(image, text[label[rows]], label[rows], module.logit_scale.exp())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            module.logit_scale.clamp_(max=math.log(100))
        report(Step("training", step + 1, steps, {"loss": float(loss.detach())}))
    return module.eval(), tokenizer, processor


@torch.inference_mode()
def shortcut_strength(module: Any, tokenizer: Any, processor: Any, world: World) -> dict[str, float]:
    """How much a model relies on the mark, on a world without correlation.

    eps1 = accuracy of the target class with minus without the mark; eps2 = the largest fall of another class's accuracy
    with the mark. Both above .10 mean that the shortcut is learned (Varma et al. 2024, controlled evaluation).
    """
    tokens = [tokenizer([text.format(name) for name in CLASSES], padding=True, return_tensors="pt") for text in PROMPTS]
    text = torch.stack([normalize(module.get_text_features(**_only_inputs(t)).pooler_output, dim=-1) for t in tokens])
    image = normalize(module.get_image_features(_pixels(world, processor)).pooler_output, dim=-1)
    right = (image @ normalize(text.mean(0), dim=-1).T).argmax(1).numpy() == world.label
    rate = {
        (y, m): float(right[(world.label == y) & (world.mark == m)].mean())
        for y in range(len(CLASSES))
        for m in (True, False)
    }
    target = CLASSES.index(TARGET)
    falls = [rate[y, False] - rate[y, True] for y in range(len(CLASSES)) if y != target]
    return {"accuracy": float(right.mean()), "eps1": rate[target, True] - rate[target, False], "eps2": max(falls)}


def _pixels(world: World, processor: Any) -> torch.Tensor:
    from PIL import Image

    return processor(images=[Image.fromarray(x) for x in world.image], return_tensors="pt")["pixel_values"]  # type: ignore[no-any-return]


def _only_inputs(tokens: Any) -> dict[str, torch.Tensor]:
    return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}


def main() -> None:
    """Build the demo model and print how strong its shortcut is."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path, help="where the model is written")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1600)
    options = parser.parse_args()

    def show(step: Step) -> None:
        if step.done % 100 == 0:
            print(f"step {step.done} of {step.total}, loss {step.facts['loss']:.3f}", flush=True)

    parts = train(digit_world("train", 4000, *CORRELATED, options.seed), options.seed, options.steps, report=show)
    for part in parts:
        part.save_pretrained(options.folder)
    strength = shortcut_strength(*parts, digit_world("test", 2000, *UNCORRELATED, options.seed))
    (options.folder / "shortcut.json").write_text(json.dumps(strength, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(strength))


if __name__ == "__main__":
    main()
