"""What happens in a hub, as its embedder sees it: frozen values, in the order in which things happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

__all__ = [
    "EngineRegistered",
    "EngineSettled",
    "EngineUnregistered",
    "Event",
    "HubStopping",
    "RegistrationStalled",
    "TaskAssigned",
    "TaskFinished",
    "TaskSubmitted",
]


@dataclass(frozen=True, slots=True)
class EngineRegistered:
    """An engine's heart has been heard: it is usable."""

    id: int
    uuid: str


@dataclass(frozen=True, slots=True)
class EngineUnregistered:
    """An engine is gone. ``reason`` is ``"heart"``, ``"request"``, ``"shutdown"`` or ``"unreachable"``."""

    id: int
    uuid: str
    reason: str


@dataclass(frozen=True, slots=True)
class EngineSettled:
    """The grace of a lost engine is over, and all that it left is answered."""

    id: int
    uuid: str


@dataclass(frozen=True, slots=True)
class RegistrationStalled:
    """An engine asked to register, and its heart was not heard in time."""

    id: int
    uuid: str


@dataclass(frozen=True, slots=True)
class TaskSubmitted:
    """A request has come. ``queue`` is ``"task"`` or ``"mux"``."""

    msg_id: str
    queue: str


@dataclass(frozen=True, slots=True)
class TaskAssigned:
    """A task has been sent to an engine."""

    msg_id: str
    engine_uuid: str


@dataclass(frozen=True, slots=True)
class TaskFinished:
    """A request has been answered. ``status`` is ``"ok"``, ``"error"`` or ``"aborted"``."""

    msg_id: str
    engine_uuid: str | None
    status: str


@dataclass(frozen=True, slots=True)
class HubStopping:
    """The hub has been asked to stop; no further event follows. ``reason`` says by whom."""

    reason: str


Event: TypeAlias = (
    EngineRegistered
    | EngineUnregistered
    | EngineSettled
    | RegistrationStalled
    | TaskSubmitted
    | TaskAssigned
    | TaskFinished
    | HubStopping
)
