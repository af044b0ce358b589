"""The client with stock engines, at our hub and at a stock ipcontroller."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import joblib
import numpy
import pytest
import trio
import trio.testing

from trio_hub import Client, EngineJoined, Executor, RemoteError, connect
from trio_hub.joblib import ExecutorBackend

from ..interop.conftest import LIMIT, Cluster, start_cluster, wait_until

__all__ = ["start_cluster"]  # a fixture

pytestmark = pytest.mark.interop


async def try_everything(client: Client) -> None:
    """Use every feature of the client that works with any hub."""
    offset = 1

    def shifted(number: int) -> int:
        return number + offset

    async with aclosing(client.notifications()) as events:
        assert isinstance(await anext(events), EngineJoined)
    assert await client.apply(shifted, 1) == 2
    assert await client.apply(shifted, 2, targets=0) == 3
    array = numpy.arange(100_000.0)
    assert (await client.apply(numpy.negative, array) == -array).all()
    assert await client.apply(sorted, [b"x" * 5000, b"a" * 5000]) == [b"a" * 5000, b"x" * 5000]
    assert [value async for value in client.map(shifted, range(30))] == list(range(1, 31))
    with pytest.raises(RemoteError) as caught:
        await client.apply(divmod, 1, 0)
    assert caught.value.ename == "ZeroDivisionError"
    assert caught.value.engine in client.engines
    assert "ZeroDivisionError" in caught.value.traceback
    assert (await client.queue_status())["unassigned"] == 0


async def test_at_our_hub(start_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    cluster = await trio.to_thread.run_sync(start_cluster, 1)
    gate = tmp_path / "gate"

    def wait_for(path: str) -> str:
        import os
        import time

        while not os.path.exists(path):
            time.sleep(0.01)
        return path

    with trio.fail_after(LIMIT):
        async with connect(profile_dir=cluster.profile_dir) as client:
            await joined(client, 1)
            await try_everything(client)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: client.apply(wait_for, str(gate), targets=0))
                await trio.testing.wait_all_tasks_blocked()
                with trio.move_on_after(0.1):  # the call waits in the engine's queue
                    await client.apply(wait_for, str(gate), targets=0)
                await client.abort(["nothing"])  # when this is answered, the engine has received the abort
                gate.touch()
            await client.apply(int, targets=0)
            records = await client.db_query({"queue": "mux"}, keys=["result_content"])
            assert [record["result_content"]["status"] for record in records].count("aborted") == 1


def test_an_executor(start_cluster: Callable[..., Cluster]) -> None:
    cluster = start_cluster(2)
    offset = 1

    def shifted(number: int) -> int:
        return number + offset

    with Executor(profile_dir=cluster.profile_dir) as executor:
        assert executor.submit(shifted, 1).result(LIMIT) == 2
        assert list(executor.map(shifted, range(30), timeout=LIMIT)) == list(range(1, 31))
        assert list(executor.map(shifted, range(30), chunksize=7, timeout=LIMIT)) == list(range(1, 31))
        with pytest.raises(ZeroDivisionError) as caught:
            executor.submit(divmod, 1, 0).result(LIMIT)
        assert "ZeroDivisionError" in str(caught.value.__cause__)
        array = numpy.arange(100_000.0)
        assert (executor.submit(numpy.negative, array).result(LIMIT) == -array).all()
        with joblib.parallel_config(backend=ExecutorBackend(executor)):
            assert joblib.Parallel()(joblib.delayed(shifted)(number) for number in range(30)) == list(range(1, 31))


async def joined(client: Client, number: int) -> None:
    async with aclosing(client.notifications()) as events:
        async for _ in events:
            if len(client.engines) >= number:
                return


async def test_at_a_stock_controller(tmp_path: Path) -> None:
    directory = tmp_path / "profile"
    options = [f"--profile-dir={directory}", "--log-level=40"]
    file = directory / "security" / "ipcontroller-client.json"
    running: list[subprocess.Popen[bytes]] = []

    def start(module: str, *more: str) -> None:
        command = [sys.executable, "-m", module, *options, *more]
        with (tmp_path / "log").open("ab") as log:
            running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    try:
        start("ipyparallel.controller", "--ip=127.0.0.1", "--location=127.0.0.1", "--init")
        with trio.fail_after(LIMIT):
            await trio.to_thread.run_sync(wait_until, file.exists, "the connection file")
            start("ipyparallel.engine")
            async with connect(connection_file=file, answer_within=LIMIT) as client:
                await joined(client, 1)
                await try_everything(client)
                await client.abort(["anything"])  # the controller says that it does not know how
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait(LIMIT)
