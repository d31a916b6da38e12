"""Planted worlds: scenes with a known spurious mark, and a small model that learned to rely on it.

`digits`    scenes of real handwritten digits and a red square; writes them as image folders.
`tiny_clip` a small CLIP model trained from scratch on such a world (needs torch).
"""

from __future__ import annotations

from pathlib import Path

from ravl.errors import ModelError

_HERE = Path(__file__).resolve().parent
DEMO_MODEL = "assets/demo-model"


def demo_model() -> Path:
    """The directory of the shipped demo model. Raises ModelError when the installation lacks it."""
    for folder in (_HERE.parents[1] / DEMO_MODEL, _HERE.parent / "_assets" / "demo-model"):
        if (folder / "config.json").exists():
            return folder
    raise ModelError(f"the demo model should be in {DEMO_MODEL}, but is not there. Rebuild it with: make demo-model.")
