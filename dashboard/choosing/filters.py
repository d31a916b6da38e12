"""Which regions the map shows: facets (feature, class, prediction, ...) with counts, and rules over them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboard.reading.opened import Audit
from dashboard.reading.summaries import Finding
from dashboard.words.wording import DECISIONS, title

NONE = "none"
"""Key of the regions without a feature."""

MAX_FEATURES = 300
"""Features that a filter lists; those beyond rank last."""

KINDS = ("spurious", "core", "mixed", "unsure")


@dataclass(frozen=True)
class Facet:
    """One way to tell regions apart. code: (R,) int, place of each region's value among `keys` (stable) and `labels`.

    outcome: whether it depends on what the model answered.
    """

    name: str
    title: str
    code: NDArray[np.integer[Any]]
    keys: tuple[str, ...]
    labels: tuple[str, ...]
    outcome: bool = False


@dataclass(frozen=True)
class Filters:
    """Rules of what is shown, by the name of a facet. only: nothing else (no rule: everything). hidden: not these."""

    only: Mapping[str, frozenset[str]] = field(default_factory=dict)
    hidden: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def active(self) -> tuple[str, ...]:
        """Facets with a rule, by name."""
        return tuple(sorted(set(self.only) | set(self.hidden)))

    def with_only(self, facet: str, keys: frozenset[str]) -> Filters:
        """Show only these of a facet; with none of them, all. What was hidden of it is shown again."""
        return Filters(_with(self.only, facet, keys), _with(self.hidden, facet, frozenset()))

    def toggled(self, facet: str, keys: frozenset[str], known: frozenset[str]) -> Filters:
        """Hide the shown values among `keys`, or show them again when none of them is shown. known: all keys."""
        only, hidden = self.only.get(facet, known), self.hidden.get(facet, frozenset())
        shown = (only - hidden) & keys
        hidden = hidden | keys if shown else hidden - keys
        # a value outside `only` is shown again by becoming part of it
        only = only if shown or facet not in self.only else only | keys
        return Filters(
            _with(self.only, facet, frozenset() if only == known else only), _with(self.hidden, facet, hidden)
        )


def _with(rules: Mapping[str, frozenset[str]], facet: str, keys: frozenset[str]) -> dict[str, frozenset[str]]:
    rest = {name: old for name, old in rules.items() if name != facet}
    return {**rest, facet: keys} if keys else rest


def facets(audit: Audit, rows: tuple[Finding, ...]) -> dict[str, Facet]:
    """All facets of an audit, by name. rows: the features in rank order, with their decisions."""
    image, label = audit.regions.image, audit.feature_of
    ranked = [row.feature for row in rows]
    place = np.full(max([-1, *ranked, int(label.max(initial=-1))]) + 2, len(ranked))
    place[ranked] = np.arange(len(ranked))
    kinds = np.full(len(place), len(KINDS))
    for row in rows:
        if row.decision in KINDS:
            kinds[row.feature] = KINDS.index(row.decision)
    kinds[-1] = len(KINDS) + 1  # the last entry stands for regions without a feature
    classes, names = tuple(map(str, range(len(audit.class_names)))), audit.class_names
    correct = audit.zero_shot.correct
    found = (
        Facet("feature", "Feature", place[label], (*map(str, ranked), NONE), (*map(title, rows), "no feature")),
        Facet("class", "Class", audit.zero_shot.label[image].astype(np.int64), classes, names),
        Facet("called", "Prediction", audit.zero_shot.predicted[image], classes, names, outcome=True),
        Facet(
            "right",
            "Right or wrong",
            np.where(correct, 0, 1)[image],
            ("right", "wrong"),
            ("image classified right", "image classified wrong"),
            outcome=True,
        ),
        Facet(
            "verdict",
            "Decision",
            kinds[label],
            (*KINDS, "open", NONE),
            (*(DECISIONS[kind] for kind in KINDS), "not decided", "no feature"),
        ),
        Facet("noise", "Noise", np.where(label < 0, 1, 0), ("in", NONE), ("in a feature", "in no feature")),
    )
    return {facet.name: facet for facet in found}


def allowed(facet: Facet, filters: Filters) -> NDArray[np.bool_]:
    """(V,) which values of a facet are shown."""
    only, hidden = filters.only.get(facet.name), filters.hidden.get(facet.name, frozenset())
    return np.array([(only is None or key in only) and key not in hidden for key in facet.keys], bool)


def visible(found: Mapping[str, Facet], filters: Filters, but: str = "") -> NDArray[np.bool_]:
    """(R,) which regions every rule shows; the rules of the facet `but` are left out."""
    first = next(iter(found.values()))
    shown = np.ones(len(first.code), bool)
    for name in filters.active:
        if name in found and name != but:
            shown &= allowed(found[name], filters)[found[name].code]
    return shown


def options(facet: Facet, counts: NDArray[np.int64], only: frozenset[str]) -> list[str]:
    """The values of a facet to choose from: those that have regions, and those that are chosen already."""
    some = [name for name, n in zip(facet.keys, counts, strict=True) if n]
    if facet.name == "feature":
        some = some[:MAX_FEATURES]
    wanted = {*some, *only}
    return [name for name in facet.keys if name in wanted]


def counts(found: Mapping[str, Facet], filters: Filters, name: str) -> NDArray[np.int64]:
    """(V,) regions of each value of a facet among those that the other rules show."""
    facet = found[name]
    return np.bincount(facet.code[visible(found, filters, but=name)], minlength=len(facet.keys))


def written(filters: Filters) -> str:
    """The rules as text for an address: `class:0,2;-verdict:open`, where a dash hides."""
    parts = [f"{name}:{','.join(sorted(keys))}" for name, keys in sorted(filters.only.items())]
    parts += [f"-{name}:{','.join(sorted(keys))}" for name, keys in sorted(filters.hidden.items())]
    return ";".join(parts)


def read(text: str, found: Mapping[str, Facet]) -> Filters:
    """The rules of such a text; what the audit does not have is left out."""
    filters = Filters()
    for part in text.split(";"):
        name, _, listed = part.partition(":")
        hide, name = name.startswith("-"), name.removeprefix("-")
        if name not in found:
            continue
        keys = frozenset(listed.split(",")) & frozenset(found[name].keys)
        if hide:
            filters = replace(filters, hidden=_with(filters.hidden, name, keys))
        else:
            filters = replace(filters, only=_with(filters.only, name, keys))
    return filters
