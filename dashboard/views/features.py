"""Features: the ranked table, and the evidence for the chosen one."""

from __future__ import annotations

import math

import streamlit as st

from dashboard.acting import regrouping
from dashboard.pictures import markup
from dashboard.reading import evidence, summaries
from dashboard.reading.evidence import Removal
from dashboard.reading.opened import Audit
from dashboard.reading.summaries import Finding
from dashboard.screen import panels, readers, state
from dashboard.words import claims, wording

FILTERS = {"all": "All", "flagged": "Flagged", "open": "Not decided", "decided": "Decided", "again": "Review again"}
SHOWN_CROPS = 8
TABLE_ROWS = 7
PAGE = 25
"""Rows of the table on one page: each shows a crop, and an audit may have thousands."""


def render() -> None:
    """Draw the page."""
    panels.heading(
        "Features",
        "Regions that look alike, ranked by how many of the model's errors go when they are removed.",
    )
    run = panels.current_run()
    if run is None or not panels.needs(run, "evidence", "The table of features"):
        return
    audit, book = readers.audit(run), readers.ledger(state.workspace())
    rows = readers.findings(run, book)
    if not rows:
        panels.empty(
            "No features were found: the regions form no groups. More images, or a finer grid, may help.",
            "start",
            "Start another audit",
        )
        return
    regrouping.job(run, book)
    ids = [row.feature for row in rows]
    asked = state.asked_feature(run.id)
    feature = state.chosen_feature(run.id, ids)
    if feature is None:
        feature = regrouping.successor(run, book, ids, asked) or ids[0]
        state.choose_feature(run.id, feature)
    with st.container(horizontal=True, vertical_alignment="center"):
        shown = _filter(rows)
        st.space("stretch")
        numbers = st.toggle("More numbers", key="feature-numbers", persist_state="session")
    _table(audit, _search(shown, rows), feature, run.id, bool(numbers))
    row = next(row for row in rows if row.feature == feature)
    _chosen(audit, row, run.id)
    regrouping.draw(run, audit, book, rows, row)


def _search(shown: tuple[Finding, ...], rows: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Narrow the table down by class and by text, where there is enough to search."""
    if len(rows) <= TABLE_ROWS:
        return shown
    classes = sorted({row.pull for row in rows if row.pull})
    left, right = st.columns(2)
    pull = left.selectbox(
        "Mistaken for",
        classes,
        index=None,
        key="feature-class",
        placeholder="any class",
        persist_state="session",
    )
    text = right.text_input(
        "Search", key="feature-search", placeholder="a number, a name, a note, a class", persist_state="session"
    )
    return summaries.search(shown, pull or "", text or "")


def _filter(rows: tuple[Finding, ...]) -> tuple[Finding, ...]:
    counts = {name: len(summaries.pick(rows, name)) for name in FILTERS}
    labels = {name: f"{label} ({counts[name]:,})" for name, label in FILTERS.items()}
    show = st.segmented_control(
        "Show",
        [name for name in FILTERS if name != "again" or counts[name]],
        default="all",
        required=True,
        format_func=labels.__getitem__,
        key="feature-filter",
        label_visibility="collapsed",
        persist_state="session",
    )
    return summaries.pick(rows, show or "all")


def _table(audit: Audit, rows: tuple[Finding, ...], feature: int, run: str, numbers: bool) -> None:
    if not rows:
        st.caption("No feature is in this group.")
        return
    rows = _page(rows, feature)
    ids = [row.feature for row in rows]
    key = f"features-{run}-{'-'.join(map(str, ids))}"
    place = ids.index(feature) if feature in ids else None

    def choose() -> None:
        picked = state.widget(key)["selection"]["rows"]
        if picked:
            state.choose_feature(run, ids[picked[0]])

    st.dataframe(
        _columns(audit, rows),
        key=key,
        column_order=[name for name in _CONFIG if numbers or name not in _NUMBERS],
        hide_index=True,
        row_height=44,
        height=min(len(rows), TABLE_ROWS) * 44 + 37,
        on_select=choose,
        selection_mode="single-row",
        selection_default=None if place is None else {"selection": {"rows": [place]}},
        column_config=_CONFIG,
        placeholder="–",
        alt="Features, ranked",
    )


def _page(rows: tuple[Finding, ...], feature: int) -> tuple[Finding, ...]:
    """The rows of one page; at first that of the chosen feature."""
    pages = math.ceil(len(rows) / PAGE)
    if pages < 2:
        return rows
    places = [place for place, row in enumerate(rows) if row.feature == feature]
    key = f"feature-page-{len(rows)}-{rows[0].feature}-{rows[-1].feature}"
    page = st.pagination(pages, default=1 + (places[0] if places else 0) // PAGE, key=key)
    st.caption(f"Features {PAGE * (page - 1) + 1:,} to {min(len(rows), PAGE * page):,} of {len(rows):,}, by rank.")
    return rows[PAGE * (page - 1) : PAGE * page]


_CONFIG = {
    "": st.column_config.ImageColumn("", width=48, help="The region that contributes most to an error."),
    "Feature": st.column_config.TextColumn(width=135),
    "Mistaken for": st.column_config.TextColumn(width=90, help="The class that errors with this feature go to."),
    "Errors that go": st.column_config.TextColumn(
        width=120, help="Errors of the whole image set that become right when the feature is removed."
    ),
    "Evidence": st.column_config.TextColumn(
        width=130, help="What removing it shows, computed. The decision is a person's."
    ),
    "Decision": st.column_config.TextColumn(width=85, help="What people decided about it."),
    "Gap above chance": st.column_config.TextColumn(
        width=135,
        help="How much accuracy differs with and without the feature, weighted and summed over classes, minus what "
        "chance alone gives; with its interval.",
    ),
    "q": st.column_config.TextColumn(
        width=60, help="How likely chance alone gives such a gap, corrected for the number of features."
    ),
    "Influence": st.column_config.NumberColumn(
        width=70,
        format="%.2f",
        help="Largest share, over classes that lose accuracy, of errors that the feature decides. 0 to 1.",
    ),
    "Wrong images": st.column_config.TextColumn(help="Wrong images among the images that show the feature."),
    "Rule": st.column_config.TextColumn(width=70, help="Flagged by the rule that the audit was configured with."),
}
_NUMBERS = ("Influence", "Wrong images", "Rule")


def _columns(audit: Audit, rows: tuple[Finding, ...]) -> dict[str, list[object]]:
    tops = [readers.cards(audit, summaries.exemplars(audit, row.feature, 1)) for row in rows]
    return {
        "": [top[0].crop if top else None for top in tops],
        "Feature": [wording.title(row) for row in rows],
        "Mistaken for": [row.pull or "–" for row in rows],
        "Errors that go": [claims.errors_gone(row) for row in rows],
        "Evidence": [claims.evidence(row) for row in rows],
        "Gap above chance": [claims.beyond(row.beyond) for row in rows],
        "q": [claims.probability(row.q) for row in rows],
        "Influence": [None if math.isnan(row.influence) else row.influence for row in rows],
        "Wrong images": [f"{row.n_errors:,} of {row.n_images:,}" for row in rows],
        "Rule": [wording.rule(row) for row in rows],
        "Decision": [wording.DECISIONS.get(row.decision, "–") for row in rows],
    }


# --- the chosen feature ----------------------------------------------------------------------------------------------


def _chosen(audit: Audit, row: Finding, run: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(wording.plain(wording.title(row)), anchor=False, width="content")
        panels.badges(row)
        st.space("stretch")
        panels.link("map", "Show on the map", run, row.feature)
        panels.go("review", "Decide", run, "go-decide", row.feature, primary=not row.decision)
    panels.again(row)
    view = evidence.removal(audit, row.feature)
    st.markdown(claims.told(row))
    st.markdown(wording.finding(row))
    _exemplars(audit, row)
    if view.tested:
        _removal(audit, row, view)
    _with_and_without(audit, row)
    with st.expander("Numbers", key="numbers"):
        if view.tested:
            st.html(markup.effect_table(view))
            st.caption(wording.plain(claims.harm(view)))
        st.html(markup.fact_table(claims.statistics(row, view), "Statistics of the feature"))


def _exemplars(audit: Audit, row: Finding) -> None:
    crops = summaries.exemplars(audit, row.feature)
    if not crops:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(
            f"**What it looks like** – {wording.count(len(crops), 'exemplar')}, the most harmful first", width="content"
        )
        st.space("stretch")
        panels.pixel_switch()
        more = len(crops) > SHOWN_CROPS and st.toggle(
            f"Show all {len(crops)}", key="all-exemplars", persist_state="session"
        )
    panels.crop_gallery(audit, crops if more else crops[:SHOWN_CROPS], f"exemplars-{audit.run}-{row.feature}")
    st.caption(f"{wording.support(row)}. {wording.CONTRIBUTION}")


def _removal(audit: Audit, row: Finding, view: Removal) -> None:
    st.markdown("**What happens without it**")
    st.markdown(claims.side_effects(view))
    panels.trials(audit, view, f"trials-{audit.run}-{row.feature}")
    panels.gain(audit, (row,))


def _with_and_without(audit: Audit, row: Finding) -> None:
    classes = summaries.class_rows(audit, row.feature)
    st.markdown("**With and without the feature**")
    if effect := claims.effect(classes):
        st.markdown(effect)
    shown = classes
    if len(classes) > panels.SHOWN_CLASSES and not st.toggle(f"Show all {len(classes)} classes", key="all-classes"):
        shown = classes[: panels.SHOWN_CLASSES]
    st.html(markup.class_table(shown, state.colours(), row.pull))
    st.caption(wording.interval(audit.config.significance.level))


if __name__ == "__main__":
    render()
