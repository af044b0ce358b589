"""The next hub knows which results were sent to clients."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from trio_hub.databases.sentresults import ENTRIES, SentResultsFile
from trio_hub.errors import ConfigError


def test_the_notes_of_a_killed_process_are_there(tmp_path: Path) -> None:
    path = tmp_path / "db" / "delivered"
    killed = f"""
import os, signal
from pathlib import Path
from trio_hub.databases.sentresults import SentResultsFile
notes = SentResultsFile(Path({str(path)!r}))
notes.note("one")
notes.note("two")
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", killed], check=False)
    notes = SentResultsFile(path)
    assert [notes.was_delivered(msg_id) for msg_id in ("one", "two", "three")] == [True, True, False]
    notes.note("three")
    assert not notes.was_delivered("three"), "it tells what the hub before has noted"
    notes.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_oldest_notes_make_room(tmp_path: Path) -> None:
    path = tmp_path / "delivered"
    notes = SentResultsFile(path)
    for number in range(ENTRIES + 10):
        notes.note(str(number))
    notes.close()
    notes = SentResultsFile(path)
    assert not any(notes.was_delivered(str(number)) for number in range(10))
    assert all(notes.was_delivered(str(number)) for number in range(10, ENTRIES + 10))
    notes.close()


@pytest.mark.parametrize("damage", [b"", b"something else", bytes(ENTRIES * 9)])
def test_a_file_that_has_something_else_in_it_is_begun_anew(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "delivered"
    path.write_bytes(damage)
    notes = SentResultsFile(path)
    assert not notes.was_delivered("one")
    notes.note("one")
    notes.close()
    notes = SentResultsFile(path)
    assert notes.was_delivered("one")
    notes.close()


def test_the_file_has_its_place_on_the_disk(tmp_path: Path) -> None:
    """A disk that is full later must not end the hub by a signal, when it writes where there was nothing before."""
    path = tmp_path / "delivered"
    SentResultsFile(path).close()
    status = path.stat()
    assert status.st_blocks * 512 >= status.st_size
    content = path.read_bytes()
    path.unlink()
    with path.open("wb") as file:  # a sparse file, as some programs copy it
        file.write(content.rstrip(b"\0"))
        file.truncate(len(content))
    assert path.stat().st_blocks * 512 < status.st_size
    SentResultsFile(path).close()
    assert path.stat().st_blocks * 512 >= status.st_size
    assert path.read_bytes() == content


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = tmp_path / "delivered"
    path.mkdir()
    with pytest.raises(ConfigError, match=f"cannot use {path}"):
        SentResultsFile(path)
