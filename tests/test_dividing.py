"""The second look: features that fix errors and harm fall apart into what they mix, and are judged anew."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from ravl import audit
from ravl.config import AuditConfig, ClusteringConfig, EvidenceConfig, FamiliesConfig, PromptsConfig, RegionsConfig
from ravl.discovery import dividing
from ravl.discovery.clustering import cluster
from ravl.discovery.dividing import Division, divided, divisions, gathered, mixed, worth_keeping
from ravl.discovery.families import group
from ravl.discovery.scoring import score_features
from ravl.store import AuditRun
from ravl.tables import NOISE, Evidence, Exemplars, Regions
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


def judged(flagged: bool, reason: str, share: float, feature: int = 0) -> Evidence:
    """Evidence of one feature that removal does what `reason` says to; fixes all errors beyond the control."""
    case = Case()
    made = case.weigh(case.answers(as_if_never_there(case)))
    one = {"feature": np.array([feature]), "flagged": np.array([flagged]), "error_share": np.array([share])}
    return replace(made, **one, reason=np.array([reason]), grade=np.array(["causal" if flagged else "core"]))


def exemplars_of(feature: int, region: np.ndarray) -> Exemplars:
    none = np.zeros(len(region))
    return Exemplars(np.full(len(region), feature), region, region, none, none, none, none)


@pytest.mark.parametrize("method", ["hdbscan", "kmedoids"])
@pytest.mark.parametrize("reason", ["harm", "causal"])
def test_a_divided_feature_falls_apart_and_nothing_else_changes(method, reason) -> None:
    vectors, truth, regions = things()
    config = replace(ANY, clustering=ClusteringConfig(method, k=2, min_cluster_size=15, max_spread=1.0))
    before = cluster(
        vectors, regions, 2, replace(config.clustering, k=2, min_cluster_size=80), np.random.default_rng(0)
    )
    assert before.n_clusters == 2
    [both] = set(before.label[truth < 2].tolist())
    evidence = judged(reason == "causal", reason, 0.5, both)
    shown = exemplars_of(both, np.flatnonzero(truth == 1)[:20])
    found = divisions(before, vectors, regions.position, before.label, evidence, shown, config)
    assert list(found) == [both]
    after, parts = divided(before, vectors, regions.position, found.values())
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
    [both] = set(before.label[truth < 2].tolist())
    arguments = (before, vectors, regions.position, before.label)
    shown = exemplars_of(far, np.flatnonzero(truth == 2)[:20])
    assert not divisions(*arguments, judged(True, "causal", 0.5, far), shown, config)
    assert not divisions(*arguments, judged(False, "no effect", 0.5, both), exemplars_of(both, shown.region), config)


def test_a_flagged_feature_whose_exemplars_lie_everywhere_is_left_alone() -> None:
    vectors, truth, regions = things()
    config = replace(ANY, clustering=ClusteringConfig(min_cluster_size=15))
    before = cluster(vectors, regions, 2, replace(config.clustering, min_cluster_size=80), np.random.default_rng(0))
    [both] = set(before.label[truth < 2].tolist())
    everywhere = np.concatenate([np.flatnonzero(truth == 0)[:12], np.flatnonzero(truth == 1)[:8]])
    arguments = (before, vectors, regions.position, before.label)
    assert not divisions(*arguments, judged(True, "causal", 0.5, both), exemplars_of(both, everywhere), config)
    assert divisions(*arguments, judged(False, "harm", 0.5, both), exemplars_of(both, everywhere), config)


def test_gathered_is_the_exact_chance_of_a_draw_without_replacement() -> None:
    part = np.repeat([NOISE, 0, 1], [2, 3, 5])
    strongest = np.array([0, 1, 1, 1, 1, 0, 0, 0, 0, 0], bool)
    draws = list(combinations(range(10), 4))
    p = np.mean([np.isin([2, 3, 4], chosen).all() for chosen in draws])  # all three of part 0 among four
    assert gathered(part, strongest, 2 * p + 1e-6)
    assert not gathered(part, strongest, 2 * p - 1e-6)
    assert not gathered(np.full(10, NOISE), strongest, 0.99)


def test_gathered_is_rarely_true_by_chance() -> None:
    rng = np.random.default_rng(0)
    part = np.repeat([NOISE, 0, 1, 2], [40, 60, 50, 50])
    strongest = np.arange(200) < 24
    found = np.mean([gathered(part, rng.permutation(strongest), 0.05) for _ in range(2000)])
    assert found < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)


@pytest.mark.parametrize(("share", "kept"), [(0.31, False), (0.32, True)])
def test_a_flagged_feature_stays_divided_where_its_parts_explain_more_errors_per_region(share, kept) -> None:
    whole = Division(np.arange(100), np.repeat([0, 1], [50, 50]))
    feature_after = np.repeat([3, 4, 5], [50, 50, 20])
    before = judged(True, "causal", 0.5, 7)
    # half as many regions: 1.25 times as dense from a share of .3125 on
    after = judged(True, "causal", share, 3)
    assert list(worth_keeping({7: whole}, before, after, feature_after)) == ([7] if kept else [])
    assert not worth_keeping({7: whole}, before, judged(False, "support", 1.0, 3), feature_after)
    assert not worth_keeping({7: whole}, before, judged(True, "causal", 1.0, 5), feature_after)
    harmful = judged(False, "harm", 0.5, 7)
    assert list(worth_keeping({7: whole}, harmful, judged(False, "support", 0.0, 3), feature_after)) == [7]


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


@pytest.fixture
def divide_first(monkeypatch):
    """Makes an audit look again at its feature 0, whatever that does, and keep the parts or not."""

    def prepare(kept: bool = True) -> None:
        monkeypatch.setattr(dividing, "mixed", lambda evidence, config: np.array([0], np.int32))
        monkeypatch.setattr(audit, "worth_keeping", lambda looked, *_: looked if kept else {})

    return prepare


def test_an_audit_looks_twice_and_shows_the_parts(images, tmp_path, divide_first) -> None:
    once = audit.discover(configured(images, False), ColourModel(), tmp_path, "once", until="evidence")
    divide_first()
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


def test_a_division_that_explains_no_more_is_taken_back(images, tmp_path, divide_first) -> None:
    once = audit.discover(configured(images, False), ColourModel(), tmp_path, "once")
    divide_first(kept=False)
    for _ in range(2):  # the same command again changes nothing
        twice = audit.discover(configured(images), ColourModel(), tmp_path, "twice")
        assert twice.revision == 0
        assert "n_divided" not in twice.about
        np.testing.assert_array_equal(twice.feature_label(), once.feature_label())
        np.testing.assert_array_equal(twice.evidence().fixed, once.evidence().fixed)
    # a person's change does not take the rejected parts for her own
    divide_first()
    changed = audit.regroup(twice, ColourModel(), lambda families: families)
    np.testing.assert_array_equal(changed.feature_label(), once.feature_label())


def test_an_audit_that_was_killed_at_the_second_look_ends_as_an_unbroken_one(
    images, tmp_path, monkeypatch, divide_first
) -> None:
    divide_first()
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
    monkeypatch.setattr(audit, "divisions", lambda *_: pytest.fail("looked again"))
    assert audit.discover(configured(images), ColourModel(), tmp_path, "run").revision == AuditRun(run.path).revision
