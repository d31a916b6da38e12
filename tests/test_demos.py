"""A demo knows where its mark is: told against the written manifests, and against the pixels or the drawing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ravl.config import RegionsConfig
from ravl.data import load_images, read_images
from ravl.data.hiding import paths_of
from ravl.discovery.regions import grid
from ravl.planted import digits, medical
from ravl.planted.demos import DEMOS, scene_number
from ravl.tables import ImageSet, Regions


def audited(world: str, workspace: Path) -> tuple[ImageSet, Regions]:
    """The images that are audited, in the order of their folders, and their regions."""
    demo = DEMOS[world]
    images = read_images(demo.write(workspace) / "val")
    numbers = [scene_number(path) for path in paths_of(images)]
    assert sorted(numbers) == list(range(len(images))) != numbers
    whole = np.hstack([np.zeros_like(images.size), images.size])
    return images, grid(whole, RegionsConfig.parse(demo.settings().get("regions", "grid:2")))


def listed(images: ImageSet, column: str) -> np.ndarray:
    """(I,) bool, what the manifest beside the folder says of each image."""
    manifest = read_images(Path(images.root).with_suffix(".csv"))
    told = dict(zip(map(scene_number, paths_of(manifest)), manifest.groups[column], strict=True))
    return np.array([told[scene_number(path)] == "yes" for path in paths_of(images)])


def test_the_red_square_is_in_the_regions_that_are_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "DEMO_SIZES", {"val": (60, digits.UNCORRELATED)})
    images, regions = audited("digits", tmp_path)
    marked = DEMOS["digits"].marked(paths_of(images), regions)
    assert 10 < marked.sum() < 50
    assert (np.bincount(regions.image, marked) == listed(images, "red_square")).all()  # one region, where it is there
    pictures = [np.asarray(picture, np.int64) for picture in load_images(images, range(len(images)))]
    for row, (x0, y0, x1, y1) in enumerate(regions.box):
        part = pictures[regions.image[row]][y0:y1, x0:x1]
        red = (part[..., 0] > 150) & (part[..., 1] < 90) & (part[..., 2] < 90)
        assert marked[row] == (red.sum() >= 100)


def test_the_metal_clips_are_in_the_region_that_holds_their_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pydicom")
    monkeypatch.setattr(medical, "DEMO_SIZES", {"val": 24})
    images, regions = audited("radiograph", tmp_path)
    marked = DEMOS["radiograph"].marked(paths_of(images), regions)
    assert ((np.bincount(regions.image, marked) > 0) == listed(images, "metal_clips")).all()
    assert 0 < marked.mean() < 0.25
    scenes = medical.drawings("val")
    boxes = scenes.mark_box[[scene_number(path) for path in paths_of(images)], scenes.marks.index("metal clips")]
    for row, (x0, y0, x1, y1) in enumerate(regions.box):
        x, y = (boxes[regions.image[row]].reshape(2, 2).sum(0) - 1) / 2
        if x0 <= x < x1 and y0 <= y < y1:
            assert marked[row]
