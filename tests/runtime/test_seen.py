"""The next hub knows the marks of the messages that a hub has seen."""

from __future__ import annotations

import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from trio_hub import HubConfig
from trio_hub.errors import ConnectionFileError, WireError
from trio_hub.runtime.seen import SeenMessages, open_seen
from trio_hub.testing import open_client, open_hub
from trio_hub.wire.frames import Frames
from trio_hub.wire.messages import Session
from trio_hub.wire.signing import REPLAY_WINDOW

from .support import within_limit

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def session(key: bytes = b"key") -> Session:
    return Session(key, session_id="s", now=lambda: NOON)


def seen_by(path: Path, reader: Session, *, now: datetime = NOON, is_new_key: bool = False) -> SeenMessages:
    return SeenMessages(path, reader, now, is_new_key=is_new_key)


def message(number: int = 0) -> Frames:
    return session().sign([b'{"msg_id":"%d","msg_type":"x"}' % number, b"{}", b"{}", b"{}"])


def knows(reader: Session, frames: Frames, *, lasting: bool = False) -> bool:
    try:
        reader.read_untrusted(frames, lasting=lasting)
    except WireError as error:
        return error.kind == "replayed"
    return False


def test_what_a_killed_process_has_seen_is_known(tmp_path: Path) -> None:
    path = tmp_path / "security" / "seen"
    killed = f"""
import os, signal
from pathlib import Path
from tests.runtime.test_seen import *
reader = session()
seen = seen_by(Path({str(path)!r}), reader)
reader.read_untrusted(message(1))
reader.read_untrusted(message(2), lasting=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", killed], check=False, cwd=Path(__file__).parents[2])
    reader = session()
    seen = seen_by(path, reader)
    assert [knows(reader, message(number)) for number in (1, 2, 3)] == [True, True, False]
    assert (len(reader.replays), len(reader.lasting)) == (3, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    seen.close()
    seen.close()
    assert not knows(reader, message(4)), "it goes on without the file"


def test_another_key_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "seen"
    first = session()
    seen = seen_by(path, first)
    first.read_untrusted(message())
    seen.close()
    assert b"key" not in path.read_bytes()
    other = session(b"another")
    seen = seen_by(path, other)
    assert len(other.replays) == 0
    seen.close()
    again = session()
    seen = seen_by(path, again)
    assert not knows(again, message())
    seen.close()


@pytest.mark.parametrize("damage", ["empty", "short", "long", "something else"])
def test_a_damaged_file_is_begun_anew(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "seen"
    seen_by(path, session()).close()
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "short": whole[:-1], "long": whole + b"x"}.get(damage, b"x" * len(whole)))
    path.chmod(0o666)
    for known in (False, True):
        reader = session()
        seen = seen_by(path, reader)
        assert knows(reader, message()) == known
        seen.close()
    assert path.stat().st_size == len(whole)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_file_has_its_place_on_the_disk(tmp_path: Path) -> None:
    """A disk that is full later must not end the hub by a signal."""
    path = tmp_path / "seen"
    seen_by(path, session()).close()
    status = path.stat()
    assert status.st_blocks * 512 >= status.st_size


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = tmp_path / "seen"
    path.mkdir()
    with pytest.raises(ConnectionFileError, match=f"cannot use {path}"):
        seen_by(path, session())


def test_two_hubs_do_not_write_to_one_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = HubConfig(profile_dir=tmp_path, cluster_id="c")
    one, other = session(), session()
    seen = open_seen(config, one, NOON)
    assert seen is not None
    assert seen.path == tmp_path / "security" / "seen-c"
    one.read_untrusted(message(1))
    assert open_seen(config, other, NOON) is None
    assert "another hub uses the file" in caplog.text
    assert not knows(other, message(1))
    one.read_untrusted(message(2))
    seen.close()
    third = session()
    seen = open_seen(config, third, NOON)
    assert seen is not None
    assert knows(third, message(2))
    seen.close(keep=False)
    assert not seen.path.exists()


# The date of what may be missing


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_nothing_is_missing_until_the_ring_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "seen"
    for now in (at(0), at(10)):
        reader = session()
        seen = seen_by(path, reader, now=now, is_new_key=now == at(0))
        assert seen.forgotten is None
        seen.close()
    for lap in (1, 2):
        reader = session()
        seen = seen_by(path, reader, now=at(30))
        assert seen.forgotten == (None if lap == 1 else at(21))
        seen.follow(lambda lap=lap: at(20 + lap))  # type: ignore[misc]
        for number in range(REPLAY_WINDOW + 1):
            reader.replays.note(b"%016x" % ((lap << 32 | number) * 0x9E37_79B9_7F4A_7C15 % 2**64))
        seen.close()
    seen = seen_by(path, session(), now=at(30))
    assert seen.forgotten == at(22)
    seen.close()
    seen = seen_by(path, session(), now=at(-100))
    assert seen.forgotten == at(-40), "the clock was set back; or the file is damaged"
    seen.close()
    monkeypatch.setattr("trio_hub.runtime.seen._boot", lambda: b"another.")
    seen = seen_by(path, session(), now=at(30))
    assert seen.forgotten == at(30), "the system may have crashed"
    seen.close()


def test_a_key_that_has_been_in_use_and_no_file(tmp_path: Path) -> None:
    path = tmp_path / "seen"
    for start in (0, 1):
        seen = seen_by(path, session(), now=at(start))
        assert seen.forgotten == at(0)
        seen.close()
    path.write_bytes(b"damage")
    seen = seen_by(path, session(), now=at(3))
    assert seen.forgotten == at(3)
    seen.close()


# With a hub


@pytest.mark.parametrize(
    ("settings", "kept"), [({"reuse": True}, True), ({"restore": True}, True), ({"key": "one"}, True), ({}, False)]
)
async def test_who_keeps_the_file(tmp_path: Path, settings: dict[str, object], kept: bool) -> None:
    config = HubConfig(profile_dir=tmp_path, db="memory", **settings)  # type: ignore[arg-type]
    async with within_limit():
        async with open_hub(config) as hub:
            assert (tmp_path / "security" / "seen").exists()
        await hub.wait_stopped()
    assert (tmp_path / "security" / "seen").exists() == kept


@pytest.mark.parametrize("settings", [{"reuse": True}, {"key": "one"}])
async def test_an_old_query_does_nothing_to_the_next_hub(tmp_path: Path, settings: dict[str, object]) -> None:
    config = HubConfig(profile_dir=tmp_path, db="memory", **settings)  # type: ignore[arg-type]
    async with within_limit():
        async with open_hub(config) as hub, open_client(hub.client_info) as client:
            frames = client.session.write("shutdown_request", {})
            client.send_raw("registration", frames)
            await hub.wait_stopped()
        async with open_hub(config) as hub, open_client(hub.client_info) as client:
            client.send_raw("registration", frames)
            await client.query("queue_request")
            assert hub.statistics().wire_errors == {"replayed": 1}
            assert not hub.is_stopping
