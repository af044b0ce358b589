"""The metrics: their names, and that they move with what happens."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import zmq

from trio_hub import __version__
from trio_hub.dashboard import workmetrics
from trio_hub.dashboard.metrics import METRICS
from trio_hub.errors import WireError
from trio_hub.testing import answer, die, failing, one_by_one, open_engine

from ..runtime.support import cluster, eventually
from .support import Scrape, fetch, open_dashboard, scrape

UNITS = ("_seconds", "_bytes", "_records", "_info")
"""The endings of metric names that name a unit. A metric without such an ending is a number of things."""


def test_names_follow_the_conventions() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert re.fullmatch(r"trio_hub(_[a-z]+)+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert not re.search(r"_(milli|micro|kilo|mega|count|sum|bucket)", metric.name)
        assert metric.kind != "histogram" or metric.name.endswith("_seconds")
        assert metric.text[0].isupper()
        assert metric.text.endswith(".")


async def test_prometheus_reads_every_metric_with_its_type() -> None:
    async with cluster() as (hub, _, _), open_dashboard(hub) as dashboard:
        families = (await scrape(dashboard)).families
    for metric in METRICS:
        family = families[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.text)
        for sample in family.samples:
            assert {*sample.labels} - {"le"} == {*metric.labels}, metric.name
    ours = {name for name in families if name.startswith("trio_hub_")}
    assert ours == {metric.name.removesuffix("_total") for metric in METRICS}
    assert {"process_open_fds", "process_resident_memory_bytes", "process_cpu_seconds"} == families.keys() - ours - {
        "process_max_fds",
        "process_start_time_seconds",
        "process_virtual_memory_bytes",
    }


async def test_histograms_are_whole() -> None:
    async with cluster() as (hub, client, engine), open_dashboard(hub) as dashboard:
        await client.reply(client.submit(b"work"))
        await client.reply(client.call(engine[0]))
        seen = await scrape(dashboard)
    for metric in METRICS:
        if metric.kind == "histogram":
            rows: dict[str, list[tuple[float, float]]] = {}
            family = seen.families[metric.name]
            for sample in family.samples:
                if sample.name.endswith("_bucket"):
                    labels = {name: value for name, value in sample.labels.items() if name != "le"}
                    rows.setdefault(str(labels), []).append((float(sample.labels["le"]), sample.value))
                    assert seen(f"{metric.name}_sum", **labels) >= 0
            for row in rows.values():
                assert row == sorted(row)
                assert [count for _, count in row] == sorted(count for _, count in row)
                assert row[-1][0] == float("inf")


async def test_other_formats_are_served_to_whom_they_are_meant_for() -> None:
    async with cluster() as (hub, _, _), open_dashboard(hub) as dashboard:
        headers = {"Authorization": f"Bearer {dashboard.token}"}
        plain = await fetch(dashboard.port, "/metrics", headers)
        assert plain.headers["content-type"].startswith("text/plain; version=")
        headers["Accept"] = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
        open_metrics = await fetch(dashboard.port, "/metrics", headers)
        assert open_metrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert open_metrics.body.endswith("# EOF\n")


def finished(seen: Scrape, queue: str) -> tuple[float, ...]:
    return tuple(
        seen("trio_hub_requests_finished_total", queue=queue, outcome=outcome) for outcome in ("ok", "error", "aborted")
    )


async def test_they_move_with_what_becomes_of_tasks() -> None:
    aborting = lambda request: request.answer(content={"status": "aborted"})  # noqa: E731
    odd = lambda request: request.answer(content={"status": "whatever"})  # noqa: E731
    behaviour = one_by_one(answer, failing(), aborting, odd, answer)
    async with cluster(behaviour=behaviour) as (hub, client, (engine,)), open_dashboard(hub) as dashboard:
        before = await scrape(dashboard)
        assert finished(before, "task") == (0, 0, 0)
        for _ in range(4):
            await client.reply(client.submit(b"work"))
        await client.reply(client.call(engine))
        await client.reply(client.call("nobody"))
        after = await scrape(dashboard)
        assert finished(after, "task") == (1, 2, 1)
        assert finished(after, "mux") == (1, 1, 0)
        assert finished(after, "broadcast") == (0, 0, 0)
        assert after("trio_hub_requests_submitted_total", queue="task") == 4
        assert after("trio_hub_requests_submitted_total", queue="mux") == 2
        assert after("trio_hub_task_wait_seconds_count") == 4
        assert after("trio_hub_request_run_seconds_count", queue="task") == 4
        assert after("trio_hub_message_handling_seconds_count", channel="task_in") == 4
        assert after("trio_hub_message_handling_seconds_count", channel="task_out") == 4
        assert after("trio_hub_client_sessions") == 1
        assert after("trio_hub_build_info", version=__version__, python_version=python_version(after)) == 1
        statistics = hub.statistics()
        assert (statistics.submitted, statistics.completed, statistics.failed, statistics.aborted) == (6, 2, 3, 1)


async def test_they_tell_priorities_and_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    async with cluster() as (hub, client, (engine,)), open_dashboard(hub) as dashboard:
        assert (await scrape(dashboard))("trio_hub_tasks_queued_by_priority", priority="0") == 0
        hub.tag(engine.uuid, {"gpu": 2, "memory": "1G", "site": "a"})
        engine.hold()
        for priority in (5, 5, -1):
            client.submit(metadata={"rules": {"priority": priority, "needs": {"gpu": 0.5, "site": "a"}}})
        await eventually(lambda: hub.statistics().tasks_queued == 2)
        seen = await scrape(dashboard)
        queued = [seen("trio_hub_tasks_queued_by_priority", priority=priority) for priority in ("5", "-1", "0")]
        assert queued == [1, 1, 0]
        assert [seen("trio_hub_tasks_by_need", need=need) for need in ("gpu", "site")] == [3, 3]
        assert [seen("trio_hub_amounts", amount="gpu", use=use) for use in ("free", "used")] == [1.5, 0.5]
        assert len(seen.families["trio_hub_amounts"].samples) == 2, "no task has asked for memory"
        monkeypatch.setattr(workmetrics, "MAX_NAMED", 1)
        seen = await scrape(dashboard)
        assert seen("trio_hub_tasks_queued_by_priority", priority="(other)") == 1


def python_version(seen: Scrape) -> str:
    return str(seen.families["trio_hub_build_info"].samples[0].labels["python_version"])


async def test_they_move_with_what_waits_and_runs() -> None:
    async with cluster() as (hub, client, (engine,)), open_dashboard(hub) as dashboard:
        engine.hold()
        msg_ids = [client.submit(b"x" * 1000) for _ in range(3)]
        await eventually(lambda: hub.statistics().tasks_queued == 2)
        seen = await scrape(dashboard)
        states = {state: seen("trio_hub_tasks", state=state) for state in ("queued", "running", "waiting")}
        assert states == {"queued": 2, "running": 1, "waiting": 0}
        assert seen("trio_hub_queue_memory_bytes") > 2000
        assert seen("trio_hub_task_wait_seconds_count") == 1
        engine.release()
        for msg_id in msg_ids:
            await client.reply(msg_id)
        assert (await scrape(dashboard))("trio_hub_task_wait_seconds_count") == 3


async def test_they_move_with_engines_that_come_and_die() -> None:
    settings: dict[str, Any] = {"ping": 0.05, "max_heartmonitor_misses": 2, "stranded_grace": 0.0}
    async with cluster(**settings) as (hub, client, (engine,)), open_dashboard(hub) as dashboard:
        async with open_engine(hub.engine_info) as other:
            await hub.wait_engines(2)
            other.leave()
            await eventually(lambda: len(hub.engines) == 1)
        engine.behaviour = die
        await client.reply(client.submit(b"deadly"))
        await eventually(lambda: not hub.engines)
        seen = await scrape(dashboard)
        assert finished(seen, "task") == (0, 1, 0)
        assert seen("trio_hub_engines", state="alive") == 0
        assert seen("trio_hub_engines_registered_total") == 2
        assert seen("trio_hub_engines_lost_total", reason="request") == 1
        assert seen("trio_hub_engines_lost_total", reason="heart") == 1
        assert seen("trio_hub_heartbeats_missed_total") >= 3


async def test_they_move_with_what_cannot_be_read_and_what_is_ignored() -> None:
    async with cluster() as (hub, client, (engine,)), open_dashboard(hub) as dashboard:
        seen = await scrape(dashboard)
        assert [seen("trio_hub_wire_errors_total", kind=kind) for kind in WireError.KINDS] == [0] * len(WireError.KINDS)
        client.send("task", "apply_request", key=b"not the key")
        msg_id = client.call(engine)
        await client.reply(msg_id)
        await eventually(lambda: bool(hub.statistics().wire_errors))
        engine.requests[0].answer()
        await eventually(lambda: bool(hub.statistics().ignored))
        seen = await scrape(dashboard)
        assert seen("trio_hub_wire_errors_total", kind="bad_signature") == 1
        assert seen("trio_hub_messages_ignored_total", reason="unexpected_result") == 1


async def test_they_move_with_a_client_that_does_not_read() -> None:
    async with cluster(subscriber_queue=2**20) as (hub, client, (engine,)), open_dashboard(hub) as dashboard:
        seen = await scrape(dashboard)
        assert seen("trio_hub_subscribers") == 2  # the client's two subscriptions: output, and notifications
        assert seen("trio_hub_subscribers_dropped_total") == seen("trio_hub_subscribers_waiting_bytes") == 0
        with zmq.Context() as context, context.socket(zmq.SUB) as suspended:
            suspended.linger = 0
            suspended.rcvhwm = 1
            suspended.rcvbuf = 8192
            suspended.subscribe(b"")
            suspended.connect(f"{hub.client_info['interface']}:{hub.client_info['iopub']}")
            await eventually(lambda: hub.statistics().subscribers == 3)
            for number in range(30):
                engine.publish("stream", {"name": "stdout", "text": "x" * 500_000})
                await client.wait_until(lambda number=number: len(client.iopub) > number)  # type: ignore[misc]
            seen = await scrape(dashboard)
            assert seen("trio_hub_subscribers_behind") == 1
            assert 500_000 < seen("trio_hub_subscribers_waiting_bytes") <= 2**20
            dropped = seen("trio_hub_subscribers_dropped_total")
            assert dropped > 5
            assert dropped * 500_000 < seen("trio_hub_subscribers_dropped_bytes_total") < dropped * 510_000
            headers = {"Authorization": f"Bearer {dashboard.token}"}
            status = json.loads((await fetch(dashboard.port, "/api/status", headers)).body)
            assert (status["subscribers_behind"], status["subscribers_dropped"]) == (1, dropped)
        await eventually(lambda: hub.statistics().subscribers == 2)
        seen = await scrape(dashboard)
        assert seen("trio_hub_subscribers_behind") == seen("trio_hub_subscribers_waiting_bytes") == 0
        assert seen("trio_hub_subscribers_dropped_total") == dropped


async def test_they_move_with_the_database(tmp_path: Path) -> None:
    async with cluster(profile_dir=tmp_path) as (hub, client, _), open_dashboard(hub) as dashboard:
        await client.reply(client.submit(b"work"))
        await eventually(lambda: hub.statistics().database.pending == 0)
        seen = await scrape(dashboard)
        assert seen("trio_hub_store_writable") == 1
        assert seen("trio_hub_store_records_written_total") >= seen("trio_hub_store_batches_total") >= 1
        assert seen("trio_hub_store_size_bytes") > 1000
        assert seen("trio_hub_store_backlog_records") == seen("trio_hub_store_lag_seconds") == 0


async def test_counts_are_since_the_hub_began_and_not_since_it_was_watched() -> None:
    async with cluster() as (hub, client, _):
        await client.reply(client.submit(b"work"))
        async with open_dashboard(hub) as dashboard:
            assert finished(await scrape(dashboard), "task") == (1, 0, 0)
