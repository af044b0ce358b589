"""An encrypted hub that is started again: its secret key, and its use of the connection files."""

from __future__ import annotations

import logging
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zmq

from trio_hub import HubConfig, RunningHub, serve_hub
from trio_hub.config.connectionfiles import connection_paths
from trio_hub.errors import ConfigError, ConnectionFileError
from trio_hub.testing import open_client, open_engine, open_hub

from .support import within_limit


def files_of(profile: Path) -> list[Path]:
    return sorted(path for path in profile.rglob("*") if path.is_file())


def key_file(profile: Path) -> Path:
    return profile / "security" / "ipcontroller-curve.key"


async def run_once(config: HubConfig) -> RunningHub:
    """Run a hub, stop it, and return it."""
    async with open_hub(config) as hub:
        pass
    await hub.wait_stopped()
    return hub


def curve(secret: str | None = None, **settings: Any) -> dict[str, Any]:
    return {"reuse": True, "curve": True, "curve_secretkey": secret, **settings}


async def test_a_secret_key_that_is_set_can_be_used_again(tmp_path: Path) -> None:
    _, secret = zmq.curve_keypair()
    async with within_limit():
        first = await run_once(HubConfig(profile_dir=tmp_path, **curve(secret.decode())))
        async with (
            open_hub(HubConfig(profile_dir=tmp_path, **curve(secret.decode()))),
            open_client(first.client_info) as client,
        ):
            await client.query("queue_request")


@pytest.mark.parametrize("settings", [{"curve": True}, {"client_ip": "*", "engine_ip": "127.0.0.1"}])
@pytest.mark.parametrize("how", ["reuse", "restore"])
async def test_a_hub_keeps_the_secret_key_that_it_has_made(
    settings: dict[str, Any], how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = HubConfig(profile_dir=tmp_path, **settings | {how: True})
    async with within_limit():
        first = await run_once(config)
        assert first.connections == "encrypted"
        assert stat.S_IMODE(key_file(tmp_path).stat().st_mode) == 0o600
        kept = key_file(tmp_path).read_bytes()
        for path in files_of(tmp_path):
            assert path == key_file(tmp_path) or kept.strip() not in path.read_bytes()
        await run_once(config)
        async with (
            open_hub(config) as third,
            open_client(first.client_info) as client,
            open_engine(first.engine_info) as engine,
        ):
            await third.wait_engines(1)
            assert (await client.reply(client.call(engine, b"x"))).buffers == [b"x"]
        assert key_file(tmp_path).read_bytes() == kept
        assert kept.decode().strip() not in repr(third.config)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_the_secret_key_goes_with_the_connection_files(tmp_path: Path) -> None:
    config = HubConfig(profile_dir=tmp_path, db="memory", curve=True)
    async with within_limit():
        async with open_hub(config) as hub:
            assert key_file(tmp_path).exists(), "should the hub be killed, another can carry on"
        await hub.wait_stopped()
        assert files_of(tmp_path) == []
        await run_once(HubConfig(profile_dir=tmp_path, db="memory", curve=True, reuse=True))
        await run_once(config)
    assert files_of(tmp_path) == []


async def test_the_secret_key_of_a_hub_that_has_come_after_is_left_alone(tmp_path: Path) -> None:
    config = HubConfig(profile_dir=tmp_path, db="memory", curve=True)
    async with within_limit(), open_hub(config) as first, open_hub(replace(config, force=True)):
        others = key_file(tmp_path).read_bytes()
        first.shutdown()
        await first.wait_stopped()
        assert key_file(tmp_path).read_bytes() == others


async def test_a_secret_key_that_is_set_is_not_written_down(tmp_path: Path) -> None:
    _, secret = zmq.curve_keypair()
    async with within_limit():
        await run_once(HubConfig(profile_dir=tmp_path, reuse=True, curve=True))
        for path in connection_paths(tmp_path):
            path.unlink()
        await run_once(HubConfig(profile_dir=tmp_path, **curve(secret.decode())))
    assert not key_file(tmp_path).exists(), "what belonged to nobody any more"
    assert not [path for path in files_of(tmp_path) if secret in path.read_bytes()]


async def test_the_secret_key_of_an_encrypted_hub_is_of_no_use_to_a_plain_one(tmp_path: Path) -> None:
    async with within_limit():
        await run_once(HubConfig(profile_dir=tmp_path, reuse=True, curve=True))
        await run_once(HubConfig(profile_dir=tmp_path))
    assert not key_file(tmp_path).exists()


async def test_each_cluster_has_a_secret_key_of_its_own(tmp_path: Path) -> None:
    async with within_limit():
        for cluster_id in ("", "b"):
            await run_once(HubConfig(profile_dir=tmp_path, cluster_id=cluster_id, **curve()))
    one, other = key_file(tmp_path), tmp_path / "security" / "ipcontroller-b-curve.key"
    assert one.read_bytes() != other.read_bytes()


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (None, "cannot be read: No such file"),
        (b"", "is damaged: it is not the Z85 form of 32 bytes"),
        (b"\xff" * 40, "is damaged"),
        (b"#" * 40, "is damaged"),
        (zmq.curve_keypair()[1], "holds the key of another hub"),
    ],
)
async def test_a_secret_key_that_cannot_be_taken_up_is_named_and_nothing_changed(
    damage: bytes | None, what: str, tmp_path: Path
) -> None:
    config = HubConfig(profile_dir=tmp_path, db="memory", **curve())
    async with within_limit():
        await run_once(config)
        if damage is None:
            key_file(tmp_path).unlink()
        else:
            key_file(tmp_path).write_bytes(damage)
        before = {path: path.read_bytes() for path in files_of(tmp_path)}
        remedy = "Put the right file back, or set curve_secretkey, or remove both connection files"
        with pytest.raises(ConfigError, match=rf"ipcontroller-curve\.key, .*{what}.* {remedy}"):
            await serve_hub(config)
        assert {path: path.read_bytes() for path in files_of(tmp_path)} == before


async def test_a_secret_key_that_others_could_read_is_made_private(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = HubConfig(profile_dir=tmp_path, **curve())
    async with within_limit():
        await run_once(config)
        key_file(tmp_path).chmod(0o640)
        await run_once(config)
    assert f"could read the key in the file; it is made private now path={key_file(tmp_path)}" in caplog.text
    assert stat.S_IMODE(key_file(tmp_path).stat().st_mode) == 0o600


async def test_a_secret_key_that_cannot_be_written_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trio_hub.runtime.curvekeys.write_private_file", full)
    async with within_limit():
        with pytest.raises(ConnectionFileError, match=r"cannot write the secret CURVE key to .*: No space left"):
            await serve_hub(HubConfig(profile_dir=tmp_path, db="memory", curve=True))
    assert files_of(tmp_path) == []


async def test_a_hub_that_was_killed_is_followed_without_its_key_being_set(tmp_path: Path) -> None:
    profile, after_the_kill = tmp_path / "profile", tmp_path / "copy"
    async with within_limit(), open_hub(HubConfig(profile_dir=profile, ip="*")) as hub:
        shutil.copytree(profile, after_the_kill)
        hub.shutdown()
        await hub.wait_stopped()
        async with (
            open_hub(HubConfig(profile_dir=after_the_kill, ip="*", reuse=True)) as second,
            open_client(second.client_info) as client,
            open_engine(second.engine_info) as engine,
        ):
            await second.wait_engines(1)
            assert second.connections == "encrypted"
            assert second.client_info == hub.client_info
            assert (await client.reply(client.call(engine, b"x"))).buffers == [b"x"]


async def test_another_secret_key_or_no_encryption_is_refused(tmp_path: Path) -> None:
    other = zmq.curve_keypair()[1].decode()
    async with within_limit():
        await run_once(HubConfig(profile_dir=tmp_path, **curve()))
        for settings, message in (
            (curve(other), "curve_secretkey does not belong to the public key in the connection files"),
            (
                {"reuse": True, "curve": False},
                "curve is off, but the connection files in .* belong to a hub with curve on",
            ),
        ):
            with pytest.raises(ConfigError, match=message):
                await serve_hub(HubConfig(profile_dir=tmp_path, **settings))


@pytest.mark.parametrize("before", ["encrypted", "open"])
async def test_unless_it_is_set_the_files_say_whether_connections_are_encrypted(
    before: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The files take precedence over the address, since engines and clients have read the files."""
    ip = "127.0.0.1" if before == "encrypted" else "*"
    async with within_limit():
        first = await run_once(HubConfig(profile_dir=tmp_path, ip=ip, reuse=True, curve=before == "encrypted"))
        caplog.clear()
        async with (
            open_hub(HubConfig(profile_dir=tmp_path, ip=ip, reuse=True)) as second,
            open_client(first.client_info) as client,
        ):
            assert second.connections == before
            await client.query("queue_request")
    assert ("listening without encryption" in caplog.text) is (before == "open")


async def test_plain_files_are_not_taken_for_encrypted_ones(tmp_path: Path) -> None:
    async with within_limit():
        await run_once(HubConfig(profile_dir=tmp_path, reuse=True))
        with pytest.raises(
            ConfigError, match=r"curve is on, but the connection files .* belong to a hub with curve off"
        ):
            await serve_hub(HubConfig(profile_dir=tmp_path, **curve()))
