"""Settings: ranges, round trips, digests."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from ravl.config import (
    AuditConfig,
    ClusteringConfig,
    EmbeddingConfig,
    EvidenceConfig,
    ExemplarsConfig,
    FamiliesConfig,
    MitigationConfig,
    ProjectionConfig,
    PromptsConfig,
    RegionsConfig,
    ScoringConfig,
    SignificanceConfig,
    digest,
)
from ravl.errors import ConfigError

STAGES = (
    RegionsConfig,
    EmbeddingConfig,
    PromptsConfig,
    ClusteringConfig,
    FamiliesConfig,
    ScoringConfig,
    SignificanceConfig,
    EvidenceConfig,
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


@pytest.mark.parametrize(
    "text",
    [
        *("grid", "grid:", "grid:x", "grid:2.5", "", "grid:-1", "grid:²", "grid:2+", "grid:+2", "grid:2@", "grid:2@x"),
        *("grid:2@-0.1", "grid:2@nan", "slic", "slic:", "slic:2.5", "slic:4@0.5", "boxes:", "box", "grid:2 "),
    ],
)
def test_regions_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ConfigError, match=r"regions must be grid:K with a whole number K .*, got .* Try grid:2"):
        RegionsConfig.parse(text)


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("grid:4", RegionsConfig(k=4)),
        ("grid:2+4", RegionsConfig(k=2, further=(4,))),
        ("grid:3@0.5", RegionsConfig(k=3, overlap=0.5)),
        ("grid:2+4+7@1e-05", RegionsConfig(k=2, further=(4, 7), overlap=1e-5)),
        ("slic:30", RegionsConfig("slic", segments=30)),
        ("boxes", RegionsConfig("boxes")),
        ("boxes:/data/a b:c.json", RegionsConfig("boxes", file="/data/a b:c.json")),
    ],
)
def test_regions_as_text(text: str, config: RegionsConfig) -> None:
    assert RegionsConfig.parse(text) == config
    assert str(config) == text
    saved = json.loads(json.dumps(AuditConfig("/data", "demo", config).to_dict()))
    assert AuditConfig.from_dict(saved).regions == config


def test_a_run_from_before_there_were_other_regions_is_read() -> None:
    saved = AuditConfig("/data", "demo").to_dict() | {"regions": {"kind": "grid", "k": 2}}
    assert AuditConfig.from_dict(saved).regions == RegionsConfig()


def test_the_overlap_may_be_written_in_more_than_one_way() -> None:
    assert RegionsConfig.parse("grid:3@.50") == RegionsConfig.parse("grid:3@0.5")
    assert str(RegionsConfig.parse("grid:3@0")) == "grid:3"


def test_a_file_of_boxes_is_found_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert RegionsConfig.parse("boxes:b.json").file == str(tmp_path / "b.json")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, r"k must lie in 1 \.\. 32, got 0"),
        ({"further": (2,)}, "distinct whole numbers of rows in 1 .. 32, got 2, 2. Try grid:2[+]4"),
        ({"further": (4, 33)}, "got 2, 4, 33"),
        ({"further": (4.0,)}, "got 2, 4.0"),
        ({"overlap": 1.0}, r"overlap must lie in 0 \.\. 0.99, got 1.0"),
        (
            {"kind": "slic", "overlap": 0.5},
            "further and overlap must be left alone unless kind is grid, got kind 'slic'",
        ),
        ({"kind": "boxes", "further": (4,)}, "unless kind is grid"),
        ({"kind": "slic", "file": "a.json"}, "file must be empty unless kind is boxes, got 'a.json'"),
    ],
)
def test_regions_that_contradict_themselves(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RegionsConfig(**settings)


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
        ClusteringConfig("kmedoids", "final", 10, 20, 3, 0.5, 7, 2, 200),
        FamiliesConfig(False, 0.5, 0.9),
        ScoringConfig(0.1, False),
        SignificanceConfig(permutations=3000, split_half=True),
        EvidenceConfig("paper", ("blur", "mean_fill"), agree=1),
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
