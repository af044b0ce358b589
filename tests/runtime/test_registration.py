"""Registration, heartbeats and unregistration of engines."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, TypeVar

import pytest
import trio
import zmq

from trio_hub import HubConfig
from trio_hub.config.connectionfiles import ENGINE_CHANNELS
from trio_hub.hub.events import EngineRegistered, EngineSettled, EngineUnregistered, Event, RegistrationStalled
from trio_hub.testing import RegistrationRefused, ScriptedEngine, open_client, open_engine, open_engines, open_hub

from .support import cluster, eventually, name_is_free, settled, within_limit

T = TypeVar("T")


async def next_of(events: AsyncGenerator[Event, None], kind: type[T]) -> T:
    async for event in events:
        if isinstance(event, kind):
            return event
    raise AssertionError(f"the events end without {kind.__name__}")


# Coming


async def test_the_registration_reply_says_all_that_an_engine_needs_but_the_key() -> None:
    async with cluster(1, ping=2.5) as (hub, client, (engine,)):
        where = {name: hub.engine_info[name] for name in ("interface", *ENGINE_CHANNELS)}
        assert engine.registration == {
            "status": "ok",
            "id": 0,
            "hb_period": 2500,
            "connection_info": where,
            "publishes_idle": True,
            "drains": True,
        }
        assert hub.engine_info["key"] not in str(engine.registration)
        assert (await client.query("connection_request")).content["engines"] == {"0": engine.uuid}


async def test_a_registration_is_announced_when_the_heart_is_heard() -> None:
    async with cluster(0) as (hub, client, _), open_engine(hub.engine_info, beating=False) as engine:
        await engine.wait_until(lambda: bool(engine.pings))
        assert hub.engines == {}
        assert hub.statistics().registering == 1
        assert (await client.query("connection_request")).content["engines"] == {}
        assert client.notifications == []
        engine.send_raw("hb_pong", [engine.pings[0]])
        announced = await client.notification("registration_notification")
        assert announced.content == {"id": engine.id, "uuid": engine.uuid}
        assert hub.statistics().registering == 0


async def test_ids_are_honoured_counted_up_and_never_used_again() -> None:
    async with cluster(0) as (hub, client, _):
        info = hub.engine_info
        async with (
            open_engine(info) as first,
            open_engine(info, id=5) as asked_for_five,
            open_engine(info) as after_five,
            open_engine(info, id=5) as also_asked_for_five,
            open_engine(info, id=3) as asked_for_three,
        ):
            engines = [first, asked_for_five, after_five, also_asked_for_five, asked_for_three]
            assert [engine.id for engine in engines] == [0, 5, 6, 7, 3]
            await hub.wait_engines(5)
            also_asked_for_five.leave()
            await client.notification("unregistration_notification", id=7)
            async with open_engine(info) as newcomer, open_engine(info, id=7) as successor:
                assert newcomer.id == 8
                assert successor.id == 7, "an id that is asked for is honoured if nobody has it"


@pytest.mark.parametrize("id", ["0", -1, 1.5, True, 2**31])
async def test_an_id_that_is_none_is_refused(id: Any) -> None:
    async with within_limit(), open_hub() as hub:
        with pytest.raises(RegistrationRefused, match="integer"):
            async with open_engine(hub.engine_info, id=id):
                pass


@pytest.mark.parametrize("finished", [True, False], ids=["registered", "registering"])
async def test_a_uuid_in_use_is_refused(finished: bool) -> None:
    async with (
        cluster(0) as (hub, client, _),
        open_engine(hub.engine_info, uuid="name", beating=finished) as engine,
    ):
        if finished:
            await hub.wait_engines(1)
        for _ in range(2):
            refusal = (await client.query("registration_request", {"uuid": "name"})).content
            assert refusal["status"] == "error"
            assert "'name' in use" in refusal["evalue"]
        engine.beating = True
        if not finished:
            await engine.wait_until(lambda: bool(engine.pings))
            engine.send_raw("hb_pong", [engine.pings[0]])
            await hub.wait_engines(1)
        assert hub.engines == {engine.id: "name"}
        assert (await client.reply(client.call(engine, b"well"))).buffers == [b"well"]


async def test_a_registration_that_stalls_ends_and_the_engine_is_usable_when_its_heart_is_heard() -> None:
    async with (
        within_limit(),
        open_hub(HubConfig(registration_timeout=0.5, ping=0.1)) as hub,
        hub.events() as events,
        open_engine(hub.engine_info, uuid="mute", beating=False) as engine,
        open_client(hub.client_info) as client,
    ):
        assert await next_of(events, RegistrationStalled) == RegistrationStalled(engine.id, "mute")
        assert (hub.statistics().registering, hub.engines) == (0, {})
        engine.beating = True
        assert await next_of(events, EngineRegistered) == EngineRegistered(engine.id, "mute")
        assert hub.engines == {engine.id: "mute"}
        assert (await client.reply(client.call(engine, b"late"))).buffers == [b"late"]


async def test_an_engine_may_register_anew_after_its_registration_has_stalled() -> None:
    async with (
        within_limit(),
        open_hub(HubConfig(registration_timeout=0.1)) as hub,
        hub.events() as events,
        open_engine(hub.engine_info, uuid="mute", beating=False) as engine,
    ):
        await next_of(events, RegistrationStalled)
        engine.die()  # until then, the engine's identity is in use
        await name_is_free(hub, b"mute")
        async with open_engine(hub.engine_info, uuid="mute") as again:
            assert await next_of(events, EngineRegistered) == EngineRegistered(again.id, "mute")
            assert again.id != engine.id


async def test_an_engine_may_give_up_registering() -> None:
    async with (
        within_limit(),
        open_hub() as hub,
        hub.events() as events,
        open_engine(hub.engine_info, beating=False) as engine,
    ):
        engine.leave()
        assert await next_of(events, RegistrationStalled) == RegistrationStalled(engine.id, engine.uuid)
        assert hub.statistics().registering == 0


async def test_an_engine_is_usable_long_before_the_next_period() -> None:
    took = []
    async with within_limit(), open_hub(HubConfig(ping=30)) as hub, open_client(hub.client_info) as client:
        for n in range(5):
            start = trio.current_time()
            async with open_engine(hub.engine_info) as engine:
                await hub.wait_engines(1)
                await client.reply(client.call(engine))
                took.append(trio.current_time() - start)
                engine.leave()
                await client.notification("unregistration_notification", id=n)
    assert min(took) < 0.5, took


async def test_many_engines_come_at_once() -> None:
    async with cluster(40, ping=30) as (hub, client, engines):
        assert sorted(hub.engines) == list(range(40))
        assert hub.engines == {engine.id: engine.uuid for engine in engines}
        calls = [client.call(engine, engine.ident) for engine in engines]
        assert [(await client.reply(call)).buffers for call in calls] == [[engine.ident] for engine in engines]


@pytest.mark.parametrize(
    ("frames", "kind"),
    [
        ([b"hello"], "no_delimiter"),
        ([b"<IDS|MSG>", b"", b"{}"], "too_few_frames"),
        ([b"<IDS|MSG>", b"unsigned", b"{}", b"{}", b"{}", b"{}"], "bad_signature"),
    ],
)
async def test_a_broken_registration_does_not_stop_the_others(frames: list[bytes], kind: str) -> None:
    async with within_limit(), open_hub() as hub, open_client(hub.client_info) as client:
        for _ in range(3):
            client.send_raw("registration", frames)
        for content in ({}, {"uuid": None}, {"uuid": ""}, {"uuid": 7}, {"uuid": "\0"}, {"uuid": "x" * 256}):
            refusal = (await client.query("registration_request", content)).content
            assert refusal["status"] == "error"
            assert "uuid" in refusal["evalue"]
        async with open_engines(hub.engine_info, 3):
            await hub.wait_engines(3)
            client.send_raw("registration", frames)
            async with open_engine(hub.engine_info):
                await hub.wait_engines(4)
        await eventually(lambda: hub.statistics().wire_errors == {kind: 4})


# Beating


async def test_an_engine_whose_heart_stops_is_lost_after_so_many_pings() -> None:
    async with (
        cluster(2, ping=0.05, max_heartmonitor_misses=8, stranded_grace=0) as (hub, client, (silent, living)),
        hub.events() as events,
    ):
        silent.beating = False
        sent = hub.core.hearts.heartmonitor._pings  # the engine may miss some, if this process does not run for a while
        lost = await next_of(events, EngineUnregistered)
        assert lost == EngineUnregistered(silent.id, silent.uuid, "heart")
        assert hub.core.hearts.heartmonitor._pings - sent >= 8, "it may have answered the latest before it fell silent"
        assert await next_of(events, EngineSettled) == EngineSettled(silent.id, silent.uuid)
        announced = await client.notification("unregistration_notification")
        assert announced.content == {"id": silent.id, "uuid": silent.uuid}
        assert hub.engines == {living.id: living.uuid}
        status = (await client.query("queue_request")).content
        assert str(silent.id) not in status
        assert str(living.id) in status


async def test_an_engine_that_misses_some_pings_stays() -> None:
    async with cluster(1, ping=0.05, max_heartmonitor_misses=20) as (hub, client, (engine,)):
        for _ in range(3):
            engine.beating = False
            seen = len(engine.pings)
            await engine.wait_until(lambda seen=seen: len(engine.pings) >= seen + 4)  # type: ignore[misc]
            engine.beating = True
            await engine.wait_until(lambda seen=seen: len(engine.pings) >= seen + 6)  # type: ignore[misc]
        assert hub.engines == {engine.id: engine.uuid}
        assert [one.msg_type for one in client.notifications] == ["registration_notification"]


async def test_pongs_that_make_no_sense_are_harmless() -> None:
    async with cluster(1, ping=0.05, max_heartmonitor_misses=100) as (hub, client, (engine,)):
        ignored = hub._host.hub.notices.ignored
        client.connect("hb_pong", zmq.DEALER, [hub.engine_info["hb_pong"]], identity=b"stranger")
        await engine.wait_until(lambda: bool(engine.pings))
        ping = engine.pings[0]
        token = ping.rpartition(b".")[0]
        nonsense = [
            [b""],
            [b"garbage"],
            [ping, b"and more"],
            [token + b".999999"],
            [token + b".-1"],
            [token + b".\xef\xbc\x91"],
            [b"x" * 1000],
            [token + b"." + b"9" * 900],
        ]
        for frames in nonsense:
            client.send_raw("hb_pong", frames)
            engine.send_raw("hb_pong", frames)
        client.send_raw("hb_pong", [ping])  # a pong of an unknown heart
        for late in engine.pings:
            engine.send_raw("hb_pong", [late])  # answered already
        await eventually(lambda: ignored["bad_heartbeat"] == 2 * len(nonsense) and ignored["unknown_heart"] == 1)
        assert hub.engines == {engine.id: engine.uuid}
        await settled(hub, client, engine)


# Going


async def test_an_engine_asks_to_leave() -> None:
    async with cluster(2) as (hub, client, (leaving, staying)), hub.events() as events:
        leaving.leave()
        assert await next_of(events, EngineUnregistered) == EngineUnregistered(leaving.id, leaving.uuid, "request")
        await client.notification("unregistration_notification", id=leaving.id, uuid=leaving.uuid)
        leaving.leave()  # again
        await eventually(lambda: hub.statistics().ignored.get("unknown_engine") == 1)
        assert hub.engines == {staying.id: staying.uuid}


async def test_a_nanny_says_that_its_engine_has_ended() -> None:
    """The message is that of a stock nanny: from a socket without an identity, and with only the id."""
    async with cluster(2) as (hub, client, (ended, staying)):
        ended.beating = False
        client.send("registration", "unregistration_request", {"id": ended.id})
        await client.notification("unregistration_notification", id=ended.id, uuid=ended.uuid)
        assert hub.engines == {staying.id: staying.uuid}


async def test_a_nanny_of_an_engine_that_had_the_id_before_is_not_believed() -> None:
    async with cluster(2) as (hub, client, engines):
        for engine in engines:
            client.send("registration", "unregistration_request", {"id": engine.id})
        await eventually(lambda: hub.statistics().ignored.get("other_engine") == 2)
        assert hub.engines == {engine.id: engine.uuid for engine in engines}
        assert [(await client.reply(client.call(engine))).content["status"] for engine in engines] == ["ok", "ok"]


async def test_an_engine_that_was_taken_for_ended_is_usable_when_its_heart_is_heard() -> None:
    async with cluster(1, ping=0.1) as (hub, client, (engine,)):
        engine.beating = False
        client.send("registration", "unregistration_request", {"id": engine.id})
        await client.notification("unregistration_notification", id=engine.id)
        error = (await client.reply(client.call(engine))).content["evalue"]
        assert "somebody has unregistered it" in error
        engine.beating = True
        await hub.wait_engines(1)
        assert hub.engines == {engine.id: engine.uuid}
        assert (await client.reply(client.call(engine, b"x"))).buffers == [b"x"]


@pytest.mark.parametrize("named", [True, False])
async def test_an_engine_that_has_gone_does_not_take_the_next_of_its_id_along(named: bool) -> None:
    async with cluster(1) as (hub, client, (old,)):
        old.leave()
        await client.notification("unregistration_notification", uuid=old.uuid)
        async with open_engine(hub.engine_info, id=old.id) as new:
            await hub.wait_engines(1)
            assert new.id == old.id
            content = {"id": old.id} | ({"uuid": old.uuid} if named else {})
            old.send_raw("registration", old._write("unregistration_request", content))
            await eventually(lambda: hub.statistics().ignored.get("other_engine") == 1)
            assert hub.engines == {new.id: new.uuid}
            assert (await client.reply(client.call(new, b"x"))).buffers == [b"x"]


async def test_an_engine_says_that_it_has_shut_down() -> None:
    async with cluster(2) as (hub, client, (leaving, staying)), hub.events() as events:
        leaving.shut_down()
        assert await next_of(events, EngineUnregistered) == EngineUnregistered(leaving.id, leaving.uuid, "shutdown")
        await client.notification("unregistration_notification", id=leaving.id)
        await client.output("shutdown_reply")
        assert hub.engines == {staying.id: staying.uuid}


@pytest.mark.parametrize("id", [None, "0", -1, 99, [0], {"id": 0}, 0.0, True])
async def test_nobody_leaves_by_a_wrong_id(id: Any) -> None:
    async with cluster(2) as (hub, client, engines):
        client.send("registration", "unregistration_request", {"id": id})
        await eventually(lambda: hub.statistics().ignored.get("unknown_engine") == 1)
        assert len(hub.engines) == 2
        assert [(await client.reply(client.call(engine))).content["status"] for engine in engines] == ["ok", "ok"]


@pytest.mark.parametrize("how", ["leave", "shut_down", "die"])
async def test_the_same_uuid_may_come_back(how: str) -> None:
    settings: dict[str, Any] = {"ping": 0.05, "max_heartmonitor_misses": 8, "stranded_grace": 30}
    async with (
        cluster(0, **settings) as (hub, client, _),
        hub.events() as events,
        open_engine(hub.engine_info, uuid="phoenix") as first,
    ):
        await hub.wait_engines(1)
        first.hold()
        stranded = client.call(first)
        await first.wait_requests(1)
        getattr(first, how)()
        await next_of(events, EngineUnregistered)
        assert (await client.reply(stranded)).content["ename"] == "EngineError"
        first.die()
        await name_is_free(hub, b"phoenix")
        async with open_engine(hub.engine_info, uuid="phoenix") as second:
            await hub.wait_engines(1)
            assert hub.engines == {second.id: "phoenix"}
            assert second.id > first.id
            assert (await client.reply(client.call(second, b"x"))).buffers == [b"x"]
            assert (await client.reply(client.submit(b"y"))).buffers == [b"y"]
            assert [len(client.replies[msg_id]) for msg_id in client.replies] == [1] * len(client.replies)


async def test_who_comes_and_goes_without_end_leaves_nothing_in_the_hub() -> None:
    async with cluster(0, stranded_grace=0) as (hub, client, _), hub.events() as events:
        core = hub._host.hub
        for _ in range(20):
            async with open_engine(hub.engine_info) as engine:
                await hub.wait_engines(1)
                await client.reply(client.submit())
                engine.leave()
                await next_of(events, EngineSettled)
        assert not core.engines.alive
        assert not core.engines.by_ident
        assert not core.engines.incoming_registrations
        assert not core.engines.lost
        assert not core.direct.late
        assert not core.tasks.scheduler.workers
        assert not core.tasks.scheduler.tasks
        assert len(core.hearts.heartmonitor) == 0
        assert isinstance(engine, ScriptedEngine)
