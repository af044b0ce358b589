"""A stock client that is suspended while an engine prints much, and then goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import LIMIT, Cluster, wait_until

pytestmark = pytest.mark.interop

MB = 2**20
PRINTED = 300
"""Megabytes that the engine prints, one by one."""
QUEUE = 8
"""Megabytes that may wait for a client."""
SLACK = 120 * MB
"""Bytes by which the hub's memory may grow in addition: it records 16 MB of the output, and copies them meanwhile."""

CLIENT = """
import sys
import ipyparallel as ipp

rc = ipp.Client(profile_dir=sys.argv[1])
rc.wait_for_engines(1, timeout=60)


def print_much(times):
    for number in range(times):
        print(f"{number:04}" + "x" * 999_995, flush=True)
    return "done"


result = rc.load_balanced_view().apply_async(print_much, int(sys.argv[2]))
print("submitted", flush=True)
sys.stdin.readline()
print(result.get(timeout=60), flush=True)
again = rc[0].apply_async(print, "hello", flush=True)
again.get(timeout=60)
again.wait_for_output(60)
print(again.stdout.strip(), flush=True)
print(result.stdout[-1_000_000:][:4], flush=True)
"""


def peak_memory(pid: int) -> int:
    """The most bytes of a process that have been in RAM."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [peak] = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(peak) * 1024


def test_it_gets_its_results_and_the_hub_does_not_keep_all_output(start_cluster: Callable[..., Cluster]) -> None:
    cluster = start_cluster(1, "--subscriber-queue", f"{QUEUE}MiB")
    observer = cluster.client()
    observer.wait_for_engines(1, timeout=LIMIT)
    hub = cluster.process.pid
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(cluster.profile_dir), str(PRINTED)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdin is not None
    assert client.stdout is not None
    with client:
        try:
            assert client.stdout.readline() == "submitted\n"
            wait_until(lambda: observer.queue_status(0)["tasks"], "the engine has the task")
            client.send_signal(signal.SIGSTOP)
            before = peak_memory(hub)
            wait_until(lambda: observer.queue_status(0)["completed"], "the engine has printed everything")
            assert peak_memory(hub) - before < QUEUE * MB + SLACK
            assert "kind=subscriber_behind address=127.0.0.1 channel=iopub_out" in cluster.log
            client.send_signal(signal.SIGCONT)
            output, _ = client.communicate("go on\n", timeout=LIMIT)
        finally:
            client.kill()
    assert output.splitlines() == ["done", "hello", f"{PRINTED - 1:04}"]
