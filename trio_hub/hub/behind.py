"""Tasks behind interrupted requests: a stock engine aborts them when an interrupted ``execute_request`` fails."""

from __future__ import annotations

from .attention import Attention
from .connector import EngineConnector

__all__ = ["Behind"]


class Behind:
    """Knows the tasks that each engine had when an interrupted request failed there. A stock engine may abort them."""

    def __init__(self, attention: Attention) -> None:
        self._attention = attention
        self._tasks: dict[bytes, set[str]] = {}

    def note(self, engine: EngineConnector) -> None:
        """Note the tasks of an engine on which an interrupted request has just failed."""
        if engine.worker is not None and engine.worker.running:
            if engine.ident not in self._tasks:
                self._attention.begin(engine.ident)
            self._tasks.setdefault(engine.ident, set()).update(engine.worker.running)

    def take(self, engine: EngineConnector, msg_id: str) -> bool:
        """Return whether a request that is answered was behind an interrupted request, and forget it."""
        behind = self._tasks.get(engine.ident)
        if behind is None:
            return False
        was_behind = msg_id in behind
        behind.discard(msg_id)
        behind.intersection_update(engine.worker.running if engine.worker is not None else ())
        if not behind:
            self.forget(engine)
        return was_behind

    def forget(self, engine: EngineConnector) -> None:
        """Forget the tasks of an engine."""
        if self._tasks.pop(engine.ident, None) is not None:
            self._attention.end(engine.ident)
