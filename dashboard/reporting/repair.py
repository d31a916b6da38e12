"""The part of the report about fine-tunings: before and after on the same images, and the audit of the tuned model."""

from __future__ import annotations

from typing import Any

from dashboard import claims, comparison, summaries, wording
from dashboard.comparison import Change, Comparison
from dashboard.opened import read_audit
from dashboard.reporting.tables import MAX_CLASSES, change_table, fact_table
from dashboard.summaries import Fact
from ravl.report import Piece, Points, Prose, Section
from ravl.store import AuditRun, MitigationFolder, list_runs


def section(run: AuditRun) -> Section | None:
    """Every finished fine-tuning, newest first; None without one."""
    folders = [folder for folder in run.mitigations() if folder.finished]
    if not folders:
        return None
    parts = tuple(_part(run, folder) for folder in folders)
    lead = Prose("What the audited and the tuned model say about the same images. What got worse is told, too.")
    return Section("repair", "Before and after", (lead,), parts=parts)


def _part(run: AuditRun, folder: MitigationFolder) -> Section:
    view, result = comparison.compare(*folder.groups()), folder.result
    method = str(folder.about.get("config", {}).get("method", ""))
    pieces: list[Piece] = [
        Prose(wording.repaired(view)),
        Prose(wording.worse(view)),
        Prose(f"{wording.plain(wording.METHODS.get(method, method))}. {wording.compared(result)}", "small"),
        *_treated(result),
        *_tables(view, _intervals(result)),
        *_again(run, folder),
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


def _treated(result: dict[str, Any]) -> tuple[Piece, ...]:
    """What became of the images that show each treated feature."""
    rows = result.get("features", [])
    said = tuple(
        f"Where **{wording.plain(row['name'] or 'feature {}'.format(row['feature']))}** shows, "
        f"{row['fixed']['count']:,} of {row['fixed']['n']:,} errors went and {row['broken']['count']:,} of "
        f"{row['broken']['n']:,} right answers were lost."
        for row in rows
    )
    return (Points(said),) if said else ()


def _tables(view: Comparison, intervals: dict[str, tuple[float, float]]) -> tuple[Piece, ...]:
    named = (
        ("All images", (view.overall,)),
        ("Groups: class, with or without a feature; the largest fall first", view.groups),
        ("Classes, the largest fall first", view.classes),
        ("Features: with and without", view.features),
    )
    return tuple(_table(caption, rows, intervals) for caption, rows in named if rows)


def _table(caption: str, rows: tuple[Change, ...], intervals: dict[str, tuple[float, float]]) -> Piece:
    shown = rows[:MAX_CLASSES]
    more = f" ({len(shown)} of {len(rows)})" if len(shown) < len(rows) else ""
    return change_table(f"{caption}{more}", shown, intervals)


def _intervals(result: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """95 % intervals of the changes by group, where they are defined."""
    found = {row["name"]: row["interval"] for row in result.get("changes", [])}
    return {name: (ends[0], ends[1]) for name, ends in found.items() if None not in ends}


def _again(run: AuditRun, folder: MitigationFolder) -> tuple[Piece, ...]:
    """What the audit of the tuned model found; without one, that there is none."""
    others = [other for other in list_runs(run.path.parents[1]) if other.config.model == str(folder.model)]
    if not others:
        return (
            Prose(
                "The tuned model was not audited again. Removing one shortcut can strengthen another, so audit it "
                "before it is used.",
                "note",
            ),
        )
    said = []
    for other in others:
        if other.has("evidence"):
            view = summaries.overview(read_audit(other), {})
            said.append(
                f"Audited again as **{wording.plain(other.name)}** ({wording.moment(other.created)}): it is right on "
                f"{wording.rate(view.overall)} images. {claims.headline(view)}"
            )
        else:
            said.append(f"Its audit **{wording.plain(other.name)}** is not finished.")
    return (Points(tuple(said)),)
