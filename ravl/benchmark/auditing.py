"""What both evaluations begin with: a setting's model, the images it is audited on, the audit, the truth about it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ravl.benchmark.figures import Truth
from ravl.benchmark.rows import SPACES, Reliance
from ravl.benchmark.settings import WITHOUT, Setting
from ravl.planted.worlds import SHOWN, WORLDS, Scenes, held, make, write_scenes
from ravl.store import AuditRun, read_json
from ravl.store.files import locked

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGES = {"grid:2": 1000, "grid:4": 800}
"""Audited images by the grid of the world."""


@dataclass(frozen=True)
class Place:
    """Where and how settings are measured. shipped: a folder of models, <setting>/; looked at before one is trained.
    spaces: what regions are clustered on."""

    folder: Path
    device: str = "auto"
    shipped: Path | None = None
    spaces: tuple[str, ...] = SPACES


def model_of(setting: Setting, place: Place) -> Path:
    """The setting's model: a shipped one, one that was trained before, or a new one."""
    from ravl.planted.keeping import cached_model

    if place.shipped is not None and (place.shipped / setting.id / "config.json").exists():
        return place.shipped / setting.id
    models = place.folder / "models"
    with locked(models / f"{setting.id}.lock", "the model", wait=True):  # two processes may want the same one
        return cached_model(models, setting.world, setting.architecture, setting.marks, setting.strength, setting.seed)


def reliance_of(model: Path, setting: Setting) -> Reliance:
    """How much a model relies on its marks, as written beside it when it was trained."""
    marks = read_json(model / "setting.json")["reliance"]
    found = [marks[mark] for mark in setting.marks]
    return Reliance(found[0]["accuracy"], tuple(m["eps1"] for m in found), tuple(m["eps2"] for m in found))


def audited_scenes(setting: Setting, folder: Path) -> tuple[Scenes, Path]:
    """The scenes that are audited, without correlation, and the image folder that holds them; written once."""
    n = IMAGES[WORLDS[setting.world].regions]
    scenes = make(setting.world, setting.marks, "test", n, None, setting.seed)
    return scenes, written(setting, scenes, folder, f"s{setting.seed}")


def written(setting: Setting, scenes: Scenes, folder: Path, name: str) -> Path:
    """The image folder of scenes of a setting; its manifest is the file beside it with the ending .csv.

    The folder's name holds a digest of the pixels, so that scenes of an older world are never taken for today's.
    """
    marks = "+".join(mark.replace(" ", "_") for mark in setting.marks)
    pixels = hashlib.sha256(scenes.image.tobytes()).hexdigest()[:8]
    images = folder / "scenes" / f"{setting.world}-{marks}-{name}-{pixels}"
    with locked(images.with_name(images.name + ".lock"), "the scenes", wait=True):
        write_scenes(images, scenes)
    return images


def audit(setting: Setting, model: Path, images: Path, space: str, folder: Path, device: str) -> AuditRun:
    """Audit a model on images, clustered on `space` (auto: as the tool does); kept in the workspace `folder`."""
    import ravl

    plan = WORLDS[setting.world]
    return ravl.discover(
        images,
        model,
        classes=plan.class_names,
        templates=plan.prompts,
        regions=plan.regions,
        encoder=plan.encoder,
        cluster_on=space,
        seed=setting.seed,
        device=device,
        workspace=folder,
        name=space,
        until="evidence",
    )


def scene_of(run: AuditRun) -> NDArray[np.int64]:
    """(I,) number of the scene that each audited image shows; the files are named after it."""
    return numbers(run.images().file)


def numbers(file: NDArray[np.str_]) -> NDArray[np.int64]:
    """(I,) the numbers of scenes from the names of their files."""
    return np.array([int(Path(name).stem) for name in file], np.int64)


def truth_of_regions(
    scenes: Scenes, scene: NDArray[np.int64], run: AuditRun, setting: Setting, reliance: Reliance
) -> Truth:
    """What every region shows, and which marks can be found. The global shortcut is no mark: M = 0 there."""
    regions = run.regions()
    share = held(scenes, scene[regions.image], regions.box)
    planted = np.full(len(scenes.marks), setting.kind not in WITHOUT)
    learned = np.array(reliance.learned[: len(scenes.marks)], np.bool_)
    return Truth(share >= SHOWN, np.array(scenes.target, np.int64), planted, planted & learned, touches=share > 0)
