"""Before any page: whether the server may be reached as it is, and, where a sign-in is configured, the sign-in."""

from __future__ import annotations

import os
from importlib.util import find_spec

import streamlit as st

from dashboard.screen import state
from dashboard.serving.identity import Person
from dashboard.serving.server import reachable

_REACHABLE = (
    "This server can be reached from other machines, and there is no login: whoever reaches it would see all images, "
    "and could decide. So it shows nothing. Start it with `ravl app`, which listens on this machine alone; or add "
    "`--accept-no-login` where everybody on the network may see it."
)
_NO_AUTHLIB = (
    "A sign-in is configured, but the package for it is missing on the server. Whoever runs it has to install it: "
    "`pip install 'streamlit[auth]'`."
)


def open_for(person: Person) -> bool:
    """Whether the pages may be drawn; if not, says why, or asks to sign in."""
    login = state.sign_in_configured()
    if reachable(st.get_option("server.address"), os.environ, login):
        _say(_REACHABLE)
        return False
    if not login or person.name:
        return True
    if find_spec("authlib") is None:
        _say(_NO_AUTHLIB)
        return False
    st.title("RAVL", anchor=False)
    st.markdown("Sign in to see the audits of this workspace. Your name is kept with each decision you make.")
    st.button("Sign in", type="primary", icon=":material/login:", key="sign-in", on_click=state.action(st.login))
    return False


def sign_out(person: Person) -> None:
    """Who is signed in, with a way out; nothing where no sign-in is configured."""
    if person.identity == "oidc":
        st.button("Sign out", type="tertiary", icon=":material/logout:", key="sign-out", on_click=st.logout)


def _say(text: str) -> None:
    st.title("RAVL", anchor=False)
    st.warning(text, icon=":material/lock:")
