"""Fine-tuning: one plain loop for every method (`ravl.mitigation.baselines`).

The text tower and the temperature are locked; the vision tower and its projection learn, in float32. Which
regions are spurious was decided once, with the audited model; the student embeds them anew at every step. A batch is a
function of seed and step alone, and a checkpoint holds weights and optimiser moments, so that a killed training
continues to the weights of an unbroken one: bit for bit on the CPU of one machine, up to rounding on a GPU.
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
from ravl.errors import RunError
from ravl.evaluation import MIN_COUNT, group_accuracy
from ravl.mitigation import lora
from ravl.mitigation.baselines import METHODS
from ravl.mitigation.batches import Batches, Read, TrainingSet, ahead, captions_of, reader
from ravl.mitigation.checkpoint import State, load_best, resume, save
from ravl.mitigation.footprint import uses_half
from ravl.mitigation.gradients import Gradients
from ravl.mitigation.loss import LossParts
from ravl.mitigation.memory import estimate, free_memory
from ravl.mitigation.objective import Objective
from ravl.mitigation.processes import Processes
from ravl.store import MitigationFolder
from ravl.tables import ImageSet, Report, Step
from ravl.vlm.differentiable import LearningModel

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
    vlm: LearningModel,
    data: TrainingSet,
    validation: ValidationSet,
    class_text: NDArray[np.float32],
    config: MitigationConfig,
    folder: MitigationFolder,
    report: Report,
    processes: Processes = Processes(),
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
    vlm.recompute(config.gradient_checkpointing)
    weights = learning(vlm, config)
    optimizer = torch.optim.AdamW(_decay_groups(weights, config.weight_decay), lr=1.0)
    peak = config.lr or default_lr(sum(p.numel() for p in weights.values()))
    batches = Batches(vlm, data, config, processes)
    gradients = _gradients(vlm, batches, _on(vlm, class_text), weights, processes)
    objective, micro = gradients.objective, gradients.micro
    state = resume(folder, weights, optimizer, processes.first)
    if state.group_weights:
        objective.group_weights = torch.tensor(state.group_weights, dtype=torch.float64)
    judge = _Judge(vlm, validation, class_text, folder, weights, optimizer, state, processes)
    if state.best_step < 0:
        judge.evaluate()
    memory = {"memory_gb": estimate(vlm, data, config, micro) / 1e9, "memory_free_gb": free_memory(vlm.device) / 1e9}
    report(Step("training", state.step, config.steps, memory))
    left = range(state.step, state.step if exhausted(state, config) else config.steps)
    with _repeatable(vlm.device):
        for batch in ahead(batches.make, left):
            rate = learning_rate(state.step, config.steps, peak)
            parts = update(partial(gradients, batch), weights, optimizer, rate)
            if parts.group_weights is not None:
                objective.group_weights, state.group_weights = parts.group_weights, parts.group_weights.tolist()
            state.step += 1
            last = state.step == config.steps
            facts = {name: round(float(value.detach()), 6) for name, value in parts.named.items()}
            if state.step % LOG_EVERY == 0 or last:
                judge.log({**facts, "lr": rate} | ({"micro_batch": gradients.micro} if gradients.micro < micro else {}))
            if state.step % config.evaluate_every == 0 or last:
                judge.evaluate()
            shown = {"loss": facts["loss"], "best_worst_group": state.best_worst}
            report(Step("training", state.step, config.steps, shown))
            if exhausted(state, config):
                break
    processes.wait()  # the first has written it
    load_best(folder.checkpoint, state, weights)
    if _adapted(config):
        lora.merge(vlm)
    return state.best_step


def _gradients(
    vlm: LearningModel, batches: Batches, class_text: Tensor, weights: dict[str, Parameter], processes: Processes
) -> Gradients:
    data, config = batches.data, batches.config
    objective = Objective(
        class_text,
        _caption_vectors(vlm, batches.captions),
        1 / vlm.tau,
        config,
        n_groups=int(data.group.max()) + 1,
        own_captions=data.images.caption is not None,
    )
    own = max(1, len(processes.share(batches.size)))
    micro = min(config.micro_batch or own, own)
    return Gradients(vlm, weights, objective, data.encoder, micro, uses_half(config, vlm.device.type), processes)


def learning(vlm: LearningModel, config: MitigationConfig) -> dict[str, Parameter]:
    """The parameters that learn. With `lora_rank` those of the vision tower are adapters, which are put in here."""
    learns = METHODS[config.method].learns
    if not _adapted(config):
        return trainable(vlm, learns)
    assert config.lora_rank is not None
    lora.insert(vlm, config.lora_rank, config.seed)
    last = vlm.parts["projection"]
    return trainable(vlm, learns, without=lambda name: ".lora_" not in name and not name.startswith(last))


def _adapted(config: MitigationConfig) -> bool:
    return config.lora_rank is not None and "tower" in METHODS[config.method].learns


def trainable(
    vlm: LearningModel, parts: tuple[str, ...], without: Callable[[str], bool] = lambda name: False
) -> dict[str, Parameter]:
    """Lock everything but the parameters of these parts of the model; returns these, by name, in a fixed order."""
    beginnings = tuple(beginning for part in parts for beginning in vlm.parts[part])
    chosen = {}
    for name, parameter in sorted(vlm.module.named_parameters()):
        parameter.requires_grad_(name.startswith(beginnings) and not without(name))
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


def exhausted(state: State, config: MitigationConfig) -> bool:
    """Whether the last `patience` evaluations brought no better step."""
    return config.patience is not None and state.step - state.best_step >= config.patience * config.evaluate_every


def predict(
    vlm: LearningModel, images: ImageSet, class_text: NDArray[np.float32], batch_size: int, read: Read, rows: range
) -> NDArray[np.int64]:
    """Zero-shot classes of the images `rows`. read: decodes them."""
    predicted = [np.zeros(0, np.int64)]
    for first in range(rows.start, rows.stop, batch_size):
        pictures = read(range(first, min(first + batch_size, rows.stop)))
        predicted.append((vlm.encode_images(pictures) @ class_text.T).argmax(1))
    return np.concatenate(predicted)


def _on(vlm: LearningModel, vectors: NDArray[Any]) -> Tensor:
    return torch.from_numpy(vectors).to(vlm.device)


def _caption_vectors(vlm: LearningModel, captions: NDArray[np.str_]) -> Tensor:
    """(U, D) unit vectors; the text tower is locked, so once is enough."""
    with torch.no_grad():
        return torch.cat([vlm.text_vectors(captions[i : i + 256].tolist()) for i in range(0, len(captions), 256)])


# --- one step --------------------------------------------------------------------------------------------------------


def update(
    backward: Callable[[], LossParts], weights: dict[str, Parameter], optimizer: torch.optim.Optimizer, rate: float
) -> LossParts:
    """One optimiser step; returns the parts of the loss. Raises RunError before the weights are spoiled.

    backward: adds the gradient to the weights.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    parts = backward()
    norm = torch.nn.utils.clip_grad_norm_(weights.values(), MAX_NORM)
    loss_value = float(parts.total.detach())
    if not (math.isfinite(loss_value) and math.isfinite(float(norm))):
        raise RunError(
            f"the loss and its gradient must stay finite, got {loss_value} and {float(norm)} at the learning rate "
            f"{rate:.2g}. Start again with a lower --lr and another --name."
        )
    optimizer.step()
    return parts


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


class _Judge:
    """Evaluates, remembers the best step in `state`, and keeps log and checkpoints: these the first process alone."""

    def __init__(
        self,
        vlm: LearningModel,
        validation: ValidationSet,
        class_text: NDArray[np.float32],
        folder: MitigationFolder,
        weights: dict[str, Parameter],
        optimizer: torch.optim.Optimizer,
        state: State,
        processes: Processes,
    ) -> None:
        self.vlm, self.validation, self.class_text, self.folder = vlm, validation, class_text, folder
        self.weights, self.optimizer, self.state, self.processes = weights, optimizer, state, processes
        self.read, self.begun = reader(validation.images), time.perf_counter() - state.seconds

    def log(self, facts: dict[str, float]) -> None:
        if self.processes.first:
            seconds = round(time.perf_counter() - self.begun, 2)
            self.folder.append_log({"step": self.state.step, **facts, "seconds": seconds})

    def evaluate(self) -> None:
        state = self.state
        row = {
            "step": state.step, **_score(self.vlm, self.validation, self.class_text, self.read, self.processes)
        }  # fmt: skip
        if (row["worst_group"], row["overall"]) > (state.best_worst, state.best_overall):
            state.best_step, state.best_worst, state.best_overall = state.step, row["worst_group"], row["overall"]
        state.seconds = round(time.perf_counter() - self.begun, 2)
        if self.processes.first:
            self.folder.append_log(row)
            save(self.folder.checkpoint, state, self.weights, self.optimizer)


def _score(
    vlm: LearningModel,
    validation: ValidationSet,
    class_text: NDArray[np.float32],
    read: Read,
    processes: Processes = Processes(),
) -> dict[str, Any]:
    """Accuracy of the worst inferred group, that group's name, and the overall accuracy on the validation set."""
    images = validation.images
    own = predict(vlm, images, class_text, validation.batch_size, read, processes.share(len(images)))
    predicted = processes.rows(_on(vlm, own)).cpu().numpy()
    present = {-1: validation.present} if validation.present.any() else {}
    groups = group_accuracy(predicted, images.label, images.class_names, present, {-1: "a confirmed feature"}, {})
    worst, accuracy = groups.worst(MIN_COUNT), groups.accuracy.round(6)
    assert worst is not None, "there is a group as soon as there is an image"
    name = str(groups.name[worst])
    return {"worst_group": float(accuracy[worst]), "overall": float(accuracy[0]), "worst_group_name": name}
