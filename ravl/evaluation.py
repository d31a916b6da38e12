"""Accuracy by group: overall, per class, with and without each feature, and the worst group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.tables import GroupAccuracy

MIN_COUNT = 10
"""Images a group needs to be called the worst."""


def group_accuracy(
    predicted: NDArray[np.integer[Any]],
    label: NDArray[np.integer[Any]],
    class_names: Sequence[str],
    present: Mapping[int, NDArray[np.bool_]],
    feature_names: Mapping[int, str],
    groups: Mapping[str, NDArray[np.str_]],
) -> GroupAccuracy:
    """Count images and right predictions by group (see `GroupAccuracy` for the kinds of rows).

    predicted, label: (I,) class indices. present: feature id -> (I,) bool, images that show the feature.
    feature_names: names for reading; a missing or empty one becomes "feature ID". groups: group column -> (I,) values.
    Raises ValueError when lengths differ.
    """
    predicted, label = np.asarray(predicted), np.asarray(label)
    for name, column in {"predicted": predicted, **present, **groups}.items():
        if len(column) != len(label):
            raise ValueError(f"{name} must have one entry per label ({len(label)}), got {len(column)}.")
    right = predicted == label
    everything = np.ones(len(label), bool)
    rows: list[tuple[str, str, int, int, int, NDArray[np.bool_]]] = [("all images", "overall", -1, -1, -1, everything)]
    rows += [(str(name), "class", y, -1, -1, label == y) for y, name in enumerate(class_names)]
    for feature, has in present.items():
        title = feature_names.get(feature) or f"feature {feature}"
        rows += [(f"with {title}", "feature", -1, feature, 1, has), (f"without {title}", "feature", -1, feature, 0, ~has)]
    rows += _groups(label, class_names, present, feature_names, groups)
    return GroupAccuracy(
        name=np.array([row[0] for row in rows]),
        kind=np.array([row[1] for row in rows]),
        class_index=np.array([row[2] for row in rows]),
        feature=np.array([row[3] for row in rows]),
        present=np.array([row[4] for row in rows]),
        n=np.array([row[5].sum() for row in rows]),
        right=np.array([(row[5] & right).sum() for row in rows]),
    )


def _groups(
    label: NDArray[np.integer[Any]],
    class_names: Sequence[str],
    present: Mapping[int, NDArray[np.bool_]],
    feature_names: Mapping[int, str],
    groups: Mapping[str, NDArray[np.str_]],
) -> list[tuple[str, str, int, int, int, NDArray[np.bool_]]]:
    """Class x presence of any of the features, and class x value of each group column; else the classes themselves."""
    rows: list[tuple[str, str, int, int, int, NDArray[np.bool_]]] = []
    any_feature = np.logical_or.reduce(list(present.values())) if present else None
    if any_feature is not None:
        titles = [feature_names.get(feature) or f"feature {feature}" for feature in present]
        title = titles[0] if len(titles) == 1 else "any of " + ", ".join(titles)
        only = next(iter(present)) if len(present) == 1 else -1
        for y, name in enumerate(class_names):
            rows.append((f"{name} with {title}", "group", y, only, 1, (label == y) & any_feature))
            rows.append((f"{name} without {title}", "group", y, only, 0, (label == y) & ~any_feature))
    for column, values in groups.items():
        for value in np.unique(values):
            for y, name in enumerate(class_names):
                rows.append((f"{name}, {column}={value}", "group", y, -1, -1, (label == y) & (values == value)))
    return rows or [(str(name), "group", y, -1, -1, label == y) for y, name in enumerate(class_names)]


def as_document(groups: GroupAccuracy) -> dict[str, Any]:
    """The accuracies as strict JSON; an empty group's accuracy is null.

    Keys: overall; worst_group {name, accuracy, n} or null; per_class {name: {accuracy, n}}; per_feature {name: {with,
    without: {accuracy, n}}}; groups [{name, accuracy, n}].
    """
    accuracy = groups.accuracy

    def entry(row: int) -> dict[str, Any]:
        return {"accuracy": None if np.isnan(accuracy[row]) else round(float(accuracy[row]), 6), "n": int(groups.n[row])}

    def rows(kind: str) -> list[int]:
        return np.flatnonzero(groups.kind == kind).tolist()

    worst = groups.worst(MIN_COUNT)
    per_feature: dict[str, dict[str, Any]] = {}
    for row in rows("feature"):
        side = "with" if groups.present[row] == 1 else "without"
        per_feature.setdefault(str(groups.name[row]).removeprefix(f"{side} "), {})[side] = entry(row)
    return {
        "overall": entry(rows("overall")[0])["accuracy"],
        "worst_group": None if worst is None else {"name": str(groups.name[worst]), **entry(worst)},
        "per_class": {str(groups.name[row]): entry(row) for row in rows("class")},
        "per_feature": per_feature,
        "groups": [{"name": str(groups.name[row]), **entry(row)} for row in rows("group")],
    }
