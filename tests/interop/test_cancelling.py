"""Cancels, limits and drains with a stock client, and with stock engines and engines of ours that run real code."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import ipyparallel as ipp
import pytest

from .conftest import LIMIT, Cluster, wait_until
from .test_rules import wait_for

pytestmark = pytest.mark.interop

StartCluster = Callable[..., Cluster]
STOCK: tuple[str, ...] = ()
OURS = ("--engine-command", f"{sys.executable} -m trio_hub engine")
CANCELS = 60


def spin(seconds: float) -> float:
    """Run Python code for some time, so that a signal can interrupt it at once."""
    import time

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.001)
    return seconds


def begin(directory: str, seconds: float) -> None:
    """Say that this has begun, and run on."""
    import os
    import time

    open(f"{directory}/{os.getpid()}", "w").close()
    time.sleep(seconds)


def deaf(begun: str) -> None:
    """Ignore interrupts, say so, and run on."""
    import signal
    import time

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    open(begun, "w").close()
    time.sleep(600)


def ask(rc: ipp.Client, msg_type: str, content: dict[str, Any]) -> dict[str, Any]:
    """Send the hub a query as a stock client sends its own, and return the content of the reply."""
    found = rc._send_recv(rc._query_stream, msg_type, content=content)["content"]
    assert isinstance(found, dict)
    assert found["status"] == "ok", found
    return found


def cancel(rc: ipp.Client, *msg_ids: str, **options: Any) -> dict[str, str]:
    done = ask(rc, "cancel_request", {"msg_ids": list(msg_ids)} | options)["cancelled"]
    assert isinstance(done, dict)
    return done


def error_of(result: ipp.AsyncResult) -> str:
    with pytest.raises(ipp.RemoteError) as raised:
        result.get(LIMIT)
    return f"{raised.value.ename}: {raised.value.evalue}"


@pytest.mark.parametrize("options", [STOCK, OURS], ids=["stock engines", "engines of ours"])
def test_work_that_runs_is_cancelled(start_cluster: StartCluster, options: tuple[str, ...], tmp_path: Path) -> None:
    cluster = start_cluster(2, *options)
    rc = cluster.client()
    rc.wait_for_engines(2, timeout=LIMIT)
    view = rc.load_balanced_view()
    # a stock engine does not hear an interrupt just before it begins a request, and is killed after the grace
    both, shares = tmp_path / "both", tmp_path / "shares"
    both.mkdir()
    shares.mkdir()
    with view.temp_flags(targets=[0]):
        task = view.apply_async(begin, str(both), LIMIT)
    direct = rc[1].apply_async(begin, str(both), LIMIT)
    wait_until(lambda: len(list(both.iterdir())) == 2, "both have begun")
    [msg_id], [called] = task.msg_ids, direct.msg_ids
    assert cancel(rc, msg_id, called, by="ann") == {msg_id: "interrupted", called: "interrupted"}
    for result in (task, direct):
        assert error_of(result).startswith("TaskCancelled: cancelled by ann at ")
    gathered = rc.broadcast_view(is_coalescing=True).apply_async(begin, str(shares), LIMIT)
    wait_until(lambda: len(list(shares.iterdir())) == 2, "both shares have begun")
    assert set(cancel(rc, *gathered.msg_ids).values()) == {"interrupted"}
    assert error_of(gathered).startswith("TaskCancelled: ")
    pids = dict(zip(rc.ids, rc[:].apply_sync(os.getpid), strict=True))
    # an engine that does not hear is killed, and a new one is started
    task = rc.load_balanced_view(targets=[0]).apply_async(deaf, str(tmp_path / "begun"))
    wait_until((tmp_path / "begun").exists, "the task has begun")
    cancel(rc, *task.msg_ids, grace=1.0)
    assert "its engine was killed" in error_of(task)
    wait_until(lambda: len(rc.ids) == 2 and 0 not in rc.ids, "a new engine has come")
    assert rc[1].apply_sync(os.getpid) == pids[1]


@pytest.mark.parametrize("options", [STOCK, OURS], ids=["stock engines", "engines of ours"])
def test_cancels_at_random_moments_hit_nothing_else(start_cluster: StartCluster, options: tuple[str, ...]) -> None:
    cluster = start_cluster(2, *options)
    rc = cluster.client()
    rc.wait_for_engines(2, timeout=LIMIT)
    view = rc.load_balanced_view()
    rng = Random(1)
    results: list[tuple[float, ipp.AsyncResult]] = []
    cancelled: dict[str, str] = {}
    for _ in range(CANCELS):
        for _ in range(2):
            seconds = rng.choice([0.0, 0.002, 0.01])
            results.append((seconds, view.apply_async(spin, seconds)))
        time.sleep(rng.random() * 0.01)  # a moment at which a cancel comes, not a wait for something
        msg_id = rng.choice(results[-4:])[1].msg_ids[0]
        if msg_id not in cancelled:
            cancelled |= cancel(rc, msg_id)
    for seconds, result in results:
        [msg_id] = result.msg_ids
        value: Any = result.get(LIMIT, return_exceptions=True)
        if value == seconds:
            assert cancelled.get(msg_id, "finished") == "finished"
        else:
            assert value.ename == "TaskCancelled", value
            assert cancelled[msg_id] != "finished"
    assert len(rc.ids) == 2


@pytest.mark.parametrize("options", [STOCK, OURS], ids=["stock engines", "engines of ours"])
def test_a_limit_and_a_drain(start_cluster: StartCluster, options: tuple[str, ...], tmp_path: Path) -> None:
    cluster = start_cluster(2, *options)
    rc = cluster.client()
    rc.wait_for_engines(2, timeout=LIMIT)
    view = rc.load_balanced_view()
    with view.temp_flags(label={"max_runtime": 0.5}):
        limited = view.apply_async(spin, LIMIT)
    assert error_of(limited).startswith("TaskTimeout: the task ran for ")
    with view.temp_flags(targets=[0, 1]):
        task = view.apply_async(wait_for, str(tmp_path / "gate"))
    wait_until(lambda: rc.queue_status(0)["tasks"] + rc.queue_status(1)["tasks"], "the task runs")
    first = 0 if rc.queue_status(0)["tasks"] else 1
    reply = ask(rc, "drain_request", {"engines": [first], "deadline": 0.2, "then": "shutdown"})
    assert reply["engines"] == {str(first): "draining"}
    wait_until(lambda: rc.queue_status(1 - first)["tasks"], "the task runs elsewhere")
    (tmp_path / "gate").touch()
    assert task.get(LIMIT) is None
    assert task.engine_id == 1 - first
    wait_until(lambda: rc.ids == [1 - first], "the drained engine has ended")
