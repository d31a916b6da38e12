"""Review: decisions are written at once, with who made them and what was seen, and text is never lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import opened
from ravl.errors import RunError
from ravl.ledger import Ledger
from ravl.store import AuditRun
from tests.dashboard.screen import button, checked, go, open_app, said


def named(app: AppTest, name: str = "Dr. Ada") -> AppTest:
    app.text_input(key="reviewer-name").input(name).run()
    return checked(app)


def test_nobody_decides_without_a_name(run: AuditRun, book: Ledger) -> None:
    app = open_app("review")
    assert all(button(app, f"decide-{decision}").disabled for decision in ("spurious", "core", "mixed", "unsure"))
    assert "Give your name first" in said(app)
    named(app)
    assert "Deciding as **Dr. Ada**" in said(app)
    assert not button(app, "decide-core").disabled
    assert book.history(run.id) == []


@pytest.mark.parametrize("decision", ["spurious", "core", "mixed", "unsure"])
def test_a_decision_is_written_at_once_with_what_was_seen(run: AuditRun, book: Ledger, decision: str) -> None:
    app = named(open_app("review"))
    app.text_input(key=f"name-{run.id}-1").input("red square")
    app.text_area(key=f"note-{run.id}-1").input("corner")
    button(app.run(), f"decide-{decision}").click().run()
    [verdict] = book.history(run.id)
    assert (verdict.feature, verdict.decision, verdict.pull_class) == (1, decision, "eel")
    assert (verdict.name, verdict.note, verdict.reviewer) == ("red square", "corner", "Dr. Ada")
    assert verdict.seen == opened.read_audit(run).seen(1)
    assert "1 of 1 decided" in html_and_progress(checked(app))
    assert [toast.value for toast in app.toast]


def test_the_evidence_stands_beside_the_crops(run: AuditRun) -> None:
    app = open_app("review")
    text = said(app)
    assert "Of the 15 wrongly classified images that show it, **14 become right** when it is removed, and **1**" in text
    assert "Causes errors" in text
    assert "In **15 of the 16 images** wrongly called *eel*" in text
    assert "All the evidence: with and without it, image by image" in [link.label for link in app.get("page_link")]


def html_and_progress(app: AppTest) -> str:
    return "\n".join(piece.proto.text for piece in app.get("progress"))


def test_undo_withdraws_and_keeps_the_text(run: AuditRun, book: Ledger) -> None:
    app = named(open_app("review"))
    assert button(app, "undo").disabled
    app.text_input(key=f"name-{run.id}-1").input("red square")
    button(app.run(), "decide-spurious").click().run()
    button(app, "undo").click().run()
    assert [verdict.decision for verdict in book.history(run.id)] == ["spurious", "withdrawn"]
    assert book.verdicts(run.id) == {}
    assert app.text_input(key=f"name-{run.id}-1").value == "red square"
    button(app, "decide-mixed").click().run()
    assert book.verdicts(run.id)[1].name == "red square"
    assert "History (3)" in [expander.label for expander in checked(app).expander]


def test_text_can_be_changed_after_a_decision(run: AuditRun, book: Ledger) -> None:
    app = named(open_app("review"))
    button(app, "decide-spurious").click().run()
    assert "record-text" not in [item.key for item in app.button]
    app.text_area(key=f"note-{run.id}-1").input("seen twice").run()
    button(app, "record-text").click().run()
    assert [(v.decision, v.note) for v in book.history(run.id)] == [("spurious", ""), ("spurious", "seen twice")]
    assert "record-text" not in [item.key for item in checked(app).button]


def test_unsaved_text_is_kept_when_the_page_is_left(run: AuditRun, book: Ledger) -> None:
    app = named(open_app("review"))
    app.text_area(key=f"note-{run.id}-1").input("half a thought").run()
    go(app, "overview")
    go(app, "review")
    assert app.text_area(key=f"note-{run.id}-1").value == "half a thought"
    assert book.history(run.id) == []
    button(app, "decide-unsure").click().run()
    assert book.verdicts(run.id)[1].note == "half a thought"


def test_next_and_previous(run: AuditRun) -> None:
    app = open_app("review")
    assert button(app, "go-left").disabled
    assert button(app, "go-right").disabled  # one feature is flagged
    app.toggle(key="review-flagged").set_value(False).run()
    shown = []
    for _ in range(2):
        button(app, "go-right").click().run()
        shown.append(app.subheader[0].value)
    assert shown == ["Feature 2", "Feature 0"]
    assert button(checked(app), "go-right").disabled
    button(app, "go-left").click().run()
    assert app.subheader[0].value == "Feature 2"


def test_the_last_reviewer_is_offered_and_can_be_changed(run: AuditRun, confirm: Callable[[], None]) -> None:
    confirm()
    app = open_app("review")
    assert "Deciding as **Ada**" in said(app)
    button(app, "rename").click().run()
    app.text_input(key="reviewer-name").input("Bo").run()
    assert "Deciding as **Bo**" in said(checked(app))


def test_shortcuts(run: AuditRun) -> None:
    app = open_app("review")
    keys = {item.key: item.proto.shortcut.lower() for item in app.button if item.proto.shortcut}
    wanted = {"decide-spurious": "s", "decide-core": "g", "decide-mixed": "m", "decide-unsure": "u", "undo": "z"}
    assert wanted.items() <= keys.items()
    assert {keys["go-left"], keys["go-right"]} == {"left", "right"}
    assert len(set(keys.values())) == len(keys)


def test_a_ledger_that_cannot_be_written_is_a_sentence(run: AuditRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise RunError("ravl.db could not be written: disk full. Check the disk, then try again.")

    app = named(open_app("review"))
    monkeypatch.setattr(Ledger, "add_verdict", refuse)
    button(app, "decide-core").click().run()
    assert "disk full" in said(checked(app))
