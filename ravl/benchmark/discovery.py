"""`ravl benchmark discovery`: train models whose spurious feature is known, audit them, and mark every method's answer.

Everything is kept in a folder, so that a run that was killed continues where it was:

    models/  trained models, by what they were trained on     scenes/  audited images     audits/<setting>/  the audits
    rows/<setting>.json  a setting's rows; it is whole, and there is nothing left to do for it
    errors/<setting>.txt  why a setting failed; it is tried again next time

A setting that was interrupted begins its audits anew, so that no row mixes two versions of the code.
"""

from __future__ import annotations

import shutil
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ravl.benchmark.auditing import Place, audit, audited_scenes, model_of, reliance_of, scene_of, truth_of_regions
from ravl.benchmark.figures import Truth, figures
from ravl.benchmark.provenance import commit
from ravl.benchmark.rivals import RANKERS, Audit, Ranked, permutation_only, random_order, with_evidence
from ravl.benchmark.rows import Reliance, Row, as_json, row_from, row_of
from ravl.benchmark.running import Kept, Tell, guarded, run_all
from ravl.benchmark.settings import Setting
from ravl.benchmark.slices import domino, failure_directions
from ravl.discovery.clustering import reduce
from ravl.store import AuditRun
from ravl.tables import NOISE

__all__ = ["Outcome", "Place", "attempt", "measure", "run"]

PROTOCOL = 6
"""Raised when rows are measured in another way: rows of another protocol are measured again."""

SHARED_STAGES = ("images", "regions", "embeddings", "zero_shot", "clusters")
CHANCE_STAGES = ("families", "features", "significance")
EVIDENCE_STAGES = (*CHANCE_STAGES, "exemplars", "counterfactuals", "evidence")


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
    kept = _kept(place)
    if fresh and not only_train:
        for setting in settings:
            kept.forget(setting)
    work = partial(attempt, place=place, only_train=only_train)
    found = run_all(settings, kept, work, jobs, only_train, tell)
    return Outcome(tuple(map(row_from, found.rows)), found.errors, found.commits)


def attempt(setting: Setting, place: Place, only_train: bool = False) -> str:
    """Train or measure one setting and return a line about it."""
    kept = _kept(place)

    def work() -> str:
        if only_train:
            reliance = reliance_of(model_of(setting, place), setting)
            return f"accuracy {reliance.accuracy:.3f}, eps1 {_list(reliance.eps1)}, eps2 {_list(reliance.eps2)}"
        rows = measure(setting, place)
        kept.keep(setting, commit(), [as_json(row) for row in rows])
        return _said(rows)

    return guarded(setting, kept, work)


def _kept(place: Place) -> Kept:
    return Kept(place.folder, PROTOCOL)


def measure(setting: Setting, place: Place) -> list[Row]:
    """All rows of one setting: train or load its model, audit it in both spaces, and mark every method."""
    model = model_of(setting, place)
    reliance = reliance_of(model, setting)
    scenes, images = audited_scenes(setting, place.folder)
    folder = place.folder / "audits" / setting.id
    chance = zlib.crc32(setting.id.encode())  # no two settings draw the same random order
    shutil.rmtree(folder, ignore_errors=True)
    rows: list[Row] = []
    run: AuditRun | None = None
    for space in place.spaces:
        if run is None or run.clustered_on != space:  # by default crops are clustered on the final embedding already
            run = audit(setting, model, images, space, folder, place.device)
        scene = scene_of(run)
        truth = truth_of_regions(scenes, scene, run, setting, reliance)
        shared = _seconds(run, SHARED_STAGES)
        answers = answers_of_regions(run, chance)
        rows += [_row(setting, reliance, space, ranked, seconds, truth, shared) for ranked, seconds in answers]
        if space == place.spaces[0]:  # methods of images see no clusters: once is enough
            of_images = replace(truth, shows=scenes.present[scene], touches=None)
            for ranked, seconds in answers_of_images(run, chance):
                rows.append(_row(setting, reliance, "image", ranked, seconds, of_images, shared))
    return rows


# --- answers and truth --------------------------------------------------------------------------------------------


def answers_of_regions(run: AuditRun, seed: int) -> list[tuple[Ranked, float]]:
    """Every method of regions on an audit, with the seconds it took."""
    audited = audit_of(run)
    methods: list[Callable[[Audit], Ranked]] = [partial(random_order, seed=seed), *RANKERS]
    answers = [_timed(method, audited) for method in methods]
    scores, feature_of = run.features(), run.feature_label().astype(np.int64)
    chance, alpha = run.significance(), run.config.significance.alpha
    tested = permutation_only(scores, chance, feature_of, audited.closeness, alpha)
    answers.append((tested, _seconds(run, CHANCE_STAGES)))
    answers.append((our_answer(run, audited), _seconds(run, EVIDENCE_STAGES)))
    return answers


def our_answer(run: AuditRun, audited: Audit) -> Ranked:
    """The audit's own order and flags. audited: `audit_of` it."""
    feature_of = run.feature_label().astype(np.int64)
    return with_evidence(run.features(), run.evidence(), run.exemplars(), feature_of, audited.closeness)


def answers_of_images(run: AuditRun, seed: int) -> list[tuple[Ranked, float]]:
    """Every method of images on an audit, with the seconds it took."""
    audited = audit_of(run)
    return [_timed(method, audited) for method in (partial(domino, seed=seed), failure_directions)]


def audit_of(run: AuditRun) -> Audit:
    """What the rivals may look at: the regions, scores and clusters of an audit."""
    regions, clustering = run.regions(), run.clustering()
    space = run.space()
    label = clustering.label.astype(np.int64)
    closeness = np.zeros(len(label), np.float32)
    own = label != NOISE
    vectors = reduce(clustering, np.asarray(space)[own], regions.position[own])
    closeness[own] = np.einsum("nk,nk->n", vectors, clustering.medoid_vector[label[own]])
    return Audit.of(regions, run.zero_shot(), label, closeness, run.array("image_embeddings"))


def _row(
    setting: Setting, reliance: Reliance, space: str, ranked: Ranked, seconds: float, truth: Truth, shared: float
) -> Row:
    found = figures(ranked, truth)
    return row_of(setting, reliance, space, ranked.name, len(ranked.order), found, seconds, shared)


def _timed(method: Callable[[Audit], Ranked], audited: Audit) -> tuple[Ranked, float]:
    begun = time.perf_counter()
    ranked = method(audited)
    return ranked, time.perf_counter() - begun


def _seconds(run: AuditRun, stages: Sequence[str]) -> float:
    noted: dict[str, Any] = run.about["stages"]
    return float(sum(noted[stage]["seconds"] for stage in stages if stage in noted))


def _said(rows: Sequence[Row]) -> str:
    ours = next(row for row in rows if row.method == "ours, with evidence")
    about = f"eps1 {ours.eps1}, eps2 {ours.eps2}"
    if ours.without:
        return f"{about}: {ours.flagged} false flags"
    return f"{about}: P@10 {ours.precision_at_10:.2f}, {ours.true} of {ours.flagged} flags true, {ours.found} found"


def _list(values: Sequence[float]) -> str:
    return "+".join(f"{value:.2f}" for value in values)
