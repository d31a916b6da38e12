"""Records: what they accept, what they refuse, and that nobody can change them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ravl.tables import (
    NOISE,
    Assignment,
    Clustering,
    Exemplars,
    FeatureScores,
    GroupAccuracy,
    ImageSet,
    Regions,
    ZeroShot,
    columns,
)


def image_set(n: int = 2) -> ImageSet:
    names = np.array([f"{i}.png" for i in range(n)], str)
    return ImageSet("/", names, np.zeros(n), np.ones((n, 2)), ("a", "b"), names, {"site": names})


def regions(n: int = 2) -> Regions:
    return Regions(np.arange(n), np.tile([0, 0, 1, 1], (n, 1)), np.zeros(n), n)


def zero_shot(n: int = 2) -> ZeroShot:
    return ZeroShot(np.full((n, 2), 0.5), np.full((2 * n, 2), 0.5), np.zeros(n))


def clustering(n: int = 2) -> Clustering:
    return Clustering(
        np.arange(n),
        np.ones(n),
        np.arange(n),
        np.zeros((1, 3)),
        np.zeros(3),
        np.ones((2, 3)),
        np.ones((n, 2)),
        np.ones(n),
    )


def scores(n: int = 2) -> FeatureScores:
    counts = np.ones((n, 3), int)
    return FeatureScores(*[np.arange(n)] * 10, counts * 0.5, *[counts] * 4)


def exemplars(n: int = 2) -> Exemplars:
    return Exemplars(*[np.arange(n)] * 7)


def groups(n: int = 2) -> GroupAccuracy:
    names = np.array([f"group {i}" for i in range(n)], str)
    return GroupAccuracy(names, np.array(["group"] * n, str), *[np.arange(n)] * 5)


def assignment(n: int = 2) -> Assignment:
    return Assignment(*[np.arange(n)] * 3)


MAKERS: list[Callable[[int], Any]] = [image_set, regions, zero_shot, clustering, scores, exemplars, groups, assignment]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("n", [0, 1, 3])
def test_columns_are_read_only_and_the_arguments_are_not(make: Callable[[int], Any], n: int) -> None:
    record = make(n)
    arrays = {name: value for name, value in columns(record).items() if isinstance(value, np.ndarray)}
    assert arrays
    for name, value in arrays.items():
        assert not value.flags.writeable
        given_ = value.copy()
        again = replace(record, **{name: given_})
        assert given_.flags.writeable
        np.testing.assert_array_equal(getattr(again, name), given_)
    with pytest.raises(FrozenInstanceError):
        setattr(record, fields(record)[0].name, None)


@pytest.mark.parametrize("make", MAKERS)
def test_a_column_of_another_length_is_refused(make: Callable[[int], Any]) -> None:
    record = make(2)
    arrays = [name for name, value in columns(record).items() if isinstance(value, np.ndarray)]
    alone = {"Assignment": {"feature"}, "ZeroShot": {"region"}, "Clustering": {"position_mean"}}.get(
        type(record).__name__, set()
    )
    for name in arrays:
        value = getattr(record, name)
        if name not in alone:
            with pytest.raises(ValueError, match=r"must (have shape|index|rise|lie)"):
                replace(record, **{name: np.concatenate([value, value[:1]])})
        with pytest.raises(ValueError, match="must have shape"):
            replace(record, **{name: value[None, None]})


def test_empty_lists_are_columns_without_rows() -> None:
    empty = Regions([], [], [], 0)  # type: ignore[arg-type]
    assert empty.box.shape == (0, 4)
    assert empty.starts.tolist() == [0]
    assert ImageSet("/", [], [], [], ()).size.shape == (0, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("label", [[0, 2], [-2, 0]])
def test_labels_index_the_classes(label: list[int]) -> None:
    with pytest.raises(ValueError, match="label must index the 2 class names"):
        replace(image_set(2), label=np.array(label))


@pytest.mark.parametrize("label", [[0, 65_536], [0.5, 0], [0, np.nan]])
def test_numbers_that_do_not_fit_are_not_bent(label: list[float]) -> None:
    with pytest.raises(ValueError, match=r"ImageSet.label must hold whole numbers that fit int16"):
        replace(image_set(2), label=np.array(label))


def test_group_columns_have_a_value_per_image() -> None:
    with pytest.raises(ValueError, match="site"):
        replace(image_set(2), groups={"site": np.array(["a"])})
    assert not image_set(2).groups["site"].flags.writeable


@pytest.mark.parametrize("box", [[0, 0, 0, 1], [1, 0, 1, 1], [0, 2, 1, 1], [-1, 0, 1, 1], [0, -1, 1, 1]])
def test_boxes_have_an_inside(box: list[int]) -> None:
    with pytest.raises(ValueError, match="0 <= x0 < x1 and 0 <= y0 < y1"):
        Regions(np.array([0]), np.array([box]), np.array([0]), 1)


@pytest.mark.parametrize("image", [[1, 0], [0, 2], [-1, 0]])
def test_regions_are_ordered_by_image(image: list[int]) -> None:
    with pytest.raises(ValueError, match=r"Regions.image must rise within 0 \.\. 1"):
        Regions(np.array(image), np.tile([0, 0, 1, 1], (2, 1)), np.zeros(2), 2)


@given(st.lists(st.integers(0, 4), max_size=12))
def test_rows_of_an_image(image: list[int]) -> None:
    image = sorted(image)
    record = Regions(np.array(image, int), np.tile([0, 0, 1, 1], (len(image), 1)), np.zeros(len(image)), 5)
    for i in range(5):
        rows = range(len(image))[record.rows_of(i)]
        assert list(rows) == [r for r, owner in enumerate(image) if owner == i]


def test_images_that_have_one_of_the_chosen_regions() -> None:
    record = Regions(np.array([0, 0, 2]), np.tile([0, 0, 1, 1], (3, 1)), np.zeros(3), 4)
    assert record.in_images(np.array([1, 2])).tolist() == [True, False, True, False]
    assert record.in_images(np.array([False, False, True])).tolist() == [False, False, True, False]
    assert not record.in_images(np.zeros(0, int)).any()


@pytest.mark.parametrize("name", ["image", "region"])
def test_probabilities_sum_to_one(name: str) -> None:
    with pytest.raises(ValueError, match=rf"ZeroShot.{name} rows must sum to 1"):
        replace(zero_shot(2), **{name: np.full((2, 2), 0.4)})


def test_predictions() -> None:
    record = ZeroShot(np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]]), np.ones((1, 2)) / 2, np.array([0, 1, 1]))
    assert record.predicted.tolist() == [0, 0, 1]
    assert record.correct.tolist() == [True, False, True]
    nothing = ZeroShot(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0))
    assert nothing.predicted.shape == nothing.correct.shape == (0,)


def test_cluster_labels_are_noise_or_a_cluster() -> None:
    with pytest.raises(ValueError, match=r"Clustering.label must lie in -1 \.\. 1"):
        replace(clustering(2), label=np.array([0, 2]))
    record = replace(clustering(2), label=np.array([NOISE, 1]))
    assert (record.n_clusters, record.noise_share) == (2, 0.5)
    assert np.isnan(clustering(0).noise_share)


def test_rank_of_a_feature() -> None:
    record = replace(scores(3), feature=np.array([4, 0, 2]))
    assert [record.row_of(feature) for feature in (4, 0, 2)] == [0, 1, 2]
    with pytest.raises(KeyError, match=r"feature must be one of \[0, 2, 4\], got 1"):
        record.row_of(1)


def test_exemplars_of_a_feature() -> None:
    record = replace(exemplars(4), feature=np.array([2, 0, 2, 1]))
    assert record.rows_of(2).tolist() == [0, 2]
    assert record.rows_of(7).tolist() == []


def test_the_worst_group() -> None:
    record = GroupAccuracy(
        np.array(["all", "a", "b", "c", "d"]),
        np.array(["overall", "class", "group", "group", "group"]),
        *[np.zeros(5)] * 3,
        np.array([99, 99, 10, 9, 0]),
        np.array([0, 0, 5, 1, 0]),
    )
    np.testing.assert_array_equal(record.accuracy[2:], [0.5, 1 / 9, np.nan])
    assert record.worst() == 2
    assert record.worst(5) == 3
    assert record.worst(100) == 3  # none is that large, so one image is enough
    assert groups(0).worst() is None
    assert replace(record, n=np.zeros(5)).worst() is None
