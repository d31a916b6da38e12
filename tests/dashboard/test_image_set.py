"""What the Overview says of the audited images: what is wrong with them, with counts, the serious first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dashboard.words.image_set import concerns, left_out
from ravl.store import AuditRun
from ravl.tables import ImageSet
from tests.dashboard.conftest import draw_images, make_run
from tests.dashboard.screen import open_app, said


def images(**changed: Any) -> ImageSet:
    one = ImageSet(
        "/images", np.array(["a/1.png", "a/2.png", "b/3.png", "b/4.png"]), [0, 0, 1, 1], np.full((4, 2), 8), ("a", "b")
    )
    return replace(one, **changed)


def test_nothing_is_said_where_nothing_is_wrong() -> None:
    assert concerns(images()) == ()
    assert concerns(images(digest=np.array(list("wxyz")))) == ()
    assert concerns(images(headers={"burned_in": np.array(["NO", "", "NO", ""])})) == ()


def test_one_picture_under_two_labels_comes_first() -> None:
    found = concerns(images(digest=np.array(list("xyxz")), skipped=(("c.png", "is empty"),)))
    assert [concern.title for concern in found] == ["1 image under two labels", "1 file left out"]
    assert [concern.serious for concern in found] == [True, False]
    assert found[0].rows == {
        "File": ["a/1.png", "b/3.png"],
        "Label": ["a", "b"],
        "Same picture as": ["b/3.png", "a/1.png"],
    }


def test_copies_of_one_label_are_told_apart_from_clashes() -> None:
    [copies] = concerns(images(digest=np.array(list("xxyy"))))
    assert (copies.title, copies.serious) == ("2 images listed more than once", False)
    assert copies.rows["File"] == ["a/1.png", "a/2.png", "b/3.png", "b/4.png"]


@pytest.mark.parametrize(
    ("field", "title"),
    [("skipped", "2 files left out"), ("left_out", "2 images of no class"), ("skipped_boxes", "2 boxes left out")],
)
def test_what_is_left_out_is_listed_with_its_reason(field: str, title: str) -> None:
    rows = (("c.png", "is empty"), ("<b>d</b>.png", "cannot be decoded"))
    [concern] = concerns(images(**{field: rows}))
    assert concern.title == title
    assert concern.rows == {"File": ["c.png", "<b>d</b>.png"], "Reason": ["is empty", "cannot be decoded"]}


def test_folders_and_given_embeddings_are_no_files_left_out() -> None:
    skipped = (
        *(("c.png", "is empty"), ("d.png", "does not exist; its embeddings are used")),
        *(("masks/", "holds no image, so it is not used as a class"), ("old/", "holds no image, so it is not used")),
    )
    found = images(skipped=skipped)
    titles = [concern.title for concern in concerns(found)]
    assert titles == ["1 file left out", "1 image that cannot be shown", "2 folders without images"]
    assert left_out(found) == (
        "1 file could not be read and counts nowhere. 1 image cannot be shown, but counts: the embeddings were given. "
        "2 folders without images are no classes."
    )
    assert left_out(images()) == ""


def test_text_in_the_picture_is_a_warning() -> None:
    [concern] = concerns(images(headers={"burned_in": np.array(["YES", "", "NO", "YES"])}))
    assert (concern.title, concern.serious) == ("2 images with text burned in", True)
    assert concern.rows["File"] == ["a/1.png", "b/4.png"]


def test_what_can_spoil_an_audit_is_said_at_the_top(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(folder: Path) -> ImageSet:
        drawn = draw_images(folder)
        return replace(drawn, digest=np.array([f"{i % (len(drawn) - 1):02d}" for i in range(len(drawn))]))

    monkeypatch.setattr("tests.dashboard.conftest.draw_images", draw)
    run = make_run(workspace, tmp_path / "twice", name="twice")
    app = open_app("overview", run=run.id)
    [warning] = [piece.value for piece in app.warning]
    assert warning == "**1 image under two labels.** Which they are is told at the end of this page."
    assert "What to know about the images" in said(app)


def test_nothing_is_warned_of_where_nothing_is_serious(run: AuditRun) -> None:
    app = open_app("overview")
    assert not app.warning
    assert [section.label for section in app.expander] == ["1 file left out"]
