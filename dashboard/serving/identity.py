"""Who sits before the screen, and how that is known: signed in (OIDC), told by a proxy, or self-declared. Pure.

A proxy's header is believed only where the environment variable RAVL_USER_HEADER names it: then the server must be
reachable through that proxy alone, and the proxy must replace whatever the browser sends under this name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

USER_HEADER = "RAVL_USER_HEADER"
"""The environment variable that names the proxy's header, such as X-Forwarded-User."""

LONGEST = 120
"""Characters of a name that are kept."""


@dataclass(frozen=True)
class Person:
    """A reviewer. name: empty while unknown. identity: one of `ravl.tables.IDENTITIES`."""

    name: str
    identity: str

    @property
    def declared(self) -> bool:
        """Whether the name is only what somebody typed."""
        return self.identity == "self-declared"


def person(signed_in: Mapping[str, object] | None, header: str, headers: Mapping[str, str], typed: str) -> Person:
    """Who it is, by the strongest means that is configured. A weaker one never stands in for one that fails.

    signed_in: claims of the OIDC provider, empty before the sign-in, None where none is configured. header: name of
    the proxy's header, empty where none is configured. headers: of the browser's connection. typed: the name given.
    """
    if signed_in is not None:
        return Person(_claimed(signed_in), "oidc")
    if header:
        given = {name.lower(): value for name, value in headers.items()}
        return Person(_short(given.get(header.lower(), "")), "proxy")
    return Person(_short(typed), "self-declared")


def _claimed(claims: Mapping[str, object]) -> str:
    name, address = (str(claims.get(key) or "").strip() for key in ("name", "email"))
    both = f"{name} ({address})" if name and address else name or address
    return _short(both or str(claims.get("sub") or ""))


def _short(text: str) -> str:
    return " ".join(text.split())[:LONGEST]


HOW = {
    "oidc": "signed in",
    "proxy": "as the proxy says",
    "self-declared": "self-declared",
}
"""How a name is known, in a few words."""

EXPLAINED = {
    "oidc": "The name is that of your sign-in; it is stored with each decision.",
    "proxy": "The name is the one that the server's sign-in sends; it is stored with each decision.",
    "self-declared": "Self-declared: it is stored with each decision, and nobody checks it.",
}


def missing(who: Person) -> str:
    """Why nobody can decide yet, as a sentence; empty when somebody can. Plain text."""
    if who.name:
        return ""
    return {
        "oidc": "Sign in first: a decision is kept together with who made it.",
        "proxy": "The proxy before this server does not say who you are, so nothing can be decided. "
        "Whoever runs it must let it send the header that RAVL_USER_HEADER names.",
        "self-declared": "Give your name first: a decision is kept together with who made it.",
    }[who.identity]
