"""What the parts of the hub ask of those around and above them: protocols, and nothing that does anything.

A part knows the parts below it by their classes. Where a call goes upwards, or out of the core, there is a protocol
here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, Protocol, TypeAlias

from ..errors import HubError
from ..schedulers.relay import Direct
from ..store import Store
from ..store.record import TaskRecord
from ..wire.frames import Frames
from ..wire.messages import Message
from .connector import EngineConnector, Scope
from .events import Event
from .replies import Reply

__all__ = ["Deliveries", "EngineWatcher", "Handler", "Host", "Query", "Queue", "StoreCall"]

StoreCall: TypeAlias = Callable[[Store], Any]
# A query handler yields what is to be awaited (a call of the store, or of the host), is sent what comes of it, and
# returns its reply: so the handler is plain synchronous code, and waiting for a disk is the runtime's business.
Query: TypeAlias = Generator[Awaitable[Any], Any, Reply]


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
        """Begin the life of an engine that is about to be told its id."""

    def reach_engine(self, engine: EngineConnector, channel: str) -> None:
        """Call `Hub.flush_route` until nothing waits there any more, or the engine's time is up."""

    def ask_store(self, call: StoreCall, then: Callable[[Any], None]) -> None:
        """Carry out a store call, and give its answer to `then`; if it fails, an exception."""

    def hold_intake(self, channels: Sequence[str]) -> None:
        """Receive nothing more on these channels of clients for now, and again on all others."""

    def call_later(self, seconds: float, call: Callable[[], None]) -> Scope:
        """Call that after some time, unless the scope is cancelled before."""

    def run_query(self, message: Message, query: Query) -> None:
        """Await what a query yields, one after the other, then send what `Replies.write` makes of its reply."""

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


class Handler(Protocol):
    """Carries out a client's request. ``admitted`` is whether `Admission` has let the request in already."""

    def __call__(self, idents: list[bytes], msg: Message, *, admitted: bool = False) -> None: ...


class EngineWatcher(Protocol):
    """A part that keeps something for engines, and is told by `Engines` when one of them goes."""

    def engine_lost(self, engine: EngineConnector) -> None:
        """An engine is gone; its late results are still taken for a while."""

    def engine_settled(self, engine: EngineConnector) -> None:
        """The grace of a lost engine is over: settle what it has not answered."""

    def owes_answers(self, engine: EngineConnector) -> bool:
        """Whether anybody waits, or a record waits, for something of a lost engine."""


class Queue(Protocol):
    """What the ways to engines, and the hub's failure boundary, ask of a queue of requests."""

    def is_pending(self, msg_id: str) -> bool:
        """Whether a request of this msg_id is here, and not answered yet."""

    def outstanding(self, engine: EngineConnector) -> list[str]:
        """The msg_ids that an engine has been sent on this queue's channel and has not answered."""

    def give_up(self, ident: bytes, msg_id: str, error: HubError) -> None:
        """If the engine of this identity has this request, answer the request with the error. Never raises."""

    def answer_lost(self, engine: EngineConnector, msg_id: str, cause: str) -> None:
        """If an engine still has this request, its answer was lost on its way: run it again, or answer it."""

    def repeatable(self, engine: EngineConnector, msg_ids: Sequence[str]) -> list[Direct]:
        """The requests among these that the engine may be sent once more, with the same bytes."""

    def frames_of(self, direct: Direct, record: TaskRecord) -> Frames:
        """A request once more as the engine was sent it, from the record. Raises `WireError`."""

    def stop(self, error: HubError) -> None:
        """The hub stops for good: answer everything that is pending with the error."""
