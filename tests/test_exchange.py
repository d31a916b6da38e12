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
