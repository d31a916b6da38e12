"""What is done to an audited model in the evaluation of repairs, and what each way may know."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ravl.benchmark.settings import Setting

KINDS = ("audited", "ours", "part", "baseline", "ceiling", "one mark")
"""audited: the model as it is. ours: the default of `ravl mitigate`. part: of ours. baseline: another method, with the
same knowledge. ceiling: knows what nobody knows without labelling: the true groups, the planted mark, or data without
the shortcut. one mark: ours, of two marks only one of which is treated."""


@dataclass(frozen=True)
class Arm:
    """One way. method: of `ravl mitigate`, "": nothing is trained here. truth: the planted mark is treated in place of
    what the audit found. only: number of the single mark that is treated; -1: all features that the audit flagged."""

    name: str
    kind: str
    method: str = ""
    truth: bool = False
    only: int = -1

    @property
    def file(self) -> str:
        """The name as that of a file."""
        return re.sub(r"\W+", "_", self.name)


AUDITED = "audited model"
OURS = "ravl"
PAPER = "paper"
WITHOUT = "trained without the shortcut"
ORACLE = "ravl, true features"

ARMS = (
    Arm(AUDITED, "audited"),
    *(Arm(name, "baseline", name) for name in ("standard", "upsampled", "vl-erm", "vl-gdro", "jtt", "dfr")),
    *(Arm(name, "baseline", name) for name in ("project", "erase", PAPER)),
    *(Arm(name, "part", name) for name in ("families", "exchange")),
    Arm(OURS, "ours", OURS),
    Arm(ORACLE, "ceiling", OURS, truth=True),
    Arm("gdro-true", "ceiling", "gdro-true"),
    Arm(WITHOUT, "ceiling"),
)
"""In the order of the tables."""

QUICK = (AUDITED, "standard", PAPER, OURS, WITHOUT)
"""Names of the arms of the quick run."""


def alone(mark: str) -> str:
    """The name of the arm that treats this mark and no other."""
    return f"{OURS}, {mark} alone"


def arms_of(setting: Setting, names: tuple[str, ...] = ()) -> tuple[Arm, ...]:
    """The arms of a setting. names: only these of ARMS, and the two that all are compared with; without names all, and
    where there are two marks also each treated alone."""
    if names:
        return tuple(arm for arm in ARMS if arm.name in (AUDITED, *names, WITHOUT))
    if setting.kind != "two marks":
        return ARMS
    return (*ARMS, *(Arm(alone(mark), "one mark", OURS, only=m) for m, mark in enumerate(setting.marks)))
