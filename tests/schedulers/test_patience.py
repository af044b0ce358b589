"""Tasks that no engine can ever run: they say so at once, and fail after a while if there is a limit."""

from __future__ import annotations

from typing import Any

from trio_hub.errors import HubError
from trio_hub.schedulers.task import Task, Worker

from .making import make_task
from .test_rules_of_tasks import GPU, RuledBench


class PatientBench(RuledBench):
    def __init__(self, engines: str = "", **settings: Any) -> None:
        super().__init__(engines, **settings)
        self.scheduler.timers.patience = 60.0
        self.errors: list[str] = []
        failed = self.recorder.task_failed

        def task_failed(task: Task, worker: Worker | None, error: HubError) -> None:
            self.errors.append(str(error))
            failed(task, worker, error)

        self.recorder.task_failed = task_failed  # type: ignore[method-assign]

    def patience_ends(self) -> None:
        [timer] = [one for one in self.recorder.patiences if not one.cancelled]
        assert timer.seconds == 60.0
        timer.cancelled = True
        self.scheduler.patience_over(timer.task)

    @property
    def is_patient(self) -> bool:
        return any(not one.cancelled for one in self.recorder.patiences)


def test_a_task_whose_needs_nobody_meets_fails_after_the_limit() -> None:
    bench = PatientBench("a")
    task = bench.put("big", needs={"gpu": 2})
    assert bench.words(task)[""] == "unmet_needs"
    bench.patience_ends()
    assert bench.failed == [("big", None, "ImpossibleDependency")]
    assert bench.errors == [
        "no engine could run the task for 60 s (setting unmet_timeout): the task needs gpu=2, which no engine offers, "
        "even when it is idle"
    ]
    assert not bench.queued()


def test_a_task_that_all_engines_have_refused_fails_after_the_limit() -> None:
    bench = PatientBench("ab")
    task = bench.put("picky")
    bench.answer("a", "picky", ok=False, met=False)
    assert not bench.is_patient
    bench.answer("b", "picky", ok=False, met=False)
    assert bench.words(task) == {"": "unmet_dependency", "a": "refused", "b": "refused"}
    bench.patience_ends()
    assert bench.failed == [("picky", None, "ImpossibleDependency")]
    assert bench.errors[0].endswith("has a functional dependency that no engine meets: all engines have refused it")


def test_an_engine_that_comes_in_time_gets_the_task() -> None:
    bench = PatientBench("a")
    bench.put("big", needs={"gpu": 2})
    bench.add("b", GPU)
    assert bench.where() == {"big": "b"}
    assert not bench.is_patient
    assert bench.answer("b", "big")


def test_a_task_that_waits_for_a_busy_engine_does_not_fail() -> None:
    bench = PatientBench()
    bench.add("a", GPU)
    bench.put("first", needs={"gpu": 2})
    bench.put("second", needs={"gpu": 2})
    bench.patience_ends()
    bench.patience_ends()
    assert bench.queued() == ["second"]


def test_the_time_counts_from_the_first_look_without_an_engine() -> None:
    bench = PatientBench("b")
    bench.add("a", GPU)
    bench.put("first", needs={"gpu": 2})
    bench.put("second", needs={"gpu": 2})
    bench.remove("a")
    bench.patience_ends()
    assert bench.queued() == ["second"]
    bench.patience_ends()
    assert bench.failed == [("second", None, "ImpossibleDependency")]


def test_without_any_engine_the_time_does_not_count() -> None:
    bench = PatientBench()
    task = bench.put("big", needs={"gpu": 2})
    assert bench.words(task) == {"": "no_engine"}
    bench.patience_ends()
    bench.patience_ends()
    assert bench.queued() == ["big"]


def test_a_task_that_is_cancelled_or_needs_nothing_has_no_timer() -> None:
    bench = PatientBench()
    bench.put("plain")
    assert not bench.is_patient
    bench.scheduler.abandon(bench.put("big", needs={"gpu": 2}), HubError("no"))
    assert not bench.is_patient


def test_by_default_tasks_wait_for_ever() -> None:
    bench = RuledBench("a")
    assert bench.scheduler.submit(make_task("picky"))
    bench.answer("a", "picky", ok=False, met=False)
    bench.put("big", needs={"gpu": 2})
    assert not bench.recorder.patiences


def test_a_task_for_which_a_pool_could_bring_an_engine_is_not_failed() -> None:
    bench = PatientBench("a")
    bench.recorder.pools = ["slurm", "cloud"]
    task = bench.put("big", needs={"gpu": 2})
    reason = bench.scheduler.explain(task)[0]
    assert (reason.word, reason.text) == (
        "pool",
        "needs gpu=2, which no registered engine offers; pools slurm or cloud could bring an engine for it",
    )
    for _ in range(3):
        bench.patience_ends()
    assert not bench.failed
    bench.recorder.pools = []
    bench.patience_ends()
    assert not bench.failed
    bench.patience_ends()
    assert bench.failed == [("big", None, "ImpossibleDependency")]


def test_without_engines_a_task_says_which_pool_could_bring_one() -> None:
    bench = PatientBench()
    task = bench.put("x")
    assert bench.scheduler.explain(task)[0].text == "is queued, and no engine is registered"
    bench.recorder.pools = ["slurm"]
    assert bench.scheduler.explain(task)[0].text == (
        "is queued, and no engine is registered; pool slurm could bring an engine for it"
    )
