"""The map's own component: a canvas that draws, lassoes, zooms and answers to keys in the browser (see `static/`).

Positions, colours and the rest are messages of their own, because Streamlit does not send again what has not changed:
a new colouring sends one byte a point, a selection one bit.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dashboard.pictures import packing
from dashboard.pictures.packing import Frame
from dashboard.reading import summaries
from dashboard.reading.opened import Audit
from dashboard.screen import readers, state
from dashboard.words import wording
from ravl.store import AuditRun

_STATIC = Path(__file__).resolve().parents[1] / "static"


@cache
def _text(*names: str) -> str:
    return "\n".join((_STATIC / name).read_text(encoding="utf-8") for name in names)


_STORE = st.components.v2.component("ravl_map_store", js=_text("store.js"))
_HOVER = st.components.v2.component("ravl_map_hover", js=_text("hover.js"))
_MAP = st.components.v2.component(
    "ravl_map", html=_text("map.html"), css=_text("map.css"), js=_text("geometry.js", "painting.js", "map.js")
)


@dataclass(frozen=True)
class Geometry:
    """Where the regions of an audit are drawn.

    points: (R, 2). shown: ids of the drawn ones, rising. drawable: (R,) whether a region has a place at all.
    message: their positions for the browser, with its version.
    """

    points: NDArray[np.float32]
    shown: NDArray[np.int64]
    drawable: NDArray[np.bool_]
    frame: Frame
    message: bytes
    version: str


def geometry(run: AuditRun) -> Geometry:
    """The geometry of an audit, computed once while its files do not change."""
    shown = readers.shown_points(run)
    return _geometry(str(run.path), run.path.stat().st_mtime_ns, len(shown), readers.projection(run), shown)


@st.cache_resource(max_entries=3, show_spinner=False)
def _geometry(path: str, changed: int, drawn: int, _points: NDArray[np.float32], _shown: NDArray[np.int64]) -> Geometry:
    frame = packing.frame_of(_points)
    placed = packing.positions(_points[_shown], frame)
    version = _digest(placed)
    message = packing.packed({"name": "points", "version": version}, placed)
    drawable = np.asarray(np.isfinite(_points).all(axis=1))
    return Geometry(_points, _shown, drawable, frame, message, version)


def _digest(array: NDArray[Any]) -> str:
    return hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Entry:
    """One legend entry: its code is its place. count: regions under the other filters."""

    name: str
    colour: str
    count: int
    hidden: bool
    quiet: bool


def draw(
    run: str,
    by: str,
    where: Geometry,
    codes: NDArray[np.uint8],
    entries: list[Entry],
    shapes: tuple[packing.Cells, ...],
    selected: NDArray[np.bool_] | None,
    said: str,
    heard: dict[str, int],
) -> None:
    """Draw the map. codes: of the drawn points, `packing.HIDDEN` for those that are not shown. selected: of the drawn
    points; None without a selection. said: what a screen reader hears. heard: last event of each kind that was taken.

    What is done on the map is in the state of the widget `key_of(run)`, for `events`.
    """
    version = _digest(codes)
    with st.container(key="map-store"):
        _STORE(key="map-points", data=where.message)
        _STORE(key="map-codes", data=packing.packed({"name": "codes", "version": version}, codes))
    data = {
        "run": run,
        "by": by,
        "points": where.version,
        "codes": version,
        "entries": [vars(entry) for entry in entries],
        "shapes": [[value for corner in cells for value in corner] for cells in shapes],
        "selected": None if selected is None else packing.bits(selected),
        "said": said,
        "ack": heard,
        "texts": {"nothing": "No region matches the filters. Take one of them away."},
    }
    _MAP(key=key_of(run), data=data, on_drawn_change=_nothing, on_legend_change=_nothing)


def key_of(run: str) -> str:
    """The key of the map of one audit."""
    return f"map-canvas-{run}"


def events(value: Any, kind: str, heard: int) -> list[dict[str, Any]]:
    """The new events of a kind in the component's state, oldest first; those up to `heard` were heard before."""
    found = (value or {}).get(kind)
    new = [item for item in found if _is_event(item) and item["seq"] > heard] if isinstance(found, list) else []
    return sorted(new, key=lambda item: int(item["seq"]))


def _is_event(item: Any) -> bool:
    return isinstance(item, dict) and type(item.get("seq")) is int


def hover(run: AuditRun, audit: Audit, where: Geometry) -> None:
    """Answer for the region under the pointer: its crop, and who it is. Runs alone, beside the map."""
    result = _HOVER(key=f"map-hover-{run.id}", data=_answer(run.id, audit, where), on_asked_change=_nothing)
    del result  # what is asked is read from the state before anything is drawn


def _answer(run: str, audit: Audit, where: Geometry) -> dict[str, Any] | None:
    asked = (state.widget(f"map-hover-{run}") or {}).get("asked")
    asked = asked if isinstance(asked, dict) else {}
    point = asked.get("point")
    if type(point) is not int or not 0 <= point < len(where.shown):
        return None
    region = where.shown[point : point + 1]
    [crop] = summaries.crops(audit, region)
    [card] = readers.cards(audit, (crop,))
    [text] = readers.region_texts(audit, region, "\n")
    text = f"Region {crop.region}, {text}" + (f"\n{card.missing}" if card.missing else "")
    return {
        "point": point,
        "points": where.version,
        "seq": asked.get("seq"),
        "picture": card.crop,
        "alt": wording.crop_alt(crop, whole=False),
        "text": text,
    }


def _nothing() -> None:
    """A callback is what makes Streamlit keep the value."""
