"""`RuntimeHost`: carries out the requests of the hub's core (`trio_hub.hub.ports.Host`) with sockets and tasks."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Container, Generator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, TypeVar

import trio
import zmq

from ..config import HubConfig
from ..errors import EventsLost, HubClosedError
from ..hub import EngineConnector, Hub
from ..hub.events import Event, TaskAssigned, TaskFinished, TaskQueued, TaskSubmitted
from ..hub.ports import RunningQuery, StoreCall
from ..hub.replies import Reply
from ..logs import get_logger
from ..services import Failures
from ..transport.channel import LARGE_FRAME, Channel
from ..transport.publisher import Publisher
from ..transport.receiver import Receiver
from ..wire.frames import Buffer, Frames
from ..wire.messages import Message
from .connections import Connections
from .dask import DaskSupervisor
from .engine import engine_life, reach_engine
from .heartbeat import Heartbeat
from .observing import Observer, Observers
from .pooling import HubPools
from .pooling.localgroup import LocalGroup

__all__ = ["RuntimeHost", "carry_out"]

log = get_logger("trio_hub.runtime")

T = TypeVar("T")

PACKED_AT_A_TIME = 50
"""The number of items of a long reply that are packed at a time. Fifty records take half a millisecond."""
EVENT_BUFFER = 10_000
"""The number of events that are kept for a slow reader."""


class RuntimeHost:
    """The runtime, as the hub's core calls it.

    ``hub``, ``connections``, ``local_engines``, ``pools``, ``heartbeat`` and ``dask`` are set when they have been made,
    since some of them need this object.

    Args:
        config: the settings.
        channels: all channels, by name.
        receiver: receives the messages of the channels.
        nursery: runs the tasks that the core asks for.
        failures: counts how often each service has failed (`trio_hub.services`).
    """

    hub: Hub
    connections: Connections
    local_engines: LocalGroup
    pools: HubPools
    heartbeat: Heartbeat
    dask: DaskSupervisor

    def __init__(
        self,
        config: HubConfig,
        channels: dict[str, Channel],
        receiver: Receiver,
        nursery: trio.Nursery,
        failures: Failures,
    ) -> None:
        self.config = config
        self.channels = channels
        self.receiver = receiver
        self.nursery = nursery
        self.failures = failures
        self._tracing = log.isEnabledFor(logging.DEBUG)
        """Whether each event of a task is logged. Looked up once, since there are many events."""
        self.listening = self._tracing
        self.stop_requested = trio.Event()
        self.stop_reason = ""
        self.for_good = False
        """Whether no other hub will carry on after the stop."""
        self.hurried = trio.Event()
        """Set when local engines and the Dask scheduler get no grace any more."""
        self.engines_changed = trio.Event()
        """Set, and replaced by a new event, whenever an engine has come or gone, or `state_changed` is called."""
        self._readers: dict[trio.MemorySendChannel[Event], _Reader] = {}
        self._observers = Observers(channels, failures)
        self._events_ended = False
        self._held_channels: set[str] = set()
        self.soon = receiver.soon
        self._drain_pongs: Callable[[], object] = partial(channels["hb_pong"].drain, held=True)

    # Methods of `trio_hub.hub.ports.Host`

    def send(self, channel: str, frames: Frames) -> bool:
        self.receiver.catch_up()
        return self.channels[channel].send(frames)

    def is_wanted(self, channel: str, frames: Sequence[Buffer]) -> bool:
        publisher = self.channels[channel]
        return not isinstance(publisher, Publisher) or publisher.is_wanted(frames)

    def peer_address(self) -> str | None:
        return self.channels["query"].peer_address()

    def start_engine(self, engine: EngineConnector) -> None:
        self.local_engines.meet(engine)
        self.nursery.start_soon(self._engine_life, engine, name=f"engine {engine.id}")

    def reach_engine(self, engine: EngineConnector, channel: str) -> None:
        self.nursery.start_soon(self._reach_engine, engine, channel, name=f"reach engine {engine.id} on {channel}")

    def kill_engine(self, engine: EngineConnector) -> bool:
        return self.local_engines.kill(engine)

    def ask_heart(self, engine: EngineConnector) -> None:
        self.heartbeat.ask(engine)

    def run_query(self, message: Message, query: RunningQuery) -> None:
        self.nursery.start_soon(self._run_query, message, query, name=f"query {message.header.msg_type}")

    def ask_store(self, call: StoreCall, then: Callable[[Any], None]) -> None:
        self.nursery.start_soon(self._ask_store, call, then, name="question to the store")

    def hold_intake(self, channels: Sequence[str]) -> None:
        for name in self._held_channels.difference(channels):
            self.channels[name].release()
        self._held_channels = set(channels)
        for name in channels:
            self.channels[name].hold()

    def call_later(self, seconds: float, call: Callable[[], None]) -> trio.CancelScope:
        scope = trio.CancelScope()
        self.nursery.start_soon(self._call_later, scope, seconds, call, name="timeout of a task")
        return scope

    async def become_dask(self, scheduler_args: dict[str, Any]) -> dict[str, Any]:
        if self.stop_requested.is_set():
            raise HubClosedError("the hub is stopping")
        return await self.dask.start(scheduler_args)

    async def stop_dask(self) -> None:
        await self.dask.stop()

    def state_changed(self) -> None:
        self.tell_change()

    def emit(self, event: Event) -> None:
        if self._tracing:
            _trace(event)
        self._observers.happened(event)
        for send, reader in self._readers.items():
            try:
                send.send_nowait(event)
            except trio.WouldBlock:
                reader.lost += 1

    def stop(self, reason: str, *, for_good: bool = False) -> None:
        self.for_good = self.for_good or for_good
        if not self.stop_requested.is_set():
            self.stop_reason = reason
            self.stop_requested.set()

    # Tasks

    async def _engine_life(self, engine: EngineConnector) -> None:
        await engine_life(self.hub, engine, self.config, drain_pongs=self._drain_pongs, changed=self.tell_change)

    async def _reach_engine(self, engine: EngineConnector, channel: str) -> None:
        await reach_engine(self.hub, engine, channel, self.config, self.connections.retry)

    def connection_lost(self, channel: str, ident: bytes | None, others: Container[bytes]) -> None:
        """Tell the hub that an engine's connection has broken. Called by `Connections`."""
        if channel != "hb_pong":  # the hub notices a silent heart by its missed pings
            self.hub.connection_lost(channel, ident, others)

    def ask_engine_to_end(self, engine: EngineConnector) -> bool:
        """Ask an engine of this hub to end, since the hub stops. Return whether it could be asked.

        If `serve_hub` was cancelled, the engine cannot be asked: the task that sends messages has ended.
        """
        if self.stop_requested.is_set():
            self.hub.control.shutdown_engine(engine)
        return self.stop_requested.is_set()

    def give_engine_back(self, engine: EngineConnector) -> bool:
        """Ask a local engine to end that its pool gives back. Return whether it could be asked."""
        self.hub.control.shutdown_engine(engine)
        return True

    def tell(self, event: Event) -> None:
        """Pass an event to the observers, if there are any."""
        if self.listening:
            self.emit(event)

    def local_engine_ended(self, engine: EngineConnector, cause: str) -> None:
        """Tell the hub that the process of a local engine has ended. Called by `LocalEngines`."""
        self.hub.lose_engine(engine, "ended", cause)

    def tell_change(self) -> None:
        self.engines_changed.set()
        self.engines_changed = trio.Event()

    async def _run_query(self, message: Message, query: RunningQuery) -> None:
        try:
            reply = await carry_out(query)
            frames = await self._write_in_turns(message, reply)
            self.hub.replies.send("query", message.idents, frames)
        except Exception as error:
            # such as an unknown key, or a database that does not answer
            self.hub.answer_query_error(message, error)

    async def _write_in_turns(self, message: Message, reply: Reply) -> Frames:
        """Return the frames of a reply. A long reply is packed piece by piece, so that other tasks have their turn.

        Ten thousand records take as long as a thousand messages. Each packed piece replaces its item, so that the items
        are not all freed at once, which takes time, too. A thread joins the pieces and signs them, mostly without
        Python's lock.
        """
        packed_part = self.hub.session.packer.packed_part
        is_long = False
        for value in reply.content.values():
            if isinstance(value, list) and len(value) > PACKED_AT_A_TIME:
                is_long = True
                for number, item in enumerate(value):
                    if number % PACKED_AT_A_TIME == 0:
                        await trio.lowlevel.checkpoint()
                    value[number] = packed_part(item)
        if is_long:
            frames = await trio.to_thread.run_sync(self._write_to_send, message, reply)
            self.hub.session.note(frames)
            return frames
        return self.hub.replies.write(message, reply)

    def _write_to_send(self, message: Message, reply: Reply) -> Frames:
        """Return the frames of a reply, with large frames copied into the memory from which ZeroMQ sends them."""
        frames = self.hub.replies.write(message, reply, noted=False)
        for number, frame in enumerate(frames):
            if len(frame) >= LARGE_FRAME:
                copied: Any = zmq.Frame(frame, copy=True)  # pyzmq's stubs do not say that it is a buffer
                frames[number] = copied
        return frames

    async def _ask_store(self, call: StoreCall, then: Callable[[Any], None]) -> None:
        try:
            answer = await call(self.hub.store)
        except Exception as error:  # the part that has asked handles the error
            log.warning("the task database did not answer", kind="no_answer", error=error)
            answer = error
        self.hub.call_back("answer of the store", then, answer)

    async def _call_later(self, scope: trio.CancelScope, seconds: float, call: Callable[[], None]) -> None:
        with scope:
            await trio.sleep(max(0.0, seconds))
            self.hub.call_back("timer", call)

    # For the embedder

    @asynccontextmanager
    async def events(self) -> AsyncGenerator[AsyncGenerator[Event, None], None]:
        """Give a generator of the events from now on, see `RunningHub.events`."""
        send, receive = trio.open_memory_channel[Event](EVENT_BUFFER)
        reader = _Reader()
        if self._events_ended:
            send.close()
        else:
            self._readers[send] = reader
            self._listen()

        async def stream() -> AsyncGenerator[Event, None]:
            async for event in receive:
                yield event
                if reader.lost:
                    raise EventsLost(f"{reader.lost} events were lost: read them faster")

        generator = stream()
        try:
            yield generator
        finally:
            self._readers.pop(send, None)
            self._listen()
            send.close()
            receive.close()
            await generator.aclose()

    def end_events(self) -> None:
        """End all streams of events: readers get the buffered events, and then the end. Called when the hub stops."""
        self._events_ended = True
        for send in self._readers:
            send.close()
        self._readers.clear()
        self._listen()

    @contextmanager
    def observed(self, observer: Observer) -> Iterator[None]:
        """Call an observer for each event, for the length of a ``with`` block."""
        self._observers.add(observer)
        self._listen()
        try:
            yield
        finally:
            self._observers.remove(observer)
            self._listen()

    def _listen(self) -> None:
        self.listening = self._tracing or bool(self._readers or self._observers)


class _Reader:
    lost = 0


def _trace(event: Event) -> None:
    """Log an event of a task. The core itself logs the events of engines."""
    match event:
        case TaskSubmitted(msg_id, queue):
            log.debug("task submitted", task=msg_id, queue=queue)
        case TaskAssigned(msg_id, uuid):
            log.debug("task assigned", task=msg_id, uuid=uuid)
        case TaskQueued(msg_id):
            log.debug("task queued again", task=msg_id)
        case TaskFinished(msg_id, uuid, status):
            log.debug("task finished", task=msg_id, uuid=uuid, status=status)


async def carry_out(steps: Generator[Awaitable[Any], Any, T]) -> T:
    """Run a generator: await each awaitable that it yields, send it the result, and return its return value."""
    answer = None
    try:
        while True:
            answer = await steps.send(answer)
    except StopIteration as finished:
        reply: T = finished.value
        return reply
