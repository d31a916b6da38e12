"""Accuracy by group, against a count by hand for every row."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ravl.discovery.significance import newcombe, wilson
from ravl.evaluation import as_document, group_accuracy, worst_groups
from ravl.mitigation.comparison import Answers, TestSet, Treated, document, paired_interval
from ravl.tables import GroupAccuracy, ImageSet, Regions

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


def test_the_second_worst_group_is_another_one() -> None:
    """A group column that says the same as the feature gives the worst group a second name."""
    label = np.repeat([0, 1], 30)
    mark = np.tile(np.repeat([True, False], 15), 2)
    wrong = np.concatenate([np.arange(15) < k for k in (2, 5, 12, 9)])
    predicted = np.where(wrong, 1 - label, label)
    site = np.where(mark, "A", "B")
    for columns in ({}, {"site": site}):
        found = group_accuracy(predicted, label, ("cat", "dog"), {0: mark}, {0: "clip"}, columns)
        shown = as_document(found)
        assert shown["worst_group"] == {"name": "dog with clip", "accuracy": 0.2, "n": 15}
        assert shown["second_worst_group"] == {"name": "dog without clip", "accuracy": 0.4, "n": 15}
        assert worst_groups(found)[0] == found.worst()
        assert len(worst_groups(found)) == 4
    only = group_accuracy(np.zeros(3, int), np.zeros(3, int), ("cat",), {}, {}, {})
    assert as_document(only)["second_worst_group"] is None


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


# --- before and after ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "limits"),
    [((20, 12, 2, 16), (0.0562, 0.3292)), ((36, 12, 2, 0), (0.0569, 0.3404)), ((1, 1, 7, 12), (-0.5069, -0.0256))],
)
def test_paired_intervals_are_the_published_ones(cells: tuple[int, ...], limits: tuple[float, float]) -> None:
    """Examples of Newcombe (1998), and the data of Bentur et al. (2009). Cells: both, first, second, neither."""
    both, first, second, _ = cells
    n = sum(cells)
    assert paired_interval(both, second, first, n) == pytest.approx(limits, abs=5e-5)
    assert paired_interval(both, first, second, n) == pytest.approx((-limits[1], -limits[0]), abs=5e-5)


@given(st.tuples(*[st.integers(0, 30)] * 4))
def test_a_paired_interval_holds_the_change_and_is_no_wider_than_the_other_one(cells: tuple[int, ...]) -> None:
    both, before, after, neither = cells
    n = sum(cells)
    low, high = paired_interval(both, before, after, n)
    if not n:
        assert math.isnan(low)
        return
    assert -1 <= low <= (after - before) / n <= high <= 1
    if both * neither >= before * after:  # people who are right twice, or wrong twice, are not new evidence
        one = newcombe(np.array(both + after), np.array(n), np.array(both + before), np.array(n))
        assert one[0] - 1e-9 <= low <= high <= one[1] + 1e-9


def test_paired_intervals_cover() -> None:
    rng = np.random.default_rng(0)
    cells = np.array([0.5, 0.1, 0.25, 0.15])
    drawn = rng.multinomial(80, cells, size=1000)
    held = [low <= 0.15 <= high for low, high in (paired_interval(*row[:3].tolist(), 80) for row in drawn)]
    assert 0.93 <= np.mean(held) <= 0.98


def compared() -> tuple[TestSet, Answers, Answers]:
    """Eight images of two classes with two regions each. The clip (feature 3) is on images 0, 4, 5 and 6."""
    label = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    size = np.full((8, 2), 10)
    images = ImageSet("/", np.array([f"{i}.png" for i in range(8)]), label, size, ("cat", "dog"), fingerprint="f")
    regions = Regions(np.repeat(np.arange(8), 2), np.tile([0, 0, 5, 5], (16, 1)), np.tile([0, 1], 8), 8)
    feature = np.full(16, -1)
    feature[[0, 8, 10, 12]] = 3
    feature[1] = 7  # a feature that is not treated
    test = TestSet(images, regions, feature, {3: Treated("clip", 0, "spurious", "Ada")})
    said = np.tile([0, 1], 8)
    before = Answers(np.array([0, 0, 0, 1, 0, 0, 1, 1]), said)
    after = Answers(np.array([0, 1, 1, 0, 1, 1, 0, 1]), np.repeat(label, 2))
    return test, before, after


def test_the_comparison_counts_what_changed() -> None:
    test, before, after = compared()
    found = json.loads(json.dumps(document(test, before, after), allow_nan=False))
    assert found["images"] == {"became_right": 3, "became_wrong": 3}
    assert (found["before"]["overall"], found["after"]["overall"]) == (5 / 8, 5 / 8)
    (clip,) = found["features"]
    assert (clip["name"], clip["pull_class"], clip["reviewer"]) == ("clip", "cat", "Ada")
    assert (clip["fixed"]["count"], clip["fixed"]["n"]) == (2, 2)  # images 4 and 5
    assert (clip["broken"]["count"], clip["broken"]["n"]) == (1, 2)  # of images 0 and 6, the last
    for when, with_it in (("before", (2, 3)), ("after", (1, 3))):
        rates = clip["pull_rate"][when]
        assert (rates["with"]["count"], rates["with"]["n"]) == with_it  # of the dogs with the clip, called cat
        assert (rates["without"]["count"], rates["without"]["n"]) == (0, 1)
        limits = newcombe(np.array(with_it[0]), np.array(3), np.array(0), np.array(1))
        assert rates["interval"] == pytest.approx(limits, abs=1e-6)
        assert rates["with"]["interval"] == pytest.approx(wilson(np.array(with_it[0]), np.array(3)), abs=1e-6)
    free = found["without_features"]
    assert (free["before"]["count"], free["after"]["count"], free["n"]) == (3, 2, 4)  # images 1, 2, 3 and 7
    assert free["interval"] == pytest.approx(paired_interval(1, 2, 1, 4), abs=1e-6)
    # relevant are the 12 regions that are not the clip; before, the second region of each says dog
    assert found["regions"] == {"n": 12, "before": round((3 + 4) / 12, 6), "after": 1.0}


def test_what_got_worse_comes_first() -> None:
    found = document(*compared())
    changes = [row["change"] for row in found["changes"] if row["change"] is not None]
    assert changes == sorted(changes)
    assert changes[0] < 0 < changes[-1]
    whole = next(row for row in found["changes"] if row["kind"] == "overall")
    assert whole["interval"] == pytest.approx(paired_interval(2, 3, 3, 8), abs=1e-6)
    assert whole["before"]["interval"] == pytest.approx(wilson(np.array(5), np.array(8)), abs=1e-6)


def test_nothing_to_compare_is_null() -> None:
    test, before, _ = compared()
    bare = TestSet(test.images, test.regions, np.full(16, 3), {3: Treated("", -1), 9: Treated("never seen", 1)})
    found = json.loads(json.dumps(document(bare, before, before), allow_nan=False))
    everywhere, nowhere = found["features"]
    assert everywhere["pull_class"] is everywhere["pull_rate"] is None
    assert nowhere["fixed"] == {"n": 0, "count": 0, "rate": None, "interval": [None, None]}
    assert nowhere["pull_rate"]["before"]["with"]["rate"] is nowhere["pull_rate"]["before"]["difference"] is None
    assert found["without_features"]["change"] is None
    assert found["regions"] == {"n": 0, "before": None, "after": None}
    assert all(row["change"] in (0, None) for row in found["changes"])
