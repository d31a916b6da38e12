"""A person merges or splits features: what they touch gets new ids and is scored again, the rest stays as it is."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ravl import api, audit, export, stages
from ravl.cli import main
from ravl.discovery.families import merge, split
from ravl.discovery.scoring import score_features
from ravl.errors import ConfigError, ModelError, RunError
from ravl.ledger import Ledger, seen_digest
from ravl.store import AuditRun
from ravl.store.run import REVISED
from ravl.tables import columns
from tests.toys import ColourModel, painted_folder, small_audit


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return painted_folder(tmp_path_factory.mktemp("colours"), 120)


@pytest.fixture
def run(images, tmp_path) -> AuditRun:
    return small_audit(images, tmp_path / "workspace")


def content(run: AuditRun) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file() and path.name != "run.json"}


def test_merged_features_are_one(run):
    label, features = run.feature_label(), run.features().feature.tolist()
    first, second = features[:2]
    before, old = content(run), {s: run.load(s) for s in REVISED}
    new = old["families"].n_features
    merged = audit.regroup(run, ColourModel(), lambda f: merge(f, [first, second]))
    expected = np.where(np.isin(label, [first, second]), new, label)
    assert np.array_equal(merged.feature_label(), expected)
    scores = score_features(run.regions(), run.zero_shot(), expected, new + 1, run.config.scoring)
    assert merged.features().n_images[merged.features().row_of(new)] == scores.n_images[scores.row_of(new)]
    assert first not in merged.evidence().feature[merged.evidence().tested]
    assert content(run) == before  # what was computed stays
    assert AuditRun.find(run.path.parents[1], "small").revision == 1
    untouched = [f for f in features[2:] if f in merged.features().feature]
    assert untouched
    for f in untouched:
        for name in ("n_images", "gap", "influence"):
            was, now = getattr(old["features"], name), getattr(merged.features(), name)
            assert was[old["features"].row_of(f)] == pytest.approx(now[merged.features().row_of(f)], nan_ok=True)


def test_what_a_merge_retired_is_neither_listed_nor_taken(run, capsys):
    a, b, other = run.features().feature[:3].tolist()
    with closing(Ledger(run.path.parents[1])) as book:
        for feature in (a, other):
            seen = seen_digest(np.flatnonzero(run.feature_label() == feature))
            book.add_verdict(run.id, feature, "", "spurious", "Ada", seen, f"feature {feature}")
    new = run.families().n_features
    left = {*run.features().feature.tolist(), new} - {a, b}
    merged = audit.regroup(run, ColourModel(), lambda f: merge(f, [a, b]))
    place = ("--run", run.id, "--workspace", str(run.path.parents[1]))

    assert main(["show", *place, "--json"]) == 0
    listed = [entry["feature"] for entry in json.loads(capsys.readouterr().out)["features"]]
    assert listed == [f for f in merged.evidence().feature.tolist() if f in left]
    assert set(listed) == left
    assert main(["show", *place]) == 0
    assert f" of {len(left)} features flagged" in capsys.readouterr().out

    decide = ("verdict", *place, "--decision", "core", "--reviewer", "Ada", "--feature")
    assert main([*decide, str(new)]) == 0
    for command in ((*decide, str(a)), ("regroup", *place, "--reviewer", "Ada", "--merge", f"{a},{other}")):
        assert main(list(command)) == 2
        assert f"got {a}. ravl show lists them." in capsys.readouterr().err
    assert api.confirmed_features(merged) == {other: f"feature {other}"}
    with closing(Ledger(run.path.parents[1])) as book:
        exported = {entry["feature"]: entry for entry in export.confirmed(merged, book)["features"]}
    assert (exported[a]["scores"], exported[a]["regions"]) == (None, [])
    assert exported[other]["scores"]["n_regions"] == len(exported[other]["regions"]) > 0


def test_what_was_merged_can_be_split(run):
    families, was = run.families(), run.feature_label()
    a, b = run.features().feature[:2].tolist()
    merged = audit.regroup(run, ColourModel(), lambda f: merge(f, [a, b]))
    new = int(families.family.max()) + 1
    again = audit.regroup(merged, ColourModel(), lambda f: split(f, new))
    assert again.revision == 2
    assert len(set(again.families().family.tolist())) == len(set(families.family.tolist()))
    assert not {a, b, new} & set(again.families().family.tolist())  # ids are never used twice
    now = again.feature_label()
    pairs = set(zip(was.tolist(), now.tolist(), strict=True))
    assert len(pairs) == len(set(was.tolist()))  # the same groups under other names


def test_an_interrupted_change_shows_nothing_and_continues(run, monkeypatch):
    a, b = run.features().feature[:2].tolist()

    def fail(*args, **kwargs):
        raise RunError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(stages, "weigh", fail)
        with pytest.raises(RunError, match="disk full"):
            audit.regroup(run, ColourModel(), lambda f: merge(f, [a, b]))
    assert AuditRun(run.path).revision == 0
    assert AuditRun(run.path).feature_label().tolist() == run.feature_label().tolist()
    merged = audit.regroup(run, ColourModel(), lambda f: merge(f, [a, b]))
    other = audit.regroup(AuditRun(run.path), ColourModel(), lambda f: f)
    for stage in REVISED:
        pairs = zip(columns(merged.load(stage)).values(), columns(other.load(stage)).values(), strict=True)
        assert all(np.array_equal(x, y, equal_nan=np.asarray(x).dtype.kind == "f") for x, y in pairs), stage


def test_another_change_after_an_interrupted_one_is_not_mixed_with_it(run, monkeypatch):
    a, b, c = run.features().feature[:3].tolist()
    with monkeypatch.context() as broken:
        broken.setattr(stages, "weigh", lambda *_: (_ for _ in ()).throw(RunError("disk full")))
        with pytest.raises(RunError):
            audit.regroup(run, ColourModel(), lambda f: merge(f, [a, b]))
    merged = audit.regroup(run, ColourModel(), lambda f: merge(f, [a, c]))
    assert b in merged.features().feature
    assert not {a, c} & set(merged.families().family.tolist())


def test_a_change_builds_on_what_another_process_changed_since_the_run_was_opened(run):
    one, other = AuditRun(run.path), AuditRun(run.path)
    a, b, c, d = run.features().feature[:4].tolist()
    new = run.families().n_features
    audit.regroup(one, ColourModel(), lambda f: merge(f, [a, b]))
    audit.regroup(other, ColourModel(), lambda f: merge(f, [c, d]))
    held = AuditRun(run.path)
    assert one.revision == 1
    assert held.revision == other.revision == 2
    expected = run.feature_label()
    for feature, of in ((new, (a, b)), (new + 1, (c, d))):
        expected = np.where(np.isin(expected, of), feature, expected)
    assert held.feature_label().tolist() == expected.tolist()


def test_the_ledger_says_which_features_a_change_made_whatever_came_in_between(run, monkeypatch):
    one, other = AuditRun(run.path), AuditRun(run.path)
    a, b, c, d = run.features().feature[:4].tolist()
    new = run.families().n_features

    def load(*_):  # takes its time
        audit.regroup(one, ColourModel(), lambda f: merge(f, [a, b]))
        return ColourModel()

    with monkeypatch.context() as slow:
        slow.setattr(api, "_loaded", load)
        changed = api.regroup(other, "merge", [c, d], "Bo")
    assert changed.revision == 2
    with closing(Ledger(run.path.parents[1])) as book:
        [kept] = book.groupings(run.id)
    assert (set(kept.features), kept.made) == ({c, d}, (new + 1,))


def test_what_another_process_merged_cannot_be_merged_again(run):
    one, other = AuditRun(run.path), AuditRun(run.path)
    a, b, c = run.features().feature[:3].tolist()
    audit.regroup(one, ColourModel(), lambda f: merge(f, [a, b]))
    with pytest.raises(ConfigError, match=f"got {b}. It may have been merged or split since you looked: ravl show"):
        audit.regroup(other, ColourModel(), lambda f: merge(f, [b, c]))
    assert AuditRun(run.path).revision == 1


def test_another_model_is_refused(run):
    with pytest.raises(ModelError, match="Audit it again"):
        audit.regroup(run, replace(ColourModel(), fingerprint="other"), lambda f: f)


def test_unfinished_stages_are_not_adopted(run):
    revised = run.revised(run.families())
    with pytest.raises(RunError, match="families is not finished"):
        run.adopt(revised)


def test_the_ledger_keeps_who_changed_what(tmp_path):
    book = Ledger(tmp_path)
    book.add_grouping("r", "merge", [1, 4], [7], " Ada ", "the same square")
    book.add_grouping("r", "split", [7], [8, 9], "Bo", identity="oidc")
    book.add_grouping("other", "split", [1], [2, 3], "Bo")
    first, second = book.groupings("r")
    assert (first.kind, first.features, first.made, first.reviewer) == ("merge", (1, 4), (7,), "Ada")
    assert (second.features, second.made, second.note) == ((7,), (8, 9), "")
    assert (first.identity, second.identity) == ("self-declared", "oidc")
    assert [(entry.event or {}).get("identity") for entry in book.entries()] == [None, "oidc", None]
    assert book.fault() == ""
    for bad in (
        lambda: book.add_grouping("r", "join", [1], [2], "Ada"),
        lambda: book.add_grouping("r", "split", [1], [2], " "),
        lambda: book.add_grouping("r", "split", [1], [2], "Ada", identity="a friend"),
    ):
        with pytest.raises(ConfigError):
            bad()
    with pytest.raises(Exception, match="append-only"), book._database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM groupings")
    book.close()
