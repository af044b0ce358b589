"""Dependencies between tasks: when a task may run, where, and when it never can."""

from __future__ import annotations

import sys
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipyparallel import Dependency
from ipyparallel.client.view import LoadBalancedView

from trio_hub.errors import EngineError, HubError, InvalidDependency, WireError
from trio_hub.schedulers.dependencies import Outcome, Outcomes, TaskDependency, parse_dependency
from trio_hub.schedulers.task import Task, TaskState, Worker
from trio_hub.schedulers.tasks import TaskScheduler

from .making import Bench, Recorder, make_task

OK = Outcome(True, b"a")
FAILED = Outcome(False, b"a")


def any_of(*msg_ids: str, **flags: bool) -> dict[str, Any]:
    return {"dependencies": list(msg_ids), "all": False, **flags}


def on_failure(*msg_ids: str, **flags: bool) -> dict[str, Any]:
    return {"dependencies": list(msg_ids), "success": False, "failure": True, **flags}


def assert_forgotten(bench: Bench, *, queued: int = 0) -> None:
    """Check that the scheduler keeps nothing of ended tasks, and that only queued tasks are unfinished."""
    scheduler = bench.scheduler
    assert len(scheduler.tasks) == len(scheduler.queue) == queued
    assert scheduler.running == 0
    assert not scheduler.dependents
    assert not scheduler.dependencies._news
    assert scheduler.queue.keeps_nothing == (not queued)
    assert not any(worker.running for worker in bench.workers.values())
    if not queued:
        assert all(timer.cancelled for timer in bench.recorder.timers)


# Conditions

FLAGS = [(True, False), (False, True), (True, True)]


@pytest.mark.property
@given(st.lists(st.tuples(st.text("abcdef", min_size=1, max_size=1), st.booleans())), st.booleans(), st.data())
def test_a_condition_is_met_and_impossible_exactly_when_stock_says_so(
    ends: list[tuple[str, bool]], all: bool, data: st.DataObject
) -> None:
    success, failure = data.draw(st.sampled_from(FLAGS))
    ids = data.draw(st.frozensets(st.sampled_from("abcd"), min_size=1))
    condition = TaskDependency(ids, all=all, success=success, failure=failure)
    stock = Dependency(sorted(ids), all=all, success=success, failure=failure)
    completed: set[str] = set()
    failed: set[str] = set()
    engines: set[bytes] = set()
    before = (False, False)
    for msg_id, ok in dict(ends).items():
        engine = msg_id.encode() if ok else None
        (completed if ok else failed).add(msg_id)
        if msg_id in condition.open:
            condition.ended(msg_id, Outcome(ok, engine))
            if engine and success:
                engines.add(engine)
        now = (condition.met, condition.impossible)
        assert now == (stock.check(completed, failed), stock.unreachable(completed, failed))
        assert now != (True, True)
        assert now >= before, "neither reverts"
        assert before == (False, False) or now == before
        assert condition.open == ids - completed - failed
        assert condition.engines == engines
        assert condition.torn == (all and len(engines) > 1)
        before = now
    if not condition.open:
        assert condition.met != condition.impossible


@pytest.mark.property
@given(st.lists(st.text("ab\0é\ud800", max_size=3)), st.booleans(), st.sampled_from(FLAGS))
def test_what_a_stock_view_renders_is_understood(ids: list[str], all: bool, flags: tuple[bool, bool]) -> None:
    dependency = Dependency(ids, all=all, success=flags[0], failure=flags[1])
    condition = parse_dependency(LoadBalancedView._render_dependency(None, dependency), "after")
    if condition is None:
        assert not ids
    else:
        assert condition.open == set(ids)
        assert (condition.all, condition.success, condition.failure) == (all, *flags)
    plain = parse_dependency(LoadBalancedView._render_dependency(None, ids), "after")
    if plain is None:
        assert not ids
    else:
        assert plain.open == set(ids)
        assert (plain.all, plain.success, plain.failure) == (True, True, False)


@pytest.mark.parametrize("raw", [None, [], {}, "", {"dependencies": []}, Dependency([], all=False).as_dict()])
def test_no_dependency(raw: Any) -> None:
    assert parse_dependency(raw, "after") is None


@pytest.mark.parametrize("raw", ["x", ["x"], ["x", "x"], {"dependencies": "x"}, {"dependencies": ["x"]}])
def test_forms_of_the_same_dependency(raw: Any) -> None:
    condition = parse_dependency(raw, "after")
    assert condition is not None
    assert condition.open == {"x"}
    assert (condition.all, condition.success, condition.failure) == (True, True, False)


@pytest.mark.parametrize("flags", [(1, 1, 0), (0, 1, 0), (1, 0, 1), (0, 1, 1), (2, -1, 0)])
def test_integers_will_do_for_bools(flags: tuple[int, int, int]) -> None:
    """Stock clients send the values that users give, and the stock scheduler only checks whether they are true."""
    all, success, failure = flags
    raw = Dependency(["x", "y"], all=all, success=success, failure=failure).as_dict()
    assert raw["all"] is all, "an integer"
    condition = parse_dependency(raw, "after")
    assert condition is not None
    assert (condition.all, condition.success, condition.failure) == (bool(all), bool(success), bool(failure))
    assert {type(getattr(condition, name)) for name in ("all", "success", "failure")} == {bool}


@pytest.mark.parametrize(
    "raw",
    [
        5,
        True,
        2.5,
        [5],
        ["x", None],
        [["x"]],
        {"x": "x"},
        {"dependencies": ["x"], "some": True},
        {"dependencies": 5},
        {"dependencies": None},
        {"dependencies": [b"x"]},
        {"dependencies": {"dependencies": ["x"]}},
        {"dependencies": ["x"], "all": "yes"},
        {"dependencies": ["x"], "success": None},
        {"dependencies": ["x"], "all": 1.0},
        {"dependencies": ["x"], "all": [1]},
        {"dependencies": ["x"], "success": 0, "failure": 0},
        {"dependencies": ["x"], "success": False, "failure": False},
        {"dependencies": ["x"], "success": False},
    ],
)
def test_a_bad_dependency_is_named(raw: Any) -> None:
    with pytest.raises(InvalidDependency, match="follow"):
        make_task("1", follow=raw)


def test_latest_outcomes_are_remembered() -> None:
    outcomes = Outcomes(size=2)
    ended = [Outcome(True, None), FAILED, Outcome(True, b"a"), Outcome(True, b"a"), Outcome(False, b"a")]
    for number, outcome in enumerate(ended):
        outcomes.remember(str(number), outcome)
    assert [outcomes.get(str(number)) for number in range(6)] == [None, None, *ended[2:], None]
    assert outcomes.get("2") is outcomes.get("3"), "one object for all that ended so"
    assert len(outcomes) == 3


def test_the_first_outcome_counts() -> None:
    outcomes = Outcomes()
    outcomes.remember("1", FAILED)
    outcomes.remember("1", Outcome(True, None))
    assert outcomes.get("1") == FAILED


def test_outcomes_of_engines_that_came_and_went_are_bounded() -> None:
    outcomes = Outcomes(size=10)
    for number in range(10_000):
        outcomes.remember(str(number), Outcome(True, b"%d" % number))
    assert outcomes.get("9999") == Outcome(True, b"9999")
    assert len(outcomes) <= 20
    assert len(outcomes._kinds) <= 10


# After


def test_a_task_runs_after_another() -> None:
    bench = Bench("ab")
    bench.submit("1")
    task = bench.submit("2", after=["1"])
    assert task.state is TaskState.WAITING
    assert bench.queued() == []
    assert bench.assigned == [("1", "a")]
    bench.answer("a", "1")
    assert bench.queued() == []
    bench.answer(bench.where()["2"], "2")
    assert_forgotten(bench)


def test_after_what_has_ended_already() -> None:
    bench = Bench("a")
    bench.submit("1")
    bench.answer("a", "1")
    bench.submit("2", after=["1"])
    assert bench.assigned == [("1", "a"), ("2", "a")]
    assert bench.recorder.asked == []


@pytest.mark.parametrize(
    ("after", "runs_when"),
    [
        (["1", "2"], "both ok"),
        (any_of("1", "2"), "first ok"),
        (on_failure("1", "2"), "both fail"),
        (on_failure("1", "2", all=False), "first fails"),
        ({"dependencies": ["1", "2"], "failure": True}, "always"),
    ],
)
@pytest.mark.parametrize("ends", [(True, True), (True, False), (False, True), (False, False)])
def test_after_two(after: Any, runs_when: str, ends: tuple[bool, bool]) -> None:
    bench = Bench("ab")
    bench.submit("1", targets=["a"])
    bench.submit("2", targets=["b"])
    bench.submit("3", after=after)
    bench.answer("a", "1", ok=ends[0])
    early = {
        "both ok": None if ends[0] else False,
        "first ok": True if ends[0] else None,
        "both fail": None if not ends[0] else False,
        "first fails": True if not ends[0] else None,
        "always": None,
    }[runs_when]
    assert ("3" in bench.where(), bench.failed != []) == (early is True, early is False)
    bench.answer("b", "2", ok=ends[1])
    runs = {
        "both ok": all(ends),
        "first ok": any(ends),
        "both fail": not any(ends),
        "first fails": not all(ends),
        "always": True,
    }[runs_when]
    assert ("3" in bench.where()) == runs
    if early is None:
        assert bench.failed == ([] if runs else [("3", None, "ImpossibleDependency")])
    if runs:
        bench.answer(bench.where()["3"], "3")
    assert_forgotten(bench)


def test_a_task_waits_while_what_it_depends_on_is_tried_again() -> None:
    bench = Bench("abc")
    bench.submit("1", retries=1)
    task = bench.submit("2", after=["1"])
    other = bench.submit("3", after=on_failure("1"))
    [(_, first)] = bench.assigned
    assert not bench.answer(first, "1", ok=False)
    assert not bench.answer(bench.where()["1"], "1", ok=False, met=False)
    assert (task.state, other.state) == (TaskState.WAITING, TaskState.WAITING)
    assert bench.answer(bench.where()["1"], "1")
    assert task.state is TaskState.RUNNING
    assert bench.failed == [("3", None, "ImpossibleDependency")]


def test_the_death_of_an_engine_is_a_failure_once_it_is_settled() -> None:
    bench = Bench("ab")
    bench.submit("1", targets=["a"])
    after = bench.submit("2", after=["1"])
    failure = bench.submit("3", after=on_failure("1"))
    where = bench.submit("4", follow=on_failure("1"))
    bench.remove("a")
    assert after.state is TaskState.WAITING
    bench.settle("a")
    assert sorted(bench.failed) == [
        ("1", "a", "EngineError"),
        ("2", None, "ImpossibleDependency"),
        ("4", None, "ImpossibleDependency"),
    ]
    assert failure.state is TaskState.RUNNING
    assert where.state is TaskState.DONE, "nobody can follow to an engine that is gone"
    bench.answer("b", "3")
    assert_forgotten(bench)


def test_what_is_run_elsewhere_after_a_death_is_waited_for() -> None:
    bench = Bench("ab")
    bench.submit("1", retries=1)
    task = bench.submit("2", follow=["1"])
    assert bench.where() == {"1": "a"}
    bench.remove("a")
    bench.settle("a")
    assert task.state is TaskState.WAITING
    bench.answer("b", "1")
    assert bench.where() == {"2": "b"}


def test_an_aborted_task_is_a_failure() -> None:
    bench = Bench("a")
    task = bench.submit("1", retries=3)
    bench.submit("2", after=["1"])
    bench.scheduler.result(task, ok=False, aborted=True)
    assert bench.failed == [("2", None, "ImpossibleDependency")]


def test_a_chain_of_tasks_does_not_keep_an_engine_from_others() -> None:
    """A task whose dependencies are met is queued like any other task, although it has waited for longer."""
    bench = Bench("a")
    for number in range(4):
        bench.submit(str(number), "greedy", after=[str(number - 1)] if number else None)
    bench.submit("modest", "modest")
    order = []
    for _ in range(5):
        [(msg_id, _)] = bench.assigned
        order.append(msg_id)
        bench.answer("a", msg_id)
    assert order == ["0", "modest", "1", "2", "3"]


def test_a_task_that_fails_again_and_again_does_not_keep_an_engine_from_others() -> None:
    bench = Bench("a")
    bench.submit("greedy", "greedy", retries=100)
    bench.submit("modest", "modest")
    bench.answer("a", "greedy", ok=False)
    assert bench.assigned == [("greedy", "a"), ("modest", "a")]


def test_what_becomes_runnable_is_queued_in_the_order_of_submission() -> None:
    bench = Bench("a")
    bench.submit("0")
    bench.submit("1", after=["0"])
    bench.submit("2")
    bench.submit("3", after=["0"])
    bench.submit("4")
    assert bench.queued() == ["2", "4"]
    bench.answer("a", "0")
    assert bench.where() == {"2": "a"}, "it was queued when the engine had room"
    assert bench.queued() == ["1", "3", "4"]


# Follow


def test_a_task_follows_another_to_its_engine() -> None:
    bench = Bench("abc")
    bench.submit("1", targets=["b"])
    task = bench.submit("2", follow=["1"])
    bench.answer("b", "1")
    assert bench.where() == {"2": "b"}
    busy = bench.submit("3", follow=["1"])
    assert busy.state is TaskState.QUEUED, "although others are idle"
    bench.answer("b", "2")
    assert bench.where() == {"3": "b"}
    assert task.state is TaskState.DONE


def test_all_that_a_task_follows_must_have_run_on_one_engine() -> None:
    bench = Bench("ab")
    for msg_id, engine in (("1", "a"), ("2", "b"), ("3", "a")):
        bench.submit(msg_id, targets=[engine])
    bench.submit("torn", follow=["1", "2"])
    bench.submit("together", follow=["1", "3"])
    bench.answer("a", "1")
    bench.answer("b", "2")
    assert bench.failed == [("torn", None, "ImpossibleDependency")]
    bench.answer("a", "3")
    assert bench.where() == {"together": "a"}
    bench.submit("torn too", follow=["1", "2"])
    assert bench.failed == [("torn too", None, "ImpossibleDependency")]
    bench.answer("a", "together")
    assert_forgotten(bench)


def test_to_follow_any_leaves_a_choice_that_grows() -> None:
    bench = Bench("abc")
    for msg_id, engine in (("1", "a"), ("2", "b"), ("3", "c")):
        bench.submit(msg_id, targets=[engine])
    bench.answer("a", "1")
    bench.submit("busy", targets=["a"])
    task = bench.submit("4", follow=any_of("1", "2", "3"))
    assert task.targets == frozenset([b"a"])
    assert bench.queued() == ["4"]
    bench.answer("b", "2", ok=False)
    assert bench.queued() == ["4"], "a failure is nothing to follow"
    bench.answer("c", "3")
    assert bench.where() == {"busy": "a", "4": "c"}
    assert task.targets == frozenset([b"a", b"c"])


def test_who_may_follow_any_waits_for_another_when_an_engine_goes() -> None:
    bench = Bench("abc")
    bench.submit("1", targets=["a"])
    bench.submit("2", targets=["b"])
    bench.answer("a", "1")
    bench.submit("busy", targets=["a"])
    task = bench.submit("3", follow=any_of("1", "2"))
    assert bench.queued() == ["3"]
    bench.remove("a")
    assert task.state is TaskState.WAITING
    bench.answer("b", "2")
    assert bench.where()["3"] == "b"


def test_who_may_follow_any_waits_for_another_when_its_engine_dies() -> None:
    bench = Bench("ab")
    bench.submit("1", targets=["a"])
    bench.answer("a", "1")
    bench.submit("2", targets=["b"])
    task = bench.submit("3", follow=any_of("1", "2"), retries=1)
    assert bench.where()["3"] == "a"
    bench.remove("a")
    bench.settle("a")
    assert task.state is TaskState.WAITING
    assert bench.failed == []
    bench.answer("b", "2")
    assert bench.where() == {"3": "b"}


def test_what_ends_while_a_task_runs_counts_when_it_is_tried_again() -> None:
    bench = Bench("ab")
    bench.submit("1", targets=["a"])
    bench.answer("a", "1")
    bench.submit("2", targets=["b"])
    bench.submit("3", follow=any_of("1", "2"))
    assert bench.where()["3"] == "a"
    bench.answer("b", "2")
    assert not bench.answer("a", "3", ok=False, met=False)
    assert bench.where() == {"3": "b"}
    assert bench.failed == []


def test_when_none_is_left_to_follow_it_is_impossible() -> None:
    bench = Bench("abc")
    bench.submit("1", targets=["a"])
    bench.submit("2", targets=["b"])
    bench.answer("a", "1")
    bench.submit("busy", targets=["a"])
    bench.submit("3", follow=any_of("1", "2"))
    bench.remove("a")
    assert bench.failed == []
    bench.answer("b", "2", ok=False)
    assert bench.failed == [("3", None, "ImpossibleDependency")]


def test_the_engine_that_was_followed_is_gone() -> None:
    bench = Bench("ab")
    bench.submit("1", targets=["a"])
    bench.answer("a", "1")
    bench.submit("busy", targets=["a"])
    bench.submit("queued", follow=["1"])
    bench.remove("a")
    bench.submit("new", follow=["1"])
    assert bench.failed == [("queued", None, "ImpossibleDependency"), ("new", None, "ImpossibleDependency")]


def test_the_engine_goes_while_one_queued_task_may_follow_another() -> None:
    """The first task fails, which decides the second task just after it has lost its place in the queue."""
    bench = Bench("ab")
    bench.submit("0", targets=["a"])
    bench.answer("a", "0")
    bench.submit("busy", targets=["a"])
    bench.submit("1", targets=["a"])
    bench.submit("2", follow=any_of("0", "1"))
    bench.submit("3", after=["2"])
    bench.submit("4", targets=["a"], after=on_failure("2"))
    bench.submit("5", after=on_failure("2"))
    assert bench.queued() == ["1", "2"]
    bench.remove("a")
    assert bench.failed == [(msg_id, None, "ImpossibleDependency") for msg_id in "1234"]
    assert bench.where() == {"busy": "a", "5": "b"}


def test_follow_and_targets_both_hold() -> None:
    bench = Bench("abc")
    for msg_id, engine in (("1", "a"), ("2", "b"), ("3", "c")):
        bench.submit(msg_id, targets=[engine])
    bench.answer("a", "1")
    task = bench.submit("4", follow=any_of("1", "2", "3"), targets=["b", "c"])
    assert task.state is TaskState.WAITING, "what it may follow so far is not among its targets"
    bench.submit("5", follow=["1"], targets=["b", "c"])
    assert bench.failed == [("5", None, "ImpossibleDependency")]
    bench.answer("c", "3")
    assert bench.where()["4"] == "c"
    assert task.targets == frozenset([b"c"])


def test_who_ran_nowhere_cannot_be_followed() -> None:
    bench = Bench("a")
    bench.submit("1", targets=["nobody"])
    bench.submit("2", follow=on_failure("1"))
    bench.submit("3", after=on_failure("1"))
    assert [msg_id for msg_id, _, _ in bench.failed] == ["1", "2"]
    assert bench.where() == {"3": "a"}


def test_an_engine_that_refuses_what_follows_to_it() -> None:
    bench = Bench("ab")
    bench.submit("1", targets=["a"])
    bench.answer("a", "1")
    bench.submit("2", follow=["1"])
    assert not bench.answer("a", "2", ok=False, met=False)
    assert bench.failed == [("2", None, "ImpossibleDependency")]


def test_after_and_follow_both_hold() -> None:
    bench = Bench("ab")
    bench.submit("1", targets=["a"])
    bench.submit("2", targets=["b"])
    task = bench.submit("3", after=["2"], follow=["1"])
    bench.answer("a", "1")
    assert task.state is TaskState.WAITING
    bench.answer("b", "2")
    assert bench.where() == {"3": "a"}
    same = bench.submit("4", after=["3"], follow=["3"])
    bench.answer("a", "3")
    assert same.state is TaskState.RUNNING
    bench.answer("a", "4")
    assert_forgotten(bench)


# Impossible and invalid dependencies


@pytest.mark.parametrize("kind", ["after", "follow"])
def test_a_task_that_depends_on_itself_is_invalid(kind: str) -> None:
    bench = Bench("a")
    bench.submit("0")
    dependency: dict[str, Any] = {kind: any_of("0", "1")}
    bench.submit("1", **dependency)
    assert bench.failed == [("1", None, "InvalidDependency")]
    assert bench.recorder.asked == []
    bench.answer("a", "0")
    assert_forgotten(bench)


def test_unknown_ids_are_asked_of_the_store_together() -> None:
    bench = Bench("a")
    bench.submit("1")
    task = bench.submit("2", after=["1", "y"], follow=["x", "y"])
    assert bench.recorder.asked == [(task, ["x", "y"])]
    bench.answer("a", "1")
    assert task.state is TaskState.WAITING
    bench.scheduler.outcomes_known(task, {"x": OK, "y": OK})
    assert bench.where() == {"2": "a"}
    bench.answer("a", "2")
    assert_forgotten(bench)


def test_what_the_store_does_not_know_is_invalid() -> None:
    bench = Bench("a")
    bench.submit("1")
    task = bench.submit("2", after=any_of("1", "x", "y"))
    dependent = bench.submit("3", after=on_failure("2"))
    bench.scheduler.outcomes_known(task, {"y": OK})
    assert bench.failed == [("2", None, "InvalidDependency")]
    assert dependent.state is TaskState.QUEUED
    bench.answer("a", "1")
    bench.answer("a", "3")
    assert_forgotten(bench)


def test_a_condition_is_not_met_before_the_store_has_answered() -> None:
    bench = Bench("a")
    bench.submit("1")
    task = bench.submit("2", after=any_of("1", "x"))
    bench.answer("a", "1")
    assert task.state is TaskState.WAITING, "x may not exist"
    bench.scheduler.outcomes_known(task, {"x": FAILED})
    assert bench.where() == {"2": "a"}


def test_the_store_answers_that_it_is_impossible() -> None:
    bench = Bench("a")
    task = bench.submit("1", after=["x", "y"])
    bench.scheduler.outcomes_known(task, {"x": FAILED, "y": OK})
    assert bench.failed == [("1", None, "ImpossibleDependency")]
    assert_forgotten(bench)


@pytest.mark.parametrize("how", ["abandoned", "timed out", "impossible"])
@pytest.mark.parametrize("answer", [{}, {"x": OK}, {"x": FAILED}])
def test_the_store_answers_too_late(how: str, answer: dict[str, Outcome]) -> None:
    bench = Bench("a")
    bench.submit("1")
    task = bench.submit("2", after=["x", "1"], timeout=1.0)
    if how == "abandoned":
        bench.scheduler.abandon(task, EngineError("given up"))
    elif how == "timed out":
        bench.scheduler.timed_out(task)
    else:
        bench.answer("a", "1", ok=False)
    assert len(bench.failed) == 1
    again = bench.submit("2", "another session")  # the same msg_id, another task
    bench.scheduler.outcomes_known(task, answer)
    assert bench.failed == []
    assert bench.scheduler.tasks["2"] is again
    assert task.state is TaskState.DONE


def test_a_task_that_comes_while_the_store_is_asked_for_it_did_not_exist() -> None:
    bench = Bench("a")
    task = bench.submit("1", after=["2"])
    bench.submit("2")
    bench.scheduler.outcomes_known(task, {})
    assert bench.failed == [("1", None, "InvalidDependency")]


# Failures in a row


@pytest.mark.parametrize("how", ["fails", "dies", "abandoned"])
def test_a_failure_fails_a_long_chain(how: str) -> None:
    bench = Bench("a")
    length = 10_000
    assert length > 5 * sys.getrecursionlimit()
    first = bench.submit("0", targets=["a"])
    for number in range(1, length):
        bench.submit(str(number), after=[str(number - 1)])
    if how == "fails":
        bench.answer("a", "0", ok=False)
    elif how == "dies":
        bench.remove("a")
        bench.settle("a")
    else:
        bench.scheduler.abandon(first, EngineError("given up"))
    failed = [msg_id for msg_id, _, _ in bench.failed]
    assert failed[-1] == str(length - 1)
    assert failed == [str(number) for number in range(how == "fails", length)]
    assert_forgotten(bench)


def test_a_failure_fails_a_broad_tree_each_task_once() -> None:
    bench = Bench("a")
    bench.submit("root")
    for number in range(100):
        bench.submit(f"child {number}", after=["root"])
    for number in range(100):
        bench.submit(f"grandchild {number}", after=[f"child {number}", f"child {number - 1 if number else 99}"])
    bench.answer("a", "root", ok=False)
    failed = bench.failed
    assert len(failed) == len(set(failed)) == 200
    assert_forgotten(bench)


def test_alternating_dependencies_on_failure() -> None:
    bench = Bench("a")
    bench.submit("0")
    bench.submit("1", after=["0"])
    bench.submit("2", after=on_failure("1"))
    bench.submit("3", after=on_failure("2"))
    bench.submit("4", after=["2"])
    bench.answer("a", "0", ok=False)
    assert bench.failed == [("1", None, "ImpossibleDependency")]
    assert bench.where() == {"2": "a"}
    bench.answer("a", "2")
    assert bench.failed == [("3", None, "ImpossibleDependency")]
    assert bench.where() == {"4": "a"}


# Direct requests


def test_a_task_follows_a_direct_request() -> None:
    bench = Bench("ab")
    bench.recorder.pending.add("direct")
    task = bench.submit("1", after=["direct"], follow=["direct"])
    assert bench.recorder.asked == []
    assert task.state is TaskState.WAITING
    bench.scheduler.ended("direct", Outcome(True, b"b"))
    assert bench.where() == {"1": "b"}
    bench.scheduler.ended("direct", Outcome(False, b"b"))  # told twice
    bench.answer("b", "1")
    assert_forgotten(bench)


def test_the_end_of_what_nobody_waits_for() -> None:
    bench = Bench("a")
    bench.scheduler.ended("direct", Outcome(False, None))
    bench.submit("1", after=["direct"])
    assert bench.failed == [("1", None, "ImpossibleDependency")]
    assert_forgotten(bench)


# Time limits


def test_the_time_in_which_a_task_may_wait() -> None:
    bench = Bench()
    timers = bench.recorder.timers
    bench.submit("0")
    task = bench.submit("1", after=["0"], timeout=2.5)
    [timer] = timers
    assert (timer.task, timer.seconds, timer.cancelled) == (task, 2.5, False)
    bench.add("a")
    bench.answer("a", "0")
    assert timer.cancelled, "it runs"
    assert task.timer is None
    bench.scheduler.timed_out(task)  # just too late
    assert task.state is TaskState.RUNNING
    bench.answer("a", "1")
    bench.scheduler.timed_out(task)
    assert bench.failed == []
    assert len(timers) == 1


def test_one_timer_while_a_task_waits_for_one_thing_after_the_other() -> None:
    bench = Bench("ab")
    timers = bench.recorder.timers
    bench.submit("0", targets=["a"])
    bench.submit("1", targets=["b"])
    task = bench.submit("2", after=["x", "0", "1"], follow=any_of("0", "1"), timeout=1.0)
    bench.scheduler.outcomes_known(task, {"x": OK})
    bench.answer("a", "0")
    bench.submit("3", targets=["a"])
    bench.submit("4", targets=["b"])
    bench.answer("b", "1", ok=False)
    assert task.state is TaskState.DONE
    assert bench.failed == [("2", None, "ImpossibleDependency")]
    assert [timer.cancelled for timer in timers] == [True]
    queued = bench.submit("5", targets=["a", "b"], timeout=1.0)
    assert queued.state is TaskState.QUEUED
    assert len(timers) == 2
    bench.remove("a")
    assert len(timers) == 2


def test_a_timer_is_started_anew_for_a_task_that_is_taken_back() -> None:
    bench = Bench("a")
    task = bench.submit("1", timeout=1.0, retries=2)
    assert bench.recorder.timers == [], "it did not wait"
    assert not bench.answer("a", "1", ok=False)
    [first] = bench.recorder.timers
    assert not first.cancelled
    bench.add("b")
    assert first.cancelled
    bench.remove("b")
    bench.settle("b")
    [_, second] = bench.recorder.timers
    assert not second.cancelled
    assert bench.failed == []
    bench.scheduler.timed_out(task)
    assert bench.failed == [("1", None, "TaskTimeout")]
    assert_forgotten(bench)


@pytest.mark.parametrize("wait", ["for an engine", "for a task", "for the store", "for another to follow"])
def test_the_time_is_up(wait: str) -> None:
    bench = Bench()
    waits: dict[str, dict[str, Any]] = {
        "for an engine": {},
        "for a task": {"after": ["0"]},
        "for the store": {"after": ["x"]},
        "for another to follow": {"follow": any_of("y", "0")},
    }
    bench.scheduler.ended("y", Outcome(True, b"gone"))
    bench.submit("0")
    task = bench.submit("1", timeout=1.0, **waits[wait])
    bench.submit("2", after=["1"])
    bench.scheduler.timed_out(task)
    assert bench.failed == [("1", None, "TaskTimeout"), ("2", None, "ImpossibleDependency")]
    bench.add("a")
    bench.answer("a", "0")
    assert_forgotten(bench)


@pytest.mark.parametrize("timeout", [None, 0, 0.0])
def test_no_time_limit(timeout: Any) -> None:
    bench = Bench()
    bench.submit("1", timeout=timeout)
    assert bench.recorder.timers == []


@pytest.mark.parametrize("timeout", [float("nan"), float("inf"), -float("inf")])
def test_a_time_limit_is_a_number_of_seconds(timeout: float) -> None:
    with pytest.raises(WireError, match="number of seconds"):
        make_task("1", timeout=timeout)


# The end


def test_giving_all_up_answers_each_once_and_runs_none() -> None:
    bench = Bench("a")
    bench.submit("running", retries=5)
    bench.submit("queued", timeout=1.0)
    bench.submit("after", after=["running"], timeout=1.0)
    bench.submit("on failure", after=on_failure("running"))
    bench.submit("on failure of the queued", after=on_failure("queued"))
    asked = bench.submit("asked", after=["x"])
    bench.submit("last", after=on_failure("asked"))
    assert bench.assigned == [("running", "a")]
    bench.scheduler.abandon_all(EngineError("the hub has been stopped"))
    failed = bench.failed
    assert {error for _, _, error in failed} == {"EngineError"}
    assert len(failed) == len({msg_id for msg_id, _, _ in failed}) == 7
    bench.scheduler.outcomes_known(asked, {})
    bench.add("b")
    assert (bench.assigned, bench.failed) == ([], [])
    assert_forgotten(bench)


def test_an_error_on_the_way_does_not_stop_the_news() -> None:
    class Unlucky(Recorder):
        unlucky = True

        def task_failed(self, task: Task, worker: Worker | None, error: HubError) -> None:
            if self.unlucky:
                self.unlucky = False
                raise RuntimeError("as the test says")
            super().task_failed(task, worker, error)

    recorder = Unlucky()
    scheduler = TaskScheduler(recorder, Random(1))
    scheduler.add_engine(b"a")
    tasks = [make_task("0"), make_task("1", after=["0"]), make_task("2")]
    for task in tasks:
        scheduler.submit(task)
    with pytest.raises(RuntimeError, match="as the test says"):
        scheduler.result(tasks[0], ok=False)
    dependent = make_task("3", after=["2"])
    scheduler.submit(dependent)
    scheduler.result(tasks[2], ok=False)
    assert recorder.failed == [("3", None, "ImpossibleDependency")]


@pytest.mark.property
@given(st.integers(0, 2**32))
def test_nothing_is_kept_of_a_graph_that_has_run(seed: int) -> None:
    """Each task runs at most once, and after the tasks on which it depends. At the end, the tables are empty."""
    random = Random(seed)
    bench = Bench("abc")
    ended: dict[str, bool] = {}
    conditions: dict[str, dict[str, Any]] = {}
    for number in range(30):
        metadata: dict[str, Any] = {}
        for kind in ("after", "follow"):
            if number and random.random() < 0.5:
                ids = [str(random.randrange(number)) for _ in range(random.randint(1, 3))]
                success, failure = random.choice(FLAGS)
                metadata[kind] = any_of(*ids, all=random.random() < 0.5, success=success, failure=failure)
        conditions[str(number)] = metadata
        bench.submit(str(number), **metadata)

    def check_new() -> None:
        for msg_id, _, _ in bench.failed:
            assert msg_id not in ended
            ended[msg_id] = False
        completed = {msg_id for msg_id, ok in ended.items() if ok}
        for msg_id, _ in bench.assigned:
            for raw in conditions[msg_id].values():
                assert Dependency(raw).check(completed, ended.keys() - completed)

    check_new()
    while where := bench.where():
        msg_id = random.choice(sorted(where))
        ok = random.random() < 0.8
        ended[msg_id] = ok
        bench.answer(where[msg_id], msg_id, ok=ok)
        check_new()
    assert len(ended) == 30
    assert_forgotten(bench)
