"""Planted worlds: scenes with known spurious marks, and small models that learned to rely on them.

`worlds`      the worlds of the controlled evaluation: plans, scenes of any strength, who shows a mark, image folders.
`demos`       the built-in demos: names, folders, settings.
`digits`      the demo's world: real handwritten digits and a red square; writes the demo's image folders.
`medical`     the medical demo's: drawn radiographs as DICOM files with invented headers (needs pydicom).
`textures`    patches of real pictures (needs scikit-image).  `silhouettes`  drawn objects.
`radiograph`  a drawn chest radiograph.  `drawing`  cut-outs, marks and the layout in quadrants.
`tiny_clip`   small CLIP models trained from scratch on such a world (needs torch).
`tiny_families`   a small SigLIP and a small ResNet, trained on digits (needs torch).
`keeping`     trained models on disk, by their setting.
"""

from __future__ import annotations

from pathlib import Path

from ravl.errors import ModelError

_HERE = Path(__file__).resolve().parent
MODELS = {"demo": "demo-model", "demo:radiograph": "radiograph-model"}
"""References of the shipped demo models, and their folders below assets/."""


def demo_model(reference: str = "demo") -> Path:
    """The directory of a shipped demo model. Raises ModelError when the installation lacks it."""
    name = MODELS[reference]
    for folder in (_HERE.parents[1] / "assets" / name, _HERE.parent / "_assets" / name):
        if (folder / "config.json").exists():
            return folder
    raise ModelError(f"a demo model should be in assets/{name}, but is not there. Rebuild it with: make demo-model.")
