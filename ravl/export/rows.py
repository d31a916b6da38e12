"""Tables: a row per region of every confirmed feature, and a row per image with its groups.

A text that a spreadsheet would run as a formula (it begins with =, +, -, @, a tab or a line break) is written behind an
apostrophe.
"""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np

from ravl.export.confirmed import SCORES
from ravl.export.material import Material, called

_VERDICT = ("reviewer", "at", "note", "seen", "seen_matches")
CSV_COLUMNS = (
    *("run", "feature", "name", "pull_class"),
    *SCORES,
    *_VERDICT,
    *("region", "image", "x0", "y0", "x1", "y1"),
)
"""Header of the CSV file. Boxes are in pixels of the upright image, half-open. Undefined numbers are empty."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def as_csv(document: dict[str, Any]) -> str:
    """The list of confirmed features as CSV with the header CSV_COLUMNS; what belongs to a feature is repeated."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(CSV_COLUMNS)
    for feature in document["features"]:
        scores = feature["scores"] or dict.fromkeys(SCORES)
        fixed = [document["run"]["id"], feature["feature"], feature["name"], feature["pull_class"]]
        fixed += [scores[name] for name in SCORES] + [feature[name] for name in _VERDICT]
        for region in feature["regions"] or [{"region": None, "image": None, "box": [None] * 4}]:
            writer.writerow(map(_cell, [*fixed, region["region"], region["image"], *region["box"]]))
    return text.getvalue()


def as_groups(found: Material) -> str:
    """A row per audited image: image, label, label_index, predicted, predicted_index, feature_N ..., group, group_name.

    feature_N: 1 where the image has a region of the confirmed feature N, else 0. group: label_index * 2^F plus 2^j for
    the j-th of the F features, so the number means the same in every file with the same classes and features.
    A path that a spreadsheet would run begins with ./ and stays the path that it is.
    """
    features = found.present
    names, label, predicted = found.images.class_names, found.images.label, found.zero_shot.predicted
    shows = np.array([found.shows(verdict.feature) for verdict in features], bool).reshape(len(features), len(label))
    text = io.StringIO()
    writer = csv.writer(text)
    columns = [f"feature_{verdict.feature}" for verdict in features]
    head = ("image", "label", "label_index", "predicted", "predicted_index")
    writer.writerow((*head, *columns, "group", "group_name"))
    for i, file in enumerate(found.images.file.tolist()):
        has, truth, said = shows[:, i].astype(int).tolist(), int(label[i]), int(predicted[i])
        group = truth * 2 ** len(features) + sum(value << place for place, value in enumerate(has))
        shown = [called(verdict) for verdict, value in zip(features, has, strict=True) if value]
        name = f"{names[truth]} with {' and '.join(shown)}" if shown else names[truth]
        path = f"./{file}" if file.startswith(_FORMULA) else file
        writer.writerow([path, *map(_cell, (names[truth], truth, names[said], said)), *has, group, _cell(name)])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
