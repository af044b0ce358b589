"""The how-to page on crashes holds for stock engines and clients: the hub is killed, and the next one carries on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ipyparallel as ipp
import pytest

from .conftest import LIMIT, wait_until
from .controllers import hub, log_of

pytestmark = pytest.mark.interop


@contextmanager
def engines(profile_dir: Path, number: int) -> Iterator[None]:
    command = [sys.executable, "-m", "ipyparallel.engine", f"--profile-dir={profile_dir}"]
    running = [
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ
        )
        for _ in range(number)
    ]
    try:
        yield
    finally:
        for engine in running:
            engine.terminate()
        for engine in running:
            engine.wait(LIMIT)


def patient(number: int, gate: str) -> int:
    """Run until a file exists."""
    import os
    import time

    while not os.path.exists(gate):
        time.sleep(0.01)
    return number


def test_a_stock_clients_work_survives_the_hub(tmp_path: Path) -> None:
    profile_dir, gate = tmp_path / "profile", tmp_path / "gate"
    with hub(profile_dir, "--durability=strict") as first, engines(profile_dir, 2):
        rc = ipp.Client(profile_dir=str(profile_dir), timeout=LIMIT)
        rc.wait_for_engines(2, timeout=LIMIT, interactive=False)
        view = rc.load_balanced_view()
        tasks = view.map_async(patient, range(6), [str(gate)] * 6, chunksize=1)
        direct = rc[0].apply_async(lambda: 42)  # stands in line behind one of them
        wait_until(lambda: rc.queue_status()["unassigned"] == 4 and rc.queue_status()[0]["queue"] == 1, "the queues")
        first.kill()
        first.wait(LIMIT)
        late = view.apply_async(lambda: "late")
        with hub(profile_dir, "--restore=true"):
            gate.touch()
            # this code is on the page
            assert rc.load_balanced_view().apply_sync(int) == 0
            assert tasks.get(LIMIT) == list(range(6))
            assert direct.get(LIMIT) == 42
            assert late.get(LIMIT) == "late"

            msg_ids = [*tasks.msg_ids, *late.msg_ids]
            with ipp.Client(profile_dir=str(profile_dir), timeout=LIMIT) as other:
                status = other.result_status(msg_ids, status_only=True)
                assert (set(status["completed"]), status["pending"]) == (set(msg_ids), [])
                assert other.get_result(late.msg_ids).get(LIMIT) == ["late"]
                with pytest.raises(ipp.RemoteError, match="No such message: never-heard-of"):
                    other.result_status([*msg_ids, "never-heard-of"])
                query = {"msg_id": {"$in": [*msg_ids, "never-heard-of"]}}
                assert {record["msg_id"] for record in other.db_query(query, keys=["completed"])} == set(msg_ids)
        rc.close()


def test_without_being_told_to_the_next_hub_writes_off_what_is_left(tmp_path: Path) -> None:
    profile_dir = tmp_path / "profile"
    with (
        hub(profile_dir, "--durability=strict") as first,
        ipp.Client(profile_dir=str(profile_dir), timeout=LIMIT) as rc,
    ):
        # a stock client does not submit tasks while there are no engines
        msg_id = rc.session.send(rc._task_stream, "apply_request", content={})["header"]["msg_id"]
        wait_until(lambda: rc.queue_status()["unassigned"] == 1, "the task")
        first.kill()
        first.wait(LIMIT)
    with hub(profile_dir), ipp.Client(profile_dir=str(profile_dir), timeout=LIMIT) as rc:
        (record,) = rc.db_query({"msg_id": msg_id}, keys=["completed", "result_content"])
        assert record["completed"] is not None
        assert record["result_content"]["ename"] == "EngineError"
        assert "was not told to carry on" in record["result_content"]["evalue"]
    assert "was not started with restore or reuse requests=1" in log_of(profile_dir)
