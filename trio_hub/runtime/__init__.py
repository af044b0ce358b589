"""The runtime of a hub: it gives the hub's core sockets, tasks and time."""

from .factory import HubFactory
from .running import RunningHub
from .serve import serve_hub
from .statistics import DatabaseStatistics, Statistics

__all__ = ["DatabaseStatistics", "HubFactory", "RunningHub", "Statistics", "serve_hub"]
