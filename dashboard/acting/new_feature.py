"""The map's last step: offering to make a feature of the selection, and telling what became of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dashboard.choosing import making, map_words
from dashboard.choosing.filters import Facet, Filters
from dashboard.reading.opened import Audit
from dashboard.reading.selection import Chosen
from dashboard.reading.summaries import Finding
from dashboard.screen import panels, readers, state
from dashboard.words import wording
from ravl.ledger import Ledger
from ravl.store import AuditRun


def offer(
    run: AuditRun,
    audit: Audit,
    rows: tuple[Finding, ...],
    found: Mapping[str, Facet],
    rules: Filters,
    regions: NDArray[np.int64],
    chosen: Chosen,
) -> None:
    """Name the selection and start the job that makes it a feature. regions: its ids, chosen: in numbers."""
    book = readers.ledger(state.workspace())
    with st.popover("Make a feature", icon=":material/new_label:"):
        st.markdown(f"**A feature of these {wording.count(chosen.regions, 'region')}**")
        busy = any(job.active for job in book.jobs())
        problem = map_words.BUSY if busy else making.problem(audit, regions, found, rules)
        if problem:
            st.warning(problem)
            return
        st.caption(f"{map_words.WHAT_IT_DOES} {map_words.losses(chosen, rows)}")
        name = st.text_input("What it shows", key=f"made-name-{run.id}", placeholder="for example: a red square")
        person = state.person()
        who = person.name
        if person.declared:
            help_text = "Self-declared: it is stored with the feature, and nobody checks it."
            who = st.text_input("Your name", person.name, key="made-reviewer", help=help_text)
        # never disabled for want of a name: whoever types and clicks at once would click on a dead button
        pressed = st.button("Make it a feature", icon=":material/play_arrow:", type="primary", key="make-feature")
        if pressed and not (name.strip() and who.strip()):
            st.warning(map_words.NO_REVIEWER if name.strip() else map_words.NO_NAME)
            return
    if pressed:
        state.name_reviewer(who)
        state.action(making.start)(book, state.workspace(), run, regions, name.strip(), state.person())
        st.rerun()


def news(run: AuditRun, book: Ledger) -> None:
    """The last such job until it is dismissed: its progress, its failure, or (who saw it run) what it made."""
    jobs = book.jobs(making.KIND, run.id)
    if not jobs or jobs[0].id in state.remembered("dismissed", ()):
        return
    if jobs[0].status != "done":
        state.remember("making", jobs[0].id)
        panels.job_panel(state.workspace(), jobs[0], stages=False, dismissable=True)
        return
    if state.remembered("making", 0) != jobs[0].id:
        return
    features = [row for row in book.groupings(run.id) if row.kind == "select"]
    if not features or features[-1].at < (jobs[0].started or jobs[0].created):
        return
    with st.container(border=True, horizontal=True, vertical_alignment="center", key="made"):
        st.markdown(map_words.made(features[-1].note, features[-1].made[0]), width="content")
        panels.link("features", "Its evidence", run.id, features[-1].made[0])
        st.space("stretch")
        st.button("Dismiss", key="dismiss-made", on_click=_dismiss, args=(jobs[0].id,))


def _dismiss(job: int) -> None:
    state.remember("dismissed", (*state.remembered("dismissed", ()), job))
