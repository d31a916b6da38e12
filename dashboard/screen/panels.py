"""Pieces of screen that several pages draw: empty states, a job's progress, a gallery with its enlarged picture."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import streamlit as st

from dashboard.pictures import gallery, markup, sheet
from dashboard.reading import evidence, summaries
from dashboard.reading.evidence import Removal, Trial
from dashboard.reading.opened import Audit, missing_stages
from dashboard.reading.summaries import Crop, Finding
from dashboard.screen import readers, state
from dashboard.screen.components import clickable
from dashboard.serving import jobs
from dashboard.words import claims, wording
from ravl.ledger import Job, Ledger
from ravl.store import STAGES, AuditRun

PAGES = {
    "start": ("views/start.py", "Start", ":material/home:"),
    "overview": ("views/overview.py", "Overview", ":material/summarize:"),
    "features": ("views/features.py", "Features", ":material/format_list_numbered:"),
    "map": ("views/region_map.py", "Map", ":material/scatter_plot:"),
    "review": ("views/review.py", "Review", ":material/fact_check:"),
    "repair": ("views/repair.py", "Repair", ":material/build:"),
    "export": ("views/export.py", "Export", ":material/download:"),
}
"""File, title and icon of every page, in the order of the menu."""

_MEDIUM = 700  # pixels; what a medium dialog shows at full size

POLL_SECONDS = 2
SILENT_SECONDS = 60
"""A worker without a heartbeat for this long is said to be silent."""


def style() -> None:
    """The style sheet of tables, legends and galleries, and the width of the page; drawn once a page."""
    st.html(f"<style>{sheet.CSS}</style>")


def fetch_table_code() -> None:
    """Let the browser fetch the code that draws tables while a person reads a page without one.

    It is 1.7 MB in 36 files, which Streamlit loads with the first table that it draws: half of what the first visit of
    Features took. So an empty table is drawn last, and not displayed.
    """
    with st.container(key="ahead"):
        st.dataframe({"": []}, key="ahead-table")


def heading(title: str, purpose: str) -> None:
    """The title of a page and what it is for."""
    st.title(title, anchor=False)
    st.caption(purpose)


def link(page: str, label: str, run: str | None = None, feature: int | None = None) -> None:
    """A link to another page that keeps the audit and the feature."""
    file, _, icon = PAGES[page]
    st.page_link(file, label=label, icon=icon, query_params=state.address(run, feature))


def go(page: str, label: str, run: str, key: str, feature: int | None = None, primary: bool = True) -> None:
    """A button to the page that comes next, and keeps the audit."""
    file, _, icon = PAGES[page]
    if st.button(label, icon=icon, type="primary" if primary else "secondary", key=key):
        st.switch_page(file, query_params=state.address(run, feature))


NOTHING = ("overview", "To the overview")
"""Where a page leads that has nothing to show because the audit found no feature."""


def empty(text: str, page: str, label: str, run: str | None = None) -> None:
    """What a page says when it has nothing to show: why, and what to do next. text: Markdown."""
    with st.container(border=True):
        st.markdown(text)
        link(page, label, run)


def current_run() -> AuditRun | None:
    """The audit on the screen; without one, says so and returns None."""
    runs = readers.runs(state.workspace())
    chosen = state.chosen_run([run.id for run in runs])
    if chosen is None:
        empty("There is no audit in this workspace yet.", "start", "Start a demo or a new audit")
        return None
    return next(run for run in runs if run.id == chosen)


def needs(run: AuditRun, stage: str, what: str) -> bool:
    """Whether a stage is finished; else says how far the audit is and where it can be continued."""
    if run.has(stage):
        return True
    missing = missing_stages(run)
    total = len(STAGES)
    text = (
        f"**{wording.plain(run.name)}** is not finished: {total - len(missing)} of {total} stages are done. "
        f"{what} is shown as soon as the stage *{wording.stage(stage)}* is."
    )
    empty(text, "start", "See its progress, or resume it", run.id)
    return False


# --- jobs ------------------------------------------------------------------------------------------------------------


def start_button(
    label: str,
    workspace: Path,
    book: Ledger,
    *,
    kind: str,
    title: str,
    arguments: list[str],
    key: str,
    run: str = "",
    problem: str = "",
    primary: bool = True,
    icon: str = ":material/play_arrow:",
    note: str | None = None,
) -> None:
    """A button that starts a job; disabled while another one runs or while there is a problem.

    The job starts in the script, not in a callback: a callback has the arguments of the last *complete* drawing, and
    whoever types and clicks faster than the page is drawn would start a job with the values from before.
    """
    busy = any(job.active for job in book.jobs())
    if st.button(
        label,
        icon=icon,
        type="primary" if primary else "secondary",
        key=key,
        disabled=busy or bool(problem),
        help="One job runs at a time on this machine; wait for the running one." if busy else problem or note,
    ):
        state.action(jobs.start)(book, workspace, kind, title, arguments, run)
        st.rerun()


def job_panel(workspace: Path, job: Job, stages: bool, dismissable: bool = False) -> None:
    """A job with its progress, redrawn while it runs; the page is drawn anew when it ends.

    stages: list those of an audit. dismissable: an ended job can be taken off the screen for this session.
    """
    every = POLL_SECONDS if job.active else None
    st.fragment(_draw_job, run_every=every)(workspace, job.id, job.active, stages, dismissable)


def _draw_job(workspace: Path, number: int, was_active: bool, stages: bool, dismissable: bool) -> None:
    with state.errors_as_sentences():
        book = readers.ledger(workspace)
        readers.settle(book)
        job = book.job(number)
        if was_active and not job.active:
            st.rerun()  # the whole page: what the job made can be shown now
        with st.container(border=True, key=f"job-{number}"):
            _draw_state(job, stages)
            with st.container(horizontal=True):
                _draw_buttons(workspace, book, job)
                if dismissable and not job.active and st.button("Dismiss", key=f"dismiss-{number}"):
                    state.remember("dismissed", (*state.remembered("dismissed", ()), number))
                    st.rerun()
            _draw_log(job)


def _draw_state(job: Job, stages: bool) -> None:
    st.markdown(f"**{wording.plain(job.title)}** – {wording.STATUS[job.status]}")
    if job.active:
        share = min(1.0, job.done / job.total) if job.total else 0.0
        st.progress(share, text=wording.progress(job, jobs.remaining_seconds(job)))
        if stages:
            st.html(markup.stage_list(job.stage, done=False))
        silent = jobs.seconds_since(job.heartbeat) if job.heartbeat else 0.0
        if silent > SILENT_SECONDS:
            st.warning(
                f"No sign of life for {wording.duration(silent)}. It may be busy with one long step, or stuck; "
                "the log says what it did last."
            )
    elif job.reason:
        # what went wrong has to be seen; a cancellation was asked for
        draw = {"failed": st.error, "lost": st.warning}.get(job.status, st.markdown)
        draw(wording.message(job.reason))


def _draw_buttons(workspace: Path, book: Ledger, job: Job) -> None:
    if job.active:
        cancelling = state.remembered(f"cancelling:{job.id}", False)
        label = "Stopping …" if cancelling else "Cancel"
        help_text = "Stops after the current step. Finished stages and checkpoints are kept."
        st.button(
            label,
            icon=":material/stop:",
            key=f"cancel-{job.id}",
            disabled=cancelling,
            help=help_text,
            on_click=state.action(_cancel),
            args=(book, job),
        )
    elif job.status in ("failed", "cancelled", "lost"):
        help_text = "Runs the same command again. Finished stages and checkpoints are not computed twice."
        label = "Try again" if job.status == "failed" else "Resume"  # what failed has to be mended first
        if st.button(label, icon=":material/play_arrow:", key=f"resume-{job.id}", help=help_text):
            state.action(jobs.resume)(book, workspace, job)
            st.rerun()  # the whole page: what runs now is another job than the one drawn here


def _cancel(book: Ledger, job: Job) -> None:
    jobs.cancel(book, job)
    state.remember(f"cancelling:{job.id}", True)


def _draw_log(job: Job) -> None:
    tail = jobs.log_tail(job)
    if tail:
        with st.expander("Log", key=f"log-{job.id}"):
            st.code(tail, language=None, wrap_lines=True, height=240)


# --- features --------------------------------------------------------------------------------------------------------


def badges(row: Finding) -> None:
    """What the evidence amounts to, and the decision that holds."""
    st.badge(claims.evidence(row), color="orange" if row.flagged else "gray", icon=_FLAG if row.flagged else None)
    if row.decision:
        st.badge(wording.DECISIONS[row.decision], color="blue", icon=":material/check:")
    if row.again:
        st.badge("Review again", color="red", icon=":material/history:")


_FLAG = ":material/flag:"

SHOWN_CLASSES = 12
"""Rows of a table of classes that are shown at once: some image sets have hundreds."""


def again(row: Finding) -> None:
    """Why the decision has to be made again, where it has."""
    if row.again:
        st.warning(wording.plain(row.again), icon=":material/history:")


def gain(audit: Audit, rows: tuple[Finding, ...]) -> None:
    """What to expect if some features were invisible; nothing where none of them was removed."""
    names = {row.feature: row.name for row in rows}
    view = evidence.expected(audit, tuple(names), names)
    if view is not None:
        st.markdown(claims.expected(view))
        st.caption(claims.expected_basis(view))


# --- pictures --------------------------------------------------------------------------------------------------------


def crop_gallery(view: Audit, crops: tuple[Crop, ...], key: str) -> None:
    """Crops as cards; a click enlarges one."""
    clicked = clickable(gallery.cards_html(readers.cards(view, crops)), key)
    if clicked is not None and 0 <= clicked < len(crops):
        _enlarge(view, crops[clicked])


def pixel_switch(where: str = "page") -> None:
    """Whether small pictures show their pixels, on all pages of this session."""
    key = f"pixelated-{where}"
    state.set_widget(key, state.pixelated())
    st.toggle(
        "Pixels",
        key=key,
        help="Shows the pixels of small pictures as they are, instead of smoothing them.",
        on_change=lambda: state.show_pixels(bool(state.widget(key))),
    )


def strip(audit: Audit, feature: int, limit: int) -> None:
    """One row of a feature's crops."""
    best = readers.cards(audit, summaries.exemplars(audit, feature, limit))
    if best:
        st.html(gallery.strip_html(best))


SHOWN_TRIALS = {"fixed": 6, "stays": 2, "kept": 2, "broken": 2}


def trials(view: Audit, removal: Removal, key: str) -> None:
    """Images with and without a feature: errors that go first, counter-examples below; a click enlarges one."""
    operators = [effect.operator for effect in removal.effects]
    operator = operators[0]
    if len(operators) > 1:
        operator = (
            st.segmented_control(
                "How it is removed",
                operators,
                default=operator,
                required=True,
                format_func=lambda name: claims.OPERATORS[name][0],
                key=f"operator-{view.run}",
                persist_state="session",
            )
            or operator
        )
    st.caption(claims.panel_note(removal, operator))
    found = evidence.outcomes(view, removal.feature, operator, SHOWN_TRIALS)
    clicked = clickable(gallery.pairs_html(readers.sections(view, found)), key)
    shown = [trial for outcome in found for trial in outcome.shown]
    if clicked is not None and 0 <= clicked < len(shown):
        size = _dialog(view, shown[clicked].image, side_by_side=2)
        st.dialog("With and without the feature", width=size)(_draw_pair)(view, shown[clicked])


def _draw_pair(view: Audit, trial: Trial) -> None:
    with state.errors_as_sentences():
        st.markdown(wording.plain(claims.trial_caption(trial)))
        pictures = readers.trial_pictures(view, trial)
        said = ((trial.called, trial.was_right), (trial.after, trial.is_right))
        alts = claims.trial_alts(trial)
        for place, picture, (called, right), alt in zip(st.columns(2), pictures, said, alts, strict=True):
            place.markdown(f"{'✓' if right else '✗'} called *{wording.plain(called)}*")
            place.image(picture, width="stretch", alt=alt)


def _enlarge(view: Audit, crop: Crop) -> None:
    st.dialog("Region in its image", width=_dialog(view, crop.image))(_draw_large)(view, crop)


def _dialog(view: Audit, image: int, side_by_side: int = 1) -> Literal["medium", "large"]:
    """How wide a dialog has to be for an image at full size."""
    width, height = (int(v) for v in view.images.size[image])
    return "large" if max(width, height) * side_by_side > _MEDIUM else "medium"


def _draw_large(view: Audit, crop: Crop) -> None:
    with state.errors_as_sentences():
        first, second = wording.crop_caption(crop)
        facts = (first, second, f"image {crop.image}", f"region {crop.region}")
        st.markdown(wording.plain(" · ".join(filter(None, facts))))
        with st.container(horizontal=True, vertical_alignment="center"):
            whole = st.segmented_control(
                "What is shown",
                [True, False],
                default=True,
                required=True,
                format_func={True: "Whole image", False: "Region alone"}.__getitem__,
                key=f"whole-{crop.region}",
                label_visibility="collapsed",
            )
            outline = st.toggle("Show the box", value=True, key=f"outline-{crop.region}", disabled=not whole)
            pixel_switch("large")
        picture = readers.full_picture(view, crop, outline) if whole else readers.large_crop(view, crop)
        st.image(picture, width="content", alt=wording.crop_alt(crop, whole=bool(whole)))
