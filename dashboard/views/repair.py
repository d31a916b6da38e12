"""Repair: fine-tune the model away from its confirmed features, watch it, and compare before with after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.reading import audits
from dashboard.reading.opened import Audit
from dashboard.reading.summaries import Finding
from dashboard.screen import forms, panels, readers, repair_panels, state
from dashboard.serving import jobs
from dashboard.serving.readiness import need, needs_features
from dashboard.words import wording
from ravl.config import NO_MODEL, MitigationConfig
from ravl.errors import ConfigError
from ravl.ledger import Job, Ledger
from ravl.planted.demos import demo_of
from ravl.store import AuditRun, MitigationFolder


def render() -> None:
    """Draw the page."""
    panels.heading(
        "Repair", "Fine-tune the model so that it no longer uses the confirmed features, and compare before with after."
    )
    run = panels.current_run()
    if run is None or not panels.needs(run, "evidence", "The repair"):
        return
    workspace = state.workspace()
    book = readers.ledger(workspace)
    repair_panels.origin(workspace, run)
    tunings = {folder.name: folder for folder in run.mitigations()}
    every_job = book.jobs(kind=audits.MITIGATION_KIND, run=run.id)
    names = list(dict.fromkeys([*(jobs.argument(job, "--name") for job in every_job), *tunings]))
    rows = readers.findings(run, book, everybody=True)
    if not rows:
        panels.empty("This audit found no features, so there is nothing to repair.", *panels.NOTHING, run.id)
        return
    if run.config.model == NO_MODEL:
        panels.empty(wording.WITHOUT_MODEL["repair"], "start", "To the audits", run.id)
        return
    confirmed = tuple(row for row in rows if row.decision == "spurious")
    if names:
        _tuning(workspace, run, book, names, every_job)
    _set_up(workspace, run, book, confirmed, names)


# --- one fine-tuning -------------------------------------------------------------------------------------------------


def _tuning(workspace: Path, run: AuditRun, book: Ledger, names: list[str], every_job: list[Job]) -> None:
    chosen, key = names[0], f"tuning-{run.id}"
    newest = next(iter(every_job), None)
    if newest is not None and state.remembered(f"newest:{key}", 0) != newest.id:
        state.remember(f"newest:{key}", newest.id)
        if newest.active:  # what has just been started is what people want to watch
            state.set_widget(key, jobs.argument(newest, "--name"))
    if len(names) > 1:
        chosen = st.selectbox("Fine-tuning", names, key=key, persist_state="session") or names[0]
    folder = run.mitigation(chosen)
    job = next((job for job in every_job if jobs.argument(job, "--name") == chosen), None)
    active = job is not None and job.active
    if job is not None and job.status != "done":
        panels.job_panel(workspace, job, stages=False)
    elif folder.exists and not folder.finished:
        st.warning(f"{wording.plain(chosen)} is not finished. What it has done so far is kept.")
        _start_again(workspace, run, book, folder, "Continue it", f"continue-{chosen}")
    if folder.finished:
        repair_panels.before_and_after(folder)
        if not repair_panels.audited_again(workspace, run, folder) and not active:
            st.subheader("The repaired model, audited again", anchor=False)
            st.markdown("Not done yet. Removing one shortcut can strengthen another; a second audit tells.")
            _start_again(workspace, run, book, folder, "Audit the repaired model", f"reaudit-{chosen}")
        _saved(folder)
    repair_panels.curves(folder, active)


def _start_again(workspace: Path, run: AuditRun, book: Ledger, folder: MitigationFolder, label: str, key: str) -> None:
    """A button that gives the command once more: what is done is kept, what is missing is made up for."""
    panels.start_button(
        label,
        workspace,
        book,
        kind=audits.MITIGATION_KIND,
        title=f"Fine-tuning “{folder.name}” of {run.name}",
        arguments=jobs.again_arguments(folder.name, folder.about),
        run=run.id,
        key=key,
        icon=":material/replay:",
        note="Runs the same command again. What is finished is not computed twice.",
    )


def _saved(folder: MitigationFolder) -> None:
    st.markdown("**The repaired model is saved here:**")
    st.code(str(folder.model), language=None, wrap_lines=True)
    st.caption("It is a save_pretrained folder with a model card: open it with transformers like any other model.")


# --- a new one -------------------------------------------------------------------------------------------------------


def _set_up(workspace: Path, run: AuditRun, book: Ledger, confirmed: tuple[Finding, ...], names: list[str]) -> None:
    if names:
        with st.expander(
            "New fine-tuning", icon=":material/add:", key=f"new-tuning-{run.id}-{len(names)}"
        ):  # closed by a start
            _form(workspace, run, book, confirmed, names)
    else:
        _form(workspace, run, book, confirmed, names)


def _form(workspace: Path, run: AuditRun, book: Ledger, confirmed: tuple[Finding, ...], names: list[str]) -> None:
    if not confirmed:
        text = "No feature is confirmed as **spurious** yet. A person decides which ones the model should not use."
        panels.empty(text, "review", "Decide on the features", run.id)
        return
    audit = readers.audit(run)
    st.markdown("The model is trained not to use the features that are ticked; then it is compared with what it was.")
    chosen = _features(run, audit, confirmed)
    panels.gain(audit, tuple(row for row in confirmed if row.feature in chosen))
    train, test = _data(workspace, run)
    given, settings = _settings(run)
    name = audits.free_name((given or "").strip() or settings["method"], names)
    reaudit = st.checkbox(
        "Audit the repaired model at the end",
        value=True,
        key="tune-reaudit",
        persist_state="session",
        help="Removing one shortcut can strengthen another. This runs the same audit on the repaired model.",
    )
    _readiness(workspace, audit, settings)
    problem = _problem(chosen, train, test, settings)
    panels.start_button(
        "Start fine-tuning",
        workspace,
        book,
        kind=audits.MITIGATION_KIND,
        title=f"Fine-tuning “{name}” of {run.name}",
        arguments=jobs.mitigate_arguments(run.id, name, train, test=test, features=chosen, reaudit=reaudit, **settings),
        run=run.id,
        key="start-tuning",
        problem=problem,
    )
    if problem:
        st.caption(wording.plain(problem))


def _settings(run: AuditRun) -> tuple[str | None, dict[str, Any]]:
    """The name that was typed, and the fields of MitigationConfig that the command takes."""
    config = MitigationConfig
    demo = demo_of(state.workspace(), run.config.images)
    enough = demo.repair if demo else {}
    own = f"-{demo.world}" if demo and enough else ""  # a field with another beginning is another field
    asked: dict[str, Any] = {}
    left, right = st.columns(2)
    with left:
        asked["method"] = forms.ask(config, "method", "Method", "tune-method", words=wording.METHODS)
        asked["steps"] = forms.ask(config, "steps", "Steps", f"tune-steps{own}", start=enough.get("steps"))
    with right:
        given = st.text_input(
            "Name", key=f"tune-name-{run.id}", persist_state="session", placeholder="taken from the method"
        )
        asked["batch_size"] = forms.ask(
            config, "batch_size", "Images per step", f"tune-batch{own}", start=enough.get("batch_size")
        )
    with st.expander("Advanced options", key="tune-advanced"):
        left, right = st.columns(2)
        with left:
            hint = "chosen from the model's size"
            asked["lr"] = forms.ask(config, "lr", "Peak learning rate", "tune-lr", placeholder=hint)
            asked["micro_batch"] = forms.ask(
                config, "micro_batch", "Images at once", "tune-micro", placeholder="all of a step"
            )
            asked["precision"] = forms.ask(config, "precision", "Precision", "tune-precision")
            asked["lora_rank"] = forms.ask(config, "lora_rank", "LoRA rank", "tune-lora", placeholder="no adapters")
        with right:
            asked["patience"] = forms.ask(
                config, "patience", "Patience", "tune-patience", placeholder="never stops early"
            )
            asked["region_share"] = forms.ask(
                config, "region_share", "Share of images with regions", "tune-share", placeholder="chosen by the method"
            )
            asked["families"] = forms.ask(config, "families", "Clusters of a feature", "tune-families")
            asked["gradient_checkpointing"] = forms.ask(
                config, "gradient_checkpointing", "Less memory, more time", "tune-checkpointing"
            )
            asked["seed"] = forms.ask(config, "seed", "Seed", "tune-seed")
    return given, asked


def _readiness(workspace: Path, audit: Audit, settings: dict[str, Any]) -> None:
    """Where it will run and whether the memory will do, as soon as the device is known."""
    pending = repair_panels.probe(workspace).pending
    every = panels.POLL_SECONDS if pending else None
    st.fragment(_draw_readiness, run_every=every)(workspace, audit, settings, pending)


def _draw_readiness(workspace: Path, audit: Audit, settings: dict[str, Any], was_pending: bool) -> None:
    with state.errors_as_sentences():
        found = repair_panels.probe(workspace)
        if was_pending and not found.pending:
            st.rerun()  # the whole page: nothing is asked for any more
        if found.pending:
            st.caption("Looking whether this machine has a GPU …")
            return
        device = (found.machine or repair_panels.somewhere()).device
        wanted = need(
            audit.config.model,
            audit.images,
            audit.regions,
            audit.config.embedding,
            MitigationConfig(**settings),
            device,
        )
        repair_panels.check(found, wanted)


def _features(run: AuditRun, audit: Audit, confirmed: tuple[Finding, ...]) -> tuple[int, ...]:
    """Which confirmed features to treat; each with its crops.

    At first all are chosen whose regions are those that the decision was about; `ravl mitigate` refuses the others
    too, unless somebody names them.
    """
    chosen = []
    for row in confirmed:
        with st.container(horizontal=True, vertical_alignment="center", key=f"treat-{row.feature}"):
            label = f"{wording.plain(wording.title(row))}: {wording.support(row)}"
            key = f"treat{'-again' if row.again else ''}-{run.id}-{row.feature}"  # what was ticked before is asked anew
            if st.checkbox(label, value=not row.again, key=key, persist_state="session"):
                chosen.append(row.feature)
        if row.again:
            st.caption(
                "Its regions are not those that the decision was about, so it is not chosen. "
                "Review it again, or tick it to treat it all the same."
            )
        panels.strip(audit, row.feature, 8)
    return tuple(chosen)


def _data(workspace: Path, run: AuditRun) -> tuple[str, str]:
    left, right = st.columns(2)
    with left:
        train = st.text_input(
            "Training images",
            value=audits.demo_split(workspace, run.config.images, "train"),
            key=f"tune-train-{run.id}",
            persist_state="session",
            placeholder="/data/chest/train",
            help="A folder or a manifest with the same classes as the audit. Not the audited images.",
        )
    with right:
        test = st.text_input(
            "Test images for the comparison",
            value=audits.demo_split(workspace, run.config.images, "test"),
            key=f"tune-test-{run.id}",
            persist_state="session",
            placeholder="optional; without them, the audited images",
            help="Images that neither the audit nor the training has seen give the honest answer.",
        )
    return (train or "").strip(), (test or "").strip()


def _problem(features: tuple[int, ...], train: str, test: str, settings: dict[str, Any]) -> str:
    """Why a fine-tuning cannot start yet; empty when it can."""
    if not features and needs_features(settings["method"]):
        return "Choose at least one confirmed feature."
    if not train:
        return "Give a folder or a manifest of training images."
    for path in filter(None, (train, test)):
        if problem := audits.images_problem(path):
            return problem
    try:
        MitigationConfig(**settings)
    except ConfigError as error:
        return wording.message(str(error))
    return ""


if __name__ == "__main__":
    render()
