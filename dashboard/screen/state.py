"""The only user of session state and query parameters: workspace, audit, feature, reviewer, drafts, messages.

Widget state dies when a page is left, so everything worth keeping lives here under keys of our own; the audit and the
feature are also in the address, so that a reload or a shared link finds them.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec

import streamlit as st

from dashboard.pictures import packing
from dashboard.pictures.packing import Cells
from dashboard.pictures.palette import Palette, palette
from dashboard.serving import faults
from dashboard.serving.identity import USER_HEADER, Person
from dashboard.serving.identity import person as identified
from dashboard.words.wording import message, plain
from ravl.errors import RavlError
from ravl.tables import Verdict

P = ParamSpec("P")

DEFAULT_WORKSPACE = "ravl-workspace"


def workspace() -> Path:
    """The workspace: `--workspace` after the `--` of `streamlit run`, else RAVL_WORKSPACE, else ./ravl-workspace."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--workspace", default=os.environ.get("RAVL_WORKSPACE") or DEFAULT_WORKSPACE)
    return Path(parser.parse_known_args(sys.argv[1:])[0].workspace).expanduser().resolve()


def colours() -> Palette:
    """The colours of the theme that the reader sees."""
    return palette(st.context.theme.type == "dark")


# --- errors and messages ---------------------------------------------------------------------------------------------


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Show an error as a sentence; the rest of the block is left out. What nobody foresaw goes to the log."""
    try:
        yield
    except RavlError as error:
        st.error(message(str(error)), icon=":material/error:")
    except Exception as error:  # noqa: BLE001 - the screen never shows a trace; the log does
        st.error(plain(faults.note(error, workspace())), icon=":material/error:")


def action(function: Callable[P, Any]) -> Callable[P, None]:
    """A callback whose error is shown as a sentence on the page that is drawn next."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except RavlError as error:
            _messages().append(("error", message(str(error))))
        except Exception as error:  # noqa: BLE001 - as above
            _messages().append(("error", plain(faults.note(error, workspace()))))

    return guarded


def say(text: str) -> None:
    """A short confirmation, shown once on the page that is drawn next. Markdown."""
    _messages().append(("toast", text))


def warn(text: str) -> None:
    """Something that must not be overlooked, shown once on top of the page that is drawn next. Markdown."""
    _messages().append(("warning", text))


def show_messages() -> None:
    """Draw what callbacks had to say, once."""
    for kind, text in st.session_state.pop("ravl:messages", []):
        if kind == "error":
            st.error(text, icon=":material/error:")
        elif kind == "warning":
            st.warning(text, icon=":material/warning:")
        else:
            st.toast(text)


def _messages() -> list[tuple[str, str]]:
    messages: list[tuple[str, str]] = st.session_state.setdefault("ravl:messages", [])
    return messages


# --- which audit, which feature --------------------------------------------------------------------------------------


def chosen_run(runs: list[str]) -> str | None:
    """The audit on the screen: that of the address, else the one chosen before, else the newest. runs: newest first."""
    wanted = (st.query_params.get("run"), st.session_state.get("ravl:run"), *runs)
    run = next((name for name in wanted if name in runs), None)
    if run is not None:
        choose_run(run)
    return run


def choose_run(run: str) -> None:
    """Make `run` the audit on the screen, in the address too."""
    if st.session_state.get("ravl:run") != run:
        st.session_state["ravl:run"] = run
    before = st.query_params.get("run")
    if before != run:
        st.query_params["run"] = run
    if before not in (None, run):
        for name in ("feature", *MAP_PARAMETERS):
            st.query_params.pop(name, None)  # they were of another audit


def chosen_feature(run: str, features: list[int]) -> int | None:
    """The feature on the screen, if the audit has it: that of the address, else the one chosen before."""
    address = st.query_params.get("feature", "")
    asked = int(address) if address.isdecimal() else None
    wanted = (asked, st.session_state.get(f"ravl:feature:{run}"))
    feature = next((number for number in wanted if number in features), None)
    if feature is not None:
        choose_feature(run, feature)
    return feature


def asked_feature(run: str) -> int | None:
    """The feature that was asked for, whether the audit still has it or not."""
    address = st.query_params.get("feature", "")
    kept: int | None = st.session_state.get(f"ravl:feature:{run}")
    return int(address) if address.isdecimal() else kept


def choose_feature(run: str, feature: int) -> None:
    """Make `feature` the one on the screen, in the address too."""
    st.session_state[f"ravl:feature:{run}"] = feature
    if st.query_params.get("feature") != str(feature):
        st.query_params["feature"] = str(feature)


def address(run: str | None, feature: int | None = None) -> dict[str, str]:
    """Query parameters of a link that keeps the audit and the feature."""
    wanted = {"run": run, "feature": None if feature is None else str(feature)}
    return {name: value for name, value in wanted.items() if value is not None}


# --- the reviewer and what they are writing --------------------------------------------------------------------------


def sign_in_configured() -> bool:
    """Whether `[auth]` of Streamlit's secrets names an OIDC provider."""
    return bool(st.secrets.load_if_toml_exists()) and "auth" in st.secrets


def person() -> Person:
    """Who sits before the screen, by the strongest means that is configured."""
    signed_in = dict(st.user.to_dict()) if sign_in_configured() else None
    if signed_in is not None and not signed_in.get("is_logged_in"):
        signed_in = {}
    header = os.environ.get(USER_HEADER, "").strip()
    return identified(signed_in, header, st.context.headers.to_dict(), st.session_state.get("ravl:reviewer", ""))


def name_reviewer(name: str) -> None:
    """Keep a self-declared name for this session."""
    st.session_state["ravl:reviewer"] = name.strip()


NOBODY = " "
"""A name that no reviewer has: names are stripped."""


def read_blind(on: bool) -> None:
    """Begin or end a blind reading in this session."""
    st.session_state["ravl:blind"] = on


def blind_reader() -> str:
    """In a blind reading, who reads (NOBODY without a name); else empty."""
    return (person().name or NOBODY) if st.session_state.get("ravl:blind") else ""


def did(run: str, verdict: Verdict) -> None:
    """Remember a decision of this session, to be undone."""
    key = f"ravl:did:{run}"
    st.session_state[key] = (*st.session_state.get(key, ()), verdict)


def last_done(run: str) -> Verdict | None:
    """The last decision of this session that is not undone."""
    return next(reversed(st.session_state.get(f"ravl:did:{run}", ())), None)


def undone(run: str) -> None:
    """Forget the last decision of this session."""
    key = f"ravl:did:{run}"
    st.session_state[key] = st.session_state.get(key, ())[:-1]


def knows(run: str, event: Verdict) -> None:
    """Note the withdrawal that this session wrote: it is not what somebody else decided in the meantime."""
    st.session_state[f"ravl:knows:{run}:{event.feature}"] = event.id


def known_event(run: str, done: Verdict) -> int:
    """Id of the last event about the feature of a decision of this session that this session wrote."""
    withdrawal: int = st.session_state.get(f"ravl:knows:{run}:{done.feature}", 0)
    return max(done.id, withdrawal)


def draft(run: str, feature: int, field: str, recorded: str) -> str:
    """Text that is being written about a feature; until then, what the ledger has."""
    text: str = st.session_state.get(f"ravl:draft:{run}:{feature}:{field}", recorded)
    return text


def keep_draft(run: str, feature: int, field: str, text: str) -> None:
    """Keep unrecorded text over page changes."""
    st.session_state[f"ravl:draft:{run}:{feature}:{field}"] = text


def drop_drafts(run: str, feature: int) -> None:
    """Forget the text of a feature once it is recorded."""
    for field in ("name", "note"):
        st.session_state.pop(f"ravl:draft:{run}:{feature}:{field}", None)


# --- the map's selection ---------------------------------------------------------------------------------------------


MAP_PARAMETERS = ("filter", "draw", "pick", "colour", "chart")
"""What of the map is in the address: filters, drawn shapes, a chosen feature, the colouring, and which chart draws."""

_LONGEST = 1600  # characters of one parameter: longer ones would make addresses that servers and people refuse


def kept(run: str, name: str) -> str:
    """One of MAP_PARAMETERS for an audit: as it is in this session, else as the address has it (after a reload)."""
    key = f"ravl:map:{run}:{name}"
    if key not in st.session_state:
        st.session_state[key] = st.query_params.get(name, "")
    text: str = st.session_state[key]
    _address(name, text)
    return text


def keep(run: str, name: str, text: str) -> None:
    """Keep one of MAP_PARAMETERS over page changes and, where it is short enough, over reloads."""
    st.session_state[f"ravl:map:{run}:{name}"] = text
    _address(name, text)


def _address(name: str, text: str) -> None:
    if not text or len(text) > _LONGEST:
        st.query_params.pop(name, None)
    elif st.query_params.get(name) != text:
        st.query_params[name] = text


def shapes(run: str) -> tuple[Cells, ...]:
    """What was drawn around on the map of an audit; it outlives the chart."""
    return packing.read(kept(run, "draw"))


def keep_shapes(run: str, drawn: tuple[Cells, ...]) -> None:
    """Keep, or with nothing drawn clear, the selection."""
    keep(run, "draw", packing.written(drawn))


def outlines(run: str, drawing: tuple[Hashable, ...]) -> tuple[Cells, ...]:
    """Earlier selections that the Plotly chart itself has to draw. drawing: all that makes it be drawn anew.

    A lasso is drawn by the browser, and lost whenever the chart changes; so a chart that is drawn anew anyway shows
    what is chosen as an outline, and one that shows no outline is left as it is, with its zoom and its lasso.
    """
    key, this = f"ravl:outlines:{run}", (visits(), *drawing)
    shown: tuple[Cells, ...]
    last, shown = st.session_state.get(key, (None, ()))
    if last != this or shown:
        shown = shapes(run)
    st.session_state[key] = (this, shown)
    return shown


def visit(page: str) -> None:
    """Note which page is drawn, to tell a page that is entered from one that is only drawn again."""
    if st.session_state.get("ravl:page") != page:
        st.session_state["ravl:page"] = page
        st.session_state["ravl:visits"] = visits() + 1


def visits() -> int:
    """How many pages were entered in this session."""
    number: int = st.session_state.get("ravl:visits", 0)
    return number


def pixelated() -> bool:
    """Whether small pictures are shown with their pixels instead of smoothed."""
    return bool(st.session_state.get("ravl:pixelated", False))


def show_pixels(on: bool) -> None:
    """Show pixels, or smooth them, on all pages of this session."""
    st.session_state["ravl:pixelated"] = on


def remembered(name: str, default: Any) -> Any:
    """Any other value kept over page changes."""
    return st.session_state.get(f"ravl:{name}", default)


def remember(name: str, value: Any) -> None:
    """Keep a value over page changes."""
    st.session_state[f"ravl:{name}"] = value


def widget(key: str) -> Any:
    """The present value of a widget, for its callback."""
    return st.session_state.get(key)


def set_widget(key: str, value: Any) -> None:
    """Give a widget a value before it is drawn."""
    st.session_state[key] = value
