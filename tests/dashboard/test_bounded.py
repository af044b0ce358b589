"""The work of one answer does not grow with the history: the tests count what an answer touches."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from trio_hub import HubConfig, RunningHub
from trio_hub.dashboard import tasks
from trio_hub.dashboard.answers import RECENT, engine_details, engine_table
from trio_hub.dashboard.bars import Bars
from trio_hub.dashboard.story import task_details
from trio_hub.dashboard.tasks import Search, find_tasks
from trio_hub.dashboard.timings import Timings
from trio_hub.dashboard.watching import Watch
from trio_hub.errors import QueryError
from trio_hub.hub.connector import EngineConnector
from trio_hub.testing import ScriptedClient, open_client, open_engine, open_hub

from ..runtime.support import eventually, within_limit

MANY = 2000
"""The number of bars of other tasks and engines."""


class Counted:
    """A column of the ring that counts how often it is read."""

    def __init__(self, column: Any) -> None:
        self.reads = 0
        self._column = column

    def __getitem__(self, place: int | slice) -> Any:
        self.reads += 1
        return self._column[place]

    def __setitem__(self, place: int, value: Any) -> None:
        self._column[place] = value


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


class CountingBars(Bars):
    """Bars that count how often they are read, and whose running tasks may not be searched."""

    def __init__(self) -> None:
        super().__init__()
        self.running = NotSearched()
        rows: Any = Counted(self._rows)
        msg_ids: Any = Counted(self._msg_ids)
        self._rows, self._msg_ids = rows, msg_ids
        self._counted: list[Counted] = [rows, msg_ids]

    @property
    def reads(self) -> list[int]:
        """How often the rows and the msg_ids of ended tasks were read."""
        return [column.reads for column in self._counted]


@pytest.fixture
def bars() -> CountingBars:
    return CountingBars()


@pytest.fixture
def watch(bars: CountingBars) -> Watch:
    """A watch with many bars of tasks of other engines, ended and running."""
    watch = Watch(Timings(), bars=bars)
    label = watch.progress.submit("f")
    for number in range(MANY):
        watch.bars.start(f"ended {number}", 1000, float(number), 0, label)
        watch.bars.end(f"ended {number}", number + 0.5, 0)
        watch.bars.start(f"running {number}", 1000, float(number), 0, label)
    return watch


@asynccontextmanager
async def hub_with_an_engine(watch: Watch) -> AsyncGenerator[tuple[RunningHub, EngineConnector, int], None]:
    """Start a hub with one engine. Give the hub, the engine, and the row of the engine in the watch."""
    async with within_limit(), open_hub(HubConfig(db="memory")) as hub, open_engine(hub.engine_info) as engine:
        await hub.wait_engines(1)
        connector = hub.core.engines.alive[engine.id]
        yield hub, connector, watch.engines.meet(connector).row


async def test_an_engines_page_reads_only_the_bars_of_the_engine(watch: Watch, bars: CountingBars) -> None:
    async with hub_with_an_engine(watch) as (hub, connector, row):
        for msg_id in ("a", "b", "c"):
            watch.bars.start(msg_id, row, 1.0, 0, 1)
        watch.bars.end("a", 2.0, 0)
        for number in range(MANY):
            watch.bars.start(f"later {number}", 1000, float(number), 0, 1)
            watch.bars.end(f"later {number}", number + 0.5, 0)
        assert bars.reads == [0, 0]
        details = engine_details(hub, watch, connector.uuid, 3.0)
        assert details is not None
        assert [bar.msg_id for bar in details["recent"]] == ["a", "b", "c"]
        assert details["running"]["msg_id"] == "b"
        (entry,) = engine_table(hub, watch, 3.0)["engines"]
        assert entry["running"]["msg_id"] == "b"
        assert bars.reads == [1, 1]


async def test_an_engines_page_reads_no_more_bars_than_it_shows(watch: Watch, bars: CountingBars) -> None:
    async with hub_with_an_engine(watch) as (hub, connector, row):
        for number in range(MANY):
            watch.bars.start(f"mine {number}", row, float(number), 0, 1)
            watch.bars.end(f"mine {number}", number + 0.5, 0)
        assert bars.reads == [0, 0]
        details = engine_details(hub, watch, connector.uuid, 3.0)
        assert details is not None
        assert [bar.msg_id for bar in details["recent"]] == [f"mine {n}" for n in range(MANY - RECENT, MANY)]
        assert bars.reads == [RECENT, RECENT]


async def test_a_tasks_page_reads_only_the_bars_of_the_task(watch: Watch, bars: CountingBars) -> None:
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
        assert bars.reads == [0, 0]
        details = await task_details(hub, watch, msg_id)
        assert details is not None
        assert [step["what"] for step in details["story"]].count("sent") == 2
        assert details["why_waiting"].endswith("was sent one request before this one")
        assert bars.reads == [1, 1]


@pytest.mark.parametrize("db", ["memory", "sqlite"])
async def test_a_page_of_tasks_does_not_read_the_history(
    db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "SLICE", 3)
    config = HubConfig(profile_dir=tmp_path, db=db)
    async with within_limit(), open_hub(config) as hub, open_client(hub.client_info) as client:
        msg_ids = [client.submit() for _ in range(10)][::-1]
        await eventually(lambda: hub.statistics().tasks_queued == 10)
        watch = Watch(Timings())
        asked: list[int] = []
        recent = hub.core.store.recent

        async def history() -> NoReturn:
            raise AssertionError("the whole history was read")

        async def recent_counted(limit: int, before: str | None = None) -> list[str]:
            asked.append(limit)
            return await recent(limit, before)

        monkeypatch.setattr(hub.core.store, "history", history)
        monkeypatch.setattr(hub.core.store, "recent", recent_counted)
        page = await find_tasks(Search(hub, watch), limit=2)
        assert [row["msg_id"] for row in page["rows"]] == msg_ids[:2]
        assert (page["next"], page["total"]) == (msg_ids[1], 10)
        page = await find_tasks(Search(hub, watch), limit=9, before=page["next"])
        assert [row["msg_id"] for row in page["rows"]] == msg_ids[2:]
        assert (page["next"], page["total"]) == (None, 10)
        assert asked == [4, 4, 4, 4], "one page reads one slice, and the other three"


async def test_a_search_ends_where_a_record_was_purged_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "SLICE", 3)
    async with within_limit(), open_hub(HubConfig(db="memory")) as hub, open_client(hub.client_info) as client:
        msg_ids = [client.submit() for _ in range(10)][::-1]
        await eventually(lambda: hub.statistics().tasks_queued == 10)
        store = hub.core.store
        recent = store.recent

        async def purge_after(limit: int, before: str | None = None) -> list[str]:
            found = await recent(limit, before)
            store.discard(msg_ids[2])
            return found

        monkeypatch.setattr(store, "recent", purge_after)
        page = await find_tasks(Search(hub, Watch(Timings())))
        assert [row["msg_id"] for row in page["rows"]] == msg_ids[:2]
        assert page["next"] == msg_ids[2]
        with pytest.raises(QueryError, match="start again without it"):
            await find_tasks(Search(hub, Watch(Timings())), before=page["next"])


async def _answered(hub: RunningHub, client: ScriptedClient) -> str:
    """Submit a task, and wait until its result is recorded."""
    msg_id = client.submit()
    await eventually(lambda: hub.statistics().completed == 1)
    return msg_id
