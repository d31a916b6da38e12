"""Images of a set as pixels, on a few threads and in a fixed order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from PIL import Image

from ravl.data.decoding import decoded, read_file
from ravl.data.hiding import path_of
from ravl.errors import DataError
from ravl.tables import ImageSet

_THREADS = 4
_AHEAD = 4  # results per thread that may wait to be taken
_In = TypeVar("_In")
_Out = TypeVar("_Out")


def load_images(images: ImageSet, ids: Iterable[int]) -> list[Image.Image]:
    """Decode the images with these ids, in their order, as upright RGB.

    Raises DataError when a file is gone, damaged, or has another size than when the set was read.
    """
    advice = "The image set has changed since it was read: put the file back, or start a new audit."

    def load(i: int) -> Image.Image:
        path = path_of(images, i)
        shown = str(images.file[i]) if images.salt else path
        try:
            image = decoded(read_file(path), images.frames).image
        except DataError as error:
            raise DataError(f"{shown} {error}. {advice}") from error
        width, height = (int(side) for side in images.size[i])
        if image.size != (width, height):
            found = f"{image.width} x {image.height}"
            raise DataError(f"{shown} must have {width} x {height} pixels, got {found}. {advice}")
        return image

    return list(in_order(load, list(ids)))


def in_order(function: Callable[[_In], _Out], items: Sequence[_In], threads: int = _THREADS) -> Iterator[_Out]:
    """Results of `function` on a few threads, in the order of `items`; few are ahead of the one that is asked for.

    What has not begun is dropped on an error.
    """
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[_Out]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= _AHEAD * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
