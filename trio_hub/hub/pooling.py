"""Pooling: tells pools the facts about the queue and the engines, and drains engines for pools.

The rules that decide how large pools are (`trio_hub.pools`) get their facts here: the queued tasks in groups, and the
state of each engine. When a task comes or goes, the hub only counts. `Pooling` finds the facts when somebody asks for
them: it compares the counters with their values at the last look.

All times are by the hub's clock, in seconds since 1970.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import NamedTuple, TypeVar

from ..logs import get_logger
from ..pools.demand import Demand, Queued
from ..pools.settings import PoolSettings
from ..pools.supply import Engine
from ..schedulers.rules import Needs
from ..schedulers.task import Task, Worker
from .answers import Answers
from .bringing import Bringing, may_bring
from .broadcasts import Broadcasts
from .connector import EngineConnector
from .direct import DirectQueue
from .engines import Engines
from .tasks import TaskQueue
from .workcontrol import WorkControl

__all__ = ["Mark", "Pooling"]

log = get_logger("trio_hub.hub")

Mark = tuple[int, ...]
"""Counters that differ when something has changed that the size of a pool depends on."""
T = TypeVar("T")

LABELLED = 128
"""About how many queued tasks have their labels read at one look, but at least one task in each level of the queue. The
other tasks are presumed to be like these tasks."""
MOST_AT_ENGINE = 16
"""The maximum number of tasks at one engine whose labels are read at one look."""
RECENT = 5.0
"""Seconds. Tasks that wait at an engine count as queued for so long after the engine was given its last task."""


class Pooling:
    """Reports the facts on which the sizes of pools depend, and drains the engines that pools give back.

    Args:
        now: the current time, aware and in UTC.
        bringing: the settings of the pools.
        engines, tasks, direct, broadcasts, answers, work: the parts of the hub below.
    """

    def __init__(
        self,
        now: Callable[[], datetime],
        *,
        bringing: Bringing,
        engines: Engines,
        tasks: TaskQueue,
        direct: DirectQueue,
        broadcasts: Broadcasts,
        answers: Answers,
        work: WorkControl,
    ) -> None:
        self._now = now
        self._bringing = bringing
        self._engines = engines
        self._tasks = tasks
        self._direct = direct
        self._broadcasts = broadcasts
        self._answers = answers
        self._work = work
        self._looks: dict[EngineConnector, _Look] = {}
        """What was seen of each engine at the last look."""
        self._longest: dict[str, float] = {}
        """For how many seconds a task with each label had been running at the last look, at most."""
        self._assignments: deque[tuple[float, int]] = deque()
        """The time of each recent look, and how many attempts had been sent to engines by then."""

    # Settings

    @property
    def pools(self) -> Sequence[PoolSettings]:
        """The settings of all pools. Tasks that no registered engine can run are compared with these settings."""
        return self._bringing.pools

    def use(self, pools: Sequence[PoolSettings]) -> None:
        """Replace the settings of all pools, such as after a pool was scaled."""
        self._bringing.use(pools)

    @property
    def measure(self) -> bool:
        """Whether the hub notes the run times of tasks. Only pools that grow and shrink need them."""
        return self._tasks.measured.is_on

    @measure.setter
    def measure(self, on: bool) -> None:
        self._tasks.measured.switch(on=on)

    # What has changed

    def mark(self) -> Mark:
        """Return counters for `has_changed`. This costs little, however many tasks and engines there are."""
        scheduler, engines = self._tasks.scheduler, self._engines
        return (
            len(scheduler.queue),
            scheduler.submissions,
            scheduler.running,
            scheduler.placement.assignments,
            self._direct.submitted,
            self._broadcasts.submitted,
            sum(sum(outcomes.values()) for outcomes in self._answers.outcomes.values()),
            len(engines.alive),
            engines.engines_registered,
            sum(engines.engines_lost.values()),
            self._work.draining.changes,
            scheduler.placement.matching.joins,
        )

    def has_changed(self, mark: Mark) -> bool:
        """Return whether something on which a pool's size may depend has changed since `mark` returned this value.

        The time alone is not noticed: a running task runs longer, and an idle engine is idle for longer.
        """
        return mark != self.mark()

    # The queue

    def demand(self) -> Demand:
        """Return the queued tasks that a new engine could run, in groups, those with the highest priority first.

        These are left out: tasks with targets, tasks that wait for others, tasks that are paused before their next
        attempt, and tasks whose functional dependency was not met on an engine. The numbers of tasks are exact. Their
        labels, and so their expected run times, come from a sample.

        If engines may have several tasks each (``hwm`` is not 1), tasks also wait at engines. No other engine can run
        these, but the tasks that come after them could run on further engines. So tasks that wait at an engine count as
        queued, until the engine has got no task for `RECENT` seconds.
        """
        self._tasks.measured.looked()
        groups: Counter[Queued] = Counter()
        levels = [level for level in self._tasks.scheduler.queue.levels() if level.line.targets is None]
        each = max(LABELLED // len(levels), 1) if levels else 0
        for level in levels:
            self._count(groups, level.sample(each), level.queued)
        if self._tasks.scheduler.hwm != 1:
            for worker in self._recently_fed():
                sample = islice(worker.running.values(), 1, 1 + MOST_AT_ENGINE)
                self._count(groups, sample, len(worker.running) - 1)
        queued = [replace(kind, tasks=tasks) for kind, tasks in groups.items()]
        return tuple(sorted(queued, key=lambda one: -one.priority))

    def _count(self, groups: Counter[Queued], sample: Iterable[Task], total: int) -> None:
        """Add so many tasks to the groups, in the proportions of a sample, without the tasks that bring no engines."""
        found = _scaled(Counter(self._kind_of(task) for task in sample), total)
        groups.update({kind: number for kind, number in found.items() if kind is not None and number})

    def _kind_of(self, task: Task) -> Queued | None:
        """Return a group of tasks like this one, without their number; None if no new engine could run the task."""
        if not may_bring(task):
            return None
        label = self._tasks.measured.label_of(task)
        runtime = None if label is None else self._tasks.measured.times.expected(label, self._longest.get(label, 0.0))
        demand = task.demand
        needs, max_runtime = ((), 0.0) if demand is None else (demand.needs, demand.runtime)
        return Queued(0, needs, task.rules.priority, runtime, max_runtime)

    def _recently_fed(self) -> Iterator[Worker]:
        """Yield the engines at which tasks wait, and which got a task within the last `RECENT` seconds."""
        now = self._now().timestamp()
        marks = self._assignments
        marks.append((now, self._tasks.scheduler.placement.assignments))
        while len(marks) > 1 and marks[1][0] <= now - RECENT:
            marks.popleft()
        before = marks[0][1] if marks[0][0] <= now - RECENT else 0
        for worker in self._tasks.scheduler.workers.values():
            if len(worker.running) > 1 and worker.takes_tasks and worker.last_used > before:
                yield worker

    # The engines

    def engines(self) -> list[Engine]:
        """Return the facts about each registered engine on which the sizes of pools depend."""
        now = self._now().timestamp()
        looks, self._looks = self._looks, {}
        self._longest = {}
        found = []
        for engine in self._engines.alive.values():
            look = looks.get(engine)
            if look is None:
                look = _Look()
            self._looks[engine] = look
            facts = self._facts(engine)
            if look.told is None or look.told.idle_since is None or facts != look.facts:
                look.update(engine, facts, now)
                look.told = self._described(engine, look, now)
            found.append(look.told)
        return found

    def _facts(self, engine: EngineConnector) -> _Facts:
        """Return the facts, besides the time, on which the description of an engine depends."""
        worker, drain = engine.worker, self._work.draining.drains.get(engine.ident)
        used = (0, 0) if worker is None else (worker.last_used, len(worker.running))
        return _Facts(
            (engine.completed, engine.addressed, *used, len(engine.mux) + len(engine.broadcast)),
            drain is not None or engine.told_to_stop or self._work.interrupts.kills.is_killing(engine.ident),
            drain is not None and drain.retiring,
            engine.leaves_at,
            engine.offers,
            engine.block,
        )

    def _described(self, engine: EngineConnector, look: _Look, now: float) -> Engine:
        facts = look.facts
        assert facts is not None
        return Engine(
            engine.ident,
            facts.block,
            idle_since=look.idle_since,
            busy_for=self._busy_for(engine, look, now) if look.idle_since is None else 0.0,
            direct=facts.counts[-1],
            addressed=look.addressed_at,
            draining=facts.draining,
            retiring=facts.retiring,
            ends=math.inf if facts.leaves_at is None else facts.leaves_at,
            offers=facts.offers,
        )

    def _busy_for(self, engine: EngineConnector, look: _Look, now: float) -> float:
        """Return the expected seconds until an engine has carried out its present requests.

        A direct request presumably takes as long again as it has taken until now.
        """
        elapsed, direct = now - look.since, 0.0
        running = engine.worker.running if engine.worker else {}
        task = running.get(look.first)
        if task is None:
            direct, elapsed = elapsed, 0.0
            task = next(iter(running.values()), None)
        if task is None:
            return direct
        if look.task is not task:
            look.task, look.label = task, self._tasks.measured.label_of(task)
        if look.label is None:
            return math.inf
        self._longest[look.label] = max(self._longest.get(look.label, 0.0), elapsed)
        return direct + self._tasks.measured.times.remaining(look.label, elapsed)

    # What pools do to engines

    def retire(self, ident: bytes, by: str) -> bool:
        """Give an engine no new tasks, since its pool gives the engine back. A restarted hub goes on with the drain.

        Args:
            ident: the identity of the engine.
            by: who asks for it, such as ``pool slurm``: for the log, the event and the pages.

        Return False if the engine is not registered.
        """
        engine = self._engines.by_ident.get(ident)
        if engine is None:
            return False
        self._work.draining.retire(engine, by=by)
        return True

    def take_back(self, ident: bytes, by: str) -> bool:
        """Give an engine tasks again that was retiring. If somebody else has drained the engine, it stays drained.

        Return False if the engine is not registered or not retiring, or was told to end already.
        """
        engine = self._engines.by_ident.get(ident)
        return engine is not None and self._work.draining.take_back(engine, by=by)

    def shut_down(self, block: str) -> int:
        """Tell all registered engines of a block to end, and return how many were told.

        An engine that has not answered an earlier request to end is not told again.
        """
        told = 0
        for engine in list(self._engines.alive.values()):
            if engine.block == block:
                told += self._work.draining.shut_down(engine)
        if told:
            log.info("the engines of a block are told to end", block=block, engines=told)
        return told


class _Facts(NamedTuple):
    """The facts, besides the time, on which the description of an engine depends.

    - ``counts``: how many requests it has answered, how many direct requests it has got, the number of the last attempt
      that it was sent, how many tasks it has, and how many direct requests and shares of broadcasts it has.
    """

    counts: tuple[int, ...]
    draining: bool
    retiring: bool
    leaves_at: float | None
    offers: Needs
    block: str


class _Look:
    """What was seen of an engine at the last look.

    - ``facts``: see `_Facts`; None before the first look;
    - ``told``: the description of the engine. It stays right while the engine is idle and its facts are the same;
    - ``idle_since``: since when the engine has had no request; None if it has one;
    - ``addressed_at``: when a direct request, or a broadcast to chosen engines, was last seen; None if none was seen;
    - ``first``: the msg_id of the request that the engine carries out; empty if there is none;
    - ``since``: when the engine was seen to begin with that request;
    - ``task``, ``label``: the first of its tasks, and the label of this task.
    """

    __slots__ = ("addressed_at", "facts", "first", "idle_since", "label", "since", "task", "told")

    def __init__(self) -> None:
        self.facts: _Facts | None = None
        self.told: Engine | None = None
        self.addressed_at: float | None = None
        self.idle_since: float | None = None
        self.first = ""
        self.since = 0.0
        self.task: Task | None = None
        self.label: str | None = None

    def update(self, engine: EngineConnector, facts: _Facts, now: float) -> None:
        """Look at an engine again."""
        first = engine.first_request or ""
        if first != self.first:
            self.first, self.since = first, now
        before, self.facts = self.facts, facts
        if engine.addressed != (0 if before is None else before.counts[1]):
            self.addressed_at = now
        if first:
            self.idle_since = None
        else:
            self.task = None
            if self.idle_since is None or before is None or before.counts != facts.counts:
                self.idle_since = now


def _scaled(sample: Mapping[T, int], total: int) -> dict[T, int]:
    """Return numbers of things by kind, in the proportions of a sample. The numbers add up to the total.

    >>> _scaled({"a": 2, "b": 1}, 10)
    {'a': 6, 'b': 4}
    """
    size = sum(sample.values())
    scaled, seen, given = {}, 0, 0
    for kind, number in sample.items():
        seen += number
        scaled[kind] = total * seen // size - given
        given += scaled[kind]
    return scaled
