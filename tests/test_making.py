"""A person makes a feature of regions: they leave their clusters, and all later steps treat it like any other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ravl import api, audit, cli, stages, vlm
from ravl.config import AuditConfig, ClusteringConfig, PromptsConfig
from ravl.discovery.clustering import MEMBER_PERCENTILE, assign, cluster, reduce
from ravl.discovery.making import MIN_REGIONS, made
from ravl.errors import ConfigError, RunError
from ravl.export import confirmed
from ravl.ledger import Ledger
from ravl.planted.digits import CLASSES, TARGET
from ravl.store import AuditRun
from ravl.store.run import REVISED
from ravl.tables import NOISE, Clustering, Families, Regions, columns
from tests.worlds import digit_folder

N = 240


@pytest.fixture
def parts() -> tuple[Clustering, Families, np.ndarray, np.ndarray]:
    """Three clusters of 40, 30 and 20 vectors and ten that fit nowhere, over four positions."""
    rng = np.random.default_rng(0)
    centers = np.eye(6)[[0, 1, 2]] * 8
    rows = np.concatenate([rng.normal(c, 0.4, (n, 6)) for c, n in zip(centers, (40, 30, 20), strict=True)])
    rows = np.concatenate([rows, rng.normal(0, 3, (10, 6))]).astype(np.float32)
    order = rng.permutation(len(rows))
    position = np.arange(100) % 4
    regions = Regions(np.repeat(np.arange(25), 4), np.tile([0, 0, 4, 4], (100, 1)), position, 25)
    config = ClusteringConfig("kmedoids", k=3)
    found = cluster(rows[order], regions, 2, config, np.random.default_rng(1))
    return found, Families(np.arange(3), [""] * 3), rows[order], position


def closest(clustering: Clustering, rows: np.ndarray, position: np.ndarray, members: np.ndarray) -> tuple[int, float]:
    """The medoid by its definition, and the 5th percentile of the cosines to it."""
    vectors = reduce(clustering, rows[members], position[members]).astype(float)
    cosines = vectors @ vectors.T
    best = int(np.argmax(cosines.sum(1)))
    return int(members[best]), float(np.percentile(cosines[best], MEMBER_PERCENTILE))


def test_the_regions_leave_their_clusters(parts) -> None:
    before, families, rows, position = parts
    label = families.features_of(before.label)
    chosen = np.concatenate([np.flatnonzero(label == 0)[:12], np.flatnonzero(label == 1)[:5]])
    after, joined = made(before, families, rows, position, chosen[::-1])
    now = joined.features_of(after.label)
    assert now.tolist() == np.where(np.isin(np.arange(100), chosen), 3, label).tolist()
    sizes = np.bincount(after.label[after.label >= 0])
    assert sizes.tolist() == sorted(sizes.tolist(), reverse=True)
    for feature in (0, 1, 3):
        [own] = joined.clusters_of(feature)
        medoid, lowest = closest(before, rows, position, np.flatnonzero(now == feature))
        assert after.medoid[own] == medoid
        assert after.min_similarity[own] == pytest.approx(lowest, abs=1e-5)
        assert np.allclose(after.medoid_vector[own], reduce(before, rows[[medoid]], position[[medoid]])[0])
    [same], [old] = joined.clusters_of(2), families.clusters_of(2)
    for name in ("medoid", "medoid_vector", "min_similarity"):
        assert np.array_equal(getattr(after, name)[same], getattr(before, name)[old])
    others = np.setdiff1d(np.arange(100), chosen)
    assert np.array_equal(after.strength[others], before.strength[others])
    assert before.label.tolist() != after.label.tolist()
    # new regions that equal the medoids join their features by the ordinary rule
    medoids = after.medoid.astype(int)
    assert assign(after, rows[medoids], position[medoids]).tolist() == list(range(after.n_clusters))


def test_a_feature_that_loses_all_is_without_clusters_and_its_id_stays_retired(parts) -> None:
    before, families, rows, position = parts
    label = families.features_of(before.label)
    chosen = np.concatenate([np.flatnonzero(label == 2), np.flatnonzero(label == 0)[:1]])
    after, joined = made(before, families, rows, position, chosen)
    assert sorted(joined.family.tolist()) == [0, 1, 3]
    assert after.n_clusters == 3
    more = np.append(chosen, np.flatnonzero(label == 1)[0])
    last, again = made(after, joined, rows, position, more)
    assert sorted(again.family.tolist()) == [0, 1, 4]
    assert np.flatnonzero(again.features_of(last.label) == 4).tolist() == sorted(more.tolist())


def test_a_family_of_which_one_cluster_is_left_is_joined_by_nothing(parts) -> None:
    before, _, rows, position = parts
    families = Families([0, 0, 1], ["near", "near", ""])
    _, joined = made(before, families, rows, position, np.flatnonzero(before.label == 1))
    assert sorted(zip(joined.family.tolist(), joined.reason.tolist(), strict=True)) == [(0, ""), (1, ""), (2, "")]


@pytest.mark.parametrize(
    ("regions", "sentence"),
    [
        (range(MIN_REGIONS - 1), f"at least {MIN_REGIONS} regions, got {MIN_REGIONS - 1}"),
        ([3] * 40, "got 1"),
        ([], "got 0"),
        (range(95, 110), "0 .. 99, got 95 .. 109"),
        (range(-2, 30), "0 .. 99, got -2 .. 29"),
    ],
)
def test_what_cannot_be_a_feature(parts, regions, sentence) -> None:
    with pytest.raises(ConfigError, match=sentence):
        made(*parts, np.array(regions, int))


def test_what_is_a_feature_already(parts) -> None:
    before, families, rows, position = parts
    with pytest.raises(ConfigError, match="those of feature 1"):
        made(before, families, rows, position, np.flatnonzero(before.label == 1))
    flat = np.zeros_like(rows)
    with pytest.raises(ConfigError, match="equal the mean of their position"):
        made(before, families, flat + before.position_mean[0], np.zeros(100, int), np.arange(12))


# --- a planted run ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> tuple[AuditRun, np.ndarray]:
    """An audit of the demo model whose two clusters are too coarse for the mark, and the ids of the mark's regions."""
    root = tmp_path_factory.mktemp("planted")
    folder, world = digit_folder(root / "images", N, seed=7)
    config = AuditConfig(
        str(folder), "demo", prompts=PromptsConfig(CLASSES), clustering=ClusteringConfig("kmedoids", k=2)
    )
    run = audit.discover(config, vlm.load("demo", "cpu"), root / "w", "planted", until="evidence")
    number = np.array([int(Path(str(file)).stem) for file in run.images().file])
    cell = world.mark_cell[number]
    return run, np.flatnonzero(cell >= 0) * 4 + cell[cell >= 0]


def test_the_marks_regions_become_a_flagged_feature_with_the_pull_class(planted, tmp_path) -> None:
    run, marks = planted
    before, features = run.feature_label(), {stage: run.load(stage) for stage in ("features", "families", "clusters")}
    file = tmp_path / "regions.json"
    file.write_text(json.dumps(marks.tolist()))
    arguments = ["feature", "--workspace", str(run.path.parents[1]), "--run", run.id, "--regions", str(file)]
    assert cli.main([*arguments, "--name", "red square", "--reviewer", "Ada"]) == 0
    changed = AuditRun(run.path)
    new = features["families"].n_features
    label = changed.feature_label()
    assert np.array_equal(np.flatnonzero(label == new), marks)
    others = np.setdiff1d(np.arange(len(label)), marks)
    assert np.array_equal(label[others], before[others])
    place = changed.evidence().feature.tolist().index(new)
    assert changed.evidence().flagged[place]
    scores = changed.features()
    assert CLASSES[scores.pull_class[scores.row_of(new)]] == TARGET
    assert new in changed.exemplars().feature
    assert new in changed.counterfactuals().feature
    untouched = np.setdiff1d(np.unique(before), np.append(before[marks], NOISE))
    for feature in untouched.tolist():
        for name in ("n_images", "gap", "influence"):
            was, now = getattr(features["features"], name), getattr(scores, name)
            assert was[features["features"].row_of(feature)] == pytest.approx(now[scores.row_of(feature)], nan_ok=True)
    ledger = Ledger(run.path.parents[1])
    [row] = ledger.groupings(run.id)
    assert (row.kind, row.made, row.reviewer, row.note) == ("select", (new,), "Ada", "red square")
    assert row.features == tuple(sorted(set(before[marks].tolist()) - {NOISE}))
    assert ledger.names(run.id) == {new: "red square"}
    ledger.add_verdict(run.id, new, TARGET, "spurious", "Ada", "seen", "red square")
    [listed] = confirmed(changed, ledger)["features"]
    assert [region["region"] for region in listed["regions"]] == marks.tolist()
    ledger.close()
    assert AuditRun(run.path).revision == 1
    assert columns(AuditRun(run.path).clustering())["label"].tolist() != features["clusters"].label.tolist()


def test_a_later_change_keeps_the_regions_of_a_made_feature(planted) -> None:
    """Runs after the test above: a merge of the made feature with another one."""
    run = AuditRun(planted[0].path)
    assert run.revision == 1
    new = run.families().n_features - 1
    other = next(f for f in run.families().family.tolist() if f != new)
    label = run.feature_label()
    merged = api.regroup(run, "merge", [new, other], "Bo", device="cpu")
    assert np.array_equal(
        np.flatnonzero(merged.feature_label() == new + 1), np.flatnonzero(np.isin(label, [new, other]))
    )


def test_an_interrupted_change_shows_nothing_and_is_not_mixed_with_another(planted, monkeypatch) -> None:
    run, marks = AuditRun(planted[0].path), planted[1]
    number, label = run.revision, run.feature_label().tolist()
    model = vlm.load("demo", "cpu")
    with monkeypatch.context() as broken:
        broken.setattr(stages, "weigh", lambda *_: (_ for _ in ()).throw(RunError("disk full")))
        with pytest.raises(RunError, match="disk full"):
            audit.add_feature(run, model, marks[:60])
    again = AuditRun(run.path)
    assert again.revision == number
    assert again.feature_label().tolist() == label
    plain = audit.regroup(again, model, lambda families: families)
    assert plain.feature_label().tolist() == label
    last = audit.add_feature(AuditRun(run.path), model, marks[:60])
    assert np.count_nonzero(last.feature_label() == last.families().n_features - 1) == 60
    assert all(last.has(stage) for stage in REVISED)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("4,5", "at least 10 regions, got 2"),
        ("nowhere.json", "nowhere.json' cannot be read"),
        ("object.json", "must be a JSON list of region ids"),
        ("broken.json", "must be a JSON list of region ids"),
        ("text.json", "must be a JSON list of region ids"),
    ],
)
def test_bad_regions_are_a_sentence(planted, given, sentence, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("object.json").write_text('{"regions": [1]}')
    Path("broken.json").write_text("[1, 2")
    Path("text.json").write_text('["1", true, -4]')
    run = planted[0]
    arguments = ["feature", "--workspace", str(run.path.parents[1]), "--run", run.id, f"--regions={given}"]
    assert cli.main([*arguments, "--name", "x", "--reviewer", "Ada"]) == 2
    assert sentence in capsys.readouterr().err
    for name, reviewer in ((" ", "Ada"), ("x", " ")):
        assert cli.main([*arguments[:-1], "--regions=1,2", f"--name={name}", f"--reviewer={reviewer}"]) == 2
        assert "must be a name, got none" in capsys.readouterr().err
