"""One row per setting, clustering space and method: what is measured, kept, and written as CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ravl.benchmark.figures import Figures
from ravl.benchmark.settings import WITHOUT, Setting
from ravl.store import writing

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R", bound="DataclassInstance")

LEARNED = 0.10
"""A shortcut is learned when eps1 and eps2 are both above this (Varma et al. 2024)."""

SPACES = ("auto", "final")
"""What regions are clustered on: what the tool chooses, or the output embedding. Methods of images have a third space,
`image`."""


@dataclass(frozen=True)
class Row:
    """One method's figures on one audit. Lists (marks, eps1, eps2) have one entry per mark, joined by + in the CSV.

    accuracy: of the model on the audited kind of scenes. eps1, eps2: how much it relies on each mark.
    space: auto, final, or image. features: how many the method ranks. The figures are those of `Figures`.
    seconds: what the method itself took, without embedding and clustering (for ours: from the permutation test on).
    shared_seconds: embedding, classifying and clustering, the same for all methods of one audit.
    """

    setting: str
    world: str
    architecture: str
    marks: str
    strength: float
    seed: int
    kind: str
    accuracy: float
    eps1: str
    eps2: str
    space: str
    method: str
    features: int
    precision_at_10: float
    precision_at_50: float
    flagged: int
    true: int
    learned: int
    found: int
    shown: int
    covered: int
    pull_right: int
    false_shows: str
    false_touches: str
    seconds: float
    shared_seconds: float

    @property
    def counts(self) -> bool:
        """Whether the setting counts for precision and recall: the model relies on a local mark."""
        return self.kind not in WITHOUT and self.learned > 0

    @property
    def without(self) -> bool:
        """Whether there is no local feature to find, so that a flag is a false alarm."""
        return self.kind in WITHOUT


@dataclass(frozen=True)
class Reliance:
    """How much a model relies on each of its marks: accuracy of the model; eps1, eps2 (M,) per mark."""

    accuracy: float
    eps1: tuple[float, ...]
    eps2: tuple[float, ...]

    @property
    def learned(self) -> tuple[bool, ...]:
        """(M,) whether both are above LEARNED."""
        return tuple(a > LEARNED and b > LEARNED for a, b in zip(self.eps1, self.eps2, strict=True))


def row_of(
    setting: Setting,
    reliance: Reliance,
    space: str,
    method: str,
    features: int,
    found: Figures,
    seconds: float,
    shared_seconds: float,
) -> Row:
    """Put one row together; numbers are rounded as they are kept."""
    about: dict[str, Any] = {
        name: getattr(setting, name) for name in ("world", "architecture", "strength", "seed", "kind")
    }
    about |= {"setting": setting.id, "marks": "+".join(setting.marks), "accuracy": round(reliance.accuracy, 4)}
    about |= {name: "+".join(f"{value:.4f}" for value in getattr(reliance, name)) for name in ("eps1", "eps2")}
    about |= {"space": space, "method": method, "features": features}
    counted: dict[str, Any] = asdict(found)
    counted |= {name: round(value, 4) for name, value in counted.items() if isinstance(value, float)}
    return Row(**about, **counted, seconds=round(seconds, 3), shared_seconds=round(shared_seconds, 2))


def row_from(saved: dict[str, Any]) -> Row:
    """A row from its JSON or CSV form (there all values are text; None or nothing is NaN)."""
    return record_from(saved, Row)


def record_from(saved: dict[str, Any], kind: type[R]) -> R:
    """A record of numbers and texts from its JSON or CSV form."""
    values: dict[str, Any] = {}
    for item in fields(kind):
        value = saved[item.name]
        if item.type == "float":
            values[item.name] = math.nan if value in (None, "") else float(value)
        else:
            values[item.name] = int(value) if item.type == "int" else str(value)
    return kind(**values)


def as_json(row: DataclassInstance, digits: int | None = None) -> dict[str, Any]:
    """The row with None for NaN, and its other floats rounded to `digits`, if that is given."""

    def known(value: Any) -> Any:
        if _missing(value):
            return None
        return round(value, digits) if digits is not None and isinstance(value, float) else value

    return {name: known(value) for name, value in asdict(row).items()}


def write_csv(path: Path, rows: Iterable[DataclassInstance], kind: type[DataclassInstance] = Row) -> None:
    """Write rows of one kind as CSV, whole or not at all; NaN is an empty cell."""
    with writing(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(item.name for item in fields(kind))
        writer.writerows(["" if _missing(value) else value for value in asdict(row).values()] for row in rows)


def read_csv(path: Path) -> list[Row]:
    """Read what `write_csv` wrote."""
    return read_records(path, Row)


def read_records(path: Path, kind: type[R]) -> list[R]:
    """Read rows of one kind that `write_csv` wrote."""
    with open(path, newline="", encoding="utf-8") as file:
        return [record_from(saved, kind) for saved in csv.DictReader(file)]


def sorted_rows(rows: Iterable[Row], settings: Sequence[Setting]) -> list[Row]:
    """Rows in the order of the settings; the rows of one setting stay in their order."""
    place = {setting.id: i for i, setting in enumerate(settings)}
    return sorted(rows, key=lambda row: place[row.setting])


def _missing(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
