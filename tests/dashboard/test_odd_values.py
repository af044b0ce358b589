"""Odd names of clients, engines and tasks: the dashboard writes them, and a browser can read them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from trio_hub import HubConfig
from trio_hub.dashboard.answers import as_json, engine_table, failure_table
from trio_hub.dashboard.audience import event_message
from trio_hub.dashboard.timings import Timings
from trio_hub.dashboard.trace import trace_parts
from trio_hub.dashboard.watching import Watch
from trio_hub.hub.events import EngineRegistered, TaskAssigned, TaskFinished, TaskSubmitted
from trio_hub.testing import open_hub

from ..runtime.support import within_limit
from ..wire.odd import odd_texts, odd_values
from .support import feed_of, reading, site

pytestmark = pytest.mark.property

# pickle.dumps({"__name__": "x\udcff"})
PICKLED = b"\x80\x04\x95\x15\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x08__name__\x94\x8c\x04x\xed\xb3\xbf\x94s."
STRANGE = ["x\udcff", "\ud83d" + "\ude00", "\0", '"\\', "a\n\nevent: forged", "\u2028", ""]


def read(text: bytes | str) -> Any:
    """Read JSON as a browser does."""
    return json.loads(text, parse_constant=pytest.fail)


def as_read(text: str) -> str:
    """Two surrogates that follow each other, each written as its escape, are read as the one character they make."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


@given(odd_values)
def test_every_answer_and_message_can_be_written(value: Any) -> None:
    read(bytes(as_json(value).body))
    message = event_message("odd", {"value": value})
    assert message.count(b"\n") == 3, "else a part of the value would pass for another line"
    read(message.split(b"\n")[1].removeprefix(b"data: "))


@given(odd_texts, odd_texts, odd_texts)
def test_every_trace_can_be_written(msg_id: str, label: str, uuid: str) -> None:
    watch = strange_work(msg_id, label, uuid)
    events = read(b"".join(trace_parts(watch, 1e10)))["traceEvents"]
    assert [event["args"]["msg_id"] for event in events if event["ph"] == "X"] == [as_read(msg_id)]


def strange_work(msg_id: str, label: str, uuid: str, watch: Watch | None = None) -> Watch:
    watch = watch or Watch(Timings())
    watch.happened(EngineRegistered(0, uuid))
    watch.happened(TaskSubmitted(msg_id, "task", label, "session"))
    watch.happened(TaskAssigned(msg_id, uuid))
    watch.happened(TaskFinished(msg_id, uuid, "error", label, label))
    return watch


async def test_every_table_can_be_written() -> None:
    async with within_limit(), open_hub(HubConfig(db="memory")) as hub:
        watch = Watch(Timings())
        feed = feed_of(hub, watch)
        for text in STRANGE:
            strange_work(text, text, text, watch)
        read(feed.first_message(STRANGE[0]).split(b"\n")[1].removeprefix(b"data: "))
        bars = read(bytes(as_json(await feed.bars_since(0, 100)).body))
        assert [bar[7] for bar in bars["bars"]] == list(map(as_read, STRANGE))
        read(bytes(as_json(engine_table(hub, watch, 0.0)).body))
        groups = read(bytes(as_json(await failure_table(hub, watch, 0.0)).body))["groups"]
        assert len(groups) == len(STRANGE)
        labels = read(bytes(as_json(watch.progress.table(watch.bars)).body))
        assert {row["label"] for row in labels} >= {r"x\udcff", "\0", '"\\'}


async def test_a_function_of_a_strange_name_ends_nothing() -> None:
    """A name in a pickle, and a label, with a lone surrogate, while a page looks at single tasks."""
    async with within_limit(), site(db="memory") as at, reading(at.dashboard, "&stream=1") as reader:
        await reader.until("overview")
        for buffer, metadata in (
            (PICKLED, {}),
            (b"work", {"label": "file-\udcff"}),
            (b"work", {"label": [float("nan"), "\udcff", {"a": [[]]}]}),
        ):
            await at.client.reply(at.client.submit(buffer, metadata=metadata))
        labels: set[str] = set()
        while len(labels) < 3:
            labels.update((await reader.until("bars"))["labels"].values())
        assert labels == {r"x\udcff", r"file-\udcff", '[null, "\\udcff", {"a": [[]]}]'}
        rows = (await at.get("/api/tasks"))["rows"]
        assert {row["label"] for row in rows} == {r"x\udcff", "file-\udcff", '[null, "\\udcff", {"a": [[]]}]'}
        for row in rows:
            assert (await at.get(f"/api/tasks/{row['msg_id']}"))["row"]["state"] == "ok"
