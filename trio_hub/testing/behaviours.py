"""Behaviours of scripted engines: functions that handle a request. These are the usual ones.

A behaviour must not wait. To answer later, let the engine `hold` its requests, or keep the request and call
`Request.answer` later. It may be called at any time, and any number of times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from ..wire.frames import Buffer

if TYPE_CHECKING:
    from .engine import Request

__all__ = [
    "Behaviour",
    "answer",
    "answering",
    "die",
    "failing",
    "ignore",
    "obey",
    "one_by_one",
    "twice",
    "unmet",
]

Behaviour: TypeAlias = "Callable[[Request], object]"


def answer(request: Request) -> None:
    """Reply with success, and with the buffers of the request."""
    request.answer(request.buffers)


def answering(function: Callable[[Request], Sequence[Buffer]]) -> Behaviour:
    """Return a behaviour that replies with success, and with the buffers that `function` returns for the request."""
    return lambda request: request.answer(function(request))


def failing(ename: str = "RuntimeError", evalue: str = "as the script says") -> Behaviour:
    """Return a behaviour that replies with this error."""
    return lambda request: request.fail(ename, evalue)


def unmet(request: Request) -> None:
    """Refuse the task, because its functional dependency is not met on this engine."""
    request.refuse()


def ignore(request: Request) -> None:
    """Never answer."""


def twice(request: Request) -> None:
    """Answer twice: two messages, each with its own msg_id and signature."""
    request.answer(request.buffers)
    request.answer(request.buffers)


def die(request: Request) -> None:
    """Close all sockets of the engine at once, without sending anything."""
    request.engine.die()


def obey(request: Request) -> None:
    """Reply with success to a control request. Carry it out if it is a ``shutdown_request``."""
    request.answer()
    if request.msg_type == "shutdown_request":
        request.engine.shut_down()


def one_by_one(*behaviours: Behaviour) -> Behaviour:
    """Return a behaviour that uses the first one for the first request, and so on, and the last for all others."""
    left = list(behaviours)
    return lambda request: (left.pop(0) if len(left) > 1 else left[0])(request)
