"""Interrupts: ends requests that engines run, for a cancel, for a limit on the run time, or for a drain.

An interrupt must hit no other request. An engine of this project interrupts only the request that the hub names. A
stock engine gets a signal from its nanny, and the signal hits what runs when it lands. So:

- the hub sends the signal only while the request is the first that the engine has not answered. A request behind other
  requests is aborted instead, which a stock engine does when the request's turn comes, and interrupted if that is late;
- until the signal has landed, the engine is held, see `trio_hub.hub.signals`;
- a task that was hit all the same, and that nobody meant, is run again, which does not count as an attempt;
- a signal that lands just before or after a request ends a stock engine, since nothing catches the signal there. The
  engine's other tasks are then run again, which does not count either, and a local engine is started again.

A request that has not ended when its grace is over is ended with its engine.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from ..errors import EngineError, HubError
from ..logs import get_logger
from ..wire.messages import Message
from .attention import Attention
from .behind import Behind
from .broadcasts import Broadcasts
from .connector import EngineConnector, EngineState
from .control import ControlChannel
from .engines import Engines
from .hearts import SILENT
from .interrupt import Interrupt, InterruptState, Purpose
from .kills import Kills
from .ports import Host, Queue
from .routes import Routes
from .signals import Signals
from .tasks import TaskQueue

__all__ = ["DEFAULT_GRACE", "Interrupts"]

log = get_logger("trio_hub.hub")

DEFAULT_GRACE = 10.0
"""Seconds that a request has to end after it was interrupted, before its engine is killed."""
LOOK_AGAIN = 1.0
"""Seconds after which the hub looks again whether a request may be interrupted now."""


class Interrupts:
    """Interrupts requests, and ends engines whose requests do not end. It is a `Watching` and an `EngineWatcher`.

    Args:
        host: access to timers and processes.
        now: the current time, aware and in UTC.
        attention, routes, control, signals, engines, tasks, broadcasts: the parts of the hub below.
    """

    def __init__(
        self,
        host: Host,
        now: Callable[[], datetime],
        *,
        attention: Attention,
        routes: Routes,
        control: ControlChannel,
        signals: Signals,
        engines: Engines,
        tasks: TaskQueue,
        broadcasts: Broadcasts,
    ) -> None:
        self._host = host
        self._now = now
        self._attention = attention
        self._routes = routes
        self._control = control
        self._engines = engines
        self._tasks = tasks
        self._signals = signals
        self._broadcasts = broadcasts
        self.open: dict[str, Interrupt] = {}
        """The interrupts that are not over, by the msg_ids of their requests."""
        self._behind = Behind(attention)
        self.hits = 0
        """The number of requests that were hit by an interrupt that meant another request."""
        self.taken_away = 0
        """The number of tasks that were taken away from drained engines, to be run elsewhere."""
        self.kills = Kills(host, control=control, signals=signals, engines=engines, is_needed=self._needs_kill)
        """Kills the engines whose requests do not end in time."""

    # Beginning

    def begin(
        self,
        queue: Queue,
        engine: EngineConnector,
        msg_id: str,
        purpose: Purpose,
        grace: float,
        error_of: Callable[[str], HubError],
    ) -> None:
        """Interrupt a request that this engine has. If it is being interrupted already, only `END` changes that."""
        found = self.open.get(msg_id)
        if found is not None and found.engine is engine:
            if found.purpose is Purpose.TAKE_AWAY:
                found.purpose, found.error_of = purpose, error_of
            return
        if found is not None:  # the request was taken over from another engine meanwhile
            self._over(found)
        interrupt = self.open[msg_id] = Interrupt(queue, engine, msg_id, purpose, grace, error_of, self._now())
        self._attention.begin(engine.ident)
        self._proceed(interrupt)

    def _proceed(self, interrupt: Interrupt) -> None:
        """Send an interrupt if it can only hit its request; else have the engine abort the request, and look later."""
        if interrupt.state is not InterruptState.BEHIND:
            return
        engine, msg_id = interrupt.engine, interrupt.msg_id
        if not engine.has(msg_id):
            self._over(interrupt)
            return
        if engine.state is EngineState.ALIVE:
            if engine.aims_interrupts or engine.first_request == msg_id:
                self._send(interrupt)
                return
            if not interrupt.aborted:
                interrupt.aborted = True
                self._control.ask(engine, "abort_request", {"msg_ids": [msg_id]})
        interrupt.wait(self._host.call_later(LOOK_AGAIN, partial(self._proceed, interrupt)))

    def _send(self, interrupt: Interrupt) -> None:
        engine = interrupt.engine
        interrupt.state = InterruptState.UNDER_WAY
        interrupt.wait(self._host.call_later(interrupt.grace, partial(self._grace_over, interrupt)))
        withdraw = interrupt.purpose is not Purpose.TAKE_AWAY
        self._signals.interrupt(engine, interrupt.msg_id, partial(self._landed, interrupt), withdraw=withdraw)

    def _landed(self, interrupt: Interrupt, content: dict[str, Any]) -> None:
        """Handle the answer of an engine, or of its nanny, to an interrupt."""
        engine = interrupt.engine
        if interrupt.state is not InterruptState.UNDER_WAY:
            return
        if content.get("status") == "error":
            error = content.get("evalue")
            log.warning("an engine cannot be interrupted", engine=engine.id, uuid=engine.uuid, error=error)
        elif content.get("did") == "nothing":  # it has not begun, or its answer is on the way
            interrupt.state, interrupt.aborted = InterruptState.BEHIND, False
            interrupt.wait(self._host.call_later(LOOK_AGAIN, partial(self._proceed, interrupt)))
        else:
            interrupt.state = InterruptState.LANDED
            # A signal that lands while the engine writes its answer can lose the answer: the question tells.
            cause = "the interrupt came"
            self._routes.probe(engine, self._channel_of(interrupt), [interrupt.msg_id], cause, is_last=True)

    # Ending

    def take(self, queue: Queue, ident: bytes, msg: Message, status: str) -> bool:
        """Handle the answer to an interrupted request, or to a request that was hit by mistake, see `Watching`."""
        msg_id = msg.parent.msg_id
        interrupt = self.open.get(msg_id)
        engine = interrupt.engine if interrupt is not None else self._engines.by_ident.get(ident)
        if engine is None or engine.ident != ident:
            return False
        hit = self._signals.was_hit(engine, msg, status)
        if self._behind.take(engine, msg_id) and status == "aborted":
            hit = True
        if interrupt is not None:
            return self._ended(interrupt, status)
        if hit:
            self._run_again(queue, engine, msg_id)
        return hit

    def _ended(self, interrupt: Interrupt, status: str) -> bool:
        """Handle the end of an interrupted request. Return False if its answer is to be passed on."""
        began = interrupt.state is not InterruptState.BEHIND
        if interrupt.purpose is Purpose.TAKE_AWAY and (status == "ok" or (status == "error" and not began)):
            self._over(interrupt)
            return False
        if status == "aborted":
            took = "it had not begun"
        elif status == "ok":
            took = "it ended by itself before it could be interrupted, and its result was dropped"
        else:
            seconds = (self._now() - interrupt.began).total_seconds()
            took = f"it was interrupted, and ended after {seconds:.1f} s" if began else "it failed by itself"
        self._finish(interrupt, took)
        if began and status == "error":
            self._behind.note(interrupt.engine)
        self._attention.has_answered(interrupt.engine.ident)
        return True

    def _finish(self, interrupt: Interrupt, took: str) -> None:
        self._over(interrupt)
        engine, msg_id = interrupt.engine, interrupt.msg_id
        if interrupt.purpose is Purpose.END:
            interrupt.queue.give_up(engine.ident, msg_id, interrupt.error_of(took))
        elif (task := self._tasks.scheduler.running_on(engine.ident, msg_id)) is not None:
            self.taken_away += 1
            self._tasks.scheduler.take_away(task)

    def _over(self, interrupt: Interrupt) -> None:
        interrupt.state = InterruptState.OVER
        interrupt.wait(None)
        del self.open[interrupt.msg_id]
        self._attention.end(interrupt.engine.ident)

    def _run_again(self, queue: Queue, engine: EngineConnector, msg_id: str) -> None:
        """Run a task again that was hit by mistake. A direct request is answered with an error that says so."""
        self.hits += 1
        log.warning("an interrupt has hit another request", task=msg_id, engine=engine.id, uuid=engine.uuid)
        task = self._tasks.scheduler.running_on(engine.ident, msg_id) if queue is self._tasks else None
        if task is not None:
            self._tasks.scheduler.take_away(task)
        else:
            error = (
                f"an interrupt of another request has hit {msg_id} on engine {engine.id}: it may have been carried out"
            )
            queue.give_up(engine.ident, msg_id, EngineError(f"{error} in part"))
        self._attention.has_answered(engine.ident)

    def lost(self, engine: EngineConnector, msg_id: str) -> bool:
        """Handle an interrupted request whose answer was lost, see `Watching`."""
        interrupt = self.open.get(msg_id)
        if interrupt is None or interrupt.engine is not engine:
            return False
        self._finish(interrupt, "it was interrupted, and its answer was lost")
        return True

    def has_answered(self, ident: bytes) -> None:
        """Interrupt the requests of an engine that may be the first now."""
        for interrupt in [one for one in self.open.values() if one.engine.ident == ident]:
            self._proceed(interrupt)
        self.kills.has_answered(ident)

    # Killing

    def _grace_over(self, interrupt: Interrupt) -> None:
        """Kill the engine of a request that has not ended in time."""
        engine = interrupt.engine
        if interrupt.state is InterruptState.OVER:
            return
        if not engine.has(interrupt.msg_id):
            self._over(interrupt)
            return
        interrupt.state = InterruptState.KILLING
        interrupt.wait(None)
        self.kills.kill(engine, interrupt.msg_id, interrupt.grace)

    def _needs_kill(self, engine: EngineConnector) -> bool:
        return any(one.state is InterruptState.KILLING and one.engine is engine for one in self.open.values())

    def engine_lost(self, engine: EngineConnector) -> None:
        """End the interrupted requests of a lost engine.

        If the hub has killed the engine, or if a signal may have ended it, its other tasks are run again, which does
        not count as an attempt.
        """
        hit = self._signals.may_hit(engine) and engine.loss not in SILENT
        self._signals.engine_lost(engine)
        self._behind.forget(engine)
        killed = self.kills.engine_lost(engine)
        for interrupt in [one for one in self.open.values() if one.engine is engine]:
            took = f"its engine has gone: {engine.cause}" if engine.cause else "its engine has gone"
            if interrupt.state is InterruptState.KILLING:
                took = f"it had not ended {interrupt.grace:g} s after it was interrupted, and its engine was killed"
            self._finish(interrupt, took)
        if (killed or hit) and engine.worker is not None:
            for task in list(engine.worker.running.values()):
                self._tasks.scheduler.take_away(task)

    def engine_settled(self, engine: EngineConnector) -> None:
        """Do nothing: all interrupts were over when the engine was lost."""

    def owes_answers(self, engine: EngineConnector) -> bool:
        """Return False: all interrupts were over when the engine was lost."""
        return False

    def _channel_of(self, interrupt: Interrupt) -> str:
        if interrupt.queue is self._tasks:
            return "task_out"
        return self._broadcasts.channel_of(interrupt.engine) if interrupt.queue is self._broadcasts else "mux_out"
