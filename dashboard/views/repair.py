"""Repair: fine-tune the model away from its confirmed features, watch it, and compare before with after."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard import audits, charts, comparison, forms, jobs, markup, panels, readers, state, wording
from dashboard.comparison import Comparison
from dashboard.opened import Audit
from dashboard.summaries import Finding
from ravl.config import MitigationConfig
from ravl.ledger import Job, Ledger
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
    tunings = {folder.name: folder for folder in run.mitigations()}
    every_job = book.jobs(kind=audits.MITIGATION_KIND, run=run.id)
    names = list(dict.fromkeys([*(jobs.argument(job, "--name") for job in every_job), *tunings]))
    confirmed = tuple(row for row in readers.findings(run, book) if row.decision == "spurious")
    if names:
        _tuning(workspace, run, book, names, every_job)
    _set_up(workspace, run, book, confirmed, names)


# --- one fine-tuning -------------------------------------------------------------------------------------------------


def _tuning(workspace: Path, run: AuditRun, book: Ledger, names: list[str], every_job: list[Job]) -> None:
    chosen = names[0]
    if len(names) > 1:
        chosen = st.selectbox("Fine-tuning", names, key=f"tuning-{run.id}", persist_state="session") or names[0]
    folder = run.mitigation(chosen)
    job = next((job for job in every_job if jobs.argument(job, "--name") == chosen), None)
    if job is not None and job.status != "done":
        panels.job_panel(workspace, job, stages=False)
    elif folder.exists and not folder.finished:
        st.warning(
            f"{wording.plain(chosen)} is not finished. Start it again with the same settings and name to continue it."
        )
    if folder.finished:
        _result(workspace, run, book, folder)
    _curves(folder, job is not None and job.active)


def _curves(folder: MitigationFolder, live: bool) -> None:
    st.fragment(_draw_curves, run_every=panels.POLL_SECONDS if live else None)(folder)


def _draw_curves(folder: MitigationFolder) -> None:
    with state.errors_as_sentences():
        log = folder.log()
        losses = comparison.curves(log, comparison.LOSSES)
        accuracies = comparison.curves(log, comparison.ACCURACIES)
        if not losses and not accuracies:
            return
        left, right = st.columns(2)
        for place, lines, title, share in (
            (left, losses, "Loss", False),
            (right, accuracies, "Accuracy on the audited images", True),
        ):
            if lines:
                figure = charts.curve_figure(lines, title, state.colours(), share)
                config = {"displayModeBar": False}
                place.plotly_chart(
                    figure, key=f"curve-{share}-{folder.name}", config=config, alt=f"{title} over the steps"
                )


def _result(workspace: Path, run: AuditRun, book: Ledger, folder: MitigationFolder) -> None:
    view = comparison.compare(*folder.groups())
    st.subheader("Before and after", anchor=False)
    st.markdown(wording.repaired(view))
    _numbers(view)
    st.caption(wording.compared(folder.result))
    st.markdown(wording.worse(view))
    colours = state.colours()
    if view.worse:
        st.html(markup.change_table(view.worse[:8], colours, "Groups that got worse, the largest fall first"))
    for rows, title in (
        (view.groups, "Groups: class, with or without a feature"),
        (view.classes, "Classes"),
        (view.features, "Features: with and without"),
    ):
        if rows:
            with st.expander(f"{title} ({len(rows)})", key=f"changes-{title[:6]}"):
                st.html(markup.change_table(rows, colours, title))
    _saved(workspace, run, book, folder)


def _numbers(view: Comparison) -> None:
    was, now = view.worst_before, view.worst_after
    shown = [("All test images", view.overall)]
    if was is not None:
        shown.append((f"Was the worst: {was.name}", was))
    if now is not None and (was is None or now.name != was.name):
        shown.append((f"Is now the worst: {now.name}", now))
    for place, (label, change) in zip(st.columns(3), shown, strict=False):
        place.metric(
            wording.plain(label),
            wording.percent(change.after.share),
            wording.points(change.change).replace("−", "-"),  # the arrow's direction is read from a plain minus
            delta_description=f"{change.after.right:,} of {change.after.n:,} right",
            border=True,
        )


def _saved(workspace: Path, run: AuditRun, book: Ledger, folder: MitigationFolder) -> None:
    st.markdown("**The repaired model is saved here:**")
    st.code(str(folder.model), language=None, wrap_lines=True)
    st.caption("It is a save_pretrained folder: open it with transformers, or audit it like any other model.")
    name = audits.free_name(f"{run.name}-after-{folder.name}", [other.name for other in readers.runs(workspace)])
    panels.start_button(
        "Audit the repaired model",
        workspace,
        book,
        kind="discover",
        title=f"Audit {name}",
        arguments=audits.repeated(run.config, name, str(folder.model)),
        key=f"reaudit-{folder.name}",
        icon=":material/replay:",
        primary=False,
        note="Removing one shortcut can strengthen another. This runs the same audit on the repaired model.",
    )


# --- a new one -------------------------------------------------------------------------------------------------------


def _set_up(workspace: Path, run: AuditRun, book: Ledger, confirmed: tuple[Finding, ...], names: list[str]) -> None:
    if names:
        with st.expander("New fine-tuning", icon=":material/add:", key=f"new-tuning-{run.id}"):
            _form(workspace, run, book, confirmed, names)
    else:
        _form(workspace, run, book, confirmed, names)


def _form(workspace: Path, run: AuditRun, book: Ledger, confirmed: tuple[Finding, ...], names: list[str]) -> None:
    if not confirmed:
        text = "No feature is confirmed as **spurious** yet. A person decides which ones the model should not use."
        panels.empty(text, "review", "Decide on the features", run.id)
        return
    audit = readers.audit(run)
    chosen = _features(run, audit, confirmed)
    panels.gain(audit, tuple(row for row in confirmed if row.feature in chosen))
    train, test = _data(workspace, run)
    left, right = st.columns(2)
    with left:
        method = forms.ask(MitigationConfig, "method", "Method", "tune-method", words=wording.METHODS)
        steps = forms.ask(MitigationConfig, "steps", "Steps", "tune-steps")
    with right:
        given = st.text_input(
            "Name", key=f"tune-name-{run.id}", persist_state="session", placeholder="taken from the method"
        )
        batch = forms.ask(MitigationConfig, "batch_size", "Images per step", "tune-batch")
    with st.expander("Advanced options", key="tune-advanced"):
        lr = forms.ask(
            MitigationConfig, "lr", "Peak learning rate", "tune-lr", placeholder="chosen from the model's size"
        )
    name = audits.free_name((given or "").strip() or method, names)
    problem = _problem(chosen, train, test, method)
    arguments = jobs.mitigate_arguments(
        run.id, name, train, test=test, features=chosen, method=method, steps=steps, batch_size=batch, lr=lr
    )
    panels.start_button(
        "Start fine-tuning",
        workspace,
        book,
        kind=audits.MITIGATION_KIND,
        title=f"Fine-tuning “{name}” of {run.name}",
        arguments=arguments,
        run=run.id,
        key="start-tuning",
        problem=problem,
    )
    if problem:
        st.caption(wording.plain(problem))


def _features(run: AuditRun, audit: Audit, confirmed: tuple[Finding, ...]) -> tuple[int, ...]:
    """Which confirmed features to treat; each with its crops, all chosen at first."""
    chosen = []
    for row in confirmed:
        with st.container(horizontal=True, vertical_alignment="center", key=f"treat-{row.feature}"):
            label = f"{wording.plain(wording.title(row))}: {wording.support(row)}"
            if st.checkbox(label, value=True, key=f"treat-{run.id}-{row.feature}", persist_state="session"):
                chosen.append(row.feature)
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


def _problem(features: tuple[int, ...], train: str, test: str, method: str) -> str:
    """Why a fine-tuning cannot start yet; empty when it can."""
    if not features and method != "standard":
        return "Choose at least one confirmed feature."
    if not train:
        return "Give a folder or a manifest of training images."
    for path in filter(None, (train, test)):
        if not Path(path).expanduser().exists():
            return f"There is no file or folder {path} on this machine."
    return ""


if __name__ == "__main__":
    render()
