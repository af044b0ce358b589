"""Builds the parts that control running work: cancels, limits and drains."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from ..records import Store
from ..wire.messages import Session
from .assignments import Assignments
from .attention import Attention
from .broadcasts import Broadcasts
from .cancelling import Cancelling
from .control import ControlChannel
from .direct import DirectQueue
from .draining import Draining
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
        signals = Signals(
            host, session, attention=attention, routes=routes, control=control, scheduler=assignments.scheduler
        )
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
        self.orders = Orders(session, engines=engines, cancelling=self.cancelling, draining=self.draining)
        attention.connect(self.interrupts, (self.interrupts.has_answered, self.draining.has_answered))
        assignments.limits.connect(self.cancelling.run_too_long)
