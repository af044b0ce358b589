"""A peer without the key and the connection files, which tries every channel from both sides.

It knows what anybody can see: the ports, the uuids of engines, and messages that it has seen go by.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import pytest
import trio
import zmq

from trio_hub import RunningHub
from trio_hub.runtime import connections, engine, heartbeat
from trio_hub.testing import ScriptedClient, ScriptedEngine, open_client, open_engine
from trio_hub.wire.frames import to_bytes

from .proxy import open_network
from .support import cluster, eventually

ENGINE_SIDE = ("registration", "control", "mux", "task", "broadcast", "hb_pong")
CLIENT_SIDE = ("registration", "control", "mux", "task", "broadcast")


class Stranger:
    """Sockets of a stranger who knows only the addresses of the hub."""

    def __init__(self, hub: RunningHub, context: zmq.Context[zmq.Socket[Any]]) -> None:
        self.hub = hub
        self.context = context
        self.sockets: list[zmq.Socket[Any]] = []

    def connect(self, channel: str, *, side: str = "engine", kind: int = zmq.DEALER, ident: bytes = b"") -> Any:
        info = self.hub.engine_info if side == "engine" else self.hub.client_info
        ports = info[channel] if isinstance(info[channel], list) else [info[channel]]
        socket: Any = self.context.socket(kind)
        self.sockets.append(socket)
        socket.linger = 0
        if ident:
            socket.identity = ident
        if kind == zmq.SUB:
            socket.subscribe(b"")
        for port in ports:
            socket.connect(f"tcp://127.0.0.1:{port}")
        return socket

    def port(self, channel: str, *, side: str = "engine") -> int:
        info = self.hub.engine_info if side == "engine" else self.hub.client_info
        port: int = info[channel]
        return port

    def received(self) -> list[list[bytes]]:
        """Return all messages that the stranger's sockets have received."""
        found = []
        for socket in self.sockets:
            while socket.poll(0):
                found.append(socket.recv_multipart())
        return found


@contextmanager
def stranger_at(hub: RunningHub) -> Iterator[Stranger]:
    with zmq.Context() as context:
        stranger = Stranger(hub, context)
        try:
            yield stranger
        finally:
            for socket in stranger.sockets:
                socket.close(linger=0)


FLOOD = """
import ast, sys, zmq
sockets = [zmq.Context.instance().socket(zmq.DEALER) for _ in range(3)]
for socket in sockets:
    socket.connect(f"tcp://127.0.0.1:{sys.argv[1]}")
frames = ast.literal_eval(sys.argv[2])
while True:
    for socket in sockets:
        socket.send_multipart(frames)
"""


@asynccontextmanager
async def flooding(port: int, frames: list[bytes]) -> AsyncGenerator[None, None]:
    """Run a process during the block that sends a message again and again.

    In a process of its own: libzmq can abort one that closes a socket in the middle of a message.
    """
    async with trio.open_nursery() as nursery:
        command = [sys.executable, "-c", FLOOD, str(port), repr(frames)]
        nursery.start_soon(partial(trio.run_process, command, deliver_cancel=kill))
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()


async def kill(process: trio.Process) -> None:
    process.kill()


async def all_work(hub: RunningHub, client: ScriptedClient, engines: list[ScriptedEngine]) -> None:
    """Check that every kind of request is answered by the right engine, and that the engines are the same as before."""
    for scripted in engines:
        only = {"targets": [scripted.uuid]}
        asked = [
            client.call(scripted, b"direct"),
            client.submit(b"task", metadata=only),
            client.control(scripted, "clear_request"),
        ]
        for msg_id in asked:
            reply = await client.reply(msg_id)
            assert reply.content["status"] == "ok"
            assert reply.metadata["engine"] == scripted.uuid
    assert hub.engines == {scripted.id: scripted.uuid for scripted in engines}
    assert hub.statistics().engines_lost == dict.fromkeys(hub.statistics().engines_lost, 0)


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.ROUTER], ids=["dealer", "router"])
@pytest.mark.parametrize("side", ["engine", "client"])
async def test_no_name_is_taken_over(side: str, kind: int) -> None:
    async with cluster(2, ping=0.1) as (hub, client, engines):
        await all_work(hub, client, engines)
        with stranger_at(hub) as stranger:
            names = [one.ident for one in engines] + [b"mux_out", b"task_out", b"\0away"]
            for channel, ident in itertools.product(ENGINE_SIDE if side == "engine" else CLIENT_SIDE, names):
                socket = stranger.connect(channel, side=side, kind=kind, ident=ident if ident[:1] != b"\0" else b"")
                if kind == zmq.DEALER:
                    socket.send_multipart([b"nonsense"])
            await all_work(hub, client, engines)
            pings = len(engines[0].pings)
            await engines[0].wait_until(lambda: len(engines[0].pings) > pings + 3)
            await all_work(hub, client, engines)
            assert stranger.received() == []


async def test_a_name_that_is_free_for_a_moment_gets_a_question_and_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "RETRY", 0.2)
    monkeypatch.setattr(engine, "ANSWER", 0.5)
    monkeypatch.setattr(connections, "PAUSE", 0.1)
    async with (
        cluster(0, ping=0.2) as (hub, client, _),
        open_network(hub.engine_info) as network,
        open_engine(network.info) as scripted,
    ):
        await hub.wait_engines(1)
        await all_work(hub, client, [scripted])
        with stranger_at(hub) as stranger:
            network.refusing = True
            network.reset("task", "mux")
            thieves = [stranger.connect(name, kind=zmq.ROUTER, ident=scripted.ident) for name in ("task", "mux")]
            asked = [client.submit(b"secret"), client.call(scripted, b"secret")]
            seen: list[list[bytes]] = []

            def both_have_something() -> bool:
                seen.extend(stranger.received())
                return len(seen) >= 2

            await eventually(both_have_something)
            assert all(b'"kernel_info_request"' in frames[-4] for frames in seen)
            assert b"secret" not in b"".join(itertools.chain.from_iterable(seen))
            for thief in thieves:
                thief.close(linger=0)
            network.refusing = False
            for msg_id in asked:
                await client.reply(msg_id)
        await all_work(hub, client, [scripted])


async def test_a_flood_of_pongs_stops_no_ping_and_hides_no_death(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "AT_LEAST", 50)
    async with cluster(2, ping=0.1, max_heartmonitor_misses=5, stranded_grace=0) as (hub, client, (living, dying)):
        with stranger_at(hub) as stranger:
            async with flooding(stranger.port("hb_pong"), [b"x"]):
                pings = len(living.pings)
                await living.wait_until(lambda: len(living.pings) > pings + 3)
                dying.die()
                assert (await client.notification("unregistration_notification")).content["id"] == dying.id
                pings = len(living.pings)
                await living.wait_until(lambda: len(living.pings) > pings + 3)
            assert hub.engines == {living.id: living.uuid}
            assert (await client.reply(client.call(living, b"well"))).buffers == [b"well"]


@pytest.mark.parametrize("channel", ["registration", "task", "mux", "control", "broadcast"])
async def test_a_message_of_too_many_frames_is_thrown_away(channel: str) -> None:
    async with cluster(1, max_message_frames=1000) as (hub, client, engines):
        with stranger_at(hub) as stranger:
            sockets = [stranger.connect(channel, side=side) for side in ("client", "engine")]
            for socket in sockets:
                socket.send_multipart([b""] * 5000)
            await eventually(lambda: hub.statistics().wire_errors.get("too_many_frames", 0) == len(sockets))
        await all_work(hub, client, engines)


async def test_a_frame_that_no_pong_has_ends_the_connection_that_it_comes_by(monkeypatch: pytest.MonkeyPatch) -> None:
    async with cluster(1, ping=0.1) as (hub, client, engines):
        with stranger_at(hub) as stranger:
            socket = stranger.connect("hb_pong")
            monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            stranger.sockets.append(monitor)
            socket.send(bytes(100_000))
            await eventually(lambda: bool(monitor.poll(0)))
            socket.disable_monitor()
        await all_work(hub, client, engines)


async def test_messages_seen_on_the_wire_change_nothing_wherever_they_are_sent() -> None:
    async with cluster(2, ping=0.1) as (hub, client, engines):
        await all_work(hub, client, engines)
        await client.query("connection_request")
        seen = [request.frames for scripted in engines for request in scripted.requests]
        seen += [reply.frames for replies in client.replies.values() for reply in replies]
        seen += [notification.frames for notification in client.notifications]
        submitted, asked = hub.statistics().submitted, sum(len(scripted.requests) for scripted in engines)
        with stranger_at(hub) as stranger:
            for side, channels in (("engine", ENGINE_SIDE), ("client", CLIENT_SIDE)):
                for channel in channels:
                    socket = stranger.connect(channel, side=side)
                    for frames in seen:
                        message = [to_bytes(frame) for frame in frames[:6]] + [b"evil"]
                        socket.send_multipart(message)
                        socket.send_multipart([engines[0].ident, *message])
            replayed = len(seen) * (len(ENGINE_SIDE) + len(CLIENT_SIDE) - 1)
            await eventually(lambda: hub.statistics().wire_errors.get("replayed", 0) >= replayed)
            assert stranger.received() == []
        statistics = hub.statistics()
        assert statistics.submitted == submitted
        assert sum(len(scripted.requests) for scripted in engines) == asked
        await all_work(hub, client, engines)


async def test_output_is_open_to_all_without_encryption() -> None:
    async with cluster(1) as (hub, client, (scripted,)):
        with stranger_at(hub) as stranger:
            socket = stranger.connect("iopub", side="client", kind=zmq.SUB)

            def has_heard() -> bool:
                scripted.publish("stream", {"name": "stdout", "text": "for all to read"})
                return bool(socket.poll(0))

            await eventually(has_heard)
            assert b"for all to read" in b"".join(stranger.received()[0])
        await all_work(hub, client, [scripted])


async def test_buffers_are_not_covered_by_signatures() -> None:
    async with cluster(1) as (_, client, (scripted,)):
        frames = client.session.write("apply_request", {}, buffers=[b"as it was sent"])
        client.send_raw("task", [*frames[:6], b"as it was changed on the way"])
        [request] = await scripted.wait_requests(1)
        assert request.buffers == [b"as it was changed on the way"]


async def test_a_flood_of_unsigned_messages_leaves_everybody_their_turn() -> None:
    async with cluster(1) as (hub, client, engines):
        with stranger_at(hub) as stranger:
            ports = [stranger.port(channel, side="client") for channel in CLIENT_SIDE]
            unsigned = [b"<IDS|MSG>", b"0" * 64, b"{}", b"{}", b"{}", b"{}"]
            async with AsyncExitStack() as floods:
                for port in ports:
                    await floods.enter_async_context(flooding(port, unsigned))
                while hub.statistics().wire_errors.get("bad_signature", 0) <= 1000:
                    await trio.lowlevel.checkpoint()
                for _ in range(20):
                    await all_work(hub, client, engines)


async def test_an_engines_key_is_a_clients_key() -> None:
    async with (
        cluster(2) as (hub, _, (bad, other)),
        open_client(hub.client_info | {"key": hub.engine_info["key"]}) as as_client,
    ):
        assert (await as_client.reply(as_client.call(other, b"x"))).buffers == [b"x"]
        assert bad.info["key"] == as_client.info["key"]


async def test_nobody_has_an_engines_pings_by_sending_nonsense_where_they_come_from() -> None:
    async with cluster(1, ping=0.1) as (hub, client, engines):
        with stranger_at(hub) as stranger:
            socket = stranger.connect("hb_ping", kind=zmq.XSUB)
            await eventually(lambda: bool(socket.poll(0, zmq.POLLOUT)))
            for _ in range(20):
                socket.send(b"nonsense")
            async with open_engine(hub.engine_info) as newcomer:
                await hub.wait_engines(2)
                await all_work(hub, client, [*engines, newcomer])
                pings = len(newcomer.pings)
                await newcomer.wait_until(lambda: len(newcomer.pings) > pings + 3)
            assert stranger.received() == []
