"""The errors of trio_hub: one small tree, so that callers can catch what they mean.

`HubError` is the root. `WireError` is what unreadable bytes become, and nothing else; its `kind` is the
name under which the hub counts it.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ConfigError",
    "ConnectionFileError",
    "EngineError",
    "EventsLost",
    "HubClosedError",
    "HubError",
    "HubLostError",
    "ImpossibleDependency",
    "InvalidDependency",
    "QueryError",
    "RemoteError",
    "RequestLostError",
    "RequestRefused",
    "SerializationError",
    "StoreError",
    "TaskAborted",
    "TaskTimeout",
    "WireError",
]


class HubError(Exception):
    """Anything that trio_hub itself found wrong."""


class ConfigError(HubError):
    """A setting has a name or a value that cannot be used; the message names it and the remedy."""


class ConnectionFileError(HubError):
    """A connection file, or another file by which a hub carries on, cannot be used; the message names it."""


class HubClosedError(HubError):
    """The hub has stopped, or is stopping, and can no longer do what was asked."""


class WireError(HubError):
    """Bytes from the network that are not a message of ours.

    `kind` is one of `KINDS`: a short, stable name, used as a counter's label.
    """

    KINDS = (
        "no_delimiter",
        "too_few_frames",
        "too_many_frames",
        "no_identity",
        "too_large",
        "bad_signature",
        "replayed",
        "malformed",
        "wrong_type",
    )

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class StoreError(HubError):
    """A task database cannot do what was asked (damaged, full, unreachable)."""


class QueryError(HubError):
    """A database query that is not in the query language; the message names the part that is not."""


# What a client meets.


class EventsLost(HubError):
    """A reader of events was too slow, and has missed some."""


class HubLostError(HubError):
    """A client cannot reach its hub, or has not for too long; the message says where that is, and the remedy."""


class RequestLostError(HubError):
    """The hub came back without a request, which it may have passed on to an engine, or not."""


class SerializationError(HubError):
    """A value cannot be pickled or unpickled here; the message names it and the remedy."""


class RemoteError(HubError):
    """An engine, or the hub, has answered with an error.

    - ``ename``, ``evalue``: the name of the exception's class, and its text;
    - ``traceback``: as the engine printed it, perhaps with colours; may be empty;
    - ``engine``: the id of the engine; None if it was the hub that answered.
    """

    def __init__(self, ename: str, evalue: str, traceback: str = "", engine: int | None = None) -> None:
        super().__init__(f"{ename}: {evalue}" + ("" if engine is None else f" (engine {engine})"))
        self.ename = ename
        self.evalue = evalue
        self.traceback = traceback
        self.engine = engine

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.ename, self.evalue, self.traceback, self.engine)


# What follows travels to clients by class name (`ename`), and stock clients know these names.


class EngineError(HubError):
    """An engine is unknown, or died before it answered."""


class InvalidDependency(HubError):
    """A task depends on a task that this hub has never seen, or on itself."""


class ImpossibleDependency(HubError):
    """No engine can ever satisfy what the task asks for."""


class RequestRefused(HubError):
    """The hub does not pass a message on: it is no request, or a request of this msg_id has come before."""


class TaskAborted(HubError):
    """The task was withdrawn before any engine had it."""


class TaskTimeout(HubError):
    """The task's own time limit passed before its dependencies were met."""
