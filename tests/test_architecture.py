"""Who may import whom. A module without a line in ALLOWED fails, and so does a line that no module needs."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("ravl", "dashboard")

RECORDS = ("ravl.errors", "ravl.config", "ravl.tables", "numpy", "numpy.*")
RUN = ("ravl.store", "ravl.ledger", "ravl.evaluation", "ravl.readings")
READ = (*RECORDS, *RUN, "ravl.planted.demos")
TORCH = ("torch", "torch.*", "safetensors", "safetensors.*")
TRANSFORMERS = ("transformers", "transformers.*")
LIBRARIES = (*TRANSFORMERS, "open_clip", "open_clip.*")

ROOMS = ("serving", "reading", "words", "choosing", "pictures", "reporting", "screen", "acting", "views")
"""The folders of the dashboard: each may import itself and those before it."""


def up_to(room: str) -> tuple[str, ...]:
    return tuple(f"dashboard.{name}*" for name in ROOMS[: ROOMS.index(room) + 1])


# the first line that fits a module holds; the standard library is free
ALLOWED: dict[str, tuple[str, ...]] = {
    # 0  records and settings
    "ravl": ("ravl.api", "ravl.store"),
    "ravl.errors": (),
    "ravl.config*": ("ravl.config.*", "ravl.errors"),
    "ravl.tables*": ("ravl.tables.*", "numpy", "numpy.*"),
    # 1  images, counts
    "ravl.data.manifest": ("ravl.data.*", *RECORDS, "pandas"),
    **dict.fromkeys(
        ("ravl.data.embeddings", "ravl.data.embedding_files"), ("ravl.data.*", *RECORDS, "pyarrow", "pyarrow.parquet")
    ),
    "ravl.data.hub": ("ravl.data.*", *RECORDS, "pandas", "datasets"),
    "ravl.data.dicom": ("ravl.data.*", *RECORDS, "PIL", "pydicom", "pydicom.pixels.processing"),
    "ravl.data*": ("ravl.data.*", *RECORDS, "PIL", "cv2"),
    "ravl.evaluation": RECORDS,
    # 2  what is kept, and the science: no torch
    "ravl.store*": ("ravl", "ravl.store.*", *RECORDS, "pandas"),
    "ravl.chain": (),
    "ravl.ledger*": ("ravl.ledger.*", *RECORDS, "ravl.chain", "sqlalchemy", "sqlalchemy.*"),
    "ravl.export": ("ravl.export.*",),
    "ravl.export.check": (
        "ravl.chain",
        "ravl.errors",
        "ravl.export.*",
        "ravl.ledger",
        "numpy",
        "numpy.*",
        "jsonschema",
    ),
    "ravl.export.*": (
        *("ravl", *RECORDS, "ravl.chain", "ravl.export.*", "ravl.ledger", "ravl.mitigation.card", "ravl.store"),
        *("ravl.discovery.scoring", "ravl.summary"),
    ),
    "ravl.importing": (*RECORDS, "ravl.discovery.scoring", "ravl.ledger", "ravl.store"),
    "ravl.report": ("ravl.report.*",),
    "ravl.report.*": ("ravl.report.*", "jinja2", "markupsafe"),
    "ravl.readings": (*RECORDS, "ravl.ledger"),
    "ravl.summary": (*RECORDS, "ravl.evaluation", "ravl.store"),
    "ravl.progress": (*RECORDS, "ravl.ledger", "psutil", "rich.*"),
    "ravl.planted": RECORDS,
    "ravl.planted.digits": (*RECORDS, "ravl.planted.drawing", "PIL", "sklearn.datasets"),
    "ravl.planted.demos": (*RECORDS, "ravl.planted.*"),
    "ravl.planted.medical": (*RECORDS, "ravl.planted.*", "pydicom", "pydicom.*"),
    "ravl.planted.textures": (*RECORDS, "ravl.planted.drawing", "PIL", "skimage"),
    **dict.fromkeys(
        ("ravl.planted.drawing", "ravl.planted.radiograph", "ravl.planted.silhouettes", "ravl.planted.worlds"),
        (*RECORDS, "ravl.planted", "ravl.planted.*", "PIL"),
    ),
    "ravl.discovery*": (
        *("ravl.discovery.*", *RECORDS, "ravl.data", "ravl.vlm.interface", "PIL", "hdbscan", "umap", "scipy.*"),
        *("ravl.data.painting", "skimage.segmentation", "numba", "numba.extending", "threadpoolctl"),
    ),
    # 3  the door to models
    "ravl.vlm.interface": ("numpy", "numpy.*", "PIL"),
    "ravl.vlm.geometry": RECORDS,
    "ravl.vlm": ("ravl.vlm.*",),
    "ravl.vlm.proposals": (*RECORDS, *TORCH, *LIBRARIES, "ravl.discovery.proposals", "PIL"),
    "ravl.vlm.*": ("ravl.vlm.*", *RECORDS, *TORCH, *LIBRARIES, "ravl.data.painting", "ravl.planted", "PIL"),
    # 4  fine-tuning
    "ravl.mitigation.loss": ("torch", "torch.*"),
    "ravl.mitigation.exchange": (*RECORDS, "ravl.data.painting", "PIL"),
    "ravl.mitigation.comparison": (*RECORDS, "ravl.evaluation", "ravl.discovery.significance"),
    "ravl.mitigation.card": ("ravl.config", "ravl.mitigation.rematch"),
    "ravl.mitigation.baselines": (*RECORDS, "torch"),  # torch inside a function
    "ravl.mitigation.footprint": ("ravl.config", "ravl.errors", "ravl.mitigation.baselines"),  # and the screen's: none
    "ravl.mitigation.rematch": (*RECORDS, "ravl.discovery.evidence", "ravl.mitigation.comparison", "scipy.optimize"),
    "ravl.mitigation*": (
        *("ravl.mitigation.*", *RECORDS, *TORCH, "ravl.data", "ravl.evaluation", "ravl.store"),
        *("ravl.vlm.differentiable", "accelerate", "accelerate.*", "peft", "peft.*", "psutil"),
        "PIL",
    ),
    "ravl.planted.tiny_clip": (
        *(*RECORDS, *TORCH, *TRANSFORMERS, "tokenizers"),
        *(
            "ravl.mitigation.loss",
            "ravl.planted",
            "ravl.planted.medical",
            "ravl.planted.digits",
            "ravl.planted.worlds",
            "PIL",
        ),
    ),
    # torch through the models that they train and keep
    **dict.fromkeys(("ravl.planted.keeping", "ravl.planted.naming"), (*RECORDS, "ravl.planted.*", "torch")),
    "ravl.planted.tiny_families": (
        *(*RECORDS, *TORCH, *TRANSFORMERS, "ravl.planted.*"),
        *("ravl.mitigation.loss", "ravl.vlm", "ravl.vlm.*", "PIL"),
    ),
    # 5  the order of the stages
    "ravl.stages": (*RECORDS, "ravl.discovery.*", "ravl.store"),
    "ravl.audit": (*RECORDS, "ravl.data", "ravl.discovery.*", "ravl.stages", "ravl.store", "ravl.vlm.interface"),
    "ravl.given": (*RECORDS, "ravl.data.embeddings", "ravl.discovery.*", "ravl.stages", "ravl.store"),
    "ravl.repair": (
        *(*RECORDS, *RUN, "ravl.data", "ravl.discovery.*", "ravl.mitigation.*"),
        *("ravl.vlm.differentiable", "ravl.vlm.interface", "ravl.vlm.proposals"),
    ),
    "ravl.reaudit": (
        *(*RECORDS, *RUN, "ravl.audit", "ravl.discovery.evidence", "ravl.discovery.scoring", "ravl.vlm.interface"),
        "ravl.vlm.proposals",
        *("ravl.mitigation.card", "ravl.mitigation.comparison", "ravl.mitigation.rematch"),
    ),
    "ravl.bench": (),
    "ravl.bench.__main__": ("ravl.bench.*", "ravl.errors"),
    "ravl.bench.timing": (),
    "ravl.bench.encoding": (*RECORDS, "ravl.bench.timing", "ravl.vlm.model", "PIL", "torch"),
    "ravl.bench.audits": (
        *("ravl", *RECORDS, "ravl.bench.*", "ravl.data", "ravl.planted.*", "ravl.store", "ravl.vlm", "PIL", "torch"),
    ),
    "ravl.bench.stages": (
        *(*RECORDS, "ravl.bench.*", "ravl.discovery.*", "ravl.planted.digits", "ravl.vlm", "PIL", "torch"),
    ),
    "ravl.bench.steps": (
        *(*RECORDS, "ravl.bench.*", "ravl.discovery.*", "ravl.mitigation.*", "ravl.planted.*", "ravl.vlm"),
        *("ravl.vlm.differentiable", "PIL", "torch"),
    ),
    "ravl.benchmark": (),
    "ravl.benchmark.command": ("ravl.benchmark.*", "ravl.errors", "ravl.store"),
    "ravl.benchmark.demo": (
        "ravl",
        *RECORDS,
        "ravl.benchmark.quotes",
        "ravl.data.hiding",
        "ravl.planted.*",
        "ravl.store",
    ),
    "ravl.benchmark.auditing": (
        *("ravl", "ravl.benchmark.*", "ravl.planted.*", "ravl.store", "ravl.store.files", *RECORDS),
    ),
    "ravl.benchmark.measuring": (
        *("ravl.benchmark.repairs", *RECORDS, "ravl.evaluation", "ravl.planted.*", "ravl.vlm.differentiable"),
        *("PIL", "torch"),
    ),
    "ravl.benchmark.mitigation": (
        *("ravl", *RECORDS, "ravl.benchmark.*", "ravl.data", "ravl.discovery.zero_shot", "ravl.planted.worlds"),
        *("ravl.mitigation.baselines", "ravl.repair", "ravl.store", "ravl.vlm"),
    ),
    "ravl.benchmark.report": ("ravl.benchmark.*", *RECORDS, "ravl.planted.worlds", "ravl.store"),
    "ravl.benchmark.*": ("ravl.benchmark.*", *RECORDS, "ravl.discovery.*", "ravl.store", "sklearn.*"),
    # 6  commands
    "ravl.api": (
        *RECORDS,
        *RUN,
        "ravl.audit",
        "ravl.discovery.families",
        "ravl.discovery.making",
        "ravl.reaudit",
        "ravl.repair",
        "ravl.vlm",
        "ravl.given",
        "ravl.vlm.proposals",
        "ravl.data",
        "ravl.data.*",
    ),
    "ravl.cli*": (
        "ravl.cli.*",
        *("ravl", *RECORDS, *RUN, "ravl.api", "ravl.doctor", "ravl.serve", "ravl.progress", "ravl.summary"),
        *(
            "ravl.mitigation.rematch",
            "ravl.export",
            "ravl.export.check",
            "ravl.importing",
            "dashboard.reporting",
            "ravl.store.purging",
            "ravl.discovery.scoring",
            "ravl.planted.demos",
            "ravl.benchmark.command",
        ),
        "ravl.data.report",
    ),
    "ravl.__main__": ("ravl.cli",),
    "ravl.doctor": (*RECORDS, "ravl.store", "ravl.planted", "ravl.vlm.references", "psutil", "torch"),
    "ravl.serve": ("ravl.errors", "dashboard.serving.server"),
    # 7  what the screen shows, room by room: no streamlit
    "dashboard": (),
    "dashboard.__main__": ("streamlit.web",),
    "dashboard.serving.readiness": (
        *(*up_to("serving"), *RECORDS, "psutil", "ravl.discovery.regions", "ravl.vlm.geometry"),
        *("ravl.mitigation.baselines", "ravl.mitigation.footprint"),
    ),
    "dashboard.serving*": (*up_to("serving"), "ravl", "ravl.errors", "ravl.ledger", "psutil"),
    "dashboard.reading*": (
        *(*up_to("reading"), *READ, "ravl.data", "ravl.data.sources"),
        *("ravl.discovery.evidence", "ravl.discovery.scoring", "ravl.discovery.significance"),
    ),
    "dashboard.words*": (*up_to("words"), *READ, "ravl.data.duplicates", "ravl.importing", "ravl.progress"),
    "dashboard.choosing*": (*up_to("choosing"), *READ, "ravl.discovery.making"),  # what cannot be a feature
    "dashboard.pictures*": (*up_to("pictures"), *RECORDS, "ravl.data.painting", "ravl.store", "PIL", "plotly.*"),
    "dashboard.reporting*": (*up_to("reporting"), *READ, "ravl.chain", "ravl.data", "ravl.report"),
    # 8  the screen: never models, never the science that needs them
    "dashboard.screen*": (*up_to("screen"), *READ, "ravl.data", "PIL", "streamlit"),
    "dashboard.acting*": (*up_to("acting"), *READ, "ravl.export.check", "ravl.importing", "streamlit"),
    **dict.fromkeys(
        ("dashboard.views*", "dashboard.entrance", "dashboard.app"),
        ("dashboard.*", *READ, "ravl.data", "ravl.export", "streamlit", "streamlit.delta_generator"),
    ),
}

HEAVY = ("torch", "transformers", "pandas", "sklearn", "scipy", "hdbscan", "umap", "PIL", "sqlalchemy", "streamlit")


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def line_for(module: str) -> str | None:
    """The line that holds: one of the module's own name, else the first pattern."""
    patterns = [module, *ALLOWED] if module in ALLOWED else list(ALLOWED)
    return next((pattern for pattern in patterns if fnmatchcase(module, pattern)), None)


def imports(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Every imported module, also inside functions, but not what only type checkers see."""
    for node in nodes:
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from imports(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            # `from ravl import export` imports a module, `from ravl import __version__` a name
            yield from (name if name in FILES else str(node.module) for name in below)
        yield from imports(ast.iter_child_nodes(node))


def violations(module: str, tree: ast.AST) -> set[str]:
    allowed = ALLOWED[line_for(module) or ""]
    own = (name for name in imports([tree]) if name.split(".")[0] not in sys.stdlib_module_names)
    return {name for name in own if not any(fnmatchcase(name, pattern) for pattern in allowed)}


@pytest.mark.parametrize("module", FILES)
def test_imports(module: str) -> None:
    assert line_for(module), f"{module} needs a line in ALLOWED: which layer does it belong to?"
    found = violations(module, ast.parse(FILES[module].read_text(encoding="utf-8")))
    assert not found, f"{module} may not import {', '.join(sorted(found))}"


def test_every_line_is_needed() -> None:
    assert {line_for(module) for module in FILES} == set(ALLOWED)


@pytest.mark.parametrize(
    ("module", "text", "found"),
    [
        ("ravl.discovery.scoring", "import torch", {"torch"}),
        ("ravl.discovery.scoring", "def f():\n  if x:\n    from torch.nn import Linear", {"torch.nn"}),
        ("ravl.discovery.scoring", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  import torch", set()),
        ("ravl.discovery.scoring", "if TYPE_CHECKING:\n  pass\nelse:\n  import torch", {"torch"}),
        ("ravl.discovery.scoring", "if not TYPE_CHECKING:\n  import torch", {"torch"}),
        ("ravl.discovery.scoring", "from ravl import export", {"ravl.export"}),
        ("ravl.discovery.scoring", "import json, numpy.linalg\nfrom ravl.tables import Regions", set()),
        ("dashboard.reading.summaries", "import streamlit as st", {"streamlit"}),
        ("dashboard.reading.summaries", "from dashboard.words import wording", {"dashboard.words.wording"}),
        ("dashboard.words.wording", "from dashboard.reading import summaries", set()),
        ("dashboard.views.start", "from ravl import audit, vlm", {"ravl.audit", "ravl.vlm"}),
        ("ravl.errors", "from ravl import __version__", {"ravl"}),
    ],
)
def test_the_rule_itself(module: str, text: str, found: set[str]) -> None:
    assert violations(module, ast.parse(text)) == found


def test_a_module_without_a_line_is_noticed() -> None:
    assert line_for("ravl.utils") is None
    assert line_for("dashboard.helpers") is None


def test_the_rooms_are_those_of_the_docstring() -> None:
    """Every folder of Python is a room, and the docstring of the dashboard names them in the order of their imports."""
    assert {path.parent.name for path in (ROOT / "dashboard").glob("*/*.py")} == set(ROOMS)
    said = ast.get_docstring(ast.parse(FILES["dashboard"].read_text(encoding="utf-8"))) or ""
    assert tuple(dict.fromkeys(name for name in re.findall(r"`(\w+)`", said) if name in ROOMS)) == ROOMS


# --- and in a fresh process ------------------------------------------------------------------------------------------

IMPORT_ALL = """
import importlib, sys
heavy, modules = (argument.split(",") for argument in sys.argv[1:])
for module in modules:
    importlib.import_module(module)
print(*(name for name in heavy if name in sys.modules))
"""


def loaded_by(python: Callable[..., str], heavy: tuple[str, ...], modules: list[str]) -> list[str]:
    assert modules
    return python(IMPORT_ALL, ",".join(heavy), ",".join(modules)).split()


def needs(*libraries: str) -> set[str]:
    """Modules whose line allows one of these libraries."""
    return {module for module in FILES if set(libraries) & set(ALLOWED.get(line_for(module) or "", ()))}


def test_importing_ravl_is_light(python: Callable[..., str]) -> None:
    assert loaded_by(python, HEAVY, ["ravl"]) == []


def test_the_command_line_starts_without_heavy_libraries(python: Callable[..., str]) -> None:
    assert loaded_by(python, ("torch", "transformers", "pandas", "sklearn", "streamlit"), ["ravl.cli"]) == []


def test_science_without_torch(python: Callable[..., str]) -> None:
    """Whatever has no right to torch does not load it through others either."""
    modules = sorted(module for module in FILES if module.startswith("ravl") and module not in needs("torch"))
    modules = [module for module in modules if module not in ("ravl.__main__", "ravl.bench.__main__", "ravl.repair")]
    assert "ravl.discovery.removal" in modules
    assert loaded_by(python, ("torch", "transformers", "hdbscan", "umap", "sklearn"), modules) == []


def test_what_the_screen_shows_needs_neither_streamlit_nor_torch(python: Callable[..., str]) -> None:
    modules = sorted(module for module in FILES if module.startswith("dashboard") and module not in needs("streamlit"))
    assert "dashboard.reading.summaries" in modules
    assert loaded_by(python, ("torch", "transformers", "streamlit", "sklearn"), modules) == []


def test_the_screen_does_not_load_torch(python: Callable[..., str]) -> None:
    """Everything but the page itself, which draws when it is imported."""
    modules = sorted(module for module in FILES if module.startswith("dashboard") and module != "dashboard.app")
    assert "dashboard.views.review" in modules
    assert loaded_by(python, ("torch", "transformers", "sklearn"), modules) == []
