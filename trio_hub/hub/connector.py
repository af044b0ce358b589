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
    """The hub has told the engine its id, and has not heard its heart yet."""
    ALIVE = "alive"
    LOST = "lost"
    """Unregistered, for any reason; late results are still accepted (the grace)."""
    SETTLED = "settled"
    """The hub keeps nothing for the engine any more."""
    STALLED = "stalled"
    """The engine's heart was not heard within the registration timeout, or the engine left before."""


class Scope(Protocol):
    """A cancel scope, or a timer, as far as the core uses it."""

    def cancel(self) -> object: ...


class Route:
    """The messages that wait for one engine on one channel, and the reason.

    There is a route only while something is wrong: the engine cannot be reached, or its connection broke and the hub
    does not know yet whether the engine is at the other end of the new connection.

    - ``parked``: the messages that wait, in order;
    - ``suspect``: whether messages wait until the engine has answered a question of the hub with a signed message;
    - ``question``: the msg_id of that question, once it has been sent;
    - ``scope``: the cancel scope of the pause of the route's task; cancelling it ends the pause.
    """

    __slots__ = ("parked", "question", "scope", "suspect")

    def __init__(self, *, suspect: bool = False) -> None:
        self.parked: list[Frames] = []
        self.suspect = suspect
        self.question: str | None = None
        self.scope: Scope | None = None

    def look(self) -> None:
        """Have the task that looks after the route look at it now, since something has changed."""
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
    - ``awaited``: whether it is one of an earlier hub's, and what that one has sent it is not sorted out yet;
    - ``cause``: how its process ended, such as ``killed by signal 9 (SIGKILL)``; empty where that is not known.
    """

    __slots__ = (
        "awaited",
        "broadcast",
        "cause",
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
        self.cause = ""

    def __repr__(self) -> str:
        return f"<EngineConnector {self.id} {self.uuid} {self.state.value}>"

    @property
    def pending(self) -> set[str]:
        return set(self.mux.pending).union(self.broadcast.pending, self.worker.running if self.worker else ())

    def end_scope(self) -> None:
        """Cancel the current scope, if any: the registration timeout, or the engine's life."""
        if self.scope is not None:
            self.scope.cancel()


class Probe(NamedTuple):
    """A question to an engine, about requests that were sent to it before.

    The engine answers in order. So a request of ``msg_ids`` that is unanswered when the answer comes was lost, by
    ``cause``. If ``last``, the hub then treats its answer as lost; else it first sends recorded requests once more.
    """

    engine: EngineConnector
    channel: str
    msg_ids: dict[str, None]
    cause: str
    last: bool


def no_such_engine(idents: list[bytes]) -> EngineError:
    """Return the error for a request to an unknown engine, which is the second of the identities."""
    if len(idents) < 2:
        return EngineError("the message names no engine")
    return EngineError(f"Engine {idents[1].decode('utf-8', 'replace')} is not registered (any more)")


def died_while_running(engine: EngineConnector, msg_id: str) -> EngineError:
    """Return the error for a request that a lost engine has not answered."""
    cause = f": {engine.cause}" if engine.cause else ""
    return EngineError(f"Engine {engine.id} died while running task {msg_id}{cause}")


def lost_on_its_way(engine: EngineConnector, msg_id: str, cause: str) -> EngineError:
    """Return the error for a request that an engine has received and whose answer never reached the hub."""
    return EngineError(
        f"{cause} while {msg_id} was under way, and its result was lost: engine {engine.id} "
        "has had the request, and may have carried it out"
    )
