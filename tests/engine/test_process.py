"""An engine at work: a process, at a real hub."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy
import pytest
import trio
import trio.lowlevel

from trio_hub import EngineLeft, HubConfig, RemoteError, RunningHub, connect
from trio_hub.client.packing import pack_call, pack_function
from trio_hub.engine.output import DROPPED
from trio_hub.testing import open_client, open_hub
from trio_hub.testing.client import ScriptedClient
from trio_hub.wire.messages import OWN_USERNAME

from ..crash.processes import hub_process
from .support import LIMIT, cluster, open_engine_process, until

pytestmark = pytest.mark.interop


async def status_of(client: ScriptedClient, msg_id: str) -> str:
    return str((await client.reply(msg_id)).content["status"])


async def test_calls_arrays_and_errors(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (_, client, engine):
        array = numpy.arange(100_000.0)
        assert await client.apply(pow, 2, 10) == 1024
        assert (await client.apply(numpy.negative, array) == -array).all()
        assert [value async for value in client.map(lambda x: x * x, range(50))] == [x * x for x in range(50)]
        with pytest.raises(RemoteError) as caught:
            await client.apply(divmod, 1, 0)
        assert (caught.value.ename, caught.value.engine) == ("ZeroDivisionError", 0)
        assert "ZeroDivisionError" in caught.value.traceback
        assert "trio_hub" not in caught.value.traceback, "the engine's own frames are left out"
        assert await client.apply(os.getpid) == await engine.child(), "user code runs in the nanny's child"
        assert await client.apply(lambda: __import__("threading").current_thread().name) == "MainThread"


async def test_user_code_may_run_loops_of_its_own(tmp_path: Path) -> None:
    def trio_and_asyncio() -> list[int]:
        import asyncio  # noqa: TID251 - what users do

        async def in_trio() -> int:
            await trio.lowlevel.checkpoint()
            return 1

        async def in_asyncio() -> int:
            await asyncio.sleep(0)
            return 2

        return [trio.run(in_trio), asyncio.run(in_asyncio())]

    async with cluster(tmp_path) as (_, client, _):
        assert await client.apply(trio_and_asyncio) == [1, 2]


async def test_a_stop_is_in_order_and_the_hub_hears_of_it(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (_, client, engine):
        notifications = client.notifications()
        await anext(notifications)
        engine.process.terminate()
        assert isinstance(await anext(notifications), EngineLeft)
        await notifications.aclose()
        assert await engine.wait() == 0


async def test_a_client_can_shut_it_down(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (_, client, engine):
        await client.shutdown([0])
        assert await engine.wait() == 0


def gated(started: str, gate: str) -> str:
    """Run until a file exists."""
    import os
    import time

    open(started, "w").close()
    while not os.path.exists(gate):
        time.sleep(0.01)
    return gate


def busy(started: str) -> None:
    """Run Python code until it is interrupted."""
    open(started, "w").close()
    while True:
        pass


async def test_an_interrupt_ends_what_runs_and_nothing_else(tmp_path: Path) -> None:
    started = tmp_path / "started"
    async with cluster(tmp_path) as (hub, client, _), open_client(hub.client_info) as raw:
        uuid = (await raw.query("connection_request")).content["engines"]["0"]
        async with trio.open_nursery() as nursery:

            async def interrupted() -> None:
                with pytest.raises(RemoteError, match="KeyboardInterrupt"):
                    await client.apply(busy, str(started))

            nursery.start_soon(interrupted)
            await until(started.exists, "the call")
            msg_id = raw.send("control", "signal_request", {"sig": "SIGINT"}, to=uuid)
            assert await status_of(raw, msg_id) == "ok"
        msg_id = raw.send("control", "signal_request", {"sig": int(signal.SIGINT)}, to=uuid)
        assert await status_of(raw, msg_id) == "ok"
        assert await client.apply(abs, -1) == 1, "an interrupt that meets nothing is ignored"


async def test_abort_withdraws_what_waits_and_not_what_runs(tmp_path: Path) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    async with cluster(tmp_path) as (hub, client, _), open_client(hub.client_info) as raw:
        uuid = (await raw.query("connection_request")).content["engines"]["0"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.apply, gated, str(started), str(gate))
            await until(started.exists, "the call")
            waiting = [raw.send("mux", "kernel_info_request", to=uuid) for _ in range(3)]
            asked = raw.send("control", "abort_request", {"msg_ids": waiting[:1]}, to=uuid)
            assert await status_of(raw, asked) == "ok"
            assert await status_of(raw, waiting[0]) == "aborted"
            gate.touch()
            assert [await status_of(raw, msg_id) for msg_id in waiting[1:]] == ["ok", "ok"]
        early = raw.session.new_msg_id()
        asked = raw.send("control", "abort_request", {"msg_ids": early}, to=uuid)
        assert await status_of(raw, asked) == "ok"
        raw.send("mux", "kernel_info_request", to=uuid, msg_id=early)
        assert await status_of(raw, early) == "aborted", "also if it comes after the abort"


async def test_control_is_served_while_user_code_runs(tmp_path: Path) -> None:
    started, gate = tmp_path / "started", tmp_path / "gate"
    async with cluster(tmp_path) as (hub, client, engine), open_client(hub.client_info) as raw:
        uuid = (await raw.query("connection_request")).content["engines"]["0"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.apply, gated, str(started), str(gate))
            await until(started.exists, "the call")
            usage = (await raw.reply(raw.send("control", "usage_request", to=uuid))).content
            assert usage["pid"] == await engine.child()
            assert usage["kernel_memory"] > 1_000_000
            odd = await raw.reply(raw.send("control", "signal_request", {"sig": "SIGNONE"}, to=uuid))
            assert odd.content["status"] == "error"
            gate.touch()
        cleared = raw.send("control", "clear_request", to=uuid)
        assert await status_of(raw, cleared) == "ok"


def prints() -> None:
    """Print in each way: Python, subprocesses, and libraries in C."""
    import os
    import subprocess
    import sys

    print("print")
    os.write(1, b"descriptor\n")
    subprocess.run(["sh", "-c", "echo shell; echo error >&2"], check=True)
    sys.stderr.write("written\n")


async def output_of(raw: ScriptedClient, function: Callable[..., Any], *args: Any) -> dict[str, str]:
    """Call a function, and return what it has printed, by stream, when the engine says that it is idle."""
    uuid = (await raw.query("connection_request")).content["engines"]["0"]
    msg_id = raw.send("mux", "apply_request", to=uuid, buffers=pack_call(pack_function(function), args, {}))
    assert await status_of(raw, msg_id) == "ok"

    def of_this() -> list[Any]:
        return [message for message in raw.iopub if message.message.parent.msg_id == msg_id]

    await raw.wait_until(lambda: any(message.msg_type == "status" for message in of_this()))
    assert of_this()[-1].msg_type == "status", "no output comes after the idle status"
    text = {"stdout": "", "stderr": ""}
    for message in of_this()[:-1]:
        assert message.msg_type == "stream"
        text[message.content["name"]] += message.content["text"]
    return text


async def test_output_of_all_kinds_comes_before_the_idle_status(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (hub, _, _), open_client(hub.client_info) as raw:
        for _ in range(5):
            text = await output_of(raw, prints)
            assert sorted(text["stdout"].split()) == ["descriptor", "print", "shell"]
            assert sorted(text["stderr"].split()) == ["error", "written"]


async def test_each_call_has_one_idle_status_whoever_publishes_it(tmp_path: Path) -> None:
    """The hub publishes the status of a call that has no output; the engine publishes it after output."""
    async with cluster(tmp_path) as (hub, _, _), open_client(hub.client_info) as raw:
        for function in (prints, max):
            before = len(raw.iopub)
            text = await output_of(raw, function, *([1, 2] if function is max else []))
            assert bool(text["stdout"]) is (function is prints)
            assert [message.msg_type for message in raw.iopub[before:]].count("status") == 1
            status = raw.iopub[-1]
            assert status.content == {"execution_state": "idle"}
            [engine_id] = hub.engines
            assert status.message.idents[-1] == f"engine.{engine_id}.status".encode()
            assert (status.message.header.username == OWN_USERNAME) is (function is max)


async def test_a_call_of_our_client_has_no_idle_status(tmp_path: Path) -> None:
    """Our client does not listen to output, so that nobody waits for the status."""
    async with cluster(tmp_path) as (hub, client, _), open_client(hub.client_info) as raw:
        await client.apply(prints)
        await client.apply(abs, -1)
        await output_of(raw, prints)
        assert [message.msg_type for message in raw.iopub].count("status") == 1


def prints_much(megabytes: int) -> None:
    for _ in range(megabytes):
        print("x" * (1_000_000 - 1))


async def test_a_flood_of_output_is_delivered_whole_to_a_client_that_reads(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (hub, _, _), open_client(hub.client_info) as raw:
        text = await output_of(raw, prints_much, 20)
        assert len(text["stdout"]) == 20_000_000


async def test_options(tmp_path: Path) -> None:
    profile, work = tmp_path / "profile", tmp_path / "work"
    work.mkdir()
    script = tmp_path / "start.py"
    script.write_text("from_script = 5")
    with trio.fail_after(LIMIT):
        async with open_hub(HubConfig(profile_dir=profile, cluster_id="x")) as hub:
            options = [f"--profile-dir={profile}", "--cluster-id=x", "--id=7", f"--work-dir={work}", f"-s={script}"]
            async with open_engine_process(tmp_path, *options, "-c", "from_command = from_script + 1") as engine:
                await hub.wait_engines(1)
                async with connect(connection_info=hub.client_info) as client:
                    assert list(client.engines) == [7]
                    assert await client.apply(os.getcwd) == str(work)
                    # cloudpickle's functions have globals of their own, and `__main__` is the engine's namespace
                    assert await client.apply(lambda: __import__("__main__").from_command) == 6
            assert "registered" in engine.log


async def test_a_profile_that_is_named_has_startup_files_and_logs(tmp_path: Path) -> None:
    profile = tmp_path / "profile_tides"
    (profile / "startup").mkdir(parents=True)
    (profile / "startup" / "00.py").write_text("from_startup = 5")
    (profile / "ipengine_config.py").write_text("")
    options = ["--profile=tides", f"--ipython-dir={tmp_path}", "--log-to-file"]
    with trio.fail_after(LIMIT):
        async with open_hub(HubConfig(profile_dir=profile)) as hub, open_engine_process(tmp_path, *options):
            await hub.wait_engines(1)
            async with connect(connection_info=hub.client_info) as client:
                assert await client.apply(lambda: __import__("__main__").from_startup) == 5
            [log] = (profile / "log").glob("ipengine-*.log")
            assert "the config file is not read" in log.read_text()


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--nonsense=1"], 1, "there is no option --nonsense"),
        (["--profile-dir=/nowhere", "--IPEngine.wait_for_url_file=0.1"], 255, "did not appear within 0.1 s"),
    ],
)
async def test_what_keeps_it_from_starting(tmp_path: Path, options: list[str], code: int, says: str) -> None:
    async with open_engine_process(tmp_path, *options) as engine:
        assert await engine.wait() == code
        assert says in engine.log


async def test_connection_info_in_the_environment_takes_precedence_over_a_file(tmp_path: Path) -> None:
    with trio.fail_after(LIMIT):
        async with open_hub(HubConfig()) as hub:
            options = ("--file=/nowhere", "--profile-dir=/nowhere", "--IPEngine.wait_for_url_file=0.1")
            async with open_engine_process(tmp_path, *options, info=hub.engine_info):
                await hub.wait_engines(1)


async def test_a_hub_that_does_not_answer(tmp_path: Path) -> None:
    async with open_hub(HubConfig()) as hub:
        info = hub.engine_info | {"key": "another"}
        async with open_engine_process(tmp_path, "--timeout=0.3", info=info) as engine:
            assert await engine.wait() == 255
            assert "no answer from the hub" in engine.log


async def test_encryption(tmp_path: Path) -> None:
    async with cluster(tmp_path, curve=True) as (_, client, _):
        assert await client.apply(abs, -1) == 1


async def test_a_message_of_an_unknown_kind_is_answered(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (hub, _, _), open_client(hub.client_info) as raw:
        uuid = (await raw.query("connection_request")).content["engines"]["0"]
        reply = await raw.reply(raw.send("mux", "dance_request", to=uuid))
        assert reply.content["status"] == "error"
        assert "dance_request" in reply.content["evalue"]


async def test_it_is_small_until_it_needs_ipython(tmp_path: Path) -> None:
    def heavy() -> list[str]:
        import sys

        return [name for name in ("IPython", "ipykernel", "ipyparallel", "traitlets", "numpy") if name in sys.modules]

    async with cluster(tmp_path) as (_, client, engine):
        assert await client.apply(heavy) == []
        assert sum(map(pss, [engine.nanny, await engine.child()])) < 35_000


def pss(pid: int) -> int:
    """Return the kilobytes of memory of a process, its part of shared memory included."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))


# Engines whose hub comes back


async def works(hub: RunningHub) -> None:
    await hub.wait_engines(1)
    async with connect(connection_info=hub.client_info) as client:
        assert await client.apply(abs, -1) == 1


@pytest.mark.parametrize("reuse", [True, False])
async def test_another_hub_learns_of_it(tmp_path: Path, reuse: bool) -> None:
    """The second hub does not know the engine. It has the first hub's ports and key, or a new connection file."""
    profile = tmp_path / "profile"
    config = HubConfig(profile_dir=profile, reuse=reuse, ping=0.1)
    with trio.fail_after(LIMIT):
        async with AsyncExitStack() as stack:
            async with open_hub(config) as hub:
                engine = await stack.enter_async_context(open_engine_process(tmp_path, f"--profile-dir={profile}"))
                await works(hub)
            for _ in range(2):
                async with open_hub(config) as hub:
                    await works(hub)
            assert engine.process.returncode is None


async def test_an_engine_that_was_suspended_for_too_long_registers_again(tmp_path: Path) -> None:
    async with cluster(tmp_path, ping=0.1, max_heartmonitor_misses=30) as (hub, client, engine):
        assert await client.apply(abs, -1) == 1
        processes = [engine.nanny, await engine.child()]
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        await until(lambda: not hub.statistics().engines, "the loss of the engine")
        for pid in processes:
            os.kill(pid, signal.SIGCONT)
        await hub.wait_engines(1)
        assert await client.apply(abs, -1) == 1


async def test_a_result_is_held_while_the_hub_is_away(tmp_path: Path) -> None:
    """The hub is killed while a task runs, and the next one, which remembers the task, gets its result."""
    started, gate = tmp_path / "started", tmp_path / "gate"
    profile, options = tmp_path / "profile", ["--IPEngine.wait_for_url_file=60"]
    with trio.fail_after(LIMIT):
        async with (
            hub_process(profile, "--durability=strict") as hub,
            open_engine_process(tmp_path, f"--profile-dir={profile}", *options),
            connect(connection_info=hub.client_info) as client,
            trio.open_nursery() as nursery,
        ):
            results: list[str] = []

            async def call() -> None:
                results.append(await client.apply(gated, str(started), str(gate)))
                nursery.cancel_scope.cancel()

            nursery.start_soon(call)
            await until(started.exists, "the call")
            hub.kill()
            await hub.gone()
            gate.touch()
            await hub.start()
            await trio.sleep_forever()
    assert results == [str(gate)]


def prints_while_nobody_is_there(started: str, gate: str, done: str, megabytes: int) -> int:
    import os
    import subprocess
    import time

    print("before")
    open(started, "w").close()
    while not os.path.exists(gate):
        time.sleep(0.01)
    print("print")
    subprocess.run(["sh", "-c", "echo shell; echo error >&2"], check=True)
    for _ in range(megabytes):
        print("x" * (1_000_000 - 1))
    print("last")
    open(done, "w").close()
    return megabytes


@pytest.mark.parametrize("megabytes", [0, 30])
async def test_output_is_held_while_the_hub_is_away(tmp_path: Path, megabytes: int) -> None:
    """The record of a task that has ended while there was no hub has its output, or the latest part of a flood."""
    started, gate, done = tmp_path / "started", tmp_path / "gate", tmp_path / "done"
    profile = tmp_path / "profile"
    with trio.fail_after(LIMIT):
        async with (
            hub_process(profile, "--durability=strict") as hub,
            open_engine_process(tmp_path, f"--profile-dir={profile}") as engine,
            connect(connection_info=hub.client_info) as client,
            trio.open_nursery() as nursery,
        ):
            await until(lambda: client.engines, "the engine")

            async def call() -> None:
                args = (str(started), str(gate), str(done), megabytes)
                assert await client.apply(prints_while_nobody_is_there, *args) == megabytes
                nursery.cancel_scope.cancel()

            nursery.start_soon(call)
            await until(started.exists, "the call")
            [msg_id] = await client.history()

            def printed(name: str = "stdout") -> str:
                return str(hub.records([msg_id], name)[msg_id][name])

            await until(printed, "output of the call")
            hub.kill()
            await hub.gone()
            await until(lambda: "no heartbeat" in engine.log, "a sign that the engine has noticed")
            gate.touch()
            await until(done.exists, "the end of the call, which does not wait for a hub")
            assert pss(await engine.child()) < 100_000
            await hub.start()
            with trio.CancelScope(shield=True):
                expected = {"last"} if megabytes else {"print", "shell", "last"}
                await until(lambda: expected <= {*printed().split()} and printed("stderr"), "the rest of the output")
            if not megabytes:
                assert sorted(printed().split()) == ["before", "last", "print", "shell"]
                assert printed("stderr") == "error\n"
            else:
                assert printed().startswith("before\n[trio-hub: 2")
                assert 7_000_000 < len(printed()) < 9_000_000
                # A pipe may be read late, so this may be the oldest or the latest output.
                assert printed("stderr") in (DROPPED.format(len("error\n")), "error\n")
            await trio.sleep_forever()


async def test_output_is_held_while_the_engine_looks_for_another_hub(tmp_path: Path) -> None:
    """The second hub has a new connection file, and its clients get the output."""
    started, gate, done = tmp_path / "started", tmp_path / "gate", tmp_path / "done"
    profile = tmp_path / "profile"
    config = HubConfig(profile_dir=profile, reuse=False, ping=0.1)
    with trio.fail_after(LIMIT):
        async with AsyncExitStack() as stack:
            async with open_hub(config) as hub, open_client(hub.client_info) as raw:
                engine = await stack.enter_async_context(open_engine_process(tmp_path, f"--profile-dir={profile}"))
                await hub.wait_engines(1)
                uuid = (await raw.query("connection_request")).content["engines"]["0"]
                call = pack_call(
                    pack_function(prints_while_nobody_is_there), (str(started), str(gate), str(done), 0), {}
                )
                msg_id = raw.send("mux", "apply_request", to=uuid, buffers=call)
                await raw.output("stream", name="stdout", text="before\n")
            await until(lambda: "no heartbeat" in engine.log, "a sign that the engine has noticed")
            gate.touch()
            await until(done.exists, "the end of the call")
            async with open_hub(config) as hub, open_client(hub.client_info) as raw:

                def printed(name: str) -> str:
                    mine = [one.content for one in raw.iopub if one.message.parent.msg_id == msg_id]
                    return "".join(content["text"] for content in mine if content.get("name") == name)

                lines = ["last", "print", "shell"]  # a pipe may be read late, so in any order
                await raw.wait_until(lambda: sorted(printed("stdout").split()) == lines and bool(printed("stderr")))
                assert printed("stderr") == "error\n"


async def test_it_ends_when_the_hub_stays_away(tmp_path: Path) -> None:
    profile = tmp_path / "profile"
    options = [f"--profile-dir={profile}", "--IPEngine.max_heartbeat_misses=2"]
    async with AsyncExitStack() as stack:
        with trio.fail_after(LIMIT):
            async with open_hub(HubConfig(profile_dir=profile, ping=0.1)) as hub:
                engine = await stack.enter_async_context(open_engine_process(tmp_path, *options))
                await works(hub)
            assert await engine.wait() == 255
    assert "no heartbeat" in engine.log
