"""Detectors and segmenters of the transformers library that propose regions: the DETR family, OWLv2, SAM.

Their weights are read from a folder on this machine, as safetensors, and only when they are needed. What a thing is
does not matter here, only that it is one: of a detector the best class score counts, of OWLv2 its objectness, of SAM
the quality that it expects of its own mask. One image at a time, so no padding between images changes a result.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ravl.config import RegionsConfig
from ravl.discovery.proposals import Proposed
from ravl.errors import ModelError

POINTS = 12
"""SAM is asked about a grid of so many points a side."""
_NAMES = {"detr": "a detector of the DETR family", "owl": "an OWLv2 detector", "sam": "a SAM segmenter"}
_AT_ONCE = 36  # points in one pass of SAM's decoder
_SIDE = 160  # squares of a mask along the longer side of an image
_SOFTMAX = ("detr", "yolos", "table-transformer")  # their last class is "nothing"; the others score classes singly


def load(config: RegionsConfig, device: str = "auto") -> Detector:
    """Load the proposer that a configuration names. Raises ModelError when the folder holds no such model."""
    folder = Path(config.file)
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise ModelError(
            f"{config.kind}: must be followed by a folder that save_pretrained wrote, with config.json and "
            f"safetensors, got {folder}."
        )
    kinds = {"owl": ("owlv2",), "sam": ("sam",)}.get(config.kind)
    found = _model_type(folder)
    if found not in kinds if kinds else found in ("owlv2", "owlvit", "sam", ""):
        raise ModelError(
            f"{config.kind}: must be followed by the folder of {_NAMES[config.kind]}, but {folder} holds "
            f"{found or 'none'}."
        )
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    return {"detr": Detector, "owl": Owl, "sam": Sam}[config.kind](folder, chosen)


def _model_type(folder: Path) -> str:
    """What config.json says the model is; empty where it says nothing."""
    try:
        document = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(document.get("model_type", "")) if isinstance(document, dict) else ""


class Detector:
    """The DETR family: a fixed number of boxes, each with a score per class."""

    auto = "AutoModelForObjectDetection"

    def __init__(self, folder: Path, device: str) -> None:
        import transformers

        self.folder, self.device = folder, torch.device(device)
        try:
            self.processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
            module = getattr(transformers, self.auto).from_pretrained(
                folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(
                f"{folder} must be a model that proposes regions, but cannot be loaded ({reason})."
            ) from error
        self.module = module.to(self.device).eval()

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the configuration and the weights."""
        digest = hashlib.blake2b(digest_size=16)
        for path in sorted([*self.folder.glob("*.json"), *self.folder.glob("*.safetensors")]):
            with open(path, "rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, hashlib.blake2b).digest())
        return digest.hexdigest()

    @torch.inference_mode()
    def propose(self, image: Image.Image) -> Proposed:
        """Boxes with their scores, in pixels of the image."""
        out = self.module(**self._inputs(image))
        logits = out.logits[0].float()
        softmax = self.module.config.model_type in _SOFTMAX
        score = logits.softmax(-1)[:, :-1].amax(1) if softmax else logits.sigmoid().amax(1)
        return Proposed(self._corners(out.pred_boxes[0], image.size), score.cpu().numpy())

    def _inputs(self, image: Image.Image) -> dict[str, Any]:
        made = self.processor(images=image, return_tensors="pt")
        return {name: value.to(self.device) for name, value in made.items() if isinstance(value, torch.Tensor)}

    def _corners(self, box: torch.Tensor, size: tuple[int, int]) -> NDArray[np.float64]:
        """(n, 4) corners in pixels of boxes given as centre and size, in shares of the image."""
        center, side = box.double().cpu().numpy()[:, :2], box.double().cpu().numpy()[:, 2:]
        corners: NDArray[np.float64] = np.concatenate([center - side / 2, center + side / 2], 1) * [*size, *size]
        return corners


class Owl(Detector):
    """OWLv2: a box per patch, with the objectness that it learned; no text is asked for."""

    auto = "Owlv2ForObjectDetection"

    @torch.inference_mode()
    def propose(self, image: Image.Image) -> Proposed:
        """Boxes with their objectness; the model sees the image padded to a square, to the right and below."""
        pixels = self._inputs(image)["pixel_values"]
        grid = self.module.image_embedder(pixels)[0]
        patches = grid.flatten(1, 2)
        score = self.module.objectness_predictor(patches)[0].float().sigmoid()
        side = max(image.size)
        box = self._corners(self.module.box_predictor(patches, grid)[0], (side, side))
        return Proposed(box, score.cpu().numpy())


class Sam(Detector):
    """SAM: for every point of a grid three masks, with the quality that it expects of each."""

    auto = "SamModel"

    @torch.inference_mode()
    def propose(self, image: Image.Image) -> Proposed:
        """Masks over squares of the image, with their boxes."""
        made = self.processor(images=image, return_tensors="pt")
        height, width = (int(v) for v in made["reshaped_input_sizes"][0])
        seen = self.module.get_image_embeddings(made["pixel_values"].to(self.device))
        place = (np.arange(POINTS) + 0.5) / POINTS
        points = np.stack(np.meshgrid(place * width, place * height), -1).reshape(-1, 1, 2)
        step = -(-max(image.size) // _SIDE)
        input_side = int(made["pixel_values"].shape[-1])
        masks: list[NDArray[np.bool_]] = []
        scores: list[float] = []
        for start in range(0, len(points), _AT_ONCE):
            asked = torch.from_numpy(points[None, start : start + _AT_ONCE]).float().to(self.device)
            out = self.module(image_embeddings=seen, input_points=asked, multimask_output=True)
            low = out.pred_masks[0].flatten(0, 1).float().cpu().numpy() > 0
            masks += [_sampled(mask, image.size, step, (width, height), input_side) for mask in low]
            scores += out.iou_scores[0].flatten().float().cpu().tolist()
        full = [k for k, mask in enumerate(masks) if mask.any()]
        box = np.array([_around(masks[k], step) for k in full], np.float64).reshape(-1, 4)
        return Proposed(box, np.array([scores[k] for k in full]), step, [masks[k] for k in full])


def _sampled(
    mask: NDArray[np.bool_], size: tuple[int, int], step: int, shown: tuple[int, int], input_side: int
) -> NDArray[np.bool_]:
    """(rows, columns) of squares of `step` pixels of an image: the mask at their centres.

    mask: (m, m) over the square that the model sees, `input_side` wide, whose part `shown` (width, height) is
        the image.
    """
    places = []
    for length, seen in zip(size, shown, strict=True):
        center = (np.arange(-(-length // step)) + 0.5) * step
        share = center.clip(max=length - 0.5) / length * seen / input_side
        places.append(np.minimum((share * len(mask)).astype(int), len(mask) - 1))
    columns, rows = places
    out: NDArray[np.bool_] = mask[np.ix_(rows, columns)]
    return out


def _around(mask: NDArray[np.bool_], step: int) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(v) * step for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]
