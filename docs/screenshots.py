"""Takes the pictures of the dashboard that the documentation shows: ``python docs/screenshots.py``.

It needs chromium, and takes two minutes: a hub with stock engines runs made-up work of a bioinformatician, some
of which fails, and each view is taken in light and dark.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ipyparallel as ipp
from playwright.sync_api import Browser, sync_playwright

IMAGES = Path(__file__).parent / "images"
ENGINES = 8
TASKS = 2500
HISTORY = 75.0
"""Seconds of work that the pictures show."""
LABELS = {"align": 1.0, "call-variants": 2.5, "merge": 0.4, "quality": 0.15, "report": 0.8}
"""The labels of tasks, each with the approximate seconds that its tasks take."""
READY = {
    "engines": "tbody tr .state",
    "stream": ".legend.labels li",
    "tasks": ".rows tbody tr",
    "failures": ".group",
    "clients": ".rows tbody tr",
    "overview": "td:text('ms')",  # the last: that a browser starts is seen in its charts
}
"""An element that each view has when it is complete."""
NO_PATHS = """(paths) => {
  for (const pre of document.querySelectorAll("pre")) {
    const texts = document.createTreeWalker(pre, NodeFilter.SHOW_TEXT);
    while (texts.nextNode())
      for (const [path, name] of paths) texts.currentNode.data = texts.currentNode.data.replaceAll(path, name);
  }
}"""
"""JavaScript that removes the directories of this machine from tracebacks."""


def work(kind: str, sample: int, seconds: float) -> str:
    """Sleep and print, as work does. Every 40th sample fails."""
    import time

    time.sleep(seconds)
    if sample % 40 == 7:
        raise ValueError(f"{kind}: no reads are left of the sample after trimming")
    if sample % 97 == 13:
        return f"{sample / 0:.1f}"
    print(f"sample {sample}: {kind} took {seconds:.2f} s")
    return f"{kind}-{sample}.bam"


def submit(rc: ipp.Client) -> str:
    """Submit the tasks that the pictures show, and return the msg_id of a task that fails."""
    chance = random.Random(7)
    view: Any = rc.load_balanced_view()
    for sample in range(TASKS):
        kind = chance.choice(list(LABELS))
        with view.temp_flags(label=kind):
            result = view.apply_async(work, kind, sample, LABELS[kind] * chance.uniform(0.3, 1.7))
        if sample == 7:
            failed: str = result.msg_ids[0]
    with view.temp_flags(label="summary", after=result.msg_ids):
        view.apply_async(work, "summary", 0, 0.1)
    return failed


def take(browser: Browser, url: str, failed: str) -> None:
    for theme in ("light", "dark"):
        context = browser.new_context(
            viewport={"width": 1280, "height": 800}, color_scheme="dark" if theme == "dark" else "light"
        )
        page = context.new_page()
        places = {view: (view, ready) for view, ready in READY.items()}
        places["task"] = (f"tasks/{failed}", "pre")
        engine = page.request.get(url.replace("/?", "/api/engines?")).json()["engines"][0]["uuid"]
        places["engine"] = (f"engines/{engine}", ".rows tbody tr")
        for name, (place, ready) in places.items():
            page.goto(f"{url}#/{place}")
            page.locator(ready).first.wait_for()
            if name == "failures":
                page.locator("summary").first.click()
            page.evaluate(NO_PATHS, [[sys.prefix, "venv"], [str(Path(__file__).parent), "work"]])
            page.screenshot(path=IMAGES / f"dashboard-{name}-{theme}.png")
        context.close()


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="screenshots-") as directory:
        command = [sys.executable, "-m", "trio_hub", "serve", "--profile-dir", directory, "--engines", str(ENGINES)]
        command += ["--engine-command", "ipengine", "--dashboard", "0", "--dashboard-admin", "true"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as hub:
            assert hub.stdout is not None
            try:
                url = next(line.split()[-1] for line in hub.stdout if line.startswith("dashboard: "))
                rc = ipp.Client(profile_dir=directory, timeout=60)
                rc.wait_for_engines(ENGINES, timeout=120)
                failed = submit(rc)
                time.sleep(HISTORY)
                with sync_playwright() as playwright:
                    browser = playwright.chromium.launch(
                        executable_path=shutil.which("chromium"), args=["--no-sandbox"]
                    )
                    take(browser, url, failed)
                    browser.close()
                rc.close()
            finally:
                hub.terminate()


if __name__ == "__main__":
    main()
