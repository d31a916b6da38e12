"""Review: one feature a screen; a person decides what it is. A decision is written at once, and never changed."""

from __future__ import annotations

import streamlit as st

from dashboard import claims, markup, panels, readers, state, summaries, wording
from dashboard.opened import Audit
from dashboard.summaries import Finding, Review
from ravl.config import DECISIONS
from ravl.ledger import WITHDRAWN, Ledger
from ravl.store import AuditRun

KEYS = {"spurious": "S", "core": "G", "mixed": "M", "unsure": "U"}
SHOWN_CROPS = 9


def render() -> None:
    """Draw the page."""
    panels.heading(
        "Review", "Is this feature part of what the class means, or a shortcut? Your decision is kept with your name."
    )
    run = panels.current_run()
    if run is None or not panels.needs(run, "evidence", "The review"):
        return
    audit, book = readers.audit(run), readers.ledger(state.workspace())
    rows = readers.findings(run, book)
    if not rows:
        panels.empty(
            "This audit found no features, so there is nothing to decide.", "overview", "To the overview", run.id
        )
        return
    view = _where(run, rows)
    row = view.current
    assert row is not None  # rows are not empty
    state.choose_feature(run.id, row.feature)
    _progress(run.id, view)
    left, right = st.columns([2, 1], gap="medium")
    with left:
        _evidence(audit, row)
    with right:
        _decide(run, audit, book, row)
        _undo(run.id, row)
        _history(book, run.id, row.feature)


def _where(run: AuditRun, rows: tuple[Finding, ...]) -> Review:
    flagged = summaries.pick(rows, "flagged")
    only = bool(flagged) and st.toggle(
        f"Only flagged features ({len(flagged)} of {len(rows)})",
        value=True,
        key="review-flagged",
        persist_state="session",
    )
    feature = state.chosen_feature(run.id, [row.feature for row in rows])
    return summaries.review(rows, feature, only)


def _progress(run: str, view: Review) -> None:
    total = len(view.rows)
    with st.container(horizontal=True, vertical_alignment="bottom", key="progress"):
        st.progress(
            view.decided / total, text=f"{view.decided} of {total} decided · feature {view.position + 1} of {total}"
        )
        for label, step, shortcut in (("Previous", -1, "Left"), ("Next", 1, "Right")):
            target = view.neighbour(step)
            st.button(
                label,
                key=f"go-{shortcut.lower()}",
                shortcut=shortcut,
                disabled=target is None,
                on_click=state.choose_feature,
                args=(run, target),
            )


def _evidence(audit: Audit, row: Finding) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(wording.plain(wording.title(row)), anchor=False, width="content")
        panels.badges(row)
    classes = summaries.class_rows(audit, row.feature)
    st.markdown(f"{claims.claim(row)} {claims.meaning(row)}")
    crops = summaries.exemplars(audit, row.feature, SHOWN_CROPS)
    if crops:
        panels.crop_gallery(audit, crops, f"review-{audit.run}-{row.feature}")
    st.markdown(f"{wording.finding(row)} {claims.effect(classes)}")
    panels.link("features", "All the evidence: with and without it, image by image", audit.run, row.feature)
    with st.expander("Numbers", key="review-numbers"):
        st.caption(wording.support(row))
        st.html(markup.class_table(classes, state.colours(), row.pull))


# --- deciding --------------------------------------------------------------------------------------------------------


def _decide(run: AuditRun, audit: Audit, book: Ledger, row: Finding) -> None:
    who = _reviewer(book)
    recorded = (row.verdict.name, row.verdict.note) if row.verdict else ("", "")
    _text("name", "What it shows", run.id, row.feature, recorded[0], "for example: a chest drain")
    _text("note", "Note", run.id, row.feature, recorded[1], "why you decide so")
    places = st.columns(2) + st.columns(2)
    for place, decision in zip(places, DECISIONS, strict=True):
        place.button(
            wording.DECISIONS[decision],
            key=f"decide-{decision}",
            shortcut=KEYS[decision],
            type="primary" if row.decision == decision else "secondary",
            help=wording.MEANING[decision],
            width="stretch",
            disabled=not who,
            on_click=state.action(_record),
            args=(run.id, row, audit.seen(row.feature), decision, who),
        )
    if not who:
        st.caption("Give your name first: a decision is kept together with who made it.")
    _unsaved(run.id, row, audit.seen(row.feature), who, recorded)


def _reviewer(book: Ledger) -> str:
    who = state.reviewer(book.reviewers())
    if who and not state.remembered("renaming", False):
        with st.container(horizontal=True, vertical_alignment="center", key="reviewer"):
            st.markdown(
                f"Deciding as **{wording.plain(who)}**", width="content", help="Self-declared: nobody checks it."
            )
            st.button("Change", type="tertiary", key="rename", on_click=state.remember, args=("renaming", True))
        return who

    def keep() -> None:
        name = str(state.widget("reviewer-name") or "").strip()
        if name:
            state.name_reviewer(name)
            state.remember("renaming", False)

    st.text_input(
        "Your name",
        value=who,
        key="reviewer-name",
        help="Self-declared: it is stored with each decision, and nobody checks it.",
        on_change=keep,
    )
    return who


def _text(field: str, label: str, run: str, feature: int, recorded: str, placeholder: str) -> None:
    key = f"{field}-{run}-{feature}"
    value = state.draft(run, feature, field, recorded)
    draw = st.text_input if field == "name" else st.text_area
    draw(
        label,
        value=value,
        key=key,
        placeholder=placeholder,
        on_change=lambda: state.keep_draft(run, feature, field, str(state.widget(key) or "")),
    )


def _record(run: str, row: Finding, seen: str, decision: str, who: str) -> None:
    name, note = _written(run, row)
    book = readers.ledger(state.workspace())
    verdict = book.add_verdict(run, row.feature, row.pull, decision, who, seen, name, note)
    state.drop_drafts(run, row.feature)
    state.say(f"Recorded: {wording.plain(wording.title(row))} is {wording.DECISIONS[verdict.decision].lower()}.")


def _written(run: str, row: Finding) -> tuple[str, str]:
    """Name and note as they stand in the inputs; where these are not drawn, as they were left."""
    recorded = (row.verdict.name, row.verdict.note) if row.verdict else ("", "")
    shown = [state.widget(f"{field}-{run}-{row.feature}") for field in ("name", "note")]
    left = [state.draft(run, row.feature, field, old) for field, old in zip(("name", "note"), recorded, strict=True)]
    name, note = (old if new is None else str(new) for new, old in zip(shown, left, strict=True))
    return name, note


def _unsaved(run: str, row: Finding, seen: str, who: str, recorded: tuple[str, str]) -> None:
    if _written(run, row) == recorded:
        return
    if not row.decision:
        st.caption("What you wrote is recorded with your decision.")
        return
    st.button(
        "Record the new text",
        icon=":material/save:",
        key="record-text",
        on_click=state.action(_record),
        args=(run, row, seen, row.decision, who),
    )


def _undo(run: str, row: Finding) -> None:
    st.button(
        "Undo",
        key="undo",
        shortcut="Z",
        icon=":material/undo:",
        width="stretch",
        disabled=not row.decision,
        help="Withdraws the decision. That is recorded too.",
        on_click=state.action(_withdraw),
        args=(run, row),
    )


def _withdraw(run: str, row: Finding) -> None:
    if row.verdict is None:
        return
    book = readers.ledger(state.workspace())
    who = state.reviewer(book.reviewers())
    book.add_verdict(run, row.feature, row.pull, WITHDRAWN, who, row.verdict.seen, row.verdict.name, row.verdict.note)
    for field, text in (("name", row.verdict.name), ("note", row.verdict.note)):
        state.keep_draft(run, row.feature, field, text)  # what was written is not withdrawn
    state.say(f"Withdrawn: the decision on {wording.plain(wording.title(row))}.")


def _history(book: Ledger, run: str, feature: int) -> None:
    past = book.history(run, feature)
    if past:
        with st.expander(f"History ({len(past)})", key="history"):
            for verdict in reversed(past):
                st.markdown(wording.past(verdict))


if __name__ == "__main__":
    render()
