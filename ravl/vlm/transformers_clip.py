"""CLIP models of the transformers library with a vision transformer: `CLIPModel` and its `save_pretrained` directories.

The region encoder `tokens` runs the unchanged transformer on the class token and the region's own patch tokens, with
their position embeddings. Nothing else of the image can leak in, and since attention is quadratic in the number of
tokens, the regions of a partition together cost about one plain forward pass.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize, scaled_dot_product_attention

from ravl.data.painting import square_crop
from ravl.errors import ModelError
from ravl.vlm.geometry import Geometry
from ravl.vlm.interface import Encoded, Masks

MIDDLE_DEPTH = 2 / 3
"""Depth, as a share of the layers, whose mean patch token describes a region for clustering."""

_PARTS = {
    "tokenizer": ("tokenizer.json", "vocab.json"),
    "preprocessing": ("preprocessor_config.json", "processor_config.json"),
}


class TransformersClip:
    """A loaded CLIP model: a `VisionLanguageModel`, plus the torch methods that training needs.

    module: the transformers `CLIPModel`, in evaluation mode. device: where it lives.
    """

    drops_tokens = True

    def __init__(self, name: str, module: Any, tokenizer: Any, image_processor: Any, device: torch.device) -> None:
        vision = module.config.vision_config
        self.name = name
        self.module = module.to(device).eval()
        self.device = device
        self.dim = int(module.config.projection_dim)
        self.feature_dim = int(vision.hidden_size)
        self.n_layers = int(vision.num_hidden_layers)
        # never the last layer: of that one only the class token is computed
        self.middle = min(round(MIDDLE_DEPTH * self.n_layers), self.n_layers - 1)
        self.geometry = Geometry.of(image_processor.to_dict(), int(vision.image_size), int(vision.patch_size))
        self._tokenizer = tokenizer
        self._processor = image_processor

    @classmethod
    def load(cls, reference: str, device: str = "auto") -> TransformersClip:
        """Load a directory, a hub id, or `demo`. Raises ModelError (see `ravl.vlm.load`)."""
        from transformers import AutoConfig, AutoTokenizer, CLIPModel
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
        from transformers.utils import logging as hf_logging

        hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        where = resolve(reference)
        target = pick_device(device)
        config = _loading(where, "configuration", lambda: AutoConfig.from_pretrained(where))
        if config.model_type != "clip":
            raise ModelError(
                f"the model must be a CLIP model of transformers (model_type 'clip'), but {where} has model_type "
                f"{config.model_type!r}. Convert it, or choose another model."
            )
        module, loaded = _loading(
            where,
            "weights",
            lambda: CLIPModel.from_pretrained(
                where, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            ),
        )
        if loaded["missing_keys"] or loaded.get("mismatched_keys"):
            broken = sorted(map(str, [*loaded["missing_keys"], *loaded.get("mismatched_keys", [])]))
            raise ModelError(
                f"the weights must fill the whole model, but {where} lacks {len(broken)} of its tensors "
                f"(first: {broken[0]}). Save the model again with save_pretrained."
            )
        tokenizer = _loading(where, "tokenizer", lambda: AutoTokenizer.from_pretrained(where))
        processor = _loading(where, "image preprocessing", lambda: CLIPImageProcessorPil.from_pretrained(where))
        return cls(where, module, tokenizer, processor, target)

    def save(self, path: Path | str) -> None:
        """Write an ordinary `save_pretrained` directory with tokenizer and preprocessing."""
        self.module.save_pretrained(path)
        self._tokenizer.save_pretrained(path)
        self._processor.save_pretrained(path)

    @property
    def tau(self) -> float:
        """The temperature the model was trained with, 1 / exp(logit_scale)."""
        return float(torch.exp(-self.module.logit_scale.detach().float()))

    @property
    def fingerprint(self) -> str:
        """Digest of weights, configuration and tokenizer, 16 hex digits."""
        hasher = hashlib.blake2b(digest_size=8)
        for name, tensor in sorted(self.module.state_dict().items()):
            hasher.update(name.encode())
            hasher.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).data)
        tokenizer = json.loads(self._tokenizer.backend_tokenizer.to_str())
        for of_the_last_call in ("truncation", "padding"):
            tokenizer.pop(of_the_last_call, None)
        hasher.update(json.dumps(tokenizer, sort_keys=True).encode())
        return hasher.hexdigest()

    @property
    def preprocessing(self) -> str:
        """Digest of the image preprocessing, 16 hex digits."""
        settings = json.dumps(self._processor.to_dict(), sort_keys=True, default=str)
        return hashlib.blake2b(settings.encode(), digest_size=8).hexdigest()

    # --- numpy in, numpy out: what an audit uses ------------------------------------------------------------------

    def view(self, size: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        return self.geometry.view(size)

    def patch_counts(
        self,
        size: NDArray[np.integer[Any]],
        box: NDArray[np.integer[Any]],
        masks: Sequence[NDArray[np.bool_] | None] | None = None,
    ) -> NDArray[np.int64]:
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
        pixels = self.pixels(images)
        owner = np.repeat(np.arange(len(images)), [len(b) for b in boxes])
        if encoder == "tokens":
            sizes = np.array([image.size for image in images], np.int64).reshape(-1, 2)
            flat = None if masks is None else [mask for own in masks for mask in own]
            patches = self.geometry.patches(sizes[owner], _stack(boxes), flat)
            tokens = self.embed_patches(pixels)
            region, feature = self._region_pass(tokens, torch.from_numpy(owner), torch.from_numpy(patches))
            image = self._project(self._run(tokens)[0])
        elif encoder == "crop":
            image = self.image_vectors(pixels)
            blocks = _blocks(len(owner), max(1, len(images)))
            parts = [self._crop_pass(images, boxes, context, masks, rows) for rows in blocks]
            region = torch.cat([p[0] for p in parts]) if parts else image.new_zeros(0, self.dim)
            feature = torch.cat([p[1] for p in parts]) if parts else image.new_zeros(0, self.feature_dim)
        else:
            raise ValueError(f"encoder must be tokens or crop, got {encoder!r}.")
        return Encoded(_numpy(image), _numpy(region), _numpy(feature))

    @torch.inference_mode()
    def encode_without(
        self, images: Sequence[Image.Image], boxes: Sequence[NDArray[np.integer[Any]]], masks: Masks = None
    ) -> NDArray[np.float32]:
        rows = zip(images, boxes, masks or [[None] * len(own) for own in boxes], strict=True)
        dropped = [self.geometry.patches(np.tile(i.size, (len(b), 1)), b, m).any(0) for i, b, m in rows]
        if not dropped:
            return self.encode_images([])
        tokens = self.embed_patches(self.pixels(images))
        kept, _ = self._region_pass(tokens, torch.arange(len(images)), torch.from_numpy(~np.stack(dropped)))
        return _numpy(kept)

    # --- torch: what training uses --------------------------------------------------------------------------------

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """(B, 3, H, W) float32 on the CPU: the model's own preprocessing."""
        if not images:
            return torch.zeros(0, 3, self.geometry.input_size, self.geometry.input_size)
        return self._processor(images=list(images), return_tensors="pt")["pixel_values"]  # type: ignore[no-any-return]

    def crop_pixels(
        self,
        images: Sequence[Image.Image],
        boxes: Sequence[NDArray[np.integer[Any]]],
        context: float,
        masks: Masks = None,
    ) -> Tensor:
        """(n, 3, H, W) float32 on the CPU: every region cut out with a margin, made square, preprocessed."""
        regions = _regions(images, boxes, masks)
        return self.pixels([square_crop(image, box, context, mask) for image, box, mask in regions])

    def patches(
        self,
        size: NDArray[np.integer[Any]],
        box: NDArray[np.integer[Any]],
        masks: Sequence[NDArray[np.bool_] | None] | None = None,
    ) -> Tensor:
        """(n, N) bool: the patches that belong to each region, a box (n, 4) of an image of `size` (n, 2)."""
        return torch.from_numpy(self.geometry.patches(size, box, masks))

    def text_vectors(self, texts: Sequence[str]) -> Tensor:
        """(T, D) unit vectors."""
        if not texts:
            return torch.zeros(0, self.dim, device=self.device)
        limit = int(self.module.config.text_config.max_position_embeddings)
        tokens = self._tokenizer(list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt")
        inputs = {k: tokens[k].to(self.device) for k in ("input_ids", "attention_mask")}
        return normalize(self.module.get_text_features(**inputs).pooler_output, dim=-1)

    def image_vectors(self, pixels: Tensor) -> Tensor:
        """(B, D) unit vectors."""
        if not len(pixels):
            return torch.zeros(0, self.dim, device=self.device)
        return self._project(self._run(self.embed_patches(pixels))[0])

    def region_vectors(self, pixels: Tensor, image_index: Tensor, patches: Tensor) -> Tensor:
        """(n, D) unit vectors of regions by their own patches (n, N) of image `image_index` (n,)."""
        return self._region_pass(self.embed_patches(pixels), image_index, patches)[0]

    def image_and_region_vectors(self, pixels: Tensor, image_index: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """`image_vectors` and `region_vectors` at once; the patches are embedded once."""
        tokens = self.embed_patches(pixels)
        return self._project(self._run(tokens)[0]), self._region_pass(tokens, image_index, patches)[0]

    def embed_patches(self, pixels: Tensor) -> Tensor:
        """(B, 1 + N, d) class token and patch tokens with position embeddings, before the first layer."""
        vision = self.module.vision_model
        return vision.pre_layrnorm(vision.embeddings(pixels.to(self.device)))  # type: ignore[no-any-return]

    def _run(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Class token after the last layer (n, d), and mean patch token after the middle layer (n, d)."""
        layers = self.module.vision_model.encoder.layers
        for layer in layers[: self.middle]:
            tokens = layer(tokens, attention_mask=None)
        middle = tokens[:, 1:].mean(1) if tokens.shape[1] > 1 else tokens[:, 0]
        for layer in layers[self.middle : -1]:
            tokens = layer(tokens, attention_mask=None)
        return self.module.vision_model.post_layernorm(_class_token(layers[-1], tokens)), middle

    def _project(self, pooled: Tensor) -> Tensor:
        return normalize(self.module.visual_projection(pooled), dim=-1)

    def _region_pass(self, tokens: Tensor, owner: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (n, D) and middle features (n, d); regions with equally many patches run together, unpadded."""
        owner, patches = owner.to(tokens.device), patches.to(tokens.device)
        counts = patches.sum(1)
        order, pooled, middle = [], [], []
        for count in counts.unique().tolist():
            rows = torch.nonzero(counts == count)[:, 0]
            columns = torch.nonzero(patches[rows])[:, 1].reshape(len(rows), count)
            columns = torch.cat([columns.new_zeros(len(rows), 1), columns + 1], 1)
            out = self._run(tokens[owner[rows, None], columns])
            order.append(rows)
            pooled.append(out[0])
            middle.append(out[1])
        if not order:
            return tokens.new_zeros(0, self.dim), tokens.new_zeros(0, self.feature_dim)
        back = torch.argsort(torch.cat(order))
        return self._project(torch.cat(pooled)[back]), torch.cat(middle)[back]

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
        pooled, middle = self._run(self.embed_patches(self.pixels(crops)))
        return self._project(pooled), middle


def _class_token(layer: Any, tokens: Tensor) -> Tensor:
    """(n, d) class token after the last layer; its other tokens are never used, so they are not computed."""
    attention = layer.self_attn
    normed = layer.layer_norm1(tokens)

    def heads(projected: Tensor) -> Tensor:
        split: Tensor = projected.unflatten(2, (attention.num_heads, -1))
        return split.transpose(1, 2)

    mixed = scaled_dot_product_attention(
        heads(attention.q_proj(normed[:, :1])), heads(attention.k_proj(normed)), heads(attention.v_proj(normed)),
        scale=attention.scale,
    )  # fmt: skip
    token = tokens[:, 0] + attention.out_proj(mixed.transpose(1, 2).flatten(2))[:, 0]
    return token + layer.mlp(layer.layer_norm2(token))  # type: ignore[no-any-return]


def resolve(reference: str) -> str:
    """The resolved form of a model reference: an absolute directory or a hub id.

    Raises ModelError when a directory is incomplete or holds pickled weights only.
    """
    from ravl.planted import demo_model

    if reference == "demo":
        return str(demo_model())
    folder = Path(reference).expanduser()
    if not folder.exists():
        looks_local = reference.startswith((".", "/", "~")) or reference.count("/") > 1
        if looks_local:
            raise ModelError(f"the model must be a directory, a hub id or 'demo', but {reference} does not exist.")
        return reference
    if not folder.is_dir():
        raise ModelError(f"the model must be a directory made by save_pretrained, but {reference} is a file.")
    names = {path.name for path in folder.iterdir()}
    if "config.json" not in names:
        raise ModelError(
            f"a model directory must hold config.json, but {folder} does not. Use save_pretrained to make one."
        )
    if not names & {"model.safetensors", "model.safetensors.index.json"}:
        pickled = sorted(n for n in names if n.endswith((".bin", ".pt", ".pth", ".ckpt")))
        if pickled:
            raise ModelError(
                f"weights must be safetensors, but {folder} holds only {pickled[0]}, a pickle that could run any code "
                "when it is loaded. Convert it in a place you trust: load it there and call save_pretrained."
            )
        raise ModelError(f"a model directory must hold model.safetensors, but {folder} does not. Save the model again.")
    for part, files in _PARTS.items():
        if not names & set(files):
            raise ModelError(
                f"a model directory must hold its {part} ({' or '.join(files)}), but {folder} does not. "
                "Save it there with save_pretrained; another model's would silently give wrong results."
            )
    return str(folder.resolve())


def pick_device(device: str) -> torch.device:
    """The best device for `auto` (cuda, mps, cpu), else the named one. Raises ModelError when it is not there."""
    if device == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"device must be auto, cpu, cuda or mps and be there, but {device!r} is not: {reason}."
        ) from error
    return chosen


def _loading(where: str, part: str, load: Callable[[], Any]) -> Any:
    """Run one loading step; what transformers raises becomes one sentence."""
    from safetensors import SafetensorError

    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return load()
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(
            f"the {part} of the model {where} could not be loaded: {reason[:300]} "
            "Give a complete save_pretrained directory, or a hub id that this machine can reach."
        ) from error
    finally:
        logger.setLevel(level)


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
