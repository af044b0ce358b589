"""Hubs whose database fails, at the start or later."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NoReturn

import pytest

from trio_hub import ConfigError, HubConfig, StoreError, serve_hub
from trio_hub.databases.backend import Found
from trio_hub.databases.sqlite.database import open_sqlite
from trio_hub.databases.sqlite.reading import SQLiteReader
from trio_hub.databases.sqlite.writing import Statements
from trio_hub.databases.writebehind import WriteBehindStore
from trio_hub.records import TaskRecord
from trio_hub.testing import open_client, open_hub

from .support import cluster, eventually, within_limit


async def refuses_to_start(config: HubConfig, message: str) -> None:
    async with within_limit():
        with pytest.raises(ConfigError, match=message):
            await serve_hub(config)
    assert config.profile_dir is not None
    assert not list(config.profile_dir.rglob("ipcontroller*.json"))


async def test_what_cannot_be_read_when_it_is_taken_over_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unfinished(self: WriteBehindStore) -> NoReturn:
        raise StoreError("the file is damaged")

    with monkeypatch.context() as patch:
        patch.setattr(WriteBehindStore, "unfinished", unfinished)
        await refuses_to_start(HubConfig(profile_dir=tmp_path), "^db: the file is damaged$")
    open_sqlite(tmp_path / "db" / "tasks.sqlite").close()  # the hub has released the file


@pytest.mark.parametrize("reuse", [False, True])
async def test_unfinished_requests_are_read_once_at_the_start(
    reuse: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, reads = WriteBehindStore.unfinished, []

    async def unfinished(self: WriteBehindStore) -> list[TaskRecord]:
        reads.append(self)
        return await real(self)

    monkeypatch.setattr(WriteBehindStore, "unfinished", unfinished)
    async with within_limit(), open_hub(HubConfig(profile_dir=tmp_path, reuse=reuse)):
        assert len(reads) == 1


async def test_a_file_of_another_hub_is_told(tmp_path: Path) -> None:
    theirs = open_sqlite(tmp_path / "db" / "tasks.sqlite")
    try:
        await refuses_to_start(HubConfig(profile_dir=tmp_path), "^db: .*tasks.sqlite: another hub keeps its records")
    finally:
        theirs.close()


async def test_a_hub_goes_on_while_its_database_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def carry_out(self: Statements, connection: object, places: object) -> NoReturn:
        raise StoreError("no space is left")

    async with cluster(profile_dir=tmp_path) as (hub, client, _):
        with monkeypatch.context() as patch:
            patch.setattr(Statements, "carry_out", carry_out)
            await client.reply(client.submit(b"work"))
            await eventually(lambda: hub.statistics().database.last_error is not None)
            numbers = hub.statistics().database
            assert numbers.last_error == "no space is left"
            assert (numbers.pending, numbers.not_persisted) == (1, 0)
            assert numbers.lag > 0
        await eventually(lambda: hub.statistics().database.pending == 0)
        assert hub.statistics().database.last_error is None


async def test_a_stop_does_not_wait_for_a_slow_query(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    began = threading.Event()

    def find(self: SQLiteReader, *arguments: object) -> list[Found]:
        began.set()
        while True:  # as slowly as possible
            self._go_on()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SQLiteReader, "find", find)
        config = HubConfig(profile_dir=tmp_path)
        async with within_limit(), open_hub(config) as hub, open_client(hub.client_info) as client:
            client.send("registration", "db_request", {"query": {}})
            await eventually(began.is_set)
            hub.shutdown()
            await hub.wait_stopped()
    assert "a query was interrupted" in caplog.text
