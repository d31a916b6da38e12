"""Is this machine ready? Versions, device, memory, port and workspace, each with advice when it is not."""

from __future__ import annotations

import platform
import socket
import sys
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from ravl.errors import ConfigError
from ravl.store import open_workspace

PACKAGES = (
    "streamlit",
    "torch",
    "transformers",
    "hdbscan",
    "umap-learn",
    "scikit-learn",
    "plotly",
    "pillow",
    "sqlalchemy",
)
MIN_MEMORY_GB = 4.0


@dataclass(frozen=True)
class Check:
    """One examined thing: what was found, whether that is enough, and what to do if it is not. facts: for programs."""

    name: str
    ok: bool
    found: str
    advice: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def examine(workspace: str | Path, host: str, port: int) -> list[Check]:
    """Run every check; none raises."""
    return [
        _python(),
        _packages(),
        _ownership(),
        _device(),
        _memory(),
        _port(host, port),
        _workspace(workspace),
        _demo(),
    ]


def loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def port_problem(host: str, port: int) -> str:
    """Why a port cannot be listened on, as a sentence with advice; empty when it can."""
    if not 1 <= port <= 65535:
        return f"--port must lie in 1 .. 65535, got {port}."
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return (
                f"port {port} of {host} must be free, but is not ({error.strerror}). "
                f"Choose another with --port, such as {port + 1}."
            )
    return ""


def _python() -> Check:
    found = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    return Check("python", (3, 11) <= sys.version_info[:2] <= (3, 13), found, "Use Python 3.11, 3.12 or 3.13.")


def _packages() -> Check:
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    text = ", ".join(found) + (f"; missing: {', '.join(missing)}" if missing else "")
    return Check("packages", not missing, text, "Run make venv, or pip install -r requirements.txt.")


def _ownership() -> Check:
    """The paper authors' own repository also installs a package called `ravl`."""
    owners = sorted(set(packages_distributions().get("ravl", [])))
    here = Path(__file__).resolve().parent
    foreign = [name for name in owners if name != "ravl-dashboard"]
    found = f"{here} ({', '.join(owners) or 'not installed, run from its folder'})"
    return Check(
        "ravl", not foreign, found, f"Another package is called ravl as well: pip uninstall {' '.join(foreign)}."
    )


def _device() -> Check:
    """facts: device (cuda, mps or cpu), name, and the bytes of its memory, free and total."""
    import psutil

    from ravl.vlm.references import pick_device

    device = pick_device("auto")
    names = {"cuda": "CUDA GPU", "mps": "Apple GPU", "cpu": "CPU only: audits run, fine-tuning of large models is slow"}
    memory = psutil.virtual_memory()
    name, free, total = "", memory.available, memory.total
    if device.type == "cuda":
        import torch

        name, (free, total) = torch.cuda.get_device_name(device), torch.cuda.mem_get_info(device)
    facts = {"device": device.type, "name": name, "free": int(free), "total": int(total)}
    named = f", {name}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free" if name else ""
    return Check("device", True, f"{device} ({names[device.type]}{named})", facts=facts)


def _memory() -> Check:
    import psutil

    free = psutil.virtual_memory().available / 2**30
    return Check(
        "memory", free >= MIN_MEMORY_GB, f"{free:.1f} GB free", f"Close programs until {MIN_MEMORY_GB:.0f} GB are free."
    )


def _port(host: str, port: int) -> Check:
    problem = port_problem(host, port)
    return Check("port", not problem, f"{host}:{port} is {'taken' if problem else 'free'}", problem)


def _workspace(workspace: str | Path) -> Check:
    try:
        folder = open_workspace(workspace)
    except ConfigError as error:
        return Check("workspace", False, str(workspace), str(error))
    import shutil

    return Check("workspace", True, f"{folder} (writable, {shutil.disk_usage(folder).free / 2**30:.1f} GB free)")


def _demo() -> Check:
    from ravl.errors import ModelError
    from ravl.planted import MODELS, demo_model

    try:
        return Check("demo models", True, ", ".join(str(demo_model(reference)) for reference in MODELS))
    except ModelError as error:
        return Check("demo models", False, "missing", str(error))
