"""Agreement of two region encoders: against the definitions, on a sample, and where nothing can be compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from ravl.config import EmbeddingConfig, RegionsConfig
from ravl.discovery.agreement import PER_IMAGE, agreement, compare, sample
from ravl.discovery.regions import grid, superpixels
from ravl.tables import Agreement, ImageSet, Regions, Step
from ravl.vlm.interface import Encoded, Masks
from tests.oracles import cosine, first_best
from tests.toys import ColourModel, paint

NAN = math.nan


def ranks(values: Sequence[float]) -> list[float]:
    """Mean rank of each value among all of them."""
    return [sum(v < x for v in values) + (sum(v == x for v in values) + 1) / 2 for x in values]


def correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Pearson's; of ranks it is Spearman's."""
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    top = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    return top / math.sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))


@given(st.integers(2, 12), st.integers(1, 4), st.integers(0, 10**6))
def test_agreement_equals_the_definitions(n: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    fast, slow, whole = rng.normal(size=(3, n, 5))
    text = rng.normal(size=(classes, 5)).astype(np.float32)
    found = compare(fast, slow, whole, text)
    best = [[first_best([cosine(v, t) for t in text]) for v in rows] for rows in (fast, slow, whole)]
    scores = [[cosine(v, text[y]) for v, y in zip(rows, best[2], strict=True)] for rows in (fast, slow)]
    assert found.n == n
    assert found.cosine == pytest.approx(np.mean([cosine(a, b) for a, b in zip(fast, slow, strict=True)]), abs=1e-5)
    assert found.same_class == pytest.approx(np.mean([a == b for a, b in zip(best[0], best[1], strict=True)]))
    assert found.spearman == pytest.approx(correlation(ranks(scores[0]), ranks(scores[1])), abs=1e-5)


def test_an_encoder_agrees_with_itself() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 4))
    found = compare(rows.astype(np.float16), 3 * rows, rows, np.eye(4, dtype=np.float32))
    assert (found.n, found.same_class) == (30, 1)
    assert found.cosine == pytest.approx(1, abs=1e-4)
    assert found.spearman == pytest.approx(1, abs=1e-2)


def test_what_is_undefined_is_nan() -> None:
    text = np.eye(3, dtype=np.float32)
    one = compare(text[:1], text[:1], text[:1], text)
    assert (one.n, one.cosine, one.same_class) == (1, 1, 1)
    assert math.isnan(one.spearman)
    constant = compare(np.ones((4, 3)), np.random.default_rng(0).normal(size=(4, 3)), np.ones((4, 3)), text)
    assert math.isnan(constant.spearman)
    assert not math.isnan(constant.cosine)
    nothing = compare(*[np.zeros((0, 3))] * 3, text)
    assert nothing.n == 0
    assert math.isnan(nothing.same_class)


@pytest.mark.parametrize("broken", range(3))
def test_broken_embeddings_are_refused(broken: int) -> None:
    rows = [np.ones((2, 3)) for _ in range(3)]
    rows[broken][1, 2] = NAN
    name = ("fast", "slow", "whole")[broken]
    with pytest.raises(ValueError, match=f"{name} must be finite"):
        compare(*rows, np.eye(3, dtype=np.float32))


@pytest.mark.parametrize(
    "values", [(3, 1.2, 0.5, 0.5), (3, 0.5, -0.5, 0.5), (3, 0.5, 0.5, -1.1), (0, 0.5, NAN, NAN), (0, NAN, NAN, 0.0)]
)
def test_numbers_that_cannot_be_are_refused(values: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"Agreement\..* must lie in"):
        Agreement(*values)


# --- the sample ------------------------------------------------------------------------------------------------------


def regions_of(counts: Sequence[int]) -> Regions:
    owner = np.repeat(np.arange(len(counts)), counts)
    return Regions(owner, np.tile([0, 0, 1, 1], (len(owner), 1)), np.full(len(owner), -1), len(counts))


@given(st.lists(st.integers(0, 5), max_size=12), st.integers(0, 30), st.integers(0, 10**6))
def test_a_sample_is_spread_over_the_images(counts: list[int], size: int, seed: int) -> None:
    regions = regions_of(counts)
    chosen = sample(regions, size, np.random.default_rng(seed))
    assert len(chosen) == min(size, sum(min(c, PER_IMAGE) for c in counts))
    assert (np.diff(chosen) > 0).all()
    assert np.bincount(regions.image[chosen], minlength=1).max() <= PER_IMAGE
    assert chosen.tolist() == sample(regions, size, np.random.default_rng(seed)).tolist()


def test_every_region_may_be_sampled() -> None:
    regions = regions_of([3, 1, 4])
    seen = set()
    for seed in range(200):
        seen.update(sample(regions, 2, np.random.default_rng(seed)).tolist())
    assert seen == set(range(8))


# --- with a model ----------------------------------------------------------------------------------------------------


@dataclass
class Watched(ColourModel):
    """Notes what it was asked for. `crop` is the colour turned round: it disagrees wherever it can."""

    turned: bool = False
    asked: list[tuple[int, str, float]] = field(default_factory=list)

    def encode_regions(
        self,
        images: Sequence[Image.Image],
        boxes: Sequence[NDArray[np.integer]],
        encoder: str,
        context: float,
        masks: Masks = None,
    ) -> Encoded:
        self.asked += [(len(own), encoder, context) for own in boxes]
        found = super().encode_regions(images, boxes, encoder, context, masks)
        return Encoded(found.image, np.roll(found.region, 1, 1) if self.turned else found.region, found.feature)


class World:
    """Images of four coloured quadrants, and the embeddings of their regions."""

    def __init__(self, model: ColourModel, n: int = 150, regions: Regions | None = None) -> None:
        rng = np.random.default_rng(0)
        self.images = [paint(rng.choice(["red", "green", "blue"], 4).tolist()) for _ in range(n)]
        names = np.array([f"{i}.png" for i in range(n)], str)
        self.set = ImageSet("/", names, np.zeros(n), np.full((n, 2), 16), ("red", "green", "blue"))
        self.regions = grid(model.view(self.set.size), RegionsConfig()) if regions is None else regions
        boxes = [self.regions.box[self.regions.rows_of(i)] for i in range(n)]
        masks = [self.regions.masks_of(i) for i in range(n)]
        self.embeddings = ColourModel().encode_regions(self.images, boxes, "tokens", 0, masks).region
        self.text = ColourModel().encode_texts(["red", "green", "blue"])
        self.decoded: list[int] = []

    def images_of(self, ids: Sequence[int]) -> list[Image.Image]:
        self.decoded += ids
        return [self.images[i] for i in ids]

    def agreement(self, model: ColourModel, encoder: str = "auto", **more: Any) -> Agreement:
        rng, config = np.random.default_rng(1), EmbeddingConfig(encoder, 0.25)
        return agreement(
            *(model, self.images_of, self.set, self.regions, self.embeddings, self.text, config, rng), **more
        )


def test_a_sample_of_a_run_is_compared_with_crop() -> None:
    model, steps = Watched(), []
    world = World(model)
    found = world.agreement(model, report=steps.append)
    assert (found.n, found.same_class) == (200, 1)
    assert found.cosine == pytest.approx(1, abs=1e-5)
    assert found.spearman == pytest.approx(1, abs=1e-5)
    assert model.asked == [(2, "crop", 0.25)] * 100
    assert world.decoded == sorted(set(world.decoded))  # each image once, in order
    assert isinstance(steps[-1], Step)
    assert (steps[-1].stage, steps[-1].done, steps[-1].total) == ("agreement", 100, 100)


def test_disagreement_is_told() -> None:
    model = Watched(turned=True)
    found = World(model).agreement(model, n_sample=60)
    assert (found.n, found.same_class) == (60, 0)
    assert found.cosine < 0.1


def test_embeddings_are_compared_region_by_region() -> None:
    """Turned embeddings of the run and a turned crop agree again, so rows are not mixed up."""
    model = Watched(turned=True)
    world = World(model)
    world.embeddings = np.roll(world.embeddings, 1, 1)
    assert world.agreement(model).cosine == pytest.approx(1, abs=1e-5)


def test_masks_are_compared_too() -> None:
    model = Watched()
    plain = World(model, 5)
    world = World(model, 5, superpixels(model.view(plain.set.size), 9, plain.images_of))
    assert any(world.regions.mask_of(r) is not None for r in range(len(world.regions)))
    assert world.agreement(model, "tokens").cosine == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("encoder", ["crop", "auto"])
def test_crop_has_nothing_to_be_compared_with(encoder: str) -> None:
    model = Watched()
    world = World(model, 3, None if encoder == "crop" else grid(np.tile([0, 0, 16, 16], (3, 1)), RegionsConfig(k=8)))
    found = world.agreement(model, encoder)
    assert found.n == 0
    assert all(map(math.isnan, (found.cosine, found.same_class, found.spearman)))
    assert model.asked == []
    assert world.decoded == []


def test_no_regions() -> None:
    model = Watched()
    world = World(model, 2, Regions(np.zeros(0), np.zeros((0, 4)), np.zeros(0), 2))
    world.embeddings = np.zeros((0, 3), np.float32)
    assert world.agreement(model).n == 0


def test_embeddings_of_other_regions_are_refused() -> None:
    model = Watched()
    world = World(model, 2)
    world.embeddings = world.embeddings[1:]
    with pytest.raises(ValueError, match=r"embeddings must have shape \(8, 3\), got \(7, 3\)"):
        world.agreement(model)
