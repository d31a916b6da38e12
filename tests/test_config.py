"""Settings: ranges, round trips, digests."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from ravl.config import (
    AuditConfig,
    ClusteringConfig,
    EmbeddingConfig,
    ExemplarsConfig,
    MitigationConfig,
    ProjectionConfig,
    PromptsConfig,
    RegionsConfig,
    ScoringConfig,
    digest,
)
from ravl.errors import ConfigError

STAGES = (
    RegionsConfig,
    EmbeddingConfig,
    PromptsConfig,
    ClusteringConfig,
    ScoringConfig,
    ExemplarsConfig,
    ProjectionConfig,
)
ALL = (*STAGES, MitigationConfig)
OPTIONS = [(kind, item) for kind in ALL for item in fields(kind)]


@pytest.mark.parametrize(("kind", "item"), OPTIONS, ids=lambda x: getattr(x, "__name__", None) or x.name)
def test_every_setting_has_help_and_a_checked_range(kind: type, item: Any) -> None:
    """What the form and the command line offer is what the record takes, and one step beyond is refused."""
    assert item.metadata["help"]
    low, high, choices = (item.metadata[key] for key in ("low", "high", "choices"))
    for good in (low, high, *(choices or ())):
        if good is not None:
            assert getattr(kind(**{item.name: good}), item.name) == good
    outside: list[Any] = [] if low is None else [low - 1]
    outside += [] if high is None else [high + 1]
    outside += ["nonsense"] if choices else []
    outside += [float("nan"), True, [1]] if low is not None else []
    outside += [low + 0.5] if low is not None and "float" not in item.type else []
    for bad in outside:
        with pytest.raises(ConfigError, match=item.name):
            kind(**{item.name: bad})


@pytest.mark.parametrize("text", ["grid", "grid:", "grid:x", "grid:2.5", "slic:3", "", "grid:-1", "grid:²"])
def test_regions_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ConfigError, match=r"regions must be grid:K with a whole number K, got .* Try grid:2"):
        RegionsConfig.parse(text)


def test_regions_as_text() -> None:
    assert RegionsConfig.parse("grid:4") == RegionsConfig(k=4)
    assert RegionsConfig.parse(str(RegionsConfig(k=7))) == RegionsConfig(k=7)
    with pytest.raises(ConfigError, match=r"k must lie in 1 \.\. 32, got 0"):
        RegionsConfig.parse("grid:0")


@pytest.mark.parametrize("template", ["a photo", "{} and {}", "{0}"])
def test_templates_name_the_class_once(template: str) -> None:
    with pytest.raises(ConfigError, match=r"a template must contain \{\} once"):
        PromptsConfig(templates=("a {}", template))


def test_prompts_need_a_template_and_a_temperature() -> None:
    with pytest.raises(ConfigError, match="templates must hold at least one prompt"):
        PromptsConfig(templates=())
    with pytest.raises(ConfigError, match="tau must be a number or 'model', got 'auto'"):
        PromptsConfig(tau="auto")
    assert PromptsConfig(tau="model").tau == "model"


def full() -> AuditConfig:
    return AuditConfig(
        "/data",
        "/model",
        RegionsConfig(k=4),
        EmbeddingConfig("crop", 0.2, 8),
        PromptsConfig(("a", "b"), ("x {}", "y {}"), "model"),
        ClusteringConfig("kmedoids", "final", 10, 20, 3, 7, 2, 200),
        ScoringConfig(0.1, False),
        ExemplarsConfig(3, 30),
        ProjectionConfig(9, 0.5),
        7,
        0.2,
    )


@pytest.mark.parametrize("config", [full(), AuditConfig("/data", "demo")])
def test_a_configuration_survives_json(config: AuditConfig) -> None:
    saved = json.loads(json.dumps(config.to_dict(), allow_nan=False))
    assert AuditConfig.from_dict(saved) == config
    assert digest(AuditConfig.from_dict(saved).to_dict()) == digest(config.to_dict())


def test_every_setting_changes_the_digest() -> None:
    plain, other = AuditConfig("/data", "demo").to_dict(), full().to_dict()
    digests = {digest(plain)}
    count = 1
    for stage, settings in other.items():
        changes = (
            [(stage, settings)]
            if not isinstance(settings, dict)
            else [(stage, plain[stage] | {k: v}) for k, v in settings.items()]
        )
        for key, value in changes:
            if value != plain[key]:
                digests.add(digest(plain | {key: value}))
                count += 1
    assert len(digests) == count > 20


def test_the_digest_does_not_depend_on_the_order() -> None:
    assert digest({"a": 1, "b": (2, 3)}) == digest({"b": [2, 3], "a": 1})
    assert digest({"a": 1}) != digest({"a": "1"})
    assert len(digest(None)) == 8
