"""Interrupts: ends requests that engines run, for a cancel, for a limit on the run time, or for a drain.

An interrupt must hit no other request. An engine of this project interrupts only the request that the hub names. A
stock engine gets a signal from its nanny, and the signal hits what runs when it lands. So:

- the hub sends the signal only while the request is the first that the engine has not answered. A request behind other
  requests is aborted instead, which a stock engine does when the request's turn comes, and interrupted if that is late;
- from the signal until it has landed, the engine is held: it gets nothing new. It has landed when the nanny has
  answered, or when a request has ended with a KeyboardInterrupt;
- a stock engine may handle the signal late. If a task that nobody meant ends with a KeyboardInterrupt, before the
  engine has carried out a whole request that was sent after the landing, the task is run again.

A request that has not ended when its grace is over is ended with its engine.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import Enum
from functools import partial
from typing import Any

from ..errors import EngineError, HubError, WireError
from ..logs import get_logger
from ..wire.messages import Message, Session
from .attention import Attention
from .broadcasts import Broadcasts
from .connector import EngineConnector, EngineState, Scope
from .control import ControlChannel
from .engines import Engines
from .notices import Notices
from .ports import Host, Queue
from .routes import Routes
from .tasks import TaskQueue

__all__ = ["DEFAULT_GRACE", "Interrupt", "InterruptState", "Interrupts", "Purpose"]

log = get_logger("trio_hub.hub")

DEFAULT_GRACE = 10.0
"""Seconds that a request has to end after it was interrupted, before its engine is killed."""
LANDS_WITHIN = 10.0
"""Seconds after which an engine is held no longer, if nothing shows that the signal has landed."""
LOOK_AGAIN = 1.0
"""Seconds after which the hub looks again whether a request may be interrupted now."""
DIES_WITHIN = 10.0
"""Seconds after which an engine that was killed, and is still registered, counts as lost."""
_KEYBOARD_INTERRUPT = "KeyboardInterrupt"


class Purpose(Enum):
    """Why a request is interrupted."""

    END = "end"
    """The request is answered with an error: it was cancelled, or has run for too long."""
    TAKE_AWAY = "take away"
    """The task is run again, on another engine."""


class InterruptState(Enum):
    """The state of one interrupt. Each begins as `BEHIND`. Whenever the request ends, or its engine is lost: `OVER`."""

    BEHIND = "behind"
    """The request may wait behind others at its engine, or the engine is not back yet. Next: `UNDER_WAY`."""
    UNDER_WAY = "under way"
    """The interrupt was sent. When the engine, or its nanny, has answered: `LANDED`, or `BEHIND` if the request does
    not run. When the grace is over: `KILLING`."""
    LANDED = "landed"
    """The engine has got the interrupt. When the grace is over: `KILLING`."""
    KILLING = "killing"
    """The engine is being killed, since the request has not ended in time."""
    OVER = "over"
    """The request has been answered, or was given back to the scheduler. Nothing follows."""


class Interrupt:
    """One request that is to end on its engine.

    - ``queue``: answers the request; ``error_of`` returns the error, given a sentence that says how the request ended;
    - ``grace``: seconds, see `DEFAULT_GRACE`;
    - ``began``: when the interrupt was asked for;
    - ``aborted``: whether the engine was asked not to begin the request.
    """

    __slots__ = (*("aborted", "began", "engine", "error_of", "grace", "msg_id", "purpose", "queue", "state", "timer"),)

    def __init__(
        self,
        queue: Queue,
        engine: EngineConnector,
        msg_id: str,
        purpose: Purpose,
        grace: float,
        error_of: Callable[[str], HubError],
        began: datetime,
    ) -> None:
        self.queue = queue
        self.engine = engine
        self.msg_id = msg_id
        self.purpose = purpose
        self.grace = grace
        self.error_of = error_of
        self.began = began
        self.state = InterruptState.BEHIND
        self.aborted = False
        self.timer: Scope | None = None

    def __repr__(self) -> str:
        return f"<Interrupt {self.msg_id} on {self.engine.uuid} {self.state.value}>"

    def wait(self, timer: Scope | None) -> None:
        """Have this timer instead of the last one."""
        if self.timer is not None:
            self.timer.cancel()
        self.timer = timer


class _Signals:
    """The signals to one engine.

    - ``under_way``: the number of signals of which nothing shows that they have landed;
    - ``unspent``: the number of signals that may still hit a request; 0 for engines that aim;
    - ``exposed``: the requests that the engine had when the last signal landed. When the engine has carried out another
      request, it has handled all signals.
    """

    __slots__ = ("exposed", "timer", "under_way", "unspent")

    def __init__(self) -> None:
        self.under_way = 0
        self.unspent = 0
        self.exposed: frozenset[str] = frozenset()
        self.timer: Scope | None = None


class Interrupts:
    """Interrupts requests, and ends engines whose requests do not end. It is a `Watching` and an `EngineWatcher`.

    Args:
        host, session: access to timers and messages.
        now: the current time, aware and in UTC.
        notices, attention, routes, control, engines, tasks, broadcasts: the parts of the hub below.
    """

    def __init__(
        self,
        host: Host,
        session: Session,
        now: Callable[[], datetime],
        *,
        notices: Notices,
        attention: Attention,
        routes: Routes,
        control: ControlChannel,
        engines: Engines,
        tasks: TaskQueue,
        broadcasts: Broadcasts,
    ) -> None:
        self._host = host
        self._session = session
        self._now = now
        self._notices = notices
        self._attention = attention
        self._routes = routes
        self._control = control
        self._engines = engines
        self._tasks = tasks
        self._scheduler = tasks.scheduler
        self._broadcasts = broadcasts
        self.open: dict[str, Interrupt] = {}
        """The interrupts that are not over, by the msg_ids of their requests."""
        self._signals: dict[bytes, _Signals] = {}
        self.hits = 0
        """The number of requests that were hit by an interrupt that meant another request."""
        self.kills = 0
        """The number of engines that were killed since a request did not end in time."""

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
        signals = self._signals.get(engine.ident)
        if signals is None:
            signals = self._signals[engine.ident] = _Signals()
            self._attention.begin(engine.ident)
        signals.under_way += 1
        if signals.timer is not None:
            signals.timer.cancel()
        signals.timer = self._host.call_later(LANDS_WITHIN, partial(self._all_landed, engine, signals))
        if not engine.held:
            engine.held = True
            if engine.worker is not None:
                self._scheduler.hold(engine.worker)
        answered = partial(self._landed, interrupt, signals)
        if engine.aims_interrupts:
            withdraw = interrupt.purpose is not Purpose.TAKE_AWAY
            content = {"msg_id": interrupt.msg_id, "withdraw": withdraw}
            self._control.ask(engine, "interrupt_request", content, answered)
        else:
            signals.unspent += 1
            self._control.ask(engine, "signal_request", {"sig": "SIGINT"}, answered)

    # The signals of an engine

    def _landed(self, interrupt: Interrupt, signals: _Signals, content: dict[str, Any]) -> None:
        """Handle the answer of an engine, or of its nanny, to an interrupt."""
        engine = interrupt.engine
        failed = content.get("status") == "error"
        if self._signals.get(engine.ident) is signals:
            if failed:
                signals.unspent = max(0, signals.unspent - 1)
            signals.under_way = max(0, signals.under_way - 1)
            if not signals.under_way:
                self._all_landed(engine, signals)
        if interrupt.state is not InterruptState.UNDER_WAY:
            return
        if failed:
            log.warning(
                "an engine cannot be interrupted", engine=engine.id, uuid=engine.uuid, error=content.get("evalue")
            )
        elif content.get("did") == "nothing" and engine.has(interrupt.msg_id):  # it has not begun
            interrupt.state, interrupt.aborted = InterruptState.BEHIND, True
            self._control.ask(engine, "abort_request", {"msg_ids": [interrupt.msg_id]})
            interrupt.wait(self._host.call_later(LOOK_AGAIN, partial(self._proceed, interrupt)))
        else:
            interrupt.state = InterruptState.LANDED
            # A signal that lands while the engine writes its answer can lose the answer: the question tells.
            cause = "the interrupt came"
            self._routes.probe(engine, self._channel_of(interrupt), [interrupt.msg_id], cause, is_last=True)

    def _all_landed(self, engine: EngineConnector, signals: _Signals) -> None:
        """Hold an engine no longer, and look at its next answers if one of the signals may be handled late."""
        if self._signals.get(engine.ident) is not signals:
            return
        signals.under_way = 0
        signals.exposed = frozenset(engine.pending)
        if signals.timer is not None:
            signals.timer.cancel()
            signals.timer = None
        if not signals.unspent:
            self._forget_signals(engine)
        self._release(engine)

    def _release(self, engine: EngineConnector) -> None:
        if engine.held:
            self._routes.release(engine)
            if engine.worker is not None:
                self._scheduler.release(engine.worker)

    def _forget_signals(self, engine: EngineConnector) -> None:
        signals = self._signals.pop(engine.ident, None)
        if signals is not None:
            if signals.timer is not None:
                signals.timer.cancel()
            self._attention.end(engine.ident)

    def _was_hit(self, engine: EngineConnector, msg: Message, status: str) -> bool:
        """Return whether a signal has hit the request that the engine answers, and note what the answer shows."""
        signals = self._signals.get(engine.ident)
        if signals is None or not signals.unspent:
            return False
        if status == "error" and self._ename(msg) == _KEYBOARD_INTERRUPT:
            signals.unspent -= 1
            if not signals.unspent:
                self._all_landed(engine, signals)
            return True
        if not signals.under_way and msg.parent.msg_id not in signals.exposed:
            self._forget_signals(engine)
        return False

    def _ename(self, msg: Message) -> Any:
        try:
            return self._session.content(msg).get("ename")
        except WireError:
            return None

    # Ending

    def take(self, queue: Queue, ident: bytes, msg: Message, status: str) -> bool:
        """Handle the answer to an interrupted request, or to a request that was hit by mistake, see `Watching`."""
        msg_id = msg.parent.msg_id
        interrupt = self.open.get(msg_id)
        engine = interrupt.engine if interrupt is not None else self._engines.by_ident.get(ident)
        if engine is None or engine.ident != ident:
            return False
        hit = self._was_hit(engine, msg, status)
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
        self._attention.has_answered(interrupt.engine.ident)
        return True

    def _finish(self, interrupt: Interrupt, took: str) -> None:
        self._over(interrupt)
        engine, msg_id = interrupt.engine, interrupt.msg_id
        if interrupt.purpose is Purpose.END:
            interrupt.queue.give_up(engine.ident, msg_id, interrupt.error_of(took))
        elif (task := self._scheduler.running_on(engine.ident, msg_id)) is not None:
            self._scheduler.take_away(task)

    def _over(self, interrupt: Interrupt) -> None:
        interrupt.state = InterruptState.OVER
        interrupt.wait(None)
        del self.open[interrupt.msg_id]
        self._attention.end(interrupt.engine.ident)

    def _run_again(self, queue: Queue, engine: EngineConnector, msg_id: str) -> None:
        """Run a task again that was hit by mistake. A direct request is answered with an error that says so."""
        self.hits += 1
        log.warning("an interrupt has hit another request", task=msg_id, engine=engine.id, uuid=engine.uuid)
        task = self._scheduler.running_on(engine.ident, msg_id) if queue is self._tasks else None
        if task is not None:
            self._scheduler.take_away(task)
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

    # Killing

    def _grace_over(self, interrupt: Interrupt) -> None:
        """Kill the engine of a request that has not ended in time."""
        engine = interrupt.engine
        if interrupt.state is InterruptState.OVER:
            return
        if not engine.has(interrupt.msg_id):
            self._over(interrupt)
            return
        is_dying = any(one.state is InterruptState.KILLING and one.engine is engine for one in self.open.values())
        interrupt.state = InterruptState.KILLING
        interrupt.wait(self._host.call_later(DIES_WITHIN, partial(self._does_not_die, interrupt)))
        if is_dying:
            return
        self.kills += 1
        log.warning(
            "a request has not ended after it was interrupted: its engine is killed",
            task=interrupt.msg_id,
            engine=engine.id,
            uuid=engine.uuid,
            seconds=interrupt.grace,
        )
        if not self._host.kill_engine(engine):
            self._control.ask(engine, "signal_request", {"sig": "SIGKILL"})

    def _does_not_die(self, interrupt: Interrupt) -> None:
        """Lose an engine that neither ends a request nor dies. It is usable again when it has ended the request."""
        if interrupt.state is InterruptState.KILLING:
            cause = f"it did not end {interrupt.msg_id}, which was interrupted, and could not be killed"
            self._engines.lose_engine(interrupt.engine, "unreachable", cause)

    def engine_lost(self, engine: EngineConnector) -> None:
        """End the interrupted requests of a lost engine. If the hub has killed it, its other tasks are run again."""
        self._forget_signals(engine)
        self._release(engine)
        interrupts = [one for one in self.open.values() if one.engine is engine]
        killed = any(one.state is InterruptState.KILLING for one in interrupts)
        for interrupt in interrupts:
            took = f"its engine has gone: {engine.cause}" if engine.cause else "its engine has gone"
            if killed:
                took = f"it had not ended {interrupt.grace:g} s after it was interrupted, and its engine was killed"
            self._finish(interrupt, took)
        if killed and engine.worker is not None:
            for task in list(engine.worker.running.values()):
                self._scheduler.take_away(task)

    def engine_settled(self, engine: EngineConnector) -> None:
        """Do nothing: all interrupts were over when the engine was lost."""

    def owes_answers(self, engine: EngineConnector) -> bool:
        """Return False: all interrupts were over when the engine was lost."""
        return False

    def _channel_of(self, interrupt: Interrupt) -> str:
        if interrupt.queue is self._tasks:
            return "task_out"
        return self._broadcasts.channel_of(interrupt.engine) if interrupt.queue is self._broadcasts else "mux_out"
