"""Every setting, once: field, default, allowed values and help.

The dataclasses feed the run folder, the command line, the dashboard's form and the documentation, so a setting is added
in one place. Values are checked on construction.

`option`  how a setting is declared.  `regions`  how an image is cut, and its short form.  `audit`  the other stages.
`mitigation`  a fine-tuning.
"""

from __future__ import annotations

from ravl.config.audit import (
    ENCODERS,
    NO_MODEL,
    OPERATORS,
    AuditConfig,
    ClusteringConfig,
    EmbeddingConfig,
    EvidenceConfig,
    ExemplarsConfig,
    FamiliesConfig,
    ProjectionConfig,
    PromptsConfig,
    ScoringConfig,
    SignificanceConfig,
    class_words,
)
from ravl.config.mitigation import MitigationConfig
from ravl.config.option import digest
from ravl.config.regions import PROPOSERS, RegionsConfig

__all__ = [
    "DECISIONS",
    "ENCODERS",
    "NO_MODEL",
    "OPERATORS",
    "PROPOSERS",
    "AuditConfig",
    "ClusteringConfig",
    "EmbeddingConfig",
    "EvidenceConfig",
    "ExemplarsConfig",
    "FamiliesConfig",
    "MitigationConfig",
    "ProjectionConfig",
    "PromptsConfig",
    "RegionsConfig",
    "ScoringConfig",
    "SignificanceConfig",
    "class_words",
    "digest",
]

DECISIONS = ("spurious", "core", "mixed", "unsure")
"""What a person can decide about a feature."""
