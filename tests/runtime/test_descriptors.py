"""A hub that runs out of file descriptors takes no further connections, says so once, and goes on."""

from __future__ import annotations

import os
import resource
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from trio_hub import RunningHub
from trio_hub.runtime import descriptors
from trio_hub.runtime.descriptors import DescriptorGuard
from trio_hub.testing import open_client, open_engine, open_hub

from .support import eventually, within_limit


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "LOOK_PERIOD", 0.01)


@contextmanager
def few_descriptors(more: int) -> Iterator[None]:
    """Limit this process to so many descriptors more than it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1 + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def ports_of(hub: RunningHub) -> list[int]:
    return [hub.client_info[name] for name in ("registration", "mux", "task", "iopub", "notification")]


@pytest.mark.parametrize("can_unshare", [True, False])
async def test_nothing_spins_and_it_is_told_once(
    can_unshare: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not can_unshare:

        def refuse() -> None:
            raise PermissionError

        monkeypatch.setattr(descriptors, "_unshare_descriptors", refuse)
    told = "file descriptors run out"
    async with within_limit(), open_hub() as hub, open_client(hub.client_info) as client:
        await client.query("connection_request")
        poller = select.poll()  # needs no descriptor of its own
        guard = DescriptorGuard(ports_of(hub))
        for listener in guard._listeners():
            poller.register(listener.fileno(), select.POLLIN)
        with ExitStack() as peers, few_descriptors(60):
            # The hub's end of each connection takes a descriptor, too.
            with suppress(OSError):  # too many open files
                for number in range(1000):
                    peer = peers.enter_context(socket.socket())
                    peer.setblocking(False)
                    peer.connect_ex(("127.0.0.1", ports_of(hub)[number % 5]))
            await eventually(lambda: told in caplog.text)
            if can_unshare:
                # Nothing waits to be accepted, which would keep a thread of ZeroMQ busy.
                await eventually(lambda: not poller.poll(0))
            await client.query("queue_request")
            peers.close()
            await eventually(lambda: "there are file descriptors for new connections again" in caplog.text)
            async with open_client(hub.client_info) as other:
                await other.query("connection_request")
        assert caplog.text.count(told) == 1


async def test_with_room_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    async with within_limit(), open_hub() as hub:
        guard = DescriptorGuard(ports_of(hub))
        guard._take_spare()
        try:
            assert not guard._may_be_short()
            guard.look()
            assert not guard.is_paused
        finally:
            guard._let_spare_go()
        async with open_engine(hub.engine_info):
            await hub.wait_engines(1)
    assert "descriptors" not in caplog.text


async def test_peers_that_wait_come_in_when_there_is_room() -> None:
    async with within_limit(), open_hub() as hub:
        guard = DescriptorGuard(ports_of(hub))
        guard._pause(0)
        with socket.socket() as peer:
            peer.setblocking(False)
            peer.connect_ex(("127.0.0.1", hub.client_info["registration"]))
            assert not select.select([], [peer], [], 0.0)[1]
            guard._resume(100)
            async with open_engine(hub.engine_info):
                await hub.wait_engines(1)
            await eventually(lambda: bool(select.select([], [peer], [], 0.0)[1]))


def test_all_ports_are_watched_and_no_other_sockets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours, socket.create_server(("127.0.0.1", 0)) as other:
        with socket.create_connection(ours.getsockname()):
            guard = DescriptorGuard([ours.getsockname()[1]])
            assert [listener.fileno() for listener in guard._listeners()] == [ours.fileno()]
        assert other.fileno() != -1
