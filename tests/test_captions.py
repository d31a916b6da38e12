"""Labels from captions, compared with a slower parser that works on the text itself."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ravl.data.captions import NONE, SEVERAL, class_of, match

WORDS = [("pneumothorax", "collapsed lung"), ("effusion", "pleural fluid"), ("no finding",), ("tension pneumothorax",)]
PNEUMOTHORAX, EFFUSION, CLEAR, TENSION = range(4)


@pytest.mark.parametrize(
    ("caption", "label"),
    [
        ("Small apical pneumothorax.", PNEUMOTHORAX),
        ("PNEUMOTHORAX", PNEUMOTHORAX),
        ("a collapsed  lung", PNEUMOTHORAX),
        ("collapsed-lung", PNEUMOTHORAX),
        ("pneumothoraxes", NONE),  # whole words
        ("pneumothorax with pleural fluid", SEVERAL),
        ("tension pneumothorax", TENSION),  # the longest name counts
        ("No finding.", CLEAR),  # a class may have a negation in its name
        ("", NONE),
        # denied before
        ("no pneumothorax", NONE),
        ("No evidence of pneumothorax", NONE),
        ("without a pneumothorax or effusion", NONE),
        ("No consolidation, effusion, or pneumothorax.", NONE),
        ("negative for effusion", NONE),
        ("Absence of pneumothorax; large effusion", EFFUSION),
        ("no pneumothorax. effusion", EFFUSION),
        ("no pneumothorax but effusion", EFFUSION),
        ("no effusion, a pneumothorax", PNEUMOTHORAX),
        ("There is no pneumothorax with effusion", EFFUSION),
        ("neither effusion nor pneumothorax", NONE),
        # denied behind
        ("pneumothorax is absent", NONE),
        ("pneumothorax: none", NONE),
        ("pneumothorax: no", NONE),
        ("effusion has been ruled out, pneumothorax", PNEUMOTHORAX),
        ("pneumothorax not seen", NONE),
        ("pneumothorax, effusion absent", PNEUMOTHORAX),
        # seems to be denied
        ("no change in pneumothorax", PNEUMOTHORAX),
        ("not only effusion", EFFUSION),
        ("no increase in the effusion", EFFUSION),
        # once denied and once not
        ("no pneumothorax before; now pneumothorax", PNEUMOTHORAX),
    ],
)
def test_what_a_caption_names(caption: str, label: int) -> None:
    assert class_of(caption, WORDS) == label


def test_underscores_part_words() -> None:
    assert class_of("a polar bear", [("polar_bear",), ("bear",)]) == 0
    assert class_of("a bear", [("polar_bear",), ("bear",)]) == 1


def test_two_classes_of_one_name_are_not_told_apart() -> None:
    assert class_of("a crane", [("bird", "crane"), ("machine", "crane")]) == SEVERAL


def test_the_share_that_is_matched() -> None:
    found = match(["a cat", "a dog", "a cat and a dog", "rain"], [("cat",), ("dog",)])
    assert found.label.tolist() == [0, 1, SEVERAL, NONE]
    assert found.share == 0.5
    assert np.isnan(match([], [("cat",)]).share)


def affirmed(caption: str, words: list[tuple[str, ...]]) -> int:
    """Captions without negation: a regular expression per name, the longest match at a place first."""
    names = sorted(((n, y) for y, own in enumerate(words) for n in own), key=lambda pair: -len(pair[0].split()))
    place, found = 0, set()
    text = " ".join(re.findall(r"\w+|,", caption.lower()))
    while place < len(text):
        for name, y in names:
            here = re.compile(r"(?<!\w)" + r" ".join(map(re.escape, name.split())) + r"(?!\w)").match(text, place)
            if here:
                longest = [z for other, z in names if other == name]
                found |= set(longest)
                place = here.end()
                break
            del y
        else:
            place += 1
    return next(iter(found)) if len(found) == 1 else SEVERAL if found else NONE


_words = st.sampled_from(["cat", "dog", "big", "cats", "polar", "bear", ",", "and", "red"])


@given(st.lists(_words, max_size=12))
def test_without_negation_it_is_a_search_for_words(tokens: list[str]) -> None:
    words = [("cat", "big cat"), ("dog",), ("polar bear",), ("bear",)]
    caption = " ".join(tokens)
    assert class_of(caption, words) == affirmed(caption, words)


@given(st.lists(_words, max_size=8))
def test_a_negation_before_everything_denies_everything(tokens: list[str]) -> None:
    words = [("cat", "big cat"), ("dog",), ("polar bear",), ("bear",)]
    assert class_of(" ".join(["no", *tokens]), words) == NONE


@given(st.text(max_size=60), st.lists(st.text(max_size=5), max_size=4))
def test_any_text_has_an_answer(caption: str, names: list[str]) -> None:
    label = class_of(caption, [(name,) for name in names])
    assert label in (NONE, SEVERAL) or 0 <= label < len(names)


@given(st.permutations(range(4)))
def test_the_order_of_the_classes_changes_only_the_numbers(order: list[int]) -> None:
    captions = ["no finding", "tension pneumothorax", "effusion", "no effusion", "effusion and pneumothorax"]
    plain, turned = match(captions, WORDS).label, match(captions, [WORDS[y] for y in order]).label
    expected = [order.index(y) if y >= 0 else y for y in plain.tolist()]
    assert turned.tolist() == expected
