"""The cost of a task in the core, in function calls: the same in every run, on every machine.

Time is measured in benchmarks. Here a step that somebody adds to the way of every task shows, and one that takes longer
the more engines or tasks there are.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from trio_hub.records import NullStore
from trio_hub.records.record import TaskRecord
from trio_hub.wire.frames import DELIMITER

from .world import Peer, World

TASKS = 200


class Calls:
    """Counts calls of functions, in Python and in C."""

    def __init__(self) -> None:
        self.count = 0

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            self.count += 1

    @contextmanager
    def counted(self) -> Iterator[None]:
        before = sys.getprofile()
        sys.setprofile(self._note)
        try:
            yield
        finally:
            sys.setprofile(before)


class DurableStore(NullStore):
    """A store that calls back as a database does, and keeps nothing."""

    durable = True

    def add(self, record: TaskRecord) -> None:
        assert record.custody is not None


def calls_per_task(world: World, *, engines: int, queued: int = 0) -> float:
    """Return the calls for a submission and a result, while this number of tasks is queued and all engines are busy."""
    uuids = [f"engine-{number}" for number in range(engines)]
    for uuid in uuids:
        world.engine(uuid)
    requests = [request_frames(world.client) for _ in range(engines + queued + TASKS)]
    dispatch = world.hub.dispatch_monitor_traffic
    for frames in requests[: engines + queued]:
        dispatch("task_in", frames)
    world.host.sent, running = [], [frames for name, frames in world.host.sent if name == "task_out"]
    assert len(running) == engines
    calls = Calls()
    for frames in requests[engines + queued :]:
        request = running.pop(0)
        reply = reply_frames(bytes(request[0]).decode(), bytes(request[request.index(DELIMITER) + 2]))
        with calls.counted():
            dispatch("task_in", frames)
            dispatch("task_out", reply)
        sent, world.host.sent = world.host.sent, []
        assert sorted(name for name, _ in sent) == ["task_in", "task_out"]
        running += [frames for name, frames in sent if name == "task_out"]
    assert not world.hub.notices.wire_errors
    assert not world.hub.notices.ignored
    return calls.count / TASKS


def request_frames(client: Peer) -> list[Any]:
    return [client.ident, *client.session.write("apply_request", {}, buffers=(b"f", b"x" * 100))]


def reply_frames(uuid: str, header: bytes) -> list[Any]:
    peer = Peer(uuid)
    metadata = {"status": "ok", "engine": uuid, "started": "2026-01-01T00:00:00Z", "dependencies_met": True}
    reply = peer.session.write("apply_reply", {"status": "ok"}, parent=header, metadata=metadata, buffers=(b"r",))
    return [peer.ident, b"client", *reply]


# A little more than it was when this was written. Raise it only for what is worth that to every task there will be.
@pytest.mark.parametrize(("kind", "limit"), [("memory", 209), ("none", 173), ("durable", 177)])
def test_a_task_costs_no_more_calls_than_it_did(kind: str, limit: int) -> None:
    store = {"memory": None, "none": NullStore(), "durable": DurableStore()}[kind]
    assert calls_per_task(World(store=store), engines=8, queued=50) <= limit


def test_no_step_takes_longer_the_more_engines_there_are() -> None:
    few, many = calls_per_task(World(), engines=8, queued=10), calls_per_task(World(), engines=500, queued=10)
    assert many <= 1.02 * few


def test_no_step_takes_longer_the_more_tasks_wait() -> None:
    few, many = calls_per_task(World(), engines=8, queued=10), calls_per_task(World(), engines=8, queued=3000)
    assert many <= 1.02 * few
