"""The task queue: tasks from clients, and answers from engines.

A message that is passed on keeps its frames; only its routing identities change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from ..errors import EngineError, HubError, InvalidDependency, WireError
from ..logs import get_logger
from ..records.record import TaskRecord
from ..schedulers.dependencies import Outcome
from ..schedulers.rules import NO_RULES
from ..schedulers.task import Task, TaskState, WorkerState
from ..schedulers.unanswered import Direct
from ..wire.frames import Frames
from ..wire.messages import Message, Session
from .admission import Admission
from .announcer import Announcer
from .answers import Answers, Asked
from .assignments import Assignments
from .attention import Attention
from .connector import EngineConnector, EngineState, died_while_running
from .custody import custody_of, request_frames
from .engines import Engines
from .intake import STOPPED, Intake
from .late import LateResults
from .making import TaskMaker
from .measuring import MeasuredRuns
from .notices import Notices
from .policies import Policies
from .ports import Host
from .records import init_record, packed_rules, with_rules
from .replies import Replies
from .routes import Routes

__all__ = ["TaskQueue"]

log = get_logger("trio_hub.hub")

_DONE = TaskState.DONE
"""A global for code that runs for each task: looking up a member of an enum takes five times as long as a global."""


class TaskQueue:
    """Gives clients' tasks to the scheduler, and engines' answers to clients. Handlers get identities and message.

    Args:
        host, session: access to observers and to messages.
        now: the current time, aware and in UTC.
        policies, notices, replies, intake, answers, admission, routes, engines, announcer, late_results, attention,
            assignments: the parts below.
    """

    def __init__(
        self,
        host: Host,
        session: Session,
        now: Callable[[], datetime],
        *,
        policies: Policies,
        notices: Notices,
        replies: Replies,
        intake: Intake,
        answers: Answers,
        admission: Admission,
        routes: Routes,
        engines: Engines,
        announcer: Announcer,
        late_results: LateResults,
        attention: Attention,
        assignments: Assignments,
    ) -> None:
        self._host = host
        self._session = session
        self._now = now
        self._maker = TaskMaker(session, now, policies)
        self.make_task = self._maker.make
        self._notices = notices
        self._replies = replies
        self._intake = intake
        self._answers = answers
        self._admit = admission.admit
        self._routes = routes
        self._by_ident = engines.by_ident
        self._late_results = late_results
        self._attention, self._attended = attention, attention.engines
        self._announcer = announcer
        self._assignments = assignments
        self.scheduler = assignments.scheduler
        self._limits, self._limited = assignments.limits, assignments.limits.runs
        self.measured = MeasuredRuns(session, announcer.labels)
        self.submitted = 0
        """The number of received tasks."""

    # From clients

    def save_task_request(self, idents: list[bytes], msg: Message, *, admitted: bool = False) -> None:
        """Record a client's task, and give it to the scheduler."""
        if not admitted and not self._admit("task_in", idents, msg, self.save_task_request):
            return
        if self._intake.stopping:
            self._replies.refuse("task_in", idents, msg, EngineError(STOPPED))
            return
        try:
            metadata = self._session.task_metadata(msg)
            record = init_record(msg, self._session.packer, queue="task", now=self._now, label=metadata.label)
            task = self.make_task(idents, msg, metadata)
        except (WireError, InvalidDependency) as error:
            self._replies.refuse("task_in", idents, msg, error)
            return
        self.record_and_submit(record, task, msg, metadata.label)

    def record_and_submit(self, record: TaskRecord, task: Task, msg: Message, label: Any) -> None:
        """Record a task, and give it to the scheduler: now or, if strict, when it is on disk. Never raises."""
        try:
            since = self._now().timestamp() if task.timeout else None
            ruled = b""
            if task.rules is not NO_RULES or task.policies:
                ruled = packed_rules(task.rules, task.policies)
                record.metadata = with_rules(record.metadata, task, ruled)
            self._intake.record(record, task.idents, msg, since, ruled)
            self._intake.when_recorded(task.msg_id, self.submit_task, task, label)
        except Exception as error:
            self.submitted += 1
            self._assignments.task_failed(task, None, self._notices.failed("task request", error, task=task.msg_id))

    def submit_task(self, task: Task, label: Any = None) -> None:
        """Give a recorded task to the scheduler. Never raises."""
        if self._intake.carried_on:
            return
        self.submitted += 1
        try:
            if self._host.listening:
                buffers = () if task.frames is None else task.frames[6:]
                self._announcer.request_came("task", task.msg_id, task.msg_type, task.session, label, buffers)
            if self._intake.stopping:
                self._assignments.task_failed(task, None, EngineError(STOPPED))
                return
            if task.msg_id in self._intake.withdrawn.msg_ids and (error := self._intake.withdrawn.take(task.msg_id)):
                self._assignments.task_failed(task, None, error)
                self.request_ended(task.msg_id, Outcome(False, None))
                return
            self.scheduler.submit(task)
            if task.worker is None and task.state is not _DONE:
                self._intake.hold(task)
        except Exception as error:
            self._assignments.give_up(task, error, "submission of a task")

    # Back to clients

    def save_task_result(self, idents: list[bytes], msg: Message) -> None:
        """Record an engine's answer to a task and pass it on, or let another engine try."""
        ident = idents[0]
        msg_id = msg.parent.msg_id
        task = self.scheduler.running_on(ident, msg_id) or self._adopted(ident, msg_id)
        if task is None:
            if not self._late_results.record(ident, msg) and not self._routes.heard_probe(ident, msg_id):
                self._notices.ignore(
                    "unexpected_result", "a reply to a task that it does not run", uuid=ident, task=msg_id
                )
            return
        metadata = self._answers.metadata_of(msg)
        status = metadata.status or self._answers.status_in_content(msg)
        if ident in self._attended and self._attention.take(self, ident, msg, status):
            return
        if msg_id in self._limited:
            self._limits.end(msg_id)
        if self.measured.is_on and metadata.dependencies_met and status != "aborted":
            self.measured.note(task, msg, metadata.started)
        final = self.scheduler.result(
            task,
            ok=status == "ok",
            aborted=status == "aborted",
            dependencies_met=metadata.dependencies_met,
            ename="" if task.rules.retry_on is None or status == "ok" else self._session.error_in(msg.frames)[0],
        )
        if final:
            if status != "aborted" and (engine := self._by_ident.get(ident)) is not None:
                engine.completed += 1
            asked = Asked("task_in", task.idents, task.session, msg_id, task.raw_header, task.msg_type)
            self._answers.save_result("task", ident, msg, asked, metadata, status)
        if ident in self._attended:
            self._attention.has_answered(ident)

    def _adopted(self, ident: bytes, msg_id: str) -> Task | None:
        """Return the task that an engine answers because an earlier hub has sent it there; else None."""
        task = self.scheduler.tasks.get(msg_id)
        if task is None or not task.sent_by.is_left:
            return None
        engine = self._by_ident.get(ident)
        if engine is None or engine.worker is None:
            return None
        if task.queue_bytes:
            self._intake.let_go(task)
        self.scheduler.adopt(task, engine.worker)
        return task

    def request_ended(self, msg_id: str, outcome: Outcome) -> None:
        """Tell the tasks that depend on a request of another queue that the request has ended."""
        if msg_id in self.scheduler.dependents:
            self.scheduler.ended(msg_id, outcome)

    # Engines

    def engine_joined(self, engine: EngineConnector, *, drained: bool = False) -> None:
        """Add an engine, which is usable or expected, to the scheduler; as expected if it is drained."""
        is_usable = engine.state is EngineState.ALIVE
        state = WorkerState.USABLE if is_usable and not drained else WorkerState.EXPECTED
        engine.worker = self.scheduler.add_engine(engine.ident, state, engine.offers)

    def engine_lost(self, engine: EngineConnector) -> None:
        """Give a lost engine no more tasks. It may still answer the tasks that it runs."""
        if engine.worker is not None:
            self.scheduler.remove_engine(engine.worker)

    def engine_settled(self, engine: EngineConnector) -> None:
        """Run the unanswered tasks of a lost engine elsewhere, or answer them with errors."""
        if engine.worker is not None:
            self.scheduler.settle(engine.worker, partial(self._stranded, engine))

    def _stranded(self, engine: EngineConnector, msg_id: str) -> EngineError:
        """Return the error for a task that a lost engine has not answered, and that no other engine may run."""
        self._late_results.expect(engine, msg_id)
        return died_while_running(engine, msg_id)

    def owes_answers(self, engine: EngineConnector) -> bool:
        """Return whether an engine runs tasks."""
        return engine.worker is not None and len(engine.worker.running) > 0

    # For the routes and for the failure boundary

    def outstanding(self, engine: EngineConnector) -> list[str]:
        """Return the msg_ids of the tasks that an engine has."""
        return list(engine.worker.running) if engine.worker else []

    def give_up(self, ident: bytes, msg_id: str, error: HubError) -> None:
        """Answer a task with the error, if this engine has it."""
        task = self.scheduler.running_on(ident, msg_id)
        if task is not None:
            self.scheduler.abandon_unsent(task, error)

    def answer_lost(self, engine: EngineConnector, msg_id: str, cause: str) -> None:
        """Run a task again, on the same or another engine, since the engine's answer was lost."""
        task = self.scheduler.running_on(engine.ident, msg_id)
        if task is not None and not (engine.ident in self._attended and self._attention.lost(engine, msg_id)):
            log.warning("a result was lost: the task is run again", task=msg_id, engine=engine.id)
            self.scheduler.run_again(task)

    def repeatable(self, engine: EngineConnector, msg_ids: Sequence[str]) -> list[Direct]:
        """Return no requests: a task whose answer may be lost is run again as a new message."""
        return []

    def frames_of(self, direct: Direct, record: TaskRecord) -> Frames:
        """Return the frames of a task's request, from its record. Raises `WireError`."""
        return request_frames(record, self._session)

    def stop(self, error: HubError) -> None:
        """Answer all pending tasks with the error."""
        self.scheduler.abandon_all(error)

    # After a restart

    def take_over(self, record: TaskRecord, message: Message, engine: EngineConnector | None) -> Task | None:
        """Carry on with a task of an earlier hub, on the engine that has it. Raises `WireError`.

        Returns:
            The task, if no engine has it, else None. Submit it (`resume`) after all requests were taken over.
        """
        self.submitted += 1
        task = self._maker.restored(record, message, lost=engine is None)
        if engine is None or engine.worker is None:
            return task
        self.scheduler.inherit(task, engine.worker)
        if task.rules.max_runtime:
            self._limits.begin(task, engine.worker, custody_of(record).runs_since)
        return None

    def resume(self, task: Task) -> None:
        """Submit a task that was taken over and that no engine has. Never raises."""
        try:
            self.scheduler.submit(task)
        except Exception as error:
            self._assignments.give_up(task, error, "recovery")
