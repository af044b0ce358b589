"""Protocols for calls from the parts of the hub to parts above them, and to the runtime.

A part of the hub imports the classes of the parts below it. It does not import the parts above it, nor the runtime: it
calls them through the protocols of this module.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, Protocol, TypeAlias

from ..errors import HubError
from ..records import Store
from ..records.record import TaskRecord
from ..schedulers.unanswered import Direct
from ..wire.frames import Buffer, Frames
from ..wire.messages import Message
from .connector import EngineConnector, Scope
from .events import Event
from .replies import Reply

__all__ = ["EngineWatcher", "Handler", "Host", "Queue", "RunningQuery", "SentResults", "StoreCall"]

StoreCall: TypeAlias = Callable[[Store], Any]
# A query handler yields an awaitable (a call of the store, or of the host), is sent its result, and returns the reply.
# So the handler is plain synchronous code, and only the runtime waits for a disk.
RunningQuery: TypeAlias = Generator[Awaitable[Any], Any, Reply]


class Host(Protocol):
    """The runtime, as the hub calls it. No method waits, except the async methods, which queries may yield."""

    listening: bool
    """Whether there is an observer. If so, the hub calls `emit` for each event."""

    def send(self, channel: str, frames: Frames) -> bool:
        """Send a message on a channel. Return False if the peer that the first frame names is not connected."""

    def is_wanted(self, channel: str, frames: Sequence[Buffer]) -> bool:
        """Return whether any peer has subscribed to a message on a channel on which the hub publishes."""

    def soon(self, call: Callable[[], None]) -> None:
        """Call ``call`` after all messages that have come together are handled, and before anything else is sent.

        So the messages to be sent go out together, which costs ZeroMQ much less time. The order of calls is kept.
        """

    def peer_address(self) -> str | None:
        """Return the address, without a port, of the sender of the query that is being handled; None if not known."""

    def start_engine(self, engine: EngineConnector) -> None:
        """Start the task for the life of an engine. The hub tells the engine its id after that."""

    def reach_engine(self, engine: EngineConnector, channel: str) -> None:
        """Call `Hub.flush_route` until nothing waits on that route any more, or the engine's time is up."""

    def kill_engine(self, engine: EngineConnector) -> bool:
        """Kill the process of a local engine at once. Return False if the engine is not local."""

    def ask_heart(self, engine: EngineConnector) -> None:
        """Ping the heart of an engine now, and call `Hub.heart_asked` when it has answered, or after a short time."""

    def ask_store(self, call: StoreCall, then: Callable[[Any], None]) -> None:
        """Carry out a call of the store, and call `then` with the result, or with the exception if it fails.

        For the hub's own questions: use `Store.fetch` rather than `Store.get`, which may wait for users' queries.
        """

    def hold_intake(self, channels: Sequence[str]) -> None:
        """Stop receiving on these channels of clients for now, and receive on all other channels."""

    def call_later(self, seconds: float, call: Callable[[], None]) -> Scope:
        """Call ``call`` after so many seconds, unless the scope is cancelled before."""

    def run_query(self, message: Message, query: RunningQuery) -> None:
        """Await the awaitables that a query yields, one after the other, then send its reply (`Replies.write`)."""

    async def become_dask(self, scheduler_args: dict[str, Any]) -> dict[str, Any]:
        """Start a Dask scheduler unless one runs, and return its ``address``, ``ip`` and ``port``."""

    async def stop_dask(self) -> None:
        """End the Dask scheduler, if one runs."""

    def state_changed(self) -> None:
        """Save what the next hub must know: the policies, and the engines' offers, drains, signals and kills."""

    def emit(self, event: Event) -> None:
        """Pass an event to the observers. The hub calls this only while `listening` is true."""

    def stop(self, reason: str, *, for_good: bool = False) -> None:
        """Begin an orderly stop of the hub. ``for_good`` is whether no other hub will carry on."""


class SentResults(Protocol):
    """Notes of the results that were sent to clients, which outlive the hub."""

    def note(self, msg_id: str) -> None:
        """Note that a result was sent to its client."""

    def was_delivered(self, msg_id: str) -> bool:
        """Return whether the previous hub has noted this result as sent."""


class Handler(Protocol):
    """Carries out a client's request. ``admitted`` is whether `Admission` has let the request in already."""

    def __call__(self, idents: list[bytes], msg: Message, *, admitted: bool = False) -> None: ...


class EngineWatcher(Protocol):
    """A part that has state for each engine; `Engines` tells it when an engine is lost."""

    def engine_lost(self, engine: EngineConnector) -> None:
        """Handle the loss of an engine, whose late results are still accepted for the grace."""

    def engine_settled(self, engine: EngineConnector) -> None:
        """Settle everything that a lost engine has not answered, when its grace is over."""

    def owes_answers(self, engine: EngineConnector) -> bool:
        """Return whether a client or a record still waits for an answer of a lost engine."""


class Queue(Protocol):
    """A queue of requests, as the routes and the failure boundary call it."""

    def outstanding(self, engine: EngineConnector) -> list[str]:
        """Return the msg_ids of the queue's requests that an engine has been sent and has not answered."""

    def give_up(self, ident: bytes, msg_id: str, error: HubError) -> None:
        """Answer a request with the error, if the engine with this identity has it. Never raises."""

    def answer_lost(self, engine: EngineConnector, msg_id: str, cause: str) -> None:
        """Run a request again, or answer it with an error, since the engine's answer was lost on its way."""

    def repeatable(self, engine: EngineConnector, msg_ids: Sequence[str]) -> list[Direct]:
        """Return the requests among these that may be sent to the engine once more, with the same bytes."""

    def frames_of(self, direct: Direct, record: TaskRecord) -> Frames:
        """Return the frames of a request, as they were sent to the engine, from the record.

        Raises:
            WireError: the record is damaged.
            StoreError: the buffers of the record are lost.
        """

    def stop(self, error: HubError) -> None:
        """Answer all pending requests with the error, since the hub stops."""
