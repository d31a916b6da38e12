"""The part of the Export page that takes a list of another audit over: first what fits, then the recording."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dashboard.acting import who
from dashboard.reading.summaries import Finding
from dashboard.screen import panels, readers, state
from dashboard.serving import identity
from dashboard.words import import_words, wording
from ravl.export.check import confirmed_list, parse
from ravl.importing import Found, Imported, compare, take_over
from ravl.ledger import Ledger
from ravl.store import AuditRun

LARGEST = 64
"""Megabytes of a list: an entry takes about 100 bytes per image and per region."""

STRIP = 10


def draw(run: AuditRun, book: Ledger, rows: tuple[Finding, ...]) -> None:
    """The uploader; with a file in it, what of the list is found here, and the button that records it."""
    st.subheader("Take over a list of another audit", anchor=False)
    st.caption(import_words.PURPOSE)
    key = f"import-{run.id}-{state.remembered('imports', 0)}"
    file = st.file_uploader("Confirmed list (JSON)", type="json", key=key, max_upload_size=LARGEST)
    if file is None:
        return
    with state.errors_as_sentences():
        document = _read(file.file_id, file.name, file.getvalue())
        found = compare(document, run, book)
        st.markdown(import_words.summary(found))
        for entry in found.found:
            _entry(run, rows, entry)
        if import_words.taken(found):
            _offer(run, book, document, found)


def _read(number: str, name: str, content: bytes) -> dict[str, Any]:
    """The list in a file, checked once per upload."""
    kept = state.remembered("import-file", None)
    if kept is None or kept[0] != number:
        kept = (number, confirmed_list(parse(content, name), name))
        state.remember("import-file", kept)
    document: dict[str, Any] = kept[1]
    return document


def _entry(run: AuditRun, rows: tuple[Finding, ...], entry: Found) -> None:
    """One feature of the list, and the one here that it is compared with."""
    titles = {row.feature: wording.title(row) for row in rows}
    with st.container(border=True, key=f"import-feature-{entry.feature}"):
        st.markdown(import_words.line(entry, titles))
        if entry.match is not None:
            panels.strip(readers.audit(run), entry.match, STRIP)
        st.caption(import_words.counts(entry))


def _offer(run: AuditRun, book: Ledger, document: dict[str, Any], found: Imported) -> None:
    who.ask(book)
    n = import_words.taken(found)
    st.button(
        f"Take {wording.count(n, 'decision')} over",
        type="primary",
        icon=":material/input:",
        key="take-over",
        on_click=state.action(_record),
        args=(run, document),
    )
    st.caption(import_words.AFTER)


def _record(run: AuditRun, document: dict[str, Any]) -> None:
    person = who.now()
    if problem := identity.missing(person):
        state.warn(wording.plain(problem))
        return
    book = readers.ledger(state.workspace())
    found = take_over(document, run, book, person.name, identity=person.identity)
    state.remember("import-file", None)
    state.remember("imports", state.remembered("imports", 0) + 1)  # an uploader of its own for the next list
    state.say(import_words.recorded(found))
