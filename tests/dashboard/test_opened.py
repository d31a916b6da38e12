"""The records of an audit as the pages need them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dashboard.reading import opened
from dashboard.reading.opened import Audit, Rate
from ravl.config import NO_MODEL, EvidenceConfig
from ravl.discovery.significance import newcombe
from ravl.errors import DataError, RunError
from ravl.ledger import seen_digest
from ravl.store import STAGES, AuditRun
from ravl.tables import Regions, ZeroShot
from tests.dashboard.conftest import has_mark, make_run


@pytest.fixture
def audit(run: AuditRun) -> Audit:
    return opened.read_audit(run)


def test_deciding_region_is_the_loudest_one(audit: Audit) -> None:
    for image in range(60):
        own = range(4 * image, 4 * image + 4)
        called = int(audit.zero_shot.image[image].argmax())
        loudest = max(own, key=lambda r: (audit.zero_shot.region[r, called], -r))
        assert audit.deciding[image] == loudest


def test_deciding_region_needs_two_regions() -> None:
    regions = Regions([0, 2, 2], [(0, 0, 1, 1)] * 3, [0, 0, 1], 4)
    zero_shot = ZeroShot(np.full((4, 2), 0.5), [(0.9, 0.1), (0.2, 0.8), (0.6, 0.4)], [0, 0, 0, 1])
    assert opened.deciding_regions(regions, zero_shot).tolist() == [-1, -1, 2, -1]


def test_members_images_and_digest_of_a_feature(audit: Audit) -> None:
    marked = [has_mark(int(y), i % 20) for i, y in enumerate(audit.images.label)]
    members = [4 * i + 3 for i in range(60) if marked[i]]
    assert audit.members(1).tolist() == members
    assert audit.shows(1).tolist() == marked
    assert audit.seen(1) == seen_digest(np.array(members))
    assert audit.members(7).tolist() == []
    assert not audit.shows(7).any()


def test_how_many_operators_must_agree(audit: Audit) -> None:
    assert opened.agreeing(audit) == 2
    strict = replace(audit, config=replace(audit.config, evidence=EvidenceConfig(agree=5)))
    assert opened.agreeing(strict) == 3


def test_difference_is_first_minus_second_with_newcombes_interval() -> None:
    found = opened.difference(Rate(3, 12), Rate(8, 10), 0.95)
    low, high = newcombe(np.array(3), np.array(12), np.array(8), np.array(10), 0.95)
    assert (found.value, found.low, found.high) == pytest.approx((0.25 - 0.8, low, high))
    nothing = opened.difference(Rate(0, 0), Rate(8, 10), 0.95)
    assert all(math.isnan(value) for value in (nothing.value, nothing.low, nothing.high))


@pytest.mark.parametrize("until", ["clusters", "features", "counterfactuals"])
def test_an_unfinished_run(workspace: Path, template: Path, until: str) -> None:
    half = make_run(workspace, template / "images", name="half", until=until)
    missing = STAGES[STAGES.index(until) + 1 :]
    assert opened.missing_stages(half) == missing
    with pytest.raises(RunError, match=f"has not finished the stage '{'families' if until == 'clusters' else '.*'}'"):
        opened.read_audit(half)


def test_an_image_that_no_file_was_named_for_is_told_so(audit: Audit) -> None:
    """Embeddings may come without files: nothing was moved or lost then."""
    unnamed = np.array([f"row {i + 1}" for i in range(60)])
    given = replace(audit, config=replace(audit.config, model=NO_MODEL), images=replace(audit.images, file=unnamed))
    with pytest.raises(DataError, match="embeddings that name no image file"):
        opened.image_path(given, 3)
    named = replace(given, images=audit.images)
    assert opened.image_path(named, 3) == opened.image_path(audit, 3)


def test_a_file_that_cannot_be_reached_is_a_sentence_without_its_name(tmp_path: Path) -> None:
    there = tmp_path / "patient.png"
    there.write_bytes(b"x")
    assert opened.file_time(there) == there.stat().st_mtime_ns
    with pytest.raises(DataError, match=r"^The image file is no longer where it was\.$"):
        opened.file_time(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"^The image file cannot be reached \(Not a directory\).$"):
        opened.file_time(there / "below.png")
