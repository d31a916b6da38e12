"""How a setting is declared, checked, and told from another."""

from __future__ import annotations

import hashlib
import json
from dataclasses import field, fields
from typing import Any

from ravl.errors import ConfigError


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] | None = None,
) -> Any:
    """A dataclass field that carries its help text and its allowed range (both ends included)."""
    return field(default=default, metadata={"help": help, "low": low, "high": high, "choices": choices})


def check(config: Any) -> None:
    """Raise ConfigError unless every field of a configuration lies in its declared range."""
    for item in fields(config):
        value, limits = getattr(config, item.name), item.metadata
        if value is None or not limits:
            continue
        if limits["choices"] and value not in limits["choices"]:
            expected = ", ".join(map(str, limits["choices"]))
            raise ConfigError(f"{item.name} must be one of {expected}, got {value!r}.")
        if (limits["low"] is None and limits["high"] is None) or isinstance(value, str):
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigError(f"{item.name} must be a number, got {value!r}.")
        if isinstance(value, float) and "float" not in str(item.type):
            raise ConfigError(f"{item.name} must be a whole number, got {value}.")
        low, high = limits["low"], limits["high"]
        # `not >=` rather than `<`, so that NaN is refused as well
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            span = f"{'' if low is None else low} .. {'' if high is None else high}".strip()
            raise ConfigError(f"{item.name} must lie in {span}, got {value}.")


def digest(document: Any) -> str:
    """Eight hex digits of a JSON-able document; equal documents give equal digests."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
