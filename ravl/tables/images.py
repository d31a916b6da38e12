"""What is audited: labelled images, and the regions they are cut into."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.tables.record import column

COUNTS_ANYWAY = "its embeddings are used"
"""How the reason ends of an image whose file cannot be read, but whose embeddings were given."""


@dataclass(frozen=True)
class ImageSet:
    """Labelled images that can be read. Nothing is decoded here.

    root: folder that `file` is relative to, absolute.
    file: (I,) relative paths with forward slashes, str; where `salt` is set, pseudonyms of them, and the paths
        themselves are nowhere (see `ravl.data.hiding`).
    label: (I,) int16, index into `class_names`; -1 where a caption names no class, or several (training sets only).
    size: (I, 2) int32, width and height of the upright image in pixels.
    caption: (I,) str, or None when the set has none.
    groups: extra columns of a manifest, name -> (I,) str.
    skipped: (file, reason) of everything listed that could not be used: see `unreadable`, `unseen`, `empty_folders`.
    fingerprint: hex digest of all file contents, paths, labels and boxes.
    box_image: (B,) int32, image of each of people's own boxes, never falls; None when the set has none.
    box: (B, 4) int32, x0, y0, x1, y1 in pixels of the upright image, half-open, inside the image; None likewise.
    skipped_boxes: (file, which box and why) of every box that could not be used.
    digest: (I,) str, hexadecimal digest of every file's content; None when it is not known.
    source: what the set was read from, as `read_images` takes it. salt: hexadecimal key of the pseudonyms, or empty.
    frames: which frame of a DICOM file with several is meant.
    headers: allowed header values of DICOM files, and how their values became grey: name -> (I,) str.
    left_out: (file, reason) of what belongs to no class, such as pictures of several.
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
    digest: NDArray[np.str_] | None = None
    source: str = ""
    salt: str = ""
    frames: str = "refuse"
    headers: dict[str, NDArray[np.str_]] = field(default_factory=dict)
    left_out: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        column(self, "file", np.str_, (None,))
        column(self, "label", np.int16, (len(self.file),))
        column(self, "size", np.int32, (len(self.file), 2))
        if self.caption is not None:
            column(self, "caption", np.str_, (len(self.file),))
        if self.digest is not None:
            column(self, "digest", np.str_, (len(self.file),))
        for kind in ("groups", "headers"):
            self._check_columns(kind)
        if len(self.label) and not -1 <= self.label.min() <= self.label.max() < len(self.class_names):
            raise ValueError(f"label must index the {len(self.class_names)} class names, got {self.label.max()}.")
        if (self.box is None) != (self.box_image is None):
            raise ValueError("ImageSet.box and ImageSet.box_image must be given together.")
        if self.box is not None and self.box_image is not None:
            column(self, "box_image", np.int32, (None,))
            column(self, "box", np.int32, (len(self.box_image), 4))
            _check_boxes("ImageSet.box_image", self.box_image, "ImageSet.box", self.box, len(self))
            if np.any(self.box[:, 2:] > self.size[self.box_image]):
                raise ValueError("ImageSet.box must lie inside of its image. Clip it.")

    def __len__(self) -> int:
        return len(self.file)

    @property
    def unreadable(self) -> tuple[tuple[str, str], ...]:
        """(file, reason) of images that count nowhere, since they cannot be read."""
        known = {*self.unseen, *self.empty_folders}
        return tuple(row for row in self.skipped if row not in known)

    @property
    def unseen(self) -> tuple[tuple[str, str], ...]:
        """(file, reason) of images that cannot be shown, but count: their embeddings were given."""
        return tuple(row for row in self.skipped if row[1].endswith(COUNTS_ANYWAY))

    @property
    def empty_folders(self) -> tuple[tuple[str, str], ...]:
        """(folder, reason) of folders that are no class, since they hold no image."""
        return tuple(row for row in self.skipped if row[0].endswith("/"))

    def _check_columns(self, kind: str) -> None:
        checked = {name: np.array(values, np.str_) for name, values in getattr(self, kind).items()}
        for name, values in checked.items():
            if values.shape != self.file.shape:
                raise ValueError(f"ImageSet.{kind}[{name!r}] must have shape {self.file.shape}, got {values.shape}.")
            values.flags.writeable = False
        object.__setattr__(self, kind, checked)


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
        column(self, "image", np.int32, (None,))
        column(self, "box", np.int32, (len(self.image), 4))
        column(self, "position", np.int16, (len(self.image),))
        _check_boxes("Regions.image", self.image, "Regions.box", self.box, self.n_images)
        if (self.mask_step is None) != (self.mask_bits is None):
            raise ValueError("Regions.mask_step and Regions.mask_bits must be given together.")
        if self.mask_step is not None:
            self._check_masks()
        starts = np.searchsorted(self.image, np.arange(self.n_images + 1))
        starts.flags.writeable = False
        object.__setattr__(self, "_starts", starts)

    def _check_masks(self) -> None:
        column(self, "mask_step", np.int32, (len(self.image),))
        column(self, "mask_bits", np.uint8, (None,))
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

    def in_images(self, chosen: NDArray[Any]) -> NDArray[np.bool_]:
        """(I,) whether an image has one of the chosen regions: (R,) bool, or their ids."""
        there = np.zeros(self.n_images, bool)
        there[self.image[chosen]] = True
        return there

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
