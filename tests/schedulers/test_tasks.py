"""The task queue: choice of engines, retries, and answers of tasks that cannot run."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from trio_hub.errors import ConfigError, EngineError, HubError
from trio_hub.schedulers.schemes import SCHEMES
from trio_hub.schedulers.task import Task, TaskState, Worker, WorkerState
from trio_hub.schedulers.tasks import AT_A_TIME, TaskScheduler

from .making import Bench, Recorder, make_task

bounded_schemes = sorted(name for name, scheme in SCHEMES.items() if scheme.bounded)
scheme_and_hwm = pytest.mark.parametrize(
    ("scheme", "hwm"), [*itertools.product(bounded_schemes, [0, 1, 3]), ("pure", 0)]
)


# Settings


def test_an_unknown_scheme_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="'fifo' is not known: use one of leastload, lru"):
        TaskScheduler(Recorder(), Random(1), scheme="fifo")


def test_a_negative_hwm_is_refused() -> None:
    with pytest.raises(ConfigError, match="hwm must not be negative"):
        TaskScheduler(Recorder(), Random(1), hwm=-1)


@pytest.mark.parametrize("hwm", [0, 1, 3])
def test_hwm_limits_those_schemes_that_are_bounded(hwm: int) -> None:
    assert [Bench(hwm=hwm, scheme=scheme).scheduler.hwm for scheme in bounded_schemes] == [hwm] * 5
    assert Bench(hwm=hwm, scheme="pure").scheduler.hwm == 0


# Submitting, with every hwm and scheme


@scheme_and_hwm
def test_engines_are_filled_up_to_hwm_and_the_rest_waits(scheme: str, hwm: int) -> None:
    bench = Bench("ab", hwm=hwm, scheme=scheme)
    tasks = [bench.submit(str(number)) for number in range(10)]
    room = 2 * hwm or 10
    assert [msg_id for msg_id, _ in bench.assigned] == [str(number) for number in range(room)]
    assert bench.queued() == [str(number) for number in range(room, 10)]
    assert [task.state for task in tasks] == [TaskState.RUNNING] * room + [TaskState.QUEUED] * (10 - room)
    if hwm:
        assert all(worker.load == hwm for worker in bench.workers.values())
    for worker in bench.workers.values():
        assert (worker in bench.scheduler.with_room) == (hwm == 0)
    # each answer makes room for the next
    where = bench.where()
    for number in range(10):
        engine = where[str(number)]
        assert bench.answer(engine, str(number))
        where |= dict(bench.assigned)
        assert tasks[number].state is TaskState.DONE
        assert str(number) not in bench.scheduler.tasks
    assert len(bench.scheduler.queue) == 0
    assert all(worker.load == 0 and worker in bench.scheduler.with_room for worker in bench.workers.values())
    assert bench.failed == []


@scheme_and_hwm
def test_an_engine_that_comes_gets_what_waits(scheme: str, hwm: int) -> None:
    bench = Bench(hwm=hwm, scheme=scheme)
    for number in range(5):
        bench.submit(str(number))
    assert bench.assigned == []
    worker = bench.add("a")
    assert bench.assigned == [(str(number), "a") for number in range(hwm or 5)]
    assert (worker in bench.scheduler.with_room) == (hwm == 0)
    bench.add("b")
    assert [engine for _, engine in bench.assigned] == ["b"] * ({0: 0, 1: 1, 3: 2}[hwm])
    assert (bench.workers["b"] in bench.scheduler.with_room) == (hwm != 1)


def test_waiting_tasks_are_shared_out_fairly() -> None:
    bench = Bench("a")
    for number in range(100):
        bench.submit(f"burst{number}", "greedy")
    bench.submit("one", "modest")
    bench.submit("two", "modest")
    order = []
    for _ in range(6):
        [(msg_id, _)] = bench.assigned
        order.append(msg_id)
        bench.answer("a", msg_id)
    assert order == ["burst0", "burst1", "one", "burst2", "two", "burst3"]


def test_a_msg_id_is_unfinished_once() -> None:
    bench = Bench("a")
    first = bench.submit("1")
    waiting = bench.submit("2")
    for msg_id in ("1", "2"):
        assert not bench.scheduler.submit(make_task(msg_id))
    assert bench.scheduler.tasks == {"1": first, "2": waiting}
    assert bench.assigned == [("1", "a")]
    bench.answer("a", "1")
    bench.submit("1")  # the msg_id may come again when the task is done
    assert bench.queued() == ["1"]


# Results


def test_only_the_engine_that_runs_a_task_answers_it() -> None:
    bench = Bench("ab")
    bench.submit("1")
    bench.submit("2")
    bench.submit("3")
    scheduler = bench.scheduler
    assert scheduler.running_on(b"b", "1") is None, "another engine"
    assert scheduler.running_on(b"a", "3") is None, "one that waits"
    assert scheduler.running_on(b"a", "unknown") is None
    bench.answer("a", "1")
    assert scheduler.running_on(b"a", "1") is None, "a duplicate"


def test_a_failure_without_retries_is_the_clients() -> None:
    bench = Bench("ab")
    bench.submit("1")
    assert bench.answer("a", "1", ok=False)
    assert bench.assigned == [("1", "a")]
    assert not bench.scheduler.tasks


def test_a_retry_prefers_an_engine_that_has_not_failed_it() -> None:
    bench = Bench("abc", hwm=0)
    task = bench.submit("1", retries=5)
    tried = []
    for _ in range(3):
        [(_, engine)] = bench.assigned
        tried.append(engine)
        assert not bench.answer(engine, "1", ok=False)
    assert sorted(tried) == ["a", "b", "c"]
    assert task.retries == 2
    [(_, engine)] = bench.assigned  # the task has failed on all engines, so all are allowed again
    assert bench.answer(engine, "1")


def test_a_retry_waits_for_an_engine_that_has_not_failed_it() -> None:
    bench = Bench("ab")
    bench.submit("other")
    bench.submit("1", retries=1)
    assert bench.assigned == [("other", "a"), ("1", "b")]
    assert not bench.answer("b", "1", ok=False)
    assert bench.queued() == ["1"]
    assert bench.workers["b"] in bench.scheduler.with_room
    bench.submit("2")
    assert bench.assigned == [("2", "b")], "it is nobody's way that it waits"
    bench.answer("a", "other")
    assert bench.assigned == [("1", "a")]


def test_a_single_engine_is_tried_as_often_as_was_asked() -> None:
    bench = Bench("a")
    bench.submit("1", retries=2)
    assert [bench.answer("a", "1", ok=False) for _ in range(3)] == [False, False, True]
    assert bench.assigned == [("1", "a")] * 3


def test_a_retry_with_a_timeout_waits_for_another_engine() -> None:
    bench = Bench("a")
    bench.submit("1", retries=2, timeout=10.0)
    assert not bench.answer("a", "1", ok=False)
    assert bench.queued() == ["1"]
    bench.add("b")
    assert bench.assigned == [("1", "a"), ("1", "b")]


def test_a_retry_is_forgiven_when_the_engine_it_waited_for_goes() -> None:
    bench = Bench("ab")
    bench.submit("other", targets=["b"])
    for msg_id, targets in (("any", None), ("confined", ["a", "b"])):
        bench.submit(msg_id, targets=targets, retries=1)
        assert not bench.answer("a", msg_id, ok=False)
    assert bench.queued() == ["any", "confined"]
    bench.remove("b")
    assert bench.assigned[-1] == ("any", "a")
    assert bench.queued() == ["confined"]
    assert bench.answer("a", "any")
    assert bench.assigned == [("confined", "a")]
    assert bench.failed == []


@pytest.mark.parametrize("targets", [None, ["a", "b"]])
def test_a_retry_is_forgiven_when_the_engine_it_ran_on_dies(targets: list[str] | None) -> None:
    bench = Bench("ab")
    bench.submit("1", targets=targets, retries=2)
    bench.answer("a", "1", ok=False)
    assert bench.where() == {"1": "b"}
    bench.remove("b")
    bench.settle("b")
    assert bench.where() == {"1": "a"}
    assert bench.failed == []


# Functional dependencies


def test_an_engine_that_does_not_meet_a_dependency_is_not_asked_again() -> None:
    bench = Bench("ab")
    task = bench.submit("1")
    assert not bench.answer("a", "1", ok=False, met=False)
    assert not bench.answer("b", "1", ok=False, met=False)
    assert bench.assigned == [("1", "a"), ("1", "b")]
    assert task.state is TaskState.QUEUED, "another engine may come"
    bench.submit("2")
    bench.submit("3")
    bench.answer("a", "2")
    bench.remove("b")
    assert bench.queued() == ["1"]
    bench.add("c")
    assert bench.answer("c", "1")


def test_unmet_dependencies_cost_no_retries_and_are_not_forgiven() -> None:
    bench = Bench("ab")
    task = bench.submit("1", retries=1)
    assert not bench.answer("a", "1", ok=False, met=False)
    assert task.retries == 1
    assert not bench.answer("b", "1", ok=False)
    assert bench.assigned == [("1", "a"), ("1", "b"), ("1", "b")], "b is forgiven, and a is not asked"
    assert bench.answer("b", "1", ok=False)


def test_when_no_target_meets_a_dependency_it_is_impossible() -> None:
    bench = Bench("abc")
    bench.submit("1", targets=["a", "b"])
    for engine in "ab":
        assert not bench.answer(engine, "1", ok=False, met=False)
    assert bench.failed == [("1", None, "ImpossibleDependency")]
    assert not bench.scheduler.tasks


# Targets


@pytest.mark.parametrize("scheme", bounded_schemes)
def test_a_task_runs_on_one_of_its_targets_only(scheme: str) -> None:
    bench = Bench("abcd", scheme=scheme)
    for number in range(4):
        bench.submit(str(number), targets=["b", "d", "unknown"])
    assert sorted(engine for _, engine in bench.assigned) == ["b", "d"]
    bench.submit("any")
    assert bench.where()["any"] in ("a", "c")
    bench.answer("b", next(msg_id for msg_id, engine in bench.where().items() if engine == "b"))
    assert bench.where()["2"] == "b"
    assert bench.queued() == ["3"]


def test_no_targets_are_any() -> None:
    assert make_task("1", targets=[]).targets is None
    assert make_task("1", targets=None).targets is None


@pytest.mark.parametrize("targets", [["x"], ["x", "y"], ["\ud800"]])
def test_targets_that_nobody_has_are_impossible_at_once(targets: list[str]) -> None:
    bench = Bench("a")
    task = bench.submit("1", targets=targets)
    assert bench.failed == [("1", None, "ImpossibleDependency")]
    assert task.state is TaskState.DONE
    assert not bench.scheduler.tasks
    assert len(bench.scheduler.queue) == 0


def test_waiting_tasks_fail_when_their_last_target_goes() -> None:
    bench = Bench("abc")
    for name in "abc":
        bench.submit(f"busy {name}", targets=[name])
    bench.submit("1", targets=["a"])
    bench.submit("2", targets=["a", "b"])
    bench.submit("3", "another session", targets=["a", "x"])
    bench.submit("4")
    bench.remove("a")
    assert sorted(bench.failed) == [("1", None, "ImpossibleDependency"), ("3", None, "ImpossibleDependency")]
    bench.remove("b")
    assert bench.failed == [("2", None, "ImpossibleDependency")]
    assert bench.queued() == ["4"]


# Engines that are lost


def test_a_late_result_is_welcome_until_the_grace_is_over() -> None:
    bench = Bench("ab")
    bench.submit("1", targets=["a"])
    bench.remove("a")
    assert bench.answer("a", "1")
    bench.settle("a")
    assert bench.failed == []
    assert bench.scheduler.workers.keys() == {b"b"}


def test_what_a_lost_engine_ran_fails_without_retries() -> None:
    bench = Bench("ab")
    bench.submit("1")
    bench.remove("a")
    assert bench.failed == []
    bench.settle("a")
    assert bench.failed == [("1", "a", "EngineError")]
    assert bench.scheduler.running_on(b"a", "1") is None
    bench.settle("a")
    assert bench.failed == []


def test_the_error_names_engine_and_task() -> None:
    errors: list[HubError] = []

    class Keeper(Recorder):
        def task_failed(self, task: Task, worker: Worker | None, error: HubError) -> None:
            errors.append(error)

    scheduler = TaskScheduler(Keeper(), Random(1))
    worker = scheduler.add_engine(b"some-uuid")
    scheduler.submit(make_task("the-task"))
    scheduler.remove_engine(worker)
    scheduler.settle(worker)
    assert str(errors[0]) == "Engine some-uuid died while running task the-task"


def test_what_a_lost_engine_ran_is_run_elsewhere_with_retries() -> None:
    bench = Bench("ab", hwm=2)
    task = bench.submit("1", targets=["a", "b"], retries=1)
    bench.submit("2", targets=["a"], retries=1)
    assert bench.where() == {"1": "a", "2": "a"}
    bench.remove("a")
    bench.settle("a")
    assert bench.where() == {"1": "b"}
    assert bench.failed == [("2", "a", "EngineError")]
    assert task.retries == 0


def test_a_late_failure_is_retried_elsewhere() -> None:
    bench = Bench("ab")
    bench.submit("1", retries=1)
    bench.remove("a")
    assert not bench.answer("a", "1", ok=False)
    assert bench.where() == {"1": "b"}
    bench.settle("a")
    assert bench.where() == {"1": "b"}


def test_a_lost_engine_gets_nothing_more() -> None:
    bench = Bench("a", hwm=3)
    worker = bench.workers["a"]
    bench.submit("1")
    bench.remove("a")
    bench.remove("a")  # told twice
    assert worker not in bench.scheduler.with_room
    bench.submit("2")
    assert bench.answer("a", "1")
    assert worker not in bench.scheduler.with_room
    assert bench.assigned == [("1", "a")]
    assert bench.queued() == ["2"]


def test_an_engine_that_comes_back_under_its_name_is_another() -> None:
    bench = Bench("a")
    bench.submit("1", retries=1)
    bench.submit("2")
    lost = bench.workers["a"]
    bench.remove("a")
    again = bench.add("a")
    assert bench.where() == {"1": "a", "2": "a"}
    assert (list(lost.running), list(again.running)) == (["1"], ["2"])
    bench.scheduler.settle(lost)
    assert bench.queued() == ["1"]
    assert bench.answer("a", "2")
    assert list(again.running) == ["1"]


def test_with_hwm_unlimited_all_that_a_lost_engine_ran_is_settled() -> None:
    bench = Bench("a", hwm=0)
    for number in range(6):
        bench.submit(str(number), retries=number % 2)
    bench.remove("a")
    bench.settle("a")
    assert bench.failed == [(str(number), "a", "EngineError") for number in (0, 2, 4)]
    assert bench.queued() == ["1", "3", "5"], "in the order in which they were submitted"


# Giving up


def test_a_task_is_abandoned_wherever_it_is() -> None:
    bench = Bench("a")
    running = bench.submit("1")
    waiting = bench.submit("2")
    confined = bench.submit("3", targets=["a"])
    for task in (running, waiting, confined):
        bench.scheduler.abandon(task, EngineError("the hub has been stopped"))
        assert task.state is TaskState.DONE
    assert bench.failed == [("1", "a", "EngineError"), ("2", None, "EngineError"), ("3", None, "EngineError")]
    assert not bench.scheduler.tasks
    assert len(bench.scheduler.queue) == 0
    assert bench.workers["a"].load == 0
    assert bench.scheduler.running_on(b"a", "1") is None


# Lists and counts of tasks


def test_tasks_and_workers_show_what_they_are() -> None:
    bench = Bench("a")
    task = bench.submit("1")
    assert repr(task) == "<Task 1 running>"
    assert repr(bench.workers["a"]) == "<Worker b'a' load=1>"
    bench.remove("a")
    assert repr(bench.workers["a"]) == "<Worker b'a' load=1 lost>"


def test_negative_or_missing_retries_are_none() -> None:
    for retries in (None, 0, -3):
        bench = Bench("a")
        bench.submit("1", retries=retries)
        assert bench.answer("a", "1", ok=False)


def test_the_same_events_have_the_same_outcome_in_every_process() -> None:
    """With random hashes, sets of bytes have another order in each process. No decision may depend on it."""
    program = """
from tests.schedulers.making import Bench
from trio_hub.schedulers.schemes import SCHEMES

for scheme in sorted(SCHEMES):
    bench = Bench("hgfedcba", hwm=3, scheme=scheme)
    for number in range(12):
        bench.submit(str(number), targets=list("abcdefgh") if number % 2 else None, retries=1)
    for msg_id, engine in list(bench.where().items())[::2]:
        bench.answer(engine, msg_id, ok=False)
    bench.remove("a")
    bench.settle("a")
    print(bench.assigned, bench.queued())
"""
    outcomes = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            check=True,
            capture_output=True,
        ).stdout
        for seed in "123"
    }
    assert len(outcomes) == 1


# Taking over from another scheduler


def test_an_expected_engine_gets_nothing_before_it_is_back() -> None:
    bench = Bench()
    worker = bench.scheduler.add_engine(b"a", WorkerState.EXPECTED)
    bench.submit("1")
    bench.submit("2", targets=["a"])
    assert bench.assigned == []
    bench.scheduler.engine_back(worker)
    assert bench.assigned == [("1", "a")]


def test_a_task_left_on_an_engine_takes_up_room_and_is_not_assigned() -> None:
    bench = Bench()
    worker = bench.scheduler.add_engine(b"a", WorkerState.EXPECTED)
    task = make_task("1")
    assert bench.scheduler.inherit(task, worker)
    assert not bench.scheduler.inherit(make_task("1"), worker)
    bench.submit("2")
    bench.scheduler.engine_back(worker)
    assert bench.assigned == []
    assert bench.answer("a", "1")
    assert bench.assigned == [("2", "a")]


def test_a_task_left_on_an_engine_is_run_again() -> None:
    bench = Bench()
    worker = bench.scheduler.add_engine(b"a", WorkerState.EXPECTED)
    task = make_task("1", retries=1)
    bench.scheduler.inherit(task, worker)
    bench.submit("2")
    bench.scheduler.engine_back(worker)
    bench.scheduler.run_again(task)
    assert bench.assigned == [("1", "a")], "it was there first"
    assert task.retries == 1


def test_an_expected_engine_is_lost_with_what_it_was_to_have() -> None:
    bench = Bench("b")
    worker = bench.scheduler.add_engine(b"a", WorkerState.EXPECTED)
    bench.scheduler.inherit(make_task("1"), worker)
    bench.scheduler.inherit(make_task("2", retries=1), worker)
    bench.submit("3", targets=["a"])
    bench.scheduler.remove_engine(worker)
    assert bench.failed == [("3", None, "ImpossibleDependency")]
    bench.scheduler.settle(worker)
    assert bench.failed == [("1", "a", "EngineError")]
    assert bench.where() == {"2": "b"}


@pytest.mark.parametrize("was", ["running", "queued", "waiting"])
def test_an_adopted_task_leaves_its_place(was: str) -> None:
    bench = Bench("b")
    a = bench.scheduler.add_engine(b"a", WorkerState.EXPECTED)
    if was == "queued":
        bench.submit("0")
    bench.recorder.pending.add("x")
    task = bench.submit("1", after=["x"] if was == "waiting" else None)
    bench.submit("2", targets=["b"])
    bench.scheduler.adopt(task, a)
    assert bench.where()["1"] == "a"
    assert bench.answer("a", "1")
    assert "1" not in bench.scheduler.tasks
    assert "1" not in bench.queued()
    assert bench.where() == ({"0": "b"} if was == "queued" else {"2": "b"})
    assert not bench.scheduler.dependents


def test_an_engine_whose_task_could_not_be_sent_gets_another() -> None:
    bench = Bench("a")
    first = bench.submit("1")
    bench.submit("2")
    bench.scheduler.abandon_unsent(first, EngineError("unreadable"))
    assert bench.failed == [("1", "a", "EngineError")]
    assert bench.where() == {"2": "a"}


def test_tasks_that_no_engine_has_can_be_aborted() -> None:
    bench = Bench("a")
    for name in ("runs", "first", "second", "third"):
        bench.submit(name)
    bench.submit("waits", after=["first"])
    bench.submit("dependent", after=["second"])
    bench.submit("any way", after={"dependencies": ["second"], "failure": True})
    assert bench.scheduler.abort(["second", "first", "waits", "runs", "unknown", "first"]) == [
        "second",
        "first",
        "waits",
    ]
    assert bench.failed == [
        ("second", None, "TaskAborted"),
        ("first", None, "TaskAborted"),
        ("waits", None, "TaskAborted"),
        ("dependent", None, "ImpossibleDependency"),
    ]
    assert bench.queued() == ["third", "any way"]
    assert bench.where() == {"runs": "a"}
    assert not bench.scheduler.dependents


def test_a_great_many_are_aborted_at_once() -> None:
    bench = Bench()
    names = [bench.submit(str(number)).msg_id for number in range(30_000)]
    assert bench.scheduler.abort(names[::-3]) == names[::-3]
    assert len(bench.queued()) == 20_000


# Long work is done in slices


def test_an_engine_gets_thousands_of_tasks_in_slices_and_in_order() -> None:
    bench = Bench(hwm=0)
    count = 3 * AT_A_TIME + 1
    for number in range(count):
        bench.submit(str(number))
    bench.add("a")
    assert len(bench.recorder.assigned) == AT_A_TIME
    bench.submit("late")
    assert len(bench.recorder.assigned) == AT_A_TIME, "those before it come first"
    bench.answer("a", "0")
    assert len(bench.recorder.assigned) == AT_A_TIME, "an answer begins no second row of slices"
    assert bench.recorder.take_turns() == 4 - 1
    assert [msg_id for msg_id, _ in bench.recorder.assigned] == [*map(str, range(count)), "late"]
    bench.submit("next")
    assert bench.recorder.assigned[-1] == ("next", "a")


def test_two_engines_share_what_is_given_out_in_slices() -> None:
    bench = Bench(hwm=0)
    for number in range(4 * AT_A_TIME):
        bench.submit(str(number))
    bench.add("a")
    bench.add("b")
    bench.recorder.take_turns()
    given = Counter(engine for _, engine in bench.recorder.assigned)
    assert given == {"a": 2 * AT_A_TIME, "b": 2 * AT_A_TIME}


def test_an_engine_that_is_lost_between_two_slices_gets_no_more() -> None:
    bench = Bench(hwm=0)
    for number in range(2 * AT_A_TIME):
        bench.submit(str(number))
    bench.add("a")
    bench.remove("a")
    bench.recorder.take_turns()
    assert len(bench.recorder.assigned) == AT_A_TIME
    assert len(bench.scheduler.queue) == AT_A_TIME


def test_thousands_of_tasks_are_aborted_at_once_and_answered_in_slices() -> None:
    bench = Bench()
    msg_ids = [str(number) for number in range(2 * AT_A_TIME)]
    for msg_id in msg_ids:
        bench.submit(msg_id)
    bench.submit("dependent", after=[msg_ids[0]])
    assert bench.scheduler.abort([*msg_ids, "dependent"]) == [*msg_ids, "dependent"]
    assert len(bench.recorder.failed) == AT_A_TIME
    bench.add("a")
    assert bench.recorder.assigned == []
    assert bench.scheduler.abort(msg_ids) == [], "they were aborted before"
    bench.recorder.take_turns()
    assert [msg_id for msg_id, _, _ in bench.recorder.failed] == [*msg_ids, "dependent"]
    assert {error for _, _, error in bench.recorder.failed} == {"TaskAborted"}
    assert not bench.scheduler.tasks


def test_a_task_that_is_aborted_at_an_engine_is_run_nowhere_else() -> None:
    bench = Bench("ab")
    for number in range(4):
        bench.submit(str(number), retries=3)
    assert bench.scheduler.abort(["0", "1"]) == []
    assert bench.answer("a", "0", ok=False), "its error is its client's"
    bench.scheduler.run_again(bench.scheduler.tasks["1"])
    assert bench.recorder.failed == [("1", None, "TaskAborted")]
    assert bench.scheduler.abort(["2", "3"]) == []
    bench.remove("b")
    bench.settle("b")
    assert bench.recorder.failed[1][2] == "EngineError"


def test_a_task_that_waits_again_is_told() -> None:
    bench = Bench("ab")
    for name in ("1", "2"):
        bench.submit(name, retries=1)
    bench.remove("a")
    bench.settle("a")
    assert bench.recorder.queued_again == ["1"]
    assert bench.queued() == ["1"]
    bench.answer("b", "2", ok=False)
    assert bench.recorder.queued_again == ["1", "2"], "b takes the task that was there first"
    assert bench.where() == {"1": "b"}
    bench.remove("b")
    bench.settle("b")
    assert bench.recorder.queued_again == ["1", "2"], "it has no retries left"


def test_time_that_was_waited_before_counts_once() -> None:
    bench = Bench()
    task = make_task("1", timeout=5.0, retries=1)
    task.waited = 2.0
    bench.scheduler.submit(task)
    bench.add("a")
    bench.remove("a")
    bench.settle("a")
    assert [timer.seconds for timer in bench.recorder.timers] == [3.0, 5.0]
