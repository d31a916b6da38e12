"""What the README says of the demos and of costs is what the files say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ravl.benchmark.quotes import costs_block, demo_block, families_block, medical_block
from ravl.store import write_json


def audit(seed: int, precision: float = 1.0, flagged: int = 1, encoder: str = "tokens") -> dict[str, Any]:
    made = {"clustering": "hdbscan", "encoder": encoder, "seed": seed, "precision_at_10": precision}
    return {**made, "pull_class_right": seed != 1, "first_is_flagged": flagged > 0, "flagged": flagged}


def repair(method: str, seed: int, worst: float) -> dict[str, Any]:
    before = {"overall_before": 0.73, "worst_before": 0.24}
    return {
        **before,
        "method": method,
        "seed": seed,
        "seconds": 60.2 + 2 * seed,
        "overall_after": 0.9,
        "worst_after": worst,
    }


def written(folder: Path, name: str, audits: list[dict[str, Any]]) -> None:
    rows = [repair("standard", 0, 0.25), repair("standard", 1, 0.21), repair("ravl", 0, 0.84), repair("ravl", 1, 0.84)]
    write_json(folder / name, {"steps": 300, "batch_size": 128, "discovery": audits, "mitigation": rows})


def test_a_demo_is_told_with_its_counts_and_the_span_over_the_seeds(tmp_path: Path) -> None:
    written(tmp_path, "demo.json", [audit(0), audit(1, 0.9), audit(0, encoder="crop"), audit(1, flagged=2)])
    text = demo_block(tmp_path)
    assert "in 4 audits (2 ways to cluster and embed, 2 seeds)" in text
    assert "at least 90% of the first feature's ten exemplars show the red square" in text
    assert "right in 2 of 4, and it is flagged in 4 of 4; 1 other feature is flagged" in text
    assert "300 steps of 128 images, 2 seeds" in text
    assert "| *before* | 0.73 | 0.24 |  |" in text
    assert "| standard | 0.90 | 0.21 to 0.25 | 61 |" in text
    assert "| **ravl** | 0.90 | 0.84 | 61 |" in text


def test_the_medical_demo_has_one_way_and_its_own_mark(tmp_path: Path) -> None:
    written(tmp_path, "demo-radiograph.json", [audit(0), audit(2, flagged=0)])
    text = medical_block(tmp_path)
    assert "in 2 audits (2 seeds), all of the first feature's ten exemplars show the metal clips" in text
    assert "flagged in 1 of 2; no other features are flagged" in text


def test_other_families_have_a_row_each(tmp_path: Path) -> None:
    written(tmp_path, "demo-siglip.json", [audit(0), audit(1, 0.9, flagged=0)])
    text = families_block(tmp_path)
    assert "| SigLIP, `tokens` | 0.90 to 1.00 | 1 of 2 | 0.24 | 0.21 to 0.25 | 0.84 |" in text
    assert "ResNet" not in text
    written(tmp_path, "demo-resnet.json", [audit(0)])
    assert "| ResNet of open_clip, `roi` | 1.00 | 1 of 1 | 0.24 | 0.21 to 0.25 | 0.84 |" in families_block(tmp_path)


def test_costs_are_ratios_and_rows_of_audits(tmp_path: Path) -> None:
    folder = tmp_path / "benchmark"
    folder.mkdir()
    ratios = {"ratio_tokens_to_plain_forward": 1.104, "ratio_ravl_to_plain_training_step": 1.41}
    seconds = {"seconds_hdbscan_and_scoring": 0.32, "seconds_kmedoids_and_scoring": 0.25}
    machine = {"machine": "x86_64, 2 cores", "regions": 4000, "ratio_paper_to_plain_training_step": 2.39}
    write_json(tmp_path / "bench.json", ratios | seconds | machine)
    stages = {"images": 0.0, "embeddings": 13.1, "exemplars": 20.1, "agreement": 8.8, "clusters": 0.7}
    row = {"audit": "b32, 200 images", "regions": 1800, "seconds": 1048.2, "gb": 1.378, "seconds_by_stage": stages}
    write_json(tmp_path / "bench-audits.json", [row, row | {"ratio_tokens_to_plain_forward": 1.171}])  # type: ignore[arg-type]
    text = costs_block(folder)
    assert "by `tokens` 1.10 times a plain forward pass; a training step of `ravl` 1.41 times a plain one" in text
    assert "| b32, 200 images | 1,800 |  | 1,048 | 1.38 | exemplars 20, embeddings 13, agreement 9 |" in text
    assert "| b32, 200 images | 1,800 | 1.17 | 1,048 | 1.38 |" in text
