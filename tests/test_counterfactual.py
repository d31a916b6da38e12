"""Removing and pasting features, against one image at a time by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ravl.config import EvidenceConfig, PromptsConfig, ScoringConfig, SignificanceConfig
from ravl.data.painting import fill_mean, paste
from ravl.discovery.counterfactual import Scene, control_regions, counterfactuals, worth_testing
from ravl.discovery.scoring import best_for_class, score_features
from ravl.discovery.significance import significance
from ravl.discovery.zero_shot import class_vectors, classify
from ravl.tables import NOISE, Regions
from tests.toys import ColourModel, paint

NAMES = ("red", "green", "blue")
TAU = 0.05
MARK = 2
"""The feature: blue quadrants, except in blue images."""


def quadrants(n: int, side: int = 16) -> Regions:
    half = side // 2
    box = [[x, y, x + half, y + half] for y in (0, half) for x in (0, half)]
    return Regions(np.repeat(np.arange(n), 4), np.tile(box, (n, 1)), np.tile(np.arange(4), n), n)


def scene(cells: list[list[str]], label: list[int], key: list[int] | None = None, model=None) -> Scene:
    model = model or ColourModel()
    pictures = [paint(c) for c in cells]
    regions = quadrants(len(cells))
    boxes = [regions.box[regions.rows_of(i)] for i in range(len(cells))]
    encoded = model.encode_regions(pictures, boxes, "tokens", 0)
    text = class_vectors(model, NAMES, PromptsConfig())
    zero_shot = classify(encoded.image, encoded.region, text, np.array(label, int), TAU)
    feature_of = np.array([NAMES.index(c) for row in cells for c in row])
    keys = np.array(range(len(cells)) if key is None else key, np.uint64)
    return Scene(model, lambda ids: [pictures[i] for i in ids], text, regions, zero_shot, feature_of, keys, 0)


def world(n: int = 24) -> tuple[list[list[str]], list[int]]:
    rng = np.random.default_rng(1)
    cells, label = [], []
    for i in range(n):
        y = i % 3
        own = [NAMES[y]] * 2 + [str(c) for c in rng.choice(NAMES, 2)]
        cells.append([own[j] for j in rng.permutation(4)])
        label.append(int(rng.integers(3)) if i % 4 == 0 else y)
    return cells, label


CONFIG = EvidenceConfig(operators=("token_drop", "mean_fill"), max_pasted=5)


def test_every_answer_by_hand():
    cells, label = world()
    made = scene(cells, label)
    found = counterfactuals(made, [2, 0], [2, 0], CONFIG, batch_size=5)
    with_it = [(f, i) for f in (2, 0) for i, row in enumerate(cells) if NAMES[f] in row]
    assert list(zip(found.feature.tolist(), found.image.tolist(), strict=True)) == with_it
    for (f, i), after, control in zip(with_it, found.after, found.control, strict=True):
        own = 4 * i + np.flatnonzero(np.array(cells[i]) == NAMES[f])
        picture, box = paint(cells[i]), made.regions.box[own]
        dropped = made.model_answer(made.vlm.encode_without([picture], [box]))
        filled = made.model_answer(made.vlm.encode_images([fill_mean(picture, box)]))
        assert after.tolist() == [dropped if len(own) < 4 else after[0], filled]
        instead = control_regions(made.regions, i, own, made.rng(i, 0))
        if made.zero_shot.correct[i] or not len(instead):
            assert control.tolist() == [-1, -1]
        else:
            box = made.regions.box[instead]
            assert control[1] == made.model_answer(made.vlm.encode_images([fill_mean(picture, box)]))


def answer(self: Scene, vectors: np.ndarray) -> int:
    return int(np.argmax(vectors[0] @ self.text.T))


Scene.model_answer = answer  # type: ignore[attr-defined]


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_order_and_batch_size_change_nothing(batch_size):
    cells, label = world()
    keys = np.random.default_rng(5).permutation(len(cells))
    base = counterfactuals(scene(cells, label, keys.tolist()), [2], [2], CONFIG, 24)
    order = np.random.default_rng(6).permutation(len(cells))
    shuffled = scene([cells[i] for i in order], [label[i] for i in order], keys[order].tolist())
    again = counterfactuals(shuffled, [2], [2], CONFIG, batch_size)

    def rows(found, image_of):
        return sorted(
            (int(image_of[i]), a.tolist(), c.tolist())
            for i, a, c in zip(found.image, found.after, found.control, strict=True)
        )

    def pastes(found, image_of):
        return sorted(
            (int(image_of[i]), int(image_of[r // 4]), int(r % 4), int(p % 4), int(a))
            for i, r, p, a in zip(
                found.pasted_image, found.pasted_region, found.pasted_place, found.pasted_after, strict=True
            )
        )

    assert rows(base, np.arange(24)) == rows(again, order)
    assert pastes(base, np.arange(24)) == pastes(again, order)


def test_pasting_by_hand():
    cells, label = world(60)
    made = scene(cells, label)
    found = counterfactuals(made, [MARK], [MARK], CONFIG, batch_size=4)
    assert len(found.pasted_image) == 5
    keep = best_for_class(made.regions, made.zero_shot.region, made.zero_shot.label)
    for i, r, p, a in zip(found.pasted_image, found.pasted_region, found.pasted_place, found.pasted_after, strict=True):
        assert made.zero_shot.correct[i]
        assert label[i] != MARK
        assert "blue" not in cells[i]
        assert cells[r // 4][r % 4] == "blue"
        assert made.regions.image[p] == i
        assert p != keep[i]
        crop = paint(cells[r // 4]).crop(tuple(made.regions.box[r].tolist()))
        pasted = paste(paint(cells[i]), crop, made.regions.box[p])
        assert a == made.model_answer(made.vlm.encode_images([pasted]))


def test_of_a_masked_region_only_what_is_inside_is_pasted(monkeypatch):
    cells, label = world(60)
    made = scene(cells, label)
    lower_half = np.full(len(made.regions), 0b0011_0000, np.uint8)  # of 2 x 2 squares of four pixels
    steps = np.full(len(made.regions), 4, np.int32)
    made = replace(made, regions=replace(made.regions, mask_step=steps, mask_bits=lower_half))
    seen = []
    monkeypatch.setattr(
        made.vlm, "encode_images", lambda given: seen.extend(given) or ColourModel().encode_images(given)
    )
    config = replace(CONFIG, operators=("token_drop",))
    found = counterfactuals(made, [MARK], [MARK], config, batch_size=100)
    for i, p, picture in zip(found.pasted_image, found.pasted_place, seen[-5:], strict=True):
        x0, y0, x1, y1 = made.regions.box[p].tolist()
        before, after = (np.asarray(one)[y0:y1, x0:x1] for one in (paint(cells[i]), picture))
        assert (after[:4] == before[:4]).all()
        assert (after[4:] != before[4:]).any()


def test_a_sample_of_the_images_is_the_same_in_any_order():
    cells, label = world(60)
    keys = np.random.default_rng(2).permutation(60)
    few = replace(CONFIG, max_images=20)
    base = counterfactuals(scene(cells, label, keys.tolist()), [MARK], [MARK], few, 8)
    assert len(base) == 20
    order = np.random.default_rng(3).permutation(60)
    other = counterfactuals(
        scene([cells[i] for i in order], [label[i] for i in order], keys[order].tolist()), [MARK], [MARK], few, 8
    )
    assert set(base.image.tolist()) == set(order[other.image].tolist())


def test_control_regions_are_others_of_equal_area():
    box = [[0, 0, 8, 8], [8, 0, 16, 8], [0, 8, 8, 16], [8, 8, 12, 12], [0, 0, 16, 16], [1, 1, 8, 8]]
    regions = Regions(np.zeros(6), box, np.full(6, -1), 1)
    drawn = {tuple(control_regions(regions, 0, np.array([0]), np.random.default_rng(s))) for s in range(40)}
    assert drawn == {(1,), (2,)}  # not the half-size one, nor the whole image, nor what lies inside
    two = {tuple(control_regions(regions, 0, np.array([0, 1]), np.random.default_rng(s))) for s in range(20)}
    assert all(0 not in t and 1 not in t for t in two)
    assert not len(control_regions(regions, 0, np.array([0, 1, 2, 4]), np.random.default_rng(0)))


def test_an_image_that_is_all_feature_has_no_control():
    regions = quadrants(1)
    assert not len(control_regions(regions, 0, np.arange(4), np.random.default_rng(0)))
    assert len(control_regions(regions, 0, np.arange(2), np.random.default_rng(0))) == 2
    assert not len(control_regions(regions, 0, np.arange(3), np.random.default_rng(0)))  # a third is not enough


def test_a_transplant_comes_from_the_same_class_without_the_feature():
    cells, label = world(30)
    made = scene(cells, label)
    asked: list[int] = []
    watching = replace(made, images_of=lambda ids: (asked.extend(ids), [paint(cells[i]) for i in ids])[1])
    config = replace(CONFIG, operators=("transplant",), max_pasted=0)
    found = counterfactuals(watching, [MARK], [MARK], config, batch_size=1)
    assert (found.after >= 0).any()
    donors = [i for i in asked if "blue" not in cells[i]]
    assert donors
    assert {label[i] for i in donors} <= {label[i] for i in found.image}


def test_nothing_to_test():
    cells, label = world()
    found = counterfactuals(scene(cells, label), [], [], CONFIG, 8)
    assert len(found) == 0
    assert found.after.shape == (0, 2)
    assert len(found.pasted_after) == 0


def test_a_feature_without_pull_class_is_removed_but_not_pasted():
    cells, label = world()
    found = counterfactuals(scene(cells, label), [1], [-1], CONFIG, 8)
    assert len(found)
    assert len(found.pasted_after) == 0


def test_only_what_could_be_flagged_is_scored_again():
    cells, label = world(120)
    made = scene(cells, label)
    scores = score_features(made.regions, made.zero_shot, made.feature_of, 3, ScoringConfig())
    chance = significance(scores, made.regions, made.zero_shot, made.feature_of, SignificanceConfig(), seed=0)
    with np.errstate(invalid="ignore"):
        expected = [
            int(f)
            for row, f in enumerate(scores.feature)
            if chance.supported[row] and (chance.q[row] < 0.05 or scores.passes[row])
        ]
    assert worth_testing(scores, chance, 0.05).tolist() == expected
    nothing = np.full(len(made.feature_of), NOISE)
    empty = score_features(made.regions, made.zero_shot, nothing, 0, ScoringConfig())
    none = significance(empty, made.regions, made.zero_shot, nothing, SignificanceConfig(), seed=0)
    assert worth_testing(empty, none, 0.05).tolist() == []
