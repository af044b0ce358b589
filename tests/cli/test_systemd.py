"""Reports to a service manager, with a socket in its place; and the unit files of the documentation."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
import trio
import trio.testing

from trio_hub import HubConfig
from trio_hub.cli import main
from trio_hub.cli.systemd import STATUS_EVERY, ServiceManager, status_of
from trio_hub.testing import open_engine, open_hub

from ..runtime.support import within_limit
from .process import LIMIT, command

UNITS = sorted((Path(__file__).parent.parent.parent / "docs" / "how-to" / "systemd").rglob("*.service"))

OPEN = "connections are open (not encrypted)"


@contextmanager
def notify_socket(address: str) -> Iterator[socket.socket]:
    """Give the socket of a service manager. An address that begins with @ is an abstract one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + address[1:] if address.startswith("@") else address)
        receiver.settimeout(LIMIT)
        yield receiver


def told(receiver: socket.socket) -> list[str]:
    return receiver.recv(65536).decode().split("\n")


def all_told(receiver: socket.socket) -> list[list[str]]:
    """Return the messages that have arrived so far."""
    receiver.setblocking(False)
    found = []
    try:
        while True:
            found.append(told(receiver))
    except BlockingIOError:
        return found


class FakeHub:
    """A hub whose statistics a test can change."""

    def __init__(self, numbers: Numbers) -> None:
        self.numbers = numbers
        self.is_stopping = False
        self.service_failures: Counter[str] = Counter()

    def statistics(self) -> Numbers:
        return self.numbers


class Numbers:
    def __init__(self, engines: int, last_error: str | None = None) -> None:
        self.engines = engines
        self.tasks_running, self.tasks_queued, self.tasks_waiting, self.tasks_paused = 2, 3, 3, 1
        self.database = self
        self.last_error = last_error
        self.connections = "open"


# The messages to the service manager


@pytest.mark.parametrize("abstract", [False, True])
def test_what_is_told_is_one_datagram(tmp_path: Path, abstract: bool) -> None:
    address = f"@trio-hub-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with notify_socket(address) as receiver:
        environ = {"NOTIFY_SOCKET": address, "HOME": "/"}
        manager = ServiceManager(environ)
        assert environ == {"HOME": "/"}, "nobody inherits it"
        manager.tell("READY=1", "STATUS=two\nlines")
        assert told(receiver) == ["READY=1", "STATUS=two lines"]


def test_without_a_service_manager_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    ServiceManager({}).tell("READY=1")
    assert not caplog.records


@pytest.mark.parametrize("address", ["/nowhere/at/all", "/" + "long" * 100])
def test_one_that_cannot_be_told_is_told_about_once(address: str, caplog: pytest.LogCaptureFixture) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": address})
    manager.tell("READY=1")
    manager.tell("STOPPING=1")
    (record,) = caplog.records
    assert record.getMessage() == "cannot report to systemd"


def test_one_that_does_not_listen_holds_nobody_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    address = str(tmp_path / "notify")
    with notify_socket(address) as receiver:
        manager = ServiceManager({"NOTIFY_SOCKET": address})
        while not caplog.records:
            manager.tell("STATUS=" + "x" * 10_000)
        assert all_told(receiver)


@pytest.mark.parametrize(
    "environ", [{"NOTIFY_SOCKET": "vsock:2:1234"}, {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"}]
)
def test_what_makes_no_sense_is_named(environ: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    ServiceManager(environ)
    (record,) = caplog.records
    assert record.getMessage().startswith(("NOTIFY_SOCKET", "WATCHDOG_USEC"))


@pytest.mark.parametrize(
    ("pid", "beats"), [("", [0.0, 1.0, 2.0, 3.0]), (str(os.getpid()), [0.0, 1.0, 2.0, 3.0]), ("1", [])]
)
async def test_signs_of_life_come_at_half_of_what_it_waits(
    pid: str, beats: list[float], tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    address = str(tmp_path / "notify")
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": pid}
    with notify_socket(address) as receiver:
        manager = ServiceManager(environ)
        assert environ == {}
        heard = []
        hub: Any = FakeHub(Numbers(1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.keep_informed, hub)
            await trio.testing.wait_all_tasks_blocked()
            assert told(receiver)[0] == "READY=1"
            for second in range(4):
                heard += [float(second)] * all_told(receiver).count(["WATCHDOG=1"])
                mock_clock.jump(1)
                await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert heard == beats


async def test_the_status_is_told_when_it_has_changed(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    address = str(tmp_path / "notify")
    hub: Any = FakeHub(Numbers(1))
    with notify_socket(address) as receiver:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ServiceManager({"NOTIFY_SOCKET": address}).keep_informed, hub)
            await trio.testing.wait_all_tasks_blocked()
            assert all_told(receiver) == [
                [
                    "READY=1",
                    f"STATUS=1 engines, 2 tasks running, 7 queued, waiting or paused; {OPEN}",
                ]
            ]
            for numbers, expected in (
                (Numbers(1), []),
                (
                    Numbers(5),
                    [[f"STATUS=5 engines, 2 tasks running, 7 queued, waiting or paused; {OPEN}"]],
                ),
                (Numbers(5), []),
            ):
                hub.numbers = numbers
                mock_clock.jump(STATUS_EVERY)
                await trio.testing.wait_all_tasks_blocked()
                assert all_told(receiver) == expected
            hub.numbers, hub.is_stopping = Numbers(0), True
            mock_clock.jump(STATUS_EVERY)
            await trio.testing.wait_all_tasks_blocked()
            assert all_told(receiver) == [], "it knows that the hub stops"
            nursery.cancel_scope.cancel()


async def test_a_status_that_cannot_be_made_stops_no_signs_of_life(
    tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    address = str(tmp_path / "notify")
    hub: Any = FakeHub(Numbers(1))
    with notify_socket(address) as receiver:
        async with trio.open_nursery() as nursery:
            manager = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000000"})
            nursery.start_soon(manager.keep_informed, hub)
            await trio.testing.wait_all_tasks_blocked()
            assert all_told(receiver)[1:] == [["WATCHDOG=1"]]
            hub.numbers = None
            mock_clock.jump(STATUS_EVERY)
            await trio.testing.wait_all_tasks_blocked()
            assert hub.service_failures == {"systemd status": 1}
            assert all_told(receiver) == [["WATCHDOG=1"]]
            hub.numbers = Numbers(5)
            for seconds in (1, STATUS_EVERY):
                mock_clock.jump(seconds)
                await trio.testing.wait_all_tasks_blocked()
            status = f"STATUS=5 engines, 2 tasks running, 7 queued, waiting or paused; {OPEN}"
            assert sorted(all_told(receiver)) == [[status], ["WATCHDOG=1"]]
            nursery.cancel_scope.cancel()


async def test_the_status_of_a_hub() -> None:
    async with within_limit(), open_hub(HubConfig()) as hub, open_engine(hub.engine_info):
        await hub.wait_engines(1)
        assert status_of(hub.statistics()) == f"1 engines, 0 tasks running, 0 queued, waiting or paused; {OPEN}"
    failing: Any = Numbers(1, "the disk is full")
    assert status_of(failing).endswith("; the task database cannot be written: the disk is full")


# As a process


def test_a_hub_tells_of_its_life_in_order(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    spy = tmp_path / "spy.py"
    spy.write_text("import os\nprint('engine has', sorted(n for n in os.environ if n.startswith(('NOTIFY', 'WATCH'))))")
    with notify_socket(address) as receiver:
        env = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"}
        options = ("--engines=1", f"--engine-command={sys.executable} {spy}", "--engine-log=inherit", "--db=memory")
        with command("serve", f"--profile-dir={tmp_path / 'profile'}", *options, env=env) as hub:
            assert told(receiver) == [
                "READY=1",
                f"STATUS=0 engines, 0 tasks running, 0 queued, waiting or paused; {OPEN}",
            ]
            assert (tmp_path / "profile" / "security" / "ipcontroller-client.json").exists()
            for _ in range(3):
                assert told(receiver) == ["WATCHDOG=1"]
            hub.wait_line("stderr", r"^engine has \[\]$")
            all_told(receiver)  # Linux may keep only ten datagrams: there has to be room for the last ones
            hub.signal(signal.SIGTERM)
            assert hub.wait() == 0
        rest = all_told(receiver)
    assert ["STOPPING=1", "STATUS=stopping"] in rest
    assert {tuple(message) for message in rest} == {("WATCHDOG=1",), ("STOPPING=1", "STATUS=stopping")} or rest == [
        ["STOPPING=1", "STATUS=stopping"]
    ]


def test_a_hub_that_cannot_start_says_why(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with (
        notify_socket(address) as receiver,
        command("serve", f"--profile-dir={tmp_path}", "--ip=192.0.2.1", env={"NOTIFY_SOCKET": address}) as hub,
    ):
        assert hub.wait() == 2
        ((message,),) = all_told(receiver)
    assert message.startswith("STATUS=failed: ")
    assert "192.0.2.1" in message


# The unit files


def exec_start(unit: Path) -> list[str]:
    (line,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
    return shlex.split(line)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.parent.name)
def test_the_command_of_a_unit_file_exists(unit: Path) -> None:
    program, name, *options = exec_start(unit)
    assert program.endswith("/bin/trio-hub")
    found = main.get_command(click.Context(main), name)
    assert found is not None
    found.make_parser(click.Context(found)).parse_args(options)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.parent.name)
def test_systemd_finds_nothing_wrong_with_a_unit_file(unit: Path, tmp_path: Path) -> None:
    """The program of the unit file is not installed here, so the test replaces it by an installed one."""
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace(exec_start(unit)[0], sys.executable))
    scope = ["--user"] if unit.parent.name == "user" else []
    verified = subprocess.run(
        ["systemd-analyze", *scope, "--man=no", "verify", str(copy)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        env=dict(os.environ, XDG_RUNTIME_DIR=str(tmp_path)),
    )
    complaints = [line for line in verified.stderr.splitlines() if unit.name in line]
    assert (verified.returncode, complaints) == (0, []), verified.stderr
