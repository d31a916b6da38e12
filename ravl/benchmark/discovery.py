"""`ravl benchmark discovery`: train models whose spurious feature is known, audit them, and mark every method's answer.

Everything is kept in a folder, so that a run that was killed continues where it was:

    models/  trained models, by what they were trained on     scenes/  audited images     audits/<setting>/  the audits
    rows/<setting>.json  a setting's rows; it is whole, and there is nothing left to do for it
    errors/<setting>.txt  why a setting failed; it is tried again next time

A setting that was interrupted begins its audits anew, so that no row mixes two versions of the code.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import traceback
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ravl.benchmark.figures import Truth, figures
from ravl.benchmark.provenance import commit
from ravl.benchmark.rivals import RANKERS, Audit, Ranked, permutation_only, random_order, with_evidence
from ravl.benchmark.rows import SPACES, Reliance, Row, as_json, row_from, row_of
from ravl.benchmark.settings import WITHOUT, Setting
from ravl.benchmark.slices import domino, failure_directions
from ravl.discovery.clustering import reduce
from ravl.planted.worlds import WORLDS, Scenes, make, shows, write_scenes
from ravl.store import AuditRun, read_json, write_json
from ravl.store.files import locked
from ravl.tables import NOISE

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROTOCOL = 1
"""Raised when rows are measured in another way: rows of another protocol are measured again."""

IMAGES = {"grid:2": 1000, "grid:4": 800}
"""Audited images by the grid of the world."""

SHARED_STAGES = ("images", "regions", "embeddings", "zero_shot", "clusters")
CHANCE_STAGES = ("families", "features", "significance")
EVIDENCE_STAGES = (*CHANCE_STAGES, "exemplars", "counterfactuals", "evidence")

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """Where and how settings are measured. shipped: a folder of models, <setting>/; looked at before one is trained.
    spaces: what regions are clustered on."""

    folder: Path
    device: str = "auto"
    shipped: Path | None = None
    spaces: tuple[str, ...] = SPACES


@dataclass(frozen=True)
class Outcome:
    """What a run found. rows: of all settings that are finished; errors: setting id -> last line of why it failed."""

    rows: tuple[Row, ...]
    errors: dict[str, str]
    commits: tuple[str, ...]


def run(
    settings: Sequence[Setting],
    place: Place,
    *,
    jobs: int = 1,
    only_train: bool = False,
    fresh: bool = False,
    tell: Tell = print,
) -> Outcome:
    """Measure every setting that is not measured yet, and return all rows.

    jobs: processes at once; each gets its share of the processors. only_train: train the models and stop. fresh:
    measure again what is measured already (models are kept). tell: gets a line per setting.
    """
    if fresh and not only_train:
        for setting in settings:
            _rows_file(place.folder, setting).unlink(missing_ok=True)
    waiting = [setting for setting in settings if only_train or _finished(place.folder, setting) is None]
    tell(f"{len(settings)} settings, {len(waiting)} to do, in {place.folder}")
    if jobs == 1:
        for n, setting in enumerate(waiting, 1):
            tell(f"{n} of {len(waiting)}  {attempt(setting, place, only_train)}")
    else:
        _in_processes(waiting, place, jobs, only_train, tell)
    found = [(setting, _finished(place.folder, setting)) for setting in settings]
    rows = tuple(row_from(saved) for _, document in found if document for saved in document["rows"])
    commits = tuple(sorted({document["commit"] for _, document in found if document}))
    errors = {setting.id: _error(place.folder, setting) for setting in settings}
    if len(commits) > 1:
        tell(f"the rows are of {len(commits)} states of the code ({', '.join(commits)}); --fresh measures all again")
    return Outcome(rows, {name: reason for name, reason in errors.items() if reason}, commits)


def _in_processes(waiting: Sequence[Setting], place: Place, jobs: int, only_train: bool, tell: Tell) -> None:
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_limit_threads, initargs=(threads,)) as pool:
        started: dict[Future[str], Setting] = {pool.submit(attempt, s, place, only_train): s for s in waiting}
        for n, future in enumerate(as_completed(started), 1):
            reason = future.exception()  # of the process itself, such as one that was killed
            if reason is not None:
                _note_error(place.folder, started[future], str(reason))
            said = future.result() if reason is None else f"{started[future].id}  FAILED: {reason}"
            tell(f"{n} of {len(waiting)}  {said}")


def _limit_threads(threads: int) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)


def attempt(setting: Setting, place: Place, only_train: bool = False) -> str:
    """Train or measure one setting and return a line about it. An error is recorded and told, the next one goes on."""
    begun = time.perf_counter()
    _error_file(place.folder, setting).unlink(missing_ok=True)
    try:
        if only_train:
            reliance = reliance_of(model_of(setting, place), setting)
            said = f"accuracy {reliance.accuracy:.3f}, eps1 {_list(reliance.eps1)}, eps2 {_list(reliance.eps2)}"
        else:
            rows = measure(setting, place)
            document = {"protocol": PROTOCOL, "commit": commit(), "rows": [as_json(row) for row in rows]}
            write_json(_rows_file(place.folder, setting), document)
            said = _said(rows)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is recorded, told, and tried again next time
        _note_error(place.folder, setting, "".join(traceback.format_exception(error)))
        return f"{setting.id}  FAILED: {_error(place.folder, setting)}"
    return f"{setting.id}  {said}  ({time.perf_counter() - begun:.0f} s)"


def measure(setting: Setting, place: Place) -> list[Row]:
    """All rows of one setting: train or load its model, audit it in both spaces, and mark every method."""
    model = model_of(setting, place)
    reliance = reliance_of(model, setting)
    scenes, images = audited_scenes(setting, place.folder)
    folder = place.folder / "audits" / setting.id
    chance = zlib.crc32(setting.id.encode())  # no two settings draw the same random order
    shutil.rmtree(folder, ignore_errors=True)
    rows: list[Row] = []
    for space in place.spaces:
        run = _audit(setting, model, images, space, folder, place.device)
        scene = scene_of(run)
        truth = truth_of_regions(scenes, scene, run, setting, reliance)
        shared = _seconds(run, SHARED_STAGES)
        answers = answers_of_regions(run, chance)
        rows += [_row(setting, reliance, space, ranked, seconds, truth, shared) for ranked, seconds in answers]
        if space == place.spaces[0]:  # methods of images see no clusters: once is enough
            of_images = replace(truth, shows=scenes.present[scene])
            for ranked, seconds in answers_of_images(run, chance):
                rows.append(_row(setting, reliance, "image", ranked, seconds, of_images, shared))
    return rows


def model_of(setting: Setting, place: Place) -> Path:
    """The setting's model: a shipped one, one that was trained before, or a new one."""
    from ravl.planted.tiny_clip import cached_model

    if place.shipped is not None and (place.shipped / setting.id / "config.json").exists():
        return place.shipped / setting.id
    models = place.folder / "models"
    return cached_model(models, setting.world, setting.architecture, setting.marks, setting.strength, setting.seed)


def reliance_of(model: Path, setting: Setting) -> Reliance:
    """How much a model relies on its marks, as written beside it when it was trained."""
    marks = read_json(model / "setting.json")["reliance"]
    found = [marks[mark] for mark in setting.marks]
    return Reliance(found[0]["accuracy"], tuple(m["eps1"] for m in found), tuple(m["eps2"] for m in found))


def audited_scenes(setting: Setting, folder: Path) -> tuple[Scenes, Path]:
    """The scenes that are audited, without correlation, and the image folder that holds them; written once.

    The folder's name holds a digest of the pixels, so that scenes of an older world are never taken for today's.
    """
    plan = WORLDS[setting.world]
    scenes = make(setting.world, setting.marks, "test", IMAGES[plan.regions], None, setting.seed)
    marks = "+".join(mark.replace(" ", "_") for mark in setting.marks)
    pixels = hashlib.sha256(scenes.image.tobytes()).hexdigest()[:8]
    images = folder / "scenes" / f"{setting.world}-{marks}-s{setting.seed}-{pixels}"
    with locked(images.with_name(images.name + ".lock"), "the audited scenes", wait=True):
        write_scenes(images, scenes)
    return scenes, images


def _audit(setting: Setting, model: Path, images: Path, space: str, folder: Path, device: str) -> AuditRun:
    import ravl

    plan = WORLDS[setting.world]
    return ravl.discover(
        images,
        model,
        classes=plan.class_names,
        templates=plan.prompts,
        regions=plan.regions,
        cluster_on=space,
        seed=setting.seed,
        device=device,
        workspace=folder,
        name=space,
        until="evidence",
    )


# --- answers and truth --------------------------------------------------------------------------------------------


def answers_of_regions(run: AuditRun, seed: int) -> list[tuple[Ranked, float]]:
    """Every method of regions on an audit, with the seconds it took."""
    audit = audit_of(run)
    methods: list[Callable[[Audit], Ranked]] = [partial(random_order, seed=seed), *RANKERS]
    answers = [_timed(method, audit) for method in methods]
    scores, feature_of = run.features(), run.feature_label().astype(np.int64)
    chance, alpha = run.significance(), run.config.significance.alpha
    tested = permutation_only(scores, chance, feature_of, audit.closeness, alpha)
    answers.append((tested, _seconds(run, CHANCE_STAGES)))
    ours = with_evidence(scores, run.evidence(), run.exemplars(), feature_of, audit.closeness)
    answers.append((ours, _seconds(run, EVIDENCE_STAGES)))
    return answers


def answers_of_images(run: AuditRun, seed: int) -> list[tuple[Ranked, float]]:
    """Every method of images on an audit, with the seconds it took."""
    audit = audit_of(run)
    return [_timed(method, audit) for method in (partial(domino, seed=seed), failure_directions)]


def audit_of(run: AuditRun) -> Audit:
    """What the rivals may look at: the regions, scores and clusters of an audit."""
    regions, clustering = run.regions(), run.clustering()
    space = run.array("region_features" if run.config.clustering.cluster_on == "middle" else "region_embeddings")
    label = clustering.label.astype(np.int64)
    closeness = np.zeros(len(label), np.float32)
    own = label != NOISE
    vectors = reduce(clustering, np.asarray(space)[own], regions.position[own])
    closeness[own] = np.einsum("nk,nk->n", vectors, clustering.medoid_vector[label[own]])
    return Audit.of(regions, run.zero_shot(), label, closeness, run.array("image_embeddings"))


def scene_of(run: AuditRun) -> NDArray[np.int64]:
    """(I,) number of the scene that each audited image shows; the files are named after it."""
    return np.array([int(Path(name).stem) for name in run.images().file], np.int64)


def truth_of_regions(
    scenes: Scenes, scene: NDArray[np.int64], run: AuditRun, setting: Setting, reliance: Reliance
) -> Truth:
    """What every region shows, and which marks can be found. The global shortcut is no mark: M = 0 there."""
    regions = run.regions()
    planted = np.full(len(scenes.marks), setting.kind not in WITHOUT)
    learned = np.array(reliance.learned[: len(scenes.marks)], np.bool_)
    return Truth(
        shows(scenes, scene[regions.image], regions.box), np.array(scenes.target, np.int64), planted, planted & learned
    )


def _row(
    setting: Setting, reliance: Reliance, space: str, ranked: Ranked, seconds: float, truth: Truth, shared: float
) -> Row:
    found = figures(ranked, truth)
    return row_of(setting, reliance, space, ranked.name, len(ranked.order), found, seconds, shared)


def _timed(method: Callable[[Audit], Ranked], audit: Audit) -> tuple[Ranked, float]:
    begun = time.perf_counter()
    ranked = method(audit)
    return ranked, time.perf_counter() - begun


def _seconds(run: AuditRun, stages: Sequence[str]) -> float:
    noted: dict[str, Any] = run.about["stages"]
    return float(sum(noted[stage]["seconds"] for stage in stages if stage in noted))


# --- what is kept -------------------------------------------------------------------------------------------------


def _rows_file(folder: Path, setting: Setting) -> Path:
    return folder / "rows" / f"{setting.id}.json"


def _error_file(folder: Path, setting: Setting) -> Path:
    return folder / "errors" / f"{setting.id}.txt"


def _finished(folder: Path, setting: Setting) -> dict[str, Any] | None:
    """The rows document of a finished setting; None where it has still to be measured."""
    path = _rows_file(folder, setting)
    document: dict[str, Any] | None = read_json(path) if path.exists() else None
    return document if document and document["protocol"] == PROTOCOL else None


def _note_error(folder: Path, setting: Setting, text: str) -> None:
    path = _error_file(folder, setting)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _error(folder: Path, setting: Setting) -> str:
    """The last line of a setting's error; empty where there is none."""
    path = _error_file(folder, setting)
    lines = path.read_text(encoding="utf-8").strip().splitlines() if path.exists() else []
    return lines[-1] if lines else ""


def _said(rows: Sequence[Row]) -> str:
    ours = next(row for row in rows if row.method == "ours, with evidence")
    about = f"eps1 {ours.eps1}, eps2 {ours.eps2}"
    if ours.without:
        return f"{about}: {ours.flagged} false flags"
    return f"{about}: P@10 {ours.precision_at_10:.2f}, {ours.true} of {ours.flagged} flags true, {ours.found} found"


def _list(values: Sequence[float]) -> str:
    return "+".join(f"{value:.2f}" for value in values)
