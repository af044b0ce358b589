"""Explaining: what a task waits for, and for each engine whether it could run the task now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .host import SchedulerHost
from .matching import AMOUNT_UNIT, Demand, lacking
from .placement import Placement
from .task import Task, TaskState, Worker, WorkerState

__all__ = ["Reason", "reasons", "said", "why_hopeless"]

_UNITS = {"T": 2.0**40, "G": 2.0**30, "M": 2.0**20, "K": 2.0**10}
_MAX_NAMED = 10
"""The maximum number of msg_ids in a text."""


class Reason(NamedTuple):
    """What a task waits for, or whether an engine could run it.

    - ``engine``: the engine's identity; None if the reason is about the task itself;
    - ``word``: a stable word for programs. About a task: ``running``, ``paused``, ``aborted``, ``waiting``,
      ``looked_up``, ``no_engine``, ``pool``, ``unmet_needs``, ``unmet_dependency``, ``queued``. About an engine:
      ``runs_it``, ``not_a_target``, ``refused``, ``lacks``, ``too_short``, ``expected``, ``draining``, ``held``,
      ``full``, ``in_use``, ``reserved``, ``busy``, ``may_run``;
    - ``text``: a sentence for people without its subject, which is the task or the engine.
    """

    engine: bytes | None
    word: str
    text: str


def reasons(task: Task, placement: Placement, host: SchedulerHost) -> list[Reason]:
    """Return what a task waits for, then for each engine whether it could run the task now and, if not, why.

    Of several reasons, the one is given that will last longest: a full engine that lacks a tag lacks the tag.
    """
    engines = [_of_engine(task, worker, placement, host) for worker in placement.workers.values()]
    return [_of_task(task, placement, host), *engines]


def said(needs: Iterable[tuple[str, float | str]]) -> str:
    """Return needs or offers as users write them.

    >>> said([("gpu", 1.0), ("memory", 2.0**35), ("site", "a")])
    'gpu=1, memory=32G, site=a'
    """
    return ", ".join(f"{name}={value if isinstance(value, str) else _number(value)}" for name, value in needs)


def _number(value: float) -> str:
    for unit, size in _UNITS.items():
        if value >= size and value % size == 0:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _of_task(task: Task, placement: Placement, host: SchedulerHost) -> Reason:
    if task.state in (TaskState.RUNNING, TaskState.DONE):
        return Reason(None, task.state.value, f"is {task.state.value}")
    if task.aborted:
        return Reason(None, "aborted", "was aborted: no engine gets it")
    if task.state is TaskState.PAUSED:
        return Reason(None, "paused", f"waits for the end of the pause after attempt {task.attempts}")
    if task.state is TaskState.WAITING:
        if task.unknown:
            return Reason(None, "looked_up", "waits until the hub has looked up its dependencies")
        ids = sorted(task.depends_on)
        more = f" and {len(ids) - _MAX_NAMED} more" if len(ids) > _MAX_NAMED else ""
        return Reason(None, "waiting", f"depends on {', '.join(ids[:_MAX_NAMED])}{more}")
    pools = host.pools_for(task) if not placement.workers or placement.nobody_meets(task) else ()
    could = f"pool{'s' if len(pools) > 1 else ''} {' or '.join(pools)} could bring an engine for it" if pools else ""
    if not placement.workers:
        return Reason(None, "no_engine", f"is queued, and no engine is registered{'; ' if pools else ''}{could}")
    if pools and task.demand is not None:
        return Reason(None, "pool", f"needs {said(task.demand.needs)}, which no registered engine offers; {could}")
    unmet = placement.unmet(task)
    if unmet is not None:
        return Reason(None, f"unmet_{unmet}", _unmet(task))
    lengths = placement.queue.lengths_by_priority()
    priority = task.rules.priority
    higher = sum(length for other, length in lengths.items() if other > priority)
    same = lengths.get(priority, 1) - 1
    return Reason(
        None,
        "queued",
        f"is queued with priority {priority}; {higher:,} tasks with higher priorities and {same:,} others with the "
        "same priority are queued",
    )


def why_hopeless(task: Task, placement: Placement) -> str | None:
    """Return why no engine can ever run a queued task, as a sentence without its subject; None if an engine can."""
    return None if placement.unmet(task) is None else _unmet(task)


def _unmet(task: Task) -> str:
    if task.demand is None or task.unmet:
        lack = "" if task.demand is None else f", or they lack {said(task.demand.needs)}"
        return f"has a functional dependency that no engine meets: all engines have refused it{lack}"
    which = "no engine" if task.targets is None else "none of its targets"
    return f"needs {said(task.demand.needs)}, which {which} offers, even when it is idle"


def _of_engine(task: Task, worker: Worker, placement: Placement, host: SchedulerHost) -> Reason:
    ident, demand = worker.ident, task.demand
    if task.worker is worker:
        return Reason(ident, "runs_it", "runs it")
    if task.targets is not None and ident not in task.targets:
        return Reason(ident, "not_a_target", "is not among its targets")
    if ident in task.unmet:
        return Reason(ident, "refused", "has refused it: its dependency was not met there")
    if ident in task.refused:
        return Reason(ident, "refused", "has refused it: it has failed there before")
    if demand is not None:
        lacks = lacking(demand.needs, worker.offers)
        if lacks:
            return Reason(ident, "lacks", f"lacks {said(lacks)}")
        left = host.seconds_left(worker)
        if left < demand.runtime:
            limit = task.rules.max_runtime
            return Reason(
                ident, "too_short", f"has too little time left: {left:.0f} s, for a task of up to {limit:g} s"
            )
    if worker.state is WorkerState.EXPECTED:
        return Reason(ident, "expected", "is not back yet since the restart of the hub")
    if worker.draining:
        return Reason(ident, "draining", "is drained: it gets no new tasks")
    if worker.holds:
        return Reason(ident, "held", "gets no tasks for a moment, since a task on it is being interrupted")
    hwm = placement.hwm
    if hwm and len(worker.running) >= hwm:
        return Reason(ident, "full", f"is full: it has {len(worker.running)} of at most {hwm} tasks (setting hwm)")
    if demand is not None and (used := _in_use(worker, demand)):
        return Reason(ident, "in_use", f"has not enough free: {used}")
    if worker.reserved:
        return Reason(ident, "reserved", "gets no tasks until it has enough free for a task that has waited for long")
    if worker.feeding:
        return Reason(ident, "busy", "is being given other queued tasks")
    return Reason(ident, "may_run", "may run it now")


def _in_use(worker: Worker, demand: Demand) -> str:
    """Return the amounts that an engine offers, but of which it has not enough free, as text."""
    kind = worker.kind
    if kind is None:
        return ""
    costs = kind.costs_of(demand.needs)
    few = [
        f"{_number(max(free, 0) * AMOUNT_UNIT)} of {said([(name, dict(worker.offers)[name])])}"
        for name, free, cost in zip(kind.names, worker.free, costs, strict=True)
        if free < cost
    ]
    return ", ".join(few)
