"""The web application: `streamlit run dashboard/app.py -- --workspace W`, or simply `ravl app`."""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

from dashboard import entrance
from dashboard.pictures import brand
from dashboard.screen import panels, readers, state
from dashboard.words import phrases, wording
from ravl.planted.demos import demo_of
from ravl.store import AuditRun

SIDEBAR = 256
"""Width in pixels: what the audit picker needs, and no more, since a tablet has little to spare."""


def main() -> None:
    """Draw the frame (menu, audit picker, messages), then the chosen page; a RavlError is shown as its sentence."""
    st.set_page_config(page_title="RAVL", page_icon=brand.icon(), layout="wide", initial_sidebar_state=SIDEBAR)
    st.logo(brand.LOGO, size="large")
    panels.style()
    if not entrance.open_for(state.person()):
        return
    pages = {name: _page(name) for name in panels.PAGES}
    start = pages.pop("start")
    page = st.navigation({"Workspace": [start], "This audit": list(pages.values())})
    with state.errors_as_sentences():
        _sidebar()
        state.show_messages()
        state.visit(page.url_path)
        page.run()


def _page(name: str) -> st.Page:
    file, title, icon = panels.PAGES[name]
    return st.Page(file, title=title, icon=icon, url_path=name, default=name == "start")


def _sidebar() -> None:
    """The audit picker and the running job."""
    book = readers.ledger(state.workspace())
    readers.settle(book)
    runs = readers.runs(state.workspace())
    chosen = state.chosen_run([run.id for run in runs])
    with st.sidebar:
        if chosen is not None:
            _picker(runs, chosen)
        if state.blind_reader():
            st.caption(f":material/visibility_off: {phrases.BLIND}")
        for job in book.jobs():
            if job.active:
                page = {"mitigate": "repair", "feature": "map", "regroup": "features"}.get(job.kind, "start")
                st.caption("Running now")
                panels.link(page, f"{wording.plain(job.title)}", job.run or chosen)
        entrance.sign_out(state.person())


def _picker(runs: list[AuditRun], chosen: str) -> None:
    year = datetime.now(UTC).year
    titles = {run.id: f"{run.name} · {wording.brief_moment(run.about['created'], year)}" for run in runs}
    state.set_widget("run-picker", chosen)
    st.selectbox(
        "Audit",
        list(titles),
        format_func=lambda run: titles.get(run, run),
        key="run-picker",
        help="The audit that all pages below *Workspace* are about.",
        on_change=lambda: state.choose_run(state.widget("run-picker")),
    )
    images = next(run.config.images for run in runs if run.id == chosen)
    demo = demo_of(state.workspace(), images)
    if demo is not None and demo.medical:
        st.caption(wording.DRAWN_SHORT)


if __name__ == "__main__":
    main()
