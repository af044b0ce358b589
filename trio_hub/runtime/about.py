"""What a running hub tells about itself to `trio-hub report`: versions, settings without secrets, numbers, the log."""

from __future__ import annotations

import platform
from dataclasses import asdict, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import zmq

from ..config import DatabaseURL, HubConfig
from ..hub.replies import Reply
from ..logs import recent_lines
from ..wire.messages import Message
from .running import RunningHub

__all__ = ["about", "about_request", "plain_settings", "versions"]

PACKAGES = (
    *("trio-hub", "trio", "anyio", "pyzmq", "msgspec", "click", "rich"),
    *("ipyparallel", "ipykernel", "IPython", "cloudpickle", "distributed"),
    *("hypercorn", "starlette", "prometheus-client", "psycopg"),
)
"""The packages that this project needs or can use."""
HIDDEN = "hidden"


def about_request(hub: RunningHub, client_id: list[bytes], msg: Message) -> Reply:
    """Answer a client's ``about_request`` with the result of `about`."""
    return Reply("about_reply", {"status": "ok", "about": about(hub)})


def about(hub: RunningHub) -> dict[str, Any]:
    """Return the hub's clock, versions, settings without secrets, numbers and last log lines, for JSON."""
    return {
        "time": datetime.now(UTC).isoformat(),
        "versions": versions(),
        "settings": plain_settings(hub.config),
        "statistics": asdict(hub.statistics()),
        "log": list(recent_lines),
    }


def versions() -> dict[str, str | None]:
    """Return the versions of Python, the system, ZeroMQ and the packages here; None for a missing package."""
    found: dict[str, str | None] = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "zeromq": zmq.zmq_version() + (", with CURVE" if zmq.has("curve") else ", without CURVE"),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def plain_settings(config: HubConfig) -> dict[str, Any]:
    """Return the settings as JSON can represent them. Keys, tokens and passwords are left out."""
    shown = {}
    for entry in fields(config):
        value = getattr(config, entry.name)
        if entry.metadata["secret"] and value is not None:
            value = HIDDEN
        elif isinstance(value, DatabaseURL):
            value = value.shown
        elif entry.name in ("policies", "pools"):
            value = [part.as_dict() for part in value]
        shown[entry.name] = str(value) if isinstance(value, Path) else value
    return shown
