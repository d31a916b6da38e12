"""Zero-shot classification of images and of regions, by the cosine of their embeddings with those of class prompts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ravl.config import PromptsConfig
from ravl.errors import ConfigError, RunError
from ravl.tables import ZeroShot
from ravl.vlm.interface import VisionLanguageModel

_BLOCK = 8192
"""Rows converted to float32 at a time: 8192 x 1024 x 4 bytes = 32 MiB."""
_IN_MEMORY = 2**28
"""Bytes of scores that are kept in memory; more are kept in a file."""
_TEXTS = 256
"""Prompts per call of the text tower."""


def unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Rows scaled to unit length, float32; rows of zeros stay zero."""
    rows = np.asarray(rows, np.float32)
    norm = np.linalg.norm(rows, axis=-1, keepdims=True)
    out: NDArray[np.float32] = np.divide(rows, norm, out=np.zeros_like(rows), where=norm > 0)
    return out


def product(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """The matrix product of finite arrays. Raises FloatingPointError where the result is not finite.

    Some BLAS kernels set the processor's "invalid" flag although operands and result are finite (numpy issues 13173 and
    24067), and numpy turns the flag into a warning. So the result is checked instead of the flag.
    """
    with np.errstate(invalid="ignore"):
        out: NDArray[Any] = left @ right
    if not np.isfinite(out).all():
        raise FloatingPointError(
            "a matrix product must be finite, got NaN or infinity. Check the embeddings for huge values."
        )
    return out


def softmax(logits: NDArray[Any]) -> NDArray[np.float32]:
    """Softmax over the last axis; the largest logit is subtracted first, so that nothing overflows."""
    power = np.exp(logits - logits.max(-1, keepdims=True))
    out: NDArray[np.float32] = power / power.sum(-1, keepdims=True)
    return out


def class_vectors(vlm: VisionLanguageModel, class_names: Sequence[str], prompts: PromptsConfig) -> NDArray[np.float32]:
    """(Y, D) unit vector of every class: the mean over the templates of the unit prompt embeddings, normalised again.

    Underscores in a class name become spaces. `prompts.classes`, where given, are used in place of `class_names`.
    Averaging over templates is the rule of CLIP's own zero-shot classifier (Radford et al. 2021).

    Raises ConfigError when `prompts.classes` and `class_names` differ in number.
    """
    names = prompts.classes or tuple(class_names)
    if len(names) != len(class_names):
        raise ConfigError(
            f"classes must name the {len(class_names)} classes of the image set in label order, got {len(names)}: "
            f"{', '.join(names)}. The image set has {', '.join(class_names)}."
        )
    spoken = [name.replace("_", " ") for name in names]
    total = np.zeros((len(names), vlm.dim), np.float32)
    for template in prompts.templates:
        # not str.format: a class name or template may hold other braces
        texts = [template.replace("{}", name) for name in spoken]
        for start in range(0, len(texts), _TEXTS):
            total[start : start + _TEXTS] += unit(vlm.encode_texts(texts[start : start + _TEXTS]))
    return unit(total)


def classify(
    image_vec: NDArray[Any], region_vec: NDArray[Any], text: NDArray[Any], label: NDArray[np.integer[Any]], tau: float
) -> ZeroShot:
    """Class probabilities softmax_y(cos(v, text_y) / tau) of images and of regions (Varma et al. 2024).

    Vectors are normalised here, because float16 storage costs them their exact length.

    image_vec: (I, D); region_vec: (R, D), may be a float16 memory map; text: (Y, D); label: (I,); tau > 0.
    Raises ValueError for wrong shapes, values that are not finite, no class, or a tau that is not positive; RunError
    when the disk is full.
    """
    text = np.asarray(text, np.float32)
    if not tau > 0:
        raise ValueError(f"tau must be positive, got {tau}.")
    if text.ndim != 2 or not len(text):
        raise ValueError(f"text must have shape (Y, D) with at least one class, got {text.shape}.")
    if len(label) != len(image_vec):
        raise ValueError(f"label must have one entry per image, got {len(label)} for {len(image_vec)} images.")
    image = _probabilities("image_vec", image_vec, text, tau)
    region = _probabilities("region_vec", region_vec, text, tau)
    return ZeroShot(image, region, np.asarray(label, np.int16))


def _room(shape: tuple[int, int]) -> NDArray[np.float32]:
    """An array for scores; a large one lies in a file without a name, so that many classes need no memory."""
    size = 4 * shape[0] * shape[1]
    if size < _IN_MEMORY:
        return np.empty(shape, np.float32)
    try:
        with tempfile.TemporaryFile() as file:  # the mapping keeps it alive
            _reserve(file, size)
            return np.memmap(file, np.float32, "w+", shape=shape)
    except OSError as error:
        raise RunError(
            f"{tempfile.gettempdir()} must have {size / 2**20:.0f} MiB free for class probabilities, "
            f"but they could not be written there: {error.strerror or error}. Free some space, or name another folder "
            "in TMPDIR, and run the same command again; finished stages are kept."
        ) from error


def _reserve(file: IO[bytes], size: int) -> None:
    """Take the room on the disk: where it is full, that must fail here, not as a bus error in the mapping."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    while (missing := size - file.tell()) > 0:  # macOS
        file.write(bytes(min(missing, 2**20)))
    file.flush()


def _probabilities(name: str, rows: NDArray[Any], text: NDArray[np.float32], tau: float) -> NDArray[np.float32]:
    out = _room((len(rows), len(text)))
    if len(rows) and rows.shape[1:] != text.shape[1:]:
        raise ValueError(f"{name} must have shape (n, {text.shape[1]}) like the text vectors, got {rows.shape}.")
    directions = unit(text).T
    for start in range(0, len(rows), _BLOCK):
        block = np.asarray(rows[start : start + _BLOCK], np.float32)
        broken = ~np.isfinite(block).all(1)
        if broken.any():
            raise ValueError(f"{name} must be finite, got NaN or infinity in row {start + int(broken.argmax())}.")
        out[start : start + _BLOCK] = softmax(product(unit(block), directions) / np.float32(tau))
    out.flags.writeable = False
    return out
