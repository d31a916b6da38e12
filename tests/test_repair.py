"""What a repair asks the audited model; and that it belongs to the regions that its features had."""

from __future__ import annotations

import weakref
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ravl import api, audit, repair
from ravl.config import MitigationConfig
from ravl.data import read_images
from ravl.discovery.clustering import assign
from ravl.discovery.embedding import encode
from ravl.discovery.families import merge
from ravl.discovery.making import MIN_REGIONS
from ravl.discovery.scoring import best_for_class
from ravl.errors import ConfigError
from ravl.ledger import Ledger, seen_digest
from ravl.store import AuditRun, MitigationFolder
from ravl.tables import NOISE, quiet
from ravl.vlm.interface import Encoded
from tests.toys import ColourModel, painted_folder, small_audit


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painted_folder(tmp_path_factory.mktemp("colours"), 120)


@pytest.fixture
def run(images: Path, tmp_path: Path) -> AuditRun:
    return small_audit(images, tmp_path / "workspace")


def with_fewer(run: AuditRun, feature: int) -> AuditRun:
    """The run once a person took regions out of a feature."""
    members = np.flatnonzero(run.feature_label() == feature)
    assert len(members) > MIN_REGIONS
    return audit.add_feature(AuditRun(run.path), ColourModel(), members[:MIN_REGIONS])


def decide(run: AuditRun, feature: int, seen: str = "") -> None:
    seen = seen or seen_digest(np.flatnonzero(run.feature_label() == feature))
    with closing(Ledger(run.path.parents[1])) as book:
        book.add_verdict(run.id, feature, "", "spurious", "Ada", seen, f"the {feature}")


def largest(run: AuditRun, n: int) -> list[int]:
    scores = run.features()
    return [int(f) for f in scores.feature[np.argsort(-scores.n_regions, kind="stable")][:n]]


def test_only_features_with_other_regions_than_they_came_with_are_told(run: AuditRun) -> None:
    first, second, third, fourth = largest(run, 4)
    assert repair.regions_since(run, [first, second]) == {}
    merged = audit.regroup(AuditRun(run.path), ColourModel(), lambda f: merge(f, [third, fourth]))
    new = merged.families().n_features - 1
    assert repair.regions_since(merged, [first, second, new]) == {}
    fewer = with_fewer(with_fewer(merged, first), new)
    now = repair.digests(fewer, [first, new])
    assert repair.regions_since(fewer, [first, second, new]) == {str(f): now[f] for f in (first, new)}
    assert len({*now.values(), *repair.digests(merged, [first, new]).values()}) == 4


def test_a_repair_of_other_regions_is_not_handed_out(run: AuditRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        repair, "_read", lambda *_: SimpleNamespace(fingerprint="train", class_names=(), caption=None, label=())
    )
    prints = run.about["fingerprints"]
    model: Any = SimpleNamespace(name="m", fingerprint=prints["model"], preprocessing=prints["preprocessing"])
    fingerprints = {"train": "train", "test": run.images().fingerprint, "model": prints["model"]}
    feature, other = largest(run, 2)
    config = MitigationConfig(features=(feature,))

    def repaired(run: AuditRun, name: str) -> dict[str, Any]:
        return repair.mitigate(run, model, Path("/train"), None, {feature: ""}, config, run.mitigation(name), quiet)

    def finish(folder: MitigationFolder, **noted: Any) -> None:
        """A finished repair as far as it matters here; without `regions` as older versions kept it."""
        folder.begin(
            {
                **{"run": run.id, "config": config.to_dict(), "features": {str(feature): ""}, "train": "/train"},
                **{"test": "", "fingerprints": fingerprints, **noted},
            }
        )
        folder.save_result({"name": folder.name})
        pd.DataFrame().to_parquet(folder.path / "groups.parquet")

    finish(run.mitigation("old"))
    finish(run.mitigation("new"), regions={})
    elsewhere = with_fewer(run, other)  # whose regions are none of those that are treated
    for name in ("old", "new"):
        assert repaired(elsewhere, name) == {"name": name}
    fewer = with_fewer(elsewhere, feature)
    for name in ("old", "new"):
        with pytest.raises(ConfigError, match=r"exists with another set of regions of its features\. Choose another"):
            repaired(fewer, name)
    finish(run.mitigation("later"), regions=repair.regions_since(fewer, [feature]))
    assert repaired(fewer, "later") == {"name": "later"}


def test_other_regions_give_another_name(run: AuditRun, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_loaded", lambda *_: ColourModel())
    monkeypatch.setattr(repair, "mitigate", lambda *given: {"name": given[6].name})
    feature, other = largest(run, 2)

    def name(run: AuditRun) -> str:
        told = api.mitigate(run, images, features=[feature], reaudit=False, device="cpu")
        return str(told["name"])

    before = name(run)
    elsewhere = with_fewer(run, other)
    assert name(elsewhere) == before
    assert name(with_fewer(elsewhere, feature)) != before


def test_decisions_about_other_regions_are_not_trained_on(run: AuditRun, images: Path) -> None:
    first, second, third = largest(run, 3)
    for feature in (first, second):
        decide(run, feature)
    assert api.confirmed_features(run) == {f: f"the {f}" for f in (first, second)}
    fewer = with_fewer(run, first)
    with pytest.raises(ConfigError, match=f"those about feature {first} are about other regions.*Review.*--features"):
        api.mitigate(fewer, images, device="cpu")
    decide(fewer, first)
    assert set(api.confirmed_features(fewer)) == {first, second}
    members = np.flatnonzero(fewer.feature_label() == third)
    decide(fewer, third, "imported:" + seen_digest(members))
    with pytest.raises(ConfigError, match=f"those about feature {third} are .* taken over from another audit"):
        api.confirmed_features(fewer)
    decide(fewer, third)
    assert set(api.confirmed_features(fewer)) == {first, second, third}


def test_of_new_images_only_what_is_asked_of_them_stays_in_memory(run: AuditRun, images: Path, tmp_path: Path) -> None:
    config, text, clustering = run.config.embedding, run.class_vectors(), run.clustering()
    new = read_images(images, run.images().class_names)
    kept: list[weakref.ref[Any]] = []
    at_once = []

    class Watched(ColourModel):
        def encode_regions(self, *given: Any, **more: Any) -> Encoded:
            at_once.append(sum(block() is not None for block in kept))
            found = super().encode_regions(*given, **more)
            kept.append(weakref.ref(found.region))
            return found

    model: Any = Watched()
    folder = MitigationFolder(tmp_path / "look")
    folder.path.mkdir()
    small = AuditRun(run.path)
    small.config = replace(run.config, embedding=replace(config, batch_size=16))
    seen = repair.look(small, model, new, folder, top=True)
    assert len(at_once) == -(-len(new) // 16)
    assert max(at_once) == 1

    regions = repair.cut(run, model, new, config, quiet)
    blocks = [block for _, block in encode(ColourModel(), new, regions, config)]
    image, region, feature = (
        np.concatenate([getattr(b, part) for b in blocks]) for part in ("image", "region", "feature")
    )
    own = run.families().family
    tops = [np.flatnonzero(own == f)[0] for f in np.unique(own)]
    label = assign(clustering, feature if run.clustered_on == "middle" else region, regions.position)
    score = region @ text.T
    assert seen.found.predicted.tolist() == (image @ text.T).argmax(1).tolist()
    assert seen.found.feature.tolist() == [own[c] if c in tops else NOISE for c in label]
    assert seen.found.best.tolist() == best_for_class(regions, score, new.label).tolist()
    assert seen.region_class.tolist() == score.argmax(1).tolist()
    dtypes = (seen.found.predicted, seen.found.feature, seen.found.best, seen.region_class)
    assert [column.dtype for column in dtypes] == [np.int16, np.int32, np.int32, np.int16]
