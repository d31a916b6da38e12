"""Region exchange on images with planted pixels: what is painted, what is kept, what it is called, and how often."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from ravl.mitigation.exchange import Exchanged, exchange

SIDE = 8
QUADRANTS = np.array([[0, 0, 4, 4], [4, 0, 8, 4], [0, 4, 4, 8], [4, 4, 8, 8]])
RED, GREY = (250, 10, 10), (90, 90, 90)
NONE = np.zeros(4, bool)
SECOND = np.array([False, True, False, False])


def scene(*marked: int) -> Image.Image:
    """Grey noise with red quadrants."""
    pixels = np.random.default_rng(1).integers(80, 100, (SIDE, SIDE, 3)).astype(np.uint8)
    for place in marked:
        x0, y0, x1, y1 = QUADRANTS[place]
        pixels[y0:y1, x0:x1] = RED
    return Image.fromarray(pixels)


BANK = [Image.new("RGB", (3, 5), RED), Image.new("RGB", (2, 2), (10, 250, 10))]


def part(image: Image.Image, place: int) -> NDArray[np.uint8]:
    x0, y0, x1, y1 = QUADRANTS[place]
    return np.asarray(image)[y0:y1, x0:x1]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def changed(before: Image.Image, after: Exchanged) -> list[int]:
    return [i for i in range(4) if not np.array_equal(part(before, i), part(after.image, i))]


def test_a_spurious_region_is_painted_in_the_mean_colour_and_shows_nothing_any_more() -> None:
    image = scene(1)
    out = exchange(image, QUADRANTS, SECOND, 0, BANK, 1.0, rng())
    assert changed(image, out) == [1]
    mean = [round(sum(int(v) for v in np.asarray(image)[..., c].ravel()) / SIDE**2) for c in range(3)]
    assert (part(out.image, 1) == mean).all()
    assert out.removed.tolist() == SECOND.tolist()
    assert not out.spurious.any()


def test_all_spurious_regions_go_at_once() -> None:
    image, spurious = scene(1, 2), np.array([False, True, True, False])
    for seed in range(20):
        out = exchange(image, QUADRANTS, spurious, None, BANK, 0.5, rng(seed))
        assert changed(image, out) in ([], [1, 2])
        assert (out.removed.tolist() == spurious.tolist()) == bool(changed(image, out))


def test_a_crop_is_pasted_over_a_region_that_is_not_to_be_kept_and_is_spurious_now() -> None:
    image, places, colours = scene(), set(), set()
    for seed in range(60):
        out = exchange(image, QUADRANTS, NONE, 2, BANK, 1.0, rng(seed))
        (place,) = changed(image, out)
        assert out.spurious.tolist() == [i == place for i in range(4)]
        assert not out.removed.any()
        (colour,) = {tuple(pixel) for pixel in part(out.image, place).reshape(-1, 3).tolist()}
        places.add(place)
        colours.add(colour)
    assert places == {0, 1, 3}  # never the one to keep, each other one
    assert colours == {RED, (10, 250, 10)}  # each crop, stretched over the whole box


def test_without_a_region_to_keep_every_region_may_be_covered() -> None:
    outs = [exchange(scene(), QUADRANTS, NONE, None, BANK, 1.0, rng(seed)) for seed in range(60)]
    assert {changed(scene(), out)[0] for out in outs} == {0, 1, 2, 3}


def test_unequal_boxes_get_the_crop_in_their_own_size() -> None:
    image, boxes = Image.new("RGB", (9, 5), GREY), np.array([[0, 0, 2, 5], [2, 0, 9, 1]])
    out = exchange(image, boxes, np.zeros(2, bool), 0, BANK[:1], 1.0, rng())
    expected = np.full((5, 9, 3), GREY[0], np.uint8)
    expected[0:1, 2:9] = RED
    assert np.array_equal(np.asarray(out.image), expected)


@pytest.mark.parametrize(
    ("boxes", "spurious", "keep", "bank", "probability"),
    [
        (QUADRANTS, SECOND, 0, BANK, 0.0),
        (QUADRANTS, NONE, 0, BANK, 0.0),
        (QUADRANTS, NONE, 0, [], 1.0),  # no bank
        (QUADRANTS[:1], NONE[:1], 0, BANK, 1.0),  # only the region to keep
        (QUADRANTS[:0], NONE[:0], None, BANK, 1.0),  # no region
    ],
)
def test_nothing_to_do_leaves_the_image_as_it_is(
    boxes: NDArray[Any], spurious: NDArray[np.bool_], keep: int | None, bank: list[Image.Image], probability: float
) -> None:
    image = scene(1)
    for seed in range(10):
        out = exchange(image, boxes, spurious, keep, bank, probability, rng(seed))
        assert out.image.tobytes() == image.tobytes()
        assert out.spurious.tolist() == spurious.tolist()
        assert not out.removed.any()


def test_a_bank_is_not_needed_to_remove() -> None:
    assert exchange(scene(1), QUADRANTS, SECOND, 0, [], 1.0, rng()).removed.any()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.lists(st.booleans(), min_size=4, max_size=4),
    st.sampled_from([None, 0, 3]),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_arguments_are_never_changed_and_the_generator_decides_everything(
    seed: int, marks: list[bool], keep: int | None, probability: float
) -> None:
    image, spurious, boxes = scene(*np.flatnonzero(marks)), np.array(marks), QUADRANTS.copy()
    before = (image.tobytes(), spurious.copy(), boxes.copy(), [crop.tobytes() for crop in BANK])
    generators = [rng(seed), rng(seed)]
    first, second = (exchange(image, boxes, spurious, keep, BANK, probability, g) for g in generators)
    assert first.image.tobytes() == second.image.tobytes()
    assert first.spurious.tolist() == second.spurious.tolist()
    first.spurious[:] = True  # the caller's own
    after = (image.tobytes(), spurious, boxes, [crop.tobytes() for crop in BANK])
    assert before[0] == after[0]
    assert before[3] == after[3]
    assert np.array_equal(before[1], after[1])
    assert np.array_equal(before[2], after[2])


def test_every_image_draws_equally_many_numbers() -> None:
    """What happens to an image must not depend on which images came before it in the batch."""
    cases = [(SECOND, BANK, 1.0), (NONE, BANK, 1.0), (NONE, [], 0.0), (SECOND, BANK, 0.0)]
    following = set()
    for spurious, bank, probability in cases:
        generator = rng(7)
        exchange(scene(), QUADRANTS, spurious, 0, bank, probability, generator)
        following.add(generator.random())
    assert len(following) == 1


@pytest.mark.parametrize("probability", [0.2, 0.7])
def test_the_rates_are_the_probability(probability: float) -> None:
    generator, n = rng(3), 2000
    for spurious in (SECOND, NONE):
        outs = [exchange(scene(1), QUADRANTS, spurious, 0, BANK, probability, generator) for _ in range(n)]
        hits = sum(bool(out.removed.any()) or out.spurious.tolist() != spurious.tolist() for out in outs)
        deviation = (n * probability * (1 - probability)) ** 0.5
        assert abs(hits - n * probability) < 4 * deviation


# --- regions that overlap, and masks ---------------------------------------------------------------------------------

NESTED = np.array([[0, 0, 8, 8], [0, 0, 4, 4], [4, 0, 8, 4], [0, 0, 4, 2], [2, 0, 6, 4], [5, 0, 8, 8]])
"""The image, two quadrants, the upper half of the first, a box over half of both, and the right 3 columns."""


def overlap(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Share of box b that box a covers."""
    width, height = (max(0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in range(2))
    return width * height / ((b[2] - b[0]) * (b[3] - b[1]))


@pytest.mark.parametrize("spurious", range(6))
def test_what_is_covered_by_more_than_half_goes_with_the_spurious_region(spurious: int) -> None:
    marked = np.arange(6) == spurious
    out = exchange(scene(), NESTED, marked, 0, BANK, 1.0, rng())
    assert out.removed.tolist() == [overlap(NESTED[spurious], box) > 0.5 for box in NESTED]
    assert out.removed[spurious]
    assert not out.spurious.any()


def test_removed_regions_add_up() -> None:
    """Neither quadrant covers more than half of the upper half of the image, both together all of it."""
    boxes = np.array([[0, 0, 4, 4], [4, 0, 8, 4], [0, 0, 8, 4], [0, 0, 8, 8]])
    one = exchange(scene(), boxes, np.array([True, False, False, False]), None, BANK, 1.0, rng())
    both = exchange(scene(), boxes, np.array([True, True, False, False]), None, BANK, 1.0, rng())
    assert one.removed.tolist() == [True, False, False, False]
    assert both.removed.tolist() == [True, True, True, False]


@pytest.mark.parametrize("keep", [None, *range(6)])
def test_a_crop_makes_spurious_what_it_covers_and_never_the_region_to_keep(keep: int | None) -> None:
    places = set()
    for seed in range(100):
        out = exchange(scene(), NESTED, np.zeros(6, bool), keep, BANK[:1], 1.0, rng(seed))
        covered = np.argwhere((np.asarray(out.image) == RED).all(2))
        if not len(covered):  # no place is left
            places.add(None)
            continue
        (y0, x0), (y1, x1) = covered.min(0), covered.max(0) + 1
        place = int(np.flatnonzero(([x0, y0, x1, y1] == NESTED).all(1))[0])
        places.add(place)
        assert out.spurious.tolist() == [overlap(NESTED[place], box) > 0.5 for box in NESTED]
        assert keep is None or not out.spurious[keep]
        assert not out.removed.any()
    allowed = {i for i in range(6) if keep is None or overlap(NESTED[i], NESTED[keep]) <= 0.5}
    assert places == (allowed or {None})


LEFT, RIGHT = np.zeros((8, 8), bool), np.ones((8, 8), bool)
LEFT[:, :3], RIGHT[:, :3] = True, False
TWICE = np.tile([0, 0, 8, 8], (2, 1))


def test_only_the_mask_of_a_spurious_region_is_painted() -> None:
    image = scene()
    out = exchange(image, TWICE, np.array([True, False]), 1, BANK, 1.0, rng(), [LEFT, RIGHT])
    same = (np.asarray(out.image) == np.asarray(image)).all(2)
    assert same[RIGHT].all()
    assert len(np.unique(np.asarray(out.image)[LEFT], axis=0)) == 1
    assert out.removed.tolist() == [True, False]


def test_a_crop_covers_where_it_is_opaque() -> None:
    crop = Image.new("RGB", (4, 4), RED)
    crop.putalpha(Image.fromarray(np.kron(np.eye(2), np.full((2, 2), 255)).astype(np.uint8)))
    boxes, masks = np.array([[0, 0, 8, 8], [0, 0, 4, 4], [4, 0, 8, 4], [0, 0, 8, 8]]), [None, None, None, LEFT]
    seen = set()
    for seed in range(20):
        out = exchange(scene(), boxes, np.zeros(4, bool), None, [crop], 1.0, rng(seed), masks)
        red = np.asarray(out.image)[..., 0] > 200  # scaling rounds colours
        if np.array_equal(out.spurious, [True, True, False, False]):  # over the whole image: two opposite quadrants
            assert red[1:3, 1:3].all()
            assert red[5:7, 5:7].all()
            assert not red[:3, 5:].any()
            assert not red[5:, :3].any()
        seen.add(tuple(out.spurious.tolist()))
    # half of the image and of the mask are covered, which is not more than half
    one = np.eye(4, dtype=bool)
    assert seen == {tuple((row | (place in (0, 3)) * one[1]).tolist()) for place, row in enumerate(one)}


@given(st.integers(0, 10_000), st.tuples(*[st.integers(1, 12)] * 2), st.booleans())
def test_the_pixels_of_what_is_pasted(seed: int, size: tuple[int, int], shaped: bool) -> None:
    """Pixel by pixel: the scaled crop where it is opaque by half, the image elsewhere. The training depends on it."""
    noise = np.random.default_rng(seed)
    crop = Image.fromarray(noise.integers(0, 256, (*size, 3), np.uint8))
    if shaped:
        crop.putalpha(Image.fromarray(255 * noise.integers(0, 2, size, np.uint8)))
    image, box = scene(), np.array([[1, 2, 6, 7]])
    out = exchange(image, box, NONE[:1], None, [crop], 1.0, rng(seed))
    scaled = np.asarray(crop.resize((5, 5), Image.Resampling.BICUBIC))
    expected = np.array(image)
    for y in range(5):
        for x in range(5):
            if not shaped or scaled[y, x, 3] >= 128:
                expected[2 + y, 1 + x] = scaled[y, x, :3]
    assert np.array_equal(np.asarray(out.image), expected)
    assert out.spurious.all() == (not shaped or bool((scaled[..., 3] >= 128).any()))


def test_a_crop_whose_shape_vanishes_is_not_pasted() -> None:
    crop = Image.new("RGB", (64, 64), RED)
    thin = np.zeros((64, 64), np.uint8)
    thin[31] = 255
    crop.putalpha(Image.fromarray(thin))
    out = exchange(scene(), QUADRANTS[:1], NONE[:1], None, [crop], 1.0, rng())
    assert out.image.tobytes() == scene().tobytes()
    assert not out.spurious.any()


@given(st.integers(0, 10_000), st.integers(0, 4), st.sampled_from([0.5, 1.0]))
def test_partitions_by_masks_behave_as_partitions_by_boxes(seed: int, marks: int, probability: float) -> None:
    spurious = np.arange(4) < marks
    masks = [np.ones((4, 4), bool)] * 4
    by_box, by_mask = (
        exchange(scene(), QUADRANTS, spurious, 3, BANK, probability, rng(seed), m) for m in (None, masks)
    )
    assert by_box.image.tobytes() == by_mask.image.tobytes()
    assert by_box.spurious.tolist() == by_mask.spurious.tolist()
    assert by_box.removed.tolist() == by_mask.removed.tolist()
