"""The pages without a token, without the right to act, and without a running hub."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
from playwright.sync_api import expect

from ...cli.process import LIMIT
from ...slurm.node import free_ports
from .conftest import Opening, serving

pytestmark = pytest.mark.browser
expect.set_options(timeout=LIMIT * 1000)


def test_without_the_token(tmp_path: Path, open_page: Opening) -> None:
    with serving(tmp_path) as hub:
        page = open_page(hub.address, expected={403})
        expect(page.locator("body")).to_contain_text("The token is missing or wrong. Use the URL")
        page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text())
        assert page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"] == []
        field = page.get_by_label("Token")
        expect(field).to_be_focused()
        field.fill("wrong")
        field.press("Enter")
        expect(page.get_by_role("heading", name="This dashboard needs a token")).to_be_visible()
        page.get_by_label("Token").fill(hub.url.partition("token=")[2])
        page.get_by_role("button", name="Open").click()
        expect(page.locator("#connection")).to_have_text("live")
        assert "token" not in page.url


def test_a_token_that_is_no_longer_right(tmp_path: Path, open_page: Opening) -> None:
    with serving(tmp_path) as hub:
        page = open_page(hub.url, expected={403})
        expect(page.get_by_role("status").first).to_have_text("live")
        page.context.clear_cookies()
        page.evaluate("location.hash = '#/stream'")  # the page connects again
        expect(page.get_by_role("alert").first).to_contain_text("does not accept this page's token")
        page.get_by_role("button", name="Enter the token").click()
        page.get_by_label("Token").fill(hub.url.partition("token=")[2])
        page.get_by_role("button", name="Open").click()
        expect(page.locator("#connection")).to_have_text("live")


def test_nothing_can_be_done_without_leave(tmp_path: Path, open_page: Opening) -> None:
    with serving(tmp_path) as hub:
        page = open_page(hub.url, expected={403, 404})  # there is no such task
        expect(page.locator("#hub-admin")).to_contain_text("--dashboard-admin true")
        expect(page.get_by_role("button", name="Stop the hub…")).to_have_count(0)
        for view, buttons in (
            ("tasks", ("Cancel…", "Cancel all matching…")),
            ("tasks/nothing", ("Cancel…",)),
            ("engines", ("Drain…", "Undrain…")),
        ):
            page.evaluate("view => { location.hash = `#/${view}`; }", view)
            expect(page.get_by_role("heading", level=1)).to_be_focused()
            for button in buttons:
                expect(page.locator("button", has_text=button).first).to_be_attached()
                expect(page.get_by_role("button", name=button)).to_have_count(0)
            if view == "tasks/nothing":
                expect(page.get_by_role("alert").filter(has_text="there is no record of 'nothing'")).to_be_visible()
        ask = "fetch('api/actions/stop_hub', {method: 'POST', body: '{}', headers: {'X-Trio-Hub': '1'}})"
        told = page.evaluate(f"{ask}.then(answer => answer.json())")
        assert "admin" in told["error"]
        expect(page.get_by_role("status").first).to_have_text("live")


def test_views_with_nothing_to_show_tell_the_next_step(tmp_path: Path, open_page: Opening) -> None:
    with serving(tmp_path, "--dashboard-admin", "true") as hub:
        page = open_page(hub.url)
        files_of_hub = tmp_path / "profile" / "security"
        engine = f"trio-hub engine --file {files_of_hub / 'ipcontroller-engine.json'}"
        client = f"rc = ipp.Client('{files_of_hub / 'ipcontroller-client.json'}')"
        page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text())
        for view, told in (
            ("engines", engine),
            ("stream", client),
            ("tasks", client),
            ("clients", client),
            ("failures", "failed tasks"),
        ):
            page.evaluate("view => { location.hash = `#/${view}`; }", view)
            expect(page.locator("main .empty:visible")).to_contain_text(told)
            found = page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
            assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == [], view


def test_a_page_goes_on_with_the_next_hub(tmp_path: Path, open_page: Opening) -> None:
    token = "a-token-that-is-kept"
    (port,) = free_ports(1)  # the next hub binds its other sockets first, and must not get this port
    with serving(tmp_path, token=token, port=port) as hub:
        page = open_page(hub.url)
        state = page.locator("#connection")
        expect(state).to_have_text("live")
        address = page.locator("#hub-address").inner_text()
    expect(state).to_have_text("stopped")
    with serving(tmp_path, token=token, port=port):
        expect(state).to_have_text("live")  # the page tries again by itself
        expect(page.locator("#hub-address")).not_to_have_text(address)


def test_the_hub_is_stopped(tmp_path: Path, open_page: Opening) -> None:
    with serving(tmp_path, "--dashboard-admin", "true") as hub:
        page = open_page(hub.url)
        page.get_by_role("button", name="Stop the hub…").click()
        dialog = page.get_by_role("dialog", name="Stop the hub?")
        dialog.get_by_role("button", name="Stop the hub").click()
        expect(page.get_by_role("alert").first).to_contain_text("The hub has stopped.")
        expect(page.locator("#connection")).to_have_text("stopped")
        expect(page.get_by_role("alert").first).to_contain_text("Next try in")
        assert hub.process.wait() == 0
