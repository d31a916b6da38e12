"""Region-aware fine-tuning: one plain loop.

The text tower and the temperature are locked. Which regions are spurious was decided once, with the audited model; the
student embeds them anew at every step. A batch is a pure function of seed and step, and a checkpoint holds weights and
optimiser moments, so that a killed training continues to the same weights as an unbroken one.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ravl.config import MitigationConfig
from ravl.data import load_images
from ravl.evaluation import MIN_COUNT, group_accuracy
from ravl.mitigation.exchange import Exchanged, exchange
from ravl.mitigation.loss import LossParts, combine, contrastive_loss, region_losses
from ravl.store import MitigationFolder, writing
from ravl.tables import ImageSet, Regions, Report, Step
from ravl.vlm.transformers_clip import TransformersClip

BANK_SIZE = 256
LOG_EVERY = 10
WARM_UP = 0.1
_LAST, _BEST = "last.safetensors", "best.safetensors"


@dataclass(frozen=True)
class TrainingSet:
    """Training images with what the audited model said about their regions.

    spurious: (R,) bool, regions of a confirmed feature. keep: (I,) int, the region of an image that speaks most for its
    class (-1 without regions). caption: (I,) str. encoder, context: how regions are embedded, as in the audit.
    """

    images: ImageSet
    regions: Regions
    spurious: NDArray[np.bool_]
    keep: NDArray[np.integer[Any]]
    caption: NDArray[np.str_]
    encoder: str
    context: float


@dataclass(frozen=True)
class ValidationSet:
    """Images that choose the checkpoint; `present` (I,) bool says which show any confirmed feature."""

    images: ImageSet
    present: NDArray[np.bool_]
    batch_size: int


@dataclass(frozen=True)
class _Batch:
    pixels: Tensor
    rows: NDArray[np.int64]
    region_image: Tensor
    spurious: Tensor
    patches: Tensor | None
    crops: Tensor | None


@dataclass
class _State:
    """Where the loop is; travels with the checkpoint."""

    step: int = 0
    best_step: int = 0
    best_worst: float = -1.0
    best_overall: float = -1.0


def train(
    vlm: TransformersClip,
    data: TrainingSet,
    validation: ValidationSet,
    class_text: NDArray[np.float32],
    config: MitigationConfig,
    folder: MitigationFolder,
    report: Report,
) -> int:
    """Fine-tune `vlm` in place and leave it with the weights of its best step, which is returned.

    class_text: (Y, D) unit vectors. The best step has the highest accuracy of the worst inferred group (class x presence
    of a confirmed feature, at least ten images) on the validation set; the audited weights, step 0, take part, so the
    result is never worse there. Everything is logged to and resumed from `folder`.
    """
    weights = trainable(vlm)
    optimizer = torch.optim.AdamW(_decay_groups(weights, config.weight_decay), lr=1.0)
    peak = config.lr or default_lr(sum(p.numel() for p in weights.values()))
    text = torch.from_numpy(class_text).to(vlm.device)
    captions, caption_of = np.unique(data.caption, return_inverse=True)
    with torch.no_grad():
        caption_text = torch.cat(
            [vlm.text_vectors(captions[i : i + 256].tolist()) for i in range(0, len(captions), 256)]
        )
    batches = _Batches(vlm, data, config)
    state = _resume(folder, weights, optimizer)
    started = time.perf_counter()

    if state.step == 0:
        _evaluate(vlm, validation, class_text, state, weights, optimizer, folder)
    with ThreadPoolExecutor(1) as background:
        following = background.submit(batches.make, state.step)
        for step in range(state.step, config.steps):
            batch = following.result()
            if step + 1 < config.steps:
                following = background.submit(batches.make, step + 1)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, config.steps, peak)
            parts = _loss(vlm, data, batch, text, caption_text[caption_of[batch.rows]], caption_of[batch.rows], config)
            optimizer.zero_grad(set_to_none=True)
            parts.total.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
            optimizer.step()
            state.step = step + 1
            facts = _facts(parts)
            if state.step % LOG_EVERY == 0 or state.step == config.steps:
                seconds = round(time.perf_counter() - started, 2)
                folder.append_log({"step": state.step, **facts, "lr": group["lr"], "seconds": seconds})
            if state.step % config.evaluate_every == 0 or state.step == config.steps:
                _evaluate(vlm, validation, class_text, state, weights, optimizer, folder)
            report(Step("training", state.step, config.steps, {"loss": facts["loss"], "worst_group": state.best_worst}))
    _load(folder.checkpoint / _BEST, weights)
    return state.best_step


def trainable(vlm: TransformersClip) -> dict[str, torch.nn.Parameter]:
    """Lock everything but the vision tower and its projection; returns what is left, by name, in a fixed order."""
    chosen = {}
    for name, parameter in sorted(vlm.module.named_parameters()):
        parameter.requires_grad_(name.startswith(("vision_model.", "visual_projection.")))
        if parameter.requires_grad:
            chosen[name] = parameter
    return chosen


def default_lr(n_parameters: int) -> float:
    """5e-5 for the 86 million parameters of a ViT-B (the paper's rate), growing with 1 / sqrt(size), at most 1e-3."""
    return min(1e-3, 5e-5 * math.sqrt(86e6 / n_parameters))


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over the first tenth, then a half cosine to 0; `step` counts from 0."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def predict(
    vlm: TransformersClip,
    images: ImageSet,
    class_text: NDArray[np.float32],
    batch_size: int,
    report: Report,
    stage: str,
) -> NDArray[np.int64]:
    """(I,) zero-shot classes."""
    predicted = np.zeros(len(images), np.int64)
    for first in range(0, len(images), batch_size):
        rows = range(first, min(first + batch_size, len(images)))
        predicted[rows.start : rows.stop] = (vlm.encode_images(load_images(images, rows)) @ class_text.T).argmax(1)
        report(Step(stage, rows.stop, len(images)))
    return predicted


class _Batches:
    """Makes the batch of a step from nothing but the seed and the step."""

    def __init__(self, vlm: TransformersClip, data: TrainingSet, config: MitigationConfig) -> None:
        self.vlm, self.data, self.config = vlm, data, config
        self.size = min(config.batch_size, len(data.images))
        self.with_regions = config.method != "standard"
        self.bank = _bank(data, config.seed) if config.method == "ravl" and config.exchange > 0 else []

    def make(self, step: int) -> _Batch:
        epoch, place = divmod(step, len(self.data.images) // self.size)
        order = np.random.default_rng([self.config.seed, 0, epoch]).permutation(len(self.data.images))
        rows = order[place * self.size : (place + 1) * self.size]
        pictures = load_images(self.data.images, rows.tolist())
        boxes = [self.data.regions.box[self.data.regions.rows_of(i)] for i in rows]
        changed = [
            Exchanged(
                picture,
                self.data.spurious[own := self.data.regions.rows_of(i)].copy(),
                np.zeros(own.stop - own.start, bool),
            )
            for i, picture in zip(rows, pictures, strict=True)
        ]
        if self.bank:
            rng = np.random.default_rng([self.config.seed, 1, step])
            changed = [
                exchange(c.image, box, c.spurious, self._keep(i), self.bank, self.config.exchange, rng)
                for i, c, box in zip(rows, changed, boxes, strict=True)
            ]
        pixels = self.vlm.pixels([c.image for c in changed])
        if not self.with_regions:
            return _Batch(pixels, rows, torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.bool), None, None)
        shown = np.concatenate([~c.removed for c in changed])
        owner = np.repeat(np.arange(len(rows)), [len(box) for box in boxes])[shown]
        spurious = np.concatenate([c.spurious for c in changed])[shown]
        patches = crops = None
        if self.data.encoder == "tokens":
            patches = self.vlm.patches(self.data.images.size[rows][owner], np.concatenate(boxes)[shown])
        else:
            left = [box[~c.removed] for box, c in zip(boxes, changed, strict=True)]
            crops = self.vlm.crop_pixels([c.image for c in changed], left, self.data.context)
        return _Batch(pixels, rows, torch.from_numpy(owner), torch.from_numpy(spurious), patches, crops)

    def _keep(self, image: int) -> int | None:
        best = int(self.data.keep[image])
        return None if best < 0 else best - int(self.data.regions.starts[image])


def _bank(data: TrainingSet, seed: int) -> list[Image.Image]:
    """Crops of up to BANK_SIZE spurious regions of the training set."""
    rows = np.flatnonzero(data.spurious)
    if len(rows) > BANK_SIZE:
        rows = np.sort(np.random.default_rng([seed, 2]).choice(rows, BANK_SIZE, replace=False))
    pictures = load_images(data.images, data.regions.image[rows].tolist())
    return [p.crop(tuple(int(v) for v in data.regions.box[r])) for p, r in zip(pictures, rows, strict=True)]


def _loss(
    vlm: TransformersClip,
    data: TrainingSet,
    batch: _Batch,
    class_text: Tensor,
    caption_text: Tensor,
    caption: NDArray[np.int64],
    config: MitigationConfig,
) -> LossParts:
    label = torch.from_numpy(data.images.label[batch.rows].astype(np.int64)).to(vlm.device)
    # own captions: equal captions are positives of each other; captions made from the class name: equal classes are
    positive = label if data.images.caption is None else torch.from_numpy(caption).to(vlm.device)
    scale = vlm.module.logit_scale.exp().detach()
    if batch.patches is None and batch.crops is None:
        plain = contrastive_loss(vlm.image_vectors(batch.pixels), caption_text, positive, scale)
        return combine(plain, plain.new_zeros(()), plain.new_zeros(()), 1.0)
    if batch.patches is not None:
        image, region = vlm.image_and_region_vectors(batch.pixels, batch.region_image, batch.patches)
    else:
        assert batch.crops is not None
        image, region = vlm.image_vectors(batch.pixels), vlm.image_vectors(batch.crops)
    relevant, spurious = region_losses(
        region,
        batch.region_image.to(vlm.device),
        batch.spurious.to(vlm.device),
        label,
        class_text,
        config.tau,
        config.reduction,
    )
    return combine(
        contrastive_loss(image, caption_text, positive, scale), relevant, spurious, config.contrastive_weight
    )


def _evaluate(
    vlm: TransformersClip,
    validation: ValidationSet,
    class_text: NDArray[np.float32],
    state: _State,
    weights: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    folder: MitigationFolder,
) -> None:
    """Accuracy on the validation set, a log line, the best weights so far, and the checkpoint, in this order."""
    images = validation.images
    predicted = predict(vlm, images, class_text, validation.batch_size, lambda step: None, "validation")
    present = {-1: validation.present} if validation.present.any() else {}
    names = {-1: "a confirmed feature"}
    groups = group_accuracy(predicted, images.label, images.class_names, present, names, {})
    row = groups.worst(MIN_COUNT)
    worst = float(groups.accuracy[row]) if row is not None else float("nan")
    overall = float(groups.accuracy[0])
    folder.append_log({"step": state.step, "worst_group": round(worst, 6), "overall": round(overall, 6)})
    if (worst, overall) > (state.best_worst, state.best_overall):
        state.best_step, state.best_worst, state.best_overall = state.step, worst, overall
        _save(folder.checkpoint / _BEST, dict(weights), {})
    moments = {
        f"{kind}:{name}": value
        for name, parameter in weights.items()
        for kind, value in optimizer.state.get(parameter, {}).items()
    }
    _save(folder.checkpoint / _LAST, {**weights, **moments}, vars(state))


def _resume(
    folder: MitigationFolder, weights: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> _State:
    """Load the last checkpoint into weights and optimiser, and drop what was logged after it."""
    path = folder.checkpoint / _LAST
    if not path.exists():
        folder.write_log([])
        return _State()
    saved, about = _load(path, weights)
    for name, parameter in weights.items():
        kinds = ("step", "exp_avg", "exp_avg_sq")
        if f"step:{name}" in saved:
            optimizer.state[parameter] = {
                kind: saved[f"{kind}:{name}"].to("cpu" if kind == "step" else parameter.device) for kind in kinds
            }
    state = _State(**about)
    folder.write_log([row for row in folder.log() if row["step"] <= state.step])
    return state


def _save(path: Path, tensors: dict[str, Any], about: dict[str, float]) -> None:
    with writing(path) as partial:
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(whole, partial, metadata={"about": json.dumps(about)})


def _load(path: Path, weights: dict[str, torch.nn.Parameter]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        about = json.loads(file.metadata()["about"])
    with torch.no_grad():
        for name, parameter in weights.items():
            parameter.copy_(saved[name])
    return saved, about


def _decay_groups(weights: dict[str, torch.nn.Parameter], decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices only, not for norms and biases."""
    matrices = [p for p in weights.values() if p.ndim >= 2]
    vectors = [p for p in weights.values() if p.ndim < 2]
    return [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]


def _facts(parts: LossParts) -> dict[str, float]:
    named = {
        "loss": parts.total,
        "contrastive": parts.contrastive,
        "relevant": parts.relevant,
        "spurious": parts.spurious,
    }
    return {name: round(float(value.detach()), 6) for name, value in named.items()}


def captions_of(images: ImageSet, templates: Sequence[str]) -> NDArray[np.str_]:
    """(I,) the set's own captions, or the class name in the prompts, in turn."""
    if images.caption is not None:
        return images.caption
    names = [name.replace("_", " ") for name in images.class_names]
    return np.array([templates[i % len(templates)].format(names[y]) for i, y in enumerate(images.label)])
