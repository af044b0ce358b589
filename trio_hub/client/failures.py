"""Exceptions of remote functions, as callers that know `concurrent.futures` expect them."""

from __future__ import annotations

import builtins
import re
from functools import lru_cache
from typing import Any

from ..errors import RemoteError

__all__ = ["RemoteTraceback", "as_raised"]

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_NOT_REBUILT = (StopIteration, StopAsyncIteration)
"""Exceptions that mean something else to the generator or coroutine in which they are raised."""


class RemoteTraceback(Exception):
    """The traceback of an exception on an engine: the ``__cause__`` of the exception that is raised here."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}\n"""'


def as_raised(error: RemoteError) -> RemoteError:
    """Return the exception to raise for an error on an engine.

    An engine sends the name of the exception's class, not the exception. If the class is one of Python's own, such as
    `ValueError`, the returned exception belongs to that class and to `RemoteError`. Otherwise it is a `RemoteError`.
    Its cause is a `RemoteTraceback`, if the engine has sent a traceback.
    """
    raised = _rebuilt(error.ename, error.evalue, error.traceback, error.engine)
    if error.traceback:
        raised.__cause__ = RemoteTraceback(_COLOURS.sub("", error.traceback))
    return raised


def _rebuilt(*described: Any) -> RemoteError:
    return (_class_of(described[0]) or RemoteError)(*described)


@lru_cache(1000)
def _class_of(ename: str) -> type[RemoteError] | None:
    """Return a class for exceptions of this name, or None if Python has no such class, or it needs other arguments."""
    original = getattr(builtins, ename, None)
    if not isinstance(original, type) or not issubclass(original, Exception) or issubclass(original, _NOT_REBUILT):
        return None
    try:
        made: type[RemoteError] = type(
            f"Remote{ename}",
            (RemoteError, original),
            {"__str__": _text, "__reduce__": _reduced, "__module__": __name__},
        )
        made(ename, "")
    except Exception:  # such as UnicodeDecodeError, which needs other arguments than a text
        return None
    return made


def _text(error: RemoteError) -> str:
    return str(error.args[0])  # not str(error), in which KeyError and OSError add other text


def _reduced(error: RemoteError) -> tuple[Any, ...]:
    return _rebuilt, (error.ename, error.evalue, error.traceback, error.engine)
