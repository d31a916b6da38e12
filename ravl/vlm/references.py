"""What a model reference means, where it is loaded to, and what goes wrong on the way, as one sentence.

| reference | meaning |
|---|---|
| `demo`, `demo:radiograph` | the models of the built-in demos |
| a directory with config.json | transformers, as save_pretrained writes it |
| `org/repo` | transformers, from the Hugging Face hub |
| a directory with open_clip_config.json, `local-dir:DIRECTORY` | open_clip |
| `hf-hub:org/repo` | open_clip, from the Hugging Face hub |
| `open_clip:ARCHITECTURE/TAG` | open_clip, by the names of its own list |
"""

from __future__ import annotations

import json
import logging
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ravl.errors import ModelError

ALLOW_PICKLE = "RAVL_ALLOW_PICKLE"
"""Environment variable; 1: also load weights that are no safetensors, by torch's restricted loader (weights_only)."""

OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP, HF_HUB, LOCAL_DIR = "open_clip:", "hf-hub:", "local-dir:"

_SAFE = ("model.safetensors", "model.safetensors.index.json")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_PARTS = {
    "tokenizer": ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model"),
    "preprocessing": ("preprocessor_config.json", "processor_config.json"),
}


@dataclass(frozen=True)
class Reference:
    """A resolved reference. family: transformers or open_clip. name: what is printed, and means the same anywhere else
    on this machine. where: for transformers a directory or hub id; for open_clip the name that it understands.
    """

    family: str
    name: str
    where: str


def resolve(reference: str, pickled: bool | None = None) -> Reference:
    """What a reference means. pickled: whether weights may be no safetensors; None: as ALLOW_PICKLE says.

    Raises ModelError when there is no such directory, or one that is incomplete or holds pickled weights only.
    """
    from ravl.planted import MODELS, demo_model

    pickled = allow_pickle() if pickled is None else pickled
    if reference.startswith(OPEN_CLIP):
        return _listed(reference)
    if reference.startswith(HF_HUB):
        return Reference("open_clip", reference, reference)
    if reference.startswith(LOCAL_DIR):
        return _open_clip_folder(Path(reference.removeprefix(LOCAL_DIR)).expanduser(), pickled)
    if reference in MODELS:
        reference = str(demo_model(reference))
    folder = Path(reference).expanduser()
    if not folder.exists():
        looks_local = reference.startswith((".", "/", "~")) or reference.count("/") > 1
        if looks_local:
            raise ModelError(f"the model must be a directory, a hub id or 'demo', but {reference} does not exist.")
        return Reference("transformers", reference, reference)
    if not folder.is_dir():
        raise ModelError(f"the model must be a directory made by save_pretrained, but {reference} is a file.")
    if (folder / OPEN_CLIP_CONFIG).exists() and not _of_transformers(folder):
        return _open_clip_folder(folder, pickled)
    return _transformers_folder(folder, pickled)


def allow_pickle() -> bool:
    return os.environ.get(ALLOW_PICKLE, "") == "1"


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


def loading(where: str, part: str, load: Callable[[], Any]) -> Any:
    """Run one loading step in silence; what the libraries raise becomes one sentence."""
    from safetensors import SafetensorError

    loggers = [logging.getLogger(name) for name in ("transformers", "root", "huggingface_hub", "timm")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        return load()
    except (
        OSError,
        ValueError,
        KeyError,
        RuntimeError,
        AssertionError,
        ImportError,
        SafetensorError,
        pickle.UnpicklingError,
    ) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(
            f"the {part} of the model {where} could not be loaded: {reason[:300]} {_advice(where)}"
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def pickle_refused(folder: str, name: str) -> ModelError:
    return ModelError(
        f"weights must be safetensors, but {folder} holds only {name}, a pickle that could run any code when it is "
        "loaded. Convert it in a place you trust: load it there and save it as safetensors. If you trust its origin, "
        f"set {ALLOW_PICKLE}=1, and it is read by torch's restricted loader."
    )


def _advice(where: str) -> str:
    if Path(where).exists() or where.startswith(LOCAL_DIR):
        return "Give a complete directory, saved again by the library that made it."
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return (
            "HF_HUB_OFFLINE is set, so only what was downloaded before can be used. Unset it, or give the directory of "
            "a model."
        )
    return "Give a complete save_pretrained directory, or a hub id that this machine can reach."


def _listed(reference: str) -> Reference:
    architecture, slash, tag = reference.removeprefix(OPEN_CLIP).partition("/")
    if not (architecture and slash and tag):
        raise ModelError(
            f"an open_clip model must be given as open_clip:ARCHITECTURE/TAG, got {reference!r}. "
            "Try open_clip:ViT-B-32/laion2b_s34b_b79k; without its tag it would have random weights."
        )
    return Reference("open_clip", reference, reference.removeprefix(OPEN_CLIP))


def _of_transformers(folder: Path) -> bool:
    """Whether config.json is one of transformers; timm writes a file of that name too."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "model_type" in config


def _open_clip_folder(folder: Path, pickled: bool) -> Reference:
    if not (folder / OPEN_CLIP_CONFIG).is_file():
        raise ModelError(f"an open_clip directory must hold {OPEN_CLIP_CONFIG}, but {folder} does not.")
    names = sorted(path.name for path in folder.iterdir())
    if not any(name.endswith(".safetensors") for name in names):
        found = [name for name in names if name.endswith(_PICKLED)]
        if not found:
            raise ModelError(f"an open_clip directory must hold its weights as safetensors, but {folder} holds none.")
        if not pickled:
            raise pickle_refused(str(folder), found[0])
    where = f"{LOCAL_DIR}{folder.resolve()}"
    return Reference("open_clip", where, where)


def _transformers_folder(folder: Path, pickled: bool) -> Reference:
    names = {path.name for path in folder.iterdir()}
    if "config.json" not in names:
        raise ModelError(
            f"a model directory must hold config.json, but {folder} does not. Use save_pretrained to make one."
        )
    if not names & set(_SAFE):
        found = sorted(n for n in names if n.endswith(_PICKLED))
        if not found:
            raise ModelError(
                f"a model directory must hold model.safetensors, but {folder} does not. Save the model again."
            )
        if not pickled:
            raise pickle_refused(str(folder), found[0])
    for part, files in _PARTS.items():
        if not names & set(files):
            raise ModelError(
                f"a model directory must hold its {part} ({' or '.join(files[:2])}), but {folder} does not. "
                "Save it there with save_pretrained; another model's would silently give wrong results."
            )
    where = str(folder.resolve())
    return Reference("transformers", where, where)
