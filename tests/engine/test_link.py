"""Sending to a hub on a channel that is not open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import trio
import zmq

from trio_hub import HubConfig
from trio_hub.engine.address import read_address
from trio_hub.engine.link import Link
from trio_hub.engine.options import parse_options
from trio_hub.testing import open_hub
from trio_hub.transport.receiver import Receiver

from .support import LIMIT, until


async def test_answers_are_kept_and_output_is_refused_while_the_channel_is_not_open() -> None:
    """So it is from the registration until all channels are open, and while an engine moves to another hub."""
    async with open_hub() as hub:
        address = await read_address(json.dumps(hub.engine_info), "the test's", parse_options([]))
    context: zmq.Context[Any] = zmq.Context()
    link = Link(address, lambda url: url, context, b"engine", Receiver())
    assert not link.send("iopub", [b"output"])
    assert not link.send("shell", [b"first"])
    assert not link.send("shell", [b"second"])
    assert link.unsent() == [("shell", [b"first"]), ("shell", [b"second"])]
    link.close(0)
    context.term()


async def test_a_channel_is_broken_from_the_end_of_its_connection_until_the_next_handshake(tmp_path: Path) -> None:
    """So an engine that ends just after its hub does not wait for the hub."""
    receiver, settings = Receiver(), HubConfig(profile_dir=tmp_path, reuse=True)
    context: zmq.Context[Any] = zmq.Context()
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            async with open_hub(settings) as hub:
                address = await read_address(json.dumps(hub.engine_info), "the test's", parse_options([]))
                link = Link(address, lambda url: url, context, b"engine", receiver)
                link.open("registration", zmq.DEALER, [address.urls["registration"]], lambda frames: None)
                nursery.start_soon(receiver.run)
                await until(lambda: link.handshakes, "the handshake")
                assert not link.is_broken("registration")
            await until(lambda: link.is_broken("registration"), "the end of the connection")
            async with open_hub(settings):
                await until(lambda: not link.is_broken("registration"), "the next handshake")
            link.close(0)
    context.term()
