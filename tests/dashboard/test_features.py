"""Features: the ranked table, the evidence for the chosen one, and what the pages say about other kinds of audits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from ravl.ledger import Ledger
from ravl.store import AuditRun
from tests.dashboard.conftest import make_run
from tests.dashboard.screen import VIEWS, address, button, checked, go, html, open_app, said


def test_features_are_ranked_and_the_first_is_shown(run: AuditRun) -> None:
    app = open_app("features")
    table = app.dataframe[0].value
    assert list(table["Feature"]) == ["Feature 1", "Feature 2", "Feature 0"]
    assert list(table["Errors that go"]) == ["14 of 18 (78%)", "0 of 18 (0%)", "not tested"]
    assert list(table["Evidence"]) == ["Causes errors", "Related, no effect", "Too little evidence"]
    assert list(table["Rule"]) == ["Flagged", "–", "–"]
    assert table["Gap above chance"][0].startswith("0.97 (")
    assert list(table["q"])[::2] == ["<0.001", "–"]
    assert list(table["Wrong images"]) == ["15 of 27", "10 of 10", "18 of 60"]
    assert table[""][0].startswith("data:image/jpeg")
    text = said(app)
    assert "Of the 15 wrongly classified images that show it, **14 become right** when it is removed, and **1**" in text
    assert "27 regions in 27 images, 15 of them classified wrongly (56%)" in text
    assert "0 of 12" in html(app)
    assert "errors go here" in html(app)
    assert address(app)["feature"] == "1"


def test_more_numbers_are_columns_on_demand(run: AuditRun) -> None:
    app = open_app("features")
    assert shown_columns(app) == [
        *("", "Feature", "Mistaken for", "Errors that go", "Evidence", "Decision", "Gap above chance", "q")
    ]
    app.toggle(key="feature-numbers").set_value(True).run()
    assert {"Influence", "Wrong images", "Rule"} <= set(shown_columns(checked(app)))


def shown_columns(app: AppTest) -> list[str]:
    return list(app.dataframe[0].proto.column_order)


def test_the_panel_shows_images_with_and_without_the_feature(run: AuditRun) -> None:
    app = open_app("features")
    text = said(app)
    assert "**3** turn wrong without it. Pasted into 5 right images of other classes, it turns 3" in text
    assert "Hatched: the model is not shown this part" in text
    assert "at least 2 of the 3 ways agree" in text
    panel = gallery_html(app, "trials")
    for part in (
        "Errors that go: 14 of 15 (93%)",
        "Errors that stay: 1 of 15 (7%)",
        "called cat",
        "is cat · image 0",
    ):
        assert part in panel
    assert "Right with it, wrong without it: 3 of 12 (25%)" in panel
    assert panel.count("<figure>") == 6 + 1 + 2 + 2
    app.segmented_control(key=f"operator-{run.id}").select("inpaint").run()
    assert "filled in from what lies around it" in said(checked(app))
    assert "Errors that go: 13 of 15 (87%)" in gallery_html(app, "trials")


def gallery_html(app: AppTest, kind: str) -> str:
    """What the component with `kind` in its HTML is given to draw."""
    sent = [piece.proto.json for piece in app.get("bidi_component")]
    return next(json.loads(text)["html"] for text in sent if f"ravl-{'pairs' if kind == 'trials' else 'cards'}" in text)


def test_the_numbers_are_a_table_of_all_operators(run: AuditRun) -> None:
    shown = html(open_app("features"))
    for part in (
        "Left out",
        "Painted over",
        "Filled in",
        "<b>93%</b> <small>14 of 15</small>",
        "<small>1 of 15</small>",
    ):
        assert part in shown
    assert "Gap above chance, with its interval" in shown
    assert "12 of 12 (100%) and 6 of 8 (75%)" in shown


def test_a_feature_without_effect_is_not_called_a_cause(run: AuditRun) -> None:
    app = open_app("features", feature="2")
    text = said(app)
    assert "Of the 10 wrongly classified images that show it, **none becomes right**" in text
    assert "something else causes them" in text
    assert "It explains" not in text
    assert "Errors that stay: 10 of 10 (100%)" in gallery_html(app, "trials")


def test_a_feature_that_was_not_removed_has_no_panel(run: AuditRun) -> None:
    app = open_app("features", feature="0")
    text = said(app)
    assert "It was not removed as a test. There are too few images" in text
    assert "What happens without it" not in text
    assert "Left out" not in html(app)
    assert "60 regions in 60 images" in html(app)


def test_features_can_be_filtered(run: AuditRun, confirm: Callable[[], None]) -> None:
    confirm()
    app = open_app("features")
    filters = {"flagged": ["red square (feature 1)"], "open": ["Feature 2", "Feature 0"]}
    for choice, names in filters.items():
        app.segmented_control(key="feature-filter").select(choice).run()
        assert list(checked(app).dataframe[0].value["Feature"]) == names


def test_a_chosen_row_becomes_the_feature_of_all_pages(run: AuditRun) -> None:
    app = open_app("features", feature="2")
    assert "Feature 2" in [piece.value for piece in app.subheader]
    go(app, "review")
    assert "Feature 2" in [piece.value for piece in app.subheader]
    assert address(app)["feature"] == "2"


# --- features: other audits ------------------------------------------------------------------------------------------


@pytest.fixture
def other(workspace: Path, template: Path) -> Callable[..., AuditRun]:
    """The workspace with one audit only, made as asked."""

    def make(**how: Any) -> AuditRun:
        shutil.rmtree(workspace / "runs")
        return make_run(workspace, template / "images", name="other", **how)

    return make


def test_nothing_flagged_says_what_that_does_not_prove(other: Callable[..., AuditRun]) -> None:
    other(tested=(2,))
    app = open_app("overview")
    text = said(app)
    assert "**No local shortcut was found.** None of the 3 features was shown to cause errors." in text
    for word in ("brightness", "smaller than a region", "few images", "cause no error"):
        assert word in text
    assert "invisible" not in text
    assert (
        "3 features: 1 without effect, 1 with too few errors to tell what removal does, 1 with too little evidence."
        in text
    )
    assert button(app, "go-next").label == "Go to Features"
    go(app, "review")
    assert "review-flagged" not in [toggle.key for toggle in app.toggle]
    assert "0 of 3 decided" in "\n".join(piece.proto.text for piece in app.get("progress"))
    table = go(app, "features").dataframe[0].value
    assert list(table["Rule"]) == ["–", "–", "–"]


@pytest.mark.parametrize("view", VIEWS[1:])
def test_pages_of_an_audit_in_which_nothing_was_removed(other: Callable[..., AuditRun], view: str) -> None:
    other(tested=())
    app = open_app(view)
    assert not app.error
    if view == "features":
        assert list(app.dataframe[0].value["Errors that go"]) == ["not tested"] * 3
        assert not any("ravl-pairs" in piece.proto.json for piece in app.get("bidi_component"))


@pytest.mark.parametrize("view", VIEWS[1:])
def test_pages_of_an_audit_with_many_features(other: Callable[..., AuditRun], view: str) -> None:
    other(extra=12)
    app = open_app(view)
    assert not app.error
    if view == "overview":
        assert "**1 of 15 features**" in said(app)
        assert "14 more features: 1 without effect, 13 with too little evidence." in said(app)
    if view == "features":
        assert len(app.dataframe[0].value) == 15


@pytest.mark.parametrize("view", VIEWS[1:])
def test_pages_of_an_audit_without_features(other: Callable[..., AuditRun], view: str) -> None:
    other(noise=True, tested=())
    app = open_app(view)
    assert not app.error
    assert len(said(app)) > 80  # each says what that means, or what to do
    if view in ("features", "review"):
        assert [link.label for link in app.get("page_link")]


def test_the_papers_rule_says_so(other: Callable[..., AuditRun]) -> None:
    other(rule="paper")
    text = said(open_app("overview"))
    assert "**1 of 3 features** passes the paper's rule." in text
    assert "It explains **14 of all 18 errors (78%)**." in text


@pytest.mark.parametrize("view", VIEWS[1:])
def test_html_and_markdown_in_class_names_stay_text(other: Callable[..., AuditRun], book: Ledger, view: str) -> None:
    run = other(classes=("<script>alert(1)</script>", "*b* $x$", "<b>eel</b>"))
    book.add_verdict(run.id, 1, "<b>eel</b>", "spurious", "<i>Ada</i>", "d", "<script>alert(2)</script>", "*note*")
    app = open_app(view)
    assert not app.error
    sent = [json.loads(piece.proto.json or "{}") for piece in app.get("bidi_component")]
    drawn = html(app) + "".join(page.get("html", "") for page in sent)  # the map is painted: its words are no markup
    assert "<script" not in drawn
    assert "<b>eel" not in drawn
    for piece in [*app.markdown, *app.caption]:
        assert "*b* $x$" not in str(piece.value)
        bare = str(piece.value).replace("\\<", "")
        assert not any(tag in bare for tag in ("<script", "<b>eel", "<i>Ada"))
