"""Cancels and drains with scripted engines, over real sockets."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from trio_hub import HubConfig
from trio_hub.hub.events import EngineDraining, TaskCancelled
from trio_hub.runtime import children
from trio_hub.testing import ScriptedClient, ScriptedEngine, open_client, open_engine, open_hub
from trio_hub.testing.engine import Request

from .support import cluster, eventually, within_limit

CANCELS = 1000
AT_A_TIME = 20
"""The number of tasks that are unanswered at the same time."""


class Nannied:
    """Has a scripted engine carry out its requests one by one, and hit by signals as late as they can be.

    A signal hits the request that is carried out next, even if the signal has come while nothing ran.
    """

    def __init__(self, engine: ScriptedEngine, rng: Random) -> None:
        self.engine = engine
        self.rng = rng
        self.is_hit = False
        self.hits = 0
        self.aborted: set[str] = set()
        engine.hold()
        engine.behaviour = self.carry_out
        engine.control_behaviour = self.hear

    def carry_out(self, request: Request) -> None:
        if request.msg_id in self.aborted:
            request.answer(content={"status": "aborted"})
        elif self.is_hit:
            self.is_hit = False
            self.hits += 1
            request.fail("KeyboardInterrupt", "")
        else:
            request.answer(request.buffers)

    def hear(self, request: Request) -> None:
        if request.msg_type == "abort_request":
            self.aborted.update(request.content["msg_ids"])
        elif request.msg_type == "signal_request":
            assert request.content == {"sig": "SIGINT"}
            self.is_hit = True
        request.answer()

    async def run(self) -> None:
        while True:
            await self.engine.wait_until(lambda: bool(self.engine.held))
            for _ in range(self.rng.randrange(6)):
                await trio.lowlevel.checkpoint()
            self.engine.release(1)


@pytest.mark.parametrize("hwm", [1, 3])
async def test_a_thousand_cancels_at_random_moments_hit_nothing_else(hwm: int) -> None:
    """Half of the tasks are cancelled. Each task is answered once, as cancelled or with its result."""
    rng = Random(hwm)
    with trio.fail_after(120):
        async with cluster(3, hwm=hwm) as (hub, client, engines), trio.open_nursery() as nursery:
            nannied = [Nannied(engine, rng) for engine in engines]
            for one in nannied:
                nursery.start_soon(one.run)
            cancelled: dict[str, str] = {}
            submitted: list[str] = []
            while len(cancelled) < CANCELS:
                for _ in range(4):
                    submitted.append(client.submit(b"f"))
                for _ in range(rng.randrange(8)):
                    await trio.lowlevel.checkpoint()
                for msg_id in rng.sample(submitted[-AT_A_TIME:], k=2):
                    if msg_id not in cancelled:
                        [what] = (await hub.cancel([msg_id])).values()
                        cancelled[msg_id] = what
                await client.wait_until(lambda: len(set(submitted[-200:]) - client.replies.keys()) < AT_A_TIME)
            await client.wait_until(lambda: client.replies.keys() >= set(submitted))
            answers = {msg_id: [reply.content for reply in client.replies[msg_id]] for msg_id in submitted}
            assert {msg_id: found for msg_id, found in answers.items() if len(found) != 1} == {}
            for msg_id in submitted:
                content = client.replies[msg_id][0].content
                if content["status"] == "error":
                    assert content["ename"] == "TaskCancelled", content
                    assert cancelled[msg_id] in ("withdrawn", "interrupted", "unknown")
                else:
                    assert cancelled.get(msg_id, "finished") == "finished"
            assert hub.core.work.interrupts.hits > 0, "no task was hit by a signal that meant another"
            assert sum(one.hits for one in nannied) > 10
            assert hub.core.work.interrupts.kills.count == 0
            assert not hub.statistics().internal_errors
            nursery.cancel_scope.cancel()


async def test_a_client_cancels_by_a_query() -> None:
    async with cluster(1) as (hub, client, (engine,)), hub.events() as events:
        engine.hold()
        msg_id = client.submit(b"f")
        await engine.wait_requests(1)
        reply = await client.query("cancel_request", {"msg_ids": [msg_id, "nothing"], "by": "ann"})
        assert reply.content["cancelled"] == {msg_id: "interrupted", "nothing": "unknown"}
        await engine.wait_requests(2)
        engine.held.pop(0).fail("KeyboardInterrupt", "")
        content = (await client.reply(msg_id)).content
        assert content["ename"] == "TaskCancelled"
        assert content["evalue"].startswith("cancelled by ann at ")
        async for event in events:
            if isinstance(event, TaskCancelled):
                assert event == TaskCancelled(msg_id, "ann", "interrupted")
                break


async def test_an_engine_that_cannot_be_interrupted_is_lost_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_hub.hub.kills.DIES_WITHIN", 0.05)
    async with cluster(1, ping=0.2) as (hub, client, (engine,)):
        engine.hold()
        msg_id = client.submit(b"f")
        await engine.wait_requests(1)
        await hub.cancel([msg_id], grace=0.05)
        assert (await client.reply(msg_id)).content["ename"] == "TaskCancelled"
        engine.release()
        await hub.wait_engines(1)
        later = client.submit(b"f")
        assert (await client.reply(later)).content["status"] == "ok"
        assert len(client.replies[msg_id]) == 1


async def test_a_local_engine_is_killed_and_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(children, "LAST_WORDS", 0.01)
    command = (sys.executable, "-m", "tests.runtime.local_engine")
    config = HubConfig(engines=1, engine_command=command)
    async with within_limit(), open_hub(config) as hub, open_client(hub.client_info) as client:
        await hub.wait_engines(1)
        before = set(hub.engines.values())
        msg_id = client.submit(b"wait")
        await eventually(lambda: hub.statistics().tasks_running == 1)
        await hub.cancel([msg_id], grace=0.05)
        content = (await client.reply(msg_id)).content
        assert content["ename"] == "TaskCancelled"
        assert "its engine was killed" in content["evalue"]
        await eventually(lambda: bool(hub.engines) and set(hub.engines.values()) != before)
        later = client.submit(b"f")
        assert (await client.reply(later)).content["status"] == "ok"


async def test_a_drained_engine_is_drained_after_a_restart_of_the_hub(tmp_path: Path) -> None:
    config: dict[str, Any] = {"profile_dir": tmp_path, "reuse": True, "restore": True, "db": "sqlite"}
    async with within_limit():
        async with (
            open_hub(HubConfig(**config)) as hub,
            hub.events() as events,
            open_engine(hub.engine_info, uuid="stays"),
        ):
            await hub.wait_engines(1)
            hub.drain([0], deadline=500)
            async for event in events:
                if isinstance(event, EngineDraining):
                    assert event == EngineDraining(0, "stays", True, "the embedder")
                    break
            info = hub.engine_info
            hub.shutdown("a restart")
            await hub.wait_stopped()
        async with open_hub(HubConfig(**config)) as hub:
            assert hub.engine_info["key"] == info["key"]
            assert set(hub.core.work.draining.drains) == {b"stays"}
            assert hub.engines == {0: "stays"}
            worker = hub.core.engines.alive[0].worker
            assert worker is not None
            assert worker.draining
            hub.undrain(["stays"])
            assert not worker.draining


async def test_an_engine_drains_itself() -> None:
    async with cluster(2) as (hub, client, (first, second)):
        content = {"uuid": first.uuid, "seconds_left": 60}
        first.send_raw("registration", first._write("drain_request", content))
        await eventually(lambda: bool(hub.core.work.draining.drains))
        await answered_by(client, second)


async def answered_by(client: ScriptedClient, engine: ScriptedEngine) -> None:
    for _ in range(5):
        reply = await client.reply(client.submit(b"f"))
        assert reply.metadata["engine"] == engine.uuid
