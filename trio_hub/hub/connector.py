"""`EngineConnector`: one engine, from its registration request until its stranded work is settled."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, Protocol

from ..errors import EngineError
from ..schedulers.relay import Lane
from ..schedulers.task import Worker
from ..wire.frames import Frames

__all__ = [
    "EngineConnector",
    "EngineState",
    "Probe",
    "Route",
    "Scope",
    "died_while_running",
    "lost_on_its_way",
    "no_such_engine",
]


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


class Route:
    """What keeps messages from one engine on one channel, as long as something does.

    There is a route only while there is trouble: the engine cannot be reached, or its connection broke and nobody knows
    yet whether the engine is at the other end of the new one.

    - ``parked``: the messages that wait, in order;
    - ``suspect``: whether only a signed answer to a question of the hub lets messages go out again;
    - ``question``: the msg_id of that question, once it has been sent;
    - ``scope``: the pause of the task that looks after the route; cancelling it has the task look at once.
    """

    __slots__ = ("parked", "question", "scope", "suspect")

    def __init__(self, *, suspect: bool = False) -> None:
        self.parked: list[Frames] = []
        self.suspect = suspect
        self.question: str | None = None
        self.scope: Scope | None = None

    def look(self) -> None:
        """Something has changed: whoever looks after the route shall see it now."""
        if self.scope is not None:
            self.scope.cancel()


class EngineConnector:
    """An engine as the hub sees it.

    - ``id``: the integer by which clients address it; ``uuid``: its own name for itself, also its ZeroMQ
      identity on every channel (``ident``, as bytes);
    - ``host``, ``pid``: where it came from when it registered, and as which process; None where that is not known;
    - ``pending``: the msg_ids that it has been sent and has not answered;
    - ``scope``: first the timeout of its registration, then its life: cancelling it ends either;
    - ``completed``: how many requests it has answered;
    - ``routes``: the channels, by name, on which messages for it wait;
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
        "routes",
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
        self.parked: list[tuple[str, Frames, str]] = []
        """Messages, with their channels and msg_ids, that wait until the engine is no longer ``awaited``."""
        self.routes: dict[str, Route] = {}
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


class Probe(NamedTuple):
    """A question to an engine, the requests that are lost if it is answered before them, and what they were lost by.

    ``last`` is whether they are given up then; else those that are recorded are sent once more.
    """

    engine: EngineConnector
    channel: str
    msg_ids: dict[str, None]
    cause: str
    last: bool


def no_such_engine(idents: list[bytes]) -> EngineError:
    """The error for a request to an engine that does not exist. The engine is the second of the identities."""
    if len(idents) < 2:
        return EngineError("the message names no engine")
    return EngineError(f"Engine {idents[1].decode('utf-8', 'replace')} is not registered (any more)")


def died_while_running(engine: EngineConnector, msg_id: str) -> EngineError:
    """The error for a request that an engine left unanswered."""
    return EngineError(f"Engine {engine.id} died while running task {msg_id}")


def lost_on_its_way(engine: EngineConnector, msg_id: str, cause: str) -> EngineError:
    """The error for a request whose answer the engine has sent, or has not, and which the hub has not got."""
    return EngineError(
        f"{cause} while {msg_id} was under way, and its result was lost: engine {engine.id} "
        "has had the request, and may have carried it out"
    )
