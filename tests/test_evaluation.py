"""Accuracy by group, against a count by hand for every row."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ravl.evaluation import as_document, group_accuracy
from ravl.tables import GroupAccuracy

CLASSES = ("cat", "dog", "eel")
Expected = dict[str, tuple[str, int, int, int, int, int]]


def by_hand(
    predicted: list[int], label: list[int], present: dict[int, list[bool]], columns: dict[str, list[str]]
) -> Expected:
    """name -> kind, class_index, feature, present, n, right: a loop over the images for every group."""

    def count(wanted: list[bool]) -> tuple[int, int]:
        n = right = 0
        for i, inside in enumerate(wanted):
            if inside:
                n += 1
                right += predicted[i] == label[i]
        return n, right

    images = range(len(label))
    rows: Expected = {"all images": ("overall", -1, -1, -1, *count([True for _ in images]))}
    for y, name in enumerate(CLASSES):
        rows[f"class {name}"] = ("class", y, -1, -1, *count([label[i] == y for i in images]))
    for f, has in present.items():
        rows[f"with feature {f}"] = ("feature", -1, f, 1, *count([has[i] for i in images]))
        rows[f"without feature {f}"] = ("feature", -1, f, 0, *count([not has[i] for i in images]))
    for y, name in enumerate(CLASSES):
        if present:
            f = next(iter(present)) if len(present) == 1 else -1
            title = f"feature {f}" if len(present) == 1 else "any of " + ", ".join(f"feature {f}" for f in present)
            anywhere = [any(has[i] for has in present.values()) for i in images]
            rows[f"{name} with {title}"] = ("group", y, f, 1, *count([label[i] == y and anywhere[i] for i in images]))
            outside = [label[i] == y and not anywhere[i] for i in images]
            rows[f"{name} without {title}"] = ("group", y, f, 0, *count(outside))
        for column, values in columns.items():
            for value in set(values):
                inside = [label[i] == y and values[i] == value for i in images]
                rows[f"{name}, {column}={value}"] = ("group", y, -1, -1, *count(inside))
        if not present and not columns:
            rows[f"group {name}"] = ("group", y, -1, -1, *count([label[i] == y for i in images]))
    return rows


def as_rows(groups: GroupAccuracy) -> Expected:
    rows: Expected = {}
    for i, name in enumerate(groups.name.tolist()):
        kind = str(groups.kind[i])
        key = f"{kind} {name}" if name in CLASSES else name
        numbers = (groups.class_index[i], groups.feature[i], groups.present[i], groups.n[i], groups.right[i])
        assert key not in rows
        rows[key] = (kind, *map(int, numbers))
    return rows


@given(st.data())
def test_every_row_is_a_count(data: st.DataObject) -> None:
    n = data.draw(st.integers(0, 25))

    def column(values: st.SearchStrategy[object]) -> list:  # type: ignore[type-arg]
        return data.draw(st.lists(values, min_size=n, max_size=n))

    predicted, label = column(st.integers(0, 2)), column(st.integers(0, 2))
    present = {f: column(st.booleans()) for f in data.draw(st.lists(st.integers(0, 9), max_size=3, unique=True))}
    columns = {name: column(st.sampled_from("xyz")) for name in data.draw(st.sampled_from([[], ["site"], ["a", "b"]]))}
    found = group_accuracy(
        np.array(predicted, int),
        np.array(label, int),
        CLASSES,
        {f: np.array(has, bool) for f, has in present.items()},
        {},
        {name: np.array(values, str) for name, values in columns.items()},
    )
    assert as_rows(found) == by_hand(predicted, label, present, columns)
    document = json.loads(json.dumps(as_document(found), allow_nan=False))
    assert document["overall"] == (None if n == 0 else round(float(np.mean(found.right[0] / found.n[0])), 6))


def small(names: dict[int, str] | None = None) -> GroupAccuracy:
    """12 images of two classes; the mark is on four dogs, all wrong, and on one cat, right."""
    label = np.array([0] * 6 + [1] * 6)
    predicted = np.array([0] * 6 + [0] * 4 + [1] * 2)
    mark = np.array([1] + [0] * 5 + [1] * 4 + [0] * 2, bool)
    names = {3: "red square"} if names is None else names
    return group_accuracy(predicted, label, ("cat", "dog"), {3: mark}, names, {})


def test_the_names_can_be_read() -> None:
    assert small().name.tolist() == [
        *("all images", "cat", "dog", "with red square", "without red square"),
        *("cat with red square", "cat without red square", "dog with red square", "dog without red square"),
    ]
    assert small({}).name.tolist()[3] == "with feature 3"
    assert small({3: ""}).name.tolist()[3] == "with feature 3"
    site = np.array(["A", "", "A"])
    found = group_accuracy(np.zeros(3, int), np.zeros(3, int), ("nine",), {}, {}, {"site": site})
    assert found.name.tolist()[2:] == ["nine, no site", "nine, site=A"]
    both = {1: np.ones(3, bool), 4: np.zeros(3, bool)}
    found = group_accuracy(np.zeros(3, int), np.zeros(3, int), ("nine",), both, {1: "a square", 4: "a clip"}, {})
    assert found.name.tolist()[-2:] == ["nine with any of a square, a clip", "nine without any of a square, a clip"]


def test_features_of_one_name_stay_apart() -> None:
    present = {1: np.array([True, False]), 4: np.array([True, True])}
    found = group_accuracy(np.zeros(2, int), np.zeros(2, int), ("nine",), present, {1: "clip", 4: "clip"}, {})
    document = as_document(found)
    assert list(document["per_feature"]) == ["clip (feature 1)", "clip (feature 4)"]
    assert document["per_feature"]["clip (feature 1)"]["with"] == {"accuracy": 1.0, "n": 1}


def test_the_worst_group_needs_enough_images() -> None:
    label = np.array([0] * 12 + [1] * 12)
    predicted = np.array([0] * 9 + [1] * 3 + [1] * 12)
    mark = np.zeros(24, bool)
    mark[9:11] = True  # two cats, both wrong: too few to be the worst group
    found = group_accuracy(predicted, label, ("cat", "dog"), {0: mark}, {}, {})
    worst = as_document(found)["worst_group"]
    assert worst == {"name": "cat without feature 0", "accuracy": 0.9, "n": 10}
    few = small()
    assert as_document(few)["worst_group"] == {"name": "dog with red square", "accuracy": 0.0, "n": 4}


def test_the_document_is_strict_json() -> None:
    document = as_document(small())
    assert document == json.loads(json.dumps(document, allow_nan=False))
    assert document["overall"] == round(8 / 12, 6)
    assert document["per_class"] == {"cat": {"accuracy": 1.0, "n": 6}, "dog": {"accuracy": round(1 / 3, 6), "n": 6}}
    assert document["per_feature"] == {
        "red square": {"with": {"accuracy": 0.2, "n": 5}, "without": {"accuracy": 1.0, "n": 7}}
    }
    assert document["groups"][2] == {"name": "dog with red square", "accuracy": 0.0, "n": 4}


def test_no_images_at_all() -> None:
    nothing = np.zeros(0, int)
    found = group_accuracy(nothing, nothing, CLASSES, {0: np.zeros(0, bool)}, {}, {"site": np.zeros(0, str)})
    assert np.isnan(found.accuracy).all()
    document = as_document(found)
    assert document["overall"] is None
    assert document["worst_group"] is None
    assert document["per_class"]["eel"] == {"accuracy": None, "n": 0}
    assert document["per_feature"]["feature 0"]["with"] == {"accuracy": None, "n": 0}


def test_a_group_without_images_has_no_accuracy() -> None:
    found = group_accuracy(np.array([0, 0]), np.array([0, 0]), CLASSES, {0: np.array([True, True])}, {}, {})
    row = found.name.tolist().index("dog with feature 0")
    assert math.isnan(found.accuracy[row])
    assert found.n[row] == 0
    assert found.worst() == found.name.tolist().index("cat with feature 0")


def test_rows_do_not_depend_on_the_prediction() -> None:
    rng = np.random.default_rng(0)
    label, mark = rng.integers(0, 3, 40), rng.random(40) < 0.5
    one, other = (
        group_accuracy(rng.integers(0, 3, 40), label, CLASSES, {2: mark}, {}, {"site": label.astype(str)}) for _ in "ab"
    )
    assert one.name.tolist() == other.name.tolist()
    np.testing.assert_array_equal(one.n, other.n)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predicted": [0]}, r"predicted must have one entry per label, \(2,\), got \(1,\)"),
        ({"present": {7: [True]}}, "7 must have one entry per label"),
        ({"groups": {"site": ["a"] * 3}}, "site must have one entry per label"),
        ({"label": [0, 3]}, r"label must index the 3 class names, got 0 \.\. 3"),
        ({"label": [-1, 0]}, r"label must index the 3 class names, got -1 \.\. 0"),
    ],
)
def test_columns_that_do_not_fit(change: dict[str, object], message: str) -> None:
    given_: dict[str, object] = {"predicted": [0, 0], "label": [0, 1], "present": {}, "groups": {}} | change
    with pytest.raises(ValueError, match=message):
        group_accuracy(class_names=CLASSES, feature_names={}, **given_)  # type: ignore[arg-type]
