"""Builds the parts that control running work: cancels, limits and drains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from ..records import Store
from ..wire.messages import Session
from .assignments import Assignments
from .attention import Attention
from .broadcasts import Broadcasts
from .cancelling import Cancelling
from .control import ControlChannel
from .direct import DirectQueue
from .draining import Draining
from .engineids import valid_block
from .engines import Engines
from .gathering import Gathering
from .intake import Intake
from .interrupts import Interrupts
from .notices import Notices
from .orders import Orders
from .ports import Host
from .routes import Routes
from .signals import Signals
from .tasks import TaskQueue

__all__ = ["WorkControl"]


class WorkControl:
    """The parts that control running work.

    Args:
        host, session, store: access to the runtime, to messages and records.
        now: the current time, aware and in UTC.
        notices, attention, intake, routes, control, engines, assignments, tasks, direct, broadcasts, gathering: the
            parts of the hub below.
        is_pending: whether a request with a msg_id waits for its answer, in any queue.
    """

    def __init__(
        self,
        host: Host,
        session: Session,
        store: Store,
        now: Callable[[], datetime],
        *,
        notices: Notices,
        attention: Attention,
        intake: Intake,
        routes: Routes,
        control: ControlChannel,
        engines: Engines,
        assignments: Assignments,
        tasks: TaskQueue,
        direct: DirectQueue,
        broadcasts: Broadcasts,
        gathering: Gathering,
        is_pending: Callable[[str], bool],
    ) -> None:
        self._signals = signals = Signals(
            host, session, attention=attention, routes=routes, control=control, scheduler=assignments.scheduler
        )
        self._left: tuple[Mapping[str, int], Sequence[str]] = {}, ()
        """The signals and kills that the earlier hub has left under way, by the uuids of their engines."""
        self.interrupts = Interrupts(
            host,
            now,
            attention=attention,
            routes=routes,
            control=control,
            signals=signals,
            engines=engines,
            tasks=tasks,
            broadcasts=broadcasts,
        )
        self.cancelling = Cancelling(
            host,
            store,
            now,
            notices=notices,
            intake=intake,
            routes=routes,
            engines=engines,
            tasks=tasks,
            direct=direct,
            broadcasts=broadcasts,
            gathering=gathering,
            interrupts=self.interrupts,
            is_pending=is_pending,
        )
        self.draining = Draining(
            host,
            now,
            notices=notices,
            attention=attention,
            control=control,
            engines=engines,
            tasks=tasks,
            interrupts=self.interrupts,
        )
        self._engines = engines
        self.orders = Orders(session, engines=engines, cancelling=self.cancelling, draining=self.draining)
        attention.connect(self.interrupts, (self.interrupts.has_answered, self.draining.has_answered))
        assignments.limits.connect(self.cancelling.run_too_long)

    def saved(self) -> dict[str, Any]:
        """Return what the next hub is to know of the engines, by uuid, as JSON values for `restore`."""
        engines = [*self._engines.alive.values(), *self._engines.gone]
        facts: dict[str, Any] = {
            "drains": self.draining.saved,
            "aims": sorted(engine.uuid for engine in engines if engine.aims_interrupts),
            "signals": self._signals.saved,
            "kills": self.interrupts.kills.saved,
            "leaves": {engine.uuid: engine.leaves_at for engine in engines if engine.leaves_at is not None},
            "blocks": {engine.uuid: engine.block for engine in engines if engine.block},
        }
        return {name: value for name, value in facts.items() if value}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take up what an earlier hub knew of its engines. Call this after the engines were restored."""
        aims, leaves, drains = (saved.get(name) for name in ("aims", "leaves", "drains"))
        signals, kills, blocks = saved.get("signals"), saved.get("kills"), saved.get("blocks")
        self._left = (signals if isinstance(signals, dict) else {}), (kills if isinstance(kills, list) else ())
        for engine in [*self._engines.alive.values(), *self._engines.gone]:
            engine.aims_interrupts = isinstance(aims, list) and engine.uuid in aims
            if isinstance(leaves, dict) and isinstance(leaves_at := leaves.get(engine.uuid), int | float):
                engine.leaves_at = float(leaves_at)
            if isinstance(blocks, dict):
                engine.block = valid_block(blocks.get(engine.uuid)) or engine.block
        if isinstance(drains, dict):
            self.draining.restore(drains)

    def carry_on(self, cancelled: dict[str, str]) -> None:
        """Take up the cancels, signals and kills of an earlier hub, when its requests were taken over.

        Args:
            cancelled: the requests that the earlier hub was cancelling, by msg_id, with who has asked for it.
        """
        self.cancelling.cancel_again(cancelled)
        signals, kills = self._left
        for engine in self._engines.alive.values():
            unspent = signals.get(engine.uuid)
            if isinstance(unspent, int):
                self._signals.presume(engine, unspent)
            if engine.uuid in kills:
                self.interrupts.kills.presume(engine)
        for interrupt in self.interrupts.open.values():  # the earlier hub may have ended before it noted its signal
            self._signals.presume(interrupt.engine, 1)
