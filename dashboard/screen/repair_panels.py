"""What a finished repair shows: before and after, regressions first, images that changed, and the second audit."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.pictures import charts, gallery, repair_markup
from dashboard.pictures.repair_markup import Thumbnail
from dashboard.reading import comparison
from dashboard.reading.opened import file_time
from dashboard.reading.repaired import (
    Again,
    ChangedImage,
    Moved,
    Outcome,
    SecondAudit,
    changed_images,
    outcome,
    second_audit,
    spread,
)
from dashboard.screen import panels, readers, state
from dashboard.screen.components import clickable
from dashboard.serving.readiness import Machine, Need, Probe, free_now
from dashboard.words import repair_words, wording
from ravl.data import load_images, path_of
from ravl.errors import DataError
from ravl.store import AuditRun, MitigationFolder, origin_of
from ravl.tables import ImageSet

SHOWN_WORSE = 8
SHOWN_IMAGES = 12
"""Of each kind; more are asked for with a button."""

# --- before it starts ------------------------------------------------------------------------------------------------


@st.cache_resource(ttl=300, max_entries=4, show_spinner=False)
def probe(workspace: Path) -> Probe:
    """The device of this machine, asked for once in a while, in the background."""
    return Probe(workspace)


def check(found: Probe, wanted: Need) -> None:
    """Where a training would run, and whether its memory will do."""
    machine = found.machine
    if machine is None:
        st.caption(wording.message(found.problem))
        return
    free = free_now(machine)
    st.markdown(f"{repair_words.device(machine)} {repair_words.memory(wanted, free)}")
    if short := repair_words.shortage(wanted, free, machine):
        st.warning(short, icon=":material/memory:")
    if machine.device == "cpu":
        st.caption(repair_words.CPU_NOTE)


def somewhere() -> Machine:
    """Stands for a device that is not known yet."""
    return Machine("cpu", "", 0, 0)


def origin(workspace: Path, run: AuditRun) -> None:
    """Of an audit of a repaired model: where that comes from; nothing for any other."""
    found = origin_of(run.path)
    if found is None:
        return
    first = next((other for other in readers.runs(workspace) if other.id == found.run), None)
    name = wording.plain(found.run if first is None else first.name)
    st.info(
        f"This audit is of a repaired model: fine-tuning *{wording.plain(found.mitigation)}* of the audit *{name}* "
        "made it.",
        icon=":material/replay:",
    )
    if first is not None:
        panels.link("repair", "Back to the first audit, and to before and after", first.id)


# --- while it runs ---------------------------------------------------------------------------------------------------


def curves(folder: MitigationFolder, live: bool) -> None:
    """Losses and accuracies over the steps, drawn again while it trains; the page follows when it is finished."""
    every = panels.POLL_SECONDS if live else None
    st.fragment(_draw_curves, run_every=every)(folder, live and not folder.finished)


def _draw_curves(folder: MitigationFolder, unfinished: bool) -> None:
    with state.errors_as_sentences():
        if unfinished and folder.finished:
            st.rerun()  # before and after can be shown, though the second audit goes on
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
            else:
                place.caption(repair_words.NO_CURVE[share])
        st.caption(repair_words.CURVES)


# --- before and after ------------------------------------------------------------------------------------------------


def before_and_after(folder: MitigationFolder) -> None:
    """What got worse comes first; then features, images, and every group."""
    result = folder.result
    view = outcome(result)
    st.subheader("Before and after", anchor=False)
    st.markdown(repair_words.summary(view))
    _numbers(view)
    st.caption(wording.compared(result))
    colours = state.colours()
    again = second_audit(result)
    if again is not None and again.worse:
        st.markdown(f":red[:material/trending_up: {repair_words.grew_below(again)}]")
    st.markdown(repair_words.worse(view))
    if view.worse:
        rows = [("beyond chance" if row.beyond_chance else "may be chance", row) for row in view.worse[:SHOWN_WORSE]]
        st.html(repair_markup.moved_table(rows, colours, "What got worse, changes beyond chance first"))
    if view.worst:
        st.markdown("**The worst groups**")
        st.html(repair_markup.moved_table(view.worst, colours, "The worst and the second worst group"))
    if view.treated:
        st.markdown("**The treated features**")
        for row in view.treated:
            st.markdown(repair_words.treated(row))
        with st.expander("The same with intervals", key="treated-intervals"):
            st.html(repair_markup.treated_table(view.treated))
            st.caption(wording.interval(0.95))
    for text in (repair_words.free(view.free), repair_words.regions(view)):
        if text:
            st.markdown(text)
    _changed(folder)
    _every_group(view)


def _numbers(view: Outcome) -> None:
    shown: list[tuple[str, Moved]] = [("All test images", view.overall)]
    shown += [(f"{said[:1].upper()}{said[1:]}: {row.name}", row) for said, row in view.worst if "the worst" in said]
    for place, (label, row) in zip(st.columns(3), shown, strict=False):
        place.metric(
            wording.plain(label),
            wording.percent(row.after.rate.share),
            wording.points(row.change.value).replace("−", "-"),  # the arrow's direction is read from a plain minus
            delta_color="normal" if row.change.value else "off",  # nothing is no gain
            delta_arrow="auto" if row.change.value else "off",
            delta_description=f"{row.after.rate.right:,} of {row.after.rate.n:,} right",
            border=True,
            height="stretch",
        )


def _every_group(view: Outcome) -> None:
    kinds = (
        (view.groups, "Groups: class, with or without a feature"),
        (view.classes, "Classes"),
        (view.features, "Features: with and without"),
    )
    for rows, title in kinds:
        if rows:
            with st.expander(f"{title} ({len(rows)})", key=f"changes-{title[:6]}"):
                st.html(repair_markup.moved_table([("", row) for row in rows], state.colours(), title))


# --- images that changed ---------------------------------------------------------------------------------------------


def _changed(folder: MitigationFolder) -> None:
    images, answers = folder.images(), folder.answers()
    if images is None or answers is None:
        return
    st.markdown("**Images that changed**")
    for right_now in (False, True):
        found = changed_images(images, answers, right_now)
        key = f"changed-{right_now}-{folder.name}"
        limit = len(found) if state.remembered(key, False) else SHOWN_IMAGES
        shown = spread(found, limit)
        st.markdown(repair_words.changed_heading(len(found), len(shown), right_now))
        if not shown:
            continue
        thumbnails = [_thumbnail(images, number, item) for number, item in enumerate(shown)]
        clicked = clickable(repair_markup.changed_html(thumbnails), key)
        if clicked is not None and 0 <= clicked < len(shown):
            st.dialog("Image that changed", width="medium")(_enlarge)(images, shown[clicked])
        if len(shown) < len(found):
            st.button(f"Show all {len(found):,}", key=f"all-{key}", on_click=state.remember, args=(key, True))


def _thumbnail(images: ImageSet, number: int, item: ChangedImage) -> Thumbnail:
    picture, missing = None, ""
    try:
        path = Path(path_of(images, item.image))
        picture = _picture(str(path), file_time(path), images, item.image)
    except DataError as error:
        missing = str(error)
    alt = repair_words.changed_alt(item)
    return Thumbnail(number, picture, alt, item.truth, item.before, item.after, item.right_now, missing)


@st.cache_data(max_entries=2000, show_spinner=False)
def _picture(file: str, changed: int, _images: ImageSet, image: int) -> str:
    """About 10 kB a picture."""
    [picture] = load_images(_images, [image])
    return gallery.data_uri(gallery.fitted(picture.convert("RGB"), gallery.TILE))


def _enlarge(images: ImageSet, item: ChangedImage) -> None:
    with state.errors_as_sentences():
        st.markdown(wording.plain(f"This is {item.truth}: {repair_words.changed_caption(item)}."))
        [picture] = load_images(images, [item.image])
        side = min(gallery.LARGE, max(480, *picture.size))
        st.image(gallery.fitted(picture.convert("RGB"), side), alt=repair_words.changed_alt(item))


# --- the second audit ------------------------------------------------------------------------------------------------


def audited_again(workspace: Path, run: AuditRun, folder: MitigationFolder) -> bool:
    """The audit of the tuned model, what grew first and in red; False where there is none."""
    view = second_audit(folder.result)
    if view is None:
        return False
    st.subheader("The repaired model, audited again", anchor=False)
    st.markdown(repair_words.second(view))
    for row in view.worse:
        st.markdown(f":red[:material/trending_up: {repair_words.grown(row)}]")
    if not view.worse:
        st.markdown(repair_words.nothing_grew())
    for row in view.still_flagged:
        st.markdown(f":orange[:material/flag:] {repair_words.still(row)}")
    other = next((other for other in readers.runs(workspace) if other.id == view.run), None)
    if other is None:
        st.caption(f"The audit {wording.plain(view.run)} is no longer in this workspace.")
    else:
        panels.link("features", f"Open the audit of the repaired model: {wording.plain(other.name)}", other.id)
        if (run.revision, other.revision) != view.revisions:
            st.info(repair_words.stale())
    _every_feature(view)
    return True


def _every_feature(view: SecondAudit) -> None:
    rows: tuple[Again, ...] = view.rows
    if not rows:
        return
    title = f"Every feature of both audits ({len(rows)})"
    with st.expander(title, key=f"again-{view.run}", expanded=bool(view.worse)):
        st.html(repair_markup.again_table(rows, title))
        st.caption(repair_words.MEANING)
