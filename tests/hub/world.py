"""A hub without sockets, tasks or clock: its requests to the host are recorded, and the test sets the time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from trio_hub.errors import StoreError
from trio_hub.hub import EngineConnector, Hub
from trio_hub.hub.events import Event
from trio_hub.hub.ports import RunningQuery, StoreCall
from trio_hub.records import MemoryStore, Store
from trio_hub.wire.frames import Buffer, Frames, to_bytes
from trio_hub.wire.messages import Message, Session

KEY = b"secret"


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.time += timedelta(milliseconds=1)
        return self.time


class FakeScope:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeHost:
    """Records what the hub sends. `unreachable` has the engines, and `gone` the clients, that have no connection."""

    hub: Hub

    def __init__(self) -> None:
        self.listening = True
        self.has_subscribers = True
        self.sent: list[tuple[str, Frames]] = []
        self.unreachable: set[bytes] = set()
        self.gone: set[bytes] = set()
        self.started: list[EngineConnector] = []
        self.asked_hearts: list[EngineConnector] = []
        """The engines whose hearts were asked; a test says with `World.heart_asked` which have answered."""
        self.killed: list[EngineConnector] = []
        """The engines that the hub has asked to kill."""
        self.local: set[str] = set()
        """The uuids of the engines that `kill_engine` can kill."""
        self.to_reach: list[tuple[EngineConnector, str]] = []
        self.events: list[Event] = []
        self.stopped: list[str] = []
        self.questions: list[Callable[[], None]] = []
        """The queries to the store that are not answered yet."""
        self.timers: list[tuple[FakeScope, float, Callable[[], None]]] = []
        self.dask: list[dict[str, Any]] = []
        """The arguments with which a Dask scheduler was asked for, until it is stopped."""
        self.dask_error: Exception | None = None
        self.state_changes = 0
        self.held: tuple[str, ...] = ()
        """The channels on which nothing is received for now."""
        self.deferred: list[tuple[Message, RunningQuery]] | None = None

    def is_wanted(self, channel: str, frames: Sequence[Buffer]) -> bool:
        return self.has_subscribers

    def send(self, channel: str, frames: Frames) -> bool:
        first = to_bytes(frames[0])
        if (channel.endswith("_out") and first in self.unreachable) or first in self.gone:
            return False
        self.sent.append((channel, frames))
        return True

    def soon(self, call: Callable[[], None]) -> None:
        call()

    def peer_address(self) -> str | None:
        return "10.0.0.7"

    def start_engine(self, engine: EngineConnector) -> None:
        engine.scope = FakeScope()
        self.started.append(engine)

    def ask_heart(self, engine: EngineConnector) -> None:
        self.asked_hearts.append(engine)

    def kill_engine(self, engine: EngineConnector) -> bool:
        self.killed.append(engine)
        return engine.uuid in self.local

    def reach_engine(self, engine: EngineConnector, channel: str) -> None:
        self.to_reach.append((engine, channel))

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def stop(self, reason: str, *, for_good: bool = False) -> None:
        self.stopped.append(reason)

    def ask_store(self, call: StoreCall, then: Callable[[Any], None]) -> None:
        def ask() -> None:
            try:
                answer = run_now(call(self.hub.store))
            except StoreError as error:
                answer = error
            then(answer)

        self.questions.append(ask)

    def hold_intake(self, channels: Sequence[str]) -> None:
        self.held = tuple(channels)

    def call_later(self, seconds: float, call: Callable[[], None]) -> FakeScope:
        scope = FakeScope()
        self.timers.append((scope, seconds, call))
        return scope

    def state_changed(self) -> None:
        self.state_changes += 1

    async def become_dask(self, scheduler_args: dict[str, Any]) -> dict[str, Any]:
        if self.dask_error is not None:
            raise self.dask_error
        self.dask.append(scheduler_args)
        return {"address": "tcp://10.0.0.1:8786", "ip": "10.0.0.1", "port": 8786}

    async def stop_dask(self) -> None:
        self.dask.clear()

    def run_query(self, message: Message, query: RunningQuery) -> None:
        if self.deferred is None:
            self.finish_query(message, query)
        else:
            self.deferred.append((message, query))

    def finish_query(self, message: Message, query: RunningQuery) -> None:
        answer = None
        try:
            while True:
                answer = run_now(query.send(answer))
        except StopIteration as finished:
            self.hub.answer_query(message, finished.value)
        except Exception as error:
            self.hub.answer_query_error(message, error)


def run_now(awaitable: Awaitable[Any]) -> Any:
    """Return the result of a coroutine that does not wait."""
    assert isinstance(awaitable, Coroutine)
    try:
        awaitable.send(None)
    except StopIteration as finished:
        return finished.value
    raise AssertionError("it waits")


_PEER_CLOCK = Clock()  # all peers share one clock, so that no two messages are equal


class Peer:
    """Writes messages as a client or an engine would; as a stock client, if it has a `username`."""

    def __init__(self, name: str, key: bytes = KEY, packer: str = "json", username: str = "") -> None:
        self.name = name
        self.ident = name.encode()
        self.session = Session(key, session_id=name, now=_PEER_CLOCK, packer=packer, username=username)


class World:
    """A hub, and hands to play its engines and clients.

    ``prepare`` is given what the hub is made with, before the hub is made.
    """

    def __init__(
        self,
        *,
        store: Store | None = None,
        packer: str = "json",
        session_id: str = "hub",
        prepare: Callable[[FakeHost, Session, Store], None] | None = None,
        **settings: Any,
    ) -> None:
        self.host = FakeHost()
        self.packer = packer
        self.settings = settings
        self.clock = Clock()
        session = Session(KEY, session_id=session_id, now=self.clock, packer=packer)
        store = MemoryStore() if store is None else store
        if prepare is not None:
            prepare(self.host, session, store)
        self.hub = Hub(self.host, session, store, Random(1), now=self.clock, heart_token=b"token", **settings)
        self.host.hub = self.hub
        self.reader = Session(KEY, session_id="reader", now=self.clock, packer=packer)
        self.client = Peer("client", packer=packer)

    # Messages of the hub

    def take(self, channel: str | None = None) -> list[tuple[str, Message]]:
        """Return the messages that were sent since the last call, on one channel or on all, read."""
        taken = [(name, frames) for name, frames in self.host.sent if channel in (None, name)]
        self.host.sent = [item for item in self.host.sent if channel not in (None, item[0])]
        return [(name, self.read(frames)) for name, frames in taken]

    def read(self, frames: Frames) -> Message:
        session = Session(KEY, session_id="reader", now=self.clock, packer=self.packer)
        return session.read_untrusted(frames)

    def content(self, message: Message) -> dict[str, Any]:
        return self.reader.content(message)

    def replies(self, channel: str) -> list[dict[str, Any]]:
        """Return the contents of the messages that were sent on a channel since the last call."""
        return [self.content(message) for _, message in self.take(channel)]

    def answer_questions(self) -> None:
        """Have the store answer all its questions."""
        while self.host.questions:
            self.host.questions.pop(0)()

    # Engines

    def register(self, uuid: str, **content: Any) -> dict[str, Any]:
        """Send a registration request, and return the content of the reply."""
        peer = Peer(uuid, packer=self.packer)
        frames = peer.session.write("registration_request", {"uuid": uuid} | content)
        self.hub.dispatch_query([peer.ident, *frames])
        return self.replies("query")[-1]

    def beat(self, uuid: str) -> None:
        self.hub.handle_pong([uuid.encode(), self.hub.hearts.heartmonitor.ping()])

    def heart_asked(self, *, answered: bool) -> None:
        """End the time within which hearts that were asked must answer."""
        asked, self.host.asked_hearts = self.host.asked_hearts, []
        for engine in asked:
            self.hub.heart_asked(engine, answered=answered)

    def engine(self, uuid: str, **content: Any) -> EngineConnector:
        """Register an engine, and return it when it is alive."""
        reply = self.register(uuid, **content)
        assert reply["status"] == "ok", reply
        self.beat(uuid)
        return self.hub.engines.alive[reply["id"]]

    def answer(
        self,
        uuid: str,
        request: Message,
        content: dict[str, Any] | None = None,
        *,
        channel: str = "task_out",
        buffers: tuple[bytes, ...] = (),
        key: bytes = KEY,
        **metadata: Any,
    ) -> None:
        """Have an engine answer a request that it was sent."""
        peer = Peer(uuid, key, packer=self.packer)
        content = {"status": "ok"} if content is None else content
        metadata = {
            "status": content.get("status"),
            "engine": uuid,
            "started": "2026-01-01T00:00:00Z",
        } | metadata
        frames = peer.session.write(
            request.header.msg_type.replace("_request", "_reply"),
            content,
            parent=request.frames[2],
            metadata=metadata,
            buffers=buffers,
        )
        self.hub.dispatch_monitor_traffic(channel, [peer.ident, *request.idents[1:], *frames])

    # Clients

    def submit(
        self,
        client: Peer | None = None,
        *,
        msg_type: str = "apply_request",
        buffers: tuple[bytes, ...] = (b"f",),
        **metadata: Any,
    ) -> str:
        """Submit a task, and return its msg_id."""
        client = client or self.client
        frames = client.session.write(msg_type, {}, metadata=metadata, buffers=buffers)
        self.hub.dispatch_monitor_traffic("task_in", [client.ident, *frames])
        return self.read(frames).header.msg_id

    def call(
        self,
        uuid: str,
        client: Peer | None = None,
        msg_type: str = "apply_request",
        channel: str = "mux_in",
        **metadata: Any,
    ) -> str:
        """Send a direct request, and return its msg_id."""
        client = client or self.client
        frames = client.session.write(msg_type, {}, metadata=metadata)
        self.hub.dispatch_monitor_traffic(channel, [client.ident, uuid.encode(), *frames])
        return self.read(frames).header.msg_id

    def publish(self, uuid: str, parent: bytes, msg_type: str, content: dict[str, Any]) -> None:
        peer = Peer(uuid, packer=self.packer)
        frames = peer.session.write(msg_type, content, parent=parent)
        self.hub.dispatch_monitor_traffic("iopub", [b"engine.0.stdout", *frames])

    def query(self, msg_type: str, content: dict[str, Any] | None = None, client: Peer | None = None) -> dict[str, Any]:
        """Send a query to the hub, and return the content of its reply."""
        return self.content(self.query_message(msg_type, content, client))

    def query_message(
        self, msg_type: str, content: dict[str, Any] | None = None, client: Peer | None = None
    ) -> Message:
        client = client or self.client
        frames = client.session.write(msg_type, content or {})
        self.take("query")
        self.hub.dispatch_query([client.ident, *frames])
        [(_, reply)] = self.take("query")
        assert reply.idents == [client.ident]
        assert reply.parent.msg_id == self.read(frames).header.msg_id
        return reply

    def record(self, msg_id: str) -> dict[str, Any]:
        [record] = self.query("db_request", {"query": {"msg_id": msg_id}})["records"]
        assert isinstance(record, dict)
        return record
