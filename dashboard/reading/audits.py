"""The Start page's tables: every audit with its state, and what is worth knowing before a new one runs. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dashboard.serving.jobs import argument, discover_arguments
from ravl.config import AuditConfig
from ravl.data.sources import HUB, parse
from ravl.errors import DataError
from ravl.ledger import Job
from ravl.planted.demos import DEMOS, demo_of
from ravl.store import STAGES, AuditRun
from ravl.tables import ImageSet

AUDIT_KINDS = ("discover", "demo")
MITIGATION_KIND = "mitigate"


@dataclass(frozen=True)
class AuditRow:
    """One audit. status: finished, running, queued, failed, cancelled, lost, or stopped (unfinished and not computed).

    stages_done: of all stages. job: the last job about it, or None when it was computed on the command line.
    drawn: whether its images are the drawings of the medical demo.
    """

    run: str
    name: str
    status: str
    stages_done: int
    images: str
    model: str
    created: str
    decided: int
    job: Job | None
    drawn: bool = False


def audit_row(run: AuditRun, jobs: Sequence[Job], decided: int) -> AuditRow:
    """One row. jobs: newest first."""
    about = run.about
    job = next((job for job in jobs if job.kind in AUDIT_KINDS and concerns(job, run)), None)
    finished = run.finished
    status = "finished" if finished else "stopped" if job is None or job.status == "done" else job.status
    done = sum(run.has(stage) for stage in STAGES)
    demo = demo_of(run.path.parents[1], run.config.images)
    return AuditRow(
        *(run.id, run.name, status, done, run.config.images, run.config.model, about["created"], decided, job),
        drawn=demo is not None and demo.medical,
    )


def concerns(job: Job, run: AuditRun) -> bool:
    """Whether a job computes this run: it says so itself, or carries its name until it has a run folder."""
    name = argument(job, "--name")
    if job.kind == "demo":
        name = DEMOS[argument(job, "--world") or "digits"].name
    return job.run == run.id if job.run else name == run.name


def last_words(jobs: Sequence[Job], kinds: Sequence[str], finished: Sequence[AuditRun] = ()) -> tuple[Job, ...]:
    """Jobs that ended badly and were not started again since, newest first. jobs: newest first.

    finished: runs that need no job any more, however they were finished.
    """
    seen: set[tuple[str, ...]] = set()
    ended = []
    for job in jobs:
        if job.kind not in kinds or job.arguments in seen:
            continue
        seen.add(job.arguments)
        if job.status in ("failed", "lost", "cancelled") and not any(concerns(job, run) for run in finished):
            ended.append(job)
    return tuple(ended)


def free_name(wanted: str, taken: Sequence[str]) -> str:
    """A run name of letters, digits, dot, dash and underscore that is not taken yet."""
    base = re.sub(r"[^A-Za-z0-9._-]+", "-", wanted)[:60].strip("-.") or "audit"
    number, name = 2, base
    while name in taken:
        name, number = f"{base}-{number}", number + 1
    return name


@dataclass(frozen=True)
class InputCheck:
    """What is known about an image set before anything runs.

    counts: (class, images), in label order. skipped: (file, reason). warnings: sentences, the most serious first.
    """

    n_images: int
    counts: tuple[tuple[str, int], ...]
    skipped: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]


FEW = 20
"""A class with fewer images than this is worth a warning: its gaps will mean little."""


def check_inputs(images: ImageSet) -> InputCheck:
    """Count the classes of an image set and name what will make an audit weak."""
    sizes = np.bincount(images.label, minlength=len(images.class_names))
    counts = tuple((name, int(n)) for name, n in zip(images.class_names, sizes, strict=True))
    present = [(name, n) for name, n in counts if n]
    warnings = []
    if not present:
        warnings.append("There are no images. Give another folder or manifest.")
    elif len(present) == 1:
        warnings.append(
            "All images belong to one class, so no error can be attributed to a feature. Add images of other classes."
        )
    empty = [name for name, n in counts if not n]
    if empty and present:
        warnings.append(f"No images of {_listed(empty)}. The model can still answer with it.")
    few = [name for name, n in present if n < FEW]
    if few:
        warnings.append(f"Fewer than {FEW} images of {_listed(few)}: what is said about them will be uncertain.")
    if unread := len(images.unreadable):
        said = "1 listed file cannot be read and is" if unread == 1 else f"{unread} listed files cannot be read and are"
        warnings.append(f"{said} left out; see below.")
    if none := len(images.empty_folders):
        warnings.append(
            "1 folder without images is no class." if none == 1 else f"{none} folders without images are no classes."
        )
    return InputCheck(len(images), counts, images.skipped, tuple(warnings))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def model_note(reference: str) -> tuple[bool, str]:
    """Whether a model reference can be right, and what will happen with it. The model itself is not opened here."""
    text = reference.strip()
    path = Path(text.removeprefix("local-dir:")).expanduser()
    if not text:
        return False, "A model is needed: a folder saved with save_pretrained, or a name on the Hugging Face hub."
    if text in (demo.model for demo in DEMOS.values()):
        return True, "The demo's model is part of RAVL."
    if path.is_dir():
        if not any((path / name).is_file() for name in ("config.json", "open_clip_config.json")):
            return False, f"{path} is a folder without config.json. Give the folder that save_pretrained wrote."
        return True, f"The model is read from {path.resolve()}."
    if path.exists():
        return False, f"{path} is a file. Give the folder that save_pretrained wrote."
    if re.fullmatch(r"open_clip:[\w.-]+/[\w.-]+", text):
        return True, f"{text} is a model of open_clip's list; it is downloaded unless it is in the local cache."
    if re.fullmatch(r"(hf-hub:)?[\w.-]+/[\w.-]+", text):
        return True, f"{text} is taken from the Hugging Face hub; it is downloaded unless it is in the local cache."
    return False, f"{text} is neither a folder nor a hub name such as openai/clip-vit-base-patch32."


def repeated(config: AuditConfig, name: str, model: str) -> list[str]:
    """The arguments of the same audit: of another model under a new name, or to continue one that was cut short."""
    return discover_arguments(
        name,
        config.images,
        model,
        classes=config.prompts.written,
        templates=config.prompts.templates,
        regions=str(config.regions),
        encoder=config.embedding.encoder,
        clustering=config.clustering.method,
        cluster_on=config.clustering.cluster_on,
        tau=str(config.prompts.tau),
        rule=config.evidence.rule,
        split_half=config.significance.split_half,
        frames=config.frames,
        hide_names=config.hide_names,
        seed=config.seed,
    )


def images_problem(reference: str) -> str:
    """Why a reference to images cannot be read here; empty when it can. The hub is not asked."""
    if reference.startswith(HUB):
        return ""
    try:
        found = parse(reference)
    except DataError as error:
        return str(error)
    return "" if found.path.exists() else f"There is no file or folder {found.path} on this machine."


def copied_first(reference: str) -> str:
    """Why a set of images cannot be looked at before its audit; empty when it can."""
    if not reference.startswith(HUB):
        return ""
    return (
        "The images of a Hugging Face data set are copied into the workspace when the audit starts, so they cannot be "
        "checked before."
    )


def demo_split(workspace: Path, images: str, split: str) -> str:
    """The folder of another split, when an audit's images are a demo's; else empty."""
    demo = demo_of(workspace, images)
    return str(workspace / demo.folder / split) if demo else ""
