"""How the tests of the pages open, drive and read the application through Streamlit's own test runner."""

from __future__ import annotations

import os
from typing import Any

import psutil
from streamlit.testing.v1 import AppTest

from dashboard.serving.server import application

VIEWS = ("start", "overview", "features", "region_map", "review", "repair", "export")


def open_app(view: str = "start", **query: str) -> AppTest:
    app = AppTest.from_file(str(application()), default_timeout=30)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    return checked(app) if view == "start" else go(app, view)


def go(app: AppTest, view: str) -> AppTest:
    app.switch_page(f"views/{view}.py").run()
    return checked(app)


def checked(app: AppTest) -> AppTest:
    assert not app.exception, app.exception
    assert not any("fault of RAVL" in piece.value for piece in app.error), [piece.value for piece in app.error]
    return app


def address(app: AppTest) -> dict[str, str]:
    """Query parameters, which the test runner holds as text or as lists of it."""
    return {name: value if isinstance(value, str) else value[0] for name, value in dict(app.query_params).items()}


def said(app: AppTest) -> str:
    """All prose of the page, without Markdown's escapes."""
    pieces = [*app.title, *app.subheader, *app.markdown, *app.caption, *app.info, *app.warning, *app.error]
    return "\n".join(str(piece.value) for piece in pieces).replace("\\", "")


def html(app: AppTest) -> str:
    return "\n".join(piece.proto.body for piece in app.get("html"))


def button(app: AppTest, key: str) -> Any:
    return app.button(key=key)


def alive() -> dict[str, Any]:
    """Process columns of a job that this very process computes."""
    return {"pid": os.getpid(), "pid_started": psutil.Process().create_time()}
