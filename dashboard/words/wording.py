"""Every sentence that interprets a number, but those about evidence (`claims`). Text is Markdown.

Counts come first: a rate never stands without them.
"""

from __future__ import annotations

import html
import math
import re
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePath

from dashboard.reading.audits import AuditRow
from dashboard.reading.opened import Rate
from dashboard.reading.selection import Chosen
from dashboard.reading.summaries import Crop, Finding, Overview, WorstGroup
from ravl.ledger import Job
from ravl.planted.demos import drawn
from ravl.progress import LABELS
from ravl.store import STAGES
from ravl.tables import Agreement, ImageSet

DECISIONS = {
    "spurious": "Spurious",
    "core": "Genuine",
    "mixed": "Mixed",
    "unsure": "Unsure",
    "withdrawn": "Withdrawn",
}
"""How decisions are called on the screen; `core` is the ledger's word for a genuine feature."""

MEANING = {
    "spurious": "It is not part of what the class means. The model should not use it.",
    "core": "It belongs to the class. The model is right to use it.",
    "mixed": "Some of these crops are spurious and some are genuine.",
    "unsure": "I cannot tell from these crops.",
}

RULES = {
    "evidence": "Those whose errors go when they are removed",
    "paper": "Those that pass the paper's rule of influence and gap, cluster by cluster",
}
"""Which features an audit flags."""

STATUS = {
    "queued": "waiting to start",
    "running": "running",
    "done": "finished",
    "finished": "finished",
    "failed": "failed",
    "cancelled": "cancelled",
    "lost": "lost",
    "stopped": "not finished",
    "damaged": "damaged",
}

DEMOS = {
    "digits": (
        "Handwriting",
        "A model reads handwritten digits. A red square in the picture makes it answer one class, whatever is written.",
    ),
    "radiograph": (
        "Chest radiographs",
        "A model reads chest radiographs: cardiomegaly, pneumothorax, or no finding. Metal clips on the chest mislead "
        "it, as they have misled real models. The radiographs come as DICOM files with invented names of "
        "patients in their headers, and no page will show one. **They are drawn by a program: nobody was X-rayed, and "
        "nothing here is a medical device.**",
    ),
}
"""What the demos are called, and what is in them. Markdown."""

DRAWN = (
    "**These radiographs are drawn by a program.** Nobody was examined, and what is said here is true of no patient. "
    "Nothing here is a medical device."
)
"""Stands where drawn DICOM files were audited. Markdown."""

DRAWN_SHORT = "Drawn by a program, no patients. Not a medical device."
"""The same beside every page of such an audit."""

NO_DEVICE = "RAVL is not a medical device: it examines a model, and says nothing about a patient."
"""Stands where DICOM files were audited."""

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|~$:<>])")
_STEERING = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Characters that turn the direction of the text after them (Unicode Annex 9)."""


def isolated(text: str) -> str:
    """Text of a user that turns no text around it: Arabic and Hebrew are set apart, what steers directions is left out.

    Plain text.
    """
    text = _STEERING.sub("", text)
    backwards = any(unicodedata.bidirectional(letter) in ("R", "AL", "AN") for letter in text)
    return f"\N{FIRST STRONG ISOLATE}{text}\N{POP DIRECTIONAL ISOLATE}" if backwards else text


def plain(text: str) -> str:
    """Text of a user (a class name, a path) so that Markdown shows it as it is."""
    return _MARKDOWN.sub(r"\\\1", isolated(text))


def escaped(text: str) -> str:
    """Text of a user so that HTML shows it as it is, also within an attribute in quotes."""
    return html.escape(isolated(text))


def message(text: str) -> str:
    """An error of the package as a sentence of the screen."""
    return plain(text[:1].upper() + text[1:])


def percent(share: float) -> str:
    """A share as whole percent; `n/a` where it is undefined. Only nothing is 0%, and only everything is 100%."""
    if math.isnan(share):
        return "n/a"
    if 0 < share < 0.005:
        return "<1%"
    return ">99%" if 0.995 <= share < 1 else f"{100 * share:.0f}%"


def rate(value: Rate) -> str:
    """`12 of 58 (21%)`, or `no images`."""
    return f"{value.right:,} of {value.n:,} ({percent(value.share)})" if value.n else "no images"


def number(value: float, digits: int = 2) -> str:
    """A score, with a dash where it is undefined."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def signed(value: float, digits: int = 0) -> str:
    """A number with its sign, the minus as a minus; nothing has none."""
    text = f"{abs(value):.{digits}f}"
    return text if float(text) == 0 else f"{'+' if value > 0 else '−'}{text}"


def count(n: int, one: str, many: str = "") -> str:
    """`1 image`, `2 images`."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def stage(name: str) -> str:
    """A stage in words; an unknown one as it is called in the code."""
    return LABELS.get(name, name.replace("_", " ").capitalize())


def duration(seconds: float) -> str:
    """`40 s`, `3 min`, `2 h 5 min`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def moment(at: str) -> str:
    """A time of the ledger for people: `2026-01-31 14:05 UTC`."""
    return f"{at[:16].replace('T', ' ')} UTC"


def brief_moment(at: str, year: int) -> str:
    """The same where there is little room: `31 Jan 14:05`, in another year than `year` `31 Jan 2026`; UTC too."""
    when = datetime.fromisoformat(at)
    day = f"{when.day} {_MONTHS[when.month - 1]}"
    return f"{day} {when:%H:%M}" if when.year == year else f"{day} {when.year}"


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
"""In English, whatever the server's locale."""


# --- features --------------------------------------------------------------------------------------------------------


def title(row: Finding) -> str:
    """`Red square (feature 3)` or `Feature 3`; plain text."""
    return f"{row.name} (feature {row.feature})" if row.name else f"Feature {row.feature}"


def finding(row: Finding) -> str:
    """What the model does with a feature, in one sentence."""
    if not row.pull or not row.called:
        return "No error is decided by regions that look like this."
    which = f"{row.decided:,} of the {count(row.called, 'image')}"
    if row.decided == row.called:
        which = "the only image" if row.called == 1 else f"all {row.called:,} images"
    return f"In **{which}** wrongly called *{plain(row.pull)}*, the deciding region looks like this."


def support(row: Finding) -> str:
    """How often a feature occurs."""
    return (
        f"{count(row.n_regions, 'region')} in {count(row.n_images, 'image')}, "
        f"{row.n_errors:,} of them classified wrongly ({percent(Rate(row.n_errors, row.n_images).share)})"
    )


def rule(row: Finding) -> str:
    """Whether the audit's rule flags a feature."""
    return "Flagged" if row.flagged else "–"


def crop_caption(crop: Crop) -> tuple[str, str]:
    """Two lines under a crop: truth and prediction, then its contribution (empty where it is not known). Plain text."""
    first = f"{crop.truth}, called so" if crop.right else f"{crop.truth}, called {crop.called}"
    return first, "" if math.isnan(crop.contribution) else f"contribution {signed(crop.contribution, 1)}"


def crop_alt(crop: Crop, whole: bool) -> str:
    """What a screen reader says for a picture."""
    what = (
        f"Image {crop.image} with region {crop.region} outlined"
        if whole
        else f"Region {crop.region} of image {crop.image}"
    )
    return f"{what}: {crop_caption(crop)[0]}"


CONTRIBUTION = (
    "Contribution: how far the region pushes the image towards the wrong class (for a right answer: towards the "
    "runner-up), in logits. It is measured by removing the region and classifying again; the most harmful come first."
)


def interval(level: float) -> str:
    """What the intervals of a table mean."""
    return (
        "Differences in percentage points. The interval says how far chance may have moved a difference: in "
        f"{100 * level:g} of 100 such audits the true one lies inside."
    )


WITHOUT_MODEL = {
    "continue": "This audit is of precomputed embeddings, which only the command line takes. Run the same ravl "
    "discover --embeddings command again, and it goes on from here.",
    "repair": "This audit was made from embeddings alone, so there is no model to fine-tune. Audit the model itself "
    "under *Audits*, then repair it.",
    "feature": "This audit was made from embeddings alone. Making a feature of a selection needs the model: audit "
    "the model itself.",
}
"""Why an audit without a model cannot do something. `repair` is Markdown, the others are plain text."""


# --- overview --------------------------------------------------------------------------------------------------------


def worst(group: WorstGroup | None) -> str:
    """The worst group in one sentence; empty without one."""
    return "" if group is None else f"The worst group is *{plain(group.name)}*: {rate(group.rate)} right."


def noise(value: Rate) -> str:
    """The share of regions outside every feature."""
    return (
        f"{rate(value)} regions look like no others and belong to no feature." if value.n else "There are no regions."
    )


def agreement(found: Agreement) -> str:
    """How far the run's region encoder agrees with one that looks at each region alone; empty if that was not asked.

    Plain text.
    """
    if not found.n or math.isnan(found.same_class):
        return ""
    same = Rate(round(found.same_class * found.n), found.n)
    return (
        f"sees the same class as in a cut-out for {rate(same)} sampled regions "
        f"(mean cosine {number(found.cosine)}, rank correlation {number(found.spearman)})"
    )


def next_step(view: Overview, repaired: bool) -> tuple[str, str]:
    """What to do now: the page, and a sentence. repaired: a fine-tuning of this audit is finished."""
    waiting, confirmed = len(view.waiting), len(view.confirmed)
    if waiting:
        verb = "waits" if waiting == 1 else "wait"
        return "review", f"{count(waiting, 'flagged feature')} {verb} for a person's decision."
    if confirmed and repaired:
        return "repair", "The model was fine-tuned. Compare before and after."
    if confirmed:
        them = "it" if confirmed == 1 else "them"
        return (
            "repair",
            f"{count(confirmed, 'feature')} confirmed as spurious. The model can be fine-tuned not to use {them}.",
        )
    if view.flagged:
        return "export", "Every flagged feature is decided, and none was called spurious."
    if not view.findings:
        return "map", "Look at the regions on the map: a group that you see there can be made a feature."
    return "features", "Look through the features yourself: an eye may see what the test missed."


# --- jobs ------------------------------------------------------------------------------------------------------------


def progress(job: Job, remaining: float | None) -> str:
    """`Embedding regions: 400 of 1,000, about 3 min left`."""
    if job.status == "queued" or not job.stage:
        return "Starting …"
    counted = f": {job.done:,} of {job.total:,}" if job.total > 1 else " …"
    left = "" if remaining is None else f", about {duration(remaining)} left"
    return f"{stage(job.stage)}{counted}{left}"


# --- audits, selections, decisions -----------------------------------------------------------------------------------


def nature(images: ImageSet) -> str:
    """What has to be known about medical images before anything else; empty for others. Markdown."""
    return DRAWN if drawn(images) else NO_DEVICE if images.headers else ""


def audit_line(row: AuditRow) -> str:
    """One line about an audit. Plain text."""
    stages = "" if row.status == "finished" else f"{row.stages_done} of {len(STAGES)} stages · "
    decided = f" · {count(row.decided, 'decision')}" if row.decided else ""
    drawn = "drawn by a program, no patients · " if row.drawn else ""
    images, model = short_path(row.images), short_path(row.model)
    return f"{stages}{drawn}images {images} · model {model} · {moment(row.created)}{decided}"


def short_path(reference: str, parts: int = 2) -> str:
    """The end of an absolute path, which tells it from others; any other reference as it is. Plain text."""
    path = PurePath(reference)
    return f"…/{'/'.join(path.parts[-parts:])}" if path.is_absolute() and len(path.parts) > parts + 1 else reference


def selection(chosen: Chosen) -> str:
    """`412 regions, 97 images, 61 wrong`."""
    if not chosen.regions:
        return "No region lies inside. Draw around some points."
    return f"**{count(chosen.regions, 'region')}, {count(chosen.images, 'image')}, {chosen.wrong:,} wrong**"


def selection_features(chosen: Chosen, rows: tuple[Finding, ...], limit: int = 4) -> str:
    """What a selection is made of, the largest part first."""
    titles = {row.feature: title(row) for row in rows}
    parts = [f"{n:,} of {titles.get(feature, 'no feature')}" for feature, n in chosen.features[:limit]]
    more = len(chosen.features) - limit
    rest = f" and of {count(more, 'more feature')}" if more > 0 else ""
    return plain(f"{', '.join(parts)}{rest}.")


# --- before and after ------------------------------------------------------------------------------------------------


def points(change: float) -> str:
    """A change of a rate in percentage points, with a decimal where it would round to nothing; `n/a` where it is
    undefined. Plain text."""
    if math.isnan(change):
        return "n/a"
    small = change != 0 and abs(change) < 0.0095
    return f"{signed(round(100 * change, 1), 1) if small else signed(round(100 * change))} points"


def compared(result: Mapping[str, object]) -> str:
    """What both models were compared on, which step was kept, and how long it took; from the result's document."""
    seconds, step = result.get("seconds"), result.get("best_step")
    parts = [f"Compared on {result['compared_on']}." if result.get("compared_on") else ""]
    parts.append(
        "No step was better than the audited model, so its weights were kept."
        if step == 0
        else f"The weights of step {step} were kept: its worst group was best on the audited images."
        if step is not None
        else ""
    )
    parts.append(f"It took {duration(float(seconds))}." if isinstance(seconds, int | float) else "")
    return plain(" ".join(filter(None, parts)))


METHODS = {
    "ravl": "RAVL: region-aware loss and region exchange",
    "paper": "The paper's region-aware loss",
    "families": "The region-aware loss over whole features, alone",
    "exchange": "Region exchange, alone",
    "erase": "Removing regions from images, alone",
    "standard": "Plain fine-tuning, for comparison",
    "upsampled": "Rare groups drawn more often, for comparison",
    "vl-erm": "With a loss over the classes (VL-ERM), for comparison",
    "vl-gdro": "The worst groups weigh more (VL-GDRO), for comparison",
    "jtt": "Errors of the audited model weigh more (JTT), for comparison",
    "dfr": "Only the last layer, on balanced groups (DFR), for comparison",
    "project": "Projecting the feature's direction out, for comparison",
    "gdro-true": "Group DRO with the true groups, as a ceiling",
}
