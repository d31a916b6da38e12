"""Where precomputed embeddings lie: one Parquet file, or a folder with a manifest and two arrays.

Both answer the same five questions: what is there (`names`), every light column, the length of a vector, the embeddings
block by block, and a digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ravl.data.listing import few
from ravl.data.manifest import read_table
from ravl.errors import DataError
from ravl.tables import Regions

ALIASES = {"true_label": "label", "img_emb": "image_embedding", "reg_emb": "region_embeddings", "region_coord": "boxes"}
"""Columns of the authors' example, and what they are called here."""

IGNORED = ("pixel_data", "reg_labels", "num_regions")
_HEAVY = ("image_embedding", "region_embeddings")
_BLOCK = 1024  # rows in memory at a time

Floats = NDArray[np.float32]


class ParquetSource:
    """One Parquet file with a row per image."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if path.suffix.lower() in (".pkl", ".pickle", ".pt", ".pth"):
            raise DataError(
                f"embeddings must be a Parquet file or a folder with .npy files, got {path.name}: such a file can run "
                "code when it is opened. Write its table with pandas' to_parquet."
            )
        try:
            self._file = pq.ParquetFile(path)
        except (OSError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise DataError(f"{path} must be a Parquet file with embeddings, but cannot be read ({reason}).") from error
        self.path, self._invalid = path, pa.ArrowException
        self.names = [str(name) for name in self._file.schema_arrow.names]
        if twice := [a for a, b in ALIASES.items() if a in self.names and b in self.names]:
            raise DataError(f"{path} must have one of {twice[0]} and {ALIASES[twice[0]]}, got both. Remove one.")
        self._called = {ALIASES.get(name, name): name for name in self.names}
        if missing := [name for name in _HEAVY if name not in self._called]:
            raise DataError(
                f"{path} must have the columns label, boxes, image_embedding and region_embeddings, but lacks "
                f"{few(missing)}. See the README for the format."
            )

    def columns(self) -> dict[str, list[Any]]:
        """Every column but the embeddings and what is not read."""
        wanted = [name for name in self._called if name not in (*_HEAVY, *IGNORED) and "__index" not in name]
        try:
            table = self._file.read([self._called[name] for name in wanted])
        except (OSError, self._invalid) as error:
            raise DataError(f"{self.path} is damaged ({str(error).splitlines()[0]}). Write it again.") from error
        return {name: table.column(self._called[name]).to_pylist() for name in wanted}

    def dim(self, n_images: int, n_regions: int) -> int:
        for _, image, _ in self.blocks(0, None):
            return int(image.shape[1])
        return 0

    def blocks(self, start: int, regions: Regions | None) -> Iterator[tuple[int, Floats, Floats]]:
        done = 0
        try:
            for batch in self._file.iter_batches(_BLOCK, columns=[self._called[name] for name in _HEAVY]):
                done += len(batch)
                if done <= start:
                    continue
                if done - len(batch) < start:
                    batch = batch.slice(start - done + len(batch))
                image, region = (self._matrix(batch.column(self._called[name]), name) for name in _HEAVY)
                if len(image) != len(batch):
                    raise DataError(
                        f"{self.path} must have one image embedding in every row, got {len(image)} in a block."
                    )
                yield done, image, region
        except (OSError, self._invalid) as error:
            raise DataError(f"{self.path} is damaged ({str(error).splitlines()[0]}). Write it again.") from error

    def _matrix(self, column: Any, name: str) -> Floats:
        """(n, D) of lists of numbers, or of lists of lists of numbers, one after the other."""
        import pyarrow as pa

        width = 0
        flat = column
        while (
            pa.types.is_list(flat.type) or pa.types.is_large_list(flat.type) or pa.types.is_fixed_size_list(flat.type)
        ):
            lengths = np.unique(np.asarray(flat.value_lengths().drop_null()))
            width = int(lengths[0]) if len(lengths) == 1 else 0 if len(lengths) else width
            if flat.null_count:
                raise DataError(f"{self.path} must have {name} in every row, but {flat.null_count} are missing.")
            flat = flat.flatten()
        if not (pa.types.is_floating(flat.type) or pa.types.is_integer(flat.type)):
            raise DataError(f"{self.path} must hold numbers in {name}, got {flat.type}.")
        values = np.asarray(flat.to_numpy(zero_copy_only=False), np.float32)
        if not len(values):
            return np.zeros((0, 0), np.float32)
        if not width or len(values) % width:
            raise DataError(f"{self.path} must have embeddings of one length in {name}, got several.")
        return values.reshape(-1, width)

    def digest(self) -> str:
        return _file_digest(self.path)


class FolderSource:
    """A folder with a manifest and two arrays."""

    def __init__(self, path: Path) -> None:
        manifests = [path / name for name in ("images.csv", "images.tsv", "images.parquet") if (path / name).is_file()]
        if len(manifests) != 1:
            raise DataError(f"{path} must hold one of images.csv, images.tsv and images.parquet, got {len(manifests)}.")
        self.path, self._manifest = path, manifests[0]
        self._table = read_table(manifests[0])
        self.names = list(self._table)
        self._image, self._region = (self._load(f"{part}_embeddings.npy") for part in ("image", "region"))

    def _load(self, name: str) -> NDArray[Any]:
        file = self.path / name
        try:
            array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{file} must be an array of numbers (.npy), but cannot be read ({error}).") from error
        if array.ndim != 2 or array.dtype.kind not in "fiu":
            raise DataError(f"{file} must have two dimensions of numbers, got {array.shape} of {array.dtype}.")
        return array

    def columns(self) -> dict[str, list[Any]]:
        return {ALIASES.get(name, name): list(values) for name, values in self._table.items()}

    def dim(self, n_images: int, n_regions: int) -> int:
        for name, array, n in (("image", self._image, n_images), ("region", self._region, n_regions)):
            if len(array) != n:
                raise DataError(
                    f"{self.path / name}_embeddings.npy must have {n} rows, one per {name}, got {len(array)}."
                )
        return int(self._image.shape[1])

    def blocks(self, start: int, regions: Regions | None) -> Iterator[tuple[int, Floats, Floats]]:
        assert regions is not None
        for first in range(start, len(self._image), _BLOCK):
            done = min(first + _BLOCK, len(self._image))
            rows = slice(int(regions.starts[first]), int(regions.starts[done]))
            yield done, np.asarray(self._image[first:done], np.float32), np.asarray(self._region[rows], np.float32)

    def digest(self) -> str:
        names = (self._manifest.name, "image_embeddings.npy", "region_embeddings.npy")
        return "".join(_file_digest(self.path / name) for name in names)


def _file_digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
