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


@dataclass(frozen=True)
class Encoded:
    """Embeddings of a batch of images and of all their regions, float32.

    image: (B, D) unit vectors. region: (n, D) unit vectors, in the order of the boxes. feature: (n, M), the largest
    value of each channel over the patch tokens, or cells, of a middle layer of the same pass over the region.
    """

    image: NDArray[np.float32]
    region: NDArray[np.float32]
    feature: NDArray[np.float32]


Masks = Sequence[Sequence[NDArray[np.bool_] | None]] | None
"""Per image and box the part that is the region, (h, w) in the box's pixels; None: the whole box, or all of them."""


class VisionLanguageModel(Protocol):
    """A vision-language model whose weights are never changed by an audit.

    name: its resolved reference. dim: D. feature_dim: M. tau: the softmax temperature it was trained with.
    fingerprint, preprocessing: digests of the weights and configuration, and of the image preprocessing.
    drops_tokens: whether it can leave the tokens of a region out (`encode_without`).
    encoders: how it can embed regions, the best first: tokens, of a vision transformer, or roi, of a convolutional
    network; and crop, which every model has. why: one sentence that says why.
    """

    name: str
    dim: int

    @property
    def feature_dim(self) -> int: ...

    @property
    def drops_tokens(self) -> bool: ...

    @property
    def encoders(self) -> tuple[str, ...]: ...

    @property
    def why(self) -> str: ...

    @property
    def tau(self) -> float: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def preprocessing(self) -> str: ...

    def view(self, size: NDArray[np.integer]) -> NDArray[np.int32]:
        """(I, 4) boxes x0, y0, x1, y1: the part of images of `size` (I, 2; width, height) that the model sees."""
        ...

    def patch_counts(
        self,
        size: NDArray[np.integer],
        box: NDArray[np.integer],
        masks: Sequence[NDArray[np.bool_] | None] | None = None,
    ) -> NDArray[np.int64]:
        """(n,) how many patches each box (n, 4) of an image of `size` (n, 2) holds; 0 if the model has but crop.

        A patch is what a token of a transformer, or a cell of a convolutional network's last map, stands for.

        masks: as `Masks`, one per box.
        """
        ...

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(T, D) unit vectors."""
        ...

    def encode_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """(B, D) unit vectors of upright RGB images."""
        ...

    def encode_regions(
        self,
        images: Sequence[Image.Image],
        boxes: Sequence[NDArray[np.integer]],
        encoder: str,
        context: float,
        masks: Masks = None,
    ) -> Encoded:
        """Embed images and their regions, boxes (n_i, 4) per image.

        encoder: one of `encoders`; tokens: a transformer sees the region's patches alone; roi: a convolutional network
        sees the image, and its last map is cut; crop: the region is cut out, with `context` margin.

        Of a region with a mask nothing outside of the mask is seen.
        """
        ...

    def encode_without(
        self, images: Sequence[Image.Image], boxes: Sequence[NDArray[np.integer]], masks: Masks = None
    ) -> NDArray[np.float32]:
        """(B, D) unit vectors of the images without the patch tokens of their boxes (n_i, 4); if `drops_tokens`."""
        ...
