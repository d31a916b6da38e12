"""What every record does with its columns: converted, checked, read-only."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray


def column(record: Any, name: str, dtype: Any, shape: tuple[int | None, ...]) -> None:
    """Convert one column to `dtype`, check its shape (None = any length) and make it read-only.

    Raises ValueError for another shape, and for numbers that an integer column would wrap, cut or make up.
    """
    given = np.asarray(getattr(record, name))
    if given.size == 0 and given.ndim != len(shape):
        given = given.reshape([0 if want is None else want for want in shape])
    with np.errstate(invalid="ignore"):  # NaN to integer: refused below
        # what nobody can write to is shared, so that a column may be mapped from its file
        same = given.dtype == np.dtype(dtype) and not given.flags.writeable
        value = given if same else given.astype(dtype)
    if value.dtype.kind in "iu" and given.dtype.kind in "iuf" and not np.array_equal(value, given):
        raise ValueError(f"{type(record).__name__}.{name} must hold whole numbers that fit {value.dtype}, got others.")
    if value.ndim != len(shape) or any(w is not None and w != g for w, g in zip(shape, value.shape, strict=True)):
        raise ValueError(f"{type(record).__name__}.{name} must have shape {shape}, got {given.shape}.")
    value.flags.writeable = False
    object.__setattr__(record, name, value)


def row_of(ids: NDArray[np.int32], feature: int) -> int:
    found = np.flatnonzero(ids == feature)
    if not len(found):
        raise KeyError(f"feature must be one of {sorted(ids.tolist())}, got {feature}.")
    return int(found[0])


def columns(record: Any) -> dict[str, Any]:
    """The fields of a record by name, in declaration order."""
    return {item.name: getattr(record, item.name) for item in fields(record)}
