"""Pools of engines in jobs of a real Slurm: they grow, shrink, and survive what happens to jobs."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from .node import CPUS
from .pooled import PooledHub, note, pooled_hub, runs
from .support import LIMIT, Slurm, wait_until

pytestmark = pytest.mark.slurm

TASKS = 200


def test_a_pool_grows_from_nothing_to_eight_engines_and_shrinks_to_nothing(slurm: Slurm, tmp_path: Path) -> None:
    with pooled_hub(slurm, tmp_path, max=CPUS, engines_per_block=4, backlog=2) as pooled:
        assert pooled.pool()["blocks"] == []
        assert slurm.jobs() == []
        work = pooled.submit(until_told, range(TASKS))
        pooled.wait_for("all engines", there=CPUS)
        assert [job.cpus for job in slurm.jobs()] == [4, 4]
        (tmp_path / "go").touch()
        assert work.get(LIMIT) == list(range(TASKS))
        pool = pooled.wait_for("no engines", there=0, blocks=[])
        assert slurm.jobs() == []
        assert pool["counts"] == {"submitted": 2, "refused": 0, "failed": 0, "ended": 0, "cancelled": 2}
        assert pool["engine_seconds"] > 0
        files = pooled.profile / "pools" / "default"
        wait_until(lambda: [path.name for path in files.iterdir()] == ["pools.json"], "the end of the blocks' files")
    assert runs(tmp_path) == {str(value): 1 for value in range(TASKS)}


def until_told(directory: str, value: Any) -> Any:
    """A task: note that it runs, and return its value when the file ``go`` exists."""
    import os
    import time
    from pathlib import Path

    with Path(directory, "runs").open("a") as file:
        file.write(f"{value} {os.environ.get('SLURM_JOB_ID')}\n")
    while not Path(directory, "go").exists():
        time.sleep(0.01)
    return value


def begin(pooled: PooledHub) -> tuple[Any, str]:
    """Submit a task that waits for ``go``, and wait until it runs. Return its future result, and the job's number."""
    work = pooled.submit(until_told, [0])
    wait_until(lambda: runs(pooled.directory), "the start of the task")
    [job] = pooled.slurm.jobs()
    return work, job.number


def test_a_cancelled_job_is_told_and_its_tasks_run_in_another(slurm: Slurm, tmp_path: Path) -> None:
    with pooled_hub(slurm, tmp_path) as pooled:
        work, first = begin(pooled)
        slurm.run("scancel", first)
        slurm.wait_for_state(first, "CANCELLED")
        (tmp_path / "go").touch()
        assert "CANCELLED" in pooled.logged("a block has failed.*words=(.*)")[1]
        assert work.get(LIMIT) == [0]
        pool = pooled.wait_for("no engines", there=0, blocks=[])
        assert pool["counts"] == {"submitted": 2, "refused": 0, "failed": 1, "ended": 0, "cancelled": 1}
    assert runs(tmp_path) == {"0": 2}


@pytest.mark.parametrize("partition", ["cheap", "requeue"])
def test_a_preempted_job_comes_back(slurm: Slurm, tmp_path: Path, partition: str) -> None:
    with pooled_hub(slurm, tmp_path, traits={"queue": partition}) as pooled:
        work, first = begin(pooled)
        urgent = slurm.submit("--partition=urgent", f"--ntasks={CPUS}", "--output=/dev/null", "--wrap=sleep 600")
        slurm.wait_for_state(urgent, "RUNNING")
        [block] = pooled.wait_for_blocks("waiting")
        wait_until(lambda: pooled.pool()["blocks"][0]["words"] in ("Resources", "Priority", "BeginTime"), "the reason")
        if partition == "cheap":
            assert block["job"] != first
            assert "PREEMPTED" in pooled.logged("a block has failed.*words=(.*)")[1]
        else:
            assert block["job"] == first
        assert len(slurm.jobs()) == 2
        (tmp_path / "go").touch()
        slurm.run("scancel", urgent)
        if partition == "requeue":  # Slurm lets a job that was requeued wait for two minutes
            slurm.run("scontrol", "update", f"JobId={first}", "StartTime=now")
        assert work.get(LIMIT) == [0]
    assert runs(tmp_path) == {"0": 2}


def test_a_block_waits_in_a_full_partition(slurm: Slurm, tmp_path: Path) -> None:
    other = slurm.submit("--partition=tiny", "--ntasks=2", "--output=/dev/null", "--wrap=sleep 600")
    slurm.wait_for_state(other, "RUNNING")
    with pooled_hub(slurm, tmp_path, max=8, engines_per_block=2, time_limit=600, traits={"queue": "tiny"}) as pooled:
        work = pooled.submit(note, range(20))
        [block] = pooled.wait_for_blocks("waiting")
        wait_until(lambda: slurm.job(block["job"])["Reason"] in ("Resources", "MaxCpuPerNode"), "the reason to wait")
        wait_until(lambda: pooled.pool()["blocks"][0]["words"] == slurm.job(block["job"])["Reason"], "Slurm's words")
        assert pooled.pool()["grow"]["word"] == "backlog"
        assert slurm.job(block["job"])["TimeLimit"] == "00:10:00"
        # somebody cancels the waiting job, and the pool asks for another
        slurm.run("scancel", block["job"])
        assert "CANCELLED" in pooled.logged("a block has failed.*words=(.*)")[1]
        wait_until(lambda: len(slurm.jobs()) == 2, "another job")
        slurm.run("scancel", other)
        waiting: list[int] = []
        while not work.ready():
            waiting.append(sum(job.state == "PENDING" for job in slurm.jobs()))
            work.wait(0.1)
        assert work.get(LIMIT) == list(range(20))
        assert max(waiting) <= 1, "at most as many blocks wait as the backlog says"
        assert pooled.pool()["counts"]["failed"] == 1


def test_a_pool_whose_jobs_are_refused_pauses_and_stops_until_it_is_resumed(slurm: Slurm, tmp_path: Path) -> None:
    with pooled_hub(slurm, tmp_path, traits={"queue": "later"}, max_failures=3) as pooled:
        work = pooled.submit(note, [0])
        pool = pooled.wait_for("the end of the attempts", is_stopped=True)
        assert pool["counts"] == {"submitted": 3, "refused": 3, "failed": 0, "ended": 0, "cancelled": 0}
        assert "invalid partition specified: later" in pool["failed_words"]
        wait_until(lambda: pooled.pool()["grow"]["word"] == "stopped", "the reason")
        for failures, seconds in ((1, 0.1), (2, 0.2), (3, 0.4)):
            pooled.logged(f"a block was refused .* failures={failures} seconds={seconds}")
        slurm.run("scontrol", "create", "PartitionName=later", "Nodes=ALL")
        try:
            pooled.ask("resume_pool_request", pool="p")
            assert work.get(LIMIT) == [0]
        finally:
            pooled.wait_for_blocks()
            slurm.run("scontrol", "delete", "PartitionName=later")


def test_a_job_whose_engines_do_not_start_has_failed(slurm: Slurm, tmp_path: Path) -> None:
    with pooled_hub(slurm, tmp_path, start_command="exit 3", max_failures=2) as pooled:
        pooled.submit(note, [0])
        pool = pooled.wait_for("the end of the attempts", is_stopped=True)
        assert pool["counts"] == {"submitted": 2, "refused": 0, "failed": 2, "ended": 0, "cancelled": 0}
        assert "FAILED" in pool["failed_words"]
        assert "ExitCode=3:0" in pool["failed_words"]


def test_a_job_that_brings_fewer_engines_is_told_and_used(slurm: Slurm, tmp_path: Path) -> None:
    lazy = '[ "$SLURM_PROCID" = 0 ] || exec sleep 600'
    with pooled_hub(slurm, tmp_path, max=2, engines_per_block=2, start_command=lazy, startup_timeout=30.0) as pooled:
        work = pooled.submit(until_told, range(2))
        pooled.logged("a block has brought fewer engines .* engines=1 wanted=2")
        assert pooled.pool()["there"] == 1
        (tmp_path / "go").touch()
        assert work.get(LIMIT) == [0, 1]
        pool = pooled.wait_for("no engines", there=0, blocks=[])
        assert pool["counts"]["submitted"] == 1


def test_a_hub_that_was_killed_finds_its_blocks_again(slurm: Slurm, tmp_path: Path) -> None:
    pooled = PooledHub(slurm, tmp_path, max=4, engines_per_block=2, backlog=2)
    with pooled.running() as hub:
        work = pooled.submit(until_told, range(4))
        ids = work.msg_ids
        wait_until(lambda: sum(runs(tmp_path).values()) == 4, "the start of the tasks")
        before = {job.number for job in slurm.jobs()}
        names = {block["block"] for block in pooled.pool()["blocks"]}
        assert len(before) == 2
        pooled.disconnect()
        hub.signal(signal.SIGKILL)
        hub.wait()
    with pooled.running():
        pooled.wait_for("the engines", there=4)
        assert {block["block"] for block in pooled.pool()["blocks"]} == names
        assert {job.number for job in slurm.jobs()} == before
        (tmp_path / "go").touch()
        assert pooled.results(ids) == [0, 1, 2, 3]
        pool = pooled.wait_for("no engines", there=0, blocks=[])
        assert pool["counts"] == {"submitted": 2, "refused": 0, "failed": 0, "ended": 0, "cancelled": 2}
        assert slurm.jobs() == []
        pooled.stop()
    assert runs(tmp_path) == {str(value): 1 for value in range(4)}


SLOW_SBATCH = """#!/bin/sh
touch {directory}/begun
[ {when} = before ] && sleep 1
{sbatch} "$@"
status=$?
[ {when} = after ] && sleep 1
exit $status
"""


@pytest.mark.parametrize(("when", "agent_too"), [("before", False), ("after", True)])
def test_a_hub_that_is_killed_while_it_submits_a_block(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, agent_too: bool
) -> None:
    """The hub is killed in the second before Slurm accepts a job; or with its agent in the second after it."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    sbatch = slurm.run("sh", "-c", "command -v sbatch").strip()
    (bin_dir / "sbatch").write_text(SLOW_SBATCH.format(directory=tmp_path, when=when, sbatch=sbatch))
    (bin_dir / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(bin_dir), prepend=os.pathsep)
    pooled = PooledHub(slurm, tmp_path)
    with pooled.running() as hub:
        ids = pooled.submit(note, [0]).msg_ids
        wait_until(lambda: (tmp_path / "begun").exists(), "the submission")
        if when == "after":
            wait_until(slurm.jobs, "the job")
        children = Path(f"/proc/{hub.process.pid}/task").glob("*/children")
        [agent] = [int(pid) for path in children for pid in path.read_text().split()]
        pooled.disconnect()
        hub.signal(signal.SIGKILL)
        if agent_too:
            os.kill(agent, signal.SIGKILL)
        hub.wait()
    with pooled.running():
        assert pooled.results(ids) == [0]
        pool = pooled.wait_for("no engines", there=0, blocks=[])
        assert pool["counts"]["failed"] + pool["counts"]["refused"] == 0
        slurm.wait_until_empty()
        pooled.stop()
    assert runs(tmp_path) == {"0": 1}
    number = int(slurm.submit("--hold", "--wrap=true"))
    slurm.cancel_all()
    jobs = [slurm.job(str(number - past)) for past in (1, 2)]
    assert jobs[0]["JobName"] != jobs[1]["JobName"], "the block was submitted twice"


def test_the_blocks_of_a_pool_may_stay_when_the_hub_stops(slurm: Slurm, tmp_path: Path) -> None:
    pooled = PooledHub(slurm, tmp_path, keep=True, engine="ipengine", engine_args=[], min=1)
    with pooled.running():
        pooled.wait_for("the engine", there=1)
        [block] = pooled.pool()["blocks"]
        pooled.stop()
    assert [job.number for job in slurm.jobs()] == [block["job"]]
    pooled = PooledHub(slurm, tmp_path, keep=False, min=1)
    with pooled.running():
        pool = pooled.wait_for("the engine", there=1)
        assert [found["block"] for found in pool["blocks"]] == [block["block"]]
        assert pooled.submit(note, [0]).get(LIMIT) == [0]
        assert [job.number for job in slurm.jobs()] == [block["job"]]
        pooled.stop()
    slurm.wait_until_empty()
