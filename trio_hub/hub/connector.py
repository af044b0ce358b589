"""`EngineConnector`: one engine, from its registration request until its stranded work is settled."""

from __future__ import annotations

import math
from enum import Enum
from typing import Any, NamedTuple, Protocol

from ..errors import EngineError
from ..schedulers.rules import Needs
from ..schedulers.task import Worker
from ..schedulers.unanswered import Lane
from ..wire.blocks import block_in
from ..wire.frames import Frames
from .engineids import valid_block
from .usage import EngineUsage

__all__ = [
    "EngineConnector",
    "EngineState",
    "Probe",
    "Route",
    "Scope",
    "died_while_running",
    "lost_on_its_way",
]


class EngineState(Enum):
    """The states of an engine, in the order of its life.

    An engine begins as `REGISTERING`; an engine of an earlier hub as `EXPECTED`. It ends as `SETTLED` or `STALLED`.
    """

    REGISTERING = "registering"
    """The hub has told the engine its id, and has not heard its heart yet. Next: `ALIVE` or `STALLED`."""
    EXPECTED = "expected"
    """The engine was registered with an earlier hub, and this hub has not heard its heart yet. The hub lists the
    engine, and keeps the messages for it. Next: `RETURNING` or `LOST`."""
    RETURNING = "returning"
    """The heart of an expected engine was heard, and the hub finds out what became of the earlier hub's requests. The
    hub keeps the messages for the engine. Next: `ALIVE` or `LOST`."""
    ALIVE = "alive"
    """The engine is usable. Next: `LOST`."""
    LOST = "lost"
    """The engine was unregistered, for any reason. Late results are still accepted (the grace). Next: `SETTLED`."""
    SETTLED = "settled"
    """None of the engine's requests is unanswered any more. Next, if the engine may return and has proven that it is
    back: `ALIVE`."""
    STALLED = "stalled"
    """The engine's heart was not heard within the registration timeout, or the engine left before."""

    @property
    def is_registered(self) -> bool:
        """Whether the hub lists the engine, and accepts requests for it."""
        return self in (EngineState.ALIVE, EngineState.EXPECTED, EngineState.RETURNING)

    @property
    def is_coming_back(self) -> bool:
        """Whether messages for the engine wait, since it is one of an earlier hub and not usable yet."""
        return self in (EngineState.EXPECTED, EngineState.RETURNING)


class Scope(Protocol):
    """A cancel scope, or a timer, as far as the core uses it."""

    def cancel(self) -> object: ...


class Route:
    """The messages that wait for one engine on one channel, and the reason.

    There is a route only while something is wrong: the engine cannot be reached, or its connection broke and the hub
    does not know yet whether the engine is at the other end of the new connection.

    - ``parked``: the messages that wait, in order, each with the msg_id of its request;
    - ``suspect``: whether messages wait until the engine has answered a question of the hub with a signed message;
    - ``question``: the msg_id of that question, once it has been sent;
    - ``scope``: the cancel scope of the pause of the route's task; cancelling it ends the pause.
    """

    __slots__ = ("parked", "question", "scope", "suspect")

    def __init__(self, *, suspect: bool = False) -> None:
        self.parked: list[tuple[Frames, str]] = []
        self.suspect = suspect
        self.question: str | None = None
        self.scope: Scope | None = None

    def look(self) -> None:
        """Wake the task that looks after the route, since something has changed."""
        if self.scope is not None:
            self.scope.cancel()


class EngineConnector:
    """An engine as the hub sees it.

    - ``id``: the integer by which clients name the engine; ``uuid``: the name that the engine has chosen, also its
      ZeroMQ identity on every channel (``ident``, as bytes);
    - ``host``, ``pid``: the address from which the engine registered, and its process id; None if not known;
    - ``offers``: the engine's tags and amounts, for tasks with needs;
    - ``pending``: the msg_ids of the requests that the engine was sent and has not answered;
    - ``scope``: the cancel scope, first of the engine's registration timeout, then of its life;
    - ``block``: the name of the pool's block that has started the engine; empty if none has;
    - ``addressed``: the number of direct requests, comm messages, and broadcasts to chosen engines, that clients have
      sent to the engine;
    - ``completed``: the number of requests that the engine has answered, without aborted ones;
    - ``routes``: the routes on which messages for the engine wait, by channel;
    - ``told_to_stop``: whether somebody has asked the engine to end, so that nobody starts it again;
    - ``loss``: the reason of the engine's last loss, one of `trio_hub.hub.engines.LOSSES`; empty if there was none;
    - ``cause``: why the engine is gone, for errors, such as ``killed by signal 9 (SIGKILL)``; empty if it is not gone;
    - ``usage``: the engine's last report of what it and its machine use; None if there was none;
    - ``may_return``: whether the engine is gone and becomes usable again when its heart is heard;
    - ``aims_interrupts``: whether the engine interrupts only the request that an interrupt names, as this project's do;
    - ``held``: whether the engine gets nothing but control requests for a moment, since an interrupt is under way;
    - ``seconds_left``: how long the engine will be there, as it has just said; None once that is in ``leaves_at``;
    - ``leaves_at``: when the engine will be gone, by the hub's clock, in seconds since 1970; None if not known.
    """

    __slots__ = (
        "addressed",
        "aims_interrupts",
        "block",
        "broadcast",
        "cause",
        "completed",
        "control",
        "held",
        "host",
        "id",
        "ident",
        "leaves_at",
        "loss",
        "may_return",
        "mux",
        "offers",
        "parked",
        "pid",
        "routes",
        "scope",
        "seconds_left",
        "state",
        "told_to_stop",
        "usage",
        "uuid",
        "worker",
    )

    def __init__(self, id: int, uuid: str, offers: Needs = ()) -> None:
        self.id = id
        self.uuid = uuid
        self.offers = offers
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
        """Messages, with their channels and msg_ids, that wait while the engine is coming back, or held."""
        self.routes: dict[str, Route] = {}
        self.block = block_in(uuid)
        self.addressed = 0
        self.completed = 0
        self.told_to_stop = False
        self.loss = ""
        self.cause = ""
        self.may_return = False
        self.usage: EngineUsage | None = None
        self.aims_interrupts = False
        self.held = False
        self.seconds_left: float | None = None
        self.leaves_at: float | None = None

    def __repr__(self) -> str:
        return f"<EngineConnector {self.id} {self.uuid} {self.state.value}>"

    @property
    def pending(self) -> set[str]:
        return set(self.mux.pending).union(self.broadcast.pending, self.worker.running if self.worker else ())

    def parks(self, channel: str) -> bool:
        """Return whether messages on this channel wait, since the engine is coming back, or held."""
        return self.state.is_coming_back or (self.held and channel != "control_out")

    def note_facts(self, host: str | None, content: dict[str, Any]) -> None:
        """Note the address from which the engine registers, and what it says of itself in its registration request."""
        self.host = host
        self.aims_interrupts = content.get("aims_interrupts") is True
        self.block = valid_block(content.get("block")) or self.block
        self.note_time(content.get("seconds_left"))

    def note_time(self, seconds_left: Any) -> None:
        """Note how many seconds the engine will still be there; any other value: that is not known."""
        is_number = isinstance(seconds_left, int | float) and not isinstance(seconds_left, bool)
        self.seconds_left = float(seconds_left) if is_number and 0 <= seconds_left < math.inf else None

    def has(self, msg_id: str) -> bool:
        """Return whether the engine has this request, and has not answered it."""
        running = self.worker.running if self.worker else ()
        return msg_id in running or msg_id in self.mux.pending or msg_id in self.broadcast.pending

    @property
    def newest_task(self) -> str:
        """The msg_id of the task that the engine was sent last and has not answered; empty if there is none."""
        return next(reversed(self.worker.running), "") if self.worker else ""

    @property
    def first_request(self) -> str | None:
        """The msg_id of the unanswered request that the engine was sent first, which it carries out now."""
        running = self.worker.running if self.worker else {}
        lanes = (self.mux, self.broadcast)
        directs = [next(iter(lane.pending.values())) for lane in lanes if lane.pending]
        if not directs:
            return next(iter(running), None)
        first = min(directs, key=lambda direct: direct.number)
        return next(iter(running)) if first.behind in running else first.header.msg_id

    def end_scope(self) -> None:
        """Cancel the current scope, if any: the registration timeout, or the engine's life."""
        if self.scope is not None:
            self.scope.cancel()


class Probe(NamedTuple):
    """A question to an engine, about requests that the engine was sent before.

    The engine answers in order. So if a request of ``msg_ids`` is unanswered when the engine answers the probe, the
    request or its answer was lost; ``cause`` is the reason, for errors. If ``last``, the hub then assumes that the
    answer was lost; otherwise it first sends recorded requests once more.
    """

    engine: EngineConnector
    channel: str
    msg_ids: dict[str, None]
    cause: str
    last: bool


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
