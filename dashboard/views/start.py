"""Start: the audits of the workspace, the demo, a new audit, and the progress of the one that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import streamlit as st

from dashboard.reading import audits
from dashboard.reading.audits import AuditRow, InputCheck
from dashboard.screen import forms, panels, readers, state
from dashboard.serving import jobs
from dashboard.words import wording
from dashboard.words.image_set import Concern, concerns
from ravl.config import (
    NO_MODEL,
    AuditConfig,
    ClusteringConfig,
    EmbeddingConfig,
    EvidenceConfig,
    PromptsConfig,
    RegionsConfig,
    class_words,
)
from ravl.data import Reading, read_images
from ravl.errors import ConfigError
from ravl.ledger import Job, Ledger
from ravl.planted.demos import DEMOS
from ravl.store import AuditRun, damaged_runs, workspace_key
from ravl.tables import Step

SHOWN_AUDITS = 8


def render() -> None:
    """Draw the page."""
    workspace = state.workspace()
    book, runs = readers.ledger(workspace), readers.runs(workspace)
    every_job = book.jobs()
    running = next((job for job in every_job if job.active), None)
    panels.heading(
        "Audits", "Find the image regions that mislead a vision-language model, decide on them, and repair it."
    )
    _jobs(workspace, every_job, running, runs)
    if runs:
        _audits(book, workspace, runs, every_job)
    elif running is None:
        _welcome(book, workspace)
    _damaged(workspace)
    _new_audit(book, workspace, runs)
    panels.fetch_table_code()


def _jobs(workspace: Path, every_job: list[Job], running: Job | None, runs: list[AuditRun]) -> None:
    if running is not None and running.kind == audits.MITIGATION_KIND:
        st.info("A fine-tuning is running. One job runs at a time on this machine.", icon=":material/hourglass:")
        panels.link("repair", "Watch the fine-tuning", running.run)
    elif running is not None:
        panels.job_panel(workspace, running, stages=True)
    dismissed = state.remembered("dismissed", ())
    finished = [run for run in runs if run.finished]
    for job in audits.last_words(every_job, audits.AUDIT_KINDS, finished)[:3]:
        if job.id not in dismissed:
            panels.job_panel(workspace, job, stages=False, dismissable=True)


def _welcome(book: Ledger, workspace: Path) -> None:
    st.subheader("Try it first", anchor=False)
    st.markdown(
        "Each demo draws its images, audits a small model that has learned to cheat, and shows what it cheats on. It "
        "needs no download and no settings, and takes a minute or two."
    )
    for place, world in zip(st.columns(len(DEMOS)), DEMOS, strict=True):
        with place.container(border=True, height="stretch"):
            title, text = wording.DEMOS[world]
            st.markdown(f"**{title}**")
            st.markdown(text)
            _demo_button(book, workspace, world, primary=True)


def _demo_button(book: Ledger, workspace: Path, world: str, primary: bool) -> None:
    title = wording.DEMOS[world][0]
    panels.start_button(
        f"Run the demo: {title[:1].lower()}{title[1:]}",
        workspace,
        book,
        kind="demo",
        title=f"Demo: {title[:1].lower()}{title[1:]}",
        arguments=jobs.demo_arguments(world),
        key=f"start-demo-{world}",
        problem=DEMOS[world].problem(),
        primary=primary,
    )


# --- the audits there are --------------------------------------------------------------------------------------------


def _audits(book: Ledger, workspace: Path, runs: list[AuditRun], every_job: list[Job]) -> None:
    everything = len(runs) <= SHOWN_AUDITS or st.toggle(f"Show all {len(runs)} audits")
    with st.container(gap="small", key="audits"):
        for run in runs if everything else runs[:SHOWN_AUDITS]:
            with state.errors_as_sentences():
                row = audits.audit_row(run, every_job, len(book.verdicts(run.id)))
                _audit(row, newest=run is runs[0])
                if row.status == "stopped":
                    _continue(book, workspace, run)


_COLOURS: dict[str, Literal["green", "blue", "red", "orange"]] = {
    "finished": "green",
    "running": "blue",
    "queued": "blue",
    "failed": "red",
    "lost": "orange",
}


def _audit(row: AuditRow, newest: bool) -> None:
    with st.container(border=True, horizontal=True, vertical_alignment="center", key=f"audit-{row.run}"):
        with st.container(gap=None):
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                st.markdown(f"**{wording.plain(row.name)}**", width="content")
                st.badge(wording.STATUS[row.status], color=_COLOURS.get(row.status, "gray"))
            st.caption(wording.plain(wording.audit_line(row)))
        if row.status == "finished":
            panels.go("overview", "Open", row.run, f"open-{row.run}", primary=newest)


def _continue(book: Ledger, workspace: Path, run: AuditRun) -> None:
    """An audit that was cut short on the command line has no job to resume; the same command continues it."""
    problem = wording.WITHOUT_MODEL["continue"] if run.config.model == NO_MODEL else ""
    panels.start_button(
        f"Continue {wording.plain(run.name)}",
        workspace,
        book,
        kind="discover",
        title=f"Audit {run.name}",
        arguments=audits.repeated(run.config, run.name, run.config.model),
        key=f"continue-{run.id}",
        problem=problem,
        primary=False,
    )
    if problem:
        st.caption(wording.plain(problem))


def _damaged(workspace: Path) -> None:
    broken = damaged_runs(workspace)
    if broken:
        with st.expander(f"{wording.count(len(broken), 'folder')} cannot be opened", icon=":material/warning:"):
            for name, reason in broken:
                st.markdown(f"**{wording.plain(name)}**: {wording.plain(reason)}")


# --- a new audit -----------------------------------------------------------------------------------------------------


def _new_audit(book: Ledger, workspace: Path, runs: list[AuditRun]) -> None:
    taken = [run.name for run in runs]
    st.subheader("New audit", anchor=False)
    untried = [world for world, demo in DEMOS.items() if demo.name not in taken]
    if runs and untried:  # without any audit, the page has just offered them
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown("Demos need no settings:", width="content")
            for world in untried:
                _demo_button(book, workspace, world, primary=False)
    images, model = _ask_inputs()
    classes, templates = _ask_prompts()
    settings = _ask_advanced()
    left, _ = st.columns(2)
    wanted = left.text_input(
        "Name of the audit", key="new-name", persist_state="session", placeholder="taken from the image folder"
    )
    name = audits.free_name((wanted or "").strip() or Path(images or "audit").stem, taken)
    arguments = jobs.discover_arguments(name, images, model, classes=classes, templates=templates, **settings)
    problem = _problem(images, model, classes, templates)
    with st.container(horizontal=True):
        checking = st.button("Check inputs", icon=":material/rule:", key="check-inputs")
        panels.start_button(
            "Start the audit",
            workspace,
            book,
            kind="discover",
            title=f"Audit {name}",
            arguments=arguments,
            key="start-audit",
            problem=problem,
            primary=False,
        )
    if problem and (images or model) and not checking:
        st.caption(wording.plain(problem))
    if checking:
        state.remember("check", None)
        if unseen := audits.copied_first(images):
            st.info(unseen)
        with state.errors_as_sentences():
            if not unseen:
                state.remember("check", ((images, classes), _check(images, classes, workspace)))
    if checking or state.remembered("check", None):
        _show_check(model, problem, (images, classes))


def _ask_inputs() -> tuple[str, str]:
    left, right = st.columns(2)
    with left:
        images = st.text_input(
            "Images",
            key="new-images",
            persist_state="session",
            placeholder="/data/chest/val or /data/chest/val.csv",
            help="A folder with one folder of images per class, or a manifest (CSV or Parquet) with the columns "
            "image_path and label. The path is read on the machine where RAVL runs.",
        )
    with right:
        model = st.text_input(
            "Model",
            key="new-model",
            persist_state="session",
            placeholder="/models/my-clip or openai/clip-vit-base-patch32",
            help="A folder that save_pretrained wrote, or a name on the Hugging Face hub. An audit never changes it.",
        )
    return (images or "").strip(), (model or "").strip()


def _ask_prompts() -> tuple[tuple[str, ...], tuple[str, ...]]:
    left, right = st.columns(2)
    with left:
        classes = forms.ask(
            PromptsConfig, "classes", "Class names, one per line", "new-classes", placeholder="those of the image set"
        )
    with right:
        templates = forms.ask(PromptsConfig, "templates", "Prompts, one per line", "new-templates")
    return classes, templates


def _ask_advanced() -> dict[str, Any]:
    with st.expander("Advanced options", key="new-advanced"):
        left, right = st.columns(2)
        with left:
            size = forms.ask(RegionsConfig, "k", "Grid: rows and columns", "new-grid")
            method = forms.ask(ClusteringConfig, "method", "Clustering", "new-clustering")
        with right:
            encoder = forms.ask(EmbeddingConfig, "encoder", "Region encoder", "new-encoder")
            seed = forms.ask(AuditConfig, "seed", "Seed", "new-seed")
        rule = forms.ask(EvidenceConfig, "rule", "Which features are flagged", "new-rule", words=wording.RULES)
    regions = str(RegionsConfig(k=size))
    return {"regions": regions, "encoder": encoder, "clustering": method, "rule": rule, "seed": seed}


def _problem(images: str, model: str, classes: tuple[str, ...], templates: tuple[str, ...]) -> str:
    """Why an audit cannot start yet; empty when it can."""
    if not images:
        return "Give a folder or a manifest of labelled images."
    if problem := audits.images_problem(images):
        return problem
    usable, note = audits.model_note(model)
    if not usable:
        return note
    for name in classes:
        if "," in name:
            return f"A class name must not contain a comma, got {name}. Rename the class."
    try:
        PromptsConfig(classes, templates)
    except ConfigError as error:
        return str(error)
    return ""


def _check(images: str, classes: tuple[str, ...], workspace: Path) -> tuple[InputCheck, tuple[Concern, ...]]:
    """What is known about the images, and what in them can spoil an audit. They are read as an audit reads them."""
    if not images:
        raise ConfigError("Images must be a folder or a manifest, got nothing. Give a path above.")
    names, synonyms = class_words(classes)
    reading = Reading(salt=workspace_key(workspace), synonyms=synonyms)
    bar = st.progress(0.0, text="Reading images …")

    def report(step: Step) -> None:
        bar.progress(min(1.0, step.done / max(step.total, 1)), text=f"Reading images: {step.done:,} of {step.total:,}")

    try:
        found = read_images(images, names, AuditConfig(images, "").max_unreadable, report, reading)
    finally:
        bar.empty()  # what is wrong is said in its place
    return audits.check_inputs(found), tuple(concern for concern in concerns(found) if concern.serious)


def _show_check(model: str, problem: str, asked: tuple[str, tuple[str, ...]]) -> None:
    kept = state.remembered("check", None)
    with st.container(border=True, key="check"):
        if kept is not None and kept[0] == asked:
            _show_images(*kept[1])
        elif kept is not None:
            st.caption("The inputs changed since they were checked. Check again.")
        usable, note = audits.model_note(model)
        (st.markdown if usable else st.warning)(wording.plain(note))
        if kept is None:
            return  # the images were not read, and why is said above
        if problem and usable:
            st.warning(wording.plain(problem))
        elif not problem:
            st.markdown("Everything needed is there: the audit can start.")


def _show_images(check: InputCheck, serious: tuple[Concern, ...]) -> None:
    st.markdown(
        f"**{wording.count(check.n_images, 'image')}** in {wording.count(len(check.counts), 'class', 'classes')}."
    )
    for warning in check.warnings:
        st.warning(wording.plain(warning))
    for concern in serious:
        st.warning(f"**{concern.title}.** {concern.meaning}")
    st.dataframe(
        {"Class": [name for name, _ in check.counts], "Images": [n for _, n in check.counts]},
        hide_index=True,
        width="content",
        height=min(400, 38 + 35 * len(check.counts)),
        alt="Images per class",
    )
    if check.skipped:
        with st.expander(f"{wording.count(len(check.skipped), 'entry', 'entries')} that cannot be used"):
            files, reasons = zip(*check.skipped, strict=True)
            st.dataframe({"File": files, "Reason": reasons}, hide_index=True, alt="What cannot be used")


if __name__ == "__main__":
    render()
