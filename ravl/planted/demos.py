"""The built-in demos: what each is called, where it keeps its images, and how its model is audited.

Light: the worlds themselves are imported where their images are drawn.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.errors import DataError
from ravl.tables import ImageSet, Regions

DRAWN_BY = "RAVL drawing program"
"""What the header Manufacturer of drawn DICOM files holds. It is one of the few that are kept, so that a drawing can be
told from a radiograph wherever it goes."""


@dataclass(frozen=True)
class Demo:
    """One demo.

    name: of its audit. model: the reference of its model. folder: of its images, below a workspace: `<folder>/<split>`
    for the splits train, val (which is audited) and test, and beside each its manifest `<split>.csv`, which says where
    the marks are. mark, target: the spurious mark that its model relies on, and the class that it pulls to.
    repair: fields of MitigationConfig that are enough here, and less than the defaults.
    """

    world: str
    name: str
    model: str
    folder: str
    mark: str
    target: str
    repair: Mapping[str, int] = field(default_factory=dict)

    @property
    def medical(self) -> bool:
        """Whether its images are DICOM files."""
        return self.world == "radiograph"

    def write(self, workspace: Path) -> Path:
        """Draw the images once, and return their folder. Raises DataError where that cannot be done (see `problem`)."""
        if problem := self.problem():
            raise DataError(problem)
        if self.medical:
            from ravl.planted.medical import write_demo
        else:
            from ravl.planted.digits import write_demo
        return write_demo(workspace / self.folder)

    def problem(self) -> str:
        """Why the images cannot be drawn here, in a sentence; empty when they can."""
        if self.medical and importlib.util.find_spec("pydicom") is None:
            return "The medical demo writes DICOM files, which needs pydicom. Run: pip install 'ravl-dashboard[dicom]'."
        return ""

    def marked(self, paths: Sequence[str], regions: Regions) -> NDArray[np.bool_]:
        """(R,) whether each region shows the mark. paths: of the images, which are some of those that are audited.

        regions: of the demo's own grid (see `settings`). The scenes are drawn again.
        """
        scene = np.array([scene_number(path) for path in paths], np.int64)[regions.image]
        if self.medical:
            from ravl.planted.medical import drawings
            from ravl.planted.worlds import shows

            scenes = drawings("val")
            return shows(scenes, scene, regions.box)[:, scenes.marks.index(self.mark)]
        from ravl.planted.digits import DEMO_SIZES, digit_world

        n, rates = DEMO_SIZES["val"]
        world = digit_world("val", n, *rates, seed=0)
        there: NDArray[np.bool_] = world.mark[scene] & (world.mark_cell[scene] == regions.position)
        return there

    def settings(self) -> dict[str, Any]:
        """Arguments of `ravl.discover` beside the images: model, classes, and what differs from the defaults."""
        from ravl.planted.worlds import WORLDS

        plan = WORLDS[self.world]
        settings: dict[str, Any] = {"model": self.model, "classes": plan.class_names}
        if not self.medical:
            return settings
        return settings | {"templates": plan.prompts, "regions": plan.regions, "encoder": plan.encoder}


DEMOS = {
    demo.world: demo
    for demo in (
        Demo("digits", "demo", "demo", "demo-data", "red square", "nine"),
        Demo(
            *("radiograph", "radiographs", "demo:radiograph", "demo-data/radiographs", "metal clips", "cardiomegaly"),
            repair={"steps": 120, "batch_size": 64},  # a step embeds sixteen regions an image one by one
        ),
    )
}


def scene_number(path: str) -> int:
    """The number of the scene in its split, from the path of its file: what follows the last underscore, or all."""
    return int(Path(path).stem.rsplit("_", 1)[-1])


def demo_of(workspace: Path, images: str) -> Demo | None:
    """The demo whose audited images these are; None for other images. images: as in a run's configuration."""
    return next((demo for demo in DEMOS.values() if Path(images) == workspace / demo.folder / "val"), None)


def drawn(images: ImageSet) -> bool:
    """Whether all images say that a program of RAVL drew them."""
    makers = images.headers.get("manufacturer", np.array([], np.str_))
    return len(makers) > 0 and bool((makers == DRAWN_BY).all())
