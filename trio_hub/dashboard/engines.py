"""The history of each engine: its events, the number of its requests, and its last error."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from time import time
from typing import Any

from ..hub.connector import EngineConnector, EngineState
from ..hub.events import (
    EngineDraining,
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
"""The number of engines that are remembered after they have left: those that left last."""
MAX_HISTORY = 100
"""The number of events that are remembered for each engine: the last ones."""

EngineEvent = (
    EngineRequested
    | EngineRegistered
    | EngineReturned
    | RegistrationStalled
    | EngineUnregistered
    | EngineSettled
    | EngineDraining
)


class EngineSeen:
    """What is known of one engine. ``row`` is its number among all engines that were ever seen."""

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
    """All engines that were seen, by uuid. At most `limit` engines that have left are remembered."""

    def __init__(self, limit: int = MAX_GONE) -> None:
        self.seen: dict[str, EngineSeen] = {}
        self.by_row: dict[int, EngineSeen] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._limit = limit
        self._rows = 0

    def of(self, uuid: str, id: int | None = None) -> EngineSeen:
        """Return the entry of an engine. An unknown engine gets a new entry."""
        seen = self.seen.get(uuid)
        if seen is None:
            seen = self.seen[uuid] = self.by_row[self._rows] = EngineSeen(self._rows, id, uuid)
            self._rows += 1
            if id is None:  # the engine was never registered, but a request has named it
                self._leave(uuid)
        return seen

    def meet(self, engine: EngineConnector) -> EngineSeen:
        """Return the entry of an engine that the hub knows, with its present host and pid."""
        seen = self.of(engine.uuid, engine.id)
        seen.host, seen.pid = engine.host, engine.pid
        return seen

    def happened(self, event: EngineEvent, now: float) -> None:
        """Note an event of an engine."""
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
                seen.history.append((now, "settled", "all its requests are answered"))
            case EngineDraining():
                then = ", and is told to end when it is idle" if event.then else ""
                what = ("drained", f"by {event.by}{then}") if event.draining else ("undrained", f"by {event.by}")
                seen.history.append((now, *what))
        if isinstance(event, EngineRequested | EngineRegistered | EngineReturned):
            self._gone.pop(event.uuid, None)

    def _leave(self, uuid: str) -> None:
        self._gone[uuid] = None
        self._gone.move_to_end(uuid)
        if len(self._gone) > self._limit:
            forgotten, _ = self._gone.popitem(last=False)
            del self.by_row[self.seen.pop(forgotten).row]


def connectors(hub: RunningHub) -> Iterator[EngineConnector]:
    """Yield all engines that the hub knows: registering, alive, and lost engines that are not settled."""
    engines = hub.core.engines
    yield from engines.incoming_registrations.values()
    yield from engines.alive.values()
    yield from engines.lost


def engine_row(
    hub: RunningHub, engine: EngineConnector | None, seen: EngineSeen, running: Any, usage: dict[str, Any] | None
) -> dict[str, Any]:
    """Return an engine as the pages show it.

    Args:
        hub: The hub.
        engine: The hub's object for the engine; None if the hub no longer has one.
        seen: The dashboard's entry for the engine.
        running: The engine's running request, in the form of ``/api/engines``.
        usage: What the engine uses, as `trio_hub.dashboard.usage.UsageBook.of` returns it.
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
        "usage": usage,
        "drain": None if engine is None else _drain(hub, engine),
        "block": None if engine is None else engine.block or None,
        "offers": {} if engine is None else dict(engine.offers),
        "leaves": None if engine is None else engine.leaves_at,
        "last_error": None if error is None else dict(zip(("msg_id", "ename", "evalue", "t"), error, strict=True)),
    }


def _drain(hub: RunningHub, engine: EngineConnector) -> dict[str, Any] | None:
    """Return who has drained an engine, the deadline, and what follows; None if the engine is not drained."""
    drain = hub.core.work.draining.drains.get(engine.ident)
    return None if drain is None else {"by": drain.by, "deadline": drain.deadline, "then": drain.then or None}


def _heartbeat_age(hub: RunningHub, seen: EngineSeen, missed: int) -> float | None:
    """Return the seconds since the heart is known to have beaten last. Pongs are evaluated once per period."""
    if seen.uuid.encode("utf-8", "replace") not in hub.core.hearts.heartmonitor:
        return None
    now = time()
    age = missed * hub.config.ping + max(0.0, now - hub.core.hearts.hearts_weighed.timestamp())
    return age if seen.registered is None else min(age, max(0.0, now - seen.registered))
