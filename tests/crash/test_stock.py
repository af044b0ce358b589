"""Stock engines and a stock client, whose hub is killed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import ipyparallel as ipp
import pytest
import trio

from .figures import FIGURES
from .processes import HubProcess, hub_process

pytestmark = [pytest.mark.crash, pytest.mark.interop]

LIMIT = 60.0
"""Seconds until something that must happen counts as not happening."""
TASKS = 150
CALLS = 20


def square(number: int) -> int:
    """Return the square of a number, after a moment, so that some calls are under way at any time."""
    import hashlib

    for _ in range(2000):
        hashlib.sha256(b"x" * 1000)
    return number * number


@asynccontextmanager
async def stock_engines(profile: Path, n: int) -> AsyncGenerator[None, None]:
    command = [sys.executable, "-m", "ipyparallel.engine", f"--profile-dir={profile}"]
    engines: list[trio.Process] = []
    try:
        for _ in range(n):
            engine = await trio.lowlevel.open_process(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            engines.append(engine)
        yield
    finally:
        for engine in engines:
            engine.terminate()  # not SIGKILL, after which the engine's nanny would stay for a while
        with trio.CancelScope(shield=True):
            for engine in engines:
                await engine.wait()


async def test_a_stock_client_gets_all_its_results(tmp_path: Path, rounds: int) -> None:
    rounds = max(1, rounds // 5) if rounds > 2 else 1
    rng = Random(1)
    again = 0
    with trio.fail_after(LIMIT * (rounds + 1)):
        async with hub_process(tmp_path / "profile", "--hwm", "2") as hub, stock_engines(hub.profile, 2):
            client = await trio.to_thread.run_sync(connected_client, hub.profile)
            try:
                for _ in range(rounds):
                    again += await play(hub, client, rng)
            finally:
                await trio.to_thread.run_sync(client.close)
            assert "Traceback" not in hub.log
    FIGURES.append(f"stock: {rounds} rounds, {rounds * (TASKS + CALLS)} requests, {again} submitted again")


def connected_client(profile: Path) -> ipp.Client:
    client = ipp.Client(profile_dir=str(profile), timeout=LIMIT)
    client.wait_for_engines(2, timeout=LIMIT)
    return client


async def play(hub: HubProcess, client: ipp.Client, rng: Random) -> int:
    """Play one round, and return the number of requests that had to be submitted again."""
    view = client.load_balanced_view()
    results: dict[int, Any] = {number: view.apply_async(square, number) for number in range(TASKS)}
    calls: dict[int, Any] = {
        number: client[client.ids[number % 2]].apply_async(square, number) for number in range(TASKS, TASKS + CALLS)
    }
    await trio.to_thread.run_sync(results[rng.randrange(TASKS)].get, LIMIT)
    hub.kill()
    await hub.gone()
    await hub.start()
    return await trio.to_thread.run_sync(finish, client, view, results, calls)


def finish(client: ipp.Client, view: Any, results: dict[int, Any], calls: dict[int, Any]) -> int:
    """Send a request on each view, submit the requests again that the hub does not know, and wait for all results."""
    assert view.apply_async(square, 7).get(LIMIT) == 49
    direct = client[client.ids[0]]
    assert direct.apply_async(square, 7).get(LIMIT) == 49
    again = 0
    for number, result in results.items():
        if not result.ready() and not is_known(client, result.msg_ids[0]):
            results[number] = view.apply_async(square, number)
            again += 1
    for number, call in calls.items():
        if not call.ready() and not is_known(client, call.msg_ids[0]):
            calls[number] = client[client.ids[number % 2]].apply_async(square, number)
            again += 1
    for number, result in results.items():
        assert result.get(LIMIT) == number * number
    for number, call in calls.items():
        error = call.exception(LIMIT)
        if error is None:
            assert call.get(LIMIT) == number * number
        else:  # the answer was in the sockets of the killed hub
            assert "its result was lost" in str(error)
    until = time.monotonic() + LIMIT
    while not is_idle(client):  # tasks whose results the killed hub had sent, and not written, are being run again
        assert time.monotonic() < until, client.queue_status()
    return again


def is_idle(client: ipp.Client) -> bool:
    status = client.queue_status()
    return status.pop("unassigned") == 0 and all(engine["queue"] == engine["tasks"] == 0 for engine in status.values())


def is_known(client: ipp.Client, msg_id: str) -> bool:
    try:
        client.result_status([msg_id], status_only=True)
    except (ipp.RemoteError, KeyError):
        return False
    return True
