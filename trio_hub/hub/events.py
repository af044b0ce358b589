"""Events of a hub for its embedder: frozen values, in the order in which things happened."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

__all__ = [
    "BlockEnded",
    "BlockStarted",
    "BlockSubmitted",
    "EngineDraining",
    "EngineRegistered",
    "EngineRequested",
    "EngineReturned",
    "EngineSettled",
    "EngineShutdownRequested",
    "EngineUnregistered",
    "Event",
    "HubShutdownRequested",
    "HubStopping",
    "PoolScaled",
    "RecordsPurged",
    "RegistrationStalled",
    "RequestsAborted",
    "RequestsResubmitted",
    "TaskAssigned",
    "TaskCancelled",
    "TaskFinished",
    "TaskQueued",
    "TaskSubmitted",
]


class EngineRequested(msgspec.Struct, frozen=True, gc=False):
    """An engine has asked to register, and was told its id. Its heart was not heard yet.

    ``host`` is the address from which the request came, and ``pid`` the engine's process id; None if not known.
    """

    id: int
    uuid: str
    host: str | None = None
    pid: int | None = None


class EngineRegistered(msgspec.Struct, frozen=True, gc=False):
    """An engine's heart has been heard: it is usable."""

    id: int
    uuid: str


class EngineUnregistered(msgspec.Struct, frozen=True, gc=False):
    """An engine is gone. The log has the cause.

    The ``reason`` is one of:

    - ``"request"``: the engine has unregistered, since it ends;
    - ``"shutdown"``: the engine ends, since a client has asked for it;
    - ``"died"``: its process has ended without unregistering, as its nanny has told, for example after SIGKILL;
    - ``"ended"``: the process of a local engine has ended without unregistering, as the hub itself has seen;
    - ``"heart"``: its heart has stopped; ``"unreachable"``: no message reaches it, though its heart beats.
    """

    id: int
    uuid: str
    reason: str


class EngineSettled(msgspec.Struct, frozen=True, gc=False):
    """The grace of a lost engine is over, and all its requests are answered or given to other engines."""

    id: int
    uuid: str


class EngineReturned(msgspec.Struct, frozen=True, gc=False):
    """The heart of an engine of an earlier hub is heard, or an engine that was gone is usable again."""

    id: int
    uuid: str


class EngineDraining(msgspec.Struct, frozen=True, gc=False):
    """An engine is drained: it gets no new tasks. If not ``draining``, it gets tasks again.

    ``by`` is who has asked for it, and ``then`` is ``"shutdown"`` if the engine is to end when it is idle.
    """

    id: int
    uuid: str
    draining: bool
    by: str
    then: str = ""


class RegistrationStalled(msgspec.Struct, frozen=True, gc=False):
    """An engine asked to register, and its heart was not heard in time."""

    id: int
    uuid: str


class TaskSubmitted(msgspec.Struct, frozen=True, gc=False):
    """A request has come.

    - ``queue``: ``"task"``, ``"mux"`` or ``"broadcast"``;
    - ``label``: the label that the client has given; else the function's name, if it can be found; else the message
      type;
    - ``client``: the session of the client;
    - ``engine_uuid``: the engine that a direct request, or a share of a broadcast, is for.
    """

    msg_id: str
    queue: str
    label: str = ""
    client: str = ""
    engine_uuid: str | None = None


class TaskAssigned(msgspec.Struct, frozen=True, gc=False):
    """A task has been sent to an engine."""

    msg_id: str
    engine_uuid: str


class TaskQueued(msgspec.Struct, frozen=True, gc=False):
    """A task that had an engine waits for another engine: the engine died, or has failed or refused the task."""

    msg_id: str


class TaskFinished(msgspec.Struct, frozen=True, gc=False):
    """A request has been answered. ``status`` is ``"ok"``, ``"error"`` or ``"aborted"``.

    For an error, ``ename`` is its type, and ``evalue`` the first line of its text, at most 200 characters. ``where`` is
    the line that raised it, such as ``project/model.py:12 in fit``, if its traceback names one.
    """

    msg_id: str
    engine_uuid: str | None
    status: str
    ename: str = ""
    evalue: str = ""
    where: str = ""


class TaskCancelled(msgspec.Struct, frozen=True, gc=False):
    """Somebody has cancelled a request. When the client gets its answer, `TaskFinished` follows.

    ``by`` is who has asked for it, and ``what`` is what is done: ``"withdrawn"`` or ``"interrupted"``.
    """

    msg_id: str
    by: str
    what: str


class RecordsPurged(msgspec.Struct, frozen=True, gc=False):
    """A client has purged this number of records from the task database.

    ``client`` is the session of the client. ``user`` is the name of the user whose process the client is; empty if the
    client names none. Nobody has checked this name.
    """

    records: int
    client: str
    user: str = ""


class RequestsAborted(msgspec.Struct, frozen=True, gc=False):
    """A client has asked to abort this number of requests that were not answered yet.

    A request that an engine has begun goes on. A stock client asks the hub through each engine, so that its abort is
    one event for each engine that has some of the requests. Each share of a broadcast counts as a request. ``client``
    and ``user`` are as in `RecordsPurged`.
    """

    requests: int
    client: str
    user: str = ""


class RequestsResubmitted(msgspec.Struct, frozen=True, gc=False):
    """A client has resubmitted this number of requests. ``client`` and ``user`` are as in `RecordsPurged`."""

    requests: int
    client: str
    user: str = ""


class EngineShutdownRequested(msgspec.Struct, frozen=True, gc=False):
    """A client has asked an engine to end; with ``restart``, to start again afterwards.

    ``client`` and ``user`` are as in `RecordsPurged`.
    """

    id: int
    uuid: str
    restart: bool
    client: str
    user: str = ""


class HubShutdownRequested(msgspec.Struct, frozen=True, gc=False):
    """A client has asked the hub to stop. ``client`` and ``user`` are as in `RecordsPurged`."""

    client: str
    user: str = ""


class BlockSubmitted(msgspec.Struct, frozen=True, gc=False):
    """A block of a pool was submitted for this number of engines, and the batch system has accepted it."""

    pool: str
    block: str
    engines: int


class BlockStarted(msgspec.Struct, frozen=True, gc=False):
    """A block of a pool has got its nodes, or one of its engines has come."""

    pool: str
    block: str


class BlockEnded(msgspec.Struct, frozen=True, gc=False):
    """A block of a pool has ended or was refused. If it has not ``failed``, it has ended as expected.

    ``words`` is the reason, in the batch system's own words if it has given some.
    """

    pool: str
    block: str
    failed: bool
    words: str


class PoolScaled(msgspec.Struct, frozen=True, gc=False):
    """Somebody has changed the numbers of engines that a pool has at least and at most. ``by`` is who has done so."""

    pool: str
    min: int
    max: int
    by: str


class HubStopping(msgspec.Struct, frozen=True, gc=False):
    """The hub has been asked to stop, and no further event follows. ``reason`` is the source of the request to stop."""

    reason: str


Event: TypeAlias = (
    EngineRequested
    | EngineRegistered
    | EngineReturned
    | EngineUnregistered
    | EngineSettled
    | RegistrationStalled
    | EngineDraining
    | TaskSubmitted
    | TaskAssigned
    | TaskQueued
    | TaskCancelled
    | TaskFinished
    | RecordsPurged
    | RequestsAborted
    | RequestsResubmitted
    | EngineShutdownRequested
    | HubShutdownRequested
    | BlockSubmitted
    | BlockStarted
    | BlockEnded
    | PoolScaled
    | HubStopping
)
