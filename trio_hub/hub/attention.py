"""The engines whose answers are looked at before their queues handle them: engines that are interrupted, or drained.

A queue asks only about an answer of an engine in `Attention.engines`. So the answers of all other engines cost nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from ..wire.messages import Message
from .connector import EngineConnector
from .ports import Queue

__all__ = ["Attention", "Watching"]


class Watching(Protocol):
    """The part that looks at the answers."""

    def take(self, queue: Queue, ident: bytes, msg: Message, status: str) -> bool:
        """Handle an engine's answer to a pending request. Return False if the queue is to handle it as usual."""

    def lost(self, engine: EngineConnector, msg_id: str) -> bool:
        """Handle a request whose answer was lost. Return False if the queue is to handle it as usual."""


class Attention:
    """Knows the engines whose answers are looked at, and the part that looks at them."""

    def __init__(self) -> None:
        self.engines: Counter[bytes] = Counter()
        """By identity, the number of reasons for which an engine's answers are looked at."""
        self._watching: Watching | None = None
        self._told: Sequence[Callable[[bytes], None]] = ()

    def connect(self, watching: Watching, told: Sequence[Callable[[bytes], None]]) -> None:
        """Set the part that looks at the answers, and the calls to make after each handled answer. Call this once."""
        self._watching, self._told = watching, told

    def begin(self, ident: bytes) -> None:
        """Look at the answers of this engine, for one more reason."""
        self.engines[ident] += 1

    def end(self, ident: bytes) -> None:
        """Give up one of the reasons for which this engine's answers are looked at."""
        self.engines[ident] -= 1
        if self.engines[ident] <= 0:
            del self.engines[ident]

    def take(self, queue: Queue, ident: bytes, msg: Message, status: str) -> bool:
        """Have an answer looked at, see `Watching.take`. For engines in `engines`."""
        return self._watching is not None and self._watching.take(queue, ident, msg, status)

    def lost(self, engine: EngineConnector, msg_id: str) -> bool:
        """Have a lost answer looked at, see `Watching.lost`. For engines in `engines`."""
        return self._watching is not None and self._watching.lost(engine, msg_id)

    def has_answered(self, ident: bytes) -> None:
        """Tell the parts set by `connect` that an answer of an engine was handled. For engines in `engines`."""
        for tell in self._told:
            tell(ident)
