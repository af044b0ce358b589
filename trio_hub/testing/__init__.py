"""Scripted engines and clients: they use the real protocol over real sockets, and do exactly what a test tells them.

A deterministic test of the death of an engine, without a process and without sleeping::

    from trio_hub import HubConfig
    from trio_hub.testing import open_client, open_engine, open_hub

    async def test_the_client_hears_of_a_death() -> None:
        with trio.fail_after(10):
            async with (
                open_hub(HubConfig(stranded_grace=0)) as hub,
                open_client(hub.client_info) as client,
                open_engine(hub.engine_info) as engine,
            ):
                engine.hold()
                task = client.submit(b"work")
                await engine.wait_requests(1)
                engine.die()
                reply = await client.reply(task)
                assert reply.content["ename"] == "EngineError"

These functions do not sleep and have no timeouts: a test waits for a condition, inside `trio.fail_after`. Everything is
closed when its ``async with`` ends. Use real time: `trio.testing.MockClock` with autojump would jump past messages in
sockets.

The engines and clients also work with a controller in another process, even with ``ipcontroller``: use the result of
`trio_hub.config.connectionfiles.read_connection_file`.
"""

from .behaviours import Behaviour, answer, answering, die, failing, ignore, obey, one_by_one, twice, unmet
from .client import ScriptedClient, open_client
from .engine import RegistrationRefused, Request, ScriptedEngine, open_engine, open_engines
from .hub import open_hub
from .peer import Peer, Received

__all__ = [
    "Behaviour",
    "Peer",
    "Received",
    "RegistrationRefused",
    "Request",
    "ScriptedClient",
    "ScriptedEngine",
    "answer",
    "answering",
    "die",
    "failing",
    "ignore",
    "obey",
    "one_by_one",
    "open_client",
    "open_engine",
    "open_engines",
    "open_hub",
    "twice",
    "unmet",
]
