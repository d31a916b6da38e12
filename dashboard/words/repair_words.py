"""Every sentence of the Repair page that interprets a number. Markdown, unless a docstring says plain text.

Counts come first: a rate never stands without them.
"""

from __future__ import annotations

import math

from dashboard.reading.repaired import Again, ChangedImage, Estimate, Moved, Outcome, SecondAudit, TreatedFeature
from dashboard.serving.readiness import Machine, Need
from dashboard.words.claims import NOT_SEEN, probability, span
from dashboard.words.wording import count, percent, plain, rate

DEVICES = {"cuda": "a CUDA GPU", "mps": "an Apple GPU", "cpu": "the processor alone (CPU)"}

STATUS = {
    "grew": "Grew",
    "new": "New",
    "same": "As before",
    "shrank": "Shrank",
    "gone": "Gone",
}
"""What became of a feature."""

MEANING = (
    "Features of both audits are the same where their regions overlap: partners share at least half of their mean "
    "number of regions. Counted are the images whose wrong answer is decided there. *Grew* and *shrank* are beyond "
    "chance (exact McNemar test, corrected for all rows, q below 0.05); what is flagged now and was not before counts "
    "as grown too, unless its errors fell. *New*: only the second audit has it. *Gone*: no longer a feature, and no "
    "error is left there, or fewer beyond chance. *As before* is no proof that nothing changed."
)


def amount(size: float) -> str:
    """Bytes for people: `71 MB`, `3.4 GB`. Plain text."""
    return f"{size / 1e9:.1f} GB" if size >= 9.5e8 else f"{max(1, round(size / 1e6))} MB"


# --- before it starts ------------------------------------------------------------------------------------------------


def device(machine: Machine) -> str:
    """Where a training would run."""
    named = f" ({plain(machine.name)})" if machine.name else ""
    return f"It will run on **{DEVICES.get(machine.device, plain(machine.device))}**{named}."


def memory(wanted: Need, free: int) -> str:
    """What a step needs, and what there is."""
    if wanted.step is None:
        return f"{plain(wanted.unknown)} {amount(free)} of memory are free."
    return f"A step needs about **{amount(wanted.step)}** of memory; **{amount(free)}** are free."


def shortage(wanted: Need, free: int, machine: Machine) -> str:
    """What to do when the memory will not do; empty when it will."""
    if wanted.step is None or wanted.step <= free:
        return ""
    then = (
        "It would begin with fewer images at once by itself, which takes longer."
        if machine.device == "cuda"
        else "It may be stopped by the system."
    )
    return f"That is more than is free. {then} Choose fewer *images at once* below, or close other programs."


CPU_NOTE = "Without a GPU, fine-tuning a model of ViT-B size takes hours; small models take minutes."


# --- while it runs ---------------------------------------------------------------------------------------------------

CURVES = (
    "The loss is what the training makes smaller. *Contrastive*: images name their class. *Relevant regions*: so do "
    "their regions that show no treated feature. *Spurious regions*: they do so more than regions that show one. The "
    "weights whose worst group is best are kept."
)
NO_CURVE = ("The loss is shown after the first steps.", "The accuracy is shown when it is measured first.")
"""Stand where the loss and the accuracy are drawn later."""

# --- before and after ------------------------------------------------------------------------------------------------


def summary(view: Outcome) -> str:
    """What a repair did, in two or three sentences."""
    before, after = view.overall.before.rate, view.overall.after.rate
    parts = [f"The repaired model is right on **{rate(after)}** test images, before on {rate(before)}."]
    for said, group in view.worst:
        if "was and is the worst" in said:
            parts.append(
                f"The worst group was and is *{plain(group.name)}*: **{rate(group.after.rate)}** right, before "
                f"{rate(group.before.rate)}."
            )
        elif "was the worst" in said:
            parts.append(
                f"The worst group was *{plain(group.name)}* with {rate(group.before.rate)} right; "
                f"there it is now right on **{rate(group.after.rate)}**."
            )
        elif "is now the worst" in said:
            parts.append(f"The worst group is now *{plain(group.name)}* with {rate(group.after.rate)}.")
    return " ".join(parts)


def worse(view: Outcome) -> str:
    """What got worse, or that nothing did."""
    if not view.worse:
        return "**No group got worse.**"
    top, n = view.worse[0], len(view.worse)
    sure = sum(row.beyond_chance for row in view.worse)
    chance = "none of them" if not sure else "all of them" if sure == n else f"{sure:,} of them"
    if n == 1:
        told = "beyond what chance explains" if sure else "which chance may explain"
        head = f"**1 group got worse**, {told}:"
    else:
        head = f"**{n:,} groups got worse**, {chance} beyond what chance explains. First:"
    moved = f"*{plain(top.name)}*, from {rate(top.before.rate)} to {rate(top.after.rate)}"
    return f"{head} {moved} ({interval_of(top)})."


def interval_of(row: Moved) -> str:
    """`−5 to +4 points` of a change. Plain text."""
    return span(row.change) or "no interval"


def free(row: Moved | None) -> str:
    """What the repair costs, or gives, where no treated feature shows; empty where that is not known."""
    if row is None or not row.before.rate.n:
        return ""
    return (
        f"On images that show no treated feature it is right on **{rate(row.after.rate)}**, before on "
        f"{rate(row.before.rate)} (change {interval_of(row)})."
    )


def regions(view: Outcome) -> str:
    """How well single regions are recognised; empty where that is not known."""
    if not view.n_regions or math.isnan(view.regions[0]):
        return ""
    was, now = (f"{round(share * view.n_regions):,} ({percent(share)})" for share in view.regions)
    return (
        f"Seen alone, of the {count(view.n_regions, 'region')} of no treated feature **{now}** get the class of their "
        f"image, before {was}. Regions of one image are not independent, so no interval is given."
    )


def treated_title(row: TreatedFeature) -> str:
    """Plain text."""
    return f"{row.name} (feature {row.feature})" if row.name else f"Feature {row.feature}"


def treated(row: TreatedFeature) -> str:
    """One sentence about a treated feature on the test images."""
    title = f"**{plain(treated_title(row))}**"
    if not row.fixed.rate.n and not row.broken.rate.n:
        return f"{title}: no test image shows it, so nothing can be said about it."
    parts = [
        f"{title}: where it shows, **{rate(row.fixed.rate)}** errors are right now, and "
        f"{rate(row.broken.rate)} right answers are lost."
    ]
    if row.before is not None and row.after is not None:
        parts.append(
            f"Images of other classes that show it were called *{plain(row.pull)}* in {rate(row.before.with_it.rate)}, "
            f"now in **{rate(row.after.with_it.rate)}**; without it in {rate(row.before.without.rate)}, now in "
            f"{rate(row.after.without.rate)}."
        )
    return " ".join(parts)


def estimate_span(value: Estimate) -> str:
    """`21% to 34%`, the interval of a rate; empty without images. Plain text."""
    return "" if math.isnan(value.low) else f"{percent(value.low)} to {percent(value.high)}"


# --- images that changed ---------------------------------------------------------------------------------------------


def changed_caption(item: ChangedImage) -> str:
    """What both models say about an image. Plain text."""
    return f"called {item.before}, now {item.after}"


def changed_alt(item: ChangedImage) -> str:
    """What a screen reader says for its picture."""
    turned = "became right" if item.right_now else "became wrong"
    return f"Test image {item.image}, {item.truth}: {turned}, {changed_caption(item)}"


def changed_heading(n: int, shown: int, right_now: bool) -> str:
    """Plain text."""
    part = f", {shown:,} of them shown" if shown < n else ""
    return f"{count(n, 'image')} became {'right' if right_now else 'wrong'}{part}"


# --- the audit of the tuned model ------------------------------------------------------------------------------------


def again_title(row: Again) -> str:
    """How a feature of both audits is called. Plain text."""
    number = f"feature {row.after} of the new audit" if row.before is None else f"feature {row.before}"
    return f"{row.name} ({number})" if row.name else number[:1].upper() + number[1:]


def grown(row: Again) -> str:
    """A feature that grew, or is new and flagged. Text alone tells it; the page adds the colour."""
    pulls = f", which pulls to {plain(row.pull)}" if row.pull else ""
    head = "New and flagged" if row.status == "new" else "Grew"
    flag = " The rule flags it now." if row.flagged_after and not row.flagged_before and row.status != "new" else ""
    return f"**{head}: {plain(again_title(row))}**{pulls}. {_errors(row)}{flag}"


def still(row: Again) -> str:
    """A feature that is flagged in the audit of the tuned model though it did not grow."""
    state = {"shrank": "Smaller, but still flagged"}.get(row.status, "Still flagged")
    pulls = f", which pulls to {plain(row.pull)}" if row.pull else ""
    return f"**{state}: {plain(again_title(row))}**{pulls}. {_errors(row)}"


def grew_below(view: SecondAudit) -> str:
    """Said at the top, where regressions come first."""
    n = len(view.worse)
    return (
        f"**In the audit of the repaired model, {count(n, 'feature')} grew, or {'is' if n == 1 else 'are'} new and "
        "flagged.** See below."
    )


def _errors(row: Again) -> str:
    was, now = row.errors.before.rate, row.errors.after.rate
    return (
        f"It decides {count(now.right, 'error')} now, before {was.right:,}, of {count(now.n, 'image')} "
        f"({interval_of(row.errors)}, q {probability(row.q)})."
    )


def second(view: SecondAudit) -> str:
    """What the second audit is, in two sentences."""
    verb, had = ("is" if view.flagged_after == 1 else "are"), ("was" if view.flagged_before == 1 else "were")
    return (
        "The repaired model was audited with the settings of this audit, on its images: right on "
        f"**{rate(view.after)}**, before on {rate(view.before)}. "
        f"**{count(view.flagged_after, 'feature')}** {verb} flagged now, {view.flagged_before:,} {had} flagged before."
    )


def nothing_grew() -> str:
    """What it means, and does not mean, that no feature grew."""
    unseen = ", ".join(NOT_SEEN[:-1])
    return (
        "**No feature grew beyond chance, and none is newly flagged.** That does not prove that no shortcut grew: an "
        f"audit does not see {unseen}, or {NOT_SEEN[-1]}."
    )


def stale() -> str:
    """Said when people merged or split features after the comparison."""
    return (
        "Features were merged or split since both audits were compared. The ids below are those of that time; the same "
        "`ravl mitigate` command compares again, and trains nothing while the features it treated have the regions "
        "they had."
    )
