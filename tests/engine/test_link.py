"""Sending to a hub on a channel that is not open."""

from __future__ import annotations

import json
from typing import Any

import zmq

from trio_hub.engine.address import read_address
from trio_hub.engine.link import Link
from trio_hub.engine.options import parse_options
from trio_hub.testing import open_hub
from trio_hub.transport.receiver import Receiver


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
