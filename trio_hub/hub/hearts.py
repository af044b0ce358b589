"""Heartbeats: the first one makes an engine usable, and an engine is lost after too many misses."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from ..logs import get_logger
from .connector import EngineConnector, EngineState
from .engines import Engines
from .heartmonitor import HeartMonitor
from .notices import Notices

__all__ = ["Hearts"]

log = get_logger("trio_hub.hub")

SILENT = frozenset({"", "heart", "unreachable"})
"""The reasons for the loss of an engine whose process may still run. See `trio_hub.hub.engines.LOSSES`."""


class Hearts:
    """Passes on the engines' heartbeats, and has the registry register, restore or lose engines accordingly.

    Args:
        heartmonitor: counts the heartbeats.
        engines: the registry of engines.
        notices: counts and logs heartbeats that belong to no engine.
        now: the current time, aware and in UTC.
    """

    def __init__(
        self, heartmonitor: HeartMonitor, engines: Engines, notices: Notices, now: Callable[[], datetime]
    ) -> None:
        self.heartmonitor = heartmonitor
        self._engines = engines
        self._notices = notices
        self._now = now
        self.hearts_weighed = now()
        """The time of the last call of `weigh_hearts`."""

    @property
    def awaits_hearts(self) -> bool:
        """Whether there are engines, new or expected, that can be used as soon as their hearts are heard."""
        engines = self._engines
        return bool(engines.incoming_registrations) or any(map(_is_expected, engines.alive.values()))

    def handle_pong(self, frames: list[bytes]) -> None:
        """Handle a pong, ``[identity, ping]``. Count and ignore any other message."""
        if len(frames) != 2 or not self.heartmonitor.is_ours(frames[1]):
            self._notices.ignore(
                "bad_heartbeat", "a heartbeat that answers no ping of this hub", uuid=b"".join(frames[:1])
            )
            return
        if self.heartmonitor.asked:
            self.heartmonitor.answered(*frames)
        if not self.heartmonitor.beat(frames[0]):
            self.handle_new_heart(frames[0])

    def handle_new_heart(self, heart: bytes) -> None:
        """Complete the registration of a new heart's engine, or the return of an engine that is expected or gone."""
        if heart in self._engines.incoming_registrations:
            self._engines.finish_registration(heart)
        elif engine := self._engines.by_ident.get(heart) or self._engines.gone.that_may_return(heart):
            self._engines.engine_heard(engine)
        else:
            gone = self._engines.gone.of(heart)
            self._notices.ignore(
                "unknown_heart",
                "a heartbeat of an engine that is not registered",
                # The last heartbeats of an engine that ends may come after its unregistration.
                ordinary=gone is not None and gone.loss not in SILENT,
                uuid=heart,
            )

    def weigh_hearts(self) -> None:
        """End a heartbeat period, after all pongs have been read: lose the engines that have missed too many pings."""
        self.hearts_weighed = self._now()
        for heart in self.heartmonitor.weigh():
            self.handle_heart_failure(heart)

    def handle_heart_failure(self, heart: bytes) -> None:
        """Lose the engine whose heart has stopped."""
        engine = self._engines.by_ident.get(heart)
        if engine is not None:
            log.warning(
                "engine has no heartbeat", engine=engine.id, uuid=engine.uuid, misses=self.heartmonitor.misses(heart)
            )
            seconds = self.heartmonitor.misses(heart) * self._engines.hb_period / 1000
            self._engines.lose_engine(engine, "heart", f"its heart was silent for {seconds:.3g} s")

    def purge_unheard(self) -> None:
        """Lose the expected engines, since their hearts have not been heard in time."""
        for engine in list(filter(_is_expected, self._engines.alive.values())):
            log.warning("engine was restored, and its heart is not heard", engine=engine.id, uuid=engine.uuid)
            self._engines.lose_engine(engine, "heart", "its heart was not heard after the restart of the hub")


def _is_expected(engine: EngineConnector) -> bool:
    return engine.state is EngineState.EXPECTED
