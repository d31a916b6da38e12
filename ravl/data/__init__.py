"""Labelled images: readers of folders and manifests, and the one rule by which files become pixels."""

from ravl.data.decoding import decode, to_rgb
from ravl.data.readers import load_images, read_images

__all__ = ["decode", "load_images", "read_images", "to_rgb"]
