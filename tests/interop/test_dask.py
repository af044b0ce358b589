"""A stock client turns the cluster into one of Dask, and back: stock engines become Dask's workers."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..test_docs import DOCS, RUNNER, check_output, code_blocks, examples, quiet_process
from .conftest import LIMIT, Cluster, wait_until

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="Dask is not installed"),
]

StartCluster = Callable[..., Cluster]

# In a separate process, since Dask leaves threads behind, and warnings about them.
CLIENT = """
import json, os, sys
import ipyparallel as ipp
import numpy as np

def say(**what):
    print(json.dumps(what), flush=True)

rc = ipp.Client(profile_dir=sys.argv[1])
rc.wait_for_engines(2, timeout=60)
engines = sorted(rc[:].apply_sync(os.getpid))
for _ in range(2):
    executor = rc.become_dask()
    executor.wait_for_workers(2, timeout=60)
    squares = executor.gather(executor.map(lambda x: x * x, range(100)))
    total = executor.submit(np.sum, executor.submit(np.ones, 10**6)).result()
    workers = executor.run(os.getpid)
    say(
        squares=squares == [x * x for x in range(100)],
        total=float(total),
        same_processes=sorted(workers.values()) == engines,
        scheduler=executor.run_on_scheduler(os.getpid),
        address=executor.scheduler.address,
        answer=rc[0].apply_sync(lambda: 42),
    )
    sys.stdin.readline()
    executor.close()
    rc.stop_dask()
    say(engines=sorted(rc[:].apply_sync(os.getpid)) == engines)
    sys.stdin.readline()
executor = rc.become_dask(targets=[0], scheduler_args={"port": 0, "host": "127.0.0.1"})
executor.wait_for_workers(1, timeout=60)
say(workers=len(executor.scheduler_info()["workers"]), scheduler=executor.run_on_scheduler(os.getpid))
sys.stdin.readline()
try:
    rc.become_dask(scheduler_args={"colour": "red"})
except ipp.RemoteError as error:
    say(ename=error.ename, evalue=error.evalue)
sys.stdin.readline()
os._exit(0)  # with all connections open
"""


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_stock_client_becomes_dask(start_cluster: StartCluster, tmp_path: Path) -> None:
    cluster = start_cluster(2)
    with (
        (tmp_path / "client.log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-c", CLIENT, cluster.profile_dir],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as client,
    ):
        assert client.stdin is not None
        assert client.stdout is not None

        def said() -> Any:
            assert client.stdout is not None
            line = client.stdout.readline()
            assert line, (tmp_path / "client.log").read_text() + cluster.log
            return json.loads(line)

        def go_on() -> None:
            assert client.stdin is not None
            client.stdin.write("\n")
            client.stdin.flush()

        schedulers = []
        try:
            for _ in range(2):
                at_work = said()
                scheduler = at_work.pop("scheduler")
                assert at_work.pop("address").startswith("tcp://127.0.0.1:")
                assert at_work == {"squares": True, "total": 10**6, "same_processes": True, "answer": 42}
                assert alive(scheduler)
                schedulers.append(scheduler)
                go_on()
                assert said() == {"engines": True}, "the engines are those of before, and at work"
                assert not alive(scheduler)
                go_on()
            assert len(set(schedulers)) == 2
            at_work = said()
            assert at_work["workers"] == 1
            scheduler = at_work["scheduler"]
            go_on()
            refused = said()
            assert refused["ename"] == "TypeError"
            assert "'colour' is unknown" in refused["evalue"]
            go_on()
            assert client.wait(LIMIT) == 0
        finally:
            client.kill()
    assert cluster.close() == 0
    assert not alive(scheduler)


def test_a_scheduler_ends_even_when_the_hub_is_killed(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 0)
    try:
        rc = cluster.client()
        reply = rc._send_recv(rc._query_stream, "become_dask_request", {"scheduler_args": {}})["content"]
        assert reply["status"] == "ok", reply
        tasks = Path(f"/proc/{cluster.process.pid}/task").glob("*/children")
        (scheduler,) = (int(pid) for task in tasks for pid in task.read_text().split())
        with socket.create_connection((reply["ip"], reply["port"]), timeout=LIMIT) as connection:
            os.kill(cluster.process.pid, signal.SIGKILL)
            while connection.recv(1 << 16):
                pass
        wait_until(lambda: not running(scheduler), "the scheduler has ended")
    finally:
        cluster.close()


def running(pid: int) -> bool:
    """Whether it is more than a zombie, for which it depends on the machine's init how long it stays."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_how_to(tmp_path: Path) -> None:
    """Each Python block of the page prints the output that the page shows."""
    page = DOCS / "how-to" / "dask.md"
    blocks = examples(page)
    (tmp_path / "blocks.json").write_text(json.dumps([program for program, _ in blocks]))
    (tmp_path / "client.py").write_text(RUNNER)
    (command,) = (text for _, text in code_blocks(page, "bash") if "trio-hub serve" in text)
    _, *options = command.split()
    with quiet_process(tmp_path, sys.executable, "-m", "trio_hub", *options) as hub:
        assert hub.stdout is not None
        hub.stdout.readline()
        with quiet_process(tmp_path, sys.executable, "client.py") as client:
            printed, _ = client.communicate(timeout=4 * LIMIT)
        complaints = (tmp_path / "client.log").read_text()
        outputs = [json.loads(line) for line in printed.splitlines()]
        for (_, expected), output in zip(blocks, outputs, strict=False):
            check_output(expected, output)
        assert len(outputs) == len(blocks), complaints
        assert client.returncode == 0, complaints
        hub.terminate()
        assert hub.wait(timeout=LIMIT) == 0, (tmp_path / "-m.log").read_text()
