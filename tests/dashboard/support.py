"""A dashboard for the length of a test, and a browser of few words."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

import trio
from prometheus_client.parser import text_string_to_metric_families

from trio_hub import RunningHub
from trio_hub.dashboard import Dashboard, serve_dashboard


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
) -> Answer:
    """Ask, on a connection of its own; `name` is what the Host header says, else the host."""
    asked = request(path, name or f"{host}:{port}", {"Connection": "close"} | (headers or {}), method)
    async with await trio.open_tcp_stream(host, port) as stream:
        await stream.send_all(asked)
        received = b"".join([chunk async for chunk in stream])
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return Answer(int(first.split()[1]), fields, body.decode())


class Scrape:
    """What /metrics has answered, read by Prometheus's own parser."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    @property
    def names(self) -> set[str]:
        """Of all samples."""
        return {name for name, _ in self._samples}

    def __call__(self, name: str, **labels: str) -> float:
        return self._samples[name, frozenset(labels.items())]


async def scrape(dashboard: Dashboard) -> Scrape:
    answer = await fetch(dashboard.port, "/metrics", {"Authorization": f"Bearer {dashboard.token}"})
    assert answer.status == 200
    return Scrape(answer.body)
