"""What engines use: from the reports of our engines, and from the system for engines that this hub has started."""

from __future__ import annotations

import os
from collections.abc import Container
from typing import Any

import msgspec

from ..engine.usage import HostUsage, ProcessUsage
from ..hub.connector import EngineConnector
from ..runtime.processes import is_descendant, is_own_address

__all__ = ["UsageBook"]

SHORTEST = 0.5
"""The least number of seconds between two looks at a process or at this machine, however many pages ask."""


class UsageBook:
    """What each engine uses.

    A stock engine reports nothing. If this hub has started its process, the system tells; the process id of any other
    engine may be that of another process, on another machine.
    """

    def __init__(self) -> None:
        self._own_addresses: dict[str, bool] = {}
        self._processes: dict[str, ProcessUsage | None] = {}
        self._seen: dict[str, tuple[float, dict[str, Any] | None]] = {}
        self._machine = HostUsage()
        self._machine_seen: tuple[float, dict[str, Any]] = (0.0, {})

    def of(self, engine: EngineConnector, now: float) -> dict[str, Any] | None:
        """Return what an engine uses, with the keys of `trio_hub.hub.usage.EngineUsage`; None if it is not known."""
        if engine.usage is not None:
            return msgspec.structs.asdict(engine.usage)
        if engine.uuid not in self._processes:
            self._processes[engine.uuid] = ProcessUsage(engine.pid) if self._is_ours(engine) else None
        process = self._processes[engine.uuid]
        if process is None:
            return None
        at, usage = self._seen.get(engine.uuid, (0.0, None))
        if now - at >= SHORTEST:
            usage = process.look(now)
            self._seen[engine.uuid] = now, usage
        return None if usage is None else usage | self._of_machine(now)

    def keep(self, uuids: Container[str]) -> None:
        """Forget all engines but these."""
        for uuid in [uuid for uuid in self._processes if uuid not in uuids]:
            del self._processes[uuid]
            self._seen.pop(uuid, None)

    def _is_ours(self, engine: EngineConnector) -> bool:
        """Return whether a process that this hub has started, or a child of it, is the engine."""
        host, pid = engine.host, engine.pid
        if host is None or pid is None:
            return False
        if host not in self._own_addresses:
            self._own_addresses[host] = is_own_address(host)
        return self._own_addresses[host] and is_descendant(pid, of=os.getpid())

    def _of_machine(self, now: float) -> dict[str, Any]:
        at, usage = self._machine_seen
        if now - at >= SHORTEST:
            usage = self._machine.look()
            self._machine_seen = now, usage
        return usage
