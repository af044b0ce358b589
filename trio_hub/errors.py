"""The errors of trio_hub, all derived from `HubError`."""

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
    "PoolError",
    "QueryError",
    "RemoteError",
    "RequestLostError",
    "RequestRefused",
    "SerializationError",
    "StoreError",
    "TaskAborted",
    "TaskCancelled",
    "TaskTimeout",
    "WireError",
]


class HubError(Exception):
    """The base class of all errors that trio_hub raises."""


class ConfigError(HubError):
    """A setting has an unknown name or an unusable value. The message names the setting and the remedy."""


class ConnectionFileError(HubError):
    """A connection file, or another file that a hub needs to restart, cannot be used. The message names the file."""


class HubClosedError(HubError):
    """The hub has stopped or is stopping, so it does not carry out the call."""


class PoolError(HubError):
    """There is no pool of this name, or it cannot have the size that was asked for. The message names the pools."""


class WireError(HubError):
    """Bytes from the network are not a valid message.

    `kind` is one of `KINDS`: a short, stable name, under which the hub counts the error.
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
    """A task database cannot carry out an operation; for example, it is damaged, full, or cannot be reached."""


class QueryError(HubError):
    """A database query is invalid. The message names the invalid part."""


# Errors that clients raise.


class EventsLost(HubError):
    """A reader of events was too slow, and has missed some events."""


class HubLostError(HubError):
    """A client cannot reach its hub, or has not reached it for too long.

    The message names the hub's address and the remedy.
    """


class RequestLostError(HubError):
    """The hub was restarted and does not know the request. An engine may have run the request, or not."""


class SerializationError(HubError):
    """The client cannot pickle or unpickle a value. The message names the value and the remedy."""


class RemoteError(HubError):
    """An engine or the hub has answered with an error.

    - ``ename``, ``evalue``: the name of the exception's class, and its text;
    - ``traceback``: the traceback as the engine printed it, perhaps with colour codes; may be empty;
    - ``engine``: the id of the engine; None if the hub answered.
    """

    def __init__(self, ename: str, evalue: str, traceback: str = "", engine: int | None = None) -> None:
        super().__init__(f"{ename}: {evalue}" + ("" if engine is None else f" (engine {engine})"))
        self.ename = ename
        self.evalue = evalue
        self.traceback = traceback
        self.engine = engine

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.ename, self.evalue, self.traceback, self.engine)


# The hub sends the following errors to clients by class name (`ename`). Stock clients know these names.


class EngineError(HubError):
    """An engine is unknown, or was lost before it answered."""


class InvalidDependency(HubError):
    """A dependency of a task is malformed, or names the task itself or a request that the hub does not know."""


class ImpossibleDependency(HubError):
    """No engine can ever meet the dependencies or targets of a task."""


class RequestRefused(HubError):
    """The hub does not pass on a message: it is not a request, or a request with this msg_id was received before."""


class TaskAborted(HubError):
    """The task was aborted before it was sent to an engine."""


class TaskCancelled(HubError):
    """Somebody has cancelled the request. The text says who has asked for it, when, and what it took to end it.

    ``facts`` are the same facts for the record's metadata, in JSON values.
    """

    def __init__(self, text: str, facts: dict[str, Any] | None = None) -> None:
        super().__init__(text)
        self.facts = facts or {}


class TaskTimeout(HubError):
    """A time limit of a task has passed: for its wait, or for its run."""
