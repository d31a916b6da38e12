"""The tables of the evaluation of repairs: rows as CSV, gains and goals as JSON and Markdown, a picture, the README."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ravl.benchmark.arms import OURS
from ravl.benchmark.dotplot import Line, Span, dot_plot
from ravl.benchmark.gains import SCOPES, Gain, gains, goals
from ravl.benchmark.markdown import WORDS, decimal, table, told_errors, with_interval
from ravl.benchmark.provenance import machine, versions
from ravl.benchmark.repairs import Repair, per_mark, sorted_repairs
from ravl.benchmark.rows import as_json, record_from, write_csv
from ravl.benchmark.settings import Setting
from ravl.benchmark.summary import Goal
from ravl.store import read_json, write_json, writing

NAME = "mitigation"
"""What the files are called: mitigation.csv, .json, .md, .svg."""
RESULTS = Path("assets/benchmark")
"""Where the committed tables are, from the repository's root."""

TITLES = {
    "all": "All settings whose model relies on the mark",
    "found": "Settings in which the audit found every mark",
}


def write_report(
    out: Path,
    settings: Sequence[Setting],
    rows: Sequence[Repair],
    errors: dict[str, str],
    commits: Sequence[str],
    protocol: dict[str, int],
) -> dict[str, Any]:
    """Write all tables into `out` and return the JSON document."""
    rows = sorted_repairs(rows, settings)
    document = document_of(settings, rows, errors, commits, protocol)
    write_csv(out / f"{NAME}.csv", rows, Repair)
    write_json(out / f"{NAME}.json", document)
    found = gains(rows)
    for suffix, text in (("md", markdown(document, found, rows)), ("svg", picture(found))):
        with writing(out / f"{NAME}.{suffix}") as partial:
            partial.write_text(text, encoding="utf-8")
    return document


def document_of(
    settings: Sequence[Setting],
    rows: Sequence[Repair],
    errors: dict[str, str],
    commits: Sequence[str],
    protocol: dict[str, int],
) -> dict[str, Any]:
    """What the run was, what it found, and by what: None stands for a number that is not defined."""
    count = {row.setting: row for row in rows}.values()
    return {
        "commits": list(commits),
        "machine": machine(),
        "versions": versions(),
        "protocol": protocol,
        "seeds": sorted({setting.seed for setting in settings}),
        "settings": {
            "all": len(settings),
            "measured": len(count),
            "counting": sum(row.counts for row in count),
            "found": sum(row.discovered for row in count),
            "not learned": sorted(row.setting for row in count if not row.counts),
            "not found": sorted(row.setting for row in count if row.counts and not row.discovered),
        },
        "errors": errors,
        "goals": {scope: [asdict(goal) for goal in goals(rows, scope)] for scope in SCOPES},
        "gains": [as_json(gain, 4) for gain in gains(rows)],
    }


def saved_gains(document: dict[str, Any]) -> list[Gain]:
    """The gains of a JSON document."""
    return [record_from(saved, Gain) for saved in document["gains"]]


# --- Markdown -------------------------------------------------------------------------------------------------------


def markdown(document: dict[str, Any], found: Sequence[Gain], rows: Sequence[Repair]) -> str:
    """The whole report."""
    told, how = document["settings"], document["protocol"]
    lines = [
        "# Controlled evaluation: mitigation",
        "",
        f"{told['measured']} of {told['all']} settings measured. {told['counting']} count: the model relies on its "
        f"mark (eps1 and eps2 > .10). In {told['found']} of them the audit found every mark.",
        "",
        f"All arms: {how['steps']} steps of {how['batch']} images, {how['train']} training images with the shortcut, "
        f"tested on {how['test']} fresh images without it.",
        "",
        f"Commit {', '.join(document['commits'])}; seeds {', '.join(map(str, document['seeds']))}; "
        f"{document['machine']}; {', '.join(f'{k} {v}' for k, v in document['versions'].items())}.",
        "",
        "## Goals",
        "",
        *both_goals(document),
    ]
    for scope, title in TITLES.items():
        lines += ["", f"## {title}", "", *arm_table([g for g in found if g.by == scope and g.kind != "one mark"])]
    lines += ["", "## By world", "", *_by_group(found, "world"), "", "## By strength", "", *_by_group(found, "V")]
    two = [row for row in rows if row.setting_kind == "two marks" and row.counts]
    lines += ["", "## Two marks at once", "", *two_marks_table(two)] if two else []
    errors = told_errors(document["errors"])
    for title, names in (("Not learned", told["not learned"]), ("Not found", told["not found"]), ("Failed", errors)):
        if names:
            lines += ["", f"## {title}", "", *(f"- {name}" for name in names)]
    return "\n".join([*lines, "", *NOTES, ""])


NOTES = (
    "Worst group: of class x marks, which no arm but the ceilings knows. Means over settings with 95 % bootstrap "
    "intervals. Closed: share of the distance from the audited model's worst group to that of a model trained without "
    "the shortcut, of the means; least: in the setting with the least. Change: of overall accuracy against the audited "
    "model; lowest: in the setting where it is lowest. eps1: accuracy of the target class with minus without the mark; "
    "eps2: largest fall of another class with it; means of their sizes. Changed: settings in which the arm could do "
    "something; where nothing was flagged most leave the model as it is.",
    "",
    "Ceilings know what nobody knows without labelling: the planted mark (true features), the true groups "
    "(gdro-true), or data without the shortcut. All others treat what the audit flagged. `families` and `exchange` are "
    "the two parts of `ravl`.",
    "",
    "Two marks: in brackets the same on images without the other mark. A mark that is cured no longer hides the other, "
    "so that the other may do more harm on all images although the model relies on it no more than before.",
)


def both_goals(document: dict[str, Any]) -> list[str]:
    """A table of the goals: on all settings, and where the audit found the mark."""
    by_text: dict[str, dict[str, Goal]] = {}
    for scope in SCOPES:
        for saved in document["goals"][scope]:
            by_text.setdefault(saved["text"], {})[scope] = Goal(**saved)
    none = Goal("", "", None)
    body = []
    for text, found in by_text.items():
        goal = [found.get(scope, none) for scope in SCOPES]
        body.append((text, *(cell for g in goal for cell in (g.measured, WORDS[g.met]))))
    return table(("goal", "all settings", "", "where the audit found the marks", ""), body)


def arm_table(found: Sequence[Gain]) -> list[str]:
    """A line per arm."""
    head = (
        *("arm", "settings", "changed", "worst group", "closed", "least", "overall", "change", "lowest"),
        *("eps1", "eps2", "seconds"),
    )
    body = [
        (
            f"**{g.arm}**" if g.arm == OURS else f"*{g.arm}*" if g.kind == "ceiling" else g.arm,
            str(g.settings),
            str(g.changed),
            with_interval(g.worst, g.worst_low, g.worst_high),
            decimal(g.closed),
            decimal(g.closed_least),
            with_interval(g.overall, g.overall_low, g.overall_high),
            decimal(g.overall_change, 3, sign=True),
            decimal(g.overall_fall, 3, sign=True),
            with_interval(g.eps1, g.eps1_low, g.eps1_high),
            with_interval(g.eps2, g.eps2_low, g.eps2_high),
            decimal(g.seconds, 0) if g.changed else "",
        )
        for g in found
    ]
    return table(head, body)


def two_marks_table(rows: Sequence[Repair]) -> list[str]:
    """How much the models rely on each of two marks, means over settings; in brackets on images without the other."""
    marks = rows[0].marks.split("+")
    pairs = [(mark, m, name, alone) for m, mark in enumerate(marks) for name, alone in EPS]
    body = []
    for arm in dict.fromkeys(row.arm for row in rows if row.kind != "baseline"):
        own = [row for row in rows if row.arm == arm]
        values = [[_mean_of(own, name, m) for name in names] for _, m, *names in pairs]
        cells = (f"{everywhere:.2f} ({alone:.2f})" for everywhere, alone in values)
        body.append((arm, str(len(own)), decimal(sum(row.worst for row in own) / len(own)), *cells))
    return table(("arm", "settings", "worst group", *(f"{mark}, {name}" for mark, _, name, _ in pairs)), body)


EPS = (("eps1", "alone1"), ("eps2", "alone2"))
"""The same on all images, and on those without any other mark."""


def _mean_of(rows: Sequence[Repair], name: str, mark: int) -> float:
    return sum(per_mark(getattr(row, name))[mark] for row in rows) / len(rows)


def _by_group(found: Sequence[Gain], by: str) -> list[str]:
    """Worst group and share closed of every arm, a column per group with its number of settings."""
    values = list(dict.fromkeys(g.value for g in found if g.by == by))
    cells = {(g.arm, g.value): f"{g.worst:.2f} ({decimal(g.closed)})" for g in found if g.by == by}
    arms = list(dict.fromkeys(g.arm for g in found if g.by == by))
    count = {value: max(g.settings for g in found if (g.by, g.value) == (by, value)) for value in values}
    titles = [f"{'V = ' if by == 'V' else ''}{value} ({count[value]})" for value in values]
    return table(("arm", *titles), [(arm, *(cells.get((arm, value), "") for value in values)) for arm in arms])


# --- picture --------------------------------------------------------------------------------------------------------

PANELS = (("worst group", "worst"), ("overall", "overall"), ("eps1", "eps1"), ("eps2", "eps2"))


def picture(found: Sequence[Gain]) -> str:
    """One line per arm: where the audit found the marks, and hollow over all settings."""
    everywhere = {g.arm: g for g in found if g.by == "all" and g.kind != "one mark"}
    where = {g.arm: g for g in found if g.by == "found"}
    lines = []
    for arm, gain in everywhere.items():
        spans = tuple(_span(where.get(arm), gain, name) for _, name in PANELS)
        lines.append(Line(arm, arm == OURS, spans))
    told = [f"{arm} {where[arm].worst:.2f}" for arm in everywhere if arm in where]
    return dot_plot(
        "Where the audit found the marks, with 95 % intervals; rings: all settings. eps1, eps2: reliance, less is "
        "better.",
        [title for title, _ in PANELS],
        lines,
        "Mean accuracy of the worst group by arm, where the audit found the marks: " + ", ".join(told),
    )


def _span(where: Gain | None, everywhere: Gain, name: str) -> Span:
    ring = getattr(everywhere, name)
    if where is None:
        return Span(math.nan, math.nan, math.nan, ring)
    return Span(getattr(where, name), getattr(where, f"{name}_low"), getattr(where, f"{name}_high"), ring)


# --- README ---------------------------------------------------------------------------------------------------------


def readme_block(folder: Path) -> str:
    """The README's text about the repairs, from the tables committed in `folder`."""
    document = read_json(folder / f"{NAME}.json")
    told, how = document["settings"], document["protocol"]
    lines = [
        f"Repairs (`ravl benchmark mitigation`): {told['measured']} models with a planted shortcut (V = .90 and .98, "
        f"three worlds, and two marks at once), each repaired by every method with {how['steps']} steps of "
        f"{how['batch']} images. What is spurious comes from the audit, which found every mark in {told['found']} of "
        f"{told['counting']} settings; in italics what needs to know more. Where the audit found the marks:",
        "",
        *arm_table([g for g in saved_gains(document) if g.by == "found" and g.kind != "one mark"]),
        "",
        f"![The repairs as a picture]({RESULTS}/{NAME}.svg)",
        "",
        *both_goals(document),
        "",
        f"Commit {', '.join(document['commits'])}, {document['machine']}. All tables: "
        f"[{RESULTS}/{NAME}.md]({RESULTS}/{NAME}.md).",
    ]
    return "\n".join(lines)
