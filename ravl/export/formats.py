"""Every format by its name, and the one way to write it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ravl.errors import ConfigError, RunError
from ravl.export.confirmed import as_json, confirmed
from ravl.export.lists import as_artifacts, as_card, as_coco
from ravl.export.log import audit_log
from ravl.export.material import read
from ravl.export.rows import as_csv, as_groups
from ravl.ledger import Ledger
from ravl.store import AuditRun, writing


@dataclass(frozen=True)
class Format:
    """One format. title: what it is. label: on a button. ending: of the file's name. about: what it is for.

    needs_confirmed: says nothing without a confirmed feature. retired: names those that the run no longer has, too.
    """

    title: str
    label: str
    ending: str
    mime: str
    about: str
    make: Callable[[AuditRun, Ledger], str]
    needs_confirmed: bool = True
    retired: bool = False


FORMATS = {
    "json": Format(
        "Confirmed list",
        "JSON",
        "confirmed.json",
        "application/json",
        "Everything about the confirmed features: scores, regions with boxes, who decided, when and why. Another audit "
        "can import it.",
        lambda run, ledger: as_json(confirmed(run, ledger)),
        retired=True,
    ),
    "csv": Format(
        "Table",
        "CSV",
        "confirmed.csv",
        "text/csv",
        "The same for a spreadsheet: one row per region.",
        lambda run, ledger: as_csv(confirmed(run, ledger)),
        retired=True,
    ),
    "coco": Format(
        "Boxes",
        "COCO",
        "coco.json",
        "application/json",
        "The boxes of the confirmed regions, for labelling and detection tools.",
        lambda run, ledger: as_json(as_coco(read(run, ledger))),
    ),
    "groups": Format(
        "Groups",
        "groups",
        "groups.csv",
        "text/csv",
        "One row per image: its class, which confirmed features it shows, and the group these make, for group DRO and "
        "other worst-group tools.",
        lambda run, ledger: as_groups(read(run, ledger)),
        needs_confirmed=False,
    ),
    "artifacts": Format(
        "Images by feature",
        "image lists",
        "artifacts.json",
        "application/json",
        "For every confirmed feature the images that show it.",
        lambda run, ledger: as_json(as_artifacts(read(run, ledger))),
    ),
    "card": Format(
        "Paragraph for a model card",
        "paragraph",
        "card.md",
        "text/markdown",
        "What is known about the model, in words, for those who use it.",
        lambda run, ledger: as_card(read(run, ledger)),
        needs_confirmed=False,
    ),
    "log": Format(
        "Audit log",
        "log",
        "log.json",
        "application/json",
        "Every decision, withdrawal, grouping and import of this audit, in a chain of digests that shows changes.",
        lambda run, ledger: as_json(audit_log(run, ledger)),
        needs_confirmed=False,
    ),
}


def text(run: AuditRun, ledger: Ledger, format: str) -> str:
    """What people decided about a run, in one of FORMATS. Raises ConfigError for another format, RunError as `read`."""
    if format not in FORMATS:
        raise ConfigError(f"--format must be one of {', '.join(FORMATS)}, got {format!r}.")
    return FORMATS[format].make(run, ledger)


def features(run: AuditRun, ledger: Ledger, format: str) -> tuple[int, int]:
    """How many confirmed features a file of the format names, and how many it leaves out: the run has them no more."""
    found = read(run, ledger)
    named = found.confirmed if FORMATS[format].retired else found.present
    return len(named), len(found.confirmed) - len(named)


def write(content: str, out: Path) -> None:
    """Write a text, whole or not at all. A link is followed; a device or pipe is written to.

    Raises RunError when the file cannot be written.
    """
    path = Path(out)
    if path.exists() and not path.is_file() and not path.is_dir():  # /dev/stdout must not be replaced by a file
        try:
            path.write_text(content, encoding="utf-8", newline="")
        except OSError as error:
            raise RunError(f"{path} could not be written: {error.strerror or error}. Choose another --out.") from error
        return
    with writing(Path(os.path.realpath(path))) as partial:
        partial.write_text(content, encoding="utf-8", newline="")
