"""trio_hub: IPython Parallel's controller as one Trio process.

Stock ``ipyparallel`` clients and engines connect to it. Run it with ``trio-hub serve``, or in a nursery of your own::

    async with trio.open_nursery() as nursery:
        hub = await nursery.start(trio_hub.serve_hub, trio_hub.HubConfig())
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import (
    ConfigError,
    ConnectionFileError,
    EngineError,
    EventsLost,
    HubClosedError,
    HubError,
    HubLostError,
    RemoteError,
    RequestLostError,
    SerializationError,
    StoreError,
    WireError,
)

if TYPE_CHECKING:
    from .client import Client, EngineJoined, EngineLeft, Executor, HubStopped, Notification, Rules, connect
    from .config import HubConfig
    from .runtime import DatabaseStatistics, HubFactory, RunningHub, Statistics, serve_hub

__version__ = "0.1.0"

__all__ = [
    "Client",
    "ConfigError",
    "ConnectionFileError",
    "DatabaseStatistics",
    "EngineError",
    "EngineJoined",
    "EngineLeft",
    "EventsLost",
    "Executor",
    "HubClosedError",
    "HubConfig",
    "HubError",
    "HubFactory",
    "HubLostError",
    "HubStopped",
    "Notification",
    "RemoteError",
    "RequestLostError",
    "Rules",
    "RunningHub",
    "SerializationError",
    "Statistics",
    "StoreError",
    "WireError",
    "__version__",
    "connect",
    "serve_hub",
]

_LATE = (
    {"HubConfig": "config"}
    | dict.fromkeys(("DatabaseStatistics", "HubFactory", "RunningHub", "Statistics", "serve_hub"), "runtime")
    | dict.fromkeys(
        ("Client", "EngineJoined", "EngineLeft", "Executor", "HubStopped", "Notification", "Rules", "connect"), "client"
    )
)


def __getattr__(name: str) -> Any:
    """Import what needs Trio and ZeroMQ when it is first asked for: commands like ``--help`` do without."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_LATE[name]}", __name__), name)
    return value
