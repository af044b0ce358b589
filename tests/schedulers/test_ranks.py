"""Properties of ranks: shares by weight, ageing of low priorities, and large needs that do not starve."""

from __future__ import annotations

from itertools import combinations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_hub.schedulers.fairqueue import LATE, FairQueue
from trio_hub.schedulers.rules import TaskRules
from trio_hub.schedulers.task import Task

from .making import Bench, make_task

pytestmark = pytest.mark.property


class Numbered:
    """A queue whose tasks are numbered in the order in which they were pushed."""

    def __init__(self) -> None:
        self.queue = FairQueue()
        self.number = 0

    def push(self, session: str, rules: TaskRules, targets: str = "") -> Task:
        self.number += 1
        task = make_task(str(self.number), session, rules, targets=list(targets) or None)
        task.number = self.number
        self.queue.push(task)
        return task

    def take(self, ident: str = "x") -> Task:
        task = self.queue.take(ident.encode())
        assert task is not None
        return task


weights = st.sampled_from([0.5, 1.0, 2.0, 3.0, 10.0])


@settings(max_examples=30)
@given(st.lists(weights, min_size=2, max_size=5), st.integers(10, 120))
def test_sessions_share_by_weight(shares: list[float], turns: int) -> None:
    """At each moment the turns of two sessions, divided by their weights, differ by one turn of each at most."""
    numbered = Numbered()
    for _ in range(turns):
        for session, weight in enumerate(shares):
            numbered.push(str(session), TaskRules(weight=weight))
    served = [0] * len(shares)
    for _ in range(turns):
        served[int(numbered.take().session)] += 1
        for (one, weight), (other, weight_of_other) in combinations(zip(served, shares, strict=True), 2):
            assert abs(one / weight - other / weight_of_other) <= 1 / weight + 1 / weight_of_other + 1e-9


@settings(max_examples=30)
@given(st.lists(weights, min_size=2, max_size=4), st.lists(st.integers(0, 3), max_size=60))
def test_a_session_without_tasks_saves_no_turns(shares: list[float], pauses: list[int]) -> None:
    """A session that comes late gets its share from then on, and does not catch up."""
    numbered = Numbered()
    late = len(shares)
    for session, weight in enumerate(shares):
        for _ in range(400):
            numbered.push(str(session), TaskRules(weight=weight))
    for _ in range(20 + sum(pauses)):
        numbered.take()
    for _ in range(200):
        numbered.push(str(late), TaskRules(weight=1.0))
    turns = [int(numbered.take().session) for _ in range(100)]
    assert turns.count(late) <= 100 / (1 + sum(shares)) + 1 + len(shares)


levels = st.lists(st.integers(-1000, 9), min_size=1, max_size=6, unique=True)


@settings(max_examples=30)
@given(levels, st.integers(1, 4), st.data())
def test_low_priorities_do_not_starve(priorities: list[int], tasks: int, data: st.DataObject) -> None:
    """Although there is always a task of the highest priority, each level is served, no later than is promised."""
    numbered = Numbered()
    low = [numbered.push("low", TaskRules(priority=one)) for _ in range(tasks) for one in priorities]
    high = TaskRules(priority=10)
    left = {task.msg_id: index // len(priorities) for index, task in enumerate(low)}
    for _ in range(data.draw(st.integers(0, 5))):
        numbered.push("high", high)
    n = len(priorities) + 1
    taken = out_of_turn = 0
    while left:
        numbered.push("high", high)
        taken += 1
        task = numbered.take()
        if task.rules.priority < 10:
            out_of_turn += 1
            behind = left.pop(task.msg_id)
            assert taken <= (behind + 1) * (LATE + 1) * n
        assert out_of_turn * LATE <= taken
    assert numbered.queue.out_of_turn == out_of_turn


@given(
    st.lists(st.sampled_from(["", "x", "y", "xy"]), min_size=1, max_size=5), st.text("xyz", min_size=300, max_size=400)
)
def test_tasks_with_targets_do_not_starve(targets: list[str], idents: str) -> None:
    """Whichever engines take tasks, those that may run a low task get it as soon as promised."""
    numbered = Numbered()
    high = TaskRules(priority=10)
    waiting = [(numbered.push("low", TaskRules(priority=-1), one), one) for one in targets]
    chances = dict.fromkeys((task.msg_id for task, _ in waiting), 0)
    n = len(set(targets)) + 1  # the tasks of high priority have a level, too
    for ident in idents * 4:
        numbered.push("high", high)
        taken = numbered.take(ident)
        for task, may in waiting:
            if not may or ident in may:
                chances[task.msg_id] += 1
        waiting = [(task, may) for task, may in waiting if task is not taken]
        for task, may in waiting:
            behind = sum(1 for other, others in waiting if others == may and other.number < task.number)
            assert behind or chances[task.msg_id] <= (targets.count(may) + 1) * (LATE + 1) * n


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0, 0, 5, -5]), st.sampled_from(["", "", "x", "y"]))),
    st.text("xyz", max_size=LATE),
)
def test_the_highest_priority_is_first(pushes: list[tuple[str, int, str]], idents: str) -> None:
    """As long as no level can be overdue, an engine takes from the highest priority that it may run."""
    numbered = Numbered()
    waiting = [numbered.push(session, TaskRules(priority=one), targets) for session, one, targets in pushes]
    for ident in idents:
        may = [task for task in waiting if task.accepts(ident.encode())]
        task = numbered.queue.take(ident.encode())
        assert (task is None) == (not may)
        if task is not None:
            assert task.rules.priority == max(task.rules.priority for task in may)
            same = [one for one in may if (one.session, one.rules.priority) == (task.session, task.rules.priority)]
            assert task is same[0], "first-in-first-out within a session"
            waiting.remove(task)
    assert sorted(waiting, key=lambda task: task.number) == sorted(numbered.queue, key=lambda task: task.number)
    assert sum(numbered.queue.lengths_by_priority().values()) == len(numbered.queue)
    assert sum(numbered.queue.lengths().values()) == len(numbered.queue)


@given(st.lists(st.sampled_from([0.25, 0.5, 1.0, 1.5]), min_size=1, max_size=4), st.integers(2, 8), st.integers(0, 99))
@settings(max_examples=20)
def test_large_needs_do_not_starve(small: list[float], hwm: int, seed: int) -> None:
    """Although there are always tasks with small needs, a task that needs all of an engine gets it."""
    bench = Bench(hwm=hwm)
    worker = bench.add("a", (("gpu", 2.0),))
    rng = Random(seed)

    def put(amount: float) -> Task:
        task = make_task(str(len(tasks)), f"client {amount}", TaskRules(needs=(("gpu", amount),)))
        tasks.append(task)
        assert bench.scheduler.submit(task)
        return task

    tasks: list[Task] = []
    for _ in range(hwm * 8):
        put(small[len(tasks) % len(small)])
    big = put(2.0)
    n = len(set(small)) + 2  # the empty level of tasks without needs counts, too
    answers, before = 0, len(bench.recorder.assigned)
    while big.worker is None:
        put(small[answers % len(small)])
        bench.answer("a", rng.choice([*worker.running]))
        answers += 1
        assert len(bench.recorder.assigned) - before <= LATE * n + 2 + hwm
    assert list(bench.where()) == [big.msg_id]
    bench.answer("a", big.msg_id)
    assert bench.where()
