"""Clients, which ask hubs, and engines through them: `connect` for Trio programs, and `Executor` for all others."""

from .client import Client
from .connecting import connect
from .executor import Executor
from .notifying import EngineJoined, EngineLeft, HubStopped, Notification

__all__ = ["Client", "EngineJoined", "EngineLeft", "Executor", "HubStopped", "Notification", "connect"]
