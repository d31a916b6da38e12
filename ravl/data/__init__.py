"""Labelled images: `read_images` lists and checks them, `load_images` and `decode` turn files into upright RGB."""

from __future__ import annotations

from ravl.data.decoding import decode
from ravl.data.images import load_images
from ravl.data.readers import read_images

__all__ = ["decode", "load_images", "read_images"]
