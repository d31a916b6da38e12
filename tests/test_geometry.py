"""Where pixels go: checked against what the transformers processor really does to marked images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

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
