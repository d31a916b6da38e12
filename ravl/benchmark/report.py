"""The tables of a run: rows as CSV, summaries as JSON and Markdown, a picture, and the numbers in the README.

The README quotes nothing by hand: its text is made from the committed JSON, and a test compares the two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ravl.benchmark import quotes, repair_report
from ravl.benchmark.markdown import between, decimal, goal_lines, rate, table, told_errors, with_interval
from ravl.benchmark.picture import picture
from ravl.benchmark.provenance import machine, versions
from ravl.benchmark.rows import Row, as_json, record_from, sorted_rows, write_csv
from ravl.benchmark.settings import Setting
from ravl.benchmark.summary import CLEAR, OURS, Goal, Summary, goals, interval, summarise
from ravl.planted.worlds import SHOWN, WORLDS
from ravl.store import read_json, write_json, writing

NAME = "discovery"
"""What the files are called: discovery.csv, .json, .md, .svg."""
RESULTS = repair_report.RESULTS
"""Where the committed tables are, from the repository's root."""


def write_report(
    out: Path, settings: Sequence[Setting], rows: Sequence[Row], errors: dict[str, str], commits: Sequence[str]
) -> dict[str, Any]:
    """Write all tables into `out` and return the JSON document."""
    rows = sorted_rows(rows, settings)
    document = document_of(settings, rows, errors, commits)
    write_csv(out / f"{NAME}.csv", rows)
    write_json(out / f"{NAME}.json", document)
    summaries = summarise(rows)
    for suffix, text in (("md", markdown(document, summaries)), ("svg", picture(shown_in_picture(summaries)))):
        with writing(out / f"{NAME}.{suffix}") as partial:
            partial.write_text(text, encoding="utf-8")
    return document


def document_of(
    settings: Sequence[Setting], rows: Sequence[Row], errors: dict[str, str], commits: Sequence[str]
) -> dict[str, Any]:
    """What the run was, what it found, and by what: None stands for a number that is not defined."""
    summaries = summarise(rows)
    return {
        "commits": list(commits),
        "machine": machine(),
        "versions": versions(),
        "seeds": sorted({setting.seed for setting in settings}),
        "settings": {
            "all": len(settings),
            "measured": len({row.setting for row in rows}),
            "counting": len({row.setting for row in rows if row.counts}),
            "with nothing to find": len({row.setting for row in rows if row.without}),
            "not learned": sorted({row.setting for row in rows if not row.counts and not row.without}),
        },
        "false flags": false_flags(rows),
        "errors": errors,
        "goals": [asdict(goal) for goal in goals(summaries)],
        "summaries": [as_json(summary, 4) for summary in summaries],
    }


def _named_first(summaries: Sequence[Summary]) -> str:
    """Which models knew the marks by name before they learned the classes, as a sentence and a space; or nothing."""
    worlds = sorted({s.value for s in summaries if s.by == "world" and WORLDS[s.value].named})
    return f"The models of {', '.join(worlds)} could name marks before they learned the classes. " if worlds else ""


def saved_summaries(document: dict[str, Any]) -> list[Summary]:
    """The summaries of a JSON document."""
    return [record_from(saved, Summary) for saved in document["summaries"]]


def shown_in_picture(summaries: Sequence[Summary]) -> list[Summary]:
    """The lines of the picture: every method once, on the goals' group, clustered as the tool does by default."""
    return [s for s in summaries if s.by.startswith("V >=") and s.space != "final"]


# --- Markdown -------------------------------------------------------------------------------------------------------


def markdown(document: dict[str, Any], summaries: Sequence[Summary]) -> str:
    """The whole report."""
    told = document["settings"]
    lines = [
        "# Controlled evaluation: discovery",
        "",
        f"{told['measured']} of {told['all']} settings measured. {told['counting']} count: the model relies on a local "
        f"mark (eps1 and eps2 > .10). In {told['with nothing to find']} there is no local feature to find (V = 0, or a "
        "global shortcut), so that every flag is a false alarm. Not learned, therefore not counted: "
        f"{len(told['not learned'])}. {_named_first(summaries)}".rstrip(),
        "",
        f"Commit {', '.join(document['commits'])}; seeds {', '.join(map(str, document['seeds']))}; "
        f"{document['machine']}; {', '.join(f'{k} {v}' for k, v in document['versions'].items())}.",
        "",
        "## Goals",
        "",
        *goal_lines([Goal(**goal) for goal in document["goals"]]),
        *(["", missed] if (missed := missed_line(summaries)) else []),
        *(["", false] if (false := false_line(document["false flags"])) else []),
    ]
    lines += _section(f"Learned settings with V >= {CLEAR}, clustered as by default", summaries, "V >=", "auto")
    lines += _section(f"The same, clustered on the final embeddings (V >= {CLEAR})", summaries, "V >=", "final")
    lines += _section("All learned settings, clustered as by default", summaries, "all", "auto")
    lines += ["", "## Ours by strength and by world", "", *_by_group(summaries)]
    if flags := document["false flags"]:
        lines += ["", "## Flagged features that count as false", "", *_false_table(flags)]
    for title, names in (("Not learned", told["not learned"]), ("Failed", told_errors(document["errors"]))):
        if names:
            lines += ["", f"## {title}", "", *(f"- {name}" for name in names)]
    return "\n".join([*lines, "", *NOTES, ""])


NOTES = (
    "P@10: share of the first ten members of the first feature that show the mark, mean over settings with a 95 % "
    "bootstrap interval. Precision: flagged features of which at least half of the members show one mark. Recall: "
    "learned marks that such a feature shows. Rates have 95 % Wilson intervals. False alarms: audits with nothing to "
    "find that have a flag, with the upper bound of their rate.",
    "",
    "Methods that only rank (random, both gaps, Domino, failure directions) flag their first feature, always. Those of "
    "images (Domino, failure directions) list images, of which half show the mark by chance, so that their P@10 and "
    "precision start at one half; regions show it in about 1 of 8 (2 x 2) or fewer.",
)


def _section(title: str, summaries: Sequence[Summary], by: str, space: str) -> list[str]:
    chosen = [s for s in summaries if s.by.startswith(by) and s.space in (space, "image")]
    if space == "final":
        chosen = [s for s in chosen if s.space == "final"]
    return ["", f"## {title}", "", *method_table(chosen)] if chosen else []


def method_table(summaries: Sequence[Summary]) -> list[str]:
    """A line per method."""
    head = ("method", "settings", "P@10", "P@50", "precision", "recall", "pull class", "false alarms", "seconds")
    body = [
        (
            f"**{s.method}**" if s.method == OURS else s.method,
            str(s.settings),
            _mean_text(s),
            decimal(s.precision_at_50),
            rate(s.true, s.flagged),
            rate(s.found, s.learned),
            rate(s.pull_right, s.true),
            _alarms(s),
            decimal(s.seconds),
        )
        for s in summaries
    ]
    return table(head, body)


def _by_group(summaries: Sequence[Summary]) -> list[str]:
    head = ("group", "settings", "P@10", "precision", "recall", "region recall", "pull class", "false alarms")
    body = [
        (
            f"V = {s.value}" if s.by == "V" else s.value,
            str(s.settings),
            _mean_text(s),
            rate(s.true, s.flagged),
            rate(s.found, s.learned),
            decimal(s.region_recall),
            rate(s.pull_right, s.true),
            _alarms(s),
        )
        for s in summaries
        if (s.method, s.space) == (OURS, "auto") and s.by in ("V", "world")
    ]
    return table(head, body)


def missed_line(summaries: Sequence[Summary]) -> str:
    """Where the learned marks are that nothing flagged shows, most missed first; empty where all are found."""
    worlds = [s for s in summaries if (s.method, s.space, s.by) == (OURS, "auto", "world") and s.found < s.learned]
    worlds.sort(key=lambda s: (s.found - s.learned, s.value))
    told = ", ".join(f"{s.value} {s.learned - s.found} of {s.learned}" for s in worlds)
    return f"Learned marks that were not found, at any V: {told}." if told else ""


def false_flags(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every feature that we flag, clustered as by default, where a mark is learned, and that counts as false.

    setting; shows: share of its regions that show the mark; touches: share that hold at least some of it.
    """
    return [
        {"setting": row.setting, "world": row.world, "shows": float(shows), "touches": float(touches)}
        for row in rows
        if (row.method, row.space) == (OURS, "auto") and row.counts and row.false_shows
        for shows, touches in zip(row.false_shows.split("+"), row.false_touches.split("+"), strict=True)
    ]


def false_line(flags: Sequence[dict[str, Any]]) -> str:
    """What the false flags show; empty where there is none."""
    if not flags:
        return ""
    counted = Counter(flag["world"] for flag in flags).most_common()
    where = ", ".join(f"{n} in {world}" for world, n in counted)
    shows, touches = (np.median([flag[name] for flag in flags]) for name in ("shows", "touches"))
    return (
        f"Flagged features that count as false, at any V: {where}. In the median, {shows:.0%} of their regions show "
        f"the mark, and {touches:.0%} hold some of it: a region shows a mark from {SHOWN:.0%} of its area on, and a "
        "feature is true from half of its regions on."
    )


def _false_table(flags: Sequence[dict[str, Any]]) -> list[str]:
    head = ("setting", "regions that show the mark", "that hold some of it")
    return table(head, [(flag["setting"], f"{flag['shows']:.2f}", f"{flag['touches']:.2f}") for flag in flags])


def _mean_text(s: Summary) -> str:
    if not s.settings:
        return ""
    return with_interval(s.precision_at_10, s.precision_at_10_low, s.precision_at_10_high)


def _alarms(s: Summary) -> str:
    if not s.audits_without:
        return ""
    return f"{s.alarms} of {s.audits_without} (< {interval(s.alarms, s.audits_without)[1]:.2f})"


# --- README ---------------------------------------------------------------------------------------------------------


def readme_block(folder: Path) -> str:
    """The README's text about the controlled evaluation, from the tables committed in `folder`."""
    document = read_json(folder / f"{NAME}.json")
    summaries = saved_summaries(document)
    told = document["settings"]
    chosen = shown_in_picture(summaries)
    lines = [
        f"Controlled evaluation (`ravl benchmark discovery`): {told['measured']} small CLIP models, trained so that "
        f"the spurious mark is known. {told['counting']} of them rely on a local mark; in "
        f"{told['with nothing to find']} there is none to find (V = 0, or a global shortcut). "
        f"{_named_first(summaries)}All methods see the same embeddings. Settings with Cramer's V >= {CLEAR}; rates "
        "with 95 % intervals:",
        "",
        *method_table(chosen),
        "",
        f"![The controlled evaluation as a picture]({RESULTS}/{NAME}.svg)",
        "",
        *goal_lines([Goal(**goal) for goal in document["goals"]]),
        "",
        *([missed, ""] if (missed := missed_line(summaries)) else []),
        *([false, ""] if (false := false_line(document["false flags"])) else []),
        f"Commit {', '.join(document['commits'])}, {document['machine']}. All tables: "
        f"[{RESULTS}/{NAME}.md]({RESULTS}/{NAME}.md).",
    ]
    return "\n".join(lines)


def with_numbers(readme: str, folder: Path) -> str:
    """The README with the texts between its markers replaced, from the tables that are committed in `folder`.

    Raises ValueError where an opening marker is missing.
    """
    for marker, name, block in BLOCKS:
        if (folder / f"{name}.json").exists():
            readme = between(readme, block(folder), marker)
    return readme


BLOCKS: tuple[tuple[str, str, Callable[[Path], str]], ...] = (
    ("numbers", NAME, readme_block),
    ("repairs", repair_report.NAME, repair_report.readme_block),
    ("demo", quotes.demo_name("digits"), quotes.demo_block),
    ("medical demo", quotes.demo_name("radiograph"), quotes.medical_block),
    ("families", quotes.demo_name("siglip"), quotes.families_block),
    ("costs", quotes.COSTS, quotes.costs_block),
)
"""Marker in the README, name of the tables, and what makes the text from them."""


def main() -> None:
    """Put the numbers of the committed tables into README.md (run in the repository's root)."""
    readme = Path("README.md")
    text = with_numbers(readme.read_text(encoding="utf-8"), RESULTS)
    with writing(readme) as partial:
        partial.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
