"""The hub at work: sockets, tasks and time."""

from .factory import HubFactory
from .host import EventsLost
from .running import RunningHub
from .serve import serve_hub
from .statistics import DatabaseStatistics, Statistics

__all__ = ["DatabaseStatistics", "EventsLost", "HubFactory", "RunningHub", "Statistics", "serve_hub"]
