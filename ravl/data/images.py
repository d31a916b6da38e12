"""Images of a set as pixels, on a few threads and in a fixed order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from PIL import Image

from ravl.data.decoding import decode_bytes, read_file
from ravl.errors import DataError
from ravl.tables import ImageSet

_THREADS = 4
_In = TypeVar("_In")
_Out = TypeVar("_Out")


def load_images(images: ImageSet, ids: Iterable[int]) -> list[Image.Image]:
    """Decode the images with these ids, in their order, as upright RGB.

    Raises DataError when a file is gone, damaged, or has another size than when the set was read.
    """
    advice = "The image set has changed since it was read: put the file back, or start a new audit."

    def load(i: int) -> Image.Image:
        path = os.path.join(images.root, str(images.file[i]))
        try:
            image = decode_bytes(read_file(path))
        except DataError as error:
            raise DataError(f"{path} {error}. {advice}") from error
        width, height = (int(side) for side in images.size[i])
        if image.size != (width, height):
            raise DataError(f"{path} must have {width} x {height} pixels, got {image.width} x {image.height}. {advice}")
        return image

    return list(in_order(load, list(ids)))


def in_order(function: Callable[[_In], _Out], items: Sequence[_In]) -> Iterator[_Out]:
    """Results of `function` on a few threads, in the order of `items`. What has not begun is dropped on an error."""
    pool = ThreadPoolExecutor(_THREADS)
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)
