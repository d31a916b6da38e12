"""Map: all regions in two dimensions; drawing around some shows their crops and counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dashboard import charts, colouring, markup, panels, readers, selection, state, summaries, wording
from dashboard.opened import Audit
from dashboard.summaries import Finding
from ravl.store import AuditRun

PAGE_SIZE = 24


def render() -> None:
    """Draw the page."""
    panels.heading(
        "Map", "Every region is a point; regions that look alike lie together. Draw around some to see them."
    )
    run = panels.current_run()
    if run is None or not panels.needs(run, "projection", "The map"):
        return
    audit = readers.audit(run)
    if not len(audit.regions):
        panels.empty("This audit has no regions to draw.", "start", "Start another audit")
        return
    by = st.segmented_control(
        "Colour by",
        list(colouring.COLOURINGS),
        default="feature",
        required=True,
        format_func=colouring.COLOURINGS.__getitem__,
        key="map-colour",
        persist_state="session",
    )
    rows = readers.findings(run, readers.ledger(state.workspace()))
    _map(run, rows, by or "feature")


@st.fragment
def _map(run: AuditRun, rows: tuple[Finding, ...], by: str) -> None:
    """Chart and selection; a lasso draws only this part anew, and the chart stays as it is."""
    with state.errors_as_sentences():
        audit, points = readers.audit(run), readers.projection(run)
        shown = readers.shown_points(run)
        focus = state.chosen_feature(run.id, [row.feature for row in rows])
        coloured = colouring.colouring(audit, by, rows, state.colours(), focus)
        st.html(markup.legend(coloured.entries))
        _chart(run, points, shown, coloured)
        if len(shown) < len(points):
            st.caption(
                f"{len(shown):,} of {len(points):,} regions are drawn, with the share of every feature kept; "
                "counts and crops of a selection are over all of them."
            )
        feature = _pick(run.id, rows)
        if feature is not None:
            _selection(run, audit, audit.members(feature), rows)
        elif state.shapes(run.id):
            _selection(run, audit, selection.enclosed(points, state.shapes(run.id)), rows)


def _chart(run: AuditRun, points: NDArray[np.float32], shown: NDArray[np.int64], coloured: colouring.Colouring) -> None:
    version = state.remembered(f"map-version:{run.id}", 0)
    key = f"map-{run.id}-{version}"

    def choose() -> None:
        event: Any = state.widget(key)
        state.keep_shapes(run.id, selection.shapes_of(event))  # a double click on the chart gives none
        state.set_widget(f"map-feature-{run.id}", None)

    colours = state.colours()
    outlines = state.outlines(run.id, (version, colours, coloured.entries))
    figure = charts.map_figure(points, shown, coloured, readers.hover_texts(run), colours, outlines)
    st.plotly_chart(
        figure,
        key=key,
        on_select=choose,
        selection_mode=("box", "lasso"),
        config={"displaylogo": False, "scrollZoom": True, "modeBarButtonsToRemove": ["autoScale2d", "toImage"]},
        alt="Map of all regions. Select regions with the mouse, or choose a feature in the list below.",
    )


def _pick(run: str, rows: tuple[Finding, ...]) -> int | None:
    """The way without a mouse: choose a feature instead of drawing around it."""
    titles = {row.feature: f"{wording.title(row)} ({wording.count(row.n_regions, 'region')})" for row in rows}
    label = "Draw around points with the mouse to see their crops, or choose a feature"
    return st.selectbox(
        label,
        list(titles),
        index=None,
        format_func=titles.__getitem__,
        key=f"map-feature-{run}",
        placeholder="a feature",
    )


def _selection(run: AuditRun, audit: Audit, chosen: NDArray[np.int64], rows: tuple[Finding, ...]) -> None:
    counts = selection.chosen(audit, chosen)
    with st.container(horizontal=True, vertical_alignment="center", key="selection"):
        st.markdown(wording.selection(counts), width="content")
        st.button("Clear", icon=":material/close:", key="clear-selection", on_click=_clear, args=(run.id,))
    if not counts.regions:
        return
    st.caption(wording.selection_features(counts, rows))
    only = st.toggle(
        "Only regions of wrong images", key="map-wrong", persist_state="session", disabled=not counts.wrong
    )
    order = selection.wrong_first(audit, chosen, bool(only and counts.wrong))
    pages = -(-len(order) // PAGE_SIZE)
    page = st.pagination(pages, key=f"map-page-{run.id}-{len(order)}") if pages > 1 else 1
    part = order[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
    panels.crop_gallery(audit, summaries.crops(audit, part), f"selected-{run.id}")


def _clear(run: str) -> None:
    state.keep_shapes(run, ())
    state.set_widget(f"map-feature-{run}", None)
    # a new key draws the chart anew: Python cannot take a drawn lasso away
    state.remember(f"map-version:{run}", state.remembered(f"map-version:{run}", 0) + 1)


if __name__ == "__main__":
    render()
