"""Labelled images: `read_images` lists and checks them, `load_images` and `decode` turn files into upright RGB.

People's own boxes are read with the images from a manifest, or added to them by `with_coco`.
"""

from __future__ import annotations

from ravl.data.boxes import with_coco
from ravl.data.decoding import decode
from ravl.data.hiding import path_of
from ravl.data.images import load_images
from ravl.data.readers import Reading, read_images

__all__ = ["Reading", "decode", "load_images", "path_of", "read_images", "with_coco"]
