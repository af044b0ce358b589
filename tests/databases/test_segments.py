"""Large buffers beside an SQLite database: where they are, how their space is given back, and what may go wrong."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import pytest

from trio_hub.databases.backend import Change, Retention
from trio_hub.databases.sqlite import appending
from trio_hub.databases.sqlite import file as files
from trio_hub.databases.sqlite.database import SQLiteBackend, open_sqlite
from trio_hub.databases.sqlite.schema import STEPS
from trio_hub.errors import StoreError
from trio_hub.records import Query, TaskRecord, parse_query

from .contract import at, drop, finished
from .files import opened, reading, whole

EVERYTHING = Query.everything()
SIZE = 100_000


@lru_cache(1000)
def large(name: str, size: int = SIZE) -> bytes:
    return Random(name).randbytes(size)


def record(name: str, size: int = SIZE) -> TaskRecord:
    return finished(name, buffers=[b"f", large(name, size)])


def add(backend: SQLiteBackend, *names: str) -> None:
    backend.write([Change(name, record(name)) for name in names])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


@pytest.fixture
def directory(path: Path) -> Path:
    return path.with_name("tasks.db-buffers")


@pytest.fixture
def backend(path: Path) -> Iterator[SQLiteBackend]:
    with opened(path) as backend:
        yield backend


def there(backend: SQLiteBackend) -> set[str]:
    """Return the msg_ids of all records, after checking the buffers of each."""
    with reading(backend) as reader:
        names = {name for _, name in reader.history()}
        for name, kept in reader.get(sorted(names)).items():
            assert kept.record.buffers == (b"f", large(name))
    return names


def in_use(directory: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in directory.iterdir()) if directory.exists() else 0


# --- where buffers are


def test_only_large_buffers_are_outside(backend: SQLiteBackend, directory: Path) -> None:
    small = finished("small", buffers=[b"x" * 60_000])
    backend.write([Change("small", small)])
    assert not directory.exists()
    add(backend, "a")
    backend.write([Change("a", changes={"result_buffers": (large("r"), b"", b"end")})])
    (segment,) = directory.iterdir()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(segment.stat().st_mode) == 0o600
    assert whole(backend, "small").buffers == (b"x" * 60_000,)
    assert whole(backend, "a").buffers == (b"f", large("a"))
    assert whole(backend, "a").result_buffers == (large("r"), b"", b"end")
    assert backend.size() > 2 * SIZE


@pytest.mark.parametrize("synchronous", [False, True])
def test_the_next_hub_goes_on_in_the_same_segment(synchronous: bool, path: Path, directory: Path) -> None:
    for name in "abc":
        with opened(path, synchronous=synchronous) as backend:
            add(backend, name)
    with opened(path) as backend:
        assert there(backend) == set("abc")
        assert len(list(directory.iterdir())) == 1


def test_a_full_segment_is_followed_by_the_next(path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appending, "SEGMENT", 2 * SIZE)
    with opened(path, synchronous=True) as backend:
        add(backend, *"abcdefg")
        add(backend, "h")
    with opened(path) as backend:
        assert there(backend) == set("abcdefgh")
        assert len(list(directory.iterdir())) == 4


def test_strict_buffers_are_on_the_disk_before_the_rows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    sync = os.fdatasync

    def noting(descriptor: int) -> None:
        sync(descriptor)
        with closing(sqlite3.connect(path)) as connection:
            ((rows,),) = connection.execute("SELECT count(*) FROM piece WHERE segment IS NOT NULL")
        synced.append(rows)

    monkeypatch.setattr(os, "fdatasync", noting)
    with opened(path, synchronous=True) as backend:
        add(backend, "a")
        add(backend, "b")
    with opened(path) as backend:
        add(backend, "c")
    assert synced == [0, 2]


@pytest.mark.parametrize("at_the_open", [True, False])
def test_a_file_system_that_insists_on_the_cache(
    at_the_open: bool, backend: SQLiteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    system_open, system_pwrite, direct = os.open, os.pwrite, set()

    def without_direct(path: Any, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT:
            if at_the_open:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            flags &= ~os.O_DIRECT
            descriptor = system_open(path, flags, mode)
            direct.add(descriptor)
            return descriptor
        return system_open(path, flags, mode)

    def refusing_once(descriptor: int, data: memoryview, position: int) -> int:
        if descriptor in direct:
            direct.remove(descriptor)
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return system_pwrite(descriptor, data, position)

    monkeypatch.setattr(os, "open", without_direct)
    monkeypatch.setattr(os, "pwrite", refusing_once)
    add(backend, "a")
    add(backend, "b")
    assert there(backend) == {"a", "b"}
    assert not direct


# --- an older file


def test_chunks_in_the_database_of_an_earlier_version_stay_there(
    path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 3 had the chunks of large buffers in the rows of ``piece``."""
    monkeypatch.setattr(files, "STEPS", STEPS[:3])
    with closing(files.open_file(path, synchronous=False)) as connection:
        connection.execute(
            "INSERT INTO task (arrival, msg_id, submitted, completed, owed, owner, size) "
            "VALUES (1, 'old', 1, 2, 0, '', 9)"
        )
        sizes = b"\x92\x01\xce" + SIZE.to_bytes(4, "big")
        connection.execute("INSERT INTO request VALUES (1, NULL, NULL, NULL, ?)", (sizes,))
        for chunk in (b"f", large("old")):
            connection.execute("INSERT INTO piece (task, kind, size, data) VALUES (1, 2, ?, ?)", (len(chunk), chunk))
        connection.execute("UPDATE account SET arrivals = 1, records = 1, bytes = ?", (9 + 1 + SIZE,))
    monkeypatch.undo()
    with opened(path) as backend:
        assert there(backend) == {"old"}
        assert not directory.exists()
        add(backend, "new")
        assert there(backend) == {"old", "new"}
        assert drop(backend, EVERYTHING) == 2
        assert in_use(directory) == 0


# --- space


def test_a_purge_gives_the_space_back(path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appending, "SEGMENT", 5 * SIZE)
    names = [str(number) for number in range(40)]
    with opened(path) as backend:
        add(backend, *names)
        before = in_use(directory)
        assert before >= 40 * SIZE
        drop(backend, parse_query({"msg_id": {"$in": names[::2]}}))
        if backend._segments._punches:
            assert in_use(directory) < 0.7 * before
        assert there(backend) == set(names[1::2])
        add(backend, "more")
        drop(backend, parse_query({"msg_id": {"$nin": ["3", "more"]}}))
        assert len(list(directory.iterdir())) == 2
        assert there(backend) == {"3", "more"}
        drop(backend, EVERYTHING)
        assert in_use(directory) == 0
        add(backend, "again")
        assert there(backend) == {"again"}


def test_a_file_system_without_holes_gives_whole_segments_back(
    path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appending, "SEGMENT", 5 * SIZE)
    monkeypatch.setattr(appending, "_fallocate", None)
    names = [str(number) for number in range(20)]
    with opened(path) as backend:
        add(backend, *names)
        drop(backend, parse_query({"msg_id": {"$nin": ["1", "3"]}}))
        assert there(backend) == {"1", "3"}
        assert len(list(directory.iterdir())) == 1
        drop(backend, EVERYTHING)
        assert in_use(directory) == 0


def test_retention_gives_the_space_back(backend: SQLiteBackend, directory: Path) -> None:
    add(backend, *map(str, range(20)))
    before = in_use(directory)
    while backend.trim(Retention(records=2), at(1000)):
        pass
    assert there(backend) == {"18", "19"}
    if backend._segments._punches:
        assert in_use(directory) < before / 5
    while backend.trim(Retention(records=0), at(1000)):
        pass
    assert in_use(directory) == 0


def test_replaced_buffers_give_their_space_back(backend: SQLiteBackend, directory: Path) -> None:
    add(backend, "a")
    for number in range(10):
        backend.write([Change("a", changes={"result_buffers": (large(str(number)),)})])
    assert whole(backend, "a").result_buffers == (large("9"),)
    add(backend, "b")
    backend.write([Change("a", removed=True), Change("missing", changes={"result_buffers": (large("m"),)})])
    while backend.give_back():
        pass
    assert there(backend) == {"b"}
    if backend._segments._punches:
        assert in_use(directory) < 4 * SIZE


def test_a_reader_still_sees_what_was_dropped(path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appending, "SEGMENT", 2 * SIZE)
    with opened(path) as backend:
        add(backend, *"abcdef")
        first, second = backend.reader(), backend.reader()
        first.begin()
        assert drop(backend, parse_query({"msg_id": {"$in": ["a", "c", "e"]}})) == 3
        second.begin()
        assert drop(backend, EVERYTHING) == 3
        add(backend, "g")
        before = in_use(directory)
        assert first.get(["a"])["a"].record.buffers == (b"f", large("a"))
        first.end()
        while backend.give_back():
            pass
        assert second.get(["f"])["f"].record.buffers == (b"f", large("f"))
        second.close()  # without `end`, as after an error
        while backend.give_back():
            pass
        assert in_use(directory) < before / 2
        assert there(backend) == {"g"}
        first.close()


def test_a_failed_write_does_not_touch_what_a_reader_sees(
    backend: SQLiteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the segment is free after a purge. It is not written again while a reader has an older snapshot."""
    add(backend, "a", "b")
    reader = backend.reader()
    reader.begin()
    assert drop(backend, parse_query({"msg_id": "b"})) == 1
    failing(monkeypatch, OSError(errno.EIO, os.strerror(errno.EIO)))
    with pytest.raises(StoreError):
        add(backend, "c")
    monkeypatch.undo()
    add(backend, "c")
    assert reader.get(["b"])["b"].record.buffers == (b"f", large("b"))
    reader.close()
    assert there(backend) == {"a", "c"}


# --- what a crash leaves


def test_what_was_not_committed_is_removed(path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appending, "SEGMENT", 3 * SIZE)
    with opened(path) as backend:
        add(backend, "a")
    (segment,) = directory.iterdir()
    size = segment.stat().st_size
    with segment.open("ab") as file:
        file.write(b"x" * 12345)
    following = segment.with_name(f"{int(segment.name, 16) + 1:016x}")
    following.write_bytes(b"x")
    stranger = segment.with_name("0" * 16)  # of a database that was here before, and was moved away
    stranger.write_bytes(b"x")
    notes = directory / "README"
    notes.write_text("mine")
    with opened(path) as backend:
        assert segment.stat().st_size == size
        assert not following.exists()
        add(backend, "b", "c")
        assert there(backend) == set("abc")
        drop(backend, EVERYTHING)
    assert sorted(directory.iterdir()) == sorted([stranger, notes])


def test_space_that_the_previous_hub_did_not_give_back(path: Path, directory: Path) -> None:
    with opened(path) as backend:
        add(backend, *map(str, range(10)))
        reader = backend.reader()
        reader.begin()
        drop(backend, EVERYTHING)
        assert in_use(directory) > 10 * SIZE
        reader.close()
    with opened(path) as backend:
        assert backend.trim(Retention(), at(0)) == 0
        assert in_use(directory) == 0


@pytest.mark.parametrize("seed", range(3))
def test_any_sequence_of_changes_failures_and_crashes(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash is a copy of the files: what a hub leaves that is killed between two calls of the system."""
    rng = Random(seed)
    monkeypatch.setattr(appending, "SEGMENT", 3 * SIZE)
    monkeypatch.setattr(appending, "BUFFER", 1 << 16)
    expected: set[str] = set()
    hub = 0
    backend = open_sqlite(tmp_path / "0" / "tasks.db")
    try:
        for number in range(50):
            match rng.choice(["add", "add", "add", "drop", "fail", "fail", "crash"]):
                case "add":
                    names = [f"{number}-{each}" for each in range(rng.randint(1, 5))]
                    add(backend, *names)
                    expected |= set(names)
                case "drop":
                    names = rng.sample(sorted(expected), rng.randint(0, len(expected)))
                    drop(backend, parse_query({"msg_id": {"$in": names}}))
                    expected -= set(names)
                case "fail":
                    with monkeypatch.context() as patch:
                        if rng.random() < 0.5:
                            failing(patch, OSError(errno.ENOSPC, ""), after=rng.randint(0, 3))
                        else:  # only the transaction fails
                            backend._connection.execute("PRAGMA query_only = ON")
                        with pytest.raises(StoreError):
                            add(backend, *(f"failed {each}" for each in range(5)))
                    backend._connection.execute("PRAGMA query_only = OFF")
                case "crash":
                    hub += 1
                    with monkeypatch.context() as patch:
                        left = tmp_path / str(hub)
                        if rng.random() < 0.5:  # in the middle of a batch
                            failing(patch, OSError(errno.EIO, ""), after=2, then=crashed(tmp_path / str(hub - 1), left))
                            with pytest.raises(StoreError):
                                add(backend, *(f"failed {each}" for each in range(6)))
                        else:
                            shutil.copytree(tmp_path / str(hub - 1), left)
                    backend.close()
                    backend = open_sqlite(left / "tasks.db")
            assert there(backend) == expected
        drop(backend, EVERYTHING)
        assert in_use(tmp_path / str(hub) / "tasks.db-buffers") == 0
    finally:
        backend.close()


def crashed(hub: Path, left: Path) -> Callable[[], object]:
    return lambda: left.exists() or shutil.copytree(hub, left)


def failing(
    patch: pytest.MonkeyPatch, error: OSError, *, after: int = 0, then: Callable[[], object] = lambda: None
) -> None:
    """Have writing to segments fail, after so many successful writes."""
    system, writes = os.pwrite, iter(range(after))

    def pwrite(descriptor: int, data: memoryview, position: int) -> int:
        if next(writes, None) is None:
            then()
            raise error
        return system(descriptor, data, position)

    patch.setattr(os, "pwrite", pwrite)


# --- what goes wrong while writing


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "its disk is full, or files may not be so large: free some space"),
        (errno.EFBIG, "its disk is full, or files may not be so large: free some space"),
        (errno.EROFS, "make sure that this user may write the directory and its files"),
        (errno.EIO, "check that its disk works and has space"),
    ],
)
def test_a_segment_that_cannot_be_written(
    number: int, remedy: str, backend: SQLiteBackend, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(backend, "a")
    (segment,) = directory.iterdir()
    size = segment.stat().st_size
    monkeypatch.setattr(appending, "BUFFER", 1 << 16)
    failing(monkeypatch, OSError(number, os.strerror(number)), after=2)
    for _ in range(2):
        with pytest.raises(StoreError, match=rf"tasks\.db-buffers: {os.strerror(number)}; {remedy}; .* tries again"):
            add(backend, "b", "c")
        assert segment.stat().st_size == size
        assert there(backend) == {"a"}
    monkeypatch.undo()
    add(backend, "b", "c")
    assert there(backend) == set("abc")


def test_a_disk_that_takes_only_a_part(backend: SQLiteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    system = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, at: system(descriptor, data[:4096], at))
    with pytest.raises(StoreError, match="No space left on device"):
        add(backend, "a")
    monkeypatch.undo()
    add(backend, "a")
    assert there(backend) == {"a"}


def test_a_transaction_that_fails_leaves_no_bytes(backend: SQLiteBackend, directory: Path) -> None:
    add(backend, "a")
    (segment,) = directory.iterdir()
    size = segment.stat().st_size
    backend._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError, match="readonly"):
        add(backend, "b")
    assert segment.stat().st_size == size
    backend._connection.execute("PRAGMA query_only = OFF")
    add(backend, "b")
    assert there(backend) == {"a", "b"}


def test_writing_can_be_interrupted(backend: SQLiteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    system = os.pwrite

    def interrupting(descriptor: int, data: memoryview, position: int) -> int:
        backend.interrupt()
        return system(descriptor, data, position)

    monkeypatch.setattr(os, "pwrite", interrupting)
    with pytest.raises(StoreError, match="writing was interrupted, since the hub is stopping"):
        backend.write([Change("a", record("a", 3 << 20))])
    monkeypatch.undo()
    add(backend, "a")
    assert there(backend) == {"a"}


# --- what goes wrong while reading


def cut(segment: Path) -> None:
    os.truncate(segment, SIZE // 2)


def overwritten(segment: Path) -> None:
    with segment.open("r+b") as file:
        file.seek(SIZE // 2)
        file.write(b"!")


def replaced(segment: Path) -> None:
    segment.unlink()
    segment.mkdir()


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (Path.unlink, "is missing"),
        (cut, "is shorter than it should be"),
        (overwritten, "is damaged"),
        (replaced, "cannot be read: Is a directory"),
    ],
)
def test_buffers_that_are_lost(
    damage: Callable[[Path], None], what: str, path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the buffers fail: the record can be listed and dropped, and other records are not concerned."""
    monkeypatch.setattr(appending, "SEGMENT", SIZE)
    with opened(path) as backend:
        add(backend, "a", "b")
        segment, _ = sorted(directory.iterdir())
        damage(segment)
        found = whole(backend, "a")
        assert found.completed == at(1)
        told = rf"^the buffers of a cannot be read: {segment}: this file of large buffers {what}; stop the hub, and put"
        uses: list[Callable[[Any], object]] = [len, list, bool, lambda buffers: buffers[0], lambda buffers: [*buffers]]
        for use in uses:
            with pytest.raises(StoreError, match=told):
                use(found.buffers)
        assert "cannot be read" in repr(found.buffers)
        assert whole(backend, "b").buffers == (b"f", large("b"))
        with reading(backend) as reader:
            assert len(reader.find(EVERYTHING, ("msg_id", "completed"))) == 2
            with pytest.raises(StoreError, match=told):
                reader.find(EVERYTHING, ("msg_id", "buffers"))
    with opened(path) as backend:
        add(backend, "c")
        assert whole(backend, "c").buffers == (b"f", large("c"))
        if damage is not replaced:  # a directory that is not empty is left alone
            assert drop(backend, parse_query({"msg_id": "a"})) == 1
            assert there(backend) == {"b", "c"}


def test_missing_segments_are_named_at_the_start(path: Path, directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(path) as backend:
        add(backend, "a")
    (segment,) = directory.iterdir()
    shutil.move(directory, directory.with_name("moved"))
    with caplog.at_level(logging.ERROR), opened(path) as backend:
        assert "files of large buffers are missing: requests for the buffers in them fail" in caplog.text
        assert segment.name in caplog.text
        add(backend, "b")
        with pytest.raises(StoreError, match="is missing"):
            len(whole(backend, "a").buffers or ())
        assert whole(backend, "b").buffers == (b"f", large("b"))
        shutil.copy(directory.with_name("moved") / segment.name, directory)
        assert there(backend) == {"a", "b"}


def test_too_many_open_files_do_not_make_buffers_lost(backend: SQLiteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub asks again later."""
    add(backend, "a")
    system = os.open

    def none_left(path: Any, flags: int, mode: int = 0o777) -> int:
        if "buffers" in str(path):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return system(path, flags, mode)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", none_left)
        with pytest.raises(StoreError, match="Too many open files; try again later"):
            whole(backend, "a")
    assert there(backend) == {"a"}
