"""A dashboard that fails in any way: it starts anew, and the hub goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from trio_hub import services
from trio_hub.dashboard.server import Server
from trio_hub.dashboard.watching import Watch
from trio_hub.hub.events import Event

from ..runtime.support import eventually
from .support import Scrape, fetch, reading, scrape, site


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "FIRST_PAUSE", 0.01)


async def test_a_feed_that_fails_goes_on(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async with site(db="memory") as at, reading(at.dashboard) as reader:
        await reader.until("overview")
        statistics = at.hub.statistics
        left = [2]

        def failing() -> Any:
            if left[0] > 0:
                left[0] -= 1
                raise ArithmeticError("as the test says")
            return statistics()

        monkeypatch.setattr(at.hub, "statistics", failing)
        seen: dict[str, int] = {}
        while not seen:
            seen = (await reader.until("overview"))["statistics"]["service_failures"]
        assert seen == {"dashboard feed": 2}
        assert (await scrape(at.dashboard))("trio_hub_service_failures_total", service="dashboard feed") == 2
        assert len([record for record in caplog.records if record.exc_info]) == 2


async def test_a_server_that_fails_listens_again_on_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    serve = Server.serve
    broken = trio.Event()

    async def fail(self: Server, listeners: list[trio.SocketListener], until: Callable[[], Awaitable[None]]) -> None:
        if broken.is_set():
            await serve(self, listeners, until)
        else:
            broken.set()
            raise ArithmeticError("as the test says")

    monkeypatch.setattr(Server, "serve", fail)
    async with site(db="memory") as at:
        await eventually(lambda: at.hub.service_failures["dashboard"] == 1)
        answer = None
        while answer is None:
            try:
                answer = await fetch(at.dashboard.port, "/healthz")
            except OSError:  # the dashboard does not listen again yet
                await trio.lowlevel.checkpoint()
        assert answer.status == 200
        await at.client.reply(at.client.submit(b"work"))


async def test_what_is_noted_of_the_hub_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Watch, event: Event) -> None:
        raise ArithmeticError("as the test says")

    monkeypatch.setattr(Watch, "happened", fail)
    async with site(db="memory") as at:
        await at.client.reply(at.client.submit(b"work"))
        found: Scrape = await scrape(at.dashboard)
        assert found("trio_hub_service_failures_total", service="observer") >= 3
