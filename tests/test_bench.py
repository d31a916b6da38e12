"""What a training step costs: the command runs on any device, and its table says what it says."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest

from ravl.bench import __main__, audits, steps
from ravl.errors import ConfigError


def options(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    steps.add_options(parser)
    return parser.parse_args([*given, "--device", "cpu", "--repeats", "1"])


def test_a_table_of_steps(tmp_path: Path) -> None:
    out = tmp_path / "steps.json"
    table = steps.run(options("--models", "vit12,vit7", "--batch", "8", "--grid", "2", "--out", str(out)))
    assert json.loads(out.read_text()) == table
    assert (table["batch"], table["regions_per_image"], table["precision"]) == (8, 4, "fp32")
    assert [(row["model"], row["method"]) for row in table["steps"]] == [
        (model, method) for model in ("vit12", "vit7") for method in steps.COMPARED
    ]
    for row in table["steps"]:
        plain = next(r for r in table["steps"] if r["model"] == row["model"] and r["method"] == "standard")
        assert row["seconds"] > 0
        assert row["ratio"] == pytest.approx(row["seconds"] / plain["seconds"], rel=0.02)
        assert "gb" not in row  # a processor does not tell


def test_half_precision_and_small_pieces_run(tmp_path: Path) -> None:
    small = ("--models", "vit12", "--batch", "6", "--micro", "4", "--precision", "bf16", "--out", str(tmp_path / "out"))
    assert steps.run(options(*small))["precision"] == "bf16"


def test_an_unknown_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    with pytest.raises(ConfigError, match="b32"):
        steps.run(options("--models", "huge", "--out", str(tmp_path / "out")))
    monkeypatch.setattr(sys, "argv", ["bench", "steps", "--models", "huge"])
    with pytest.raises(SystemExit) as end:
        __main__.main()
    assert end.value.code == 2
    assert "got 'huge'" in capsys.readouterr().err


def test_a_table_of_audits_keeps_the_rows_of_other_commands(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    audits.add_options(parser)
    out = tmp_path / "audits.json"
    out.write_text(json.dumps([{"audit": "another", "seconds": 1.0}]))
    small = ["--models", "vit12", "--images", "30", "--side", "48", "--regions", "grid:2", "--device", "cpu"]
    rows = audits.run(parser.parse_args([*small, "--out", str(out)]))
    assert json.loads(out.read_text()) == rows
    assert [row["audit"] for row in rows] == ["another", "vit12, 30 images of 48 px, grid:2"]
    assert (rows[1]["images"], rows[1]["regions"]) == (30, 120)
    assert 0 < sum(rows[1]["seconds_by_stage"].values()) <= rows[1]["seconds"] + 0.5
    assert rows[1]["gb"] > 0.1
    assert rows[1]["ratio_tokens_to_plain_forward"] > 0
