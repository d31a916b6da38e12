"""The check before a fine-tuning: the memory of a step without opening the model, and the device."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dashboard.serving import readiness
from dashboard.serving.readiness import Machine, Probe, need
from ravl.config import EmbeddingConfig, MitigationConfig, RegionsConfig
from ravl.planted import demo_model
from ravl.store import AuditRun
from ravl.tables import ImageSet, Regions

ASK = Probe._ask  # the tests of the pages replace it


def scene() -> tuple[ImageSet, Regions]:
    """Twenty images of 56 x 56 pixels in four quadrants, as the demo's."""
    half = [[0, 0, 28, 28], [28, 0, 56, 28], [0, 28, 28, 56], [28, 28, 56, 56]]
    names = np.array([f"{i}.png" for i in range(20)])
    images = ImageSet("/", names, np.arange(20) % 2, np.full((20, 2), 56), ("a", "b"))
    return images, Regions(np.repeat(np.arange(20), 4), np.tile(half, (20, 1)), np.tile(np.arange(4), 20), 20)


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 16},
        {"batch_size": 16, "method": "paper"},
        {"batch_size": 16, "method": "standard"},
        {"batch_size": 16, "method": "dfr"},
        {"batch_size": 16, "method": "project"},
        {"batch_size": 64, "micro_batch": 4},
        {"batch_size": 16, "region_share": 0.1},
        {"batch_size": 16, "precision": "bf16"},
    ],
)
@pytest.mark.parametrize("encoder", ["tokens", "crop"])
def test_a_step_needs_what_the_training_says_it_does(settings: dict[str, Any], encoder: str) -> None:
    """The same number as `estimate` on the loaded model, to the byte."""
    from ravl.mitigation.batches import TrainingSet
    from ravl.mitigation.memory import estimate
    from ravl.mitigation.training import learning
    from ravl.vlm import load

    images, regions = scene()
    config = MitigationConfig(**settings)
    model = load("demo", "cpu")
    learning(model, config)
    n = len(images)
    nothing, caption = np.zeros(n, int), np.array(["a"] * n)
    data = TrainingSet(
        images, regions, np.zeros(len(regions), bool), nothing, caption, encoder, 0.1, nothing, np.zeros(n, bool)
    )
    micro = min(config.micro_batch or config.batch_size, config.batch_size)
    wanted = need(str(demo_model()), images, regions, EmbeddingConfig(encoder=encoder), config, "cpu")
    assert wanted.step == estimate(model, data, config, micro)


def test_adapters_need_less_and_a_gpu_runs_in_half() -> None:
    images, regions = scene()

    def bytes_of(device: str = "cpu", **settings: Any) -> int:
        config = MitigationConfig(batch_size=16, **settings)
        step = need(str(demo_model()), images, regions, EmbeddingConfig(), config, device).step
        assert step is not None
        return step

    assert bytes_of(lora_rank=4) < bytes_of()
    assert bytes_of("cuda") < bytes_of() == bytes_of("cuda", precision="fp32")
    assert bytes_of(method="standard", lora_rank=4) < bytes_of(method="standard")


def test_adapters_are_counted_as_they_are_put_in() -> None:
    pytest.importorskip("peft")
    from ravl.mitigation.footprint import read_sizes
    from ravl.mitigation.training import learning
    from ravl.vlm import load

    config = MitigationConfig(lora_rank=4)
    learns = learning(load("demo", "cpu"), config)
    assert read_sizes(demo_model()).learning(config) == sum(parameter.numel() for parameter in learns.values())


def test_a_model_that_is_not_here_or_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, regions = scene()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    ask = (images, regions, EmbeddingConfig(), MitigationConfig(), "cpu")
    assert "not on this machine yet" in need("org/model", *ask).unknown
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    found = need(str(broken), *ask)
    assert found.step is None
    assert "must hold safetensors" in found.unknown
    (broken / "model.safetensors").write_bytes(b"\xff" * 40)
    assert "cannot be read" in need(str(broken), *ask).unknown


def test_a_hub_model_is_found_in_the_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, regions = scene()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--org--model" / "snapshots"
    snapshot.mkdir(parents=True)
    (snapshot / "abc").symlink_to(demo_model())
    ask = (images, regions, EmbeddingConfig(), MitigationConfig(), "cpu")
    assert need("org/model", *ask) == need(str(demo_model()), *ask)


def test_no_regions_need_no_tokens() -> None:
    images, _ = scene()
    none = Regions(np.zeros(0), np.zeros((0, 4)), np.zeros(0), len(images))
    ask = (EmbeddingConfig(), MitigationConfig(method="paper"), "cpu")
    standard = need(str(demo_model()), images, none, EmbeddingConfig(), MitigationConfig(method="standard"), "cpu")
    assert need(str(demo_model()), images, none, *ask) == standard


def test_the_regions_of_an_audit(run: AuditRun) -> None:
    """The made-up model of these audits is the demo's; its images of 48 pixels are enlarged to 56."""
    assert run.config.regions == RegionsConfig()
    wanted = need(str(demo_model()), run.images(), run.regions(), run.config.embedding, MitigationConfig(), "cpu")
    assert wanted.step is not None


def test_methods_that_need_no_feature() -> None:
    assert not readiness.needs_features("standard")
    assert readiness.needs_features("ravl")


# --- the device ------------------------------------------------------------------------------------------------------


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> list[list[str]]:
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 1, text, "")

    monkeypatch.setattr(readiness.subprocess, "run", run)
    monkeypatch.setattr(Probe, "_ask", ASK)
    return asked


def test_the_doctor_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    facts = {"device": "cuda", "name": "NVIDIA X", "free": 70, "total": 80}
    asked = answer(monkeypatch, json.dumps({"device": {"ok": True, "facts": facts}, "port": {"ok": False}}))
    probe = Probe(tmp_path)
    probe.thread.join(10)
    assert (probe.machine, probe.problem, probe.pending) == (Machine("cuda", "NVIDIA X", 70, 80), "", False)
    assert asked[0][2:5] == ["ravl", "doctor", "--json"]
    assert readiness.free_now(Machine("cuda", "", 70, 80)) == 70
    assert readiness.free_now(Machine("cpu", "", 70, 80)) > 10**6


@pytest.mark.parametrize("text", ["", "{}", "no json", '{"device": {"facts": {}}}'])
def test_an_answer_that_is_none_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    answer(monkeypatch, text)
    probe = Probe(tmp_path)
    probe.thread.join(10)
    assert not probe.pending
    assert "Run ravl doctor in a terminal" in probe.problem
