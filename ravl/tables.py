"""The records that cross module borders. Columns are numpy arrays, read-only, and checked once on construction.

Undefined numbers are NaN, never 0. Ids (image, region, feature) are positions that never change within a run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

NOISE = -1
"""Cluster id of a region that belongs to no cluster."""


def _column(record: Any, name: str, dtype: Any, shape: tuple[int | None, ...]) -> None:
    """Convert one column to `dtype`, check its shape (None = any length) and make it read-only.

    Raises ValueError for another shape, and for numbers that an integer column would wrap, cut or make up.
    """
    given = np.asarray(getattr(record, name))
    if given.size == 0 and given.ndim != len(shape):
        given = given.reshape([0 if want is None else want for want in shape])
    with np.errstate(invalid="ignore"):  # NaN to integer: refused below
        value = given.astype(dtype)
    if value.dtype.kind in "iu" and given.dtype.kind in "iuf" and not np.array_equal(value, given):
        raise ValueError(f"{type(record).__name__}.{name} must hold whole numbers that fit {value.dtype}, got others.")
    if value.ndim != len(shape) or any(w is not None and w != g for w, g in zip(shape, value.shape, strict=True)):
        raise ValueError(f"{type(record).__name__}.{name} must have shape {shape}, got {given.shape}.")
    value.flags.writeable = False
    object.__setattr__(record, name, value)


@dataclass(frozen=True)
class ImageSet:
    """Labelled images that can be read. Nothing is decoded here.

    root: folder that `file` is relative to, absolute.
    file: (I,) relative paths with forward slashes, str.
    label: (I,) int16, index into `class_names`.
    size: (I, 2) int32, width and height of the upright image in pixels.
    caption: (I,) str, or None when the set has none.
    groups: extra columns of a manifest, name -> (I,) str.
    skipped: (file, reason) of every listed image that could not be used.
    fingerprint: hex digest of all file contents, paths and labels.
    """

    root: str
    file: NDArray[np.str_]
    label: NDArray[np.int16]
    size: NDArray[np.int32]
    class_names: tuple[str, ...]
    caption: NDArray[np.str_] | None = None
    groups: dict[str, NDArray[np.str_]] = field(default_factory=dict)
    skipped: tuple[tuple[str, str], ...] = ()
    fingerprint: str = ""

    def __post_init__(self) -> None:
        _column(self, "file", np.str_, (None,))
        _column(self, "label", np.int16, (len(self.file),))
        _column(self, "size", np.int32, (len(self.file), 2))
        if self.caption is not None:
            _column(self, "caption", np.str_, (len(self.file),))
        groups = {name: np.array(values, np.str_) for name, values in self.groups.items()}
        for name, values in groups.items():
            if values.shape != self.file.shape:
                raise ValueError(f"ImageSet.groups[{name!r}] must have shape {self.file.shape}, got {values.shape}.")
            values.flags.writeable = False
        object.__setattr__(self, "groups", groups)
        if len(self.label) and not 0 <= self.label.min() <= self.label.max() < len(self.class_names):
            raise ValueError(f"label must index the {len(self.class_names)} class names, got {self.label.max()}.")

    def __len__(self) -> int:
        return len(self.file)


@dataclass(frozen=True)
class Regions:
    """Boxes of all images, ordered by image.

    image: (R,) int32, index into the image set; never falls.
    box: (R, 4) int32, x0, y0, x1, y1 in pixels of the upright original, half-open, inside the image.
    position: (R,) int16, which cell of its grid a region is; -1 where regions have no common positions.
    n_images: number of images, also those without a region.
    """

    image: NDArray[np.int32]
    box: NDArray[np.int32]
    position: NDArray[np.int16]
    n_images: int

    def __post_init__(self) -> None:
        _column(self, "image", np.int32, (None,))
        _column(self, "box", np.int32, (len(self.image), 4))
        _column(self, "position", np.int16, (len(self.image),))
        if len(self.image) and (
            np.any(np.diff(self.image) < 0) or self.image[0] < 0 or self.image[-1] >= self.n_images
        ):
            raise ValueError(f"Regions.image must rise within 0 .. {self.n_images - 1}.")
        if np.any(self.box[:, :2] < 0) or np.any(self.box[:, 2:] <= self.box[:, :2]):
            raise ValueError("Regions.box must be x0, y0, x1, y1 with 0 <= x0 < x1 and 0 <= y0 < y1.")
        starts = np.searchsorted(self.image, np.arange(self.n_images + 1))
        starts.flags.writeable = False
        object.__setattr__(self, "_starts", starts)

    def __len__(self) -> int:
        return len(self.image)

    @property
    def starts(self) -> NDArray[np.int64]:
        """(I + 1,) first region of every image; `starts[i] : starts[i + 1]` are the regions of image i."""
        return self._starts  # type: ignore[attr-defined, no-any-return]

    def rows_of(self, image: int) -> slice:
        """The regions of one image."""
        return slice(int(self.starts[image]), int(self.starts[image + 1]))


@dataclass(frozen=True)
class ZeroShot:
    """Zero-shot class probabilities, rows sum to 1. image: (I, Y) and region: (R, Y) float32; label: (I,) int16."""

    image: NDArray[np.float32]
    region: NDArray[np.float32]
    label: NDArray[np.int16]

    def __post_init__(self) -> None:
        _column(self, "image", np.float32, (None, None))
        _column(self, "region", np.float32, (None, self.image.shape[1]))
        _column(self, "label", np.int16, (len(self.image),))
        for name in ("image", "region"):
            rows = getattr(self, name).sum(1)
            if not np.allclose(rows, 1, atol=1e-3):
                raise ValueError(f"ZeroShot.{name} rows must sum to 1, got {rows.min():.3f} .. {rows.max():.3f}.")

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(I,) the class of the highest image score."""
        return self.image.argmax(1) if len(self.image) else np.zeros(0, np.int64)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(I,) whether the prediction is the label."""
        return np.equal(self.predicted, self.label)


@dataclass(frozen=True)
class Clustering:
    """Regions grouped into features, and the rule that assigns new regions.

    label: (R,) int32, feature id or NOISE; ids run from 0 by falling size.
    strength: (R,) float32 in [0, 1], how firmly a region belongs to its cluster.
    medoid: (C,) int32, the region closest to all others of its cluster.
    position_mean: (P, M) float32, mean vector of each region position (one row when there are no positions).
    center: (M,) float32, the mean that is subtracted after the position mean.
    components: (K, M) float32, the principal axes.
    medoid_vector: (C, K) float32, unit vectors of the medoids in the reduced space.
    min_similarity: (C,) float32, 5th percentile of the members' cosine to their medoid; a new region joins the
        nearest medoid when its cosine reaches this, else it is noise.
    """

    label: NDArray[np.int32]
    strength: NDArray[np.float32]
    medoid: NDArray[np.int32]
    position_mean: NDArray[np.float32]
    center: NDArray[np.float32]
    components: NDArray[np.float32]
    medoid_vector: NDArray[np.float32]
    min_similarity: NDArray[np.float32]

    def __post_init__(self) -> None:
        _column(self, "label", np.int32, (None,))
        _column(self, "strength", np.float32, (len(self.label),))
        _column(self, "medoid", np.int32, (None,))
        _column(self, "center", np.float32, (None,))
        _column(self, "position_mean", np.float32, (None, len(self.center)))
        _column(self, "components", np.float32, (None, len(self.center)))
        _column(self, "medoid_vector", np.float32, (len(self.medoid), len(self.components)))
        _column(self, "min_similarity", np.float32, (len(self.medoid),))
        if len(self.label) and not NOISE <= self.label.min() <= self.label.max() < len(self.medoid):
            raise ValueError(f"Clustering.label must lie in -1 .. {len(self.medoid) - 1}, got {self.label.max()}.")

    @property
    def n_clusters(self) -> int:
        return len(self.medoid)

    @property
    def noise_share(self) -> float:
        """Share of the regions that belong to no cluster; NaN without regions."""
        return float(np.mean(self.label == NOISE)) if len(self.label) else float("nan")


@dataclass(frozen=True)
class FeatureScores:
    """The paper's scores, one entry per feature, best first.

    feature: (F,) int32, cluster id.
    pull_class: (F,) int16, most frequent wrong prediction where the feature decides; -1 where it decides no error.
    influence: (F,) float32 in [0, 1]; NaN where no class loses accuracy or no such error can be judged.
    gap: (F,) float32 >= 0, sum of |gap_y| over the classes where it is defined; NaN where it is nowhere defined.
    two_sided: (F,) bool, some class gains and some class loses.
    passes: (F,) bool, the paper's rule.
    n_regions, n_images, n_errors: (F,) int32, regions; images with the feature; misclassified ones among those.
    n_decided: (F,) int32, errors whose best region for the wrong predicted class shows the feature.
    class_gap: (F, Y) float32 in [-1, 1], signed gap_y; NaN where one side is empty.
    n_in, right_in, n_out, right_out: (F, Y) int32, images with / without the feature per class, and how many are right.
    """

    feature: NDArray[np.int32]
    pull_class: NDArray[np.int16]
    influence: NDArray[np.float32]
    gap: NDArray[np.float32]
    two_sided: NDArray[np.bool_]
    passes: NDArray[np.bool_]
    n_regions: NDArray[np.int32]
    n_images: NDArray[np.int32]
    n_errors: NDArray[np.int32]
    n_decided: NDArray[np.int32]
    class_gap: NDArray[np.float32]
    n_in: NDArray[np.int32]
    right_in: NDArray[np.int32]
    n_out: NDArray[np.int32]
    right_out: NDArray[np.int32]

    def __post_init__(self) -> None:
        _column(self, "feature", np.int32, (None,))
        n = len(self.feature)
        dtypes: dict[str, Any] = {"pull_class": np.int16, "influence": np.float32, "gap": np.float32}
        dtypes |= {"two_sided": np.bool_, "passes": np.bool_, "n_regions": np.int32, "n_images": np.int32}
        dtypes |= {"n_errors": np.int32, "n_decided": np.int32}
        for name, dtype in dtypes.items():
            _column(self, name, dtype, (n,))
        classes = np.asarray(self.class_gap).shape[-1]
        _column(self, "class_gap", np.float32, (n, classes))
        for name in ("n_in", "right_in", "n_out", "right_out"):
            _column(self, name, np.int32, (n, classes))

    def __len__(self) -> int:
        return len(self.feature)

    def row_of(self, feature: int) -> int:
        """The rank (0 = best) of a feature id. Raises KeyError for an unknown id."""
        found = np.flatnonzero(self.feature == feature)
        if not len(found):
            raise KeyError(f"feature must be one of {sorted(self.feature.tolist())}, got {feature}.")
        return int(found[0])


@dataclass(frozen=True)
class Exemplars:
    """Crops that stand for a feature, one row each, grouped by feature and ranked by falling error contribution.

    feature, region, image: (N,) int32 ids.
    against: (N,) int16, the class the true class is compared with: the wrong prediction, or the runner-up if right.
    contribution: (N,) float32, in logits: the smallest over the removal operators (they have to agree).
    token_drop, mean_fill: (N,) float32, the contribution by each operator; NaN where an operator cannot be applied.
    """

    feature: NDArray[np.int32]
    region: NDArray[np.int32]
    image: NDArray[np.int32]
    against: NDArray[np.int16]
    contribution: NDArray[np.float32]
    token_drop: NDArray[np.float32]
    mean_fill: NDArray[np.float32]

    def __post_init__(self) -> None:
        _column(self, "feature", np.int32, (None,))
        dtypes: dict[str, Any] = {"region": np.int32, "image": np.int32, "against": np.int16}
        dtypes |= {"contribution": np.float32, "token_drop": np.float32, "mean_fill": np.float32}
        for name, dtype in dtypes.items():
            _column(self, name, dtype, (len(self.feature),))

    def __len__(self) -> int:
        return len(self.feature)

    def rows_of(self, feature: int) -> NDArray[np.int64]:
        """Row numbers of one feature, best first."""
        return np.flatnonzero(self.feature == feature)


@dataclass(frozen=True)
class Assignment:
    """What the audited model says about images it was not audited on; a repair takes it once and keeps it.

    predicted: (I,) int16 class. feature: (R,) int32 feature id of each region, or NOISE. best: (I,) int32, the region
    with the highest score for the image's true class; -1 for an image without regions.
    """

    predicted: NDArray[np.int16]
    feature: NDArray[np.int32]
    best: NDArray[np.int32]

    def __post_init__(self) -> None:
        _column(self, "predicted", np.int16, (None,))
        _column(self, "feature", np.int32, (None,))
        _column(self, "best", np.int32, (len(self.predicted),))


@dataclass(frozen=True)
class GroupAccuracy:
    """Accuracy of one model on one image set, by group. A group with no image has accuracy NaN.

    name: (G,) str, readable group name. kind: (G,) str, one of overall, class, feature, group.
    class_index: (G,) int16, -1 where the group spans classes. feature: (G,) int32, -1 where none is concerned.
    present: (G,) int8, 1 with the feature, 0 without, -1 where no feature is concerned. n, right: (G,) int32.

    Kinds: `overall` one row; `class` one per class; `feature` two per feature (with, without); `group` one per class
    and presence of any of the features, or per class and value of a group column. The worst group is of kind `group`.
    """

    name: NDArray[np.str_]
    kind: NDArray[np.str_]
    class_index: NDArray[np.int16]
    feature: NDArray[np.int32]
    present: NDArray[np.int8]
    n: NDArray[np.int32]
    right: NDArray[np.int32]

    def __post_init__(self) -> None:
        _column(self, "name", np.str_, (None,))
        dtypes: dict[str, Any] = {"kind": np.str_, "class_index": np.int16, "feature": np.int32, "present": np.int8}
        dtypes |= {"n": np.int32, "right": np.int32}
        for name, dtype in dtypes.items():
            _column(self, name, dtype, (len(self.name),))

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """(G,) right / n; NaN for an empty group."""
        out = np.full(len(self.n), np.nan)
        np.divide(self.right, self.n, out=out, where=self.n > 0)
        return out

    def worst(self, min_count: int = 10) -> int | None:
        """Row of the worst `group` with at least `min_count` images (with at least one, if none is that large)."""
        for least in (min_count, 1):
            rows = np.flatnonzero((self.kind == "group") & (self.n >= least))
            if len(rows):
                return int(rows[np.argmin(self.accuracy[rows])])
        return None


@dataclass(frozen=True)
class Verdict:
    """One person's decision about one feature of one run. The last one of a feature holds; none is ever changed.

    decision: spurious, core, mixed, unsure, or withdrawn (an undo, itself recorded). at: UTC, ISO 8601.
    seen: digest of the feature's region ids, so that a decision cannot silently move to other regions.
    """

    run: str
    feature: int
    pull_class: str
    decision: str
    name: str
    note: str
    reviewer: str
    at: str
    seen: str
    id: int = 0


@dataclass(frozen=True)
class Step:
    """Progress of a long computation: `done` of `total` units of `stage`, with the numbers worth showing."""

    stage: str
    done: int
    total: int
    facts: dict[str, float] = field(default_factory=dict)


Report = Callable[[Step], None]
"""Where progress goes: a terminal bar, a job's row, or nowhere."""


def quiet(step: Step) -> None:
    """Report to nobody."""


def columns(record: Any) -> dict[str, Any]:
    """The fields of a record by name, in declaration order."""
    return {item.name: getattr(record, item.name) for item in fields(record)}
