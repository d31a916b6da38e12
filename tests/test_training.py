"""The training loop on a very small model: what it learns, what it leaves alone, and that a kill changes nothing."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ravl.config import MitigationConfig, PromptsConfig, RegionsConfig
from ravl.data import load_images
from ravl.discovery.regions import grid, superpixels
from ravl.discovery.zero_shot import class_vectors
from ravl.errors import ConfigError, DataError, RunError
from ravl.mitigation import baselines, checkpoint, training
from ravl.mitigation import batches as batching
from ravl.mitigation import gradients as gradienting
from ravl.mitigation.baselines import METHODS, inferred_groups
from ravl.mitigation.batches import Batches, ahead, reader
from ravl.mitigation.footprint import uses_half
from ravl.mitigation.gradients import Gradients
from ravl.mitigation.lora import LAYERS
from ravl.mitigation.loss import LossParts, contrastive_loss, region_losses
from ravl.mitigation.memory import estimate, free_memory
from ravl.mitigation.objective import Objective, RegionVectors
from ravl.mitigation.processes import Processes
from ravl.mitigation.training import TrainingSet, ValidationSet, captions_of, predict, train
from ravl.planted.tiny_clip import build
from ravl.store import MitigationFolder
from ravl.tables import ImageSet, Regions, Report, Step, quiet
from ravl.vlm.model import DualEncoder
from ravl.vlm.towers import WholeTower
from ravl.vlm.transformers_dual import assemble

ROOT = Path(__file__).parents[1]
CLASSES = ("one", "two")
SIDE, HALF = 56, 28
CONFIG = MitigationConfig(steps=12, batch_size=8, evaluate_every=4, seed=3, lr=1e-3, region_share=1.0)
TEMPLATES = ("a photo of the digit {}", "there is a {} in the picture")


def deep_clip() -> DualEncoder:
    """Four layers of 32 on 16 patches."""
    return small_clip(layers=4)


def small_clip(seed: int = 0, layers: int = 2) -> DualEncoder:
    """Layers of 32 on 16 patches."""
    from transformers import CLIPConfig, CLIPModel

    module, tokenizer, processor = build(0)
    text = module.config.text_config.to_dict() | {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": layers, "num_attention_heads": 2}
    vision |= {"image_size": SIDE, "patch_size": 14}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    return assemble("small", module, tokenizer, processor, torch.device("cpu"))


def write_images(
    folder: Path, n: int = 24, shares: tuple[float, float] = (0.3, 0.8), seed: int = 0
) -> tuple[ImageSet, NDArray[np.int64]]:
    """Scenes whose class is the colour of one quadrant; a red quadrant in a share of each. Also where it is, or -1."""
    rng = np.random.default_rng(seed)
    label, mark = np.arange(n) % 2, np.full(n, -1)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        pixels = rng.integers(0, 60, (SIDE, SIDE, 3)).astype(np.uint8)
        place, other = rng.permutation(4)[:2]
        if i // 2 % 10 < 10 * shares[label[i]]:
            mark[i] = other
            pixels[quadrant(other)] = (220, 20, 20)
        pixels[quadrant(place)] = (20, 200, 20) if label[i] else (20, 20, 200)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    files = np.array([f"{i}.png" for i in range(n)])
    return ImageSet(str(folder), files, label, np.full((n, 2), SIDE), CLASSES), mark


def quadrant(place: int) -> tuple[slice, slice]:
    y, x = divmod(int(place), 2)
    return slice(y * HALF, (y + 1) * HALF), slice(x * HALF, (x + 1) * HALF)


def training_set(vlm: DualEncoder, folder: Path, encoder: str = "tokens") -> TrainingSet:
    images, mark = write_images(folder)
    regions = grid(vlm.view(images.size), RegionsConfig())
    spurious = mark[regions.image] == regions.position
    keep = regions.starts[:-1] + (mark == 0)  # any region that is not the mark
    return TrainingSet(
        images=images,
        regions=regions,
        spurious=spurious,
        keep=keep,
        caption=captions_of(images, TEMPLATES),
        encoder=encoder,
        context=0.1,
        group=inferred_groups(images, mark >= 0),
        wrong=np.arange(len(images)) % 5 == 0,
    )


class Lab:
    """A training and a validation set in a folder, and fresh models to train on them."""

    def __init__(self, folder: Path) -> None:
        vlm = small_clip()
        self.folder = folder
        self.data = training_set(vlm, folder / "train")
        images, mark = write_images(folder / "val", 48, (0.5, 0.5), 1)
        self.validation = ValidationSet(images, mark >= 0, 16)
        self.text = class_vectors(vlm, CLASSES, PromptsConfig())

    def train(
        self, name: str, config: MitigationConfig = CONFIG, report: Report = quiet, data: TrainingSet | None = None
    ) -> tuple[int, DualEncoder, MitigationFolder]:
        """Best step, the model, its folder. The same name continues."""
        vlm, folder = small_clip(), MitigationFolder(self.folder / name)
        return train(vlm, data or self.data, self.validation, self.text, config, folder, report), vlm, folder


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """On tensors this small, threads cost more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def unbroken(lab: Lab) -> tuple[int, DualEncoder, MitigationFolder]:
    return lab.train("unbroken")


def gradients(vlm: DualEncoder, objective: Objective, encoder: str = "tokens", **options: Any) -> Gradients:
    learning = training.trainable(vlm, ("tower",))
    return Gradients(vlm, learning, objective, encoder, options.pop("micro", 1000), **options)


def weights(vlm: DualEncoder) -> dict[str, bytes]:
    return {name: tensor.detach().numpy().tobytes() for name, tensor in vlm.module.state_dict().items()}


def without_seconds(folder: MitigationFolder) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in folder.log()]


# --- the rates -------------------------------------------------------------------------------------------------------


def test_the_learning_rate_rises_to_its_peak_and_falls_to_almost_nothing() -> None:
    rates = [training.learning_rate(step, 100, 2.0) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert max(rates) == rates[9] == rates[10] == 2.0
    assert all(a > b > 0 for a, b in pairwise(rates[10:]))
    assert rates[55] == pytest.approx(1.0)
    assert rates[-1] < 0.001
    assert [training.learning_rate(0, 1, 2.0)] == [2.0]


def test_the_default_rate_follows_the_size_of_the_model() -> None:
    assert training.default_lr(86_000_000) == pytest.approx(5e-5)
    assert training.default_lr(4 * 86_000_000) == pytest.approx(2.5e-5)
    assert training.default_lr(100) == 1e-3


# --- a whole training ------------------------------------------------------------------------------------------------


def test_only_the_vision_tower_and_its_projection_learn(unbroken: tuple[int, DualEncoder, Any]) -> None:
    before, after = weights(small_clip()), weights(unbroken[1])
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {n for n in before if n.startswith(("vision_model.", "visual_projection.")) and "_ids" not in n}
    assert "logit_scale" not in changed


def test_the_log_has_finite_losses_rates_and_evaluations(unbroken: tuple[int, Any, MitigationFolder]) -> None:
    log = unbroken[2].log()
    losses = [row for row in log if "loss" in row]
    assert [row["step"] for row in losses] == [10, 12]
    assert all(set(row) == {"step", "loss", "contrastive", "relevant", "spurious", "lr", "seconds"} for row in losses)
    assert all(math.isfinite(v) for row in losses for v in row.values())
    for row in losses:
        whole = 0.8 * row["contrastive"] + 0.2 * (row["relevant"] + row["spurious"])
        assert row["loss"] == pytest.approx(whole, abs=1e-5)
    judged = [row for row in log if "overall" in row]
    assert [row["step"] for row in judged] == [0, 4, 8, 12]
    assert all(0 <= row["worst_group"] <= row["overall"] <= 1 for row in judged)
    assert all(row["worst_group_name"].split(" ")[0] in CLASSES for row in judged)
    best = max(judged, key=lambda row: (row["worst_group"], row["overall"], -row["step"]))
    assert unbroken[0] == best["step"]


def test_the_model_is_left_with_the_best_weights_and_the_log_tells_its_accuracy(
    lab: Lab, unbroken: tuple[int, DualEncoder, MitigationFolder]
) -> None:
    best, vlm, folder = unbroken
    images = lab.validation.images
    right = predict(vlm, images, lab.text, 7, reader(images), range(len(images))) == images.label
    row = next(row for row in folder.log() if row["step"] == best and "overall" in row)
    assert row["overall"] == pytest.approx(right.mean(), abs=1e-6)
    rates = {}
    for y in (0, 1):
        for shown in (True, False):
            rows = (images.label == y) & (lab.validation.present == shown)
            assert rows.sum() >= 10
            rates[y, shown] = right[rows].mean()
    assert row["worst_group"] == pytest.approx(min(rates.values()), abs=1e-6)


def test_progress_is_reported_for_every_step(lab: Lab) -> None:
    seen: list[Step] = []

    def report(step: Step) -> None:
        seen.append(step)
        assert torch.are_deterministic_algorithms_enabled() == (step.done > 0)

    lab.train("reported", replace(CONFIG, steps=4), report)
    assert [(s.stage, s.done, s.total) for s in seen] == [("training", i, 4) for i in range(5)]
    assert all(set(s.facts) == {"loss", "best_worst_group"} for s in seen[1:])


def test_the_loss_falls(lab: Lab) -> None:
    _, _, folder = lab.train("longer", replace(CONFIG, method="paper", steps=40, evaluate_every=40))
    losses = [row["loss"] for row in folder.log() if "loss" in row]
    assert min(losses[-2:]) < losses[0] - 0.05


def test_standard_training_needs_no_regions(lab: Lab) -> None:
    none = Regions(np.zeros(0), np.zeros((0, 4)), np.zeros(0), len(lab.data.images))
    bare = replace(lab.data, regions=none, spurious=np.zeros(0, bool), keep=np.full(len(lab.data.images), -1))
    config = replace(CONFIG, method="standard", steps=10)
    _, first, folder = lab.train("bare", config, data=bare)
    _, second, _ = lab.train("regions", config)
    assert weights(first) == weights(second)
    (row,) = [row for row in folder.log() if "loss" in row]
    assert set(row) == {"step", "loss", "contrastive", "lr", "seconds"}
    assert row["loss"] == row["contrastive"]


@pytest.mark.parametrize("method", ["paper", "ravl"])
def test_region_methods_do_not_fail_without_regions(lab: Lab, method: str) -> None:
    none = Regions(np.zeros(0), np.zeros((0, 4)), np.zeros(0), len(lab.data.images))
    bare = replace(lab.data, regions=none, spurious=np.zeros(0, bool), keep=np.full(len(lab.data.images), -1))
    _, _, folder = lab.train(f"none-{method}", replace(CONFIG, method=method, steps=2), data=bare)
    assert folder.log()[-2]["relevant"] == folder.log()[-2]["spurious"] == 0


def test_crops_can_be_the_regions_too(lab: Lab) -> None:
    vlm = small_clip()
    data = training_set(vlm, lab.folder / "crops", "crop")
    _, _, folder = lab.train("crop", replace(CONFIG, steps=3), data=data)
    (row,) = [row for row in folder.log() if "loss" in row]
    assert row["relevant"] > 0 < row["spurious"]
    moved = checkpoint._read(folder.checkpoint / "last.safetensors", {})[0]["visual_projection.weight"]
    assert not torch.equal(moved, vlm.module.visual_projection.weight)


# --- which step is best ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([(0.5, 0.5), (0.4, 0.9), (0.3, 0.9), (0.5, 0.5)], 0),  # never better than the audited model
        ([(0.1, 0.5), (0.6, 0.7), (0.6, 0.7), (0.6, 0.6)], 2),  # the earlier of equals
        ([(0.1, 0.5), (0.6, 0.7), (0.6, 0.8), (0.2, 1.0)], 4),  # the overall accuracy decides
        ([(0.1, 0.5), (0.2, 0.5), (0.3, 0.5), (0.4, 0.5)], 6),
    ],
)
def test_the_best_step_is_kept(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, scores: list[tuple[float, float]], best: int
) -> None:
    seen: list[dict[str, bytes]] = []

    def score(vlm: DualEncoder, *rest: Any) -> dict[str, Any]:
        worst, overall = scores[len(seen)]
        seen.append(weights(vlm))
        return {"worst_group": worst, "overall": overall, "worst_group_name": "x"}

    monkeypatch.setattr(training, "_score", score)
    step, vlm, folder = lab.train(f"best-{best}-{scores[1][0]}", replace(CONFIG, steps=6, evaluate_every=2))
    assert step == best
    assert weights(vlm) == seen[best // 2]
    if best:
        assert weights(vlm) != seen[0]
    assert sorted(path.name for path in folder.checkpoint.iterdir()) == [f"best-{best}.safetensors", "last.safetensors"]


def test_without_features_the_groups_are_the_classes(lab: Lab) -> None:
    images = lab.validation.images
    validation = ValidationSet(images, np.zeros(len(images), bool), 16)
    row = training._score(small_clip(), validation, lab.text, reader(images))
    assert row["worst_group_name"] in CLASSES


def test_empty_sets_are_refused(lab: Lab) -> None:
    images = lab.data.images
    none = ImageSet(images.root, images.file[:0], images.label[:0], images.size[:0], CLASSES)
    empty = ValidationSet(none, np.zeros(0, bool), 16)
    with pytest.raises(ValueError, match="at least one image each, got 24 and 0"):
        train(small_clip(), lab.data, empty, lab.text, CONFIG, MitigationFolder(lab.folder / "empty"), quiet)


def test_a_training_set_must_fit_together(lab: Lab) -> None:
    with pytest.raises(ValueError, match="spurious must have length 96, got 3"):
        replace(lab.data, spurious=np.zeros(3, bool))
    with pytest.raises(ValueError, match="tokens, roi or crop, got 'auto'"):
        replace(lab.data, encoder="auto")


# --- interruption ----------------------------------------------------------------------------------------------------


class Stopped(Exception):
    """A kill, in tests."""


def stop_after(step: int) -> Report:
    def report(at: Step) -> None:
        if at.done == step:
            raise Stopped

    return report


def assert_same_end(one: tuple[int, DualEncoder, MitigationFolder], other: tuple[int, Any, Any]) -> None:
    assert one[0] == other[0]
    assert weights(one[1]) == weights(other[1])
    assert without_seconds(one[2]) == without_seconds(other[2])
    last = [checkpoint._read(folder.checkpoint / "last.safetensors", {})[0] for folder in (one[2], other[2])]
    assert last[0].keys() == last[1].keys()
    assert all(torch.equal(last[0][name], last[1][name]) for name in last[0])


def test_a_training_stopped_anywhere_continues_to_the_same_bits(lab: Lab, unbroken: tuple[int, Any, Any]) -> None:
    for step in (0, 3, 4, 9, 12):
        with pytest.raises(Stopped):
            lab.train("stopped", CONFIG, stop_after(step))
    assert_same_end(lab.train("stopped"), unbroken)


def test_a_finished_training_is_not_repeated(lab: Lab, unbroken: tuple[int, Any, Any]) -> None:
    seen: list[Step] = []
    assert_same_end(lab.train("unbroken", CONFIG, seen.append), unbroken)
    assert [s.done for s in seen] == [12]


@pytest.mark.parametrize("write", [1, 2, 3, 4])
def test_a_kill_while_a_checkpoint_is_written_costs_nothing(
    lab: Lab, unbroken: tuple[int, Any, Any], monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    """The process dies in the n-th write of a checkpoint file: nothing, or the partial file alone, is there."""
    real, count = checkpoint.save_file, 0

    def dying(tensors: Any, path: Path, **rest: Any) -> None:
        nonlocal count
        count += 1
        if count == write:
            Path(path).write_bytes(b"half a file")
            (path.parent / ".tmpAbC").write_bytes(b"safetensors' own partial file")
            raise Stopped
        real(tensors, path, **rest)

    monkeypatch.setattr(checkpoint, "save_file", dying)
    try:
        lab.train(f"dying-{write}")
    except Stopped:
        pass
    else:
        assert count < write  # fewer files were written than that
    monkeypatch.undo()
    resumed = lab.train(f"dying-{write}")
    assert_same_end(resumed, unbroken)
    assert {path.name for path in resumed[2].checkpoint.iterdir()} == {
        "last.safetensors",
        f"best-{resumed[0]}.safetensors",
    }


def run_until_killed(folder: str, step: str) -> None:
    """In a process of its own: train, and die by SIGKILL after a step."""
    torch.set_num_threads(1)

    def report(at: Step) -> None:
        if at.done == int(step):
            os.kill(os.getpid(), signal.SIGKILL)

    Lab(Path(folder)).train("killed", CONFIG, report)


def test_a_process_killed_by_the_system_continues_to_the_same_bits(
    tmp_path: Path, unbroken: tuple[int, Any, Any]
) -> None:
    command = "import sys; from tests.test_training import run_until_killed; run_until_killed(*sys.argv[1:])"
    arguments = [sys.executable, "-c", command, str(tmp_path), "10"]
    assert subprocess.run(arguments, cwd=ROOT, timeout=120).returncode == -signal.SIGKILL
    lab = Lab(tmp_path)
    assert max(row["step"] for row in MitigationFolder(tmp_path / "killed").log()) == 10
    assert_same_end(lab.train("killed"), unbroken)


def test_what_was_logged_after_the_checkpoint_is_dropped(lab: Lab) -> None:
    with pytest.raises(Stopped):
        lab.train("relogged", CONFIG, stop_after(9))
    folder = MitigationFolder(lab.folder / "relogged")
    folder.append_log({"step": 11, "loss": 99.0})
    lab.train("relogged")
    assert 11 not in [row["step"] for row in folder.log()]


def test_a_damaged_checkpoint_is_named(lab: Lab) -> None:
    with pytest.raises(Stopped):
        lab.train("damaged", CONFIG, stop_after(1))
    path = lab.folder / "damaged" / "checkpoint" / "last.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"last\.safetensors is damaged .* Delete the folder"):
        lab.train("damaged")


def test_a_full_disk_is_one_sentence(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **rest: Any) -> None:
        raise checkpoint.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(RunError, match="No space left on device"):
        lab.train("full")


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_spoiled() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter])

    def loss(factor: float) -> Callable[[], Any]:
        def backward() -> LossParts:
            parts = LossParts(factor * parameter.sum())
            parts.total.backward()
            return parts

        return backward

    parts = training.update(loss(2.0), {"p": parameter}, optimizer, 0.5)
    assert {name: float(part.detach()) for name, part in parts.named.items()} == {"loss": 4.0}
    assert optimizer.param_groups[0]["lr"] == 0.5
    before = parameter.detach().clone()
    for broken in (math.nan, math.inf):
        with pytest.raises(RunError, match=r"must stay finite, got .* lower --lr"):
            training.update(loss(broken), {"p": parameter}, optimizer, 0.5)
    assert torch.equal(parameter, before)


def test_gradients_are_clipped_and_norms_and_biases_do_not_decay() -> None:
    parameters = {"m": torch.nn.Parameter(torch.ones(2, 2)), "v": torch.nn.Parameter(torch.ones(2))}
    groups = training._decay_groups(parameters, 0.1)
    assert [(g["params"][0].ndim, g["weight_decay"]) for g in groups] == [(2, 0.1), (1, 0.0)]

    def loss() -> Any:
        parts = LossParts(1000 * (parameters["m"].sum() + parameters["v"].sum()))
        parts.total.backward()
        return parts

    training.update(loss, parameters, torch.optim.SGD(parameters.values()), 0.1)
    moved = torch.cat([(1 - p.detach()).flatten() for p in parameters.values()])
    assert float(moved.norm()) == pytest.approx(0.1, rel=1e-4)  # rate x the clipped length


def test_the_setting_for_determinism_is_given_back() -> None:
    def fail() -> None:
        with training._repeatable(torch.device("cpu")):
            assert torch.are_deterministic_algorithms_enabled()
            raise Stopped

    with pytest.raises(Stopped):
        fail()
    assert not torch.are_deterministic_algorithms_enabled()
    with training._repeatable(torch.device("meta")):
        assert not torch.are_deterministic_algorithms_enabled()


# --- batches ---------------------------------------------------------------------------------------------------------


def parts(batch: Any) -> list[Tensor]:
    return [tensor for tensor in vars(batch).values() if isinstance(tensor, Tensor)]


@pytest.mark.parametrize("method", ["standard", "paper", "ravl"])
def test_a_batch_is_a_function_of_seed_and_step(lab: Lab, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, method=method)
    first = [Batches(small_clip(), lab.data, config).make(step) for step in (0, 1, 7)]
    monkeypatch.setattr(batching, "CACHE_BYTES", 0)
    one = Batches(small_clip(), lab.data, config)
    again = [one.make(step) for step in (7, 1, 0)][::-1]
    for a, b in zip(first, again, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(parts(a), parts(b), strict=True))
    other = Batches(small_clip(), lab.data, replace(config, seed=4)).make(0)
    assert not torch.equal(other.pixels, first[0].pixels)


def test_an_epoch_shows_every_image_once_and_the_next_one_in_another_order(lab: Lab) -> None:
    n = len(lab.data.images)
    captions = np.array([f"image {i}" for i in range(n)])
    own = replace(lab.data, images=replace(lab.data.images, caption=captions), caption=captions)
    made = Batches(small_clip(), own, replace(CONFIG, method="standard"))
    epochs = [[made.make(e * n // 8 + step).caption.tolist() for step in range(n // 8)] for e in (0, 1)]
    assert sorted(chain(*epochs[0])) == sorted(chain(*epochs[1])) == list(range(n))
    assert epochs[0] != epochs[1]


def test_a_batch_larger_than_the_set_is_the_set(lab: Lab) -> None:
    batch = Batches(small_clip(), lab.data, replace(CONFIG, batch_size=1000)).make(2)
    assert len(batch.pixels) == len(lab.data.images)


def test_the_papers_batch_is_the_images_as_they_are(lab: Lab) -> None:
    vlm = small_clip()
    batch = Batches(vlm, lab.data, replace(CONFIG, method="paper", batch_size=1000)).make(0)
    rows = np.random.default_rng([CONFIG.seed, 0, 0]).permutation(len(lab.data.images))
    assert torch.equal(batch.pixels, vlm.pixels(load_images(lab.data.images, rows)))
    assert batch.label.tolist() == lab.data.images.label[rows].tolist()
    assert [lab.data.caption[i] for i in rows] == [np.unique(lab.data.caption)[c] for c in batch.caption]
    assert batch.owner is not None
    assert batch.spurious is not None
    assert batch.regions is not None
    assert batch.owner.tolist() == np.repeat(np.arange(len(rows)), 4).tolist()
    assert batch.spurious.tolist() == [bool(lab.data.spurious[4 * i + p]) for i in rows for p in range(4)]
    for place, patches in enumerate(batch.regions[:4].reshape(4, 4, 4).tolist()):
        y, x = divmod(place, 2)
        assert patches == [[y == i // 2 and x == j // 2 for j in range(4)] for i in range(4)]


def test_exchange_at_probability_one_swaps_the_feature(lab: Lab) -> None:
    """Every image with the mark loses it and its region; every other one gets it on a region that is not its best."""
    config = replace(CONFIG, exchange=1.0, batch_size=1000)
    batch = Batches(small_clip(), lab.data, config).make(0)
    rows = np.random.default_rng([CONFIG.seed, 0, 0]).permutation(len(lab.data.images))
    assert batch.owner is not None
    assert batch.spurious is not None
    for place, i in enumerate(rows):
        had = bool(lab.data.spurious[4 * i : 4 * i + 4].any())
        own = batch.spurious[batch.owner == place]
        assert len(own) == (3 if had else 4)
        assert int(own.sum()) == (0 if had else 1)
        if not had:
            assert not own[lab.data.keep[i] - 4 * i]
        red = batch.pixels[place, 0] - batch.pixels[place, 1:].amax(0) > 1.5
        assert bool(red.any()) != had  # the pixels tell the same


def test_the_bank_holds_crops_of_spurious_regions_no_larger_than_the_input(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = Batches(small_clip(), lab.data, CONFIG)._bank
    assert len(bank) == int(lab.data.spurious.sum())
    assert all(crop.getpixel((3, 3)) == (220, 20, 20) and crop.size == (HALF, HALF) for crop in bank)
    monkeypatch.setattr(batching, "BANK_SIZE", 2)
    vlm = small_clip()
    vlm.geometry = replace(vlm.geometry, input_size=9)
    small = Batches(vlm, lab.data, CONFIG)._bank
    assert [crop.size for crop in small] == [(9, 9)] * 2


def test_the_next_batch_is_made_ahead_in_order_and_errors_come_through() -> None:
    made: list[int] = []

    def make(step: int) -> Any:
        if step == 4:
            raise DataError("gone")
        made.append(step)
        return step

    assert list(ahead(make, range(2, 2))) == []
    assert list(ahead(make, range(1, 4))) == [1, 2, 3]
    assert made == [1, 2, 3]
    coming = ahead(make, range(2, 9))
    assert [next(coming), next(coming)] == [2, 3]
    with pytest.raises(DataError, match="gone"):
        next(coming)


@pytest.mark.parametrize("limit", [0, 2**30])
def test_a_small_set_is_decoded_once(lab: Lab, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    decoded: list[int] = []

    def load(images: ImageSet, ids: Any) -> list[Image.Image]:
        decoded.extend(ids)
        return load_images(images, ids)

    monkeypatch.setattr(batching, "load_images", load)
    monkeypatch.setattr(batching, "CACHE_BYTES", limit)
    read = reader(lab.data.images)
    for ids in ([3, 1, 3], [1, 5], []):
        want = load_images(lab.data.images, ids)
        assert [image.tobytes() for image in read(ids)] == [image.tobytes() for image in want]
    assert decoded == ([3, 1, 5] if limit else [3, 1, 3, 1, 5])


def test_captions_are_the_sets_own_or_made_from_the_class_names(lab: Lab) -> None:
    images = replace(lab.data.images, class_names=("one_{x}", "two"))
    assert captions_of(images, ("a {}", "{} {y}"))[:4].tolist() == ["a one {x}", "a two", "one {x} {y}", "two {y}"]
    own = np.array([f"caption {i}" for i in range(len(images))])
    assert captions_of(replace(images, caption=own), TEMPLATES).tolist() == own.tolist()


def test_no_caption_is_not_a_caption_that_classes_share(lab: Lab) -> None:
    own = np.array([f"caption {i}" for i in range(len(lab.data.images))])
    own[[0, 1, 2]] = ["", "  ", "\n"]
    images = replace(lab.data.images, class_names=("one_{x}", "two"), caption=own)
    assert images.label[:3].tolist() == [0, 1, 0]
    found = captions_of(images, ("a {}", "{} {y}")).tolist()
    assert found[:3] == ["a one {x}", "a two", "a one {x}"]
    assert found[3:] == own[3:].tolist()
    label = images.label.copy()
    label[[1, 4]] = -1
    with pytest.raises(ConfigError, match=f"must have a label or a caption, but 1 of {len(own)} have neither"):
        captions_of(replace(images, label=label), TEMPLATES)


# --- the loss of a batch ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["tokens", "crop"])
@pytest.mark.parametrize("own_captions", [False, True])
def test_the_loss_of_a_batch_is_put_together_from_its_parts(lab: Lab, encoder: str, own_captions: bool) -> None:
    vlm = small_clip()
    data = replace(lab.data, encoder=encoder)
    if own_captions:
        data = replace(data, images=replace(data.images, caption=data.caption))
    batch = Batches(vlm, data, replace(CONFIG, method="paper")).make(0)
    captions = torch.from_numpy(vlm.encode_texts(np.unique(data.caption).tolist()))
    text = torch.from_numpy(lab.text)
    objective = Objective(text, captions, 1 / vlm.tau, replace(CONFIG, contrastive_weight=0.3), 4, own_captions)
    got = gradients(vlm, objective, encoder)(batch)
    assert batch.owner is not None
    assert batch.spurious is not None
    assert batch.regions is not None
    rows = np.random.default_rng([CONFIG.seed, 0, 0]).permutation(len(data.images))[:8]
    pictures = load_images(data.images, rows)
    boxes = [data.regions.box[data.regions.rows_of(i)] for i in rows]
    encoded = vlm.encode_regions(pictures, boxes, encoder, data.context)
    positive = batch.caption if own_captions else batch.label
    contrast = contrastive_loss(torch.from_numpy(encoded.image), captions[batch.caption], positive, 1 / vlm.tau)
    relevant, spurious = region_losses(
        torch.from_numpy(encoded.region), batch.owner, batch.spurious, batch.label, text, CONFIG.tau
    )
    want = [0.3 * contrast + 0.7 * (relevant + spurious), contrast, relevant, spurious]
    assert [v.item() for v in got.named.values()] == pytest.approx([float(v) for v in want], rel=1e-4)


def test_at_lambda_one_the_loss_and_its_gradient_are_those_of_clip(lab: Lab) -> None:
    """Every image with a caption of its own: transformers' own loss of the same model on the same pairs."""
    own = np.array([f"{caption} {i}" for i, caption in enumerate(lab.data.caption)])
    data = replace(lab.data, caption=own, images=replace(lab.data.images, caption=own))
    vlm, config = small_clip(), replace(CONFIG, method="paper", contrastive_weight=1.0)
    weights = training.trainable(vlm, METHODS["paper"].learns)
    made = Batches(vlm, data, config)
    batch = made.make(0)
    captions = training._caption_vectors(vlm, made.captions)
    objective = Objective(torch.from_numpy(lab.text), captions, 1 / vlm.tau, config, 4, own_captions=True)
    parts = Gradients(vlm, weights, objective, "tokens", 8)(batch)
    assert parts.relevant is not None
    assert parts.spurious is not None
    got = [weight.grad for weight in weights.values()]

    tokens = build(0)[1](made.captions[batch.caption].tolist(), padding=True, return_tensors="pt")
    whole = vlm.module(**tokens, pixel_values=batch.pixels, return_loss=True).loss
    want = torch.autograd.grad(whole, list(weights.values()), allow_unused=True)
    assert parts.total.item() == pytest.approx(whole.item(), rel=1e-5)
    assert parts.relevant.item() > 0 < parts.spurious.item()
    for name, a, b in zip(weights, got, want, strict=True):
        assert (a is None) == (b is None), name
        assert a is None or torch.allclose(a, b, rtol=1e-3, atol=1e-5), name


def test_checkpoints_hold_no_pickle_and_tell_where_they_are(unbroken: tuple[int, Any, MitigationFolder]) -> None:
    folder = unbroken[2].checkpoint
    assert all(path.suffix == ".safetensors" for path in folder.iterdir())
    with checkpoint.safe_open(folder / "last.safetensors", framework="pt") as file:
        about = json.loads(file.metadata()["about"])
    assert about["step"] == 12
    assert about["best_step"] == unbroken[0]
    assert about["seconds"] > 0


# --- regions with a mask ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def masked(lab: Lab) -> TrainingSet:
    """The lab's images cut into superpixels, the first of every second image spurious."""
    images = lab.data.images
    regions = superpixels(small_clip().view(images.size), 5, lambda ids: load_images(images, ids))
    spurious = np.zeros(len(regions), bool)
    spurious[regions.starts[:-1][::2]] = True
    keep = regions.starts[1:] - 1
    return replace(lab.data, regions=regions, spurious=spurious, keep=keep)


@pytest.mark.parametrize("encoder", ["tokens", "crop"])
def test_a_batch_shows_the_model_the_masks(masked: TrainingSet, encoder: str) -> None:
    vlm, data = small_clip(), replace(masked, encoder=encoder)
    batch = Batches(vlm, data, replace(CONFIG, method="paper")).make(0)
    assert batch.regions is not None
    assert batch.owner is not None
    rows = np.random.default_rng([CONFIG.seed, 0, 0]).permutation(len(data.images))[:8]
    boxes = [data.regions.box[data.regions.rows_of(i)] for i in rows]
    masks = [data.regions.masks_of(i) for i in rows]
    assert any(mask is not None for own in masks for mask in own)
    assert batch.owner.tolist() == [i for i, own in enumerate(boxes) for _ in own]
    if encoder == "tokens":
        flat = [mask for own in masks for mask in own]
        sizes = np.full((len(flat), 2), SIDE)
        assert np.array_equal(batch.regions.numpy(), vlm.geometry.patches(sizes, np.concatenate(boxes), flat))
        assert batch.regions.sum() == 8 * 16  # the masks share the patches among them
    else:
        assert torch.equal(batch.regions, vlm.crop_pixels(load_images(data.images, rows), boxes, 0.1, masks))


def test_the_bank_holds_regions_and_not_their_boxes(masked: TrainingSet) -> None:
    bank = Batches(small_clip(), masked, CONFIG)._bank
    rows = np.flatnonzero(masked.spurious)
    assert len(bank) == len(rows)
    for crop, row in zip(bank, rows, strict=True):
        mask = masked.regions.mask_of(int(row))
        assert crop.mode == ("RGB" if mask is None else "RGBA")
        if mask is not None:  # nothing is scaled down at the model's own size
            assert np.array_equal(np.asarray(crop)[..., 3] > 0, mask)


def test_masked_regions_are_exchanged(masked: TrainingSet) -> None:
    """Removing and pasting change the pixels, and what was covered is left out or spurious."""
    vlm = small_clip()
    plain, swapped = (
        Batches(vlm, masked, replace(CONFIG, method=method, exchange=1.0)).make(0) for method in ("paper", "ravl")
    )
    for batch in (plain, swapped):
        assert batch.owner is not None
        assert batch.spurious is not None
        assert batch.regions is not None
        assert len(batch.owner) == len(batch.spurious) == len(batch.regions)
    assert swapped.owner is not None
    assert plain.owner is not None
    assert len(swapped.owner) < len(plain.owner)
    assert not torch.equal(plain.pixels, swapped.pixels)


# --- methods ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.learns])
def test_a_method_changes_what_it_declares_and_logs_its_terms(lab: Lab, method: str) -> None:
    before = weights(small_clip())
    _, vlm, folder = lab.train(f"method-{method}", replace(CONFIG, method=method, steps=10, evaluate_every=10))
    last = checkpoint._read(folder.checkpoint / "last.safetensors", {})[0]
    changed = {name for name in before if name in last and last[name].numpy().tobytes() != before[name]}
    declared = METHODS[method]
    learns = tuple(beginning for part in declared.learns for beginning in vlm.parts[part])
    assert changed == {name for name in before if name.startswith(learns) and "_ids" not in name}
    (row,) = [row for row in folder.log() if "loss" in row]
    terms = {"": set(), "regions": {"relevant", "spurious"}, "classes": {"classes"}, "groups": {"classes"}}
    contrastive = {"contrastive"} if declared.contrastive else set()
    assert set(row) - {"step", "loss", "lr", "seconds"} == terms[declared.term] | contrastive


@pytest.mark.parametrize(("method", "removed", "pasted"), [("ravl", True, True), ("erase", True, False)])
def test_erasing_is_the_exchange_without_pasting(lab: Lab, method: str, removed: bool, pasted: bool) -> None:
    plain, other = (
        Batches(small_clip(), lab.data, replace(CONFIG, method=name, exchange=1.0, batch_size=1000)).make(0)
        for name in ("standard", method)
    )
    marked = lab.data.spurious.reshape(-1, 4).any(1)
    rows = np.random.default_rng([CONFIG.seed, 0, 0]).permutation(len(marked))
    for place, image in enumerate(rows):
        differs = not torch.equal(plain.pixels[place], other.pixels[place])
        assert differs == (removed if marked[image] else pasted)


def test_a_share_of_the_images_lets_its_regions_enter(lab: Lab) -> None:
    """The others stay in the batch, as images without regions; all processes agree on which."""
    config = replace(CONFIG, method="paper")
    every = Batches(small_clip(), lab.data, config).make(3)
    some = Batches(small_clip(), lab.data, replace(config, region_share=0.5)).make(3)
    assert torch.equal(every.pixels, some.pixels)
    assert every.owner is not None
    assert some.owner is not None
    assert every.regions is not None
    assert some.regions is not None
    assert len(some.owner.unique()) == 4
    kept = torch.isin(every.owner, some.owner)
    assert torch.equal(every.regions[kept], some.regions)
    owners = []
    for i in range(2):
        half = Batches(small_clip(), lab.data, replace(config, region_share=0.5), Processes(i, 2)).make(3)
        assert half.owner is not None
        owners.append(half.owner + half.first)
    assert torch.equal(torch.cat(owners), some.owner)
    shares = {name: baselines.region_share(MitigationConfig(method=name)) for name in METHODS}
    assert shares == dict.fromkeys(METHODS, 1.0) | {"ravl": 0.25}
    assert baselines.region_share(MitigationConfig(region_share=0.7)) == 0.7


@pytest.mark.parametrize(("classes", "spurious", "pays"), [(2, 0, True), (2, 1, False), (4, 0, False), (1, 1, True)])
def test_the_first_look_at_regions_must_pay(lab: Lab, classes: int, spurious: int, pays: bool) -> None:
    """Eight images with four regions each, `spurious` of them spurious; less than two thirds must be able to enter."""
    nothing, place = torch.zeros(8, dtype=torch.long), torch.arange(32)
    batch = batching.Batch(
        torch.zeros(8, 3, 2, 2), torch.arange(8) % classes, nothing, nothing, 0, place // 4, place % 4 < spurious,
        torch.zeros(32, 16),
    )  # fmt: skip
    vlm = small_clip()
    assert gradients(vlm, objective_of(lab, vlm, lab.data, CONFIG))._pays(batch) == pays


@pytest.mark.parametrize("method", ["exchange", "erase", "upsampled", "jtt", "vl-gdro"])
def test_only_the_region_term_embeds_regions(lab: Lab, method: str) -> None:
    assert Batches(small_clip(), lab.data, replace(CONFIG, method=method)).make(0).regions is None


def test_images_are_drawn_by_their_weights(lab: Lab) -> None:
    made = Batches(small_clip(), lab.data, replace(CONFIG, method="upsampled"))
    drawn = np.concatenate([made._drawn(step) for step in range(500)])
    share = np.bincount(lab.data.group[drawn]) / len(drawn)
    assert share == pytest.approx(np.full(4, 0.25), abs=0.03)
    made = Batches(small_clip(), lab.data, replace(CONFIG, method="jtt"))
    drawn = np.concatenate([made._drawn(step) for step in range(500)])
    count = np.bincount(drawn, minlength=len(lab.data.images))
    assert count[lab.data.wrong].mean() / count[~lab.data.wrong].mean() == pytest.approx(20, rel=0.15)


def test_group_weights_survive_an_interruption(lab: Lab) -> None:
    config = replace(CONFIG, method="vl-gdro")
    whole = lab.train("gdro-whole", config)
    with pytest.raises(Stopped):
        lab.train("gdro-stopped", config, stop_after(9))
    assert_same_end(lab.train("gdro-stopped", config), whole)
    with checkpoint.safe_open(whole[2].checkpoint / "last.safetensors", framework="pt") as file:
        found = json.loads(file.metadata()["about"])["group_weights"]
    assert sum(found) == pytest.approx(1)
    assert len(set(found)) == 4


# --- gradients -------------------------------------------------------------------------------------------------------


def gradient_of(vlm: DualEncoder) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in vlm.module.named_parameters() if p.grad is not None}


def objective_of(lab: Lab, vlm: DualEncoder, data: TrainingSet, config: MitigationConfig) -> Objective:
    captions = torch.from_numpy(vlm.encode_texts(np.unique(data.caption).tolist()))
    own = data.images.caption is not None
    return Objective(torch.from_numpy(lab.text), captions, 1 / vlm.tau, config, int(data.group.max()) + 1, own)


def assert_close(got: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    assert got.keys() == want.keys()
    for name in want:
        largest = want[name].abs().max().item()
        assert torch.allclose(got[name], want[name], rtol=1e-3, atol=1e-4 * largest + 1e-8), name


@pytest.mark.parametrize("encoder", ["tokens", "crop"])
@pytest.mark.parametrize("seed", range(3))
def test_regions_that_do_not_enter_the_loss_are_not_missed(lab: Lab, encoder: str, seed: int) -> None:
    """Loss and gradient are those of all regions, embedded with gradient."""
    data, config = replace(lab.data, encoder=encoder), replace(CONFIG, method="paper", seed=seed)
    vlm, whole = small_clip(seed), small_clip(seed)
    batch = Batches(vlm, data, config).make(0)
    assert batch.owner is not None
    assert batch.spurious is not None
    assert batch.regions is not None
    rule = objective_of(lab, vlm, data, config)
    step = gradients(vlm, rule, encoder)
    got = step(batch)
    enters = step._entering(step._regions(next(gradienting._pieces(batch, 99))), batch)
    assert enters[batch.spurious].all()
    assert 8 <= int(enters.sum()) < len(enters)

    training.trainable(whole, ("tower",))
    if encoder == "tokens":
        image, region = whole.image_and_region_vectors(batch.pixels, batch.owner, batch.regions)
    else:
        image, region = whole.image_vectors(batch.pixels), whole.image_vectors(batch.regions)
    want = rule(image, batch, RegionVectors(region, batch.owner, batch.spurious))
    want.total.backward()
    assert {k: v.item() for k, v in got.named.items()} == pytest.approx(
        {k: v.item() for k, v in want.named.items()}, rel=1e-5
    )
    assert_close(gradient_of(vlm), gradient_of(whole))


@pytest.mark.parametrize("method", ["ravl", "standard", "vl-gdro"])
@pytest.mark.parametrize("encoder", ["tokens", "crop"])
@pytest.mark.parametrize("micro", [1, 3, 8])
def test_a_batch_in_pieces_has_the_gradient_of_the_whole(lab: Lab, method: str, encoder: str, micro: int) -> None:
    data, config = replace(lab.data, encoder=encoder), replace(CONFIG, method=method)
    whole, pieces = small_clip(), small_clip()
    batch = Batches(whole, data, config).make(1)
    want = gradients(whole, objective_of(lab, whole, data, config), encoder)(batch)
    step = gradients(pieces, objective_of(lab, pieces, data, config), encoder, micro=micro)
    got = step._in_pieces(batch)
    assert {k: v.item() for k, v in got.named.items()} == pytest.approx(
        {k: v.item() for k, v in want.named.items()}, rel=1e-5
    )
    assert_close(gradient_of(pieces), gradient_of(whole))


class Shares(Processes):
    """The second of three processes, in one: the others' rows are given."""

    others: ClassVar[list[list[Tensor]]] = []

    def rows(self, own: Tensor) -> Tensor:
        before, after = self.others.pop(0)
        return torch.cat([before, own, after])

    def add(self, tensors: Any) -> None:
        list(tensors)


def test_shares_of_a_batch_make_up_its_gradient(lab: Lab) -> None:
    """Three processes one after the other: each gets the others' vectors, and their gradients add up."""
    config = replace(CONFIG, batch_size=8)
    whole = small_clip()
    batch = Batches(whole, lab.data, config).make(0)
    want = gradients(whole, objective_of(lab, whole, lab.data, config))(batch)
    steps, batches = [], []
    for index in range(3):
        vlm, of = small_clip(), Processes(index, 3)
        steps.append(gradients(vlm, objective_of(lab, vlm, lab.data, config), processes=Shares(index, 3)))
        batches.append(Batches(vlm, lab.data, config, of).make(0))
    assert torch.equal(torch.cat([own.pixels for own in batches]), batch.pixels)
    assert all(torch.equal(own.label, batch.label) for own in batches)
    sent: list[list[Tensor]] = []
    with torch.no_grad():
        for step, own in zip(steps, batches, strict=True):
            image, region = step._values(own)
            enters = step._entering(region, own)
            beside = step._beside(region[enters], own, enters)
            sent.append([image, beside.vector, beside.owner, beside.spurious.long()])
    total: dict[str, Tensor] = {}
    for index, (step, own) in enumerate(zip(steps, batches, strict=True)):
        Shares.others = [
            [
                torch.cat([sent[i][kind] for i in part] or [sent[0][kind][:0]])
                for part in (range(index), range(index + 1, 3))
            ]
            for kind in range(4)
        ]
        parts = step(own)
        assert parts.total.item() == pytest.approx(want.total.item(), rel=1e-5)
        for name, gradient in gradient_of(step.vlm).items():
            total[name] = total.get(name, 0) + gradient
    assert_close(total, gradient_of(whole))


def test_shares_are_contiguous_and_even() -> None:
    for n in (0, 1, 7, 8):
        shares = [Processes(i, 3).share(n) for i in range(3)]
        assert list(chain(*shares)) == list(range(n))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert Processes().share(5) == range(5)


def test_memory_that_runs_out_makes_smaller_pieces_of_the_same_batch(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    vlm, whole = small_clip(), small_clip()
    batch = Batches(vlm, lab.data, CONFIG).make(0)
    gradients(whole, objective_of(lab, whole, lab.data, CONFIG))(batch)
    real, tried = DualEncoder.image_and_region_vectors, []

    def tight(self: DualEncoder, pixels: Tensor, *rest: Any) -> Any:
        tried.append(len(pixels))
        if len(pixels) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return real(self, pixels, *rest)

    monkeypatch.setattr(DualEncoder, "image_and_region_vectors", tight)
    step = gradients(vlm, objective_of(lab, vlm, lab.data, CONFIG), micro=8)
    step(batch)
    assert step.micro == 2
    assert tried == [8, 4, *[2] * 4, *[2] * 4]
    assert_close(gradient_of(vlm), gradient_of(whole))
    _, _, folder = lab.train("tight", replace(CONFIG, steps=2))
    (row,) = [row for row in folder.log() if "loss" in row]
    assert row["micro_batch"] == 2


def test_an_image_that_does_not_fit_is_one_sentence(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*rest: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    monkeypatch.setattr(DualEncoder, "image_and_region_vectors", full)
    with pytest.raises(RunError, match=r"one image must fit .* Tried to allocate 2 GiB\. Start again"):
        lab.train("full-memory", CONFIG)

    def broken(*rest: Any) -> Any:
        raise RuntimeError("something else")

    monkeypatch.setattr(DualEncoder, "image_and_region_vectors", broken)
    with pytest.raises(RuntimeError, match="something else"):
        lab.train("broken", CONFIG)


def test_a_training_in_small_pieces_ends_where_the_whole_one_does(
    lab: Lab, unbroken: tuple[int, DualEncoder, MitigationFolder]
) -> None:
    _, _, folder = lab.train("pieces", replace(CONFIG, micro_batch=3))
    pairs = zip(folder.log(), unbroken[2].log(), strict=True)
    assert all(a["loss"] == pytest.approx(b["loss"], rel=1e-3) for a, b in pairs if "loss" in b)


@pytest.mark.parametrize("encoder", ["tokens", "crop"])
def test_layers_that_are_computed_again_give_the_same_gradient_from_less_memory(lab: Lab, encoder: str) -> None:
    config = replace(CONFIG, method="paper")
    found, kept = [], []
    for wanted in (False, True):
        vlm = deep_clip()
        vlm.recompute(wanted)
        weights = training.trainable(vlm, METHODS["paper"].learns)
        batches = Batches(vlm, training_set(vlm, lab.folder / "train", encoder), config)
        gradients = training._gradients(vlm, batches, torch.from_numpy(lab.text), weights, Processes())
        storages: dict[int, int] = {}

        def note(tensor: Tensor, storages: dict[int, int] = storages) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            vectors = vlm.image_vectors(batches.make(0).pixels)
        assert vectors.requires_grad
        kept.append(sum(storages.values()))
        gradients(batches.make(0))
        found.append({name: weight.grad for name, weight in weights.items()})
    for name, plain in found[0].items():
        torch.testing.assert_close(found[1][name], plain, msg=name)
    assert kept[1] < 0.7 * kept[0]


def test_a_training_that_computes_layers_again_ends_where_the_plain_one_does(
    lab: Lab, unbroken: tuple[int, DualEncoder, MitigationFolder]
) -> None:
    best, _, folder = lab.train("recomputed", replace(CONFIG, gradient_checkpointing=True))
    assert best == unbroken[0]
    pairs = zip(folder.log(), unbroken[2].log(), strict=True)
    assert all(a["loss"] == pytest.approx(b["loss"], rel=1e-4) for a, b in pairs if "loss" in b)


def test_what_has_no_layers_to_compute_again_says_so(lab: Lab) -> None:
    vlm = small_clip()
    vlm.tower = WholeTower(lambda pixels: pixels.mean((2, 3)), vlm.module, torch.zeros(1, 3, 4, 4))
    vlm.recompute(False)
    with pytest.raises(ConfigError, match="--gradient-checkpointing needs a vision transformer, got small"):
        vlm.recompute(True)


# --- precision, patience, memory -------------------------------------------------------------------------------------


def test_bfloat16_is_close_and_keeps_weights_and_losses_in_float32(lab: Lab) -> None:
    assert not uses_half(CONFIG, "cpu")
    assert uses_half(CONFIG, "cuda")
    assert not uses_half(replace(CONFIG, precision="fp32"), "cuda")
    exact, half = small_clip(), small_clip()
    batch = Batches(exact, lab.data, CONFIG).make(0)
    parts = [
        gradients(vlm, objective_of(lab, vlm, lab.data, CONFIG), half=vlm is half, micro=micro)(batch).named
        for vlm, micro in ((exact, 8), (half, 8), (half, 3))
    ]
    for name, part in parts[0].items():
        assert all(other[name].dtype == torch.float32 for other in parts)
        assert [other[name].item() for other in parts[1:]] == pytest.approx([part.item()] * 2, rel=0.02)
    one, other = (torch.cat([g.flatten() for g in gradient_of(vlm).values()]) for vlm in (exact, half))
    assert torch.cosine_similarity(one, other, dim=0) > 0.95  # of the last two, the sum
    assert all(p.dtype == torch.float32 for p in half.module.parameters())
    _, _, folder = lab.train("bf16", replace(CONFIG, precision="bf16", steps=2))
    assert all(math.isfinite(v) for row in folder.log() if "loss" in row for v in row.values())


def test_training_stops_when_the_worst_group_no_longer_rises(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.1, 0.3, 0.2, 0.3, 0.2, 0.9])

    def score(*rest: Any) -> dict[str, Any]:
        return {"worst_group": next(scores), "overall": 0.5, "worst_group_name": "x"}

    monkeypatch.setattr(training, "_score", score)
    config = replace(CONFIG, steps=20, evaluate_every=2, patience=2)
    best, vlm, folder = lab.train("patient", config)
    assert best == 2
    assert [row["step"] for row in folder.log() if "overall" in row] == [0, 2, 4, 6]
    again = lab.train("patient", config)  # it does not go on
    assert again[0] == best
    assert weights(again[1]) == weights(vlm)
    assert next(scores) == 0.2


@pytest.mark.parametrize("method", ["standard", "paper"])
def test_the_memory_estimate_is_about_what_the_layers_keep(lab: Lab, method: str) -> None:
    """Counted: the weights, and every tensor that autograd keeps, once."""
    vlm, config = small_clip(), replace(CONFIG, method=method)
    learning = training.trainable(vlm, METHODS[method].learns)
    batch = Batches(vlm, lab.data, config).make(0)
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        if batch.regions is None or batch.owner is None:
            vectors = (vlm.image_vectors(batch.pixels),)
        else:
            vectors = vlm.image_and_region_vectors(batch.pixels, batch.owner, batch.regions)
    assert all(vector.requires_grad for vector in vectors)
    own = {p.untyped_storage().data_ptr(): 4 * p.numel() for p in vlm.module.parameters()}
    held = sum(size for place, size in kept.items() if place not in own)
    needed = sum(own.values()) + 12 * sum(p.numel() for p in learning.values()) + held
    assert needed * 0.95 <= estimate(vlm, lab.data, config, 8) <= needed * 1.25
    assert estimate(vlm, lab.data, config, 4) < estimate(vlm, lab.data, config, 8)
    assert estimate(vlm, lab.data, replace(CONFIG, method="dfr"), 8) < estimate(vlm, lab.data, config, 8)
    deep = deep_clip()
    plain = estimate(deep, lab.data, config, 8)
    deep.recompute(True)
    assert estimate(deep, lab.data, config, 8) < 0.8 * plain
    assert free_memory(torch.device("cpu")) > 1e6


# --- adapters --------------------------------------------------------------------------------------------------------


def test_adapters_learn_alone_and_end_as_an_ordinary_model(lab: Lab) -> None:
    pytest.importorskip("peft")
    config = replace(CONFIG, lora_rank=2, lr=1e-2)
    best, vlm, folder = lab.train("lora", config)
    assert best > 0
    before, after = small_clip().module.state_dict(), vlm.module.state_dict()
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    tower = moved - {"visual_projection.weight"}
    assert {name.split(".")[-2] for name in tower} == set(LAYERS)
    for name in tower:
        assert name.endswith("weight")
        assert torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-3) <= 2
    last = checkpoint._read(folder.checkpoint / "last.safetensors", {})[0]
    learned = {name for name in last if ":" not in name}
    assert all("lora_" in name or name == "visual_projection.weight" for name in learned)


def test_a_training_of_adapters_continues_to_the_same_bits(lab: Lab) -> None:
    pytest.importorskip("peft")
    config = replace(CONFIG, lora_rank=2, steps=8)
    with pytest.raises(Stopped):
        lab.train("lora-stopped", config, stop_after(5))
    assert_same_end(lab.train("lora-stopped", config), lab.train("lora-whole", config))


def test_adapters_without_peft_say_what_to_install(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"pip install 'ravl-dashboard\[lora\]'"):
        lab.train("no-peft", replace(CONFIG, lora_rank=2))


def test_methods_that_only_move_the_projection_need_no_adapters(lab: Lab) -> None:
    _, one, _ = lab.train("dfr-lora", replace(CONFIG, method="dfr", lora_rank=2, steps=2))
    _, two, _ = lab.train("dfr-plain", replace(CONFIG, method="dfr", steps=2))
    assert weights(one) == weights(two)
