"""Cancelling requests: a request that waits is withdrawn, a request that an engine runs is interrupted.

The client gets `TaskCancelled`, whatever comes first: the engine's answer, the end of the engine, or the end of the
grace. So a client that has got this answer knows that the request no longer runs. `trio_hub.hub.interrupts` has the
states of a request that is interrupted.

A hub that ends while requests are being cancelled leaves a note in their records. The next hub cancels them again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from ..errors import HubError, TaskCancelled, TaskTimeout
from ..records import Store
from ..records.record import TaskRecord
from ..schedulers.broadcast import sub_msg_id
from ..schedulers.rules import INTERRUPT
from ..schedulers.task import Task
from ..schedulers.tasks import AT_A_TIME
from .askers import named
from .broadcasts import Broadcasts
from .connector import EngineConnector
from .custody import custody_of
from .direct import DirectQueue
from .engines import Engines
from .events import TaskCancelled as Cancelled
from .gathering import Gathering
from .intake import Intake
from .interrupt import Purpose
from .interrupts import DEFAULT_GRACE, Interrupts
from .notices import Notices
from .ports import Host, Queue
from .routes import Routes
from .tasks import TaskQueue

__all__ = ["FINISHED", "INTERRUPTED", "UNKNOWN", "WITHDRAWN", "Cancelling"]

WITHDRAWN = "withdrawn"
"""No engine had the request, and no engine will get it."""
INTERRUPTED = "interrupted"
"""An engine has the request, and is interrupted. The client gets its answer when the request has ended there."""
UNKNOWN = "unknown"
"""The hub does not have the request. If it comes later, it is answered as cancelled."""
FINISHED = "finished"
"""The request was answered before."""


class Cancelling:
    """Cancels requests of all queues.

    Args:
        host, store: access to observers and records.
        now: the current time, aware and in UTC.
        notices, intake, routes, engines, tasks, direct, broadcasts, gathering, interrupts: the parts of the hub below.
        is_pending: whether a request with a msg_id waits for its answer, in any queue.
    """

    def __init__(
        self,
        host: Host,
        store: Store,
        now: Callable[[], datetime],
        *,
        notices: Notices,
        intake: Intake,
        routes: Routes,
        engines: Engines,
        tasks: TaskQueue,
        direct: DirectQueue,
        broadcasts: Broadcasts,
        gathering: Gathering,
        interrupts: Interrupts,
        is_pending: Callable[[str], bool],
    ) -> None:
        self._host = host
        self._store = store
        self._now = now
        self._notices = notices
        self._intake = intake
        self._routes = routes
        self._engines = engines
        self._tasks = tasks
        self._direct = direct
        self._broadcasts = broadcasts
        self._gathering = gathering
        self._interrupts = interrupts
        self._is_pending = is_pending
        self.counts: Counter[str] = Counter()
        """The requests that somebody has asked to cancel, by what was done: `WITHDRAWN`, `INTERRUPTED` or `UNKNOWN`."""
        self.timeouts = 0
        """The number of tasks that ran for longer than their limit."""

    # For clients

    def cancel(
        self,
        msg_ids: Sequence[str],
        *,
        by: str,
        grace: float | None = None,
        error: Callable[[str], HubError] | None = None,
    ) -> dict[str, str]:
        """Cancel requests, and return what is done to each: `WITHDRAWN`, `INTERRUPTED` or `UNKNOWN`.

        Args:
            msg_ids: the requests. The msg_id of a broadcast means all its shares.
            by: who asks for it: text for the error, the record and the event.
            grace: seconds that a request has to end before its engine is killed; by default, as the rules of the task
                say, else `DEFAULT_GRACE`.
            error: returns the error for the client, given a text that says how the request ended; by default, a
                `TaskCancelled`.
        """
        by = named(by)
        asked = self._now().isoformat()

        def cancelled(took: str) -> HubError:
            facts = {"by": by, "asked": asked, "took": took}
            return TaskCancelled(f"cancelled by {by} at {asked}: {took}", facts)

        error_of = error or cancelled
        wanted = list(dict.fromkeys(msg_ids))
        done = {msg_id: self._cancel(msg_id, error_of, grace) for msg_id in wanted[:AT_A_TIME]}
        if rest := wanted[AT_A_TIME:]:
            done |= {msg_id: self._what_is_done(msg_id) for msg_id in rest}
            self._host.call_later(0.0, partial(self._cancel_rest, rest, error_of, grace))
        self.counts.update(done.values())
        if self._host.listening:
            for msg_id, what in done.items():
                if what != UNKNOWN:
                    self._notices.tell(Cancelled(msg_id, by, what))
        if self._store.durable:
            self._note(
                [one for msg_id, what in done.items() if what == INTERRUPTED for one in self._records(msg_id)], by
            )
        return done

    def cancel_own(self, msg_ids: Sequence[str], session: str) -> None:
        """Interrupt the running tasks among these that belong to this client, if their rules say so (`on_cancel`)."""
        tasks = self._tasks.scheduler.tasks
        running = [
            msg_id
            for msg_id in msg_ids
            if (task := tasks.get(msg_id)) is not None
            and task.rules.on_cancel == INTERRUPT
            and task.session == session
            and task.worker is not None
            and msg_id not in self._interrupts.open
        ]
        if running:
            self.cancel(running, by=f"its client {session}")

    def _cancel_rest(self, msg_ids: list[str], error_of: Callable[[str], HubError], grace: float | None) -> None:
        """Cancel further requests, `AT_A_TIME` at a time, so that other work has its turn."""
        for msg_id in msg_ids[:AT_A_TIME]:
            self._cancel(msg_id, error_of, grace)
        if rest := msg_ids[AT_A_TIME:]:
            self._host.call_later(0.0, partial(self._cancel_rest, rest, error_of, grace))

    def _what_is_done(self, msg_id: str) -> str:
        """Return what `_cancel` would do now."""
        task = self._tasks.scheduler.tasks.get(msg_id)
        if (task is not None and task.worker is None) or msg_id in self._intake.uncommitted:
            return WITHDRAWN
        return INTERRUPTED if self._is_pending(msg_id) else UNKNOWN

    def cancel_and_look(
        self, msg_ids: Sequence[str], *, by: str, grace: float | None = None
    ) -> Generator[Awaitable[Any], Any, dict[str, str]]:
        """Cancel requests like `cancel`, and return `FINISHED` for each request that the store knows as answered.

        Yields awaitables, like a query.
        """
        done = self.cancel(msg_ids, by=by, grace=grace)
        unknown = [msg_id for msg_id, what in done.items() if what == UNKNOWN]
        if unknown:
            records: dict[str, TaskRecord] = yield self._store.get(unknown)
            for msg_id, record in records.items():
                if record.completed is not None:
                    done[msg_id] = FINISHED
                    self._intake.withdrawn.take(msg_id)
        return done

    def _cancel(self, msg_id: str, error_of: Callable[[str], HubError], grace: float | None) -> str:
        waits = error_of("no engine had it")
        if msg_id in self._intake.uncommitted:
            self._intake.withdrawn.note([msg_id], waits)
            return WITHDRAWN
        task = self._tasks.scheduler.tasks.get(msg_id)
        if task is not None:
            grace = task.rules.grace if grace is None else grace
            if task.worker is None or msg_id in self._intake.to_fetch:
                self._tasks.scheduler.abandon_unsent(task, waits)
                return WITHDRAWN
            return self._cancel_at(self._tasks, task.worker.ident, msg_id, error_of, grace)
        grace = DEFAULT_GRACE if grace is None else grace
        queues: tuple[DirectQueue, Broadcasts] = (self._direct, self._broadcasts)
        for queue in queues:
            if (direct := queue.unanswered.pending.get(msg_id)) is not None:
                return self._cancel_at(queue, direct.lane.ident, msg_id, error_of, grace)
        shares = self._shares_of(msg_id)
        if shares:
            done = [self._cancel(share, error_of, grace) for share in shares]
            return INTERRUPTED if INTERRUPTED in done else WITHDRAWN
        self._intake.withdrawn.note([msg_id], waits)
        return UNKNOWN

    def _shares_of(self, msg_id: str) -> list[str]:
        """Return the unanswered shares of a broadcast."""
        broadcast = self._gathering.gathered.get(msg_id)
        if broadcast is not None:
            uuids = [uuid for uuid, _ in broadcast.targets if uuid not in broadcast.answers]
        else:
            uuids = [engine.uuid for engine in self._engines.alive.values() if engine.broadcast.pending]
        shares = [sub_msg_id(msg_id, uuid) for uuid in uuids]
        return [share for share in shares if share in self._broadcasts.unanswered.pending]

    def _cancel_at(
        self, queue: Queue, ident: bytes, msg_id: str, error_of: Callable[[str], HubError], grace: float
    ) -> str:
        """Cancel a request that an engine has, or that waits for the engine's connection."""
        engine = self._engines.by_ident.get(ident)
        if engine is None:  # it is lost, and its grace is not over
            queue.give_up(ident, msg_id, error_of("its engine has gone"))
            return WITHDRAWN
        if not engine.state.is_coming_back:  # else an earlier hub may have sent it
            self._routes.withdraw(engine, {msg_id}, error_of("no engine had it"))
            if not engine.has(msg_id):
                return WITHDRAWN
        self._interrupts.begin(queue, engine, msg_id, Purpose.END, grace, error_of)
        return INTERRUPTED

    # Limits

    def run_too_long(self, task: Task, began: datetime) -> None:
        """Interrupt a task that runs for longer than its limit."""
        engine: EngineConnector | None = None if task.worker is None else self._engines.by_ident.get(task.worker.ident)
        if engine is None:
            return
        self.timeouts += 1
        limit = task.rules.max_runtime

        def timed_out(took: str) -> HubError:
            seconds = (self._now() - began).total_seconds()
            return TaskTimeout(f"the task ran for {seconds:.1f} s, and its max_runtime is {limit:g} s: {took}")

        self._interrupts.begin(self._tasks, engine, task.msg_id, Purpose.END, task.rules.grace, timed_out)

    # Restart

    def _note(self, msg_ids: list[str], by: str) -> None:
        """Note in the records of these requests that they are being cancelled, for the next hub."""
        if not msg_ids:
            return

        def note(answer: Any) -> None:
            records: dict[str, TaskRecord] = {} if isinstance(answer, Exception) else answer
            for msg_id, record in records.items():
                if record.completed is None and self._is_open(msg_id):
                    custody = custody_of(record)
                    custody.cancelled_by = by
                    self._store.update(msg_id, {"custody": custody.pack()})

        self._host.ask_store(lambda store: store.fetch(msg_ids), note)

    def _records(self, msg_id: str) -> list[str]:
        """Return the msg_ids of the records of a request that is being cancelled."""
        return [msg_id] if self._is_open(msg_id) else self._shares_of(msg_id)

    def _is_open(self, msg_id: str) -> bool:
        return msg_id in self._interrupts.open or msg_id in self._gathering.gathered

    def cancel_again(self, cancelled: dict[str, str]) -> None:
        """Cancel the requests that an earlier hub was cancelling, given as msg_ids with who has asked for it."""
        for msg_id, by in cancelled.items():
            try:
                self.cancel([msg_id], by=by)
            except Exception as error:
                self._notices.failed("cancel", error, task=msg_id)
