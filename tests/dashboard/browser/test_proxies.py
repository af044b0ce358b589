"""The pages behind a reverse proxy, below a path prefix."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from ...cli.process import LIMIT
from .conftest import Opening, serving
from .reverse_proxy import reverse_proxy

pytestmark = pytest.mark.browser
expect.set_options(timeout=LIMIT * 1000)

PREFIX = "/user/jo%40x.org/trio-hub"


@pytest.mark.parametrize("strips", [True, False], ids=["prefix-removed", "prefix-kept"])
def test_the_pages_work_behind_a_reverse_proxy(tmp_path: Path, open_page: Opening, strips: bool) -> None:
    options = [] if strips else ["--dashboard-prefix", PREFIX]
    with serving(tmp_path, "--dashboard-admin", "true", *options) as hub:
        url = urlsplit(hub.url)
        assert url.path == ("/" if strips else f"{PREFIX}/")
        assert url.port is not None
        with reverse_proxy(url.port, PREFIX, strips=strips) as proxy:
            there = f"{proxy.address}{PREFIX}/"
            # the form for the token
            page = open_page(there if strips else there.removesuffix("/"), expected={403})
            page.get_by_label("Token").fill(url.query.removeprefix("token="))
            page.get_by_role("button", name="Open").click()
            expect(page.locator("#connection")).to_have_text("live")
            assert page.url.partition("#")[0] == there
            (cookie,) = page.context.cookies()
            assert cookie["path"] == f"{PREFIX}/"
            # the views: each proxy passes on the stream with bars and the answers to questions
            for view in ("Stream", "Tasks"):
                page.get_by_role("link", name=view, exact=True).first.click()
                expect(page.get_by_role("heading", level=1)).to_be_focused()
                expect(page.locator("#connection")).to_have_text("live")
            page.reload()
            expect(page.locator("#connection")).to_have_text("live")
            for name in ("metrics", "status", "health", "readiness"):
                link = page.locator("footer").get_by_role("link", name=name)
                assert page.request.get(link.evaluate("link => link.href")).status == 200
            # no other application gets the cookie
            page.evaluate("fetch('/another')")
            assert proxy.neighbour_cookies[-1] == ""
            # an action
            told = page.evaluate(
                "fetch('api/actions/purge', {method: 'POST', body: '{\"all\": true}', headers: {'X-Trio-Hub': '1'}})"
                ".then(answer => answer.json())"
            )
            assert told == {"purged": 0}
