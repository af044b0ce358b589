"""The address and connection of a message's sender, from ZeroMQ."""

from __future__ import annotations

import pytest
import zmq

from trio_hub.transport.channel import Channel
from trio_hub.wire.frames import Frames


@pytest.mark.parametrize(
    ("address", "found"), [("tcp://127.0.0.1:*", "127.0.0.1"), ("tcp://[::1]:*", "::1"), ("inproc://here", None)]
)
def test_the_address_of_the_message_that_is_being_handled(address: str, found: str | None) -> None:
    told: list[str | None] = []

    def handle(frames: Frames) -> None:
        told.append(channel.peer_address())

    with (
        zmq.Context() as context,
        context.socket(zmq.ROUTER) as router,
        context.socket(zmq.DEALER) as dealer,
        Channel(router, handle) as channel,
    ):
        router.ipv6 = dealer.ipv6 = True
        router.bind(address)
        dealer.connect(router.get_string(zmq.LAST_ENDPOINT))
        assert channel.peer_address() is None, "nothing has come"
        dealer.send_multipart([b"a", b"b"])
        assert router.poll(10_000)
        channel.drain()
        assert told == [found]
