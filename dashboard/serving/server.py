"""How the web server is started: its options, its command line and its environment. No streamlit in here.

Streamlit reads `.streamlit/config.toml` from the current directory only, and accepts wrong values in silence; so the
same options are given as flags, and a test compares both with what streamlit understood.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

import ravl

LOOPBACK = ("127.0.0.1", "localhost")

OPTIONS: tuple[tuple[str, str], ...] = (
    ("browser.gatherUsageStats", "false"),
    ("client.showErrorDetails", "none"),
    ("client.showErrorLinks", "false"),
    ("client.toolbarMode", "viewer"),
    ("runner.magicEnabled", "false"),
    ("server.enableAgentApi", "false"),
    ("server.enableCORS", "true"),
    ("server.enableStaticServing", "false"),
    ("server.enableXsrfProtection", "true"),
    ("server.fileWatcherType", "none"),
    ("server.headless", "true"),
    ("server.maxUploadSize", "1"),  # MB; the one uploader there is has a limit of its own
    ("server.showEmailPrompt", "false"),
    ("theme.baseRadius", "small"),
    ("theme.paddingTop", "1rem"),
    ("theme.paddingBottom", "3rem"),
    ("theme.light.primaryColor", "#0072B2"),
    ("theme.light.secondaryBackgroundColor", "#F3F5F7"),
    ("theme.dark.primaryColor", "#2573AF"),
    ("theme.dark.backgroundColor", "#12161C"),
    ("theme.dark.secondaryBackgroundColor", "#1D232C"),
)
"""Streamlit options beyond address and port, as they are written on a command line."""

_EVERYWHERE = ("0.0.0.0", "::", "")

ACCEPTED = "RAVL_ACCEPT_NO_LOGIN"
"""The environment variable with which `ravl app --accept-no-login` tells the pages that others may reach them."""


def reachable(address: str | None, environ: Mapping[str, str], login: bool) -> bool:
    """Whether others can reach the server without anybody having accepted that. address: None listens everywhere.

    login: whether a sign-in is configured.
    """
    if login or environ.get(ACCEPTED) == "1":
        return False
    try:
        return not ip_address(address or "::").is_loopback
    except ValueError:
        return address != "localhost"


def application() -> Path:
    """The script that streamlit runs."""
    return Path(__file__).resolve().parents[1] / "app.py"


def streamlit_command(workspace: Path | str, port: int, host: str = "127.0.0.1", headless: bool = True) -> list[str]:
    """The command that serves the dashboard of one workspace.

    host: the address to listen on. Only loopback names are accepted in requests then (against DNS rebinding), so that
    an SSH tunnel to localhost works; another address is accepted by its own name too, and a server that listens
    everywhere accepts every name. headless: whether no browser window is opened.
    """
    hosts = ("*",) if host in _EVERYWHERE else tuple(dict.fromkeys((*LOOPBACK, host)))
    command = [sys.executable, "-m", "dashboard", "run", str(application())]
    command += [f"--server.address={host}", f"--server.port={port}"]
    command += [f"--server.allowedHosts={name}" for name in hosts]
    command += [f"--{name}={value}" for name, value in OPTIONS if headless or name != "server.headless"]
    command += [] if headless else ["--server.headless=false"]
    return [*command, "--", "--workspace", str(workspace)]


def environment(workspace: Path | str | None = None, accepted: bool = False) -> dict[str, str]:
    """This process's environment, in which `import ravl` and `import dashboard` find the packages that run now.

    They need not be installed: a checkout works from any current directory. `workspace` sets RAVL_WORKSPACE too.
    accepted: that others can reach the server though there is no login.
    """
    roots = [str(Path(ravl.__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]
    given = os.environ.get("PYTHONPATH")
    path = os.pathsep.join(dict.fromkeys([*roots, *([given] if given else [])]))
    chosen = {} if workspace is None else {"RAVL_WORKSPACE": str(workspace)}
    told = {ACCEPTED: "1"} if accepted else {}
    return {**os.environ, "PYTHONPATH": path, **chosen, **told}
