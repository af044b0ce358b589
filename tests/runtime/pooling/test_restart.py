"""The stop of a hub, and the next hub: blocks are neither doubled nor orphaned."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from trio_hub.launching.launcher import JobState

from .fake import Batch, FakeCore, a_batch, a_hub, a_pool, now


def records(directory: Path) -> set[str]:
    return {path.stem for path in directory.glob("*.json")} - {"pools"}


async def test_the_stop_cancels_all_blocks_in_whatever_state(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with a_batch(slots=2, delays=(0.5, 0.5)) as batch:
        pool = a_pool(backlog=4)
        async with a_hub(batch, pool, directory=tmp_path) as hub:
            hub.core.tasks, hub.core.runtime = 8, 600.0
            await hub.until(lambda: len(batch.engines) == 2)
            hub.steering.scale("slurm", min=0, max=16)
            hub.core.tasks = 50
            await hub.until(lambda: any(block.is_submitting for block in hub.pool.blocks.values()))
            stopped = trio.current_time()
        assert not batch.alive()
        assert records(tmp_path) == set()
        assert trio.current_time() - stopped < 5


async def test_many_blocks_are_cancelled_at_the_same_time_at_the_stop(autojump_clock: MockClock) -> None:
    async with a_batch(ending=2.0) as batch:
        async with a_hub(batch, a_pool(backlog=8, engines_per_block=1)) as hub:
            hub.core.tasks, hub.core.runtime = 8, 600.0
            await hub.until(lambda: len(batch.engines) == 8)
        assert not batch.alive()


async def test_a_stop_does_not_wait_for_a_batch_system_that_does_not_answer(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_batch() as batch:
        async with a_hub(batch, directory=tmp_path, grace=3.0) as hub:
            hub.core.tasks, hub.core.runtime = 8, 600.0
            await hub.until(lambda: len(batch.engines) == 8)
            batch.stuck = "no answer"
            stopped = trio.current_time()
        assert trio.current_time() - stopped == pytest.approx(3.0, abs=0.5)
        assert {f"shut down {job.block}" for job in batch.jobs} <= set(hub.core.orders)
        assert "blocks could not be cancelled before the hub has stopped" in caplog.text
        assert len(records(tmp_path)) == len(batch.alive()) == 4
        batch.stuck = ""
        async with a_hub(batch, directory=tmp_path) as hub:
            hub.core.tasks, hub.core.runtime = 2, 1.0
            await hub.until(lambda: not batch.alive() and not records(tmp_path))


async def test_a_hurried_stop_leaves_little_time(autojump_clock: MockClock) -> None:
    async with a_batch() as batch:
        async with a_hub(batch, grace=30.0) as hub:
            hub.core.tasks, hub.core.runtime = 8, 600.0
            await hub.until(lambda: len(batch.engines) == 8)
            batch.stuck = "no answer"
            hub.pools.hurry()
            stopped = trio.current_time()
        assert trio.current_time() - stopped < 3


async def test_kept_blocks_stay_and_are_taken_up(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with a_batch(delays=(0.5, 0.5)) as batch:
        pool = a_pool(keep=True)
        async with a_hub(batch, pool, directory=tmp_path) as hub:
            hub.core.tasks, hub.core.runtime = 8, 100.0
            await hub.until(lambda: len(batch.engines) >= 4)
            hub.core.tasks = 4
            await hub.until(lambda: any(block.is_submitting for block in hub.pool.blocks.values()))
            seconds = hub.pool.engine_seconds(now())
        assert len(records(tmp_path)) == len(batch.alive()) >= 3, "the last submission was awaited"
        async with a_hub(batch, pool, directory=tmp_path, core=hub.core) as hub:
            assert len(hub.pool.blocks) == len(batch.alive())
            assert hub.pool.engine_seconds(now()) >= seconds
            await hub.until(lambda: not batch.alive() and not hub.pool.blocks, 300)
        assert records(tmp_path) == set()


async def test_without_reuse_the_blocks_of_a_killed_hub_are_cancelled(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_batch() as batch:
        async with a_hub(batch, directory=tmp_path) as hub:
            hub.core.tasks, hub.core.runtime = 8, 600.0
            await hub.until(lambda: len(batch.engines) == 8)
            hub.kill()
        assert len(batch.alive()) == len(records(tmp_path)) == 4
        batch.engines = {}  # their ports and key are those of the earlier hub
        async with a_hub(batch, directory=tmp_path, returning=False) as hub:
            await hub.until(lambda: not batch.alive() and not records(tmp_path) and not hub.pools.former)
            assert caplog.text.count("its engines cannot come back") == 4
            assert hub.steering.listed()[0]["blocks"] == []


@pytest.mark.parametrize("keep", [False, True])
async def test_blocks_of_a_pool_that_is_not_in_the_settings_any_more(
    tmp_path: Path, autojump_clock: MockClock, keep: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with a_batch() as batch:
        async with a_hub(batch, a_pool(keep=keep), directory=tmp_path) as hub:
            hub.core.tasks, hub.core.runtime = 8, 600.0
            await hub.until(lambda: len(batch.engines) == 8)
            hub.kill()
        async with a_hub(batch, a_pool("other"), directory=tmp_path) as hub:
            if keep:
                await trio.sleep(20)
                assert len(records(tmp_path)) == len(batch.alive()) == 4
                assert caplog.text.count("a block stays, although its pool is not in the settings any more") == 4
            else:
                await hub.until(lambda: not batch.alive() and not records(tmp_path))
                assert caplog.text.count("its pool is not in the settings any more") == 4


async def test_a_pool_with_another_launcher_does_not_take_up_the_blocks(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_batch() as batch:
        async with a_hub(batch, directory=tmp_path) as hub:
            hub.core.tasks, hub.core.runtime = 8, 600.0
            await hub.until(lambda: len(batch.engines) == 8)
            hub.kill()
        async with a_hub(batch, a_pool(launcher="pbs"), directory=tmp_path) as hub:
            assert not hub.pool.blocks
            await hub.until(lambda: not batch.alive() and not records(tmp_path))


RECORD = {"block": "slurm-0123abcd", "engines": 2, "state": "running", "asked": 1.0, "started": 2.0}
WRONG: list[dict[str, Any]] = [
    {"engines": 10**30},
    {"asked": math.inf},
    {"asked": 10**400},
    {"started": math.nan},
    {"state": ["running"]},
    {"job": {"job": "1", "engines": "many"}},
]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"block": "slurm-0123abcd"}',
        '{"block": "slurm-99999999"}',
        *(json.dumps({**RECORD, "pool": {"name": "slurm", "launcher": "slurm", "max": 8}, **wrong}) for wrong in WRONG),
    ],
)
async def test_a_damaged_record_is_put_aside(
    tmp_path: Path, autojump_clock: MockClock, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "slurm-0123abcd.json").write_text(content)
    (tmp_path / "pools.json").write_text(content)
    (tmp_path / "notes.json").write_text(content)
    async with a_batch() as batch, a_hub(batch, directory=tmp_path) as hub:
        assert "a file of pools is damaged, and is renamed" in caplog.text
        assert (tmp_path / "slurm-0123abcd.json.damaged").read_text() == content
        assert (tmp_path / "notes.json").exists(), "no file of ours"
        hub.core.tasks, hub.core.runtime = 2, 1.0
        await hub.until(lambda: hub.core.done == 2)


async def test_records_of_another_cluster_are_left_alone(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = tmp_path / "slurm-0123abcd.json"
    path.write_text(json.dumps({"block": path.stem, "cluster_id": "other"}))
    async with a_batch() as batch, a_hub(batch, directory=tmp_path):
        await trio.sleep(10)
    assert path.exists()


async def test_a_hub_that_was_killed_while_a_job_was_submitted_finds_the_job(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_batch(delays=(2.0, 2.0)) as batch:
        core = FakeCore(batch)
        core.tasks, core.runtime = 2, 60.0
        async with a_hub(batch, a_pool(max=2), directory=tmp_path, core=core) as hub:
            await hub.until(lambda: bool(hub.pool.blocks))
            await trio.sleep(1)
            hub.kill()
        assert batch.jobs == [], "the agent has not submitted it yet"
        async with a_hub(batch, a_pool(max=2), directory=tmp_path, core=core) as hub:
            await hub.until(lambda: len(batch.engines) == 2)
            await trio.sleep(10)
            assert len(batch.jobs) == 1
            assert hub.steering.listed()[0]["blocks"][0]["job"] == "1"
            await hub.until(lambda: not batch.alive() and not records(tmp_path), 200)


async def test_a_submission_of_a_killed_hub_that_came_to_nothing_is_given_up(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_batch(refusal="no") as batch:
        core = FakeCore(batch)
        core.tasks, core.runtime = 2, 60.0
        async with a_hub(batch, a_pool(max=2), directory=tmp_path, core=core) as hub:
            await hub.until(lambda: bool(records(tmp_path)))
            hub.kill()
        await trio.sleep(1)
        batch.refusal = ""
        async with a_hub(batch, a_pool(max=2), directory=tmp_path, core=core) as hub:
            await hub.until(lambda: "neither a job nor an engine was found" in caplog.text)
            assert trio.current_time() > 30
            await hub.until(lambda: len(batch.engines) == 2)
            assert (hub.pool.counts["failed"], hub.pool.memory.failures) == (0, 0)


async def test_engines_that_come_back_late_after_a_restart_are_awaited(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with a_batch() as batch:
        core = FakeCore(batch)
        core.tasks, core.runtime = 8, 600.0
        async with a_hub(batch, directory=tmp_path, core=core) as hub:
            await hub.until(lambda: len(batch.engines) == 8)
            await trio.sleep(60)
            hub.kill()
        away, batch.engines = batch.engines, {}
        async with a_hub(batch, directory=tmp_path, core=core) as hub:
            await trio.sleep(4)
            assert len(batch.alive()) == len(batch.jobs) == 4
            assert hub.steering.listed()[0]["coming"] == 8
            batch.engines = away
            await trio.sleep(30)
            assert len(batch.alive()) == len(batch.jobs) == 4
            hub.kill()
        batch.engines = {}
        async with a_hub(batch, directory=tmp_path, core=core) as hub:
            await hub.until(lambda: len(batch.cancels) == 4, 60)  # they do not come back any more
            hub.kill()


async def life(batch: Batch, directory: Path, lives: list[float], tasks: int) -> None:
    """Kill a hub after each of these times, and start it again. The last one lives until everything is done."""
    core = FakeCore(batch)
    core.tasks, core.runtime = tasks, 5.0
    for seconds in lives:
        async with a_hub(batch, directory=directory, core=core) as hub:
            await trio.sleep(seconds)
            hub.kill()
    async with a_hub(batch, directory=directory, core=core) as hub:
        await hub.until(lambda: core.done == tasks, 600)
        await hub.until(lambda: not batch.alive() and not hub.pool.blocks, 100)
    assert records(directory) == set()
    assert not batch.engines
    assert sum(1 for job in batch.jobs if job.state is JobState.ENDED) == len(batch.jobs)


@given(
    lives=st.lists(st.floats(0.0, 12.0), max_size=4),
    delays=st.tuples(st.floats(0.0, 3.0), st.floats(0.0, 3.0)),
    startup=st.floats(0.1, 6.0),
    slots=st.sampled_from([2, 4, 100]),
    tasks=st.integers(1, 16),
)
@settings(max_examples=25)
def test_a_hub_killed_at_any_moment_neither_doubles_nor_orphans_blocks(
    lives: list[float], delays: tuple[float, float], startup: float, slots: int, tasks: int
) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory:
            async with a_batch(delays=delays, startup=startup, slots=slots, limit=8) as batch:
                await life(batch, Path(directory), lives, tasks)

    with pytest.MonkeyPatch.context() as patch:

        async def run_sync(call: object, *arguments: object, **options: object) -> object:
            await trio.lowlevel.checkpoint()
            return call(*arguments)  # type: ignore[operator]

        patch.setattr(trio.to_thread, "run_sync", run_sync)
        trio.run(run, clock=MockClock(autojump_threshold=0))
