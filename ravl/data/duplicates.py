"""Images of one content under several names: they count twice, and where their labels differ one must be wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ravl.tables import ImageSet


@dataclass(frozen=True)
class Duplicates:
    """Sets of images with the same bytes, in the order of their first image; of each all ids, rising.

    clash: those whose labels differ.
    """

    same: tuple[tuple[int, ...], ...]
    clash: tuple[tuple[int, ...], ...]

    @property
    def spare(self) -> int:
        """How many images are copies of an earlier one."""
        return sum(len(ids) - 1 for ids in self.same)


def duplicates(images: ImageSet) -> Duplicates:
    """Find images of equal content. Only equal bytes count: a photograph that was saved again is another one.

    Without digests (a set read by an older version) there are none.
    """
    if images.digest is None or not len(images):
        return Duplicates((), ())
    _, number, count = np.unique(images.digest, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(count[number] > 1)
    parts = _groups(number[rows], rows)
    same = tuple(sorted(tuple(ids.tolist()) for ids in parts))
    return Duplicates(same, tuple(ids for ids in same if len(set(images.label[list(ids)].tolist())) > 1))


def shared(one: ImageSet, other: ImageSet) -> NDArray[np.int64]:
    """Ids of the images of `one` whose content `other` has too: a model must not be tested on what it learned from."""
    if one.digest is None or other.digest is None:
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.isin(one.digest, other.digest))


def _groups(number: NDArray[np.int64], rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    order = np.argsort(number, kind="stable")
    edges = np.flatnonzero(np.diff(number[order])) + 1
    return [part for part in np.split(rows[order], edges) if len(part)]
