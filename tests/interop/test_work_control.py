"""Everything that controls work, with real code: a stock client and ours, each with stock engines and with ours."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import ipyparallel as ipp
import pytest
import trio

from trio_hub import Client, Executor, RemoteError, connect
from trio_hub.schedulers.broadcast import sub_msg_id

from .conftest import LIMIT, Cluster, wait_until
from .test_cancelling import OURS, STOCK, ask, cancel, error_of
from .test_rules import applied, command, note, wait_for

pytestmark = [
    pytest.mark.interop,
    pytest.mark.parametrize("options", [STOCK, OURS], ids=["stock engines", "engines of ours"]),
]

StartCluster = Callable[..., Cluster]


def begin(directory: str, gate: str) -> int:
    """Say that this has begun, and wait until a file is there. Return the process id. Runs on an engine."""
    import os
    import time

    open(f"{directory}/begun-{os.getpid()}", "w").close()
    while not os.path.exists(gate):
        time.sleep(0.01)
    return os.getpid()


def begun_in(directory: Path) -> list[int]:
    """Return the process ids of the engines on which `begin` has begun."""
    return [int(path.name.removeprefix("begun-")) for path in directory.glob("begun-*")]


def forget_begun(directory: Path) -> None:
    for path in directory.glob("begun-*"):
        path.unlink()


def fails_until(path: str, number: int) -> int:
    """Fail, and be done only the given time. Runs on an engine."""
    with open(path, "a") as file:
        file.write("x")
        if file.tell() < number:
            raise OSError("not yet")
    return number


def dies_once(path: str) -> int:
    """End the engine's process, except if this has been done before. Runs on an engine."""
    import os

    with open(path, "a") as file:
        file.write("x")
        if file.tell() == 1:
            file.flush()
            os._exit(1)
        return file.tell()


def explain(rc: ipp.Client, result: ipp.AsyncResult) -> dict[str, Any]:
    return ask(rc, "explain_request", {"msg_id": result.msg_ids[0]})


def words(explained: dict[str, Any]) -> dict[int, str]:
    return {engine["id"]: engine["word"] for engine in explained["engines"]}


def busy(rc: ipp.Client, gate: Path) -> list[ipp.AsyncResult]:
    """Keep each of two engines busy until there is a file."""
    results = [rc.load_balanced_view(targets=[engine]).apply_async(wait_for, str(gate)) for engine in (0, 1)]
    wait_until(lambda: all(rc.queue_status(engine)["tasks"] == 1 for engine in (0, 1)), "both engines are busy")
    return results


def test_a_stock_client_controls_its_work(
    start_cluster: StartCluster, options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 3600))
    cluster = start_cluster(2, *options)
    rc = cluster.client()
    rc.wait_for_engines(2, timeout=LIMIT)
    view, first = rc.load_balanced_view(), rc.load_balanced_view(targets=[0])

    def submit(label: dict[str, Any], function: Callable[..., Any], *args: Any) -> ipp.AsyncResult:
        with view.temp_flags(label=label):
            return view.apply_async(function, *args)

    # What waits is cancelled, ranked, and placed.
    gate, order = tmp_path / "gate", tmp_path / "order"
    results = busy(rc, gate)
    never = view.apply_async(note, str(order), "never")
    low = first.apply_async(note, str(order), "low")
    with first.temp_flags(label={"priority": 5}):
        high = first.apply_async(note, str(order), "high")
    needy = submit({"needs": {"gpu": 1}}, os.getpid)
    assert cancel(rc, *never.msg_ids) == {never.msg_ids[0]: "withdrawn"}
    assert error_of(never).startswith("TaskCancelled: cancelled by ")
    assert words(explain(rc, needy)) == {0: "lacks", 1: "lacks"}
    command(cluster, "tag", "1", "gpu=1")
    assert words(explain(rc, needy)) == {0: "lacks", 1: "full"}
    gate.touch()
    for result in results:
        result.get(LIMIT)
    assert (low.get(LIMIT), high.get(LIMIT)) == ("low", "high")
    assert order.read_text().split() == ["high", "low"]
    pids = rc[:].apply_sync(os.getpid)
    assert needy.get(LIMIT) == pids[1]

    # Limits and repetition, by label and by policy.
    forever = (begin, str(tmp_path), str(tmp_path / "never"))
    assert error_of(submit({"max_runtime": 2.0}, *forever)).startswith("TaskTimeout: the task ran for ")
    repeated = submit({"max_attempts": 3, "retry_on": ["OSError"]}, fails_until, str(tmp_path / "tried"), 3)
    assert repeated.get(LIMIT) == 3
    other = submit({"max_attempts": 3, "retry_on": ["ValueError"]}, fails_until, str(tmp_path / "once"), 3)
    assert error_of(other) == "OSError: not yet"
    assert (tmp_path / "once").read_text() == "x"
    short = {"name": "short", "function": "begin", "max_runtime": 2.0}
    ask(rc, "policy_request", {"action": "add", "policy": short})
    limited = view.apply_async(*forever)
    assert error_of(limited).startswith("TaskTimeout: ")
    assert applied(rc, limited.msg_ids[0])["policies"] == ["short"]
    ask(rc, "policy_request", {"action": "remove", "name": "short"})

    # An engine that ends too soon, and a drained one, get nothing.
    if options == OURS:
        long = submit({"max_runtime": 7200}, abs, -1)
        wait_until(lambda: rc.queue_status()["unassigned"] == 1, "the task waits")
        assert words(explain(rc, long)) == {0: "too_short", 1: "too_short"}
        assert cancel(rc, *long.msg_ids) == {long.msg_ids[0]: "withdrawn"}
    ask(rc, "drain_request", {"engines": [0]})
    waits = first.apply_async(os.getpid)
    wait_until(lambda: rc.queue_status()["unassigned"] == 1, "the task waits")
    assert words(explain(rc, waits))[0] == "draining"
    assert [row["drain"] is not None for row in command(cluster, "engines")["engines"]] == [True, False]
    assert rc[0].apply_sync(os.getpid) == pids[0], "direct requests are answered"
    ask(rc, "drain_request", {"engines": [0], "undrain": True})
    assert waits.get(LIMIT) == pids[0]

    # One share of a gathered broadcast is cancelled.
    forget_begun(tmp_path)
    gate.unlink()
    gathered = rc.broadcast_view(is_coalescing=True).apply_async(begin, str(tmp_path), str(gate))
    wait_until(lambda: len(begun_in(tmp_path)) == 2, "both shares have begun")
    share = sub_msg_id(gathered.msg_ids[0], rc._engines[0])
    assert cancel(rc, share) == {share: "interrupted"}
    gate.touch()
    assert "TaskCancelled" in error_of(gathered)

    # The death of an engine. The task is run elsewhere.
    survivor = submit({"max_attempts": 2, "retry_on": ["death"]}, dies_once, str(tmp_path / "died"))
    assert survivor.get(LIMIT) == 2


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    with trio.fail_after(LIMIT):
        while not await condition():  # noqa: ASYNC110 - the condition is about other processes
            await trio.sleep(0.01)


async def test_our_client_controls_its_work(
    start_cluster: StartCluster, options: tuple[str, ...], tmp_path: Path
) -> None:
    cluster = await trio.to_thread.run_sync(start_cluster, 2, *options)
    with trio.fail_after(LIMIT):
        async with connect(profile_dir=cluster.profile_dir) as client:
            await until_engines(client, 2)
            await control_work(client, tmp_path)
    await trio.to_thread.run_sync(control_futures, cluster, tmp_path)


async def until_engines(client: Client, number: int) -> None:
    async def there() -> bool:
        return len(client.engines) == number

    await until(there)


async def control_work(client: Client, directory: Path) -> None:
    gate, order = directory / "gate", directory / "order"
    values: dict[str, Any] = {}

    async def call(name: str, function: Callable[..., Any], *args: Any, **rules: Any) -> None:
        try:
            values[name] = await client.apply(function, *args, **rules)
        except RemoteError as error:
            values[name] = error.ename

    async def unfinished() -> list[str]:
        found = await client.db_query({"completed": None}, ["submitted"])
        return [record["msg_id"] for record in sorted(found, key=lambda record: record["submitted"])]

    async def newest(number: int) -> str:
        async def came() -> bool:
            return len(await unfinished()) == number

        await until(came)
        return (await unfinished())[-1]

    async def running(number: int) -> None:
        async def begun() -> bool:
            load = await client.queue_status()
            at_engines: list[int] = [each["tasks"] for engine, each in load.items() if engine != "unassigned"]
            return sum(at_engines) == number

        await until(begun)

    async def has_begun(number: int) -> None:
        async def begun() -> bool:
            return len(begun_in(directory)) == number

        await until(begun)

    # What waits is cancelled, ranked, and placed; what runs is cancelled.
    async with trio.open_nursery() as nursery:
        for number in (1, 2):
            nursery.start_soon(call, f"busy {number}", begin, str(directory), str(gate))
            # not only sent, but begun: an interrupt during the imports of the function would leave broken modules
            await has_begun(number)
        [first, _] = await unfinished()
        nursery.start_soon(call, "never", note, str(order), "never")
        never = await newest(3)
        nursery.start_soon(partial(call, "needy", os.getpid, needs={"gpu": 1}))
        needy = await newest(4)
        for number, (name, priority) in enumerate({"low": 0, "high": 5}.items()):
            # only the second engine will be free for them
            nursery.start_soon(partial(call, name, note, str(order), name, priority=priority, needs={"site": "a"}))
            await newest(5 + number)
        assert await client.cancel([never]) == {never: "withdrawn"}
        explained = await client.query("explain_request", {"msg_id": needy})
        assert words(explained) == {0: "lacks", 1: "lacks"}
        for tags in ({"site": "a"}, {"gpu": 1}):
            await client.query("tag_request", {"engine": 1, "tags": tags})
        assert await client.cancel([first]) == {first: "interrupted"}

        async def ended() -> bool:
            return "busy 1" in values

        await until(ended)  # else the interrupt may come when the call has just ended by itself
        gate.touch()
    assert [name for name, value in values.items() if value == "TaskCancelled"] == ["never", "busy 1"]
    assert order.read_text().split() == ["high", "low"]
    assert values["needy"] == await client.apply(os.getpid, targets=1)

    # Limits and repetition.
    forever = (begin, str(directory), str(directory / "never"))
    with pytest.raises(RemoteError, match="TaskTimeout: the task ran for "):
        await client.apply(*forever, max_runtime=2.0)
    assert await client.apply(fails_until, str(directory / "tried"), 3, max_attempts=3, retry_on=OSError) == 3
    with pytest.raises(RemoteError, match="OSError: not yet"):
        await client.apply(fails_until, str(directory / "once"), 3, max_attempts=3, retry_on=ValueError)
    assert (directory / "once").read_text() == "x"

    # A call that is given up is interrupted.
    forget_begun(directory)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(call, "given up", *forever, on_cancel="interrupt"))
        await has_begun(1)  # a stock engine does not hear an interrupt before that
        nursery.cancel_scope.cancel()
    await running(0)

    # A drain to its deadline. The task runs elsewhere, and the engine ends.
    forget_begun(directory)
    gate.unlink()
    pids = {await client.apply(os.getpid, targets=engine): engine for engine in (0, 1)}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(call, "moved", begin, str(directory), str(gate), max_attempts=1))

        async def begun() -> list[int]:
            return begun_in(directory)

        await until(begun)
        [pid] = begun_in(directory)
        assert set((await client.drain(pids[pid], deadline=0.1, then="shutdown")).values()) == {"draining"}
        await until_engines(client, 1)
        gate.touch()
    assert {values["moved"], pid} == pids.keys()


def control_futures(cluster: Cluster, directory: Path) -> None:
    """Control the work of futures with the one engine that is left."""
    forever = (str(directory), str(directory / "never"))
    with Executor(profile_dir=cluster.profile_dir, rules={"on_cancel": "interrupt"}) as executor:
        forget_begun(directory)
        runs = executor.submit(begin, *forever)
        wait_until(lambda: begun_in(directory), "the call has begun")
        waits = executor.with_rules(max_runtime=2.0).submit(begin, *forever)
        assert runs.cancel()
        with pytest.raises(RemoteError, match="TaskTimeout"):
            waits.result(LIMIT)
        assert executor.with_rules(priority=5).submit(abs, -1).result(LIMIT) == 1
