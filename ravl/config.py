"""Every setting, once: field, default, allowed values and help.

The dataclasses below feed the run folder, the command line, the dashboard's form and the documentation,
so a setting is added in one place. Values are checked on construction.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ravl.errors import ConfigError

DECISIONS = ("spurious", "core", "mixed", "unsure")
"""What a person can decide about a feature."""


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


@dataclass(frozen=True)
class RegionsConfig:
    """How an image is cut into regions."""

    kind: str = option("grid", "how regions are cut", choices=("grid",))
    k: int = option(2, "rows and columns of the grid; 2 gives the paper's quadrants", low=1, high=32)

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def parse(cls, text: str) -> RegionsConfig:
        """Read the command line's form, `grid:K`."""
        kind, _, size = text.partition(":")
        if kind != "grid" or not size.isdecimal():
            raise ConfigError(f"regions must be grid:K with a whole number K, got {text!r}. Try grid:2.")
        return cls(kind, int(size))

    def __str__(self) -> str:
        return f"{self.kind}:{self.k}"


@dataclass(frozen=True)
class EmbeddingConfig:
    """How regions become vectors."""

    encoder: str = option(
        "auto",
        "tokens: the vision transformer sees only the region's patches; crop: the region is cut out and resized; "
        "auto: tokens where every region holds at least four patches",
        choices=("auto", "tokens", "crop"),
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

    def __post_init__(self) -> None:
        _check(self)
        if isinstance(self.tau, str) and self.tau != "model":
            raise ConfigError(f"tau must be a number or 'model', got {self.tau!r}.")
        if not self.templates:
            raise ConfigError("templates must hold at least one prompt, got none. Try --template 'a photo of {}'.")
        for template in self.templates:
            if template.count("{}") != 1:
                raise ConfigError(f"a template must contain {{}} once for the class name, got {template!r}.")


@dataclass(frozen=True)
class ClusteringConfig:
    """How regions are grouped into features."""

    method: str = option("hdbscan", "clustering algorithm", choices=("hdbscan", "kmedoids"))
    cluster_on: str = option(
        "middle",
        "middle: mean token of a middle layer (finds features); final: the output embedding (the paper's)",
        choices=("middle", "final"),
    )
    n_components: int = option(30, "principal components kept before clustering", low=2, high=512)
    min_cluster_size: int | None = option(None, "HDBSCAN; empty: max(15, 0.5 % of the regions)", low=2)
    min_samples: int = option(5, "HDBSCAN: neighbours that make a point a core point", low=1)
    k: int | None = option(None, "K-Medoids; empty: chosen by silhouette in [2Y, 5Y)", low=2)
    restarts: int = option(3, "K-Medoids: random starts, the best is kept", low=1, high=100)
    max_fit: int = option(20_000, "regions to fit on; the others are assigned by the run's rule", low=100)

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
class ExemplarsConfig:
    """Which crops stand for a feature."""

    count: int = option(24, "exemplars kept per feature", low=1, high=500)
    max_candidates: int = option(200, "regions per feature that are removed and re-scored", low=10)

    def __post_init__(self) -> None:
        _check(self)


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
    scoring: ScoringConfig = ScoringConfig()
    exemplars: ExemplarsConfig = ExemplarsConfig()
    projection: ProjectionConfig = ProjectionConfig()
    seed: int = option(0, "seed of every random choice", low=0, high=2**31 - 1)
    max_unreadable: float = option(0.05, "share of unreadable images that is listed rather than fatal", low=0, high=1)

    def __post_init__(self) -> None:
        _check(self)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> AuditConfig:
        """Rebuild a configuration from `to_dict` (lists become tuples again)."""
        prompts: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in saved["prompts"].items()}
        return cls(
            saved["images"],
            saved["model"],
            RegionsConfig(**saved["regions"]),
            EmbeddingConfig(**saved["embedding"]),
            PromptsConfig(**prompts),
            ClusteringConfig(**saved["clustering"]),
            ScoringConfig(**saved["scoring"]),
            ExemplarsConfig(**saved["exemplars"]),
            ProjectionConfig(**saved["projection"]),
            saved["seed"],
            saved["max_unreadable"],
        )


@dataclass(frozen=True)
class MitigationConfig:
    """One fine-tuning. Where the paper gives a value, it is the default."""

    method: str = option(
        "ravl",
        "ravl: region-aware loss and region exchange; paper: the paper's loss; standard: plain contrastive fine-tuning",
        choices=("ravl", "paper", "standard"),
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
        0.5, "ravl only: probability that a spurious region is removed, or pasted in", low=0, high=1
    )
    evaluate_every: int = option(50, "steps between evaluations and checkpoints", low=1)
    features: tuple[int, ...] = option((), "feature ids that are treated as spurious")
    seed: int = option(0, "seed of every random choice", low=0, high=2**31 - 1)

    def __post_init__(self) -> None:
        _check(self)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def digest(document: Any) -> str:
    """Eight hex digits of a JSON-able document; equal documents give equal digests."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
