"""The map page: what the canvas is sent, what it may answer, filters, selection, and the job that makes a feature."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from dashboard.pictures import packing
from dashboard.reading import opened, selection
from dashboard.screen import readers
from ravl.ledger import Ledger
from ravl.store import AuditRun
from tests.dashboard.screen import address, button, checked, go, html, open_app, said

AROUND_MARK = ((8.5, 8.5), (11.5, 8.5), (11.5, 11.5), (8.5, 11.5))
AROUND_ALL = ((-12.0, -12.0), (22.0, -12.0), (22.0, 22.0), (-12.0, 22.0))


def cells(run: AuditRun, shape: tuple[tuple[float, float], ...] = AROUND_MARK) -> list[int]:
    grid = packing.to_grid(shape, packing.frame_of(run.projection()))
    return [value for corner in grid for value in corner]


def send(app: AppTest, run: AuditRun, kind: str, *events: object) -> AppTest:
    """What the component does: it changes its state."""
    app.session_state[f"map-canvas-{run.id}"] = {kind: list(events)}
    app.run()
    return checked(app)


def lasso(app: AppTest, run: AuditRun, shape: tuple[tuple[float, float], ...] = AROUND_MARK) -> AppTest:
    app.session_state[f"ravl:map:{run.id}:draw"] = packing.written((packing.to_grid(shape, frame(run)),))
    app.run()
    return checked(app)


def frame(run: AuditRun) -> packing.Frame:
    return packing.frame_of(run.projection())


def canvas(app: AppTest) -> dict:
    """What the map's component is sent."""
    [data] = [piece.proto.json for piece in app.get("bidi_component") if piece.proto.component_name == "ravl_map"]
    return json.loads(data)


def stored(app: AppTest, name: str) -> np.ndarray:
    """An array of the store."""
    for piece in app.get("bidi_component"):
        message = piece.proto.bytes
        if piece.proto.component_name == "ravl_map_store":
            length = int.from_bytes(message[:4], "little")
            header = json.loads(message[4 : 4 + length])
            if header["name"] == name:
                assert header["version"] == canvas(app)[name]
                return np.frombuffer(message[4 + length :], "<u2" if name == "points" else np.uint8)
    raise AssertionError(name)


# --- what is drawn ----------------------------------------------------------------------------------------------------


def test_the_canvas_is_sent_every_region_once(run: AuditRun) -> None:
    app = open_app("region_map")
    assert len(stored(app, "points")) == 2 * 240
    codes, entries = stored(app, "codes"), canvas(app)["entries"]
    assert np.bincount(codes).tolist() == [entry["count"] for entry in entries]
    assert [entry["name"] for entry in entries] == ["Feature 1", "Feature 2", "Feature 0", "no feature"]
    assert canvas(app)["selected"] is None


@pytest.mark.parametrize("by", ["class", "called", "right", "verdict"])
def test_a_colouring_changes_the_codes_alone(run: AuditRun, by: str) -> None:
    app = open_app("region_map")
    before, points = canvas(app), stored(app, "points")
    app.segmented_control(key="map-colour").select(by).run()
    after = canvas(checked(app))
    assert after["points"] == before["points"]
    assert np.array_equal(stored(app, "points"), points)
    assert after["codes"] != before["codes"]
    assert address(app)["colour"] == by


def test_names_of_users_are_sent_as_they_are(run: AuditRun) -> None:
    app = open_app("region_map")
    app.segmented_control(key="map-colour").select("class").run()
    assert [entry["name"] for entry in canvas(checked(app))["entries"]] == ["cat", "dog *", "eel"]


def test_a_large_map_says_that_it_shows_a_sample(run: AuditRun, monkeypatch: pytest.MonkeyPatch) -> None:
    readers._shown.clear()
    monkeypatch.setattr(selection, "sample", lambda group, limit: np.arange(0, 240, 3))
    try:
        app = lasso(open_app("region_map"), run, AROUND_ALL)
        assert "80 of 240 regions are drawn" in said(app)
        assert "**240 regions, 60 images, 18 wrong**" in said(app)  # all of them, not those that are drawn
        assert len(stored(app, "codes")) == 80
    finally:
        readers._shown.clear()


def test_regions_without_a_place_are_not_drawn(run: AuditRun) -> None:
    points = run.projection().copy()
    points[:7] = np.nan
    np.save(run.path / "projection.npy", points)
    app = open_app("region_map")
    assert np.count_nonzero(stored(app, "codes") == packing.HIDDEN) == 7


# --- what is selected -------------------------------------------------------------------------------------------------


def test_a_drawn_shape_shows_counts_and_crops(run: AuditRun) -> None:
    app = open_app("region_map")
    send(app, run, "drawn", {"seq": 1, "cells": cells(run), "add": False})
    assert "**27 regions, 27 images, 15 wrong**" in said(app)
    assert "27 of Feature 1" in said(app)
    sent = canvas(app)
    assert sent["said"] == "27 regions, 27 images, 15 wrong"
    assert sent["ack"] == {"drawn": 1, "legend": 0}
    assert sent["shapes"] == [cells(run)]
    mask = np.unpackbits(np.frombuffer(base64.b64decode(sent["selected"]), np.uint8), bitorder="little")
    assert np.flatnonzero(mask[:240]).tolist() == opened.read_audit(run).members(1).tolist()
    button(app, "clear-selection").click().run()
    assert "regions," not in said(checked(app))
    assert canvas(app)["selected"] is None
    assert "draw" not in address(app)


def test_a_second_shape_replaces_the_first_or_is_added(run: AuditRun) -> None:
    app = open_app("region_map")
    send(app, run, "drawn", {"seq": 1, "cells": cells(run), "add": False})
    other = cells(run, ((18.5, 18.5), (21.5, 18.5), (21.5, 21.5), (18.5, 21.5)))
    send(app, run, "drawn", {"seq": 2, "cells": other, "add": True})
    assert "**37 regions" in said(app)
    send(app, run, "drawn", {"seq": 3, "cells": other, "add": False})
    assert "**10 regions" in said(app)
    send(app, run, "drawn", {"seq": 3, "cells": cells(run), "add": False})  # heard before
    assert "**10 regions" in said(app)
    send(app, run, "drawn", {"seq": 4, "clear": True})
    assert "Nothing is selected" in said(app)


def test_what_was_done_in_a_hurry_is_all_done(run: AuditRun) -> None:
    """The component sends what may not have been heard again; each event counts once, in order."""
    app = open_app("region_map")
    other = cells(run, ((18.5, 18.5), (21.5, 18.5), (21.5, 21.5), (18.5, 21.5)))
    first, second = {"seq": 1, "cells": cells(run), "add": True}, {"seq": 2, "cells": other, "add": True}
    send(app, run, "drawn", second, first)
    assert "**37 regions" in said(app)
    send(app, run, "drawn", first, second, {"seq": 3, "clear": True}, {"seq": 4, "cells": other, "add": True})
    assert "**10 regions" in said(app)
    send(app, run, "legend", *({"seq": 5 + code, "code": code, "colouring": "feature"} for code in (0, 3)))
    assert [entry["hidden"] for entry in canvas(app)["entries"]] == [True, False, False, True]
    assert canvas(app)["ack"] == {"drawn": 4, "legend": 8}


@pytest.mark.parametrize(
    "event", [None, 3, {}, {"seq": "1", "cells": []}, {"seq": 1, "cells": [1, 2]}, {"seq": 1, "cells": "x" * 9}]
)
def test_what_the_map_never_sends_is_ignored(run: AuditRun, event: object) -> None:
    app = send(open_app("region_map"), run, "drawn", event)
    assert "Nothing is selected" in said(app)


def test_a_reload_finds_filters_colouring_and_selection(run: AuditRun) -> None:
    app = open_app("region_map")
    app.segmented_control(key="map-colour").select("right").run()
    app.multiselect(key="map-only-class").select("0").run()
    send(app, run, "drawn", {"seq": 1, "cells": cells(run), "add": False})
    query = address(app)
    assert set(query) == {"run", "colour", "filter", "draw"}
    again = open_app("region_map", **query)
    for name in ("said", "shapes", "selected", "entries", "codes", "by"):
        assert canvas(again)[name] == canvas(app)[name], name
    assert "**12 regions, 12 images, 12 wrong**" in said(again)


def test_a_selection_outlives_the_page(run: AuditRun) -> None:
    app = lasso(open_app("region_map"), run)
    go(app, "review")
    go(app, "region_map")
    assert "**27 regions, 27 images, 15 wrong**" in said(app)


def test_a_decision_and_a_colouring_keep_the_selection(run: AuditRun, book: Ledger) -> None:
    app = lasso(open_app("region_map"), run)
    before = canvas(app)
    book.add_verdict(run.id, 1, "eel", "spurious", "Ada", "digest")
    app.segmented_control(key="map-colour").select("verdict").run()
    after = canvas(checked(app))
    assert [entry["name"] for entry in after["entries"]] == ["Spurious", "not decided", "no feature"]
    for name in ("shapes", "selected", "points", "run"):
        assert after[name] == before[name]


def test_a_feature_can_be_chosen_without_a_mouse(run: AuditRun) -> None:
    app = open_app("region_map")
    app.selectbox(key=f"map-feature-{run.id}").select(2).run()
    assert "**10 regions, 10 images, 10 wrong**" in said(checked(app))
    assert address(app)["pick"] == "2"
    assert canvas(app)["shapes"] == []
    send(app, run, "drawn", {"seq": 1, "cells": cells(run), "add": True})  # a shape takes its place
    assert "**27 regions" in said(app)
    assert "pick" not in address(app)


def test_two_sessions_do_not_disturb_each_other(run: AuditRun) -> None:
    one, other = lasso(open_app("region_map"), run), open_app("region_map")
    other.multiselect(key="map-only-right").select("wrong").run()
    one.run()
    assert "**27 regions, 27 images, 15 wrong**" in said(checked(one))
    assert "Nothing is selected" in said(checked(other))


# --- filters ----------------------------------------------------------------------------------------------------------


def test_filters_have_counts_and_cut_the_selection(run: AuditRun) -> None:
    app = lasso(open_app("region_map"), run)
    assert app.multiselect(key="map-only-class").options == ["cat (80)", "dog * (80)", "eel (80)"]
    app.multiselect(key="map-only-right").select("wrong").run()
    assert "**15 regions, 15 images, 15 wrong**" in said(checked(app))
    assert "**72 of 240 regions** – right or wrong: only *image classified wrong*." in said(app)
    assert app.multiselect(key="map-only-class").options == ["cat (48)", "dog * (16)", "eel (8)"]
    assert np.count_nonzero(stored(app, "codes") != packing.HIDDEN) == 72
    button(app, "no-filters").click().run()
    assert "**27 regions" in said(checked(app))


def test_a_legend_entry_hides_its_regions(run: AuditRun) -> None:
    app = lasso(open_app("region_map"), run, AROUND_ALL)
    send(app, run, "legend", {"seq": 5, "code": 3, "colouring": "feature"})
    assert "**97 regions" in said(app)  # 240 but those of no feature
    assert [entry["hidden"] for entry in canvas(app)["entries"]] == [False, False, False, True]
    assert canvas(app)["entries"][3]["count"] == 143
    assert address(app)["filter"] == "-feature:none"
    send(app, run, "legend", {"seq": 6, "code": 3, "colouring": "class"})  # of the colouring before
    send(app, run, "legend", {"seq": 7, "code": 300, "colouring": "feature"})
    assert "**97 regions" in said(app)
    send(app, run, "legend", {"seq": 8, "code": 3, "colouring": "feature"})
    assert "**240 regions" in said(app)


def test_nothing_left_is_said(run: AuditRun) -> None:
    app = lasso(open_app("region_map", filter="class:1;right:right"), run)
    assert "No region lies inside and matches the filters." in said(app)
    assert "make-feature" not in {item.key for item in app.button}


# --- hover ------------------------------------------------------------------------------------------------------------


def answer(app: AppTest) -> dict:
    [data] = [piece.proto.json for piece in app.get("bidi_component") if piece.proto.component_name == "ravl_map_hover"]
    return json.loads(data or "null")


def test_the_region_under_the_pointer_is_answered_with_its_crop(run: AuditRun) -> None:
    app = open_app("region_map")
    assert not answer(app)
    app.session_state[f"map-hover-{run.id}"] = {"asked": {"point": 3, "seq": 9}}
    found = answer(checked(app.run()))
    assert found["picture"].startswith("data:image/jpeg;base64,")
    assert found["text"] == "Region 3, image 0\ncat, called eel\nfeature 1"
    assert found["points"] == canvas(app)["points"]
    for wrong in ({"point": 240}, {"point": -1}, {"point": "3"}, None, 7):
        app.session_state[f"map-hover-{run.id}"] = {"asked": wrong}
        assert not answer(checked(app.run()))


# --- the fallback -----------------------------------------------------------------------------------------------------


def test_plotly_stays_as_the_fallback(run: AuditRun) -> None:
    app = lasso(open_app("region_map"), run)
    app.toggle(key="map-plotly").set_value(True).run()
    [chart] = checked(app).get("plotly_chart")
    figure = json.loads(chart.proto.spec)
    assert [trace["type"] for trace in figure["data"]] == ["scattergl"]
    assert figure["layout"]["dragmode"] == "lasso"
    assert len(figure["layout"]["shapes"]) == 1  # what is selected, as an outline
    assert "**27 regions" in said(app)
    assert "Feature 1" in html(app)
    assert address(app)["chart"] == "plotly"
    go(app, "review")
    assert len(go(app, "region_map").get("plotly_chart")) == 1
    app.toggle(key="map-plotly").set_value(False).run()
    assert not checked(app).get("plotly_chart")


# --- a feature of the selection ---------------------------------------------------------------------------------------


def name_it(app: AppTest, run: AuditRun, name: str = "red square", who: str = "Ada") -> AppTest:
    app.text_input(key=f"made-name-{run.id}").input(name)
    app.text_input(key="made-reviewer").input(who)
    return checked(app.run())


def test_a_selection_becomes_a_feature_by_a_job(run: AuditRun, book: Ledger, started: list[list[str]]) -> None:
    app = lasso(open_app("region_map"), run, AROUND_ALL)
    app.multiselect(key="map-only-feature").select("1").select("none").run()
    name_it(app, run)
    assert "It takes all 27 regions of Feature 1." in said(app)
    button(app, "make-feature").click().run()
    [arguments] = started
    assert arguments[0] == "feature"
    given = dict(part.removeprefix("--").split("=", 1) for part in arguments[1:])
    assert (given["run"], given["name"], given["reviewer"]) == (run.id, "red square", "Ada")
    wanted = np.flatnonzero(np.isin(opened.read_audit(run).feature_of, [1, -1]))
    assert json.loads(Path(given["regions"]).read_text()) == wanted.tolist()
    assert "New feature “red square” of small" in said(checked(app))
    [job] = book.jobs("feature", run.id)
    book.update_job(job.id, started=job.created)
    book.add_grouping(run.id, "select", [1], [3], "Ada", "red square")
    book.end_job(job.id, "done")
    app.run()
    assert "**red square** is now feature 3" in said(checked(app))
    assert "is now feature 3" not in said(open_app("region_map"))  # old news
    button(app, "dismiss-made").click().run()
    assert "is now feature 3" not in said(checked(app))


@pytest.mark.parametrize(
    ("name", "who", "sentence"),
    [("", "Ada", "Say what it shows first."), (" ", "Ada", "Say what it shows"), ("x", "", "Give your name first")],
)
def test_a_feature_needs_names(run: AuditRun, started: list[list[str]], name: str, who: str, sentence: str) -> None:
    app = lasso(open_app("region_map"), run, AROUND_ALL)
    name_it(app, run, name, who)
    button(app, "make-feature").click().run()
    assert any(sentence in item.value for item in checked(app).warning)
    assert started == []


def test_what_cannot_be_a_feature_is_said(run: AuditRun) -> None:
    app = lasso(open_app("region_map"), run)
    assert "make-feature" not in {item.key for item in app.button}
    assert "they are those of feature 1" in said(app)
    lasso(app, run, ((9.0, 9.0), (9.8, 9.0), (9.8, 10.0), (9.0, 10.0)))
    assert "at least 10 regions" in said(app)
    lasso(app, run, AROUND_ALL)
    app.multiselect(key="map-only-right").select("wrong").run()
    assert "Take the filter on right or wrong away first" in said(checked(app))
    assert "make-feature" not in {item.key for item in app.button}
