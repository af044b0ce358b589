"""Messages of many frames: they are received in slices, and dropped if they have too many frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import zmq

from trio_hub.transport.channel import PARTS_AT_A_TIME, Channel
from trio_hub.wire.frames import Frames


@contextmanager
def connected() -> Iterator[tuple[Channel, zmq.Socket[Any], list[Frames], list[int]]]:
    """Give a channel, a socket that sends to it, the messages that it has handled, and those that it has refused."""
    handled: list[Frames] = []
    refused: list[int] = []
    with (
        zmq.Context() as context,
        context.socket(zmq.ROUTER) as router,
        context.socket(zmq.DEALER) as dealer,
        Channel(router, handled.append) as channel,
    ):
        router.bind("inproc://here")
        dealer.connect("inproc://here")
        dealer.linger = 0
        channel.refused = refused.append
        yield channel, dealer, handled, refused


@pytest.mark.parametrize("frames", [1, 2, 63, 64, 65, 66, 1000, 1064, 1065, 2500])
def test_a_message_arrives_whole_however_many_frames_it_has(frames: int) -> None:
    message = [b"%d" % number for number in range(frames)]
    with connected() as (channel, dealer, handled, refused):
        dealer.send_multipart(message)
        dealer.send_multipart([b"next"])
        while channel.drain(1):
            pass
        assert [received[1:] for received in handled] == [message, [b"next"]]
        assert refused == []


def test_a_long_message_is_received_in_slices() -> None:
    with connected() as (channel, dealer, handled, _):
        dealer.send_multipart([b""] * (3 * PARTS_AT_A_TIME))
        slices = 1
        while channel.drain(4):
            slices += 1
            assert channel.is_readable(), "so it is this channel's turn again"
        assert slices == 3
        assert [len(frames) for frames in handled] == [3 * PARTS_AT_A_TIME + 1]


@pytest.mark.parametrize("more", [0, 1, 5000])
def test_a_message_of_too_many_frames_is_thrown_away_and_told(more: int) -> None:
    with connected() as (channel, dealer, handled, refused):
        channel.max_frames = 100
        dealer.send_multipart([b"x"] * (99 + more))
        dealer.send_multipart([b"next"])
        while channel.drain(4):
            pass
        assert refused == [100 + more] * bool(more)
        assert [len(frames) for frames in handled] == ([2] if more else [100, 2])
