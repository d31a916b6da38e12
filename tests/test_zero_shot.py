from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ravl.config import PromptsConfig
from ravl.discovery import zero_shot
from ravl.discovery.zero_shot import class_vectors, classify, product
from ravl.errors import ConfigError, RunError
from tests import oracles
from tests.toys import ColourModel


class Recorder(ColourModel):
    """Remembers every prompt; its vectors depend on the whole text and are not of unit length."""

    def encode_texts(self, texts):
        self.seen = [*getattr(self, "seen", []), *texts]
        return np.array([[len(t), t.count("a") + 1, t.count(" ")] for t in texts], np.float32)


def test_prompts_are_normalised_averaged_and_normalised_again():
    model = Recorder()
    found = class_vectors(model, ["cat", "polar_bear"], PromptsConfig(templates=("a photo of {}", "{}!")))
    for row, prompts in zip(found, [("a photo of cat", "cat!"), ("a photo of polar bear", "polar bear!")], strict=True):
        parts = [np.array([len(t), t.count("a") + 1, t.count(" ")], float) for t in prompts]
        mean = sum(p / np.linalg.norm(p) for p in parts) / len(parts)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), rtol=1e-5)
    assert sorted(model.seen) == sorted(["a photo of cat", "cat!", "a photo of polar bear", "polar bear!"])
    assert found.dtype == np.float32


def test_configured_names_replace_those_of_the_images():
    model = Recorder()
    class_vectors(model, ["0", "1"], PromptsConfig(classes=("zero", "one"), templates=("{}",)))
    assert model.seen == ["zero", "one"]


def test_other_braces_are_left_alone():
    model = Recorder()
    class_vectors(model, ["a{b"], PromptsConfig(templates=("{} {x}",)))
    assert model.seen == ["a{b {x}"]


def test_many_classes_are_encoded_in_blocks(monkeypatch):
    names, prompts = [f"n{'a' * j}" for j in range(7)], PromptsConfig()
    whole = class_vectors(Recorder(), names, prompts)
    monkeypatch.setattr(zero_shot, "_TEXTS", 2)
    np.testing.assert_array_equal(class_vectors(Recorder(), names, prompts), whole)


def test_a_wrong_number_of_names_is_refused():
    with pytest.raises(ConfigError, match=r"must name the 3 classes.*got 2: cat, dog.*has a, b, c"):
        class_vectors(ColourModel(), ["a", "b", "c"], PromptsConfig(classes=("cat", "dog")))


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 5),
    st.integers(0, 7),
    st.integers(1, 4),
    st.integers(1, 6),
    st.sampled_from([0.01, 0.07, 1.0]),
    st.integers(0, 99),
)
def test_probabilities_equal_the_definition(n_images, n_regions, n_classes, dim, tau, seed):
    rng = np.random.default_rng(seed)
    image, region = rng.normal(size=(n_images, dim)), rng.normal(size=(n_regions, dim)).astype(np.float16)
    text, label = rng.normal(size=(n_classes, dim)), rng.integers(0, n_classes, n_images)
    found = classify(image, region, text, label, tau)
    assert found.image.shape == (n_images, n_classes)
    assert found.region.shape == (n_regions, n_classes)
    for row, vector in [*zip(found.image, image, strict=True), *zip(found.region, region, strict=True)]:
        np.testing.assert_allclose(row, oracles.probabilities(vector, text, tau), atol=2e-4)


def test_blocks_and_storage_do_not_matter(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    stored = np.lib.format.open_memmap(tmp_path / "r.npy", mode="w+", dtype=np.float16, shape=(23, 5))
    stored[:] = rng.normal(size=(23, 5))
    text, label = rng.normal(size=(3, 5)), np.zeros(2, int)
    whole = classify(np.eye(2, 5), np.array(stored), text, label, 0.07)
    monkeypatch.setattr(zero_shot, "_BLOCK", 4)
    np.testing.assert_allclose(classify(np.eye(2, 5), stored, text, label, 0.07).region, whole.region, atol=1e-6)


def test_prediction_does_not_depend_on_tau_or_length():
    rng = np.random.default_rng(3)
    image, text, label = rng.normal(size=(50, 8)), rng.normal(size=(4, 8)), np.zeros(50, int)
    region = np.zeros((0, 8))
    first = classify(image, region, text, label, 0.07).predicted
    assert np.array_equal(first, classify(image * 3, region, text * 2, label, 0.5).predicted)
    assert len(set(first)) == 4


def test_a_sharp_tau_does_not_overflow():
    found = classify(np.eye(2), np.eye(2), np.eye(2), np.array([0, 1]), 1e-4)
    np.testing.assert_array_equal(found.image, np.eye(2))


def test_products_are_checked_by_their_result_not_by_the_processors_flags():
    assert product(np.eye(2), np.array([[1, 2], [3, 4]])).tolist() == [[1, 2], [3, 4]]
    assert product(np.zeros((0, 2)), np.eye(2)).shape == (0, 2)
    with pytest.raises(FloatingPointError, match="must be finite"):
        product(np.array([[np.inf, 1]]), np.array([[0.0], [1.0]]))


def test_one_class_is_certain_and_a_zero_vector_is_undecided():
    assert classify(np.ones((2, 3)), np.ones((1, 3)), np.ones((1, 3)), np.zeros(2, int), 0.07).image.tolist() == [
        [1],
        [1],
    ]
    assert classify(np.zeros((1, 2)), np.zeros((0, 2)), np.eye(2), np.zeros(1, int), 0.07).image.tolist() == [
        [0.5, 0.5]
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tau": 0.0}, "tau must be positive, got 0.0"),
        ({"tau": float("nan")}, "tau must be positive"),
        ({"text": np.zeros((0, 2))}, "at least one class"),
        ({"label": np.zeros(3, int)}, "one entry per image, got 3 for 2"),
        ({"region_vec": np.ones((2, 5))}, r"region_vec must have shape \(n, 2\)"),
        ({"region_vec": np.array([[1, 1], [np.nan, 1]])}, "region_vec must be finite, got NaN or infinity in row 1"),
        ({"image_vec": np.array([[1, np.inf], [1, 1]])}, "image_vec must be finite.*row 0"),
    ],
)
def test_wrong_arguments_are_refused(change, message):
    given_ = {
        "image_vec": np.eye(2),
        "region_vec": np.eye(2),
        "text": np.eye(2),
        "label": np.zeros(2, int),
        "tau": 0.07,
    }
    with pytest.raises(ValueError, match=message):
        classify(**(given_ | change))


@pytest.mark.parametrize("call", [True, False])
def test_a_full_disk_is_told_before_it_is_mapped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: bool) -> None:
    """A mapping of a file without blocks would end the process with SIGBUS. call: the system can reserve them."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    class Full:
        __enter__, __exit__, tell, write = (lambda self: self), (lambda *_: None), (lambda self: 0), full
        fileno = tell

    monkeypatch.setattr(zero_shot, "_IN_MEMORY", 0)
    monkeypatch.setattr(zero_shot.tempfile, "TemporaryFile", Full)
    monkeypatch.setattr(zero_shot.tempfile, "gettempdir", lambda: str(tmp_path))
    if call:
        monkeypatch.setattr(os, "posix_fallocate", full)
    else:
        monkeypatch.delattr(os, "posix_fallocate")
    with pytest.raises(RunError, match=rf"^{tmp_path} must have 0 MiB free .*: No space left on device\. Free some"):
        classify(np.eye(2), np.eye(2), np.eye(2), np.array([0, 1]), 0.1)


@pytest.mark.parametrize("call", [True, False])
def test_scores_in_a_file_have_their_room(monkeypatch: pytest.MonkeyPatch, call: bool) -> None:
    want = classify(np.eye(2), np.eye(2), np.eye(2), np.array([0, 1]), 0.1)
    if not call:
        monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.setattr(zero_shot, "_IN_MEMORY", 0)
    found = classify(np.eye(2), np.eye(2), np.eye(2), np.array([0, 1]), 0.1)
    assert np.array_equal(found.region, want.region)
