"""Connections end when they are told to, whatever the peer does."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from trio_hub.dashboard import server
from trio_hub.dashboard.server import Server

from ..runtime.support import Footprint, eventually, within_limit
from .support import fetch, request


class Endless:
    """An application that sends its answer without end."""

    def __init__(self) -> None:
        self.began = False
        self.ended = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send, send)
            while (await receive())["type"] != "http.disconnect":
                pass
            nursery.cancel_scope.cancel()
        self.ended = True

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        self.began = True
        while True:
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            await trio.lowlevel.checkpoint()  # once the peer is gone, sending does not wait any more


@asynccontextmanager
async def one_that_never_reads(
    app: Endless,
) -> AsyncGenerator[tuple[trio.Event, trio.Nursery, trio.SocketStream], None]:
    """Run a server with a client that never reads. Give the event that stops the server, and its nursery."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(Server(app).serve, [listener], stop.wait))
        port = listener.socket.getsockname()[1]
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(request("/", "localhost"))
            await eventually(lambda: app.began)
            await trio.testing.wait_all_tasks_blocked(0.01)
            yield stop, nursery, stream


async def test_a_stop_does_not_wait_for_a_peer_that_never_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CLOSE_GRACE", 0.05)
    before = Footprint.now()
    async with within_limit():
        async with one_that_never_reads(Endless()) as (stop, nursery, _):
            stop.set()
            await eventually(lambda: not nursery.child_tasks)
        await before.restored()


async def test_a_peer_that_never_reads_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STALL_LIMIT", 0.05)
    app = Endless()
    async with within_limit(), one_that_never_reads(app) as (stop, _, _):
        await eventually(lambda: app.ended)
        stop.set()


async def test_neither_does_a_cancellation() -> None:
    before = Footprint.now()
    async with within_limit():
        async with one_that_never_reads(Endless()) as (_, nursery, _):
            nursery.cancel_scope.cancel()
        await before.restored()


async def test_an_answer_that_is_on_its_way_arrives_before_the_end() -> None:
    asked, answer = trio.Event(), trio.Event()
    stop = trio.Event()
    answers = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked.set()
        await answer.wait()
        await PlainTextResponse("done")(scope, receive, send)

    async def ask() -> None:
        answers.append(await fetch(port, "/"))

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with within_limit(), trio.open_nursery() as nursery:
        nursery.start_soon(partial(Server(app).serve, [listener], stop.wait))
        nursery.start_soon(ask)
        await asked.wait()
        stop.set()
        await trio.testing.wait_all_tasks_blocked()
        answer.set()
    assert answers[0].body == "done"


async def test_more_connections_than_there_may_be_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    stop = trio.Event()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with within_limit(), trio.open_nursery() as nursery:
        nursery.start_soon(partial(Server(PlainTextResponse("here")).serve, [listener], stop.wait))
        one, two = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
        async with one, two, await trio.open_tcp_stream("127.0.0.1", port) as three:
            assert await three.receive_some() == b""
            await one.send_all(request("/", "localhost", {"Connection": "close"}))
            assert b"".join([chunk async for chunk in one]).endswith(b"here")
        stop.set()


async def test_an_application_that_fails_is_logged_under_our_name(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    stop = trio.Event()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with within_limit(), trio.open_nursery() as nursery:
        nursery.start_soon(partial(Server(app).serve, [listener], stop.wait))
        assert (await fetch(listener.socket.getsockname()[1], "/")).status == 500
        stop.set()
    assert {record.name for record in caplog.records} == {"trio_hub.dashboard.http"}
