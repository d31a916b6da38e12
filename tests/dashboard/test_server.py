"""The options are given twice, as a file and as flags, and streamlit must understand both as they are meant."""

from __future__ import annotations

import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from dashboard.serving.server import OPTIONS, application, environment, reachable, streamlit_command

ROOT = Path(__file__).resolve().parents[2]
ONLY_IN_FILE = {"server.address": "127.0.0.1", "server.allowedHosts": ["127.0.0.1", "localhost"]}


def flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def spelled(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_file_and_flags_agree() -> None:
    saved = flat(tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text()))
    assert {key: spelled(value) for key, value in saved.items() if key not in ONLY_IN_FILE} == dict(OPTIONS)
    assert {key: saved[key] for key in ONLY_IN_FILE} == ONLY_IN_FILE


def test_protection_is_on() -> None:
    expected = {
        "browser.gatherUsageStats": "false",
        "client.showErrorDetails": "none",
        "client.showErrorLinks": "false",
        "client.toolbarMode": "viewer",
        "server.enableAgentApi": "false",
        "server.enableCORS": "true",
        "server.enableStaticServing": "false",
        "server.enableXsrfProtection": "true",
        "server.fileWatcherType": "none",
        "server.headless": "true",
    }
    assert expected.items() <= dict(OPTIONS).items()
    assert int(dict(OPTIONS)["server.maxUploadSize"]) <= 1


def test_streamlit_understands_every_flag(tmp_path: Path) -> None:
    """Wrong names only log a line and wrong values pass silently, so what streamlit makes of the flags is read back."""
    flags = [flag for flag in streamlit_command("w", 1234) if flag.startswith("--") and "=" in flag]
    command = [sys.executable, "-m", "streamlit", "config", "show", *flags]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    shown = flat(tomllib.loads(done.stdout[done.stdout.index("[") :]))
    expected = {**dict(OPTIONS), "server.address": "127.0.0.1", "server.port": "1234"}
    assert {name: spelled(shown.get(name)) for name in expected} == expected
    assert shown["server.allowedHosts"] == ["127.0.0.1", "localhost"]
    words = {"client.showErrorLinks"}  # also takes "auto", so a flag stays text; streamlit reads "false" in it
    switches = {name for name, value in OPTIONS if value in ("true", "false")} - words
    assert all(isinstance(shown[name], bool) for name in switches)


def test_command_listens_on_loopback() -> None:
    command = streamlit_command("w", 1234)
    assert command[:5] == [sys.executable, "-m", "dashboard", "run", str(application())]
    assert "--server.address=127.0.0.1" in command
    assert "--server.port=1234" in command
    assert [flag for flag in command if "allowedHosts" in flag] == [
        "--server.allowedHosts=127.0.0.1",
        "--server.allowedHosts=localhost",
    ]
    assert command[-3:] == ["--", "--workspace", "w"]
    assert application().is_file()


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1", {"127.0.0.1", "localhost"}),
        ("10.0.0.7", {"127.0.0.1", "localhost", "10.0.0.7"}),
        ("0.0.0.0", {"*"}),
    ],
)
def test_names_that_requests_may_use(host: str, allowed: set[str]) -> None:
    flags = [flag for flag in streamlit_command("w", 1, host) if flag.startswith("--server.allowedHosts=")]
    assert {flag.split("=")[1] for flag in flags} == allowed


@pytest.mark.parametrize(
    ("address", "accepted", "login", "found"),
    [
        ("127.0.0.1", "", False, False),
        ("127.8.8.8", "", False, False),
        ("::1", "", False, False),
        ("localhost", "", False, False),
        (None, "", False, True),  # streamlit started by hand without an address listens everywhere
        ("", "", False, True),
        ("0.0.0.0", "", False, True),
        ("10.0.0.7", "", False, True),
        ("ravl.clinic.org", "", False, True),
        ("10.0.0.7", "1", False, False),
        ("10.0.0.7", "0", False, True),
        (None, "", True, False),
    ],
)
def test_who_can_reach_the_server(address: str | None, accepted: str, login: bool, found: bool) -> None:
    assert reachable(address, {"RAVL_ACCEPT_NO_LOGIN": accepted}, login) is found


def test_what_was_accepted_is_told_to_the_pages() -> None:
    assert environment("w", accepted=True)["RAVL_ACCEPT_NO_LOGIN"] == "1"
    assert "RAVL_ACCEPT_NO_LOGIN" not in environment("w")


def test_a_terminated_app_takes_its_server_along(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ravl", "app", "--workspace", str(tmp_path), "--port", str(port), "--no-browser"]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as app:
        assert app.stderr is not None
        assert any("The dashboard is at" in line for line in app.stderr)
        app.terminate()
        app.communicate(timeout=60)
    assert app.returncode == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_the_server_imports_what_the_pages_need_before_it_answers(tmp_path: Path) -> None:
    code = (
        "import sys; from dashboard import __main__ as started; from streamlit.web import cli; "
        "cli.main = lambda prog_name: print(prog_name, *sorted({'pandas', 'plotly', 'sqlalchemy', 'torch', "
        "'dashboard.screen.components'} & set(sys.modules))); started.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["streamlit", "pandas", "plotly", "sqlalchemy"]


def test_headless_can_be_turned_off() -> None:
    flags = [flag for flag in streamlit_command("w", 1, headless=False) if "headless" in flag]
    assert flags == ["--server.headless=false"]


def test_environment_finds_the_packages_from_anywhere(tmp_path: Path) -> None:
    code = "import dashboard.app, ravl.config, os; print(os.environ['RAVL_WORKSPACE'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment("here"), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "here"


def test_the_web_process_never_loads_torch(tmp_path: Path) -> None:
    views = [path.stem for path in (ROOT / "dashboard" / "views").glob("*.py") if path.stem != "__init__"]
    imports = "; ".join(f"import dashboard.views.{view}" for view in views)
    heavy = "{'torch', 'transformers', 'umap', 'hdbscan'}"
    code = f"import sys, dashboard.app; {imports}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_pure_modules_do_not_load_streamlit(tmp_path: Path) -> None:
    rooms = ("serving", "reading", "words", "choosing", "pictures", "reporting")
    files = [path for room in rooms for path in (ROOT / "dashboard" / room).glob("[a-z]*.py")]
    assert len(files) > len(rooms)
    imports = "; ".join(f"import dashboard.{path.parent.name}.{path.stem}" for path in files)
    code = f"import sys; {imports}; print('streamlit' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
