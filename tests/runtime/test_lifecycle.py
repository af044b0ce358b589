"""A hub in an embedding program: starting, observing, failing and stopping. Nothing is left behind."""

from __future__ import annotations

import errno
import gc
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
import trio.testing
import zmq

from trio_hub import (
    ConfigError,
    ConnectionFileError,
    EventsLost,
    HubClosedError,
    HubConfig,
    HubError,
    RunningHub,
    serve_hub,
)
from trio_hub.config.connectionfiles import CLIENT_CHANNELS, ENGINE_CHANNELS, write_connection_file
from trio_hub.hub import Hub
from trio_hub.hub.events import (
    EngineRegistered,
    EngineRequested,
    EngineSettled,
    EngineUnregistered,
    Event,
    HubStopping,
    TaskAssigned,
    TaskFinished,
    TaskSubmitted,
)
from trio_hub.records import MemoryStore
from trio_hub.runtime import host as host_module
from trio_hub.runtime import serve as serve_module
from trio_hub.testing import failing, ignore, open_client, open_engine, open_engines, open_hub, unmet

from .support import Footprint, cluster, eventually, free_ports, within_limit


async def footprint() -> Footprint:
    """Return the footprint of this process after it has run a hub: Trio then keeps a thread for later use."""
    async with open_hub():
        pass
    gc.collect()
    return Footprint.now()


def connection_files(profile_dir: Path) -> list[Path]:
    """Return the connection files, and partly written ones, without the hub's marks of the messages it has seen."""
    files = [*profile_dir.glob("security/*"), *profile_dir.glob("security/.*")]
    return [path for path in files if not path.name.startswith("seen")]


# Nothing is left


async def a_life(profile_dir: Path, rng: Random, at_work: Callable[[], None]) -> None:
    """A hub with engines, clients and work under way, until it is cancelled."""
    config = HubConfig(
        profile_dir=profile_dir,
        ping=0.02,
        max_heartmonitor_misses=rng.randrange(1, 4),
        stranded_grace=rng.choice([0, 0.01, 60]),
        hwm=rng.randrange(3),
        scheme=rng.choice(["leastload", "lru", "plainrandom", "weighted", "twobin"]),
    )
    async with (
        open_hub(config) as hub,
        open_client(hub.client_info) as client,
        open_engines(hub.engine_info, 3) as engines,
        open_client(hub.client_info) as other,
    ):
        await hub.wait_engines(2)
        at_work()
        while True:
            engine = rng.choice(engines)
            engine.behaviour = rng.choice([engine.behaviour, ignore, unmet, failing()])
            match rng.randrange(12):
                case 0:
                    engine.die()
                case 1:
                    engine.leave()
                case 2:
                    engine.hold()
                case 3:
                    engine.beating = False
                case 4:
                    await client.query("db_request", {"query": {}})
                case 5:
                    client.control(engine, "clear_request")
                case 6 | 7:
                    client.call(engine, bytes(100_000))
                case 8:
                    other.close()
                case _:
                    client.submit(b"x", metadata={"retries": rng.randrange(3)})
            await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("seed", range(4))
async def test_hubs_cancelled_at_random_moments_leave_nothing_behind(seed: int, tmp_path: Path) -> None:
    """There are 25 hubs per seed, and 100 in all."""
    rng = Random(seed)
    async with within_limit():
        before = await footprint()
        at_work = 0

        def count() -> None:
            nonlocal at_work
            at_work += 1

        for number in range(25):
            profile_dir = tmp_path / str(number)
            with trio.move_on_after(rng.choice([0, 0.01, 0.05, 0.1, 0.2, 0.3]) * rng.uniform(0.5, 1.5)):
                await a_life(profile_dir, rng, count)
            assert connection_files(profile_dir) == []
            await before.restored()
    assert at_work > 0, "some must get to work before they are cancelled"


class CancelAfter(trio.abc.Instrument):
    """Cancels a scope when the tasks of this process have made so many steps."""

    def __init__(self, steps: int, scope: trio.CancelScope) -> None:
        self.left = steps
        self.scope = scope

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


async def test_a_hub_may_be_cancelled_at_any_checkpoint(tmp_path: Path) -> None:
    """Each hub is cancelled one step later than the hub before it. The steps of all its tasks are counted together."""
    async with within_limit():
        before = await footprint()
        for steps in range(1, 80):
            with trio.CancelScope() as scope:
                instrument = CancelAfter(steps, scope)
                trio.lowlevel.add_instrument(instrument)
                try:
                    async with (
                        open_hub(HubConfig(profile_dir=tmp_path, ping=60)) as hub,
                        open_engine(hub.engine_info) as engine,
                    ):
                        await hub.wait_engines(1)
                        async with open_client(hub.client_info) as client:
                            await client.reply(client.submit())
                            await client.reply(client.call(engine))
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            assert connection_files(tmp_path) == []
            await before.restored()


@pytest.mark.parametrize("how", ["cancel", "shutdown", "both"])
async def test_both_ways_to_stop_release_everything(how: str, tmp_path: Path) -> None:
    async with within_limit():
        before = await footprint()
        async with trio.open_nursery() as nursery:
            hub = await nursery.start(serve_hub, HubConfig(profile_dir=tmp_path))
            if how != "cancel":
                hub.shutdown()
            if how != "shutdown":
                nursery.cancel_scope.cancel()
        await hub.wait_stopped()
        await before.restored()
        assert connection_files(tmp_path) == []


async def test_the_connection_files(tmp_path: Path) -> None:
    async with within_limit():
        async with open_hub(HubConfig(profile_dir=tmp_path, cluster_id="lab")) as hub:
            assert hub.client_file == tmp_path / "security" / "ipcontroller-lab-client.json"
            assert hub.engine_file == tmp_path / "security" / "ipcontroller-lab-engine.json"
            for path in (hub.client_file, hub.engine_file):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
            hub.engine_file.write_text('{"of": "another hub"}')
        assert not hub.client_file.exists()
        assert hub.engine_file.exists(), "a file that is not ours is not ours to remove"


async def test_several_hubs_at_once(tmp_path: Path) -> None:
    async with within_limit():
        before = await footprint()
        async with (
            open_hub(HubConfig(profile_dir=tmp_path, cluster_id="one")) as one,
            open_hub(HubConfig(profile_dir=tmp_path, cluster_id="two")) as two,
            open_hub() as three,
        ):
            hubs = (one, two, three)
            assert len({hub.client_info["key"] for hub in hubs}) == 3
            assert len(connection_files(tmp_path)) == 4
            async with (
                open_engine(one.engine_info) as engine_of_one,
                open_engine(two.engine_info, uuid=engine_of_one.uuid),
                open_client(two.client_info) as client_of_two,
                open_client(three.client_info) as client_of_three,
            ):
                await one.wait_engines(1)
                await two.wait_engines(1)
                await client_of_two.reply(client_of_two.submit(b"x"))
                waiting = client_of_three.submit(b"x")
                await client_of_three.query("queue_request", {})
                one.shutdown()
                await one.wait_stopped()
                await client_of_two.reply(client_of_two.submit(b"x"))
                assert [hub.statistics().completed for hub in hubs] == [0, 2, 0]
                assert waiting not in client_of_three.replies
                assert len(connection_files(tmp_path)) == 2
        await before.restored()


# Errors at the start of a hub


@pytest.fixture
def taken() -> Iterator[int]:
    """Give a port that is in use."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield one.getsockname()[1]


def port_in_use(tmp_path: Path, taken: int) -> dict[str, Any]:
    return {"ports": (taken,)}


def too_few_ports(tmp_path: Path, taken: int) -> dict[str, Any]:
    return {"ports": (*free_ports(5), taken)}


def not_a_directory(tmp_path: Path, taken: int) -> dict[str, Any]:
    (tmp_path / "file").write_text("")
    return {"profile_dir": tmp_path / "file" / "profile"}


def engine_file_not_writable(tmp_path: Path, taken: int) -> dict[str, Any]:
    (tmp_path / "security" / "ipcontroller-engine.json").mkdir(parents=True)
    return {"profile_dir": tmp_path}


def address_of_another_machine(tmp_path: Path, taken: int) -> dict[str, Any]:
    return {"ip": "192.0.2.1"}


def address_that_is_none(tmp_path: Path, taken: int) -> dict[str, Any]:
    return {"ip": "no-such-interface"}


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        (port_in_use, ConfigError, "ports: the pool of 1 has no free port left"),
        (too_few_ports, ConfigError, "ports: the pool of 6 has no free port left"),
        (not_a_directory, ConfigError, "db: .*/file/profile/.*: cannot be opened|cannot (read|write) .*/file/profile/"),
        (engine_file_not_writable, ConnectionFileError, "cannot write the connection file .*ipcontroller-engine.json"),
        (address_of_another_machine, ConfigError, "ip: cannot listen on tcp://192.0.2.1"),
        (address_that_is_none, ConfigError, "ip: cannot listen on tcp://no-such-interface"),
    ],
)
async def test_what_prevents_a_start_is_one_clear_exception(
    settings: Callable[[Path, int], dict[str, Any]], error: type[HubError], text: str, tmp_path: Path, taken: int
) -> None:
    config = HubConfig(**settings(tmp_path, taken))
    async with within_limit():
        before = await footprint()
        async with trio.open_nursery() as nursery:
            with pytest.raises(error, match=text):
                await nursery.start(serve_hub, config)
        await before.restored()
        assert [path for path in connection_files(tmp_path) if path.is_file()] == []


async def test_ports_are_taken_from_the_pool_in_order(taken: int) -> None:
    free = free_ports(14)
    async with within_limit(), open_hub(HubConfig(ports=(taken, *free))) as hub:
        used = {hub.engine_info[name] for name in ("registration", "mux", "task", "control", "iopub", "hb_ping")}
        used |= {hub.client_info[name] for name in ("registration", "mux", "task", "control", "iopub", "notification")}
        assert used <= set(free)


def is_taken(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


@pytest.mark.parametrize("pool", [False, True])
async def test_ports_are_bound_before_anybody_is_told_of_them(
    pool: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No port is bound, released and bound again: another program could take it in between."""
    bound: list[str] = []
    told: list[str] = []
    bind = zmq.Socket.bind

    def note(channel: zmq.Socket[Any], url: str) -> Any:
        context = bind(channel, url)
        endpoint = channel.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(endpoint, bytes)
        bound.append(endpoint.decode().rstrip("\0"))
        return context

    def never(channel: object, url: str) -> None:
        raise AssertionError(f"{url} was bound, and is let go")

    def look(path: Path, info: dict[str, Any]) -> None:
        ports = [info[name] for name in (*CLIENT_CHANNELS, *ENGINE_CHANNELS) if type(info.get(name)) is int]
        ports += info["broadcast"] if isinstance(info["broadcast"], list) else []
        assert len(ports) >= 7
        assert all(map(is_taken, ports))
        told.append(path.name)
        write_connection_file(path, info)

    free = free_ports(14)
    monkeypatch.setattr(zmq.Socket, "bind", note)
    monkeypatch.setattr(zmq.Socket, "unbind", never)
    monkeypatch.setattr(serve_module, "write_connection_file", look)
    async with within_limit(), open_hub(HubConfig(profile_dir=tmp_path, ports=free if pool else ())):
        assert told == ["ipcontroller-client.json", "ipcontroller-engine.json"]
        of_tcp = [url for url in bound if url.startswith("tcp://")]
        assert len(of_tcp) == len(set(of_tcp)) == 14


# A hub that fails


@pytest.mark.parametrize("method", ["weigh_hearts", "dispatch_query", "dispatch_monitor_traffic", "handle_pong"])
async def test_a_crash_reaches_the_embedder(method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def crash(*args: object) -> None:
        raise ZeroDivisionError("a bug")

    hubs: list[RunningHub] = []

    async def embed() -> None:
        async with open_hub(HubConfig(profile_dir=tmp_path, ping=0.05)) as hub:
            hubs.append(hub)
            async with open_client(hub.client_info) as client, open_engine(hub.engine_info):
                await hub.wait_engines(1)
                monkeypatch.setattr(hub.core, method, crash)
                # these two are bound already
                hub._host.channels["query"].handle = hub._host.hub.dispatch_query
                hub._host.channels["task_in"].handle = partial(hub._host.hub.dispatch_monitor_traffic, "task_in")
                client.submit()
                client.send("registration", "connection_request")
                await trio.sleep_forever()

    async with within_limit():
        before = await footprint()
        with pytest.raises(HubError, match="the hub failed: ZeroDivisionError: a bug") as caught:
            await embed()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        await before.restored()
        await hubs[0].wait_stopped()
        with pytest.raises(HubClosedError):
            await hubs[0].wait_engines(1)
        assert connection_files(tmp_path) == []


@pytest.mark.parametrize("how", ["cancel", "shutdown"])
@pytest.mark.parametrize(
    ("db", "where"),
    [("memory", (Hub, "stop_serving")), ("sqlite", (Hub, "stop_serving")), ("memory", (MemoryStore, "aclose"))],
    ids=["hub", "hub-sqlite", "store"],
)
async def test_a_crash_while_stopping_releases_everything_all_the_same(
    how: str, db: str, where: tuple[type, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def crash(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("a bug")

    hubs: list[RunningHub] = []

    async def embed() -> None:
        async with open_hub(HubConfig(profile_dir=tmp_path, db=db)) as hub, hub.events() as events:
            hubs.append(hub)
            monkeypatch.setattr(*where, crash)
            async with (
                open_client(hub.client_info) as client,
                open_engine(hub.engine_info, behaviour=ignore) as engine,
            ):
                await hub.wait_engines(1)
                client.call(engine)
                await engine.wait_requests(1)
                if how == "shutdown":
                    hub.shutdown()
                    async for _ in events:
                        pass

    async with within_limit():
        before = await footprint()
        with pytest.raises(HubError, match="the hub failed: ZeroDivisionError"):
            await embed()
        await before.restored()
        assert connection_files(tmp_path) == []
        await hubs[0].wait_stopped()
        with pytest.raises(HubClosedError):
            await hubs[0].wait_engines(1)


async def test_several_crashes_at_once_are_one_error_with_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*args: object) -> None:
        raise ZeroDivisionError("a bug")

    async def crash_too(*args: object, **kwargs: object) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise LookupError("another")

    monkeypatch.setattr(host_module, "engine_life", crash_too)

    async def embed() -> None:
        async with open_hub(HubConfig(ping=0.05)) as hub, open_engine(hub.engine_info):
            await eventually(lambda: bool(hub.engines))
            monkeypatch.setattr(hub.core, "weigh_hearts", crash)
            await trio.sleep_forever()

    async with within_limit():
        before = await footprint()
        with pytest.raises(HubError, match="the hub failed: ExceptionGroup") as caught:
            await embed()
        assert pytest.RaisesGroup(ZeroDivisionError, LookupError).matches(caught.value.__cause__)
        await before.restored()


async def test_an_embedders_own_error_is_not_the_hubs() -> None:
    async def embed() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_hub)
            raise LookupError("mine")

    async with within_limit():
        before = await footprint()
        with pytest.RaisesGroup(LookupError):
            await embed()
        await before.restored()


# The view of an embedding program


async def test_waiting_for_engines_ends_with_the_hub() -> None:
    async with within_limit(), open_hub() as hub, trio.open_nursery() as nursery:
        ended = 0

        async def wait() -> None:
            nonlocal ended
            with pytest.raises(HubClosedError, match="before 1 engines were registered"):
                await hub.wait_engines(1)
            ended += 1

        for _ in range(3):
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        hub.shutdown()
        await hub.wait_stopped()
        await wait()
        await eventually(lambda: ended == 4)


async def test_waiting_for_engines_means_at_the_same_time() -> None:
    async with cluster(0) as (hub, client, _):
        async with open_engine(hub.engine_info) as engine:
            await hub.wait_engines(1)
            engine.leave()
            await client.notification("unregistration_notification")
        with trio.move_on_after(0.05) as scope:
            await hub.wait_engines(1)
        assert scope.cancelled_caught


async def test_events_tell_a_life_in_order_and_end_with_the_hub() -> None:
    async with within_limit(), open_hub(HubConfig(stranded_grace=0)) as hub:
        seen: list[Event] = []
        async with hub.events() as events, hub.events() as unread:
            async with open_client(hub.client_info) as client, open_engine(hub.engine_info) as engine:
                await hub.wait_engines(1)
                task = client.submit()
                await client.reply(task)
                call = client.call(engine)
                await client.reply(call)
                lost = client.call("nobody")
                await client.reply(lost)
                engine.leave()
                await client.notification("unregistration_notification")
                async for event in events:
                    seen.append(event)
                    if isinstance(event, EngineSettled):
                        break
                hub.shutdown("the test is over")
                seen.extend([event async for event in events])
            assert len([event async for event in unread]) == len(seen), "what was buffered can be read after the end"
        assert seen == [
            EngineRequested(engine.id, engine.uuid, "127.0.0.1"),
            EngineRegistered(engine.id, engine.uuid),
            TaskSubmitted(task, "task", "apply", client.session.session_id),
            TaskAssigned(task, engine.uuid),
            TaskFinished(task, engine.uuid, "ok"),
            TaskSubmitted(call, "mux", "apply", client.session.session_id, engine.uuid),
            TaskFinished(call, engine.uuid, "ok"),
            TaskSubmitted(lost, "mux", "apply", client.session.session_id, "nobody"),
            TaskFinished(lost, "nobody", "error", "EngineError", "Engine nobody is not registered (any more)"),
            EngineUnregistered(engine.id, engine.uuid, "request"),
            EngineSettled(engine.id, engine.uuid),
            HubStopping("the test is over"),
        ]


async def test_events_of_a_hub_that_has_stopped_end_at_once() -> None:
    async with within_limit(), open_hub() as hub:
        hub.shutdown()
        await hub.wait_stopped()
        async with hub.events() as events:
            assert [event async for event in events] == []


async def test_a_reader_that_is_too_slow_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "EVENT_BUFFER", 5)
    async with cluster(1) as (hub, client, _), hub.events() as slow, hub.events() as given_up:
        for _ in range(10):
            await client.reply(client.submit())
        seen: list[Event] = []

        async def read() -> None:
            async for event in slow:
                seen.append(event)

        with pytest.raises(EventsLost, match="events were lost"):
            await read()
        assert seen
        await given_up.aclose()
        await client.reply(client.submit())


async def test_nobody_listens_after_the_last_reader_has_gone() -> None:
    async with within_limit(), open_hub() as hub:
        async with hub.events():
            async with hub.events():
                pass
            assert hub._host.listening
        assert not hub._host.listening


async def test_statistics() -> None:
    async with cluster(1) as (hub, client, (engine,)), open_engine(hub.engine_info, beating=False):
        numbers = asdict(hub.statistics())
        plain = {name: number for name, number in numbers.items() if not isinstance(number, dict)}
        assert plain.pop("connections") == "open"
        counted = {name for name, number in plain.items() if number}
        assert counted == {"engines", "registering", "engines_registered", "subscribers"}
        assert not any(numbers["submitted_by_queue"].values())
        assert not any(numbers["engines_lost"].values())
        assert numbers["internal_errors"] == {}
        assert not any(count for outcomes in numbers["outcomes"].values() for count in outcomes.values())
        assert {name for name, number in numbers["database"].items() if number} == {"kind"}
        assert (numbers["engines"], numbers["registering"]) == (1, 1)
        engine.hold()
        tasks = [client.submit() for _ in range(3)]
        call = client.call(engine)
        await engine.wait_requests(2)
        await eventually(lambda: hub.statistics().submitted == 4)
        now = hub.statistics()
        assert (now.tasks_queued, now.tasks_running, now.direct_pending) == (2, 1, 1)
        engine.behaviour = failing()
        engine.release()
        for msg_id in [*tasks, call]:
            await client.reply(msg_id)
        client.send_raw("task", [b"garbage"])
        await eventually(lambda: hub.statistics().wire_errors == {"no_delimiter": 1})
        now = hub.statistics()
        assert (now.tasks_queued, now.tasks_running, now.direct_pending) == (0, 0, 0)
        assert (now.submitted, now.completed, now.failed) == (4, 0, 4)


async def test_the_handle() -> None:
    async with within_limit(), open_hub(HubConfig(key="secret-of-mine", location="here")) as hub:
        assert hub.client_file is None
        assert hub.engine_file is None
        assert hub.engines == {}
        assert repr(hub).startswith("<RunningHub running at tcp://127.0.0.1:")
        assert "secret-of-mine" not in repr(hub)
        for info in (hub.client_info, hub.engine_info):
            assert info["key"] == "secret-of-mine"
            assert info["location"] == "here"


# Addresses


@pytest.mark.parametrize(
    ("settings", "client", "engine"),
    [
        ({"ip": "lo"}, "127.0.0.1", "127.0.0.1"),
        ({"engine_ip": "lo", "client_ip": "127.0.0.2"}, "127.0.0.2", "127.0.0.1"),
        ({"engine_ip": "*", "client_ip": "lo", "curve": False}, "127.0.0.1", "*"),
        ({"ip": "0.0.0.0", "curve": False}, "0.0.0.0", "0.0.0.0"),
        ({"ip": "[::1]"}, "[::1]", "[::1]"),
    ],
)
async def test_connection_files_have_the_address_of_an_interface(
    settings: dict[str, Any], client: str, engine: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = HubConfig(profile_dir=tmp_path, db="memory", reuse=True, **settings)
    caplog.set_level("WARNING", "trio_hub.runtime")
    infos = []
    for _ in range(2):  # with new connection files, and with the files of the previous hub
        async with (
            within_limit(),
            open_hub(config) as hub,
            open_client(hub.client_info) as asking,
            open_engine(hub.engine_info),
        ):
            await hub.wait_engines(1)
            await asking.reply(asking.submit(b"work"))
            assert hub.client_info["interface"] == f"tcp://{client}"
            assert hub.engine_info["interface"] == f"tcp://{engine}"
            infos.append((hub.client_info, hub.engine_info))
    assert infos[0] == infos[1]
    assert "a setting has no effect" not in caplog.text
