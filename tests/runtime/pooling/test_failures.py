"""Each way in which a block can fail, or not come: what the pool does about it, and what it tells."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from trio_hub.hub.events import BlockEnded, BlockStarted, BlockSubmitted
from trio_hub.launching.launcher import JobState
from trio_hub.pools.supply import BlockState

from .fake import FakeHub, a_batch, a_hub, a_pool, now


async def engines_come(hub: FakeHub, number: int) -> None:
    await hub.until(lambda: len(hub.batch.engines) == number and hub.pool.is_settled(now()))


async def test_a_pool_grows_and_gives_everything_back(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_batch() as batch, a_hub(batch) as hub:
        hub.core.tasks, hub.core.runtime = 8, 30.0
        await engines_come(hub, 8)
        assert hub.steering.listed()[0]["there"] == 8
        await hub.until(lambda: hub.core.done == 8)
        await hub.until(lambda: not batch.alive() and not hub.pool.blocks)
        assert hub.pool.counts == {"submitted": 4, "refused": 0, "failed": 0, "ended": 0, "cancelled": 4}
        assert sorted(batch.cancels) == sorted(job.block for job in batch.jobs), "each was cancelled once"
        assert hub.pool.engine_seconds(now()) > 8 * 30
        assert [type(event) for event in hub.events].count(BlockStarted) == 4
        assert (
            BlockEnded("slurm", batch.jobs[0].block, failed=False, words="has no engine that is needed") in hub.events
        )
    assert "a block has failed" not in caplog.text


async def test_what_is_submitted_is_listed_at_once(autojump_clock: MockClock) -> None:
    async with a_batch(delays=(5.0, 5.0)) as batch, a_hub(batch) as hub:
        hub.core.tasks, hub.core.runtime = 8, 600.0
        await hub.until(lambda: len(hub.pool.blocks) == 2)
        await hub.until(lambda: hub.steering.listed()[0]["grow"]["word"] == "backlog")
        (told,) = hub.steering.listed()
        assert (told["asked"], told["coming"], told["there"], told["wanted"]) == (4, 0, 0, 8)
        await engines_come(hub, 8)
        assert isinstance(hub.events[0], BlockSubmitted)


async def test_a_refused_block_is_tried_again_with_growing_pauses(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        a_batch(refusal="sbatch: error: invalid partition specified: shrt") as batch,
        a_hub(batch, a_pool(max_failures=4, retry_pause=2.0)) as hub,
    ):
        hub.core.tasks, hub.core.runtime = 8, 600.0
        await hub.until(lambda: hub.pool.memory.stopped(hub.pool.settings))
        assert trio.current_time() > 2 + 4 + 8
        await trio.sleep(1000)
        (told,) = hub.steering.listed()
        assert (told["is_stopped"], told["failures"], told["blocks"]) == (True, 4, [])
        assert told["failed_words"] == "sbatch: error: invalid partition specified: shrt"
        assert told["counts"]["refused"] == told["counts"]["submitted"] == 6, "two, two, one, one"
        assert caplog.text.count("a block was refused") == 6
        batch.refusal = ""
        hub.steering.resume("slurm")
        await engines_come(hub, 8)
        await trio.sleep(40)
        assert hub.steering.listed()[0]["failures"] == 0


async def test_a_block_that_waits_is_told_with_the_words_of_the_batch_system(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with a_batch(slots=2) as batch, a_hub(batch) as hub:
        hub.core.tasks, hub.core.runtime = 8, 600.0
        await engines_are(hub, 2)
        await trio.sleep(100)
        waiting = [block for block in hub.steering.listed()[0]["blocks"] if block["state"] == "waiting"]
        assert [block["words"] for block in waiting] == ["Resources"] * 2
        assert caplog.text.count("waits in the queue of the batch system") == len(waiting), "each is told once"
        assert hub.pool.memory.failures == 0
        assert batch.looks < 80, "a batch system that has nothing new is asked less often"
        hub.core.tasks = 0
        await hub.until(lambda: hub.pool.counts["cancelled"] == 2)  # what waits and is not needed is given up
        assert len(batch.alive()) == 1


async def engines_are(hub: FakeHub, number: int) -> None:
    await hub.until(lambda: len(hub.batch.engines) == number)


@pytest.mark.parametrize(
    ("words", "failed"), [("FAILED, exit status 1", True), ("NODE_FAIL", True), ("COMPLETED", False), ("", None)]
)
async def test_a_block_that_ends_before_its_engines_come_has_failed(
    autojump_clock: MockClock, words: str, failed: bool | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_batch(startup=5.0) as batch, a_hub(batch, a_pool(max=2)) as hub:
        hub.core.tasks, hub.core.runtime = 8, 600.0
        await hub.until(lambda: bool(batch.jobs) and batch.jobs[0].state is JobState.RUNNING)
        await trio.sleep(2)
        batch.end(batch.jobs[0], words, failed=failed)
        await hub.until(lambda: hub.pool.counts["failed"] == 1)
        assert hub.pool.memory.words == (words or "has ended before an engine has come")
        assert "a block has failed" in caplog.text
        assert (words or "has ended before an engine has come") in caplog.text
        await engines_come(hub, 2)
        assert len(batch.jobs) == 2


@pytest.mark.parametrize("words", ["PREEMPTED", "CANCELLED by 1000"])
@pytest.mark.parametrize("age", [3.0, 100.0])
async def test_a_block_that_is_preempted_or_cancelled_by_hand_is_replaced(
    autojump_clock: MockClock, words: str, age: float, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_batch() as batch, a_hub(batch, a_pool(max=2)) as hub:
        hub.core.tasks, hub.core.runtime = 8, 600.0
        await engines_come(hub, 2)
        await trio.sleep(age)
        hub.core.tasks = 8
        batch.end(batch.jobs[0], words, failed=True)
        await hub.until(lambda: len(batch.jobs) == 2)
        assert (hub.pool.counts["failed"], hub.pool.counts["cancelled"]) == (1, 0)
        assert hub.pool.memory.words == words
        assert f'words="{words}"' in caplog.text or f"words={words}" in caplog.text
        await engines_come(hub, 2)
        assert batch.cancels == [], "the block was gone by itself"


async def test_a_preempted_block_that_is_queued_again_is_not_doubled(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_batch(slots=2) as batch, a_hub(batch, a_pool(max=2)) as hub:
        hub.core.tasks, hub.core.runtime = 8, 600.0
        await engines_come(hub, 2)
        job = batch.jobs[0]
        batch.slots, batch.engines = 0, {}
        job.state, job.words = JobState.WAITING, "BeginTime"
        await hub.until(lambda: hub.pool.blocks[job.block].state is BlockState.WAITING)
        await trio.sleep(20)
        assert len(batch.jobs) == 1
        assert "waits in the queue of the batch system again" in caplog.text
        batch.slots = 2
        batch.schedule()
        await engines_come(hub, 2)
        assert hub.pool.counts["failed"] == 0


@pytest.mark.parametrize("becomes", [JobState.ENDED, JobState.WAITING, JobState.ENDING])
async def test_a_block_that_is_ending_is_awaited_until_the_batch_system_says_why(
    autojump_clock: MockClock, becomes: JobState
) -> None:
    async with a_batch(slots=2) as batch, a_hub(batch, a_pool(max=2)) as hub:
        hub.core.tasks, hub.core.runtime = 8, 600.0
        await engines_come(hub, 2)
        job = batch.jobs[0]
        batch.slots, batch.engines = 0, {}
        job.state, job.words = JobState.ENDING, "COMPLETING"
        await trio.sleep(120)
        assert (len(batch.jobs), batch.cancels) == (1, [])
        if becomes is JobState.ENDED:
            batch.end(job, "PREEMPTED", failed=True)
            await hub.until(lambda: len(batch.jobs) == 2)
            assert (hub.pool.memory.words, batch.cancels) == ("PREEMPTED", [])
        elif becomes is JobState.WAITING:
            job.state, job.words = JobState.WAITING, "BeginTime"
            await hub.until(lambda: hub.pool.blocks[job.block].state is BlockState.WAITING)
            assert hub.pool.counts["failed"] == 0
        else:  # the batch system never says
            await hub.until(lambda: batch.cancels == [job.block], 300.0)


async def test_a_block_that_ends_at_its_time_limit_has_not_failed(autojump_clock: MockClock) -> None:
    async with a_batch() as batch, a_hub(batch, a_pool(max=2, time_limit=100.0)) as hub:
        hub.core.tasks, hub.core.runtime = 80, 20.0
        await engines_come(hub, 2)
        started = hub.pool.blocks[batch.jobs[0].block].started
        assert started is not None
        assert set(hub.ended.values()) == {started + 100.0}, "the scheduler knows when the engines end"
        await trio.sleep(95)
        batch.end(batch.jobs[0], "TIMEOUT", failed=True)
        await engines_come(hub, 2)
        assert (hub.pool.counts["failed"], hub.pool.counts["ended"]) == (0, 1)


async def test_a_block_whose_engines_somebody_has_stopped_has_not_failed(autojump_clock: MockClock) -> None:
    async with a_batch() as batch, a_hub(batch, a_pool(max=2)) as hub:
        hub.core.tasks, hub.core.runtime = 2, 5.0
        await engines_come(hub, 2)
        batch.end(batch.jobs[0], "COMPLETED", failed=False)
        await hub.until(lambda: not hub.pool.blocks)
        assert (hub.pool.counts["failed"], hub.pool.counts["ended"], hub.pool.memory.failures) == (0, 1, 0)


async def test_fewer_engines_than_were_asked_for_are_told_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_batch(brings=1) as batch, a_hub(batch, a_pool(max=2, startup_timeout=10.0)) as hub:
        hub.core.tasks, hub.core.runtime = 8, 600.0
        await hub.until(lambda: hub.steering.listed()[0]["there"] == 1)
        assert hub.steering.listed()[0]["coming"] == 1
        await trio.sleep(60)
        assert caplog.text.count("a block has brought fewer engines than were asked for") == 1
        assert "engines=1 wanted=2" in caplog.text
        (told,) = hub.steering.listed()
        assert (told["coming"], told["there"], told["failures"]) == (0, 1, 0)


async def test_a_block_that_brings_no_engine_is_cancelled_and_has_failed(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_batch(brings=0) as batch, a_hub(batch, a_pool(max=2, startup_timeout=10.0)) as hub:
        hub.core.tasks, hub.core.runtime = 8, 600.0
        await hub.until(lambda: hub.pool.counts["failed"] == 1)
        assert "has brought no engine within 10 s of its start (startup_timeout)" in caplog.text
        assert batch.jobs[0].killed
        await hub.until(lambda: hub.pool.memory.stopped(hub.pool.settings), 10_000)
        assert len(batch.jobs) == hub.pool.settings.max_failures


async def test_a_batch_system_that_does_not_answer_is_told_once_and_nothing_is_lost(
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    async with a_batch() as batch, a_hub(batch) as hub:
        hub.core.tasks, hub.core.runtime = 8, 200.0
        await hub.until(lambda: len(batch.engines) >= 2)
        batch.silence = "slurm_load_jobs error: Unable to contact slurm controller"
        await trio.sleep(60)
        assert caplog.text.count("the batch system of a pool does not answer") == 1
        assert "Unable to contact slurm controller" in hub.steering.listed()[0]["unanswered"]
        await engines_are(hub, 8)  # engines that come say themselves that their blocks run
        assert hub.pool.memory.failures == 0
        batch.silence = ""
        await hub.until(lambda: not hub.pool.unanswered)
        assert caplog.text.count("the batch system of a pool answers again") == 1


async def test_a_block_that_cannot_be_cancelled_is_tried_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_batch() as batch, a_hub(batch, a_pool(max=2)) as hub:
        hub.core.tasks, hub.core.runtime = 2, 5.0
        await engines_come(hub, 2)
        batch.stuck = "scancel: error: Kill job error: Invalid user id"
        await hub.until(lambda: "a block could not be cancelled" in caplog.text)
        await trio.sleep(100)
        assert caplog.text.count("a block could not be cancelled") == 1
        (block,) = hub.steering.listed()[0]["blocks"]
        assert (block["state"], block["words"]) == ("cancelled", batch.stuck)
        assert not batch.engines, "they were told to end"
        batch.stuck = ""
        await hub.until(lambda: not batch.alive() and not hub.pool.blocks, 100)


async def test_engines_that_outlive_their_cancelled_job_are_told_to_end(autojump_clock: MockClock) -> None:
    async with a_batch() as batch, a_hub(batch, a_pool(max=2)) as hub:
        hub.core.tasks, hub.core.runtime = 2, 5.0
        await engines_come(hub, 2)
        kept = dict(batch.engines)
        await hub.until(lambda: not batch.alive())
        batch.engines = kept
        await hub.until(lambda: not batch.engines, 200)
        assert any(order.startswith("shut down") for order in hub.core.orders)
        await hub.until(lambda: not hub.pool.blocks)


async def test_engines_of_an_unknown_block_are_taken_up_and_given_back(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_batch() as batch, a_hub(batch) as hub:
        for number in range(2):
            batch.register("slurm-0123abcd", number)
            batch.register("other-0123abcd", number)
        await hub.until(lambda: "slurm-0123abcd" in hub.pool.blocks)
        (told,) = hub.steering.listed()
        assert (told["there"], [block["state"] for block in told["blocks"]]) == (2, ["running"])
        assert "an engine of a block that this hub does not know has registered" in caplog.text
        hub.core.tasks, hub.core.runtime = 2, 30.0
        await trio.sleep(20)
        assert batch.jobs == [], "its engines count"
        await hub.until(lambda: not hub.pool.blocks)
        assert {engine["block"] for engine in batch.engines.values()} == {"other-0123abcd"}
        assert hub.pool.memory.failures == 0


async def test_a_command_without_a_question_counts_as_running_when_it_has_returned(autojump_clock: MockClock) -> None:
    pool = a_pool("cloud", "command", max=2, startup_timeout=10.0)
    async with a_batch(silence="nobody can say", brings=0) as batch, a_hub(batch, pool) as hub:
        hub.core.tasks, hub.core.runtime = 2, 5.0
        await hub.until(lambda: hub.pool.counts["failed"] == 1)
        assert hub.pool.unanswered == ""
        batch.brings = None
        await engines_come(hub, 2)
        await hub.until(lambda: not hub.pool.blocks and not batch.alive())


async def test_engines_that_are_to_be_given_back_are_taken_back_if_tasks_come(autojump_clock: MockClock) -> None:
    async with a_batch() as batch, a_hub(batch, a_pool(max=2)) as hub:
        hub.core.tasks, hub.core.runtime = 2, 5.0
        await engines_come(hub, 2)
        await hub.until(lambda: "retire by pool slurm" in hub.core.orders)
        hub.core.tasks = 2
        await hub.until(lambda: hub.core.done == 4)
        assert "take back by pool slurm" in hub.core.orders
        assert (len(batch.jobs), batch.cancels) == (1, [])


async def test_a_slow_submission_delays_neither_decisions_nor_cancels(autojump_clock: MockClock) -> None:
    async with a_batch() as batch, a_hub(batch) as hub:
        hub.core.tasks, hub.core.runtime = 8, 20.0
        await engines_come(hub, 8)
        batch.delays = (60.0, 60.0)
        batch.end(batch.jobs[0], "PREEMPTED", failed=True)
        hub.core.tasks = 4
        await hub.until(lambda: any(block.is_submitting for block in hub.pool.blocks.values()))
        hub.core.tasks = 0
        await hub.until(lambda: len(batch.cancels) == 3)
        assert any(block.is_submitting for block in hub.pool.blocks.values())
        await hub.until(lambda: not batch.alive() and not hub.pool.blocks, 300)
