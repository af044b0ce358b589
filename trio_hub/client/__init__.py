"""A client for Trio programs: it asks hubs, and engines through them. `connect` opens one."""

from .client import Client
from .connecting import connect
from .notifying import EngineJoined, EngineLeft, HubStopped, Notification

__all__ = ["Client", "EngineJoined", "EngineLeft", "HubStopped", "Notification", "connect"]
