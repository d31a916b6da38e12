"""Export: a confirmed list of another audit is shown before it is recorded, and only what fits is taken over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.reading import opened
from dashboard.screen import state
from dashboard.serving.identity import Person
from dashboard.words import import_words
from ravl import export
from ravl.chain import digest
from ravl.importing import ELSEWHERE, Found, Imported
from ravl.ledger import Ledger
from ravl.store import AuditRun
from tests.dashboard.screen import button, checked, open_app, said

EARLIER = "an-earlier-audit"


def listed(run: AuditRun, folder: Path) -> dict[str, Any]:
    """The list of another audit, in which the mark was confirmed, and a feature of which this audit has a part."""
    folder.mkdir(exist_ok=True)
    book, audit = Ledger(folder), opened.read_audit(run)
    for feature, name in ((1, "red square"), (2, "corner *")):
        book.add_verdict(run.id, feature, "eel", "spurious", "Bo", audit.seen(feature), name, "not an eel")
    document = export.confirmed(run, book)
    book.close()
    document["run"]["id"] = EARLIER
    for region in document["features"][1]["regions"][3:]:
        region["box"] = [0, 0, 10, 10]
    return sealed(document)


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in document.items() if key != "sha256"}
    return {**rest, "sha256": digest(rest)}


def uploaded(document: Any) -> AppTest:
    app = open_app("export")
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    app.file_uploader[0].set_value(("list.json", content, "application/json"))
    return checked(app.run())


def test_nothing_is_recorded_before_it_was_seen(run: AuditRun, book: Ledger, tmp_path: Path) -> None:
    app = uploaded(listed(run, tmp_path))
    text = said(app)
    assert f"**1 of 2 features** of *{EARLIER}* can be taken over. 60 of the 60 images of the list" in text
    assert "**red square**, confirmed by Bo, is **Feature 1** here, and would be taken over." in text
    assert "27 regions in common, of 27 there and 27 here: an overlap of 1.00." in text
    assert "**corner ***, confirmed by Bo, is not found here; Feature 2 is the nearest, and shares too little" in text
    assert book.history(run.id) == []
    button(app, "take-over").click().run()
    assert "Give your name first" in said(checked(app))
    assert book.history(run.id) == []
    app.text_input(key="reviewer-name").input("Dr. Ada")
    button(app, "take-over").click().run()
    [taken] = book.history(run.id)
    assert (taken.feature, taken.decision, taken.name, taken.reviewer) == (1, "spurious", "red square", "Dr. Ada")
    assert taken.seen.startswith(ELSEWHERE)
    assert [entry.kind for entry in book.entries()] == ["verdict", "import"]
    text = said(checked(app))
    assert "Confirmed as spurious (1)" in text
    assert "would be taken over" not in text  # the file is gone with what was done with it
    assert "Its regions are not those that the decision was about." in text
    again = uploaded(listed(run, tmp_path / "again"))
    assert "which somebody called *spurious* already; that stands" in said(again)
    assert "take-over" not in [item.key for item in again.button]


def test_how_it_is_known_who_takes_over(
    run: AuditRun, book: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "person", lambda: Person("ada@clinic", "oidc"))
    button(uploaded(listed(run, tmp_path)), "take-over").click().run()
    assert [(v.reviewer, v.identity) for v in book.history(run.id)] == [("ada@clinic", "oidc")]
    assert (book.entries()[-1].event or {})["identity"] == "oidc"
    assert book.fault() == ""


@pytest.mark.parametrize(
    ("content", "said_so"),
    [
        (b"\xff\xfe", "must be text in UTF-8, but list.json is not"),
        (b"{", "must hold JSON, but list.json does not"),
        (b'{"schema": "ravl.confirmed-features", "schema_version": 1}', "must be 2, got 1"),
    ],
)
def test_what_is_no_list(run: AuditRun, book: Ledger, content: bytes, said_so: str) -> None:
    app = uploaded(content)
    assert said_so in app.error[0].value.replace("\\", "")
    assert "take-over" not in [item.key for item in app.button]


def test_the_list_of_this_very_audit(run: AuditRun, book: Ledger, tmp_path: Path) -> None:
    document = listed(run, tmp_path)
    document["run"]["id"] = run.id
    assert "must be the list of another run" in uploaded(sealed(document)).error[0].value.replace("\\", "")


def test_words() -> None:
    one = Found(4, "", "Bo", None, 7, 0, 0, "none")
    assert import_words.summary(Imported("far", 0, 1, (one,))).startswith("The only feature of *far* cannot be taken")
    assert import_words.summary(Imported("far", 0, 1, ())) == "The list holds no confirmed feature."
    assert "**Feature 4**, confirmed by Bo, is not found here: none" in import_words.line(one, {})
    assert import_words.counts(one) == "7 regions there, on images that both audits know."
