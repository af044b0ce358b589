"""The numbers that `top` computes from one snapshot of a hub to the next."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from trio_hub import Client, connect
from trio_hub.cli.top import snapshot
from trio_hub.cli.top.snapshot import PoolRow, Sampler

from ...dashboard.pools import fixed_pool, pool, pretend, stopped_pool
from ..asking.support import world


async def test_looks(tmp_path: Path) -> None:
    async with world(tmp_path, engines=2) as it, connect(connection_file=it.file) as client:
        sampler = Sampler(client)
        first = await sampler.look()
        assert (first.unassigned, first.tasks, first.busy, len(first.engines)) == (0, 0, 0, 2)
        assert first.finished is first.submitted is first.failed is None
        good, bad = await it.run(pow, 1, 1, label="tides"), await it.run(divmod, 1, 0)
        it.engines[0].hold()
        it.engines[1].hold()
        running = [it.submit(pow, 1, 1, label="tides") for _ in range(3)]
        await it.engines[0].wait_requests(1)
        await it.engines[1].wait_requests(1)
        await it.client.query("connection_request")
        second = await sampler.look()
        assert second.seconds is not None
        assert second.finished == pytest.approx(2 / second.seconds)
        assert second.submitted == pytest.approx(5 / second.seconds)
        assert second.failed == pytest.approx(1 / second.seconds)
        assert not second.sampled
        assert [row["msg_id"] for row in second.latest] == [bad, good]
        assert [row["msg_id"] for row in second.failures] == [bad]
        assert (second.unassigned, second.tasks, second.busy) == (1, 2, 2)
        assert {engine.running for engine in second.engines} == set(running[:2])
        assert {(engine.label, engine.since, engine.earlier) for engine in second.engines} == {
            ("tides", second.at, False)
        }
        third = await sampler.look()
        assert third.finished == third.failed == third.submitted == 0
        assert {engine.since for engine in third.engines} == {second.at}
        assert third.latest == second.latest
        newcomer = await Sampler(client).look()
        assert all(engine.earlier for engine in newcomer.engines)


async def test_what_is_controlled(tmp_path: Path) -> None:
    async with world(tmp_path, engines=2) as it, connect(connection_file=it.file) as client:
        first = await Sampler(client).look()
        assert (first.queued, first.waiting, first.paused, first.cancelling, first.priorities) == (0, 0, 0, 0, {})
        it.hub.drain([1])
        it.engines[0].hold()
        running = it.submit(pow, 1, 1)
        await it.engines[0].wait_requests(1)
        it.submit(pow, 1, 1, label={"priority": 7})
        await it.hub.cancel([running])
        sampler = Sampler(client)
        second = await sampler.look()
        assert (second.queued, second.cancelling, second.priorities) == (1, 1, {7: 1})
        assert [engine.drained for engine in second.engines] == [False, True]


async def test_a_hub_that_does_not_know_what_is_controlled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(tmp_path) as it, connect(connection_file=it.file) as client:
        del it.hub.core.query_handlers["work_status_request"]
        sampler = Sampler(client)
        for _ in range(2):
            found = await sampler.look()
            assert (found.unassigned, found.paused, found.priorities) == (0, None, {})


async def test_pools_that_are_sized_by_demand(tmp_path: Path) -> None:
    async with world(tmp_path) as it, connect(connection_file=it.file) as client:
        sampler = Sampler(client)
        assert (await sampler.look()).pools == ()
        pretend(it.hub, fixed_pool(), stopped_pool(), pool())
        (broken, slurm) = (await Sampler(client).look()).pools
        why = "has 1 block in the queue of the batch system; at most 1 (backlog); has tasks that could use more engines"
        assert slurm == PoolRow("slurm", "steady", 0, 8, 7, 4, 0, 4, 1, why)
        assert (broken.name, broken.state) == ("broken", "stopped")
        assert broken.why.endswith("then resume the pool")


async def test_little_is_asked_of_a_busy_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "FEW", 5)
    async with world(tmp_path) as it, connect(connection_file=it.file) as client:
        asked: list[Any] = []

        async def db_query(self: Client, query: Any, keys: Any) -> list[dict[str, Any]]:
            asked.append(query)
            return await original(self, query, keys)

        original = Client.db_query
        monkeypatch.setattr(Client, "db_query", db_query)
        sampler = Sampler(client)
        await sampler.look()
        for _ in range(20):
            await it.run(pow, 1, 1)
        it.engines[0].hold()
        for _ in range(10):
            it.client.call(it.engines[0])
        await it.engines[0].wait_requests(30)
        asked.clear()
        look = await sampler.look()
        (query,) = asked
        assert look.sampled
        assert look.finished is not None
        assert query["received"]["$gte"] == (look.at - timedelta(seconds=5 / look.finished)).isoformat()
        assert look.engines[0].running is None


async def test_the_name_of_a_function_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(tmp_path) as it, connect(connection_file=it.file) as client:
        asked: list[list[str]] = []

        async def details(self: Client, msg_ids: Any, **options: Any) -> Any:
            asked.append(msg_ids)
            return await original(self, msg_ids, **options)

        original = Client.details
        monkeypatch.setattr(Client, "details", details)
        it.engines[0].hold()
        msg_id = it.submit(divmod, 1, 1)
        await it.engines[0].wait_requests(1)
        sampler = Sampler(client)
        for _ in range(3):
            (engine,) = (await sampler.look()).engines
            assert (engine.running, engine.name) == (msg_id, "divmod")
        assert [msg_ids for msg_ids in asked if msg_ids] == [[msg_id]]


async def test_a_hub_that_keeps_no_records(tmp_path: Path) -> None:
    async with world(tmp_path, db="none") as it, connect(connection_file=it.file) as client:
        sampler = Sampler(client)
        await sampler.look()
        await it.run(pow, 1, 1)
        look = await sampler.look()
        assert look.trouble is not None
        assert look.completed == 1
        assert look.failed is None
        assert look.latest == ()
