"""The dashboard's pages in a browser, on a live cluster under load: what they show, and what can be done there."""

from __future__ import annotations

import json
import re
import time
from importlib.resources import files
from pathlib import Path

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from ...cli.process import LIMIT
from ..chrome import tasks_in
from .conftest import Cluster, Opening, number, one_kind_of_engine

pytestmark = pytest.mark.browser
expect.set_options(timeout=LIMIT * 1000)

PHONE: ViewportSize = {"width": 390, "height": 800}
TASKS_AT_HAND = re.compile(r"(?:[2-9]\d|\d{3}|\d,\d{3}) finished tasks")
LAPTOP: ViewportSize = {"width": 800, "height": 600}
VIEWS = ("overview", "engines", "stream", "tasks", "failures", "clients")


def go(page: Page, view: str) -> None:
    page.get_by_role("navigation", name="Views").get_by_role("link", name=view, exact=True).click()


def without_violations(page: Page, part: str = "html") -> None:
    """Check the part of the page that a selector names with axe; by default the whole page."""
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text())
    found = page.evaluate("part => axe.run(part, { resultTypes: ['violations'] })", part)["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []


def heading(page: Page, name: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_contain_text(name)


def test_the_overview_shows_numbers_that_change(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(cluster.hub.url)
    heading(page, "Overview")
    expect(page.get_by_role("status").first).to_have_text("live")
    assert "token" not in page.url, "nobody can read it over a shoulder"
    expect(page.locator(".tile", has_text="Engines").locator(".value")).to_have_text("4")
    expect(page.locator(".tile", has_text="Failed").locator(".value")).to_have_text("3")
    done = page.locator(".tile", has_text="Done").locator(".value")
    expect(done).to_have_text(re.compile(r"\d"))
    first = done.inner_text()
    expect(done).not_to_have_text(first)
    assert number(done.inner_text()) > number(first)
    finished = page.get_by_role("img", name="finished: now")
    expect(finished.locator("path").nth(1)).to_have_attribute("d", value=re.compile("M.+L"))
    expect(page.locator("tr", has_text="Running").locator("td").first).to_have_text(re.compile(r"\d"))
    page.reload()  # the cookie has the token now
    expect(page.get_by_role("status").first).to_have_text("live")


def test_an_engine_and_what_it_does(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(f"{cluster.hub.url}#/engines")
    rows = page.locator("tbody tr:not(.filler)")
    expect(rows).to_have_count(4)
    expect(page.locator("tr", has_text="long")).to_have_count(1)
    expect(page.locator(".funnel")).to_contain_text("4 registered")
    cpu = page.get_by_role("columnheader", name="CPU")
    expect(cpu).to_be_visible()  # our engines report it, and the hub has started the stock ones itself
    expect(rows.first.locator(".column-cpu")).to_have_text(re.compile(r"^\d+ %$"))
    expect(rows.first.locator(".column-memory")).to_have_text(re.compile(r"^[\d.]+ MB$"))
    expect(rows.first.locator(".column-machine")).to_have_text(re.compile(r"^\d+ % of \d+ cores, [\d.]+ of [\d.]+ GB$"))
    order = page.get_by_role("columnheader", name="Engine")
    expect(order).to_have_attribute("aria-sort", "ascending")
    first = rows.first.get_by_role("rowheader").inner_text()
    order.get_by_role("button").click()
    expect(order).to_have_attribute("aria-sort", "descending")
    expect(rows.last.get_by_role("rowheader")).to_have_text(first)
    page.get_by_label("Filter").fill("no such engine")
    expect(rows).to_have_count(0)
    page.get_by_label("Filter").fill("long")
    expect(rows).to_have_count(1)
    rows.first.get_by_role("rowheader").get_by_role("link").click()
    heading(page, "Engine 0")
    expect(page.locator(".facts")).to_contain_text("long, since ")
    expect(page.locator(".story li")).not_to_have_count(0)
    expect(page.locator("table tbody tr", has_text="long")).to_have_count(1)


def test_the_stream_is_gone_through_by_keyboard(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(f"{cluster.hub.url}#/stream")
    canvas = page.get_by_role("application", name="Task stream")
    summary = page.locator("#stream-summary")
    expect(summary).to_contain_text(TASKS_AT_HAND)
    expect(summary).not_to_contain_text(TASKS_AT_HAND.findall(summary.inner_text())[0])
    expect(page.get_by_role("list", name="Labels in sight")).to_contain_text("blast")
    expect(page.locator(".counts")).to_contain_text("waiting")
    canvas.focus()
    canvas.press("Space")
    expect(page.get_by_role("button", name="Paused")).to_have_attribute("aria-pressed", "false")
    for key in ("+", "-", "ArrowLeft", "ArrowDown", "0"):
        canvas.press(key)
    page.get_by_text("Show the visible part as a table").click()
    expect(page.get_by_role("table", name="Visible engines").locator("tbody tr")).to_have_count(4)
    canvas.focus()
    canvas.press(".")
    canvas.press(",")
    expect(page.locator("#announcer")).to_contain_text("on engine")
    canvas.press("Enter")
    heading(page, "Task ")
    expect(page.locator(".story li")).not_to_have_count(0)


def test_the_stream_says_what_is_in_sight(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(f"{cluster.hub.url}#/stream")
    summary = page.locator("#stream-summary")
    expect(summary).to_contain_text(TASKS_AT_HAND)
    canvas = page.get_by_role("application", name="Task stream")
    height = canvas.bounding_box()
    assert height is not None
    assert height["height"] > 300, "four engines have high rows"
    canvas.focus()
    canvas.press("Space")
    for _ in range(12):
        canvas.press("-")
    expect(summary).to_contain_text(re.compile(r"on 4 engines, \d+ \w+ "))  # with the day, some days ago
    canvas.press("0")
    sight = re.compile(r"In sight: ([\d,]+) tasks? of \d+ labels? on 4 engines, (\S+) to (\S+)\.")
    expect(summary).to_contain_text(sight)
    for _ in range(3):
        then = sight.search(summary.inner_text())
        assert then
        canvas.press("+")
        expect(summary).not_to_contain_text(f"{then[2]} to")  # though the stream is paused
        now = sight.search(summary.inner_text())
        assert now
        assert number(now[1]) <= number(then[1])
        assert now[2] > then[2]
        assert now[3] <= then[3]
    canvas.press("0")
    labels = page.get_by_role("list", name="Labels in sight")
    doomed = labels.get_by_role("button", name="doomed")
    expect(doomed).to_have_attribute("aria-pressed", "false")
    doomed.click()
    expect(doomed).to_have_attribute("aria-pressed", "true")
    expect(labels.get_by_role("button", name="blast")).to_have_attribute("aria-pressed", "false")
    expect(labels.get_by_role("button", name="run: 7, name: shine\ufffd")).to_be_visible()
    doomed.click()
    expect(doomed).to_have_attribute("aria-pressed", "false")


@one_kind_of_engine
def test_the_most_frequent_labels_have_colours_and_keep_them(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(cluster.hub.url)
    told = page.evaluate(
        """async () => {
          const { Colouring } = await import("./static/palette.js");
          const { labelLine } = await import("./static/format.js");
          const colouring = new Colouring();
          const seen = [];
          const choose = (counts) => {
            const changed = colouring.choose(new Map(counts));
            seen.push([changed, colouring.others, Object.fromEntries(colouring.colours)]);
          };
          choose([[1, 5], [2, 9]]);
          choose([[1, 50], [2, 9], [3, 7]]);
          choose([[3, 7], [4, 1]]);
          choose(Array.from({ length: 30 }, (_, index) => [index, 100 - index]));
          choose([]);
          return [seen, [JSON.stringify({a: 1, b: "x\\ny"}), '{"a": 1, "b', "two\\nlines", null].map(labelLine)];
        }"""
    )
    seen, lines = told
    assert seen[:3] == [
        [True, 0, {"2": 0, "1": 1}],
        [True, 0, {"2": 0, "1": 1, "3": 2}],
        [True, 0, {"3": 2, "4": 0}],
    ]
    changed, others, colours = seen[3]
    assert (changed, others, colours["3"], colours["4"]) == (True, 20, 2, 0)
    assert sorted(colours) == sorted(map(str, range(10)))
    assert sorted(colours.values()) == list(range(10))
    assert seen[4] == [True, 0, {}]
    assert lines == ["a: 1, b: x y", '{"a": 1, "b', "two lines", ""]


def test_a_click_on_a_bar_opens_its_task(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(f"{cluster.hub.url}#/stream")
    expect(page.locator("#stream-summary")).to_contain_text(TASKS_AT_HAND)
    canvas = page.get_by_role("application", name="Task stream")
    page.get_by_role("button", name="Fit").click()
    # The first row is that of the engine with the task that runs on and on: it is there at the right end.
    expect(canvas).to_be_visible()
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 65)
    expect(page.locator(".tip")).to_contain_text("long: running on engine 0")
    page.mouse.down()
    page.mouse.up()
    heading(page, "long")
    expect(page.locator("code").first).to_have_text(cluster.tasks["running"][0])


@one_kind_of_engine
def test_durations_are_told_as_people_read_them(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(cluster.hub.url)
    durations = [0, 0.0000351, 0.0009999, 0.0123, 0.9996, 1, 59.97, 60, 61.4, 3725, 90000]
    told = page.evaluate(
        "async (s) => { const { seconds } = await import('./static/format.js'); return s.map(seconds); }", durations
    )
    expected = ["0 s", "35.1 µs", "1 ms", "12.3 ms", "1 s", "1 s", "1 min 0 s", "1 min 0 s", "1 min 1 s", "1 h 2 min"]
    assert told == [*expected, "1 d 1 h"]


@one_kind_of_engine
def test_what_is_queued_at_an_engine_does_not_cover_what_runs_there(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(cluster.hub.url)
    sent = "[seq, 0, 10, end, 'mux', end ? 'ok' : 'running', 0, id]"
    found = page.evaluate(
        f"""async () => {{
          const {{ Bars, between }} = await import("./static/bars.js");
          const bars = new Bars();
          const told = [[1, 12, "a"], [2, 13, "b"], [3, null, "c"], [4, null, "d"]];
          bars.add({{ next: 4, lost: 0, labels: {{}}, engines: {{}}, waiting: 7,
            bars: told.map(([seq, end, id]) => {sent}) }});
          const shown = [...between(bars.rows.get(0), 0, 100)].map(({{ id, from, end }}) => [id, from, end]);
          return [shown, bars.open];
        }}"""
    )
    assert found == [[["a", 10, 12], ["b", 12, 13], ["c", 13, None]], {"running": 1, "queued": 1}]


def test_the_trace_is_one(cluster: Cluster, open_page: Opening, tmp_path: Path) -> None:
    page = open_page(f"{cluster.hub.url}#/stream")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export trace").click()
    download.value.save_as(tmp_path / "trace.json")
    assert download.value.suggested_filename == "trio-hub-trace.json"
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    tasks = tasks_in((tmp_path / "trace.json").read_text())
    assert len(tasks) > 20
    assert len(names) == 4
    assert {"align", "blast", "doomed", "long"} <= {event["name"] for event in tasks}
    began, now = page.evaluate("fetch('api/engines').then(a => a.json())")["now"] - 3600, time.time()
    assert all(began < event["ts"] / 1e6 <= (event["ts"] + event["dur"]) / 1e6 <= now + 1 for event in tasks)
    ended = [event["ts"] + event["dur"] for event in tasks if event["args"]["status"] != "running"]
    assert ended == sorted(ended)
    running = [event["args"]["msg_id"] for event in tasks if event["args"]["status"] == "running"]
    assert cluster.tasks["running"][0] in running


def test_tasks_are_found(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(f"{cluster.hub.url}#/tasks", expected={400})
    rows = page.locator(".rows tbody tr")
    expect(rows).not_to_have_count(0)
    progress = page.get_by_role("table", name="Progress by label")
    expect(progress.locator("tr", has_text="doomed").locator("td").nth(2)).to_have_text("3")
    page.get_by_label("Text").fill("doomed")
    expect(rows).to_have_count(3)
    page.get_by_label("Text").fill("")
    page.get_by_label("State").select_option("running")
    expect(rows.filter(has_text="long")).to_have_count(1)
    expect(rows.filter(has_text="victim")).to_have_count(0)
    page.get_by_label("State").select_option("queued")
    expect(rows.filter(has_text="victim").first.locator(".state")).to_have_text("queued")
    expect(rows.filter(has_text="long")).to_have_count(0)
    page.get_by_label("State").select_option("waiting")
    expect(rows.filter(has_text="heir").locator(".state")).to_have_text("waiting")
    expect(rows).to_have_count(1)
    page.get_by_label("State").select_option("any state")
    query = page.get_by_label("Query")
    query.fill('{"label": "vic')
    expect(page.locator("#query-error")).to_contain_text("This is not a query")
    query.fill('{"nonsense": 1}')
    expect(page.locator("#query-error")).to_contain_text("records have no such key")
    expect(query).to_have_attribute("aria-invalid", "true")
    query.fill('{"label": {"$glob": "vic*"}}')
    expect(page.locator("#query-error")).to_be_empty()
    waited = rows.filter(has_text="victim").first.locator("td").nth(4)
    expect(waited).to_have_text(re.compile(r"^\d"))
    before = waited.inner_text()
    expect(waited).not_to_have_text(before)  # it goes on by itself
    expect(rows.filter(has_text="victim")).not_to_have_count(0)
    page.reload()
    expect(page.get_by_label("Query")).to_have_value('{"label": {"$glob": "vic*"}}')
    expect(rows.filter(has_text="victim")).not_to_have_count(0)
    expect(rows.filter(has_text="blast")).to_have_count(0)


def test_states_have_one_word_and_errors_are_listed(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(f"{cluster.hub.url}#/tasks?state=failed&text=doomed")
    rows = page.locator(".rows tbody tr")
    expect(rows).not_to_have_count(0)
    expect(page.get_by_label("State").locator("option:checked")).to_have_text("failed")
    expect(rows.first.locator(".state")).to_have_text("failed")
    expect(rows.first.locator("td").nth(3)).to_have_text(re.compile("^ValueError: no <b>such</b> (luck|thing)$"))
    expect(rows.first.locator("td").nth(7)).to_have_text(re.compile(r"\d\d:\d\d:\d\d\.\d{3}$"))
    page.get_by_label("State").select_option("running")
    page.get_by_label("Text").fill("long")
    expect(rows).to_have_count(1)
    took = rows.first.locator("td").nth(5)
    expect(took).to_have_text(re.compile(r"^\d"))
    before = took.inner_text()
    expect(took).not_to_have_text(before)


def test_a_failure_with_its_traceback(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(f"{cluster.hub.url}#/failures")
    group = page.get_by_role("article").filter(has_text="luck")
    expect(group).to_have_count(1)  # three errors with two texts, of one line
    expect(group.get_by_role("heading")).to_contain_text(re.compile(r"^3. ValueError: no <b>such</b> (luck|thing)"))
    expect(group.get_by_role("list", name="Other texts")).to_have_text(
        re.compile("^also: no <b>such</b> (luck|thing)$")
    )
    expect(group.locator(".where")).to_contain_text(re.compile(r"browser/load.py:\d+ in fail"))
    expect(group.locator(".whose")).to_contain_text(re.compile(r"label: doomed \(3\) · engine: \d"))
    expect(group.locator(".when")).to_contain_text("first seen at")
    expect(group.get_by_role("img", name="Failures per minute in the last hour")).to_be_visible()
    group.get_by_text("Traceback of the newest").click()
    expect(group.locator("pre")).to_contain_text("raise ValueError")
    if cluster.engines == "stock":  # the tracebacks of our engines have no colours, unless they come from IPython
        expect(group.locator("pre .ansi-1").first).to_be_visible()
    group.get_by_role("link", name=re.compile("^task ")).click()
    heading(page, "doomed")
    expect(page.get_by_role("heading", name="ValueError: no <b>such</b> ")).to_be_visible()
    expect(page.get_by_role("region", name="Traceback").locator("pre")).to_contain_text("raise ValueError")
    assert page.locator("main b").count() == 0, "what the hub says is text"
    assert "\x1b" not in page.locator("main").inner_text()


def test_output_is_shown_as_in_a_terminal_and_downloaded_whole(
    cluster: Cluster, open_page: Opening, tmp_path: Path
) -> None:
    page = open_page(f"{cluster.hub.url}#/tasks/{cluster.tasks['shone'][0]}")
    output = page.get_by_role("region", name="Output (stdout)")
    expect(output).to_contain_text(re.compile("The first [0-9,]+ characters are not shown."))
    expect(output.locator("pre")).not_to_contain_text("first of all")
    assert "\n100 %\n" in output.locator("pre").inner_text()
    expect(output.locator(".ansi-1")).to_have_text("red")
    expect(output.locator(".ansi-2.ansi-bold")).to_have_text("green")
    assert "gpj.\ufffdexe\ufffd" in output.locator("pre").inner_text()
    with page.expect_download() as download:
        output.get_by_role("link", name="Download all of it").click()
    download.value.save_as(tmp_path / "stdout.txt")
    whole = (tmp_path / "stdout.txt").read_text()
    assert whole.startswith("first of all\n")
    assert "\x1b[31mred" in whole, "a file has what was printed"
    for view in ("tasks", "stream", "failures", "engines", f"tasks/{cluster.tasks['shone'][0]}"):
        page.evaluate("view => { location.hash = `#/${view}`; }", view)
        expect(page.get_by_role("heading", level=1)).to_be_focused()
        text = page.locator("main").inner_text() + page.title()
        assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text), view


@one_kind_of_engine
def test_a_terminal_in_small(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(cluster.hub.url)
    shown = page.evaluate(
        """async (texts) => {
          const { terminal } = await import("./static/terminal.js");
          const { h } = await import("./static/dom.js");
          return texts.map((text) => [...h("pre", {}, terminal(text)).childNodes].map((node) =>
            node.className ? [node.className, node.textContent] : node.textContent));
        }""",
        [
            "plain\ntext",
            "a\r\nb\r\n",
            "12345\rab",
            "12345\r\x1b[Kab",
            "abc\b\bX",
            "\x1b[1;31mbad\x1b[22m red\x1b[39m plain\nnext",
            "\x1b[38;2;0;200;0mg\x1b[38;5;196mr\x1b[38;5;240mk\x1b[m",
            "\x1b]8;;http://x\x07link\x1b]8;;\x07\x1b[?25l\x1b",
            "\x9b31m\u202e\ud800\0",
            "\x1b[1mbold\x1b(B\x1b[m plain\x1b7\x1b#8\x1b=\x1bc.",
        ],
    )
    assert shown == [
        ["plain\ntext"],
        ["a", "\n", "b", "\n"],
        ["ab345"],
        ["ab"],
        ["aXc"],
        [["ansi-1 ansi-bold", "bad"], ["ansi-1", " red"], " plain", "\n", "next"],
        [["ansi-2", "g"], ["ansi-1", "r"], ["ansi-0", "k"]],
        ["link"],
        ["\ufffd31m\ufffd\ufffd\ufffd"],
        [["ansi-bold", "bold"], " plain."],
    ]


def test_a_task_that_waits_is_aborted(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(f"{cluster.hub.url}#/tasks/{cluster.tasks['waiting'][0]}")
    heading(page, "victim")
    expect(page.locator(".callout")).to_contain_text("Why it waits")
    expect(page.locator(".facts")).to_contain_text(re.compile(r"Waiting for\s*\d"))
    expect(page.locator(".facts")).not_to_contain_text("Running for")
    expect(page.get_by_role("region", name="Engines for this task").get_by_role("row").nth(1)).to_contain_text("no")
    page.get_by_role("button", name="Abort…").click()
    dialog = page.get_by_role("dialog", name="Abort 1 task?")
    expect(dialog).to_contain_text("TaskAborted")
    expect(dialog.get_by_role("button", name="Go back")).to_be_focused()
    dialog.get_by_role("button", name="Abort 1 task").click()
    expect(dialog.get_by_role("status")).to_have_text("1 task was aborted.")
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(page.locator(".heading .state")).to_have_text("aborted")
    expect(page.get_by_role("button", name="Abort…")).to_be_disabled()


def test_tasks_that_are_chosen_are_resubmitted(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(f'{cluster.hub.url}#/tasks?query={{"msg_id":"{cluster.tasks["done"][0]}"}}')
    page.get_by_role("checkbox").check()
    expect(page.get_by_text("1 chosen")).to_be_visible()
    page.get_by_role("button", name="Resubmit…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Resubmit 1 task").click()
    expect(dialog.get_by_role("status")).to_contain_text("1 task was resubmitted")
    fresh = dialog.get_by_role("status").get_by_role("link").inner_text()
    dialog.get_by_role("button", name="Close").click()
    page.goto(f"{cluster.hub.address}/#/tasks/{fresh}")
    expect(page.locator(".heading .state")).to_have_text("ok")
    expect(page.locator(".facts")).to_contain_text("Resubmission of")
    expect(page.get_by_role("region", name="Output (stdout)")).to_contain_text("rested 0.01")
    page.get_by_role("button", name="Purge…").click()
    page.get_by_role("dialog").get_by_role("button", name="Go back").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator(".heading .state")).to_have_text("ok")


def test_all_matching_tasks_are_aborted_and_resubmitted(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(f'{cluster.hub.url}#/tasks?query={{"msg_id":"{cluster.tasks["waiting"][1]}"}}')
    state = page.locator(".rows tbody tr .state")
    expect(state).to_have_text("queued")
    page.get_by_role("button", name="Abort all matching…").click()
    dialog = page.get_by_role("dialog", name="Abort 1 task?")
    dialog.get_by_role("button", name="Abort 1 task").click()
    expect(dialog.get_by_role("status")).to_have_text("1 task was aborted.")
    dialog.get_by_role("button", name="Close").click()
    expect(state).to_have_text("aborted")
    page.get_by_role("button", name="Abort all matching…").click()
    dialog = page.get_by_role("dialog", name="Nothing to abort")
    dialog.get_by_role("button", name="Close").click()
    page.goto(f"{cluster.hub.address}/#/tasks?text=doomed")
    expect(state).to_have_count(3)
    page.goto(f"{cluster.hub.address}/#/failures")
    group = page.get_by_role("article").filter(has_text="luck")
    group.get_by_role("button", name="Resubmit all of these…").click()
    dialog = page.get_by_role("dialog", name="Resubmit the tasks of 3 failures?")
    dialog.get_by_role("button", name="Resubmit all of these").click()
    expect(dialog.get_by_role("status")).to_contain_text("3 tasks were resubmitted")
    dialog.get_by_role("button", name="Close").click()
    expect(group.get_by_role("heading")).to_contain_text(re.compile("^6. "))


def test_a_task_that_runs_is_cancelled(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(
        f"{cluster.hub.address}/?actor=ada&{cluster.hub.url.partition('?')[2]}#/tasks/{cluster.tasks['endless'][0]}"
    )
    heading(page, "endless")
    expect(page.locator(".heading .state")).to_have_text("running")
    page.get_by_role("button", name="Cancel…").click()
    dialog = page.get_by_role("dialog", name="Cancel 1 task?")
    dialog.get_by_label("Grace").fill("soon")
    dialog.get_by_role("button", name="Cancel 1 task").click()
    expect(dialog.get_by_role("status")).to_contain_text("“soon” is not a time")
    without_violations(page, "dialog")
    dialog.get_by_label("Grace").fill("1m")
    dialog.get_by_role("button", name="Cancel 1 task").click()
    expect(dialog.get_by_role("status")).to_have_text("1 task is interrupted.")
    dialog.get_by_role("button", name="Close").click()
    expect(page.locator(".heading .state")).to_have_text("failed")
    expect(page.get_by_role("heading", name="TaskCancelled: cancelled by ada (")).to_be_visible()
    expect(page.locator(".facts")).to_contain_text(
        re.compile("Cancelled by\\s*ada .*Cancelled at.*it was interrupted", re.DOTALL)
    )
    expect(page.locator(".story li", has_text="cancelled: by ada")).to_have_count(1)
    expect(page.get_by_role("button", name="Cancel…")).to_be_disabled()
    without_violations(page, "main")


def test_all_matching_tasks_are_cancelled(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(f'{cluster.hub.url}#/tasks?query={{"msg_id":"{cluster.tasks["waiting"][2]}"}}')
    expect(page.locator(".rows tbody tr .state")).to_have_text("queued")
    page.get_by_role("button", name="Cancel all matching…").click()
    dialog = page.get_by_role("dialog", name="Cancel 1 task?")
    dialog.get_by_role("button", name="Cancel 1 task").click()
    expect(dialog.get_by_role("status")).to_have_text("1 task was withdrawn.")
    dialog.get_by_role("button", name="Close").click()
    expect(page.locator(".rows tbody tr .state")).to_have_text("failed")
    page.get_by_role("button", name="Cancel all matching…").click()
    page.get_by_role("dialog", name="Nothing to cancel").get_by_role("button", name="Close").click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_an_engine_is_drained_and_undrained(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(f"{cluster.hub.url}#/engines")
    drained = page.get_by_role("columnheader", name="Drained")
    expect(page.get_by_role("checkbox", name="Choose engine 3")).to_be_visible()
    expect(drained).to_be_hidden()
    page.get_by_role("checkbox", name="Choose engine 3").check()
    expect(page.get_by_role("button", name="Undrain…")).to_be_disabled()
    page.get_by_role("button", name="Drain…", exact=True).click()
    dialog = page.get_by_role("dialog", name="Drain engine 3?")
    dialog.get_by_label("Deadline").fill("10m")
    expect(dialog.get_by_label("Then shut down")).not_to_be_checked()
    without_violations(page, "dialog")
    dialog.get_by_role("button", name="Drain engine 3").click()
    expect(dialog.get_by_role("status")).to_have_text("1 engine is drained.")
    dialog.get_by_role("button", name="Close").click()
    expect(drained).to_be_visible()
    row = page.locator("tbody tr", has=page.get_by_role("checkbox", name="Choose engine 3"))
    expect(row.locator(".column-drain")).to_have_text(re.compile(r"^until \d\d:\d\d:\d\d, by 127.0.0.1$"))
    if cluster.engines == "ours":
        expect(row.locator(".column-offers")).to_contain_text(re.compile(r"cores=\d+, host=\S+, memory=\d+M"))
    row.get_by_role("rowheader").get_by_role("link").click()
    heading(page, "Engine 3")
    expect(page.locator(".facts")).to_contain_text(re.compile(r"Drained\s*until \S+, by 127.0.0.1"))
    page.get_by_role("button", name="Undrain…").click()
    dialog = page.get_by_role("dialog", name="Undrain engine 3?")
    dialog.get_by_role("button", name="Undrain engine 3").click()
    expect(dialog.get_by_role("status")).to_have_text("1 engine gets tasks again.")
    dialog.get_by_role("button", name="Close").click()
    expect(page.locator(".facts")).not_to_contain_text("Drained")
    expect(page.locator(".story li", has_text="gets tasks again")).to_have_count(1)


@one_kind_of_engine
def test_the_policies_are_listed(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(f"{cluster.hub.url}#/tasks")
    page.get_by_text("Policies", exact=True).click()
    row = page.get_by_role("row", name=re.compile("^small "))
    expect(row).to_have_text(re.compile("small.*function=work.*priority=1.*configuration"))
    without_violations(page, "details")


def test_records_are_purged(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(f'{cluster.hub.url}#/tasks?query={{"msg_id":"{cluster.tasks["failed"][0]}"}}')
    expect(page.locator(".rows tbody tr")).to_have_count(1)
    page.get_by_role("button", name="Purge all matching…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("pre")).to_contain_text(cluster.tasks["failed"][0])
    dialog.get_by_role("button", name="Purge").click()
    expect(dialog.get_by_role("status")).to_have_text("1 record was purged.")
    dialog.get_by_role("button", name="Close").click()
    expect(page.get_by_text("No matching tasks.")).to_be_visible()


def test_each_client_has_its_queue(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(f"{cluster.hub.url}#/clients")
    row = page.locator(".rows tbody tr")
    expect(row).to_have_count(1)
    expect(row.locator(".state")).to_have_text("busy")
    expect(row.locator("td").nth(4)).not_to_have_text("0")  # running
    submitted = row.locator("td").nth(7)
    first = submitted.inner_text()
    expect(submitted).not_to_have_text(first)
    expect(row.get_by_role("button", name="Drop results…")).to_have_count(0)
    row.get_by_role("link").click()
    heading(page, "Tasks")
    expect(page.locator(".rows tbody tr")).not_to_have_count(0)


# What each view is for, which is to be seen without scrolling.
FIRST_SEEN = {
    "overview": ".tiles .value",
    "engines": ".rows tbody tr:not(.filler)",
    "stream": ".timeline canvas",
    "tasks": ".rows tbody tr",
    "failures": ".group h2",
    "clients": ".rows tbody tr",
}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_small_screen_shows_what_each_view_is_for(cluster: Cluster, open_page: Opening, dark: bool) -> None:
    page = open_page(cluster.hub.url, viewport=LAPTOP, dark=dark)
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text())
    for view, seen in FIRST_SEEN.items():
        go(page, view.capitalize())
        box = page.locator(seen).first.bounding_box()
        assert box is not None
        assert box["y"] + min(box["height"], 250) <= LAPTOP["height"], view
        links = page.locator("#views").bounding_box()
        assert links is not None
        assert links["height"] < 40, "the names of the views take one line"
        assert page.evaluate("document.documentElement.scrollWidth") <= LAPTOP["width"], view
        found = page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == [], view


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_view_fits_a_phone(cluster: Cluster, open_page: Opening, dark: bool) -> None:
    page = open_page(cluster.hub.url, viewport=PHONE, dark=dark)
    for view in VIEWS:
        go(page, view.capitalize())
        expect(page.get_by_role("heading", level=1)).to_be_focused()
        expect(page.locator("#views a[aria-current]")).to_have_text(view.capitalize())
        expect(page.get_by_role("status").first).to_have_text("live")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], view


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_keeps_anybody_from_using_a_view(cluster: Cluster, open_page: Opening, dark: bool) -> None:
    page = open_page(cluster.hub.url, dark=dark)
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text())
    engine = page.evaluate("fetch('api/engines').then(a => a.json())")["engines"][0]["uuid"]
    tasks = (cluster.tasks["failed"][1], cluster.tasks["shone"][0], cluster.tasks["running"][0])
    for view in (*VIEWS, f"engines/{engine}", *(f"tasks/{task}" for task in tasks)):
        page.evaluate("view => { location.hash = `#/${view}`; }", view)
        expect(page.get_by_role("heading", level=1)).to_be_focused()
        expect(page.locator("main :is(li, td, h2)").first).to_be_visible()
        found = page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == [], view


@one_kind_of_engine
def test_the_theme_is_remembered(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(cluster.hub.url, dark=False)
    switch = page.get_by_role("button", name="Theme")
    switch.click()
    switch.click()
    expect(switch).to_have_text("Theme: dark")
    page.reload()
    expect(page.get_by_role("button", name="Theme")).to_have_text("Theme: dark")
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"


@one_kind_of_engine
def test_a_keyboard_gets_past_the_navigation(cluster: Cluster, open_page: Opening) -> None:
    page = open_page(f"{cluster.hub.url}#/failures")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    heading(page, "Failures")
