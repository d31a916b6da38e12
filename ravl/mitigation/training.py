"""Region-aware fine-tuning: one plain loop.

The text tower and the temperature are locked; the vision tower and its projection learn, in float32. Which regions are
spurious was decided once, with the audited model; the student embeds them anew at every step. A batch is a function of
seed and step alone, and a checkpoint holds weights and optimiser moments, so that a killed training continues to the
weights of an unbroken one: bit for bit on the CPU of one machine, up to rounding on a GPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter

from ravl.config import MitigationConfig
from ravl.data import load_images
from ravl.errors import RunError
from ravl.evaluation import MIN_COUNT, group_accuracy
from ravl.mitigation.batches import Batch, Batches, Read, TrainingSet, ahead, captions_of, reader
from ravl.mitigation.checkpoint import load_best, resume, save
from ravl.mitigation.loss import LossParts, combine, contrastive_loss, region_losses
from ravl.store import MitigationFolder
from ravl.tables import ImageSet, Report, Step, quiet
from ravl.vlm.transformers_clip import TransformersClip

__all__ = ["TrainingSet", "ValidationSet", "captions_of", "predict", "train"]

LOG_EVERY = 10
WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""
MAX_NORM = 1.0
"""Longer gradients are scaled to this length."""


@dataclass(frozen=True)
class ValidationSet:
    """Images that choose the checkpoint; `present` (I,) bool says which show any confirmed feature."""

    images: ImageSet
    present: NDArray[np.bool_]
    batch_size: int


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

    class_text: (Y, D) unit vectors. The best step has the highest accuracy of the worst inferred group (class x
    presence of a confirmed feature, of at least MIN_COUNT images) on the validation set; between equals the overall
    accuracy decides, then the earlier step. The audited weights, step 0, take part, so it is never worse there.
    Everything is logged to, and continued from, `folder`. The optimiser is AdamW.

    Raises RunError when the loss is not finite, or memory or disk run out; ValueError for an empty set.
    """
    if not len(data.images) or not len(validation.images):
        found = f"{len(data.images)} and {len(validation.images)}"
        raise ValueError(f"data and validation must hold at least one image each, got {found}.")
    weights = trainable(vlm)
    optimizer = torch.optim.AdamW(_decay_groups(weights, config.weight_decay), lr=1.0)
    peak = config.lr or default_lr(sum(p.numel() for p in weights.values()))
    batches = Batches(vlm, data, config)
    text, captions = torch.from_numpy(class_text).to(vlm.device), _caption_vectors(vlm, batches.captions)
    read = reader(validation.images)
    state = resume(folder, weights, optimizer)
    begun = time.perf_counter() - state.seconds

    def evaluate() -> None:
        row = {"step": state.step, **_score(vlm, validation, class_text, read)}
        folder.append_log(row)
        if (row["worst_group"], row["overall"]) > (state.best_worst, state.best_overall):
            state.best_step, state.best_worst, state.best_overall = state.step, row["worst_group"], row["overall"]
        state.seconds = round(time.perf_counter() - begun, 2)
        save(folder.checkpoint, state, weights, optimizer)

    if state.best_step < 0:
        evaluate()
    report(Step("training", state.step, config.steps))
    with _repeatable(vlm.device):
        for batch in ahead(batches.make, range(state.step, config.steps)):
            rate = learning_rate(state.step, config.steps, peak)
            loss = partial(_loss, vlm, batch, data, text, captions, config)
            facts = _update(loss, weights, optimizer, rate)
            if config.method == "standard":
                facts = {name: facts[name] for name in ("loss", "contrastive")}
            state.step += 1
            last = state.step == config.steps
            if state.step % LOG_EVERY == 0 or last:
                seconds = round(time.perf_counter() - begun, 2)
                folder.append_log({"step": state.step, **facts, "lr": rate, "seconds": seconds})
            if state.step % config.evaluate_every == 0 or last:
                evaluate()
            shown = {"loss": facts["loss"], "best_worst_group": state.best_worst}
            report(Step("training", state.step, config.steps, shown))
    load_best(folder.checkpoint, state, weights)
    return state.best_step


def trainable(vlm: TransformersClip) -> dict[str, Parameter]:
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
    """Linear warm-up over the first tenth, then a half cosine towards 0; `step` counts from 0."""
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
    read: Read | None = None,
) -> NDArray[np.int64]:
    """(I,) zero-shot classes. read: another way to decode the images than from their files."""
    predicted = np.zeros(len(images), np.int64)
    for first in range(0, len(images), batch_size):
        rows = range(first, min(first + batch_size, len(images)))
        pictures = load_images(images, rows) if read is None else read(rows)
        predicted[rows.start : rows.stop] = (vlm.encode_images(pictures) @ class_text.T).argmax(1)
        report(Step(stage, rows.stop, len(images)))
    return predicted


def _caption_vectors(vlm: TransformersClip, captions: NDArray[np.str_]) -> Tensor:
    """(U, D) unit vectors; the text tower is locked, so once is enough."""
    with torch.no_grad():
        return torch.cat([vlm.text_vectors(captions[i : i + 256].tolist()) for i in range(0, len(captions), 256)])


# --- one step --------------------------------------------------------------------------------------------------------


def _loss(
    vlm: TransformersClip,
    batch: Batch,
    data: TrainingSet,
    class_text: Tensor,
    captions: Tensor,
    config: MitigationConfig,
) -> LossParts:
    """The loss of a batch. Equal captions, or captions made from equal class names, are positives of each other."""
    label, caption = batch.label.to(vlm.device), batch.caption.to(vlm.device)
    positive = label if data.images.caption is None else caption
    scale = 1 / vlm.tau

    def contrast(image: Tensor) -> Tensor:
        return contrastive_loss(image, captions[caption], positive, scale)

    if batch.regions is None or batch.owner is None or batch.spurious is None:
        plain = contrast(vlm.image_vectors(batch.pixels))
        return combine(plain, torch.zeros_like(plain), torch.zeros_like(plain), 1.0)
    owner, spurious = batch.owner.to(vlm.device), batch.spurious.to(vlm.device)
    if data.encoder == "tokens":
        image, region = vlm.image_and_region_vectors(batch.pixels, owner, batch.regions)
    else:
        image, region = vlm.image_vectors(batch.pixels), vlm.image_vectors(batch.regions)
    losses = region_losses(region, owner, spurious, label, class_text, config.tau, config.reduction)
    return combine(contrast(image), *losses, config.contrastive_weight)


def _update(
    loss: Callable[[], LossParts], weights: dict[str, Parameter], optimizer: torch.optim.Optimizer, rate: float
) -> dict[str, float]:
    """One optimiser step; returns the parts of the loss. Raises RunError before the weights are spoiled."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    try:
        parts = loss()
        parts.total.backward()  # type: ignore[no-untyped-call]
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
        raise RunError(
            f"a step must fit into the memory of the device, but does not: {reason} "
            "Start again with a smaller --batch-size and another --name."
        ) from error
    norm = torch.nn.utils.clip_grad_norm_(weights.values(), MAX_NORM)
    named = {"loss": parts.total, "contrastive": parts.contrastive}
    named |= {"relevant": parts.relevant, "spurious": parts.spurious}
    facts = {name: round(float(value.detach()), 6) for name, value in named.items()}
    if not all(map(math.isfinite, (*facts.values(), float(norm)))):
        raise RunError(
            f"the loss and its gradient must stay finite, got {facts['loss']} and {float(norm)} at the learning rate "
            f"{rate:.2g}. Start again with a lower --lr and another --name."
        )
    optimizer.step()
    return facts


def _decay_groups(weights: dict[str, Parameter], decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices only, not for norms and biases."""
    matrices = [p for p in weights.values() if p.ndim >= 2]
    vectors = [p for p in weights.values() if p.ndim < 2]
    return [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]


@contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """Add up gradients in a fixed order on the CPU, where several threads would otherwise race for it."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(before or device.type == "cpu")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


# --- evaluation ------------------------------------------------------------------------------------------------------


def _score(
    vlm: TransformersClip, validation: ValidationSet, class_text: NDArray[np.float32], read: Read
) -> dict[str, Any]:
    """Accuracy of the worst inferred group, that group's name, and the overall accuracy on the validation set."""
    images = validation.images
    predicted = predict(vlm, images, class_text, validation.batch_size, quiet, "validation", read)
    present = {-1: validation.present} if validation.present.any() else {}
    groups = group_accuracy(predicted, images.label, images.class_names, present, {-1: "a confirmed feature"}, {})
    worst, accuracy = groups.worst(MIN_COUNT), groups.accuracy.round(6)
    assert worst is not None, "there is a group as soon as there is an image"
    name = str(groups.name[worst])
    return {"worst_group": float(accuracy[worst]), "overall": float(accuracy[0]), "worst_group_name": name}
