"""Who decides: the name under which decisions are kept, asked for once a session, or known from a sign-in."""

from __future__ import annotations

import streamlit as st

from dashboard.screen import state
from dashboard.serving import identity
from dashboard.serving.identity import Person
from dashboard.words import phrases, wording
from ravl.ledger import Ledger

SHOWN_NAMES = 4


def ask(book: Ledger) -> Person:
    """Draw the line that says who decides, or the field that asks for it; the person, whose name may be empty."""
    who = state.person()
    if who.declared:
        _declared(book, who)
    elif who.name:
        st.markdown(phrases.deciding_as(who), help=identity.EXPLAINED[who.identity])
    return who


def now() -> Person:
    """Who decides at this moment, in a callback: a name that stands in the field counts, whether or not it was left."""
    if state.person().declared:
        _keep(str(state.widget("reviewer-name") or ""))
    return state.person()


def _declared(book: Ledger, who: Person) -> None:
    if who.name and not state.remembered("renaming", False):
        with st.container(horizontal=True, vertical_alignment="center", key="reviewer"):
            st.caption(phrases.deciding_as(who), width="content")
            st.button(
                "Change",
                type="tertiary",
                key="rename",
                help=identity.EXPLAINED[who.identity],
                on_click=state.remember,
                args=("renaming", True),
            )
        return
    st.text_input(
        "Your name",
        value=who.name,
        key="reviewer-name",
        max_chars=identity.LONGEST,
        help=identity.EXPLAINED[who.identity],
        on_change=lambda: _keep(str(state.widget("reviewer-name") or "")),
    )
    known = [name for name in book.reviewers() if name != who.name]
    if known:
        with st.container(horizontal=True, gap="small", key="known-reviewers"):
            for number, name in enumerate(known[:SHOWN_NAMES]):
                label = f"Continue as {wording.plain(phrases.shortened(name, 40))}"
                st.button(label, key=f"continue-as-{number}", on_click=_keep, args=(name,))


def _keep(name: str) -> None:
    if name.strip():
        state.name_reviewer(name)
        state.remember("renaming", False)
