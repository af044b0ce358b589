"""`EngineConnector`: one engine, from its registration request until its stranded work is settled."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from ..schedulers.relay import Lane
from ..schedulers.task import Worker
from ..wire.frames import Frames

__all__ = ["EngineConnector", "EngineState", "Scope"]


class EngineState(Enum):
    """The stations of an engine's life, in order; `STALLED` ends a life that never began."""

    REGISTERING = "registering"
    """It has been told its id; its heart has not been heard yet."""
    ALIVE = "alive"
    LOST = "lost"
    """Unregistered, for whatever reason; within the grace for late results."""
    SETTLED = "settled"
    """Nothing is kept for it any more."""
    STALLED = "stalled"
    """Its heart was not heard within the registration timeout, or it left before."""


class Scope(Protocol):
    """What the core needs of a cancel scope."""

    def cancel(self) -> object: ...


class EngineConnector:
    """An engine as the hub sees it.

    - ``id``: the integer by which clients address it; ``uuid``: its own name for itself, also its ZeroMQ
      identity on every channel (``ident``, as bytes);
    - ``host``, ``pid``: where it came from when it registered, and as which process; None where that is not known;
    - ``pending``: the msg_ids that it has been sent and has not answered;
    - ``scope``: first the timeout of its registration, then its life: cancelling it ends either;
    - ``completed``: how many requests it has answered;
    - ``awaited``: whether it is one of an earlier hub's, and what that one has sent it is not sorted out yet.
    """

    __slots__ = (
        "awaited",
        "broadcast",
        "completed",
        "control",
        "host",
        "id",
        "ident",
        "mux",
        "parked",
        "pid",
        "scope",
        "state",
        "uuid",
        "worker",
    )

    def __init__(self, id: int, uuid: str) -> None:
        self.id = id
        self.uuid = uuid
        self.ident = uuid.encode("utf-8")
        self.host: str | None = None
        self.pid: int | None = None
        self.state = EngineState.REGISTERING
        self.scope: Scope | None = None
        self.mux = Lane(self.ident)
        self.control = Lane(self.ident)
        self.broadcast = Lane(self.ident)
        self.worker: Worker | None = None
        self.parked: list[tuple[str, Frames]] = []
        """Messages, with their channels, for which the engine has not opened its connection yet."""
        self.completed = 0
        self.awaited = False

    def __repr__(self) -> str:
        return f"<EngineConnector {self.id} {self.uuid} {self.state.value}>"

    @property
    def pending(self) -> set[str]:
        return set(self.mux.pending).union(self.broadcast.pending, self.worker.running if self.worker else ())

    def end_scope(self) -> None:
        """Cancel the scope there is: the registration's timeout or the life is over."""
        if self.scope is not None:
            self.scope.cancel()
