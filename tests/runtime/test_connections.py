"""Which engine a connection belongs to, although the system gives the descriptors of ended connections to new ones."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import ExitStack

import pytest
import trio
import zmq

from trio_hub import HubConfig
from trio_hub.runtime.connections import DOUBT, Connections
from trio_hub.runtime.factory import HubFactory
from trio_hub.transport.channel import Channel
from trio_hub.transport.tcp import ConnectionMonitor

FD = 7


class Watched(Connections):
    """Connections of one channel, whose events and messages come from the test."""

    def __init__(self, channel: Channel, monitor: ConnectionMonitor) -> None:
        self.lost: list[tuple[bytes | None, Container[bytes]]] = []
        super().__init__(
            {"mux_out": channel},
            {"mux_out": monitor},
            lambda name, ident, others: self.lost.append((ident, others)),
            Counter(),
        )

    def accepted(self, fd: int) -> None:
        self._was_accepted("mux_out", fd)

    def ended(self, fd: int) -> None:
        self._has_ended("mux_out", fd)

    def received(self, ident: bytes) -> None:
        self._introduce("mux_out", ident)

    @property
    def known(self) -> dict[bytes, int]:
        return self._heard["mux_out"]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    with zmq.Context() as context, Channel(context.socket(zmq.ROUTER), name="mux_out") as channel:
        monkeypatch.setattr(channel, "peer_fd", lambda: FD)
        monitor = ConnectionMonitor(channel.socket)
        yield Watched(channel, monitor)
        monitor.close()


async def test_a_late_message_of_an_ended_connection_does_not_name_the_next_one(
    watched: Watched, autojump_clock: trio.testing.MockClock
) -> None:
    watched.accepted(FD)
    watched.received(b"a")
    watched.ended(FD)
    assert watched.lost == [(b"a", ())]
    watched.accepted(FD)  # the connection of another engine
    watched.received(b"a")
    assert watched.known == {}
    await trio.sleep(2 * DOUBT)
    watched.received(b"b")
    assert watched.known == {b"b": FD}
    watched.ended(FD)
    assert watched.lost[1:] == [(b"b", ())]


async def test_a_connection_has_one_name(watched: Watched) -> None:
    watched.accepted(FD)
    watched.received(b"a")
    watched.received(b"b")
    assert watched.known == {b"b": FD}
    watched.ended(FD)
    assert watched.known == {}


async def test_a_connection_whose_end_was_not_reported_is_lost_when_its_descriptor_has_another_one(
    watched: Watched,
) -> None:
    watched.accepted(FD)
    watched.received(b"a")
    watched.accepted(FD)
    assert watched.lost == [(b"a", ())]
    assert watched.known == {}


async def test_connections_that_are_made_before_the_hub_begins_to_receive_are_known() -> None:
    """The engines of a hub that was restarted connect as soon as its ports are open."""
    factory = HubFactory(HubConfig(), "key")
    factory.bind()
    with ExitStack() as peers:
        for name in factory.monitors:
            index = factory.broadcast_channels.index(name) if name in factory.broadcast_channels else None
            url = factory.engine_url("broadcast" if index is not None else name.removesuffix("_out"), index)
            host, _, port = url.removeprefix("tcp://").rpartition(":")
            peers.enter_context(socket.create_connection((host, int(port))))
        assert all(monitor.channel.socket.poll(10_000) for monitor in factory.monitors.values())
        channels = {name: factory.channels[name] for name in factory.monitors}
        connections = Connections(channels, factory.monitors, lambda name, ident, others: None, Counter())
        for name, monitor in factory.monitors.items():
            monitor.channel.drain()
            assert connections.count(name) == 1, name
    factory.close_sockets(0)
    factory.release()
