"""A dashboard for the length of a test, and a browser of few words."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial
from time import time
from typing import Any, NamedTuple

import trio
from prometheus_client.parser import text_string_to_metric_families

from trio_hub import RunningHub
from trio_hub.dashboard import Dashboard, serve_dashboard
from trio_hub.dashboard.feed import Feed
from trio_hub.dashboard.history import History, cause_of, left_in_order
from trio_hub.dashboard.journal import Journal
from trio_hub.dashboard.watching import Watch
from trio_hub.testing import ScriptedClient, ScriptedEngine, open_engine

from ..runtime.support import cluster


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: str


@asynccontextmanager
async def open_dashboard(hub: RunningHub, **arguments: Any) -> AsyncGenerator[Dashboard, None]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(partial(serve_dashboard, hub, **arguments))
        nursery.cancel_scope.cancel()


def request(path: str, host: str, headers: dict[str, str] | None = None, method: str = "GET") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode()


async def fetch(
    port: int,
    path: str,
    headers: dict[str, str] | None = None,
    *,
    host: str = "127.0.0.1",
    name: str | None = None,
    method: str = "GET",
    body: bytes = b"",
) -> Answer:
    """Send a request on a new connection. `name` is the Host header; by default the host."""
    fields = {"Connection": "close"} | (headers or {})
    if body:
        fields["Content-Length"] = str(len(body))
    asked = request(path, name or f"{host}:{port}", fields, method) + body
    async with await trio.open_tcp_stream(host, port) as stream:
        await stream.send_all(asked)
        received = b"".join([chunk async for chunk in stream])
    return answer_in(received)


def answer_in(received: bytes) -> Answer:
    """Return the answer that was received on a connection until its end."""
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return Answer(int(first.split()[1]), fields, body.decode())


class Scrape:
    """The answer of /metrics, read by Prometheus's own parser."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    @property
    def names(self) -> set[str]:
        """Return the names of all samples."""
        return {name for name, _ in self._samples}

    def __call__(self, name: str, **labels: str) -> float:
        return self._samples[name, frozenset(labels.items())]


async def scrape(dashboard: Dashboard) -> Scrape:
    answer = await fetch(dashboard.port, "/metrics", {"Authorization": f"Bearer {dashboard.token}"})
    assert answer.status == 200
    return Scrape(answer.body)


def feed_of(hub: RunningHub, watch: Watch) -> Feed:
    """Return the feed of a dashboard that has no server, and remembers nothing on a disk."""
    journal = Journal(partial(cause_of, hub), partial(left_in_order, hub), time)
    return Feed(hub, watch, History(None, journal, time), admin=False)


class Site(NamedTuple):
    hub: RunningHub
    client: ScriptedClient
    engine: ScriptedEngine
    dashboard: Dashboard

    async def ask(self, path: str) -> Answer:
        return await fetch(self.dashboard.port, path, {"Authorization": f"Bearer {self.dashboard.token}"})

    async def get(self, path: str) -> Any:
        answer = await self.ask(path)
        assert answer.status == 200, answer
        assert answer.headers["content-type"] == "application/json"
        return json.loads(answer.body)

    async def refused(self, path: str, status: int) -> str:
        answer = await self.ask(path)
        assert answer.status == status
        (text,) = json.loads(answer.body).values()
        assert isinstance(text, str)
        return text


@asynccontextmanager
async def site(**settings: Any) -> AsyncGenerator[Site, None]:
    """Run a hub with a dashboard from its start, one engine, and a client."""
    async with (
        cluster(0, **settings) as (hub, client, _),
        open_dashboard(hub) as dashboard,
        open_engine(hub.engine_info) as engine,
    ):
        await hub.wait_engines(1)
        yield Site(hub, client, engine, dashboard)


class EventReader:
    """A browser that reads a stream of events."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._received = b""

    async def next(self) -> tuple[str, Any]:
        """Return the name and data of the next message."""
        name, data = "", None
        while True:
            line = await self._line()
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                data = json.loads(line.removeprefix("data: "))
            elif not line and name:
                return name, data

    async def until(self, wanted: str) -> Any:
        """Return the data of the next message with this name."""
        while True:
            name, data = await self.next()
            if name == wanted:
                return data

    async def rest(self) -> list[str]:
        """Return the names of all messages until the end."""
        names = []
        with suppress(EOFError):
            while True:
                names.append((await self.next())[0])
        return names

    async def _line(self) -> str:
        while b"\n" not in self._received:
            chunk = await self.stream.receive_some()
            if not chunk:
                raise EOFError("the stream has ended")
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        return line.decode().rstrip("\r")


@asynccontextmanager
async def reading(dashboard: Dashboard, query: str = "", prefix: str = "") -> AsyncGenerator[EventReader, None]:
    async with await trio.open_tcp_stream("127.0.0.1", dashboard.port) as stream:
        path = f"{prefix}/api/events?token={dashboard.token}{query}"
        await stream.send_all(request(path, f"127.0.0.1:{dashboard.port}"))
        yield EventReader(stream)
