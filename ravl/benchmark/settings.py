"""Which models the controlled evaluation trains, audits and repairs.

Each world with a local mark is trained at six strengths of the shortcut and with three seeds, V = 0 (no shortcut) among
them; besides, a second architecture, the other marks of the radiograph, two marks at once, and a global shortcut that
no region shows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ravl.errors import ConfigError

STRENGTHS = (0.0, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Cramer's V of class and mark in the training scenes."""
SEEDS = (0, 1, 2)

FIRST_MARK = {
    "digits": "red square",
    "textures": "yellow ring",
    "silhouettes": "flower",
    "radiograph": "metal clips",
    "pairs": "orange diamond",
}
"""The mark of each world's single-mark settings. `pairs` has two classes, and a small mark aligned to no grid."""

ARCHITECTURE = {
    **{"digits": "vit12", "silhouettes": "vit12", "textures": "vit8"},
    **dict.fromkeys(("radiograph", "pairs"), "vit7"),  # smaller patches, for their smaller regions
}
"""The model of each world (see `ravl.planted.tiny_clip`)."""
SECOND = "vit8"
"""The other one that is trained on the digits."""
SHIPPED = "vit14"
"""That of the shipped models, as in the demo."""

REPAIRED = ("digits", "textures", "silhouettes")
"""Worlds whose models are repaired."""
REPAIRED_STRENGTHS = (0.9, 0.98)

KINDS = ("shortcut", "null", "two marks", "global")
"""shortcut: one mark; null: V = 0; two marks: both at once; global: a bias of the whole image."""
WITHOUT = ("null", "global")
"""Kinds in which there is no local feature to find, so that every flag is a false alarm."""


@dataclass(frozen=True)
class Setting:
    """One model and its audit.

    marks: names in the world; ("brightness",) is the global shortcut. strength: Cramer's V of each mark. seed: of the
    training scenes, the model, the audited scenes and the audit.
    """

    world: str
    architecture: str
    marks: tuple[str, ...]
    strength: float
    seed: int
    kind: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}.")
        if (self.kind == "null") != (self.strength == 0):
            raise ValueError(f"a setting is of kind null if and only if V = 0, got {self.kind!r} with {self.strength}.")

    @property
    def id(self) -> str:
        """A name that never changes and can be a file's: world, architecture, marks, strength, seed."""
        marks = "+".join(re.sub(r"\W+", "_", mark) for mark in self.marks)
        return f"{self.world}-{self.architecture}-{marks}-V{self.strength:.2f}-s{self.seed}"


def full() -> tuple[Setting, ...]:
    """The settings of the full run; the first seed of everything comes before the second of anything."""
    found = [_single(world, mark, v, s) for world, mark in FIRST_MARK.items() for v in STRENGTHS for s in SEEDS]
    # V = .7 is close to where a shortcut is learned at all: one architecture is enough there
    second = [_single("digits", FIRST_MARK["digits"], v, s) for v in STRENGTHS if v != 0.7 for s in SEEDS]
    found += [replace(setting, architecture=SECOND) for setting in second]
    others = ("pacemaker", "chest drain", "laterality marker")
    found += [_single("radiograph", mark, 0.95, 0) for mark in others]
    both = ("red square", "blue disc")
    found += [_other("digits", both, v, s, "two marks") for v in (0.9, 0.99) for s in SEEDS]
    # one seed more, so that there are thirty audits without a local feature
    global_worlds = ("digits", "textures", "silhouettes")
    found += [_other(world, ("brightness",), 0.95, s, "global") for world in global_worlds for s in (*SEEDS, 3)]
    return tuple(sorted(found, key=lambda setting: setting.seed))


def repaired() -> tuple[Setting, ...]:
    """The settings whose models are repaired; the first seed of everything comes before the second of anything."""
    found = [_single(world, FIRST_MARK[world], v, s) for world in REPAIRED for v in REPAIRED_STRENGTHS for s in SEEDS]
    found += [_other("digits", ("red square", "blue disc"), 0.9, s, "two marks") for s in SEEDS]
    return tuple(sorted(found, key=lambda setting: setting.seed))


def without(setting: Setting) -> Setting:
    """The same setting without the shortcut, V = 0: its model is the ceiling of every repair."""
    return replace(setting, strength=0.0, kind="null")


def quick() -> tuple[Setting, ...]:
    """Two settings whose models are shipped: a shortcut to be found, and none."""
    found = (_single("digits", FIRST_MARK["digits"], v, 0) for v in (0.95, 0.0))
    return tuple(replace(setting, architecture=SHIPPED) for setting in found)


def chosen(settings: Sequence[Setting], worlds: Sequence[str]) -> tuple[Setting, ...]:
    """The settings of some worlds; all where none is named. Raises ConfigError for a world that has none."""
    known = sorted({setting.world for setting in settings})
    for world in worlds:
        if world not in known:
            raise ConfigError(f"--worlds must name some of {', '.join(known)}, got {world!r}.")
    return tuple(setting for setting in settings if not worlds or setting.world in worlds)


def _single(world: str, mark: str, strength: float, seed: int) -> Setting:
    return _other(world, (mark,), strength, seed, "shortcut" if strength else "null")


def _other(world: str, marks: tuple[str, ...], strength: float, seed: int, kind: str) -> Setting:
    return Setting(world, ARCHITECTURE[world], marks, strength, seed, kind)
