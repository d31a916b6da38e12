"""Map: all regions in two dimensions; drawing around some shows their crops and counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dashboard.acting import new_feature
from dashboard.choosing import filters, map_words
from dashboard.choosing.filters import Facet, Filters
from dashboard.pictures import charts, colouring, markup, packing
from dashboard.reading import selection, summaries
from dashboard.reading.opened import Audit
from dashboard.reading.selection import Chosen
from dashboard.reading.summaries import Finding
from dashboard.screen import panels, readers, region_canvas, state
from dashboard.screen.region_canvas import Geometry
from dashboard.words import wording
from ravl.store import AuditRun

PAGE_SIZE = 12


def render() -> None:
    """Draw the page."""
    panels.heading("Map", map_words.PURPOSE)
    run = panels.current_run()
    if run is None or not panels.needs(run, "projection", "The map"):
        return
    audit, book = readers.audit(run), readers.ledger(state.workspace())
    if not len(audit.regions):
        panels.empty("This audit has no regions to draw.", "start", "Start another audit")
        return
    new_feature.news(run, book)
    st.html(f"<style>{_STYLE}</style>")
    _map(run, readers.findings(run, book))
    with st.container(key="map-hover"):
        _hover(run)


_STYLE = """
.st-key-map-store, .st-key-map-hover { display: none; }
.st-key-map-side { height: max(430px, calc(100vh - 250px)); overflow-y: auto; --ravl-card: 150px; }
"""


@dataclass(frozen=True)
class _Scene:
    """What the map shows now. visible, mask: (R,) regions that the filters show, and those of them in the selection.

    mask: None without a selection.
    """

    run: AuditRun
    audit: Audit
    rows: tuple[Finding, ...]
    where: Geometry
    found: dict[str, Facet]
    rules: Filters
    visible: NDArray[np.bool_]
    mask: NDArray[np.bool_] | None

    @property
    def chosen(self) -> Chosen | None:
        return None if self.mask is None else selection.chosen(self.audit, np.flatnonzero(self.mask))


@st.fragment
def _map(run: AuditRun, rows: tuple[Finding, ...]) -> None:
    """Map, filters and selection; whatever is done here draws only this part anew, and the map keeps its zoom."""
    with state.errors_as_sentences():
        audit, where = readers.audit(run), region_canvas.geometry(run)
        found = filters.facets(audit, rows)
        _hear(run.id, audit, rows, found)
        rules = filters.read(state.kept(run.id, "filter"), found)
        visible = filters.visible(found, rules)
        picked = _picked(run.id, rows)
        mask = _mask(run.id, audit, where, picked)
        scene = _Scene(run, audit, rows, where, found, rules, visible, None if mask is None else mask & visible)
        by = _controls(scene)
        left, right = st.columns([3, 2], gap="medium")
        with left:
            _draw(scene, by)
        with right, st.container(key="map-side"):
            _side(scene, picked)


@st.fragment
def _hover(run: AuditRun) -> None:
    """The region under the pointer: a conversation beside the map."""
    with state.errors_as_sentences():
        region_canvas.hover(run, readers.audit(run), region_canvas.geometry(run))


def _mask(run: str, audit: Audit, where: Geometry, picked: int | None) -> NDArray[np.bool_] | None:
    """(R,) what is selected, before the filters: the regions of a feature, or those inside the drawn shapes."""
    drawn = state.shapes(run)
    if picked is None and not drawn:
        return None
    mask = np.zeros(len(where.points), bool)
    if picked is not None:
        mask[audit.members(picked)] = True
        return mask
    mask[selection.enclosed(where.points, tuple(packing.from_grid(cells, where.frame) for cells in drawn))] = True
    return mask


# --- above the map ---------------------------------------------------------------------------------------------------


def _controls(scene: _Scene) -> str:
    """Colouring and filters. Returns the colouring."""
    run = scene.run.id
    with st.container(horizontal=True, vertical_alignment="center", key="map-controls"):
        st.markdown("Colour by", width="content")
        by = state.kept(run, "colour")
        by = by if by in colouring.COLOURINGS else "feature"
        state.set_widget("map-colour", by)
        st.segmented_control(
            "Colour by",
            list(colouring.COLOURINGS),
            required=True,
            format_func=colouring.COLOURINGS.__getitem__,
            key="map-colour",
            label_visibility="collapsed",
            on_change=lambda: state.keep(run, "colour", str(state.widget("map-colour") or "feature")),
        )
        st.space("stretch")
        active = len(scene.rules.active)
        with st.popover(f"Filters ({active})" if active else "Filters", icon=":material/filter_alt:"):
            places = st.columns(2)
            for number, facet in enumerate(scene.found.values()):
                with places[number % 2]:
                    _filter(scene, facet)
    return by


def _filter(scene: _Scene, facet: Facet) -> None:
    run, key = scene.run.id, f"map-only-{facet.name}"
    counts = filters.counts(scene.found, scene.rules, facet.name)
    only = scene.rules.only.get(facet.name, frozenset())
    present = filters.options(facet, counts, only)
    labels = {name: map_words.option(facet, counts, name) for name in facet.keys}

    def keep() -> None:
        # the rules of now: those of the last drawing may lack what was chosen in between
        rules, chosen = filters.read(state.kept(run, "filter"), scene.found), frozenset(state.widget(key) or ())
        state.keep(run, "filter", filters.written(rules.with_only(facet.name, chosen)))

    state.set_widget(key, [name for name in present if name in only])
    st.multiselect(facet.title, present, format_func=labels.__getitem__, key=key, placeholder="all", on_change=keep)


def _no_filters(run: str) -> None:
    state.keep(run, "filter", "")


# --- the map ---------------------------------------------------------------------------------------------------------


def _draw(scene: _Scene, by: str) -> None:
    plotly = state.kept(scene.run.id, "chart") == "plotly"
    coloured = _coloured(scene.run.id, scene.audit, scene.rows, by)
    shown = readers.shown_points(scene.run, selection.MAX_CHART_POINTS) if plotly else scene.where.shown
    if plotly:
        _chart(scene, shown, coloured)
    else:
        _canvas(scene, by, coloured)
    if len(shown) < len(scene.where.points):
        st.caption(map_words.drawn(len(shown), len(scene.where.points)))
    _which_chart(scene.run.id, plotly)


def _which_chart(run: str, plotly: bool) -> None:
    state.set_widget("map-plotly", plotly)
    st.toggle(
        "Draw it as a simple chart",
        key="map-plotly",
        help="Should the map not work in this browser. It is slower, and a new colour loses the zoom.",
        on_change=lambda: state.keep(run, "chart", "plotly" if state.widget("map-plotly") else ""),
    )


def _canvas(scene: _Scene, by: str, coloured: colouring.Colouring) -> None:
    run, where, shown = scene.run.id, scene.where, scene.where.shown
    codes = np.where((scene.visible & where.drawable)[shown], coloured.codes[shown], packing.HIDDEN).astype(np.uint8)
    hidden = filters.allowed(scene.found[coloured.facet], scene.rules)
    keys = scene.found[coloured.facet].keys
    allowed = frozenset(name for name, show in zip(keys, hidden, strict=True) if show)
    under = filters.visible(scene.found, scene.rules, but=coloured.facet)
    counts = np.bincount(coloured.codes[under], minlength=len(coloured.entries))
    entries = [
        region_canvas.Entry(name, colour, int(n), not (own & allowed), quiet)
        for (name, colour, _), n, own, quiet in zip(
            coloured.entries, counts, coloured.keys, coloured.quiet, strict=True
        )
    ]
    heard = {kind: state.remembered(f"map-heard:{run}:{kind}", 0) for kind in ("drawn", "legend")}
    chosen = scene.chosen
    said = "" if chosen is None else map_words.spoken(map_words.inside(chosen, bool(scene.rules.active)))
    selected = None if scene.mask is None else scene.mask[shown]
    drawn = state.shapes(run) if _picked(run, scene.rows) is None else ()

    region_canvas.draw(run, by, where, codes, entries, drawn, selected, said, heard)


def _hear(run: str, audit: Audit, rows: tuple[Finding, ...], found: dict[str, Facet]) -> None:
    """Take what was done on the canvas since the last drawing."""
    for event in _events(run, "drawn"):
        _choose(run, event)
    for event in _events(run, "legend"):
        by, code = event.get("colouring"), event.get("code")
        if by not in colouring.COLOURINGS:
            continue
        coloured = _coloured(run, audit, rows, str(by))
        if type(code) is int and 0 <= code < len(coloured.keys):
            rules, known = filters.read(state.kept(run, "filter"), found), frozenset(found[coloured.facet].keys)
            state.keep(run, "filter", filters.written(rules.toggled(coloured.facet, coloured.keys[code], known)))


def _coloured(run: str, audit: Audit, rows: tuple[Finding, ...], by: str) -> colouring.Colouring:
    focus = state.chosen_feature(run, [row.feature for row in rows])
    return colouring.colouring(audit, by, rows, state.colours(), focus)


def _events(run: str, kind: str) -> list[dict[str, Any]]:
    """The new events of a kind, noted as heard."""
    name = f"map-heard:{run}:{kind}"
    new = region_canvas.events(state.widget(region_canvas.key_of(run)), kind, state.remembered(name, 0))
    if new:
        state.remember(name, new[-1]["seq"])
    return new


def _choose(run: str, event: dict[str, Any]) -> None:
    """Take a drawn shape, or a clearing, as the selection; anything else is not from our map."""
    cells = packing.cells_of(event.get("cells"))
    if event.get("clear") is True:
        _clear(run)
    elif cells is not None:
        before = state.shapes(run) if event.get("add") is True and not state.kept(run, "pick") else ()
        state.keep_shapes(run, (*before, cells)[-packing.MAX_SHAPES :])
        _pick_none(run)


def _chart(scene: _Scene, shown: NDArray[np.int64], coloured: colouring.Colouring) -> None:
    """The fallback: Plotly, which remounts with every change, so that what was drawn comes back as an outline."""
    run, frame = scene.run.id, scene.where.frame
    version = state.remembered(f"map-version:{run}", 0)
    key = f"map-{run}-{version}"

    def choose() -> None:
        event: Any = state.widget(key)  # a double click on the chart gives no shapes
        state.keep_shapes(run, tuple(packing.to_grid(shape, frame) for shape in selection.shapes_of(event)))
        _pick_none(run)

    colours = state.colours()
    kept = scene.visible[shown]
    texts = [text for text, keep in zip(readers.hover_texts(scene.run), kept, strict=True) if keep]
    outlines = state.outlines(run, (version, colours, coloured.entries, filters.written(scene.rules)))
    drawn = tuple(packing.from_grid(cells, frame) for cells in outlines)
    figure = charts.map_figure(scene.where.points, shown[kept], coloured, texts, colours, drawn)
    st.plotly_chart(
        figure,
        key=key,
        on_select=choose,
        selection_mode=("box", "lasso"),
        config={"displaylogo": False, "scrollZoom": True, "modeBarButtonsToRemove": ["autoScale2d", "toImage"]},
        alt="Map of all regions. Select regions with the mouse, or choose a feature in the list beside it.",
    )
    st.html(markup.legend(coloured.entries))


# --- the selection ---------------------------------------------------------------------------------------------------


def _side(scene: _Scene, picked: int | None) -> None:
    chosen = scene.chosen
    said = map_words.rules(scene.found, scene.rules, int(scene.visible.sum()), len(scene.visible))
    if said:
        st.markdown(said)
        st.button(
            "Show all regions",
            icon=":material/filter_alt_off:",
            key="no-filters",
            on_click=_no_filters,
            args=(scene.run.id,),
        )
    if chosen is None or scene.mask is None:
        st.markdown(map_words.how_to_select(bool(scene.rows)))
        _pick(scene, picked)
        return
    run, regions = scene.run, np.flatnonzero(scene.mask)
    with st.container(key="selection"):
        st.markdown(map_words.inside(chosen, bool(scene.rules.active)))
        if chosen.regions:
            st.caption(map_words.made_of(chosen, scene.rows))
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button("Clear", icon=":material/close:", key="clear-selection", on_click=_clear, args=(run.id,))
        if chosen.regions and picked is None:
            new_feature.offer(run, scene.audit, scene.rows, scene.found, scene.rules, regions, chosen)
    if picked is not None:
        _pick(scene, picked)
    if not chosen.regions:
        return
    only = st.toggle("Only wrong images", key="map-wrong", persist_state="session", disabled=not chosen.wrong)
    order = selection.wrong_first(scene.audit, regions, bool(only and chosen.wrong))
    pages = -(-len(order) // PAGE_SIZE)
    page = st.pagination(pages, key=f"map-page-{run.id}-{len(order)}") if pages > 1 else 1
    part = order[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
    panels.crop_gallery(scene.audit, summaries.crops(scene.audit, part), f"selected-{run.id}")


def _picked(run: str, rows: tuple[Finding, ...]) -> int | None:
    text = state.kept(run, "pick")
    feature = int(text) if text.isdecimal() else None
    return feature if any(row.feature == feature for row in rows) else None


def _pick(scene: _Scene, picked: int | None) -> None:
    """The way without drawing: choose a feature."""
    if not scene.rows:
        return
    run, key = scene.run.id, f"map-feature-{scene.run.id}"
    titles = {row.feature: f"{wording.title(row)} ({wording.count(row.n_regions, 'region')})" for row in scene.rows}

    def keep() -> None:
        feature = state.widget(key)
        state.keep(run, "pick", "" if feature is None else str(feature))

    state.set_widget(key, picked)
    st.selectbox(
        "Feature",
        list(titles),
        index=None,
        format_func=titles.__getitem__,
        key=key,
        placeholder="Choose a feature",
        label_visibility="collapsed",
        on_change=keep,
    )


def _pick_none(run: str) -> None:
    state.keep(run, "pick", "")
    state.set_widget(f"map-feature-{run}", None)


def _clear(run: str) -> None:
    state.keep_shapes(run, ())
    _pick_none(run)
    # a new key draws the Plotly chart anew: Python cannot take a lasso away that was drawn there
    state.remember(f"map-version:{run}", state.remembered(f"map-version:{run}", 0) + 1)


if __name__ == "__main__":
    render()
