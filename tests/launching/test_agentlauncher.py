"""The hub's side of the launching agent, with a real agent, and programs that behave as those of Slurm do."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio

from trio_hub.errors import ConfigError
from trio_hub.launching.agentlauncher import AgentLauncher
from trio_hub.launching.launcher import JobReport, JobState, LaunchError
from trio_hub.launching.processes import process_key

from ..runtime.support import eventually
from .support import LIMIT, FakeSlurm, a_pool

WAITING, RUNNING, ENDED, UNKNOWN = JobState.WAITING, JobState.RUNNING, JobState.ENDED, JobState.UNKNOWN


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path, monkeypatch)


def a_launcher(
    tmp_path: Path, *, limits: tuple[float, float, float] = (LIMIT, LIMIT, LIMIT), **pool: object
) -> AgentLauncher:
    return AgentLauncher(
        a_pool(**pool),  # type: ignore[arg-type]
        directory=tmp_path / "pools",
        profile_dir=tmp_path / "profile",
        cluster_id="c",
        limits=limits,
    )


async def test_the_life_of_a_block(tmp_path: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "1000")  # of a job in which the hub runs
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/slurm.conf")
    pool = {"traits": {"queue": "short"}, "settings": {"time_limit": 5400, "tags": {"gpu": 1, "kind": "big one"}}}
    with trio.fail_after(LIMIT):
        async with a_launcher(tmp_path, **pool) as launcher:  # type: ignore[arg-type]
            assert launcher.pool.has_queue
            assert launcher.agent_pid is None
            job = await launcher.submit("p-1", 4)
            assert job["job"] == "4711"
            assert job["log"] == f"{tmp_path}/profile/log/p-1.log"
            assert launcher.known() == ["p-1"]
            script = slurm.read("4711.script")
            for line in (
                "--ntasks=4",
                "--time=1:30:00",
                "--partition=short",
                f"--output={tmp_path}/profile/log/p-1.log",
            ):
                assert f"#SBATCH {line}\n" in script
            options = f"--block=p-1 --tag=gpu=1 '--tag=kind=big one' --profile-dir={tmp_path}/profile --cluster-id=c"
            assert f"-m trio_hub engine {options}\n" in script
            environment = slurm.read("4711.env")
            assert f"IPP_PROFILE_DIR={tmp_path}/profile\n" in environment
            assert "SLURM_CONF=" in environment
            assert "SLURM_MEM_PER_CPU" not in environment
            # the name is in the command, so it counts more than the one in the script, and jobs of tasks do not get it
            assert slurm.calls("sbatch") == [f"sbatch --job-name=trio-hub-p-1 {tmp_path}/pools/p-1/slurm_engine.sbatch"]

            second = await launcher.submit("p-2", 4)
            jobs = {"p-1": job, "p-2": second}
            assert await launcher.look(jobs) == dict.fromkeys(jobs, JobReport(WAITING, "Resources"))
            slurm.put("4711", "RUNNING")
            slurm.put("4712", "NODE_FAIL", "NodeDown")
            assert await launcher.look(jobs) == {
                "p-1": JobReport(RUNNING),
                "p-2": JobReport(ENDED, "NODE_FAIL Reason=NodeDown", failed=True),
            }
            slurm.remove("4712")  # Slurm forgets jobs after some minutes
            assert await launcher.look(jobs) == {"p-1": JobReport(RUNNING), "p-2": JobReport(ENDED)}

            await launcher.cancel("p-1", job)
            await launcher.cancel("p-1", job)
            await launcher.cancel("p-2", second)  # a job that Slurm does not know any more
            assert slurm.calls("scancel") == ["scancel 4711", "scancel 4711", "scancel 4712"]
            assert (await launcher.look({"p-1": job}))["p-1"] == JobReport(ENDED, "CANCELLED", failed=True)
            launcher.forget("p-1")
            assert launcher.known() == ["p-2"]
            pid = launcher.agent_pid
        assert pid is not None
        assert process_key(pid) is None


async def test_a_block_that_is_refused(tmp_path: Path, slurm: FakeSlurm) -> None:
    words = "sbatch: error: Batch job submission failed: Invalid partition name specified"
    with trio.fail_after(LIMIT):
        async with a_launcher(tmp_path) as launcher:
            slurm.write("sbatch.fails", words)
            with pytest.raises(LaunchError, match=words):
                await launcher.submit("p-1", 4)
            slurm.remove("sbatch.fails")
            slurm.write("odd")
            with pytest.raises(
                LaunchError, match="Job id couldn't be determined: well: sbatch: warning: an odd plugin"
            ):
                await launcher.submit("p-1", 4)
            assert launcher.known() == []
            slurm.remove("odd")
            assert (await launcher.submit("p-1", 4))["job"] == "4711"


async def test_a_batch_system_that_does_not_answer_says_nothing_of_its_jobs(tmp_path: Path, slurm: FakeSlurm) -> None:
    words = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    with trio.fail_after(LIMIT):
        async with a_launcher(tmp_path) as launcher:
            job = await launcher.submit("p-1", 4)
            slurm.write("squeue.fails", words)
            jobs = {"p-1": job, "p-2": {}}
            launcher.files.write("p-2", {"submitted": False})  # a submission that was interrupted
            assert await launcher.look(jobs) == dict.fromkeys(jobs, JobReport(UNKNOWN, words))
            slurm.write("scancel.fails", "scancel: error: slurm_kill_job2 failed")
            with pytest.raises(LaunchError, match="slurm_kill_job2 failed"):
                await launcher.cancel("p-1", job)


async def test_a_restarted_hub_finds_its_blocks(tmp_path: Path, slurm: FakeSlurm) -> None:
    with trio.fail_after(LIMIT):
        async with a_launcher(tmp_path) as launcher:
            await launcher.submit("p-1", 4)
        slurm.put("4711", "RUNNING")
        async with a_launcher(tmp_path) as launcher:
            assert launcher.known() == ["p-1"]
            found = await launcher.find("p-1")
            assert found is not None
            assert found["job"] == "4711"
            reports = await launcher.look({"p-1": {}, "p-9": {}})
            assert reports == {"p-1": JobReport(RUNNING), "p-9": JobReport(ENDED, "the block was not submitted")}
            await launcher.cancel("p-1", {})
            await launcher.cancel("p-9", {})
            assert slurm.calls("scancel") == ["scancel 4711"]


async def test_an_agent_that_is_killed_between_a_submission_and_its_answer(tmp_path: Path, slurm: FakeSlurm) -> None:
    slurm.write("hang")
    found: dict[str, object] = {}
    with trio.fail_after(LIMIT):
        async with a_launcher(tmp_path) as launcher, trio.open_nursery() as nursery:

            async def submit() -> None:
                found.update(await launcher.submit("p-1", 4))

            nursery.start_soon(submit)
            await eventually(lambda: (slurm.directory / "hanging").exists())
            assert launcher.agent_pid is not None
            os.killpg(launcher.agent_pid, signal.SIGKILL)
            await eventually(lambda: bool(found))
            # the next agent has found the job by its name, and keeps it
            assert found["job"] == "4711"
            assert launcher.files.read("p-1") == found
            assert len(slurm.calls("sbatch")) == 1


TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"


async def test_a_submission_without_an_answer_may_have_been_accepted(tmp_path: Path, slurm: FakeSlurm) -> None:
    """Slurm's controller accepts a job, but is so slow that sbatch gives up; then squeue has no answer, either."""
    with trio.fail_after(LIMIT):
        async with a_launcher(tmp_path) as launcher:
            slurm.write("lost", TIMED_OUT)
            slurm.write("squeue.fails", "slurm_load_jobs error: Socket timed out on send/recv operation")
            job = await launcher.submit("p-1", 4)
            assert (await launcher.look({"p-1": job}))["p-1"].state is UNKNOWN
            slurm.remove("squeue.fails")
            assert await launcher.look({"p-1": job}) == {"p-1": JobReport(WAITING, "Resources")}
            await launcher.cancel("p-1", job)
            assert (await launcher.look({"p-1": job}))["p-1"].state is ENDED
            # another one was not accepted
            slurm.remove("lost")
            slurm.write("sbatch.fails", TIMED_OUT)
            job = await launcher.submit("p-2", 4)
            assert await launcher.look({"p-2": job}) == {"p-2": JobReport(ENDED, TIMED_OUT)}


async def test_a_cancelled_submission_loses_no_job_though_the_agent_hangs(tmp_path: Path, slurm: FakeSlurm) -> None:
    slurm.write("hang")
    with trio.fail_after(LIMIT):
        async with a_launcher(tmp_path) as launcher:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(launcher.submit, "p-1", 4)
                await eventually(lambda: (slurm.directory / "hanging").exists())
                nursery.cancel_scope.cancel()
            pid, sbatch = launcher.agent_pid, int(slurm.read("hanging"))
            assert pid is not None
            launcher.look_limit = 0.1
            said = "the launcher slurm did not answer within 0.1 s"
            assert await launcher.look({"p-1": {}}) == {"p-1": JobReport(UNKNOWN, said)}
            # the agent is killed, with the command that it runs
            await eventually(lambda: process_key(pid) is None and process_key(sbatch) is None)
            launcher.look_limit = LIMIT
            assert await launcher.look({"p-1": {}}) == {"p-1": JobReport(WAITING, "Resources")}
            assert launcher.agent_pid not in (None, pid)


async def test_an_error_in_the_body_comes_out_as_it_is(tmp_path: Path) -> None:
    async def body() -> None:
        async with a_launcher(tmp_path, launcher="command", submit_command="true") as launcher:
            await launcher.check()
            raise LookupError

    with trio.fail_after(LIMIT), pytest.raises(LookupError):
        await body()


async def test_a_hub_that_is_cancelled_may_still_cancel_its_blocks(tmp_path: Path, slurm: FakeSlurm) -> None:
    with trio.fail_after(LIMIT), trio.CancelScope() as scope:
        async with a_launcher(tmp_path) as launcher:
            job = await launcher.submit("p-1", 4)
            scope.cancel()
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await launcher.cancel("p-1", job)
    assert slurm.calls("scancel") == ["scancel 4711"]


async def test_settings_that_cannot_be_used(tmp_path: Path) -> None:
    with trio.fail_after(LIMIT):
        async with a_launcher(tmp_path, launcher="slrum") as launcher:
            with pytest.raises(LaunchError, match="there is no launcher slrum: did you mean slurm"):
                await launcher.check()


def test_the_hub_itself_starts_local_engines(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the hub itself"):
        a_launcher(tmp_path, launcher="local")
