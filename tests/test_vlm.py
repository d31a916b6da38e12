"""Loading, and the region encoders against slow oracles that use transformers' own forward pass."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from ravl import vlm
from ravl.data.painting import square_crop
from ravl.errors import ModelError
from ravl.vlm.model import DualEncoder
from ravl.vlm.references import pick_device
from tests.models import small_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_clip(tmp_path_factory.mktemp("models") / "clip", ("cat", "dog"))


@pytest.fixture(scope="module")
def model(folder):
    return vlm.load(str(folder), "cpu")


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    sizes = [(48, 48), (90, 60), (31, 64)]
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


@pytest.fixture(scope="module")
def boxes(model, pictures):
    views = model.view(np.array([p.size for p in pictures]))
    return [quadrants(view) for view in views]


def quadrants(view):
    x0, y0, x1, y1 = view
    x, y = (x0 + x1) // 2, (y0 + y1) // 2
    return np.array([[x0, y0, x, y], [x, y0, x1, y], [x0, y, x, y1], [x, y, x1, y1]])


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def forward(model, tokens):
    """transformers' own layers over given tokens: class token of the last layer, largest values of the middle one."""
    vision = model.module.vision_model
    states = [tokens]
    for layer in vision.encoder.layers:
        states.append(layer(states[-1], attention_mask=None))
    pooled = model.module.visual_projection(vision.post_layernorm(states[-1][:, 0]))
    middle = states[model.tower.middle]
    return unit(pooled.detach().numpy())[0], (
        middle[:, 1:].amax(1) if middle.shape[1] > 1 else middle[:, 0]
    ).detach().numpy()[0]


@torch.no_grad()
def test_images_equal_transformers_own_features(model, pictures):
    pixels = model.prepare(pictures)
    expected = model.module.get_image_features(pixels).pooler_output.numpy()
    assert np.allclose(model.encode_images(pictures), unit(expected), atol=1e-6)


@torch.no_grad()
def test_tokens_equal_a_pass_over_the_regions_patches_alone(model, pictures, boxes):
    encoded = model.encode_regions(pictures, boxes, "tokens", 0.1)
    row = 0
    for picture, own in zip(pictures, boxes, strict=True):
        tokens = model.tower.begin(model.pixels([picture]))
        assert np.allclose(encoded.image[pictures.index(picture)], forward(model, tokens)[0], atol=1e-5)
        for box in own:
            patches = model.places(np.array([picture.size]), box[None])[0]
            kept = torch.cat([tokens[:, :1], tokens[:, 1:][:, patches]], 1)
            final, middle = forward(model, kept)
            assert np.allclose(encoded.region[row], final, atol=1e-5)
            assert np.allclose(encoded.feature[row], middle, atol=1e-5)
            row += 1
    assert row == len(encoded.region)


@torch.no_grad()
def test_nothing_outside_a_region_can_leak_into_it(model, pictures, boxes):
    """The property that mean-pooled output tokens lack: repaint everything else, the embedding stays bit for bit."""
    picture, own = pictures[0], boxes[0]
    other = Image.new("RGB", picture.size, (255, 0, 0))
    other.paste(picture.crop(tuple(int(v) for v in own[0])), (int(own[0][0]), int(own[0][1])))
    before = model.encode_regions([picture], [own[:1]], "tokens", 0.0)
    after = model.encode_regions([other], [own[:1]], "tokens", 0.0)
    assert np.array_equal(before.region, after.region)
    assert not np.allclose(before.image, after.image, atol=1e-3)


def test_crop_is_a_forward_pass_over_the_cut_out_box(model, pictures, boxes):
    encoded = model.encode_regions(pictures, boxes, "crop", 0.25)
    cut = [square_crop(p, box, 0.25) for p, own in zip(pictures, boxes, strict=True) for box in own]
    assert np.allclose(encoded.region, model.encode_images(cut), atol=1e-6)


def test_leaving_tokens_out(model, pictures, boxes):
    nothing = [np.zeros((0, 4), int)] * 3
    assert np.allclose(model.encode_without(pictures, nothing), model.encode_images(pictures), atol=1e-6)
    one, rest = [own[1:2] for own in boxes], [own[[0, 2, 3]] for own in boxes]
    alone = model.encode_regions(pictures, one, "tokens", 0.0).region
    assert np.allclose(model.encode_without(pictures, rest), alone, atol=1e-5)


def test_the_result_does_not_depend_on_the_batch(model, pictures, boxes):
    together = model.encode_regions(pictures, boxes, "tokens", 0.0)
    alone = [model.encode_regions([p], [b], "tokens", 0.0) for p, b in zip(pictures, boxes, strict=True)]
    assert np.allclose(together.region, np.concatenate([a.region for a in alone]), atol=1e-5)


def test_empty_batches(model):
    assert model.encode_images([]).shape == (0, 24)
    assert model.encode_texts([]).shape == (0, 24)
    for encoder in ("tokens", "crop"):
        encoded = model.encode_regions([Image.new("RGB", (50, 50))], [np.zeros((0, 4), int)], encoder, 0.1)
        assert encoded.region.shape == (0, 24)
        assert encoded.feature.shape == (0, 32)


def test_texts_are_unit_and_long_ones_are_cut(model):
    vectors = model.encode_texts(["a photo of cat", "a " * 100])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_the_fingerprint_stays_with_use_and_follows_the_weights(folder, model):
    before = model.fingerprint
    model.encode_texts(["a " * 100])
    assert model.fingerprint == before
    changed = vlm.load(str(folder), "cpu")
    assert changed.fingerprint == before
    with torch.no_grad():
        changed.module.visual_projection.weight[0, 0] += 1
    assert changed.fingerprint != before


def test_a_saved_model_is_the_same_model(model, pictures, tmp_path):
    model.save(tmp_path / "copy")
    copy = vlm.load(str(tmp_path / "copy"), "cpu")
    assert copy.fingerprint == model.fingerprint
    assert copy.preprocessing == model.preprocessing
    assert np.array_equal(copy.encode_images(pictures), model.encode_images(pictures))


@pytest.mark.parametrize("layers", [1, 2])
def test_very_shallow_models(tmp_path, layers, pictures, boxes):
    model = vlm.load(str(small_clip(tmp_path, ("cat",), layers=layers)), "cpu")
    features = model.encode_regions(pictures, boxes, "tokens", 0.0).feature
    assert np.isfinite(features).all()
    assert features.std(0).max() > 0  # a class token before any layer would be the same everywhere


# --- regions with a mask ---------------------------------------------------------------------------------------------


def ellipse(box):
    x0, y0, x1, y1 = (int(v) for v in box)
    y, x = np.mgrid[0 : y1 - y0, 0 : x1 - x0]
    return ((x + 0.5) / (x1 - x0) - 0.5) ** 2 + ((y + 0.5) / (y1 - y0) - 0.5) ** 2 < 0.2


@pytest.fixture(scope="module")
def masks(model, pictures, boxes):
    """Of the whole view of each picture: an ellipse; of its first quadrant: all."""
    return [[ellipse(whole(own)), None] for own in boxes]


def whole(own):
    return np.array([*own[0][:2], *own[3][2:]])


@pytest.fixture(scope="module")
def masked_boxes(boxes):
    return [np.array([whole(own), own[0]]) for own in boxes]


def repainted(picture, box, mask):
    """Another picture that agrees with this one within the mask only."""
    pixels = np.full((picture.height, picture.width, 3), (255, 0, 90), np.uint8)
    x0, y0, x1, y1 = (int(v) for v in box)
    pixels[y0:y1, x0:x1][mask] = np.asarray(picture)[y0:y1, x0:x1][mask]
    return Image.fromarray(pixels)


@torch.no_grad()
def test_tokens_of_a_mask_equal_a_pass_over_its_patches_alone(model, pictures, masked_boxes, masks):
    encoded = model.encode_regions(pictures, masked_boxes, "tokens", 0.1, masks)
    for i, picture in enumerate(pictures):
        tokens = model.tower.begin(model.pixels([picture]))
        patches = model.places(np.array([picture.size]), masked_boxes[i][:1], masks[i][:1])[0]
        assert 0 < patches.sum() < 36
        final, middle = forward(model, torch.cat([tokens[:, :1], tokens[:, 1:][:, patches]], 1))
        assert np.allclose(encoded.region[2 * i], final, atol=1e-5)
        assert np.allclose(encoded.feature[2 * i], middle, atol=1e-5)
    plain = model.encode_regions(pictures, [own[1:] for own in masked_boxes], "tokens", 0.1)
    assert np.allclose(encoded.region[1::2], plain.region, atol=1e-5)  # None is the whole box


def test_nothing_outside_of_a_mask_can_leak_into_its_tokens(model, pictures, masked_boxes):
    """At the model's own size a patch is a square of pixels, so a mask of whole patches keeps all else out."""
    picture, box = pictures[0], masked_boxes[0][:1]
    mask = np.kron(np.random.default_rng(1).random((6, 6)) < 0.4, np.ones((8, 8))).astype(bool)
    assert mask.shape == (48, 48)
    before, after = (
        model.encode_regions([image], [box], "tokens", 0.0, [[mask]])
        for image in (picture, repainted(picture, box[0], mask))
    )
    assert np.array_equal(before.region, after.region)
    assert np.array_equal(before.feature, after.feature)
    assert not np.allclose(before.image, after.image, atol=1e-3)


def test_nothing_outside_of_a_mask_can_leak_into_its_crop(model, pictures, masked_boxes, masks):
    box, mask = masked_boxes[1], masks[1]
    before, after = (
        model.encode_regions([image], [box[:1]], "crop", 0.25, [mask[:1]])
        for image in (pictures[1], repainted(pictures[1], box[0], mask[0]))
    )
    assert np.array_equal(before.region, after.region)
    assert not np.allclose(before.region, model.encode_regions([pictures[1]], [box[:1]], "crop", 0.25).region)


def test_crops_of_masks_are_forward_passes_over_them(model, pictures, masked_boxes, masks):
    encoded = model.encode_regions(pictures, masked_boxes, "crop", 0.25, masks)
    rows = [
        (p, b, m)
        for p, own, parts in zip(pictures, masked_boxes, masks, strict=True)
        for b, m in zip(own, parts, strict=True)
    ]
    cut = [square_crop(p, b, 0.25, m) for p, b, m in rows]
    assert np.allclose(encoded.region, model.encode_images(cut), atol=1e-6)
    assert torch.equal(model.crop_pixels(pictures, masked_boxes, 0.25, masks), model.pixels(cut))


def test_a_masked_crop_shows_its_region_and_one_colour():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    box, mask = np.array([4, 10, 24, 20]), ellipse([4, 10, 24, 20])
    crop = np.asarray(square_crop(Image.fromarray(pixels), box, 0.1, mask))
    assert crop.shape == (24, 24, 3)  # 20 + 2 x 2 wide, 10 + 2 x 1 high, padded by 6
    expected = np.empty((24, 24, 3), np.uint8)
    expected[:] = pixels[10:20, 4:24][mask].reshape(-1, 3).mean(0).round()
    expected[7:17, 2:22][mask] = pixels[10:20, 4:24][mask]
    assert np.array_equal(crop, expected)


def test_a_mask_of_everything_is_the_box_without_its_margin():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))
    box = np.array([5, 5, 15, 15])
    full = np.ones((10, 10), bool)
    assert square_crop(image, box, 0.0, full).tobytes() == square_crop(image, box, 0.0).tobytes()


def test_dropping_a_mask_keeps_the_other_patches(model, pictures, masked_boxes, masks):
    boxes, parts = [own[:1] for own in masked_boxes], [own[:1] for own in masks]
    rest = [[~own[0]] for own in parts]
    kept = model.encode_without(pictures, boxes, parts)
    assert np.allclose(kept, model.encode_regions(pictures, boxes, "tokens", 0.0, rest).region, atol=1e-5)


def test_patches_are_counted_within_masks(model, pictures, masked_boxes, masks):
    size = np.repeat([p.size for p in pictures], 2, axis=0)
    flat = [mask for own in masks for mask in own]
    counts = model.patch_counts(size, np.concatenate(masked_boxes), flat)
    rest = model.patch_counts(size[::2], np.array([own[0] for own in masked_boxes]), [~mask for mask in flat[::2]])
    assert (counts[::2] + rest).tolist() == [36] * 3
    assert counts[1::2].tolist() == [9] * 3


# --- refusals ------------------------------------------------------------------------------------------------------


def refused(folder, match):
    with pytest.raises(ModelError, match=match) as caught:
        vlm.load(str(folder), "cpu")
    assert "\n" not in str(caught.value)


def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "broken")


def test_missing_directory(tmp_path):
    refused(tmp_path / "nowhere", "does not exist")


def test_a_file_instead_of_a_directory(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    refused(tmp_path / "model.safetensors", "is a file")


def test_an_empty_directory(tmp_path):
    refused(tmp_path, r"must hold config\.json")


def test_no_weights(folder, tmp_path):
    broken = copied(folder, tmp_path)
    (broken / "model.safetensors").unlink()
    refused(broken, r"must hold model\.safetensors")


def test_pickled_weights_are_refused_unread(folder, tmp_path):
    broken = copied(folder, tmp_path)
    (broken / "model.safetensors").unlink()
    (broken / "pytorch_model.bin").write_bytes(b"would run code")
    refused(broken, "a pickle that could run any code")


def test_truncated_weights(folder, tmp_path):
    broken = copied(folder, tmp_path)
    whole = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(broken, "weights of the model .* could not be loaded")


def test_weights_that_leave_tensors_random_are_refused(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    broken = copied(folder, tmp_path)
    tensors = load_file(broken / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    refused(broken, r"lacks 1 of its tensors \(first: visual_projection\.weight\)")


def test_another_architecture(folder, tmp_path):
    broken = copied(folder, tmp_path)
    (broken / "config.json").write_text(json.dumps({"model_type": "bert"}))
    refused(broken, "model_type 'bert'")


@pytest.mark.parametrize(
    ("part", "name"), [("tokenizer", "tokenizer.json"), ("preprocessing", "preprocessor_config.json")]
)
def test_no_tokenizer_or_preprocessing(folder, tmp_path, part, name):
    """transformers would make a blank tokenizer up, and everything after it would be quietly wrong."""
    broken = copied(folder, tmp_path)
    (broken / name).unlink()
    refused(broken, f"must hold its {part}")


def test_a_hub_id_without_a_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused("nobody/nothing-here", "could not be loaded")


def test_a_device_that_is_not_there():
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(ModelError, match="device must be"):
        pick_device("warp9")


def test_the_demo_is_an_ordinary_directory():
    model = vlm.load("demo", "cpu")
    assert isinstance(model, DualEncoder)
    assert model.geometry.side == 4
