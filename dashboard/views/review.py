"""Review: one feature a screen; a person decides what it is. A decision is written at once, and never changed."""

from __future__ import annotations

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.acting import second_reading, who
from dashboard.choosing import reviewing
from dashboard.pictures import markup
from dashboard.reading import summaries
from dashboard.reading.opened import Audit
from dashboard.reading.summaries import Finding, Review
from dashboard.screen import panels, readers, state
from dashboard.serving import identity
from dashboard.serving.identity import Person
from dashboard.words import claims, phrases, wording
from ravl.config import DECISIONS
from ravl.ledger import WITHDRAWN, ChangedError, standing
from ravl.store import AuditRun
from ravl.tables import Verdict

KEYS = {"spurious": "S", "core": "G", "mixed": "M", "unsure": "U"}
LEGEND = (
    *((KEYS[decision], wording.DECISIONS[decision].lower()) for decision in DECISIONS),
    ("Z", "undo"),
    ("←", "previous"),
    ("→", "next"),
)
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
    history = book.history(run.id)
    rows = readers.findings(run, book, history)
    if not rows:
        panels.empty(
            "This audit found no features, so there is nothing to decide.", "overview", "To the overview", run.id
        )
        return
    place, options = st.container(), st.container(horizontal=True, vertical_alignment="center", key="last-decision")
    view = _where(run, rows, options)
    row = view.current
    assert row is not None  # rows are not empty
    state.choose_feature(run.id, row.feature)
    with place:
        _progress(run.id, view)
    left, right = st.container(key="review-body").columns([2, 1], gap="medium")
    with left:
        _evidence(audit, row)
    with right:
        person = who.ask(book)
        _decide(run, audit, view, row, person, reviewing.last_event(history, row.feature))
        st.html(markup.key_legend(LEGEND))
        _history(reviewing.known(history, row.feature, state.blind_reader()))
    second_reading.draw(history, rows, run.id)
    _prepare(audit, view)


def _where(run: AuditRun, rows: tuple[Finding, ...], place: DeltaGenerator) -> Review:
    """Draw what was done last and the options; the queue and where in it the person is."""
    flagged = summaries.pick(rows, "flagged")
    with place:
        _last(run.id, rows)
        st.space("stretch")
        only = bool(flagged) and st.toggle(
            f"Only flagged features ({len(flagged)} of {len(rows)})",
            value=True,
            key="review-flagged",
            persist_state="session",
        )
        second_reading.switch()
    feature = state.chosen_feature(run.id, [row.feature for row in rows])
    return summaries.review(rows, feature, only)


def _progress(run: str, view: Review) -> None:
    total = len(view.rows)
    with st.container(horizontal=True, vertical_alignment="bottom", key="progress"):
        st.progress(
            view.decided / total,
            text=f"{view.decided:,} of {total:,} decided · feature {view.position + 1:,} of {total:,}",
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
    if view.decided == total:
        with st.container(horizontal=True, vertical_alignment="center", key="all-decided"):
            st.markdown(phrases.all_decided(total), width="content")
            panels.link("repair", "Repair the model", run)
            panels.link("export", "Hand the list over", run)


def _last(run: str, rows: tuple[Finding, ...]) -> None:
    """What was done last, and its undoing, which stay on the screen while the next feature is shown."""
    done = state.last_done(run)
    st.button(
        "Undo",
        key="undo",
        shortcut="Z",
        icon=":material/undo:",
        disabled=done is None,
        help="Withdraws your last decision and shows its feature again; what you decided on it before holds again. "
        "That is recorded too.",
        on_click=state.action(_undo),
        args=(run,),
    )
    if done is not None:
        titles = {row.feature: wording.title(row) for row in rows}
        said = phrases.shortened(titles.get(done.feature, f"Feature {done.feature}"), 60)
        st.markdown(phrases.recorded(done, said), width="content")


def _evidence(audit: Audit, row: Finding) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(wording.plain(wording.title(row)), anchor=False, width="content")
        panels.badges(row)
    panels.again(row)
    classes = summaries.class_rows(audit, row.feature)
    st.markdown(claims.told(row))
    crops = summaries.exemplars(audit, row.feature, SHOWN_CROPS)
    if crops:
        panels.crop_gallery(audit, crops, f"review-{audit.run}-{row.feature}")
    st.markdown(f"{wording.finding(row)} {claims.effect(classes)}")
    panels.link("features", "All the evidence: with and without it, image by image", audit.run, row.feature)
    with st.expander("Numbers", key="review-numbers"):
        st.caption(wording.support(row))
        st.html(markup.class_table(classes[: panels.SHOWN_CLASSES], state.colours(), row.pull))


def _prepare(audit: Audit, view: Review) -> None:
    """Read the pictures of what comes next while the person looks at this one."""
    for step in (1, -1):
        target = view.neighbour(step)
        if target is not None:
            readers.cards(audit, summaries.exemplars(audit, target, SHOWN_CROPS))


# --- deciding --------------------------------------------------------------------------------------------------------


def _decide(run: AuditRun, audit: Audit, view: Review, row: Finding, person: Person, last: int) -> None:
    recorded = _recorded(row)
    # a blind reader must neither see nor be stopped by what others decided in the meantime
    after = None if state.blind_reader() else last
    seen, onward = audit.seen(row.feature), reviewing.following(view, row.feature)
    places = st.columns(2) + st.columns(2)
    for place, decision in zip(places, DECISIONS, strict=True):
        place.button(
            wording.DECISIONS[decision],
            key=f"decide-{decision}",
            shortcut=KEYS[decision],
            type="primary" if row.decision == decision else "secondary",
            help=wording.MEANING[decision],
            width="stretch",
            disabled=not person.name and not person.declared,
            on_click=state.action(_record),
            args=(run, row, seen, decision, after, onward),
        )
    if problem := identity.missing(person):
        st.caption(wording.plain(problem))
    _text("name", "What it shows", run.id, row.feature, recorded[0], "for example: a chest drain")
    _text("note", "Note", run.id, row.feature, recorded[1], "why you decide so")
    _unsaved(run, row, seen, after, recorded, person)


def _recorded(row: Finding) -> tuple[str, str]:
    """Name and note as they were written last; a feature that a person made has a name before any decision."""
    return (row.verdict.name, row.verdict.note) if row.verdict else (row.name, "")


def _text(field: str, label: str, run: str, feature: int, recorded: str, placeholder: str) -> None:
    key = _key(field, run, feature)
    value = state.draft(run, feature, field, recorded)

    def keep() -> None:
        state.keep_draft(run, feature, field, str(state.widget(key) or ""))

    if field == "name":
        st.text_input(label, value=value, key=key, placeholder=placeholder, on_change=keep)
    else:
        st.text_area(label, value=value, key=key, placeholder=placeholder, on_change=keep, height=88)


def _key(field: str, run: str, feature: int) -> str:
    """Of an input. A blind reading has inputs of its own: the others may hold what somebody else wrote."""
    return f"{field}-{run}-{feature}{'-blind' if state.blind_reader() else ''}"


def _record(run: AuditRun, row: Finding, seen: str, decision: str, after: int | None, onward: int | None) -> None:
    """Write a decision, unless the feature changed since it was drawn, and go on to the next that waits."""
    person = who.now()
    if problem := identity.missing(person):
        state.warn(wording.plain(problem))
        return
    if readers.audit(AuditRun(run.path)).seen(row.feature) != seen:  # of a feature that is gone: no regions at all
        state.warn(phrases.regrouped(wording.title(row), decision))
        return
    name, note = _written(run.id, row)
    book = readers.ledger(state.workspace())
    try:
        verdict = book.add_verdict(
            run.id, row.feature, row.pull, decision, person.name, seen, name, note, person.identity, after
        )
    except ChangedError as error:
        state.warn(phrases.changed_by(error.newer, decision))
        return
    state.drop_drafts(run.id, row.feature)
    state.did(run.id, verdict)
    if onward is not None:
        state.choose_feature(run.id, onward)


def _written(run: str, row: Finding) -> tuple[str, str]:
    """Name and note as they stand in the inputs; where these are not drawn, as they were left."""
    recorded = _recorded(row)
    shown = [state.widget(_key(field, run, row.feature)) for field in ("name", "note")]
    left = [state.draft(run, row.feature, field, old) for field, old in zip(("name", "note"), recorded, strict=True)]
    name, note = (old if new is None else str(new) for new, old in zip(shown, left, strict=True))
    return name, note


def _unsaved(
    run: AuditRun, row: Finding, seen: str, after: int | None, recorded: tuple[str, str], person: Person
) -> None:
    """Offer to record new text alone, where the decision that it goes with is the person's own and needs no review."""
    if _written(run.id, row) == recorded:
        return
    if not _own(row, person) or row.again:
        st.caption("What you wrote is recorded with your decision.")
        return
    st.button(
        "Record the new text",
        icon=":material/save:",
        key="record-text",
        on_click=state.action(_record_text),
        args=(run, row, seen, after),
    )


def _own(row: Finding, person: Person) -> bool:
    """Whether the decision that holds is this person's."""
    verdict = row.verdict
    return verdict is not None and (verdict.reviewer, verdict.identity) == (person.name, person.identity)


def _record_text(run: AuditRun, row: Finding, seen: str, after: int | None) -> None:
    """Write a decision once more with its new text; not under a name that was typed since the page was drawn."""
    if _own(row, who.now()):
        _record(run, row, seen, row.decision, after, None)
    else:
        state.warn("The decision is not yours, so its text was not recorded. It is recorded with your own decision.")


def _undo(run: str) -> None:
    """Withdraw the last decision of this session, unless somebody decided on the feature since; go back to it."""
    done = state.last_done(run)
    if done is None:
        return
    state.undone(run)
    state.choose_feature(run, done.feature)
    try:
        _withdraw(done, None if state.blind_reader() else state.known_event(run, done))
    except ChangedError as error:
        state.warn(phrases.changed_by(error.newer, ""))


def _withdraw(done: Verdict, after: int | None) -> None:
    book = readers.ledger(state.workspace())
    withdrawal = book.add_verdict(
        done.run,
        done.feature,
        done.pull_class,
        WITHDRAWN,
        done.reviewer,
        done.seen,
        done.name,
        done.note,
        done.identity,
        after,
    )
    state.knows(done.run, withdrawal)
    for field, text in (("name", done.name), ("note", done.note)):
        state.keep_draft(done.run, done.feature, field, text)  # what was written is not withdrawn
    again = standing(book.history(done.run, done.feature)).get((done.reviewer, done.feature))
    state.say(phrases.withdrawn(done, again))


def _history(past: tuple[Verdict, ...]) -> None:
    if past:
        with st.expander(f"History ({len(past)})", key="history"):
            for verdict in reversed(past):
                st.markdown(phrases.past(verdict))


if __name__ == "__main__":
    render()
