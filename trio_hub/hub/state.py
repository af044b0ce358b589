"""What all parts of the hub share: its state, its ways to the outside, and how it says no."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Sequence
from datetime import datetime
from functools import partial
from random import Random
from typing import Any, Protocol, TypeAlias

from ..errors import HubError, WireError
from ..logs import get_logger
from ..schedulers.broadcast import Broadcast
from ..schedulers.relay import Direct, Relay
from ..schedulers.task import Task, Worker
from ..schedulers.tasks import TaskScheduler
from ..store import Store
from ..wire.frames import Buffer, Frames
from ..wire.messages import Message, Session, error_content
from .clients import Clients
from .connector import EngineConnector, EngineState, Probe, Route, Scope
from .events import Event
from .heartbeat import HeartMonitor
from .labels import Labels

__all__ = [
    "LOSSES",
    "OUTCOMES",
    "QUEUES",
    "Deliveries",
    "Host",
    "HubState",
    "Query",
    "Reply",
    "StoreCall",
    "content_of",
    "queue_of",
    "reply_type",
]

log = get_logger("trio_hub.hub")

ORDINARY = frozenset({"client_gone", "late_result", "other_engine", "unknown_engine"})
"""Reasons to ignore a message that come with clients and engines that go, as they do every day."""

QUEUES = ("task", "mux", "broadcast")
"""By which requests come that are recorded and counted."""
OUTCOMES = ("ok", "error", "aborted")
"""What a request can end with. An engine that says anything else has failed."""
LOSSES = ("heart", "request", "shutdown", "unreachable")
"""Why an engine is gone, see `trio_hub.hub.events.EngineUnregistered`."""


class Host(Protocol):
    """What the hub asks of the runtime that it lives in. Nothing here waits, but what a query may yield (async)."""

    listening: bool
    """Whether anybody wants `emit` to be called."""

    def send(self, channel: str, frames: Frames) -> bool:
        """Send on a channel; False if the peer that the first frame names is not connected."""

    def soon(self, call: Callable[[], None]) -> None:
        """Call that when the messages that have come together are handled, and before anything else is sent.

        So what is sent goes out together, too, which takes much less of ZeroMQ's time. The order stays as it is.
        """

    def peer_address(self) -> str | None:
        """The address, without a port, from which the query came that is being handled; None if it is not known."""

    def start_engine(self, engine: EngineConnector) -> None:
        """Begin the life of an engine that has just been told its id."""

    def reach_engine(self, engine: EngineConnector, channel: str) -> None:
        """Call `HubState.flush_route` until nothing waits there any more, or the engine's time is up."""

    def ask_store(self, call: StoreCall, then: Callable[[Any], None]) -> None:
        """Carry out a store call, and give its answer to `then`; if it fails, an exception."""

    def hold_intake(self, channels: Sequence[str]) -> None:
        """Receive nothing more on these channels of clients for now, and again on all others."""

    def call_later(self, seconds: float, call: Callable[[], None]) -> Scope:
        """Call that after some time, unless the scope is cancelled before."""

    def run_query(self, message: Message, query: Query) -> None:
        """Await what a query yields, one after the other, then send what `HubState.write_reply` makes of its reply."""

    async def become_dask(self, scheduler_args: dict[str, Any]) -> dict[str, Any]:
        """The ``address``, ``ip`` and ``port`` of a Dask scheduler, which is started unless one runs."""

    async def stop_dask(self) -> None:
        """End the Dask scheduler, if one runs."""

    def emit(self, event: Event) -> None:
        """Something happened; only called while `listening`."""

    def stop(self, reason: str, *, for_good: bool = False) -> None:
        """Begin an orderly stop of the hub; for good if none is to carry on where it ends."""


class Deliveries(Protocol):
    """What is known of results that were sent to clients, across the end of a hub."""

    def note(self, msg_id: str) -> None:
        """A result is on its way to its client."""

    def was_delivered(self, msg_id: str) -> bool:
        """Whether the hub before has noted this result."""


class Reply:
    """The answer to a query; whoever is given it may change its content."""

    __slots__ = ("buffers", "content", "msg_type")

    def __init__(self, msg_type: str, content: dict[str, Any], buffers: list[Buffer] | None = None) -> None:
        self.msg_type = msg_type
        self.content = content
        self.buffers = buffers or []


StoreCall: TypeAlias = Callable[[Store], Any]
# A query handler yields what is to be awaited (a call of the store, or of the host), is sent what comes of it, and
# returns its reply: so the handler is plain synchronous code, and waiting for a disk is the runtime's business.
Query: TypeAlias = Generator[Awaitable[Any], Any, Reply]


class HubState(ABC):
    """State and helpers; `Hub` adds the doing, one subject a base class.

    Args:
        host: the way to sockets, tasks and time.
        session: reads and writes messages.
        store: keeps the records.
        rng: chance, for the schemes of the task queue that need it.
        now: the current time, aware and in UTC.
        heart_token: unguessable bytes, see `HeartMonitor`.
        hwm, scheme: see `TaskScheduler`.
        max_heartmonitor_misses: see `HeartMonitor`.
        hb_period: milliseconds between pings, which engines are told.
        engine_info: connection info for engines, which they are told as well.
        broadcast_channels: to engines; an engine is connected to that of its id modulo their number.
        strict: whether requests are on disk before an engine sees them, and results before a client does.
        deliveries: notes which results were sent; None where no hub can come after this one.
        queue_memory: bytes of memory that queued tasks may take up. What goes beyond it comes back from the store when
            its turn comes, if the store is durable; else no more tasks are received while there is no room.
    """

    def __init__(
        self,
        host: Host,
        session: Session,
        store: Store,
        rng: Random,
        *,
        now: Callable[[], datetime],
        heart_token: bytes,
        hwm: int = 1,
        scheme: str = "leastload",
        max_heartmonitor_misses: int = 10,
        hb_period: int = 3000,
        engine_info: dict[str, Any] | None = None,
        broadcast_channels: Sequence[str] = ("broadcast_out",),
        strict: bool = False,
        queue_memory: int = 256 << 20,
        deliveries: Deliveries | None = None,
    ) -> None:
        self.host = host
        self.session = session
        self.store = store
        self.now = now
        self.hb_period = hb_period
        self.engine_info = engine_info or {}
        self.broadcast_channels = tuple(broadcast_channels)
        self.strict = strict
        self.queue_memory = queue_memory
        self.deliveries = deliveries

        self.engines: dict[int, EngineConnector] = {}
        """The engines that are alive, by id."""
        self.by_ident: dict[bytes, EngineConnector] = {}
        """The same, by identity."""
        self.incoming_registrations: dict[bytes, EngineConnector] = {}
        """The engines that have been told their id and whose heart was not heard yet, by identity."""
        self.lost: set[EngineConnector] = set()
        """The engines that are gone and whose grace is not over."""
        self.heartmonitor = HeartMonitor(heart_token, max_heartmonitor_misses)
        self.hearts_weighed = now()
        """When `weigh_hearts` was last called."""
        self.mux = Relay()
        self.control = Relay()
        self.broadcast = Relay()
        self.gathered: dict[str, Broadcast] = {}
        """The gathered broadcasts that are not answered yet, by msg_id."""
        self.late: dict[str, EngineConnector] = {}
        """Direct requests that were answered for a lost engine, and whose real result may still come."""
        self.probes: dict[str, Probe] = {}
        """Questions to engines that are not answered yet, by msg_id."""
        self.scheduler = TaskScheduler(self, rng, hwm=hwm, scheme=scheme)
        self.clients = Clients()
        self.uncommitted: set[str] = set()
        """Requests that have come and are not on disk yet, where they have to be before anything is done about them."""
        self.unsaved: set[str] = set()
        """Requests of a strict hub that are answered, and whose answers are not on disk yet."""
        self.presumed: dict[str, str] = {}
        """Requests taken over whose results were handed to ZeroMQ and not recorded: their clients' sessions."""
        self.missed: set[str] = set()
        """Those of them whose clients have asked since, so the result had not left."""
        self.sent_again: set[str] = set()
        """Results that the hub before had noted as sent, and that this one has sent since their clients asked."""
        self.wire_errors: Counter[str] = Counter()
        """Messages that could not be read, by kind."""
        self.ignored: Counter[str] = Counter()
        """Readable messages that changed nothing, by reason."""
        self.submitted = dict.fromkeys(QUEUES, 0)
        """Requests received, by queue."""
        self.outcomes = {queue: dict.fromkeys(OUTCOMES, 0) for queue in QUEUES}
        """Requests answered, by queue and outcome."""
        self.labels = Labels()
        self.registrations = dict.fromkeys(("requested", "replied", "stalled"), 0)
        """Engines that asked to register, were told their ids, and were not heard of in time."""
        self.engines_registered = 0
        self.engines_lost = dict.fromkeys(LOSSES, 0)
        """Engines that are gone, by reason."""
        self.stopping = False
        self.carried_on = False
        """Whether it stops so that another hub can carry on."""
        self._idcounter = 0

    @property
    def tasks_submitted(self) -> int:
        return sum(self.submitted.values())

    @property
    def tasks_completed(self) -> int:
        return sum(outcomes["ok"] for outcomes in self.outcomes.values())

    @property
    def tasks_failed(self) -> int:
        return sum(outcomes["error"] + outcomes["aborted"] for outcomes in self.outcomes.values())

    def is_pending(self, msg_id: str) -> bool:
        """Whether a task or direct request of this msg_id is waiting for its answer."""
        return (
            msg_id in self.scheduler.tasks
            or msg_id in self.mux.pending
            or msg_id in self.broadcast.pending
            or msg_id in self.gathered
            or msg_id in self.uncommitted
        )

    def when_safe(self, call: Callable[[], None]) -> None:
        """Call that, at once; or, if the hub is strict, when all that was recorded until now is on disk."""
        if self.strict:
            self.store.after_commit(call)
        else:
            call()

    @abstractmethod
    def task_assigned(self, task: Task, worker: Worker) -> None:
        """See `trio_hub.schedulers.tasks.Delivery`."""

    @abstractmethod
    def task_failed(self, task: Task, worker: Worker | None, error: HubError) -> None:
        """See `trio_hub.schedulers.tasks.Delivery`."""

    @abstractmethod
    def ask_outcomes(self, task: Task, msg_ids: list[str]) -> None:
        """See `trio_hub.schedulers.tasks.Delivery`."""

    @abstractmethod
    def engine_returned(self, engine: EngineConnector) -> None:
        """The heart of an engine that an earlier hub had is heard: sort out what that hub has sent it."""

    @abstractmethod
    def heard_probe(self, ident: bytes, msg_id: str) -> bool:
        """Whether an engine's unexpected reply answers a question about what an earlier hub has sent it."""

    @abstractmethod
    def sent_behind_probes(self, task: Task, worker: Worker) -> None:
        """A task is given to an engine now: no answer to an earlier question says anything about it."""

    @abstractmethod
    def adopted(self, ident: bytes, msg_id: str) -> Task | None:
        """The task that an engine answers without having been given it by this hub: an earlier hub did."""

    def start_timer(self, task: Task, seconds: float) -> Scope:
        """See `trio_hub.schedulers.tasks.Delivery`."""
        return self.host.call_later(seconds, lambda: self.scheduler.timed_out(task))

    @abstractmethod
    def fail_direct(self, direct: Direct, engine_uuid: str, error: HubError) -> None:
        """Answer a direct request with an error, and record that."""

    @abstractmethod
    def fail_share(self, direct: Direct, engine_uuid: str, error: HubError) -> None:
        """The same for an engine's share of a broadcast."""

    # Engines that have registered but not connected yet

    def send_to_engine(self, engine: EngineConnector, channel: str, frames: Frames) -> None:
        """Send, or keep until the engine's connection is open: its heart may be heard before that."""
        self.host.soon(partial(self._send_or_park, engine, channel, frames))

    def _send_or_park(self, engine: EngineConnector, channel: str, frames: Frames) -> None:
        if engine.awaited:
            engine.parked.append((channel, frames))
        elif channel in engine.routes:
            engine.routes[channel].parked.append(frames)
        elif not self.host.send(channel, [engine.ident, *frames]) and engine.state is EngineState.ALIVE:
            route = engine.routes[channel] = Route()
            route.parked.append(frames)
            self.host.reach_engine(engine, channel)

    def flush_route(self, engine: EngineConnector, channel: str) -> bool:
        """Send what waits for an engine on a channel, in order; or, on a suspect route, the question that comes first.

        Returns:
            False if the engine cannot be reached there.
        """
        route = engine.routes.get(channel)
        if route is None:
            return True
        if route.suspect:
            return route.question is not None or self.ask_for_proof(engine, channel, route)
        sent = 0
        for frames in route.parked:
            if not self.host.send(channel, [engine.ident, *frames]):
                break
            sent += 1
        del route.parked[:sent]
        if route.parked:
            return False
        del engine.routes[channel]
        return True

    @abstractmethod
    def ask_for_proof(self, engine: EngineConnector, channel: str, route: Route) -> bool:
        """Send an engine a question that only the engine can answer. False if it cannot be reached."""

    # Answers

    def reply(self, channel: str, idents: list[bytes], message: Message, reply: Reply) -> None:
        """Answer a message on the channel it came by."""
        self.send_reply(channel, idents, self.write_reply(message, reply))

    def write_reply(self, message: Message, reply: Reply, *, noted: bool = True) -> Frames:
        """The answer to a message, from the delimiter on. Raises `TypeError` if it cannot be packed.

        A thread that writes it leaves it to the event loop to note it, see `Session.note`.
        """
        return self.session.write(
            reply.msg_type, reply.content, parent=message.frames[2], buffers=reply.buffers, noted=noted
        )

    def send_reply(self, channel: str, idents: list[bytes], frames: Frames) -> None:
        """Send an answer that is written."""
        if not self.host.send(channel, [*idents, *frames]):
            self.ignored["client_gone"] += 1

    def notify(self, msg_type: str, content: dict[str, Any]) -> None:
        """Tell all clients."""
        self.host.send("notification", self.session.write(msg_type, content))

    # What cannot be used

    def unreadable(self, channel: str, error: WireError, **fields: Any) -> None:
        """Count bytes that are not a message; nothing else changes. `fields` are for the log."""
        self.wire_errors[error.kind] += 1
        log.warning("dropped what cannot be read", kind=error.kind, channel=channel, error=error, **fields)

    def ignore(self, reason: str, what: str, **fields: Any) -> None:
        """Count a readable message that has no effect, because of what came before it. `fields` are for the log."""
        self.ignored[reason] += 1
        level = logging.DEBUG if reason in ORDINARY else logging.WARNING
        log.log(level, "ignored a message", kind=reason, what=what, **fields)


def queue_of(name: str | None) -> str:
    """The queue that a record names; if it is damaged, and names none, that of tasks."""
    return name if name in QUEUES else "task"


def reply_type(request_type: str) -> str:
    """``apply_request`` is answered by ``apply_reply``, and so on."""
    return request_type.removesuffix("_request") + "_reply"


def content_of(error: BaseException) -> dict[str, Any]:
    """The content of a reply that reports this error."""
    name = type(error).__name__
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return error_content(name, text)
