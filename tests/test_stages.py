"""What every audit has in common, with a model or without."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from ravl import stages
from ravl.discovery import clustering
from ravl.discovery.clustering import assign
from ravl.tables import NOISE
from tests.test_clustering import SMALL, blobs, regions_of, run


class Watched(np.ndarray):
    """Remembers how many rows were taken out of it at a time."""

    taken: ClassVar[list[int]] = []

    def __getitem__(self, rows: Any) -> Any:
        found = np.asarray(self)[rows]
        self.taken.append(len(found))
        return found


def test_what_is_left_over_is_read_in_blocks(monkeypatch) -> None:
    features, _ = blobs(noise=0.3)
    regions = regions_of(100)
    found = run(features, regions, SMALL)
    rest = found.label == NOISE
    expected = np.where(rest, assign(found, features, regions.position), NOISE)
    assert rest.sum() > 32
    monkeypatch.setattr(clustering, "_BLOCK", 16)
    monkeypatch.setattr(Watched, "taken", [])
    held: Any = SimpleNamespace(clustering=lambda: found, regions=lambda: regions, space=lambda: features.view(Watched))
    assert np.array_equal(stages._left_over(held), expected)
    assert max(Watched.taken) == 16
    assert sum(Watched.taken) == rest.sum()
