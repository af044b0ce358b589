"""What a scripted engine does with a request: any function of the request; here are the usual ones.

A behaviour must not wait. To answer later, let the engine `hold` its requests, or keep the request and answer it
when its time has come: `Request.answer` may be called whenever, and as often as a test likes.
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
    """Succeed, and send the request's buffers back."""
    request.answer(request.buffers)


def answering(function: Callable[[Request], Sequence[Buffer]]) -> Behaviour:
    """Succeed, with the buffers that the function makes of the request."""
    return lambda request: request.answer(function(request))


def failing(ename: str = "RuntimeError", evalue: str = "as the script says") -> Behaviour:
    """Fail with this error."""
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
    """Close all sockets at once, without a word."""
    request.engine.die()


def obey(request: Request) -> None:
    """Say that what the control channel asks was done; do it, if it is to shut down."""
    request.answer()
    if request.msg_type == "shutdown_request":
        request.engine.shut_down()


def one_by_one(*behaviours: Behaviour) -> Behaviour:
    """The first request gets the first behaviour, the second the second, and so on; the last goes on for ever."""
    left = list(behaviours)
    return lambda request: (left.pop(0) if len(left) > 1 else left[0])(request)
