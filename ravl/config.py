"""Every setting, once: field, default, allowed values and help.

The dataclasses below feed the run folder, the command line, the dashboard's form and the documentation,
so a setting is added in one place. Values are checked on construction.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

from ravl.errors import ConfigError

DECISIONS = ("spurious", "core", "mixed", "unsure")
"""What a person can decide about a feature."""


OPERATORS = ("token_drop", "mean_fill", "blur", "inpaint", "transplant")
"""Ways to remove a region from an image (see `ravl.discovery.operators`), the least disturbing first."""

ENCODERS = ("tokens", "roi", "crop")
"""How regions become vectors; a model has one of the first two, or none, and always the last."""

RULES = ("evidence", "paper")
"""How it is decided which features are flagged."""


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


def _check(config: Any) -> None:
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


_GRID = re.compile(r"grid:([0-9]{1,9}(?:\+[0-9]{1,9})*)(?:@([0-9]*\.?[0-9]+(?:e-[0-9]+)?))?")
_SLIC = re.compile(r"slic:([0-9]{1,9})")


_LIMIT_NAMES = ("nms", "min_area", "max_area", "min_score", "most")
_LIMIT = rf"(?:(?:{'|'.join(_LIMIT_NAMES[:-1])})=[0-9]*\.?[0-9]+(?:e-[0-9]+)?|most=[0-9]{{1,6}})"
_LIMITS = re.compile(rf"{_LIMIT}(?:,{_LIMIT})*")

PROPOSERS = ("detr", "owl", "sam")
"""Kinds of models that propose regions: the DETR family of detectors, OWLv2's objectness, SAM's masks."""


@dataclass(frozen=True)
class RegionsConfig:
    """How an image is cut into regions."""

    kind: str = option(
        "grid",
        "grid: equal cells; slic: superpixels, which follow the edges in the picture; boxes: your own; detr, owl, sam: "
        "what a detector or segmenter proposes",
        choices=("grid", "slic", "boxes", *PROPOSERS),
    )
    k: int = option(2, "rows and columns of the grid; 2 gives the paper's quadrants", low=1, high=32)
    further: tuple[int, ...] = option((), "grid only: rows and columns of further grids over the same image")
    overlap: float = option(
        0.0, "grid only: share of its side that a cell has in common with the next one", low=0, high=0.99
    )
    segments: int = option(16, "slic only: about how many superpixels an image has", low=1, high=1000)
    file: str = option(
        "",
        "boxes: a COCO detection file; empty: the column boxes of the manifest. detr, owl, sam: the model's folder",
    )
    nms: float = option(
        0.5, "proposals: overlap with a better one that is kept (intersection over union)", low=0, high=1
    )
    min_area: float = option(0.005, "proposals: least share of what the model sees", low=0, high=1)
    max_area: float = option(0.8, "proposals: largest share of what the model sees", low=0, high=1)
    min_score: float = option(0.05, "proposals: least score", low=0, high=1)
    most: int = option(16, "proposals: at most so many regions an image", low=1, high=1000)

    def __post_init__(self) -> None:
        _check(self)
        strange = [k for k in self.further if type(k) is not int or not 1 <= k <= 32]
        if strange or len(set(self.scales)) < len(self.scales):
            raise ConfigError(
                f"grids must have distinct whole numbers of rows in 1 .. 32, got {', '.join(map(str, self.scales))}. "
                "Try grid:2+4."
            )
        if self.kind != "grid" and (self.further or self.overlap):
            raise ConfigError(f"further and overlap must be left alone unless kind is grid, got kind {self.kind!r}.")
        if self.kind not in ("boxes", *PROPOSERS) and self.file:
            raise ConfigError(f"file must be empty unless kind is boxes, got {self.file!r} with kind {self.kind!r}.")

    @property
    def scales(self) -> tuple[int, ...]:
        """Rows and columns of every grid."""
        return (self.k, *self.further)

    @classmethod
    def parse(cls, text: str) -> RegionsConfig:
        """Read the command line's form: `grid:2`, `grid:2+4`, `grid:3@0.5`, `slic:N`, `boxes`, `boxes:FILE.json`, and
        `detr:DIR`, `owl:DIR` or `sam:DIR`, perhaps with limits: `detr:DIR@nms=0.4,min_area=0.01,most=8`.

        A relative path is one of the current folder.
        """
        if grid := _GRID.fullmatch(text):
            k, *further = map(int, grid[1].split("+"))
            return cls("grid", k, tuple(further), float(grid[2] or 0))
        if slic := _SLIC.fullmatch(text):
            return cls("slic", segments=int(slic[1]))
        kind, _, file = text.partition(":")
        if kind == "boxes" and (file or text == kind):
            return cls("boxes", file=os.path.abspath(os.path.expanduser(file)) if file else "")
        if kind in PROPOSERS and file:
            folder, _, limits = file.rpartition("@") if _LIMITS.fullmatch(file.rpartition("@")[2]) else (file, "", "")
            given = dict(entry.split("=") for entry in limits.split(",")) if limits else {}
            numbers: dict[str, Any] = {k: int(v) if k == "most" else float(v) for k, v in given.items()}
            found = cls(kind, file=os.path.abspath(os.path.expanduser(folder)), **numbers)
            if found.min_area > found.max_area:
                raise ConfigError(f"min_area must not exceed max_area, got {found.min_area} and {found.max_area}.")
            return found
        raise ConfigError(
            "regions must be grid:K with a whole number K (several: grid:2+4; overlapping: grid:3@0.5), slic:N, boxes, "
            f"boxes:FILE.json, or detr:DIR, owl:DIR, sam:DIR, got {text!r}. Try grid:2."
        )

    def __str__(self) -> str:
        if self.kind == "slic":
            return f"slic:{self.segments}"
        if self.kind == "boxes":
            return f"boxes:{self.file}" if self.file else "boxes"
        if self.kind in PROPOSERS:
            limits = [f"{name}={getattr(self, name)}" for name in _LIMIT_NAMES if getattr(self, name) != _default(name)]
            return f"{self.kind}:{self.file}" + (f"@{','.join(limits)}" if limits else "")
        overlap = f"@{self.overlap}" if self.overlap else ""
        return f"grid:{'+'.join(map(str, self.scales))}{overlap}"


def _default(name: str) -> Any:
    return RegionsConfig.__dataclass_fields__[name].default


@dataclass(frozen=True)
class EmbeddingConfig:
    """How regions become vectors."""

    encoder: str = option(
        "auto",
        "tokens: the vision transformer sees only the region's patches; roi: the region is cut out of the last map of "
        "a convolutional network; crop: the region is cut out and resized; auto: tokens or roi, whichever the model "
        "has, where every region holds at least four patches, else crop",
        choices=("auto", *ENCODERS),
    )
    context: float = option(0.10, "crop only: margin around the box, as a share of its size", low=0, high=1)
    batch_size: int = option(64, "images per forward pass", low=1, high=4096)

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class PromptsConfig:
    """The zero-shot classifier: class names put into templates."""

    classes: tuple[str, ...] = option((), "class names in label order; empty: those of the image set")
    templates: tuple[str, ...] = option(("a photo of {}",), "prompts; {} is the class name")
    tau: float | str = option(0.07, "softmax temperature, or 'model' for the model's own", low=1e-4, high=10)
    synonyms: tuple[tuple[str, ...], ...] = option(
        (), "per class, in label order, other words by which captions may call it; prompts use the class name alone"
    )

    def __post_init__(self) -> None:
        _check(self)
        object.__setattr__(self, "synonyms", tuple(tuple(words) for words in self.synonyms))  # lists in a saved file
        if isinstance(self.tau, str) and self.tau != "model":
            raise ConfigError(f"tau must be a number or 'model', got {self.tau!r}.")
        if not self.templates:
            raise ConfigError("templates must hold at least one prompt, got none. Try --template 'a photo of {}'.")
        for template in self.templates:
            if template.count("{}") != 1:
                raise ConfigError(f"a template must contain {{}} once for the class name, got {template!r}.")

    @property
    def written(self) -> tuple[str, ...]:
        """The classes with their synonyms, as `class_words` reads them."""
        synonyms = self.synonyms or ((),) * len(self.classes)
        return tuple("|".join((name, *others)) for name, others in zip(self.classes, synonyms, strict=True))


@dataclass(frozen=True)
class ClusteringConfig:
    """How regions are grouped into features."""

    method: str = option("hdbscan", "clustering algorithm", choices=("hdbscan", "kmedoids"))
    cluster_on: str = option(
        "auto",
        "middle: strongest responses of a middle layer (finds features); final: the output embedding (the paper's); "
        "auto: middle, but final for HDBSCAN where regions are cut out (crop)",
        choices=("auto", "middle", "final"),
    )
    n_components: int = option(30, "principal components kept before clustering", low=2, high=512)
    min_cluster_size: int | None = option(None, "HDBSCAN; empty: max(15, 0.5 % of the regions)", low=2)
    min_samples: int = option(5, "HDBSCAN: neighbours that make a point a core point", low=1)
    max_spread: float = option(
        0.75,
        "HDBSCAN: a cluster that a larger share of the images shows is clustered again; 1 for never",
        low=0,
        high=1,
    )
    k: int | None = option(None, "K-Medoids; empty: chosen by silhouette in [2Y, 5Y)", low=2)
    restarts: int = option(3, "K-Medoids: random starts, the best is kept", low=1, high=100)
    max_fit: int = option(20_000, "regions to fit on; the others are assigned by the run's rule", low=100)

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class FamiliesConfig:
    """Which clusters are shown as one feature."""

    enabled: bool = option(True, "join clusters that show the same feature; off: every cluster is a feature")
    near: float = option(0.6, "clusters whose medoids' cosine reaches this are joined", low=0, high=1)
    alike: float = option(
        0.8,
        "so are clusters whose gaps differ from chance and have at least this cosine over the classes",
        low=0,
        high=1,
    )

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class ScoringConfig:
    """The paper's rule for calling a feature suspicious."""

    min_influence: float = option(0.25, "features of a lower influence are pruned", low=0, high=1)
    two_sided: bool = option(True, "also ask for one class that gains and one that loses from the feature")

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class SignificanceConfig:
    """What chance alone would give, and how much evidence is enough."""

    permutations: int = option(2000, "permutations of correctness within class", low=1000, high=1_000_000)
    bootstrap: int = option(1000, "resamplings of the images behind the interval of the gap", low=100, high=100_000)
    level: float = option(0.95, "level of every confidence interval", low=0.5, high=0.999)
    min_images: int = option(10, "images with, and without, the feature that are enough evidence", low=1)
    min_errors: int = option(5, "misclassified images with the feature that are enough evidence", low=0)
    alpha: float = option(0.05, "share of false discoveries that is accepted", low=0.001, high=0.5)
    split_half: bool = option(False, "also ask for the gap in each of two halves of the images")

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class ExemplarsConfig:
    """Which crops stand for a feature."""

    count: int = option(24, "exemplars kept per feature", low=1, high=500)
    max_candidates: int = option(200, "regions per feature that are removed and re-scored", low=10)

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class EvidenceConfig:
    """Removing a feature from its images and classifying them again, and what is concluded from it."""

    rule: str = option(
        "evidence",
        "which features are flagged; evidence: enough support, a gap beyond chance, and errors that go when the "
        "feature is removed; paper: influence and two-sided gap of every single cluster, as published",
        choices=RULES,
    )
    operators: tuple[str, ...] = option(
        ("token_drop", "mean_fill", "inpaint"), "how regions are removed; those that the model cannot do are left out"
    )
    agree: int = option(2, "operators that must agree (all of them, where a model has fewer)", low=1, high=5)
    min_effect: float = option(0.2, "share of errors that removal must fix beyond the control", low=0, high=1)
    min_keep: float = option(0.6, "share of right answers of other classes that must survive removal", low=0, high=1)
    max_shortfall: float = option(
        0.35,
        "accuracy that images which lost the feature may lack (upper limit) against those without it",
        low=0,
        high=1,
    )
    max_images: int = option(2000, "images per feature that are scored again; beyond that a random sample", low=20)
    max_pasted: int = option(100, "images per feature into which it is pasted", low=0)
    second_look: bool = option(
        True,
        "cluster a feature within itself where removing it fixes errors and takes away what is needed, or where a part "
        "of it explains more errors per region than all of it",
    )

    def __post_init__(self) -> None:
        _check(self)
        strange = [name for name in self.operators if name not in OPERATORS]
        if strange or len(set(self.operators)) != len(self.operators) or not self.operators:
            raise ConfigError(
                f"operators must be distinct ones of {', '.join(OPERATORS)}, got {', '.join(self.operators) or 'none'}."
            )


@dataclass(frozen=True)
class ProjectionConfig:
    """The two-dimensional map (for looking at, never in the path of a decision)."""

    n_neighbors: int = option(15, "UMAP: size of the neighbourhood", low=2, high=500)
    min_dist: float = option(0.1, "UMAP: how tightly points are packed", low=0, high=1)

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class AuditConfig:
    """One audit. `images` and `model` are resolved absolute paths, or a hub id for the model."""

    images: str
    model: str
    regions: RegionsConfig = RegionsConfig()
    embedding: EmbeddingConfig = EmbeddingConfig()
    prompts: PromptsConfig = PromptsConfig()
    clustering: ClusteringConfig = ClusteringConfig()
    families: FamiliesConfig = FamiliesConfig()
    scoring: ScoringConfig = ScoringConfig()
    significance: SignificanceConfig = SignificanceConfig()
    evidence: EvidenceConfig = EvidenceConfig()
    exemplars: ExemplarsConfig = ExemplarsConfig()
    projection: ProjectionConfig = ProjectionConfig()
    seed: int = option(0, "seed of every random choice", low=0, high=2**31 - 1)
    max_unreadable: float = option(0.05, "share of unreadable images that is listed rather than fatal", low=0, high=1)
    frames: str = option(
        "refuse",
        "which frame of a DICOM file with several is audited; refuse: such a file is listed as unreadable",
        choices=("refuse", "first", "middle"),
    )
    hide_names: bool = option(False, "show pseudonyms in place of file names; DICOM files always have them")

    def __post_init__(self) -> None:
        _check(self)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> AuditConfig:
        """Rebuild a configuration from `to_dict` (lists become tuples again)."""
        stages: dict[str, Any] = {item.name: item.default for item in fields(cls) if is_dataclass(item.default)}
        parts = {name: default.__class__(**_tuples(saved[name])) for name, default in stages.items()}
        return cls(**{**saved, **parts})


def _tuples(saved: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()}


@dataclass(frozen=True)
class MitigationConfig:
    """One fine-tuning. Where the paper gives a value, it is the default."""

    method: str = option(
        "ravl",
        "ravl: region-aware loss and region exchange; families: the loss alone; exchange: the exchange alone; erase: "
        "its removal alone; paper: the loss on top clusters; standard: plain contrastive fine-tuning; the others are "
        "there to compare with",
        choices=(
            *("ravl", "families", "exchange", "erase", "paper", "standard", "upsampled", "vl-erm", "vl-gdro", "jtt"),
            *("dfr", "project", "gdro-true"),
        ),
    )
    steps: int = option(300, "optimiser steps", low=1, high=10_000_000)
    batch_size: int = option(128, "images per step", low=2, high=65_536)
    lr: float | None = option(
        None, "peak learning rate; empty: 5e-5 x sqrt(86M / parameters), at most 1e-3", low=1e-8, high=1
    )
    weight_decay: float = option(0.05, "AdamW weight decay", low=0, high=1)
    contrastive_weight: float = option(0.8, "lambda: share of the contrastive loss", low=0, high=1)
    tau: float = option(0.07, "temperature of the region losses", low=1e-4, high=10)
    reduction: str = option("mean", "how the region losses are reduced over the batch", choices=("mean", "sum"))
    exchange: float = option(
        0.5, "ravl, exchange, erase: probability that a spurious region is removed, or pasted in", low=0, high=1
    )
    families: str = option(
        "auto",
        "which clusters of a feature are treated; all: every one; top: the one of most regions, the others count as "
        "relevant, as in the paper; auto: top for paper, else all",
        choices=("auto", "all", "top"),
    )
    region_share: float | None = option(
        None,
        "share of a batch's images whose regions enter the losses; empty: a quarter for ravl, where the exchange does "
        "most of the work and a step then costs less than 1.5 times a plain one, else all, as in the paper",
        low=0.01,
        high=1,
    )
    evaluate_every: int = option(50, "steps between evaluations and checkpoints", low=1)
    patience: int | None = option(
        None, "evaluations without a better worst group after which training stops; empty: never", low=1
    )
    micro_batch: int | None = option(
        None,
        "images embedded at once, with the same result; empty: the whole batch, halved where memory runs out",
        low=1,
    )
    gradient_checkpointing: bool = option(
        False,
        "keep only what goes into each layer of the vision tower, and compute the layer again for the gradient, with "
        "the same result: less memory for about a third more time",
    )
    lora_rank: int | None = option(
        None,
        "rank of LoRA adapters in the vision tower, which need less memory (extra lora); empty: all its weights learn",
        low=1,
        high=1024,
    )
    precision: str = option(
        "auto", "auto: bf16 on CUDA, else fp32; the losses are always fp32", choices=("auto", "fp32", "bf16")
    )
    features: tuple[int, ...] = option((), "feature ids that are treated as spurious")
    seed: int = option(0, "seed of every random choice", low=0, high=2**31 - 1)

    def __post_init__(self) -> None:
        _check(self)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def class_words(classes: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Names and synonyms of classes written `name|synonym|...`; no synonyms where none has any.

    Raises ConfigError for a synonym without letters or digits.
    """
    parts = [[word.strip() for word in entry.split("|")] for entry in classes]
    for words in parts:
        if len(words) > 1 and not all(re.search(r"\w", word) for word in words):
            raise ConfigError(f"classes must be words parted by |, got {'|'.join(words)!r}. Remove what is empty.")
    names, synonyms = tuple(words[0] for words in parts), tuple(tuple(words[1:]) for words in parts)
    return names, synonyms if any(synonyms) else ()


def digest(document: Any) -> str:
    """Eight hex digits of a JSON-able document; equal documents give equal digests."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
