"""Kills engines whose requests do not end, and knows which engines are being killed.

A kill cannot be taken back. So an engine that is being killed gets no new work, even if the request has ended in the
meantime. All its tasks run elsewhere, and these attempts do not count: the engine has not died because of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..logs import get_logger
from .connector import EngineConnector, Scope
from .control import ControlChannel
from .engines import Engines
from .ports import Host
from .signals import Signals

__all__ = ["DIES_WITHIN", "Kills"]

log = get_logger("trio_hub.hub")

DIES_WITHIN = 10.0
"""Seconds after which an engine that was killed, and is still registered, counts as lost."""


class _Kill:
    __slots__ = ("has_failed", "timer")

    def __init__(self) -> None:
        self.timer: Scope | None = None
        self.has_failed = False
        """Whether the engine's nanny has answered that it cannot kill the engine, or an earlier hub was killing it."""


class Kills:
    """Kills engines.

    Args:
        host: access to timers and processes.
        control, signals, engines: the parts of the hub below.
        is_needed: whether a request still waits for the end of this engine.
    """

    def __init__(
        self,
        host: Host,
        *,
        control: ControlChannel,
        signals: Signals,
        engines: Engines,
        is_needed: Callable[[EngineConnector], bool],
    ) -> None:
        self._host = host
        self._control = control
        self._signals = signals
        self._engines = engines
        self._is_needed = is_needed
        self._under_way: dict[bytes, _Kill] = {}
        self.count = 0
        """The number of engines that were killed since a request did not end in time."""

    def kill(self, engine: EngineConnector, msg_id: str, seconds: float) -> None:
        """Kill an engine, unless it is being killed, since a request did not end within so many seconds."""
        if (found := self._under_way.get(engine.ident)) is not None and found.timer is not None:
            return
        self.count += 1
        log.warning(
            "a request has not ended after it was interrupted: its engine is killed",
            task=msg_id,
            engine=engine.id,
            uuid=engine.uuid,
            seconds=seconds,
        )
        kill = self._under_way[engine.ident] = _Kill()
        self._host.state_changed()
        self._signals.condemn(engine)
        kill.timer = self._host.call_later(DIES_WITHIN, partial(self._does_not_die, engine, kill, msg_id))
        if not self._host.kill_engine(engine):
            self._control.ask(engine, "signal_request", {"sig": "SIGKILL"}, partial(self._answered, engine, kill))

    def _answered(self, engine: EngineConnector, kill: _Kill, content: dict[str, Any]) -> None:
        if content.get("status") == "error" and self._under_way.get(engine.ident) is kill:
            kill.has_failed = True
            self.has_answered(engine.ident)

    def has_answered(self, ident: bytes) -> None:
        """Give an engine work again that could not be killed, if no request waits for its end any more."""
        kill = self._under_way.get(ident)
        engine = self._engines.by_ident.get(ident)
        if kill is not None and kill.has_failed and engine is not None and not self._is_needed(engine):
            self._forget(ident)
            self._signals.pardon(engine)

    def _does_not_die(self, engine: EngineConnector, kill: _Kill, msg_id: str) -> None:
        """Lose an engine that does not die. It is usable again when it has answered everything before."""
        if self._under_way.get(engine.ident) is kill:
            cause = f"it did not end {msg_id}, which was interrupted, and could not be killed"
            self._engines.lose_engine(engine, "unreachable", cause)

    def is_killing(self, ident: bytes) -> bool:
        """Return whether the engine with this identity is being killed."""
        return ident in self._under_way

    @property
    def saved(self) -> list[str]:
        """The uuids of the engines that are being killed, for `presume`."""
        return sorted(ident.decode("utf-8", "replace") for ident in self._under_way)

    def presume(self, engine: EngineConnector) -> None:
        """Note that an earlier hub was killing this engine. If the engine comes back all the same, it gets work."""
        kill = self._under_way[engine.ident] = _Kill()
        kill.has_failed = True

    def engine_lost(self, engine: EngineConnector) -> bool:
        """Return whether a lost engine was being killed, and forget that."""
        return self._forget(engine.ident)

    def _forget(self, ident: bytes) -> bool:
        kill = self._under_way.pop(ident, None)
        if kill is not None and kill.timer is not None:
            kill.timer.cancel()
        return kill is not None
