"""The class that a caption names: class names and their synonyms as whole words, where they are not denied.

A word is denied when a negation stands before it in its sentence ("no pneumothorax", "without a dog", "no effusion or
pneumothorax") or after it ("pneumothorax is absent", "pneumothorax: none"). What a negation reaches ends with the
sentence, at a word that turns it ("but", "however", "with"), and at a comma that begins another noun ("no dog, a cat").
This is the idea of NegEx (Chapman et al. 2001) with a list that is short enough to be read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NONE, SEVERAL = -1, -2

BEFORE: tuple[str, ...] = (
    "no",
    "not",
    "without",
    "never",
    "nor",
    "neither",
    "cannot",
    "denies",
    "lacks",
    "lacking",
    "free of",
)
BEFORE += ("absence of", "negative for", "no evidence of", "no sign of", "no signs of", "rule out")
"""Words that deny what follows."""

AFTER: tuple[str, ...] = (
    "absent",
    "excluded",
    "ruled out",
    "not seen",
    "not present",
    "not visible",
    "not identified",
    "not evident",
)
AFTER += ("not detected", "not found", "none", "negative", "unlikely")
"""Words that deny what they follow, at most AFTER_REACH words behind it."""

AFTER_REACH = 4

ONLY_SEEMING: tuple[str, ...] = (
    "not only",
    "not just",
    "not merely",
    "no change in",
    "no change of",
    "no increase in",
    "no doubt",
)
ONLY_SEEMING += (
    "no decrease in",
    "no significant change in",
    "no interval change in",
    "without change in",
    "no longer a",
)
"""Words that look like a negation and deny nothing."""

TURNS = ("but", "however", "although", "though", "except", "apart", "aside", "yet", "still", "nevertheless", "with")
NEW_NOUN = ("a", "an", "the", "there", "this", "that", "these", "it", "one", "two", "three", "some")
"""After a comma these begin something that the negation before it does not reach."""

_TOKEN = re.compile(r"\w+|[.;:!?,\n]")
_STOP = frozenset(".;!?\n")


@dataclass(frozen=True)
class Matched:
    """label: (N,) int, the class that each caption names; NONE or SEVERAL."""

    label: NDArray[np.int64]

    @property
    def share(self) -> float:
        """Share of the captions that name one class; NaN without captions."""
        return float((self.label >= 0).mean()) if len(self.label) else float("nan")


def match(captions: Sequence[str], words: Sequence[Sequence[str]]) -> Matched:
    """The class of every caption. words: per class its name and synonyms, in label order."""
    index = _index(words)
    return Matched(np.array([_class_of(caption, index) for caption in captions], np.int64))


def class_of(caption: str, words: Sequence[Sequence[str]]) -> int:
    """The class that one caption names; NONE or SEVERAL."""
    return _class_of(caption, _index(words))


Index = dict[str, list[tuple[tuple[str, ...], int]]]


def _index(words: Sequence[Sequence[str]]) -> Index:
    """First word -> (all words, class), longest first. Underscores and hyphens part words; case does not count."""
    index: Index = {}
    for y, names in enumerate(words):
        for name in names:
            tokens = tuple(_tokens(name))
            if tokens:
                index.setdefault(tokens[0], []).append((tokens, y))
    for entries in index.values():
        entries.sort(key=lambda entry: -len(entry[0]))
    return index


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text.replace("_", " ").casefold())


def _class_of(caption: str, index: Index) -> int:
    tokens = _tokens(caption)
    claimed = set()
    place = 0
    while place < len(tokens):
        found = _at(tokens, place, index)
        if not found:
            place += 1
            continue
        length, classes = found
        if not denied(tokens, place, place + length):
            claimed |= classes
        place += length
    return next(iter(claimed)) if len(claimed) == 1 else SEVERAL if claimed else NONE


def _at(tokens: list[str], place: int, index: Index) -> tuple[int, set[int]] | None:
    """The longest name that begins here: its length, and the classes that have it."""
    fitting = [
        (len(name), y) for name, y in index.get(tokens[place], ()) if tuple(tokens[place : place + len(name)]) == name
    ]
    if not fitting:
        return None
    longest = max(length for length, _ in fitting)
    return longest, {y for length, y in fitting if length == longest}


def denied(tokens: Sequence[str], start: int, stop: int) -> bool:
    """Whether the words `start` .. `stop` (half-open) are denied by what stands around them."""
    return _denied_before(tokens, start) or _denied_after(tokens, stop)


def _denied_before(tokens: Sequence[str], start: int) -> bool:
    place = start - 1
    while place >= 0 and tokens[place] not in _STOP and tokens[place] not in TURNS and tokens[place] != ":":
        if tokens[place] == "," and place + 1 < len(tokens) and tokens[place + 1] in NEW_NOUN:
            return False
        # a phrase that only seems to deny counts where it begins at the same word, or holds it
        if _phrase(tokens, place, ONLY_SEEMING):
            return False
        if _phrase(tokens, place, BEFORE) and not (place and _phrase(tokens, place - 1, ONLY_SEEMING)):
            return True
        place -= 1
    return False


def _denied_after(tokens: Sequence[str], stop: int) -> bool:
    if list(tokens[stop : stop + 2]) == [":", "no"]:
        return True
    for place in range(stop, min(stop + AFTER_REACH, len(tokens))):
        if tokens[place] in _STOP or tokens[place] in TURNS or tokens[place] == ",":
            return False
        if _phrase(tokens, place, AFTER):
            return True
    return False


def _phrase(tokens: Sequence[str], place: int, phrases: Sequence[str]) -> bool:
    for phrase in phrases:
        words = phrase.split()
        if list(tokens[place : place + len(words)]) == words:
            return True
    return False
