"""Pools in a browser: the section of the overview, the page of a pool, and what can be done there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from ...cli.process import LIMIT
from .conftest import DESK, Opening
from .test_views import PHONE, without_violations

pytestmark = pytest.mark.browser
NOTHING = "\N{EN DASH}"
expect.set_options(timeout=LIMIT * 1000)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    script = [sys.executable, "-m", f"{__package__}.pretended"]
    with subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
            process.stdin.close()
            assert process.wait(LIMIT) == 0
        finally:
            process.kill()


def test_pools_are_seen_on_the_overview_and_one_by_one(url: str, open_page: Opening) -> None:
    page = open_page(url, dark=True)
    rows = page.get_by_role("region", name="Pools").get_by_role("row")
    expect(rows).to_have_count(4)
    expect(rows.nth(1)).to_contain_text("local")
    cells = rows.nth(2).locator("th, td")
    expect(cells).to_have_text(
        [
            *("slurm", "steady", "0 to 8", "7", "4", "0", "4", "1", "1.5", "3.75"),
            "slurm has 1 block in the queue of the batch system; at most 1 (backlog). It has tasks that could use more "
            "engines.",
        ]
    )
    alerts = page.get_by_role("list", name="Alerts")
    expect(alerts).to_contain_text("Pool broken asks for no more blocks: 10 blocks in a row failed (sbatch: error")
    without_violations(page)
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.set_viewport_size(DESK)
    rows.nth(2).get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Pool slurm")
    expect(page.locator(".facts")).to_contain_text(
        [re.compile("There\\s*4 engines, 1 idle"), re.compile("Launcher\\s*slurm"), "3.75 (2.5 per engine-hour)"]
    )
    blocks = page.get_by_role("region", name="Blocks").get_by_role("row")
    expect(blocks.nth(1).locator("th, td")).to_contain_text(
        ["slurm-2", "waiting", "4712", "4", "", NOTHING, "Resources"]
    )
    expect(blocks.nth(2).locator("th, td")).to_contain_text(
        ["slurm-1", "running", "4711", "4 of 4 came", "", "", NOTHING]
    )
    expect(page.get_by_role("button", name="Resume…")).to_be_disabled()
    without_violations(page)


def test_a_pool_is_scaled(url: str, open_page: Opening) -> None:
    page = open_page(f"{url}#/pools/slurm")
    engines = page.locator(".facts").nth(1).locator("div", has_text="Engines").first
    expect(engines).to_have_text("Engines0 to 8")
    page.get_by_role("button", name="Scale…").click()
    dialog = page.get_by_role("dialog", name="Scale pool slurm?")
    scale = dialog.get_by_role("button", name="Scale pool slurm")
    outcome = dialog.get_by_role("status")
    expect(dialog.get_by_label("At least")).to_have_value("0")
    dialog.get_by_label("At most").fill("many")
    scale.click()
    expect(outcome).to_contain_text("“many” is not a number of engines")
    dialog.get_by_label("At most").fill("16")
    dialog.get_by_label("At least").fill("4")
    without_violations(page)
    scale.click()
    expect(outcome).to_have_text("The pool has 4 to 16 engines from now on.")
    dialog.get_by_role("button", name="Close").click()
    expect(engines).to_have_text("Engines4 to 16")
    expect(page.locator(".facts").nth(1)).to_contain_text(re.compile("Configured\\s*0 to 8"))
    page.get_by_role("button", name="Scale…").click()
    dialog.get_by_label("As configured: 0 to 8 engines").check()
    expect(dialog.get_by_label("At least")).to_be_disabled()
    scale.click()
    expect(outcome).to_have_text("The pool has 0 to 8 engines from now on.")


def test_a_stopped_pool_is_resumed(url: str, open_page: Opening) -> None:
    page = open_page(url)
    page.get_by_role("list", name="Alerts").get_by_role("link", name=re.compile("Pool broken")).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Pool broken")
    failure = page.locator(".callout")
    expect(failure).to_have_text(
        "The last 10 blocks have failed: sbatch: error: invalid partition specified: nowhere. The pool asks for no "
        "more blocks. Mend the cause, then resume the pool."
    )
    expect(page.get_by_text("The pool has no blocks now.")).to_be_visible()
    page.get_by_role("button", name="Resume…").click()
    dialog = page.get_by_role("dialog", name="Resume pool broken?")
    dialog.get_by_role("button", name="Resume pool broken").click()
    expect(dialog.get_by_role("status")).to_have_text("The pool asks for blocks again.")
    dialog.get_by_role("button", name="Close").click()
    expect(failure).to_be_hidden()
    expect(page.get_by_role("button", name="Resume…")).to_be_disabled()


def test_a_page_without_engines_names_the_pools_that_bring_some(url: str, open_page: Opening) -> None:
    page = open_page(f"{url}#/engines")
    expect(page.get_by_text("These pools bring engines when tasks need them: slurm, broken.")).to_be_visible()
