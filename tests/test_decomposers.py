"""Every way of cutting regions, through a whole audit and a whole repair with a small model."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ravl
from ravl import repair, vlm
from ravl.data import read_images
from ravl.errors import ConfigError
from ravl.store import AuditRun
from tests.models import small_clip
from tests.worlds import COLOURS, colour_folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, audited images and training images of 80 x 50 pixels, of which the model sees the middle 50 x 50."""
    root = tmp_path_factory.mktemp("place")
    small_clip(root / "model", tuple(COLOURS))
    for seed, name in enumerate(("val", "train")):
        colour_folder(root / name, 8, seed=seed)
    return root


BOXES = [[15, 0, 65, 50], [15, 0, 40, 50], [40, 10, 70, 40]]


def coco(root: Path, *folders: str) -> Path:
    """Three overlapping boxes in every second image of each folder."""
    document: dict[str, Any] = {"images": [], "annotations": []}
    files = [path for folder in folders for path in sorted((root / folder).glob("*/*.png"))[::2]]
    for i, path in enumerate(files):
        document["images"].append({"id": i, "file_name": str(path.relative_to(root)), "width": 80, "height": 50})
        xywh = [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in BOXES]
        document["annotations"] += [{"image_id": i, "bbox": box} for box in xywh]
    where = root / f"{'-'.join(folders)}.json"
    where.write_text(json.dumps(document))
    return where


def listed(root: Path, folder: str, boxes: list[list[int]] | None) -> Path:
    """A manifest of a folder with the same boxes for every second image, and none for the others."""
    with open(root / folder / "list.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image_path", "label", *(() if boxes is None else ("boxes",))))
        for i, path in enumerate(sorted((root / folder).glob("*/*.png"))):
            own = () if boxes is None else (json.dumps([] if i % 2 else boxes),)
            rows.writerow((path.relative_to(root / folder), path.parent.name, *own))
    return root / folder / "list.csv"


def audit(place: Path, images: Path, workspace: Path, regions: str, **options: Any) -> AuditRun:
    options |= {"clustering": "kmedoids", "until": "evidence", "device": "cpu"}
    return ravl.discover(images, place / "model", regions=regions, workspace=workspace, **options)


def tuned(run: AuditRun, images: Path, **options: Any) -> dict[str, Any]:
    top = int(run.features().feature[0])
    return ravl.mitigate(run, images, features=[top], steps=1, batch_size=8, device="cpu", reaudit=False, **options)


@pytest.mark.parametrize(
    ("regions", "encoder", "n_regions"),
    [("grid:1+2", "tokens", 24 * 5), ("grid:2@0.5", "tokens", 24 * 4), ("slic:4", "tokens", 24 * 4)]
    + [("slic:9", "crop", 24 * 9)],
)
def test_an_audit_and_a_repair(place: Path, tmp_path: Path, regions: str, encoder: str, n_regions: int) -> None:
    run = audit(place, place / "val", tmp_path, regions, encoder=encoder)
    found = run.regions()
    assert str(run.config.regions) == regions
    assert 0.5 * n_regions <= len(found) <= 2 * n_regions
    assert (found.mask_step is not None) == regions.startswith("slic")
    assert len(run.array("region_embeddings")) == len(found)
    result = tuned(run, place / "train", test=place / "train")
    assert result["after"]["overall"] >= 0


def test_boxes_of_a_file_serve_the_repair_too(place: Path, tmp_path: Path) -> None:
    where = coco(place, "val", "train")
    run = audit(place, place / "val", tmp_path, f"boxes:{where}")
    assert run.regions().box.tolist() == BOXES * 12
    assert np.diff(run.regions().starts).tolist() == [3, 0] * 12
    assert len(run.images()) == 24
    assert tuned(run, place / "train")["n_spurious_training_regions"] > 0
    again = audit(place, place / "val", tmp_path, f"boxes:{where}")
    assert again.id == run.id
    document = json.loads(where.read_text())
    document["annotations"][0]["bbox"][2] -= 1
    where.write_text(json.dumps(document))
    assert audit(place, place / "val", tmp_path, f"boxes:{where}").id != run.id  # other boxes, another audit


def test_boxes_of_a_manifest(place: Path, tmp_path: Path) -> None:
    run = audit(place, listed(place, "val", BOXES), tmp_path, "boxes")
    assert run.regions().box.tolist() == BOXES * 12
    assert tuned(run, listed(place, "train", BOXES[:1]))["n_spurious_training_regions"] >= 0
    with pytest.raises(ConfigError, match="the images must have boxes to be cut by them"):
        tuned(run, place / "train", name="without")


def test_new_images_go_through_the_encoder_of_the_audit(place: Path, tmp_path: Path) -> None:
    """`auto` looks at the regions; were it asked again, a small box of another set would change all the vectors."""
    run = audit(place, listed(place, "val", BOXES), tmp_path, "boxes")
    model = vlm.load(str(place / "model"), "cpu")
    embedding = repair.audited_encoder(run, model)
    assert embedding.encoder == "tokens"
    images = read_images(listed(place, "train", [[15, 0, 65, 50], [0, 0, 10, 50], [16, 1, 18, 3]]))
    regions = repair.cut(run, model, images, embedding, lambda step: None)
    # the second box lies beside the view, the third between the centres of patches: tokens cannot show them
    assert regions.box.tolist() == [[15, 0, 65, 50]] * 12
    assert regions.n_images == 24


def test_images_without_boxes_are_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="manifest has no column boxes and no file is named"):
        audit(place, place / "val", tmp_path, "boxes")


def test_a_set_without_any_box_has_nothing_to_find(place: Path, tmp_path: Path) -> None:
    run = audit(place, listed(place, "val", []), tmp_path, "boxes")
    assert len(run.regions()) == 0
    assert len(run.features()) == 0
