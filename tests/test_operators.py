"""Every way of removing a region: inside it changes as stated, outside nothing changes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ravl.config import OPERATORS
from ravl.data.painting import blur, fill_mean, inpaint, mean_colour, paste, replaced, transplant
from ravl.discovery.operators import PAINTERS, encode_removed, usable
from ravl.errors import ModelError
from tests.toys import ColourModel, paint

BOXES = np.array([[2, 3, 10, 9], [12, 12, 20, 20]])


def noise(seed: int = 0, size: tuple[int, int] = (24, 30)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def inside(image: Image.Image, boxes=BOXES, masks=None) -> np.ndarray:
    covered = np.zeros((image.height, image.width), bool)
    for row, (x0, y0, x1, y1) in enumerate(boxes):
        part = True if masks is None or masks[row] is None else masks[row]
        covered[y0:y1, x0:x1] |= part
    return covered


def triangle() -> np.ndarray:
    return np.tril(np.ones((6, 8), bool))


@pytest.mark.parametrize("masks", [None, [None, None], [triangle(), None]])
@pytest.mark.parametrize("operator", [fill_mean, blur, inpaint, lambda i, b, m: transplant(i, b, m, noise(1))])
def test_only_the_regions_change(operator, masks):
    image = noise()
    before = np.asarray(image).copy()
    after = np.asarray(operator(image, BOXES, masks))
    covered = inside(image, BOXES, masks)
    assert np.array_equal(after[~covered], before[~covered])
    assert (after[covered] != before[covered]).any(1).mean() > 0.9
    assert np.array_equal(np.asarray(image), before)  # the argument stays as it is


def test_what_the_regions_show_instead():
    image, donor = noise(), noise(1)
    covered = inside(image)
    assert (np.asarray(fill_mean(image, BOXES))[covered] == mean_colour(image)).all()
    assert np.array_equal(np.asarray(transplant(image, BOXES, None, donor))[covered], np.asarray(donor)[covered])
    assert np.asarray(blur(image, BOXES))[covered].std(0).max() < np.asarray(image)[covered].std(0).min() / 4


def test_inpainting_carries_the_surroundings_inward():
    pixels = np.zeros((30, 24, 3), np.uint8)
    pixels[:, :12], pixels[:, 12:] = (200, 10, 10), (10, 10, 200)
    marked = pixels.copy()
    marked[5:9, 2:6], marked[20:24, 16:20] = 255, 255
    filled = np.asarray(inpaint(Image.fromarray(marked), np.array([[2, 5, 6, 9], [16, 20, 20, 24]])))
    assert np.abs(filled.astype(int) - pixels).max() <= 3  # the algorithm rounds and dithers


def test_nothing_to_carry_inward():
    image = noise()
    whole = np.array([[0, 0, 24, 30]])
    assert np.array_equal(np.asarray(inpaint(image, whole)), np.asarray(fill_mean(image, whole)))


@pytest.mark.parametrize("operator", [fill_mean, blur, inpaint])
def test_without_regions_nothing_changes(operator):
    assert np.array_equal(np.asarray(operator(noise(), np.zeros((0, 4), int))), np.asarray(noise()))


def test_a_donor_of_another_size_is_scaled():
    donor = Image.new("RGB", (5, 7), (9, 8, 7))
    after = np.asarray(transplant(noise(), BOXES, None, donor))
    assert (after[inside(noise())] == (9, 8, 7)).all()


def test_paste_stretches_the_crop_over_the_box():
    after = np.asarray(paste(noise(), Image.new("RGB", (3, 2), (1, 2, 3)), BOXES[1]))
    covered = inside(noise(), BOXES[1:])
    assert (after[covered] == (1, 2, 3)).all()
    assert np.array_equal(after[~covered], np.asarray(noise())[~covered])


def test_paste_leaves_the_image_where_the_crop_is_clear():
    crop = Image.new("RGBA", (8, 6), (1, 2, 3, 255))
    crop.paste((1, 2, 3, 0), (0, 0, 4, 6))
    box = np.array([2, 3, 10, 9])
    after = np.asarray(paste(noise(), crop, box))
    assert (after[3:9, 6:10] == (1, 2, 3)).all()
    assert np.array_equal(after[3:9, 2:6], np.asarray(noise())[3:9, 2:6])


def test_replaced_by_a_colour():
    after = np.asarray(replaced(noise(), BOXES[:1], [triangle()], (1, 2, 3)))
    assert (after[3:9, 2:10][triangle()] == (1, 2, 3)).all()


def test_operators_that_a_model_cannot_apply_are_left_out():
    both, painting = ColourModel(), ColourModel(drops_tokens=False)
    assert usable(both, ("mean_fill", "token_drop")) == ("token_drop", "mean_fill")
    assert usable(painting, ("token_drop", "blur", "mean_fill")) == ("mean_fill", "blur")
    with pytest.raises(ModelError, match="colours cannot"):
        usable(painting, ("token_drop",))


def test_every_operator_answers_for_every_image():
    model = ColourModel()
    images = [paint(["red", "green", "blue", "blue"]), paint(["green"] * 4)]
    boxes = [np.array([[0, 0, 8, 8]]), np.array([[8, 8, 16, 16], [0, 8, 8, 16]])]
    for operator in OPERATORS:
        without = encode_removed(model, images, boxes, [None, None], operator, [images[1], None])
        assert without.vector.shape == (2, 3)
        assert without.possible.tolist() == [True, operator != "transplant"]
        assert np.linalg.norm(without.vector, axis=1) == pytest.approx(without.possible.astype(float))
    for name, painter in PAINTERS.items():
        painted = [painter(i, b, None) for i, b in zip(images, boxes, strict=True)]
        expected = model.encode_images(painted)
        without = encode_removed(model, images, boxes, [None, None], name, [None, None])
        assert np.array_equal(without.vector, expected)


def test_a_region_without_a_patch_cannot_be_dropped():
    model = ColourModel()
    tiny = [np.array([[0, 0, 1, 1]])]
    assert not encode_removed(model, [paint(["red"] * 4)], tiny, [None], "token_drop", [None]).possible.any()
    assert encode_removed(model, [paint(["red"] * 4)], tiny, [None], "mean_fill", [None]).possible.all()
