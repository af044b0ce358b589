"""Requests that wait for the disk, in memory or only on disk; and clients that wait for room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from trio_hub.hub.intake import FETCH_ATTEMPTS, FETCHED_AT_A_TIME
from trio_hub.records import MemoryStore
from trio_hub.records.record import TaskRecord
from trio_hub.wire.frames import Frames
from trio_hub.wire.messages import Message

from .durable import DurableStore, frames_sent
from .world import Peer, World


def strict_world(**settings: Any) -> tuple[World, DurableStore]:
    store = DurableStore(auto=False)
    return World(store=store, strict=True, **settings), store


def broadcast(world: World, uuids: list[str], *, gather: bool) -> str:
    metadata = {"targets": [(uuid, 0) for uuid in uuids], "is_broadcast": True, "is_coalescing": gather}
    frames = world.client.session.write("apply_request", {}, metadata=metadata)
    world.hub.dispatch_monitor_traffic("broadcast_in", [world.client.ident, *frames])
    return world.read(frames).header.msg_id


SORTS: dict[str, tuple[Callable[[World], str], str, str]] = {
    "task": (World.submit, "task_out", "task_in"),
    "direct": (lambda world: world.call("a"), "mux_out", "mux_in"),
    "broadcast": (lambda world: broadcast(world, ["a"], gather=False), "broadcast_out", "broadcast_in"),
    "gathered": (lambda world: broadcast(world, ["a"], gather=True), "broadcast_out", "broadcast_in"),
}


# To disk


@pytest.mark.parametrize("sort", SORTS)
def test_a_strict_hub_sends_nothing_that_is_not_on_disk(sort: str) -> None:
    submit, out, back = SORTS[sort]
    world, store = strict_world()
    world.engine("a")
    world.take()
    msg_id = submit(world)
    assert world.take() == []
    assert world.hub.is_pending(msg_id)
    assert not store.committed
    store.commit()
    [(_, request)] = world.take(out)
    [record] = store.committed.values()
    assert record.completed is None
    world.answer("a", request, channel=out)
    assert world.take() == []
    shown = world.query("result_request", {"msg_ids": [record.msg_id]})
    assert (shown["pending"], shown["completed"]) == ([record.msg_id], [])
    store.commit()
    assert [reply["status"] for reply in world.replies(back)] == ["ok"]
    assert store.committed[record.msg_id].completed is not None
    assert world.query("result_request", {"msg_ids": [record.msg_id]})["completed"] == [record.msg_id]
    assert not world.hub.intake.uncommitted
    assert not world.hub.answers.unsaved
    assert not world.hub.is_pending(msg_id)


def test_a_relaxed_hub_waits_for_no_disk() -> None:
    store = DurableStore(auto=False)
    world = World(store=store)
    world.engine("a")
    world.submit()
    [(_, request)] = world.take("task_out")
    world.answer("a", request)
    assert len(world.take("task_in")) == 1
    assert not store.committed


def test_errors_of_a_strict_hub_are_on_disk_first() -> None:
    world, store = strict_world()
    for direct in (False, True):
        if direct:
            world.call("nobody")
        else:
            world.submit(targets=["nobody"])
        store.commit()
        assert world.take() == []
        store.commit()
        [(_, reply)] = world.take()
        assert world.content(reply)["status"] == "error"
        assert store.committed[reply.parent.msg_id].completed is not None


def test_what_is_refused_has_no_record_to_wait_for() -> None:
    world, store = strict_world()
    world.submit(after=7)
    assert [reply["ename"] for reply in world.replies("task_in")] == ["InvalidDependency"]
    assert not store._writes


def test_messages_of_comms_keep_their_place_among_the_requests() -> None:
    world, store = strict_world()
    world.engine("a")
    world.call("a")
    world.call("a", msg_type="comm_msg")
    assert world.take("mux_out") == []
    store.commit()
    assert [message.header.msg_type for _, message in world.take("mux_out")] == ["apply_request", "comm_msg"]


@pytest.mark.parametrize("sort", ["task", "direct", "gathered"])
def test_a_duplicate_of_a_request_that_is_not_on_disk_yet(sort: str) -> None:
    _, out, channel = SORTS[sort]
    world, store = strict_world()
    world.engine("a")
    header = world.client.session.new_header("apply_request")
    metadata = {"targets": [("a", 0)], "is_coalescing": True} if sort == "gathered" else None
    for code in "xy":  # not the same bytes, which would be dropped anyway
        frames = world.client.session.write("apply_request", {"code": code}, header=header, metadata=metadata)
        world.hub.dispatch_monitor_traffic(channel, [world.client.ident, *[b"a"] * (sort == "direct"), *frames])
    assert world.hub.notices.ignored["duplicate_msg_id"] == 1
    store.commit()
    assert len(world.take(out)) == 1
    assert len(store.committed) == 1


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("carried_on", [False, True])
def test_a_stop_while_a_request_is_on_its_way_to_disk(sort: str, carried_on: bool) -> None:
    submit, out, back = SORTS[sort]
    world, store = strict_world()
    world.engine("a")
    submit(world)
    world.hub.stop_serving(carried_on=carried_on)
    store.commit()
    assert world.take(out) == []
    assert world.take(back) == []
    store.commit()
    replies = world.replies(back)
    [record] = store.committed.values()
    if carried_on:
        assert replies == []
        assert record.completed is None, "it is the next hub's"
    else:
        assert [reply["evalue"] for reply in replies] == ["the hub has been stopped"]
        assert record.completed is not None


def test_dependencies_on_what_is_not_on_disk_yet() -> None:
    world, store = strict_world()
    world.engine("a")
    first = world.call("a")
    world.submit(after=[first])
    store.commit()
    assert world.host.questions == []
    assert world.take("task_out") == []
    [(_, request)] = world.take("mux_out")
    world.answer("a", request, channel="mux_out")
    assert len(world.take("task_out")) == 1


def test_a_resubmitted_task_waits_for_the_disk_too() -> None:
    world, store = strict_world()
    world.engine("a")
    first = world.submit()
    store.commit()
    [(_, request)] = world.take("task_out")
    world.answer("a", request)
    store.commit()
    [again] = world.query("resubmit_request", {"msg_ids": [first]})["resubmitted"].values()
    assert world.take("task_out") == []
    store.commit()
    [(_, request)] = world.take("task_out")
    world.take()
    world.answer("a", request)
    assert world.query("result_request", {"msg_ids": [again]})["pending"] == [again]
    store.commit()
    assert world.query("result_request", {"msg_ids": [again]})["completed"] == [again]
    assert world.take("task_in") == [], "nobody is sent it"


def test_nothing_is_received_while_the_store_is_crowded() -> None:
    store = DurableStore(auto=False)
    world = World(store=store)
    store.crowded = True
    store.add(TaskRecord("something"))
    store.after_commit(lambda: store.add(TaskRecord("more")))
    world.submit()
    assert set(world.host.held) == {"task_in", "mux_in", "broadcast_in"}
    world.submit()
    store.commit()
    assert world.host.held, "it is crowded still"
    store.crowded = False
    store.commit()
    assert world.host.held == ()
    assert not store._calls


# In memory

SIZE = 100_000


def big(world: World, count: int = 1, **metadata: Any) -> list[str]:
    return [world.submit(buffers=(b"x" * SIZE,), **metadata) for _ in range(count)]


def finish_one(world: World) -> str:
    """Have the running task answered, and return its msg_id."""
    world.answer_questions()
    [(_, request)] = world.take("task_out")
    world.answer("a", request)
    return request.header.msg_id


def test_without_a_disk_tasks_are_not_received_while_there_is_no_room() -> None:
    world = World(store=MemoryStore(), queue_memory=10 * SIZE)
    world.engine("a")
    held: list[tuple[str, ...]] = []
    for _ in range(12):
        big(world)
        held.append(world.host.held)
    assert held[0] == ()
    assert held[-1] == ("task_in",)
    assert world.hub.intake.held_bytes > 10 * SIZE
    held_at = []
    while world.hub.tasks.scheduler.tasks:
        finish_one(world)
        held_at.append((world.hub.intake.held_bytes, world.host.held))
    assert all(bool(held) == (size > 0.8 * 10 * SIZE) for size, held in held_at), "not received again at once"
    assert held_at[-1] == (0, ())


def test_tasks_that_end_while_they_wait_take_up_no_room() -> None:
    world = World(store=MemoryStore(), queue_memory=4 * SIZE)
    [never] = big(world, timeout=1.0)
    [waits] = big(world, after=[never])
    big(world, 2)
    assert world.host.held == ("task_in",)
    [(_, _, time_is_up)] = [timer for timer in world.host.timers if timer[1] == 1.0]
    time_is_up()
    assert world.record(waits)["completed"] is not None
    assert not world.host.held
    world.hub.stop_serving()
    assert world.hub.intake.held_bytes == 0


@pytest.mark.parametrize("packer", ["json", "msgpack"])
def test_with_a_disk_requests_beyond_the_memory_come_back_as_they_were(packer: str) -> None:
    store = DurableStore()
    world = World(store=store, queue_memory=3 * SIZE, packer=packer)
    world.engine("a")
    came: list[Frames] = []
    for number in range(6):
        frames = world.client.session.write(
            "apply_request", {"number": number}, metadata={"x": number}, buffers=(b"x" * SIZE, bytes([number]))
        )
        came.append([bytes(frame) for frame in frames])
        world.hub.dispatch_monitor_traffic("task_in", [world.client.ident, *frames])
    assert world.host.held == ()
    assert world.hub.intake.held_bytes <= 1.5 * SIZE
    kept = [task.frames is not None for task in world.hub.tasks.scheduler.queue]
    assert kept == [True, False, False, False, False]
    for frames in came:
        world.answer_questions()
        [sent] = frames_sent(world, "task_out")
        assert sent == [b"a", world.client.ident, *frames], "the same bytes, and so the same signature"
        world.answer("a", world.read(sent))
    assert world.hub.intake.held_bytes == 0
    assert len(world.take("task_in")) == 6
    assert world.hub.tasks.scheduler.tasks == {}


def test_requests_are_read_in_batches() -> None:
    store = DurableStore()
    world = World(store=store, queue_memory=0, hwm=0)
    msg_ids = [world.submit() for _ in range(FETCHED_AT_A_TIME + 50)]
    world.engine("a")
    assert len(world.host.questions) == 1
    world.answer_questions()
    assert [len(asked) for asked in store.asked] == [1, FETCHED_AT_A_TIME, 49], "never two questions at once"
    assert [message.header.msg_id for _, message in world.take("task_out")] == msg_ids
    assert world.hub.intake.to_fetch == {}
    late = world.submit()  # an engine has room, so the task never waits
    assert [message.header.msg_id for _, message in world.take("task_out")] == [late]


def on_disk(count: int = 1, **metadata: Any) -> tuple[World, DurableStore, list[str]]:
    """Submit tasks whose frames only the store has. The first of them is on its way to engine a."""
    store = DurableStore()
    world = World(store=store, queue_memory=0)
    msg_ids = [world.submit(**metadata) for _ in range(count)]
    world.engine("a")
    assert world.take("task_out") == []
    return world, store, msg_ids


def outcomes(world: World) -> list[str]:
    """Return the outcomes that clients have got since the last call: ok, or the name of an error."""
    return [reply.get("ename", reply["status"]) for reply in world.replies("task_in")]


def test_a_store_that_is_gone_for_a_while_costs_no_task() -> None:
    world, store, [msg_id] = on_disk()
    store.failing = True
    for _ in range(FETCH_ATTEMPTS - 1):
        world.answer_questions()
        [(_, _, try_again)] = world.host.timers
        world.host.timers.clear()
        try_again()
    store.failing = False
    assert finish_one(world) == msg_id
    assert outcomes(world) == ["ok"]
    assert world.host.timers == []


def test_a_store_that_does_not_come_back_fails_what_cannot_be_read() -> None:
    world, store, [first, second] = on_disk(2)
    store.failing = True
    for _ in range(FETCH_ATTEMPTS):
        world.answer_questions()
        for _, _, try_again in world.host.timers[:]:
            world.host.timers.clear()
            try_again()
    assert outcomes(world) == ["EngineError"]
    store.failing = False
    assert finish_one(world) == second, "the engine is not left without work"
    assert "the disk is gone" in world.record(first)["result_content"]["evalue"]


def test_a_request_whose_record_is_gone_fails_alone() -> None:
    world, store, [gone, second, third] = on_disk(3)
    store.discard(gone)
    assert finish_one(world) == second
    assert outcomes(world) == ["EngineError", "ok"]
    assert finish_one(world) == third


@pytest.mark.parametrize("retries", [0, 1])
def test_an_engine_is_lost_while_its_task_is_read(retries: int) -> None:
    world, _, [msg_id] = on_disk(retries=retries)
    engine = world.hub.engines.alive[0]
    world.hub.lose_engine(engine, "heart")
    world.engine("b")
    world.answer_questions()
    [(_, request)] = world.take("task_out")
    assert request.idents[0] == b"b", "it was never sent to the other, so it is not a retry"
    assert request.header.msg_id == msg_id
    world.answer("b", request)
    world.hub.handle_stranded(engine)
    assert [reply["status"] for reply in world.replies("task_in")] == ["ok"]


def test_an_engine_is_settled_while_its_task_is_read() -> None:
    world, store, [msg_id] = on_disk(retries=1)
    engine = world.hub.engines.alive[0]
    world.hub.lose_engine(engine, "heart")
    world.hub.handle_stranded(engine)
    assert world.hub.tasks.scheduler.tasks[msg_id].worker is None
    world.answer_questions()
    assert world.take("task_out") == []
    world.engine("b")
    world.answer_questions()
    assert [message.idents[0] for _, message in world.take("task_out")] == [b"b"]
    assert len(store.asked) == 2


def test_an_engine_takes_over_while_the_task_is_read_for_another() -> None:
    world, store, [msg_id] = on_disk(retries=1)
    engine = world.hub.engines.alive[0]
    world.hub.lose_engine(engine, "heart")
    world.engine("b")
    world.hub.handle_stranded(engine)
    world.answer_questions()
    assert [message.idents[0] for _, message in world.take("task_out")] == [b"b"], "once"
    assert store.asked == [[msg_id]]


def test_a_stop_while_a_task_is_read() -> None:
    world, _, [msg_id, queued] = on_disk(2)
    world.hub.stop_serving()
    assert outcomes(world) == ["EngineError"] * 2
    world.answer_questions()
    assert world.take("task_out") == []
    assert world.hub.intake.to_fetch == {}
    assert {world.record(each)["completed"] is not None for each in (msg_id, queued)} == {True}


def test_a_task_that_is_on_disk_only_runs_out_of_time() -> None:
    store = DurableStore()
    world = World(store=store, queue_memory=0)
    world.submit(timeout=2.0)
    [(_, _, time_is_up)] = world.host.timers
    time_is_up()
    assert outcomes(world) == ["TaskTimeout"]
    world.engine("a")
    assert world.host.questions == []
    assert world.hub.intake.held_bytes == 0


def test_a_task_that_was_read_from_disk_is_tried_again_from_memory() -> None:
    world, store, [msg_id] = on_disk(retries=1)
    world.engine("b")
    world.answer_questions()
    [(_, request)] = world.take("task_out")
    world.answer("a", request, {"status": "error", "ename": "E", "evalue": "v"})
    [(_, again)] = world.take("task_out")
    assert (again.idents[0], again.header.msg_id) == (b"b", msg_id)
    assert bytes(again.frames[1]) != bytes(request.frames[1])
    assert len(store.asked) == 1


def test_clients_take_turns_on_disk_too() -> None:
    store = DurableStore()
    world = World(store=store, queue_memory=0)
    clients = [Peer(name) for name in ("one", "two")]
    submitted = [world.submit(clients[0]) for _ in range(3)] + [world.submit(clients[1])]
    world.engine("a")
    order: list[str] = []

    def run(request: Message) -> None:
        order.append(request.header.msg_id)
        world.answer("a", request)

    while world.hub.tasks.scheduler.tasks:
        world.answer_questions()
        [(_, request)] = world.take("task_out")
        run(request)
    assert order == [submitted[0], submitted[3], submitted[1], submitted[2]]


def test_tasks_that_are_queued_again_take_up_memory() -> None:
    world = World()
    engines = [world.engine("a"), world.engine("b")]
    again, other, queued = (world.submit(buffers=(bytes(SIZE),), retries=1) for _ in range(3))
    one = world.hub.intake.held_bytes
    assert one > SIZE
    world.hub.lose_engine(engines[0], "heart")
    world.hub.handle_stranded(engines[0])
    assert SIZE < world.hub.intake.held_bytes - one < 2 * SIZE
    for request in (other, again, queued):
        answered(world, request)
    assert world.hub.intake.held_bytes == 0


def answered(world: World, msg_id: str) -> None:
    """Have the engine b answer a task that it was sent."""
    [request] = [message for name, message in world.take("task_out") if message.header.msg_id == msg_id][-1:]
    world.answer("b", request)
