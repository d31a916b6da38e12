"""Small tables and legends as HTML: real tables for screen readers, with a scale drawn beside the numbers."""

from __future__ import annotations

from collections.abc import Callable

from dashboard.pictures.cells import bar, change_cell, head, legend_pair, rate_cell, scale, table, tag
from dashboard.pictures.palette import Palette
from dashboard.reading.evidence import Effect, Removal
from dashboard.reading.opened import Rate
from dashboard.reading.summaries import ClassRow, Fact, Finding
from dashboard.words.claims import OPERATORS, beyond, errors_gone, evidence, probability
from dashboard.words.wording import DECISIONS, escaped, stage, title
from ravl.store import STAGES


def class_table(rows: tuple[ClassRow, ...], palette: Palette, pull: str) -> str:
    """Accuracy per class without and with a feature."""
    colours, labels = (palette.muted, palette.wrong), ("without", "with")
    body = "".join(
        f"<tr><th scope='row'>{escaped(row.name)}{tag('errors go here') if row.pulls and pull else ''}</th>"
        f"<td>{rate_cell(row.inside)}</td><td>{rate_cell(row.outside)}</td>"
        f"<td>{scale(row.outside, row.inside, colours, labels)}</td>"
        f"<td>{change_cell(row.difference, 'one side has no images')}</td></tr>"
        for row in rows
    )
    key = legend_pair(colours, labels)
    columns = head("Class", "Right with the feature", "Right without it", key, "Difference, interval")
    return table("Accuracy per class with and without the feature", columns, body)


def effect_table(view: Removal) -> str:
    """What each way of removing a feature does: a column per way, a count in every cell."""
    pull = escaped(view.pull)
    rows: list[tuple[str, Callable[[Effect], str]]] = [
        ("Wrong images that become right", lambda effect: rate_cell(effect.fixed)),
        ("The same, with another piece removed instead", lambda effect: rate_cell(effect.control)),
        ("p, exact McNemar test of the two", lambda effect: probability(effect.p)),
        ("q, corrected for all features", lambda effect: probability(effect.q)),
        ("Right images of other classes that stay right", lambda effect: rate_cell(effect.kept)),
    ]
    if view.pull:
        rows += [
            (f"Right images of <i>{pull}</i> that stay right", lambda effect: rate_cell(effect.pull_kept)),
            (f"All images of <i>{pull}</i>, right after removal", lambda effect: rate_cell(effect.pull_after)),
            (f"Images of <i>{pull}</i> that never showed it, right", lambda effect: rate_cell(view.never)),
        ]
    body = "".join(
        f"<tr><th scope='row'>{label}</th>{''.join(f'<td>{cell(effect)}</td>' for effect in view.effects)}</tr>"
        for label, cell in rows
    )
    columns = head("", *(escaped(OPERATORS[effect.operator][0]) for effect in view.effects))
    return table("What each way of removing the feature does", columns, body, "plain")


def rate_table(rows: tuple[tuple[str, Rate], ...], palette: Palette, caption: str) -> str:
    """One rate per row, with a bar."""
    body = "".join(
        f"<tr><th scope='row'>{escaped(name)}</th><td>{rate_cell(value)}</td><td>{bar(value, palette.accent)}</td></tr>"
        for name, value in rows
    )
    return table(caption, head("Class", "Right", ""), body, "wide-3")


def beside_table(rows: tuple[Finding, Finding]) -> str:
    """Two features beside each other: a column each."""
    lines: list[tuple[str, Callable[[Finding], str]]] = [
        ("Mistaken for", lambda row: escaped(row.pull) or "–"),
        ("What removing it shows", lambda row: evidence(row)),
        ("Errors that go", lambda row: errors_gone(row)),
        ("Wrong images that become right without it", lambda row: rate_cell(row.fixed)),
        ("The same, with another piece removed instead", lambda row: rate_cell(row.control)),
        ("Wrong, of the images that show it", lambda row: rate_cell(Rate(row.n_errors, row.n_images))),
        ("Regions", lambda row: f"{row.n_regions:,}"),
        ("Gap above chance, with its interval", lambda row: beyond(row.beyond)),
        ("Decision", lambda row: DECISIONS.get(row.decision, "–")),
    ]
    body = "".join(
        f"<tr><th scope='row'>{label}</th>{''.join(f'<td>{cell(row)}</td>' for row in rows)}</tr>"
        for label, cell in lines
    )
    return table("Two features beside each other", head("", *(escaped(title(row)) for row in rows)), body, "plain")


def fact_table(rows: tuple[Fact, ...], caption: str) -> str:
    """Names and values."""
    body = "".join(
        f"<tr><th scope='row'>{escaped(row.name)}</th><td class='text'>{escaped(row.value)}</td></tr>" for row in rows
    )
    return table(caption, "", body, "facts")


def legend(entries: tuple[tuple[str, str, int], ...]) -> str:
    """What the colours of the map mean, with the number of regions of each."""
    items = "".join(
        f'<span role="listitem"><em class="key" style="border-color:{colour};background:{colour}"></em>'
        f"{escaped(name)} <small>{n:,}</small></span>"
        for name, colour, n in entries
    )
    return f'<div class="ravl-legend" role="list" aria-label="Colours of the map">{items}</div>'


def key_legend(keys: tuple[tuple[str, str], ...]) -> str:
    """The keys of a page and what they do."""
    items = "".join(f"<span role='listitem'><kbd>{escaped(key)}</kbd> {escaped(what)}</span>" for key, what in keys)
    return (
        f'<div class="ravl-keys" role="list" aria-label="Keys">{items}</div>'
        '<p class="ravl-note">Keys rest while you type.</p>'
    )


def stage_list(current: str, done: bool) -> str:
    """The stages of an audit: which are finished, which one runs. current: a stage, or one before the first."""
    at = len(STAGES) if done else STAGES.index(current) if current in STAGES else -1
    items = []
    for place, name in enumerate(STAGES):
        state, sign = ("done", "✓") if place < at else ("now", "●") if place == at else ("later", "○")
        spoken = {"done": "finished", "now": "running", "later": "to come"}[state]
        items.append(
            f'<span role="listitem" class="{state}"><span aria-label="{spoken}">{sign}</span> '
            f"{escaped(stage(name))}</span>"
        )
    return f'<div class="ravl-stages" role="list">{"".join(items)}</div>'


CSS = """
.ravl-scroll { overflow-x: auto; }
.ravl-table { border-collapse: collapse; width: 100%; font-size: 14px; }
.ravl-table caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.ravl-table th, .ravl-table td { text-align: left; padding: 6px 14px 6px 0; font-weight: 400; border: 0;
  white-space: nowrap; font-variant-numeric: tabular-nums;
  border-bottom: 1px solid color-mix(in srgb, currentColor 14%, transparent); }
.ravl-table thead th { font-size: 13px; opacity: .8; }
.ravl-table.plain thead th { white-space: normal; vertical-align: bottom; }
.ravl-table tbody th { white-space: normal; overflow-wrap: anywhere; min-width: 110px; }
.ravl-table.wide-4 td:nth-child(4) { width: 34%; min-width: 140px; padding-right: 22px; }
.ravl-table.wide-3 td:nth-child(3) { width: 55%; min-width: 140px; }
.ravl-table.facts tbody th { width: 30%; min-width: 190px; opacity: .8; }
.ravl-table .span { display: block; }
.ravl-table .text { white-space: normal; overflow-wrap: anywhere; }
.ravl-table small, .ravl-legend small { opacity: .7; font-size: 12px; }
.tag { font-size: 11px; padding: 1px 6px; border-radius: 8px; margin-left: 4px; white-space: nowrap;
  border: 1px solid color-mix(in srgb, currentColor 35%, transparent); }
.bar { display: block; height: 8px; border-radius: 4px; overflow: hidden;
  background: color-mix(in srgb, currentColor 10%, transparent); }
.bar i { display: block; height: 100%; }
.scale { display: block; padding: 0 6px; }
.scale > span { display: block; position: relative; height: 12px; }
.scale > span::before { content: ""; position: absolute; left: -6px; right: -6px; top: 5.5px; height: 1px;
  background: color-mix(in srgb, currentColor 25%, transparent); }
.scale i { position: absolute; top: 4.5px; height: 3px; opacity: .55; }
.scale em { position: absolute; top: 1px; width: 10px; height: 10px; margin-left: -5px; border-radius: 50%;
  border: 2px solid; box-sizing: border-box; }
.key { display: inline-block; width: 10px; height: 10px; border-radius: 50%; border: 2px solid; margin-right: 5px;
  box-sizing: border-box; vertical-align: -1px; }
.ravl-legend, .ravl-stages { display: flex; flex-wrap: wrap; font-size: 13px; }
.ravl-legend { gap: 4px 16px; }
.ravl-stages { gap: 2px 18px; }
.ravl-keys { display: flex; flex-wrap: wrap; gap: 6px 14px; font-size: 13px; }
.ravl-keys kbd { font: inherit; font-size: 12px; min-width: 12px; display: inline-block; text-align: center;
  padding: 0 5px; border-radius: 4px; border: 1px solid color-mix(in srgb, currentColor 40%, transparent);
  border-bottom-width: 2px; background: color-mix(in srgb, currentColor 6%, transparent); }
.ravl-note { font-size: 12px; opacity: .75; margin: 4px 0 0; }
.ravl-stages .later { opacity: .55; }
.ravl-stages .now { font-weight: 600; }
"""
