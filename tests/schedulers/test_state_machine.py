"""The task queue, compared with a simple model, with all rules of tasks, and engines that come and go.

After every step: each task is in exactly one state, loads equal what is outstanding, exactly the engines with
room are there to be chosen, nothing mentions an engine that is gone, nothing is answered twice, and no task
waits that an engine with room would take. With each assignment: the engine is neither drained nor held, has enough
free and enough time left, and could not take a task of a higher priority, but for ageing.
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
from trio_hub.schedulers.fairqueue import LATE
from trio_hub.schedulers.rules import NO_RULES, Needs, TaskRules
from trio_hub.schedulers.schemes import SCHEMES
from trio_hub.schedulers.task import Task, TaskState, Worker
from trio_hub.schedulers.tasks import TaskScheduler

from .making import FakeTimer, Oracle, make_task

pytestmark = pytest.mark.property

IDENTS = [b"a", b"b", b"c", b"d"]
OFFERS: list[Needs] = [(), (), (("gpu", 1.0),), (("gpu", 2.0), ("site", "a")), (("site", "b"),)]
NEEDS: list[Needs] = [(), (), (("gpu", 1.0),), (("gpu", 2.0),), (("gpu", 0.5), ("site", "a")), (("site", "b"),)]
EVERYTHING: Needs = (("gpu", 2.0), ("site", "a"))

rules_of_tasks = st.just(NO_RULES) | st.builds(
    TaskRules,
    priority=st.sampled_from([0, 0, 5, -5]),
    weight=st.sampled_from([1.0, 2.0]),
    max_runtime=st.sampled_from([0.0, 0.0, 60.0]),
    max_attempts=st.sampled_from([0, 0, 1, 2]),
    retry_on=st.sampled_from([None, None, frozenset(["ValueError"]), frozenset(["death"]), frozenset(["all"])]),
    retry_pause=st.sampled_from([0.0, 0.0, 1.0]),
    max_deaths=st.sampled_from([1, 3]),
    needs=st.sampled_from(NEEDS),
)


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
        self.may_pause: set[str] = set()
        """The msg_ids of tasks that have been paused, or may be paused now."""
        self.aborted: set[str] = set()
        """The msg_ids of tasks that were aborted while they ran. They go on there, and nowhere else."""
        self.idle_since_abandoned: set[Worker] = set()
        """Workers with room by `abandon`. They get no task before their next answer, since they are still busy."""
        self.offers: dict[Worker, Needs] = {}
        self.drained: set[Worker] = set()
        self.holds: Counter[Worker] = Counter()
        self.paused: set[str] = set()
        self.deaths: Counter[str] = Counter()
        self.out_of_turn = 0
        self.taken = 0
        for ident in IDENTS[:engines]:
            self.join(ident, OFFERS[(seed + ident[0]) % len(OFFERS)])

    def join(self, ident: bytes, offers: Needs) -> None:
        self.joining = offers
        self.left.pop(ident, None)
        worker = self.scheduler.add_engine(ident, offers=offers)
        assert self.live.setdefault(ident, worker) is worker
        self.offers[worker] = offers

    # The delivery: every decision is checked when it is made

    def task_queued_again(self, task: Task) -> None:
        assert task.worker is None
        assert self.scheduler.tasks[task.msg_id] is task

    def task_assigned(self, task: Task, worker: Worker) -> None:
        msg_id = task.msg_id
        # it may be assigned within `add_engine`, before that has returned
        assert self.live.setdefault(worker.ident, worker) is worker
        self.offers.setdefault(worker, self.joining)
        assert self.answers[msg_id] == 0
        assert self.takes_tasks(worker)
        assert self.fits(task, worker)
        assert msg_id not in self.paused
        assert self.deaths[msg_id] < task.rules.max_deaths
        self.goes_before_others(task, worker)
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

    def goes_before_others(self, task: Task, worker: Worker) -> None:
        """Check that the engine could not run a queued task of a higher priority, but for ageing."""
        out_of_turn = self.scheduler.queue.out_of_turn
        ages = out_of_turn > self.out_of_turn
        self.out_of_turn = out_of_turn
        self.taken += 1
        assert out_of_turn * LATE <= self.taken
        if not ages and worker not in self.idle_since_abandoned:
            for other in self.scheduler.queue:
                outranks = other.rules.priority > task.rules.priority
                assert not (outranks and other.accepts(worker.ident) and self.fits(other, worker))

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
        allowed = ident not in refused and (task.targets is None or ident in task.targets)
        return allowed and self.meets(task, self.live[ident])

    def has_room(self, worker: Worker) -> bool:
        return self.takes_tasks(worker) and (self.hwm == 0 or self.load(worker) < self.hwm)

    def takes_tasks(self, worker: Worker) -> bool:
        return worker not in self.drained and not self.holds[worker]

    def meets(self, task: Task, worker: Worker) -> bool:
        """Return whether the engine would meet the task's needs if it were idle."""
        offers = dict(self.offers.get(worker, self.joining))
        for name, value in task.rules.needs:
            offered = offers.get(name)
            if offered is None or (offered != value if isinstance(value, str) else float(offered) < value):
                return False
        return True

    def fits(self, task: Task, worker: Worker) -> bool:
        """Return whether the engine has enough free and enough time left for the task."""
        if not self.meets(task, worker) or self.seconds_left(worker) < task.rules.max_runtime:
            return False
        offers = dict(self.offers.get(worker, self.joining))
        used: Counter[str] = Counter()
        for msg_id, other in self.runs_on.items():
            if other is worker:
                used.update({n: int(2 * v) for n, v in self.tasks[msg_id].rules.needs if isinstance(v, float)})
        needs = [(name, value) for name, value in task.rules.needs if isinstance(value, float)]
        return all(used[name] + 2 * value <= 2 * float(offers[name]) for name, value in needs)

    # Engines

    @precondition(lambda self: len(self.live) < len(IDENTS))
    @rule(data=st.data())
    def add_engine(self, data: st.DataObject) -> None:
        ident = data.draw(st.sampled_from([ident for ident in IDENTS if ident not in self.live]))
        self.join(ident, data.draw(st.sampled_from(OFFERS)))

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
                self.died(msg_id)
        self.settled.append(worker)
        self.scheduler.settle(worker)

    def died(self, msg_id: str) -> None:
        self.deaths[msg_id] += 1
        task = self.tasks[msg_id]
        rules = task.rules
        repeated = self.attempts_left(task) and (not rules.retry_on or bool(rules.retry_on & {"death", "all"}))
        few = self.deaths[msg_id] < rules.max_deaths
        if repeated and few and rules.retry_pause and msg_id not in self.aborted:
            self.may_pause.add(msg_id)

    def attempts_left(self, task: Task) -> bool:
        return task.attempts < task.rules.max_attempts if task.rules.max_attempts else task.retries > 0

    def start_pause(self, task: Task, seconds: float) -> FakeTimer:
        assert task.msg_id in self.may_pause
        assert seconds == task.rules.retry_pause * 2 ** (task.attempts - 1)
        self.paused.add(task.msg_id)
        return super().start_pause(task, seconds)

    @precondition(lambda self: self.paused)
    @rule(data=st.data())
    def end_pause(self, data: st.DataObject) -> None:
        msg_id = data.draw(st.sampled_from(sorted(self.paused)))
        self.paused.remove(msg_id)
        self.scheduler.pause_over(self.tasks[msg_id])

    @precondition(lambda self: self.live)
    @rule(data=st.data(), offers=st.sampled_from(OFFERS))
    def set_offers(self, data: st.DataObject, offers: Needs) -> None:
        worker = self.live[data.draw(st.sampled_from(sorted(self.live)))]
        self.offers[worker] = offers
        self.idle_since_abandoned.discard(worker)
        self.scheduler.set_offers(worker, offers)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def drain_or_undrain(self, data: st.DataObject) -> None:
        worker = self.live[data.draw(st.sampled_from(sorted(self.live)))]
        self.idle_since_abandoned.discard(worker)
        if worker in self.drained:
            self.drained.remove(worker)
            self.scheduler.undrain(worker)
        else:
            self.drained.add(worker)
            self.scheduler.drain(worker)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def hold_or_release(self, data: st.DataObject) -> None:
        worker = self.live[data.draw(st.sampled_from(sorted(self.live)))]
        self.idle_since_abandoned.discard(worker)
        if self.holds[worker] and data.draw(st.booleans()):
            self.holds[worker] -= 1
            self.scheduler.release(worker)
        else:
            self.holds[worker] += 1
            self.scheduler.hold(worker)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def time_passes(self, data: st.DataObject) -> None:
        ident = data.draw(st.sampled_from(sorted(self.live)))
        self.left[ident] = 90.0 if ident not in self.left else 30.0

    @precondition(lambda self: self.runs_on)
    @rule(data=st.data())
    def take_away(self, data: st.DataObject) -> None:
        msg_id = data.draw(st.sampled_from(list(self.runs_on)))
        worker = self.runs_on.pop(msg_id)
        task = self.tasks[msg_id]
        attempts = task.attempts
        self.idle_since_abandoned.discard(worker)
        self.scheduler.take_away(task)
        assert task.attempts == attempts - (msg_id not in self.runs_on)
        impossible = task.targets is not None and not any(map(task.accepts, self.live))
        assert self.answers[msg_id] == (msg_id in self.aborted or impossible)

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
        rules=rules_of_tasks,
        count=st.integers(1, 4),
    )
    def submit(
        self,
        session: str,
        only: list[str] | None,
        retries: int | None,
        timeout: float | None,
        rules: TaskRules,
        count: int,
    ) -> None:
        for _ in range(count):
            task = make_task(str(len(self.tasks)), session, rules, targets=only, retries=retries, timeout=timeout)
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
        self.paused.discard(task.msg_id)
        self.scheduler.abandon(task, EngineError("given up"))
        assert self.answers[task.msg_id] == 1

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        msg_ids = data.draw(st.lists(st.sampled_from([*self.tasks, "unknown"]), max_size=6))
        queued = {task.msg_id for task in self.scheduler.queue} | self.paused
        self.paused.difference_update(msg_ids)
        self.aborted.update(self.runs_on.keys() & msg_ids)
        assert self.scheduler.abort(msg_ids) == [msg_id for msg_id in dict.fromkeys(msg_ids) if msg_id in queued]

    # Answers

    @precondition(lambda self: self.runs_on)
    @rule(data=st.data(), how=st.sampled_from(["ok", "ok", "failed", "failed", "unmet", "TypeError"]))
    def result(self, data: st.DataObject, how: str) -> None:
        msg_id = data.draw(st.sampled_from(list(self.runs_on)))
        self.answer(msg_id, how)

    def answer(self, msg_id: str, how: str) -> None:
        worker = self.runs_on[msg_id]
        task = self.scheduler.running_on(worker.ident, msg_id)
        assert task is self.tasks[msg_id]
        retries, retry_on = task.retries, task.rules.retry_on
        del self.runs_on[msg_id]
        self.idle_since_abandoned.discard(worker)
        ename = "TypeError" if how == "TypeError" else "ValueError"
        how = "failed" if how == "TypeError" else how
        repeated = self.attempts_left(task) and (retry_on is None or bool(retry_on & {ename, "all"}))
        wanted = how == "ok" or (how == "failed" and (not repeated or msg_id in self.aborted))
        if how == "failed" and not wanted and task.rules.retry_pause:
            self.may_pause.add(msg_id)
        if how == "unmet":
            self.unmet_on[msg_id].add(worker.ident)
        elif not wanted:
            self.failed_on[msg_id].add(worker.ident)
        self.answers[msg_id] += wanted
        assert self.scheduler.result(task, ok=how == "ok", dependencies_met=how != "unmet", ename=ename) == wanted
        assert task.retries == max(retries - (how == "failed" and not wanted), 0)

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
        assert {task.msg_id for task in queued} == unfinished.keys() - self.runs_on.keys() - self.paused
        assert len({task.msg_id for task in queued}) == len(queued)
        assert self.scheduler.timers.paused == len(self.paused)
        for msg_id, task in self.tasks.items():
            worker = self.runs_on.get(msg_id)
            assert task.worker is worker
            if self.answers[msg_id]:
                assert task.state is TaskState.DONE
            else:
                idle = TaskState.PAUSED if msg_id in self.paused else TaskState.QUEUED
                assert task.state is (idle if worker is None else TaskState.RUNNING)

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
        assert self.scheduler.queue.lines.targets <= {i for task in self.scheduler.queue for i in task.targets or ()}
        assert self.scheduler.queue.keeps_nothing == (len(self.scheduler.queue) == 0)

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
                room = self.has_room(worker) and worker not in self.idle_since_abandoned
                if room and not self.is_reserved(worker):
                    assert not (task.accepts(worker.ident) and self.fits(task, worker))
            accepted = any(map(task.accepts, self.live))
            assert accepted or task.targets is None, "or it would have been answered as impossible"
            forgiven = task.timeout or not self.failed_on[task.msg_id] & self.live.keys()
            met = any(task.accepts(ident) and self.meets(task, worker) for ident, worker in self.live.items())
            assert met or forgiven or task.rules.needs
            for ident in self.live:
                assert task.accepts(ident) or not self.may_run(task, ident)

    def is_reserved(self, worker: Worker) -> bool:
        """Return whether an engine takes no tasks since a task waits that it can run when others have ended."""
        if worker.reserved:
            assert self.load(worker)
        return worker.reserved

    def teardown(self) -> None:
        """Check that every task is answered in the end: running tasks succeed, and a new engine runs all others."""
        if not hasattr(self, "scheduler"):
            return
        while self.lost:
            worker = self.lost.pop()
            for msg_id, other in list(self.runs_on.items()):
                if other is worker:
                    del self.runs_on[msg_id]
                    self.died(msg_id)
            self.settled.append(worker)
            self.scheduler.settle(worker)
        self.failures_are_forgiven_only_if_nobody_else_is_left()
        for worker in self.live.values():
            if worker in self.drained:
                self.drained.remove(worker)
                self.scheduler.undrain(worker)
            while self.holds[worker]:
                self.holds[worker] -= 1
                self.scheduler.release(worker)
        while self.paused:
            self.scheduler.pause_over(self.tasks[self.paused.pop()])
        self.join(b"new", EVERYTHING)
        self.join(b"newer", (("site", "b"),))
        while self.runs_on:
            self.answer(next(iter(self.runs_on)), "ok")
        left = [task for task in self.tasks.values() if not self.answers[task.msg_id]]
        idle = {worker.ident for worker in self.idle_since_abandoned}
        for task in left:
            able = [worker for worker in self.live.values() if task.accepts(worker.ident) and self.fits(task, worker)]
            assert not able or any(map(task.accepts, idle))
        for task in left:
            self.scheduler.abandon(task, EngineError("given up"))
        assert set(self.answers.values()) <= {1}
        assert len(self.answers) == len(self.tasks)
        assert not self.scheduler.tasks
        assert len(self.scheduler.queue) == 0
        assert self.scheduler.queue.keeps_nothing


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_task_queue(scheme: str) -> None:
    machine = type("TaskMachine", (TaskMachine,), {"scheme": scheme})
    examples = settings.default.max_examples if settings.default else 100
    run_state_machine_as_test(machine, settings=settings(max_examples=max(15, examples // 8), stateful_step_count=40))
