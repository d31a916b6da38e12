"""Filters against the definition, one region at a time; their text survives the address."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboard.choosing import filters, map_words
from dashboard.choosing.filters import Facet, Filters
from dashboard.reading import opened, summaries
from ravl.ledger import Ledger
from ravl.store import AuditRun


@pytest.fixture
def found(run: AuditRun, book: Ledger) -> dict[str, Facet]:
    audit = opened.read_audit(run)
    book.add_verdict(run.id, 1, "eel", "spurious", "Ada", audit.seen(1), "red square")
    return filters.facets(audit, summaries.findings(audit, book.verdicts(run.id)))


def values(facet: Facet) -> list[str]:
    return [facet.keys[place] for place in facet.code]


def test_facets_say_what_each_region_is(run: AuditRun, found: dict[str, Facet]) -> None:
    audit = opened.read_audit(run)
    image = audit.regions.image
    assert values(found["feature"]) == ["none" if f < 0 else str(f) for f in audit.feature_of]
    assert values(found["class"]) == [str(audit.zero_shot.label[i]) for i in image]
    assert values(found["called"]) == [str(audit.zero_shot.predicted[i]) for i in image]
    assert values(found["right"]) == ["right" if audit.zero_shot.correct[i] else "wrong" for i in image]
    said = {-1: "none", 1: "spurious"}
    assert values(found["verdict"]) == [said.get(f, "open") for f in audit.feature_of.tolist()]
    assert values(found["noise"]) == ["none" if f < 0 else "in" for f in audit.feature_of]
    assert found["feature"].labels[0] == "red square (feature 1)"
    assert {name for name, facet in found.items() if facet.outcome} == {"called", "right"}


def made_up(n: int, seed: int) -> dict[str, Facet]:
    rng = np.random.default_rng(seed)
    keys = {"a": ("x", "y", "z"), "b": ("u", "v"), "c": ("one",)}
    return {name: Facet(name, name, rng.integers(0, len(k), n), k, k) for name, k in keys.items()}


rules = st.builds(
    Filters,
    *[
        st.dictionaries(
            st.sampled_from("ab"), st.frozensets(st.sampled_from("xyzuv"), min_size=1, max_size=3), max_size=2
        )
    ]
    * 2,
)


@settings(max_examples=80, deadline=None)
@given(rules, st.integers(0, 60), st.integers(0, 5))
def test_visible_and_counts_equal_the_definition(wanted: Filters, n: int, seed: int) -> None:
    facets = made_up(n, seed)

    def shows(name: str, region: int) -> bool:
        value = facets[name].keys[facets[name].code[region]]
        only, hidden = wanted.only.get(name), wanted.hidden.get(name, frozenset())
        return (only is None or value in only) and value not in hidden

    expected = [all(shows(name, region) for name in facets) for region in range(n)]
    assert filters.visible(facets, wanted).tolist() == expected
    for name, facet in facets.items():
        others = [all(shows(other, r) for other in facets if other != name) for r in range(n)]
        by_value = [sum(keep and values(facet)[r] == key for r, keep in enumerate(others)) for key in facet.keys]
        assert filters.counts(facets, wanted, name).tolist() == by_value


def test_rules_survive_the_address(found: dict[str, Facet]) -> None:
    some = Filters({"class": frozenset("02"), "feature": frozenset(["1", "none"])}, {"verdict": frozenset(["open"])})
    text = filters.written(some)
    assert text == "class:0,2;feature:1,none;-verdict:open"
    assert filters.read(text, found) == some
    assert filters.written(Filters()) == ""
    for damaged in ("", ";;", "class", "class:9", "nothing:1", "-:x", "class:0,9;-right:maybe"):
        again = filters.read(damaged, found)
        assert again == (Filters({"class": frozenset("0")}) if damaged.startswith("class:0") else Filters())


def test_a_legend_entry_is_hidden_and_shown_again() -> None:
    known = frozenset("xyz")
    hidden = Filters().toggled("a", frozenset("x"), known)
    assert (hidden.only, hidden.hidden) == ({}, {"a": frozenset("x")})
    assert hidden.toggled("a", frozenset("x"), known) == Filters()
    only = Filters().with_only("a", frozenset("y"))
    both = only.toggled("a", frozenset("x"), known)  # it was not shown, so it is shown now
    assert both == Filters({"a": frozenset("xy")})
    assert both.toggled("a", frozenset("z"), known) == Filters()
    assert only.with_only("a", frozenset()) == Filters()
    assert hidden.with_only("a", frozenset("x")) == Filters({"a": frozenset("x")})
    part = Filters(hidden={"a": frozenset("x")}).toggled("a", frozenset("xy"), known)  # y is shown: hide both
    assert part.hidden == {"a": frozenset("xy")}


def test_rules_are_told_in_words(found: dict[str, Facet]) -> None:
    some = Filters({"class": frozenset("1")}, {"noise": frozenset(["none"])})
    text = map_words.rules(found, some, 20, 240)
    assert text == r"**20 of 240 regions** – class: only *dog \**; noise: only *in a feature*."
    assert map_words.rules(found, Filters(), 240, 240) == ""
    assert map_words.option(found["class"], filters.counts(found, some, "class"), "1") == "dog * (23)"


def test_every_class_with_regions_can_be_chosen_but_not_every_feature() -> None:
    keys = tuple(map(str, range(500)))
    counts = np.arange(500) % 5  # none of every fifth
    classes, features = (Facet(name, name, np.zeros(0, int), keys, keys) for name in ("class", "feature"))
    some = [key for key in keys if int(key) % 5]
    assert filters.options(classes, counts, frozenset()) == some
    assert filters.options(classes, counts, frozenset({"0"})) == ["0", *some]
    assert filters.options(features, counts, frozenset({"499"})) == [*some[: filters.MAX_FEATURES], "499"]
