"""The task queue, compared with a simple model, with engines that come and go and answers of all kinds.

After every step: each task is in exactly one state, loads equal what is outstanding, exactly the engines with
room are there to be chosen, nothing mentions an engine that is gone, nothing is answered twice, and no task
waits that an engine with room would take.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from trio_hub.errors import EngineError, HubError, ImpossibleDependency
from trio_hub.schedulers.schemes import SCHEMES
from trio_hub.schedulers.task import Task, TaskState, Worker
from trio_hub.schedulers.tasks import TaskScheduler

from .making import Oracle, make_task

pytestmark = pytest.mark.property

IDENTS = [b"a", b"b", b"c", b"d"]


class TaskMachine(RuleBasedStateMachine, Oracle):
    """Plays clients and engines, and records the scheduler's decisions."""

    scheme = "leastload"

    def __init__(self) -> None:
        RuleBasedStateMachine.__init__(self)
        Oracle.__init__(self)

    @initialize(seed=st.integers(0, 1000), engines=st.integers(0, 3), hwm=st.sampled_from([0, 1, 3]))
    def start(self, seed: int, engines: int, hwm: int) -> None:
        self.scheduler = TaskScheduler(self, Random(seed), hwm=hwm, scheme=self.scheme)
        self.hwm = hwm if SCHEMES[self.scheme].bounded else 0
        self.tasks: dict[str, Task] = {}
        """All tasks that were ever submitted, by msg_id."""
        self.runs_on: dict[str, Worker] = {}
        self.answers: Counter[str] = Counter()
        self.failed_on: dict[str, set[bytes]] = {}
        """The engines on which each task has failed, and that must not run it again, by msg_id."""
        self.unmet_on: dict[str, set[bytes]] = {}
        self.live: dict[bytes, Worker] = {}
        self.lost: list[Worker] = []
        self.settled: list[Worker] = []
        self.aborted: set[str] = set()
        """The msg_ids of tasks that were aborted while they ran. They go on there, and nowhere else."""
        self.idle_since_abandoned: set[Worker] = set()
        """Workers with room by `abandon`. They get no task before their next answer, since they are still busy."""
        for ident in IDENTS[:engines]:
            self.live[ident] = self.scheduler.add_engine(ident)

    # The delivery: every decision is checked when it is made

    def task_queued_again(self, task: Task) -> None:
        assert task.worker is None
        assert self.scheduler.tasks[task.msg_id] is task

    def task_assigned(self, task: Task, worker: Worker) -> None:
        msg_id = task.msg_id
        # it may be assigned within `add_engine`, before that has returned
        assert self.live.setdefault(worker.ident, worker) is worker
        assert self.answers[msg_id] == 0
        assert msg_id not in self.runs_on
        assert msg_id not in self.aborted
        assert self.hwm == 0 or self.load(worker) < self.hwm
        assert task.targets is None or worker.ident in task.targets
        assert worker.ident not in self.unmet_on[msg_id]
        if worker.ident in self.failed_on[msg_id]:
            assert not task.timeout, "who waits for another engine is not sent to the same"
            assert not any(self.may_run(task, ident) for ident in self.live), "others come first"
            self.failed_on[msg_id].clear()
        self.runs_on[msg_id] = worker

    def task_failed(self, task: Task, worker: Worker | None, error: HubError) -> None:
        self.answers[task.msg_id] += 1
        assert task.msg_id not in self.runs_on
        if isinstance(error, ImpossibleDependency):
            assert task.targets is not None
            blocked = self.unmet_on[task.msg_id]
            if task.timeout:
                blocked = blocked | self.failed_on[task.msg_id]
            assert not (task.targets - blocked) & self.live.keys()

    def load(self, worker: Worker) -> int:
        return sum(other is worker for other in self.runs_on.values())

    def may_run(self, task: Task, ident: bytes) -> bool:
        refused = self.failed_on[task.msg_id] | self.unmet_on[task.msg_id]
        return ident not in refused and (task.targets is None or ident in task.targets)

    def has_room(self, worker: Worker) -> bool:
        return self.hwm == 0 or self.load(worker) < self.hwm

    # Engines

    @precondition(lambda self: len(self.live) < len(IDENTS))
    @rule(data=st.data())
    def add_engine(self, data: st.DataObject) -> None:
        ident = data.draw(st.sampled_from([ident for ident in IDENTS if ident not in self.live]))
        worker = self.scheduler.add_engine(ident)
        assert self.live.setdefault(ident, worker) is worker

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def remove_engine(self, data: st.DataObject) -> None:
        worker = self.live.pop(data.draw(st.sampled_from(sorted(self.live))))
        self.lost.append(worker)
        self.scheduler.remove_engine(worker)

    @precondition(lambda self: self.lost)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        worker = self.lost.pop(data.draw(st.integers(0, len(self.lost) - 1)))
        for msg_id, other in list(self.runs_on.items()):
            if other is worker:
                del self.runs_on[msg_id]
        self.settled.append(worker)
        self.scheduler.settle(worker)

    @precondition(lambda self: self.lost or self.settled)
    @rule(data=st.data())
    def remove_or_settle_again(self, data: st.DataObject) -> None:
        self.scheduler.remove_engine(data.draw(st.sampled_from(self.lost + self.settled)))
        if self.settled:
            self.scheduler.settle(data.draw(st.sampled_from(self.settled)))

    # Clients

    @rule(
        session=st.sampled_from(["one", "two", "three"]),
        only=st.none() | st.lists(st.sampled_from(["a", "b", "c", "d", "nobody"]), max_size=3),
        retries=st.sampled_from([None, 0, 0, 1, 2]),
        timeout=st.sampled_from([None, None, 5.0]),
        count=st.integers(1, 4),
    )
    def submit(
        self, session: str, only: list[str] | None, retries: int | None, timeout: float | None, count: int
    ) -> None:
        for _ in range(count):
            task = make_task(str(len(self.tasks)), session, targets=only, retries=retries, timeout=timeout)
            self.tasks[task.msg_id] = task
            self.failed_on[task.msg_id] = set()
            self.unmet_on[task.msg_id] = set()
            assert self.scheduler.submit(task)

    @precondition(lambda self: self.scheduler.tasks)
    @rule(data=st.data())
    def submit_again(self, data: st.DataObject) -> None:
        assert not self.scheduler.submit(make_task(data.draw(st.sampled_from(list(self.scheduler.tasks)))))

    @precondition(lambda self: self.scheduler.tasks)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        task = self.scheduler.tasks[data.draw(st.sampled_from(list(self.scheduler.tasks)))]
        worker = self.runs_on.pop(task.msg_id, None)
        if worker is not None:
            self.idle_since_abandoned.add(worker)
        self.scheduler.abandon(task, EngineError("given up"))
        assert self.answers[task.msg_id] == 1

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        msg_ids = data.draw(st.lists(st.sampled_from([*self.tasks, "unknown"]), max_size=6))
        queued = {task.msg_id for task in self.scheduler.queue}
        self.aborted.update(self.runs_on.keys() & msg_ids)
        assert self.scheduler.abort(msg_ids) == [msg_id for msg_id in dict.fromkeys(msg_ids) if msg_id in queued]

    # Answers

    @precondition(lambda self: self.runs_on)
    @rule(data=st.data(), how=st.sampled_from(["ok", "ok", "failed", "failed", "unmet"]))
    def result(self, data: st.DataObject, how: str) -> None:
        msg_id = data.draw(st.sampled_from(list(self.runs_on)))
        self.answer(msg_id, how)

    def answer(self, msg_id: str, how: str) -> None:
        worker = self.runs_on[msg_id]
        task = self.scheduler.running_on(worker.ident, msg_id)
        assert task is self.tasks[msg_id]
        retries = task.retries
        del self.runs_on[msg_id]
        self.idle_since_abandoned.discard(worker)
        wanted = how == "ok" or (how == "failed" and (retries <= 0 or msg_id in self.aborted))
        if how == "unmet":
            self.unmet_on[msg_id].add(worker.ident)
        elif not wanted:
            self.failed_on[msg_id].add(worker.ident)
        self.answers[msg_id] += wanted
        assert self.scheduler.result(task, ok=how == "ok", dependencies_met=how != "unmet") == wanted
        assert task.retries == retries - (how == "failed" and not wanted)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), ident=st.sampled_from([*IDENTS, b"nobody"]))
    def result_of_another(self, data: st.DataObject, ident: bytes) -> None:
        """Look up a task by an engine that does not run it, or by an unknown msg_id: no task is found."""
        msg_id = data.draw(st.sampled_from(list(self.tasks)))
        worker = self.runs_on.get(msg_id)
        found = self.scheduler.running_on(ident, msg_id)
        assert found is (self.tasks[msg_id] if worker is not None and worker.ident == ident else None)
        assert self.scheduler.running_on(ident, "unknown") is None

    # Invariants, checked after every step

    @invariant()
    def each_task_is_in_one_state(self) -> None:
        unfinished = {msg_id: task for msg_id, task in self.tasks.items() if not self.answers[msg_id]}
        assert self.scheduler.tasks == unfinished
        queued = list(self.scheduler.queue)
        assert len(self.scheduler.queue) == len(queued)
        assert {task.msg_id for task in queued} == unfinished.keys() - self.runs_on.keys()
        assert len({task.msg_id for task in queued}) == len(queued)
        for msg_id, task in self.tasks.items():
            worker = self.runs_on.get(msg_id)
            assert task.worker is worker
            if self.answers[msg_id]:
                assert task.state is TaskState.DONE
            else:
                assert task.state is (TaskState.QUEUED if worker is None else TaskState.RUNNING)

    @invariant()
    def nothing_is_answered_twice(self) -> None:
        assert all(count == 1 for count in (+self.answers).values())

    @invariant()
    def loads_are_what_is_outstanding(self) -> None:
        for worker in [*self.live.values(), *self.lost, *self.settled]:
            assert worker.running == {
                msg_id: self.tasks[msg_id] for msg_id, other in self.runs_on.items() if other is worker
            }
            assert worker.load == self.load(worker)
            assert self.hwm == 0 or worker.load <= self.hwm

    @invariant()
    def exactly_those_with_room_can_be_chosen(self) -> None:
        assert self.scheduler.workers == self.live
        for worker in self.live.values():
            assert (worker in self.scheduler.with_room) == self.has_room(worker)

    @invariant()
    def nothing_mentions_an_engine_that_is_gone(self) -> None:
        for worker in self.lost + self.settled:
            assert worker not in self.scheduler.with_room
            assert worker not in self.scheduler.workers.values()
        for worker in self.settled:
            assert not worker.running
            assert worker not in self.runs_on.values()
        for session in self.scheduler.queue._sessions.values():
            assert session.length, "nor a session that waits for nothing"
            assert session.length == len(list(session))
            wanted = {ident for task in session for ident in task.targets or ()}
            assert session._by_engine.keys() <= wanted

    @invariant()
    def failures_are_forgiven_only_if_nobody_else_is_left(self) -> None:
        for task in self.scheduler.queue:
            if self.failed_on[task.msg_id] and task.refused == task.unmet:
                assert not task.timeout
                assert not any(self.may_run(task, ident) for ident in self.live)
                self.failed_on[task.msg_id].clear()  # for ever, even if new engines come

    @invariant()
    def nothing_waits_that_could_run(self) -> None:
        for task in self.scheduler.queue:
            for worker in self.live.values():
                if self.has_room(worker) and worker not in self.idle_since_abandoned:
                    assert not task.accepts(worker.ident)
            accepted = any(map(task.accepts, self.live))
            assert accepted or task.targets is None, "or it would have been answered as impossible"
            assert accepted or task.timeout or not self.failed_on[task.msg_id] & self.live.keys()
            for ident in self.live:
                assert task.accepts(ident) or not self.may_run(task, ident)

    def teardown(self) -> None:
        """Check that every task is answered in the end: running tasks succeed, and a new engine runs all others."""
        if not hasattr(self, "scheduler"):
            return
        while self.lost:
            worker = self.lost.pop()
            for msg_id, other in list(self.runs_on.items()):
                if other is worker:
                    del self.runs_on[msg_id]
            self.settled.append(worker)
            self.scheduler.settle(worker)
        self.failures_are_forgiven_only_if_nobody_else_is_left()
        self.live[b"new"] = self.scheduler.add_engine(b"new")
        while self.runs_on:
            self.answer(next(iter(self.runs_on)), "ok")
        left = [task for task in self.tasks.values() if not self.answers[task.msg_id]]
        idle = {worker.ident for worker in self.idle_since_abandoned}
        assert all(any(map(task.accepts, idle)) for task in left)
        for task in left:
            self.scheduler.abandon(task, EngineError("given up"))
        assert set(self.answers.values()) <= {1}
        assert len(self.answers) == len(self.tasks)
        assert not self.scheduler.tasks
        assert len(self.scheduler.queue) == 0
        assert not self.scheduler.queue._sessions


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_task_queue(scheme: str) -> None:
    machine = type("TaskMachine", (TaskMachine,), {"scheme": scheme})
    examples = settings.default.max_examples if settings.default else 100
    run_state_machine_as_test(machine, settings=settings(max_examples=max(15, examples // 8), stateful_step_count=40))
