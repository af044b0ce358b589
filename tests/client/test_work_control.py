"""Cancelling requests, draining engines, and the rules of tasks, by our client."""

from __future__ import annotations

import gc
from typing import Any, Literal

import pytest
import trio

from trio_hub import Client, Executor, RemoteError, Rules, connect

from ..dashboard.pools import pool, pretend, stopped_pool
from ..runtime.support import LIMIT, eventually
from .background import background
from .support import cluster


def double(number: int) -> int:
    return 2 * number


async def fails_with(ename: str, number: int, client: Client) -> None:
    with pytest.raises(RemoteError) as caught:
        await client.apply(double, number)
    assert caught.value.ename == ename


async def test_a_client_cancels_requests() -> None:
    async with cluster() as (hub, client, (engine,)):
        assert await client.apply(double, 1) == 2
        engine.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_with, "TaskCancelled", 2, client)
            await engine.wait_requests(2)
            nursery.start_soon(fails_with, "TaskCancelled", 3, client)
            await eventually(lambda: hub.statistics().tasks_queued == 1)
            finished, runs, waits = await client.history()
            assert await client.cancel([waits, runs, finished, "nobody"], grace=30) == {
                waits: "withdrawn",
                runs: "interrupted",
                finished: "finished",
                "nobody": "unknown",
            }
            engine.release()
        assert hub.core.work.cancelling.counts == {"withdrawn": 1, "interrupted": 1, "unknown": 2}


async def test_a_client_scales_and_resumes_pools() -> None:
    async with cluster(0) as (hub, client, _):
        pools = pretend(hub, pool(), stopped_pool())
        assert await client.pools() == [pool(), stopped_pool()]
        assert await client.scale_pool("slurm", 4) == (4, 4)
        assert await client.scale_pool("slurm", min=1, max=16) == (1, 16)
        assert await client.scale_pool("slurm") == (0, 8)
        await client.resume_pool("broken")
        assert [name for name, *_ in pools.asked] == ["scale", "scale", "scale", "resume"]
        assert not (await client.pools())[1]["is_stopped"]
        with pytest.raises(RemoteError, match="there is no pool 'pbs'"):
            await client.scale_pool("pbs", 4)


async def test_a_client_drains_engines() -> None:
    async with cluster(2) as (hub, client, (first, second)):
        drains = hub.core.work.draining.drains
        assert await client.drain(first.id, deadline=30) == {str(first.id): "draining"}
        assert list(drains) == [first.uuid.encode()]
        assert await client.drain([second.uuid, 7]) == {second.uuid: "draining", "7": "unknown"}
        assert await client.undrain() == {str(first.id): "undrained", str(second.id): "undrained"}
        assert not drains
        assert await client.drain(host="127.0.0.1") == {str(first.id): "draining", str(second.id): "draining"}
        assert await client.undrain(host="nowhere") == {}
        with pytest.raises(RemoteError, match="then must be 'shutdown' or empty"):
            await client.drain(then="dance")


async def test_an_ipcontroller_cannot_cancel_or_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    async with cluster() as (hub, _, _), connect(connection_info=hub.client_info) as client:
        monkeypatch.setattr(client._link, "hub_name", "ada")
        with pytest.raises(RemoteError, match="the hub is an ipcontroller, which cannot do this"):
            await client.cancel(["a"])
        with pytest.raises(RemoteError, match="the hub is an ipcontroller, which cannot do this"):
            await client.drain(0)
        with pytest.raises(RemoteError, match="the hub is an ipcontroller, which cannot do this"):
            await client.undrain(0)


# Maps that go on after failures


def inverse(number: int) -> float:
    return 1 / number


@pytest.mark.parametrize("ordered", [True, False])
async def test_a_map_goes_on_after_some_failures(ordered: bool) -> None:
    async with cluster(2) as (_, client, _):
        found = [one async for one in client.map(inverse, [1, 0, 2, 0, 4], ordered=ordered, max_fails=3)]
        kinds = [one.ename if isinstance(one, RemoteError) else one for one in found]
        assert sorted(map(str, kinds)) == ["0.25", "0.5", "1.0", "ZeroDivisionError", "ZeroDivisionError"]
        assert not ordered or kinds[1] == kinds[3] == "ZeroDivisionError"
        with pytest.raises(ValueError, match="max_fails is 0: it must be at least 1"):
            await anext(client.map(inverse, [1], max_fails=0))


@pytest.mark.parametrize("ordered", [True, False])
async def test_a_map_ends_after_too_many_failures_whatever_it_waits_for(ordered: bool) -> None:
    async with cluster(hwm=0) as (_, client, (engine,)):
        engine.hold()

        async def exhaust() -> None:
            async for one in client.map(inverse, [1, 2, 3, 4], ordered=ordered, max_fails=2):
                assert isinstance(one, RemoteError)

        async def read() -> None:
            with pytest.raises(RemoteError) as caught:
                await exhaust()
            assert caught.value.ename == "SecondError"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            _, second, third, _ = await engine.wait_requests(4)
            third.fail("FirstError")
            second.fail("SecondError")
        abort = (await engine.wait_requests(5))[4]
        assert (abort.msg_type, len(abort.content["msg_ids"])) == ("abort_request", 2)


# Rules


async def rules_of(client: Client, msg_id: str) -> dict[str, Any]:
    """Return the rules in the record of a request."""
    [record] = await client.db_query({"msg_id": msg_id}, ["metadata"])
    found: dict[str, Any] = record["metadata"]["trio_hub"]["rules"]
    return found


async def test_a_call_says_its_rules() -> None:
    async with cluster() as (hub, client, (engine,)):
        hub.tag(engine.uuid, {"gpu": 2})
        rules: Rules = {
            "priority": 5,
            "max_runtime": 60,
            "max_attempts": 3,
            "retry_on": [OSError, "death"],
            "retry_pause": 0.5,
            "needs": {"gpu": 1},
            "on_cancel": "interrupt",
        }
        said = {**rules, "retry_on": ["OSError", "death"]}
        assert await client.apply(double, 1, **rules) == 2
        assert [value async for value in client.map(double, [2], **rules)] == [4]
        first, second = await client.history()
        assert await rules_of(client, first) == said
        assert await rules_of(client, second) == said


async def test_unusable_rules() -> None:
    async with cluster() as (_, client, _):
        with pytest.raises(RemoteError, match="priority is '5000': it must be"):
            await client.apply(double, 1, priority=5000)
        with pytest.raises(ValueError, match="priority has no effect on a call of a chosen engine"):
            await client.apply(double, 1, priority=5, targets=0)
        with pytest.raises(TypeError, match="there is no rule 'rank': the rules are priority, weight"):
            await anext(client.map(double, [1], rank=1))  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="retry_on has 3: give exceptions"):
            await client.apply(double, 1, retry_on=[3])  # type: ignore[list-item]


@pytest.mark.parametrize("on_cancel", ["interrupt", None])
async def test_a_cancelled_call_that_runs_is_interrupted_if_it_says_so(on_cancel: Literal["interrupt"] | None) -> None:
    async with cluster() as (hub, client, (engine,)):
        engine.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: client.apply(double, 1, on_cancel=on_cancel))
            await engine.wait_requests(1)
            nursery.cancel_scope.cancel()
        await client.queue_status()  # the hub has handled what was sent before
        assert hub.core.work.cancelling.counts == ({} if on_cancel is None else {"interrupted": 1})
        engine.release()
        outcome = "ok" if on_cancel is None else "error"
        await eventually(lambda: hub.statistics().outcomes["task"][outcome] == 1)


async def test_nobody_else_interrupts_a_task_by_an_abort() -> None:
    async with cluster() as (hub, client, (engine,)), connect(connection_info=hub.client_info) as other:
        engine.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: client.apply(double, 1, on_cancel="interrupt"))
            await engine.wait_requests(1)
            [msg_id] = await client.history()
            await other.abort([msg_id])
            assert not hub.core.work.cancelling.counts
            engine.release()


# Executors with rules


def test_an_executor_with_rules() -> None:
    with background() as cluster, Executor(connection_info=cluster.info, rules={"priority": 1}) as executor:
        (engine,) = cluster.engines
        cluster.call(engine.hold)

        def rules(number: int) -> list[dict[str, Any]]:
            tasks = cluster.hub.core.tasks.scheduler.tasks
            cluster.wait_until(lambda: len(tasks) == number)
            return cluster.call(lambda: [task.rules.as_dict() for task in tasks.values()])

        urgent = executor.with_rules(priority=5, max_attempts=2)
        first = executor.submit(double, 1)
        assert rules(1) == [{"priority": 1}]
        last = urgent.with_rules(retry_on="death").submit(double, 2)
        assert rules(2)[1] == {"priority": 5, "max_attempts": 2, "retry_on": ["death"]}
        with pytest.raises(TypeError, match="there is no rule 'rank'"):
            executor.with_rules(rank=1)  # type: ignore[call-arg]
        cluster.call(engine.release)
        assert (first.result(LIMIT), last.result(LIMIT)) == (2, 4)
        assert list(urgent.map(double, [2, 3])) == [4, 6]
        urgent.shutdown()
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            executor.submit(double, 4)


def test_a_view_of_an_executor_keeps_the_connection() -> None:
    with background() as cluster:
        urgent = Executor(connection_info=cluster.info).with_rules(priority=5)
        gc.collect()
        assert urgent.submit(double, 1).result(LIMIT) == 2
        urgent.shutdown()


@pytest.mark.parametrize("shuts_down", [False, True])
def test_a_cancelled_future_interrupts_its_call_if_it_says_so(shuts_down: bool) -> None:
    with background() as cluster, Executor(connection_info=cluster.info, rules={"on_cancel": "interrupt"}) as executor:
        (engine,) = cluster.engines
        cluster.call(engine.hold)
        runs = executor.submit(double, 1)
        cluster.wait(engine.wait_requests, 1)
        if shuts_down:
            executor.shutdown(wait=False, cancel_futures=True)
        else:
            assert runs.cancel()
        cluster.wait_until(lambda: cluster.hub.core.work.cancelling.counts["interrupted"] == 1)
        cluster.call(engine.release)
        cluster.wait_until(lambda: cluster.hub.statistics().outcomes["task"]["error"] == 1)
        executor.shutdown()
        assert runs.cancelled()
