"""The report of an audit: the sentences of the screen, its tables and its pictures, on one page. Pure; no streamlit.

`ravl.report` draws what is put together here; the words come from `claims` and `wording`, as on the screen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from dashboard.reading import evidence, summaries
from dashboard.reading.opened import Audit, read_audit
from dashboard.reading.summaries import Fact, Finding, Overview
from dashboard.reporting import features, record, repair
from dashboard.reporting.tables import accuracy_table, fact_table, feature_table
from dashboard.words import claims, wording
from dashboard.words.image_set import left_out
from ravl.ledger import Ledger
from ravl.report import Document, Piece, Points, Prose, Section, draw
from ravl.store import AuditRun
from ravl.tables import IDENTITIES

LIMITS = (
    "**Not enough evidence is not clean.** A feature for which there are too few images or errors may be harmful all "
    "the same; so may one that nobody has looked at yet.",
    "The evidence says what removing a feature does to this model's answers on these images, with these prompts. With "
    "other images, prompts or classes the numbers will differ.",
    "Whether a feature is spurious is a person's verdict, not a computed one.",
    "Groups with and without a feature are inferred by clustering; no person labelled the images for it.",
    "An interval or a q says how far chance may go; it does not say whether the images are like those that the model "
    "will meet.",
    "**This report is no medical device**, and no statement about a patient. It does not replace the validation that "
    "the use of a model needs.",
)
"""What every report says about itself, in Markdown."""

SELF_DECLARED = "The names of the people are self-declared; there is no login."
"""What it says where nobody signed in."""


def report_text(run: AuditRun, ledger: Ledger) -> str:
    """The report as HTML. Raises RunError when the evidence of the run is not weighed yet, or damaged."""
    return draw(report(run, ledger))


def report(run: AuditRun, ledger: Ledger) -> Document:
    """Everything that is known about an audit, from what was examined to who decided what."""
    audit, verdicts = read_audit(run), ledger.verdicts(run.id)
    view = summaries.overview(audit, verdicts, summaries.findings(audit, verdicts, ledger.names(run.id)))
    sections = [
        _summary(audit, view),
        _examined(run, audit, view),
        features.section(audit, view.findings, ledger),
        _others(view),
        repair.section(run),
        record.section(run, ledger),
        Section(
            "limits",
            "Limits",
            (Points(_limits(run, ledger)), Prose("No audit of this kind can see:"), Points(claims.NOT_SEEN)),
        ),
        _settings(run),
    ]
    versions = run.about["packages"]
    return Document(
        f"Audit report: {run.name}",
        f"The model {run.config.model} on {wording.count(len(audit.images), 'image')}, audited "
        f"{wording.moment(run.created)}",
        tuple(section for section in sections if section is not None),
        f"Made from the audit {run.id} by ravl-dashboard {versions['ravl-dashboard']}. This page holds its pictures in "
        "itself and loads nothing. Pictures of patients are patient data: pass it on accordingly.",
    )


def _limits(run: AuditRun, ledger: Ledger) -> tuple[str, ...]:
    """What the report says about itself; the record tells of each entry how its person is known."""
    events = [entry.event for entry in ledger.entries(run.id) if entry.event is not None]
    declared = all(event.get("identity", IDENTITIES[0]) == IDENTITIES[0] for event in events)
    return (*LIMITS[:-1], *((SELF_DECLARED,) if declared else ()), LIMITS[-1])


def _summary(audit: Audit, view: Overview) -> Section:
    nature = wording.nature(audit.images)
    pieces: list[Piece] = [
        *((Prose(nature),) if nature else ()),
        Prose(claims.headline(view), "lead"),
        Prose(f"The model is right on **{wording.rate(view.overall)}** images. {wording.worst(view.worst)}"),
    ]
    if view.confirmed:
        said = tuple(
            f"**{wording.plain(wording.title(row))}**, by {_whom(row)}: {claims.claim(row)}" for row in view.confirmed
        )
        pieces += [Prose("Confirmed as spurious by people:"), Points(said)]
    elif view.findings:
        pieces.append(Prose("No feature is confirmed as spurious by a person."))
    if view.waiting:
        pieces.append(Prose(f"{wording.count(len(view.waiting), 'flagged feature')} not decided by anyone yet."))
    pieces += gain(audit, view)
    if not view.flagged:
        pieces += [Prose(claims.not_proven().split("\n", 1)[0]), Points(claims.NOT_SEEN)]
    return Section("summary", "In short", tuple(pieces))


def gain(audit: Audit, view: Overview) -> tuple[Piece, ...]:
    """What to expect if the confirmed (else the flagged) features were invisible; nothing where none was removed."""
    rows = view.confirmed or view.flagged
    expected = evidence.expected(audit, [row.feature for row in rows], {row.feature: row.name for row in rows})
    if expected is None:
        return ()
    return Prose(claims.expected(expected)), Prose(wording.plain(claims.expected_basis(expected)), "small")


def _examined(run: AuditRun, audit: Audit, view: Overview) -> Section:
    about = run.about
    names = about["packages"]
    rows = tuple(fact for fact in summaries.facts(run, audit) if fact.name not in ("Classes", *names))
    if run.has("agreement") and (checked := wording.agreement(run.agreement())):
        rows += (Fact("Region encoder", checked),)
    if used := about.get("encoder"):
        rows += (Fact("Encoder", f"{used['name']}: {used['why']}"),)
    rows += (
        Fact("Classes", f"{len(audit.class_names)}: {', '.join(audit.class_names)}"),
        Fact("Versions", ", ".join(f"{name} {version}" for name, version in names.items())),
        Fact("Audit", run.id),
    )
    if regrouped := run.revision - bool(about.get("n_divided")):
        rows += (Fact("Regrouped", f"{regrouped} {'time' if regrouped == 1 else 'times'} by people"),)
    pieces: list[Piece] = [
        fact_table("What was audited", rows),
        accuracy_table(view.classes),
        Prose(wording.plain(wording.noise(view.noise)), "small"),
    ]
    skipped = audit.images.skipped
    if skipped:
        shown = skipped[: record.MAX_ROWS]
        rest = len(skipped) - len(shown)
        left = f"{rest:,} more are on the page Overview." if rest else ""
        table = fact_table(
            "What could not be used, with the reason", tuple(Fact(file, why) for file, why in shown), left
        )
        pieces += [Prose(left_out(audit.images)), table]
    return Section("examined", "What was examined", tuple(pieces))


def _others(view: Overview) -> Section | None:
    """Features that neither the rule flags nor a person decided on: why, and their numbers."""
    rows = tuple(row for row in view.others if not row.decision)
    if not rows:
        return None
    reasons = tuple(
        f"**{claims.EVIDENCE[reason]}** ({wording.count(n, 'feature')}): {claims.MEANS[reason]}"
        for reason, n in Counter(row.reason for row in rows).most_common()
    )
    pieces = (Prose(claims.rest(rows, more=len(rows) < len(view.findings))), Points(reasons), feature_table(rows))
    return Section("others", "Not flagged", pieces)


def _whom(row: Finding) -> str:
    """Who decided, and when. Markdown."""
    verdict = row.verdict
    return f"{wording.plain(verdict.reviewer)}, {wording.moment(verdict.at)}" if verdict else ""


def _settings(run: AuditRun) -> Section:
    """Every setting, as the configuration has it."""
    rows = tuple(Fact(name, value) for name, value in _flat(run.config.to_dict()))
    seconds = ", ".join(f"{stage} {entry['seconds']:.1f}" for stage, entry in run.about["stages"].items())
    table = fact_table("Configuration of the audit", (*rows, Fact("seconds per stage", seconds)))
    return Section("settings", "All settings", (table,))


def _flat(settings: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Settings of all depths, by their dotted names."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
