"""Accuracy by group: overall, per class, with and without each feature, and the worst group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.tables import GroupAccuracy

MIN_COUNT = 10
"""Images a group needs to be called the worst."""

_Row = tuple[str, str, int, int, int, int, int]
"""name, kind, class_index, feature, present, n, right: the columns of `GroupAccuracy`."""


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
    The rows depend on all arguments but `predicted`, so that two models on the same images can be compared row by row.
    Raises ValueError when lengths differ or a label has no class name.
    """
    predicted, label = np.asarray(predicted), np.asarray(label)
    for what, given in [("predicted", predicted), *present.items(), *groups.items()]:
        if np.shape(given) != label.shape:
            raise ValueError(f"{what} must have one entry per label, {label.shape}, got {np.shape(given)}.")
    if len(label) and not 0 <= label.min() <= label.max() < len(class_names):
        raise ValueError(f"label must index the {len(class_names)} class names, got {label.min()} .. {label.max()}.")
    right = predicted == label
    shown = {feature: np.asarray(column, bool) for feature, column in present.items()}
    titles = _titles(shown, feature_names)

    rows: list[_Row] = [("all images", "overall", -1, -1, -1, len(label), int(right.sum()))]
    classes = _by_class(label, right, len(class_names), np.ones(len(label), bool))
    rows += [(str(name), "class", y, -1, -1, *classes[y]) for y, name in enumerate(class_names)]
    for feature, has in shown.items():
        for side, word, mask in ((1, "with", has), (0, "without", ~has)):
            counts = int(mask.sum()), int((mask & right).sum())
            rows.append((f"{word} {titles[feature]}", "feature", -1, feature, side, *counts))
    if shown:
        # one group per class and presence of any feature, not per combination: those would soon be empty
        anywhere = np.logical_or.reduce(list(shown.values()))
        title, only = _joined(list(titles.values())), next(iter(shown)) if len(shown) == 1 else -1
        with_it, without = (_by_class(label, right, len(class_names), mask) for mask in (anywhere, ~anywhere))
        for y, name in enumerate(class_names):
            rows.append((f"{name} with {title}", "group", y, only, 1, *with_it[y]))
            rows.append((f"{name} without {title}", "group", y, only, 0, *without[y]))
    for column, values in groups.items():
        for value in np.unique(values):
            within = _by_class(label, right, len(class_names), values == value)
            named = f"{column}={value}" if value else f"no {column}"
            rows += [(f"{name}, {named}", "group", y, -1, -1, *within[y]) for y, name in enumerate(class_names)]
    if not shown and not groups:
        rows += [(str(name), "group", y, -1, -1, *classes[y]) for y, name in enumerate(class_names)]
    return GroupAccuracy(*(np.array(column) for column in zip(*rows, strict=True)))


def _by_class(
    label: NDArray[np.integer[Any]], right: NDArray[np.bool_], n_classes: int, mask: NDArray[np.bool_]
) -> list[tuple[int, int]]:
    """(images, right ones) of each class within the mask."""
    n = np.bincount(label[mask], minlength=n_classes)
    hits = np.bincount(label[mask & right], minlength=n_classes)
    return list(zip(n.tolist(), hits.tolist(), strict=True))


def _titles(present: Mapping[int, Any], feature_names: Mapping[int, str]) -> dict[int, str]:
    """A name for every feature; features that people gave the same name are told apart by their id."""
    names = {feature: feature_names.get(feature) or f"feature {feature}" for feature in present}
    count = Counter(names.values())
    return {feature: name if count[name] == 1 else f"{name} (feature {feature})" for feature, name in names.items()}


def _joined(titles: list[str]) -> str:
    return titles[0] if len(titles) == 1 else "any of " + ", ".join(titles)


def worst_groups(groups: GroupAccuracy, min_count: int = MIN_COUNT) -> list[int]:
    """Rows of the groups that could be the worst, worst first; the first is `groups.worst(min_count)`.

    Groups by features and groups by the set's own columns hold the same images: only those of the worst one's sort are
    ranked, so that the second is not the worst under another name. Empty without groups.
    """
    worst = groups.worst(min_count)
    if worst is None:
        return []
    least = min(min_count, int(groups.n[worst]))  # smaller than min_count where no group is that large
    rows = np.flatnonzero((groups.kind == "group") & (groups.n >= least))
    rows = rows[(groups.present[rows] >= 0) == (groups.present[worst] >= 0)]
    order = rows[np.argsort(groups.accuracy[rows], kind="stable")].tolist()
    return [worst, *(row for row in order if row != worst)]


def as_document(groups: GroupAccuracy) -> dict[str, Any]:
    """The accuracies as strict JSON; an empty group's accuracy is null.

    Keys: overall; worst_group, second_worst_group {name, accuracy, n} or null; per_class {name: {accuracy, n}};
    per_feature {name: {with, without: {accuracy, n}}}; groups [{name, accuracy, n}].
    """
    accuracy = groups.accuracy

    def entry(row: int) -> dict[str, Any]:
        share = accuracy[row]
        return {"accuracy": None if np.isnan(share) else round(float(share), 6), "n": int(groups.n[row])}

    def rows(kind: str) -> list[int]:
        return [int(row) for row in np.flatnonzero(groups.kind == kind)]

    worst = [{"name": str(groups.name[row]), **entry(row)} for row in worst_groups(groups)[:2]]
    per_feature: dict[str, dict[str, Any]] = {}
    for row in rows("feature"):
        side = "with" if groups.present[row] == 1 else "without"
        per_feature.setdefault(str(groups.name[row]).removeprefix(f"{side} "), {})[side] = entry(row)
    return {
        "overall": entry(rows("overall")[0])["accuracy"],
        "worst_group": worst[0] if worst else None,
        "second_worst_group": worst[1] if len(worst) > 1 else None,
        "per_class": {str(groups.name[row]): entry(row) for row in rows("class")},
        "per_feature": per_feature,
        "groups": [{"name": str(groups.name[row]), **entry(row)} for row in rows("group")],
    }
