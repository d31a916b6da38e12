"""Features: the ranked table, and the evidence for the chosen one."""

from __future__ import annotations

import math

import streamlit as st

from dashboard import markup, panels, readers, state, summaries, wording
from dashboard.summaries import Audit, Finding

FILTERS = {"all": "All", "flagged": "Flagged", "open": "Not decided", "decided": "Decided"}
SHOWN_CROPS = 12
TABLE_ROWS = 8


def render() -> None:
    """Draw the page."""
    panels.heading("Features", "Groups of regions that look alike, ranked by how much they explain the model's errors.")
    run = panels.current_run()
    if run is None or not panels.needs(run, "features", "The table of features"):
        return
    audit = readers.audit(run)
    rows = readers.findings(run, readers.ledger(state.workspace()))
    if not rows:
        panels.empty(
            "No features were found: the regions form no groups. More images, or a finer grid, may help.",
            "start",
            "Start another audit",
        )
        return
    shown = _filter(rows)
    feature = state.chosen_feature(run.id, [row.feature for row in rows])
    if feature is None:
        feature = rows[0].feature
        state.choose_feature(run.id, feature)
    _table(audit, shown, feature, run.id)
    _chosen(audit, next(row for row in rows if row.feature == feature), run.id)


def _filter(rows: tuple[Finding, ...]) -> tuple[Finding, ...]:
    labels = {name: f"{label} ({len(summaries.pick(rows, name))})" for name, label in FILTERS.items()}
    show = st.segmented_control(
        "Show",
        list(FILTERS),
        default="all",
        required=True,
        format_func=labels.__getitem__,
        key="feature-filter",
        label_visibility="collapsed",
        persist_state="session",
    )
    return summaries.pick(rows, show or "all")


def _table(audit: Audit, rows: tuple[Finding, ...], feature: int, run: str) -> None:
    if not rows:
        st.caption("No feature is in this group.")
        return
    ids = [row.feature for row in rows]
    key = f"features-{run}-{'-'.join(map(str, ids[:40]))}"
    place = ids.index(feature) if feature in ids else None

    def choose() -> None:
        picked = state.widget(key)["selection"]["rows"]
        if picked:
            state.choose_feature(run, ids[picked[0]])

    st.dataframe(
        _columns(audit, rows),
        key=key,
        hide_index=True,
        row_height=44,
        height=min(len(rows), TABLE_ROWS) * 44 + 40,
        on_select=choose,
        selection_mode="single-row",
        selection_default=None if place is None else {"selection": {"rows": [place]}},
        column_config=_CONFIG,
        placeholder="–",
        alt="Features, ranked",
    )


_CONFIG = {
    "": st.column_config.ImageColumn("", width=52, help="The region that contributes most to an error."),
    "Feature": st.column_config.TextColumn(width="medium"),
    "Mistaken for": st.column_config.TextColumn(help="The class that errors with this feature go to."),
    "Errors decided": st.column_config.TextColumn(
        help="Images wrongly called so, in which a region of this feature decides, of all images wrongly called so."
    ),
    "Influence": st.column_config.NumberColumn(
        format="%.2f",
        help="Largest share, over classes that lose accuracy, of errors that the feature decides. 0 to 1.",
    ),
    "Gap": st.column_config.NumberColumn(
        format="%.2f", help="How much accuracy differs with and without the feature, weighted and summed over classes."
    ),
    "Wrong images": st.column_config.TextColumn(help="Wrong images among the images that show the feature."),
    "Rule": st.column_config.TextColumn(
        help="Flagged: influence and gap pass the rule that the audit was configured with."
    ),
}


def _columns(audit: Audit, rows: tuple[Finding, ...]) -> dict[str, list[object]]:
    tops = [readers.cards(audit, summaries.exemplars(audit, row.feature, 1)) for row in rows]
    return {
        "": [top[0].crop if top else None for top in tops],
        "Feature": [wording.title(row) for row in rows],
        "Mistaken for": [row.pull or "–" for row in rows],
        "Errors decided": [f"{row.decided} of {row.called}" if row.pull else "–" for row in rows],
        "Influence": [None if math.isnan(row.influence) else row.influence for row in rows],
        "Gap": [None if math.isnan(row.gap) else row.gap for row in rows],
        "Wrong images": [f"{row.n_errors} of {row.n_images}" for row in rows],
        "Rule": [wording.rule(row) for row in rows],
        "Decision": [wording.DECISIONS.get(row.decision, "–") for row in rows],
    }


def _chosen(audit: Audit, row: Finding, run: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(wording.plain(wording.title(row)), anchor=False, width="content")
        if row.decision:
            st.badge(wording.DECISIONS[row.decision], color="gray")
        st.space("stretch")
        panels.link("review", "Decide", run, row.feature)
        panels.link("map", "Show on the map", run, row.feature)
    classes = summaries.class_rows(audit, row.feature)
    st.markdown(" ".join((wording.finding(row), wording.effect(classes))))
    st.caption(wording.support(row))
    _exemplars(audit, row.feature)
    st.markdown("**With and without the feature**")
    st.html(markup.class_table(classes, state.colours(), row.pull))


def _exemplars(audit: Audit, feature: int) -> None:
    crops = summaries.exemplars(audit, feature)
    if not crops:
        st.caption("Exemplars are not measured yet: this audit's stage *Removing regions* is not finished.")
        return
    st.markdown(f"**What it looks like** – {wording.count(len(crops), 'exemplar')}, the most harmful first")
    more = len(crops) > SHOWN_CROPS and st.toggle(
        f"Show all {len(crops)}", key="all-exemplars", persist_state="session"
    )
    panels.crop_gallery(audit, crops if more else crops[:SHOWN_CROPS], f"exemplars-{audit.run}-{feature}")
    st.caption(wording.CONTRIBUTION)


if __name__ == "__main__":
    render()
