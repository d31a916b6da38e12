"""Every family of models, built from its configuration with random weights: each keeps the definitions of its encoders.

A region that is the whole image is the image; nothing outside a region changes it; a crop is a forward pass over the
cut-out box; what is saved is the same model.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ravl
from ravl import vlm
from ravl.cli import main
from ravl.data.painting import square_crop
from ravl.errors import ConfigError, ModelError
from ravl.mitigation import baselines, lora
from ravl.mitigation.card import model_card
from ravl.vlm import roi
from ravl.vlm.model import DualEncoder
from ravl.vlm.references import resolve
from ravl.vlm.towers import TokenTower, WholeTower, same
from tests import models
from tests.torchvision_apart import import_open_clip
from tests.worlds import COLOURS, colour_folder

WORDS = (*COLOURS, "cat")
TIMM = {"timm_pool": "token", "timm_proj": "linear", "image_size": 160}
FAMILIES: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "clip": ("tokens", lambda at: models.small_clip(at, WORDS)),
    "siglip": ("tokens", lambda at: models.small_siglip(at, WORDS)),
    "metaclip-2": ("tokens", lambda at: models.small_metaclip(at, WORDS)),
    "vit-with-bert": ("crop", lambda at: models.small_dual(at, WORDS)),
}
OPEN_CLIP: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "class-token": ("tokens", models.VIT, {}),
    "mean-pool": ("tokens", {**models.VIT, "pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True}, {}),
    "attention-pool": ("tokens", {**models.VIT, "attentional_pool": True, "attn_pooler_heads": 2}, {}),
    "resnet": ("roi", models.RESNET, {}),
    "biomedclip": ("tokens", {"timm_model_name": "test_vit", **TIMM, "timm_pool": ""}, {"bert": True}),
    "squashed": ("tokens", models.VIT, {"preprocess": {**models.PREPROCESS, "resize_mode": "squash"}}),
    "timm": ("tokens", {"timm_model_name": "test_vit", **TIMM}, {}),
    "timm-registers": ("tokens", {"timm_model_name": "test_vit2", **TIMM, "timm_pool": "avg"}, {}),
    "timm-siglip": (
        "tokens",
        {"timm_model_name": "test_vit3", **TIMM, "timm_pool": "map", "timm_proj": "none"},
        {"dim": 96},
    ),
    "timm-efficientnet": ("crop", {"timm_model_name": "test_efficientnet", **TIMM, "timm_pool": "avg"}, {}),
}
EVERY = [*FAMILIES, *OPEN_CLIP]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a family's model, written when it is first asked for."""
    root = tmp_path_factory.mktemp("families")

    def folder(name: str) -> Path:
        at = root / name
        if name in OPEN_CLIP:
            import_open_clip()
        if not at.exists():
            if name in FAMILIES:
                FAMILIES[name][1](at)
            else:
                models.small_open_clip(at, WORDS, OPEN_CLIP[name][1], **OPEN_CLIP[name][2])
        return at

    return folder


@pytest.fixture(params=EVERY)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(made: Callable[[str], Path], family: str) -> DualEncoder:
    return vlm.load(str(made(family)), "cpu")


@pytest.fixture
def pictures(model: DualEncoder) -> list[Image.Image]:
    """One of the model's own size, one wide, one high."""
    rng, side = np.random.default_rng(0), model.input_size
    sizes = [(side, side), (90, 61), (31, 64)]
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


def quadrants(model: DualEncoder, pictures: list[Image.Image]) -> list[np.ndarray]:
    found = []
    for x0, y0, x1, y1 in model.view(np.array([picture.size for picture in pictures])).tolist():
        x, y = (x0 + x1) // 2, (y0 + y1) // 2
        found.append(np.array([[x0, y0, x, y], [x, y0, x1, y], [x0, y, x, y1], [x, y, x1, y1]]))
    return found


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def expected_encoder(family: str) -> str:
    return FAMILIES[family][0] if family in FAMILIES else OPEN_CLIP[family][0]


# --- definitions -----------------------------------------------------------------------------------------------------


def test_the_encoder_and_why(model: DualEncoder, family: str) -> None:
    assert model.encoders[0] == expected_encoder(family)
    assert model.encoders[-1] == "crop"
    assert f"({model.encoders[0]})" in model.why


@torch.no_grad()
def test_images_and_texts_are_the_models_own(model: DualEncoder, pictures: list[Image.Image], family: str) -> None:
    pixels = model.prepare(pictures)
    if family in OPEN_CLIP:
        own = model.module.encode_image(pixels)
    else:
        own = model.module.get_image_features(pixels).pooler_output
    assert np.allclose(model.encode_images(pictures), unit(own.numpy()), atol=1e-5)
    texts = model.encode_texts(["a photo of cat", "a photo of leaf", "a " * 100])
    assert texts.shape == (3, model.dim)
    assert np.allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-5)
    assert not np.allclose(texts[0], texts[1], atol=1e-5)
    assert np.allclose(texts[:1], model.encode_texts(["a photo of cat"]), atol=1e-5)  # whatever else is in the batch


def test_a_region_that_is_the_whole_image_is_the_image(model: DualEncoder, pictures: list[Image.Image]) -> None:
    square = pictures[:1]
    whole = [np.array([[0, 0, *square[0].size]])]
    for encoder in model.encoders:
        found = model.encode_regions(square, whole, encoder, 0.0)
        assert np.allclose(found.region, found.image, atol=1e-5)
        assert np.allclose(found.image, model.encode_images(square), atol=1e-5)
        assert found.feature.shape == (1, model.feature_dim)


def test_nothing_outside_a_region_changes_it(model: DualEncoder, pictures: list[Image.Image]) -> None:
    """Not so with roi: a cell of the last map has seen nearly all of the image."""
    picture, own = pictures[0], quadrants(model, pictures[:1])[0][:1]
    other = Image.new("RGB", picture.size, (255, 0, 0))
    box = tuple(own[0].tolist())
    other.paste(picture.crop(box), box[:2])
    for encoder in {"tokens", "crop"} & set(model.encoders):
        before, after = (model.encode_regions([image], [own], encoder, 0.0) for image in (picture, other))
        assert np.array_equal(before.region, after.region)
        assert np.array_equal(before.feature, after.feature)
        assert not np.allclose(before.image, after.image, atol=1e-4)


def test_a_crop_is_a_forward_pass_over_the_cut_out_box(model: DualEncoder, pictures: list[Image.Image]) -> None:
    boxes = quadrants(model, pictures)
    cut = [square_crop(p, box, 0.25) for p, own in zip(pictures, boxes, strict=True) for box in own]
    assert np.allclose(model.encode_regions(pictures, boxes, "crop", 0.25).region, model.encode_images(cut), atol=1e-5)


def test_regions_have_a_gradient_and_the_same_values(model: DualEncoder, pictures: list[Image.Image]) -> None:
    encoder, boxes = model.encoders[0], quadrants(model, pictures)
    found = model.encode_regions(pictures, boxes, encoder, 0.1)
    owner = np.repeat(np.arange(3), 4)
    if encoder == "crop":
        image, region = (
            model.image_vectors(model.pixels(pictures)),
            model.image_vectors(model.crop_pixels(pictures, boxes, 0.1)),
        )
    else:
        places = model.places(np.array([p.size for p in pictures])[owner], np.concatenate(boxes))
        image, region = model.image_and_region_vectors(model.pixels(pictures), torch.from_numpy(owner), places)
    assert np.allclose(image.detach().numpy(), found.image, atol=1e-5)
    assert np.allclose(region.detach().numpy(), found.region, atol=1e-5)
    (region @ torch.ones(model.dim)).sum().backward()
    moved = {n for n, p in model.module.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert moved
    assert all(name.startswith(model.parts["tower"]) for name in moved) or encoder == "crop"
    assert any(name.startswith(model.parts["projection"]) for name in moved) or encoder == "crop"


def test_leaving_tokens_out(model: DualEncoder, pictures: list[Image.Image]) -> None:
    if not model.drops_tokens:
        with pytest.raises(ValueError, match="needs a vision transformer"):
            model.encode_without(pictures, [np.zeros((0, 4), int)] * 3)
        return
    assert np.allclose(
        model.encode_without(pictures, [np.zeros((0, 4), int)] * 3), model.encode_images(pictures), atol=1e-5
    )
    boxes = quadrants(model, pictures)
    alone = model.encode_regions(pictures, [own[1:2] for own in boxes], "tokens", 0.0).region
    assert np.allclose(model.encode_without(pictures, [own[[0, 2, 3]] for own in boxes]), alone, atol=1e-5)
    nothing = model.encode_without(pictures, boxes)  # no patch is left
    assert np.allclose(np.linalg.norm(nothing, axis=1), 1, atol=1e-4)


def test_no_regions_and_no_images(model: DualEncoder, pictures: list[Image.Image]) -> None:
    assert model.encode_images([]).shape == model.encode_texts([]).shape == (0, model.dim)
    for encoder in model.encoders:
        found = model.encode_regions(pictures[:1], [np.zeros((0, 4), int)], encoder, 0.1)
        assert found.region.shape == (0, model.dim)
        assert found.feature.shape == (0, model.feature_dim)
    places = model.places(np.zeros((0, 2), int), np.zeros((0, 4), int)) if model.encoders[0] != "crop" else None
    if places is not None:
        none = torch.zeros(0, dtype=torch.long)
        assert model.region_vectors(model.pixels(pictures[:1]), none, places).shape == (0, model.dim)


def test_what_is_saved_is_the_same_model(model: DualEncoder, pictures: list[Image.Image], tmp_path: Path) -> None:
    before = model.fingerprint
    model.save(tmp_path / "copy")
    assert not [path for path in (tmp_path / "copy").rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]
    copy = vlm.load(str(tmp_path / "copy"), "cpu")
    assert (copy.fingerprint, copy.preprocessing, copy.tau) == (before, model.preprocessing, model.tau)
    assert np.array_equal(copy.encode_images(pictures), model.encode_images(pictures))
    assert np.array_equal(copy.encode_texts(["a photo of cat"]), model.encode_texts(["a photo of cat"]))
    assert resolve(copy.name).name == copy.name  # a run loads its model by the resolved form


def test_the_cost_is_about_what_autograd_keeps(model: DualEncoder, family: str) -> None:
    """Every tensor that is kept for the backward pass, once, but not the weights."""
    for name, parameter in model.module.named_parameters():
        parameter.requires_grad_(name.startswith(model.parts["tower"]))
    own = {parameter.untyped_storage().data_ptr() for parameter in model.module.parameters()}

    def kept(run: Callable[[], Any]) -> float:
        held: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            _out = run()
        return sum(size for place, size in held.items() if place not in own) / 4

    pixels, side = torch.rand(6, 3, model.input_size, model.input_size), model.input_size
    image = kept(lambda: model.image_vectors(pixels))
    deep, shallow = model.cost(True), model.cost(False)
    assert 0.6 < 6 * deep.image / image < 1.6
    assert 0 < shallow.image < deep.image
    assert (deep.token > 0) == (model.encoders[0] != "crop")
    # an attention pool's 256 queries weigh more than three small layers
    if model.encoders[0] == "crop" or family == "attention-pool":
        return
    half, size = side // 2, np.full((24, 2), side)
    box = np.array([[0, 0, half, half], [half, 0, side, half], [0, half, half, side], [half, half, side, side]] * 6)
    owner, places = torch.arange(6).repeat_interleave(4), model.places(size, box)
    regions = kept(lambda: model.image_and_region_vectors(pixels, owner, places)) - image
    told = deep.token * (24 * deep.prefix + model.patch_counts(size, box).sum())
    assert 0.7 < told / regions < 1.5


@pytest.mark.parametrize("family", ["siglip", "metaclip-2", "vit-with-bert", "resnet", "attention-pool", "biomedclip"])
def test_audit_and_repair_end_with_the_models_own_format(
    made: Callable[[str], Path], family: str, tmp_path: Path
) -> None:
    where = made(family)
    colour_folder(tmp_path / "val", 12, seed=0)
    run = ravl.discover(
        tmp_path / "val", where, clustering="kmedoids", until="evidence", device="cpu", workspace=tmp_path / "w"
    )
    assert len(run.features()) > 0
    result = ravl.mitigate(run, tmp_path / "val", features=[0], steps=2, batch_size=8, device="cpu", name="r")
    before, after = vlm.load(run.config.model, "cpu"), vlm.load(result["model"], "cpu")
    assert (after.encoders, after.preprocessing) == (before.encoders, before.preprocessing)
    tower = before.parts["tower"]
    old, new = before.module.state_dict(), after.module.state_dict()
    assert list(old) == list(new)
    still = [name for name in old if not name.startswith(tower)]
    assert all(torch.equal(old[name], new[name]) for name in still)  # text tower and temperature


# --- a tower taken apart ---------------------------------------------------------------------------------------------


def test_a_tower_that_answers_otherwise_is_not_trusted() -> None:
    linear = torch.nn.Linear(12, 5)

    def tower(scale: float) -> TokenTower:
        return TokenTower(
            lambda p: p.flatten(2).mT.repeat(1, 1, 4),
            [lambda t: t],
            lambda t: scale * linear(t.mean(1)),
            0,
            9,
            12,
            48,
            False,
        )

    pixels = torch.rand(1, 3, 3, 3)
    right, wrong = tower(1.0), tower(1.1)
    forward = lambda p: right.whole(right.begin(p))[0]  # noqa: E731
    assert same(right, forward, pixels) == ""
    assert "answer otherwise than the whole" in same(wrong, forward, pixels)
    assert "instead of (1, 7)" in same(right, lambda p: torch.zeros(1, 7), pixels)
    broken = TokenTower(lambda p: p.no_such_thing, [], lambda t: t, 0, 9, 12, 48, False)
    assert "could not be run one by one" in same(broken, forward, pixels)


def test_a_model_whose_layers_are_not_understood_falls_back_to_crops(
    made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tower like CLIP's, but with something in between."""
    from transformers.models.clip.modeling_clip import CLIPVisionModel

    plain = CLIPVisionModel.forward

    def shifted(self: Any, *args: Any, **options: Any) -> Any:
        out = plain(self, *args, **options)
        out.pooler_output = out.pooler_output + 1
        return out

    monkeypatch.setattr(CLIPVisionModel, "forward", shifted)
    model = vlm.load(str(made("clip")), "cpu")
    assert model.encoders == ("crop",)
    assert isinstance(model.tower, WholeTower)
    assert model.why.startswith("regions are cut out (crop): its layers, run one by one, answer otherwise")


# --- SigLIP ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_siglips_pool_sees_the_tokens_of_the_region_alone(made: Callable[[str], Path]) -> None:
    """The whole module runs on a region's tokens as if they were a picture."""
    model = vlm.load(str(made("siglip")), "cpu")
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (48, 48, 3), dtype=np.uint8))
    box = np.array([[8, 0, 48, 24]])
    found = model.encode_regions([picture], [box], "tokens", 0.0)
    vision = model.module.vision_model
    tokens = vision.embeddings(model.pixels([picture])).reshape(1, 6, 6, 32)[:, 0:3, 1:6].reshape(1, 15, 32)
    middle = tokens
    for layer in vision.encoder.layers[:2]:
        middle = layer(middle, attention_mask=None)
    last = vision.encoder.layers[2](middle, attention_mask=None)
    assert np.allclose(found.region, unit(vision.head(vision.post_layernorm(last)).numpy()), atol=1e-5)
    assert np.allclose(found.feature, middle.amax(1).numpy(), atol=1e-5)


def test_siglips_own_tokenizer_of_sentence_pieces(made: Callable[[str], Path], tmp_path: Path) -> None:
    import sentencepiece
    from transformers import SiglipTokenizer

    pieces = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([f"a photo of {one} and {two}" for one in WORDS for two in WORDS]), model_writer=pieces,
        vocab_size=24, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2, num_threads=1, hard_vocab_limit=False,
    )  # fmt: skip
    (tmp_path / "spiece.model").write_bytes(pieces.getvalue())
    folder = shutil.copytree(made("siglip"), tmp_path / "siglip")
    vocabulary = json.loads((folder / "config.json").read_text())["text_config"]["vocab_size"]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    tokenizer = SiglipTokenizer(str(tmp_path / "spiece.model"), model_max_length=12)
    tokenizer.save_pretrained(folder)
    model = vlm.load(str(folder), "cpu")
    grown = torch.nn.Embedding(max(vocabulary, len(tokenizer)), 16)
    model.module.text_model.embeddings.token_embedding = grown
    one, two = model.encode_texts(["a photo of cat", "a photo of leaf"])
    ids = tokenizer(["a photo of cat"], padding="max_length", max_length=12, truncation=True, return_tensors="pt")
    own = model.module.get_text_features(input_ids=ids["input_ids"]).pooler_output  # padded, and nothing masked
    assert np.allclose(one, unit(own.detach().numpy())[0], atol=1e-5)
    assert not np.allclose(one, two, atol=1e-5)


def test_siglips_temperature_is_its_own(made: Callable[[str], Path]) -> None:
    model = vlm.load(str(made("siglip")), "cpu")
    with torch.no_grad():
        model.module.logit_scale.fill_(np.log(100.0))
    assert model.tau == pytest.approx(0.01)


def test_siglip_2_of_variable_resolution_is_refused(made: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(made("siglip"), tmp_path / "naflex")
    (folder / "config.json").write_text(json.dumps({"model_type": "siglip2"}))
    with pytest.raises(ModelError, match=r"variable resolution \(NaFlex\)"):
        vlm.load(str(folder), "cpu")


# --- ResNets ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def resnet(made: Callable[[str], Path]) -> DualEncoder:
    return vlm.load(str(made("resnet")), "cpu")


def sampled(maps: np.ndarray, x: float, y: float) -> np.ndarray:
    """(C,) bilinear: maps (C, h, w) have their values in the middles of the cells, and stay the same beyond."""
    height, width = maps.shape[1:]
    x, y = np.clip(x - 0.5, 0, width - 1), np.clip(y - 0.5, 0, height - 1)
    left, top = int(x), int(y)
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    a, b = x - left, y - top
    row = [(1 - a) * maps[:, j, left] + a * maps[:, j, right] for j in (top, bottom)]
    return (1 - b) * row[0] + b * row[1]


@torch.no_grad()
def test_roi_is_the_attention_pool_over_the_sampled_map(resnet: DualEncoder) -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (128, 128, 3), dtype=np.uint8))
    boxes = np.array([[0, 0, 64, 64], [32, 0, 96, 128], [5, 17, 77, 101]])
    found = resnet.encode_regions([picture], [boxes], "roi", 0.0)
    visual = resnet.module.visual
    before = visual.layer3(visual.layer2(visual.layer1(visual.stem(resnet.pixels([picture])))))
    last = visual.layer4(before)
    assert last.shape[-1] == 4
    for row, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        cut = []
        for maps in (last[0].numpy(), before[0].numpy()):
            cell = 128 / maps.shape[-1]
            points = [
                sampled(maps, (x0 + (i + 0.5) / 4 * (x1 - x0)) / cell, (y0 + (j + 0.5) / 4 * (y1 - y0)) / cell)
                for j in range(4)
                for i in range(4)
            ]
            cut.append(np.stack(points, 1))
        own = visual.attnpool(torch.from_numpy(cut[0].reshape(1, -1, 4, 4).astype(np.float32)))
        assert np.allclose(found.region[row], unit(own.numpy())[0], atol=1e-4)
        assert np.allclose(found.feature[row], cut[1].max(1), atol=1e-4)
    assert len({tuple(np.round(vector, 5)) for vector in found.region}) == 3


def test_of_a_mask_only_its_bins_count(resnet: DualEncoder) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8))
    box = [np.array([[0, 0, 128, 128]])]
    left = np.zeros((128, 128), bool)
    left[:, :64] = True
    masked = resnet.encode_regions([picture], box, "roi", 0.0, [[left]])
    plain = resnet.encode_regions([picture], box, "roi", 0.0)
    full = resnet.encode_regions([picture], box, "roi", 0.0, [[np.ones((128, 128), bool)]])
    assert np.allclose(full.region, plain.region, atol=1e-6)
    assert not np.allclose(masked.feature, plain.feature, atol=1e-3)
    assert (masked.feature <= plain.feature + 1e-6).all()  # the largest values of fewer bins
    rest = resnet.encode_regions([picture], box, "roi", 0.0, [[~left]])
    assert np.allclose(np.maximum(masked.feature, rest.feature), plain.feature, atol=1e-6)
    assert roi._bins(np.zeros((3, 5), bool), 4).all()  # a mask between the bins' middles


def test_the_one_query_of_the_pool_is_the_first_of_all(resnet: DualEncoder) -> None:
    attention, maps = resnet.module.visual.attnpool, torch.randn(3, 256, 4, 4)
    assert torch.allclose(roi.pool(attention, maps), attention(maps), atol=1e-5)


def test_statistics_of_a_resnet_stay_when_it_learns(resnet: DualEncoder) -> None:
    assert not resnet.module.training
    before = resnet.module.visual.bn1.running_mean.clone()
    resnet.image_vectors(torch.rand(2, 3, 128, 128)).sum().backward()
    assert torch.equal(before, resnet.module.visual.bn1.running_mean)


# --- open_clip -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(128, 128), (201, 97), (61, 90)])
def test_patches_lie_where_open_clips_own_preprocessing_puts_them(
    made: Callable[[str], Path], size: tuple[int, int]
) -> None:
    """A patch is painted, and shines in the input where the geometry says."""
    model = vlm.load(str(made("class-token")), "cpu")
    view = model.view(np.array([size]))[0]
    for x, y in ((0.2, 0.3), (0.5, 0.5), (0.9, 0.1)):
        center = (view[0] + x * (view[2] - view[0]), view[1] + y * (view[3] - view[1]))
        box = np.array([[int(c) - 4 for c in center] + [int(c) + 4 for c in center]]).clip(0)
        image = Image.new("RGB", size)
        image.paste((255, 255, 255), tuple(box[0].tolist()))
        shines = model.pixels([image])[0, 0]
        x0, y0, x1, y1 = model.geometry.to_input(np.array([size]), box)[0]
        weight = (shines - shines.min()).clamp(min=0).numpy()
        found = [(weight.sum(axis) * (np.arange(48) + 0.5)).sum() / weight.sum() for axis in (0, 1)]
        assert found == pytest.approx([(x0 + x1) / 2, (y0 + y1) / 2], abs=0.75)


def test_without_its_own_preprocessing_a_model_is_refused(made: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(made("class-token"), tmp_path / "bare")
    config = json.loads((folder / "open_clip_config.json").read_text())
    del config["preprocess_cfg"]
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="does not say its mean and std"):
        vlm.load(str(folder), "cpu")


def test_a_picture_that_does_not_fill_the_input_is_refused(made: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(made("class-token"), tmp_path / "longest")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["resize_mode"] = "longest"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="must see a square that its picture fills"):
        vlm.load(str(folder), "cpu")


def test_pickled_weights_need_an_explicit_word(
    made: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    for name, weights in (("class-token", "open_clip_model"), ("siglip", "model")):
        folder = shutil.copytree(made(name), tmp_path / name)
        pickled = folder / ("open_clip_pytorch_model.bin" if name in OPEN_CLIP else "pytorch_model.bin")
        torch.save(load_file(folder / f"{weights}.safetensors"), pickled)
        (folder / f"{weights}.safetensors").unlink()
        with pytest.raises(ModelError, match=r"a pickle that could run any code.*RAVL_ALLOW_PICKLE=1"):
            vlm.load(str(folder), "cpu")
        assert vlm.load(str(folder), "cpu", pickled=True).dim > 0
        monkeypatch.setenv("RAVL_ALLOW_PICKLE", "1")
        assert vlm.load(str(folder), "cpu").fingerprint == vlm.load(str(made(name)), "cpu").fingerprint
        with open(pickled, "wb") as file:  # the restricted loader runs nothing
            import pickle

            pickle.dump({"a": print}, file, protocol=2)
        with pytest.raises(ModelError, match=r"weights of the model .* could not be loaded"):
            vlm.load(str(folder), "cpu")
        monkeypatch.delenv("RAVL_ALLOW_PICKLE")


def test_low_rank_adapters_are_for_transformers(made: Callable[[str], Path]) -> None:
    model = vlm.load(str(made("class-token")), "cpu")
    with pytest.raises(ConfigError, match="--lora-rank needs a model of the transformers library"):
        lora.insert(model, 2, 0)
    siglip = vlm.load(str(made("siglip")), "cpu")
    before = siglip.encode_images([Image.new("RGB", (50, 50), (9, 99, 199))])
    lora.insert(siglip, 2, 0)
    assert any("lora_" in name for name, _ in siglip.module.named_parameters())
    lora.merge(siglip)
    assert np.allclose(siglip.encode_images([Image.new("RGB", (50, 50), (9, 99, 199))]), before, atol=1e-6)
    assert not any("lora_" in name for name, _ in siglip.module.named_parameters())


@pytest.mark.parametrize("family", ["clip", "resnet", "class-token", "timm", "siglip"])
def test_projecting_a_direction_out_of_the_last_layer(made: Callable[[str], Path], family: str) -> None:
    model = vlm.load(str(made(family)), "cpu")
    rng = np.random.default_rng(0)
    region = unit(rng.normal(size=(40, model.dim)))
    feature = np.repeat([-1, 3], 20)
    if family == "siglip":
        with pytest.raises(ConfigError, match="needs a vision tower that ends in a linear layer"):
            baselines.project_out(model, region, feature)
        return
    baselines.project_out(model, region, feature)
    direction = region[feature == 3].mean(0) - region[feature < 0].mean(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (60, 60, 3), dtype=np.uint8)) for _ in range(4)]
    assert np.abs(model.encode_images(pictures) @ unit(direction)).max() < 1e-4


def test_a_text_tower_of_transformers_needs_no_hub_once_it_is_saved(
    made: Callable[[str], Path], tmp_path: Path
) -> None:
    """As BiomedCLIP's BERT, whose configuration open_clip asks the hub for."""
    model = vlm.load(str(made("biomedclip")), "cpu")
    model.save(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_model_name"] = "nobody/nothing-here"
    (tmp_path / "saved" / "open_clip_config.json").write_text(json.dumps(config))
    again = vlm.load(str(tmp_path / "saved"), "cpu")
    assert np.array_equal(again.encode_texts(["a photo of cat"]), model.encode_texts(["a photo of cat"]))


def test_the_card_of_a_repaired_model_says_what_loads_it() -> None:
    result = {"run": "r", "name": "n", "method": "ravl", "compared_on": "/x", "fingerprints": {}, "features": []}
    texts = [
        model_card(name, ("a",), ("a {}",), {**result, "changes": []})
        for name in ("local-dir:/home/ada/resnet", "hf-hub:org/repo", "open_clip:RN50/openai", "org/repo")
    ]
    assert [text.split("library_name: ")[1].split()[0] for text in texts] == ["open_clip"] * 3 + ["transformers"]
    assert ["base_model" in text for text in texts] == [False, True, False, True]
    assert 'base_model: "org/repo"' in texts[1]
    assert "# resnet, repaired" in texts[0]
    assert "/home/ada" not in texts[0]


# --- references ------------------------------------------------------------------------------------------------------


def test_references(made: Callable[[str], Path], tmp_path: Path) -> None:
    assert resolve("openai/clip-vit-base-patch32").family == "transformers"
    assert resolve("hf-hub:org/repo").family == "open_clip"
    listed = resolve("open_clip:ViT-B-32/laion2b_s34b_b79k")
    assert (listed.family, listed.where) == ("open_clip", "ViT-B-32/laion2b_s34b_b79k")
    folder = made("class-token")
    assert resolve(str(folder)) == resolve(f"local-dir:{folder}")
    assert resolve(str(folder)).name == f"local-dir:{folder.resolve()}"
    (tmp_path / "timm").mkdir()
    for file in folder.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path / "timm")
    (tmp_path / "timm" / "config.json").write_text(json.dumps({"architecture": "vit_base_patch16_224"}))
    assert resolve(str(tmp_path / "timm")).family == "open_clip"  # timm's own config.json
    for broken, match in (
        ("open_clip:ViT-B-32", "open_clip:ARCHITECTURE/TAG"),
        (f"local-dir:{tmp_path}", r"must hold open_clip_config\.json"),
    ):
        with pytest.raises(ModelError, match=match):
            resolve(broken)


@pytest.mark.parametrize("reference", ["hf-hub:nobody/nothing-here", "nobody/nothing-here"])
def test_a_hub_that_cannot_be_reached(reference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import_open_clip()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"could not be loaded: .* HF_HUB_OFFLINE is set, so only what was downloaded"):
        vlm.load(reference, "cpu")


def test_a_name_that_open_clip_does_not_list() -> None:
    import_open_clip()
    with pytest.raises(ModelError, match=r"open_clip does not list ViT-B-32/nothing; its tags are .*laion2b_s34b_b79k"):
        vlm.load("open_clip:ViT-B-32/nothing", "cpu")
    with pytest.raises(ModelError, match=r"open_clip does not list ViT-Z-99/openai; [0-9]+ others are"):
        vlm.load("open_clip:ViT-Z-99/openai", "cpu")


def test_without_the_extra_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "open_clip", None)
    with pytest.raises(ModelError, match=r"pip install 'ravl-dashboard\[open-clip\]'"):
        vlm.load("open_clip:ViT-B-32/laion2b_s34b_b79k", "cpu")


# --- the README ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["models", "models open_clip"])
def test_the_readmes_commands_as_they_stand(
    made: Callable[[str], Path],
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    block = text.split(f"<!-- {kind} -->")[1].split("<!-- /models -->")[0]
    commands = [line.split() for line in block.splitlines() if line.startswith(".venv/bin/ravl ")]
    assert commands
    monkeypatch.chdir(tmp_path)
    colour_folder(tmp_path / "photos", 6)
    for name, family in (("my-clip", "clip"), ("my-siglip", "siglip"), ("my-resnet", "resnet")):
        if f" {name}/" in block or f":{name}/" in block:
            shutil.copytree(made(family), tmp_path / name)
    for command in commands:
        assert main(command[1:]) == 0
        out = capsys.readouterr().out
        wanted = (
            "roi: the encoder roi was asked for" if "roi" in command else "tokens: regions are embedded by their own"
        )
        assert f"encoder {wanted}" in out


def test_an_audit_says_why_it_cuts_regions_out(made: Callable[[str], Path], tmp_path: Path) -> None:
    colour_folder(tmp_path / "val", 6)

    def said(family: str, regions: str) -> dict[str, str]:
        run = ravl.discover(
            *(tmp_path / "val", made(family)), regions=regions, until="evidence", device="cpu", workspace=tmp_path / "w"
        )
        return dict(run.about["encoder"])

    fine = said("siglip", "grid:6")
    assert fine["name"] == "crop"
    assert "648 of 648 hold fewer than 4 of the model's patches, which is too little for tokens" in fine["why"]
    assert said("vit-with-bert", "grid:2")["why"].endswith("vision-text-dual-encoder are not known")
    assert said("resnet", "grid:2")["name"] == "roi"
