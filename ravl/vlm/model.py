"""`DualEncoder`: the one class behind every family of models. What differs between them are its parts.

A family's module (`ravl.vlm.transformers_dual`, `ravl.vlm.open_clip`) loads a model and takes it apart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.functional import normalize

from ravl.data.painting import square_crop
from ravl.errors import ConfigError, ModelError
from ravl.vlm.geometry import Geometry
from ravl.vlm.interface import Encoded, Masks
from ravl.vlm.towers import Cost, TokenTower, Tower


@dataclass
class DualEncoder:
    """A loaded model: a `VisionLanguageModel`, and a `LearningModel` with the torch methods that training needs.

    name: its resolved reference. module: the network, in evaluation mode, on `device`. dim: D.
    tower, geometry: how pictures become vectors, and where their pixels go. prepare: pictures -> (B, 3, H, W), the
    model's own preprocessing, with its `settings`. read: texts -> (T, D), not normalised. vocabulary: as text, what
    answers depend on beside weights and preprocessing: the tokenizer, and settings that the weights do not tell.
    write: saves in the model's own format. why: one sentence, which region encoder it has and for what reason.
    parts, adaptable: see `LearningModel`. last: see `LearningModel.last_layer`.
    """

    name: str
    module: Any
    device: torch.device
    dim: int
    tower: Tower
    geometry: Geometry
    prepare: Callable[[list[Image.Image]], Tensor]
    settings: Mapping[str, Any]
    read: Callable[[list[str]], Tensor]
    vocabulary: str
    write: Callable[[Path], None]
    parts: dict[str, tuple[str, ...]]
    why: str
    last: list[tuple[Parameter, int]] = field(default_factory=list)
    adaptable: nn.Module | None = None

    def __post_init__(self) -> None:
        """Raises ModelError for towers whose vectors cannot be compared."""
        side = self.geometry.input_size
        with torch.no_grad():
            seen = self.tower.whole(self.tower.begin(torch.zeros(1, 3, side, side, device=self.device)))[0].shape[1]
        if seen != self.dim:
            raise ModelError(
                f"image and text vectors must be equally long, but {self.name} has {seen} and {self.dim}. "
                "Choose another model."
            )

    @property
    def encoders(self) -> tuple[str, ...]:
        return (self.tower.encoder, "crop") if self.tower.encoder else ("crop",)

    @property
    def feature_dim(self) -> int:
        return self.tower.width

    @property
    def input_size(self) -> int:
        return self.geometry.input_size

    @property
    def drops_tokens(self) -> bool:
        return self.tower.encoder == "tokens"

    @property
    def tau(self) -> float:
        """The temperature the model was trained with, 1 / exp(logit_scale). A sigmoid's bias changes no order."""
        return float(torch.exp(-self.module.logit_scale.detach().float()).reshape(()))

    @property
    def fingerprint(self) -> str:
        """Digest of weights, configuration and tokenizer (`vocabulary`), 16 hex digits."""
        hasher = hashlib.blake2b(digest_size=8)
        for name, tensor in sorted(self.module.state_dict().items()):
            hasher.update(name.encode())
            hasher.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).data)
        hasher.update(self.vocabulary.encode())
        return hasher.hexdigest()

    @property
    def preprocessing(self) -> str:
        """Digest of the image preprocessing, 16 hex digits."""
        settings = json.dumps(self.settings, sort_keys=True, default=str)
        return hashlib.blake2b(settings.encode(), digest_size=8).hexdigest()

    def save(self, path: Path | str) -> None:
        self.write(Path(path))

    # --- numpy in, numpy out: what an audit uses ------------------------------------------------------------------

    def view(self, size: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        return self.geometry.view(size)

    def patch_counts(
        self,
        size: NDArray[np.integer[Any]],
        box: NDArray[np.integer[Any]],
        masks: Sequence[NDArray[np.bool_] | None] | None = None,
    ) -> NDArray[np.int64]:
        if not self.tower.encoder:
            return np.zeros(len(box), np.int64)
        return self.geometry.patches(size, box, masks).sum(1, dtype=np.int64)  # type: ignore[no-any-return]

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return _numpy(self.text_vectors(texts))

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        return _numpy(self.image_vectors(self.pixels(images)))

    @torch.inference_mode()
    def encode_regions(
        self,
        images: Sequence[Image.Image],
        boxes: Sequence[NDArray[np.integer[Any]]],
        encoder: str,
        context: float,
        masks: Masks = None,
    ) -> Encoded:
        if encoder not in self.encoders:
            raise ValueError(f"encoder must be {' or '.join(self.encoders)}, got {encoder!r}.")
        pixels = self.pixels(images)
        owner = np.repeat(np.arange(len(images)), [len(b) for b in boxes])
        if not len(owner) or encoder == "crop":
            image = self.image_vectors(pixels)
            blocks = _blocks(len(owner), max(1, len(images)))
            parts = [self._crop_pass(images, boxes, context, masks, rows) for rows in blocks]
            region = torch.cat([p[0] for p in parts]) if parts else image.new_zeros(0, self.dim)
            feature = torch.cat([p[1] for p in parts]) if parts else image.new_zeros(0, self.feature_dim)
        else:
            sizes = np.array([image.size for image in images], np.int64).reshape(-1, 2)
            flat = None if masks is None else [mask for own in masks for mask in own]
            places = self.places(sizes[owner], _stack(boxes), flat)
            begun = self.tower.begin(pixels.to(self.device))
            vector, feature = self.tower.regions(begun, torch.from_numpy(owner), places)
            region = normalize(vector, dim=-1)
            image = normalize(self.tower.whole(begun)[0], dim=-1)
        return Encoded(_numpy(image), _numpy(region), _numpy(feature))

    @torch.inference_mode()
    def encode_without(
        self, images: Sequence[Image.Image], boxes: Sequence[NDArray[np.integer[Any]]], masks: Masks = None
    ) -> NDArray[np.float32]:
        """Where nothing is left of an image, a model that pools patches alone sees an even picture, of mean colour."""
        if not self.drops_tokens:
            raise ValueError(f"encode_without needs a vision transformer, which {self.name} has not.")
        rows = zip(images, boxes, masks or [[None] * len(own) for own in boxes], strict=True)
        dropped = [self.geometry.patches(np.tile(i.size, (len(b), 1)), b, m).any(0) for i, b, m in rows]
        if not dropped:
            return self.encode_images([])
        kept = torch.from_numpy(~np.stack(dropped))
        empty = ~kept.any(1)
        pixels = self.pixels(images)
        if isinstance(self.tower, TokenTower) and not self.tower.alone:
            pixels[empty], kept[empty] = 0.0, True
        return _numpy(self.region_vectors(pixels, torch.arange(len(images)), kept))

    # --- torch: what training uses --------------------------------------------------------------------------------

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        if not images:
            return torch.zeros(0, 3, self.input_size, self.input_size)
        return self.prepare(list(images))

    def crop_pixels(
        self,
        images: Sequence[Image.Image],
        boxes: Sequence[NDArray[np.integer[Any]]],
        context: float,
        masks: Masks = None,
    ) -> Tensor:
        regions = _regions(images, boxes, masks)
        return self.pixels([square_crop(image, box, context, mask) for image, box, mask in regions])

    def places(
        self,
        size: NDArray[np.integer[Any]],
        box: NDArray[np.integer[Any]],
        masks: Sequence[NDArray[np.bool_] | None] | None = None,
    ) -> Tensor:
        return self.tower.places(self.geometry, size, box, masks)

    def text_vectors(self, texts: Sequence[str]) -> Tensor:
        if not texts:
            return torch.zeros(0, self.dim, device=self.device)
        return normalize(self.read(list(texts)), dim=-1)

    def image_vectors(self, pixels: Tensor) -> Tensor:
        if not len(pixels):
            return torch.zeros(0, self.dim, device=self.device)
        return normalize(self.tower.whole(self.tower.begin(pixels.to(self.device)))[0], dim=-1)

    def region_vectors(self, pixels: Tensor, image_index: Tensor, places: Tensor) -> Tensor:
        return self._region_part(self.tower.begin(pixels.to(self.device)), image_index, places)

    def image_and_region_vectors(self, pixels: Tensor, image_index: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        begun = self.tower.begin(pixels.to(self.device))
        image = normalize(self.tower.whole(begun)[0], dim=-1)
        return image, self._region_part(begun, image_index, places)

    def last_layer(self) -> list[tuple[Parameter, int]]:
        if not self.last:
            raise ConfigError(
                f"the method project needs a vision tower that ends in a linear layer, but that of {self.name} does "
                "not. Choose another --method."
            )
        return self.last

    def recompute(self, wanted: bool) -> None:
        if isinstance(self.tower, TokenTower):
            self.tower.recompute = wanted
        elif wanted:
            raise ConfigError(
                f"--gradient-checkpointing needs a vision transformer, got {self.name}. Leave it out, or give "
                "a smaller --micro-batch."
            )

    def cost(self, deep: bool) -> Cost:
        return self.tower.cost(deep)

    def _region_part(self, begun: Any, image_index: Tensor, places: Tensor) -> Tensor:
        if not len(places):
            return torch.zeros(0, self.dim, device=self.device)
        return normalize(self.tower.regions(begun, image_index, places)[0], dim=-1)

    def _crop_pass(
        self,
        images: Sequence[Image.Image],
        boxes: Sequence[NDArray[np.integer[Any]]],
        context: float,
        masks: Masks,
        rows: range,
    ) -> tuple[Tensor, Tensor]:
        regions = _regions(images, boxes, masks)[rows.start : rows.stop]
        crops = [square_crop(image, box, context, mask) for image, box, mask in regions]
        vector, middle = self.tower.whole(self.tower.begin(self.pixels(crops).to(self.device)))
        return normalize(vector, dim=-1), middle


def _regions(
    images: Sequence[Image.Image], boxes: Sequence[NDArray[np.integer[Any]]], masks: Masks
) -> list[tuple[Image.Image, NDArray[np.integer[Any]], NDArray[np.bool_] | None]]:
    """Image, box and mask of every region."""
    whole = masks or [[None] * len(own) for own in boxes]
    rows = zip(images, boxes, whole, strict=True)
    return [(image, box, mask) for image, own, parts in rows for box, mask in zip(own, parts, strict=True)]


def _stack(boxes: Sequence[NDArray[np.integer[Any]]]) -> NDArray[np.integer[Any]]:
    return np.concatenate([np.asarray(b).reshape(-1, 4) for b in boxes]) if boxes else np.zeros((0, 4), np.int64)


def _blocks(n: int, size: int) -> list[range]:
    return [range(start, min(start + size, n)) for start in range(0, n, size)]


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.detach().float().cpu().numpy()  # type: ignore[no-any-return]
