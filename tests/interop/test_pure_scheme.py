"""The scheme `pure` beside a stock client, which knows it by the connection file and behaves accordingly."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import ipyparallel as ipp
import pytest

from .conftest import LIMIT, Cluster, wait_until

pytestmark = pytest.mark.interop

StartCluster = Callable[..., Cluster]


def connected(cluster: Cluster, engines: int) -> ipp.Client:
    """A client that learns of all engines at once, and so never of a later one before an earlier one."""
    wait_until(lambda: cluster.log.count(" engine registered ") == engines, "all engines are there")
    rc = cluster.client()
    assert rc.ids == list(range(engines))
    return rc


def engine_id(seconds: float = 0.0) -> int:
    import time

    from ipyparallel.engine.app import IPEngine

    time.sleep(seconds)
    return int(IPEngine.instance().id)


def test_engines_take_turns_and_nothing_waits_in_the_hub(start_cluster: StartCluster) -> None:
    cluster = start_cluster(2, "--scheme", "pure")
    assert json.loads(cluster.client_file.read_text())["task_scheme"] == "pure"
    rc = connected(cluster, 2)
    view = rc.load_balanced_view()
    running = [view.apply_async(engine_id, 0.05) for _ in range(20)]
    wait_until(lambda: rc.queue_status()["unassigned"] == 0, "all are with an engine")
    ids = [each.get(timeout=LIMIT) for each in running]
    assert ids in ([0, 1] * 10, [1, 0] * 10)
    assert view.map_sync(lambda x: x * x, range(100)) == [x * x for x in range(100)]


# Warnings of the client about an engine that goes, in a thread of its own, and about how it closes its own socket.
@pytest.mark.filterwarnings("ignore:An engine has been unregistered, and we are using pure:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:Unregistering FD:UserWarning")
def test_a_stock_client_refuses_what_it_refuses_with_ipcontroller(start_cluster: StartCluster) -> None:
    cluster = start_cluster(2, "--scheme", "pure")
    rc = connected(cluster, 2)
    view = rc.load_balanced_view()
    for flags in ({"retries": 1}, {"timeout": 5}, {"targets": [0]}, {"after": ["x"]}, {"follow": ["x"]}):
        with pytest.raises(RuntimeError, match="Pure ZMQ scheduler doesn't support"):
            view._really_apply(engine_id, **flags)
    with pytest.warns(RuntimeWarning, match="Pure ZMQ scheduler doesn't support"):
        depends = view.apply_async(ipp.depend(lambda wanted: wanted, True)(engine_id))
    assert depends.get(timeout=LIMIT) in (0, 1)
    assert cluster.process.poll() is None
    rc.shutdown(targets=[0], block=True)
    wait_until(lambda: rc.ids == [1], "engine 0 is gone")
    with pytest.raises(RuntimeError, match="Task farming is disabled because the pure ZMQ scheduler"):
        view.apply_async(engine_id)


def test_what_gets_past_the_client_is_honoured(start_cluster: StartCluster) -> None:
    """Stock clients look only at the arguments of one call, and not at the flags of the view."""
    cluster = start_cluster(2, "--scheme", "pure")
    rc = connected(cluster, 2)
    assert [rc.load_balanced_view(targets=[1]).apply_sync(engine_id) for _ in range(4)] == [1] * 4
    view = rc.load_balanced_view()

    with view.temp_flags(retries=1):
        failing = view.apply_async(lambda: 1 / 0)
    with pytest.raises(ipp.RemoteError, match="ZeroDivisionError"):
        failing.get(timeout=LIMIT)

    first = view.apply_async(lambda: __import__("time").sleep(0.5) or __import__("time").time())
    with view.temp_flags(after=first):
        second = view.apply_async(lambda: __import__("time").time())
    assert second.get(timeout=LIMIT) >= first.get(timeout=LIMIT)
    with view.temp_flags(follow=first):
        there: Any = view.apply_async(engine_id)
    assert there.get(timeout=LIMIT) == first.engine_id

    blockers = [view.apply_async(time.sleep, 4) for _ in range(2)]
    with view.temp_flags(after=blockers, timeout=0.1), pytest.raises(ipp.RemoteError, match="TaskTimeout"):
        view.apply_async(engine_id).get(timeout=LIMIT)
    for blocker in blockers:
        blocker.get(timeout=LIMIT)
