"""The scripted engines and clients do what their documentation says, at a real hub."""

from __future__ import annotations

import gc
import os
import threading

import pytest
import trio
import zmq

from trio_hub import HubConfig
from trio_hub.testing import (
    Received,
    RegistrationRefused,
    Request,
    answering,
    die,
    failing,
    ignore,
    one_by_one,
    open_client,
    open_engine,
    open_engines,
    open_hub,
    twice,
    unmet,
)
from trio_hub.wire.frames import DELIMITER

from .support import settled, within_limit


async def test_the_example_of_the_package() -> None:
    async with (
        within_limit(),
        open_hub(HubConfig(stranded_grace=0, ping=0.05, max_heartmonitor_misses=2)) as hub,
        open_client(hub.client_info) as client,
        open_engine(hub.engine_info) as engine,
    ):
        engine.hold()
        task = client.submit(b"work")
        await engine.wait_requests(1)
        engine.die()
        reply = await client.reply(task)
        assert reply.content["ename"] == "EngineError"


async def test_an_engine_echoes_buffers() -> None:
    async with (
        within_limit(),
        open_hub() as hub,
        open_client(hub.client_info) as client,
        open_engine(hub.engine_info) as engine,
    ):
        await hub.wait_engines(1)
        assert hub.engines == {engine.id: engine.uuid}
        for msg_id in (client.submit(b"a", b"b"), client.call(engine, b"a", b"b")):
            reply = await client.reply(msg_id)
            assert reply.content == {"status": "ok"}
            assert reply.buffers == [b"a", b"b"]
            assert reply.metadata["engine"] == engine.uuid
            assert reply.parent_id == msg_id
            assert reply.idents == [engine.ident]
        assert sorted(request.queue for request in engine.requests) == ["mux", "task"]
        assert [request.buffers for request in engine.requests] == [[b"a", b"b"]] * 2
        assert "ScriptedEngine" in repr(engine)
        assert "apply_request" in repr(engine.requests[0])


async def test_behaviours_one_by_one() -> None:
    script = one_by_one(
        answering(lambda request: [bytes(request.buffers[0]).upper()]),
        failing("ZeroDivisionError", "by zero"),
        unmet,
        ignore,
        twice,
    )
    async with (
        within_limit(),
        open_hub() as hub,
        open_client(hub.client_info) as client,
        open_engine(hub.engine_info, behaviour=script) as engine,
    ):
        await hub.wait_engines(1)

        async def ask() -> Received:
            return await client.reply(client.call(engine, b"x"))

        assert (await ask()).buffers == [b"X"]
        error = (await ask()).content
        assert (error["ename"], error["evalue"]) == ("ZeroDivisionError", "by zero")
        assert error["engine_info"]["engine_id"] == engine.id
        refusal = await ask()
        assert refusal.metadata["dependencies_met"] is False
        ignored = client.call(engine, b"x")
        await ask()  # the engine's second answer to it is dropped by the hub
        await ask()
        assert ignored not in client.replies
        assert hub.statistics().ignored["unexpected_result"] >= 1
        assert all(len(replies) == 1 for replies in client.replies.values())


async def test_hold_and_release() -> None:
    async with (
        within_limit(),
        open_hub(HubConfig(hwm=0)) as hub,
        open_client(hub.client_info) as client,
        open_engine(hub.engine_info) as engine,
    ):
        await hub.wait_engines(1)
        engine.hold()
        tasks = [client.submit(b"%d" % number) for number in range(4)]
        await engine.wait_requests(4)
        assert [request.msg_id for request in engine.held] == tasks
        engine.release(1)
        await client.reply(tasks[0])
        assert list(client.replies)[1:] == tasks[:1]  # the first reply answers the connection_request
        engine.release()
        for task in tasks:
            await client.reply(task)
        assert engine.held == []
        assert (await client.reply(client.submit(b"at once"))).buffers == [b"at once"]


async def test_output_is_heard_by_every_client() -> None:
    def talk(request: Request) -> None:
        request.print("to stdout")
        request.print("to stderr", "stderr")
        request.answer()

    async with (
        within_limit(),
        open_hub() as hub,
        open_client(hub.client_info) as one,
        open_client(hub.client_info) as other,
        open_engine(hub.engine_info, behaviour=talk) as engine,
    ):
        await hub.wait_engines(1)
        msg_id = one.call(engine)
        for client in (one, other):
            output = await client.output("stream", name="stdout")
            assert output.content["text"] == "to stdout"
            assert output.parent_id == msg_id
            assert output.idents == [f"engine.{engine.id}.stdout".encode()]
            assert (await client.output("stream", name="stderr")).content["text"] == "to stderr"


async def test_the_control_channel_is_obeyed() -> None:
    async with (
        within_limit(),
        open_hub() as hub,
        open_client(hub.client_info) as client,
        open_engines(hub.engine_info, 2) as (one, other),
    ):
        await hub.wait_engines(2)
        assert (one.id, other.id) == (0, 1)
        reply = await client.reply(client.control(one, "abort_request", {"msg_ids": []}))
        assert reply.msg_type == "abort_reply"
        assert reply.content["status"] == "ok"
        await client.reply(client.control(one, "shutdown_request"))
        await client.notification("unregistration_notification", id=one.id)
        assert list(hub.engines) == [other.id]
        assert [request.queue for request in one.requests] == ["control", "control"]


async def test_ways_of_leaving() -> None:
    async with (
        within_limit(),
        open_hub(HubConfig(ping=0.05, max_heartmonitor_misses=2)) as hub,
        hub.events() as events,
        open_engines(hub.engine_info, 4) as engines,
    ):
        await hub.wait_engines(4)
        engines[0].leave()
        engines[1].shut_down()
        engines[2].die()
        engines[2].die()
        engines[3].beating = False
        reasons: dict[int, str] = {}
        async for event in events:
            if type(event).__name__ == "EngineUnregistered":
                reasons[event.id] = event.reason  # type: ignore[union-attr]
            if len(reasons) == 4:
                break
        assert [reasons[engine.id] for engine in engines] == ["request", "shutdown", "heart", "heart"]
        with pytest.raises(trio.ClosedResourceError):
            await engines[2].wait_requests(1)
        assert not engines[2].send_raw("shell", [b"mux_out", b"gone"])


async def test_an_engine_can_die_in_a_handler() -> None:
    with trio.fail_after(10):
        config = HubConfig(ping=0.05, max_heartmonitor_misses=2, stranded_grace=0)
        async with (
            open_hub(config) as hub,
            open_client(hub.client_info) as client,
            open_engine(hub.engine_info, behaviour=die) as engine,
        ):
            await hub.wait_engines(1)
            reply = await client.reply(client.submit())
            assert reply.content["ename"] == "EngineError"
            assert engine.closed


async def test_forgeries() -> None:
    async with (
        within_limit(),
        open_hub(HubConfig(hwm=0)) as hub,
        open_client(hub.client_info) as client,
        open_engines(hub.engine_info, 2) as (one, other),
    ):
        await hub.wait_engines(2)
        one.hold()
        task = client.call(one, b"x")
        (request,) = await one.wait_requests(1)
        request.answer([b"forged"], key=b"wrong")
        request.answer([b"forged"], by=other)
        other.send_reply("mux", "apply_reply", {"status": "ok"}, parent={"msg_id": "never", "msg_type": "x"})
        frames = request.answer([b"true"])
        assert (await client.reply(task)).buffers == [b"true"]
        one.send_raw("shell", frames)  # replayed
        other.send_raw("shell", [b"mux_out", b"garbage"])
        for engine in (one, other):
            await settled(hub, client, engine)
        statistics = hub.statistics()
        assert statistics.wire_errors == {"bad_signature": 1, "replayed": 1, "no_delimiter": 1}
        assert statistics.ignored == {"unexpected_result": 2}
        assert len(client.replies[task]) == 1


async def test_a_client_can_send_garbage_and_foreign_signatures() -> None:
    async with (
        within_limit(),
        open_hub() as hub,
        open_client(hub.client_info) as client,
    ):
        client.send_raw("registration", [b"no message"])
        client.send("registration", "connection_request", key=b"wrong")
        client.send_raw("registration", [DELIMITER, b"too", b"few"])
        assert (await client.query("connection_request")).content == {"status": "ok", "engines": {}}
        assert hub.statistics().wire_errors == {
            "no_delimiter": 1,
            "bad_signature": 1,
            "too_few_frames": 1,
        }


async def test_what_cannot_be_read_is_kept() -> None:
    async with (
        within_limit(),
        open_hub() as hub,
        open_client(hub.client_info) as client,
    ):
        other_key = hub.client_info | {"key": "another"}
        with trio.move_on_after(0.2) as scope:
            async with open_client(other_key):
                pass
        assert scope.cancelled_caught  # the hub does not answer strangers
        frames = (await client.query("connection_request")).frames
        client._on_reply(frames)  # a second time
        assert [error.kind for error in client.unreadable] == ["replayed"]


async def test_a_refused_registration() -> None:
    async with (
        within_limit(),
        open_hub() as hub,
    ):
        with pytest.raises(RegistrationRefused, match="an integer from 0 to 2147483646") as caught:
            async with open_engine(hub.engine_info, id=-1):
                pass
        assert caught.value.ename == "ValueError"


async def test_large_frames_stay_where_they_arrived() -> None:
    payload = bytes(8 << 20)
    async with (
        within_limit(),
        open_hub() as hub,
        open_client(hub.client_info) as client,
        open_engine(hub.engine_info) as engine,
    ):
        await hub.wait_engines(1)
        reply = await client.reply(client.call(engine, payload))
        assert isinstance(engine.requests[0].buffers[0], zmq.Frame)
        assert isinstance(reply.buffers[0], zmq.Frame)
        assert bytes(reply.buffers[0]) == payload


async def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    with trio.fail_after(10):
        with pytest.raises(LookupError, match="mine"):
            async with open_hub() as hub, open_client(hub.client_info), open_engine(hub.engine_info):
                raise LookupError("mine")


async def test_an_error_in_a_behaviour_comes_out_as_it_is() -> None:
    def broken(request: Request) -> None:
        raise LookupError("mine")

    async with (
        within_limit(),
        open_hub() as hub,
        open_client(hub.client_info) as client,
    ):

        async def call() -> None:
            async with open_engine(hub.engine_info, behaviour=broken) as engine:
                await hub.wait_engines(1)
                await client.reply(client.call(engine))

        with pytest.raises(LookupError, match="mine"):
            await call()


async def test_several_errors_come_out_in_a_group() -> None:
    def broken(request: Request) -> None:
        raise LookupError("one")

    async with (
        within_limit(),
        open_hub() as hub,
        open_client(hub.client_info) as client,
    ):
        with pytest.RaisesGroup(LookupError, ValueError):
            async with open_engine(hub.engine_info, behaviour=broken) as engine:
                await hub.wait_engines(1)
                try:
                    await client.reply(client.call(engine))
                finally:
                    raise ValueError("two")


async def test_the_hubs_failure_to_start_comes_out_as_it_is() -> None:
    from trio_hub import ConfigError

    with pytest.raises(ConfigError, match="ports"):
        async with open_hub(HubConfig(ports=(1,), ip="127.0.0.1")):
            pass


@pytest.mark.parametrize("deadline", [0.0, 0.001, 0.003, 0.01, 0.02])
async def test_every_wait_can_be_cancelled(deadline: float) -> None:
    async with (
        within_limit(),
        open_hub() as hub,
    ):
        gc.collect()
        before = footprint()
        with trio.move_on_after(deadline):
            async with (
                open_client(hub.client_info) as client,
                open_engines(hub.engine_info, 2) as (engine, _),
            ):
                engine.hold()
                await client.reply(client.call(engine))
        with trio.move_on_after(deadline):
            async with open_client(hub.client_info) as client:
                await client.notification("never")
        assert footprint()[1:] == before[1:]


def footprint() -> tuple[int, int]:
    """Return the descriptors and threads of this process, without the hub's descriptors."""
    return len(os.listdir("/proc/self/fd")), threading.active_count()
