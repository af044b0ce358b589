from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from trio_hub.errors import EngineError, HubError
from trio_hub.hub.records import init_record
from trio_hub.schedulers.task import Task
from trio_hub.wire.frames import Frames

from ..durable import DurableStore
from .bench import Bench


def test_a_strict_hub_goes_on_with_a_request_when_it_is_on_disk() -> None:
    store = DurableStore(auto=False)
    bench = Bench(store, strict=True)
    done: list[str] = []
    msg = bench.message()
    bench.intake.record(init_record(msg, bench.session.packer, queue="task", now=bench.clock), msg.idents, msg)
    bench.intake.when_recorded("x", lambda: done.append("x"))
    assert (done, bench.intake.uncommitted) == ([], {"x"})
    store.commit()
    assert (done, bench.intake.uncommitted) == (["x"], set())


def test_tasks_are_not_received_while_there_is_no_room_for_them() -> None:
    bench = Bench(memory=100)
    tasks = [Task(str(number), [], [b"x" * 60]) for number in range(2)]
    for task in tasks:
        bench.intake.hold(task)
    assert (bench.intake.held_bytes, bench.host.held) == (120, ("task_in",))
    bench.intake.let_go(tasks[0])
    assert (bench.intake.held_bytes, bench.host.held) == (60, ())


def test_frames_that_are_only_in_the_store_come_from_there() -> None:
    bench = Bench(DurableStore(), memory=0)
    msg = bench.message(buffers=(b"work",))
    bench.intake.record(init_record(msg, bench.session.packer, queue="task", now=bench.clock), msg.idents, msg)
    there, gone = Task(msg.header.msg_id, [], msg.frames), Task("gone", [], msg.frames)
    fetched: list[Frames | HubError] = []
    for task in (there, gone):
        bench.intake.hold(task)
        assert task.frames is None
        bench.intake.fetch(task, lambda task, frames: fetched.append(frames))
    bench.host.answer()
    frames, error = fetched
    assert frames == msg.frames
    assert isinstance(error, EngineError)
    assert bench.intake.to_fetch == {}


def test_a_host_that_cannot_hold_channels_fails_nothing() -> None:
    bench = Bench(memory=10)
    bench.host.hold_intake = None  # type: ignore[assignment]
    bench.intake.hold(Task("x", [], [b"x" * 60]))
    assert bench.notices.internal_errors == {"intake": 1}


def test_a_million_tasks_are_fetched_in_linear_time() -> None:
    """Finding the first key of a dict takes longer, the more keys were removed from its front."""
    bench = Bench(DurableStore(), memory=0)
    fetched: list[str] = []
    tasks = [Task(str(number), [], None) for number in range(20_000)]
    for task in tasks:
        bench.intake.fetch(task, lambda task, frames: fetched.append(task.msg_id))
    steps = 0

    class Counted(OrderedDict[str, Any]):
        def __iter__(self) -> Iterator[str]:
            for msg_id in super().__iter__():
                nonlocal steps
                steps += 1
                yield msg_id

    bench.intake.to_fetch = Counted(bench.intake.to_fetch)
    bench.host.answer()
    assert fetched == [task.msg_id for task in tasks]
    assert steps <= len(tasks), "each is looked at once"
