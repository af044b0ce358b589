"""The launcher ``command``, with real shell commands."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_hub.launching import agentlauncher
from trio_hub.launching.agentlauncher import AgentLauncher
from trio_hub.launching.blockfiles import BlockFiles
from trio_hub.launching.commands import Places
from trio_hub.launching.launcher import JobReport, JobState, LaunchError
from trio_hub.launching.usercommands import UserCommands

from ..runtime.support import eventually
from .support import LIMIT, a_pool

SUBMIT = 'echo "$TRIO_HUB_BLOCK $TRIO_HUB_ENGINES $TRIO_HUB_POOL" >> submitted; echo "job/$TRIO_HUB_BLOCK"'
CANCEL = 'echo "$TRIO_HUB_JOB $TRIO_HUB_BLOCK" >> cancelled'
STATUS = 'cat "state-$TRIO_HUB_BLOCK"'


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def commands(tmp_path: Path, **pool: Any) -> UserCommands:
    settings = {"submit_command": SUBMIT, "cancel_command": CANCEL, "status_command": STATUS, **pool}
    directory = tmp_path / "pools"
    return UserCommands(a_pool("command", **settings), Places(directory, tmp_path / "profile"), BlockFiles(directory))


async def test_the_life_of_a_block(tmp_path: Path) -> None:
    pool = a_pool("command", submit_command=SUBMIT, cancel_command=CANCEL, status_command=STATUS)
    directory = tmp_path / "pools"
    with trio.fail_after(LIMIT):
        async with AgentLauncher(pool, directory=directory, profile_dir=tmp_path / "profile") as launcher:
            assert launcher.pool.has_queue
            job = await launcher.submit("p-1", 4)
            assert job["job"] == "job/p-1"
            assert (tmp_path / "submitted").read_text() == "p-1 4 p\n"
            (tmp_path / "state-p-1").write_text("waiting: 0/3 nodes are available\n")
            reports = await launcher.look({"p-1": job, "p-2": {}})
            assert reports["p-1"] == JobReport(JobState.WAITING, "0/3 nodes are available")
            assert reports["p-2"].state is JobState.UNKNOWN
        async with AgentLauncher(pool, directory=directory, profile_dir=tmp_path / "profile") as launcher:
            assert launcher.known() == ["p-1"]
            await launcher.cancel("p-1", {})
            assert (tmp_path / "cancelled").read_text() == "job/p-1 p-1\n"


def test_a_block_that_is_refused(tmp_path: Path) -> None:
    user = commands(tmp_path, submit_command="echo trying; echo 'no quota' >&2; exit 4", cancel_command="")
    with pytest.raises(LaunchError, match="submit_command has failed with exit status 4: no quota"):
        user.submit("p-1", 4)
    assert user.files.blocks() == []
    with pytest.raises(LaunchError, match="pool p has no cancel_command"):
        user.cancel("p-1", {})
    user = commands(tmp_path, cancel_command="exit 1")
    with pytest.raises(LaunchError, match="cancel_command has failed with exit status 1: exit status 1"):
        user.cancel("p-1", {})


def test_a_submission_that_prints_more_than_a_job(tmp_path: Path) -> None:
    user = commands(tmp_path, submit_command=r"printf 'a\0b'; head -c 300000 /dev/zero | tr '\0' x")
    job = user.submit("p-1", 4)
    assert len(job["job"]) == 10_000
    assert job["job"].startswith("abxx")
    user.cancel("p-1", job)
    assert (tmp_path / "cancelled").read_text() == f"{job['job']} p-1\n"


def test_without_a_status_command_the_state_is_unknown(tmp_path: Path) -> None:
    assert commands(tmp_path, status_command="").look({"p-1": {}}) == {"p-1": JobReport(JobState.UNKNOWN)}


def test_an_interrupted_submission(tmp_path: Path) -> None:
    interrupted = {"launcher": "command", "job": "", "engines": 4, "submitted": False}
    user = commands(tmp_path)
    assert user.recover("p-1") is None
    # the status command knows the block by its name
    user.files.write("p-1", interrupted)
    (tmp_path / "state-p-1").write_text("running")
    found = user.recover("p-1")
    assert found == {**interrupted, "submitted": True}
    assert user.recover("p-1") == user.files.read("p-1") == found
    # it says that there is none
    user.files.write("p-2", interrupted)
    (tmp_path / "state-p-2").write_text("ended")
    assert user.recover("p-2") is None
    assert not (tmp_path / "cancelled").exists()
    # nobody knows: the block is cancelled, since another takes its place
    user = commands(tmp_path, status_command="")
    user.files.write("p-3", interrupted)
    assert user.recover("p-3") is None
    assert (tmp_path / "cancelled").read_text() == " p-3\n"
    assert user.files.blocks() == ["p-1"]


async def test_a_preview(tmp_path: Path) -> None:
    pool = a_pool("command", submit_command=SUBMIT, cancel_command=CANCEL, settings={"time_limit": 60})
    with trio.fail_after(LIMIT):
        launcher = AgentLauncher(pool, directory=tmp_path / "pools", profile_dir=tmp_path / "profile", cluster_id="c")
        async with launcher:
            text = await launcher.preview("p-preview", 4)
    lines = text.splitlines()
    assert "TRIO_HUB_BLOCK=p-preview" in lines
    assert "TRIO_HUB_ENGINES=4" in lines
    assert "TRIO_HUB_TIME_LIMIT=60" in lines
    assert SUBMIT in lines
    assert CANCEL in lines
    assert not (tmp_path / "pools").exists()


async def test_a_hurried_end_does_not_wait_for_a_submission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submit = "trap '' TERM; touch begun; while :; do sleep 1; done"
    pool = a_pool("command", submit_command=submit, cancel_command=CANCEL)
    monkeypatch.setattr(agentlauncher, "GRACE", math.inf)
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            launcher = AgentLauncher(pool, directory=tmp_path / "pools")
            async with launcher:
                nursery.start_soon(_submit, launcher)
                await eventually(lambda: (tmp_path / "begun").exists())
                nursery.cancel_scope.cancel()
                launcher.hurry()


async def test_an_end_is_hurried_that_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = a_pool("command", submit_command="touch begun; exec sleep 60", cancel_command=CANCEL)
    monkeypatch.setattr(agentlauncher, "GRACE", math.inf)
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            launcher = AgentLauncher(pool, directory=tmp_path / "pools")
            ended = trio.Event()
            nursery.start_soon(_open_until_begun, launcher, tmp_path / "begun", ended)
            await eventually(lambda: launcher._closing is not None)
            launcher.hurry()
            await ended.wait()


async def _submit(launcher: AgentLauncher) -> None:
    await launcher.submit("p-1", 1)


async def _open_until_begun(launcher: AgentLauncher, begun: Path, ended: trio.Event) -> None:
    async with launcher, trio.open_nursery() as nursery:
        nursery.start_soon(_submit, launcher)
        await eventually(lambda: begun.exists())
        nursery.cancel_scope.cancel()
    ended.set()
