"""Access to the hub: CURVE, the list of allowed keys, addresses and ports."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import zmq

from trio_hub import HubConfig, RunningHub, serve_hub
from trio_hub.cli.logs import TextFormatter
from trio_hub.errors import ConfigError
from trio_hub.runtime.security import CurveKeys, Security, read_allowed_keys, secure
from trio_hub.testing import open_client, open_engine, open_engines, open_hub

from .support import cluster, eventually, free_ports, within_limit

Keys = tuple[str, str]


def new_keys() -> Keys:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


# Encryption


@pytest.mark.parametrize("settings", [{"curve": True}, {"curve": True, "broadcast_ports": 3}])
async def test_everything_works_encrypted(settings: dict[str, Any]) -> None:
    async with cluster(4, **settings) as (hub, client, engines):
        assert hub.client_info["curve_serverkey"] == hub.engine_info["curve_serverkey"] is not None
        task, call = client.submit(b"task"), client.call(engines[3], b"call")
        assert (await client.reply(task)).buffers == [b"task"]
        assert (await client.reply(call)).buffers == [b"call"]
        abort = await client.reply(client.control(engines[1], "abort_request"))
        assert abort.content["status"] == "ok"
        engines[0].publish("stream", {"name": "stdout", "text": "hello"})
        await client.output("stream", text="hello")
        engines[2].leave()
        await client.notification("unregistration_notification", id=engines[2].id)


async def test_messages_are_signed_all_the_same() -> None:
    async with cluster(1, curve=True) as (hub, client, _):
        assert len(hub.client_info["key"]) >= 32
        client.send("registration", "queue_request", key=b"another")
        await client.query("queue_request")
        assert hub.statistics().wire_errors == {"bad_signature": 1}


async def test_the_keys_are_those_of_the_settings() -> None:
    public, secret = new_keys()
    async with within_limit():
        for publickey in (None, public):
            async with open_hub(HubConfig(curve=True, curve_publickey=publickey, curve_secretkey=secret)) as hub:
                assert hub.client_info["curve_serverkey"] == public
        async with open_hub(HubConfig(curve_publickey=public, curve_secretkey=secret)) as hub:
            assert hub.client_info["curve_serverkey"] is None, "keys alone do not encrypt"


async def test_the_secret_key_is_in_no_connection_info() -> None:
    _, secret = new_keys()
    async with within_limit(), open_hub(HubConfig(curve=True, curve_secretkey=secret)) as hub:
        assert secret not in str([hub.client_info, hub.engine_info, hub, hub.config])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"curve_publickey": new_keys()[0], "curve_secretkey": new_keys()[1]}, "set keys that belong together"),
        ({"curve_secretkey": "#" * 40}, "curve_secretkey is not usable"),
        ({"curve_allowed_keys": "no/such/file"}, "curve_allowed_keys: cannot read .*/no/such/file: No such file"),
    ],
)
async def test_keys_that_cannot_be_used_are_refused(settings: dict[str, Any], message: str) -> None:
    async with within_limit():
        with pytest.raises(ConfigError, match=message):
            await serve_hub(HubConfig(curve=True, **settings))


async def get_nowhere(hub: RunningHub, info: dict[str, Any], reason: str, keys: Keys | None = None) -> None:
    """Check that a client and an engine with this connection info are refused, and that all other peers go on."""
    async with (
        open_client(hub.client_info) as client,
        open_engine(hub.engine_info) as engine,
        trio.open_nursery() as nursery,
    ):
        await hub.wait_engines(1)
        for open_peer in (open_client, open_engine):
            nursery.start_soon(stay_outside, open_peer, info, keys)
        await eventually(lambda: hub.statistics().ignored.get(reason, 0) >= 1)
        assert (await client.reply(client.submit(b"x"))).buffers == [b"x"]
        assert hub.engines == {engine.id: engine.uuid}
        assert hub.statistics().registering == 0
        nursery.cancel_scope.cancel()


async def stay_outside(open_peer: Callable[..., Any], info: dict[str, Any], keys: Keys | None) -> None:
    async with open_peer(info, curve_keys=keys):
        raise AssertionError("it was let in")


async def test_who_does_not_encrypt_gets_nowhere() -> None:
    async with within_limit(), open_hub(HubConfig(curve=True)) as hub:
        await get_nowhere(hub, hub.client_info | hub.engine_info | {"curve_serverkey": None}, "handshake_failed")


async def test_who_takes_us_for_another_hub_gets_nowhere() -> None:
    async with within_limit(), open_hub(HubConfig(curve=True)) as hub:
        info = hub.client_info | hub.engine_info | {"curve_serverkey": new_keys()[0]}
        await get_nowhere(hub, info, "handshake_failed")


# Allowed keys


async def test_only_keys_of_the_list_get_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    allowed, denied = new_keys(), new_keys()
    file = tmp_path / "keys"
    file.write_text(f"# lab\n\n{allowed[0]} # mine\n")
    async with (
        within_limit(),
        open_hub(HubConfig(curve=True, curve_allowed_keys=file)) as hub,
        open_client(hub.client_info, curve_keys=allowed) as client,
        open_engine(hub.engine_info, curve_keys=allowed) as engine,
        trio.open_nursery() as nursery,
    ):
        await hub.wait_engines(1)
        nursery.start_soon(stay_outside, open_client, hub.client_info, denied)
        nursery.start_soon(stay_outside, open_engine, hub.engine_info, denied)
        await eventually(lambda: hub.statistics().ignored.get("key_not_allowed", 0) >= 2)
        assert (await client.reply(client.submit(b"x"))).buffers == [b"x"]
        assert (await client.reply(client.call(engine, b"y"))).buffers == [b"y"]
        assert hub.engines == {engine.id: engine.uuid}
        nursery.cancel_scope.cancel()
    records = [record for record in caplog.records if getattr(record, "kind", "") == "key_not_allowed"]
    shown = TextFormatter().format(records[0])
    assert denied[0] in shown
    assert "address=127.0.0.1" in shown
    assert allowed[0] not in caplog.text


async def test_nannies_with_keys_of_their_own_get_in_beside_an_engine(tmp_path: Path) -> None:
    """The nannies of stock engines have other keys than their engines, and connect only to the control port."""
    allowed = new_keys()
    (tmp_path / "keys").write_text(allowed[0])
    async with (
        within_limit(),
        open_hub(HubConfig(curve=True, curve_allowed_keys=tmp_path / "keys")) as hub,
        open_client(hub.client_info, curve_keys=allowed) as client,
    ):
        async with open_engine(hub.engine_info, curve_keys=allowed, beating=False) as engine:
            engine.channels.pop("control").close(linger=0)
            engine.curve_keys = new_keys()
            engine.connect(
                "control", zmq.ROUTER, [hub.engine_info["control"]], engine._on_control, identity=engine.ident
            )
            await engine.wait_until(lambda: bool(engine.pings))
            engine.send_raw("hb_pong", [engine.pings[0]])
            await hub.wait_engines(1)
            assert (await client.reply(client.control(engine, "abort_request"))).content["status"] == "ok"
        assert hub.statistics().ignored == {}


@pytest.mark.parametrize("channel", ["control", "registration"])
async def test_nobody_gets_in_as_a_nanny_alone(channel: str, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# nobody")
    async with within_limit(), open_hub(HubConfig(curve=True, curve_allowed_keys=tmp_path / "keys")) as hub:
        info = hub.engine_info | {"registration": hub.engine_info[channel]}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stay_outside, open_engine, info, new_keys())
            await eventually(lambda: hub.statistics().ignored.get("key_not_allowed", 0) >= 1)
            nursery.cancel_scope.cancel()


async def test_many_come_through_the_list_at_once(tmp_path: Path) -> None:
    public, secret = new_keys()
    (tmp_path / "keys").write_text(f"{new_keys()[0]}\n{public}\n")
    async with (
        within_limit(),
        open_hub(HubConfig(curve=True, curve_allowed_keys=tmp_path / "keys")) as hub,
        trio.open_nursery() as nursery,
    ):
        for _ in range(10):
            nursery.start_soon(engine_until_cancelled, hub, (public, secret))
        await hub.wait_engines(10)
        nursery.cancel_scope.cancel()


async def engine_until_cancelled(hub: RunningHub, keys: Keys) -> None:
    async with open_engine(hub.engine_info, curve_keys=keys):
        await trio.sleep_forever()


Z85 = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"  # a public key, from the ZeroMQ manual


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("", 0),
        ("# nothing\n#\n   # but comments", 0),
        (Z85, 1),
        (f"  {Z85}  \r\n{Z85} # twice", 1),
        (f"#{Z85}", 0),
        (f"{Z85} #ä\n", 1),
    ],
)
def test_what_a_list_of_keys_says(text: str, n: int, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(text, "utf-8")
    assert len(read_allowed_keys(tmp_path / "keys")) == n


@pytest.mark.parametrize("line", ["x", Z85[:-1], f"{Z85}x", f"{Z85} mine", "~" * 40, "%" * 40, Z85[::-1][:20]])
def test_a_line_that_is_no_key_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{Z85}\n{line}\n")
    with pytest.raises(ConfigError, match=f"line 2 of {tmp_path}/keys is not a public key"):
        read_allowed_keys(tmp_path / "keys")


def test_local_engines_get_keys_of_their_own() -> None:
    keys = CurveKeys.fresh()
    environment = {"IPP_CURVE_SECRETKEY": "of the hub", "TRIO_HUB_CURVE_SECRETKEY": "of the hub", "HOME": "/"}
    Security().give_to_engines(environment)
    assert environment == {"HOME": "/"}
    Security(CurveKeys.fresh(), keys).give_to_engines(environment)
    assert environment == {"HOME": "/", "IPP_CURVE_PUBLICKEY": keys.public, "IPP_CURVE_SECRETKEY": keys.secret}
    assert keys.secret not in repr(keys)


# Addresses


@pytest.mark.parametrize(
    ("settings", "exposed"),
    [
        ({}, None),
        ({"ip": "127.0.0.2"}, None),
        ({"ip": "*", "curve": False}, "all addresses"),
        ({"ip": "0.0.0.0", "curve": False}, "all addresses"),
        ({"ip": "*", "curve": True}, None),
        ({"ip": "*"}, None),
        ({"ip": "*", "curve": False, "ssh_server": "gate"}, "all addresses"),
        ({"ip": "*", "curve": False, "ssh_server": "gate", "engine_ssh_server": "gate"}, "all addresses"),
        ({"engine_ip": "*", "curve": False}, "all addresses"),
        ({"client_ip": "127.0.0.3", "engine_ip": "127.0.0.4"}, None),
    ],
)
async def test_a_hub_without_protection_warns_once(
    settings: dict[str, Any], exposed: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with cluster(1, **settings) as (hub, client, _):
        await client.reply(client.submit())
        assert hub.connections == ("encrypted" if hub.client_info["curve_serverkey"] else "open")
    warnings = [TextFormatter().format(record) for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == (exposed is not None)
    if exposed is not None:
        assert "listening without encryption: anyone on the network can read" in warnings[0]
        assert warnings[0].endswith(f'address="{exposed}"')
        assert "Turn curve on" in warnings[0]


@pytest.mark.parametrize(("ip", "exposed"), [("lo", False), ("eth0", True), ("::1", False), ("10.0.0.1", True)])
def test_who_can_reach_an_address(ip: str, exposed: bool, caplog: pytest.LogCaptureFixture) -> None:
    secure(HubConfig(ip=ip, curve=False), None)
    assert bool(caplog.records) == exposed


@pytest.mark.parametrize("settings", [{"ip": "*"}, {"client_ip": "*"}, {"engine_ip": "*"}])
async def test_beyond_this_machine_everything_is_encrypted(settings: dict[str, Any]) -> None:
    async with cluster(1, **settings) as (hub, client, (engine,)):
        assert hub.connections == hub.statistics().connections == "encrypted"
        assert hub.client_info["curve_serverkey"] == hub.engine_info["curve_serverkey"] is not None
        assert (await client.reply(client.call(engine, b"x"))).buffers == [b"x"]


@pytest.mark.parametrize("settings", [{}, {"ip": "127.0.0.2"}, {"ip": "*", "curve": False}])
async def test_on_this_machine_or_where_it_is_not_wanted_nothing_is(settings: dict[str, Any]) -> None:
    async with cluster(1, **settings) as (hub, _, _):
        assert hub.connections == hub.statistics().connections == "open"
        assert hub.client_info["curve_serverkey"] is None


def test_that_stock_clients_do_not_encrypt_through_ssh_is_told(caplog: pytest.LogCaptureFixture) -> None:
    secure(HubConfig(ip="*", engine_ssh_server="gate"), None)
    assert not caplog.records
    secure(HubConfig(ip="*", ssh_server="gate"), None)
    assert "stock clients of version 9.2 do not encrypt all connections" in caplog.text


def test_without_libsodium_there_is_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmq, "has", lambda capability: False)
    for settings, why in (({"ip": "10.0.0.1"}, "since the hub listens on 10.0.0.1"), ({"curve": True}, "curve is on")):
        with pytest.raises(ConfigError, match=rf"{why}, and this build of ZeroMQ cannot encrypt: .*turn curve off"):
            secure(HubConfig(**settings), None)


@pytest.mark.parametrize(
    ("client_ip", "engine_ip"),
    [("127.0.0.2", "127.0.0.3"), ("*", "127.0.0.2"), ("127.0.0.2", "0.0.0.0")],
)
async def test_clients_and_engines_can_have_different_addresses(client_ip: str, engine_ip: str) -> None:
    async with cluster(2, client_ip=client_ip, engine_ip=engine_ip, ssh_server="a", engine_ssh_server="b") as (
        hub,
        client,
        engines,
    ):
        assert hub.client_info["interface"] == f"tcp://{client_ip}"
        assert hub.engine_info["interface"] == f"tcp://{engine_ip}"
        assert hub.client_info["registration"] == hub.engine_info["registration"]
        assert (hub.client_info["ssh"], hub.engine_info["ssh"]) == ("a", "b")
        assert (await client.reply(client.call(engines[1], b"x"))).buffers == [b"x"]


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
@pytest.mark.parametrize(
    "settings", [{"ip": "::1"}, {"ip": "[::]"}, {"client_ip": "::1"}, {"engine_ip": "::1", "client_ip": "*"}]
)
async def test_ipv6(settings: dict[str, Any]) -> None:
    async with cluster(1, **settings) as (_, client, (engine,)):
        assert (await client.reply(client.call(engine, b"x"))).buffers == [b"x"]


# Ports


def ports_of(info: dict[str, Any], *names: str) -> list[int]:
    return [port for name in names for port in ([info[name]] if isinstance(info[name], int) else info[name])]


CLIENT = ("control", "mux", "task", "iopub", "notification", "broadcast")
ENGINE = ("registration", "control", "mux", "task", "iopub", "hb_ping", "hb_pong", "broadcast")


async def test_each_side_has_its_pool_and_then_the_common_one() -> None:
    ports = free_ports(16)
    engine_ports, client_ports, common = ports[:6], ports[6:10], ports[10:]
    async with (
        within_limit(),
        open_hub(
            HubConfig(engine_ports=engine_ports, client_ports=client_ports, ports=common, broadcast_ports=2)
        ) as hub,
    ):
        assert ports_of(hub.engine_info, *ENGINE) == [*engine_ports, *common[:3]]
        assert ports_of(hub.client_info, *CLIENT) == [*client_ports, *common[3:5]]


async def test_the_system_chooses_for_the_side_without_a_pool() -> None:
    ports = free_ports(8)
    async with within_limit(), open_hub(HubConfig(engine_ports=ports)) as hub:
        assert ports_of(hub.engine_info, *ENGINE) == [*ports]


@pytest.mark.parametrize(
    ("pools", "message"),
    [
        ({"client_ports": 3}, "client_ports: the pool of 3 has no free port left; clients need 6"),
        ({"engine_ports": 7}, "engine_ports: the pool of 7 has no free port left; .* engines 8"),
        ({"client_ports": 5, "ports": 8}, "client_ports and ports: the pool of 13 has no free port left"),
    ],
)
async def test_a_pool_that_is_too_small_is_named(pools: dict[str, int], message: str) -> None:
    ports = free_ports(sum(pools.values()))
    settings = {}
    for name, n in pools.items():
        settings[name], ports = ports[:n], ports[n:]
    async with within_limit():
        with pytest.raises(ConfigError, match=message):
            await serve_hub(HubConfig(**settings))  # type: ignore[arg-type]


async def test_engines_spread_over_the_broadcast_ports() -> None:
    async with within_limit(), open_hub(HubConfig(broadcast_ports=3)) as hub:
        assert len(set(hub.engine_info["broadcast"])) == 3
        assert isinstance(hub.client_info["broadcast"], int)
        async with open_client(hub.client_info) as client, open_engines(hub.engine_info, 7) as engines:
            await hub.wait_engines(7)
            targets = [[engine.uuid, engine.id] for engine in engines]
            metadata = {"targets": targets, "is_broadcast": True, "is_coalescing": True, "original_msg_id": "b"}
            reply = await client.reply(
                client.send("broadcast", "apply_request", metadata=metadata, buffers=[b"x"], msg_id="b")
            )
            assert reply.content["status"] == "ok"
            assert [request.queue for engine in engines for request in engine.requests] == ["broadcast"] * 7
