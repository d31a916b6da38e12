"""The folder that holds audits, the people's decisions and the jobs."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from ravl.errors import ConfigError, RunError
from ravl.store.files import locked, reading, writing


def open_workspace(path: Path | str) -> Path:
    """Create the workspace, readable by its owner alone, and return its absolute path.

    Raises ConfigError when it cannot be created or written to.
    """
    folder = Path(path).expanduser().resolve()
    try:
        new = not folder.exists()
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        if new:
            folder.chmod(0o700)  # thumbnails of patients are patient data
    except OSError as error:
        raise ConfigError(
            f"the workspace must be a folder that can be written to, but {folder} cannot: "
            f"{error.strerror}. Choose another one with --workspace."
        ) from error
    if not os.access(folder / "runs", os.W_OK):
        raise ConfigError(f"the workspace must be writable, but {folder} is not. Choose another one with --workspace.")
    return folder


def workspace_key(workspace: Path | str) -> str:
    """The workspace's secret, 64 hexadecimal digits: the key of the pseudonyms that stand for names of patients.

    It is drawn when it is first needed, and readable by its owner alone. Raises RunError when it is damaged.
    """
    path = open_workspace(workspace) / "key"
    if not path.exists():
        with locked(path.with_name("key.lock"), "the workspace", wait=True):
            if not path.exists():
                with writing(path) as partial:
                    partial.touch(0o600)
                    partial.write_text(secrets.token_hex(32), encoding="ascii")
    with reading(path):
        key = path.read_text(encoding="ascii").strip()
    if not re.fullmatch(r"[0-9a-f]{64}", key):
        raise RunError(
            f"{path} should hold 64 hexadecimal digits, but is damaged. Delete it: names get other pseudonyms."
        )
    return key


def check_name(name: str) -> None:
    """Raise ConfigError unless a name is one plain part of a path."""
    if not re.fullmatch(r"\w[\w.-]{0,79}", name):
        raise ConfigError(f"a name must be letters, digits, dots, dashes or underscores (up to 80), got {name!r}.")
