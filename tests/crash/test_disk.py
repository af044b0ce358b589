"""A disk that is full, or cannot be written: the hub says so, goes on, and catches up when it can."""

from __future__ import annotations

import logging
import re
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from trio_hub import HubConfig, RunningHub
from trio_hub.testing import ScriptedClient, answer, open_client, open_engine, open_hub

from .processes import hub_process
from .work import Workers, heard, on_disk

pytestmark = pytest.mark.crash

LIMIT = 60.0
SIZE = 32 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return the directory of a small file system. It has room for several times the tests' records."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.testing.wait_all_tasks_blocked(0.01)


def fill(place: Path) -> Path:
    """Fill the file system completely."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(b"x" * size) == size:
                    pass
            except OSError:
                continue
    return filler


def submit(client: ScriptedClient, n: int, size: int = 5000) -> list[str]:
    return [client.submit(b"%d" % number + b"x" * size) for number in range(n)]


async def check(hub: RunningHub, client: ScriptedClient, tasks: list[str]) -> None:
    """Check that all these tasks are on disk, with their results."""
    query = {"query": {"msg_id": {"$in": tasks}, "completed": {"$ne": None}}, "keys": ["msg_id"]}
    await until(lambda: hub.statistics().database.pending == 0)
    assert len((await client.query("db_request", query)).content["records"]) == len(tasks)
    assert all(len(client.replies[task]) == 1 for task in tasks)
    assert hub.statistics().database.not_persisted == 0


@pytest.mark.parametrize("durability", ["relaxed", "strict"])
@pytest.mark.parametrize(("size", "number"), [(5000, 200), (100_000, 60)])
async def test_a_full_disk(
    size: int, number: int, durability: str, small_disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A relaxed hub still delivers results. With a strict hub, clients wait until there is room."""
    caplog.set_level(logging.INFO)
    config = HubConfig(
        profile_dir=tmp_path / "profile", db=f"sqlite:///{small_disk}/tasks.sqlite", durability=durability
    )
    with trio.fail_after(LIMIT):
        async with (
            open_hub(config) as hub,
            open_client(hub.client_info) as client,
            open_engine(hub.engine_info, behaviour=answer),
        ):
            await hub.wait_engines(1)
            tasks = submit(client, 20, size)
            for task in tasks:
                await client.reply(task)
            filler = fill(small_disk)
            tasks += submit(client, number, size)
            if durability == "relaxed":
                for task in tasks:
                    assert (await client.reply(task)).content == {"status": "ok"}
            await until(lambda: hub.statistics().database.last_error is not None)
            assert "the task database cannot be written" in caplog.text
            assert "free some space" in caplog.text
            statistics = hub.statistics().database
            assert statistics.pending > 0
            assert re.search("full|No space left", statistics.last_error or "")
            # records are read, those that are only in memory included
            last = {"query": {"msg_id": tasks[-1]}, "keys": ["submitted"]}
            assert len((await client.query("db_request", last)).content["records"]) == 1
            if durability == "strict":
                assert any(task not in client.replies for task in tasks)
            filler.unlink()
            for task in tasks:
                assert (await client.reply(task)).content == {"status": "ok"}
            await check(hub, client, tasks)
            assert "the task database can be written again" in caplog.text
            assert hub.statistics().database.last_error is None


async def test_a_full_disk_that_has_the_whole_profile(small_disk: Path, tmp_path: Path) -> None:
    """All files of the hub are on this disk. The hub still delivers results, and writes records when there is room."""
    with trio.fail_after(LIMIT):
        async with (
            hub_process(small_disk / "profile", log_file=tmp_path / "hub.log") as hub,
            open_client(hub.client_info) as client,
            open_engine(hub.engine_info, behaviour=Workers()) as engine,
        ):
            await on_disk(hub, [engine])
            filler = fill(small_disk)
            tasks = [client.submit(b"x") for _ in range(1000)]
            for task in tasks:
                assert (await client.reply(task)).content == {"status": "ok"}
            await until(lambda: "the task database cannot be written" in hub.log)
            filler.unlink()
            await until(lambda: "the task database can be written again" in hub.log)
            hub.kill()
            await hub.gone()
            await hub.start()
            await heard(client, "task")
            await client.reply(client.submit(b"one more"))
            assert hub.records(tasks).keys() == set(tasks)
            assert all(len(client.replies[task]) == 1 for task in tasks)
            assert client.unreadable == []


async def test_a_full_disk_at_the_end(small_disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Records that cannot be written when the hub stops are lost, and the log has their number."""
    config = HubConfig(profile_dir=tmp_path / "profile", db=f"sqlite:///{small_disk}/tasks.sqlite", stop_grace=0.5)
    with trio.fail_after(LIMIT):
        async with (
            open_hub(config) as hub,
            open_client(hub.client_info) as client,
            open_engine(hub.engine_info, behaviour=answer),
        ):
            await hub.wait_engines(1)
            fill(small_disk)
            tasks = submit(client, 300)
            for task in tasks:
                await client.reply(task)
            await until(lambda: hub.statistics().database.last_error is not None)
            hub.shutdown()
            await hub.wait_stopped()
    lost = hub.statistics().database.not_persisted
    assert 0 < lost <= len(tasks)
    assert f"records were not written to the task database, and are lost records={lost} " in caplog.text


@pytest.mark.parametrize("durability", ["relaxed", "strict"])
async def test_files_that_may_not_grow(durability: str, tmp_path: Path) -> None:
    """The process may not make files longer, and is killed in the end: only records that were not written are lost."""
    with trio.fail_after(LIMIT):
        async with (
            hub_process(tmp_path / "profile", "--durability", durability) as hub,
            open_client(hub.client_info) as client,
            open_engine(hub.engine_info, behaviour=Workers()),
        ):
            first = submit(client, 50)
            for task in first:
                await client.reply(task)
            while any(record["completed"] is None for record in hub.records(first).values()):
                await trio.testing.wait_all_tasks_blocked(0.01)
            _, hard = resource.prlimit(hub.pid, resource.RLIMIT_FSIZE)
            allowed = max(file.stat().st_size for file in hub.database.parent.iterdir())
            resource.prlimit(hub.pid, resource.RLIMIT_FSIZE, (allowed, hard))
            second = submit(client, 100)
            if durability == "relaxed":
                for task in second:
                    await client.reply(task)
            await until(lambda: "the task database cannot be written" in hub.log)
            await heard(client, "task")
            assert all(task in client.replies for task in second) == (durability == "relaxed")
            resource.prlimit(hub.pid, resource.RLIMIT_FSIZE, (hard, hard))
            for task in second:
                assert (await client.reply(task)).content == {"status": "ok"}
                assert len(client.replies[task]) == 1
            await until(lambda: "the task database can be written again" in hub.log)
            hub.kill()
            await hub.gone()
            records = hub.records(first + second)
            assert len(records) == len(first + second)
            if durability == "strict":
                assert all(record["completed"] for record in records.values())
