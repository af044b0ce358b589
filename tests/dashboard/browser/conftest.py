"""A browser, and a cluster for it to look at. The browser's own event loop stays in these modules."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Response, ViewportSize, sync_playwright

from ...cli.process import LIMIT, Command, command

CHROMIUM = shutil.which("chromium")
DESK: ViewportSize = {"width": 1280, "height": 800}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        assert "CI" not in os.environ, "chromium is missing: apt-get install chromium"
        pytest.skip("needs chromium: apt-get install chromium")
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]) as browser,
    ):
        yield browser


class Hub(NamedTuple):
    """`trio-hub serve`, with a dashboard."""

    process: Command
    url: str
    """The URL of the dashboard, with its token."""

    @property
    def address(self) -> str:
        return self.url.partition("/?")[0]


@contextmanager
def serving(directory: Path, *options: str, port: int = 0, token: str = "") -> Iterator[Hub]:
    settings = ("--profile-dir", str(directory / "profile"), "--dashboard", str(port), *options)
    env = {"IPP_NONINTERACTIVE": "1"} | ({"TRIO_HUB_DASHBOARD_TOKEN": token} if token else {})
    with command("serve", *settings, env=env) as process:
        url = process.wait_line("stdout", r"dashboard: (http\S+)")[1]
        try:
            yield Hub(process, url)
        finally:
            process.process.terminate()
            assert process.wait() == 0, process


class Cluster(NamedTuple):
    """A hub with four engines and a stock client that keeps them busy."""

    engines: str
    """The kind of the engines: ``stock`` or ``ours``."""
    hub: Hub
    tasks: dict[str, list[str]]
    """Msg_ids of tasks by state: ``failed``, ``done``, ``running``, ``waiting`` for the running one, and
    ``endless``, which runs on another engine."""


ENGINES = {"stock": ["--engine-command=ipengine"], "ours": []}
"""The options for each kind of engine."""
one_kind_of_engine = pytest.mark.parametrize("cluster", ["ours"], indirect=True)
"""Marks a test of a page to which the engines make no difference."""


@pytest.fixture(scope="module", params=list(ENGINES))
def cluster(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("cluster")
    (directory / "hub.toml").write_text('[[policy]]\nname = "small"\nfunction = "work"\npriority = 1\n')
    options = (
        "--engines=4",
        *ENGINES[request.param],
        "--dashboard-admin=true",
        "--config",
        str(directory / "hub.toml"),
    )
    with serving(directory, *options) as hub:
        script = [sys.executable, str(Path(__file__).with_name("load.py")), str(directory / "profile")]
        with subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            try:
                yield Cluster(request.param, hub, json.loads(client.stdout.readline()))
            finally:
                client.stdin.close()
                try:
                    client.wait(LIMIT)
                finally:
                    client.kill()


def about_noon() -> str:
    """Return a time zone in which it is about noon: near midnight, the pages also show the day of a time."""
    hours = 12 - datetime.now(UTC).hour
    return f"Etc/GMT{-hours:+d}"  # these names have the opposite sign


class Watched:
    """The errors of a page: errors in its console or its code, and answers that are errors."""

    def __init__(self, page: Page) -> None:
        self.console: list[str] = []
        self.answers: set[int] = set()
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.console.append(f"uncaught: {error}"))
        page.on("response", self._answered)

    def _said(self, message: ConsoleMessage) -> None:
        # That an answer is an error, the browser says itself: that is in `answers`.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.console.append(message.text)

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self.answers.add(response.status)


class OpenPage(NamedTuple):
    page: Page
    watched: Watched


Opening = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Opening]:
    """Open pages, each in its own context. In the end, no page may have had errors, except `expected` answers."""
    opened: list[tuple[BrowserContext, Watched, set[int]]] = []

    def open_at(
        url: str, *, expected: set[int] | None = None, viewport: ViewportSize = DESK, dark: bool = False
    ) -> Page:
        context = browser.new_context(
            viewport=viewport, color_scheme="dark" if dark else "light", timezone_id=about_noon()
        )
        context.set_default_timeout(LIMIT * 1000)
        page = context.new_page()
        opened.append((context, Watched(page), expected or set()))
        page.goto(url)
        return page

    yield open_at
    for context, watched, expected in opened:
        context.close()
        assert watched.console == []
        assert watched.answers == expected


def number(text: str) -> int:
    """Return the number at the beginning of a text such as "1,234 tasks"; 0 if there is none."""
    found = re.match(r"[\d,]+", text)
    return int(found[0].replace(",", "")) if found else 0
