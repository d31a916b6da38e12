"""The part of the report about each feature that is flagged or decided: what it looks like, what removing it does."""

from __future__ import annotations

from dashboard.pictures import gallery
from dashboard.reading import evidence, summaries
from dashboard.reading.evidence import Outcome, Removal, Trial
from dashboard.reading.opened import Audit
from dashboard.reading.summaries import Crop, Finding
from dashboard.reporting.tables import class_table, effect_table, fact_table
from dashboard.words import claims, phrases, wording
from ravl.data import load_images
from ravl.errors import DataError
from ravl.ledger import Ledger
from ravl.report import Figure, Gallery, Picture, Piece, Points, Prose, Section
from ravl.tables import Verdict

SIDE = 224
"""Longest side of a picture in pixels."""

MAX_PARTS = 40
"""Features that are shown with pictures: a file of at most about 15 MB."""

EXEMPLARS = 8
TRIALS = {"fixed": 6, "stays": 3, "kept": 3, "broken": 3}


def section(audit: Audit, rows: tuple[Finding, ...], ledger: Ledger) -> Section | None:
    """Those that are flagged or decided, in rank order; None without any."""
    chosen = [row for row in rows if row.flagged or row.decision]
    if not chosen:
        return None
    shown = chosen[:MAX_PARTS]
    rest = len(chosen) - len(shown)
    pieces = (
        Prose(
            "Each feature is a group of image regions that look alike. Evidence comes first, numbers after; every "
            "share stands with its counts."
        ),
        *(
            [Prose(f"{wording.count(rest, 'more feature')} of lower rank are in the record and in the exports.")]
            * bool(rest)
        ),
    )
    parts = tuple(_part(audit, row, ledger.history(audit.run, row.feature)) for row in shown)
    return Section("findings", "Findings", pieces, parts=parts)


def _part(audit: Audit, row: Finding, history: list[Verdict]) -> Section:
    view, classes = evidence.removal(audit, row.feature), summaries.class_rows(audit, row.feature)
    pieces: list[Piece] = [
        Prose(claims.told(row)),
        Prose(wording.finding(row)),
        *_decision(audit, row),
        *_exemplars(audit, row),
        *_removal(audit, row, view),
        Prose(claims.effect(classes)),
        class_table(classes, audit.config.significance.level),
    ]
    if view.tested:
        pieces += [effect_table(view), Prose(wording.plain(claims.harm(view)), "small")]
    pieces.append(fact_table("Numbers", claims.statistics(row, view)))
    if len(history) > 1:
        pieces += [
            Prose("Every decision about it, oldest first:"),
            Points(tuple(phrases.past(verdict, whole=True) for verdict in history)),
        ]
    decided = [f"Decision: {wording.DECISIONS[row.decision].lower()}"] if row.decision else []
    tags = (f"Evidence: {claims.evidence(row).lower()}", *decided)
    kept = tuple(piece for piece in pieces if not isinstance(piece, Prose) or piece.text)
    return Section(f"feature-{row.feature}", wording.title(row), kept, tags)


def _decision(audit: Audit, row: Finding) -> tuple[Piece, ...]:
    """What people decided, and whether it was about these very regions."""
    verdict = row.verdict
    if verdict is None:
        return (Prose("No person has decided on it yet.", "note"),)
    said = f"{phrases.past(verdict, whole=True)}"
    if verdict.seen != audit.seen(row.feature):
        said += "\n**Review again:** its regions are not those that the decision was about."
    return (Prose(said, "note"),)


# --- pictures --------------------------------------------------------------------------------------------------------


def _exemplars(audit: Audit, row: Finding) -> tuple[Piece, ...]:
    crops = summaries.exemplars(audit, row.feature)
    if not crops:
        return ()
    shown = crops[:EXEMPLARS]
    heading = f"What it looks like: {wording.count(len(shown), 'exemplar')} of {len(crops)}, the most harmful first"
    figures = tuple(_exemplar(audit, crop) for crop in shown)
    return (
        Gallery(heading, figures),
        Prose(f"{wording.support(row)}. {wording.CONTRIBUTION}", "small"),
    )


def _exemplar(audit: Audit, crop: Crop) -> Figure:
    """The region, and the image that it is from."""
    caption, note = wording.crop_caption(crop)
    alts = [wording.crop_alt(crop, whole) for whole in (False, True)]
    uris: list[str | None] = [None, None]
    missing = ""
    try:
        [image] = load_images(audit.images, [crop.image])
        pictures = gallery.cropped(image, crop.box, SIDE), gallery.outlined(image, (crop.box,), SIDE)
        uris = [gallery.data_uri(picture) for picture in pictures]
    except DataError as error:
        missing = str(error)
    pair = tuple(Picture(uri, alt, missing) for uri, alt in zip(uris, alts, strict=True))
    return Figure(pair, caption, f"{note}{' · ' if note else ''}image {crop.image}", crop.right)


def _removal(audit: Audit, row: Finding, view: Removal) -> tuple[Piece, ...]:
    if not view.tested:
        return ()
    operator = view.effects[0].operator
    found = evidence.outcomes(audit, row.feature, operator, TRIALS)
    galleries = tuple(_outcome(audit, outcome) for outcome in found if outcome.shown)
    note = f"{claims.OPERATORS[operator][0]}. {claims.panel_note(view, operator)}"
    expected = evidence.expected(audit, (row.feature,), {row.feature: row.name})
    gain = () if expected is None else (Prose(claims.expected(expected)),)
    lead = Prose(f"**What happens without it.** {claims.side_effects(view)}")
    return (lead, Prose(wording.plain(note), "small"), *galleries, *gain)


def _outcome(audit: Audit, outcome: Outcome) -> Gallery:
    heading, note = claims.heading(outcome)
    return Gallery(heading, tuple(_trial(audit, trial) for trial in outcome.shown), note, columns=3)


def _trial(audit: Audit, trial: Trial) -> Figure:
    """An image with a feature and without it."""
    uris: list[str | None] = [None, None]
    missing = ""
    try:
        [image] = load_images(audit.images, [trial.image])
        masks = [audit.regions.mask_of(region) for region in trial.regions]
        pictures = (
            gallery.outlined(image, trial.boxes, SIDE),
            gallery.removed(image, trial.boxes, masks, trial.operator, SIDE),
        )
        uris = [gallery.data_uri(picture) for picture in pictures]
    except DataError as error:
        missing = str(error)
    alts = claims.trial_alts(trial)
    said = ((f"called {trial.called}", trial.was_right), (f"called {trial.after}", trial.is_right))
    pair = tuple(
        Picture(uri, alt, missing, text, right) for uri, alt, (text, right) in zip(uris, alts, said, strict=True)
    )
    return Figure(pair, claims.trial_caption(trial))
