"""Tasks with dependencies, compared with a model that checks all of them after each step.

The model knows what has ended, and how; which waiting tasks must have failed, which may run, and which must wait,
it finds out anew each time, by the definitions and without any bookkeeping.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

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

from trio_hub.errors import EngineError, HubError
from trio_hub.schedulers.dependencies import Outcome, Outcomes
from trio_hub.schedulers.task import Task, TaskState, Worker
from trio_hub.schedulers.tasks import TaskScheduler

from .making import Oracle, make_task

pytestmark = pytest.mark.property

IDENTS = [b"a", b"b", b"c"]
DIRECT = ["direct 0", "direct 1"]
LONG_AGO = {"ok on a": Outcome(True, b"a"), "failed on b": Outcome(False, b"b"), "ran nowhere": Outcome(False, None)}

ELSEWHERE = [*DIRECT, *LONG_AGO, "never heard of"]


class Modelled:
    """A task as the model sees it."""

    def __init__(self, task: Task, dependencies: dict[str, dict[str, Any]]) -> None:
        self.task = task
        self.dependencies = dependencies
        self.ids = {msg_id for raw in dependencies.values() for msg_id in raw["dependencies"]}
        self.asked: set[str] = set()
        """The msg_ids on which the task depends, and about which the store has not answered yet."""
        self.retries = task.retries
        self.refused: set[bytes] = set()
        self.worker: Worker | None = None


class DependencyMachine(RuleBasedStateMachine, Oracle):
    def __init__(self) -> None:
        RuleBasedStateMachine.__init__(self)
        Oracle.__init__(self)
        self.pending = set(DIRECT)
        self.scheduler = TaskScheduler(self, Random(1), hwm=1)
        self.scheduler.dependencies.outcomes = Outcomes(size=6)  # small, so that the store is asked often
        self.live: dict[bytes, Worker] = {}
        self.lost: list[Worker] = []
        self.submitted = 0
        self.engines = 0
        self.unfinished: dict[str, Modelled] = {}
        self.ended: dict[str, Outcome] = dict(LONG_AGO)
        """The outcomes that the store returns, by msg_id."""
        self.failed: set[str] = set()
        """The msg_ids of tasks that the scheduler has failed since the last step."""

    @initialize(engines=st.integers(2, 3))
    def start(self, engines: int) -> None:
        for ident in IDENTS[:engines]:
            self.live[ident] = self.scheduler.add_engine(ident)

    # The delivery

    def task_queued_again(self, task: Task) -> None:
        assert task.worker is None
        assert self.scheduler.tasks[task.msg_id] is task

    def task_assigned(self, task: Task, worker: Worker) -> None:
        model = self.unfinished[task.msg_id]
        assert model.worker is None
        assert all(other.worker is not worker for other in self.unfinished.values()), "hwm"
        assert self.live.setdefault(worker.ident, worker) is worker
        model.worker = worker

    def task_failed(self, task: Task, worker: Worker | None, error: HubError) -> None:
        assert task.msg_id in self.unfinished
        assert task.msg_id not in self.failed
        self.failed.add(task.msg_id)

    # The model's decisions about a task

    def known(self, model: Modelled, msg_id: str) -> Outcome | None:
        return None if msg_id in model.asked else self.ended.get(msg_id)

    def fate(self, model: Modelled) -> str:
        """Return the state that a task must have: ``failed``, ``ready`` (to run on some engine) or ``waiting``."""
        if model.task.msg_id in model.ids:
            return "failed"
        open_follow = False
        followed: set[bytes] | None = None
        waiting = bool(model.asked)
        for kind, raw in model.dependencies.items():
            outcomes = [self.known(model, msg_id) for msg_id in set(raw["dependencies"])]
            desired = [o is not None and (raw["success"] if o.ok else raw["failure"]) for o in outcomes]
            undesired = [o is not None and not (raw["success"] if o.ok else raw["failure"]) for o in outcomes]
            if any(undesired) if raw["all"] else all(undesired):
                return "failed"
            waiting = waiting or not (all(desired) if raw["all"] else any(desired))
            if kind == "follow":
                followed = {o.engine for o, yes in zip(outcomes, desired, strict=True) if o and yes and o.engine}
                open_follow = None in outcomes
                if raw["all"] and len(followed) > 1:
                    return "failed"
        if waiting:
            return "waiting"
        targets = self.targets(model, followed)
        if targets is None or self.live.keys() & targets - model.refused:
            return "ready"
        return "waiting" if open_follow else "failed"

    def targets(self, model: Modelled, followed: set[bytes] | None) -> set[bytes] | None:
        asked = model.task.asked_targets
        if followed is None:
            return None if asked is None else set(asked)
        return followed if asked is None else followed & asked

    def end(self, msg_id: str, outcome: Outcome) -> None:
        del self.unfinished[msg_id]
        self.ended[msg_id] = outcome

    def rescan(self, stranded: Sequence[Modelled] = ()) -> None:
        """Fail all tasks of the model that must fail, and the tasks that depend on them; but no stranded tasks."""
        again = True
        while again:
            again = False
            for msg_id, model in list(self.unfinished.items()):
                if model.worker is None and model not in stranded and self.fate(model) == "failed":
                    assert msg_id in self.failed, f"{msg_id} must have failed"
                    self.failed.discard(msg_id)
                    self.end(msg_id, Outcome(False, None))
                    again = True

    # Steps

    @rule(data=st.data(), count=st.integers(1, 4))
    def submit(self, data: st.DataObject, count: int) -> None:
        for _ in range(count):
            self.submit_one(
                data,
                data.draw(st.sampled_from([None, None, ["a"], ["b"], ["a", "b"], ["b", "nobody"]])),
                data.draw(st.sampled_from([0, 0, 1])),
                data.draw(st.sampled_from([None, None, 5.0])),
                data.draw(st.sampled_from(["", "", "after", "follow", "follow", "after follow"])),
            )

    def submit_one(
        self, data: st.DataObject, only: list[str] | None, retries: int, timeout: float | None, kinds: str
    ) -> None:
        msg_id = str(self.submitted)
        self.submitted += 1
        earlier = [str(number) for number in range(max(0, self.submitted - 5), self.submitted - 1)]
        rarely = data.draw(st.integers(0, 4)) == 0 or not earlier
        choice = st.sampled_from([*ELSEWHERE, msg_id, str(self.submitted)] if rarely else earlier)
        dependencies: dict[str, dict[str, Any]] = {}
        for kind in kinds.split():
            success, failure = data.draw(st.sampled_from([(True, False), (True, False), (False, True), (True, True)]))
            dependencies[kind] = {
                "dependencies": data.draw(st.lists(choice, min_size=1, max_size=3)),
                "all": data.draw(st.sampled_from([True, False, False])),
                "success": success,
                "failure": failure,
            }
        metadata: dict[str, Any] = dict(dependencies)
        task = make_task(msg_id, targets=only, retries=retries, timeout=timeout, **metadata)
        model = self.unfinished[msg_id] = Modelled(task, dependencies)
        self.asking = model
        assert self.scheduler.submit(task)
        if msg_id not in model.ids:
            unsure = model.ids - self.unfinished.keys() - self.pending
            assert model.asked <= unsure
            assert unsure - model.asked <= self.ended.keys()
        self.rescan()

    def ask_outcomes(self, task: Task, msg_ids: list[str]) -> None:
        assert self.asking.task is task
        self.asking.asked = set(msg_ids)
        super().ask_outcomes(task, msg_ids)

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), count=st.integers(1, 3))
    def the_store_answers(self, data: st.DataObject, count: int) -> None:
        for _ in range(min(count, len(self.asked))):
            self.the_store_answers_one(data)

    def the_store_answers_one(self, data: st.DataObject) -> None:
        task, msg_ids = self.asked.pop(data.draw(st.integers(0, len(self.asked) - 1)))
        outcomes = {msg_id: self.ended[msg_id] for msg_id in msg_ids if msg_id in self.ended}
        model = self.unfinished.get(task.msg_id)
        self.scheduler.outcomes_known(task, outcomes)
        if model is not None:
            model.asked.clear()
            if len(outcomes) < len(msg_ids):
                self.failed.remove(task.msg_id)
                self.end(task.msg_id, Outcome(False, None))
        self.rescan()

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), ok=st.booleans(), ident=st.sampled_from(IDENTS))
    def a_direct_request_ends(self, data: st.DataObject, ok: bool, ident: bytes) -> None:
        msg_id = data.draw(st.sampled_from(sorted(self.pending)))
        self.pending.remove(msg_id)
        self.ended[msg_id] = Outcome(ok, ident)
        self.scheduler.ended(msg_id, Outcome(ok, ident))
        self.rescan()

    @precondition(lambda self: self.running)
    @rule(data=st.data(), hows=st.lists(st.sampled_from(["ok", "ok", "ok", "failed", "unmet"]), min_size=1, max_size=5))
    def results(self, data: st.DataObject, hows: list[str]) -> None:
        for how in hows:
            if self.running:
                self.result(data, how)

    def result(self, data: st.DataObject, how: str) -> None:
        model = self.unfinished[data.draw(st.sampled_from(self.running))]
        worker, model.worker = model.worker, None
        assert worker is not None
        if how == "unmet":
            model.refused.add(worker.ident)
        elif how == "failed" and model.retries:
            how = "ok"  # retries after failures are another test's subject
        final = self.scheduler.result(model.task, ok=how == "ok", dependencies_met=how != "unmet")
        assert final == (how != "unmet")
        if final:
            self.end(model.task.msg_id, Outcome(how == "ok", worker.ident))
        self.rescan()

    @property
    def running(self) -> list[str]:
        return [msg_id for msg_id, model in self.unfinished.items() if model.worker is not None]

    @precondition(lambda self: self.scheduler.tasks and self.submitted % 4 == 0)
    @rule(data=st.data(), timeout=st.booleans())
    def a_timer_fires_or_a_task_is_given_up(self, data: st.DataObject, timeout: bool) -> None:
        model = self.unfinished[data.draw(st.sampled_from(list(self.unfinished)))]
        if timeout:
            self.scheduler.timed_out(model.task)
        elif model.worker is None:
            self.scheduler.abandon(model.task, EngineError("given up"))
        if model.worker is None:
            self.failed.remove(model.task.msg_id)
            self.end(model.task.msg_id, Outcome(False, None))
        self.rescan()

    @precondition(lambda self: len(self.live) < len(IDENTS))
    @rule(data=st.data())
    def add_engine(self, data: st.DataObject) -> None:
        gone = [worker.ident for worker in self.lost]
        idents = [ident for ident in IDENTS if ident not in self.live and ident not in gone]
        self.engines += 1
        ident = data.draw(st.sampled_from([*idents, b"new %d" % self.engines]))
        worker = self.scheduler.add_engine(ident)
        assert self.live.setdefault(ident, worker) is worker
        self.came_back = True
        self.rescan()

    came_back = False
    """Tasks that wait for another to follow do not hear of an engine that comes back under its old identity."""

    @precondition(lambda self: len(self.live) > 1)
    @rule(data=st.data())
    def remove_engine(self, data: st.DataObject) -> None:
        worker = self.live.pop(data.draw(st.sampled_from(sorted(self.live))))
        self.lost.append(worker)
        self.scheduler.remove_engine(worker)
        self.rescan()

    @precondition(lambda self: self.lost)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        worker = self.lost.pop(data.draw(st.integers(0, len(self.lost) - 1)))
        stranded = [model for model in self.unfinished.values() if model.worker is worker]
        for model in stranded:
            model.worker = None
        self.scheduler.settle(worker)
        while stranded:
            model = stranded.pop(0)
            if model.retries and self.fate(model) != "failed":
                model.retries -= 1
            else:
                self.failed.remove(model.task.msg_id)
                self.end(model.task.msg_id, Outcome(False, worker.ident))
            self.rescan(stranded)

    # Invariants, checked after every step

    @invariant()
    def nothing_has_failed_that_need_not(self) -> None:
        assert not self.failed
        assert self.scheduler.tasks == {msg_id: model.task for msg_id, model in self.unfinished.items()}

    @invariant()
    def each_task_is_where_it_must_be(self) -> None:
        queued = {task.msg_id for task in self.scheduler.queue}
        for msg_id, model in self.unfinished.items():
            task = model.task
            assert task.worker is model.worker
            if model.worker is not None:
                assert task.state is TaskState.RUNNING
                assert msg_id not in queued
                continue
            assert (task.state is TaskState.QUEUED) == (msg_id in queued)
            fate = self.fate(model)
            if fate == "waiting":
                assert task.state is TaskState.WAITING
            elif task.state is TaskState.QUEUED:
                accepting = [worker for worker in self.live.values() if task.accepts(worker.ident)]
                assert all(worker.load for worker in accepting), "there is room where it may run"
            else:
                assert self.came_back
                assert task.follow is not None
        assert self.scheduler.running == len(self.running)

    @invariant()
    def whoever_waits_has_a_timer_and_nobody_else(self) -> None:
        timed = {m.task for m in self.unfinished.values() if m.worker is None and m.task.timeout}
        running = [timer for timer in self.timers if not timer.cancelled]
        assert {timer.task for timer in running} == timed
        assert len(running) == len(timed)
        assert all(timer.task.timer is timer for timer in running)

    @invariant()
    def the_graph_is_what_is_open(self) -> None:
        graph: dict[str, set[str]] = {}
        for msg_id, model in self.unfinished.items():
            for other in model.ids - self.ended.keys() - model.asked:
                graph.setdefault(other, set()).add(msg_id)
        assert {other: set(tasks) for other, tasks in self.scheduler.dependents.items()} == graph

    def teardown(self) -> None:
        self.scheduler.abandon_all(EngineError("the hub has been stopped"))
        assert self.failed == self.unfinished.keys()
        assert not self.scheduler.tasks
        assert not self.scheduler.dependents
        assert len(self.scheduler.queue) == 0
        assert all(timer.cancelled for timer in self.timers)


def test_dependencies() -> None:
    examples = settings.default.max_examples if settings.default else 100
    run_state_machine_as_test(
        DependencyMachine, settings=settings(max_examples=max(40, examples // 5), stateful_step_count=30)
    )
