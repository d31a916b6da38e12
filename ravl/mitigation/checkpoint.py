"""The state of a training on disk: whole or not at all, and without pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import Parameter

from ravl.errors import RunError
from ravl.store import MitigationFolder, writing

_LAST, _BEST = "last.safetensors", "best-{}.safetensors"


@dataclass
class State:
    """Where the loop is; travels with the checkpoint. best_step: -1 before the first evaluation.

    group_weights: of group DRO; empty for other methods, and before the first step.
    """

    step: int = 0
    seconds: float = 0.0
    best_step: int = -1
    best_worst: float = -1.0
    best_overall: float = -1.0
    group_weights: list[float] = field(default_factory=list)


def save(folder: Path, state: State, weights: dict[str, Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Keep the best weights, and everything that the next step needs.

    The last file names the best one, so a kill between two writes leaves the previous checkpoint whole; what is no
    longer needed is removed at the end. Raises RunError when the disk fails.
    """
    best = folder / _BEST.format(state.best_step)
    if state.best_step == state.step:
        _write(best, dict(weights), {})
    moments = {
        f"{kind}:{name}": value
        for name, parameter in weights.items()
        for kind, value in optimizer.state.get(parameter, {}).items()
    }
    _write(folder / _LAST, {**weights, **moments}, vars(state))
    for old in folder.glob(_BEST.format("*")):
        if old != best:
            old.unlink()


def resume(
    folder: MitigationFolder, weights: dict[str, Parameter], optimizer: torch.optim.Optimizer, tidy: bool = True
) -> State:
    """Load the last checkpoint into weights and optimiser. A new state where there is none.

    tidy: also drop what was logged after it, and partial files; for one process only. Raises RunError when the
    checkpoint is damaged.
    """
    path = folder.checkpoint / _LAST
    for torn in folder.checkpoint.glob(".tmp*") if tidy else ():  # what a killed save_file leaves behind
        torn.unlink()
    if not path.exists():
        if tidy:
            folder.write_log([])
        return State()
    saved, about = _read(path, weights)
    for name, parameter in weights.items():
        if f"step:{name}" in saved:
            moments = {kind: saved[f"{kind}:{name}"].to(parameter.device) for kind in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": saved[f"step:{name}"], **moments}
    state = State(**about)
    if tidy:
        folder.write_log([row for row in folder.log() if row["step"] <= state.step])
    return state


def load_best(folder: Path, state: State, weights: dict[str, Parameter]) -> None:
    """Put the weights of the best step into the model. Raises RunError when their file is damaged."""
    _read(folder / _BEST.format(state.best_step), weights)


def _write(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with writing(path) as partial:
            save_file(whole, partial, metadata={"about": json.dumps(about)})
    except SafetensorError as error:
        raise RunError(
            f"{path} could not be written: {error}. Check the disk and run the same command again; "
            "the last checkpoint is kept."
        ) from error


def _read(path: Path, weights: dict[str, Parameter]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Copy weights from a file into the model; returns all its tensors, on the CPU, and what was noted with them."""
    try:
        with safe_open(path, framework="pt") as file:
            saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            about = json.loads(file.metadata()["about"])
        with torch.no_grad():
            for name, parameter in weights.items():
                parameter.copy_(saved[name])
    except (SafetensorError, OSError, KeyError) as error:
        raise RunError(
            f"{path} is damaged ({error}). Delete the folder {path.parent.parent} and run the same command again."
        ) from error
    return saved, about
