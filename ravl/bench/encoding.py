"""The plain forward pass of images beside that of their regions by `tokens`, as pieces of work to be timed."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from ravl.bench.timing import Work
from ravl.tables import Regions
from ravl.vlm.model import DualEncoder


def works_of(model: DualEncoder, images: list[Image.Image], regions: Regions, batch: int) -> dict[str, Work]:
    """`plain`: the model's own image embedding of all images, and `tokens`: that of all their regions.

    Both start from pixels that the model's processor has made, in batches of `batch` images.
    """
    pixels = model.pixels(images)
    patches = model.places(np.array([image.size for image in images])[regions.image], regions.box)
    bounds = [(start, min(start + batch, len(images))) for start in range(0, len(images), batch)]
    blocks = []
    for start, end in bounds:
        rows = slice(*np.searchsorted(regions.image, (start, end)).tolist())
        owner = torch.from_numpy(regions.image[rows].astype(np.int64) - start)
        blocks.append((pixels[start:end], owner, patches[rows]))

    @torch.inference_mode()
    def plain() -> None:
        for seen, _, _ in blocks:
            model.module.get_image_features(seen)

    @torch.inference_mode()
    def tokens() -> None:
        for seen, owner, chosen in blocks:
            model.region_vectors(seen, owner, chosen)

    return {"plain": plain, "tokens": tokens}
