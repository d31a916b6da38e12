"""The settings of an audit, one dataclass per stage; how its images are cut is in `regions`."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any

from ravl.config.option import check, option
from ravl.config.regions import RegionsConfig
from ravl.errors import ConfigError

OPERATORS = ("token_drop", "mean_fill", "blur", "inpaint", "transplant")
"""Ways to remove a region from an image (see `ravl.discovery.operators`), the least disturbing first."""

ENCODERS = ("tokens", "roi", "crop")
"""How regions become vectors; a model has one of the first two, or none, and always the last."""

NO_MODEL = "none (precomputed embeddings)"
"""What stands for the model in the configuration of an audit of precomputed embeddings."""

RULES = ("evidence", "paper")
"""How it is decided which features are flagged."""


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
        check(self)


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
        check(self)
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
        check(self)


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
        check(self)


@dataclass(frozen=True)
class ScoringConfig:
    """The paper's rule for calling a feature suspicious."""

    min_influence: float = option(0.25, "features of a lower influence are pruned", low=0, high=1)
    two_sided: bool = option(True, "also ask for one class that gains and one that loses from the feature")

    def __post_init__(self) -> None:
        check(self)


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
        check(self)


@dataclass(frozen=True)
class ExemplarsConfig:
    """Which crops stand for a feature."""

    count: int = option(24, "exemplars kept per feature", low=1, high=500)
    max_candidates: int = option(200, "regions per feature that are removed and re-scored", low=10)

    def __post_init__(self) -> None:
        check(self)


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
    agree: int = option(
        2,
        "operators that must agree (all of them, where a model has fewer); none may be shown to fix too little",
        low=1,
        high=5,
    )
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
        check(self)
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
        check(self)


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
        check(self)

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
