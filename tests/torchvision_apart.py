"""open_clip on a machine whose torch has no torchvision that fits: `import_open_clip` for the tests that need it.

open_clip imports torchvision for its transforms in Python; of its compiled operators no CLIP model uses any. A
torchvision whose compiled part does not fit torch fails on import where it describes operators that are not there. So
they are declared first. It must not lie where others find it, since transformers would try to use it: `make venv` puts
it apart.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

APART = Path(sys.prefix) / "torchvision-apart"
_OPERATORS = ("nms", "qnms")
_kept: list[object] = []  # declarations live as long as their library object


def import_open_clip() -> ModuleType:
    """open_clip; skips the test where the extra is not installed."""
    if importlib.util.find_spec("open_clip") is None:
        pytest.skip("open_clip is not installed: pip install --no-deps -r requirements-open-clip.txt")
    if "torchvision" not in sys.modules:
        _add_torchvision()
    import open_clip

    return open_clip  # type: ignore[no-any-return]


def _add_torchvision() -> None:
    from transformers.utils import is_torchvision_available

    is_torchvision_available()  # the answer is remembered: transformers keeps to pictures of Pillow
    if importlib.util.find_spec("torchvision") is None:
        if not APART.is_dir():
            pytest.skip(f"open_clip needs torchvision, which is neither installed nor in {APART}: make venv")
        sys.path.append(str(APART))
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in _OPERATORS:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)
    import torchvision  # noqa: F401
