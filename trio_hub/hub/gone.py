"""Engines that are gone: why each is gone, for errors and pages, and which of them may come back.

An engine whose heart was silent may be alive: its machine was suspended, or its network was cut. A stock engine never
registers again by itself. So when the hub hears the heart of such an engine, the engine is usable again, under its id.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import EngineError
from .connector import EngineConnector

__all__ = ["LIMIT", "GoneEngines"]

LIMIT = 5000
"""The maximum number of engines that are remembered. The engines that have gone first are forgotten first."""


class GoneEngines:
    """Remembers the engines that have gone last.

    Args:
        limit: the maximum number of engines that are remembered.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._by_ident: dict[bytes, EngineConnector] = {}
        self._by_id: dict[int, EngineConnector] = {}
        """For each id, the engine that has had it last."""

    def __len__(self) -> int:
        return len(self._by_ident)

    def __iter__(self) -> Iterator[EngineConnector]:
        return iter(self._by_ident.values())

    def remember(self, engine: EngineConnector, cause: str, *, may_return: bool) -> None:
        """Remember an engine that is gone now, why, and whether it is usable again when its heart is heard."""
        engine.cause, engine.may_return = cause, may_return
        self.forget(engine.ident)
        self._by_ident[engine.ident] = engine
        self._by_id[engine.id] = engine
        if len(self._by_ident) > self._limit:
            self.forget(next(iter(self._by_ident)))

    def forget(self, ident: bytes) -> None:
        """Forget an engine, since an engine with this identity registers, or is usable again."""
        engine = self._by_ident.pop(ident, None)
        if engine is not None and self._by_id.get(engine.id) is engine:
            del self._by_id[engine.id]

    def give_id_away(self, engine_id: int) -> None:
        """Note that another engine has this id now: the engine that had it cannot come back."""
        engine = self._by_id.pop(engine_id, None)
        if engine is not None:
            engine.may_return = False

    def of(self, ident: bytes) -> EngineConnector | None:
        """Return the gone engine with this identity, if it is remembered."""
        return self._by_ident.get(ident)

    def that_may_return(self, ident: bytes) -> EngineConnector | None:
        """Return the gone engine with this identity, if it is to be usable again when its heart is heard."""
        engine = self._by_ident.get(ident)
        return engine if engine is not None and engine.may_return else None

    def no_such_engine(self, ident: bytes) -> EngineError:
        """Return the error for a request to an engine that is not registered; with its id and the cause, if known."""
        engine = self._by_ident.get(ident)
        if engine is None or not engine.cause:
            return EngineError(f"Engine {ident.decode('utf-8', 'replace')} is not registered (any more)")
        return EngineError(f"Engine {engine.id} is not registered any more: {engine.cause} (uuid {engine.uuid})")
