"""Export: the report, the confirmed features for other programs, and the record of every decision."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from dashboard import reporting
from dashboard.acting import taking_over
from dashboard.reading.summaries import Finding
from dashboard.reporting import record
from dashboard.screen import panels, readers, state
from dashboard.serving import identity
from dashboard.words import phrases, wording
from ravl import export as exporting
from ravl.ledger import Ledger
from ravl.store import AuditRun

STRIP = 10


def render() -> None:
    """Draw the page."""
    panels.heading("Export", "What was found and decided, to read, to keep, and to use in other programs.")
    run = panels.current_run()
    if run is None or not panels.needs(run, "evidence", "The export"):
        return
    book = readers.ledger(state.workspace())
    rows = readers.findings(run, book, everybody=True)
    confirmed = tuple(row for row in rows if row.decision == "spurious")
    _report(run, book)
    _confirmed(run, book, confirmed, anything=bool(rows))
    _formats(run, book, bool(confirmed))
    taking_over.draw(run, book, rows)
    _record(run, book)


def _download(run: AuditRun, label: str, ending: str, mime: str, make: Callable[[], str], primary: bool) -> None:
    """A button whose file is made when it is pressed. make: without a script around it, so it reads no state."""
    st.download_button(
        f"Download {label}",
        data=make,
        file_name=f"{run.name}-{ending}",
        mime=mime,
        key=f"download-{ending}",
        icon=":material/download:",
        type="primary" if primary else "secondary",
        on_click="ignore",
        width="stretch",
    )


def _row(title: str, about: str, key: str) -> st.delta_generator.DeltaGenerator:
    """A line with what a file is for; returns the place for its button."""
    with st.container(border=True, key=key):
        left, right = st.columns([4, 1.35], vertical_alignment="center")
        left.markdown(f"**{title}**  \n{about}")
    return right


def _report(run: AuditRun, book: Ledger) -> None:
    about = (
        "One HTML file that tells the whole audit: what was examined, the findings with their pictures, who decided "
        "what, before and after, and the limits. It opens in any browser without a network, and prints. If the images "
        "show patients, so does the file."
    )
    with _row("Report", about, "row-report"):
        _download(run, "report", "report.html", "text/html", lambda: reporting.report_text(run, book), primary=True)


def _confirmed(run: AuditRun, book: Ledger, rows: tuple[Finding, ...], anything: bool) -> None:
    """The confirmed list as it will be handed over. anything: whether any feature was found."""
    st.subheader(f"Confirmed as spurious ({len(rows)})", anchor=False)
    if not anything:
        panels.empty("This audit found no features, so there is nothing to hand over.", *panels.NOTHING, run.id)
        return
    if not rows:
        text = "There is nothing to hand over yet: no feature of this audit is confirmed as **spurious**."
        panels.empty(text, "review", "Decide on the features", run.id)
        return
    audit = readers.audit(run)
    for row in rows:
        with st.container(border=True, key=f"confirmed-{row.feature}"):
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(f"**{wording.plain(wording.title(row))}**", width="content")
                st.space("stretch")
                panels.link("review", "Look at the decision", run.id, row.feature)
            panels.strip(audit, row.feature, STRIP)
            if row.verdict is not None:
                st.markdown(phrases.past(row.verdict))
                if row.verdict.seen != audit.seen(row.feature):
                    st.warning("Its regions are not those that the decision was about. Review it again.")
            st.caption(f"{wording.support(row)}.")


def _formats(run: AuditRun, book: Ledger, confirmed: bool) -> None:
    """A line per format that has something to say."""
    st.subheader("Files for other programs", anchor=False)
    for name, format in exporting.FORMATS.items():
        if confirmed or not format.needs_confirmed:
            with _row(format.title, format.about, f"row-{name}"):
                _download(run, format.label, format.ending, format.mime, _maker(run, book, name), primary=False)
    st.caption(
        "The same from the command line: `ravl export --format NAME`; `ravl export --check FILE` says whether a list "
        "or a log is whole."
    )


def _maker(run: AuditRun, book: Ledger, name: str) -> Callable[[], str]:
    return lambda: exporting.text(run, book, name)


def _record(run: AuditRun, book: Ledger) -> None:
    past = book.history(run.id)
    if not past:
        return
    st.subheader("Every decision", anchor=False)
    st.caption("Nothing here is ever changed or deleted: an undo is a line of its own.")
    newest = past[::-1]
    st.dataframe(
        {
            "When (UTC)": [wording.moment(verdict.at).removesuffix(" UTC") for verdict in newest],
            "Feature": [verdict.feature for verdict in newest],
            "Decision": [wording.DECISIONS[verdict.decision] for verdict in newest],
            "By": [f"{verdict.reviewer} ({identity.HOW[verdict.identity]})" for verdict in newest],
            "Mistaken for": [verdict.pull_class or "–" for verdict in newest],
            "Name": [verdict.name for verdict in newest],
            "Note": [verdict.note for verdict in newest],
        },
        hide_index=True,
        alt="Every decision, newest first",
    )
    fault = book.fault()
    said = record.state(book.entries(), fault)
    if fault:
        st.error(said)
    else:
        st.caption(said)


if __name__ == "__main__":
    render()
