"""Cached reading of runs, pictures and the ledger. Caches are bounded, and keyed by the folder's time of change.

A file of a run is replaced as a whole, which changes its folder's time: what is cached can never be half new.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image

from dashboard.choosing import reviewing
from dashboard.choosing.carried import Carried, carried, same_regions
from dashboard.choosing.family import Grouped
from dashboard.choosing.family import grouped as read_grouped
from dashboard.pictures import gallery
from dashboard.pictures.gallery import Card, Pair, Section
from dashboard.reading import selection, summaries
from dashboard.reading.evidence import Outcome, Trial
from dashboard.reading.opened import Audit, file_time, image_path, read_audit
from dashboard.reading.summaries import Crop, Finding
from dashboard.screen import state
from dashboard.serving import jobs
from dashboard.words import claims, wording
from ravl.data import load_images
from ravl.errors import DataError
from ravl.ledger import Ledger
from ravl.store import AuditRun, list_runs, open_workspace
from ravl.tables import ImageSet, Verdict


@st.cache_resource(max_entries=4, show_spinner=False)
def ledger(workspace: Path) -> Ledger:
    """The database of a workspace, which is created where it does not exist. Raises ConfigError or RunError."""
    return Ledger(open_workspace(workspace))


def runs(workspace: Path) -> list[AuditRun]:
    """All audits that can be opened, newest first."""
    return list_runs(workspace)


def audit(run: AuditRun) -> Audit:
    """The records of an audit. Raises RunError when its evidence is not weighed yet."""
    return _audit(str(run.path), run.path.stat().st_mtime_ns)


@st.cache_resource(max_entries=3, show_spinner="Opening the audit …")
def _audit(path: str, changed: int) -> Audit:
    return read_audit(AuditRun(path))


def projection(run: AuditRun) -> NDArray[np.float32]:
    """(R, 2) map coordinates."""
    return _projection(str(run.path), run.path.stat().st_mtime_ns)


@st.cache_resource(max_entries=3, show_spinner=False)
def _projection(path: str, changed: int) -> NDArray[np.float32]:
    return np.ascontiguousarray(AuditRun(path).projection(), np.float32)


def findings(
    run: AuditRun, book: Ledger, history: Sequence[Verdict] | None = None, everybody: bool = False
) -> tuple[Finding, ...]:
    """The features of an audit with the decisions of this moment; in a blind reading, with those of the reader alone.

    history: the events of the run, where they are read already. everybody: with the decisions that hold even in a blind
    reading, for what is done with them.
    """
    events = book.history(run.id) if history is None else history
    rows, digests = _findings(str(run.path), run.path.stat().st_mtime_ns, audit(run))
    rows = summaries.named(rows, book.names(run.id))
    blind = "" if everybody else state.blind_reader()
    holding = reviewing.holding(events, blind)
    if blind:
        return reviewing.judged(rows, holding, digests)
    return reviewing.judged(rows, holding, digests, book.groupings(run.id), _before(run, book))


def _before(run: AuditRun, book: Ledger) -> dict[int, Carried]:
    """Decisions of earlier audits of the same regions, those of the latest first."""
    found: dict[int, Carried] = {}
    for earlier in runs(state.workspace()):
        if earlier.id != run.id and (past := _decided(earlier, book)) and same_regions(run, earlier):
            label = _feature_label(str(earlier.path), earlier.path.stat().st_mtime_ns)
            found = {**carried(earlier.name, audit(run).feature_of, label, past), **found}
    return found


def _decided(run: AuditRun, book: Ledger) -> dict[int, Verdict]:
    return reviewing.holding(book.history(run.id))


@st.cache_resource(max_entries=4, show_spinner=False)
def _feature_label(path: str, changed: int) -> NDArray[np.int32]:
    return AuditRun(path).feature_label()


@st.cache_resource(max_entries=3, show_spinner=False)
def _findings(path: str, changed: int, _view: Audit) -> tuple[tuple[Finding, ...], dict[int, str]]:
    return summaries.findings(_view, {}), _view.digests()


def shown_points(run: AuditRun, limit: int = selection.MAX_POINTS) -> NDArray[np.int64]:
    """Ids of the regions drawn on the map: all of them, or a sample that keeps the share of every feature."""
    return _shown(str(run.path), run.path.stat().st_mtime_ns, limit, audit(run))


@st.cache_resource(max_entries=4, show_spinner=False)
def _shown(path: str, changed: int, limit: int, _view: Audit) -> NDArray[np.int64]:
    return selection.sample(_view.feature_of, limit)


def hover_texts(run: AuditRun) -> list[str]:
    """One text per point of the Plotly chart: ids and labels only, never a file name, which may name a patient."""
    shown = shown_points(run, selection.MAX_CHART_POINTS)
    return _hover_texts(str(run.path), run.path.stat().st_mtime_ns, audit(run), shown)


@st.cache_resource(max_entries=2, show_spinner=False)
def _hover_texts(path: str, changed: int, _view: Audit, _shown: NDArray[np.int64]) -> list[str]:
    return [f"region {r} of {text}" for r, text in zip(_shown, region_texts(_view, _shown, "<br>"), strict=True)]


def region_texts(view: Audit, regions: NDArray[np.integer[Any]], line: str) -> list[str]:
    """What is said about each region: its image, its class, what that was called, its feature; `line` breaks lines."""
    image = view.regions.image[regions]
    truth, called = view.zero_shot.label[image], view.zero_shot.image[image].argmax(1)
    names = view.class_names
    return [
        f"image {i}{line}{names[t]}, called {names[c]}{line}{f'feature {f}' if f >= 0 else 'no feature'}"
        for i, t, c, f in zip(image, truth, called, view.feature_of[regions], strict=True)
    ]


def grouped(run: AuditRun) -> Grouped:
    """The clusters of an audit and the features that they make."""
    return _grouped(str(run.path), run.path.stat().st_mtime_ns)


@st.cache_resource(max_entries=2, show_spinner=False)
def _grouped(path: str, changed: int) -> Grouped:
    return read_grouped(AuditRun(path))


# --- pictures --------------------------------------------------------------------------------------------------------


@st.cache_data(max_entries=4000, show_spinner=False)
def _pictures(
    file: str, changed: int, box: gallery.Box, smooth: bool, _images: ImageSet, image: int
) -> tuple[str, str]:
    """Crop and outlined image as data URIs; about 15 kB a pair, so the cache stays below 60 MB.

    The key is the file, its time of change and the box; the image set (named with an underscore: not hashed) reads it.
    """
    [picture] = load_images(_images, [image])
    crop, whole = gallery.cropped(picture, box, smooth=smooth), gallery.outlined(picture, (box,), smooth=smooth)
    return gallery.data_uri(crop), gallery.data_uri(whole)


def cards(view: Audit, crops: tuple[Crop, ...]) -> tuple[Card, ...]:
    """Crops with their pictures; a file that is gone since the audit becomes a card that says so."""
    return tuple(_card(view, number, crop) for number, crop in enumerate(crops))


def _card(view: Audit, number: int, crop: Crop) -> Card:
    first, second = wording.crop_caption(crop)
    alts = (wording.crop_alt(crop, whole=False), wording.crop_alt(crop, whole=True))
    missing = ""
    pair: tuple[str | None, str | None] = (None, None)
    try:
        path, changed = _file(view, crop.image)
        pair = _pictures(path, changed, crop.box, not state.pixelated(), view.images, crop.image)
    except DataError as error:
        missing = str(error)
    return Card(number, pair[0], pair[1], alts[0], alts[1], first, second, not crop.right, missing)


def _file(view: Audit, image: int) -> tuple[str, int]:
    """An image's path and time of change. Raises DataError when it is gone, or cannot be reached."""
    path = image_path(view, image)
    return str(path), file_time(path)


def full_picture(view: Audit, crop: Crop, outline: bool) -> Image.Image:
    """The whole image at reading size, with or without the box. Raises DataError when it cannot be read."""
    [image] = load_images(view.images, [crop.image])
    side, smooth = _side(image), not state.pixelated()
    if outline:
        return gallery.outlined(image, (crop.box,), side, smooth)
    return gallery.fitted(image.convert("RGB"), side, smooth=smooth)


def large_crop(view: Audit, crop: Crop) -> Image.Image:
    """The region alone at reading size. Raises DataError when the image cannot be read."""
    [image] = load_images(view.images, [crop.image])
    return gallery.cropped(image, crop.box, gallery.READING, not state.pixelated())


def _side(image: Image.Image) -> int:
    return min(gallery.LARGE, max(480, *image.size))


@st.cache_data(max_entries=2000, show_spinner=False)
def _trial_pictures(run: str, file: str, changed: int, trial: Trial, _view: Audit) -> tuple[str, str]:
    """An image with its regions outlined, and without them, as data URIs; at most 30 kB a pair."""
    before, after = trial_pictures(_view, trial, gallery.TILE)
    return gallery.data_uri(before), gallery.data_uri(after)


def trial_pictures(view: Audit, trial: Trial, side: int | None = None) -> tuple[Image.Image, Image.Image]:
    """The image with its regions outlined, and without them; side: longest side, by default for reading.

    Raises DataError when it cannot be read.
    """
    [image] = load_images(view.images, [trial.image])
    masks = [view.regions.mask_of(region) for region in trial.regions]
    size = side or _side(image)
    return (
        gallery.outlined(image, trial.boxes, size),
        gallery.removed(image, trial.boxes, masks, trial.operator, size),
    )


def sections(view: Audit, found: tuple[Outcome, ...]) -> tuple[Section, ...]:
    """Images with and without a feature, by what removal does to them; pairs are numbered through."""
    trials = [trial for outcome in found for trial in outcome.shown]
    pairs = iter([_pair(view, number, trial) for number, trial in enumerate(trials)])
    return tuple(Section(*claims.heading(outcome), tuple(next(pairs) for _ in outcome.shown)) for outcome in found)


def _pair(view: Audit, number: int, trial: Trial) -> Pair:
    missing = ""
    pictures: tuple[str | None, str | None] = (None, None)
    try:
        path, changed = _file(view, trial.image)
        pictures = _trial_pictures(view.run, path, changed, trial, view)
    except DataError as error:
        missing = str(error)
    return Pair(
        number,
        *pictures,
        *claims.trial_alts(trial),
        (f"called {trial.called}", trial.was_right),
        (f"called {trial.after}", trial.is_right),
        claims.trial_caption(trial),
        missing,
    )


# --- jobs ------------------------------------------------------------------------------------------------------------


def settle(book: Ledger) -> None:
    """Notice jobs whose process is gone."""
    jobs.reconcile(book)
