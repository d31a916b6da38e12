"""The second look: features that fix errors and harm fall apart into what they mix, and are judged anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ravl import audit
from ravl.config import AuditConfig, ClusteringConfig, EvidenceConfig, FamiliesConfig, PromptsConfig, RegionsConfig
from ravl.discovery.clustering import cluster
from ravl.discovery.dividing import divided, mixed
from ravl.discovery.families import group
from ravl.discovery.scoring import score_features
from ravl.store import AuditRun
from ravl.tables import NOISE, Regions
from tests.test_evidence import Case, as_if_never_there
from tests.test_families import clustering_of, direction, scores_with
from tests.toys import COLOURS, ColourModel, painted_folder

ANY = AuditConfig("images", "model")


def test_a_feature_that_fixes_errors_and_harms_is_mixed() -> None:
    case = Case()
    right = case.predicted == case.label
    fixes = as_if_never_there(case)
    both = case.weigh(case.answers(lambda i, o: 2 if right[i] and case.label[i] != 2 else fixes(i, o)))
    assert both.reason[0] == "harm"
    assert mixed(both, ANY).tolist() == [0]
    asked = replace(ANY, evidence=EvidenceConfig(min_effect=1.0))
    assert mixed(both, asked).tolist() == []


def test_features_that_are_causal_or_fix_nothing_are_left_alone() -> None:
    case = Case()
    causal = case.weigh(case.answers(as_if_never_there(case)))
    idle = case.weigh(case.answers(lambda i, o: case.predicted[i]))
    assert (causal.grade[0], idle.grade[0]) == ("causal", "context")
    assert not len(mixed(causal, ANY))
    assert not len(mixed(idle, ANY))


def things(seed: int = 0) -> tuple[np.ndarray, np.ndarray, Regions]:
    """Two things that lie close together, and a third one far from both: vectors, what they are, and regions."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    truth = rng.permutation(np.repeat([0, 1, 2], [60, 40, 100]))
    centers = np.stack([axes[0] + 0.5 * axes[1], axes[0] + 0.5 * axes[2], -axes[0]])
    vectors = (centers[truth] + rng.normal(scale=0.03, size=(200, 12))).astype(np.float32)
    return vectors, truth, Regions(np.arange(200), np.tile([0, 0, 4, 4], (200, 1)), np.full(200, -1), 200)


@pytest.mark.parametrize("method", ["hdbscan", "kmedoids"])
def test_a_divided_feature_falls_apart_and_nothing_else_changes(method) -> None:
    vectors, truth, regions = things()
    config = replace(ANY, clustering=ClusteringConfig(method, k=2, min_cluster_size=15, max_spread=1.0))
    before = cluster(
        vectors, regions, 2, replace(config.clustering, k=2, min_cluster_size=80), np.random.default_rng(0)
    )
    assert before.n_clusters == 2
    [both] = set(before.label[truth < 2].tolist())
    found = divided(before, vectors, regions.position, before.label, np.array([both]), config)
    assert found is not None
    after, parts = found
    assert after.n_clusters == 3
    for kind in (0, 1, 2):
        [label] = set(after.label[(truth == kind) & (after.label != NOISE)].tolist())
        assert parts[label] == (kind < 2)
        assert np.mean(after.label[truth == kind] == label) > 0.8
        assert truth[after.medoid[label]] == kind
    assert np.array_equal(after.label[truth == 2] != NOISE, before.label[truth == 2] != NOISE)


def test_what_does_not_fall_apart_stays() -> None:
    vectors, truth, regions = things()
    config = replace(ANY, clustering=ClusteringConfig(min_cluster_size=15))
    before = cluster(vectors, regions, 2, replace(config.clustering, min_cluster_size=80), np.random.default_rng(0))
    [far] = set(before.label[truth == 2].tolist())
    assert divided(before, vectors, regions.position, before.label, np.array([far]), config) is None
    assert divided(before, vectors, regions.position, before.label, np.zeros(0, int), config) is None


def test_parts_are_not_put_together_again_for_being_near() -> None:
    clustering, scores = clustering_of([direction(0), direction(5), direction(8)]), scores_with(np.zeros((3, 4)))
    near = group(clustering, scores, FamiliesConfig())
    assert near.family.tolist() == [0, 0, 0]
    apart = group(clustering, scores, FamiliesConfig(), parts=np.array([False, True, False]))
    assert apart.family[0] == apart.family[2] != apart.family[1]


# --- in an audit ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return painted_folder(tmp_path_factory.mktemp("colours"), 80)


def configured(images: Path, second_look: bool = True) -> AuditConfig:
    return AuditConfig(
        str(images),
        "colours",
        regions=RegionsConfig(k=2),
        prompts=PromptsConfig(tuple(COLOURS)),
        clustering=ClusteringConfig("kmedoids", k=2),
        families=FamiliesConfig(enabled=False),
        evidence=EvidenceConfig(second_look=second_look),
    )


def test_an_audit_looks_twice_and_shows_the_parts(images, tmp_path, monkeypatch) -> None:
    once = audit.discover(configured(images, False), ColourModel(), tmp_path, "once", until="evidence")
    monkeypatch.setattr(audit, "mixed", lambda evidence, config: np.array([0], np.int32))
    twice = audit.discover(configured(images), ColourModel(), tmp_path, "twice", until="evidence")
    assert once.revision == 0
    assert twice.revision == 1
    assert twice.about["n_divided"] == 1
    first = once.feature_label() == 0
    assert len(set(twice.feature_label()[first].tolist())) == 2
    assert len(set(twice.feature_label()[~first].tolist())) == 1
    scores = twice.features()
    expected = score_features(
        twice.regions(), twice.zero_shot(), twice.feature_label(), twice.families().n_features, twice.config.scoring
    )
    np.testing.assert_array_equal(scores.n_regions, expected.n_regions)
    assert sorted(twice.evidence().feature.tolist()) == sorted(scores.feature.tolist())


def test_an_audit_that_was_killed_at_the_second_look_ends_as_an_unbroken_one(images, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(audit, "mixed", lambda evidence, config: np.array([0], np.int32))
    whole = audit.discover(configured(images), ColourModel(), tmp_path / "whole", "run")
    with monkeypatch.context() as broken:

        def killed(*_: object, **__: object) -> None:
            if broken_runs:
                raise KeyboardInterrupt
            broken_runs.append(1)

        broken_runs: list[int] = []
        original = audit.exemplars
        broken.setattr(audit, "exemplars", lambda *a, **k: killed() or original(*a, **k))
        with pytest.raises(KeyboardInterrupt):
            audit.discover(configured(images), ColourModel(), tmp_path / "broken", "run")
    again = audit.discover(configured(images), ColourModel(), tmp_path / "broken", "run")
    assert again.finished
    assert again.revision == whole.revision == 1
    files = {path.relative_to(whole.path) for path in whole.path.rglob("*") if path.suffix in (".npz", ".npy")}
    assert len(files) > 12
    for file in files:
        assert (again.path / file).read_bytes() == (whole.path / file).read_bytes(), file


def test_a_persons_features_are_not_divided_when_the_command_runs_again(images, tmp_path, monkeypatch) -> None:
    run = audit.discover(configured(images), ColourModel(), tmp_path, "run")
    audit.regroup(run, ColourModel(), lambda f: f)
    monkeypatch.setattr(audit, "mixed", lambda evidence, config: pytest.fail("looked again"))
    assert audit.discover(configured(images), ColourModel(), tmp_path, "run").revision == AuditRun(run.path).revision
