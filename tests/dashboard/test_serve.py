"""A dashboard beside a hub: access, answers, and no effect on the hub."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from trio_hub import ConfigError, HubConfig
from trio_hub.dashboard import Dashboard, serve_dashboard
from trio_hub.testing import open_hub

from ..runtime.support import Footprint, cluster, eventually, within_limit
from .support import fetch, open_dashboard, request, scrape

TOKEN = "0123456789abcdef"
PAGES = ("/", "/metrics", "/api/status")


async def test_nobody_is_let_in_without_the_token() -> None:
    async with within_limit(), open_hub() as hub, open_dashboard(hub, token=TOKEN) as dashboard:
        for page in (*PAGES, "/nothing"):
            for headers in (
                {},
                {"Authorization": "Bearer wrong"},
                {"Authorization": f"Basic {TOKEN}"},
                {"Cookie": f"trio_hub_token_{dashboard.port}=wrong"},
            ):
                answer = await fetch(dashboard.port, page, headers)
                assert answer.status == 403
                assert "token" in answer.body
                assert TOKEN not in str(answer)
            assert (await fetch(dashboard.port, f"{page}?token=wrong")).status == 403


async def test_the_token_is_taken_in_each_of_its_ways() -> None:
    async with within_limit(), open_hub() as hub, open_dashboard(hub, token=TOKEN) as dashboard:
        for page in PAGES:
            first = await fetch(dashboard.port, f"{page}?token={TOKEN}")
            assert first.status == 200
            cookie = first.headers["set-cookie"].partition(";")[0]
            for headers in (
                {"Authorization": f"Bearer {TOKEN}"},
                {"Authorization": f"token {TOKEN}"},
                {"Cookie": cookie},
            ):
                answer = await fetch(dashboard.port, page, headers)
                assert answer.status == 200
                assert "set-cookie" not in answer.headers


async def test_another_host_is_refused_even_with_the_token() -> None:
    async with within_limit(), open_hub() as hub, open_dashboard(hub, token=TOKEN) as dashboard:
        for page in (*PAGES, "/healthz"):
            answer = await fetch(dashboard.port, f"{page}?token={TOKEN}", name=f"evil.example:{dashboard.port}")
            assert answer.status == 403
            assert "another host" in answer.body
            assert "set-cookie" not in answer.headers


async def test_every_answer_is_hardened() -> None:
    async with within_limit(), open_hub() as hub, open_dashboard(hub, token=TOKEN) as dashboard:
        for page in ("/", f"/?token={TOKEN}", f"/nothing?token={TOKEN}", "/healthz"):
            headers = (await fetch(dashboard.port, page)).headers
            assert headers["content-security-policy"].startswith("default-src 'none'")
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cache-control"] == "no-store"
            assert "server" not in headers


async def test_the_index_names_what_is_served() -> None:
    async with within_limit(), open_hub() as hub, open_dashboard(hub, token=TOKEN) as dashboard:
        index = (await fetch(dashboard.port, f"/?token={TOKEN}")).body
        for page in ("/metrics", "/api/status", "/healthz", "/readyz"):
            assert f'href="{page[1:]}"' in index
            assert (await fetch(dashboard.port, f"{page}?token={TOKEN}")).status == 200
        assert (await fetch(dashboard.port, f"/?token={TOKEN}", method="POST")).status == 405


async def test_health_needs_no_token_and_readiness_ends_with_the_stop() -> None:
    async with within_limit(), open_hub() as hub, open_dashboard(hub) as dashboard:
        assert (await fetch(dashboard.port, "/healthz"))[::2] == (200, "ok\n")
        assert (await fetch(dashboard.port, "/readyz"))[::2] == (200, "ready\n")
        assert not hub.is_stopping
        async with await trio.open_tcp_stream("127.0.0.1", dashboard.port) as stream:
            await stream.send_all(request("/healthz", "localhost"))
            await stream.receive_some()  # wait until the connection is accepted
            hub.shutdown()
            assert hub.is_stopping
            await stream.send_all(request("/readyz", "localhost", {"Connection": "close"}))
            rest = b"".join([chunk async for chunk in stream])
        assert b"503" in rest or rest == b"", "it says so, or has ended with the hub"


async def test_the_status_is_that_of_the_hub() -> None:
    async with cluster() as (hub, client, _), open_dashboard(hub, token=TOKEN) as dashboard:
        await client.reply(client.submit(b"work"))
        answer = await fetch(dashboard.port, f"/api/status?token={TOKEN}")
        assert answer.headers["content-type"] == "application/json"
        status = json.loads(answer.body)
        assert status["engines"] == status["completed"] == 1
        assert status["outcomes"]["task"] == {"ok": 1, "error": 0, "aborted": 0}
        assert status["database"]["kind"] == "memory"
        assert status["connections"] == "open"


async def test_it_listens_where_the_settings_say() -> None:
    config = HubConfig(dashboard="127.0.0.1:0", dashboard_token=TOKEN)
    async with within_limit(), open_hub(config) as hub, open_dashboard(hub) as dashboard:
        assert dashboard == Dashboard(f"http://127.0.0.1:{dashboard.port}", dashboard.port, TOKEN)
        assert dashboard.url == f"http://127.0.0.1:{dashboard.port}/?token={TOKEN}"
        assert TOKEN not in repr(dashboard)
        assert TOKEN not in repr(config)
        await scrape(dashboard)


async def test_tokens_are_random_and_addresses_may_be_given() -> None:
    async with (
        within_limit(),
        open_hub() as hub,
        open_dashboard(hub) as one,
        open_dashboard(hub, address="*:0") as two,
        open_dashboard(hub, address="[::1]:0") as three,
    ):
        assert len({one.token, two.token, three.token}) == 3
        assert len(one.token) > 40
        assert (await fetch(two.port, f"/?token={two.token}", name="a.name.of.this.machine")).status == 200
        assert three.address == f"http://[::1]:{three.port}"
        answer = await fetch(three.port, f"/?token={three.token}", host="::1", name=f"[::1]:{three.port}")
        assert answer.status == 200


async def test_a_port_that_is_taken_is_named() -> None:
    async with within_limit(), open_hub() as hub, open_dashboard(hub) as dashboard:
        with pytest.raises(ConfigError, match=rf"dashboard: cannot listen on 127.0.0.1:{dashboard.port}: .*in use"):
            await serve_dashboard(hub, dashboard.port)


async def test_an_address_that_is_none_is_named() -> None:
    async with within_limit(), open_hub() as hub:
        with pytest.raises(ConfigError, match="dashboard is 'nonsense': expected"):
            await serve_dashboard(hub, "nonsense")
        with pytest.raises(ConfigError, match="dashboard_token is not usable: expected 16 or more"):
            await serve_dashboard(hub, token="short")


@pytest.mark.parametrize("package", ["starlette", "hypercorn", "prometheus_client"])
async def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("access", "app", "metrics", "server", "timings"):
        monkeypatch.delitem(sys.modules, f"trio_hub.dashboard.{name}", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Without(package), *sys.meta_path])
    async with within_limit(), open_hub() as hub:
        with pytest.raises(
            ConfigError,
            match=rf"{package}.* is not installed: run pip install hypercorn starlette prometheus-client, or leave out",
        ):
            await serve_dashboard(hub)


class Without:
    """An import hook that hides a package, as if it were not installed."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == self._package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


# The end


async def test_it_ends_with_the_hub() -> None:
    before = Footprint.now()
    async with within_limit():
        async with open_hub() as hub, trio.open_nursery() as nursery:
            dashboard = await nursery.start(serve_dashboard, hub)
            await scrape(dashboard)
            async with await trio.open_tcp_stream("127.0.0.1", dashboard.port) as idle:
                await idle.send_all(request("/healthz", "localhost"))
                await idle.receive_some()
                hub.shutdown()
                await hub.wait_stopped()
                await eventually(lambda: not nursery.child_tasks)
        await before.restored()


async def test_cancelling_it_leaves_the_hub_at_work() -> None:
    async with cluster() as (hub, client, _):
        before = Footprint.now()
        for _ in range(2):
            async with open_dashboard(hub) as dashboard:
                await client.reply(client.submit(b"while it is watched"))
                assert (await scrape(dashboard))("trio_hub_task_wait_seconds_count") == 1
            await before.restored()
            assert not hub._host.listening
            await client.reply(client.submit(b"while it is not"))


async def test_a_peer_that_does_not_read_holds_up_nobody(tmp_path: Path) -> None:
    async with cluster(profile_dir=tmp_path) as (hub, client, _), trio.open_nursery() as nursery:
        dashboard = await nursery.start(serve_dashboard, hub)
        async with await trio.open_tcp_stream("127.0.0.1", dashboard.port) as stream:
            with trio.move_on_after(0.5):  # the peer may stop reading before
                await stream.send_all(300 * request(f"/metrics?token={dashboard.token}", "localhost"))
            for _ in range(10):
                await client.reply(client.submit(b"work"))
            await scrape(dashboard)
            hub.shutdown()
            await hub.wait_stopped()
            await eventually(lambda: not nursery.child_tasks)
