"""JSON for other tools: boxes as COCO has them, the images that show each feature, and a paragraph for a model card."""

from __future__ import annotations

from typing import Any

import numpy as np

from ravl import __version__
from ravl.discovery.scoring import pull_class_name
from ravl.export.material import Material, called
from ravl.mitigation.card import escaped
from ravl.tables import Verdict


def as_coco(found: Material) -> dict[str, Any]:
    """Object detection in the layout of COCO: all audited images, a box [x, y, width, height] per confirmed region.

    Ids count from 1: image number + 1, region number + 1, feature number + 1; the numbers stand beside them. A feature
    that the run no longer has is no category.
    """
    features, images, regions = found.present, found.images, found.regions
    members = np.sort(np.concatenate([np.zeros(0, int), *(found.members(verdict.feature) for verdict in features)]))
    return {
        "info": {
            "description": f"Regions of features confirmed as spurious in the audit {found.run.id}",
            "version": __version__,
            "date_created": found.run.created,
        },
        "licenses": [],
        "categories": [
            {
                **{"id": verdict.feature + 1, "name": name, "supercategory": "spurious feature"},
                **{"feature": verdict.feature},
            }
            for verdict, name in _named(features)
        ],
        "images": [
            {"id": i + 1, "file_name": str(file), "width": int(size[0]), "height": int(size[1])}
            for i, (file, size) in enumerate(zip(images.file, images.size, strict=True))
        ],
        "annotations": [
            _annotation(int(r), int(regions.image[r]), int(found.feature_of[r]), regions.box[r].tolist())
            for r in members
        ],
    }


def _annotation(region: int, image: int, feature: int, box: list[int]) -> dict[str, Any]:
    x0, y0, x1, y1 = box
    return {
        **{"id": region + 1, "image_id": image + 1, "category_id": feature + 1},
        **{"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)},
        **{"iscrowd": 0, "segmentation": [], "region": region},
    }


def as_artifacts(found: Material) -> dict[str, list[str]]:
    """{name of the feature: paths of the images that show it}. Where two are called the same, all have their number."""
    return {name: found.images.file[found.shows(verdict.feature)].tolist() for verdict, name in _named(found.present)}


def _named(features: tuple[Verdict, ...]) -> list[tuple[Verdict, str]]:
    """Verdicts with names that differ; where two are called the same, all have their number too."""
    names = [called(verdict) for verdict in features]
    if len(set(names)) < len(names):
        names = [f"{name} (feature {verdict.feature})" for verdict, name in zip(features, names, strict=True)]
    return list(zip(features, names, strict=True))


def as_card(found: Material) -> str:
    """A paragraph in Markdown for the card of the audited model: what is known to be wrong with it, and how far."""
    right, n = int(found.zero_shot.correct.sum()), len(found.images)
    parts = [
        f"This model was audited for spurious features with RAVL {__version__} (audit {escaped(found.run.id)}): it is "
        f"right on {right:,} of {n:,} images."
    ]
    features = _named(found.present)
    if not features:
        parts.append("No feature was confirmed as spurious by a person; that does not prove that there is none.")
    for verdict, name in features:
        pull = pull_class_name(found.scores, verdict.feature, found.images.class_names)
        to = f", and pulls to {escaped(pull)}" if pull else ""
        with_it, without = _accuracies(found, verdict.feature)
        parts.append(
            f"**{escaped(name)}** is confirmed as spurious by {escaped(verdict.reviewer)}{to}: the model is right on "
            f"{with_it} images that show it and on {without} that do not."
        )
    parts.append(
        "Shortcuts that are smaller than a region, fill the whole image, or cause no error on these images are not "
        "found by such an audit."
    )
    return "## Known spurious features\n\n" + " ".join(parts) + "\n"


def _accuracies(found: Material, feature: int) -> tuple[str, str]:
    """Right of all images with a feature, and without it."""
    has, right = found.shows(feature), found.zero_shot.correct
    inside, outside = (f"{int((right & side).sum()):,} of {int(side.sum()):,}" for side in (has, ~has))
    return inside, outside
