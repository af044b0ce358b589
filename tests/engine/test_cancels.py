"""Cancels at random moments of short tasks, with real engines of ours and a client that counts answers."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import pytest
import trio

from trio_hub import HubConfig
from trio_hub.client.packing import pack_call, pack_function
from trio_hub.testing import ScriptedClient, open_client, open_hub

from .support import LIMIT, open_engine_process

pytestmark = pytest.mark.interop

ENGINES = 2
AT_A_TIME = 12
"""The number of tasks that are unanswered at the same time."""
SECONDS = (0.0, 0.001, 0.005)
"""How long tasks run."""


def works(path: str, number: int, seconds: float) -> int:
    """Note the number in a file at the end of the work, and return it."""
    import time

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.0002)
    with open(path, "a") as file:
        file.write(f"{number}\n")
    return number


class Tasks:
    """The tasks of a client, by their numbers, and what was done to those that were cancelled."""

    def __init__(self, client: ScriptedClient, path: Path, rng: Random) -> None:
        self.client = client
        self.path = path
        self.rng = rng
        self.function = pack_function(works)
        self.msg_ids: list[str] = []
        self.cancelled: dict[str, str] = {}

    def submit(self) -> None:
        number = len(self.msg_ids)
        buffers = pack_call(self.function, (str(self.path), number, self.rng.choice(SECONDS)), {})
        self.msg_ids.append(self.client.submit(*buffers))

    def unanswered(self) -> list[str]:
        """Return the unanswered ones of the latest tasks."""
        return [msg_id for msg_id in self.msg_ids[-5 * AT_A_TIME :] if msg_id not in self.client.replies]

    @property
    def interrupted(self) -> int:
        """The number of tasks that an engine had when they were cancelled."""
        return sum(what == "interrupted" for what in self.cancelled.values())

    async def cancel(self, running: list[str]) -> None:
        """Cancel a task: mostly one that an engine has, or else a recent one, which may wait or be finished."""
        running = [msg_id for msg_id in running if msg_id not in self.cancelled]
        recent = [msg_id for msg_id in self.msg_ids[-AT_A_TIME:] if msg_id not in self.cancelled]
        msg_id = self.rng.choice(running if running and self.rng.random() < 0.8 else recent)
        reply = await self.client.query("cancel_request", {"msg_ids": [msg_id], "grace": LIMIT})
        self.cancelled |= reply.content["cancelled"]

    def check(self) -> Counter[str]:
        """Check that each task was answered once, as it has to be, and return the numbers of answers by kind."""
        done = Counter(map(int, self.path.read_text().split()))
        kinds: Counter[str] = Counter()
        for number, msg_id in enumerate(self.msg_ids):
            [reply] = self.client.replies[msg_id]
            what = self.cancelled.get(msg_id, "finished")
            if reply.content["status"] == "ok":
                assert what == "finished", f"task {number} was cancelled ({what}), and has a result"
                assert done[number] == 1, f"task {number} has a result, and was carried out {done[number]} times"
            else:
                assert reply.content["ename"] == "TaskCancelled", reply.content
                assert what in ("withdrawn", "interrupted")
                assert done[number] <= 1
            kinds[f"{what} {reply.content['status']}"] += 1
        return kinds


@pytest.mark.parametrize("hwm", [1, 3])
@pytest.mark.parametrize("cancels", [50, pytest.param(1000, marks=pytest.mark.stress)])
async def test_cancels_at_random_moments_hit_no_other_task(tmp_path: Path, cancels: int, hwm: int) -> None:
    rng = Random(cancels + hwm)
    with trio.fail_after(LIMIT + cancels / 4):
        async with AsyncExitStack() as stack:
            hub = await stack.enter_async_context(open_hub(HubConfig(hwm=hwm)))
            for _ in range(ENGINES):
                await stack.enter_async_context(open_engine_process(tmp_path, info=hub.engine_info))
            client = await stack.enter_async_context(open_client(hub.client_info))
            await hub.wait_engines(ENGINES)
            engines = dict(hub.engines)
            tasks = Tasks(client, tmp_path / "done", rng)
            tasks.path.touch()
            scheduler = hub.core.tasks.scheduler
            while tasks.interrupted < cancels:
                tasks.submit()
                tasks.submit()
                await trio.sleep(rng.random() * 0.005)  # a moment at which a cancel comes, not a wait for something
                await tasks.cancel([task.msg_id for task in scheduler.tasks.values() if task.worker is not None])
                await client.wait_until(lambda: len(tasks.unanswered()) < AT_A_TIME)
            await client.wait_until(lambda: client.replies.keys() >= set(tasks.msg_ids))
            kinds = tasks.check()
            assert kinds["finished ok"] > cancels, kinds
            assert hub.core.work.interrupts.hits == 0
            assert dict(hub.engines) == engines, "no engine was killed"
            assert not hub.statistics().internal_errors
