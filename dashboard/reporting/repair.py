"""The part of the report about fine-tunings: before and after on the same images, and the audit of the tuned model."""

from __future__ import annotations

from dashboard.reading.repaired import Moved, Outcome, SecondAudit, outcome, second_audit
from dashboard.reading.summaries import Fact
from dashboard.reporting.tables import MAX_CLASSES, change_table, fact_table
from dashboard.words import repair_words, wording
from ravl.report import Piece, Points, Prose, Section
from ravl.store import AuditRun, MitigationFolder


def section(run: AuditRun) -> Section | None:
    """Every finished fine-tuning, newest first; None without one."""
    folders = [folder for folder in run.mitigations() if folder.finished]
    if not folders:
        return None
    parts = tuple(_part(folder) for folder in folders)
    lead = Prose("What the audited and the tuned model say about the same images. What got worse is told, too.")
    return Section("repair", "Before and after", (lead,), parts=parts)


def _part(folder: MitigationFolder) -> Section:
    view, again, result = outcome(folder.result), second_audit(folder.result), folder.result
    method = str(folder.about.get("config", {}).get("method", ""))
    pieces: list[Piece] = [
        Prose(repair_words.summary(view)),
        Prose(repair_words.worse(view)),
        *([Prose(repair_words.grew_below(again))] if again is not None and again.worse else []),
        Prose(f"{wording.plain(wording.METHODS.get(method, method))}. {wording.compared(result)}", "small"),
        Points(tuple(map(repair_words.treated, view.treated))),
        *(Prose(text) for text in (repair_words.free(view.free), repair_words.regions(view)) if text),
        *_tables(view),
        *_again(again),
        fact_table("How it was made", _facts(folder)),
    ]
    return Section(f"repair-{folder.name}", folder.name, tuple(pieces))


def _facts(folder: MitigationFolder) -> tuple[Fact, ...]:
    """Settings, images and fingerprints of a fine-tuning."""
    about = folder.about
    rows = {
        "Training images": about.get("train", ""),
        "Test images": about.get("test", ""),
        "Settings": ", ".join(f"{key} {value}" for key, value in about.get("config", {}).items() if value is not None),
        "Saved as": str(folder.model),
        **{f"Fingerprint of {key}": value for key, value in folder.result.get("fingerprints", {}).items()},
        "Begun": wording.moment(about["created"]),
    }
    return tuple(Fact(name.replace("_", " "), str(value)) for name, value in rows.items() if value)


def _tables(view: Outcome) -> tuple[Piece, ...]:
    named = (
        ("All images", (view.overall,)),
        ("Groups: class, with or without a feature; the largest fall first", view.groups),
        ("Classes, the largest fall first", view.classes),
        ("Features: with and without", view.features),
    )
    return tuple(_table(caption, rows) for caption, rows in named if rows)


def _table(caption: str, rows: tuple[Moved, ...]) -> Piece:
    shown = rows[:MAX_CLASSES]
    more = f" ({len(shown)} of {len(rows)})" if len(shown) < len(rows) else ""
    return change_table(f"{caption}{more}", shown)


def _again(view: SecondAudit | None) -> tuple[Piece, ...]:
    """What the audit of the tuned model found; without one, that there is none."""
    if view is None:
        text = (
            "The tuned model was not audited again. Removing one shortcut can strengthen another, so audit it before "
            "it is used."
        )
        return (Prose(text, "note"),)
    said = tuple(map(repair_words.grown, view.worse)) or (repair_words.nothing_grew(),)
    pieces = (
        Prose(repair_words.second(view)),
        Points((*said, *map(repair_words.still, view.still_flagged))),
        Prose(f"It is the audit {wording.plain(view.run)}. {repair_words.MEANING}", "small"),
    )
    return pieces
