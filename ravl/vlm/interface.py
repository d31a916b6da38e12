"""What the rest of the package needs from a model. Everything goes in and comes out as PIL images and numpy arrays.

A model is an argument of the discovery stages; a few lines of linear algebra can stand in for it in tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

OPERATORS = ("token_drop", "mean_fill")
"""Ways to remove regions from an image: leave their patch tokens out, or paint them in the image's mean colour."""


@dataclass(frozen=True)
class Encoded:
    """Embeddings of a batch of images and of all their regions, float32.

    image: (B, D) unit vectors. region: (n, D) unit vectors, in the order of the boxes. feature: (n, M), the mean patch
    token of a middle layer of the same pass over the region, not normalised.
    """

    image: NDArray[np.float32]
    region: NDArray[np.float32]
    feature: NDArray[np.float32]


class VisionLanguageModel(Protocol):
    """A vision-language model whose weights are never changed by an audit.

    name: its resolved reference. dim: D. feature_dim: M. tau: the softmax temperature it was trained with.
    fingerprint, preprocessing: digests of the weights and configuration, and of the image preprocessing.
    operators: those of OPERATORS it can apply.
    """

    name: str
    dim: int
    feature_dim: int
    operators: tuple[str, ...]

    @property
    def tau(self) -> float: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def preprocessing(self) -> str: ...

    def view(self, size: NDArray[np.integer]) -> NDArray[np.int32]:
        """(I, 4) boxes x0, y0, x1, y1: the part of images of `size` (I, 2; width, height) that the model sees."""
        ...

    def patch_counts(self, size: NDArray[np.integer], box: NDArray[np.integer]) -> NDArray[np.int64]:
        """(n,) how many patch tokens each box (n, 4) of an image of `size` (n, 2) holds; 0 without tokens."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(T, D) unit vectors."""
        ...

    def encode_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """(B, D) unit vectors of upright RGB images."""
        ...

    def encode_regions(
        self, images: Sequence[Image.Image], boxes: Sequence[NDArray[np.integer]], encoder: str, context: float
    ) -> Encoded:
        """Embed images and their regions, boxes (n_i, 4) per image. encoder: tokens or crop (with `context` margin)."""
        ...

    def encode_without(
        self, images: Sequence[Image.Image], boxes: Sequence[NDArray[np.integer]], operator: str
    ) -> NDArray[np.float32]:
        """(B, D) unit vectors of the images with their boxes (n_i, 4) removed by one of `operators`."""
        ...
