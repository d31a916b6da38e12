"""Where pixels go: checked against what the transformers processor really does to marked images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ravl.discovery.regions import superpixels
from ravl.errors import ModelError
from ravl.vlm.geometry import Geometry

CLIP = {"size": {"shortest_edge": 48}, "crop_size": {"height": 48, "width": 48}}


def make(patch: int = 8) -> Geometry:
    return Geometry.of(CLIP, 48, patch)


def test_patches_of_the_quadrants_partition_the_input():
    geometry = make()
    size = np.tile([48, 48], (4, 1))
    boxes = np.array([[0, 0, 24, 24], [24, 0, 48, 24], [0, 24, 24, 48], [24, 24, 48, 48]])
    patches = geometry.patches(size, boxes)
    assert patches.sum(1).tolist() == [9, 9, 9, 9]
    assert (patches.sum(0) == 1).all()
    assert patches[0].reshape(6, 6)[:3, :3].all()


@settings(max_examples=60, deadline=None)
@given(st.integers(9, 300), st.integers(9, 300), st.integers(2, 4), st.sampled_from([8, 7, 16]))
def test_any_grid_over_the_view_partitions_the_patches(width, height, k, patch):
    geometry = make(patch)
    size = np.array([[width, height]])
    x0, y0, x1, y1 = geometry.view(size)[0]
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    if min(x1 - x0, y1 - y0) < 6 * k:
        return  # cells of a few pixels are rounded away from patch centres
    xs, ys = np.round(np.linspace(x0, x1, k + 1)).astype(int), np.round(np.linspace(y0, y1, k + 1)).astype(int)
    boxes = np.array([[xs[j], ys[i], xs[j + 1], ys[i + 1]] for i in range(k) for j in range(k)])
    assert (geometry.patches(np.repeat(size, k * k, 0), boxes).sum(0) == 1).all()


@pytest.mark.parametrize("size", [(48, 48), (96, 48), (70, 130), (333, 97), (20, 31)])
def test_a_painted_box_lights_up_exactly_its_patches_in_the_real_processor(size):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(**CLIP, do_normalize=False, resample=Image.Resampling.NEAREST)
    geometry = make()
    x0, y0, x1, y1 = geometry.view(np.array([size]))[0]
    box = np.array([[x0, y0, (x0 + x1) // 2, (y0 + y1) // 2]])
    image = Image.new("RGB", size)
    image.paste((255, 255, 255), tuple(int(v) for v in box[0]))
    light = np.asarray(processor(images=[image], return_tensors="np")["pixel_values"][0, 0])
    centres = light[4::8, 4::8].ravel() > 0.5
    assert np.array_equal(geometry.patches(np.array([size]), box)[0], centres)


def test_the_view_of_a_wide_image_is_its_middle():
    assert make().view(np.array([[96, 48], [48, 96], [48, 48]])).tolist() == [
        [24, 0, 72, 48],
        [0, 24, 48, 72],
        [0, 0, 48, 48],
    ]


def test_resizing_to_a_square_shows_the_whole_image():
    geometry = Geometry.of({"size": {"height": 48, "width": 48}, "do_center_crop": False}, 48, 8)
    assert geometry.view(np.array([[200, 30]])).tolist() == [[0, 0, 200, 30]]


def test_an_input_that_the_patches_do_not_fill_is_not_seen_at_its_edge():
    geometry = make(patch=14)  # 3 x 14 = 42 of 48 pixels
    assert geometry.side == 3
    assert geometry.view(np.array([[48, 48]])).tolist() == [[0, 0, 42, 42]]


@pytest.mark.parametrize(
    "processor",
    [
        {},
        {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}},
        {"size": {"shortest_edge": 48}, "do_center_crop": False},
    ],
)
def test_a_processor_that_does_not_fit_the_model_is_refused(processor):
    with pytest.raises(ModelError, match="preprocessing must produce 48 x 48"):
        Geometry.of(processor, 48, 8)


def test_no_images():
    geometry = make()
    assert geometry.view(np.zeros((0, 2), int)).shape == (0, 4)
    assert geometry.patches(np.zeros((0, 2), int), np.zeros((0, 4), int)).shape == (0, 36)


# --- masks -----------------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([8, 7, 16]), st.integers(0, 10**6))
def test_masks_that_partition_a_box_partition_its_patches(width, height, patch, seed):
    """Pixel by pixel, whatever the rounding: every patch of the box belongs to exactly one of its parts."""
    geometry = make(patch)
    rng = np.random.default_rng(seed)
    x0, y0 = rng.integers(0, [width, height])
    x1, y1 = rng.integers([x0, y0], [width, height]) + 1
    part = rng.integers(0, 3, (y1 - y0, x1 - x0))
    size, box = np.tile([width, height], (3, 1)), np.tile([x0, y0, x1, y1], (3, 1))
    found = geometry.patches(size, box, [part == p for p in range(3)])
    whole = geometry.patches(size[:1], box[:1])[0]
    assert np.array_equal(found.sum(0), whole)
    assert np.array_equal(geometry.patches(size[:1], box[:1], [np.ones_like(part, bool)])[0], whole)


def test_a_patch_belongs_to_the_mask_where_its_centre_lies():
    geometry = make()
    mask = np.zeros((96, 96), bool)
    mask[20:60, 5:40] = True  # in the input, which is half as large: rows 10 .. 30, columns 2.5 .. 20
    found = geometry.patches(np.array([[96, 96]]), np.array([[0, 0, 96, 96]]), [mask])[0].reshape(6, 6)
    expected = np.zeros((6, 6), bool)
    for row in range(6):
        for column in range(6):
            expected[row, column] = mask[2 * (8 * row + 4), 2 * (8 * column + 4)]
    assert expected.sum() == 6
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("size", [(48, 48), (96, 48), (70, 130), (333, 97), (20, 31)])
def test_a_painted_mask_lights_up_exactly_its_patches_in_the_real_processor(size):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(**CLIP, do_normalize=False, resample=Image.Resampling.NEAREST)
    geometry = make()
    x0, y0, x1, y1 = geometry.view(np.array([size]))[0]
    y, x = np.mgrid[y0:y1, x0:x1]
    mask = (x - x0) * (y1 - y0) > (y - y0) * (x1 - x0)  # above the diagonal
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[y0:y1, x0:x1][mask] = 255
    light = np.asarray(processor(images=[Image.fromarray(pixels)], return_tensors="np")["pixel_values"][0, 0])
    found = geometry.patches(np.array([size]), np.array([[x0, y0, x1, y1]]), [mask])[0].reshape(6, 6)
    expected = light[4::8, 4::8] > 0.5
    off_diagonal = ~np.eye(6, dtype=bool)  # there a centre lies between two pixels, and either may be taken
    assert np.array_equal(found[off_diagonal], expected[off_diagonal])


@pytest.mark.parametrize("size", [(48, 48), (300, 200), (31, 64)])
@pytest.mark.parametrize("n", [1, 6])
def test_superpixels_share_the_patches_among_them(size, n):
    geometry = make()
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    regions = superpixels(geometry.view(np.array([size])), n, lambda ids: [image])
    patches = geometry.patches(np.tile(size, (len(regions), 1)), regions.box, regions.masks_of(0))
    assert (patches.sum(0) == 1).all()


def test_boxes_without_masks_stay_whole():
    geometry = make()
    size, box = np.tile([48, 48], (2, 1)), np.array([[0, 0, 24, 24], [0, 0, 48, 48]])
    mask = np.zeros((24, 24), bool)
    found = geometry.patches(size, box, [mask, None])
    assert found.sum(1).tolist() == [0, 36]
    assert np.array_equal(geometry.patches(size, box, [None, None]), geometry.patches(size, box))


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"mask 0 must have shape \(24, 20\), got \(20, 24\)"):
        make().patches(np.array([[48, 48]]), np.array([[0, 0, 20, 24]]), [np.ones((20, 24), bool)])


def test_an_image_of_one_pixel_has_all_patches():
    geometry = make()
    box = geometry.view(np.array([[1, 1]]))
    assert box.tolist() == [[0, 0, 1, 1]]
    assert geometry.patches(np.array([[1, 1]]), box, [np.ones((1, 1), bool)]).all()


def test_a_box_beside_the_view_has_no_patch():
    assert not make().patches(np.array([[200, 48]]), np.array([[0, 0, 20, 48]])).any()
