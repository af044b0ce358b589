"""Clients of a hub: `connect` for Trio programs, and `Executor` for all other programs."""

from .calls import PackedResult
from .client import Client
from .connecting import connect
from .executor import Executor
from .notifying import EngineJoined, EngineLeft, HubStopped, Notification
from .rules import Rules

__all__ = [
    "Client",
    "EngineJoined",
    "EngineLeft",
    "Executor",
    "HubStopped",
    "Notification",
    "PackedResult",
    "Rules",
    "connect",
]
