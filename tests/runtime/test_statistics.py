"""The numbers of the task database and of waiting requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_hub import DatabaseStatistics, HubConfig
from trio_hub.testing import open_client, open_engine, open_hub

from .support import cluster, eventually, within_limit


@pytest.mark.parametrize("kind", ["memory", "none"])
async def test_without_a_disk_nothing_waits_for_one(kind: str) -> None:
    async with cluster(db=kind) as (hub, client, _):
        await client.reply(client.submit(b"work"))
        numbers = hub.statistics().database
        assert (numbers.size == 0) is (kind == "none")
        assert numbers == DatabaseStatistics(
            kind=kind,
            size=numbers.size,
            pending=0,
            pending_bytes=0,
            lag=0.0,
            batches=0,
            written=0,
            trimmed=0,
            not_persisted=0,
            last_error=None,
        )


async def test_what_memory_has_no_room_for_is_counted() -> None:
    async with cluster(db_max_records=1) as (hub, client, _):
        for _ in range(3):
            await client.reply(client.submit(b"work"))
        assert hub.statistics().database.trimmed == 2


async def test_what_is_written_and_what_waits_to_be(tmp_path: Path) -> None:
    async with cluster(profile_dir=tmp_path) as (hub, client, _):
        await client.reply(client.submit(b"x" * 1000))
        numbers = hub.statistics().database
        assert numbers.kind == "sqlite"
        assert numbers.pending in (0, 1)
        assert (numbers.pending_bytes > 1000) == (numbers.lag > 0) == (numbers.pending == 1)
        await eventually(lambda: hub.statistics().database.pending == 0)
        numbers = hub.statistics().database
        assert (numbers.pending_bytes, numbers.lag) == (0, 0.0)
        assert (numbers.not_persisted, numbers.trimmed, numbers.last_error) == (0, 0, None)
        assert numbers.written >= numbers.batches >= 1
        assert numbers.size is not None
        assert numbers.size > 1000
        file = tmp_path / "db" / "tasks.sqlite"
        assert numbers.size == sum(path.stat().st_size for path in (file, file.with_name(f"{file.name}-wal")))


async def test_queued_tasks_are_counted_in_bytes() -> None:
    async with within_limit(), open_hub(HubConfig()) as hub, open_client(hub.client_info) as client:
        msg_ids = [client.submit(b"x" * 10_000) for _ in range(3)]
        await eventually(lambda: hub.statistics().tasks_queued == 3)
        assert 30_000 < hub.statistics().queue_memory < 40_000
        async with open_engine(hub.engine_info):
            for msg_id in msg_ids:
                await client.reply(msg_id)
            assert hub.statistics().queue_memory == 0


async def test_results_of_clients_that_are_away_are_counted(tmp_path: Path) -> None:
    async with within_limit(), open_hub(HubConfig(profile_dir=tmp_path)) as hub:
        async with open_client(hub.client_info) as client:
            client.submit(b"work")
            await eventually(lambda: hub.statistics().tasks_queued == 1)
        async with open_engine(hub.engine_info):
            await eventually(lambda: hub.statistics().completed == 1)
        await eventually(lambda: hub.statistics().results_owed == 1)
