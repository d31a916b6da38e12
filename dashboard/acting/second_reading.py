"""The blind second reading: its switch, and afterwards how far the readers agree and where they differ."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard.choosing import reviewing
from dashboard.reading.summaries import Finding
from dashboard.screen import state
from dashboard.words import phrases
from ravl.readings import pairs
from ravl.tables import Verdict

SHOWN = 20


def switch() -> None:
    """The switch that hides what others decided; it holds on all pages of this session."""
    state.set_widget("blind-reading", bool(state.blind_reader()))
    st.toggle(
        "Blind reading",
        key="blind-reading",
        help=phrases.BLIND,
        on_change=lambda: state.read_blind(bool(state.widget("blind-reading"))),
    )


def draw(history: Sequence[Verdict], rows: tuple[Finding, ...], run: str) -> None:
    """Agreement of every two readers with a list of what they decided differently.

    In a blind reading only about features that the reader decided herself, and only her own pairs.
    """
    blind = state.blind_reader()
    events = _seen_by(history, blind) if blind else history
    found = [pair for pair in pairs(events) if not blind or blind in (pair.first, pair.second)]
    if not found:
        return
    titled = {row.feature: row for row in rows}
    holding = reviewing.holding(history)
    n = sum(len(pair.differ) for pair in found)
    with st.expander(f"Two readers: {n} {'disagreement' if n == 1 else 'disagreements'}", key="two-readers"):
        for pair in found:
            st.markdown(phrases.agreement(pair))
            for first, second in pair.differ[:SHOWN]:
                with st.container(horizontal=True, vertical_alignment="center"):
                    row = titled.get(first.feature)
                    st.markdown(phrases.disagreement(first, second, row, holding.get(first.feature)), width="content")
                    st.button(
                        "Show",
                        key=f"differ-{pair.first}-{pair.second}-{first.feature}",
                        disabled=row is None,
                        on_click=state.choose_feature,
                        args=(run, first.feature),
                    )
            if len(pair.differ) > SHOWN:
                st.caption(f"And {len(pair.differ) - SHOWN} more.")


def _seen_by(history: Sequence[Verdict], blind: str) -> list[Verdict]:
    """Events about features that the reader decided on."""
    decided = reviewing.holding(history, blind)
    return [verdict for verdict in history if verdict.feature in decided]
