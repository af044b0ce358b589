"""The stock engine as an engine of a pool: the hub reads the pool's block from the engine's uuid."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import ipyparallel as ipp
import pytest

from trio_hub.hub.engineids import block_in

from .conftest import LIMIT, Cluster, wait_until

pytestmark = pytest.mark.interop


def speaking(number: int) -> int:
    print(f"the number is {number}")
    return number + 1


def sleep_after_marking(marker: str) -> None:
    import time
    from pathlib import Path

    Path(marker).touch()
    time.sleep(60)


def test_a_stock_engine_names_its_block_and_is_otherwise_as_before(
    start_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    cluster = start_cluster(0)
    cluster.start_engine("trio_hub.engine.stock", "--IPEngine.timeout=30", "--block", "slurm-1f2e3d4c")
    rc = cluster.client()
    rc.wait_for_engines(1, timeout=LIMIT, interactive=False)
    uuid = rc._engines[0]
    assert block_in(uuid) == "slurm-1f2e3d4c"

    task = rc.load_balanced_view().apply_async(speaking, 1)
    assert task.get(timeout=LIMIT) == 2
    assert task.engine_uuid == uuid
    wait_until(lambda: task.stdout == "the number is 1\n", "the output")
    direct = rc[0].apply_async(speaking, 2)
    assert direct.get(timeout=LIMIT) == 3

    # The nanny has the engine's identity too, on the control channel.
    marker = tmp_path / "marker"
    sleeping = rc[0].apply_async(sleep_after_marking, str(marker))
    wait_until(marker.exists, "the task runs")
    rc.send_signal(signal.SIGINT, targets=[0], block=True)
    with pytest.raises(ipp.RemoteError, match="KeyboardInterrupt"):
        sleeping.get(timeout=LIMIT)
    rc.send_signal(signal.SIGKILL, targets=[0], block=True)
    wait_until(lambda: not rc.ids, "the nanny has unregistered the engine")
