"""Review: decisions are written at once, with who made them and what was seen, and text is never lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.reading import opened
from dashboard.screen import state
from dashboard.serving.identity import Person
from dashboard.words import wording
from ravl.errors import RunError
from ravl.ledger import Ledger
from ravl.store import AuditRun
from tests.dashboard.conftest import merged
from tests.dashboard.screen import button, checked, go, html, open_app, said


def named(app: AppTest, name: str = "Dr. Ada") -> AppTest:
    app.text_input(key="reviewer-name").input(name).run()
    return checked(app)


def test_nobody_decides_without_a_name(run: AuditRun, book: Ledger) -> None:
    app = open_app("review")
    for decision in ("spurious", "core", "mixed", "unsure"):
        button(app, f"decide-{decision}").click().run()
        assert "Give your name first" in "\n".join(piece.value for piece in checked(app).warning)
    named(app)
    assert "Deciding as **Dr. Ada**" in said(app)
    assert book.history(run.id) == []


def test_a_name_counts_that_was_just_typed(run: AuditRun, book: Ledger) -> None:
    """Whoever types a name and clicks at once does not click in vain."""
    app = open_app("review")
    app.text_input(key="reviewer-name").input("Dr. Ada")
    button(app, "decide-core").click().run()
    assert [(v.reviewer, v.decision) for v in book.history(run.id)] == [("Dr. Ada", "core")]
    assert "Deciding as **Dr. Ada**" in said(checked(app))


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
    assert verdict.identity == "self-declared"
    assert "1 of 1 decided" in html_and_progress(checked(app))
    assert f"Recorded: red square (feature 1) is **{wording.DECISIONS[decision].lower()}**." in said(app)
    assert "The feature is decided." in said(app)


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


def test_undo_brings_back_what_the_person_decided_before(run: AuditRun, book: Ledger) -> None:
    """A key hit by mistake and its undoing leave yesterday's decision as it was, with its text."""
    seen = opened.read_audit(run).seen(1)
    book.add_verdict(run.id, 1, "eel", "spurious", "Ada", seen, "drain", "yesterday")
    app = named(open_app("review", run=run.id, feature="1"), "Ada")
    button(app, "decide-core").click().run()
    button(app, "decide-mixed").click().run()
    for left in ("core", "spurious"):
        button(app, "undo").click().run()
        assert [v.decision for v in book.verdicts(run.id).values()] == [left]
        assert "Changed by" not in said(checked(app))
    held = book.verdicts(run.id)[1]
    assert (held.id, held.name, held.note, held.seen) == (1, "drain", "yesterday", seen)
    assert any("stands again: spurious" in toast.value for toast in app.toast)


def test_undo_of_a_text_leaves_the_decision(run: AuditRun, book: Ledger) -> None:
    app = named(open_app("review", run=run.id, feature="1"))
    app.text_area(key=f"note-{run.id}-1").input("corner").run()
    button(app, "decide-spurious").click().run()
    app.text_area(key=f"note-{run.id}-1").input("cormer").run()
    button(app, "record-text").click().run()
    button(app, "undo").click().run()
    assert book.verdicts(run.id)[1].note == "corner"
    assert button(checked(app), "record-text")  # what was written waits in its field


def test_text_can_be_changed_after_a_decision(run: AuditRun, book: Ledger) -> None:
    app = named(open_app("review"))
    button(app, "decide-spurious").click().run()
    assert "record-text" not in [item.key for item in app.button]
    app.text_area(key=f"note-{run.id}-1").input("seen twice").run()
    button(app, "record-text").click().run()
    assert [(v.decision, v.note) for v in book.history(run.id)] == [("spurious", ""), ("spurious", "seen twice")]
    assert "record-text" not in [item.key for item in checked(app).button]


def test_new_text_alone_signs_nobody_elses_decision(run: AuditRun, book: Ledger) -> None:
    """Who corrects a name that another typed has not decided anything by that."""
    decide(book, run, 1, "spurious", "Bo", "red sqare")
    app = named(open_app("review", run=run.id, feature="1"), "Ada")
    app.text_input(key=f"name-{run.id}-1").input("red square").run()
    assert "record-text" not in [item.key for item in checked(app).button]
    assert "What you wrote is recorded with your decision." in said(app)
    button(app, "rename").click().run()
    app.text_input(key="reviewer-name").input("Bo").run()
    button(checked(app), "rename").click().run()
    app.text_input(key="reviewer-name").input("Ada")  # and clicks at once
    button(app, "record-text").click().run()
    assert "The decision is not yours" in said(checked(app))
    assert [v.reviewer for v in book.history(run.id)] == ["Bo"]


def test_new_text_alone_does_not_stand_for_a_new_look(run: AuditRun, book: Ledger) -> None:
    book.add_verdict(run.id, 1, "eel", "spurious", "Ada", "imported:abc", "clip")
    app = named(open_app("review", run=run.id, feature="1"), "Ada")
    app.text_input(key=f"name-{run.id}-1").input("clips").run()
    assert "record-text" not in [item.key for item in checked(app).button]
    assert "What you wrote is recorded with your decision." in said(app)


def test_unsaved_text_is_kept_when_the_page_is_left(run: AuditRun, book: Ledger) -> None:
    app = named(open_app("review"))
    app.text_area(key=f"note-{run.id}-1").input("half a thought").run()
    go(app, "overview")
    go(app, "review")
    assert app.text_area(key=f"note-{run.id}-1").value == "half a thought"
    assert book.history(run.id) == []
    button(app, "decide-unsure").click().run()
    assert book.verdicts(run.id)[1].note == "half a thought"


def test_a_made_feature_brings_its_name(run: AuditRun, book: Ledger) -> None:
    book.add_grouping(run.id, "select", [0], [1], "Bo", "a red square")
    app = named(open_app("review"))
    assert app.text_input(key=f"name-{run.id}-1").value == "a red square"
    button(app, "decide-spurious").click().run()
    assert book.verdicts(run.id)[1].name == "a red square"
    app.text_input(key=f"name-{run.id}-1").input("").run()
    button(checked(app), "record-text").click().run()
    assert book.verdicts(run.id)[1].name == ""


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


def test_the_last_reviewer_is_offered_not_assumed(run: AuditRun, confirm: Callable[[], None]) -> None:
    confirm()
    app = open_app("review")
    button(app, "decide-core").click().run()
    assert "Give your name first" in said(app)
    assert button(app, "continue-as-0").label == "Continue as Ada"
    button(app, "continue-as-0").click().run()
    assert "Deciding as **Ada** (self-declared)" in said(app)
    assert not button(app, "decide-core").disabled
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


# --- one decision after the other ------------------------------------------------------------------------------------


def all_features(app: AppTest) -> AppTest:
    app.toggle(key="review-flagged").set_value(False).run()
    return checked(app)


def shown(app: AppTest) -> str:
    return str(app.subheader[0].value)


def test_after_a_decision_the_next_undecided_is_shown(run: AuditRun, book: Ledger) -> None:
    decide(book, run, 2, "core", "Bo")
    app = all_features(named(open_app("review")))
    assert shown(app) == "Feature 1"
    button(app, "decide-spurious").click().run()
    assert shown(app) == "Feature 0"  # feature 2, the next by rank, is decided
    assert "Recorded: Feature 1 is **spurious**." in said(app)
    assert not button(app, "undo").disabled
    button(app, "decide-unsure").click().run()
    assert "All 3 features are decided." in said(checked(app))
    assert [link.label for link in app.get("page_link")][:2] == ["Repair the model", "Hand the list over"]


def test_undo_goes_back_step_by_step(run: AuditRun, book: Ledger) -> None:
    app = all_features(named(open_app("review")))
    for decision in ("spurious", "core"):
        button(app, f"decide-{decision}").click().run()
    assert shown(app) == "Feature 0"
    for title, left in (("Feature 2", {1: "spurious"}), ("Feature 1", {})):
        button(app, "undo").click().run()
        assert shown(checked(app)) == title
        assert {f: v.decision for f, v in book.verdicts(run.id).items()} == left
    assert button(app, "undo").disabled
    assert [v.decision for v in book.history(run.id)] == ["spurious", "core", "withdrawn", "withdrawn"]


def test_the_keys_are_on_the_screen(run: AuditRun) -> None:
    legend = html(open_app("review"))
    for key, what in (("S", "spurious"), ("G", "genuine"), ("M", "mixed"), ("U", "unsure"), ("Z", "undo")):
        assert f"<kbd>{key}</kbd> {what}" in legend
    assert "Keys rest while you type." in legend


def test_a_decision_on_a_feature_that_was_merged_meanwhile_is_refused(run: AuditRun, book: Ledger) -> None:
    app = named(open_app("review", run=run.id, feature="1"), "Ada")
    merged(run, [1, 2])
    button(app, "decide-spurious").click().run()
    text = said(app)
    assert "Feature 1 was merged, split or lost regions after this page was drawn" in text
    assert "Your decision (spurious) was not recorded." in text
    assert book.history(run.id) == []


# --- two people ------------------------------------------------------------------------------------------------------


def decide(book: Ledger, run: AuditRun, feature: int, decision: str, who: str, name: str = "") -> None:
    seen = opened.read_audit(run).seen(feature)
    book.add_verdict(run.id, feature, "eel", decision, who, seen, name)


def test_two_people_who_meet_on_one_feature(run: AuditRun, book: Ledger) -> None:
    """What Bo decided after Ada's page was drawn is shown to her, and not overwritten; then she decides."""
    app = named(open_app("review"), "Ada")
    decide(book, run, 1, "core", "Bo")
    at = book.history(run.id)[0].at[11:19]
    button(app, "decide-spurious").click().run()
    assert [v.reviewer for v in book.history(run.id)] == ["Bo"]
    text = said(checked(app))
    assert f"**Changed by Bo at {at} UTC**, after this page was drawn: feature 1, now **genuine**" in text
    assert "Your decision (spurious) was not recorded" in text
    assert shown(app) == "Feature 1"
    button(app, "decide-spurious").click().run()
    assert [v.decision for v in book.history(run.id)] == ["core", "spurious"]
    assert "Changed by" not in said(app)


def test_undo_leaves_what_another_decided_since(run: AuditRun, book: Ledger) -> None:
    app = named(open_app("review"), "Ada")
    button(app, "decide-spurious").click().run()
    decide(book, run, 1, "core", "Bo")
    button(app, "undo").click().run()
    assert "Changed by Bo" in said(checked(app))
    assert "Nothing was undone" in said(app)
    assert book.verdicts(run.id)[1].decision == "core"


def test_a_blind_reading_hides_what_others_decided_until_it_is_done(run: AuditRun, book: Ledger) -> None:
    decide(book, run, 1, "spurious", "Ada", "red square")
    app = named(open_app("review"), "Bo")
    assert shown(app) == "red square \\(feature 1\\)"
    app.toggle(key="blind-reading").set_value(True).run()
    text = said(checked(app))
    assert shown(app) == "Feature 1"
    assert "red square" not in text
    assert "Ada" not in text
    assert not app.text_input(key=f"name-{run.id}-1-blind").value
    assert not any("History" in expander.label for expander in app.expander)
    assert "0 of 1 decided" in html_and_progress(app)
    for page in ("features", "overview"):
        go(app, page)
        assert "red square" not in said(app)
        assert "Blind reading: you see your own decisions only" in said(app)
    go(app, "export")
    assert "red square" in said(app) + html(app) + str([frame.value for frame in app.dataframe])
    go(app, "review")
    button(app, "decide-core").click().run()
    text = said(checked(app))
    assert "Ada and Bo decided on one feature in common, and differ about it." in text
    assert "Feature 1 – Ada: **Spurious** · Bo: **Genuine**. The later one holds: genuine." in text
    assert "History (2)" in [expander.label for expander in app.expander]
    assert [v.decision for v in book.history(run.id)] == ["spurious", "core"]
    button(app, "undo").click().run()
    assert book.verdicts(run.id)[1].reviewer == "Ada"
    assert "Ada" not in said(checked(app))


def test_a_blind_reader_is_not_told_of_others_by_a_refusal(run: AuditRun, book: Ledger) -> None:
    app = named(open_app("review"), "Bo")
    app.toggle(key="blind-reading").set_value(True).run()
    decide(book, run, 1, "spurious", "Ada")
    button(app, "decide-core").click().run()
    assert [v.reviewer for v in book.history(run.id)] == ["Ada", "Bo"]
    assert "Changed by" not in said(checked(app))


def test_two_readers_are_compared(run: AuditRun, book: Ledger) -> None:
    for feature, ada, bo in ((0, "core", "core"), (1, "spurious", "mixed"), (2, "unsure", "unsure")):
        decide(book, run, feature, ada, "Ada")
        decide(book, run, feature, bo, "Bo")
    app = open_app("review")
    assert "Two readers: 1 disagreement" in [expander.label for expander in app.expander]
    text = said(app)
    assert (
        "Ada and Bo decided alike on **2 of 3 (67%)** features. Cohen's kappa, agreement beyond chance, is 0.57" in text
    )
    assert "On 3 features it is known no better than" in text
    go(app, "review")
    button(app, "differ-Ada-Bo-1").click().run()
    assert shown(checked(app)) == "Feature 1"


def test_who_decides_is_known_from_a_proxy(run: AuditRun, book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAVL_USER_HEADER", "X-Forwarded-User")
    app = open_app("review")
    assert "does not say who you are" in said(app)  # the header is not sent: nobody decides, whatever is typed
    assert button(app, "decide-core").disabled
    assert "reviewer-name" not in [field.key for field in app.text_input]
    monkeypatch.setattr(state, "person", lambda: Person("ada@clinic", "proxy"))
    go(app, "review")
    assert "Deciding as **ada@clinic** (as the proxy says)" in said(app)
    button(app, "decide-core").click().run()
    assert [(v.reviewer, v.identity) for v in book.history(run.id)] == [("ada@clinic", "proxy")]


# --- again -----------------------------------------------------------------------------------------------------------


def test_a_decision_on_other_regions_has_to_be_made_again(run: AuditRun, book: Ledger) -> None:
    book.add_verdict(run.id, 1, "eel", "spurious", "Ada", "0123456789abcdef", "red square")
    app = named(open_app("review"), "Ada")
    text = said(app)
    assert "It was called spurious “red square” by Ada on" in text
    assert "but other regions belong to it now" in text
    assert "0 of 1 decided" in html_and_progress(app)
    button(app, "decide-spurious").click().run()
    assert "other regions belong to it now" not in said(checked(app))
    assert "1 of 1 decided" in html_and_progress(app)


def test_what_was_merged_has_to_be_decided_anew(run: AuditRun, book: Ledger) -> None:
    decide(book, run, 2, "core", "Bo", "corner")
    book.add_grouping(run.id, "merge", (7, 2), (1,), "Ada")
    app = open_app("review", feature="1")
    assert "Ada merged what it was part of. Decided before: feature 2: genuine “corner” by Bo." in said(app)


# --- faults ----------------------------------------------------------------------------------------------------------


def test_an_unforeseen_fault_is_a_sentence_and_its_place_is_in_the_log(
    run: AuditRun, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("secret detail")

    app = named(open_app("review"))
    monkeypatch.setattr(Ledger, "add_verdict", fail)
    button(app, "decide-core").click().run()
    assert not app.exception
    [told] = [piece.value.replace("\\", "") for piece in app.error]
    assert "a fault of RAVL, not of yours" in told
    assert str(workspace / "dashboard.log") in told
    assert "secret" not in told
    log = workspace / "dashboard.log"
    assert "ZeroDivisionError: secret detail" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0


def test_a_ledger_that_cannot_be_written_is_a_sentence(run: AuditRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise RunError("ravl.db could not be written: disk full. Check the disk, then try again.")

    app = named(open_app("review"))
    monkeypatch.setattr(Ledger, "add_verdict", refuse)
    button(app, "decide-core").click().run()
    assert "disk full" in said(checked(app))
