"""Pools with real engines and stock clients: they grow from nothing, shrink to nothing, and outlive a killed hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ipyparallel as ipp
import pytest

from trio_hub.runtime.restore import read_engine_state

from ..cli.process import processes_with
from .conftest import LIMIT, wait_until
from .controllers import hub, log_of

pytestmark = pytest.mark.interop


def client(profile_dir: Path) -> ipp.Client:
    """Return a stock client of the hub with this profile."""
    return ipp.Client(profile_dir=str(profile_dir), timeout=LIMIT)


def ask(rc: ipp.Client, msg_type: str, **content: Any) -> dict[str, Any]:
    found = rc._send_recv(rc._query_stream, msg_type, content=content)["content"]
    assert isinstance(found, dict)
    return found


def pool_of(rc: ipp.Client, name: str) -> dict[str, Any]:
    found = {pool["name"]: pool for pool in ask(rc, "pools_request")["pools"]}[name]
    assert isinstance(found, dict)
    return found


def work(number: int, seconds: float, ran: str, gate: str = "/") -> tuple[int, int]:
    """Note that the task runs, and wait until the file ``gate`` exists. Return the number and the process id."""
    import os
    import time

    with open(ran, "a") as file:
        file.write(f"{number}\n")
    while not os.path.exists(gate):
        time.sleep(0.01)
    time.sleep(seconds)
    return number, os.getpid()


def runs(ran: Path) -> list[int]:
    return sorted(int(line) for line in ran.read_text().splitlines()) if ran.exists() else []


def test_a_local_pool_comes_with_the_work_and_goes_with_it(tmp_path: Path) -> None:
    profile_dir, ran, gate = tmp_path / "profile", tmp_path / "ran", tmp_path / "gate"
    with hub(profile_dir, "--pool", "name=local,min=0,max=4,idle_timeout=1"), client(profile_dir) as rc:
        assert (rc.ids, pool_of(rc, "local")["blocks"]) == ([], [])
        view = rc.load_balanced_view()
        results = [view.apply_async(work, number, 0.01, str(ran), str(gate)) for number in range(200)]
        wait_until(lambda: pool_of(rc, "local")["there"] == len(rc.ids) == 4 and len(runs(ran)) == 4, "four engines")
        told = pool_of(rc, "local")
        assert (told["there"], told["max"], len(told["blocks"])) == (4, 4, 4)
        gate.touch()
        found = [result.get(LIMIT) for result in results]
        assert [number for number, _ in found] == list(range(200)), "none is lost"
        assert len({pid for _, pid in found}) == 4, "all engines were at work"
        assert runs(ran) == list(range(200)), "none has run twice"
        wait_until(lambda: not rc.ids and not pool_of(rc, "local")["blocks"], "no engine")
        assert pool_of(rc, "local")["counts"] == {
            "submitted": 4,
            "refused": 0,
            "failed": 0,
            "ended": 0,
            "cancelled": 4,
        }
        assert rc.load_balanced_view().apply_sync(work, 200, 0, str(ran))[0] == 200, "it grows again"
        assert ask(rc, "scale_request", pool="local", engines=2)["status"] == "ok"
        wait_until(lambda: len(rc.ids) == 2, "two engines")
        error = ask(rc, "scale_request", pool="slurm", engines=2)
        assert (error["status"], error["ename"]) == ("error", "PoolError")
        assert "the pools are local" in error["evalue"]
    assert not processes_with(str(profile_dir))
    assert " died" not in log_of(profile_dir)


def test_engines_of_a_killed_hub_go_on_and_are_given_back_by_the_next_one(tmp_path: Path) -> None:
    profile_dir, ran, gate = tmp_path / "profile", tmp_path / "ran", tmp_path / "gate"
    options = ("--restore=true", "--pool", "name=local,min=0,max=3,idle_timeout=1", "--durability=strict")
    with client_and_killed_hub(profile_dir, ran, gate, options) as (rc, results), hub(profile_dir, *options):
        gate.touch()
        assert rc.load_balanced_view().apply_sync(int) == 0  # so that the hub knows the client
        found = [result.get(LIMIT) for result in results]
        assert len({pid for _, pid in found}) == 3, "the next hub has started no others"
        assert runs(ran) == list(range(len(results)))
        assert pool_of(rc, "local")["counts"]["submitted"] <= 3
        wait_until(lambda: not rc.ids and not pool_of(rc, "local")["blocks"], "no engine")
    assert not processes_with(str(profile_dir))


@contextmanager
def client_and_killed_hub(
    profile_dir: Path, ran: Path, gate: Path, options: tuple[str, ...]
) -> Iterator[tuple[ipp.Client, list[ipp.AsyncResult]]]:
    """Give a client with tasks, after its hub was killed while all three engines were at work."""
    with hub(profile_dir, *options) as killed, client(profile_dir) as rc:
        view = rc.load_balanced_view()
        results = [view.apply_async(work, number, 0.5, str(ran), str(gate)) for number in range(12)]
        state = profile_dir / "log" / "engines.json"

        def saved() -> bool:
            known = json.loads(state.read_text()) if state.exists() else {}
            return len(known.get("engines", {})) == 3 and all(one["uuid"] for one in known["local"].values())

        wait_until(lambda: saved() and len(runs(ran)) >= 3, "three engines at work")
        killed.kill()
        killed.wait(LIMIT)
        yield rc, results


def test_engines_of_a_killed_hub_that_cannot_come_back_are_ended(tmp_path: Path) -> None:
    profile_dir, ran = tmp_path / "profile", tmp_path / "ran"
    pool = ("--pool", "name=local,min=0,max=3,idle_timeout=1")
    with (
        client_and_killed_hub(profile_dir, ran, tmp_path / "gate", pool),
        hub(profile_dir, *pool),
        client(profile_dir) as rc,
    ):
        wait_until(lambda: len(processes_with(str(profile_dir))) == 1, "only the hub")
        assert pool_of(rc, "local")["blocks"] == []
    log = log_of(profile_dir)
    assert log.count("a local engine of an earlier hub is ended") == 3
    assert not list((profile_dir / "pools" / "default").glob("local-*"))


def test_the_stop_cancels_the_blocks_of_a_command(tmp_path: Path) -> None:
    profile_dir = tmp_path / "profile"
    settings = tmp_path / "hub.toml"
    settings.write_text(f"""
[[pool]]
name = "cloud"
launcher = "command"
max = 2
engines_per_block = 2
engine = "ipengine"
submit_command = '''
for i in $(seq $TRIO_HUB_ENGINES); do
    setsid sh -c "exec $TRIO_HUB_ENGINE_COMMAND" > {tmp_path}/$i.log 2>&1 &
    printf "%s " $!
done
'''
cancel_command = "kill $TRIO_HUB_JOB; true"
status_command = "kill -0 $TRIO_HUB_JOB && echo running || echo ended"
""")
    with hub(profile_dir, "--config", str(settings), "--restore=true"), client(profile_dir) as rc:
        view = rc.load_balanced_view()
        assert view.apply_sync(int) == 0
        wait_until(lambda: pool_of(rc, "cloud")["there"] == 2, "both engines")
        (block,) = pool_of(rc, "cloud")["blocks"]
        assert (block["arrived"], block["engines"], block["state"]) == (2, 2, "running")
        assert all(pid.isdigit() for pid in block["job"].split())
    wait_until(lambda: not processes_with(str(profile_dir)), "no engine")
    state = read_engine_state(profile_dir / "log" / "engines.json")
    assert state is None or not state.engines, "the next hub expects none of them"
    assert not list((profile_dir / "pools" / "default").glob("cloud-*"))
