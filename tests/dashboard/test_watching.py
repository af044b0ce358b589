"""The observer of a hub's events, with a fake clock."""

from __future__ import annotations

from typing import get_args

import pytest

from trio_hub.dashboard.bars import Bar, Bars
from trio_hub.dashboard.engines import EngineBook, EngineEvent
from trio_hub.dashboard.failures import Failures
from trio_hub.dashboard.progress import EARLIER, OTHER, Progress
from trio_hub.dashboard.timings import Timings
from trio_hub.dashboard.watching import Watch
from trio_hub.hub.events import (
    EngineRegistered,
    EngineRequested,
    EngineReturned,
    EngineSettled,
    EngineUnregistered,
    Event,
    HubStopping,
    RegistrationStalled,
    TaskAssigned,
    TaskFinished,
    TaskQueued,
    TaskSubmitted,
)


class Clock:
    time = 0.0

    def __call__(self) -> float:
        return self.time


class Watched:
    """A watch, and a clock that goes on by a second with each event."""

    def __init__(self, bars: Bars | None = None) -> None:
        self.clock = Clock()
        self.timings = Timings()
        self.watch = Watch(self.timings, self.clock, bars=bars)

    def happen(self, *events: Event) -> None:
        for event in events:
            self.watch.happened(event)
            self.clock.time += 1.0

    def bars(self) -> list[Bar]:
        bars = self.watch.bars
        return [bars.bar(number) for number in range(bars.ended - len(bars), bars.ended)]

    def table(self) -> dict[str, tuple[int, ...]]:
        rows = self.watch.progress.table(self.watch.bars)
        keys = ("submitted", "queued", "running", "ok", "failed", "aborted")
        return {row["label"]: tuple(row[key] for key in keys) for row in rows}


def test_a_task_waits_and_then_runs() -> None:
    watched = Watched()
    watched.happen(EngineRequested(0, "e"), EngineRegistered(0, "e"), TaskSubmitted("a", "task", "f"))
    assert watched.table() == {"f": (1, 1, 0, 0, 0, 0)}
    assert watched.watch.label_of("a") == 1
    watched.clock.time = 5.0
    watched.happen(TaskAssigned("a", "e"))
    assert watched.table() == {"f": (1, 0, 1, 0, 0, 0)}
    assert watched.watch.label_of("a") == 1
    watched.clock.time = 12.0
    watched.happen(TaskFinished("a", "e", "ok"))
    assert watched.table() == {"f": (1, 0, 0, 1, 0, 0)}
    assert watched.watch.label_of("a") == 1
    assert watched.bars() == [(2, 0, 5.0, 12.0, "task", "ok", 1, "a")]
    assert (watched.timings.wait.sum, watched.timings.wait.count) == (3.0, 1)
    assert (watched.timings.run["task"].sum, watched.timings.run["task"].count) == (7.0, 1)
    assert watched.watch.progress.table(watched.watch.bars)[0]["run_seconds"] == 7.0


def test_a_task_that_is_tried_again_has_waited_once_and_runs_from_its_last_start() -> None:
    watched = Watched()
    watched.happen(
        TaskSubmitted("a", "task", "f"), TaskAssigned("a", "e"), TaskAssigned("a", "d"), TaskFinished("a", "d", "error")
    )
    assert [(bar.row, bar.status) for bar in watched.bars()] == [(0, "failed"), (1, "failed")]
    assert (watched.timings.wait.sum, watched.timings.wait.count) == (1.0, 1)
    assert (watched.timings.run["task"].sum, watched.timings.run["task"].count) == (1.0, 1)
    assert watched.table() == {"f": (1, 0, 0, 0, 1, 0)}


def test_a_task_that_is_queued_again_waits_and_runs_on_no_engine() -> None:
    watched = Watched()
    watched.happen(TaskSubmitted("a", "task", "f"), TaskAssigned("a", "e"), TaskQueued("a"))
    assert watched.table() == {"f": (1, 1, 0, 0, 0, 0)}
    assert watched.watch.bars.running == {}
    assert [(bar.row, bar.status) for bar in watched.bars()] == [(0, "failed")]
    watched.happen(TaskAssigned("a", "d"), TaskFinished("a", "d", "ok"))
    assert watched.table() == {"f": (1, 0, 0, 1, 0, 0)}
    assert (watched.timings.wait.sum, watched.timings.wait.count) == (1.0, 1), "the time until its first engine"


def test_direct_requests_and_broadcasts_only_run() -> None:
    watched = Watched()
    for queue in ("mux", "broadcast"):
        watched.happen(TaskSubmitted(queue, queue, queue, "c", "e"), TaskFinished(queue, "e", "ok"))
        assert (watched.timings.run[queue].sum, watched.timings.run[queue].count) == (1.0, 1)
    assert [bar.kind for bar in watched.bars()] == ["mux", "broadcast"]
    assert watched.timings.wait.count == watched.timings.run["task"].count == 0
    watched.happen(TaskSubmitted("gathered", "broadcast", "g"), TaskFinished("gathered", None, "ok"))
    assert len(watched.bars()) == 2, "it has no one engine"
    assert watched.table()["g"] == (1, 0, 0, 1, 0, 0)


def test_nothing_is_kept_of_what_has_ended() -> None:
    watched = Watched()
    watched.happen(
        TaskSubmitted("failed while it waited", "task", "f"),
        TaskFinished("failed while it waited", None, "error", "E", "v"),
        TaskFinished("from the time before", "e", "ok"),
        TaskAssigned("restored", "e"),
        TaskFinished("restored", "e", "ok"),
        HubStopping("it is over"),
    )
    assert not watched.watch.waiting
    assert not watched.watch.bars.running
    assert watched.timings.wait.count == 0
    assert watched.timings.run["task"].count == 1
    assert watched.table() == {"f": (1, 0, 0, 0, 1, 0), EARLIER: (1, 0, 0, 1, 0, 0)}


def test_a_hundred_thousand_tasks_stay_within_bounds() -> None:
    watched = Watched(Bars(1000))
    for number in range(100_000):
        uuid, msg_id = f"e{number // 10}", str(number)
        if number % 10 == 0:
            watched.happen(EngineRegistered(number, uuid))
        watched.happen(
            TaskSubmitted(msg_id, "task", f"label {number % 5000}"),
            TaskAssigned(msg_id, uuid),
            TaskFinished(msg_id, uuid, "error", f"E{number}", msg_id),
        )
        if number % 10 == 9:
            watched.happen(EngineUnregistered(number, uuid, "request"), EngineSettled(number, uuid))
    watch = watched.watch
    assert (len(watch.bars), watch.bars.ended) == (1000, 100_000)
    assert len(watch.bars._last_of_task) == 1000
    assert len(watch.progress.names) == 1000
    assert sum(row[0] for row in watched.table().values()) == 100_000
    assert watched.table()[OTHER][0] > 50_000
    assert len(watch.failures.groups()) == 200
    assert len(watch.engines.seen) == len(watch.engines.by_row) == 1000
    assert not watch.waiting
    assert not watch.bars.running


def test_labels_beyond_the_limit_are_counted_together() -> None:
    progress = Progress(limit=3)
    assert [progress.submit(label) for label in "ababcd"] == [1, 2, 1, 2, 0, 0]
    assert progress.names == [OTHER, "a", "b"]
    assert progress.submitted == [2, 2, 2]


def test_errors_are_grouped_and_the_oldest_groups_go_first() -> None:
    failures = Failures(limit=2)
    failures.add("A", "x", 1.0, "1", 0)
    failures.add("B", "x", 2.0, "2", 0)
    failures.add("A", "x", 3.0, "3", 7)
    failures.add("A", "y", 4.0, "4", None)
    new, old = failures.groups()
    assert (new.evalue, new.count, new.msg_id, new.engine_id) == ("y", 1, "4", None)
    assert (old.count, old.first, old.last, old.msg_id, old.engine_id) == (2, 1.0, 3.0, "3", 7)
    assert failures.msg_ids(old.number) == ["1", "3"]
    with pytest.raises(KeyError, match="no group 2"):
        failures.msg_ids(2)


def test_errors_of_one_line_are_one_group_whatever_they_say() -> None:
    failures = Failures(kept=3)
    for number, text in enumerate(("no file a", "no file b", "no file b", "no file c")):
        failures.add("E", text, float(number), f"task {number}", number % 2, "project/run.py:3 in run", number)
    failures.add("E", "no file a", 4.0, "elsewhere", 0, "project/run.py:4 in run")
    other, group = failures.groups()
    assert (other.count, group.count) == (1, 4)
    assert list(group.examples) == ["no file a", "no file b", "no file c"]
    assert group.engines == {0: 2, 1: 2}
    assert failures.msg_ids(group.number) == ["task 2", "task 3"], "only the last three msg_ids are kept"


def test_errors_without_a_line_are_grouped_by_their_text_without_ids_and_numbers() -> None:
    failures = Failures()
    for text in (
        "Engine 3 died while running task 5c0f6b52-b7a4_4711_17: killed by signal 9 (SIGKILL)",
        "Engine 12 died while running task 0123456789abcdef_9: killed by signal 9 (SIGKILL)",
        "Engine 3 died while running task 5c0f6b52-b7a4_4711_18: killed by signal 11 (SIGSEGV)",
    ):
        failures.add("EngineError", text, 1.0, text, None)
    assert [group.count for group in failures.groups()] == [1, 2]


def test_a_groups_errors_are_counted_by_minute() -> None:
    failures = Failures()
    for now in (0.0, 59.0, 60.0, 3540.0, 3600.0):
        failures.add("E", "x", now, "task", 0)
    (group,) = failures.groups()
    assert group.per_minute(3600.0) == [1] + [0] * 57 + [1, 1]
    assert group.per_minute(3660.0)[-3:] == [1, 1, 0]
    assert group.per_minute(3660.0 + 57 * 60)[:3] == [1, 1, 0]
    assert sum(group.per_minute(1e9)) == 0


def test_a_group_counts_a_limited_number_of_labels() -> None:
    failures = Failures()
    for number in range(300):
        failures.add("E", str(number), 0.0, "task", number, "here", number)
    (group,) = failures.groups()
    told = group.as_dict(0.0, [f"label {number}" for number in range(300)])
    assert told["count"] == 300
    assert (len(told["labels"]), told["labels_more"]) == (8, 92)
    assert (len(told["engines"]), told["engines_more"]) == (8, 92)
    assert told["examples"] == ["299", "298", "297", "296", "295"]


def test_every_event_of_a_hub_is_handled() -> None:
    assert set(Watched().watch._handlers) == set(get_args(Event))


def test_an_engines_story() -> None:
    book = EngineBook()
    uuid = "e"
    events: list[EngineEvent] = [
        EngineRequested(3, uuid),
        EngineRegistered(3, uuid),
        EngineUnregistered(3, uuid, "heart"),
        EngineSettled(3, uuid),
    ]
    for now, event in enumerate(events):
        book.happened(event, float(now))
    book.happened(RegistrationStalled(4, "stalled"), 9.0)
    book.happened(EngineReturned(5, "back"), 9.0)
    seen = book.of(uuid)
    assert [event for _, event, _ in seen.history] == ["requested", "replied", "registered", "lost", "settled"]
    assert seen.registered == 1.0
    assert [book.of(one).history[-1][1] for one in ("stalled", "back")] == ["stalled", "returned"]


def test_engines_that_are_gone_are_forgotten_in_turn_and_those_that_are_there_never() -> None:
    book = EngineBook(limit=2)
    for number in range(5):
        book.happened(EngineRegistered(number, str(number)), 0.0)
    for uuid in "0123":
        book.happened(EngineUnregistered(int(uuid), uuid, "heart"), 1.0)
        book.happened(EngineSettled(int(uuid), uuid), 2.0)
    assert list(book.seen) == ["2", "3", "4"]
    assert sorted(book.by_row) == [2, 3, 4]
    book.happened(EngineRegistered(9, "2"), 3.0)  # the engine is registered again
    for uuid in "xyz":
        book.of(uuid)
    assert list(book.seen) == ["2", "4", "y", "z"]
