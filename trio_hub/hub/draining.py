"""Draining engines: an engine that is drained gets no new tasks, and what it runs ends.

Direct requests and broadcasts are still answered. At the deadline, if there is one, the tasks that still run are
interrupted, and run on other engines; the attempt does not count. An engine is drained until somebody ends the drain,
also after a restart of the hub.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from ..errors import HubError
from ..logs import get_logger
from .askers import named
from .attention import Attention
from .connector import EngineConnector, EngineState, Scope
from .control import ControlChannel
from .engines import Engines
from .events import EngineDraining
from .interrupt import Purpose
from .interrupts import DEFAULT_GRACE, Interrupts
from .notices import Notices
from .ports import Host
from .tasks import TaskQueue

__all__ = ["SHUTDOWN", "Drain", "Draining"]

log = get_logger("trio_hub.hub")

SHUTDOWN = "shutdown"
"""What follows a drain: the engine is told to end when it is idle."""


class Drain:
    """One drain.

    - ``by``: who has asked for it;
    - ``then``: `SHUTDOWN`, or empty;
    - ``deadline``: when the tasks that still run are taken away, by the hub's clock, in seconds since 1970; None if
      they are not;
    - ``retiring``: whether the engine's pool wants to give the engine back;
    - ``asked``: whether somebody other than the pool has asked for the drain.
    """

    __slots__ = ("asked", "by", "deadline", "is_told", "retiring", "then", "timer")

    def __init__(
        self, by: str, then: str, deadline: float | None, *, retiring: bool = False, asked: bool = True
    ) -> None:
        self.by = by
        self.then = then
        self.deadline = deadline
        self.retiring = retiring
        self.asked = asked
        self.is_told = False
        """Whether the engine was told to end."""
        self.timer: Scope | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return ``by``, ``deadline`` and ``then`` as JSON values, for queries."""
        return {"by": self.by, "deadline": self.deadline, "then": self.then}

    def saved(self) -> dict[str, Any]:
        """Return the drain as JSON values, for the next hub."""
        marks = {"retiring": True, "asked": self.asked} if self.retiring else {}
        return self.as_dict() | marks

    def end(self) -> None:
        """Cancel the timer of the deadline."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Draining:
    """Drains engines. It is an `EngineWatcher`.

    Args:
        host: access to timers and observers.
        now: the current time, aware and in UTC.
        notices, attention, control, engines, tasks, interrupts: the parts of the hub below.
    """

    def __init__(
        self,
        host: Host,
        now: Callable[[], datetime],
        *,
        notices: Notices,
        attention: Attention,
        control: ControlChannel,
        engines: Engines,
        tasks: TaskQueue,
        interrupts: Interrupts,
    ) -> None:
        self._host = host
        self._now = now
        self._notices = notices
        self._attention = attention
        self._control = control
        self._engines = engines
        self._tasks = tasks
        self._interrupts = interrupts
        self.drains: dict[bytes, Drain] = {}
        """The drains, by the identities of the engines. A gone engine that may return keeps its drain."""
        self.changes = 0
        """The number of times that a drain has begun or ended, or that an engine has said how long it will be there."""

    def drain(self, engine: EngineConnector, *, by: str, deadline: float | None = None, then: str = "") -> None:
        """Give an engine no new tasks. If it is drained already, the new deadline and `then` replace the old ones.

        Args:
            engine: an engine that is registered.
            by: who asks for it: text for the log, the event and the answers to queries.
            deadline: seconds after which the tasks that still run are taken away; None: never.
            then: `SHUTDOWN`: the engine is told to end when it is idle; empty: it stays.

        Raises:
            ValueError: ``then`` or the deadline cannot be used.
        """
        if then not in ("", SHUTDOWN):
            raise ValueError(f"then must be {SHUTDOWN!r} or empty, not {then[:100]!r}")
        if deadline is not None and not 0 <= deadline < 1e8:
            raise ValueError(f"the deadline must be a number of seconds, not {deadline}")
        until = None if deadline is None else self._now().timestamp() + deadline
        old = self.drains.get(engine.ident)
        self._begin(engine, Drain(named(by), then, until, retiring=old is not None and old.retiring))
        self._host.state_changed()

    def retire(self, engine: EngineConnector, *, by: str) -> None:
        """Give an engine no new tasks, since its pool wants to give the engine back. See `take_back`.

        If somebody has drained the engine already, that drain goes on.
        """
        drain = self.drains.get(engine.ident)
        if drain is None:
            self._begin(engine, Drain(named(by), "", None, retiring=True, asked=False))
        else:
            drain.retiring = True
            self.changes += 1
        self._host.state_changed()

    def take_back(self, engine: EngineConnector, *, by: str) -> bool:
        """End `retire`. The engine gets tasks again, unless somebody has drained the engine as well.

        Return False if the engine was not retiring, or was told to end already.
        """
        drain = self.drains.get(engine.ident)
        if drain is None or not drain.retiring or drain.is_told:
            return False
        if not drain.asked:
            return self.undrain(engine, by=by)
        drain.retiring = False
        self.changes += 1
        self._host.state_changed()
        return True

    def _begin(self, engine: EngineConnector, drain: Drain) -> None:
        self.changes += 1
        old = self.drains.get(engine.ident)
        self.drains[engine.ident] = drain
        if old is not None:
            old.end()
            drain.is_told = old.is_told
        else:
            self._attention.begin(engine.ident)
        log.info("an engine is drained", engine=engine.id, uuid=engine.uuid, by=drain.by, then=drain.then)
        if engine.worker is not None:
            self._tasks.scheduler.drain(engine.worker)
        self._start_timer(engine, drain)
        self._tell(engine, drain, draining=True)
        self._look(engine, drain)

    def _start_timer(self, engine: EngineConnector, drain: Drain) -> None:
        drain.end()
        if drain.deadline is not None:
            left = max(0.0, drain.deadline - self._now().timestamp())
            drain.timer = self._host.call_later(left, partial(self._deadline_over, engine.ident, drain))

    def undrain(self, engine: EngineConnector, *, by: str) -> bool:
        """Give an engine tasks again. Return False if it was not drained, or was told to end already."""
        drain = self.drains.get(engine.ident)
        if drain is None or drain.is_told:
            return False
        self._forget(engine.ident)
        log.info("an engine is drained no longer", engine=engine.id, uuid=engine.uuid, by=by)
        if engine.worker is not None:
            self._tasks.scheduler.undrain(engine.worker)
        self._tell(engine, Drain(named(by), "", None), draining=False)
        self._host.state_changed()
        return True

    def _forget(self, ident: bytes) -> Drain | None:
        drain = self.drains.pop(ident, None)
        if drain is not None:
            self.changes += 1
            drain.end()
            self._attention.end(ident)
        return drain

    def _tell(self, engine: EngineConnector, drain: Drain, *, draining: bool) -> None:
        if self._host.listening:
            self._notices.tell(EngineDraining(engine.id, engine.uuid, draining, drain.by, drain.then))

    # Deadline and end

    def _deadline_over(self, ident: bytes, drain: Drain) -> None:
        """Take away the tasks that an engine still runs."""
        worker = self._tasks.scheduler.workers.get(ident)
        engine = self._engines.by_ident.get(ident)
        if self.drains.get(ident) is not drain or worker is None or engine is None:
            return
        drain.timer = None
        for task in list(worker.running.values()):
            self._interrupts.begin(
                self._tasks, engine, task.msg_id, Purpose.TAKE_AWAY, min(task.rules.grace, DEFAULT_GRACE), HubError
            )
        self._look(engine, drain)

    def has_answered(self, ident: bytes) -> None:
        """Tell a drained engine to end if it is idle now, and if that was asked for."""
        drain = self.drains.get(ident)
        engine = self._engines.by_ident.get(ident)
        if drain is not None and engine is not None:
            self._look(engine, drain)

    def _look(self, engine: EngineConnector, drain: Drain) -> None:
        if drain.then == SHUTDOWN and not drain.is_told and engine.state is EngineState.ALIVE and not engine.pending:
            drain.is_told = True
            log.info("a drained engine is idle, and is told to end", engine=engine.id, uuid=engine.uuid, by=drain.by)
            self._control.shutdown_engine(engine)

    def shut_down(self, engine: EngineConnector) -> bool:
        """Tell an engine to end now, whatever it runs. Return False if it was told before, and has not answered yet."""
        if any(direct.header.msg_type == "shutdown_request" for direct in engine.control.pending.values()):
            return False
        self._control.shutdown_engine(engine)
        return True

    # Engines that come and go

    def engine_joined(self, engine: EngineConnector) -> None:
        """Add an engine to the scheduler; if it is drained, without giving it tasks."""
        self.note_time(engine)
        drain = self.drains.get(engine.ident)
        self._tasks.engine_joined(engine, drained=drain is not None)
        if drain is not None and engine.worker is not None:
            self._tasks.scheduler.drain(engine.worker)
            if engine.state is EngineState.ALIVE:
                self._tasks.scheduler.engine_back(engine.worker)
            self._start_timer(engine, drain)
            self._look(engine, drain)

    def note_time(self, engine: EngineConnector) -> None:
        """Note when an engine will be gone, if it has said how long it will be there."""
        if engine.seconds_left is not None:
            engine.leaves_at = self._now().timestamp() + engine.seconds_left
            engine.seconds_left = None
            self.changes += 1

    def engine_lost(self, engine: EngineConnector) -> None:
        """Forget the drains of engines that do not come back: of this engine, and of engines that have gone before."""
        gone = [ident for ident in self.drains if ident not in self._engines.by_ident]
        for ident in gone:
            if self._engines.gone.that_may_return(ident) is None:
                self._forget(ident)

    def engine_settled(self, engine: EngineConnector) -> None:
        """Do nothing: the drain was forgotten when the engine was lost, unless it may return."""

    def owes_answers(self, engine: EngineConnector) -> bool:
        """Return False: a drain owes nobody an answer."""
        return False

    # Restart

    @property
    def saved(self) -> dict[str, dict[str, Any]]:
        """The drains, by the uuids of their engines, as JSON values for `restore`."""
        return {ident.decode("utf-8", "replace"): drain.saved() for ident, drain in self.drains.items()}

    def restore(self, saved: Mapping[str, Mapping[str, Any]]) -> None:
        """Drain the engines of an earlier hub that were drained there. Call this after the engines were restored."""
        for uuid, facts in saved.items():
            try:
                marks = {"retiring": facts.get("retiring") is True, "asked": facts.get("asked") is not False}
                drain = Drain(str(facts["by"]), str(facts["then"]), _seconds(facts["deadline"]), **marks)
                ident = uuid.encode("utf-8", "replace")
                engine = self._engines.by_ident.get(ident)
                if engine is not None:
                    self._begin(engine, drain)
                elif self._engines.gone.of(ident) is not None and ident not in self.drains:
                    self.drains[ident] = drain
                    self._attention.begin(ident)
            except (KeyError, TypeError, ValueError) as error:
                log.warning("the drain of an engine is not restored", uuid=uuid[:100], error=error)


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)
