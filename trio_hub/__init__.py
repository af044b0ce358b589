"""trio_hub: IPython Parallel's controller as one Trio process.

Stock ``ipyparallel`` clients and engines connect to it. Run it with ``trio-hub serve``, or in a nursery of your own::

    async with trio.open_nursery() as nursery:
        hub = await nursery.start(trio_hub.serve_hub, trio_hub.HubConfig())
"""

from .config import HubConfig
from .errors import (
    ConfigError,
    ConnectionFileError,
    EngineError,
    HubClosedError,
    HubError,
    StoreError,
    WireError,
)
from .runtime import EventsLost, HubFactory, RunningHub, Statistics, serve_hub

__version__ = "0.1.0"

__all__ = [
    "ConfigError",
    "ConnectionFileError",
    "EngineError",
    "EventsLost",
    "HubClosedError",
    "HubConfig",
    "HubError",
    "HubFactory",
    "RunningHub",
    "Statistics",
    "StoreError",
    "WireError",
    "__version__",
    "serve_hub",
]
