"""The part of the Features page where a person looks at what a feature is made of, compares, merges and splits."""

from __future__ import annotations

import streamlit as st

from dashboard.acting import who
from dashboard.choosing import family
from dashboard.pictures import markup
from dashboard.reading import audits, summaries
from dashboard.reading.opened import Audit
from dashboard.reading.summaries import Finding
from dashboard.screen import panels, readers, state
from dashboard.serving import jobs
from dashboard.serving.identity import Person, missing
from dashboard.words import claims, wording
from ravl.ledger import Ledger
from ravl.store import AuditRun

KIND = "regroup"
SHOWN_PARTS = 8
SHOWN_CROPS = 6
SIDE_CROPS = 6

_AFTER = (
    "All numbers of this audit are computed again, which takes about as long as the removal of the features did. The "
    "features that come out of it get new numbers and have to be decided on anew; decisions on all others stay."
)


def job(run: AuditRun, book: Ledger) -> bool:
    """Show the merge or split that runs, or that ended badly; whether one runs."""
    every = book.jobs(kind=KIND, run=run.id)
    shown = [job for job in every[:1] if job.active] or audits.last_words(every, (KIND,))[:1]
    for job in shown:
        if job.id not in state.remembered("dismissed", ()):
            panels.job_panel(state.workspace(), job, stages=False, dismissable=True)
    return any(job.active for job in every)


def successor(run: AuditRun, book: Ledger, features: list[int], asked: int | None) -> int | None:
    """The feature that a merge or split made of the one that was asked for; None while that one is there."""
    for grouping in book.groupings(run.id):
        if asked in grouping.features and asked not in features and grouping.made:
            asked = grouping.made[0]
    return asked if asked in features else None


def draw(run: AuditRun, audit: Audit, book: Ledger, rows: tuple[Finding, ...], row: Finding) -> None:
    """The members of a feature, another one beside it, and the buttons that change them."""
    clusters = len(readers.grouped(run).families.clusters_of(row.feature))
    label = f"What it is made of ({wording.count(clusters, 'cluster')}), compare, merge and split"
    place = st.expander(label, key="family", on_change="rerun")
    if not place.open:  # its pictures are read only when they are asked for
        return
    with place:
        found = family.parts(audit, readers.grouped(run), row.feature, SHOWN_CROPS)
        st.markdown(wording.plain(family.parts_sentence(found)))
        person = who.ask(book)
        if problem := missing(person):
            st.caption(wording.plain(problem))
        note = st.text_input(
            "Why you merge or split", key=f"regroup-note-{run.id}", placeholder="kept with the change", max_chars=1000
        )
        if len(found) > 1:
            _parts(audit, found, row)
            _split(run, book, row, person, note or "")
        other = _other(rows, row)
        if other is not None:
            _beside(run, audit, row, other)
            _merge(run, book, row, other, person, note or "")


def _parts(audit: Audit, found: tuple[family.Part, ...], row: Finding) -> None:
    shown = found
    if len(found) > SHOWN_PARTS and not st.toggle(f"Show all {len(found)} clusters", key=f"all-parts-{row.feature}"):
        shown = found[:SHOWN_PARTS]
    for part in shown:
        st.caption(wording.plain(family.part_heading(part)))
        panels.crop_gallery(audit, part.crops, f"part-{audit.run}-{row.feature}-{part.cluster}")


def _split(run: AuditRun, book: Ledger, row: Finding, person: Person, note: str) -> None:
    panels.start_button(
        "Split into its clusters",
        state.workspace(),
        book,
        kind=KIND,
        title=f"Split of feature {row.feature} of {run.name}",
        arguments=jobs.regroup_arguments(run.id, "split", (row.feature,), person, note),
        key="split",
        run=run.id,
        problem=missing(person),
        primary=False,
        icon=":material/call_split:",
        note=_AFTER,
    )


def _other(rows: tuple[Finding, ...], row: Finding) -> Finding | None:
    """The feature to compare with, asked for."""
    others = {other.feature: other for other in rows if other.feature != row.feature}
    if not others:
        return None
    chosen = st.selectbox(
        "Compare with another feature",
        list(others),
        index=None,
        format_func=lambda feature: _named(others[feature]) if feature in others else "",
        key=f"compare-{row.feature}",
        placeholder="choose a feature, or type a part of its name",
    )
    return others.get(chosen) if chosen is not None else None


def _named(row: Finding) -> str:
    return f"{wording.title(row)[:80]} · {claims.evidence(row)}{f' · {row.pull}' if row.pull else ''}"


def _beside(run: AuditRun, audit: Audit, first: Finding, second: Finding) -> None:
    found = family.overlap(audit, readers.grouped(run), first.feature, second.feature)
    st.markdown(wording.plain(f"{family.overlap_sentence(found, first, second)} {family.same_pull(first, second)}"))
    for place, row in zip(st.columns(2, gap="medium"), (first, second), strict=True):
        with place:
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(f"**{wording.plain(wording.title(row))}**", width="content")
                panels.badges(row)
            st.markdown(f"{claims.claim(row)} {wording.finding(row)}")
            crops = summaries.exemplars(audit, row.feature, SIDE_CROPS)
            if crops:
                panels.crop_gallery(audit, crops, f"beside-{audit.run}-{row.feature}")
    st.html(markup.beside_table((first, second)))


def _merge(run: AuditRun, book: Ledger, row: Finding, other: Finding, person: Person, note: str) -> None:
    panels.start_button(
        f"Merge feature {row.feature} and feature {other.feature}",
        state.workspace(),
        book,
        kind=KIND,
        title=f"Merge of features {row.feature} and {other.feature} of {run.name}",
        arguments=jobs.regroup_arguments(run.id, "merge", (row.feature, other.feature), person, note),
        key="merge",
        run=run.id,
        problem=missing(person),
        primary=False,
        icon=":material/call_merge:",
        note=_AFTER,
    )
    st.caption(_AFTER)
