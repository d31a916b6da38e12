"""Small models of other families than CLIP, trained from scratch on digits until they rely on the red square.

`siglip`: a SigLIP of transformers. `resnet`: an open_clip model with a ModifiedResNet. Both learn with the contrastive
loss, as the small CLIPs do: with SigLIP's own sigmoid loss a few hundred steps are not enough for every seed. Saved,
they are loaded, audited and fine-tuned like any other. `python -m ravl.planted.tiny_families siglip DIRECTORY` makes
one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ravl.mitigation.loss import contrastive_loss
from ravl.planted.digits import CORRELATED, UNCORRELATED, World, digit_world
from ravl.planted.keeping import digest, pixels_digest, whole
from ravl.planted.tiny_clip import (
    ARCHITECTURES,
    CONTEXT,
    Architecture,
    Parts,
    Recipe,
    reliance,
    tokenizer_of,
    towers,
)
from ravl.planted.worlds import WORLDS
from ravl.tables import Report, Step, quiet
from ravl.vlm import open_clip, transformers_dual
from ravl.vlm.model import DualEncoder

_PLAN = WORLDS["digits"]

RECIPES = {
    "siglip": Recipe(steps=500, batch=64, rate=1e-3, warm_up=0.15, beta=0.98, cycle_momentum=False, clip=1.0),
    "resnet": Recipe(steps=400, batch=64, rate=2e-3, warm_up=0.15, beta=0.98, cycle_momentum=False, clip=1.0),
}


@dataclass(frozen=True)
class Reliance:
    """How a model does on scenes without correlation. accuracy: overall. eps1, eps2: see `tiny_clip.reliance`."""

    accuracy: float
    eps1: float
    eps2: float


def recipe_of(family: str) -> Recipe:
    """Its usual recipe. Raises ValueError for another family than `siglip` or `resnet`."""
    if family not in RECIPES:
        raise ValueError(f"family must be one of {', '.join(RECIPES)}, got {family!r}.")
    return RECIPES[family]


def build(family: str, seed: int) -> DualEncoder:
    """An untrained model. Raises ValueError as `recipe_of`."""
    recipe_of(family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _siglip() if family == "siglip" else _resnet()


def train(family: str, world: World, seed: int, recipe: Recipe | None = None, report: Report = quiet) -> DualEncoder:
    """Train a fresh model on digits. recipe: None for the usual one."""
    model, recipe = build(family, seed), recipe or recipe_of(family)
    module = model.module
    pixels, label = model.pixels(_pictures(world.image)), torch.from_numpy(world.label)
    optimizer = torch.optim.AdamW(module.parameters(), lr=recipe.rate, weight_decay=0.05, betas=(0.9, recipe.beta))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        *(optimizer, recipe.rate, recipe.steps), pct_start=recipe.warm_up, cycle_momentum=recipe.cycle_momentum
    )
    rng = np.random.default_rng([seed, 1])
    module.train()
    for step in range(recipe.steps):
        rows = torch.from_numpy(rng.choice(len(label), recipe.batch, replace=False))
        template = _PLAN.captions[int(rng.integers(len(_PLAN.captions)))]
        text = model.text_vectors([template.format(name) for name in _PLAN.class_names])
        seen = model.image_vectors(pixels[rows])
        loss = contrastive_loss(seen, text[label[rows]], label[rows], module.logit_scale.exp())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if recipe.clip is not None:
            torch.nn.utils.clip_grad_norm_(module.parameters(), recipe.clip)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            module.logit_scale.clamp_(max=float(np.log(100)))
        report(Step("training", step + 1, recipe.steps, {"loss": float(loss.detach())}))
    module.eval()
    return model


def predictions(model: DualEncoder, image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(I,) zero-shot class of each scene, by the average of the plan's prompts."""
    texts = [model.encode_texts([p.format(name) for name in _PLAN.class_names]) for p in _PLAN.prompts]
    blocks = [model.encode_images(_pictures(image[a : a + 256])) for a in range(0, len(image), 256)]
    return (np.concatenate(blocks) @ np.mean(texts, 0).T).argmax(1)  # type: ignore[no-any-return]


def cached_family(family: str, folder: Path, seed: int) -> Path:
    """The directory of a model below `folder`, trained now where it lacks it; it is there whole or not at all.

    Its name holds a digest of recipe, captions and scenes, so that a change trains anew. Raises ValueError as
    `recipe_of`.
    """
    sample = digit_world("train", 64, *CORRELATED, seed)
    setting = {
        "recipe": asdict(recipe_of(family)),
        "captions": _PLAN.captions,
        "scenes": pixels_digest(sample.image),
    }
    target = folder / f"{family}-digits-s{seed}-{digest(setting)}"
    if not target.exists():
        model = train(family, digit_world("train", 4000, *CORRELATED, seed), seed)
        with whole(target) as partial:
            model.save(partial)
    return target


def strength(model: DualEncoder, world: World) -> Reliance:
    """How much a model relies on the red square; on scenes without correlation."""
    right = predictions(model, world.image) == world.label
    return Reliance(float(right.mean()), **reliance(right, world.label, world.mark, _PLAN.target_of("red square")))


def _pictures(image: NDArray[np.uint8]) -> list[Image.Image]:
    return [Image.fromarray(pixels) for pixels in image]


# --- the families ----------------------------------------------------------------------------------------------------


def siglip(shape: Architecture) -> Parts:
    """An untrained SigLIP with such a vision tower, its tokenizer and its image processor. Text 2 x 64.

    The weights are drawn from torch's generator. The vectors are as long as the vision tower is wide.
    """
    from transformers import SiglipConfig, SiglipModel
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    tokenizer = tokenizer_of(_PLAN)
    text, vision = towers(tokenizer, shape)
    module = SiglipModel(SiglipConfig(text_config={**text, "projection_size": shape.width}, vision_config=vision))
    return module, tokenizer, SiglipImageProcessorPil(size={"height": shape.side, "width": shape.side})


def _siglip() -> DualEncoder:
    """Vision 4 x 128 on 4 x 4 patches of 14 pixels."""
    module, tokenizer, processor = siglip(ARCHITECTURES["vit14"])
    with torch.no_grad():
        module.logit_scale.fill_(float(np.log(1 / 0.07)))  # as CLIP begins; transformers draws it at random
    return transformers_dual.assemble("siglip", module, tokenizer, processor, torch.device("cpu"))


def _resnet() -> DualEncoder:
    """Four stages of one block, width 8, on 128 x 128 pixels, so that the last map has 4 x 4 cells; text 2 x 64."""
    library = open_clip.library()
    tokenizer = tokenizer_of(_PLAN)
    vision: dict[str, Any] = {"image_size": 128, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}
    text: dict[str, Any] = {"context_length": CONTEXT, "vocab_size": len(tokenizer), "hf_tokenizer_name": "own"}
    text |= {"width": 64, "heads": 4, "layers": 2, "pool_type": "eos", "eos_id": tokenizer.eos_token_id}
    config = {"embed_dim": 64, "vision_cfg": vision, "text_cfg": text}
    module = library.model.CLIP(**{**config, "vision_cfg": dict(vision), "text_cfg": dict(text)})
    settings = {"size": 128, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    settings |= {"mode": "RGB", "interpolation": "bicubic", "resize_mode": "shortest", "fill_color": 0}
    library.model.set_model_preprocess_cfg(module, settings)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        reader = library.tokenizer.HFTokenizer(folder, context_length=CONTEXT)
    return open_clip.assemble("resnet", module, reader, config, torch.device("cpu"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train a model, write it, and print how strong its shortcut is."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("family", choices=sorted(RECIPES))
    parser.add_argument("folder", type=Path, help="where the model is written")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    def show(step: Step) -> None:
        if step.done % 50 == 0:
            print(f"step {step.done} of {step.total}, loss {step.facts['loss']:.3f}", flush=True)

    model = train(options.family, digit_world("train", 4000, *CORRELATED, options.seed), options.seed, report=show)
    model.save(options.folder)
    found = strength(model, digit_world("test", 1500, *UNCORRELATED, options.seed))
    print(json.dumps(found.__dict__))


if __name__ == "__main__":
    main()
