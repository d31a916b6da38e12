"""Pseudonyms in place of file names: names of medical images often hold the name or the number of a patient.

A pseudonym is a keyed digest (BLAKE2b) of the path below the set's root. The key is drawn once per workspace and kept
there, so that one image has one pseudonym in all of a workspace's audits, and a name cannot be found by trying without
it. The paths themselves are kept nowhere: when an image is opened, its source is listed again.
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import PurePosixPath

from ravl.data.sources import list_source, parse
from ravl.errors import DataError
from ravl.tables import ImageSet


def pseudonym(name: str, salt: str) -> str:
    """What stands for a path, such as 3f9a0c1d22b4e67a.dcm. salt: hexadecimal key."""
    ending = PurePosixPath(name).suffix.lower()
    kept = ending if ending[1:].isalpha() and len(ending) <= 6 else ""  # an ending of digits may be a part of a name
    return keyed(name, salt) + kept


def keyed(text: str, salt: str) -> str:
    """16 hexadecimal digits of a text, different for every key."""
    return hashlib.blake2b(os.fsencode(text), key=bytes.fromhex(salt), digest_size=8).hexdigest()


def path_of(images: ImageSet, image: int) -> str:
    """Where an image is. Raises DataError when its source no longer lists it."""
    name = str(images.file[image])
    if images.salt and not images.source:
        raise DataError(f"{name} cannot be shown: its name is hidden and it is listed by nothing but its embeddings.")
    if images.salt:
        known = _listed(images.source, images.salt, images.class_names)
        if name not in known:
            raise DataError(f"{name} is no longer listed by the image set. Put the file back, or start a new audit.")
        name = known[name]
    return os.path.join(images.root, name)


def paths_of(images: ImageSet) -> list[str]:
    """Where the images are, in order."""
    return [path_of(images, i) for i in range(len(images))]


@lru_cache(maxsize=4)
def _listed(source: str, salt: str, class_names: tuple[str, ...]) -> dict[str, str]:
    """Path below the root of every pseudonym. One listing per process: nothing is opened."""
    listing = list_source(parse(source), class_names)
    return {pseudonym(name, salt): name for name in listing.file}
