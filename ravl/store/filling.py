"""Arrays too large for memory, written block by block so that a killed run continues after its last whole block."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.errors import ModelError
from ravl.store.files import allocate, disk_error, read_json, save_array, write_json

EMBEDDINGS = ("image_embeddings", "region_embeddings", "region_features")
"""Arrays of the embeddings stage: output embeddings of images and regions, middle-layer features of regions."""

Blocks = Callable[[int], Iterator[tuple[int, dict[str, tuple[int, NDArray[Any]]]]]]
"""From an image on: (images done, {array: (first row, values)}), block by block."""


def fill(folder: Path, shapes: dict[str, tuple[int, int]], blocks: Blocks) -> float:
    """Write the arrays of EMBEDDINGS as `<name>.npy` in float16; return the seconds it took, over all attempts.

    shapes: rows and columns of each. A killed run continues after its last whole block.
    Raises ModelError for values that are not finite in float16, and RunError when the disk fails.
    """
    begun = time.perf_counter()
    marker = folder / "embeddings.progress.json"
    partials = {name: folder / f"{name}.npy.partial" for name in shapes if not (folder / f"{name}.npy").exists()}
    progress: dict[str, Any] = {"images": 0, "seconds": 0.0}
    # the marker counts only together with all arrays it speaks of
    if marker.exists() and all(_has_shape(path, shapes[name]) for name, path in partials.items()):
        progress = read_json(marker)
    before, total = progress["seconds"], shapes[EMBEDDINGS[0]][0]
    try:
        arrays = {
            name: _partial_array(path, shapes[name], keep=progress["images"] > 0) for name, path in partials.items()
        }
        for done, rows in blocks(progress["images"]) if progress["images"] < total else ():
            for name in arrays:
                first, values = rows[name]
                arrays[name][first : first + len(values)] = _half(values, name)
            for array in arrays.values():
                if isinstance(array, np.memmap):
                    array.flush()
            progress = {"images": done, "seconds": before + time.perf_counter() - begun}
            write_json(marker, progress)
        if progress["images"] != total:
            raise ValueError(f"blocks must end with image {total}, got {progress['images']}.")
        for name in arrays:
            with open(partials[name], "rb") as file:
                os.fsync(file.fileno())
            os.replace(partials[name], folder / f"{name}.npy")
        marker.unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(error, folder) from error
    return float(progress["seconds"])


def _has_shape(path: Path, shape: tuple[int, int]) -> bool:
    """Whether a partial array is there, with the shape and the bytes that it needs."""
    try:
        return bool(np.load(path, mmap_mode=None if 0 in shape else "r", allow_pickle=False).shape == shape)
    except (OSError, ValueError, EOFError):
        return False  # it is made anew


def _partial_array(path: Path, shape: tuple[int, int], keep: bool) -> NDArray[np.float16]:
    if 0 in shape:
        save_array(path, np.zeros(shape, np.float16))
        return np.zeros(shape, np.float16)
    if not keep:
        with open(path, "wb") as file:
            header = {"descr": "<f2", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            allocate(file, file.tell() + 2 * shape[0] * shape[1])
    return np.lib.format.open_memmap(path, mode="r+")  # type: ignore[no-any-return]


def _half(values: NDArray[Any], name: str) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):  # told below
        half = np.asarray(values).astype(np.float16)
    if not np.isfinite(half).all():
        raise ModelError(
            f"the model must give numbers of at most 65504, but its {name.replace('_', ' ')} hold NaN or larger ones. "
            "Check its weights, and load it in 32-bit precision."
        )
    return half
