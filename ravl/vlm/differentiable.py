"""What fine-tuning needs from a model, beside `VisionLanguageModel`: the same vectors with a gradient, in torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, device, nn
from torch.nn import Parameter

from ravl.vlm.interface import Masks, VisionLanguageModel
from ravl.vlm.towers import Cost


class LearningModel(VisionLanguageModel, Protocol):
    """A model that can be changed and saved.

    module: the network, in evaluation mode (its batch statistics never change). device: where it lives.
    input_size: side in pixels of the square picture that it sees. parts: beginnings of the names of the parameters of
    `tower`, all that makes image vectors, and of `projection`, its last layer alone.
    adaptable: the modules whose matrices can get low-rank adapters; None where that is not possible.
    """

    module: nn.Module
    device: device
    parts: dict[str, tuple[str, ...]]
    adaptable: nn.Module | None

    @property
    def input_size(self) -> int: ...

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """(B, 3, H, W) float32 on the CPU: the model's own preprocessing."""
        ...

    def crop_pixels(
        self,
        images: Sequence[Image.Image],
        boxes: Sequence[NDArray[np.integer[Any]]],
        context: float,
        masks: Masks = None,
    ) -> Tensor:
        """(n, 3, H, W) float32 on the CPU: every region cut out with a margin, made square, preprocessed."""
        ...

    def places(
        self,
        size: NDArray[np.integer[Any]],
        box: NDArray[np.integer[Any]],
        masks: Sequence[NDArray[np.bool_] | None] | None = None,
    ) -> Tensor:
        """(n, ...) on the CPU: where boxes (n, 4) of images of `size` (n, 2) lie; for the methods below.

        tokens: (n, N) bool, the patches of each region. roi: (n, 4 + S * S), see `ravl.vlm.roi`.
        """
        ...

    def text_vectors(self, texts: Sequence[str]) -> Tensor:
        """(T, D) unit vectors."""
        ...

    def image_vectors(self, pixels: Tensor) -> Tensor:
        """(B, D) unit vectors."""
        ...

    def region_vectors(self, pixels: Tensor, image_index: Tensor, places: Tensor) -> Tensor:
        """(n, D) unit vectors of regions at `places` of image `image_index` (n,)."""
        ...

    def image_and_region_vectors(self, pixels: Tensor, image_index: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """`image_vectors` and `region_vectors` at once; what they have in common is computed once."""
        ...

    def last_layer(self) -> list[tuple[Parameter, int]]:
        """Parameters of a linear last layer of the vision tower, each with the axis along which the embedding lies.

        Raises ConfigError where the tower does not end in a linear layer.
        """
        ...

    def recompute(self, wanted: bool) -> None:
        """Whether a pass with gradient keeps only what goes into each layer, and computes the layer again when the
        gradient comes back: the same result from less memory. Raises ConfigError where there are no such layers.
        """
        ...

    def cost(self, deep: bool) -> Cost:
        """Floats that a backward pass keeps; deep: through the tower, not just its last layer."""
        ...

    def save(self, path: Path) -> None:
        """Write the model's own format, with tokenizer and preprocessing."""
        ...
