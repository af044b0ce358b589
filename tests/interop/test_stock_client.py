"""All features of a stock client, with stock engines that run real Python functions."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import ipyparallel as ipp
import numpy as np
import pytest

from .conftest import LIMIT, Cluster, wait_until

pytestmark = pytest.mark.interop

StartCluster = Callable[..., Cluster]


@pytest.mark.parametrize("packer", ["json", "msgpack"])
def test_a_stock_clients_day(start_cluster: StartCluster, packer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if packer == "msgpack":
        pytest.importorskip("msgpack")
        monkeypatch.setenv("TRIO_HUB_PACKER", packer)
    cluster = start_cluster(2)
    assert repr(str(cluster.client_file.parents[1])) in cluster.ready_line
    rc = cluster.client()
    rc.wait_for_engines(2, timeout=LIMIT)
    pids = rc[:].apply_sync(os.getpid)
    assert len(set(pids)) == 2

    view = rc.load_balanced_view()
    assert view.map_sync(lambda x: x * x, range(1000)) == [x * x for x in range(1000)]

    array = np.arange(50 * 2**20 // 8, dtype=float)
    rc[0].push({"array": array}, block=True)
    assert np.array_equal(rc[0].pull("array", block=True), array)

    with pytest.raises(ipp.RemoteError) as raised:
        rc[0].apply_sync(lambda: 1 / 0)
    assert raised.value.ename == "ZeroDivisionError"
    assert raised.value.engine_info["engine_id"] == 0

    # An engine may flush its output after it has said that it is idle, whoever the controller is; then the stock
    # client has stopped waiting for it. So once is not enough.
    wait_until(lambda: stdout_of_print(rc) == ["hello\n", "hello\n"], "what engines print is seen")

    check_queries(cluster, rc)
    check_resubmit_and_abort(rc, view)

    begun = cluster.client_file.with_name("begun")

    def sleep_and_say_so(path: str, seconds: float) -> None:
        import time

        open(path, "w").close()
        time.sleep(seconds)

    sleeping = rc[1].apply_async(sleep_and_say_so, str(begun), LIMIT)
    wait_until(begun.exists, "the call has begun")
    rc.send_signal(signal.SIGINT, targets=[1], block=True)
    with pytest.raises(ipp.RemoteError, match="KeyboardInterrupt"):
        sleeping.get(LIMIT)

    rc.shutdown(targets=[0], block=True)
    wait_until(lambda: rc.ids == [1], "engine 0 is gone")
    assert set(rc.queue_status()) == {"unassigned", 1}
    assert rc[1].apply_sync(os.getpid) in pids

    rc.shutdown(hub=True)
    assert cluster.process.wait(LIMIT) == 0
    assert not cluster.client_file.exists()


def stdout_of_print(rc: ipp.Client) -> Any:
    printed = rc[:].apply_async(lambda: print("hello"))
    printed.get(timeout=LIMIT)
    return printed.stdout


def check_queries(cluster: Cluster, rc: ipp.Client) -> None:
    status = rc.queue_status()
    assert status["unassigned"] == 0
    assert set(status[0]) == {"queue", "completed", "tasks"}
    assert status[0]["completed"] + status[1]["completed"] >= 1000
    done = rc[1].apply_async(lambda: {"answer": 42})
    done.get(timeout=LIMIT)
    [msg_id] = done.msg_ids

    other = cluster.client()
    assert other.get_result(msg_id).get(timeout=LIMIT) == {"answer": 42}
    assert other.result_status([msg_id])["completed"] == [msg_id]
    printed = rc[0].execute("print('seen by others')")
    printed.get(timeout=LIMIT)

    def output() -> Any:
        return other.db_query({"msg_id": printed.msg_ids[0]}, keys=["stdout"])[0]["stdout"]

    assert wait_until(output, "output is recorded") == "seen by others\n"

    [record] = rc.db_query({"msg_id": msg_id})
    assert record["engine_uuid"] == rc._engines[1]
    assert record["completed"] >= record["started"] >= record["submitted"]
    assert record["header"]["msg_id"] == msg_id
    [buffers] = rc.db_query({"msg_id": msg_id}, keys=["result_buffers", "buffers"])
    assert len(buffers["buffers"]) > 0
    assert len(buffers["result_buffers"]) > 0
    engine_1 = rc.db_query({"engine_uuid": rc._engines[1], "completed": {"$ne": None}}, keys=["msg_id"])
    assert msg_id in [found["msg_id"] for found in engine_1]
    recent = rc.db_query({"submitted": {"$gte": record["submitted"]}}, keys=["msg_id"])
    assert {found["msg_id"] for found in recent} >= {msg_id, printed.msg_ids[0]}
    history = rc.hub_history()
    assert history.index(msg_id) < history.index(printed.msg_ids[0])

    rc.purge_results(msg_id)
    assert msg_id not in rc.hub_history()
    with pytest.raises(ipp.RemoteError, match="No such message"):
        other.get_result(msg_id).get(timeout=LIMIT)
    with pytest.raises(ipp.RemoteError, match="nonsense"):
        rc.db_query({"nonsense": 1})
    other.close()


def check_resubmit_and_abort(rc: ipp.Client, view: Any) -> None:
    first = view.apply_async(os.urandom, 16)
    again = rc.resubmit(first.msg_ids)
    assert len(again.get(timeout=LIMIT)[0]) == 16
    assert again.get()[0] != first.get(timeout=LIMIT)

    blocker = rc[0].apply_async(time.sleep, 4)
    victim = rc[0].apply_async(os.getpid)
    rc.abort(victim, block=True)
    with pytest.raises(ipp.error.TaskAborted):
        victim.get(timeout=LIMIT)
    blocker.get(timeout=LIMIT)
    rc.purge_results("all")
    assert rc.hub_history() == []


def test_an_engine_killed_in_the_middle_of_a_task(start_cluster: StartCluster) -> None:
    """The client gets an EngineError, or with retries the result from another engine; others go on."""
    cluster = start_cluster(0)
    engines = [cluster.start_engine() for _ in range(3)]
    rc = cluster.client()
    rc.wait_for_engines(3, timeout=LIMIT)
    pids = dict(zip(rc.ids, rc[:].apply_sync(os.getpid), strict=True))
    victim, *others = rc.ids

    direct = rc[victim].apply_async(time.sleep, LIMIT)
    doomed = rc.load_balanced_view(targets=[victim]).apply_async(time.sleep, LIMIT)
    view = rc.load_balanced_view()
    wait_until(lambda: rc.queue_status()[victim]["tasks"] == 1, "the task is on the victim")
    os.kill(pids[victim], 9)

    for lost in (direct, doomed):
        with pytest.raises((ipp.error.EngineError, ipp.RemoteError)) as raised:
            lost.get(timeout=LIMIT)
        assert "EngineError" in (type(raised.value).__name__, getattr(raised.value, "ename", ""))
    assert victim not in rc.queue_status()
    assert wait_until(lambda: rc.ids == others, "the client knows")
    assert view.map_sync(lambda x: x + 1, range(100)) == list(range(1, 101))

    with view.temp_flags(retries=1):
        saved = view.apply_async(slow_pid)

    def engine_of_task() -> Any:
        return next((eid for eid in others if rc.queue_status()[eid]["tasks"]), None)

    victim = wait_until(lambda: engine_of_task() is not None and (engine_of_task(),), "it runs")[0]
    os.kill(pids[victim], 9)
    [survivor] = [eid for eid in others if eid != victim]
    assert saved.get(timeout=LIMIT) == pids[survivor]
    assert set(rc.queue_status()) == {"unassigned", survivor}
    assert len(engines) == 3


def slow_pid() -> int:
    import os
    import time

    time.sleep(2)
    return os.getpid()


def test_usable_in_well_under_a_second(start_cluster: StartCluster) -> None:
    """An engine does not wait for the next period of the heartbeat, here ten minutes."""
    cluster = start_cluster(0, "--ping", "600")
    cluster.start_engine()
    rc = cluster.client()
    rc.wait_for_engines(1, timeout=LIMIT)
    assert rc[0].apply_sync(lambda: "here") == "here"


def test_a_client_that_waits_when_the_hub_stops_is_answered(start_cluster: StartCluster) -> None:
    cluster = start_cluster(0)
    rc = cluster.client()
    waiting = rc.load_balanced_view().apply_async(os.getpid)
    wait_until(lambda: rc.queue_status()["unassigned"] == 1, "the task is queued")
    cluster.process.terminate()
    with pytest.raises(ipp.RemoteError, match="stopped"):
        waiting.get(timeout=LIMIT)
    assert cluster.process.wait(LIMIT) == 0


@pytest.mark.parametrize("gather", [True, False])
def test_nothing_is_outstanding_after_a_broadcast(start_cluster: StartCluster, gather: bool) -> None:
    cluster = start_cluster(2)
    rc = cluster.client()
    rc.wait_for_engines(2, timeout=LIMIT)
    view = rc.broadcast_view(is_coalescing=gather)
    big = b"x" * 100_000
    asked = view.apply_async(lambda value: [value, {"key": value}], big)
    assert asked.get(timeout=LIMIT) == [[big, {"key": big}]] * 2
    if not gather:
        view.execute("a = 1", block=True)
    plain = rc.load_balanced_view().apply_async(lambda: "plain")
    assert plain.get(timeout=LIMIT) == "plain"
    other = cluster.client()
    found = other.get_result([*asked.msg_ids, *plain.msg_ids]).get(timeout=LIMIT)
    assert found == [[[big, {"key": big}]] * 2, "plain"] if gather else [[big, {"key": big}]] * 2 + ["plain"]
    assert rc.wait(timeout=LIMIT)
    assert not rc.outstanding
    rc.purge_everything()
    assert rc.hub_history() == []


def test_an_engine_dies_and_its_client_hears_of_it_once(
    start_cluster: StartCluster, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster = start_cluster(2)
    rc = cluster.client()
    rc.wait_for_engines(2, timeout=LIMIT)
    pid = rc[0].apply_sync(os.getpid)
    gate = str(cluster.client_file.with_name("gate"))

    def wait_for(path: str) -> None:
        import os
        import time

        while not os.path.exists(path):
            time.sleep(0.01)

    direct = [rc[0].apply_async(wait_for, gate) for _ in range(10)]
    gathered = rc.broadcast_view(is_coalescing=True).apply_async(wait_for, gate)
    scattered = rc.broadcast_view(is_coalescing=False).apply_async(wait_for, gate)
    os.kill(pid, signal.SIGKILL)
    for asked in (*direct, gathered):
        with pytest.raises(ipp.RemoteError, match="died while running"):
            asked.get(timeout=LIMIT)
    open(gate, "w").close()
    with pytest.raises(ipp.CompositeError):
        scattered.get(timeout=LIMIT)
    assert rc.wait(timeout=LIMIT)
    msg_ids = [msg_id for asked in (*direct, gathered) for msg_id in asked.msg_ids]
    other = cluster.client()
    wait_until(lambda: not other.result_status(msg_ids)["pending"], "the hub has recorded the end of all")
    rc.queue_status()  # when this is answered, earlier messages have arrived, or arrive soon
    assert rc[1].apply_sync(os.getpid) != pid
    assert "stale" not in capfd.readouterr().out


def test_aborted_tasks_never_run(start_cluster: StartCluster) -> None:
    cluster = start_cluster(1)
    rc = cluster.client()
    rc.wait_for_engines(1, timeout=LIMIT)
    view = rc.load_balanced_view()
    ran, gate = cluster.client_file.with_name("ran"), str(cluster.client_file.with_name("gate"))

    def wait_for(path: str) -> None:
        import os
        import time

        while not os.path.exists(path):
            time.sleep(0.01)

    def run(path: str) -> None:
        open(path, "w").close()

    running = view.apply_async(wait_for, gate)
    wait_until(lambda: rc.queue_status()[0]["tasks"] == 1, "the engine has the first task")
    queued = [view.apply_async(run, str(ran)) for _ in range(200)]
    gathered = rc.broadcast_view(is_coalescing=True).apply_async(run, str(ran))
    wait_until(lambda: rc.queue_status()[0]["queue"] == 1, "the engine has its share")
    rc.abort([*queued, gathered], block=True)
    for asked in queued:
        with pytest.raises(ipp.error.TaskAborted):
            asked.get(timeout=LIMIT)
    open(gate, "w").close()
    running.get(timeout=LIMIT)
    with pytest.raises(ipp.error.TaskAborted):
        gathered.get(timeout=LIMIT)
    assert not ran.exists()


def test_output_is_complete_with_engines_of_ours(start_cluster: StartCluster) -> None:
    """The idle status, for which a stock client waits, comes from the hub or, after output, from the engine."""
    cluster = start_cluster(0)
    cluster.start_engine("trio_hub", "engine")
    rc = cluster.client()
    rc.wait_for_engines(1, timeout=LIMIT)
    for view in (rc[0], rc.load_balanced_view(), rc.broadcast_view(is_coalescing=False)):
        for function, stdout in ((abs, ""), (print, "-1\n")) * 3:
            asked = view.apply_async(function, -1)
            asked.get(timeout=LIMIT)
            assert asked.wait_for_output(LIMIT)
            assert asked.stdout in (stdout, [stdout])
    failing = rc[0].apply_async(int, "x")
    with pytest.raises(ipp.RemoteError):
        failing.get(timeout=LIMIT)
    assert failing.wait_for_output(LIMIT)
