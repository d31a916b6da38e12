"""How an image is cut into regions, and its short form: `grid:2+4`, `slic:16`, `boxes:FILE`, `detr:DIR@most=8`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from ravl.config.option import check, option
from ravl.errors import ConfigError

_GRID = re.compile(r"grid:([0-9]{1,9}(?:\+[0-9]{1,9})*)(?:@([0-9]*\.?[0-9]+(?:e-[0-9]+)?))?")
_SLIC = re.compile(r"slic:([0-9]{1,9})")
_LIMIT_NAMES = ("nms", "min_area", "max_area", "min_score", "most")
_LIMIT = rf"(?:(?:{'|'.join(_LIMIT_NAMES[:-1])})=[0-9]*\.?[0-9]+(?:e-[0-9]+)?|most=[0-9]{{1,6}})"
_LIMITS = re.compile(rf"{_LIMIT}(?:,{_LIMIT})*")

PROPOSERS = ("detr", "owl", "sam")
"""Kinds of models that propose regions: the DETR family of detectors, OWLv2's objectness, SAM's masks."""


@dataclass(frozen=True)
class RegionsConfig:
    """How an image is cut into regions."""

    kind: str = option(
        "grid",
        "grid: equal cells; slic: superpixels, which follow the edges in the picture; boxes: your own; detr, owl, sam: "
        "what a detector or segmenter proposes",
        choices=("grid", "slic", "boxes", *PROPOSERS),
    )
    k: int = option(2, "rows and columns of the grid; 2 gives the paper's quadrants", low=1, high=32)
    further: tuple[int, ...] = option((), "grid only: rows and columns of further grids over the same image")
    overlap: float = option(
        0.0, "grid only: share of its side that a cell has in common with the next one", low=0, high=0.99
    )
    segments: int = option(16, "slic only: about how many superpixels an image has", low=1, high=1000)
    file: str = option(
        "",
        "boxes: a COCO detection file; empty: the column boxes of the manifest. detr, owl, sam: the model's folder",
    )
    nms: float = option(
        0.5, "proposals: overlap with a better one that is kept (intersection over union)", low=0, high=1
    )
    min_area: float = option(0.005, "proposals: least share of what the model sees", low=0, high=1)
    max_area: float = option(0.8, "proposals: largest share of what the model sees", low=0, high=1)
    min_score: float = option(0.05, "proposals: least score", low=0, high=1)
    most: int = option(16, "proposals: at most so many regions an image", low=1, high=1000)

    def __post_init__(self) -> None:
        check(self)
        strange = [k for k in self.further if type(k) is not int or not 1 <= k <= 32]
        if strange or len(set(self.scales)) < len(self.scales):
            raise ConfigError(
                f"grids must have distinct whole numbers of rows in 1 .. 32, got {', '.join(map(str, self.scales))}. "
                "Try grid:2+4."
            )
        if self.kind != "grid" and (self.further or self.overlap):
            raise ConfigError(f"further and overlap must be left alone unless kind is grid, got kind {self.kind!r}.")
        if self.kind not in ("boxes", *PROPOSERS) and self.file:
            raise ConfigError(f"file must be empty unless kind is boxes, got {self.file!r} with kind {self.kind!r}.")

    @property
    def scales(self) -> tuple[int, ...]:
        """Rows and columns of every grid."""
        return (self.k, *self.further)

    @classmethod
    def parse(cls, text: str) -> RegionsConfig:
        """Read the command line's form: `grid:2`, `grid:2+4`, `grid:3@0.5`, `slic:N`, `boxes`, `boxes:FILE.json`, and
        `detr:DIR`, `owl:DIR` or `sam:DIR`, perhaps with limits: `detr:DIR@nms=0.4,min_area=0.01,most=8`.

        A relative path is one of the current folder.
        """
        if grid := _GRID.fullmatch(text):
            k, *further = map(int, grid[1].split("+"))
            return cls("grid", k, tuple(further), float(grid[2] or 0))
        if slic := _SLIC.fullmatch(text):
            return cls("slic", segments=int(slic[1]))
        kind, _, file = text.partition(":")
        if kind == "boxes" and (file or text == kind):
            return cls("boxes", file=os.path.abspath(os.path.expanduser(file)) if file else "")
        if kind in PROPOSERS and file:
            folder, _, limits = file.rpartition("@") if _LIMITS.fullmatch(file.rpartition("@")[2]) else (file, "", "")
            given = dict(entry.split("=") for entry in limits.split(",")) if limits else {}
            numbers: dict[str, Any] = {k: int(v) if k == "most" else float(v) for k, v in given.items()}
            found = cls(kind, file=os.path.abspath(os.path.expanduser(folder)), **numbers)
            if found.min_area > found.max_area:
                raise ConfigError(f"min_area must not exceed max_area, got {found.min_area} and {found.max_area}.")
            return found
        raise ConfigError(
            "regions must be grid:K with a whole number K (several: grid:2+4; overlapping: grid:3@0.5), slic:N, boxes, "
            f"boxes:FILE.json, or detr:DIR, owl:DIR, sam:DIR, got {text!r}. Try grid:2."
        )

    def __str__(self) -> str:
        if self.kind == "slic":
            return f"slic:{self.segments}"
        if self.kind == "boxes":
            return f"boxes:{self.file}" if self.file else "boxes"
        if self.kind in PROPOSERS:
            limits = [f"{name}={getattr(self, name)}" for name in _LIMIT_NAMES if getattr(self, name) != _default(name)]
            return f"{self.kind}:{self.file}" + (f"@{','.join(limits)}" if limits else "")
        overlap = f"@{self.overlap}" if self.overlap else ""
        return f"grid:{'+'.join(map(str, self.scales))}{overlap}"


def _default(name: str) -> Any:
    return RegionsConfig.__dataclass_fields__[name].default
