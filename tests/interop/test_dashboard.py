"""The dashboard of a hub with stock engines and a stock client: what they do is seen, and can be stopped."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipyparallel as ipp
import pytest

from .conftest import LIMIT, Cluster, wait_until

pytestmark = pytest.mark.interop


class Site:
    """The dashboard, as a script asks it."""

    def __init__(self, cluster: Cluster) -> None:
        assert cluster.process.stdout is not None
        lines = map(bytes.decode, cluster.process.stdout)
        url = next(line for line in lines if line.startswith("dashboard: ")).removeprefix("dashboard: ").strip()
        self.address, _, token = url.partition("/?token=")
        self.headers = {"Authorization": f"Bearer {token}", "X-Trio-Hub": "1"}

    def __call__(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(f"{self.address}/api/{path}", data, self.headers)
        with urllib.request.urlopen(asked, timeout=LIMIT) as answer:
            return json.load(answer)


def read(path: str) -> str:
    """Read a named pipe, which waits until the test has written to it."""
    return Path(path).read_text()


def test_stock_tasks_are_seen_and_aborted_and_engines_stopped(
    start_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    cluster = start_cluster(0, "--dashboard", "0", "--dashboard-admin", "true")
    site = Site(cluster)
    cluster.start_engine()
    rc = cluster.client()
    rc.wait_for_engines(1, timeout=LIMIT)
    view = rc.load_balanced_view()
    text, pipe = tmp_path / "text", tmp_path / "pipe"
    text.write_text("at once")
    os.mkfifo(pipe)
    assert view.map_sync(read, [str(text), str(text)]) == ["at once", "at once"]
    runs = view.apply_async(read, str(pipe))
    wait_until(lambda: site("engines")["engines"][0]["running"], "the task runs")
    queued = view.apply_async(read, str(text))
    (victim,) = queued.msg_ids
    wait_until(lambda: rc.queue_status()["unassigned"] == 1, "the next has come")
    assert site(f"tasks/{victim}")["why_waiting"]
    assert site("actions/abort", {"msg_ids": [victim]}) == {"aborted": [victim], "not_queued": []}
    with pytest.raises(ipp.error.TaskAborted):
        queued.get(timeout=LIMIT)
    pipe.write_text("later")
    assert runs.get(timeout=LIMIT) == "later"
    labels = {row["label"]: row for row in site("labels")["labels"]}
    assert (labels["read"]["ok"], labels["read"]["aborted"]) == (3, 1)
    failing = view.apply_async(divmod, 1, 0)
    with pytest.raises(ipp.RemoteError):
        failing.get(timeout=LIMIT)
    (group,) = site("failures")["groups"]
    assert group["ename"] == "ZeroDivisionError"
    assert "ZeroDivisionError" in group["traceback"]
    (engine,) = site("engines")["engines"]
    assert site("actions/shutdown_engine", {"uuid": engine["uuid"]}) == {}
    wait_until(lambda: not rc.ids, "the engine is gone")
    wait_until(lambda: cluster.engines[0].poll() is not None, "its process has ended")


def test_the_events_say_which_client_did_what(start_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    cluster = start_cluster(0, "--dashboard", "0")
    site = Site(cluster)
    cluster.start_engine()
    rc = cluster.client()
    rc.wait_for_engines(1, timeout=LIMIT)
    view = rc.load_balanced_view()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    runs = view.apply_async(read, str(pipe))
    queued = [view.apply_async(abs, number) for number in range(3)]
    wait_until(lambda: rc.queue_status()["unassigned"] == 3, "the others have come")
    rc.abort(queued)
    for result in queued:
        with pytest.raises(ipp.error.TaskAborted):
            result.get(timeout=LIMIT)
    pipe.write_text("now")
    assert runs.get(timeout=LIMIT) == "now"
    pipe.unlink()
    pipe.write_text("again")
    assert rc.resubmit(runs.msg_ids).get(timeout=LIMIT) == ["again"]
    rc.purge_results(runs)
    rc.shutdown()
    asked = ("asked engine 0 to end", "purged 1 record", "resubmitted 1 request", "asked to abort 3 requests")
    who = f"client {rc.session.session[:8]} ({rc.session.username})"

    def told() -> list[str]:
        return [entry["text"] for entry in site("journal")["entries"] if entry["who"] == who]

    wait_until(lambda: told() == list(asked), "the journal has what this client did")
