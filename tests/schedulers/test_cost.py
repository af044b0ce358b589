"""The cost of a step depends neither on the number of engines nor on the number of waiting tasks.

Counted, not timed: the bytecodes run in each step. Loops in C over engines are seen as well, since their
identities hash and compare in Python.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from random import Random
from types import FrameType
from typing import Any

import pytest

from trio_hub.schedulers.rules import TaskRules
from trio_hub.schedulers.schemes import SCHEMES
from trio_hub.schedulers.task import Task, Worker
from trio_hub.schedulers.tasks import TaskScheduler

from .making import Recorder, make_task

FEW, MANY = 10, 4_000
STEPS = 5  # the number of steps of each kind


class Ident(bytes):
    """An identity whose every hash and comparison is counted."""

    def __hash__(self) -> int:
        return bytes.__hash__(self)

    def __eq__(self, other: object) -> bool:
        return bytes.__eq__(self, other)


def bytecodes(step: Callable[[], object]) -> int:
    count = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    gc.disable()  # a collection would run finalizers of what other tests have left
    sys.settrace(trace)
    try:
        step()
    finally:
        sys.settrace(before)
        gc.enable()
    return count


class Plant:
    """A scheduler with many engines, each of them busy or idle, and with tasks that wait."""

    def __init__(self, scheme: str, engines: int, queued: int, *, busy: bool) -> None:
        self.scheduler = TaskScheduler(Recorder(), Random(1), hwm=1, scheme=scheme)
        self.idents = [Ident(b"%d" % number) for number in range(engines)]
        self.workers = [self.scheduler.add_engine(ident) for ident in self.idents]
        self.number = 0
        if busy:
            for _ in range(engines):
                self.submit(retries=3)
        for number in range(queued):
            self.submit(session=str(number % 7), retries=3, targets=["0"] if number % 2 else None)

    def submit(self, **metadata: Any) -> Task:
        self.number += 1
        task = make_task(str(self.number), **metadata)
        self.scheduler.submit(task)
        return task

    def running(self, number: int) -> Task:
        """Return the task with this number, which one engine runs."""
        return next(iter(self.workers[1 + number].running.values()))


def steps_of(plant: Plant, what: str) -> Iterator[Callable[[], object]]:
    scheduler = plant.scheduler
    for number in range(STEPS):
        if what == "submit":
            yield lambda: plant.submit(session="another")
        elif what == "submit with a target":
            yield lambda number=number: plant.submit(targets=[str(number)])  # type: ignore[misc]
        elif what == "submit what nobody may run":
            yield lambda: plant.submit(targets=["nobody"])
        elif what == "result":
            task = plant.running(number)
            yield lambda task=task: scheduler.result(task, ok=True)  # type: ignore[misc]
        elif what == "failure":
            task = plant.running(number)
            yield lambda task=task: scheduler.result(task, ok=False)  # type: ignore[misc]
        elif what == "unmet dependency":
            task = plant.running(number)
            yield lambda task=task: scheduler.result(task, ok=False, dependencies_met=False)  # type: ignore[misc]
        elif what == "add engine":
            yield lambda number=number: scheduler.add_engine(Ident(b"new%d" % number))  # type: ignore[misc]
        else:
            assert what == "remove engine"
            worker = plant.workers[1 + number]
            yield lambda worker=worker: lose(scheduler, worker)  # type: ignore[misc]


def lose(scheduler: TaskScheduler, worker: Worker) -> None:
    scheduler.remove_engine(worker)
    scheduler.settle(worker)


BUSY = ["submit", "submit with a target", "result", "failure", "unmet dependency", "add engine", "remove engine"]
IDLE = ["submit", "submit with a target", "submit what nobody may run", "add engine", "remove engine"]


def worst(scheme: str, what: str, *, engines: int, queued: int, busy: bool) -> int:
    return max(map(bytecodes, steps_of(Plant(scheme, engines, queued, busy=busy), what)))


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
@pytest.mark.parametrize("what", BUSY)
def test_busy_engines_and_waiting_tasks(scheme: str, what: str) -> None:
    few = worst(scheme, what, engines=FEW, queued=FEW, busy=True)
    many = worst(scheme, what, engines=MANY // 5, queued=MANY, busy=True)
    assert many < 2 * few + 300


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
@pytest.mark.parametrize("what", IDLE)
def test_idle_engines(scheme: str, what: str) -> None:
    few = worst(scheme, what, engines=FEW, queued=0, busy=False)
    many = worst(scheme, what, engines=MANY, queued=0, busy=False)
    assert many < 2 * few + 300


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_a_retry_with_many_idle_engines(scheme: str) -> None:
    def failures(engines: int) -> int:
        plant = Plant(scheme, engines, 0, busy=False)
        task = plant.submit(retries=5)
        return max(bytecodes(lambda: plant.scheduler.result(task, ok=False)) for _ in range(5))

    assert failures(MANY) < 2 * failures(FEW) + 300


# Needs and priorities


class Cluster:
    """A scheduler with engines of several kinds, whose names and amounts tasks ask for."""

    def __init__(self, scheme: str, engines: int, kinds: int, *, queued: int, hwm: int = 1) -> None:
        self.recorder = Recorder()
        self._running: list[str] = []
        self.scheduler = TaskScheduler(self.recorder, Random(1), hwm=hwm, scheme=scheme)
        self.number = 0
        if queued:
            for _ in range(2 * queued):  # they wait for the engines
                self.submit()
        for number in range(engines):
            # The kinds differ in their amounts of memory, and half of them have GPUs.
            kind = number % kinds
            offers = (("gpu", 1.0 + kind % 2), ("host", f"n{number}"), ("memory", 2.0 ** (30 + kind)))
            self.scheduler.add_engine(b"%d" % number, offers=offers[kind % 2 :])

    def submit(self) -> Task:
        self.number += 1
        needs = (("gpu", 1.0), ("memory", 2.0**30)) if self.number % 2 else (("memory", 2.0**31),)
        rules = TaskRules(priority=self.number % 3, needs=needs)
        task = make_task(str(self.number), str(self.number % 5), rules)
        self.scheduler.submit(task)
        return task

    def step(self) -> None:
        """Submit a task, and end the task that was assigned first."""
        self.submit()
        if self.running:
            task = self.scheduler.tasks[self.running.pop(0)]
            self.scheduler.result(task, ok=True)

    @property
    def running(self) -> list[str]:
        """The msg_ids of the running tasks, in the order of their assignments."""
        self._running += [msg_id for msg_id, _ in self.recorder.assigned]
        self.recorder.assigned.clear()
        return self._running


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
@pytest.mark.parametrize("queued", [0, 1_000])
def test_needs_cost_the_same_with_1000_engines_of_20_kinds_as_with_8(scheme: str, queued: int) -> None:
    def cost(engines: int, kinds: int) -> float:
        cluster = Cluster(scheme, engines, kinds, queued=queued)
        for _ in range(10):
            cluster.step()
        return sum(bytecodes(cluster.step) for _ in range(100)) / 100

    few, many = cost(8, 4), cost(1_000, 20)
    assert many <= 1.25 * few


# Dependencies


class Waiting:
    """A scheduler with one engine, and very many tasks that depend on the same tasks."""

    def __init__(self, waiting: int, how: str) -> None:
        self.scheduler = TaskScheduler(Recorder(), Random(1))
        self.worker = self.scheduler.add_engine(b"a")
        self.first = self.submit("first")
        self.second = self.submit("second")
        for number in range(waiting):
            dependencies: dict[str, dict[str, Any]] = {
                "a chain": {"after": [f"w{number - 1}" if number else "second"]},
                "a star": {"after": ["second"]},
                "follow": {"follow": {"dependencies": ["second", "first"], "all": False}},
                "queued": {},
                "time limits": {"after": ["second"], "timeout": 1.0},
            }
            self.submit(f"w{number}", **dependencies[how])

    def submit(self, msg_id: str, session: str = "client", **metadata: Any) -> Task:
        task = make_task(msg_id, session, **metadata)
        assert self.scheduler.submit(task)
        return task

    def end(self, *, ok: bool = True) -> None:
        [task] = self.worker.running.values()
        assert self.scheduler.result(task, ok=ok)

    def steps(self) -> list[int]:
        """Return the cost of each of some steps. At most one task becomes runnable in each."""
        scheduler = self.scheduler
        costs = [
            bytecodes(lambda: self.submit("independent", "another")),
            bytecodes(lambda: self.submit("dependent", "another", after=["independent"])),
            bytecodes(lambda: self.submit("on two", "another", after=["independent", "dependent"], timeout=1.0)),
            bytecodes(lambda: self.submit("to give up", after=["second"])),
            bytecodes(lambda: scheduler.timed_out(scheduler.tasks["to give up"])),
        ]
        costs.append(bytecodes(self.end))  # the first
        costs.append(bytecodes(lambda: self.submit("on what has ended", after=["first"])))
        return costs


@pytest.mark.parametrize("how", ["a chain", "a star", "queued", "time limits"])
def test_tasks_that_wait_for_others_cost_nothing_meanwhile(how: str) -> None:
    few, many = (max(Waiting(waiting, how).steps()) for waiting in (10, 10_000))
    assert many < 2 * few + 300


@pytest.mark.parametrize("how", ["a star", "follow"])
def test_the_cost_of_what_becomes_runnable_is_in_proportion(how: str) -> None:
    """The last step makes all tasks runnable at once, while other tasks are queued."""

    def cost(waiting: int) -> float:
        plant = Waiting(waiting, how)
        for number in range(waiting):
            plant.submit(f"q{number}")
        plant.end()
        while list(plant.worker.running) != ["second"]:
            plant.end()
        for number in range(waiting):
            plant.submit(f"late {number}", after=["second"])
            plant.submit(f"r{number}")
        return bytecodes(plant.end) / waiting

    assert cost(500) < 2 * cost(50) + 100


def test_each_link_of_a_chain_costs_the_same() -> None:
    def cost(waiting: int) -> int:
        plant = Waiting(waiting, "a chain")
        plant.end()
        plant.end()
        return max(bytecodes(plant.end) for _ in range(5))

    assert cost(10_000) < 2 * cost(10) + 300


def test_the_count_sees_what_it_should() -> None:
    """A loop over all engines, in Python or in C, is more than is allowed."""
    plant = Plant("lru", MANY, 0, busy=False)
    assert bytecodes(lambda: [worker.load for worker in plant.workers]) > MANY
    assert bytecodes(lambda: set(plant.idents)) > MANY
    assert bytecodes(lambda: len(plant.idents)) < 100
