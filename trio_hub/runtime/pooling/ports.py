"""The part of the hub's core that the pools use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ...pools.demand import Demand
from ...pools.settings import PoolSettings
from ...pools.supply import Engine

__all__ = ["Core"]


class Core(Protocol):
    """The part of the hub's core that the pools use, see `trio_hub.hub.pooling.Pooling`."""

    measure: bool

    def use(self, pools: Sequence[PoolSettings]) -> None: ...

    def mark(self) -> Any: ...

    def has_changed(self, mark: Any) -> bool: ...

    def demand(self) -> Demand: ...

    def engines(self) -> Sequence[Engine]: ...

    def retire(self, ident: bytes, by: str) -> bool: ...

    def take_back(self, ident: bytes, by: str) -> bool: ...

    def shut_down(self, block: str) -> int: ...
