"""The state of a request, why it waits, and the name of its function: details that no record has, only the hub."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol

from ..errors import WireError
from ..records import Store, parse_query
from ..schedulers.explaining import said
from ..schedulers.repetition import pause_after_attempt
from ..schedulers.task import Task, TaskState, WorkerState
from ..wire.messages import Message, Session
from .broadcasts import Broadcasts
from .connector import EngineConnector
from .direct import DirectQueue
from .engines import Engines
from .intake import Intake
from .labels import Labels
from .ports import RunningQuery
from .replies import Reply
from .tasks import TaskQueue

__all__ = ["MAX_NAMED", "Details", "unfinished_state", "why_waiting"]

MAX_ASKED = 500
"""The maximum number of requests in one query."""
MOST_READ = 16 << 20
"""The number of bytes of requests after which the search for names in the task database ends."""
MAX_NAMED = 10
"""The maximum number of tasks or engines in a text. Of further ones, the text gives the number."""


class Core(Protocol):
    """The parts of the hub that know why requests wait."""

    @property
    def intake(self) -> Intake: ...
    @property
    def tasks(self) -> TaskQueue: ...
    @property
    def engines(self) -> Engines: ...


class Details:
    """Answers queries for details of requests that no record has.

    Args:
        session, store: access to messages and records.
        labels: finds names of functions.
        intake, tasks, direct, broadcasts, engines: the parts of the hub that know why requests wait.
        is_pending: whether a request with a msg_id waits for its answer, in any queue.
    """

    def __init__(
        self,
        session: Session,
        store: Store,
        *,
        labels: Labels,
        intake: Intake,
        tasks: TaskQueue,
        direct: DirectQueue,
        broadcasts: Broadcasts,
        engines: Engines,
        is_pending: Callable[[str], bool],
    ) -> None:
        self._session = session
        self._store = store
        self._labels = labels
        self.intake = intake
        self.tasks = tasks
        self.engines = engines
        self._is_pending = is_pending
        self._unanswered = (direct.unanswered.pending, broadcasts.unanswered.pending)

    def details_request(self, client_id: list[bytes], msg: Message) -> RunningQuery:
        """Reply with the ``state`` of each request that the client names, and ``why`` it waits.

        For a task, the reply also has the number of ``attempts``; for each request, with ``names``, the ``name`` of its
        function. The state is None for a request that is finished or unknown.

        Nothing is noted when a request comes, so that requests cost nothing for details that nobody asks for. So names
        are found in the requests that wait, and in the task database. There the search ends after `MOST_READ`.

        Raises:
            WireError: The content does not name requests, or too many.
        """
        content = self._session.content(msg)
        msg_ids = content.get("msg_ids")
        if not isinstance(msg_ids, list) or not all(isinstance(msg_id, str) for msg_id in msg_ids):
            raise WireError("wrong_type", "msg_ids must be a list of texts")
        if len(msg_ids) > MAX_ASKED:
            raise WireError("too_large", f"details of at most {MAX_ASKED} requests can be asked for at a time")
        names: dict[str, str | None] = {}
        if content.get("names"):
            read = 0
            for msg_id in msg_ids:
                task = self.tasks.scheduler.tasks.get(msg_id)
                if task is not None and task.frames is not None:
                    names[msg_id] = self._labels.of(None, task.msg_type, task.frames[6:])
                elif read < MOST_READ:
                    query = parse_query({"msg_id": {"$eq": msg_id}})
                    for record in (yield self._store.find(query, ("header", "buffers"))):
                        read += sum(map(len, record["buffers"] or ()))
                        names[msg_id] = self._name_in(record)
        details = {
            msg_id: {
                "state": unfinished_state(self, msg_id) or ("running" if self._is_pending(msg_id) else None),
                "name": names.get(msg_id),
                "why": self.why(msg_id),
                "attempts": None if (task := self.tasks.scheduler.tasks.get(msg_id)) is None else task.attempts,
            }
            for msg_id in msg_ids
        }
        return Reply("details_reply", {"status": "ok", "details": details})

    def why(self, msg_id: str) -> str | None:
        """Return why a request waits, for an engine or at its engine; None if it does not wait."""
        return why_waiting(self, msg_id) or self._why_at_engine(msg_id)

    def _why_at_engine(self, msg_id: str) -> str | None:
        """Return why a request that was sent to its engine may not have started; None if no reason is known."""
        engine = self._engine_with(msg_id)
        if engine is None:
            return None
        queues: list[Collection[str]] = [engine.mux.pending, engine.broadcast.pending]
        if engine.worker is not None:
            queues.append(engine.worker.running)
        for queue in queues:
            if msg_id in queue:
                return _why_at(engine, list(queue).index(msg_id), sum(map(len, queues)) - len(queue))
        return None  # the engine that has the request is lost, and another engine has its uuid now

    def _engine_with(self, msg_id: str) -> EngineConnector | None:
        """Return the registered engine that was sent a request and has not answered it."""
        task = self.tasks.scheduler.tasks.get(msg_id)
        if task is not None and task.worker is not None:
            return self.engines.by_ident.get(task.worker.ident)
        for pending in self._unanswered:
            if msg_id in pending:
                return self.engines.by_ident.get(pending[msg_id].lane.ident)
        return None

    def _name_in(self, record: dict[str, Any]) -> str | None:
        header = record["header"]
        msg_type = header.get("msg_type") if isinstance(header, dict) else None
        return self._labels.of(None, msg_type, record["buffers"] or ()) if isinstance(msg_type, str) else None


def unfinished_state(core: Core, msg_id: str) -> str | None:
    """Return the state of a load-balanced task, or of a request that is not on disk yet; None for other requests.

    The state is ``queued`` if the request waits for an engine, or for the disk; ``waiting`` if it waits for the
    requests on which it depends; ``paused`` if it waits for its next attempt; and ``running`` if it was sent to an
    engine.
    """
    if msg_id in core.intake.uncommitted:
        return TaskState.QUEUED.value
    task = core.tasks.scheduler.tasks.get(msg_id)
    return None if task is None else task.state.value


def why_waiting(core: Core, msg_id: str) -> str | None:
    """Return why a task has no engine yet; None if it has one, or is not waiting."""
    if msg_id in core.intake.uncommitted:
        return "it is being written to disk, which must happen before it is sent to an engine"
    task = core.tasks.scheduler.tasks.get(msg_id)
    if task is None or task.worker is not None:
        return None
    if task.state is TaskState.WAITING:
        return (
            f"it depends on {_some(sorted(task.depends_on))}"
            if task.depends_on
            else "the hub looks up its dependencies"
        )
    if task.state is TaskState.PAUSED:
        seconds = pause_after_attempt(task.attempts, task.rules)
        failed = f"attempt {task.attempts} did not succeed"
        return f"{failed}; the next begins after a pause of {seconds:g} s (rule retry_pause)"
    return _why_queued(core, task)


# Words of `trio_hub.schedulers.explaining.Reason` about engines that do not get a task even if they have room.
_ASIDE = {
    "lacks": "these engines lack what it needs ({needs})",
    "too_short": "these engines will be gone before its max_runtime of {max_runtime:g} s would be over",
    "in_use": "these engines have not enough free of what it needs ({needs})",
    "draining": "these engines are drained",
    "reserved": "these engines are kept free for a task that has waited for long",
}


def _why_queued(core: Core, task: Task) -> str:
    workers = core.tasks.scheduler.workers
    about_task, *about_engines = core.tasks.scheduler.explain(task)
    if not workers:
        return about_task.text.removeprefix("is queued, and ")
    may = [ident for ident in workers if task.accepts(ident)]
    reasons = []
    if task.targets is not None:
        reasons.append(f"it may run only on its targets: {_engines(core, task.targets)}")
    if task.refused:
        failed = task.refused - task.unmet
        if failed:
            reasons.append(f"it has failed on engines: {_engines(core, failed)}")
        if task.unmet:
            reasons.append(f"its dependencies are not met on engines: {_engines(core, task.unmet)}")
    aside: dict[str, set[bytes]] = {}
    for reason in about_engines:
        if reason.word in _ASIDE and reason.engine is not None:
            aside.setdefault(reason.word, set()).add(reason.engine)
    if about_task.word in ("pool", "unmet_needs", "unmet_dependency"):
        reasons.append(f"it {about_task.text}")
        aside.pop("lacks", None)
        may = []
    for word, text in _ASIDE.items():
        if word in aside:
            told = text.format(needs=said(task.rules.needs), max_runtime=task.rules.max_runtime)
            reasons.append(f"{told}: {_engines(core, aside[word])}")
            may = [ident for ident in may if ident not in aside[word]]
    if may and all(workers[ident].state is WorkerState.EXPECTED for ident in may):
        reasons.append("the engines that may run it have not come back since the restart of the hub")
    elif may:
        each = f"{core.tasks.scheduler.hwm} task{'s' if core.tasks.scheduler.hwm > 1 else ''} each (setting hwm)"
        who = "all engines are busy" if len(may) == len(workers) else "the engines that may run it are busy"
        queued = len(core.tasks.scheduler.queue)
        tasks = "1 task is" if queued == 1 else f"{queued:,} tasks are"
        lengths = core.tasks.scheduler.queue.lengths_by_priority()
        higher = sum(length for priority, length in lengths.items() if priority > task.rules.priority)
        first = f", {higher:,} of them with a higher priority than {task.rules.priority}" if higher else ""
        reasons.append(f"no free engine: {who}, with {each}; {tasks} queued{first}")
    return "; ".join(reasons)


def _why_at(engine: EngineConnector, before: int, others: int) -> str | None:
    """Return why a request waits at its engine.

    Args:
        engine: the engine.
        before: the number of the engine's requests that were sent before this one on the same queue.
        others: the number of the engine's requests on other queues.
    """
    if engine.state.is_coming_back:
        return f"engine {engine.id} has not come back since the restart of the hub"
    if engine.routes:
        return f"the hub cannot reach engine {engine.id} at the moment"
    has = []
    if before:
        has.append(f"{_requests(before)} before this one")
    if others:
        has.append(f"{_requests(others)} of other queues")
    if not has:
        return None
    return f"engine {engine.id} runs one request at a time, and was sent {' and '.join(has)}"


def _requests(number: int) -> str:
    return "one request" if number == 1 else f"{number:,} requests"


def _engines(core: Core, idents: Collection[bytes]) -> str:
    names = []
    for ident in idents:
        engine = core.engines.by_ident.get(ident)
        names.append(ident.decode("utf-8", "replace") if engine is None else str(engine.id))
    return _some(sorted(names, key=lambda name: (len(name), name)))


def _some(names: list[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
