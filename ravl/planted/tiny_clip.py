"""Small CLIP models trained from scratch on a planted world, until they rely on its marks.

Ordinary transformers `CLIPModel`s with their own word-level tokenizer and the usual image processor, so that they are
loaded, audited and fine-tuned like any other. `python -m ravl.planted.tiny_clip assets/demo-model` rebuilds the demo's,
and with `--world radiograph assets/radiograph-model` that of the medical demo.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from ravl.mitigation.loss import contrastive_loss
from ravl.planted import medical
from ravl.planted.digits import CORRELATED, UNCORRELATED, World, digit_world
from ravl.planted.worlds import BRIGHTNESS, WORLDS, Scenes, WorldPlan, make
from ravl.tables import Report, Step, quiet

_SPECIAL = ("<pad>", "<unk>", "<start>", "<end>")
_DIGITS = WORLDS["digits"]

CONTEXT = 16
"""Tokens of a text, at most."""


@dataclass(frozen=True)
class Architecture:
    """A vision tower: pixels of the side it sees and of a patch's side, layers, width, attention heads."""

    side: int
    patch: int
    layers: int
    width: int
    heads: int = 4


ARCHITECTURES = {
    "vit14": Architecture(side=56, patch=14, layers=4, width=128),
    "vit12": Architecture(side=48, patch=12, layers=3, width=96),
    "vit8": Architecture(side=48, patch=8, layers=3, width=64),
    "vit7": Architecture(side=56, patch=7, layers=3, width=64),
}
"""vit14, vit12: 4 x 4 patches and vit8: 6 x 6, for grid:2. vit7: 8 x 8, so that a region of grid:4 holds four."""
LARGE = {
    "b32": Architecture(side=224, patch=32, layers=12, width=768, heads=12),
    "l14": Architecture(side=224, patch=14, layers=24, width=1024, heads=16),
}
"""The vision towers of CLIP ViT-B/32 and ViT-L/14, to measure what they cost; no recipe trains them."""
TOWERS = ARCHITECTURES | LARGE
"""All that can be built."""


@dataclass(frozen=True)
class Recipe:
    """AdamW (weight decay .05) in one cycle.

    rate: its peak. warm_up: share of the steps before it. cycle_momentum: whether beta1 falls while the rate rises.
    clip: norm that gradients are cut to, None for never. crops: share of each batch that is seen as random square parts
    of the scene, of a side from SMALLEST_CROP to 1, as CLIP was trained (Radford et al. 2021): a model that has never
    seen a part enlarged cannot say what is on it.
    """

    steps: int
    batch: int
    rate: float
    warm_up: float = 0.3
    beta: float = 0.999
    cycle_momentum: bool = True
    clip: float | None = None
    crops: float = 0.0


SMALLEST_CROP = 0.25
DEMO_RECIPE = Recipe(steps=1600, batch=128, rate=1e-3)

_FAST = Recipe(steps=450, batch=64, rate=1.2e-3, warm_up=0.15, beta=0.98, cycle_momentum=False, clip=1.0)
RECIPES = {
    "vit14": replace(_FAST, steps=500, rate=1e-3),
    "vit12": _FAST,
    "vit8": replace(_FAST, steps=600),
    "vit7": replace(_FAST, steps=500, batch=48),
}
"""Seconds instead of minutes, for the many models of the controlled evaluation."""

RADIOGRAPH_RECIPE = replace(RECIPES["vit7"], steps=800, batch=64, rate=1e-3, crops=0.5)
"""For a model that can name the marks (see `naming`). Crops, since regions are cut out there."""
MEDICAL_RECIPE = replace(RADIOGRAPH_RECIPE, steps=2200, rate=1.2e-3)
MEDICAL_SIZE = 4000
"""Radiographs that the medical demo's model learns from."""

TEST_SIZE = 1500
"""Scenes on which a model's reliance is measured."""

TRAINER = 1
"""Raised when `build` or `_fit` come to make other models from the same recipe: part of the name of kept models."""

Parts = tuple[Any, Any, Any]
"""A CLIPModel, its tokenizer and its image processor."""


def build(seed: int, plan: WorldPlan = _DIGITS, architecture: str = "vit14") -> Parts:
    """An untrained model, its tokenizer and its image processor. Text 2 x 64, D = 64."""
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    shape, tokenizer = tower_of(architecture), tokenizer_of(plan)
    text, vision = towers(tokenizer, shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": shape.side}, crop_size={"height": shape.side, "width": shape.side}
    )
    return module, tokenizer, processor


def load(folder: Path) -> Parts:
    """What `build` returned, from where its parts were saved."""
    from transformers import CLIPModel, PreTrainedTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    parts = (CLIPModel, PreTrainedTokenizerFast, CLIPImageProcessorPil)
    return tuple(part.from_pretrained(folder) for part in parts)  # type: ignore[return-value]


def towers(tokenizer: Any, shape: Architecture) -> tuple[dict[str, int], dict[str, int]]:
    """What transformers has to know of a text tower, 2 x 64, for these words, and of a vision tower of this shape."""
    text = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    text |= {"vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT}
    text |= {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    vision = {"hidden_size": shape.width, "intermediate_size": 4 * shape.width, "num_hidden_layers": shape.layers}
    vision |= {"num_attention_heads": shape.heads, "image_size": shape.side, "patch_size": shape.patch}
    return text, vision


def tokenizer_of(plan: WorldPlan) -> Any:
    """Reads the words of a world's captions, prompts and classes, between a start and an end."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    texts = (*(text.replace("{}", "") for text in (*plan.captions, *plan.prompts)), *plan.class_names)
    vocabulary = {word: i for i, word in enumerate((*_SPECIAL, *sorted({w for text in texts for w in text.split()})))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    start, end = vocabulary["<start>"], vocabulary["<end>"]
    backend.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", start), ("<end>", end)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", bos_token="<start>", eos_token="<end>",
        model_max_length=CONTEXT,
    )  # fmt: skip


def train(world: World, seed: int, steps: int = 1600, batch: int = 128, report: Report = quiet) -> Parts:
    """Train a fresh model on digits by the demo's recipe; returns what `build` returns."""
    recipe = Recipe(steps, batch, DEMO_RECIPE.rate)
    return fit(build(seed), _DIGITS, world.image, world.label, seed, recipe, report)


def train_medical(seed: int, recipe: Recipe = MEDICAL_RECIPE, n: int = MEDICAL_SIZE, report: Report = quiet) -> Parts:
    """Train a fresh model on the medical demo's drawings; returns what `build` returns."""
    scenes = medical.drawings("train", n, seed)
    return fit(build(seed, medical.PLAN, "vit7"), medical.PLAN, scenes.image, scenes.label, seed, recipe, report)


def train_world(
    plan: WorldPlan,
    architecture: str,
    marks: Sequence[str],
    strength: float,
    seed: int,
    recipe: Recipe | None = None,
    report: Report = quiet,
    start: Parts | None = None,
) -> Parts:
    """Train a model on a world; returns what `build` returns. recipe: None for the usual one. start: the model that
    goes on to learn, None for a fresh one."""
    scenes = make(plan.name, marks, "train", plan.train_size, strength, seed)
    parts = start or build(seed, plan, architecture)
    return fit(parts, plan, scenes.image, scenes.label, seed, recipe or recipe_of(plan, architecture), report)


def recipe_of(plan: WorldPlan, architecture: str) -> Recipe:
    """The recipe for a model of the controlled evaluation."""
    return RADIOGRAPH_RECIPE if plan.name == "radiograph" else RECIPES[architecture]


def fit(
    parts: Parts,
    plan: WorldPlan,
    image: NDArray[np.uint8],
    label_of: NDArray[np.int64],
    seed: int,
    recipe: Recipe,
    report: Report = quiet,
) -> Parts:
    """Train a model in place on the captions of a plan's classes. image: (I, H, W, 3) uint8. label_of: (I,) which of
    `plan.class_names` each scene is of."""
    module, tokenizer, processor = parts
    pixels, label = _pixels(image, processor), torch.from_numpy(label_of)
    whole = _full_size(image, processor) if recipe.crops else pixels
    tokens = _tokens(tokenizer, plan.captions, plan.class_names)
    optimizer = torch.optim.AdamW(module.parameters(), lr=recipe.rate, weight_decay=0.05, betas=(0.9, recipe.beta))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        *(optimizer, recipe.rate, recipe.steps), pct_start=recipe.warm_up, cycle_momentum=recipe.cycle_momentum
    )
    rng = np.random.default_rng([seed, 1])
    module.train()
    for step in range(recipe.steps):
        rows = torch.from_numpy(rng.choice(len(label), recipe.batch, replace=False))
        caption = tokens[int(rng.integers(len(tokens)))]
        shown = pixels[rows]
        if n_crops := round(recipe.crops * recipe.batch):
            shown[:n_crops] = _parts_of(whole[rows[:n_crops]], shown.shape[-1], rng)
        seen = normalize(module.get_image_features(shown).pooler_output, dim=-1)
        text = normalize(module.get_text_features(**caption).pooler_output, dim=-1)
        loss = contrastive_loss(seen, text[label[rows]], label[rows], module.logit_scale.exp())
        optimizer.zero_grad()
        loss.backward()
        if recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(module.parameters(), recipe.clip)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            module.logit_scale.clamp_(max=math.log(100))
        report(Step("training", step + 1, recipe.steps, {"loss": float(loss.detach())}))
    return module.eval(), tokenizer, processor


@torch.inference_mode()
def predictions(
    module: Any, tokenizer: Any, processor: Any, plan: WorldPlan, image: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """(I,) zero-shot class of each scene, by the average of the plan's prompts."""
    tokens = _tokens(tokenizer, plan.prompts, plan.class_names)
    text = torch.stack([normalize(module.get_text_features(**t).pooler_output, dim=-1) for t in tokens]).mean(0)
    seen = normalize(module.get_image_features(_pixels(image, processor)).pooler_output, dim=-1)
    return (seen @ normalize(text, dim=-1).T).argmax(1).numpy()  # type: ignore[no-any-return]


def shortcut_strength(module: Any, tokenizer: Any, processor: Any, world: World) -> dict[str, float]:
    """`reliance` of the demo's model on the red square, with its accuracy on a world without correlation."""
    right = predictions(module, tokenizer, processor, _DIGITS, world.image) == world.label
    target = _DIGITS.target_of("red square")
    return {"accuracy": float(right.mean()), **reliance(right, world.label, world.mark, target)}


def strength_of(module: Any, tokenizer: Any, processor: Any, scenes: Scenes) -> dict[str, dict[str, float]]:
    """Per mark of the scenes, and for brightness, how much a model relies on it; on scenes without correlation.

    accuracy: of all scenes. unmarked: of the scenes of other classes than the target, without any mark.
    eps1, eps2: see `reliance`.
    """
    plan = next(plan for plan in WORLDS.values() if plan.class_names == scenes.class_names)
    right = predictions(module, tokenizer, processor, plan, scenes.image) == scenes.label
    planted = {mark: (scenes.present[:, m], scenes.target[m]) for m, mark in enumerate(scenes.marks)}
    if scenes.biased_target >= 0:
        planted[BRIGHTNESS] = (scenes.biased, scenes.biased_target)
    bare = ~scenes.present.any(1) & ~scenes.biased
    return {
        mark: {
            "accuracy": float(right.mean()),
            "unmarked": float(right[bare & (scenes.label != target)].mean()),
            **reliance(right, scenes.label, there, target),
        }
        for mark, (there, target) in planted.items()
    }


def reliance(
    right: NDArray[np.bool_], label: NDArray[np.int64], mark: NDArray[np.bool_], target: int
) -> dict[str, float]:
    """How much a model relies on a mark, from which scenes it got right. Scenes without correlation are expected.

    eps1 = accuracy of the target class with minus without the mark; eps2 = the largest fall of another class's accuracy
    with the mark. Both above .10 mean that the shortcut is learned (Varma et al. 2024, controlled evaluation).
    """
    classes = range(int(label.max()) + 1)
    rate = {(y, m): float(right[(label == y) & (mark == m)].mean()) for y in classes for m in (True, False)}
    falls = [rate[y, False] - rate[y, True] for y in classes if y != target]
    return {"eps1": rate[target, True] - rate[target, False], "eps2": max(falls)}


def tower_of(architecture: str) -> Architecture:
    """The tower of this name. Raises ValueError for a name that is not in TOWERS."""
    if architecture not in TOWERS:
        raise ValueError(f"architecture must be one of {', '.join(TOWERS)}, got {architecture!r}.")
    return TOWERS[architecture]


def _tokens(tokenizer: Any, templates: Sequence[str], class_names: Sequence[str]) -> list[dict[str, torch.Tensor]]:
    encoded = [
        tokenizer([text.format(name) for name in class_names], padding=True, return_tensors="pt") for text in templates
    ]
    return [{"input_ids": t["input_ids"], "attention_mask": t["attention_mask"]} for t in encoded]


def _pixels(image: NDArray[np.uint8], processor: Any) -> torch.Tensor:
    from PIL import Image

    return processor(images=[Image.fromarray(x) for x in image], return_tensors="pt")["pixel_values"]  # type: ignore[no-any-return]


def _full_size(image: NDArray[np.uint8], processor: Any) -> torch.Tensor:
    """(I, 3, H, W) scenes in their own size, with the processor's grey levels; square ones are expected."""
    mean, std = (torch.tensor(getattr(processor, name))[:, None, None] for name in ("image_mean", "image_std"))
    return (torch.from_numpy(image).permute(0, 3, 1, 2) / 255 - mean) / std


def _parts_of(whole: torch.Tensor, side: int, rng: np.random.Generator) -> torch.Tensor:
    """(B, 3, side, side) a random square part of each scene."""
    from torch.nn.functional import affine_grid, grid_sample

    scale = rng.uniform(SMALLEST_CROP, 1, len(whole))
    # from the frame -1..1 of a part to that of its scene: x -> scale x + shift
    theta = np.zeros((len(whole), 2, 3), np.float32)
    theta[:, [0, 1], [0, 1]] = scale[:, None]
    theta[:, :, 2] = rng.uniform(-1, 1, (len(whole), 2)) * (1 - scale)[:, None]
    grid = affine_grid(torch.from_numpy(theta), [len(whole), 3, side, side], align_corners=False)
    return grid_sample(whole, grid, padding_mode="border", align_corners=False)


def main() -> None:
    """Build a demo's model and print how strong its shortcut is."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path, help="where the model is written")
    parser.add_argument("--world", choices=("digits", "radiograph"), default="digits")
    options = parser.parse_args()

    def show(step: Step) -> None:
        if step.done % 100 == 0:
            print(f"step {step.done} of {step.total}, loss {step.facts['loss']:.3f}", flush=True)

    strength: dict[str, Any]
    if options.world == "digits":
        parts = train(digit_world("train", 4000, *CORRELATED, 0), 0, DEMO_RECIPE.steps, report=show)
        strength = shortcut_strength(*parts, digit_world("test", 2000, *UNCORRELATED, 0))
    else:
        parts = train_medical(medical.SEED, report=show)
        strength = strength_of(*parts, medical.drawings("test", TEST_SIZE))
    for part in parts:
        part.save_pretrained(options.folder)
    (options.folder / "shortcut.json").write_text(json.dumps(strength, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(strength))


if __name__ == "__main__":
    main()
