"""The stream of events: events are encoded once, it ends with the hub, and slow readers are cut off."""

from __future__ import annotations

import json
import socket

import pytest
import trio
import trio.testing

from trio_hub import __version__
from trio_hub.dashboard import feed
from trio_hub.dashboard.audience import BACKLOG, Audience
from trio_hub.dashboard.feed import NAMES
from trio_hub.dashboard.timings import Timings
from trio_hub.dashboard.watching import Watch
from trio_hub.hub.events import EngineRegistered, TaskAssigned, TaskFinished, TaskSubmitted
from trio_hub.testing import open_hub

from ..runtime.support import Footprint, eventually, within_limit
from .support import feed_of, open_dashboard, reading, request, site


def read(messages: list[bytes]) -> list[str]:
    return [message.decode() for message in messages]


def test_who_does_not_read_is_given_up_and_others_are_not() -> None:
    audience = Audience()
    with audience.join(False) as slow, audience.join(True) as other:
        assert audience.wants_bars
        taken = []
        for number in range(BACKLOG + 5):
            audience.tell(str(number).encode())
            taken.append(other.receive.receive_nowait())
        assert audience.given_up == 1
        assert audience.readers == {other}
        audience.tell(b"bars", bars=True)
        assert read(taken) == [str(number) for number in range(BACKLOG + 5)]
        assert other.receive.receive_nowait() == b"bars"
        waiting = [slow.receive.receive_nowait() for _ in range(BACKLOG)]
        assert waiting == taken[:BACKLOG], "what was sent before it gave up can be read"
        with pytest.raises(trio.EndOfChannel):
            slow.receive.receive_nowait()
    assert not audience.readers


def test_bars_are_only_for_those_who_look_at_them() -> None:
    audience = Audience()
    with audience.join(False) as one:
        assert not audience.wants_bars
        audience.tell(b"bars", bars=True)
        audience.end(b"stopping")
        assert one.receive.receive_nowait() == b"stopping"
        with pytest.raises(trio.EndOfChannel):
            one.receive.receive_nowait()
    with audience.join(False) as late, pytest.raises(trio.EndOfChannel):
        late.receive.receive_nowait()


async def test_overviews_come_every_second() -> None:
    async with site() as at, reading(at.dashboard, "&actor=ada") as reader:
        first = await reader.until("overview")
        assert first.keys() - {"series"} == (await reader.until("overview")).keys() - {"point"}
        assert (first["version"], first["admin"], first["actor"]) == (__version__, False, "ada")
        assert first["address"] == f"{at.hub.client_info['interface']}:{at.hub.client_info['registration']}"
        assert first["statistics"]["connections"] == "open"
        assert set(first["series"]) == set(NAMES)
        assert len({len(values) for values in first["series"].values()}) == 1
        for _ in range(4):
            await at.client.reply(at.client.submit())
        point: dict[str, float] = {}
        while point.get("finished", 0) <= 0:
            overview = await reader.until("overview")
            point = overview["point"]
        assert set(point) == set(NAMES)
        names = ("submitted", "finished", "failed", "aborted")
        assert overview["rates"]["10"] == {name: point[name] for name in names}
        assert set(overview["rates"]) == {"10", "60"}
        assert (overview["actor"], overview["clients"]) == (None, 1)
        assert overview["statistics"]["completed"] == 4
        assert overview["latencies"]["run"]["count"] == overview["latencies"]["wait"]["count"] == 4
        assert overview["latencies"]["message"]["p99"] >= overview["latencies"]["message"]["p50"] > 0
        assert 0 < overview["process"]["fds"] < overview["process"]["fds_limit"]
        assert overview["process"]["rss"] > 1 << 20


async def test_bars_come_when_there_are_any() -> None:
    async with site() as at, reading(at.dashboard, "&stream=1") as reader, reading(at.dashboard) as other:
        await reader.until("overview")
        await other.until("overview")
        at.engine.hold()
        msg_id = at.client.submit(metadata={"label": "work"})
        began = await reader.until("bars")
        ((seq, _, start, end, kind, status, label, name),) = began["bars"]
        assert (end, kind, status, name) == (None, "task", "running", msg_id)
        assert began["labels"] == {str(label): "work"}
        at.engine.release()
        ended = await reader.until("bars")
        ((then, _, begin, end, _, status, _, name),) = ended["bars"]
        assert (begin, status, name) == (start, "ok", msg_id)
        assert end >= start
        assert then > seq
        at.hub.shutdown()
        assert "bars" not in await other.rest()


async def test_the_stream_ends_with_the_hub() -> None:
    before = Footprint.now()
    async with within_limit():
        async with open_hub() as hub, open_dashboard(hub) as dashboard, reading(dashboard) as reader:
            await reader.until("overview")
            hub.shutdown()
            assert (await reader.rest())[-1:] == ["stopping"]
            await hub.wait_stopped()
        await before.restored()


async def test_what_stream_may_be_is_said() -> None:
    async with site() as at:
        assert "1 at most" in await at.refused("/api/events?stream=2", 400)


async def test_who_does_not_read_holds_up_neither_the_others_nor_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PERIOD", 0.001)
    monkeypatch.setattr(feed, "__version__", "x" * 200_000)
    async with within_limit(), open_hub() as hub, open_dashboard(hub) as dashboard:
        deaf = trio.socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await deaf.connect(("127.0.0.1", dashboard.port))
        async with trio.SocketStream(deaf) as stream, reading(dashboard) as reader:
            await stream.send_all(request(f"/api/events?token={dashboard.token}", "127.0.0.1"))
            for _ in range(2 * BACKLOG):
                await reader.until("overview")
            hub.shutdown()
            assert await reader.until("stopping") == {}
            await hub.wait_stopped()


async def test_a_browser_that_goes_is_forgotten() -> None:
    async with within_limit(), open_hub() as hub:
        watch = Watch(Timings())
        one = feed_of(hub, watch)
        assert not one.audience.readers
        with one.audience.join(True):
            assert one.audience.wants_bars
        assert not one.audience.readers
    async with site() as at:
        before = Footprint.now().descriptors
        async with reading(at.dashboard) as reader:
            await reader.until("overview")
        await eventually(lambda: Footprint.now().descriptors <= before)


async def test_a_flood_of_bars_is_cut_to_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MAX_BARS", 10)
    async with within_limit(), open_hub() as hub:
        watch = Watch(Timings())
        one = feed_of(hub, watch)
        watch.happened(EngineRegistered(0, "e"))
        for number in range(30):
            for event in (
                TaskSubmitted(str(number), "task", "f"),
                TaskAssigned(str(number), "e"),
                TaskFinished(str(number), "e", "ok"),
            ):
                watch.happened(event)
        for event in (TaskSubmitted("runs", "task", "f"), TaskAssigned("runs", "e")):
            watch.happened(event)
        with one.audience.join(True) as reader:
            one._tell_bars()
            one._tell_bars()
            message = reader.receive.receive_nowait().decode()
            with pytest.raises(trio.WouldBlock):
                reader.receive.receive_nowait()
        bars = json.loads(message.split("data: ")[1])
        assert [bar[-1] for bar in bars["bars"]] == [str(number) for number in range(20, 30)]
        assert (bars["lost"], bars["next"]) == (20, 61)
        answer = await one.bars_since(0, 12)
        assert [bar.msg_id for bar in answer["bars"]] == [*map(str, range(19, 30)), "runs"]
        assert answer["lost"] == 19


async def test_a_dashboard_rests_while_the_hub_is_idle_and_nobody_looks() -> None:
    async with open_hub() as hub:
        made = feed_of(hub, Watch(Timings()))
        made.watch.timings.handled("task_in", 0.1)
        with trio.fail_after(feed.UNSEEN / 2):
            await made.rest()  # the hub is busy
            async with trio.open_nursery() as nursery:
                nursery.start_soon(made.rest)
                await trio.testing.wait_all_tasks_blocked()
                with made.audience.join(wants_bars=False):
                    await made.rest()
