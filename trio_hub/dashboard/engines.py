"""What became of each engine: when it came and went, how much it has done, and what failed there last."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from time import time
from typing import Any

from ..hub.connector import EngineConnector, EngineState
from ..hub.events import (
    EngineRegistered,
    EngineRequested,
    EngineReturned,
    EngineSettled,
    EngineUnregistered,
    RegistrationStalled,
)
from ..runtime import RunningHub

__all__ = ["EngineBook", "EngineEvent", "EngineSeen", "connectors", "engine_row"]

MAX_GONE = 1000
"""Engines that are gone and still remembered: those that went last."""
MAX_HISTORY = 100
"""Events that are remembered of one engine: the last."""

EngineEvent = (
    EngineRequested | EngineRegistered | EngineReturned | RegistrationStalled | EngineUnregistered | EngineSettled
)


class EngineSeen:
    """One engine. ``row`` is its number among all engines that were ever seen."""

    __slots__ = ("done", "failed", "history", "host", "id", "last_error", "pid", "registered", "row", "uuid")

    def __init__(self, row: int, id: int | None, uuid: str) -> None:
        self.row = row
        self.id = id
        self.uuid = uuid
        self.host: str | None = None
        self.pid: int | None = None
        self.registered: float | None = None
        self.done = 0
        self.failed = 0
        self.last_error: tuple[str, str, str, float] | None = None
        self.history: deque[tuple[float, str, str]] = deque(maxlen=MAX_HISTORY)


class EngineBook:
    """All engines that were seen, by uuid; those that are gone within `MAX_GONE`."""

    def __init__(self, limit: int = MAX_GONE) -> None:
        self.seen: dict[str, EngineSeen] = {}
        self.by_row: dict[int, EngineSeen] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._limit = limit
        self._rows = 0

    def of(self, uuid: str, id: int | None = None) -> EngineSeen:
        """What is known of an engine; if that is nothing, a new page for it."""
        seen = self.seen.get(uuid)
        if seen is None:
            seen = self.seen[uuid] = self.by_row[self._rows] = EngineSeen(self._rows, id, uuid)
            self._rows += 1
            if id is None:  # it was never there: a request has named it
                self._leave(uuid)
        return seen

    def meet(self, engine: EngineConnector) -> EngineSeen:
        """The page of an engine that the hub knows."""
        seen = self.of(engine.uuid, engine.id)
        seen.host, seen.pid = engine.host, engine.pid
        return seen

    def happened(self, event: EngineEvent, now: float) -> None:
        """An engine has come, or gone."""
        seen = self.of(event.uuid, event.id)
        seen.id = event.id
        match event:
            case EngineRequested():
                seen.host, seen.pid = event.host, event.pid
                seen.history.append((now, "requested", ""))
                seen.history.append((now, "replied", f"id {event.id}"))
            case EngineRegistered():
                seen.registered = now
                seen.history.append((now, "registered", "its heart was heard"))
            case EngineReturned():
                seen.history.append((now, "returned", "its heart is heard again"))
            case RegistrationStalled():
                seen.history.append((now, "stalled", "its heart was not heard in time"))
                self._leave(event.uuid)
            case EngineUnregistered():
                seen.history.append((now, "lost", event.reason))
                self._leave(event.uuid)
            case EngineSettled():
                seen.history.append((now, "settled", "all that it left is answered"))
        if isinstance(event, EngineRequested | EngineRegistered | EngineReturned):
            self._gone.pop(event.uuid, None)

    def _leave(self, uuid: str) -> None:
        self._gone[uuid] = None
        self._gone.move_to_end(uuid)
        if len(self._gone) > self._limit:
            forgotten, _ = self._gone.popitem(last=False)
            del self.by_row[self.seen.pop(forgotten).row]


def connectors(hub: RunningHub) -> Iterator[EngineConnector]:
    """All engines that the hub knows now: those that register, that are alive, and that are lost and not settled."""
    engines = hub.core.engines
    yield from engines.incoming_registrations.values()
    yield from engines.alive.values()
    yield from engines.lost


def engine_row(hub: RunningHub, engine: EngineConnector | None, seen: EngineSeen, running: Any) -> dict[str, Any]:
    """One engine as the pages show it.

    Args:
        hub: the hub.
        engine: as the hub knows it; None if it does not any more.
        seen: what was noted of it.
        running: what it runs, as ``/api/engines`` tells it.
    """
    missed = hub.core.hearts.heartmonitor.misses(seen.uuid.encode("utf-8", "replace"))
    error = seen.last_error
    worker = None if engine is None else engine.worker
    return {
        "id": seen.id,
        "uuid": seen.uuid,
        "host": seen.host,
        "pid": seen.pid,
        "state": (EngineState.LOST if engine is None else engine.state).value,
        "registered": seen.registered,
        "heartbeat_age": _heartbeat_age(hub, seen, missed),
        "missed": missed,
        "load": 0 if worker is None else worker.load,
        "direct": 0 if engine is None else len(engine.mux) + len(engine.broadcast),
        "running": running,
        "done": seen.done,
        "failed": seen.failed,
        "last_error": None if error is None else dict(zip(("msg_id", "ename", "evalue", "t"), error, strict=True)),
    }


def _heartbeat_age(hub: RunningHub, seen: EngineSeen, missed: int) -> float | None:
    """Seconds since the heart was last known to beat. Pongs are looked at once a period, so it may have since."""
    if seen.uuid.encode("utf-8", "replace") not in hub.core.hearts.heartmonitor:
        return None
    now = time()
    age = missed * hub.config.ping + max(0.0, now - hub.core.hearts.hearts_weighed.timestamp())
    return age if seen.registered is None else min(age, max(0.0, now - seen.registered))
