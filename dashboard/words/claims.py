"""Every sentence about evidence: what removing a feature shows, in words that need no statistics. Counts come first.

Text is Markdown unless a docstring says plain text.
"""

from __future__ import annotations

import math
from collections import Counter

from dashboard.reading.evidence import Expected, Outcome, Removal, Side, Trial
from dashboard.reading.opened import Interval, Rate
from dashboard.reading.summaries import ClassRow, Fact, Finding, Overview
from dashboard.words.wording import count, number, percent, plain, rate, signed

EVIDENCE = {
    "causal": "Causes errors",
    "harm": "Part of the class",
    "no effect": "Related, no effect",
    "partial": "Part of the cause",
    "unproven": "Cannot be told",
    "disagree": "Related, unclear",
    "inconclusive": "Too few errors",
    "support": "Too little evidence",
    "chance": "Could be chance",
    "not replicated": "Only in one half",
    "untested": "Not tested",
}
"""What the evidence about a feature amounts to, by its reason (`ravl.discovery.evidence`)."""

MEANS = {
    "causal": "The errors go with it: the model makes them because of it.",
    "harm": "Right answers go with it too, so it seems to be part of what the model recognises.",
    "no effect": "Images that show it are classified differently, but their errors stay when it is removed: "
    "something else causes them.",
    "partial": "Some errors go when it is removed, but the images are still recognised less than those that never had "
    "it: something beyond this feature is at fault, such as a property of the whole image.",
    "unproven": "Errors go when it is removed, but too few images of the class lack it to tell it from the class.",
    "disagree": "The ways of removing it disagree, so nothing can be said for sure.",
    "inconclusive": "Images that show it are classified differently. There are too few errors among them, or too few "
    "other pieces to compare with, to tell whether it makes the difference.",
    "support": "There are too few images with it or without it, or too few errors, for a conclusion. "
    "That does not make it harmless.",
    "chance": "Chance alone could explain how differently images with it are classified.",
    "not replicated": "The difference shows in one half of the images only, so it may be chance.",
    "untested": "Images that show it are classified differently, by more than chance. Whether it causes the errors is "
    "not known: this audit had embeddings and no model, so nothing could be removed as a test.",
}

OPERATORS = {
    "token_drop": ("Left out", "Hatched: the model is not shown this part at all; nothing is painted in its place."),
    "mean_fill": ("Painted over", "The place is painted in the image's mean colour."),
    "blur": ("Blurred", "The place is blurred until nothing can be told."),
    "inpaint": ("Filled in", "The place is filled in from what lies around it."),
    "transplant": (
        "Replaced",
        "Hatched: the place shows what another image of the class has there; which one is not kept.",
    ),
}
"""The ways of removing a feature: a label, and what a picture of it shows."""

OUTCOMES = {
    "fixed": ("Errors that go", ""),
    "stays": ("Errors that stay", "Counter-examples: something else makes these wrong."),
    "kept": ("Right with it, right without it", "Counter-examples: it is there, and does no harm."),
    "broken": ("Right with it, wrong without it", "Here the right answer rests on it."),
}

NOT_SEEN = (
    "a property of the whole image, such as brightness, sharpness or the device that made it",
    "anything smaller than a region, or spread over many of them",
    "shortcuts of classes with few images",
    "shortcuts that cause no error in these images",
)
"""What no audit of this kind can find."""


# --- numbers ---------------------------------------------------------------------------------------------------------


def beyond(value: Interval) -> str:
    """`0.75 (0.63 to 0.87)`: a number and its interval. Plain text."""
    if math.isnan(value.value):
        return "–"
    return f"{_minus(value.value)} ({_minus(value.low)} to {_minus(value.high)})"


def _minus(value: float) -> str:
    return number(value + 0.0 if round(value, 2) else 0.0).replace("-", "−")


def probability(value: float) -> str:
    """A p or q value: `0.012`, `<0.001`, or a dash. Plain text."""
    if math.isnan(value):
        return "–"
    return "<0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def span(value: Interval) -> str:
    """`−62 to −41 points`: the interval of a difference of two rates; empty where it is undefined. Plain text."""
    if math.isnan(value.low) or math.isnan(value.high):
        return ""
    return f"{signed(round(100 * value.low))} to {signed(round(100 * value.high))} points"


# --- one feature -----------------------------------------------------------------------------------------------------


def evidence(row: Finding) -> str:
    """What the evidence amounts to, in a few words. Plain text."""
    return EVIDENCE[row.reason]


def errors_gone(row: Finding) -> str:
    """Errors of the whole image set that become right without the feature. Plain text."""
    return "not tested" if row.explained is None else f"{_about(row)}{rate(row.explained)}"


def _about(row: Finding) -> str:
    """What stands before a count that a sample of the images stands for."""
    return "about " if row.fixed.n < row.n_errors else ""


def claim(row: Finding) -> str:
    """What happens to the errors when the feature is removed, in one sentence."""
    if row.explained is None:
        return "It was not removed as a test."
    fixed, control = row.fixed, row.control
    if not fixed.n:
        return "It was removed as a test, but no wrongly classified image shows it."
    if fixed.n == 1:
        said = f"The only wrongly classified image that shows it {_becomes(fixed)} when it is removed"
    else:
        said = f"Of the {fixed.n:,} wrongly classified images that show it, {_becomes(fixed)} when it is removed"
    if not control.n:
        return f"{said}; there is no other piece of that size to compare with."
    other = "it becomes right" if control.right else "it stays wrong"
    if fixed.n > 1:
        whole = control.n == fixed.n
        other = f"**{_some(control) if whole else rate(control)}**"
    return f"{said}, and {other} when another piece of the same size is removed from the same image{_s(fixed.n)}."


def _becomes(fixed: Rate) -> str:
    if fixed.n == 1:
        return "**becomes right**" if fixed.right else "**stays wrong**"
    return f"**{_some(fixed)} become{'s' if fixed.right in (0, 1) else ''} right**"


def _some(of: Rate) -> str:
    return "none" if not of.right else "all" if of.right == of.n else f"{of.right:,}"


def _s(n: int) -> str:
    return "" if n == 1 else "s"


def meaning(row: Finding) -> str:
    """What follows from it, in one or two sentences."""
    if row.reason == "causal" and row.explained is not None:
        errors = f"{_about(row)}{row.explained.right:,} of all {count(row.explained.n, 'error')}"
        share = f"It explains **{errors} ({percent(row.explained.share)})**."
        return share if lead(row) else f"{MEANS[row.reason]} {share}"
    return MEANS[row.reason]


def lead(row: Finding) -> str:
    """What a feature does, without a number, where that is known; else empty."""
    if row.reason != "causal" or not row.pull:
        return ""
    return f"**What these regions show makes the model wrongly answer *{plain(row.pull)}*.**"


def told(row: Finding) -> str:
    """All that is known of a feature in one paragraph: what it does, what removing it shows, what follows."""
    return " ".join(filter(None, (lead(row), claim(row), meaning(row))))


def effect(rows: tuple[ClassRow, ...]) -> str:
    """The class that suffers most, with and without, and the interval; empty when no class can be compared."""
    compared = [row for row in rows if not math.isnan(row.gap)]
    if not compared or compared[0].gap >= 0:
        return ""
    row = compared[0]
    return (
        f"*{plain(row.name)}* is recognised in {rate(row.inside)} images that show it, and in {rate(row.outside)} that "
        f"do not: a difference of {span(row.difference)}."
    )


def side_effects(view: Removal) -> str:
    """What removal does to right images, and what pasting does; empty where neither was tried."""
    parts = []
    other, own = view.other_broken, view.pull_broken
    if other.n:
        parts.append(f"{_breaking(other, ' of other classes' if view.pull else '')}.")
    if own.n:
        rests = ": there the right answer rests on it" if 2 * own.right >= own.n else ""
        parts.append(f"{_breaking(own, f' of *{plain(view.pull)}*')}{rests}.")
    if view.induced.n and view.pull:
        parts.append(
            f"Pasted into {count(view.induced.n, 'right image')} of other classes, it turns {view.induced.right:,} of "
            f"them into *{plain(view.pull)}*."
        )
    return " ".join(parts)


def _breaking(broken: Rate, whose: str) -> str:
    if broken.n == 1:
        turns = "**turns wrong**" if broken.right else "stays right"
        return f"The only right image{whose} that shows it {turns} without it"
    turn = "none turns" if not broken.right else f"**{broken.right:,}** turn{'s' if broken.right == 1 else ''}"
    return f"Of the {broken.n:,} right images{whose} that show it, {turn} wrong without it"


def heading(outcome: Outcome) -> tuple[str, str]:
    """The heading of some images of the panel, and a note below it. Plain text."""
    title, note = OUTCOMES[outcome.kind]
    return f"{title}: {rate(outcome.count)}", note


def trial_caption(trial: Trial) -> str:
    """What a pair of pictures shows: the truth, and the image's number. Plain text."""
    return f"is {trial.truth} · image {trial.image}"


def trial_alts(trial: Trial) -> tuple[str, str]:
    """What a screen reader says for the two pictures. Plain text."""
    first = f"Image {trial.image}, which is {trial.truth}, with the feature: called {trial.called}"
    return first, f"the same without it: called {trial.after}"


def panel_note(view: Removal, operator: str) -> str:
    """What the pictures of one way of removing show, and how the ways are put together. Plain text."""
    ways, shown = len(view.effects), OPERATORS[operator][1]
    if ways > 1:
        need = f"all {ways} ways" if view.agree == ways else f"at least {view.agree} of the {ways} ways"
        shown += f" The counts below are of this way alone; the sentences count an image when {need} agree."
    if view.scored.right < view.scored.n:
        shown += f" {rate(view.scored)} images that show it were tried."
    return shown


def statistics(row: Finding, view: Removal) -> tuple[Fact, ...]:
    """The numbers behind the sentences, for those who want them. Plain text."""
    rows = [
        ("Gap above chance, with its interval", beyond(row.beyond)),
        ("p of the gap, permutation test", probability(view.p)),
        ("q of the gap, corrected for all features", probability(row.q)),
        ("Gap, as in the paper", number(row.gap)),
        ("Influence, as in the paper", number(row.influence)),
        ("Influence above chance", _minus(view.excess_influence)),
        (f"Signature: {view.pull}, with and without" if view.pull else "", _side(view.pull_side)),
        (
            "Signature: other classes, with and without" if view.pull else "",
            _side(view.other_side, "with as many images of each class "),
        ),
        (f"Pasted into other images: then called {view.pull}" if view.induced.n else "", rate(view.induced)),
        ("Found in both halves of the images", {None: "", True: "yes", False: "no"}[view.replicated]),
        ("Regions and images", f"{count(row.n_regions, 'region')} in {count(row.n_images, 'image')}"),
    ]
    return tuple(Fact(name, value) for name, value in rows if name and value)


def _side(side: Side, alike: str = "") -> str:
    if not side.inside.n or not side.outside.n:
        return "cannot be compared"
    return f"{rate(side.inside)} and {rate(side.outside)}: {alike}{span(side.difference)}"


def harm(view: Removal) -> str:
    """How well the pull class is recognised after removal, next to images that never had the feature. Plain text."""
    lost = view.effects[0].pull_after if view.tested else Rate(0, 0)
    if not lost.n or not view.never.n:
        return ""
    return (
        f"{view.pull} without the feature from the start is recognised in {rate(view.never)} images, after removal in "
        f"{rate(lost)}: a loss of {span(view.harm)}."
    )


# --- all features ----------------------------------------------------------------------------------------------------

_REST = {
    "causal": "that cause errors",
    "harm": "that are part of the class",
    "no effect": "without effect",
    "partial": "that are only a part of the cause",
    "unproven": "that cannot be told from a class",
    "disagree": "where removal says nothing clear",
    "inconclusive": "with too few errors to tell what removal does",
    "support": "with too little evidence",
    "chance": "that chance could explain",
    "not replicated": "found in one half of the images only",
    "untested": "that could not be tested without a model",
}


def headline(view: Overview) -> str:
    """The state of an audit in one or two sentences."""
    found, n = len(view.flagged), len(view.findings)
    if not n:
        return "No features were found: the regions form no groups. Try more images, or another way of cutting regions."
    if view.rule == "paper":
        verb = "passes" if found == 1 else "pass"
        return f"**{found} of {count(n, 'feature')}** {verb} the paper's rule." if found else _none_passes(n)
    if not found and (unknown := _untold(view.findings)):
        return unknown
    if not found:
        what = "The only feature was not" if n == 1 else f"None of the {n:,} features was"
        return f"**No local shortcut was found.** {what} shown to cause errors."
    verb, them = ("causes", "it is") if found == 1 else ("cause", "they are")
    told = f"{verb} errors of this model: wrong answers become right when {them} removed."
    return f"**{found} of {count(n, 'feature')}** {told}"


def _untold(rows: tuple[Finding, ...]) -> str:
    """Why an audit without a flagged feature is no all-clear either; empty where it is one, as far as audits go."""
    n, untested = len(rows), sum(row.reason == "untested" for row in rows)
    if untested:
        verb, they = ("differs", "it causes") if untested == 1 else ("differ", "they cause")
        return (
            "**Nothing could be tested by removal**: this audit had embeddings and no model. "
            f"**{untested:,} of {count(n, 'feature')}** {verb} by more than chance; whether {they} errors is not known."
        )
    if all(row.reason in ("support", "inconclusive") for row in rows):
        what = "the only feature" if n == 1 else f"any of the {n:,} features"
        return (
            "**Whether there is a local shortcut cannot be told.** There are too few images or errors to say whether "
            f"{what} causes errors."
        )
    return ""


def _none_passes(n: int) -> str:
    return f"None of the {count(n, 'feature')} passes the paper's rule."


def not_proven() -> str:
    """What it means, and does not mean, that nothing was found; a paragraph and a list."""
    points = "\n".join(f"- {point}" for point in NOT_SEEN)
    return f"That does not prove that the model uses no shortcut. This kind of audit cannot see:\n{points}"


def rest(rows: tuple[Finding, ...], more: bool) -> str:
    """What is known about the features that are not flagged; empty without any. more: others are shown above."""
    if not rows:
        return ""
    found = Counter(row.reason for row in rows)
    what = count(len(rows), "more feature" if more else "feature")
    if len(found) == 1:
        return f"{what} {_REST[rows[0].reason]}."
    return f"{what}: {', '.join(f'{found[reason]:,} {words}' for reason, words in _REST.items() if found[reason])}."


def expected(view: Expected) -> str:
    """What the model would do if the features were invisible: overall, worst group, and what would be lost."""
    change = view.comparison
    overall, was, then = change.overall, change.worst_before, change.worst_after
    what = "this feature were" if len(view.features) == 1 else f"these {len(view.features)} features were"
    parts = [
        f"If {what} invisible, the model would be right on **{rate(overall.after)}** images instead of "
        f"{rate(overall.before)}."
    ]
    if was is not None and was.after == was.before:
        parts.append(f"The worst group, *{plain(was.name)}*, would stay at {rate(was.before)}.")
    elif was is not None:
        parts.append(
            f"In the worst group, *{plain(was.name)}*, it would be right on **{rate(was.after)}** instead of "
            f"{rate(was.before)}."
        )
    if was is not None and then is not None and then.name != was.name:
        parts.append(f"The worst group would then be *{plain(then.name)}* with {rate(then.after)}.")
    lost = [row for row in change.worse if row.kind == "group"]
    if lost and (then is None or lost[0].name != then.name):
        parts.append(f"*{plain(lost[0].name)}* would fall from {rate(lost[0].before)} to {rate(lost[0].after)}.")
    return " ".join(parts)


def expected_basis(view: Expected) -> str:
    """How that was measured, and what it leaves open. Plain text."""
    scored = view.showing - view.unscored
    parts = [
        f"Measured before any training: {count(scored, 'image')} classified again with "
        f"{'it' if len(view.features) == 1 else 'them'} {OPERATORS[view.operator][0].lower()}."
    ]
    if view.unscored:
        parts.append(f"{count(view.unscored, 'more image')} that could not be, or were not, keep their answer.")
    if view.several:
        parts.append(
            f"{count(view.several, 'image')} show several of them, and were classified without one at a time, "
            "so errors that two of them hold up still count as errors."
        )
    return " ".join(parts)
