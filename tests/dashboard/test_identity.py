"""Who decides: the strongest means that is configured counts, and no weaker one stands in for it."""

from __future__ import annotations

import pytest

from dashboard.serving.identity import EXPLAINED, HOW, LONGEST, Person, missing, person
from ravl.tables import IDENTITIES

HEADERS = {"x-forwarded-user": " Ada  L. ", "Host": "here"}


@pytest.mark.parametrize(
    ("signed_in", "header", "found"),
    [
        (None, "", Person("typed", "self-declared")),
        (None, "X-Forwarded-User", Person("Ada L.", "proxy")),
        (None, "X-Other", Person("", "proxy")),  # configured, but not sent: what was typed does not count
        ({}, "X-Forwarded-User", Person("", "oidc")),
        ({"name": "Ada", "email": "ada@x.org", "sub": "7"}, "", Person("Ada (ada@x.org)", "oidc")),
        ({"email": "ada@x.org", "name": None}, "", Person("ada@x.org", "oidc")),
        ({"sub": "7"}, "X-Forwarded-User", Person("7", "oidc")),
    ],
)
def test_the_strongest_means_counts(signed_in: dict[str, object] | None, header: str, found: Person) -> None:
    assert person(signed_in, header, HEADERS, " typed ") == found


def test_a_name_is_one_line_of_bearable_length() -> None:
    assert person(None, "", {}, "a\nb" + "c" * 500).name == ("a b" + "c" * 500)[:LONGEST]


@pytest.mark.parametrize("identity", IDENTITIES)
def test_each_way_has_words(identity: str) -> None:
    assert HOW[identity]
    assert EXPLAINED[identity]
    assert missing(Person("", identity)).endswith(".")
    assert missing(Person("Ada", identity)) == ""
