"""What the overview remembers, and how calm it is: alerts, events, ranges of time, rates, and the order of rows."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import Locator, Page, ViewportSize, expect

from ...cli.process import LIMIT
from .conftest import Cluster, Hub, Opening, one_kind_of_engine, serving

pytestmark = pytest.mark.browser
expect.set_options(timeout=LIMIT * 1000)

SMALL: ViewportSize = {"width": 800, "height": 600}
TOKEN = "a-token-of-this-test"
SIGKILL = re.compile(r"Engine \d(: | was lost: )killed by signal 9 \(SIGKILL\)")
ANNOUNCED = """() => {
  window.announced = [];
  const region = document.getElementById("announcer");
  new MutationObserver(() => window.announced.push(region.textContent)).observe(region, { childList: true });
}"""
OVERVIEWS = """async (n) => {
  const source = new EventSource("api/events");
  await new Promise((done) => source.addEventListener("overview", () => --n || done()));
  source.close();
}"""
"""JavaScript: wait for some overviews."""


def alerts(page: Page) -> Locator:
    return page.get_by_role("list", name="Alerts").locator("li")


def ask(hub: Hub, path: str) -> Any:
    """Return an answer of the dashboard, as a script gets it."""
    with urlopen(Request(hub.address + path, headers={"Authorization": f"Bearer {TOKEN}"}), timeout=LIMIT) as answer:
        return json.load(answer)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def remembers(hub: Hub, kind: str) -> bool:
    return any(entry["kind"] == kind for entry in ask(hub, "/api/journal")["entries"])


def kill_an_engine(hub: Hub) -> None:
    os.kill(ask(hub, "/api/engines")["engines"][0]["pid"], signal.SIGKILL)


SETTINGS = ("--engines=2", "--dashboard-admin=true")


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Hub]:
    """A hub with two engines of ours."""
    with serving(tmp_path, *SETTINGS, token=TOKEN) as hub:
        yield hub


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """The same, with the profile of a hub that has lost an engine and has ended."""
    profile = tmp_path_factory.mktemp("memory")
    with serving(profile, *SETTINGS, token=TOKEN) as hub:
        wait_until(lambda: ask(hub, "/api/status")["engines"] == 2)
        kill_an_engine(hub)
        wait_until(lambda: remembers(hub, "engine_lost"))
    with serving(profile, *SETTINGS, token=TOKEN) as hub:
        yield hub


def with_engines(page: Page) -> None:
    expect(page.locator(".tile", has_text="Engines").locator(".value")).to_have_text("2")


def test_an_engine_that_was_lost_needs_attention_until_that_is_dismissed(fresh: Hub, open_page: Opening) -> None:
    page = open_page(fresh.url)
    with_engines(page)
    expect(alerts(page)).not_to_have_count(0)
    expect(alerts(page).filter(has_text="lost in the last hour")).to_have_count(0)
    page.evaluate(ANNOUNCED)
    kill_an_engine(fresh)
    lost = alerts(page).filter(has_text="1 engine was lost in the last hour.")
    expect(lost).to_contain_text(SIGKILL)
    with_engines(page)  # it is started again, and yet nothing is forgotten
    expect(alerts(page).filter(has_text="cannot be used")).to_have_count(0)
    expect(page.locator(".tile", has_text="Engines")).to_contain_text("1 lost in the last hour")
    expect(page.get_by_text("No problems found.")).to_have_count(0)
    events = page.get_by_role("region", name="Events").locator("li")
    expect(events.filter(has_text="was lost")).to_contain_text(SIGKILL)
    page.evaluate(OVERVIEWS, 3)
    announced = [text for text in page.evaluate("window.announced") if "was lost" in text]
    assert len(announced) == 1, "it is said once, though numbers change"
    page.get_by_role("checkbox", name="only warnings and errors").check()
    # On a busy machine there is also an event about the event loop.
    expect(events.filter(has_not_text="event loop was blocked")).to_have_count(1)

    lost.get_by_role("button", name="Dismiss").click()
    expect(lost).to_have_count(0)
    expect(alerts(page).last).to_contain_text("1 alert is dismissed.")
    page.reload()
    expect(alerts(page).last).to_contain_text("1 alert is dismissed.")
    expect(lost).to_have_count(0)
    page.get_by_role("button", name="Show again").click()
    expect(lost).to_have_count(1)


def test_a_restart_forgets_nothing(second: Hub, open_page: Opening) -> None:
    page = open_page(second.url)
    expect(alerts(page).filter(has_text="1 engine was lost in the last hour.")).to_contain_text(SIGKILL)
    events = page.get_by_role("region", name="Events").locator("li")
    expect(events.filter(has_text=SIGKILL)).to_have_count(1)
    expect(events.filter(has_text="The hub stops: SIGTERM.")).to_have_count(1)
    expect(events.filter(has_text="The dashboard has started")).to_have_count(2)


def test_the_charts_show_an_hour_and_a_day(second: Hub, open_page: Opening) -> None:
    page = open_page(second.url)
    expect(page.get_by_role("img", name="In the last 5 minutes, alive: now 2")).to_be_visible()
    visited = page.evaluate("history.length")
    choices = page.get_by_role("group", name="Time shown in the charts")
    axis = page.locator(".chart").first.locator(".axis span")
    expect(axis).not_to_have_count(0)
    minutes = axis.all_text_contents()
    assert all(re.fullmatch(r"\d\d:\d\d", text) for text in minutes)
    choices.get_by_role("button", name="1 h", exact=True).click()
    expect(page.get_by_role("img", name="In the last hour, alive: now")).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("In the last hour.*lost: now 0, at most 1"))).to_be_visible()
    assert {text[-1] for text in axis.all_text_contents()} == {"0"}
    assert page.url.endswith("#/overview?range=hour")
    page.reload()
    hour = choices.get_by_role("button", name="1 h", exact=True)
    expect(hour).to_have_attribute("aria-pressed", "true")
    choices.get_by_role("button", name="24 h").click()
    expect(hour).to_have_attribute("aria-pressed", "false")
    expect(page.get_by_role("img", name="In the last 24 hours, alive: now")).to_be_visible()
    assert {text[3:] for text in axis.all_text_contents()} == {"00"}
    choices.get_by_role("button", name="5 min").click()
    expect(page.get_by_role("img", name="In the last 5 minutes, alive: now")).to_be_visible()
    assert page.url.endswith("#/overview")
    assert page.evaluate("history.length") == visited, "the ranges are one page for the browser"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_first_screen_of_a_small_window_has_the_alerts_and_all_numbers(
    second: Hub, open_page: Opening, dark: bool
) -> None:
    page = open_page(second.url, viewport=SMALL, dark=dark)
    with_engines(page)
    expect(alerts(page).filter(has_text="was lost in the last hour")).to_have_count(1)
    places = [tile.bounding_box() for tile in [*alerts(page).all(), *page.locator(".tile").all()]]
    assert len(places) >= 9
    assert all(place and place["y"] + place["height"] <= SMALL["height"] for place in places)
    assert page.evaluate("document.documentElement.scrollWidth") <= SMALL["width"]
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text())
    found = page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []


def test_failed_and_aborted_tasks_are_counted_apart(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(cluster.hub.url)
    tile = page.locator(".tile")
    expect(tile.filter(has_text="Failed").locator(".value")).to_have_text("3")
    expect(tile.filter(has_text="Aborted").locator(".value")).to_have_text("0")
    page.evaluate(
        """(id) => fetch("api/actions/abort?actor=ada", { method: "POST", headers: { "X-Trio-Hub": "1" },
             body: JSON.stringify({ msg_ids: [id] }) })""",
        cluster.tasks["waiting"][0],
    )
    expect(tile.filter(has_text="Aborted").locator(".value")).to_have_text("1")
    expect(tile.filter(has_text="Failed").locator(".value")).to_have_text("3")
    expect(page.get_by_role("region", name="Events")).to_contain_text("ada (127.0.0.1) aborted 1 task")
    expect(tile.filter(has_text="Done")).to_contain_text(re.compile(r"[\d.,]+/s in 10 s\s*[\d.,]+/s in 60 s"))
    tile.filter(has_text="Aborted").get_by_role("link").click()
    rows = page.locator(".rows tbody tr")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("victim")
    victims = page.get_by_role("table", name="Progress by label").locator("tr", has_text="victim")
    expect(victims.locator("td").nth(3)).to_have_text("1")


@one_kind_of_engine
def test_numbers_have_no_more_digits_than_they_are_worth(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(cluster.hub.url)
    told = page.evaluate(
        """async () => {
          const { about, bytes, percent, rate } = await import("./static/format.js");
          return [
            [0, 0.001, 0.0512, 3.16, 47.3, 123.4, 12345].map(rate),
            [0, 0.0001, 0.0123, 0.4567, 1].map(percent),
            [12, 1234, 87300000, 1234567890].map(bytes),
            [0.0000351, 0.01234, 1.26, 59.97, 123.4].map(about),
          ];
        }"""
    )
    assert told == [
        ["0/s", "0/s", "0.051/s", "3.2/s", "47/s", "123/s", "12,300/s"],
        ["0 %", "< 0.1 %", "1.2 %", "46 %", "100 %"],
        ["12 B", "1.2 kB", "87 MB", "1.2 GB"],
        ["35 µs", "12 ms", "1.3 s", "1 min 0 s", "2 min 3 s"],
    ]


@one_kind_of_engine
def test_rows_of_the_progress_keep_their_places(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(cluster.hub.url)
    shown = page.evaluate(
        """async () => {
          const { arrange } = await import("./static/progress.js");
          const rows = (numbers) => Object.entries(numbers).map(([label, queued]) => ({ label, queued, running: 0 }));
          const first = arrange([], rows({ a: 1, b: 9, c: 5 }), 2, new Map(), 0);
          const later = arrange(first, rows({ a: 8, b: 1, c: 2 }), 2, new Map(), 1);
          const idle = arrange(first, rows({ a: 8, b: 0, c: 2 }), 2, new Map([["b", 10]]), 60);
          const long = arrange(first, rows({ a: 8, b: 0, c: 2 }), 2, new Map([["b", 10]]), 70);
          const all = arrange(first, rows({ a: 0, b: 0, c: 0 }), 2, new Map([["a", 0], ["b", 0], ["c", 0]]), 99);
          const gone = arrange(first, rows({ a: 1, c: 1 }), 2, new Map(), 0);
          return [first, later, idle, long, all, gone];
        }"""
    )
    assert shown == [["b", "c"], ["b", "c"], ["b", "c"], ["a", "c"], ["b", "c"], ["c", "a"]]


@one_kind_of_engine
def test_an_alert_is_announced_once_and_again_when_it_comes_again(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(cluster.hub.url)
    told = page.evaluate(
        """async () => {
          const { unannounced } = await import("./static/attention.js");
          const alert = (id, until = null, event = false) => ({ id, until, event, text: id });
          const ids = (alerts, at) => unannounced(alerts, at * 1000).map(({ id }) => id);
          return [
            ids([alert("x:1"), alert("y:5", 6)], 10),
            ids([alert("x:1")], 11),
            ids([alert("x:1", 12)], 12),
            ids([alert("x:900")], 900),
            ids([alert("z:20", 20, true)], 20),
            ids([alert("z:21", 21, true)], 21),
            ids([alert("z:51", 51, true)], 51),
          ];
        }"""
    )
    assert told == [["x:1"], [], [], ["x:900"], ["z:20"], [], ["z:51"]]
