"""Inputs for the fields of the configuration dataclasses: help, default, range and choices come from the field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any

import streamlit as st


def field_of(config: type[Any], name: str) -> Field[Any]:
    """The field of a configuration class. Raises KeyError for an unknown one."""
    return {item.name: item for item in fields(config)}[name]


def ask(
    config: type[Any],
    name: str,
    label: str,
    key: str,
    placeholder: str = "",
    words: Mapping[str, str] | None = None,
    start: float | None = None,
) -> Any:
    """One input that keeps its value over page changes; the value has the field's type.

    Tuples of text are asked one per line; a number without a default may stay empty (None). words: how choices are
    called on the screen. start: of a number, what it begins with instead of its default.
    """
    item = field_of(config, name)
    default, limits = item.default, item.metadata
    shared: dict[str, Any] = {"help": _help(item), "key": key, "persist_state": "session"}
    if limits.get("choices"):
        options = list(limits["choices"])
        called = words or {}
        return st.selectbox(
            label, options, index=options.index(default), format_func=lambda value: called.get(value, value), **shared
        )
    if isinstance(default, bool):
        return st.checkbox(label, default, **shared)
    if isinstance(default, tuple):
        text = st.text_area(label, "\n".join(map(str, default)), placeholder=placeholder or None, height=80, **shared)
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    if isinstance(default, str):
        return st.text_input(label, default, placeholder=placeholder or None, **shared)
    whole = isinstance(default, int) or (default is None and "int" in str(item.type))
    kind = int if whole else float
    low, high = (None if limits.get(end) is None else kind(limits[end]) for end in ("low", "high"))
    exact: dict[str, Any] = {"step": 1} if whole else {"format": "%g"}
    begins: Any = default if start is None else start
    return st.number_input(label, low, high, begins, placeholder=placeholder or None, **exact, **shared)


def _help(item: Field[Any]) -> str:
    text = str(item.metadata.get("help", ""))
    return text[:1].upper() + text[1:]
