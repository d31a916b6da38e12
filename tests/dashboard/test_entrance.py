"""Nothing is shown to whom nothing should be shown: an open server, a sign-in that is asked for first."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import streamlit as st

from dashboard import entrance
from dashboard.screen import state
from dashboard.serving.identity import Person
from ravl.store import AuditRun
from tests.dashboard.screen import button, checked, open_app, said


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Streamlit's options as the pages see them; what is put in here takes their place."""
    changed: dict[str, Any] = {}
    real = st.get_option
    monkeypatch.setattr(st, "get_option", lambda name: changed[name] if name in changed else real(name))
    return changed


def test_an_open_server_shows_nothing(run: AuditRun, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    options["server.address"] = "0.0.0.0"
    app = open_app()
    assert "there is no login" in said(app)
    assert "--accept-no-login" in said(app)
    assert run.name not in said(app)
    assert not app.button
    monkeypatch.setenv("RAVL_ACCEPT_NO_LOGIN", "1")
    app.run()
    assert "there is no login" not in said(checked(app))
    assert f"open-{run.id}" in [item.key for item in app.button]


def test_where_a_sign_in_is_configured_it_comes_first(run: AuditRun, monkeypatch: pytest.MonkeyPatch) -> None:
    who = {"name": ""}
    monkeypatch.setattr(state, "sign_in_configured", lambda: True)
    monkeypatch.setattr(state, "person", lambda: Person(who["name"], "oidc"))
    monkeypatch.setattr(entrance, "find_spec", lambda name: importlib.util.find_spec("json"))
    app = open_app()
    assert [item.key for item in app.button] == ["sign-in"]
    assert run.name not in said(app)
    who["name"] = "Ada (ada@clinic.org)"
    app.run()
    assert f"open-{run.id}" in [item.key for item in checked(app).button]
    assert button(app, "sign-out").label == "Sign out"


def test_a_sign_in_without_its_package_is_told(run: AuditRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "sign_in_configured", lambda: True)
    monkeypatch.setattr(state, "person", lambda: Person("", "oidc"))
    monkeypatch.setattr(entrance, "find_spec", lambda name: None)
    app = open_app()
    assert "pip install 'streamlit[auth]'" in said(app)
    assert not app.button
