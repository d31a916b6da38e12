"""Grids, superpixels and people's own boxes, the masks of regions, and which encoder they get."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from ravl.config import AuditConfig, ClusteringConfig, EmbeddingConfig, RegionsConfig
from ravl.discovery.clustering import cluster
from ravl.discovery.embedding import patch_counts, region_encoder
from ravl.discovery.regions import WORKING_SIDE, choose_encoder, decompose, grid, own_boxes, superpixels
from ravl.errors import ConfigError
from ravl.store import AuditRun
from ravl.tables import ImageSet, Regions, Step
from tests.toys import ColourModel


@st.composite
def views(draw):
    k = draw(st.integers(1, 6))
    boxes = []
    for _ in range(draw(st.integers(0, 4))):
        x0, y0 = draw(st.integers(0, 30)), draw(st.integers(0, 30))
        boxes.append([x0, y0, x0 + draw(st.integers(k, 40)), y0 + draw(st.integers(k, 40))])
    return k, np.array(boxes, np.int32).reshape(-1, 4)


@settings(deadline=None, max_examples=60)
@given(views())
def test_cells_cover_the_view_exactly_once_and_nothing_else(case):
    k, view = case
    regions = grid(view, RegionsConfig(k=k))
    assert len(regions) == len(view) * k * k
    assert regions.n_images == len(view)
    for i, (x0, y0, x1, y1) in enumerate(view):
        painted = np.zeros((80, 80), int)
        for a, b, c, d in regions.box[regions.rows_of(i)]:
            assert a < c
            assert b < d
            painted[b:d, a:c] += 1
        inside = np.zeros((80, 80), int)
        inside[y0:y1, x0:x1] = 1
        assert np.array_equal(painted, inside)


def test_positions_run_row_by_row_and_cuts_are_rounded():
    regions = grid(np.array([[10, 0, 17, 4], [0, 5, 4, 9]]), RegionsConfig(k=2))
    # 7 pixels: the cut lies at floor(3.5 + 0.5) = 4
    assert regions.box.tolist()[:4] == [[10, 0, 14, 2], [14, 0, 17, 2], [10, 2, 14, 4], [14, 2, 17, 4]]
    assert regions.position.tolist() == [0, 1, 2, 3] * 2
    assert regions.image.tolist() == [0] * 4 + [1] * 4


def test_cells_differ_by_at_most_one_pixel():
    box = grid(np.array([[0, 0, 23, 10]]), RegionsConfig(k=5)).box
    width = box[:, 2] - box[:, 0]
    assert set(width) == {4, 5}


@pytest.mark.parametrize("k", [1, 3])
def test_no_images_give_no_regions(k):
    regions = grid(np.zeros((0, 4), np.int32), RegionsConfig(k=k))
    assert len(regions) == 0
    assert regions.n_images == 0


def test_one_region_is_the_view():
    assert grid(np.array([[3, 4, 9, 8]]), RegionsConfig(k=1)).box.tolist() == [[3, 4, 9, 8]]


def test_a_view_smaller_than_the_grid_is_refused_with_a_way_out():
    view = np.array([[0, 0, 9, 9], [2, 2, 5, 9]])
    with pytest.raises(ConfigError, match=r"at least 4 x 4 pixels.*got 3 x 7 for image 1 \(1 of 2.*grid:3"):
        grid(view, RegionsConfig(k=4))
    assert len(grid(view, RegionsConfig(k=3))) == 18


@pytest.mark.parametrize("box", [[5, 0, 5, 9], [0, 9, 4, 2], [-1, 0, 4, 4]])
def test_boxes_that_are_none_are_refused(box):
    with pytest.raises(ValueError, match="view must hold boxes"):
        grid(np.array([box]), RegionsConfig(k=1))


@pytest.mark.parametrize(
    ("requested", "counts", "chosen"),
    [
        ("auto", [4, 9], "tokens"),
        ("auto", [4, 3], "crop"),
        ("auto", [0, 0], "crop"),
        ("auto", [], "tokens"),
        ("tokens", [1, 9], "tokens"),
        ("tokens", [], "tokens"),
        ("crop", [0, 9], "crop"),
        ("crop", [9, 9], "crop"),
    ],
)
def test_encoder_choice(requested, counts, chosen):
    assert choose_encoder(requested, np.array(counts, int)) == chosen


def test_tokens_without_a_patch_are_refused():
    with pytest.raises(ConfigError, match=r"got none in 2 of 3 regions.*coarser grid"):
        choose_encoder("tokens", np.array([0, 5, 0]))


def test_unknown_encoder_is_refused():
    with pytest.raises(ValueError, match="auto, tokens, roi, crop, got 'mean'"):
        choose_encoder("mean", np.array([4]))


def test_an_encoder_that_the_model_does_not_offer_is_refused():
    assert choose_encoder("auto", np.array([9]), ("roi", "crop")) == "roi"
    assert choose_encoder("auto", np.array([9]), ("crop",)) == "crop"
    with pytest.raises(ConfigError, match="must be roi or crop for this model, got tokens"):
        choose_encoder("tokens", np.array([9]), ("roi", "crop"))


# --- several scales, and overlap -------------------------------------------------------------------------------------


def oracle_cells(side: int, start: int, k: int, overlap: str) -> list[tuple[int, int]]:
    """Begin and end of every cell along one side, in exact fractions, straight from the docstring."""
    o = Fraction(overlap)
    s = Fraction(side) / (k - (k - 1) * o)
    edges = [(j * (1 - o) * s, j * (1 - o) * s + s) for j in range(k)]
    return [(start + math.floor(a + Fraction(1, 2)), start + math.floor(b + Fraction(1, 2))) for a, b in edges]


@given(
    st.integers(0, 30),
    st.integers(6, 90),
    st.integers(6, 90),
    st.lists(st.integers(1, 6), min_size=1, max_size=3, unique=True),
    st.sampled_from(["0", "0.5", "0.25", "0.1", "0.333", "0.9", "0.99"]),
)
def test_cells_of_every_scale_equal_the_oracle(x0: int, width: int, height: int, scales: list[int], o: str) -> None:
    view = np.array([[x0, 3, x0 + width, 3 + height]])
    regions = grid(view, RegionsConfig(k=scales[0], further=tuple(scales[1:]), overlap=float(o)))
    expected = []
    for k in scales:
        columns, rows = oracle_cells(width, x0, k, o), oracle_cells(height, 3, k, o)
        expected += [[left, top, right, bottom] for top, bottom in rows for left, right in columns]
    assert regions.box.tolist() == expected
    assert regions.position.tolist() == list(range(len(expected)))  # each cell of each scale has its own


@given(st.integers(1, 8), st.integers(8, 200), st.floats(0, 0.99))
def test_overlapping_cells_still_cover_the_view(k: int, side: int, overlap: float) -> None:
    view = np.array([[5, 7, 5 + side, 7 + side]])
    box = grid(view, RegionsConfig(k=k, overlap=overlap)).box
    painted = np.zeros((side + 9, side + 9), int)
    for x0, y0, x1, y1 in box:
        painted[y0:y1, x0:x1] += 1
    assert (painted[7 : 7 + side, 5 : 5 + side] > 0).all()
    assert painted.sum() == painted[7 : 7 + side, 5 : 5 + side].sum()
    widths = set((box[:, 2] - box[:, 0]).tolist())
    assert max(widths) - min(widths) <= 1


def test_neighbours_share_what_was_asked_for() -> None:
    box = grid(np.array([[0, 0, 100, 100]]), RegionsConfig(k=3, overlap=0.5)).box
    assert box[:3, [0, 2]].tolist() == [[0, 50], [25, 75], [50, 100]]


def test_no_overlap_is_the_plain_grid() -> None:
    view = np.array([[3, 0, 40, 29], [0, 1, 57, 90]])
    plain, zero = (grid(view, RegionsConfig(k=5, overlap=o)) for o in (0.0, 1e-9))
    assert np.array_equal(plain.box, zero.box)


def test_scales_of_several_images_stay_together() -> None:
    regions = grid(np.array([[0, 0, 8, 8], [0, 0, 12, 8]]), RegionsConfig(k=1, further=(2,)))
    assert regions.image.tolist() == [0] * 5 + [1] * 5
    assert regions.position.tolist() == [0, 1, 2, 3, 4] * 2
    assert regions.box[5:7].tolist() == [[0, 0, 12, 8], [0, 0, 6, 4]]


def test_the_coarsest_view_counts_for_the_finest_grid() -> None:
    with pytest.raises(ConfigError, match=r"at least 4 x 4 pixels to be cut by grid:2\+4, got 3 x 3"):
        grid(np.array([[0, 0, 3, 3]]), RegionsConfig(k=2, further=(4,)))


def test_each_cell_of_each_scale_has_its_own_mean() -> None:
    """A cell of one scale that always looks alike must not be told from its neighbours by where it lies."""
    n, config = 40, RegionsConfig(k=1, further=(2,))
    regions = grid(np.tile([0, 0, 8, 8], (n, 1)), config)
    rng = np.random.default_rng(0)
    offset = rng.normal(0, 50, (5, 6))
    features = rng.normal(0, 1, (len(regions), 6)) + offset[regions.position]
    found = cluster(features, regions, 2, ClusteringConfig(), rng)
    means = np.array([features[regions.position == p].mean(0) for p in range(5)])
    assert np.allclose(found.position_mean, means, atol=1e-4)
    assert np.allclose(found.center, 0)


# --- superpixels -----------------------------------------------------------------------------------------------------


def pictures(*sizes: tuple[int, int], seed: int = 0) -> list[Image.Image]:
    """Smooth noise: blobs with edges to follow."""
    rng = np.random.default_rng(seed)
    out = []
    for width, height in sizes:
        small = Image.fromarray(rng.integers(0, 256, (max(1, height // 9), max(1, width // 9), 3), dtype=np.uint8))
        out.append(small.resize((width, height), Image.Resampling.NEAREST))
    return out


def cut(images: Sequence[Image.Image], view: Any, n: int, steps: list[Step] | None = None) -> Regions:
    report = (lambda step: None) if steps is None else steps.append
    return superpixels(np.array(view).reshape(-1, 4), n, lambda ids: [images[i] for i in ids], report)


def painted(regions: Regions, image: int, size: tuple[int, int]) -> NDArray[np.int64]:
    """(H, W) in how many regions each pixel lies."""
    count = np.zeros((size[1], size[0]), int)
    for r in range(*regions.rows_of(image).indices(len(regions))):
        x0, y0, x1, y1 = regions.box[r]
        mask = regions.mask_of(r)
        if mask is not None:
            assert mask.shape == (y1 - y0, x1 - x0)
            assert mask.any(0)[[0, -1]].all()  # the box is tight
            assert mask.any(1)[[0, -1]].all()
        count[y0:y1, x0:x1] += 1 if mask is None else mask
    return count


SIZES = [(1, 1), (1, 9), (2, 2), (57, 40), (160, 160), (161, 30), (500, 333), (700, 3)]


@pytest.mark.parametrize("n", [1, 2, 9, 60])
def test_every_seen_pixel_lies_in_exactly_one_superpixel(n: int) -> None:
    images = pictures(*SIZES)
    view = np.array([[w // 9, h // 7, w - w // 5, h - h // 11] for w, h in SIZES])
    regions = cut(images, view, n)
    assert regions.n_images == len(SIZES)
    assert (regions.position == -1).all()
    for i, (size, (x0, y0, x1, y1)) in enumerate(zip(SIZES, view, strict=True)):
        expected = np.zeros((size[1], size[0]), int)
        expected[y0:y1, x0:x1] = 1
        assert np.array_equal(painted(regions, i, size), expected)


@pytest.mark.parametrize("n", [4, 16, 50])
def test_there_are_about_as_many_superpixels_as_asked_for(n: int) -> None:
    sizes = [(300, 300), (400, 120), (97, 130)]
    flat = [Image.new("RGB", size, (9, 200, 30)) for size in sizes]
    noise = [Image.fromarray(np.random.default_rng(0).integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
    for images in (pictures(*sizes), flat, noise):
        counts = np.diff(cut(images, [[0, 0, *size] for size in sizes], n).starts)
        assert (counts >= n / 2).all()
        assert (counts <= 2 * n).all()


def test_superpixels_follow_edges() -> None:
    image = Image.new("RGB", (120, 90), (250, 250, 250))
    image.paste((200, 0, 0), (33, 21, 71, 60))
    regions = cut([image], [[0, 0, 120, 90]], 20)
    red = np.asarray(image)[..., 1] == 0
    for r in range(len(regions)):
        x0, y0, x1, y1 = regions.box[r]
        mask = regions.mask_of(r)
        share = red[y0:y1, x0:x1][... if mask is None else mask].mean()
        assert min(share, 1 - share) < 0.1


def test_masks_are_small_whatever_the_image() -> None:
    (image,) = pictures((2000, 1500))
    regions = cut([image], [[0, 0, 2000, 1500]], 16)
    assert regions.mask_bits is not None
    assert len(regions.mask_bits) < 3 * WORKING_SIDE**2 / 8
    assert set(regions.mask_step.tolist()) <= {0, 13}  # 2000 / 160, rounded up


def test_one_segment_is_the_view_and_needs_no_mask() -> None:
    regions = cut(pictures((30, 20)), [[2, 1, 28, 19]], 1)
    assert regions.box.tolist() == [[2, 1, 28, 19]]
    assert regions.mask_of(0) is None
    assert regions.masks_of(0) == [None]


def test_superpixels_are_deterministic_and_reported() -> None:
    images = pictures(*[(40, 30)] * 70)
    steps: list[Step] = []
    first, again = (cut(images, [[0, 0, 40, 30]] * 70, 9, out) for out in (steps, None))
    assert [(s.stage, s.done, s.total) for s in steps] == [("regions", done, 70) for done in (32, 64, 70)]
    assert np.array_equal(first.box, again.box)
    assert np.array_equal(first.mask_bits, again.mask_bits)  # type: ignore[arg-type]


def test_no_images_give_no_superpixels() -> None:
    assert len(cut([], [], 9)) == 0


# --- masks -----------------------------------------------------------------------------------------------------------


@st.composite
def masked_regions(draw: Any) -> tuple[Regions, list[NDArray[np.bool_] | None]]:
    """Random masks of squares of random sides, and what each must come back as."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    boxes, steps, bits, expected = [], [], [], []
    for _ in range(draw(st.integers(0, 6))):
        x0, y0 = draw(st.integers(0, 9)), draw(st.integers(0, 9))
        w, h, step = draw(st.integers(1, 20)), draw(st.integers(1, 20)), draw(st.integers(0, 7))
        boxes.append([x0, y0, x0 + w, y0 + h])
        steps.append(step)
        if not step:
            expected.append(None)
            continue
        squares = rng.random((-(-h // step), -(-w // step))) < 0.5
        squares[0, 0] = True
        bits.append(np.packbits(squares))
        expected.append(np.array([[squares[y // step, x // step] for x in range(w)] for y in range(h)]))
    n = len(boxes)
    packed = np.concatenate([np.zeros(0, np.uint8), *bits])
    return Regions(np.arange(n), np.array(boxes).reshape(-1, 4), np.full(n, -1), n, np.array(steps), packed), expected


def same(found: NDArray[np.bool_] | None, expected: NDArray[np.bool_] | None) -> bool:
    return found is None if expected is None else found is not None and np.array_equal(found, expected)


@given(masked_regions())
def test_masks_come_back_as_they_were(case: tuple[Regions, list[NDArray[np.bool_] | None]]) -> None:
    regions, expected = case
    assert all(same(regions.mask_of(r), mask) for r, mask in enumerate(expected))
    assert all(same(regions.masks_of(i)[0], mask) for i, mask in enumerate(expected))
    keep = np.arange(len(regions)) % 2 == 0
    half = regions.kept(keep)
    assert half.n_images == regions.n_images
    assert half.box.tolist() == regions.box[keep].tolist()
    assert all(same(half.mask_of(r), mask) for r, mask in enumerate(expected[::2]))


def test_regions_without_masks_are_whole() -> None:
    regions = grid(np.array([[0, 0, 8, 8]]), RegionsConfig(k=2))
    assert regions.mask_of(3) is None
    assert regions.masks_of(0) == [None] * 4
    assert regions.kept(np.array([True, False, False, True])).position.tolist() == [0, 3]


BOX = np.array([[0, 0, 3, 3], [0, 0, 9, 2]])


@pytest.mark.parametrize(
    ("step", "bits", "message"),
    [
        ([1, 0], None, "must be given together"),
        (None, [1], "must be given together"),
        ([1, 0], [255], "must hold 2 bytes for these boxes and steps, got 1"),
        ([0, 0], [255], "must hold 0 bytes"),
        ([1, 0], [255, 255], "must be filled up with zeros"),
        ([0, 9], [64], "must be filled up with zeros"),
        ([1, 0], [0, 0], "a mask without a bit"),
        ([1, 9], [0, 0, 128], "a mask without a bit"),
        ([-1, 0], [], "must be 0 or more, got -1"),
        ([1], [255, 128], r"must have shape \(2,\)"),
        ([1, 0], [256, 128], "must hold whole numbers that fit uint8"),
    ],
)
def test_masks_that_do_not_fit_are_refused(step: Any, bits: Any, message: str) -> None:
    columns = {name: None if v is None else np.array(v, int) for name, v in (("mask_step", step), ("mask_bits", bits))}
    with pytest.raises(ValueError, match=message):
        Regions(np.zeros(2), BOX, np.zeros(2), 1, **columns)


# --- people's own boxes ----------------------------------------------------------------------------------------------


def image_set(n: int = 3, **boxes: Any) -> ImageSet:
    names = np.array([f"{i}.png" for i in range(n)], str)
    return ImageSet("/", names, np.arange(n) % 2, np.full((n, 2), 9), ("a", "b"), **boxes)


def never(ids: Sequence[int]) -> list[Image.Image]:
    raise AssertionError("no image may be decoded")


VIEW = np.tile([0, 0, 9, 9], (3, 1))


def test_own_boxes_are_the_regions() -> None:
    box = [[0, 0, 9, 9], [2, 1, 3, 2], [0, 0, 4, 4]]
    images = image_set(box_image=np.array([0, 0, 2]), box=np.array(box))
    regions = decompose(images, VIEW, RegionsConfig("boxes"), never)
    assert regions.box.tolist() == box
    assert regions.image.tolist() == [0, 0, 2]
    assert regions.position.tolist() == [-1] * 3
    assert regions.n_images == 3
    assert regions.rows_of(1) == slice(2, 2)


def test_a_set_without_any_box_has_no_regions() -> None:
    assert len(own_boxes(image_set(box_image=np.zeros(0), box=np.zeros((0, 4))))) == 0


def test_images_without_a_column_of_boxes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"must have boxes .* Add the column, or give a COCO file as boxes:FILE.json"):
        decompose(image_set(), VIEW, RegionsConfig("boxes"), never)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ({"box": np.zeros((0, 4))}, "must be given together"),
        ({"box_image": np.array([1, 0]), "box": np.tile([0, 0, 1, 1], (2, 1))}, r"box_image must rise within 0 \.\. 2"),
        ({"box_image": np.array([3]), "box": np.array([[0, 0, 1, 1]])}, r"box_image must rise within 0 \.\. 2"),
        ({"box_image": np.array([0]), "box": np.array([[0, 0, 10, 1]])}, "inside of its image"),
        ({"box_image": np.array([0]), "box": np.array([[0, 0, 0, 1]])}, "0 <= x0 < x1"),
        ({"box_image": np.array([0, 0]), "box": np.array([[0, 0, 1, 1]])}, "must have shape"),
    ],
)
def test_boxes_of_an_image_set_are_checked(boxes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        image_set(**boxes)


def test_only_superpixels_decode_images() -> None:
    images = image_set()
    assert len(decompose(images, VIEW, RegionsConfig(k=2), never)) == 12
    sizes = [(9, 9)] * 3
    found = decompose(images, VIEW, RegionsConfig("slic", segments=4), lambda ids: [pictures(*sizes)[i] for i in ids])
    assert found.n_images == 3
    with pytest.raises(AssertionError, match="no image may be decoded"):
        decompose(images, VIEW, RegionsConfig("slic"), never)


# --- on disk, and for the model --------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> AuditRun:
    prints = {"data": "d", "model": "m", "preprocessing": "p"}
    return AuditRun.create(tmp_path, "audit", AuditConfig("/images", "demo"), prints)


@pytest.mark.parametrize("n", [0, 3])
def test_masks_survive_the_disk(n: int, run: AuditRun) -> None:
    regions = cut(pictures(*[(57, 40)] * n), [[0, 0, 57, 40]] * n, 9)
    found = run.stage("regions", lambda: regions)
    assert found.mask_step.tolist() == regions.mask_step.tolist()
    assert all(same(found.mask_of(r), regions.mask_of(r)) for r in range(len(regions)))


def test_regions_from_before_there_were_masks_are_read(run: AuditRun) -> None:
    with open(run.path / "regions.npz", "wb") as file:
        np.savez(file, image=[0], box=[[0, 0, 1, 1]], position=[0], n_images=2)
    found = run.regions()
    assert (found.mask_step, found.mask_bits, found.n_images) == (None, None, 2)


def test_boxes_survive_the_disk(run: AuditRun) -> None:
    images = image_set(4, box_image=np.array([1, 1, 3]), box=np.array([[0, 0, 9, 9], [1, 2, 3, 4], [5, 5, 6, 6]]))
    found = run.stage("images", lambda: replace(images, skipped_boxes=(("0.png", "box 1 [0, 0, 0, 0] is empty"),)))
    assert found.box_image.tolist() == [1, 1, 3]
    assert found.box.tolist() == images.box.tolist()  # type: ignore[union-attr]
    assert found.box.dtype == np.int32
    assert found.skipped_boxes == (("0.png", "box 1 [0, 0, 0, 0] is empty"),)


@pytest.mark.parametrize("n", [0, 2])
def test_no_box_and_no_column_of_boxes_are_told_apart_on_disk(n: int, run: AuditRun) -> None:
    found = run.stage("images", lambda: image_set(n, box_image=np.zeros(0), box=np.zeros((0, 4))))
    assert found.box.shape == (0, 4)
    assert image_set(n).box is None


def test_an_image_set_without_boxes_comes_back_without(run: AuditRun) -> None:
    found = run.stage("images", image_set)
    assert (found.box, found.box_image, found.skipped_boxes) == (None, None, ())


def test_patches_are_counted_by_the_mask() -> None:
    images = image_set(2)
    squares = np.zeros((9, 9), bool)
    squares[:, :3] = True
    regions = Regions(
        np.array([0, 1]), np.tile([0, 0, 9, 9], (2, 1)), np.full(2, -1), 2, np.array([0, 1]), np.packbits(squares)
    )
    model = ColourModel()
    assert patch_counts(model, images, regions).tolist() == [64, 24]  # 3 of 8 columns have their centre in it
    assert region_encoder(model, images, regions, EmbeddingConfig()) == "tokens"
    assert region_encoder(model, images, regions, EmbeddingConfig("crop")) == "crop"
    tiny = Regions(np.array([0]), np.array([[0, 0, 1, 1]]), np.array([-1]), 2)
    assert region_encoder(model, images, tiny, EmbeddingConfig()) == "crop"
    assert patch_counts(model, images, regions.kept(np.zeros(2, bool))).shape == (0,)
