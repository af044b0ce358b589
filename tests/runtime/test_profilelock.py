"""Only one hub at a time runs with a profile and cluster id."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_hub import ConfigError, HubConfig, serve_hub
from trio_hub.config.connectionfiles import CLIENT_CHANNELS, connection_paths, write_connection_file
from trio_hub.runtime import profilelock
from trio_hub.runtime.profilelock import ProfileLock, lock_profile
from trio_hub.testing import open_client, open_hub

from ..cli.process import command, run
from .support import free_ports, within_limit


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / "security").iterdir() if path.suffix == ".json"}


@pytest.mark.parametrize("cluster_id", ["", "two"])
async def test_a_second_hub_is_refused_and_changes_nothing(cluster_id: str, tmp_path: Path) -> None:
    config = HubConfig(profile_dir=tmp_path, cluster_id=cluster_id, db="memory")
    async with within_limit():
        async with open_hub(config) as hub, open_client(hub.client_info) as client:
            before = contents(tmp_path)
            with pytest.raises(ConfigError, match=rf"trio-hub with pid {os.getpid()}, since 20") as refused:
                await serve_hub(config)
            assert "--force" in str(refused.value)
            assert str(tmp_path) in str(refused.value)
            assert contents(tmp_path) == before
            await client.query("connection_request")
            async with open_hub(HubConfig(profile_dir=tmp_path, cluster_id="other", db="memory")):
                pass
        async with open_hub(config):
            pass
    assert not list((tmp_path / "pid").iterdir())


async def test_who_forces_it_gets_the_files_and_the_first_hub_leaves_them_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = HubConfig(profile_dir=tmp_path, db="memory")
    async with within_limit(), trio.open_nursery() as nursery:
        first = await nursery.start(serve_hub, config)
        async with open_hub(HubConfig(profile_dir=tmp_path, db="memory", force=True)) as second:
            assert "another hub is running in this profile" in caplog.text
            first.shutdown()
            await first.wait_stopped()
            assert first.client_file is not None
            assert json.loads(first.client_file.read_text()) == second.client_info
        assert contents(tmp_path) == {}


def test_two_commands(tmp_path: Path) -> None:
    options = [f"--profile-dir={tmp_path}", "--db=memory"]
    with command("serve", *options) as first:
        first.wait_line("stdout", "^trio-hub ready: ")
        code, out, err = run("serve", *options)
        assert (code, out) == (2, "")
        assert f"trio-hub with pid {first.process.pid}, since " in err.splitlines()[-1]
        first.process.kill()
        first.wait()
        with command("serve", *options) as second:
            second.wait_line("stdout", "^trio-hub ready: ")


# The lock itself


def test_a_file_that_its_last_owner_removes_is_not_taken_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pid" / "lock"
    real = fcntl.flock
    removals = [path.unlink]

    def flock(descriptor: int, operation: int) -> None:
        if removals:
            removals.pop()()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = ProfileLock(path)
    assert lock.is_held
    monkeypatch.undo()
    assert ProfileLock(path).owner.startswith("trio-hub with pid")
    lock.release()
    lock.release()
    assert not path.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}'])
def test_an_owner_that_has_not_said_who_it_is(content: str, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text(content)
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        lock = ProfileLock(path)
    assert (lock.is_held, lock.owner) == (False, "a trio-hub that is starting")


def test_an_owner_on_another_machine_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text(json.dumps({"pid": 5, "host": "elsewhere", "since": "2026-11-03T14:05:06+00:00"}))
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert ProfileLock(path).owner.startswith("trio-hub with pid 5 on elsewhere, since 2026-11-0")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
async def test_without_locks_the_hub_starts_and_says_so(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    async with within_limit(), open_hub(HubConfig(profile_dir=tmp_path, db="memory")):
        pass
    assert "the profile cannot be locked" in caplog.text
    (told,) = [record for record in caplog.records if "the profile cannot be locked" in record.getMessage()]
    assert "its file system has no file locks" in str(vars(told))


# Controllers of other kinds


def files_of_another_controller(profile_dir: Path, ports: tuple[int, ...], location: str) -> None:
    common: dict[str, Any] = {
        "key": "k",
        "location": location,
        "pack": "json",
        "unpack": "json",
        "signature_scheme": "hmac-sha256",
        "interface": "tcp://127.0.0.1",
    }
    client: dict[str, Any] = dict(zip(CLIENT_CHANNELS, ports, strict=True))
    engine: dict[str, Any] = {"hb_ping": 1, "hb_pong": 2} | client | {"broadcast": [client["broadcast"]]}
    for path, info in zip(connection_paths(profile_dir), (client, engine), strict=True):
        write_connection_file(path, common | info)


@contextlib.contextmanager
def listening(ports: tuple[int, ...]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for port in ports:
            stack.enter_context(socket.create_server(("127.0.0.1", port)))
        yield


@pytest.mark.parametrize("location", [socket.gethostname(), "another-machine"])
async def test_a_controller_that_listens_on_its_ports_is_noticed(location: str, tmp_path: Path) -> None:
    ports = free_ports(len(CLIENT_CHANNELS))
    files_of_another_controller(tmp_path, ports, location)
    config = HubConfig(profile_dir=tmp_path, db="memory")
    async with within_limit():
        with listening(ports):
            before = contents(tmp_path)
            with pytest.raises(ConfigError, match="the controller that wrote") as refused:
                await serve_hub(config)
            assert (f"pid {os.getpid()}" in str(refused.value)) == (location == socket.gethostname())
            assert contents(tmp_path) == before
            async with open_hub(HubConfig(profile_dir=tmp_path, db="memory", force=True)):
                assert contents(tmp_path) != before


async def test_files_that_a_dead_controller_has_left_are_no_hindrance(tmp_path: Path) -> None:
    ports = free_ports(len(CLIENT_CHANNELS))
    files_of_another_controller(tmp_path, ports, socket.gethostname())
    async with within_limit():
        with listening(ports[:-1]):  # another program has most of the hub's ports by now
            async with open_hub(HubConfig(profile_dir=tmp_path, db="memory")):
                pass


async def test_a_machine_that_does_not_answer_counts_as_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = free_ports(len(CLIENT_CHANNELS))
    files_of_another_controller(tmp_path, ports, "another-machine")

    async def connect(host: str, port: int) -> trio.SocketStream:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(trio, "open_tcp_stream", connect)
    monkeypatch.setattr(profilelock, "CONNECT_LIMIT", 0.01)
    lock = await lock_profile(HubConfig(profile_dir=tmp_path))
    assert lock is not None
    assert lock.is_held
    lock.release()


async def test_damaged_files_are_no_hindrance(tmp_path: Path) -> None:
    path, _ = connection_paths(tmp_path)
    path.parent.mkdir()
    path.write_text("{")
    lock = await lock_profile(HubConfig(profile_dir=tmp_path))
    assert lock is not None
    lock.release()
