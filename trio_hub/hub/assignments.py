"""Carries out the scheduler's decisions: sends each attempt at a task to an engine, or answers it with an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from math import inf
from random import Random
from typing import Any

from ..errors import HubError
from ..pools.settings import PoolSettings
from ..records import Store
from ..records.record import TaskRecord
from ..schedulers.task import SentBy, Task, TaskState, Worker, WorkerState
from ..schedulers.tasks import TaskScheduler
from ..wire.frames import Frames, to_bytes
from ..wire.messages import Session
from .answers import Answers, Asked
from .bringing import Bringing
from .connector import EngineConnector, Scope
from .custody import Custody, custody_of
from .events import TaskAssigned, TaskQueued
from .intake import Intake
from .limits import RunLimits
from .notices import Notices
from .ports import Host
from .records import outcome_of, packed_rules, with_rules
from .routes import Routes

__all__ = ["Assignments"]

# Globals for code that runs for each task: looking up a member of an enum takes five times as long as a global.
_NOBODY, _THIS_HUB = SentBy.NOBODY, SentBy.THIS_HUB


class Assignments:
    """The scheduler's `trio_hub.schedulers.tasks.SchedulerHost`, and the scheduler itself.

    The methods that the scheduler calls never raise: an unexpected error in such a method affects the task that the
    scheduler names, not the message that is being handled.

    Args:
        host, session, store: access to timers, messages and records.
        now: the current time, aware and in UTC.
        rng, hwm, scheme: see `TaskScheduler`.
        notices, intake, answers, routes: the parts of the hub below.
        by_ident: the engines that are alive, by identity.
        is_pending: whether a request with a msg_id waits for its answer, in any queue.
        unmet_timeout: seconds after which a task fails that no engine can run; 0: never.
        pools: the settings of the pools.
    """

    def __init__(
        self,
        host: Host,
        session: Session,
        store: Store,
        now: Callable[[], datetime],
        rng: Random,
        *,
        hwm: int,
        scheme: str,
        notices: Notices,
        intake: Intake,
        answers: Answers,
        routes: Routes,
        by_ident: Mapping[bytes, EngineConnector],
        is_pending: Callable[[str], bool],
        unmet_timeout: float = 0.0,
        pools: Sequence[PoolSettings] = (),
    ) -> None:
        self._host = host
        self._session = session
        self._now = now
        self._durable = store.durable
        self._update = store.update
        self._notices = notices
        self._intake = intake
        self._answers = answers
        self._routes = routes
        self._by_ident = by_ident
        self._is_pending = is_pending
        self.limits = RunLimits(host, now)
        self.bringing = Bringing(pools)
        self.scheduler = TaskScheduler(self, rng, hwm=hwm, scheme=scheme)
        self.scheduler.timers.patience = unmet_timeout

    def task_assigned(self, task: Task, worker: Worker) -> None:
        """Send a task to the engine that the scheduler has chosen."""
        try:
            engine = self._by_ident[worker.ident]
            if self._routes.probes:
                self._routes.sent_behind_probes(task.msg_id, worker)
            self.save_task_destination(task, engine)
            if task.queue_bytes:
                self._intake.let_go(task)
            if task.rules.max_runtime:
                self.limits.begin(task, worker)
            if task.frames is None:
                self._intake.fetch(task, self._fetched)
            else:
                self._send_task(task, engine, task.frames)
        except Exception as error:
            self.give_up(task, error, "assignment of a task")

    def _send_task(self, task: Task, engine: EngineConnector, frames: Frames) -> None:
        if task.sent_by is _NOBODY:
            task.sent_by = _THIS_HUB
            if self._durable and task.msg_id in self.limits.runs:
                self._update(task.msg_id, {"custody": self._custody_of(task, frames).pack()})
        else:
            self._note_repeated(task, frames)
            frames = self._next_attempt(task, frames)
            if task.sent_by.is_left:
                task.sent_by = SentBy.BOTH
        self._routes.send(engine, "task_out", [*task.idents, *frames], task.msg_id)

    def _note_repeated(self, task: Task, frames: Frames) -> None:
        """Note in its record that a task is sent once more: for the next hub, and for queries."""
        changes: dict[str, Any] = {}
        if self._durable:
            changes["custody"] = self._custody_of(task, frames).pack()
        if task.attempts > 1:
            changes["metadata"] = with_rules(self._session.packer.to_json(to_bytes(frames[4])), task)
        if changes:
            self._update(task.msg_id, changes)

    def _fetched(self, task: Task, frames: Frames | HubError) -> None:
        """Send a task whose frames have been read from the store, or give it up if they could not be read."""
        if task.worker is None or self.scheduler.tasks.get(task.msg_id) is not task:
            return  # meanwhile the task was given up, or lost its engine and waits for another engine
        try:
            if isinstance(frames, HubError):
                self.scheduler.abandon_unsent(task, frames)
                return
            task.frames = frames
            if task.worker.state is WorkerState.LOST:
                self.scheduler.run_again(task)  # the lost engine was never sent the task
            else:
                self._send_task(task, self._by_ident[task.worker.ident], frames)
        except Exception as error:
            reason = self._notices.failed("fetch", error, task=task.msg_id)
            self.scheduler.abandon_unsent(task, reason)

    def _next_attempt(self, task: Task, frames: Frames) -> Frames:
        """Return the task as a new message, with the retries that are left.

        The engine may have received the task before, and engines drop messages that they have seen. So no two attempts
        are the same message, even if different hubs make them.
        """
        packer = self._session.packer
        _, _, header, parent, metadata, content, *buffers = frames
        changes = {"retries": task.retries, "attempt": self._session.new_msg_id()}
        metadata = packer.repacked(to_bytes(metadata), changes)
        return self._session.seal([header, parent, metadata, content], buffers)

    def _custody_of(self, task: Task, frames: Frames) -> Custody:
        _, _, header, parent, metadata, content, *_ = map(to_bytes, frames[:6])
        raw = header, metadata, content  # the metadata in the record has the number of attempts
        custody = Custody(task.idents, parent, raw, rules=packed_rules(task.rules, task.policies))
        custody.note_attempts(task)
        custody.runs_since = self.limits.since(task.msg_id)
        return custody

    def task_queued_again(self, task: Task) -> None:
        """Note in its record that a task has no engine any more, and count the memory that the task takes up.

        The next hub then does not wait for that engine.
        """
        try:
            self._update(task.msg_id, {"engine_uuid": None})
            if self._host.listening:
                self._notices.tell(TaskQueued(task.msg_id))
            has_old_notes = task.sent_by is not SentBy.NOBODY or task.timeout  # otherwise no engine has had the task
            if self._durable and has_old_notes and task.frames is None:
                self._host.ask_store(lambda store: store.fetch([task.msg_id]), partial(self._note_custody, task))
            elif self._durable and has_old_notes:
                self._note(task, self._custody_of(task, task.frames or []))
            self._intake.hold(task)
        except Exception as error:
            self.give_up(task, error, "queue")

    def _note_custody(self, task: Task, answer: Any) -> None:
        """Note a task's remaining retries, and when its wait began, in its record, given the record from the store."""
        if task.worker is None and task.state is not TaskState.DONE and isinstance(answer, dict):
            self._note(task, custody_of(answer[task.msg_id]))

    def _note(self, task: Task, custody: Custody) -> None:
        custody.note_attempts(task)
        custody.since = self._now().timestamp() if task.timeout else None
        custody.runs_since = None
        custody.paused_until = task.paused_until if task.state is TaskState.PAUSED else None
        self._update(task.msg_id, {"custody": custody.pack()})

    def save_task_destination(self, task: Task, engine: EngineConnector) -> None:
        """Record the engine that the scheduler has chosen for a task."""
        self._update(task.msg_id, {"engine_uuid": engine.uuid})
        if self._host.listening:
            self._notices.tell(TaskAssigned(task.msg_id, engine.uuid))

    def task_failed(self, task: Task, worker: Worker | None, error: HubError) -> None:
        """Answer a task with an error, after the scheduler has forgotten it."""
        if task.queue_bytes:
            self._intake.let_go(task)
        uuid = worker.ident.decode("utf-8", "replace") if worker else None
        asked = Asked("task_in", task.idents, task.session, task.msg_id, task.raw_header, task.msg_type)
        self._answers.fail(asked, uuid, error)

    def is_pending(self, msg_id: str) -> bool:
        """Return whether a request with this msg_id waits for its answer, in any queue."""
        return self._is_pending(msg_id)

    def ask_outcomes(self, task: Task, msg_ids: list[str]) -> None:
        """Ask the store for the outcomes of requests on which a task depends and which the scheduler has forgotten."""

        def tell(answer: Any) -> None:
            try:
                records: dict[str, TaskRecord] = {} if isinstance(answer, Exception) else answer
                outcomes = {msg_id: outcome_of(record) for msg_id, record in records.items() if record.completed}
                self.scheduler.outcomes_known(task, outcomes)
            except Exception as error:
                self.give_up(task, error, "dependencies")

        try:
            self._host.ask_store(lambda store: store.fetch(msg_ids), tell)
        except Exception as error:
            self.give_up(task, error, "dependencies")

    def soon(self, call: Callable[[], None]) -> None:
        """Make a call of the scheduler later, so that the event loop can run other tasks first."""
        try:
            self._host.call_later(0.0, call)
        except Exception as error:
            self._notices.failed("scheduler", error)
            call()

    def start_timer(self, task: Task, seconds: float) -> Scope:
        """Start the timer that tells the scheduler that a task has waited too long."""
        return self._start(task, seconds, self.scheduler.timed_out, "timeout of a task")

    def start_pause(self, task: Task, seconds: float) -> Scope:
        """Start the timer that tells the scheduler that the pause before a task's next attempt is over."""
        task.paused_until = self._now().timestamp() + seconds
        return self._start(task, seconds, self.scheduler.pause_over, "pause of a task")

    def start_patience(self, task: Task, seconds: float) -> Scope:
        """Start the timer that tells the scheduler that a task which no engine could run has waited for long."""
        return self._start(task, seconds, self.scheduler.patience_over, "patience with a task")

    def _start(self, task: Task, seconds: float, is_over: Callable[[Task], None], place: str) -> Scope:
        """Start a timer of a task. If that fails, give up the task."""
        try:
            return self._host.call_later(seconds, partial(is_over, task))
        except Exception as error:
            self.give_up(task, error, place)
            return _NoTimer()

    def seconds_left(self, worker: Worker) -> float:
        """Return how long an engine will still be there, in seconds; infinity if unknown."""
        engine = self._by_ident.get(worker.ident)
        if engine is None or engine.leaves_at is None:
            return inf
        return engine.leaves_at - self._now().timestamp()

    def pools_for(self, task: Task) -> Sequence[str]:
        """Return the names of the pools that could bring an engine that can run the task."""
        try:
            return self.bringing.names_for(task)
        except Exception as error:
            self._notices.failed("pools", error, task=task.msg_id)
            return ()

    def give_up(self, task: Task, error: Exception, place: str) -> None:
        """Report an unexpected error, and answer its task with an error, unless the task is answered already."""
        reason = self._notices.failed(place, error, task=task.msg_id)
        if self.scheduler.tasks.get(task.msg_id) is task:
            self.scheduler.abandon(task, reason)
        elif task.state is not TaskState.DONE:
            self.task_failed(task, None, reason)


class _NoTimer:
    """Replaces the timer of a task that has failed already."""

    def cancel(self) -> None:
        """Do nothing: there is no timer."""
