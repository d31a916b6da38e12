"""The small SigLIP and ResNet: they learn, and what is written is loaded like any other model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ravl import vlm
from ravl.planted import tiny_families
from ravl.planted.digits import CORRELATED, UNCORRELATED, World, digit_world
from ravl.planted.tiny_clip import CONTEXT, Architecture
from ravl.planted.tiny_families import RECIPES, build, cached_family, predictions, siglip, strength, train
from ravl.tables import Step
from ravl.vlm.model import DualEncoder
from tests.torchvision_apart import import_open_clip


@pytest.mark.parametrize(("family", "encoder"), [("siglip", "tokens"), ("resnet", "roi")])
def test_a_few_steps_lower_the_loss_and_the_model_can_be_saved(family: str, encoder: str, tmp_path: Path) -> None:
    import_open_clip()
    world, seen = digit_world("train", 160, *CORRELATED, 100), list[Step]()
    recipe = replace(RECIPES[family], steps=8, batch=32)
    before = build(family, 100)
    model = train(family, world, 100, recipe, seen.append)
    losses = [step.facts["loss"] for step in seen]
    assert len(losses) == 8
    assert np.mean(losses[-2:]) < np.mean(losses[:2])
    assert not model.module.training
    old, new = before.module.state_dict(), model.module.state_dict()
    assert any(not torch.equal(old[name], new[name]) for name in old if name.startswith(model.parts["tower"]))
    if family == "resnet":
        assert not torch.equal(old["visual.bn1.running_mean"], new["visual.bn1.running_mean"])
    model.save(tmp_path / "model")
    loaded = vlm.load(str(tmp_path / "model"), "cpu")
    assert loaded.encoders == (encoder, "crop")
    assert loaded.fingerprint == model.fingerprint
    assert np.array_equal(predictions(loaded, world.image), predictions(model, world.image))


def test_reliance_is_measured_on_scenes_without_correlation() -> None:
    found = strength(build("siglip", 100), digit_world("test", 300, *UNCORRELATED, 100))
    assert 0 <= found.accuracy < 0.5  # untrained
    assert -1 <= found.eps1 <= 1
    assert -1 <= found.eps2 <= 1


def test_the_same_seed_gives_the_same_model() -> None:
    import_open_clip()
    for family in RECIPES:
        assert build(family, 7).fingerprint == build(family, 7).fingerprint != build(family, 8).fingerprint


def test_a_siglip_of_other_sizes() -> None:
    module, tokenizer, processor = siglip(Architecture(side=32, patch=8, layers=1, width=24, heads=2))
    vision = module.config.vision_config
    assert (vision.num_hidden_layers, vision.num_attention_heads, vision.intermediate_size) == (1, 2, 96)
    pixels = processor([Image.new("RGB", (50, 40))], return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 32, 32)
    text = tokenizer(["a nine"], padding="max_length", return_tensors="pt")["input_ids"]
    assert text.shape == (1, CONTEXT)
    with torch.no_grad():
        out = module(input_ids=text, pixel_values=pixels)
    assert out.vision_model_output.last_hidden_state.shape == (1, 16, 24)
    assert out.image_embeds.shape == out.text_embeds.shape == (1, 24)


def test_a_model_is_trained_once_and_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    def quickly(family: str, world: World, seed: int) -> DualEncoder:
        trained.append((family, seed, len(world.image)))
        if len(trained) == 1:
            raise KeyboardInterrupt
        return build(family, seed)

    monkeypatch.setattr(tiny_families, "train", quickly)
    with pytest.raises(KeyboardInterrupt):
        cached_family("siglip", tmp_path, 3)
    assert not list(tmp_path.iterdir())
    first = cached_family("siglip", tmp_path, 3)
    assert cached_family("siglip", tmp_path, 3) == first
    assert trained == 2 * [("siglip", 3, 4000)]
    assert [path.name for path in tmp_path.iterdir()] == [first.name]
    assert vlm.load(str(first), "cpu").fingerprint == build("siglip", 3).fingerprint
    monkeypatch.setitem(tiny_families.RECIPES, "siglip", replace(tiny_families.RECIPES["siglip"], steps=7))
    assert cached_family("siglip", tmp_path, 3) != first
    assert len(trained) == 3


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(ValueError, match="family must be one of siglip, resnet, got 'vit'"):
        build("vit", 0)
