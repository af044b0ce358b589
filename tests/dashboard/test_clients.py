"""The clients on the dashboard: their queues, and the results that are owed to those who have left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trio_hub import HubConfig
from trio_hub.dashboard.clients import ClientBook
from trio_hub.testing import open_client, open_engine, open_hub

from ..runtime.support import eventually, within_limit
from .support import Site, fetch, open_dashboard, reading, site


def test_the_clients_that_were_silent_for_longest_are_forgotten() -> None:
    book = ClientBook(limit=2)
    for now, session in enumerate("abaca"):
        book.submitted(session, 10.0 * now)
    assert book.seen == {"c": [1, 30.0], "a": [3, 40.0]}


async def test_each_clients_queue() -> None:
    async with site() as at, open_client(at.hub.client_info) as other:
        assert (await at.get("/api/clients"))["clients"] == []
        at.engine.hold()
        running = at.client.submit()
        await eventually(lambda: bool(at.engine.held))
        at.client.submit(metadata={"after": [running]})
        for _ in range(3):
            at.client.submit()
        other.submit()
        other.call(at.engine)
        await eventually(lambda: at.hub.statistics().submitted == 7)
        answer = await at.get("/api/clients")
        rows = {row.pop("client"): row for row in answer["clients"]}
        assert [*rows] == [at.client.session.session_id, other.session.session_id], "the busiest first"
        assert all(row.pop("last") <= answer["now"] for row in rows.values())
        mine, others = rows.values()
        assert mine == {"queued": 3, "waiting": 1, "paused": 0, "running": 1, "direct": 0, "owed": 0, "submitted": 5}
        assert others == {"queued": 1, "waiting": 0, "paused": 0, "running": 0, "direct": 1, "owed": 0, "submitted": 2}
        assert answer["more"] == 0


@pytest.mark.parametrize("durable", [True, False])
async def test_results_of_a_client_that_has_left_are_dropped(tmp_path: Path, durable: bool) -> None:
    config = HubConfig(profile_dir=tmp_path, db="sqlite" if durable else "memory")
    async with within_limit(), open_hub(config) as hub, open_dashboard(hub, admin=True) as dashboard:
        async with open_client(hub.client_info) as client:
            tasks = [client.submit() for _ in range(3)]
            await eventually(lambda: hub.statistics().tasks_queued == 3)
        async with open_engine(hub.engine_info) as engine:
            await eventually(lambda: hub.statistics().results_owed == 3)
            at = Site(hub, client, engine, dashboard)
            (row,) = (await at.get("/api/clients"))["clients"]
            session = client.session.session_id
            assert (row["client"], row["owed"], row["queued"]) == (session, 3, 0)
            fields = {"Authorization": f"Bearer {dashboard.token}", "X-Trio-Hub": "1"}
            for body, status, told in (
                ({"client": session}, 200, {"dropped": 3}),
                ({"client": session}, 200, {"dropped": 0}),
                ({}, 400, {"error": '"client" must be the session of a client'}),
            ):
                packed = json.dumps(body).encode()
                path = "/api/actions/drop_owed"
                answer = await fetch(dashboard.port, path, fields, method="POST", body=packed)
                assert (answer.status, json.loads(answer.body)) == (status, told)
            assert hub.statistics().results_owed == 0
            assert {task: (await at.get(f"/api/tasks/{task}"))["row"]["state"] for task in tasks} == dict.fromkeys(
                tasks, "ok"
            ), "the records stay"


async def test_the_next_steps_name_the_files_of_this_hub(tmp_path: Path) -> None:
    for config, told in (
        (HubConfig(profile_dir=tmp_path / "a b"), True),
        (HubConfig(), False),
    ):
        async with (
            within_limit(),
            open_hub(config) as hub,
            open_dashboard(hub) as dashboard,
            reading(dashboard) as reader,
        ):
            steps = (await reader.until("overview"))["next_steps"]
        if told:
            assert steps == {
                "engine": f"trio-hub engine --file '{hub.engine_file}'",
                "client": f"ipp.Client('{hub.client_file}')",
            }
        else:
            assert steps == {"engine": None, "client": None}
