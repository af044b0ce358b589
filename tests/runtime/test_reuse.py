"""A hub that takes up the key, ports, connection files and engines of an earlier hub."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shutil
import socket
import stat
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_hub import HubConfig, RunningHub, serve_hub
from trio_hub.config.connectionfiles import (
    connection_paths,
    read_connection_file,
    write_connection_file,
    write_private_file,
)
from trio_hub.errors import ConfigError, ConnectionFileError
from trio_hub.hub import Hub
from trio_hub.hub.engineids import MAX_ID
from trio_hub.testing import RegistrationRefused, ScriptedEngine, open_client, open_engine, open_engines, open_hub

from .support import eventually, within_limit


def files_of(profile: Path) -> list[Path]:
    return sorted(path for path in profile.rglob("*") if path.is_file())


def state_in(profile: Path) -> Any:
    return json.loads((profile / "log" / "engines.json").read_text())


def change(profile: Path, side: str, **values: Any) -> None:
    path = profile / "security" / f"ipcontroller-{side}.json"
    write_connection_file(path, read_connection_file(path) | values)


async def run_once(config: HubConfig) -> RunningHub:
    """Run a hub, stop it, and return it."""
    async with open_hub(config) as hub:
        pass
    await hub.wait_stopped()
    return hub


# Connection files


async def test_the_next_hub_has_the_same_key_ports_and_addresses(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"profile_dir": tmp_path, "reuse": True}
    async with within_limit():
        first = await run_once(
            HubConfig(
                client_ip="127.0.0.2",
                location="here.example",
                ssh_server="gate",
                engine_ssh_server="other",
                broadcast_ports=2,
                packer="orjson",
                signature_scheme="hmac-sha512",
                **settings,
            )
        )
        files = {
            path: path.read_bytes()
            for path in files_of(tmp_path)
            if path.suffix == ".json" and path.parent.name == "security"
        }
        assert len(files) == 2
        async with (
            open_hub(HubConfig(**settings)) as second,
            open_client(first.client_info) as client,
            open_engine(first.engine_info) as engine,
        ):
            await second.wait_engines(1)
            assert (await client.reply(client.call(engine, b"x"))).buffers == [b"x"]
            assert (second.client_info, second.engine_info) == (first.client_info, first.engine_info)
        assert {path: path.read_bytes() for path in files} == files


async def test_without_reuse_nothing_is_taken_up_and_nothing_left(tmp_path: Path) -> None:
    async with within_limit():
        first = await run_once(HubConfig(profile_dir=tmp_path, db="memory", reuse=True))
        async with open_hub(HubConfig(profile_dir=tmp_path, db="memory")) as hub:
            assert hub.client_info["key"] != first.client_info["key"]
            async with open_engine(hub.engine_info):
                await hub.wait_engines(1)
                await eventually((tmp_path / "log" / "engines.json").exists)
    assert files_of(tmp_path) == []


async def test_another_scheme_is_told_in_the_client_file(tmp_path: Path) -> None:
    async with within_limit():
        await run_once(HubConfig(profile_dir=tmp_path, reuse=True))
        await run_once(HubConfig(profile_dir=tmp_path, reuse=True, scheme="lru"))
    assert read_connection_file(connection_paths(tmp_path)[0])["task_scheme"] == "lru"


async def test_files_that_others_could_read_are_made_private(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with within_limit():
        await run_once(HubConfig(profile_dir=tmp_path, reuse=True))
        client_file, engine_file = connection_paths(tmp_path)
        client_file.chmod(0o644)
        await run_once(HubConfig(profile_dir=tmp_path, reuse=True))
    assert f"could read the key in the file; it is made private now path={client_file}" in caplog.text
    assert str(engine_file) not in caplog.text
    assert stat.S_IMODE(client_file.stat().st_mode) == 0o600


async def test_settings_that_the_files_overrule_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with within_limit():
        await run_once(HubConfig(profile_dir=tmp_path, reuse=True))
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
        await run_once(
            HubConfig(
                profile_dir=tmp_path, reuse=True, ip="127.0.0.5", packer="msgpack", ports=(1, 2), broadcast_ports=3
            )
        )
    text = caplog.text
    for name in (
        "setting=ip value=127.0.0.5",
        "setting=packer value=msgpack",
        "setting=broadcast_ports value=3",
        'setting="client_ports or ports" value=',
    ):
        assert name in text
    assert (
        "a setting has no effect, since the connection files differ from it; to use the setting, remove both files"
        in text
    )
    assert "location" not in text


@pytest.mark.parametrize(
    ("side", "damage", "what"),
    [
        ("client", b"{", "damaged"),
        ("engine", b"\xff\xfe", "damaged"),
        ("engine", b"[]", "damaged .not an object"),
        ("client", None, r"it is missing, but .*engine\.json exists"),
        ("engine", None, r"it is missing, but .*client\.json exists"),
        ("client", {"key": "another"}, r"its 'key' differs from the one in .*engine\.json"),
        ("client", {"registration": 1}, "its 'registration' differs from the one in"),
        ("engine", {"key": ""}, "it has no key"),
        ("engine", {"key": None}, "'key' is missing or is not a text"),
        ("engine", {"mux": "5"}, "'mux' is '5', not a port"),
        ("engine", {"broadcast": []}, r"'broadcast' is \[\], not a list of ports"),
        ("client", {"task": 0}, "'task' is 0, not a port"),
        ("client", {"interface": "ipc://x"}, "this hub supports TCP only"),
        ("client", {"interface": "tcp://a b"}, "client_ip is 'a b'"),
        ("client", {"unpack": "pickle"}, "'pack' and 'unpack' differ"),
        ("client", {"ssh": 3}, "'ssh' is not a text"),
    ],
)
async def test_files_that_cannot_be_used_again_are_named_and_left_alone(
    side: str, damage: bytes | dict[str, Any] | None, what: str, tmp_path: Path
) -> None:
    async with within_limit():
        await run_once(HubConfig(profile_dir=tmp_path, reuse=True))
        path = tmp_path / "security" / f"ipcontroller-{side}.json"
        if damage is None:
            path.unlink()
        elif isinstance(damage, bytes):
            path.write_bytes(damage)
        else:
            change(tmp_path, side, **damage)
        before = {path: path.read_bytes() for path in files_of(tmp_path)}
        with pytest.raises(ConnectionFileError, match=what) as caught:
            await serve_hub(HubConfig(profile_dir=tmp_path, reuse=True))
        assert str(path) in str(caught.value)
        assert re.search("[Rr]emove|without --reuse", str(caught.value)), "the remedy"
        assert {path: path.read_bytes() for path in files_of(tmp_path)} == before


async def test_pickle_is_not_taken_up_either(tmp_path: Path) -> None:
    async with within_limit():
        await run_once(HubConfig(profile_dir=tmp_path, reuse=True))
        for side in ("client", "engine"):
            change(tmp_path, side, pack="pickle", unpack="pickle")
        with pytest.raises(ConnectionFileError, match="unpickling"):
            await serve_hub(HubConfig(profile_dir=tmp_path, reuse=True))


async def test_another_key_is_refused(tmp_path: Path) -> None:
    async with within_limit():
        await run_once(HubConfig(profile_dir=tmp_path, reuse=True, key="one"))
        await run_once(HubConfig(profile_dir=tmp_path, reuse=True, key="one"))
        with pytest.raises(ConfigError, match=r"key is set, but the connection files in .* have another key"):
            await serve_hub(HubConfig(profile_dir=tmp_path, reuse=True, key="two"))


async def test_a_port_that_is_in_use_is_named(tmp_path: Path) -> None:
    async with within_limit(), open_hub(HubConfig(profile_dir=tmp_path, db="memory", reuse=True)) as hub:
        with pytest.raises(ConfigError, match="a hub is running in this profile"):
            await serve_hub(HubConfig(profile_dir=tmp_path, db="memory", reuse=True))
        with pytest.raises(
            ConfigError, match=rf"port {hub.client_info['registration']}, which the connection files in"
        ):
            await serve_hub(HubConfig(profile_dir=tmp_path, db="memory", reuse=True, force=True))
        assert len(files_of(tmp_path)) == 4, "those of the hub that runs, and its lock"
        async with open_client(hub.client_info) as client:
            await client.query("queue_request")
    with (
        socket.create_server(("127.0.0.1", hub.client_info["notification"])),
        pytest.raises(ConfigError, match="give to 'notification', is in use"),
    ):
        await serve_hub(HubConfig(profile_dir=tmp_path, db="memory", reuse=True))


# Engines


@contextlib.asynccontextmanager
async def engines_of(hub: RunningHub, n: int) -> AsyncGenerator[list[ScriptedEngine], None]:
    async with open_engines(hub.engine_info, n) as engines:
        await hub.wait_engines(n)
        yield engines


@pytest.mark.parametrize("how", ["shutdown", "cancel"])
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "curve"])
async def test_engines_go_on_at_the_next_hub(how: str, encrypted: bool, tmp_path: Path) -> None:
    config = HubConfig(profile_dir=tmp_path, restore=True, curve=encrypted)
    async with within_limit(), trio.open_nursery() as outer:
        hub: RunningHub = await outer.start(start_in_scope, config, scope := trio.CancelScope())
        async with engines_of(hub, 3) as engines, open_client(hub.client_info) as old_client:
            engines[1].leave()
            await old_client.notification("unregistration_notification", id=engines[1].id)
            alive = {engine.id: engine.uuid for engine in (engines[0], engines[2])}
            if how == "shutdown":
                hub.shutdown()
            else:
                scope.cancel()
            await hub.wait_stopped()
            assert state_in(tmp_path) == {
                "engines": {str(id): uuid for id, uuid in alive.items()},
                "next_id": 3,
                "places": {str(id): ["127.0.0.1", None] for id in alive},
            }

            async with open_hub(config) as second, open_client(second.client_info) as client:
                assert second.engines == alive
                assert {engine.host for engine in second.core.engines.alive.values()} == {"127.0.0.1"}
                known = (await client.query("connection_request")).content["engines"]
                assert known == {str(id): uuid for id, uuid in alive.items()}
                for _ in range(2):  # the second request goes to an engine that has not reconnected yet
                    calls = [client.call(engine, b"x") for engine in (engines[0], engines[2])]
                    assert [(await client.reply(call)).buffers for call in calls] == [[b"x"], [b"x"]]
                tasks = [client.submit(b"t") for _ in range(4)]
                assert [(await client.reply(task)).buffers for task in tasks] == [[b"t"]] * 4
                assert {engine.id for engine in engines for request in engine.requests if request.buffers == [b"t"]}
                # a client of the previous hub can use this hub
                assert (await old_client.query("queue_request")).content["status"] == "ok"
                async with open_engine(second.engine_info) as newcomer:
                    assert newcomer.id == 3
                    await second.wait_engines(3)
                engines[2].leave()
                await client.notification("unregistration_notification", id=engines[2].id)


async def start_in_scope(
    config: HubConfig, scope: trio.CancelScope, *, task_status: trio.TaskStatus[RunningHub]
) -> None:
    with scope:
        await serve_hub(config, task_status=task_status)


async def test_a_hub_that_was_killed_is_followed_all_the_same(tmp_path: Path) -> None:
    """This also holds if the hub ran without reuse: the files on the disk are sufficient at any moment."""
    after_the_kill = tmp_path / "copy"
    profile = tmp_path / "profile"
    async with within_limit(), open_hub(HubConfig(profile_dir=profile)) as hub, engines_of(hub, 2) as engines:
        await eventually((profile / "log" / "engines.json").exists)
        await eventually(lambda: len(state_in(profile)["engines"]) == 2)
        shutil.copytree(profile, after_the_kill)
        hub.shutdown()
        await hub.wait_stopped()
        async with (
            open_hub(HubConfig(profile_dir=after_the_kill, restore=True)) as second,
            open_client(second.client_info) as client,
        ):
            assert (await client.reply(client.call(engines[1], b"x"))).buffers == [b"x"]
            assert second.engines == {engine.id: engine.uuid for engine in engines}


async def test_an_engine_that_has_its_id_and_no_heart_yet_is_heard_by_the_next_hub(tmp_path: Path) -> None:
    config = HubConfig(profile_dir=tmp_path, restore=True)
    async with within_limit(), open_hub(config) as hub, open_engine(hub.engine_info, beating=False) as engine:
        hub.shutdown()
        await hub.wait_stopped()
        engine.beating = True
        async with open_hub(config) as second:
            await second.wait_engines(1)
            assert second.engines == {engine.id: engine.uuid}


async def test_engines_that_do_not_come_back_are_lost(tmp_path: Path) -> None:
    config = HubConfig(profile_dir=tmp_path, restore=True, stranded_grace=0.5, registration_timeout=1)
    async with within_limit(), open_hub(config) as hub, engines_of(hub, 2) as (alive, dead):
        dead.beating = False
        hub.shutdown()
        await hub.wait_stopped()
        dead.die()
        async with open_hub(config) as second, open_client(second.client_info) as client:
            assert set(second.engines) == {alive.id, dead.id}
            call = client.call(dead, b"x")
            gone = await client.notification("unregistration_notification")
            assert gone.content == {"id": dead.id, "uuid": dead.uuid}
            assert (await client.reply(call)).content["ename"] == "EngineError"
            assert second.engines == {alive.id: alive.uuid}
            assert (await client.reply(client.submit(b"x"))).buffers == [b"x"]
            await second.wait_engines(1)
            async with open_engine(second.engine_info, uuid=dead.uuid) as again:
                assert again.id == 2, "a uuid that was lost may register, and ids are not used twice"


async def test_an_engine_without_a_heart_is_lost_when_its_time_is_up(tmp_path: Path) -> None:
    config = HubConfig(profile_dir=tmp_path, restore=True, registration_timeout=0.5)
    async with within_limit(), open_hub(config) as hub, engines_of(hub, 1) as (engine,):
        engine.beating = False
        hub.shutdown()
        await hub.wait_stopped()
        async with open_hub(config) as second, open_client(second.client_info) as client:
            gone = await client.notification("unregistration_notification")
            assert gone.content["uuid"] == engine.uuid
            assert second.engines == {}


async def test_hearts_that_are_heard_keep_their_engines(tmp_path: Path) -> None:
    """After the timeout, only engines whose hearts were not heard are lost. Then restored hearts count like others."""
    config = HubConfig(profile_dir=tmp_path, restore=True, registration_timeout=0.5, ping=0.1)
    async with within_limit(), open_hub(config) as hub, engines_of(hub, 2) as (heard, unheard):
        unheard.beating = False
        hub.shutdown()
        await hub.wait_stopped()
        async with open_hub(config) as second, open_client(second.client_info) as client:
            await client.notification("unregistration_notification", id=unheard.id)
            assert second.engines == {heard.id: heard.uuid}
            heard.beating = False
            await client.notification("unregistration_notification", id=heard.id)


async def test_without_restore_the_next_hub_begins_with_none(tmp_path: Path) -> None:
    async with within_limit():
        async with open_hub(HubConfig(profile_dir=tmp_path, reuse=True)) as hub, engines_of(hub, 1):
            pass
        async with open_hub(HubConfig(profile_dir=tmp_path, reuse=True)) as hub:
            assert hub.engines == {}
            async with open_engine(hub.engine_info) as engine:
                assert engine.id == 1, "the engine of id 0 may be heard again"


@pytest.mark.parametrize("how", ["shutdown", "cancel"])
async def test_without_restore_idle_engines_are_usable_when_they_are_heard(how: str, tmp_path: Path) -> None:
    config = HubConfig(profile_dir=tmp_path, reuse=True)
    async with within_limit(), trio.open_nursery() as outer:
        hub: RunningHub = await outer.start(start_in_scope, config, scope := trio.CancelScope())
        async with engines_of(hub, 3) as (first, second, dead):
            known = {engine.id: engine.uuid for engine in (first, second)}
            dead.beating = False
            if how == "shutdown":
                hub.shutdown()
            else:
                scope.cancel()
            await hub.wait_stopped()
            dead.die()
            async with open_hub(config) as second_hub, open_client(second_hub.client_info) as client:
                await second_hub.wait_engines(2)
                assert second_hub.engines == known
                assert {engine.host for engine in second_hub.core.engines.alive.values()} == {"127.0.0.1"}
                for engine in (first, second):
                    assert (await client.reply(client.call(engine, b"x"))).buffers == [b"x"]
                error = (await client.reply(client.call(dead))).content["evalue"]
                assert (
                    f"Engine {dead.id} is not registered any more: its heart was not heard after the restart" in error
                )
                async with open_engine(second_hub.engine_info) as newcomer:
                    assert newcomer.id == 3


@pytest.mark.parametrize("restore", [True, False], ids=["restore", "reuse"])
async def test_an_engine_that_was_lost_comes_back_to_the_next_hub(restore: bool, tmp_path: Path) -> None:
    config = HubConfig(profile_dir=tmp_path, restore=restore, reuse=True, ping=0.1, max_heartmonitor_misses=2)
    async with within_limit(), open_hub(config) as hub, engines_of(hub, 2) as (cut_off, dead):
        known = {cut_off.id: cut_off.uuid}
        cut_off.beating = dead.beating = False
        dead.leave()
        await eventually(lambda: not hub.engines)
        hub.shutdown()
        await hub.wait_stopped()
        async with open_hub(config) as second:
            assert second.engines == {}
            cut_off.beating = dead.beating = True
            await second.wait_engines(1)
            assert second.engines == known
            async with open_engine(second.engine_info) as newcomer:
                assert newcomer.id not in known


# The state file


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "\xff",
        "{}",
        '{"engines": [], "next_id": 1}',
        '{"engines": {}}',
        '{"engines": {}, "next_id": 1, "places": 7}',
        "[" * 100_000,
    ],
)
async def test_a_damaged_state_file_is_named_and_the_start_goes_on(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "log" / "engines.json"
    file.parent.mkdir()
    file.write_text(text, "latin-1")
    async with within_limit(), open_hub(HubConfig(profile_dir=tmp_path, restore=True)) as hub:
        assert hub.engines == {}
        async with open_engine(hub.engine_info):
            await hub.wait_engines(1)
    assert f"no engines are restored: the file is damaged path={file} error=" in caplog.text


async def test_an_id_that_makes_no_sense_costs_no_engine(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "log" / "engines.json"
    file.parent.mkdir()
    engines = {"-1": "a", "x": "b", "1": "c", str(2**31 - 1): "d", "5": "e", "3" * 5000: "f"}
    places = {"1": 7, "5": ["h", 9], "y": ["h", 9], "3": ["h", "9"]}
    file.write_text(json.dumps({"engines": engines, "next_id": "1", "places": places}))
    async with within_limit(), open_hub(HubConfig(profile_dir=tmp_path, restore=True)) as hub:
        assert hub.engines == {1: "c", 5: "e"}
        alive = hub.core.engines.alive
        assert [(alive[id].host, alive[id].pid) for id in (1, 5)] == [(None, None), ("h", 9)]
        async with open_engine(hub.engine_info) as engine:
            assert engine.id == 6
    assert "the next engine id in the file is not an id" in caplog.text
    for name in ("-1", "x", str(2**31 - 1), "3" * 100):
        assert f"an engine is not restored engine={name} " in caplog.text


async def test_an_engine_with_the_highest_id_is_taken_up(tmp_path: Path) -> None:
    config = HubConfig(profile_dir=tmp_path, restore=True)
    async with (
        within_limit(),
        open_hub(config) as hub,
        open_engine(hub.engine_info, id=MAX_ID) as engine,
        open_engine(hub.engine_info) as newcomer,
    ):
        assert (engine.id, newcomer.id) == (MAX_ID, 0)
        with pytest.raises(RegistrationRefused, match="the requested engine id must be an integer from 0 to"):
            async with open_engine(hub.engine_info, id=MAX_ID + 1):
                pass
        await hub.wait_engines(2)
        hub.shutdown()
        await hub.wait_stopped()
        async with open_hub(config) as second:
            assert second.engines == {MAX_ID: engine.uuid, 0: newcomer.uuid}
            async with open_engine(second.engine_info) as another:
                assert another.id == 1


async def test_an_engine_that_makes_no_sense_costs_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "log" / "engines.json"
    file.parent.mkdir()
    file.write_text(
        json.dumps({"engines": {"0": "a", "1": "", "2": 7, "3": "a", "4": "\ud800", "5": "b"}, "next_id": 9})
    )
    async with within_limit(), open_hub(HubConfig(profile_dir=tmp_path, restore=True)) as hub:
        assert hub.engines == {0: "a", 5: "b"}
        async with open_engine(hub.engine_info) as engine:
            assert engine.id == 9
    assert all(f"an engine is not restored engine={engine} error=" in caplog.text for engine in (1, 2, 3, 4))


async def test_a_state_file_that_cannot_be_written_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Engines register nevertheless: the first one, the engines that come at the same time, and later engines."""
    (tmp_path / "log").write_text("no directory")
    async with within_limit(), open_hub(HubConfig(profile_dir=tmp_path, reuse=True)) as hub, engines_of(hub, 3):
        await eventually(lambda: f"path={tmp_path}/log/engines.json" in caplog.text)
        async with open_engine(hub.engine_info) as engine, open_client(hub.client_info) as client:
            await hub.wait_engines(4)
            assert (await client.reply(client.call(engine, b"x"))).buffers == [b"x"]


async def test_a_flood_of_registrations_is_a_few_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []

    def count(path: Path, text: str) -> None:
        written.append(len(json.loads(text)["engines"]))
        write_private_file(path, text)

    monkeypatch.setattr("trio_hub.runtime.restore.write_private_file", count)
    async with within_limit(), open_hub(HubConfig(profile_dir=tmp_path, restore=True)) as hub:
        hub_core: Hub = hub._host.hub
        hub_core.restore_engines({id: f"engine-{id}" for id in range(1000)}, 0)
        await eventually(lambda: written[-1:] == [1000])
        async with engines_of(hub, 20):
            await eventually(lambda: written[-1:] == [1020])
    assert len(written) <= 10
    assert len(state_in(tmp_path)["engines"]) >= 1000
    assert stat.S_IMODE((tmp_path / "log" / "engines.json").stat().st_mode) == 0o600


async def test_each_cluster_id_has_its_own(tmp_path: Path) -> None:
    async with within_limit():
        for cluster_id in ("", "b"):
            config = HubConfig(profile_dir=tmp_path, reuse=True, cluster_id=cluster_id)
            async with open_hub(config) as hub, engines_of(hub, 1):
                pass
    assert sorted(path.name for path in (tmp_path / "log").iterdir()) == ["engines.json", "enginesb.json"]
