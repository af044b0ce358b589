"""The work of one answer does not grow with the history: the tests count what an answer touches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from trio_hub import HubConfig, RunningHub
from trio_hub.dashboard.answers import RECENT, engine_details, engine_table
from trio_hub.dashboard.bars import Bars
from trio_hub.dashboard.story import task_details
from trio_hub.dashboard.timings import Timings
from trio_hub.dashboard.watching import Watch
from trio_hub.testing import ScriptedClient, open_client, open_engine, open_hub

from ..runtime.support import eventually, within_limit

MANY = 2000
"""The number of bars of other tasks and engines."""


class Column(list[Any]):
    """A column of the ring that counts how often it is read."""

    reads = 0

    def __getitem__(self, place: Any) -> Any:
        self.reads += 1
        return super().__getitem__(place)


class NotSearched(dict[str, Any]):
    """The running tasks, which may be looked up but not searched."""

    def _refuse(self) -> NoReturn:
        raise AssertionError("all running tasks were searched")

    def __iter__(self) -> Iterator[str]:
        self._refuse()

    def keys(self) -> NoReturn:
        self._refuse()

    def values(self) -> NoReturn:
        self._refuse()

    def items(self) -> NoReturn:
        self._refuse()


@pytest.fixture
def watch() -> Watch:
    """A watch with many bars of tasks of other engines, ended and running."""
    watch = Watch(Timings())
    label = watch.progress.submit("f")
    for number in range(MANY):
        watch.bars.start(f"ended {number}", 1000, float(number), 0, label)
        watch.bars.end(f"ended {number}", number + 0.5, 0)
        watch.bars.start(f"running {number}", 1000, float(number), 0, label)
    return watch


def count_reads(bars: Bars) -> tuple[Column, Column]:
    """Replace columns of the ring by columns that count, and the running tasks by ones that are not searched."""
    rows, msg_ids = Column(bars._rows), Column(bars._msg_ids)
    bars.running = NotSearched(bars.running)
    bars._rows, bars._msg_ids = rows, msg_ids  # type: ignore[assignment]
    return rows, msg_ids


async def test_an_engines_page_reads_only_the_bars_of_the_engine(watch: Watch) -> None:
    config = HubConfig(db="memory")
    async with within_limit(), open_hub(config) as hub, open_engine(hub.engine_info) as engine:
        await hub.wait_engines(1)
        connector = hub.core.engines.alive[engine.id]
        row = watch.engines.meet(connector).row
        for msg_id in ("a", "b", "c"):
            watch.bars.start(msg_id, row, 1.0, 0, 1)
        watch.bars.end("a", 2.0, 0)
        for number in range(MANY):
            watch.bars.start(f"later {number}", 1000, float(number), 0, 1)
            watch.bars.end(f"later {number}", number + 0.5, 0)
        columns = count_reads(watch.bars)
        details = engine_details(hub, watch, connector.uuid, 3.0)
        assert details is not None
        assert [bar.msg_id for bar in details["recent"]] == ["a", "b", "c"]
        assert details["running"]["msg_id"] == "b"
        (entry,) = engine_table(hub, watch, 3.0)["engines"]
        assert entry["running"]["msg_id"] == "b"
        assert [column.reads for column in columns] == [1, 1]


async def test_an_engines_page_reads_no_more_bars_than_it_shows(watch: Watch) -> None:
    config = HubConfig(db="memory")
    async with within_limit(), open_hub(config) as hub, open_engine(hub.engine_info) as engine:
        await hub.wait_engines(1)
        connector = hub.core.engines.alive[engine.id]
        row = watch.engines.meet(connector).row
        for number in range(MANY):
            watch.bars.start(f"mine {number}", row, float(number), 0, 1)
            watch.bars.end(f"mine {number}", number + 0.5, 0)
        columns = count_reads(watch.bars)
        details = engine_details(hub, watch, connector.uuid, 3.0)
        assert details is not None
        assert [bar.msg_id for bar in details["recent"]] == [f"mine {n}" for n in range(MANY - RECENT, MANY)]
        assert [column.reads for column in columns] == [RECENT, RECENT]


async def test_a_tasks_page_reads_only_the_bars_of_the_task(watch: Watch) -> None:
    async with (
        within_limit(),
        open_hub(HubConfig(db="memory")) as hub,
        open_engine(hub.engine_info),
        open_client(hub.client_info) as client,
    ):
        await hub.wait_engines(1)
        msg_id = await _answered(hub, client)
        row = watch.engines.of("e").row
        watch.bars.start(msg_id, row, 1.0, 0, 1)
        watch.bars.end(msg_id, 2.0, 1)
        watch.bars.start("before", row, 2.0, 0, 1)
        watch.bars.start(msg_id, row, 3.0, 0, 1)
        columns = count_reads(watch.bars)
        details = await task_details(hub, watch, msg_id)
        assert details is not None
        assert [step["what"] for step in details["story"]].count("sent") == 2
        assert details["why_waiting"].endswith("was sent one request before this one")
        assert [column.reads for column in columns] == [1, 1]


async def _answered(hub: RunningHub, client: ScriptedClient) -> str:
    """Submit a task, and wait until its result is recorded."""
    msg_id = client.submit()
    await eventually(lambda: hub.statistics().completed == 1)
    return msg_id
