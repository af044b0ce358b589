"""The supervision of a Dask scheduler, with processes that behave as schedulers may; Dask itself is not needed."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from trio_hub import HubConfig
from trio_hub.runtime import dask
from trio_hub.runtime.dask import DaskError, DaskSupervisor, scheduler_options
from trio_hub.testing import open_client, open_hub

from .support import Footprint, eventually, within_limit

PRELUDE = """
import os, signal, sys, time
(file,) = (arg.partition("=")[2] for arg in sys.argv if arg.startswith("--scheduler-file="))
with open({pids!r}, "a+") as pids:
    print(os.getpid(), file=pids, flush=True)
    pids.seek(0)
    number = len(pids.readlines())

def ready(address="tcp://127.0.0.1:%d" % number):
    with open(file, "w") as out:
        out.write('{{"address": "%s"}}' % address)

def rest():
    # not signal.pause(), which misses a signal that comes just before it
    while True:
        time.sleep(0.05)

"""
WELL_BEHAVED = """
print("at your service", number, flush=True)
ready()
rest()
"""
NEVER_READY = """
print("just a moment", flush=True)
rest()
"""
STUBBORN = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
ready()
rest()
"""
FAILS = """
for line in range(200):
    print("line", line)
sys.stdout.write("the end is n" + "e" * 3000 + "ar")
sys.exit(3)
"""


def is_there(pid: int) -> bool:
    """Return whether there is a process with this id, including a zombie."""
    return Path(f"/proc/{pid}").exists()


class Fake:
    """Puts other programs in the place of Dask's, and knows their processes and files."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._pids = directory / "pids"
        self._temporary = directory / "tmp"
        self._temporary.mkdir()
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(tempfile, "tempdir", str(self._temporary))
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)

    def behaves(self, program: str) -> None:
        self._monkeypatch.setattr(dask, "PROGRAM", PRELUDE.format(pids=str(self._pids)) + program)

    @property
    def pids(self) -> list[int]:
        """The ids of all processes that were started so far."""
        return [int(line) for line in self._pids.read_text().splitlines()] if self._pids.exists() else []

    def check_gone(self) -> None:
        """Check that no process and no file is left."""
        assert list(filter(is_there, self.pids)) == []
        self.check_no_files()

    def check_no_files(self) -> None:
        assert list(self._temporary.iterdir()) == []


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Fake:
    caplog.set_level(logging.INFO, "trio_hub")
    fake = Fake(tmp_path, monkeypatch)
    fake.behaves(WELL_BEHAVED)
    return fake


@asynccontextmanager
async def supervisor(
    *, hurried: trio.Event | None = None, start_timeout: float = 60, **settings: Any
) -> AsyncGenerator[DaskSupervisor, None]:
    """Give a supervisor. Its nursery is cancelled at the end of the block, as when a hub stops."""
    async with within_limit(), trio.open_nursery() as nursery:
        config = HubConfig(**settings)
        if hurried is None:
            hurried = trio.Event()
        yield DaskSupervisor(nursery, config, hurried, start_timeout=start_timeout)
        nursery.cancel_scope.cancel()


async def failure_of(supervised: DaskSupervisor, failures: list[str]) -> None:
    with pytest.raises(DaskError) as raised:
        await supervised.start({})
    failures.append(str(raised.value))


def found(number: int) -> dict[str, Any]:
    return {"address": f"tcp://127.0.0.1:{number}", "ip": "127.0.0.1", "port": number}


# The life of the scheduler


async def test_there_is_one_and_all_who_ask_are_told_where(fake: Fake) -> None:
    async with supervisor() as supervised:
        answers: list[dict[str, Any]] = []

        async def ask() -> None:
            answers.append(await supervised.start({}))

        async with trio.open_nursery() as clients:
            for _ in range(5):
                clients.start_soon(ask)
        await ask()
        assert answers == [found(1)] * 6
        assert len(fake.pids) == 1
        fake.check_no_files()
        await supervised.stop()
        fake.check_gone()
        await supervised.stop()
        assert await supervised.start({"port": 0}) == found(2)
    fake.check_gone()


async def test_one_that_dies_is_noticed_and_replaced(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    async with supervisor() as supervised:
        assert await supervised.start({}) == found(1)
        os.kill(fake.pids[0], signal.SIGKILL)
        await eventually(lambda: "the Dask scheduler died" in caplog.text)
        (warning,) = (vars(record) for record in caplog.records if record.levelno == logging.WARNING)
        assert (warning["address"], warning["status"]) == (found(1)["address"], "signal 9")
        assert "at your service 1" in warning["said"]
        assert await supervised.start({}) == found(2)
        await supervised.stop()
        fake.check_gone()


async def test_one_that_ends_by_itself_is_no_reason_to_worry(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    fake.behaves("signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))\n" + WELL_BEHAVED)
    async with supervisor() as supervised:
        assert await supervised.start({}) == found(1)
        os.kill(fake.pids[0], signal.SIGUSR1)
        await eventually(lambda: "has ended by itself" in caplog.text)
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert await supervised.start({}) == found(2)


async def test_one_that_ends_before_it_is_ready(fake: Fake) -> None:
    fake.behaves(FAILS)
    async with supervisor() as supervised:
        failures: list[str] = []
        async with trio.open_nursery() as clients:
            for _ in range(3):
                clients.start_soon(failure_of, supervised, failures)
        assert len(fake.pids) == 1
        assert len(set(failures)) == 1
        first, *said = failures[0].splitlines()
        assert first == "the Dask scheduler ended before it was ready (exit code 3); it said last:"
        assert said[0] == "line 151"
        assert said[-2] == "line 199"
        assert said[-1].startswith("the end is neee")
        assert len(said) == 50
        assert max(map(len, said)) == 1000
        fake.check_gone()
        fake.behaves(WELL_BEHAVED)
        assert await supervised.start({}) == found(2)


async def test_one_that_never_gets_ready(fake: Fake) -> None:
    fake.behaves(NEVER_READY)
    async with supervisor(start_timeout=0.2) as supervised:
        failures: list[str] = []
        await failure_of(supervised, failures)
        assert failures[0].startswith("the Dask scheduler was not ready within 0.2 seconds")
        fake.check_gone()


@pytest.mark.parametrize("address", ["inproc://x", "tcp://:5", "tcp://host:0", "tcp://host:99999", "nonsense", ""])
async def test_one_with_an_address_that_is_of_no_use(fake: Fake, address: str) -> None:
    fake.behaves(f"ready({address!r})\nrest()")
    async with supervisor() as supervised:
        failures: list[str] = []
        await failure_of(supervised, failures)
        assert failures == [f"the Dask scheduler has no address that others can use: {address!r}"]
        fake.check_gone()


async def test_an_address_of_ipv6(fake: Fake) -> None:
    fake.behaves("ready('tcp://[::1]:8786')\nrest()")
    async with supervisor() as supervised:
        assert await supervised.start({}) == {"address": "tcp://[::1]:8786", "ip": "::1", "port": 8786}


async def test_a_file_that_is_written_in_pieces(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    fake.behaves("""
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
with open(file, "w") as out:
    out.write('{"address": "tcp://127')
    out.flush()
    print("half", flush=True)
    signal.sigwait([signal.SIGUSR1])
    out.write('.0.0.1:1"}')
rest()
""")
    async with supervisor() as supervised, trio.open_nursery() as clients:
        answers: list[dict[str, Any]] = []

        async def ask() -> None:
            answers.append(await supervised.start({}))

        clients.start_soon(ask)
        await eventually(lambda: "said=half" in caplog.text)
        os.kill(fake.pids[0], signal.SIGUSR1)
        await eventually(lambda: answers == [found(1)])


async def test_it_is_stopped_while_it_starts_and_started_while_it_stops(
    fake: Fake, caplog: pytest.LogCaptureFixture
) -> None:
    fake.behaves(NEVER_READY)
    async with supervisor() as supervised, trio.open_nursery() as clients:
        failures: list[str] = []
        clients.start_soon(failure_of, supervised, failures)
        await eventually(lambda: "just a moment" in caplog.text)
        fake.behaves(WELL_BEHAVED)
        clients.start_soon(supervised.stop)
        clients.start_soon(supervised.stop)
        await trio.testing.wait_all_tasks_blocked(0)
        assert await supervised.start({}) == found(2)
        assert failures == ["the Dask scheduler was stopped before it was ready; it said last:\njust a moment"]
        assert not is_there(fake.pids[0])


@pytest.mark.parametrize("hurry", [False, True])
async def test_one_that_does_not_heed_sigterm_is_killed(fake: Fake, hurry: bool) -> None:
    fake.behaves(STUBBORN)
    hurried = trio.Event()
    async with supervisor(stop_grace=3600 if hurry else 0.05, hurried=hurried) as supervised:
        await supervised.start({})
        async with trio.open_nursery() as clients:
            clients.start_soon(supervised.stop)
            await trio.testing.wait_all_tasks_blocked()
            if hurry:
                hurried.set()
        fake.check_gone()


@pytest.mark.parametrize("program", [WELL_BEHAVED, NEVER_READY], ids=["ready", "not ready"])
async def test_what_says_much_while_it_ends_is_not_held_up(fake: Fake, program: str) -> None:
    """The scheduler writes more output than a pipe holds."""
    fake.behaves(
        "def say_much(*_):\n    print('x' * 999 * 999, flush=True)\n    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, say_much)\n" + program
    )
    async with supervisor(stop_grace=3600) as supervised, trio.open_nursery() as clients:
        clients.start_soon(lambda: supervised.start({}))
        await eventually(lambda: len(fake.pids) == 1)
        clients.cancel_scope.cancel()
    fake.check_gone()


async def test_without_dask_it_is_said_how_to_install_it(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    async with supervisor() as supervised:
        failures: list[str] = []
        await failure_of(supervised, failures)
        assert "Dask is not installed where the hub runs" in failures[0]
        assert "pip install distributed" in failures[0]
        assert fake.pids == []


@pytest.mark.parametrize("what", ["no program", "no directory"])
async def test_what_cannot_be_run_is_said(fake: Fake, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if what == "no program":
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
    else:
        monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    async with supervisor() as supervised:
        failures: list[str] = []
        await failure_of(supervised, failures)
        assert failures[0].startswith("the Dask scheduler cannot be run: ")
        assert "/nowhere" in failures[0]
    fake.check_gone()


# The options of the scheduler


@pytest.mark.parametrize(
    ("scheduler_args", "settings", "options"),
    [
        ({}, {}, {"--host=127.0.0.1", "--port=0"}),
        ({"port": None, "host": None}, {}, {"--host=127.0.0.1", "--port=0"}),
        ({}, {"ip": "*"}, {"--host=", "--port=0"}),
        ({}, {"ip": "0.0.0.0"}, {"--host=", "--port=0"}),
        ({}, {"ip": "127.0.0.1", "engine_ip": "127.0.0.2"}, {"--host=", "--port=0"}),
        ({"ip": "10.0.0.1", "port": 8786}, {}, {"--host=10.0.0.1", "--port=8786"}),
        ({"host": "--tls-key=x"}, {}, {"--host=--tls-key=x", "--port=0"}),
        ({"interface": "ib0", "port": 1}, {}, {"--interface=ib0", "--port=1"}),
        ({"idle_timeout": 3.5}, {}, {"--host=127.0.0.1", "--port=0", "--idle-timeout=3.5"}),
        ({"ip": "::1", "protocol": "tls"}, {}, {"--host=::1", "--protocol=tls", "--port=0"}),
    ],
)
def test_options(scheduler_args: dict[str, Any], settings: dict[str, Any], options: set[str]) -> None:
    given = scheduler_options(scheduler_args, HubConfig(**settings))
    assert set(given) == options | {"--no-dashboard", "--dashboard-address=127.0.0.1:0"}
    assert len(given) == len(set(given))


@pytest.mark.parametrize(
    ("scheduler_args", "settings", "options"),
    [
        ({"dashboard": True}, {}, {"--dashboard", "--dashboard-address=127.0.0.1:8787"}),
        ({"dashboard": True}, {"ip": "*"}, {"--dashboard", "--dashboard-address=:8787"}),
        ({"dashboard_address": ":0"}, {}, {"--dashboard", "--dashboard-address=:0"}),
        ({"dashboard_address": 80, "http_prefix": "x"}, {}, {"--dashboard-address=80", "--dashboard-prefix=x"}),
        ({"dashboard": False, "dashboard_address": ":1"}, {}, {"--no-dashboard", "--dashboard-address=127.0.0.1:0"}),
    ],
)
def test_a_dashboard_is_shown_if_asked_for(
    scheduler_args: dict[str, Any], settings: dict[str, Any], options: set[str]
) -> None:
    assert options <= set(scheduler_options(scheduler_args, HubConfig(**settings)))


@pytest.mark.parametrize(
    ("scheduler_args", "error", "told"),
    [
        ({"colour": "red"}, TypeError, "'colour' is unknown; known are host, ip, port"),
        ({"preload": "evil.py"}, TypeError, "'preload' is unknown"),
        ({"port": "8786"}, TypeError, "port must be of type int, not '8786'"),
        ({"port": True}, TypeError, "port must be of type int"),
        ({"port": 65536}, ValueError, "port must be from 0 to 65535"),
        ({"port": -1}, ValueError, "port must be from 0 to 65535"),
        ({"host": 5}, TypeError, "host must be of type str"),
        ({"dashboard": "yes"}, TypeError, "dashboard must be of type bool"),
        ({"dashboard_address": []}, TypeError, "dashboard_address must be of type str or int"),
        ({"host": "a", "ip": "b"}, ValueError, "give one of host, ip and interface"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(
    scheduler_args: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match="scheduler_args: ") as raised:
        scheduler_options(scheduler_args, HubConfig())
    assert told in str(raised.value)


# In a hub


async def test_clients_become_dask_and_stop(fake: Fake) -> None:
    async with within_limit(), open_hub() as hub, open_client(hub.client_info) as client:
        assert (await client.query("stop_distributed_request")).content == {"status": "ok"}
        for number in (1, 2):
            reply = await client.query("become_dask_request", {"scheduler_args": {"port": 0}})
            assert reply.msg_type == "become_dask_reply"
            assert reply.content == {"status": "ok"} | found(number)
            assert (await client.query("become_dask_request", {})).content == reply.content
            assert (await client.query("stop_distributed_request")).content == {"status": "ok"}
            fake.check_gone()
        refused = (await client.query("become_dask_request", {"scheduler_args": {"colour": "red"}})).content
        assert refused["status"] == "error"
        assert "'colour' is unknown" in refused["evalue"]
        fake.behaves(FAILS)
        failed = (await client.query("become_dask_request", {})).content
        assert (failed["status"], failed["ename"]) == ("error", "DaskError")
        assert "line 199" in failed["evalue"]
        assert len(fake.pids) == 3


@pytest.mark.parametrize("cancelled", [False, True], ids=["orderly", "cancelled"])
@pytest.mark.parametrize("program", [WELL_BEHAVED, NEVER_READY, STUBBORN], ids=["ready", "not ready", "stubborn"])
async def test_it_ends_with_the_hub(fake: Fake, program: str, cancelled: bool) -> None:
    async with open_hub():
        pass
    before = Footprint.now()
    fake.behaves(program)
    async with within_limit(), trio.open_nursery() as nursery:
        replies: list[dict[str, Any]] = []
        async with trio.open_nursery() as hubs:
            hub = await hubs.start(serve, HubConfig(stop_grace=0.1 if program == STUBBORN else 20))
            client = await nursery.start(a_client, hub.client_info)

            async def ask() -> None:
                replies.append((await client.query("become_dask_request", {})).content)

            nursery.start_soon(ask)
            await eventually((lambda: bool(fake.pids)) if program == NEVER_READY else (lambda: bool(replies)))
            if cancelled:
                hubs.cancel_scope.cancel()
            else:
                hub.shutdown()
        fake.check_gone()
        if program == NEVER_READY and not cancelled:
            await eventually(lambda: bool(replies))
            assert replies[0]["ename"] == "DaskError"
            assert "was not ready when the hub stopped" in replies[0]["evalue"]
        nursery.cancel_scope.cancel()
    await before.restored()


async def serve(config: HubConfig, *, task_status: trio.TaskStatus[Any]) -> None:
    async with open_hub(config) as hub:
        task_status.started(hub)
        await hub.wait_stopped()


async def a_client(info: dict[str, Any], *, task_status: trio.TaskStatus[Any]) -> None:
    async with open_client(info) as client:
        task_status.started(client)
        await trio.sleep_forever()


async def test_a_hub_that_stops_starts_none(fake: Fake, tmp_path: Path) -> None:
    """While an engine of its own takes its time to end, clients are still answered."""
    deaf = tmp_path / "deaf"
    stubborn = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[1]).touch()
time.sleep(3600)
"""
    config = HubConfig(engines=1, engine_command=(sys.executable, "-c", stubborn, str(deaf)), stop_grace=3600)
    async with within_limit(), open_hub(config) as hub, open_client(hub.client_info) as client:
        await eventually(deaf.exists)  # until this file exists, the process would end by the signal
        hub.shutdown()
        reply = (await client.query("become_dask_request", {})).content
        assert (reply["status"], reply["ename"]) == ("error", "HubClosedError")
        hub.shutdown(at_once=True)
        await hub.wait_stopped()
    assert fake.pids == []
