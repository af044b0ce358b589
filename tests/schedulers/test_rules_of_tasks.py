"""Rules of tasks, one by one: priority, weight, needs, time left, repetition, drain and hold, and explanations."""

from __future__ import annotations

from typing import Any

import pytest

from trio_hub.errors import EngineError
from trio_hub.schedulers.explaining import said
from trio_hub.schedulers.matching import rounded_up
from trio_hub.schedulers.rules import Needs, parse_rules
from trio_hub.schedulers.schemes import SCHEMES
from trio_hub.schedulers.task import Task, TaskState

from .making import Bench, make_task

GPU: Needs = (("gpu", 2.0), ("site", "a"))


class RuledBench(Bench):
    def put(self, msg_id: str, session: str = "client", **said: Any) -> Task:
        """Submit a task. Arguments that are rules make its rules, and the others its metadata."""
        metadata = {name: said.pop(name) for name in ("targets", "retries", "timeout", "after") if name in said}
        task = make_task(msg_id, session, parse_rules(said), **metadata)
        assert self.scheduler.submit(task)
        return task

    def fail(self, name: str, msg_id: str, ename: str = "ValueError") -> bool:
        task = self.scheduler.running_on(name.encode(), msg_id)
        assert task is not None
        return self.scheduler.result(task, ok=False, ename=ename)

    def words(self, task: Task) -> dict[str, str]:
        """Return the word about each engine, and about the task under an empty name."""
        return {(r.engine or b"").decode(): r.word for r in self.scheduler.explain(task)}

    def texts(self, task: Task) -> dict[str, str]:
        return {(r.engine or b"").decode(): r.text for r in self.scheduler.explain(task)}

    def pause_ends(self) -> None:
        [pause] = [pause for pause in self.recorder.pauses if not pause.cancelled]
        pause.cancelled = True
        self.scheduler.pause_over(pause.task)


def test_a_higher_priority_goes_first_across_clients() -> None:
    bench = RuledBench("a")
    bench.put("running")
    bench.put("low", "one", priority=-5)
    bench.put("normal", "two")
    bench.put("high", "three", priority=5)
    bench.put("higher", "one", priority=6)
    order = []
    for _ in range(5):
        [msg_id] = bench.where()
        order.append(msg_id)
        bench.answer("a", msg_id)
    assert order == ["running", "higher", "high", "normal", "low"]


def test_a_new_task_of_high_priority_does_not_wait_for_engines_with_room() -> None:
    bench = RuledBench("ab")
    bench.put("one", priority=-5)
    bench.put("two", priority=5)
    assert bench.where().keys() == {"one", "two"}


# Needs


def test_needs_are_met_by_tags_and_by_free_amounts() -> None:
    bench = RuledBench(hwm=4)
    bench.add("a", (("gpu", 2.0), ("site", "a")))
    bench.add("b", (("gpu", 1.0), ("site", "b")))
    bench.add("c")
    bench.put("1", needs={"gpu": 1, "site": "a"})
    bench.put("2", needs={"gpu": 1})
    bench.put("3", needs={"gpu": 1})
    bench.put("4", needs={"gpu": 1})
    where = bench.where()
    assert where["1"] == "a"
    assert sorted(where.values()) == ["a", "a", "b"]
    assert bench.queued() == ["4"]
    bench.put("plain 1")
    assert bench.where()["plain 1"] == "c", "an engine without amounts is used, too"
    bench.answer("a", "1")
    assert bench.where()["4"] == "a"


@pytest.mark.parametrize("hwm", [0, 3])
@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_an_amount_is_never_given_twice(hwm: int, scheme: str) -> None:
    bench = RuledBench(hwm=hwm, scheme=scheme)
    for name in "abc":
        bench.add(name, (("gpu", 1.0),))
    for number in range(10):
        bench.put(str(number), needs={"gpu": 0.5})
    assert sorted(bench.where().values()) == list("aabbcc")
    for _ in range(10):
        msg_id, name = next(iter(bench.where().items()))
        bench.answer(name, msg_id)
    assert bench.where() == {}


def test_thirds_of_an_amount_fill_it_exactly() -> None:
    bench = RuledBench(hwm=0)
    bench.add("a", (("gpu", 1.0),))
    for number in range(300):
        bench.put(str(number), needs={"gpu": 1 / 3})
    for number in range(300):
        assert len(bench.where()) == min(3, 300 - number)
        bench.answer("a", next(iter(bench.where())))


def test_needs_that_nobody_meets_wait_for_an_engine_and_for_the_timeout() -> None:
    bench = RuledBench("a", hwm=4)
    bench.add("b", (("gpu", 1.0),))
    task = bench.put("big", needs={"gpu": 2}, timeout=5.0)
    other = bench.put("other", needs={"gpu": 2, "site": "a"})
    assert bench.words(task) == {"": "unmet_needs", "a": "lacks", "b": "lacks"}
    assert bench.texts(other)[""] == "needs gpu=2, site=a, which no engine offers, even when it is idle"
    assert bench.texts(other)["b"] == "lacks gpu=2, site=a"
    bench.scheduler.timed_out(task)
    assert bench.failed == [("big", None, "TaskTimeout")]
    bench.add("c", GPU)
    assert bench.where() == {"other": "c"}


def test_offers_can_change() -> None:
    bench = RuledBench("ab", hwm=2)
    one, two = bench.put("1", needs={"gpu": 1}), bench.put("2", needs={"gpu": 1})
    bench.scheduler.set_offers(bench.workers["a"], (("gpu", 1.0),))
    assert bench.where() == {"1": "a"}
    bench.scheduler.set_offers(bench.workers["a"], ())
    assert one.worker is bench.workers["a"], "it goes on there"
    bench.answer("a", "1")
    assert two.state is TaskState.QUEUED
    bench.scheduler.set_offers(bench.workers["b"], (("gpu", 1.0),))
    assert bench.where() == {"2": "b"}
    bench.put("3", needs={"gpu": 1})
    assert bench.queued() == ["3"], "the amount that a running task uses is counted anew"


def test_a_failed_task_runs_again_on_the_only_engine_that_meets_its_needs() -> None:
    bench = RuledBench("b", hwm=1)
    bench.add("a", GPU)
    bench.put("1", needs={"gpu": 1}, retries=1)
    assert not bench.fail("a", "1")
    assert bench.where() == {"1": "a"}, "any engine is better than none"


def test_a_task_that_failed_elsewhere_is_forgiven_when_the_last_engine_that_meets_its_needs_is_gone() -> None:
    bench = RuledBench("c")
    bench.add("a", GPU)
    bench.add("b", GPU)
    bench.put("x", targets=["b"])
    bench.put("1", needs={"gpu": 1}, retries=1)
    assert not bench.fail("a", "1")
    assert bench.queued() == ["1"]
    bench.remove("b")
    assert bench.where()["1"] == "a"


def test_a_large_need_does_not_starve_behind_small_ones() -> None:
    bench = RuledBench(hwm=4)
    bench.add("a", (("gpu", 2.0),))
    bench.put("0", needs={"gpu": 1})
    bench.put("1", needs={"gpu": 1})
    big = bench.put("big", needs={"gpu": 2})
    for number in range(2, 200):
        bench.put(str(number), needs={"gpu": 1})
    answered = 0
    while big.worker is None:
        assert answered < 100
        bench.answer("a", next(iter(bench.where())))
        answered += 1
    assert bench.where() == {"big": "a"}
    bench.answer("a", "big")
    assert len(bench.where()) == 2


def test_a_large_need_does_not_starve_behind_new_tasks_that_are_never_queued() -> None:
    bench = RuledBench(hwm=4)
    bench.add("a", (("gpu", 2.0),))
    bench.put("0", needs={"gpu": 1})
    big = bench.put("big", needs={"gpu": 2})
    for number in range(1, 100):
        bench.put(str(number), needs={"gpu": 1})
        bench.answer("a", next(iter(bench.where())))
        if big.worker is not None:
            return
    raise AssertionError("it starves")


def test_an_engine_is_not_reserved_for_a_task_that_is_gone() -> None:
    bench = RuledBench(hwm=4)
    worker = bench.add("a", (("gpu", 2.0),))
    for number in range(100):
        bench.put(str(number), needs={"gpu": 1})
    big = bench.put("big", needs={"gpu": 2})
    while not worker.reserved:
        bench.answer("a", next(iter(bench.where())))
    assert bench.words(big)["a"] == "in_use"
    plain = bench.put("plain")
    assert plain.worker is None
    assert bench.words(plain)["a"] == "reserved"
    assert bench.scheduler.abort(["big"]) == ["big"]
    assert plain.worker is None
    bench.recorder.take_turns()
    assert plain.worker is worker
    assert len(bench.where()) == 3


# Time left


def test_a_long_task_is_not_given_to_an_engine_that_leaves_soon() -> None:
    bench = RuledBench("ab")
    bench.recorder.left[b"a"] = 100.0
    long = bench.put("long", max_runtime=200)
    short = bench.put("short", max_runtime=90)
    assert bench.where() == {"long": "b", "short": "a"}
    other = bench.put("other", max_runtime=200)
    bench.answer("a", "short")
    assert other.worker is None
    assert bench.texts(other)["a"] == "has too little time left: 100 s, for a task of up to 200 s"
    bench.put("targeted", max_runtime=200, targets=["a"])
    assert bench.queued() == ["other", "targeted"]
    bench.put("no limit")
    assert bench.where()["no limit"] == "a"
    bench.answer("b", "long")
    assert bench.where()["other"] == "b"
    assert (long.demand, short.demand is other.demand) == (other.demand, False)


@pytest.mark.parametrize("seconds", [0.001, 1.0, 59.0, 60.0, 61.0, 3600.0, 86400.0, 1e8])
def test_run_times_are_rounded_up_by_an_eighth_at_most(seconds: float) -> None:
    assert seconds <= rounded_up(seconds) <= seconds * 1.125
    assert rounded_up(rounded_up(seconds)) == rounded_up(seconds)


# Repetition


def test_max_attempts_counts_instead_of_retries() -> None:
    bench = RuledBench("abcd")
    task = bench.put("1", max_attempts=3, retries=0)
    for final in (False, False, True):
        [(msg_id, name)] = bench.where().items()
        assert bench.fail(name, msg_id) == final
    assert (task.attempts, task.retries) == (3, 0)
    bench.put("2", max_attempts=1, retries=5)
    [(msg_id, name)] = bench.where().items()
    assert bench.fail(name, msg_id)


@pytest.mark.parametrize(
    ("retry_on", "ename", "repeated"),
    [
        (["ValueError"], "ValueError", True),
        (["ValueError"], "TypeError", False),
        (["death"], "ValueError", False),
        (["all"], "TypeError", True),
        (None, "TypeError", True),
    ],
)
def test_what_a_task_is_repeated_after(retry_on: list[str] | None, ename: str, repeated: bool) -> None:
    bench = RuledBench("ab")
    bench.put("1", retry_on=retry_on, retries=1)
    [(msg_id, name)] = bench.where().items()
    assert bench.fail(name, msg_id, ename) != repeated


@pytest.mark.parametrize(("retry_on", "repeated"), [(["ValueError"], False), (["death"], True), (["all"], True)])
def test_whether_a_task_is_repeated_after_a_death(retry_on: list[str], repeated: bool) -> None:
    bench = RuledBench("ab")
    bench.put("1", retry_on=retry_on, max_attempts=2)
    [(_, name)] = bench.where().items()
    bench.remove(name)
    bench.settle(name)
    assert bool(bench.where()) == repeated
    assert bool(bench.failed) != repeated


def test_an_unmet_dependency_is_no_attempt() -> None:
    bench = RuledBench("abc")
    task = bench.put("1", max_attempts=1)
    [(_, name)] = bench.where().items()
    assert not bench.answer(name, "1", ok=False, met=False)
    assert task.attempts == 1


def test_the_pause_is_doubled() -> None:
    bench = RuledBench("a")
    task = bench.put("1", max_attempts=4, retry_pause=3)
    for seconds in (3.0, 6.0, 12.0):
        assert not bench.fail("a", "1")
        assert task.state is TaskState.PAUSED
        assert bench.scheduler.timers.paused == 1
        assert bench.words(task)[""] == "paused"
        assert bench.recorder.pauses[-1].seconds == seconds
        assert bench.recorder.queued_again.pop() == "1"
        assert bench.queued() == []
        bench.pause_ends()
        assert bench.scheduler.timers.paused == 0
        assert bench.where() == {"1": "a"}
    assert bench.fail("a", "1")


def test_a_paused_task_can_be_aborted_abandoned_and_timed_out() -> None:
    bench = RuledBench("abc")
    for msg_id in "123":
        bench.put(msg_id, max_attempts=2, retry_pause=3, timeout=5.0)
    for msg_id, name in bench.where().items():
        bench.fail(name, msg_id)
    tasks = dict(bench.scheduler.tasks)
    assert bench.scheduler.abort(["1"]) == ["1"]
    bench.scheduler.abandon(tasks["2"], EngineError("given up"))
    bench.scheduler.timed_out(tasks["3"])
    assert [name for *_, name in bench.failed] == ["TaskAborted", "EngineError", "TaskTimeout"]
    assert all(timer.cancelled for timer in bench.recorder.timers + bench.recorder.pauses)
    for task in tasks.values():
        bench.scheduler.pause_over(task)  # a timer that has fired already
    assert bench.scheduler.timers.paused == 0
    assert bench.where() == {}


def test_a_task_that_kills_engines_is_not_given_to_another() -> None:
    bench = RuledBench("abcde")
    errors: list[Exception] = []
    bench.recorder.task_failed = lambda task, worker, error: errors.append(error)  # type: ignore[method-assign]
    bench.put("1", retries=10)
    for _ in range(3):
        [(_, name)] = bench.where().items()
        bench.remove(name)
        bench.settle(name)
    assert bench.where() == {}
    assert str(errors[0]) == (
        "Engine c died while running task 1. The task was lost with 3 engines (a, b, c), and its max_deaths is 3: "
        "it is not given to another engine"
    )


def test_max_deaths_can_be_higher() -> None:
    bench = RuledBench("abcde")
    bench.put("1", max_deaths=5, retry_on=["death"], max_attempts=10)
    for _ in range(4):
        [(_, name)] = bench.where().items()
        bench.remove(name)
        bench.settle(name)
    assert list(bench.where()) == ["1"]


# Drain, hold and take away


def test_a_drained_engine_gets_no_new_tasks() -> None:
    bench = RuledBench("ab")
    scheduler, worker = bench.scheduler, bench.workers["a"]
    bench.put("1", targets=["a"])
    scheduler.drain(worker)
    task = bench.put("2", targets=["a"])
    bench.answer("a", "1")
    assert (bench.where(), bench.words(task)) == ({}, {"": "queued", "a": "draining", "b": "not_a_target"})
    bench.put("3")
    assert bench.where() == {"3": "b"}
    scheduler.hold(worker)
    scheduler.undrain(worker)
    assert bench.words(task)["a"] == "held"
    scheduler.hold(worker)
    scheduler.release(worker)
    assert bench.where() == {"3": "b"}
    scheduler.release(worker)
    assert bench.where() == {"2": "a", "3": "b"}


def test_a_drained_engine_can_be_lost() -> None:
    bench = RuledBench("a")
    bench.scheduler.drain(bench.workers["a"])
    bench.put("1", targets=["a"])
    bench.remove("a")
    assert bench.failed == [("1", None, "ImpossibleDependency")]
    bench.scheduler.undrain(bench.workers["a"])
    bench.scheduler.hold(bench.workers["a"])
    bench.scheduler.release(bench.workers["a"])
    bench.scheduler.set_offers(bench.workers["a"], GPU)
    bench.put("2")
    assert bench.where() == {}


def test_an_attempt_that_is_taken_away_does_not_count() -> None:
    bench = RuledBench("ab")
    task = bench.put("1", max_attempts=2, retry_pause=3)
    bench.scheduler.drain(bench.workers["a"])
    bench.scheduler.take_away(task)
    assert bench.where() == {"1": "b"}
    assert (task.attempts, task.refused) == (1, frozenset())
    bench.put("2")
    bench.scheduler.take_away(task)
    assert bench.where() == {"2": "b"}, "queued tasks come first"
    assert bench.recorder.queued_again == ["1"]
    assert task.attempts == 0


def test_a_drained_engine_does_not_keep_what_is_taken_away() -> None:
    bench = RuledBench("a", hwm=2)
    one = bench.put("1")
    bench.scheduler.drain(bench.workers["a"])
    bench.scheduler.take_away(one)
    assert one.state is TaskState.QUEUED
    bench.add("b")
    assert bench.where() == {"1": "b"}


# Explanations


def test_explanations() -> None:
    bench = RuledBench("abcd", hwm=2)
    for name in "ef":
        bench.add(name, (("gpu", 1.0),))
    bench.put("busy", needs={"gpu": 1}, targets=["f"])
    for number in range(2):
        bench.put(f"full {number}", targets=["e"])
    task = bench.put("1", targets=list("bcdef"), needs={"gpu": 1}, priority=3)
    assert bench.words(task) == {
        "": "queued",
        "a": "not_a_target",
        **dict.fromkeys("bcd", "lacks"),
        "e": "full",
        "f": "in_use",
    }
    assert bench.texts(task)["f"] == "has not enough free: 0 of gpu=1"
    assert bench.texts(task)["e"] == "is full: it has 2 of at most 2 tasks (setting hwm)"
    assert bench.texts(task)[""] == (
        "is queued with priority 3; 0 tasks with higher priorities and 0 others with the same priority are queued"
    )
    waiting = bench.put("2", after=["1", "busy"])
    assert bench.texts(waiting)[""] == "depends on 1, busy"
    assert bench.words(waiting)["a"] == "may_run"
    assert bench.words(bench.scheduler.tasks["busy"])[""] == "running"
    assert bench.words(bench.scheduler.tasks["busy"])["f"] == "runs_it"


def test_an_explanation_of_refusals() -> None:
    bench = RuledBench("abc", hwm=1)
    task = bench.put("1", retries=2)
    bench.put("x", targets=["c"])
    assert not bench.fail("a", "1")
    assert not bench.answer("b", "1", ok=False, met=False)
    assert bench.texts(task)["a"] == "has refused it: it has failed there before"
    assert bench.texts(task)["b"] == "has refused it: its dependency was not met there"


def test_needs_are_said_as_users_write_them() -> None:
    assert (
        said(parse_rules({"needs": {"memory": "32G", "gpu": 0.5, "host": "n1"}}).needs)
        == "gpu=0.5, host=n1, memory=32G"
    )
    assert said((("memory", 1500.0),)) == "memory=1500"


def test_tasks_without_needs_have_no_demand() -> None:
    bench = RuledBench("a")
    assert bench.put("1", priority=4, retry_on=["death"]).demand is None
