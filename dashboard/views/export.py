"""Export: the confirmed features for other programs, and the record of every decision."""

from __future__ import annotations

import streamlit as st

from dashboard import panels, readers, state, wording
from ravl import export as exporting
from ravl.ledger import Ledger
from ravl.store import AuditRun


def render() -> None:
    """Draw the page."""
    panels.heading("Export", "The features that people confirmed as spurious, with their images and boxes.")
    run = panels.current_run()
    if run is None or not panels.needs(run, "evidence", "The export"):
        return
    book = readers.ledger(state.workspace())
    confirmed = tuple(row for row in readers.findings(run, book) if row.decision == "spurious")
    if confirmed:
        _downloads(run, book)
        _preview(run, book)
    else:
        text = "There is nothing to export yet: no feature of this audit is confirmed as **spurious**."
        panels.empty(text, "review", "Decide on the features", run.id)
    _record(run, book)


def _downloads(run: AuditRun, book: Ledger) -> None:
    with st.container(horizontal=True):
        for label, ending, mime, write in (
            ("Download JSON", "json", "application/json", exporting.as_json),
            ("Download CSV", "csv", "text/csv", exporting.as_csv),
        ):
            st.download_button(
                label,
                data=write(exporting.confirmed(run, book)),
                file_name=f"{run.name}-spurious-features.{ending}",
                mime=mime,
                key=f"download-{ending}",
                icon=":material/download:",
                type="primary" if ending == "json" else "secondary",
                on_click="ignore",
            )


def _preview(run: AuditRun, book: Ledger) -> None:
    with st.expander("What the JSON file holds", key="preview"):
        st.json(exporting.confirmed(run, book), expanded=2)


def _record(run: AuditRun, book: Ledger) -> None:
    past = book.history(run.id)
    if not past:
        return
    st.subheader("Every decision", anchor=False)
    st.caption("Nothing here is ever changed or deleted: an undo is a line of its own. Names are self-declared.")
    newest = past[::-1]
    st.dataframe(
        {
            "When (UTC)": [wording.moment(verdict.at).removesuffix(" UTC") for verdict in newest],
            "Feature": [verdict.feature for verdict in newest],
            "Decision": [wording.DECISIONS[verdict.decision] for verdict in newest],
            "Mistaken for": [verdict.pull_class or "–" for verdict in newest],
            "Name": [verdict.name for verdict in newest],
            "Note": [verdict.note for verdict in newest],
            "By": [verdict.reviewer for verdict in newest],
        },
        hide_index=True,
        alt="Every decision, newest first",
    )


if __name__ == "__main__":
    render()
