"""The report of the small run: the sentences of the screen, every decision, and what it says without something."""

from __future__ import annotations

import re
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dashboard.reading import evidence, opened, summaries
from dashboard.reading.opened import Rate
from dashboard.reading.repaired import outcome, second_audit
from dashboard.reading.summaries import ClassRow
from dashboard.reporting import LIMITS, SELF_DECLARED, record, report, report_text, tables
from dashboard.words import claims, phrases, repair_words, wording
from ravl.errors import RunError
from ravl.ledger import WITHDRAWN, Ledger
from ravl.report import Cell, Document, Gallery, Prose, Section, Table
from ravl.report.page import prose
from ravl.store import AuditRun, write_json
from ravl.tables import Clustering, Exemplars, ZeroShot
from tests.dashboard import conftest
from tests.dashboard.conftest import make_mitigation, make_run
from tests.test_report import Reader, loaded


def shown(text: str) -> str:
    """A sentence of the screen as it is read."""
    return Reader(str(prose(text))).text


def section(document: Document, anchor: str) -> Section:
    every = [part for section in document.sections for part in (section, *section.parts)]
    return next(part for part in every if part.anchor == anchor)


def table(where: Section, caption: str) -> Table:
    return next(piece for piece in where.pieces if isinstance(piece, Table) and piece.caption.startswith(caption))


def test_the_sentences_are_those_of_the_screen(run: AuditRun, book: Ledger, confirm: Callable[[], None]) -> None:
    confirm()
    audit = opened.read_audit(run)
    view = summaries.overview(audit, book.verdicts(run.id))
    row, removal = view.findings[0], evidence.removal(audit, 1)
    expected = evidence.expected(audit, (1,), {1: row.name})
    assert expected is not None
    text = Reader(report_text(run, book)).text
    for sentence in (
        claims.headline(view),
        claims.claim(row),
        claims.meaning(row),
        wording.finding(row),
        claims.side_effects(removal),
        claims.effect(summaries.class_rows(audit, 1)),
        claims.expected(expected),
        claims.harm(removal).replace("*", r"\*"),
        wording.worst(view.worst),
        phrases.past(book.history(run.id)[0]),
        claims.rest(view.others, more=True),
        *LIMITS,
        *claims.NOT_SEEN,
        *(claims.MEANS[row.reason] for row in view.others),
    ):
        assert sentence
        assert shown(sentence) in text, sentence


def test_every_number_is_there(run: AuditRun, book: Ledger, confirm: Callable[[], None]) -> None:
    confirm()
    document = report(run, book)
    about = run.about
    text = Reader(report_text(run, book)).text
    for value in (*about["fingerprints"].values(), *about["packages"].values(), run.id, "cat/broken.png"):
        assert value in text
    feature = section(document, "feature-1")
    assert feature.tags == ("Evidence: causes errors", "Decision: spurious")
    assert [row[0].text for row in table(feature, "With and without").rows] == ["cat", "dog *", "eel"]
    assert table(feature, "With and without").rows[0][1] == Cell("0 of 12 (0%)", bar=0.0)
    assert [cell.text for cell in table(feature, "What each way").rows[0]][1:] == ["14 of 15 (93%)"] * 2 + [
        "13 of 15 (87%)"
    ]
    galleries = [piece for piece in feature.pieces if isinstance(piece, Gallery)]
    assert galleries[0].heading.startswith("What it looks like: ")
    assert galleries[1].heading == "Errors that go: 14 of 15 (93%)"
    pictures = [picture for piece in galleries for figure in piece.figures for picture in figure.pictures]
    assert all((picture.uri or "").startswith("data:image/jpeg;base64,") for picture in pictures)
    assert [row[0].text for row in table(section(document, "others"), "Features").rows] == ["Feature 2", "Feature 0"]
    settings = {row[0].text: row[1].text for row in table(section(document, "settings"), "Configuration").rows}
    assert (settings["seed"], settings["evidence.rule"]) == (str(run.config.seed), "evidence")


def test_nothing_is_loaded_and_the_same_state_is_the_same_page(
    run: AuditRun, book: Ledger, confirm: Callable[[], None]
) -> None:
    confirm()
    page = report_text(run, book)
    assert loaded(page) == []
    assert report_text(AuditRun(run.path), Ledger(book.path.parent)) == page


HOSTILE = '</td><script>alert(1)</script><img src=x onerror="alert(2)"> {{ 7*7 }} \u202e مربع أحمر 🟥 **b** http://evil.example'


def test_what_people_write_stays_text(workspace: Path, template: Path, book: Ledger) -> None:
    run = make_run(workspace, template / "images", "hostile", classes=("<b>cat</b>", "*dog* $x$", "<script>eel"))
    make_mitigation(run)
    note = HOSTILE + "x" * 10_000
    book.add_verdict(run.id, 1, "<script>eel", "spurious", HOSTILE, "d", HOSTILE, note)
    page = report_text(run, book)
    read = Reader(page)
    assert "script" not in read.tags
    assert not any(name.startswith("on") for name, _ in read.attributes)
    assert all(str(value).startswith("data:") for name, value in read.attributes if name == "src")
    assert all(str(value).startswith("#") for name, value in read.attributes if name == "href")
    assert note in read.text  # in the record, letter by letter
    assert wording.isolated(note)[1:-1] in read.text  # beside the feature, where it must not turn what follows
    for name in ("<b>cat</b>", "*dog* $x$", "<script>eel"):
        assert name in read.text
    assert "<b>cat" not in page


def test_a_feature_nobody_decided_on_and_one_to_review_again(run: AuditRun, book: Ledger) -> None:
    assert "No person has decided on it yet." in Reader(report_text(run, book)).text
    audit = opened.read_audit(run)
    book.add_verdict(run.id, 1, "eel", "core", "Ada", audit.seen(1))
    assert "Review again" not in Reader(report_text(run, book)).text
    book.add_verdict(run.id, 1, "eel", "core", "Ada", "imported:" + audit.seen(1))
    text = Reader(report_text(run, book)).text
    assert "Review again: its regions are not those that the decision was about." in text
    assert "Every decision about it, oldest first:" in text


def test_the_record(run: AuditRun, book: Ledger, confirm: Callable[[], None]) -> None:
    assert "The record of this workspace is empty." in Reader(report_text(run, book)).text
    confirm()
    book.add_verdict("another", 1, "", "core", "Zoe", "d")
    book.add_verdict(run.id, 1, "eel", WITHDRAWN, "Bo", "d")
    book.add_grouping(run.id, "merge", [0, 2], [3], "Bo", "alike")
    book.add_import(run.id, "far-run", "ab" * 32, "Cleo", [1])
    rows = table(section(report(run, book), "record"), "Every entry").rows
    assert [[cell.text for cell in row[:1] + row[2:4]] for row in rows] == [
        ["1", "feature 1: Spurious", "Ada"],
        ["3", "feature 1: Withdrawn", "Bo"],
        ["4", "merge of features [0, 2] into [3]", "Bo"],
        ["5", "imported from far-run: 1 decision", "Cleo"],
    ]
    assert rows[0][4].text == "red square\nnot an eel"
    text = Reader(report_text(run, book)).text
    assert f"has 5 entries, and its chain of digests is whole. It ends in {book.entries()[-1].sha256}." in text
    assert "Zoe" not in text  # of another audit
    raw = sqlite3.connect(book.path, isolation_level=None)
    raw.execute("DROP TRIGGER verdicts_DELETE")
    raw.execute("DELETE FROM verdicts WHERE id = 1")
    raw.close()
    assert "does not hold together: entry 1 (verdict) was changed" in Reader(report_text(run, book)).text
    event = {"kind": "select", "features": [2, 3], "made": [4]}
    assert record.what("grouping", event) == "selected regions of features [2, 3] into [4]"
    assert record.what("adoption", {"events": 2}) == "2 events from before the chain taken into it"


def test_before_and_after(run: AuditRun, book: Ledger) -> None:
    assert not any(part.anchor == "repair" for part in report(run, book).sections)
    make_mitigation(run)
    make_mitigation(run, "begun", finished=False)
    result = run.mitigation("ravl").result
    view, again = outcome(result), second_audit(result)
    assert again is not None
    text = Reader(report_text(run, book)).text
    for sentence in (
        *(repair_words.summary(view), repair_words.worse(view), repair_words.free(view.free)),
        *(repair_words.regions(view), repair_words.second(again), repair_words.grew_below(again)),
        *map(repair_words.treated, view.treated),
        *map(repair_words.grown, again.worse),
        *map(repair_words.still, again.still_flagged),
    ):
        assert sentence
        assert shown(sentence) in text, sentence
    assert [part.title for part in section(report(run, book), "repair").parts] == ["ravl"]
    rows = table(section(report(run, book), "repair-ravl"), "Groups").rows
    assert [row[0].text for row in rows] == [row.name for row in view.groups]
    assert rows[0][3] == Cell(wording.points(view.groups[0].change.value), claims.span(view.groups[0].change))


def test_a_tuned_model_that_was_not_audited_again(run: AuditRun, book: Ledger) -> None:
    make_mitigation(run, audited=False)
    assert "The tuned model was not audited again." in Reader(report_text(run, book)).text


def test_files_that_are_gone(run: AuditRun, book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    images = run.images()
    monkeypatch.setattr(AuditRun, "images", lambda self: replace(images, root="/nowhere"))
    read = Reader(report_text(run, book))
    assert "img" not in read.tags
    assert "/nowhere/cat/00.png" in read.text


def test_a_run_that_is_not_finished(workspace: Path, template: Path, book: Ledger) -> None:
    half = make_run(workspace, template / "images", "half", until="clusters")
    with pytest.raises(RunError, match="has not finished the stage"):
        report_text(half, book)


def test_an_audit_without_features(
    workspace: Path, template: Path, book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(images: Any, extra: int = 0) -> Clustering:
        none = np.zeros(0)
        center = (np.zeros((1, 4)), np.zeros(4), np.eye(4))
        return Clustering(np.full(240, -1), np.ones(240), none, *center, np.zeros((0, 4)), none)

    monkeypatch.setattr(conftest, "make_clustering", nothing)
    monkeypatch.setattr(conftest, "make_exemplars", lambda *_: Exemplars(*[np.zeros(0)] * 7))
    run = make_run(workspace, template / "images", "none", tested=(), extra=-3)
    document = report(run, book)
    assert [part.anchor for part in document.sections] == ["summary", "examined", "record", "limits", "settings"]
    text = Reader(report_text(run, book)).text
    assert "No features were found" in text
    assert "240 of 240 (100%) regions look like no others" in text


def test_five_hundred_classes(workspace: Path, template: Path, book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    small = conftest.make_zero_shot

    def wide(images: Any) -> ZeroShot:
        found = small(replace(images, class_names=conftest.CLASSES))
        image, region = (np.pad(values, ((0, 0), (0, 497))) for values in (found.image, found.region))
        return ZeroShot(image, region, found.label)

    monkeypatch.setattr(conftest, "make_zero_shot", wide)
    names = tuple(f"class {i}" for i in range(500))
    run = make_run(workspace, template / "images", "wide", classes=names)
    page = report_text(run, book)
    assert "500: class 0, class 1," in page
    assert ", class 499<" in page
    assert len(page) < 3_000_000


def test_long_tables_say_what_is_left_out() -> None:
    rates = tuple((f"class {i}", Rate(i, 500)) for i in range(500))
    short = tables.accuracy_table(rates)
    assert (len(short.rows), short.note) == (40, "460 more classes with at least the last of these rates.")
    interval = opened.Interval(0.1, 0.0, 0.2)
    rows = tuple(ClassRow(name, value, value, interval, 0.1, False) for name, value in rates)
    assert "460 more classes lost less, or cannot be compared." in tables.class_table(rows, 0.95).note


def test_many_features_are_not_all_shown(workspace: Path, template: Path, book: Ledger) -> None:
    run = make_run(workspace, template / "images", "many", extra=12)
    for feature in range(15):
        book.add_verdict(run.id, feature, "", "unsure", "Ada", "d")
    found = section(report(run, book), "findings")
    assert (len(found.parts), len(found.pieces)) == (15, 1)
    monkeyed = pytest.MonkeyPatch()
    monkeyed.setattr("dashboard.reporting.features.MAX_PARTS", 4)
    found = section(report(run, book), "findings")
    monkeyed.undo()
    assert len(found.parts) == 4
    assert found.pieces[1] == Prose("11 more features of lower rank are in the record and in the exports.")


def test_the_command_writes_it_without_torch(run: AuditRun, tmp_path: Path, python: Callable[..., str]) -> None:
    out = tmp_path / "report.html"
    code = (
        "import sys; from ravl.cli import main; "
        "code = main(['report', '--workspace', sys.argv[1], '--run', sys.argv[2], '--out', sys.argv[3]]); "
        "print(code, *(name for name in ('torch', 'streamlit', 'transformers') if name in sys.modules))"
    )
    said = python(code, str(run.path.parents[1]), run.id, str(out))
    assert re.search(r"The report of .* written to .*report\.html \(\d\.\d MB\)\.\n0\s*$", said), said
    assert out.read_text(encoding="utf-8") == report_text(run, Ledger(run.path.parents[1]))
    assert sys.getsizeof(out.read_bytes()) > 50_000


@pytest.mark.parametrize("kind", [{"rule": "paper"}, {"tested": ()}, {"extra": 2}])
def test_other_kinds_of_audits(workspace: Path, template: Path, book: Ledger, kind: dict[str, Any]) -> None:
    run = make_run(workspace, template / "images", "other", **kind)
    write_json(run.path / "run.json", {**run.about, "encoder": {"name": "crop", "why": "the model is a ResNet"}})
    book.add_verdict(run.id, 1, "eel", "spurious", "Ada", "d")
    view = summaries.overview(opened.read_audit(run), book.verdicts(run.id))
    text = Reader(report_text(run, book)).text
    rest = tuple(row for row in view.others if not row.decision)
    for sentence in (claims.headline(view), claims.claim(view.findings[0]), claims.rest(rest, more=True)):
        assert shown(sentence) in text
    assert "crop: the model is a ResNet" in text


def test_a_made_feature_is_called_as_on_the_screen(run: AuditRun, book: Ledger) -> None:
    book.add_grouping(run.id, "select", [0], [1], "Ada", "red square")
    book.add_verdict(run.id, 1, "eel", "spurious", "Ada", opened.read_audit(run).seen(1))
    text = Reader(report_text(run, book)).text
    assert "red square (feature 1)" in text.split("Who decided what")[0]


def test_nobody_is_called_self_declared_who_signed_in(run: AuditRun, book: Ledger) -> None:
    seen = opened.read_audit(run).seen(1)
    book.add_verdict(run.id, 1, "eel", "spurious", "Bo", seen)
    assert SELF_DECLARED in Reader(report_text(run, book)).text
    book.add_verdict(run.id, 1, "eel", "spurious", "Dr. Ada", seen, identity="oidc")
    assert "there is no login" not in Reader(report_text(run, book)).text
