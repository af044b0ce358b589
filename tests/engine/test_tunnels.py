"""An engine that reaches its hub through SSH, by an SSH server of the test."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

from trio_hub import Client, HubConfig, RunningHub, connect
from trio_hub.engine.options import EngineOptions
from trio_hub.engine.tunnels import TunnelFailed, Tunnels
from trio_hub.testing import open_hub

from ..runtime.support import free_ports
from .support import LIMIT, EngineProcess, children_of, is_there, open_engine_process, until
from .test_nanny import dies, killed

SSH = shutil.which("ssh")
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
MISSING = "needs an SSH server: apt-get install openssh-server"
with_server = pytest.mark.skipif(SSH is None or SSHD is None, reason=MISSING)
pytestmark = pytest.mark.interop


@asynccontextmanager
async def ssh_server(directory: Path) -> AsyncGenerator[dict[str, str], None]:
    """Run an SSH server to which only this user can log in.

    Give changes to the environment with which ``ssh gate`` logs in to the server.
    """
    for name in ("host", "user"):
        await trio.run_process(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name])
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)  # which sshd needs then
    (port,) = free_ports(1)
    settings = {
        "ListenAddress": "127.0.0.1",
        "Port": port,
        "HostKey": directory / "host",
        "PidFile": "none",
        "AuthorizedKeysFile": directory / "user.pub",
        "StrictModes": "no",
        "PasswordAuthentication": "no",
    }
    log_file = directory / "sshd.log"
    command = [str(SSHD), "-D", "-f", "/dev/null", "-E", str(log_file)]
    command += [f"-o{name}={value}" for name, value in settings.items()]
    process = await trio.lowlevel.open_process(command)
    try:
        await until(lambda: log_file.exists() and "listening" in log_file.read_text(), "the server's start")
        key = (directory / "host.pub").read_text()
        (directory / "known").write_text(f"[127.0.0.1]:{port} {key}")
        (directory / "config").write_text(
            f"Host gate\nHostName 127.0.0.1\nPort {port}\nUser {getpass.getuser()}\nIdentityFile {directory / 'user'}\n"
            f"IdentitiesOnly yes\nUserKnownHostsFile {directory / 'known'}\n"
        )
        ssh = directory / "bin" / "ssh"
        ssh.parent.mkdir()
        ssh.write_text(f'#!/bin/sh\nexec {SSH} -F {directory / "config"} "$@"\n')
        ssh.chmod(0o700)
        yield {"PATH": f"{ssh.parent}:{os.environ['PATH']}"}
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
            await process.wait()


class Tunnelled(NamedTuple):
    hub: RunningHub
    client: Client
    engine: EngineProcess

    async def tunnels(self) -> int:
        """Return the process id of the engine's ``ssh``."""
        (ssh,) = children_of(await self.engine.child())
        return ssh


@asynccontextmanager
async def tunnelled(directory: Path) -> AsyncGenerator[Tunnelled, None]:
    """Give a hub, a client, and an engine that reaches the hub through SSH."""
    with trio.fail_after(LIMIT):
        async with (
            ssh_server(directory) as environ,
            open_hub(HubConfig(max_heartmonitor_misses=1000)) as hub,  # it loses no engine that only is silent
            open_engine_process(directory, "--ssh=gate", info=hub.engine_info, environ=environ) as engine,
        ):
            await until(lambda: hub.engines or engine.process.poll() is not None, "the registration")
            assert hub.engines, engine.log
            async with connect(connection_info=hub.client_info) as client:
                yield Tunnelled(hub, client, engine)


@with_server
async def test_an_engine_works_through_a_tunnel_and_says_goodbye(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as it:
        assert await it.client.apply(pow, 2, 10) == 1024
        assert len(await it.client.apply(bytes, 1_000_000)) == 1_000_000
        ssh = await it.tunnels()
        await it.client.shutdown()
        await until(lambda: not it.hub.engines, "the goodbye")
        assert await it.engine.wait() == 0
        await until(lambda: not is_there(ssh), "the end of the tunnels")


@with_server
async def test_tunnels_that_end_are_opened_again(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as it:
        os.kill(await it.tunnels(), signal.SIGKILL)
        await until(lambda: "the SSH tunnels are open again" in it.engine.log, "new tunnels")
        assert await it.client.apply(pow, 2, 10) == 1024
        assert it.engine.log.count("registered ") == 1, "the hub has not lost the engine"


@with_server
async def test_the_hub_learns_of_a_death_through_the_tunnel(tmp_path: Path) -> None:
    async with tunnelled(tmp_path) as it:
        ssh = await it.tunnels()
        assert "killed by signal 9 (SIGKILL)" in await dies(it.client, killed, int(signal.SIGKILL))
        assert await it.engine.wait() == -signal.SIGKILL
        await until(lambda: not is_there(ssh), "the end of the tunnels")


async def test_a_server_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh = tmp_path / "ssh"
    tunnels = Tunnels(EngineOptions(), "me@gate:2222", ["tcp://127.0.0.1:1000", "tcp://[::1]:1001"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TunnelFailed, match="ssh cannot be started: No such file"):
        await tunnels.open()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    ssh.write_text(f'#!/bin/sh\necho "$@" >{tmp_path / "given"}\necho Permission denied. >&2\nexit 255\n')
    ssh.chmod(0o700)
    with pytest.raises(TunnelFailed, match=r"no SSH tunnels through me@gate:2222: Permission denied\."):
        await tunnels.open()
    given = (tmp_path / "given").read_text().split()
    assert given[given.index("-p") + 1] == "2222"
    assert "me@gate" in given
    assert [place.partition(":")[2].partition(":")[2] for place in given if place.startswith("127.")] == [
        "127.0.0.1:1000",
        "[::1]:1001",
    ]
    await tunnels.close()
