"""A model on fresh scenes without correlation, whose groups are known: the final test of every arm."""

from __future__ import annotations

from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ravl.benchmark.repairs import Measured
from ravl.evaluation import MIN_COUNT
from ravl.planted.tiny_clip import reliance
from ravl.planted.worlds import Scenes
from ravl.vlm.differentiable import LearningModel

BATCH = 500


class FinalTest:
    """Scenes whose pixels are prepared once for all models of one preprocessing."""

    def __init__(self, scenes: Scenes, vlm: LearningModel) -> None:
        self.scenes, self._pixels = scenes, vlm.pixels([Image.fromarray(x) for x in scenes.image])

    @torch.inference_mode()
    def right(self, vlm: LearningModel, class_text: NDArray[np.float32]) -> NDArray[np.bool_]:
        """(I,) which scenes a model gets right. class_text: (Y, D) unit vectors of the model's own text tower."""
        text = torch.from_numpy(class_text).to(vlm.device)
        said = [(vlm.image_vectors(part) @ text.T).argmax(1).cpu() for part in self._pixels.split(BATCH)]
        return np.asarray(torch.cat(said).numpy() == self.scenes.label)

    @cached_property
    def groups(self) -> list[tuple[str, NDArray[np.bool_]]]:
        """Name and (I,) members of every true group of enough scenes: class x which of the marks are there."""
        scenes, found = self.scenes, []
        for label, name in enumerate(scenes.class_names):
            for there in product((True, False), repeat=len(scenes.marks)):
                members = (scenes.label == label) & (scenes.present == np.array(there)).all(1)
                if members.sum() >= MIN_COUNT:
                    found.append((f"{name} {_told(scenes.marks, there)}", members))
        return found

    def measure(self, right: NDArray[np.bool_]) -> Measured:
        """The figures of a model from what it gets right. Between equal groups the first is called the worst."""
        rates = [float(right[members].mean()) for _, members in self.groups]
        worst = int(np.argmin(rates))
        everywhere, alone = self._relies(right, alone=False), self._relies(right, alone=True)
        name, members = self.groups[worst]
        return Measured(
            float(right.mean()),
            rates[worst],
            name,
            int(members.sum()),
            tuple(found["eps1"] for found in everywhere),
            tuple(found["eps2"] for found in everywhere),
            tuple(found["eps1"] for found in alone),
            tuple(found["eps2"] for found in alone),
        )

    def _relies(self, right: NDArray[np.bool_], alone: bool) -> list[dict[str, float]]:
        """The reliance on each mark; alone: on the scenes without any other."""
        scenes, found = self.scenes, []
        for m, target in enumerate(scenes.target):
            others = np.delete(scenes.present, m, 1).any(1)
            rows = ~others if alone else np.ones_like(others)
            found.append(reliance(right[rows], scenes.label[rows], scenes.present[rows, m], target))
        return found


def _told(marks: tuple[str, ...], there: tuple[Any, ...]) -> str:
    return " and ".join(f"{'with' if has else 'without'} {mark}" for mark, has in zip(marks, there, strict=True))
