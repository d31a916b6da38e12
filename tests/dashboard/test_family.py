"""What a feature is made of, two features beside each other, and the jobs that merge and split."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from dashboard.acting import regrouping
from dashboard.choosing import family, making
from dashboard.choosing.family import Grouped
from dashboard.choosing.filters import Filters
from dashboard.reading import opened, summaries
from dashboard.reading.opened import Rate
from dashboard.serving import jobs
from dashboard.serving.identity import Person
from ravl.config import NO_MODEL
from ravl.ledger import Ledger
from ravl.store import AuditRun
from ravl.tables import IDENTITIES, Families
from tests.dashboard.conftest import make_run
from tests.dashboard.screen import button, checked, go, html, open_app, said


@pytest.fixture
def audit(run: AuditRun) -> opened.Audit:
    return opened.read_audit(run)


def together(groups: Grouped, *features: int) -> Grouped:
    """The same clusters with some features joined to the first of them."""
    joined = np.where(np.isin(groups.families.family, features), features[0], groups.families.family)
    return replace(groups, families=Families(joined, np.where(np.isin(joined, features[0]), "near", "")))


# --- counts ----------------------------------------------------------------------------------------------------------


def test_a_feature_of_one_cluster(run: AuditRun, audit: opened.Audit) -> None:
    [part] = family.parts(audit, family.grouped(run), 1, shown=4)
    assert (part.cluster, part.n_regions, part.wrong, part.why) == (1, 27, Rate(15, 27), "")
    best = [crop.region for crop in summaries.exemplars(audit, 1)][:4]
    assert [crop.region for crop in part.crops] == best
    assert "cannot be split" in family.parts_sentence((part,))


def test_the_clusters_of_a_feature_each_with_its_own_crops(run: AuditRun, audit: opened.Audit) -> None:
    groups = together(family.grouped(run), 1, 2)
    both = replace(audit, feature_of=groups.families.features_of(groups.label))
    found = family.parts(both, groups, 1, shown=8)
    assert [(part.cluster, part.n_regions) for part in found] == [(1, 27), (2, 10)]
    for part in found:
        assert len(part.crops) == 8 == len({crop.region for crop in part.crops})
        assert all(groups.label[crop.region] == part.cluster for crop in part.crops)
        assert "it looks like the others" in family.part_heading(part)
    assert "made of 2 clusters" in family.parts_sentence(found)
    assert len(family.parts(both, groups, 1, shown=100)[1].crops) == 10  # no region twice, none of another cluster


def test_where_two_features_stand_together(run: AuditRun, audit: opened.Audit) -> None:
    """Counted a second time, image by image; the vectors of the made-up clusters are orthogonal."""
    found = family.overlap(audit, family.grouped(run), 1, 2)
    images = [{int(audit.regions.image[r]) for r in audit.members(f)} for f in (1, 2)]
    assert (found.first, found.second, found.both) == (27, 10, len(images[0] & images[1]))
    assert found.similarity == pytest.approx(0)
    assert family.overlap(audit, family.grouped(run), 1, 1).similarity == pytest.approx(1)
    rows = {row.feature: row for row in summaries.findings(audit, {})}
    text = family.overlap_sentence(found, rows[1], rows[2])
    assert text.startswith("Feature 1 stands in 27 images, Feature 2 in 10; 10 images show both.")
    assert family.same_pull(rows[1], rows[1]) == "Errors of both go to eel."
    assert family.same_pull(rows[1], replace(rows[2], pull="cat")).endswith("they mislead differently.")
    assert family.same_pull(rows[1], replace(rows[2], pull="")) == ""


@pytest.mark.parametrize(
    ("pull", "text", "found"),
    [
        ("", "", [1, 2, 0]),
        ("", "FEATURE 2", [2]),
        ("", "red corner", [1]),  # a word of the name, one of the note
        ("eel", "", [1, 2]),
        ("eel", "spurious", [1]),
        ("cat", "spurious", []),
        ("", "(", []),  # no pattern
    ],
)
def test_search(run: AuditRun, audit: opened.Audit, book: Ledger, pull: str, text: str, found: list[int]) -> None:
    book.add_verdict(run.id, 1, "eel", "spurious", "Ada", audit.seen(1), "Red square", "in a corner")
    rows = summaries.findings(audit, book.verdicts(run.id))
    rows = tuple(replace(row, pull="" if row.feature == 0 else "eel") for row in rows)
    assert [row.feature for row in summaries.search(rows, pull, text)] == found


# --- on the page -----------------------------------------------------------------------------------------------------


def open_family(feature: int) -> AppTest:
    app = open_app("features", feature=str(feature))
    app.session_state["family"] = True
    app.run()
    return checked(app)


def test_two_features_beside_each_other_and_their_merge(run: AuditRun, started: list[list[str]]) -> None:
    app = open_family(1)
    assert "It is one cluster of regions" in said(app)
    assert "split" not in [item.key for item in app.button]
    assert "merge" not in [item.key for item in app.button]
    app.selectbox(key="compare-1").select(2).run()
    assert "10 images show both" in said(checked(app))
    assert "Two features beside each other" in html(app)
    assert button(app, "merge").disabled  # nobody said who decides
    app.text_input(key="reviewer-name").input("Ada").run()
    app.text_input(key=f"regroup-note-{run.id}").input("-both are red").run()
    button(app, "merge").click().run()
    assert started == [
        ["regroup", f"--run={run.id}", "--merge=1,2", "--reviewer=Ada", "--note=-both are red"],
    ]
    assert "Merge of features 1 and 2" in said(checked(app))  # its progress


def test_a_feature_of_several_clusters_can_be_split(
    run: AuditRun, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = together(family.grouped(run), 1, 2)
    monkeypatch.setattr("dashboard.screen.readers.grouped", lambda run: groups)
    app = open_family(1)
    assert "It is made of 2 clusters of regions" in said(app)
    app.text_input(key="reviewer-name").input("Ada").run()
    button(app, "split").click().run()
    assert started == [["regroup", f"--run={run.id}", "--split=1", "--reviewer=Ada"]]
    checked(app)


def test_nothing_is_read_while_the_section_is_closed(run: AuditRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family, "parts", None)
    app = open_app("features")
    assert "What it is made of (1 cluster), compare, merge and split" in [item.label for item in app.expander]


def test_the_command_line_understands_the_arguments() -> None:
    from ravl.cli import _parser

    declared = Person("Ada L.", "self-declared")
    options = _parser().parse_args(jobs.regroup_arguments("r", "merge", (1, 4), declared, "-x --y"))
    assert (options.merge, options.reviewer, options.note) == ("1,4", "Ada L.", "-x --y")
    assert _parser().parse_args(jobs.regroup_arguments("r", "split", (3,), replace(declared, name="-"))).split == "3"


@pytest.mark.parametrize("identity", IDENTITIES)
def test_a_job_knows_how_the_person_is_known(identity: str) -> None:
    from ravl.cli import _parser

    who = Person("Ada", identity)
    for arguments in (
        jobs.regroup_arguments("r", "merge", (1, 4), who),
        making.arguments("r", Path("regions.json"), "square", who),
    ):
        options = _parser().parse_args(arguments)
        assert (options.reviewer, options.identity) == ("Ada", identity)


def test_no_feature_is_made_without_a_model(audit: opened.Audit) -> None:
    given = replace(audit, config=replace(audit.config, model=NO_MODEL))
    assert "needs the model" in making.problem(given, np.arange(8), {}, Filters())


def test_a_link_to_a_merged_feature_shows_what_became_of_it(run: AuditRun, book: Ledger) -> None:
    book.add_grouping(run.id, "merge", (7, 8), (9,), "Ada")
    book.add_grouping(run.id, "split", (9,), (2, 10), "Ada")
    assert regrouping.successor(run, book, [0, 1, 2], 7) == 2
    assert regrouping.successor(run, book, [0, 1, 2], 1) == 1
    assert regrouping.successor(run, book, [0, 1, 2], 5) is None
    app = open_app("features", run=run.id, feature="8")
    assert [piece.value for piece in app.subheader] == ["Feature 2"]


def test_small_pictures_show_their_pixels_when_asked(run: AuditRun) -> None:
    app = open_app("features")
    before = app.dataframe[0].value[""][0]
    app.toggle(key="pixelated-page").set_value(True).run()
    assert checked(app).dataframe[0].value[""][0] != before
    go(app, "review")
    go(app, "features")
    assert app.toggle(key="pixelated-page").value


# --- many ------------------------------------------------------------------------------------------------------------


def test_a_long_table_has_pages_and_a_search(workspace: Path, template: Path) -> None:
    shutil.rmtree(workspace / "runs")
    make_run(workspace, template / "images", name="long", extra=57)
    app = open_app("features")
    assert len(app.dataframe[0].value) == 25
    assert "Features 1 to 25 of 60, by rank." in said(app)
    app.pagination[0].set_value(3).run()
    assert len(checked(app).dataframe[0].value) == 10
    app.text_input(key="feature-search").input("feature 41").run()
    assert list(checked(app).dataframe[0].value["Feature"]) == ["Feature 41"]
    app.text_input(key="feature-search").input("no such thing").run()
    assert "No feature is in this group." in said(checked(app))
    go(app, "review")
    assert "feature 1 of 1" in "\n".join(piece.proto.text for piece in app.get("progress"))


def test_what_a_merge_retired_is_listed_no_more(audit: opened.Audit) -> None:
    """As the scores of a run look after a merge: the old ids are there, without regions."""
    n_regions = np.where(audit.features.feature == 2, 0, audit.features.n_regions)
    merged = replace(audit, features=replace(audit.features, n_regions=n_regions))
    rows = summaries.findings(merged, {})
    assert [(row.rank, row.feature) for row in rows] == [(1, 1), (2, 0)]
