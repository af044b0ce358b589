"""The hub's core: engines, records, queries.

It consists of plain synchronous objects. The runtime calls them when something happens.
"""

from .connector import EngineConnector, EngineState
from .heartmonitor import HeartMonitor
from .hub import Hub
from .records import empty_record, init_record

__all__ = ["EngineConnector", "EngineState", "HeartMonitor", "Hub", "empty_record", "init_record"]
