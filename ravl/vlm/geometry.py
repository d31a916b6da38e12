"""Where the pixels of an upright image go in a model's input: resize, centre crop, patches. Plain numpy.

Boxes are x0, y0, x1, y1 in pixels, half-open. The formulas are those of the transformers image processors, and of
torchvision's transforms: the shortest edge is resized to a length (the longer one truncated to whole pixels), then the
centre is cut out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.errors import ModelError


@dataclass(frozen=True)
class Geometry:
    """How a processor lays an image into the model's square input.

    shortest_edge: length the shorter side is resized to, or None where both sides are resized to `resize`.
    resize: (width, height) both sides are forced to, or None. crop: (width, height) of the centre crop, or None.
    input_size: side of the model's square input in pixels. patch: side of a patch in pixels. half_even: whether the
    crop begins at the nearest pixel (torchvision; a half goes to the even one), else at the one to the left and above.
    """

    shortest_edge: int | None
    resize: tuple[int, int] | None
    crop: tuple[int, int] | None
    input_size: int
    patch: int
    half_even: bool = False

    @classmethod
    def of(cls, processor: dict[str, Any], input_size: int, patch: int) -> Geometry:
        """Read the processor's own settings. Raises ModelError for one that cannot produce the model's input."""
        size = dict(processor.get("size") or {}) if processor.get("do_resize", True) else {}
        crop = dict(processor.get("crop_size") or {}) if processor.get("do_center_crop", True) else {}
        shortest = size.get("shortest_edge")
        resize = (int(size["width"]), int(size["height"])) if "height" in size and "width" in size else None
        cut = (int(crop["width"]), int(crop["height"])) if "height" in crop and "width" in crop else None
        final = cut or resize
        if final != (input_size, input_size) or (shortest is None and resize is None):
            raise ModelError(
                f"the model's preprocessing must produce {input_size} x {input_size} pixels, but its processor resizes "
                f"to {size or 'nothing'} and crops to {crop or 'nothing'}. Correct its preprocessor_config.json."
            )
        return cls(None if shortest is None else int(shortest), resize, cut, input_size, patch)

    @property
    def side(self) -> int:
        """Patches per side; a remainder of the input at the right and bottom is not seen by the model."""
        return self.input_size // self.patch

    def _resized(self, size: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        sides = np.asarray(size, np.float64).reshape(-1, 2)
        if self.shortest_edge is None:
            return np.broadcast_to(np.asarray(self.resize, np.float64), sides.shape)
        short = sides.min(1, keepdims=True)
        return np.where(sides == short, self.shortest_edge, np.floor(self.shortest_edge * sides / short))

    def _offset(self, resized: NDArray[np.float64]) -> NDArray[np.float64]:
        """Left and top of the crop in the resized image; negative where the crop pads."""
        if self.crop is None:
            return np.zeros_like(resized)
        free = (resized - np.asarray(self.crop, np.float64)) / 2
        return np.round(free) if self.half_even else np.floor(free)

    def view(self, size: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """(I, 4) the part of images of `size` (I, 2; width, height) that reaches a patch, in whole original pixels."""
        size = np.asarray(size).reshape(-1, 2)
        resized = self._resized(size)
        offset, seen = self._offset(resized), self.side * self.patch
        low = np.clip(np.round(offset * size / resized), 0, size - 1)
        high = np.clip(np.round((offset + seen) * size / resized), low + 1, size)
        return np.hstack([low, high]).astype(np.int32)

    def to_input(self, size: NDArray[np.integer[Any]], box: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """(n, 4) boxes of images of `size` (n, 2) in pixels of the model's input; they may reach beyond it."""
        size = np.asarray(size).reshape(-1, 2)
        resized = self._resized(size)
        offset, scale = self._offset(resized), resized / size
        placed: NDArray[np.float64] = np.asarray(box, np.float64).reshape(-1, 4) * np.tile(scale, 2)
        return placed - np.tile(offset, 2)

    def patches(
        self,
        size: NDArray[np.integer[Any]],
        box: NDArray[np.integer[Any]],
        masks: Sequence[NDArray[np.bool_] | None] | None = None,
    ) -> NDArray[np.bool_]:
        """(n, N) which of the N patches, row by row, have their centre in each region; a partition stays a partition.

        masks: (h, w) the pixels of each box that belong to the region; None: all of them.
        """
        size, box = np.asarray(size).reshape(-1, 2), np.asarray(box).reshape(-1, 4)
        x0, y0, x1, y1 = self.to_input(size, box).T[:, :, None]
        center = (np.arange(self.side) + 0.5) * self.patch
        columns = (center >= x0) & (center < x1)
        rows = (center >= y0) & (center < y1)
        inside: NDArray[np.bool_] = rows[:, :, None] & columns[:, None, :]
        for row, mask in enumerate(masks or ()):
            if mask is None:
                continue
            left, top, right, bottom = box[row].tolist()
            if mask.shape != (bottom - top, right - left):
                raise ValueError(f"mask {row} must have shape {(bottom - top, right - left)}, got {mask.shape}.")
            x, y = self._pixels_under(size[row], center)
            # centres outside of the box are not inside already
            x, y = (x - left).clip(0, right - left - 1), (y - top).clip(0, bottom - top - 1)
            inside[row] &= mask[np.ix_(y, x)]
        return inside.reshape(len(columns), self.side**2)

    def _pixels_under(
        self, size: NDArray[np.integer[Any]], place: NDArray[np.floating[Any]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Column and row of the pixel of one image that lies under each of (m,) places of the input.

        Pixels begin exactly where `to_input` lays them, so that rounding cannot move a place out of its box.
        """
        resized = self._resized(size)
        scale, offset = (resized / size)[0], self._offset(resized)[0]
        found = []
        for axis in range(2):
            pixel = np.floor((place + offset[axis]) / scale[axis])
            pixel += (pixel + 1) * scale[axis] - offset[axis] <= place
            pixel -= pixel * scale[axis] - offset[axis] > place
            found.append(pixel.astype(np.int64))
        return found[0], found[1]
