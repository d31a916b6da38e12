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
    fingerprint: hex digest of all file contents, paths, labels and boxes.
    box_image: (B,) int32, image of each of people's own boxes, never falls; None when the set has none.
    box: (B, 4) int32, x0, y0, x1, y1 in pixels of the upright image, half-open, inside the image; None likewise.
    skipped_boxes: (file, which box and why) of every box that could not be used.
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
    box_image: NDArray[np.int32] | None = None
    box: NDArray[np.int32] | None = None
    skipped_boxes: tuple[tuple[str, str], ...] = ()

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
        if (self.box is None) != (self.box_image is None):
            raise ValueError("ImageSet.box and ImageSet.box_image must be given together.")
        if self.box is not None and self.box_image is not None:
            _column(self, "box_image", np.int32, (None,))
            _column(self, "box", np.int32, (len(self.box_image), 4))
            _check_boxes("ImageSet.box_image", self.box_image, "ImageSet.box", self.box, len(self))
            if np.any(self.box[:, 2:] > self.size[self.box_image]):
                raise ValueError("ImageSet.box must lie inside of its image. Clip it.")

    def __len__(self) -> int:
        return len(self.file)


def _check_boxes(
    image_name: str, image: NDArray[np.int32], box_name: str, box: NDArray[np.int32], n_images: int
) -> None:
    if len(image) and (np.any(np.diff(image) < 0) or image[0] < 0 or image[-1] >= n_images):
        raise ValueError(f"{image_name} must rise within 0 .. {n_images - 1}.")
    if np.any(box[:, :2] < 0) or np.any(box[:, 2:] <= box[:, :2]):
        raise ValueError(f"{box_name} must be x0, y0, x1, y1 with 0 <= x0 < x1 and 0 <= y0 < y1.")


@dataclass(frozen=True)
class Regions:
    """Boxes of all images, ordered by image; a region may be a part of its box only. They may overlap.

    image: (R,) int32, index into the image set; never falls.
    box: (R, 4) int32, x0, y0, x1, y1 in pixels of the upright original, half-open, inside the image.
    position: (R,) int16, which cell of its grid a region is; -1 where regions have no common positions.
    n_images: number of images, also those without a region.
    mask_step: (R,) int32, side in pixels of the squares that a region's mask is made of; 0: the region is its whole
        box. None: so are all of them.
    mask_bits: (M,) uint8, the masks one after the other: a bit per square, row by row from the box's upper left corner
        (the last squares of a row or column may reach beyond the box), each mask filled up with zeros to whole bytes.
    """

    image: NDArray[np.int32]
    box: NDArray[np.int32]
    position: NDArray[np.int16]
    n_images: int
    mask_step: NDArray[np.int32] | None = None
    mask_bits: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        _column(self, "image", np.int32, (None,))
        _column(self, "box", np.int32, (len(self.image), 4))
        _column(self, "position", np.int16, (len(self.image),))
        _check_boxes("Regions.image", self.image, "Regions.box", self.box, self.n_images)
        if (self.mask_step is None) != (self.mask_bits is None):
            raise ValueError("Regions.mask_step and Regions.mask_bits must be given together.")
        if self.mask_step is not None:
            self._check_masks()
        starts = np.searchsorted(self.image, np.arange(self.n_images + 1))
        starts.flags.writeable = False
        object.__setattr__(self, "_starts", starts)

    def _check_masks(self) -> None:
        _column(self, "mask_step", np.int32, (len(self.image),))
        _column(self, "mask_bits", np.uint8, (None,))
        assert self.mask_step is not None
        assert self.mask_bits is not None
        if np.any(self.mask_step < 0):
            raise ValueError(f"Regions.mask_step must be 0 or more, got {self.mask_step.min()}.")
        step = np.maximum(self.mask_step.astype(np.int64), 1)[:, None]
        squares = (-(-(self.box[:, 2:] - self.box[:, :2]) // step)).prod(1) * (self.mask_step > 0)
        starts = np.concatenate([[0], np.cumsum(-(-squares // 8))])
        if len(self.mask_bits) != starts[-1]:
            raise ValueError(
                f"Regions.mask_bits must hold {starts[-1]} bytes for these boxes and steps, got {len(self.mask_bits)}."
            )
        masked = np.flatnonzero(squares)
        if np.any(self.mask_bits[starts[masked + 1] - 1] & ((1 << (-squares[masked] % 8)) - 1)):
            raise ValueError("Regions.mask_bits must be filled up with zeros.")
        if len(masked) and not np.add.reduceat(np.bitwise_count(self.mask_bits).astype(np.int64), starts[masked]).all():
            raise ValueError("Regions.mask_bits must leave something of every region, got a mask without a bit.")
        starts.flags.writeable = False
        object.__setattr__(self, "_mask_starts", starts)

    def __len__(self) -> int:
        return len(self.image)

    @property
    def starts(self) -> NDArray[np.int64]:
        """(I + 1,) first region of every image; `starts[i] : starts[i + 1]` are the regions of image i."""
        return self._starts  # type: ignore[attr-defined, no-any-return]

    def rows_of(self, image: int) -> slice:
        """The regions of one image."""
        return slice(int(self.starts[image]), int(self.starts[image + 1]))

    def kept(self, keep: NDArray[np.bool_]) -> Regions:
        """The regions for which `keep` (R,) holds, of the same images."""
        masks: dict[str, Any] = {}
        if self.mask_step is not None and self.mask_bits is not None:
            starts: NDArray[np.int64] = self._mask_starts  # type: ignore[attr-defined]
            masks = {"mask_step": self.mask_step[keep], "mask_bits": self.mask_bits[np.repeat(keep, np.diff(starts))]}
        return Regions(self.image[keep], self.box[keep], self.position[keep], self.n_images, **masks)

    def mask_of(self, region: int) -> NDArray[np.bool_] | None:
        """(h, w) bool, the pixels of a region's box that belong to it; None: the whole box."""
        if self.mask_step is None or self.mask_bits is None or not self.mask_step[region]:
            return None
        step, (x0, y0, x1, y1) = int(self.mask_step[region]), self.box[region].tolist()
        rows, columns = -(-(y1 - y0) // step), -(-(x1 - x0) // step)
        starts: NDArray[np.int64] = self._mask_starts  # type: ignore[attr-defined]
        bits = np.unpackbits(self.mask_bits[starts[region] : starts[region + 1]], count=rows * columns)
        squares = bits.reshape(rows, columns).astype(bool)
        return squares.repeat(step, 0)[: y1 - y0].repeat(step, 1)[:, : x1 - x0]

    def masks_of(self, image: int) -> list[NDArray[np.bool_] | None]:
        """`mask_of` each region of one image."""
        rows = self.rows_of(image)
        return [self.mask_of(region) for region in range(rows.start, rows.stop)]


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
class Families:
    """Which clusters are one feature.

    family: (C,) int32 >= 0, feature id of every cluster. An id that an edit retired is never given again, so that a
        feature may be without clusters.
    reason: (C,) str, what joins a cluster to the others of its feature: near, alike or edited; "" where it is alone.
    """

    family: NDArray[np.int32]
    reason: NDArray[np.str_]

    def __post_init__(self) -> None:
        _column(self, "family", np.int32, (None,))
        _column(self, "reason", np.str_, (len(self.family),))
        if len(self.family) and self.family.min() < 0:
            raise ValueError(f"Families.family must be at least 0, got {self.family.min()}.")
        if strange := set(self.reason.tolist()) - {"", "near", "alike", "edited"}:
            raise ValueError(f"Families.reason must be near, alike, edited or empty, got {min(strange)!r}.")

    @property
    def n_features(self) -> int:
        """One more than the highest feature id."""
        return int(self.family.max(initial=-1)) + 1

    def features_of(self, label: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """(R,) feature id of regions with cluster ids `label`; NOISE stays NOISE. Raises ValueError for other ids."""
        label = np.asarray(label, np.int64)
        if len(label) and not NOISE <= label.min() <= label.max() < len(self.family):
            found = f"{label.min()} .. {label.max()}"
            raise ValueError(f"label must lie in {NOISE} .. {len(self.family) - 1}, got {found}.")
        feature: NDArray[np.int32] = np.append(self.family, np.int32(NOISE))[label]  # the last entry stands for noise
        return feature

    def clusters_of(self, feature: int) -> NDArray[np.int64]:
        """Ids of the clusters of one feature, rising; empty for a retired id."""
        return np.flatnonzero(self.family == feature)


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
        """The row of a feature id. Raises KeyError for an unknown id."""
        return _row_of(self.feature, feature)


@dataclass(frozen=True)
class Significance:
    """What of a feature's scores is beyond chance, row by row with `FeatureScores`.

    In and out are images with and without the feature; differences are the accuracy in minus the accuracy out.

    feature: (F,) int32. n_comparable: (F,) int32, classes with images on both sides.
    excess_gap: (F,) float32, the gap minus its mean by chance; gap_low, gap_high: its bootstrap interval.
    p: (F,) float64 in (0, 1], permutation test of the gap. These four are NaN where the gap is undefined.
    q: (F,) float64 in [p, 1], p corrected for the number of features; NaN where the feature is not supported.
    supported: (F,) bool, enough images with and without the feature, and enough errors with it, in comparable classes.
    excess_influence: (F,) float32 <= 1: 1 where the feature decides every error, 0 where as many as chance would, below
        0 where fewer; NaN where no error can be judged, or where no other region could have decided.
    pull_diff, pull_low, pull_high: (F,) float32 in [-1, 1], of the pull class; NaN where a side is empty.
    other_diff, other_low, other_high: the same of the other comparable classes together.
    pull_in, pull_out, other_in, other_out: (F, 2) int32, right images and all images; 0 without a pull class.
    replicated: (F,) int8, 1 found in both halves of the images, 0 not, -1 not asked.
    """

    feature: NDArray[np.int32]
    n_comparable: NDArray[np.int32]
    excess_gap: NDArray[np.float32]
    gap_low: NDArray[np.float32]
    gap_high: NDArray[np.float32]
    p: NDArray[np.float64]
    q: NDArray[np.float64]
    supported: NDArray[np.bool_]
    excess_influence: NDArray[np.float32]
    pull_diff: NDArray[np.float32]
    pull_low: NDArray[np.float32]
    pull_high: NDArray[np.float32]
    other_diff: NDArray[np.float32]
    other_low: NDArray[np.float32]
    other_high: NDArray[np.float32]
    pull_in: NDArray[np.int32]
    pull_out: NDArray[np.int32]
    other_in: NDArray[np.int32]
    other_out: NDArray[np.int32]
    replicated: NDArray[np.int8]

    def __post_init__(self) -> None:
        _column(self, "feature", np.int32, (None,))
        n = len(self.feature)
        pairs = ("pull_in", "pull_out", "other_in", "other_out")
        special: dict[str, Any] = {"n_comparable": np.int32, "p": np.float64, "q": np.float64}
        special |= {"supported": np.bool_, "replicated": np.int8}
        for name in columns(self):
            if name in pairs:
                _column(self, name, np.int32, (n, 2))
            elif name != "feature":
                _column(self, name, special.get(name, np.float32), (n,))
        for name in pairs:
            count = getattr(self, name)
            if not np.all((count[:, 0] >= 0) & (count[:, 0] <= count[:, 1])):
                raise ValueError(f"Significance.{name} must hold 0 <= right <= all, got {count.tolist()}.")
        for name, least in (("p", 0.0), ("q", self.p)):  # comparisons with NaN are false
            value = getattr(self, name)
            if np.any(value < least) or np.any(value > 1):
                raise ValueError(f"Significance.{name} must lie in [{'p' if name == 'q' else 0}, 1], got {value}.")
        if np.any(np.isnan(self.q) == self.supported):
            raise ValueError("Significance.q must be NaN exactly where a feature is not supported.")
        for side in ("gap", "pull", "other"):
            if np.any(getattr(self, f"{side}_low") > getattr(self, f"{side}_high")):
                raise ValueError(f"Significance.{side}_low must not exceed {side}_high.")
        if not np.isin(self.replicated, (-1, 0, 1)).all():
            raise ValueError(f"Significance.replicated must be 1, 0 or -1, got {self.replicated}.")

    def __len__(self) -> int:
        return len(self.feature)

    def row_of(self, feature: int) -> int:
        """The row of a feature id. Raises KeyError for an unknown id."""
        return _row_of(self.feature, feature)


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
class Counterfactuals:
    """What the model answers when features are removed from images, and when they are pasted into others.

    operators: O names. Removal, one row per (feature, image that shows it), grouped by feature in rank order:
    feature, image: (N,) int32. after: (N, O) int16, the class with all of the feature's regions removed; -1 where the
    operator cannot be applied. control: (N, O) int16, the class with other regions of the same image and of equal area
    removed instead; only for misclassified images, -1 elsewhere and where no such regions are left.
    Pasting, one row per trial: pasted_feature, pasted_image, pasted_region (whose crop), pasted_place (region it
    covers): (P,) int32. pasted_after: (P,) int16, the class.
    """

    operators: tuple[str, ...]
    feature: NDArray[np.int32]
    image: NDArray[np.int32]
    after: NDArray[np.int16]
    control: NDArray[np.int16]
    pasted_feature: NDArray[np.int32]
    pasted_image: NDArray[np.int32]
    pasted_region: NDArray[np.int32]
    pasted_place: NDArray[np.int32]
    pasted_after: NDArray[np.int16]

    def __post_init__(self) -> None:
        object.__setattr__(self, "operators", tuple(str(name) for name in self.operators))
        _column(self, "feature", np.int32, (None,))
        n = len(self.feature)
        _column(self, "image", np.int32, (n,))
        for name in ("after", "control"):
            _column(self, name, np.int16, (n, len(self.operators)))
        _column(self, "pasted_feature", np.int32, (None,))
        for name in ("pasted_image", "pasted_region", "pasted_place"):
            _column(self, name, np.int32, (len(self.pasted_feature),))
        _column(self, "pasted_after", np.int16, (len(self.pasted_feature),))

    def __len__(self) -> int:
        return len(self.feature)

    def rows_of(self, feature: int) -> NDArray[np.int64]:
        """Removal rows of one feature."""
        return np.flatnonzero(self.feature == feature)


GRADES = ("causal", "core", "context", "undecided")
"""What removal says about a feature; computed, never a verdict."""

REASONS = ("causal", "support", "chance", "not replicated", "no effect", "harm", "disagree")
"""Why a feature has its grade: see `ravl.discovery.evidence`."""


@dataclass(frozen=True)
class Evidence:
    """What removing a feature shows, one entry per feature in rank order: flagged ones first, best first.

    operators: O names. feature: (F,) int32. flagged: (F,) bool, by the audit's rule. grade, reason: (F,) str, one of
    GRADES and REASONS. error_share: (F,) float32 in [0, 1], share of all errors of the image set that become right
    when the feature is removed, by as many operators as must agree; NaN where it was not removed.
    Counts by operator, (F, O) int32, 0 where it was not removed:
    n_errors, fixed: misclassified images with the feature that were scored again; of these, right without it.
    n_control, control_fixed: those that have a control; of these, right without the control regions.
    only_feature, only_control: discordant pairs: right without the feature only, without the control regions only.
    n_pull, pull_kept: right images of the pull class; of these, still right. n_other, other_kept: of all other classes.
    n_pull_all, pull_right_after: all images of the pull class with the feature; of these, right without it.
    p, q: (F, O) float32, exact McNemar test of the discordant pairs, and corrected over the features; NaN where untested.
    n_pasted, induced: (F,) int32, right images of other classes it was pasted into; of these, then called the pull class.
    n_after, right_after: (F, Y) int32, images with the feature per class that were scored again, and how many of them
    are right without it by the first operator.
    """

    operators: tuple[str, ...]
    feature: NDArray[np.int32]
    flagged: NDArray[np.bool_]
    grade: NDArray[np.str_]
    reason: NDArray[np.str_]
    error_share: NDArray[np.float32]
    n_errors: NDArray[np.int32]
    fixed: NDArray[np.int32]
    n_control: NDArray[np.int32]
    control_fixed: NDArray[np.int32]
    only_feature: NDArray[np.int32]
    only_control: NDArray[np.int32]
    n_pull: NDArray[np.int32]
    pull_kept: NDArray[np.int32]
    n_other: NDArray[np.int32]
    other_kept: NDArray[np.int32]
    n_pull_all: NDArray[np.int32]
    pull_right_after: NDArray[np.int32]
    p: NDArray[np.float32]
    q: NDArray[np.float32]
    n_pasted: NDArray[np.int32]
    induced: NDArray[np.int32]
    n_after: NDArray[np.int32]
    right_after: NDArray[np.int32]

    def __post_init__(self) -> None:
        object.__setattr__(self, "operators", tuple(str(name) for name in self.operators))
        _column(self, "feature", np.int32, (None,))
        n, n_operators, classes = len(self.feature), len(self.operators), np.asarray(self.n_after).shape[-1]
        singles: dict[str, Any] = {"flagged": np.bool_, "grade": np.str_, "reason": np.str_, "error_share": np.float32}
        for name, dtype in (singles | {"n_pasted": np.int32, "induced": np.int32}).items():
            _column(self, name, dtype, (n,))
        for name in BY_OPERATOR:
            _column(self, name, np.float32 if name in ("p", "q") else np.int32, (n, n_operators))
        for name in ("n_after", "right_after"):
            _column(self, name, np.int32, (n, classes))
        for name, allowed in (("grade", GRADES), ("reason", REASONS)):
            if strange := set(getattr(self, name).tolist()) - set(allowed):
                raise ValueError(f"Evidence.{name} must be one of {', '.join(allowed)}, got {sorted(strange)[0]!r}.")

    def __len__(self) -> int:
        return len(self.feature)

    @property
    def tested(self) -> NDArray[np.bool_]:
        """(F,) whether the feature was removed from its images."""
        out: NDArray[np.bool_] = self.n_after.sum(1) > 0
        return out

    def row_of(self, feature: int) -> int:
        """The rank (0 = best) of a feature id. Raises KeyError for an unknown id."""
        return _row_of(self.feature, feature)


BY_OPERATOR = (
    *("n_errors", "fixed", "n_control", "control_fixed", "only_feature", "only_control", "n_pull", "pull_kept"),
    *("n_other", "other_kept", "n_pull_all", "pull_right_after", "p", "q"),
)
"""Columns of `Evidence` with one number per operator."""


def _row_of(ids: NDArray[np.int32], feature: int) -> int:
    found = np.flatnonzero(ids == feature)
    if not len(found):
        raise KeyError(f"feature must be one of {sorted(ids.tolist())}, got {feature}.")
    return int(found[0])


@dataclass(frozen=True)
class Agreement:
    """How far the encoder `tokens` agrees with `crop` on a sample of n regions; NaN where nothing could be compared.

    cosine: mean cosine of the two embeddings of a region, in [-1, 1]. same_class: share of the regions whose best class
    is the same, in [0, 1]. spearman: rank correlation over the regions, in [-1, 1], of the score for the class that is
    predicted for the region's image; also NaN where one encoder gives all regions the same score.
    """

    n: int
    cosine: float
    same_class: float
    spearman: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", int(self.n))
        for name in ("cosine", "same_class", "spearman"):
            object.__setattr__(self, name, float(getattr(self, name)))
            value, low = getattr(self, name), 0 if name == "same_class" else -1
            if not (np.isnan(value) or low - 1e-3 <= value <= 1 + 1e-3) or (not self.n and not np.isnan(value)):
                raise ValueError(f"Agreement.{name} must lie in {low} .. 1, or be NaN without regions, got {value}.")


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
