"""The hub at work: sockets, tasks and time."""

from .factory import HubFactory
from .host import EventsLost
from .serve import RunningHub, serve_hub
from .statistics import Statistics

__all__ = ["EventsLost", "HubFactory", "RunningHub", "Statistics", "serve_hub"]
