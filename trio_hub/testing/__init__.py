"""Scripted engines and clients: they speak the real protocol over real sockets, and do just what a test tells them.

A test of what happens when an engine dies at its work, without a process, a sleep or a chance in it::

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

Nothing here sleeps or has a timeout of its own: what a test waits for is a condition, and `trio.fail_after` says how
long at most. Whatever was opened is closed when its ``async with`` ends. Time is real: no `trio.testing.MockClock`
with autojump, which would jump past messages that are on their way through a socket.

The engines and clients need no hub of this process: with what `trio_hub.config.connectionfiles.read_connection_file`
returns they work for any controller, also for ``ipcontroller``.
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
