"""Explaining: why a task waits, and for each engine whether it could run the task now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .task import Task, TaskState, Worker, WorkerState

__all__ = ["Reason", "reasons"]


class Reason(NamedTuple):
    """Why a task waits, or whether an engine could run it.

    - ``engine``: the engine's identity; None if the reason is about the task itself;
    - ``word``: a stable word for programs;
    - ``text``: a sentence for people, without the name of the task or of the engine.
    """

    engine: bytes | None
    word: str
    text: str


def reasons(task: Task, workers: Iterable[Worker], hwm: int, queued: int) -> list[Reason]:
    """Return what a task waits for, then for each engine whether it could run the task now and, if not, why.

    Args:
        task: the task.
        workers: the engines that are registered.
        hwm: the maximum number of outstanding tasks per engine; 0 means no limit.
        queued: the number of queued tasks.
    """
    return [_of_task(task, queued), *(_of_engine(task, worker, hwm) for worker in workers)]


def _of_task(task: Task, queued: int) -> Reason:
    if task.state is TaskState.WAITING:
        return Reason(None, "waiting", "waits for the requests on which it depends")
    if task.state is TaskState.QUEUED:
        return Reason(None, "queued", f"is queued with priority {task.rules.priority}; {queued} tasks are queued")
    return Reason(None, task.state.value, f"is {task.state.value}")


def _of_engine(task: Task, worker: Worker, hwm: int) -> Reason:
    ident = worker.ident
    if task.worker is worker:
        return Reason(ident, "runs_it", "runs it")
    if task.targets is not None and ident not in task.targets:
        return Reason(ident, "not_a_target", "is not among its targets")
    if ident in task.refused:
        return Reason(ident, "refused", "has refused it")
    if worker.state is WorkerState.EXPECTED:
        return Reason(ident, "expected", "is not back yet")
    if worker.draining:
        return Reason(ident, "draining", "is drained")
    if worker.holds:
        return Reason(ident, "held", "is held for a moment")
    if hwm and len(worker.running) >= hwm:
        return Reason(ident, "full", "is full")
    return Reason(ident, "may_run", "may run it now")
