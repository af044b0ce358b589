"""Pooling: what the pools have to know of the queue and of the engines, and what they have done to engines.

The rules that decide how large pools are (`trio_hub.pools`) get their facts here: the queued tasks in groups, and the
state of each engine. Nothing is noted for them when a task comes or goes, besides counters: the facts are found when
somebody looks, by comparing the counters with those of the last look.

All times are by the hub's clock, in seconds since 1970.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import TypeVar

from ..logs import get_logger
from ..pools.demand import Demand, Queued
from ..pools.settings import PoolSettings
from ..pools.supply import Engine
from ..schedulers.levels import Level
from ..schedulers.task import Task, Worker
from .answers import Answers
from .bringing import Bringing
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

MOST_LABELLED = 256
"""The number of queued tasks whose labels are read at one look. The others presumably have the same labels."""
MOST_AT_ENGINE = 16
"""The number of tasks at one engine whose labels are read at one look."""
RECENT = 5.0
"""Seconds. Tasks that wait at an engine count as queued for so long after the engine was given its last task."""


class Pooling:
    """Tells what pools depend on, and drains the engines that pools give back.

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
        self._scheduler = tasks.scheduler
        self._measured = tasks.measured
        self._direct = direct
        self._broadcasts = broadcasts
        self._answers = answers
        self._draining = work.draining
        self._kills = work.interrupts.kills
        self._looks: dict[EngineConnector, _Look] = {}
        """What was seen of each engine at the last look."""
        self._longest: dict[str, float] = {}
        """By label, for how many seconds a task with this label had been running at most, at the last look."""
        self._assignments: deque[tuple[float, int]] = deque()
        """How many attempts had been sent to engines at recent looks, each with the time of the look."""

    # Settings

    @property
    def pools(self) -> Sequence[PoolSettings]:
        """The settings of all pools, for tasks that no registered engine can run."""
        return self._bringing.pools

    def use(self, pools: Sequence[PoolSettings]) -> None:
        """Replace the settings of all pools, such as after a pool was scaled."""
        self._bringing.use(pools)

    @property
    def measure(self) -> bool:
        """Whether the run times of tasks are noted, which is of use only for pools that grow and shrink."""
        return self._measured.is_on

    @measure.setter
    def measure(self, on: bool) -> None:
        self._measured.switch(on=on)

    # What has changed

    def mark(self) -> Mark:
        """Return counters for `has_changed`. This costs little, however many tasks and engines there are."""
        scheduler, engines = self._scheduler, self._engines
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
            self._draining.changes,
            scheduler.placement.matching.joins,
        )

    def has_changed(self, mark: Mark) -> bool:
        """Return whether something has happened since `mark` has returned this that a pool's size may depend on.

        The time alone is not noticed: a running task runs longer, and an idle engine is idle for longer.
        """
        return mark != self.mark()

    # The queue

    def demand(self) -> Demand:
        """Return the queued tasks that a new engine could run, in groups, those with the highest priority first.

        These are left out: tasks with targets, tasks that wait for others, tasks that are paused before their next
        attempt, and tasks whose functional dependency was not met on an engine. The numbers of tasks are exact. Which
        labels they have, and so how long they will take, is found from a sample.

        If engines may have several tasks each (``hwm`` is not 1), tasks also wait at engines. No other engine can run
        these, but the tasks that come after them could run on further engines. So tasks that wait at an engine count as
        queued, until the engine has got none for `RECENT` seconds.
        """
        self._measured.looked()
        groups: Counter[Queued] = Counter()
        levels = [level for level in self._scheduler.queue.levels() if level.line.targets is None]
        each = max(MOST_LABELLED // len(levels), 1) if levels else 0
        for level in levels:
            self._count(groups, level, each)
        if self._scheduler.hwm != 1:
            for worker in self._recently_fed():
                waiting = len(worker.running) - 1
                sample = list(islice(worker.running.values(), 1, 1 + MOST_AT_ENGINE))
                found = Counter(self._kind_of(task) for task in sample)
                groups.update(_kinds(_scaled(found, waiting)))
        queued = [Queued(tasks, one.needs, one.priority, one.runtime, one.max_runtime) for one, tasks in groups.items()]
        return tuple(sorted(queued, key=lambda one: -one.priority))

    def _count(self, groups: Counter[Queued], level: Level, most: int) -> None:
        found = Counter(self._kind_of(task) for task in level.sample(most))
        groups.update(_kinds(_scaled(found, level.queued)))

    def _kind_of(self, task: Task) -> Queued | None:
        """Return a group of tasks like this one, without their number; None if no new engine could run the task."""
        if task.targets is not None or task.unmet:
            return None
        label = self._measured.label_of(task)
        runtime = None if label is None else self._measured.times.expected(label, self._longest.get(label, 0.0))
        demand = task.demand
        needs, max_runtime = ((), 0.0) if demand is None else (demand.needs, demand.runtime)
        return Queued(0, needs, task.rules.priority, runtime, max_runtime)

    def _recently_fed(self) -> Iterator[Worker]:
        """Yield the engines at which tasks wait, and which got a task within the last `RECENT` seconds."""
        now = self._now().timestamp()
        marks = self._assignments
        marks.append((now, self._scheduler.placement.assignments))
        while len(marks) > 1 and marks[1][0] <= now - RECENT:
            marks.popleft()
        before = marks[0][1] if marks[0][0] <= now - RECENT else 0
        for worker in self._scheduler.workers.values():
            if len(worker.running) > 1 and worker.takes_tasks and worker.last_used > before:
                yield worker

    # The engines

    def engines(self) -> list[Engine]:
        """Return what pools depend on of each registered engine."""
        now = self._now().timestamp()
        looks, self._looks = self._looks, {}
        self._longest = {}
        found = []
        for engine in self._engines.alive.values():
            look = looks.get(engine)
            if look is None:
                look = _Look()
            self._looks[engine] = look
            look.update(engine, now)
            found.append(self._described(engine, look, now))
        return found

    def _described(self, engine: EngineConnector, look: _Look, now: float) -> Engine:
        drain = self._draining.drains.get(engine.ident)
        return Engine(
            engine.ident,
            engine.block,
            idle_since=look.idle_since,
            busy_for=self._busy_for(engine, look, now) if look.idle_since is None else 0.0,
            direct=len(engine.mux) + len(engine.broadcast),
            addressed=look.addressed_at,
            draining=drain is not None or engine.told_to_stop or self._kills.is_killing(engine.ident),
            retiring=drain is not None and drain.retiring,
            ends=math.inf if engine.leaves_at is None else engine.leaves_at,
            offers=engine.offers,
        )

    def _busy_for(self, engine: EngineConnector, look: _Look, now: float) -> float:
        """Return the expected seconds until an engine has carried out what it carries out now.

        A direct request presumably takes as long again as it has taken until now.
        """
        elapsed = now - look.since
        running = engine.worker.running if engine.worker else {}
        task = running.get(look.first)
        direct = 0.0
        if task is None:
            direct, elapsed = elapsed, 0.0
            task = next(iter(running.values()), None)
        if task is None:
            return direct
        label = self._measured.label_of(task)
        if label is None:
            return math.inf
        self._longest[label] = max(self._longest.get(label, 0.0), elapsed)
        return direct + self._measured.times.remaining(label, elapsed)

    # What pools do to engines

    def retire(self, ident: bytes, by: str) -> bool:
        """Give an engine no new tasks, since its pool gives the engine back. That is kept over a restart of the hub.

        Args:
            ident: the identity of the engine.
            by: who asks for it, such as ``pool slurm``: for the log, the event and the pages.

        Return False if the engine is not registered.
        """
        engine = self._engines.by_ident.get(ident)
        if engine is None:
            return False
        self._draining.retire(engine, by=by)
        return True

    def take_back(self, ident: bytes, by: str) -> bool:
        """Give an engine tasks again that was retiring. If somebody else has drained the engine, it stays drained.

        Return False if the engine is not registered or not retiring, or was told to end already.
        """
        engine = self._engines.by_ident.get(ident)
        return engine is not None and self._draining.take_back(engine, by=by)

    def shut_down(self, block: str) -> int:
        """Tell all registered engines of a block to end, and return how many were told.

        An engine that has not answered an earlier request to end is not told again.
        """
        told = 0
        for engine in list(self._engines.alive.values()):
            if engine.block == block:
                told += self._draining.shut_down(engine)
        if told:
            log.info("the engines of a block are told to end", block=block, engines=told)
        return told


class _Look:
    """What was seen of an engine at the last look.

    - ``idle_since``: since when the engine has had no request; None if it has one;
    - ``addressed_at``: when a client had sent it a request of its own; None if that was not seen;
    - ``first``: the msg_id of the request that it carries out; empty if there is none;
    - ``since``: when the engine was seen to begin with that request.
    """

    __slots__ = ("_addressed", "_counts", "addressed_at", "first", "idle_since", "since")

    def __init__(self) -> None:
        self._counts = (-1, -1)
        self._addressed = 0
        self.addressed_at: float | None = None
        self.idle_since: float | None = None
        self.first = ""
        self.since = 0.0

    def update(self, engine: EngineConnector, now: float) -> None:
        """Look at an engine again."""
        first = engine.first_request or ""
        if first != self.first:
            self.first, self.since = first, now
        counts = engine.completed, engine.worker.last_used if engine.worker else 0
        if engine.addressed != self._addressed:
            self._addressed, self.addressed_at = engine.addressed, now
            counts_differ = True
        else:
            counts_differ = counts != self._counts
        self._counts = counts
        if first:
            self.idle_since = None
        elif self.idle_since is None or counts_differ:
            self.idle_since = now


def _scaled(sample: Mapping[T, int], total: int) -> dict[T, int]:
    """Return how many of all things are of each kind, in the proportions of a sample. The numbers add up to the total.

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


def _kinds(counts: Mapping[Queued | None, int]) -> dict[Queued, int]:
    return {kind: number for kind, number in counts.items() if kind is not None and number}
