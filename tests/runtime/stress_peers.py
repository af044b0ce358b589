"""The engines and clients of the stress test, in a process of their own so that the hub has its own core.

``python -m tests.runtime.stress_peers task|mux CLIENTS REQUESTS`` reads the hub's connection info as JSON. It fails
unless every request is answered exactly once, and rightly.
"""

from __future__ import annotations

import json
import sys
from contextlib import AsyncExitStack
from typing import Any

import trio

from trio_hub.testing import Request, ScriptedClient, ScriptedEngine, open_client, open_engines

ENGINES = 8
WINDOW = 500
"""The number of requests of a client that are under way at a time."""


def answer(request: Request) -> None:
    request.answer(request.buffers)
    request.engine.requests.clear()


async def ask(client: ScriptedClient, number: int, requests: int, engines: list[ScriptedEngine] | None) -> None:
    """Send all requests of this client, to the engines in turn or to any, and check the answers."""
    before = len(client.replies)
    asked: dict[str, tuple[bytes, ScriptedEngine | None]] = {}
    for each in range(requests):
        buffer = b"%d of client %d" % (each, number)
        engine = engines[each % len(engines)] if engines else None
        msg_id = client.call(engine, buffer) if engine else client.submit(buffer)
        asked[msg_id] = buffer, engine
        if each % 50 == 0:
            await client.wait_until(lambda: len(asked) - (len(client.replies) - before) < WINDOW)
    await client.wait_until(lambda: len(client.replies) - before == requests)
    # An answer that came twice would be here by now: the hub answers this after all that came before it.
    await client.query("queue_request")
    for msg_id, (buffer, engine) in asked.items():
        (reply,) = client.replies[msg_id]
        assert reply.content == {"status": "ok"}
        assert reply.buffers == [buffer]
        assert engine is None or reply.metadata["engine"] == engine.uuid


async def main(queue: str, clients: int, requests: int, info: dict[str, Any]) -> None:
    async with open_engines(info["engine"], ENGINES, behaviour=answer) as engines, AsyncExitStack() as stack:
        connected = [await stack.enter_async_context(open_client(info["client"])) for _ in range(clients)]
        while len((await connected[0].query("connection_request")).content["engines"]) < ENGINES:
            pass
        async with trio.open_nursery() as nursery:
            for number, client in enumerate(connected):
                nursery.start_soon(ask, client, number, requests, engines if queue == "mux" else None)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.load(sys.stdin))
