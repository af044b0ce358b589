"""A cluster on a virtual clock: a queue of tasks, engines, and a batch system that lets blocks wait."""

from __future__ import annotations

import heapq
import math
from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from trio_hub.pools.demand import RunTimes
from trio_hub.pools.supply import BlockState

from .loads import Task

__all__ = ["BatchSystem", "Cluster", "Controller", "Job", "Node", "Result", "simulate"]


@dataclass(frozen=True)
class BatchSystem:
    """How long blocks take to come.

    - ``wait``: the median of the seconds for which a block waits in the queue, which vary widely;
    - ``startup``: the seconds from the start of a block until its engines are registered. They cost engine-hours.
    """

    wait: float = 20.0
    startup: float = 10.0

    def draw(self, rng: Random) -> float:
        return rng.lognormvariate(math.log(self.wait), 0.7) if self.wait else 0.0


@dataclass(slots=True, eq=False)
class Job:
    """A block, from its submission to its end."""

    ident: str
    engines: int
    asked: float
    state: BlockState = BlockState.WAITING
    started: float | None = None
    nodes: list[Node] = field(default_factory=list)
    tasks: int = 0
    first: float = math.inf
    """When the first of its tasks started."""
    last: float = -math.inf
    """When the last of its tasks ended."""


@dataclass(slots=True, eq=False)
class Node:
    """An engine."""

    ident: bytes
    job: Job
    idle_since: float | None
    task: Task | None = None
    retiring: bool = False


class Controller(Protocol):
    """Decides when blocks are submitted and given back."""

    def step(self, cluster: Cluster) -> float:
        """Look at the cluster, change it, and return when to be called again if nothing happens before."""


@dataclass(frozen=True)
class Result:
    """What a controller has made of a load.

    - ``engine_hours``: the sum over all engines of the hours from the start to the end of the engine's block;
    - ``placed_hours``: the engine-hours of the same blocks if each block had started just in time for its first task,
      and had ended with its last task. Tasks cannot move, so a long task keeps its whole block;
    - ``work_hours``: the hours for which engines ran tasks;
    - ``mean_wait``, ``wait_99``: the mean and the 99th percentile of the seconds for which tasks were queued;
    - ``blocks``: the number of blocks that were started;
    - ``wasted``: the number of started blocks that have run no task;
    - ``replaced``: the number of blocks that were asked for within ``idle_timeout`` after one was given back;
    - ``largest``: the largest number of engines at a time;
    - ``overshoot``: the largest number of engines that were there or asked for beyond ``max``.
    """

    engine_hours: float
    placed_hours: float
    work_hours: float
    mean_wait: float
    wait_99: float
    blocks: int
    wasted: int
    replaced: int
    largest: int
    overshoot: int


class Cluster:
    """Engines and blocks as a controller sees them, and the means to change them."""

    def __init__(self, rng: Random, system: BatchSystem, engines_per_block: int) -> None:
        self.now = 0.0
        self.queue: deque[Task] = deque()
        self.queued: Counter[str] = Counter()
        """The number of queued tasks by label."""
        self.run_times = RunTimes()
        self.running_since: dict[str, float] = {}
        """When the first task with each label started. This matters only until a task with the label has ended."""
        self.nodes: dict[bytes, Node] = {}
        self.jobs: dict[str, Job] = {}
        self.engines_per_block = engines_per_block
        self.events: list[tuple[float, int, str, object]] = []
        self.engine_seconds = self.placed_seconds = 0.0
        self.blocks = self.wasted = self.largest = 0
        self.asked_at: list[float] = []
        self.released_at: list[float] = []
        self._idle: OrderedDict[bytes, Node] = OrderedDict()
        self._rng, self._system = rng, system
        self._number = 0

    # What controllers do

    def submit(self, blocks: int) -> None:
        for _ in range(blocks):
            self._number += 1
            job = Job(f"b{self._number}", self.engines_per_block, self.now)
            self.jobs[job.ident] = job
            self.asked_at.append(self.now)
            self.at(self.now + self._system.draw(self._rng), "start", job)

    def drain(self, ident: bytes, draining: bool = True) -> None:
        node = self.nodes[ident]
        node.retiring = draining
        if draining:
            self._idle.pop(ident, None)
        elif node.task is None:
            self._idle[ident] = node
            self.place()

    def cancel(self, ident: str) -> None:
        job = self.jobs.pop(ident)
        assert not any(node.task for node in job.nodes), "a block was cancelled whose engines have work"
        job.state = BlockState.CANCELLED
        for node in job.nodes:
            del self.nodes[node.ident]
            self._idle.pop(node.ident, None)
        if job.started is not None:
            self.engine_seconds += (self.now - job.started) * job.engines
            if job.tasks:
                self.placed_seconds += (job.last - job.first + self._system.startup) * job.engines
            else:
                self.wasted += 1
            self.released_at.append(self.now)

    # What happens by itself

    def at(self, time: float, kind: str, what: object) -> None:
        self._number += 1
        heapq.heappush(self.events, (time, self._number, kind, what))

    def happen(self, kind: str, what: object) -> None:
        if isinstance(what, Task):
            self.queue.append(what)
            self.queued[what.label] += 1
        elif isinstance(what, Node):
            self._ended(what)
        elif isinstance(what, Job) and what.state is not BlockState.CANCELLED:
            if kind == "start":
                what.state, what.started = BlockState.RUNNING, self.now
                self.blocks += 1
                self.at(self.now + self._system.startup, "register", what)
            else:
                for number in range(what.engines):
                    node = Node(f"{what.ident}.{number}".encode(), what, self.now)
                    what.nodes.append(node)
                    self.nodes[node.ident] = self._idle[node.ident] = node
                self.largest = max(self.largest, len(self.nodes))

    def place(self) -> None:
        """Give queued tasks to idle engines, first to the engine that has been idle for longest. So all are used."""
        while self.queue and self._idle:
            _, node = self._idle.popitem(last=False)
            task = self.queue.popleft()
            self.queued[task.label] -= 1
            if not self.queued[task.label]:
                del self.queued[task.label]
            task.started = self.now
            self.running_since.setdefault(task.label, self.now)
            node.task, node.idle_since = task, None
            node.job.tasks += 1
            node.job.first = min(node.job.first, self.now)
            self.at(self.now + task.runtime, "end", node)

    def _ended(self, node: Node) -> None:
        assert node.task is not None
        self.run_times.note(node.task.label, node.task.runtime)
        node.task, node.idle_since, node.job.last = None, self.now, self.now
        if not node.retiring:
            self._idle[node.ident] = node


def simulate(
    tasks: Sequence[Task],
    controller: Controller,
    *,
    system: BatchSystem,
    engines_per_block: int,
    most: int,
    seed: int,
    tick: float = 1.0,
    idle_timeout: float = 30.0,
) -> Result:
    """Run a load, and return what it took.

    Args:
        tasks: the load, in the order of submissions. Their attribute ``started`` is set.
        controller: decides on the size of the pool.
        system: the batch system.
        engines_per_block: the engines of each block.
        most: the maximum number of engines, for ``Result.overshoot``.
        seed: for the waits in the batch system.
        tick: the seconds between two calls of the controller, at least.
        idle_timeout: the seconds for ``Result.replaced``.
    """
    cluster = Cluster(Random(seed), system, engines_per_block)
    for task in tasks:
        cluster.at(task.submitted, "submit", task)
    due, overshoot, changed = 0.0, 0, True
    last = 0.0
    while True:
        following = cluster.events[0][0] if cluster.events else math.inf
        decision = max(last + tick, cluster.now) if changed else max(due, last + tick)
        if not cluster.events and not cluster.queue and not cluster.jobs:
            break
        if following <= decision:
            cluster.now, _, kind, what = heapq.heappop(cluster.events)
            cluster.happen(kind, what)
            cluster.place()
            changed = True
        else:
            cluster.now = last = decision
            due, changed = controller.step(cluster), False
            size = sum(job.engines for job in cluster.jobs.values())
            overshoot = max(overshoot, size - most)
    waits = sorted(task.started - task.submitted for task in tasks)
    assert waits[0] >= 0, "a task was not run"
    return Result(
        engine_hours=cluster.engine_seconds / 3600,
        placed_hours=cluster.placed_seconds / 3600,
        work_hours=sum(task.runtime for task in tasks) / 3600,
        mean_wait=sum(waits) / len(waits),
        wait_99=waits[int(len(waits) * 0.99)],
        blocks=cluster.blocks,
        wasted=cluster.wasted,
        replaced=_replaced(cluster.asked_at, cluster.released_at, idle_timeout),
        largest=cluster.largest,
        overshoot=overshoot,
    )


def _replaced(asked: Sequence[float], released: Sequence[float], seconds: float) -> int:
    """Return the number of blocks that were asked for within so many seconds after one was released."""
    number, recent = 0, deque[float]()
    times = deque(released)
    for time in asked:
        while times and times[0] <= time:
            recent.append(times.popleft())
        while recent and time - recent[0] > seconds:
            recent.popleft()
        if recent:
            recent.popleft()
            number += 1
    return number
