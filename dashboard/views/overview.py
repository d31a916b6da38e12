"""Overview: what was audited, how well the model does, and what it cheats on, in sentences."""

from __future__ import annotations

import streamlit as st

from dashboard.pictures import markup
from dashboard.reading import summaries
from dashboard.reading.opened import Audit
from dashboard.reading.summaries import Fact, Finding, Overview
from dashboard.screen import panels, readers, repair_panels, state
from dashboard.words import claims, wording
from dashboard.words.image_set import Concern, concerns
from ravl.store import AuditRun

STRIP = 12
SHOWN_FINDINGS = 6


def render() -> None:
    """Draw the page."""
    panels.heading(
        "Overview", "What the model's errors have in common. A feature is a group of image regions that look alike."
    )
    run = panels.current_run()
    if run is None or not panels.needs(run, "evidence", "The overview"):
        return
    repair_panels.origin(state.workspace(), run)
    audit = readers.audit(run)
    if nature := wording.nature(audit.images):
        st.info(nature, icon=":material/info:")
    known = concerns(audit.images)
    if serious := [concern.title for concern in known if concern.serious]:
        st.warning(
            f"**{', '.join(serious)}.** Which they are is told at the end of this page.", icon=":material/warning:"
        )
    book = readers.ledger(state.workspace())
    rows = readers.findings(run, book)
    view = summaries.overview(audit, {row.feature: row.verdict for row in rows if row.verdict}, rows)
    st.markdown(claims.headline(view))
    _findings(audit, view, run.id)
    _expected(audit, view)
    _next(view, run)
    _accuracy(view)
    _facts(run, audit)
    _images(known)
    panels.fetch_table_code()


def _findings(audit: Audit, view: Overview, run: str) -> None:
    shown = view.flagged[:SHOWN_FINDINGS]
    for row in shown:
        _finding(audit, row, run)
    if len(view.flagged) > len(shown):
        st.caption(f"{wording.count(len(view.flagged) - len(shown), 'more flagged feature')} on the page *Features*.")
    if view.findings and not view.flagged:
        with st.container(border=True, key="not-proven"):
            st.markdown(claims.not_proven())
    if view.others:
        st.caption(claims.rest(view.others, more=bool(view.flagged)))


def _finding(audit: Audit, row: Finding, run: str) -> None:
    with st.container(border=True, key=f"finding-{row.feature}"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{wording.plain(wording.title(row))}**", width="content")
            panels.badges(row)
            st.space("stretch")
            panels.link("features", "Look at it", run, row.feature)
        panels.strip(audit, row.feature, STRIP)
        st.markdown(claims.told(row))
        st.caption(f"{wording.finding(row)} {claims.effect(summaries.class_rows(audit, row.feature))}")


def _expected(audit: Audit, view: Overview) -> None:
    """Of the confirmed features, and of the flagged ones until there are any."""
    panels.gain(audit, view.confirmed or view.flagged)


def _next(view: Overview, run: AuditRun) -> None:
    page, text = wording.next_step(view, any(folder.finished for folder in run.mitigations()))
    with st.container(border=True, horizontal=True, vertical_alignment="center", key="next"):
        st.markdown(f"**Next:** {text}", width="content")
        st.space("stretch")
        panels.go(page, f"Go to {panels.PAGES[page][1]}", run.id, "go-next")


def _accuracy(view: Overview) -> None:
    st.subheader("How well the model does", anchor=False)
    st.markdown(f"It is right on **{wording.rate(view.overall)}** images. {wording.worst(view.worst)}")
    classes = view.classes
    if len(classes) > panels.SHOWN_CLASSES and not st.toggle(f"Show all {len(classes)} classes", key="all-classes"):
        classes = classes[: panels.SHOWN_CLASSES]
    st.html(markup.rate_table(classes, state.colours(), "Accuracy per class, the worst first"))
    st.caption(wording.noise(view.noise))


def _facts(run: AuditRun, audit: Audit) -> None:
    st.subheader("What was audited", anchor=False)
    rows = summaries.facts(run, audit)
    if run.has("agreement") and (checked := wording.agreement(run.agreement())):
        rows += (Fact("Region encoder", checked),)
    st.html(markup.fact_table(rows, "What was audited"))


def _images(known: tuple[Concern, ...]) -> None:
    if known:
        st.subheader("What to know about the images", anchor=False)
    for number, concern in enumerate(known):
        with st.expander(concern.title, icon=":material/warning:" if concern.serious else None, key=f"images-{number}"):
            st.markdown(concern.meaning)
            st.dataframe(concern.rows, hide_index=True, alt=concern.title)


if __name__ == "__main__":
    render()
