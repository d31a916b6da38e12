"""Colours. The categories are those of Okabe and Ito (2008), told apart with every common form of colour blindness.

Meaning never hangs on colour alone: legends, labels and counts stand beside it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Palette:
    """Colours for one theme, as #RRGGBB. quiet: of small print, at least 4.5:1 on every ground. categories: the order
    in which groups take them.
    """

    text: str
    muted: str
    faint: str
    right: str
    wrong: str
    accent: str
    categories: tuple[str, ...]
    quiet: str = "#565E6A"


LIGHT = Palette(
    text="#1F2430",
    quiet="#565E6A",
    muted="#8A9099",
    faint="#D4D8DD",
    right="#0072B2",
    wrong="#D55E00",
    accent="#0072B2",
    categories=("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B8A800"),
)

# black cannot be seen on a dark ground, and the dark blue hardly: white and the yellow of the same palette stand in
DARK = Palette(
    text="#E8EBEF",
    quiet="#AEB6C0",
    muted="#878F99",
    faint="#4A525E",
    right="#56B4E9",
    wrong="#F08A3C",
    accent="#56B4E9",
    categories=("#F08A3C", "#56B4E9", "#2BBF94", "#CC79A7", "#E69F00", "#2F8FD0", "#FFFFFF", "#F0E442"),
)


def palette(dark: bool) -> Palette:
    """The colours of the dark or the light theme."""
    return DARK if dark else LIGHT
