"""The commands that ask a hub, with stock engines: at a stock ipcontroller, and at our hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.testing
import ipyparallel as ipp
import pytest

from trio_hub.cli import main

from .conftest import LIMIT, Cluster, wait_until
from .controllers import ipcontroller

pytestmark = pytest.mark.interop


class Terminal:
    """Calls commands that ask one hub."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def run(self, *arguments: str) -> tuple[int, str, str]:
        where = [f"--profile-dir={self.directory}", f"--answer-within={LIMIT}"]
        result = click.testing.CliRunner().invoke(main, [*arguments, *where])
        return result.exit_code, result.stdout.rstrip("\n"), result.stderr

    def json(self, *arguments: str) -> Any:
        code, printed, complaint = self.run(*arguments, "--json")
        assert code == 0, complaint
        return json.loads(printed)


def fail() -> None:
    raise ValueError("no tide at noon")


def until_completed(client: ipp.Client, count: int) -> None:
    """Wait until the hub knows the end of so many requests. ipcontroller's hub hears of it later than the client."""
    wait_until(lambda: client.queue_status()[0]["completed"] >= count, "the hub knows the end of the requests")


def submit(client: ipp.Client) -> tuple[str, str, str]:
    """A call that succeeds, one that fails, and code that is executed."""
    view = client.load_balanced_view()
    with view.temp_flags(label="tides"):
        good, bad = view.apply_async(pow, 2, 10), view.apply_async(fail)
    executed = client[0].execute("print('half way'); 6 * 7", silent=False)
    for result in (good, bad, executed):
        result.wait(LIMIT)
    until_completed(client, 3)
    return good.msg_ids[0], bad.msg_ids[0], executed.msg_ids[0]


def look_at_everything(at: Terminal, kind: str) -> None:
    """Call every command that works with any hub that keeps records."""
    assert at.json("wait", "--engines", "1", f"--timeout={LIMIT}") == {"engines": 1}
    with ipp.Client(profile_dir=str(at.directory), timeout=LIMIT) as client:
        good, bad, executed = submit(client)
    assert at.json("wait", f"--timeout={LIMIT}") == {"idle": True, "completed": 3}
    code, printed, _ = at.run("wait", good, bad)
    assert (code, printed) == (1, f"{bad} has failed")
    status = at.json("status")
    assert status["hub"]["kind"] == kind
    assert status["engines"] == {"count": 1, "busy": 0, "idle": 1}
    assert status["queues"] == {"unassigned": 0, "tasks": 0, "direct": 0}
    assert {name: status["latest"][name] for name in ("ok", "failed", "aborted")} == {
        "ok": 2,
        "failed": 1,
        "aborted": 0,
    }
    assert at.run("status")[0] == at.run("engines")[0] == 0
    assert at.json("engines")["engines"][0]["completed"] == 3

    def found(*arguments: str) -> list[str]:
        return [row["msg_id"] for row in at.json("tasks", *arguments)["tasks"]]

    assert found() == [good, bad, executed]
    assert found("--state", "failed") == [bad]
    assert found("--state", "ok", "--since", "1h") == [good, executed]
    assert found("--state", "running") == found("--state", "queued") == found("--state", "waiting") == []
    assert found("--label", "tides", "--engine", "0", "--limit", "1") == [bad]
    assert "ValueError: no tide at noon" in at.run("task", bad)[1]
    assert at.json("task", executed)["stdout"] == "half way\n"
    assert at.run("result", good)[1] == "1024"
    assert at.run("result", executed)[1] == "42"
    code, _, complaint = at.run("result", bad)
    assert code == 1
    assert "ValueError: no tide at noon" in complaint
    assert at.run("result", "nobody")[0] == 1
    first, second = map(json.loads, at.run("top", "--count=2", "--interval=0.1", "--json")[1].splitlines())
    assert first["completed"] == second["completed"] == 3
    assert [row["msg_id"] for row in second["failures"]] == [bad]
    again = at.json("resubmit", good)["resubmitted"][good]
    assert at.run("result", again)[1] == "1024"
    code, printed, _ = at.run("abort", good)
    assert (code, printed) == (1, f"{good} has finished already")
    assert at.json("purge", "--query", '{"label": {"$eq": "tides"}}', "--yes")["purged"] >= 2
    assert bad not in found()
    assert at.run("purge", "--all", "--yes")[0] == 0
    assert found() == []
    assert at.run("shutdown", "--hub", "--yes")[:2] == (0, "told 1 engine and the hub to stop")


def test_at_a_stock_controller(tmp_path: Path) -> None:
    directory = tmp_path / "profile"
    with ipcontroller(directory) as controller:
        look_at_everything(Terminal(directory), "ipcontroller")
        controller.wait(LIMIT)


def test_at_our_hub(start_cluster: Callable[..., Cluster]) -> None:
    cluster = start_cluster(1)
    look_at_everything(Terminal(cluster.profile_dir), "trio-hub")
    assert cluster.process.wait(LIMIT) == 0


def test_at_a_stock_controller_that_keeps_no_records(tmp_path: Path) -> None:
    directory = tmp_path / "profile"
    with ipcontroller(directory, "--nodb"):
        at = Terminal(directory)
        assert at.run("wait", "--engines", "1", f"--timeout={LIMIT}")[0] == 0
        with ipp.Client(profile_dir=str(directory), timeout=LIMIT) as client:
            msg_id = client.load_balanced_view().apply_async(pow, 2, 10).msg_ids[0]
            until_completed(client, 1)
            assert at.json("wait", msg_id) == {"finished": 1, "failed": None}
        status = at.json("status")
        assert status["latest"] is None
        assert status["completed"] == 1
        assert not status["database"]["answers"]
        assert "finished    -" in at.run("status")[1]
        code, printed, _ = at.run("top", "--count=1")
        assert code == 0
        assert "no records: " in printed
        code, printed, complaint = at.run("tasks")
        assert (code, printed) == (1, "")
        assert complaint.startswith("trio-hub: NoData")
