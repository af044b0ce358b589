"""Which engine a connection belongs to, although the system gives the descriptors of ended connections to new ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator

import pytest
import trio
import zmq

from trio_hub.runtime.connections import DOUBT, Connections
from trio_hub.transport.channel import Channel

FD = 7


class Watched(Connections):
    """Connections of one channel, whose events and messages come from the test."""

    def __init__(self, channel: Channel) -> None:
        self.lost: list[tuple[bytes | None, Container[bytes]]] = []
        super().__init__({"mux_out": channel}, lambda name, ident, others: self.lost.append((ident, others)), Counter())

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
        connections = Watched(channel)
        yield connections
        connections.close()


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
