"""Planted worlds: scenes with known spurious marks, and small models that learned to rely on them.

`worlds`      the worlds of the controlled evaluation: plans, scenes of any strength, who shows a mark, image folders.
`digits`      the demo's world: real handwritten digits and a red square; writes the demo's image folders.
`textures`    patches of real pictures (needs scikit-image).  `silhouettes`  drawn objects.
`radiograph`  a drawn chest radiograph.  `drawing`  cut-outs, marks and the layout in quadrants.
`tiny_clip`   small CLIP models trained from scratch on such a world, and kept by setting (needs torch).
`tiny_families`   a small SigLIP and a small ResNet, trained on digits (needs torch).
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
