"""The database in an SQLite file: what it keeps, what it gives back, and what it says when it cannot."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import sqlite3
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_hub.databases.backend import Change, Retention
from trio_hub.databases.sqlite import file as files
from trio_hub.databases.sqlite.database import SQLiteBackend, open_sqlite
from trio_hub.databases.sqlite.reading import SQLiteReader
from trio_hub.databases.sqlite.schema import BODIES, STEPS
from trio_hub.errors import ConfigError, StoreError
from trio_hub.records import Query, TaskRecord, empty_record, parse_keys, parse_query
from trio_hub.records.matching import same
from trio_hub.records.record import HUB_KEYS, RECORD_KEYS, TEXT_KEYS

from ..records import oracle
from ..records.strategies import packed, queries, record_values, value_of
from .contract import at, drop, finished, make
from .files import opened, reading, whole

EVERYTHING = Query.everything()
ALL = Retention(records=0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hub" / "tasks.db"


@pytest.fixture
def backend(path: Path) -> Iterator[SQLiteBackend]:
    with opened(path) as backend:
        yield backend


def add(backend: SQLiteBackend, *records: TaskRecord) -> None:
    backend.write([Change(record.msg_id, record) for record in records])


def found(backend: SQLiteBackend, query: Query = EVERYTHING) -> list[str]:
    with reading(backend) as reader:
        return [each.values["msg_id"] for each in reader.find(query, ("msg_id",))]


def values(record: TaskRecord) -> dict[str, Any]:
    return record.as_dict((*RECORD_KEYS, *HUB_KEYS))


def check_account(backend: SQLiteBackend) -> None:
    """Check that the account has the numbers that counting the records gives."""
    ((records, size),) = backend._connection.execute("SELECT records, bytes FROM account")
    ((counted, measured),) = backend._connection.execute(
        "SELECT count(*), ifnull(sum(size + ifnull((SELECT sum(size) FROM piece WHERE task = arrival), 0)), 0) "
        "FROM task WHERE completed IS NOT NULL"
    )
    assert (records, size) == (counted, measured)
    for table in ("piece", *BODIES):
        ((lost,),) = backend._connection.execute(
            f"SELECT count(*) FROM {table} WHERE task NOT IN (SELECT arrival FROM task)"
        )
        assert lost == 0
    measured = ["custody", *(key for keys in BODIES.values() for key in keys)]
    assert not backend._connection.execute(
        "SELECT msg_id FROM task "
        "LEFT JOIN request ON request.task = arrival LEFT JOIN result ON result.task = arrival "
        f"WHERE size != {' + '.join(f'ifnull(length({key}), 0)' for key in measured)}"
    ).fetchall()


# --- the stored records


FULL = empty_record() | {
    "msg_id": "a\0\x01\ud83d" + "\ude00",
    "header": {"msg_id": "a", "x": [None, float("inf"), "\ud800"]},
    "metadata": {},
    "content": {"code": "é\0"},
    "buffers": [b"", b"\0one"],
    "submitted": datetime.min.replace(tzinfo=UTC),
    "client_uuid": "\ud800",
    "engine_uuid": "\0",
    "started": at(0.000001),
    "completed": datetime.max.replace(tzinfo=UTC),
    "resubmitted": "\x01",
    "received": datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    "result_header": {"y": 1},
    "result_metadata": {"z": 10**400},
    "result_content": {"status": "ok"},
    "result_buffers": [],
    "queue": "日本😀",
    "execute_input": "print('\ud83d" + "\ude00\0')",
    "execute_result": {"data": {}},
    "error": {"ename": "E"},
    "stdout": "\0out\ud83d",
    "stderr": "\ude00err",
    "label": {"run": [1, 2.5, True, None, "\ud83d" + "\ude00"]},
}


def test_a_record_comes_back_whole_also_for_who_opens_the_file_next(path: Path) -> None:
    record = packed(FULL)
    record.custody, record.owed = b"\0\xff", True
    with opened(path) as backend:
        add(backend, record)
        assert values(whole(backend, record.msg_id)) == values(record)
    with opened(path, synchronous=True) as backend:
        assert values(whole(backend, record.msg_id)) == values(record)
        for key in ("msg_id", "client_uuid", "engine_uuid", "resubmitted", "queue", "received", "submitted"):
            assert found(backend, parse_query({key: {"$in": [FULL[key], None]}})) == [record.msg_id], key


def test_broken_json_comes_back_as_it_came(backend: SQLiteBackend) -> None:
    record = make("a")
    record.content = b"\xff{"
    add(backend, record)
    assert whole(backend, "a").content == b"\xff{"


@pytest.mark.parametrize("size", [(1 << 16) - 1, 1 << 16, 50_000_000])
def test_large_buffers(backend: SQLiteBackend, size: int) -> None:
    large = os.urandom(1000) * (size // 1000 + 1)
    buffers = (b"", memoryview(large)[:size], b"end")
    add(backend, packed(empty_record() | {"msg_id": "a", "buffers": buffers}))
    backend.write([Change("a", changes={"result_buffers": buffers[1:], "completed": at(0)})])
    record = whole(backend, "a")
    assert record.buffers == (b"", large[:size], b"end")
    assert record.result_buffers == (large[:size], b"end")
    check_account(backend)
    assert found(backend, parse_query({"buffers": {"$exists": True}, "result_buffers": {"$exists": 1}})) == ["a"]
    with reading(backend) as reader:
        (each,) = reader.find(EVERYTHING, parse_keys(["buffers"]))
        assert each.values == {"msg_id": "a", "buffers": [b"", large[:size], b"end"]}
    backend.write([Change("a", changes={"buffers": (large, large), "result_buffers": (b"1",)})])
    record = whole(backend, "a")
    assert (record.buffers, record.result_buffers) == ((large, large), (b"1",))
    backend.write([Change("a", changes={"buffers": None, "result_buffers": (large,)})])
    record = whole(backend, "a")
    assert (record.buffers, record.result_buffers) == (None, (large,))
    check_account(backend)
    assert drop(backend, EVERYTHING) == 1
    check_account(backend)
    assert backend.size() < 1 << 18


def test_output_is_appended_and_can_be_replaced(backend: SQLiteBackend) -> None:
    add(backend, finished("a", stdout="one "))
    backend.write([Change("a", appended={"stdout": ["two", " "], "stderr": ["!"]})])
    backend.write([Change("a", appended={"stdout": ["thr\ud83d"]}), Change("b", appended={"stdout": ["x"]})])
    backend.write([Change("a", appended={"stdout": ["\ude00"]})])
    assert whole(backend, "a").stdout == "one two thr\ud83d" + "\ude00"
    assert found(backend, parse_query({"stdout": {"$glob": "one*"}, "stderr": "!"})) == ["a"]
    check_account(backend)
    backend.write([Change("a", changes={"stdout": "new", "owed": True}, appended={"stdout": ["er"]})])
    assert (whole(backend, "a").stdout, whole(backend, "a").stderr, whole(backend, "a").owed) == ("newer", "!", True)
    check_account(backend)


def test_a_record_added_again_arrives_anew(backend: SQLiteBackend) -> None:
    add(backend, finished("a", stdout="old", content={"x": "y"}), finished("b"))
    backend.write([Change("a", make("a", queue="mux", submitted=at(0))), Change("c", finished("c"))])
    assert found(backend) == ["b", "a", "c"]
    record = whole(backend, "a")
    assert (record.stdout, record.queue, record.completed) == ("", "mux", None)
    check_account(backend)


def test_a_number_of_arrival_is_never_given_again(path: Path) -> None:
    with opened(path) as backend:
        add(backend, make("a"), make("b"))
        backend.write([Change("b", removed=True)])
    with opened(path) as backend:
        add(backend, make("c"))
        assert [(kept.arrival, kept.record.msg_id) for kept in all_of(backend)] == [(1, "a"), (3, "c")]


def test_several_changes_of_one_record_in_a_batch_keep_their_order(backend: SQLiteBackend) -> None:
    backend.write(
        [
            Change("a", finished("a", stdout="1")),
            Change("a", changes={"queue": "task"}, appended={"stdout": ["2"]}),
            Change("b", finished("b")),
            Change("a", removed=True),
            Change("b", removed=True),
            Change("a", make("a", queue="mux")),
            Change("a", changes={"engine_uuid": "e"}),
        ]
    )
    assert found(backend) == ["a"]
    record = whole(backend, "a")
    assert (record.queue, record.engine_uuid, record.stdout) == ("mux", "e", "")
    check_account(backend)


def test_a_reader_sees_what_was_there_when_it_began(backend: SQLiteBackend) -> None:
    add(backend, finished("a"), finished("b"))
    with reading(backend) as reader:
        backend.write([Change("a", removed=True), Change("b", changes={"queue": "new"}), Change("c", make("c"))])
        assert [msg_id for _, msg_id in reader.history()] == ["a", "b"]
        assert reader.get(["b", "c", "x"])["b"].record.queue is None
        reader.end()
        reader.begin()
        assert [msg_id for _, msg_id in reader.history()] == ["b", "c"]
        assert [each.values["msg_id"] for each in reader.find(EVERYTHING, ("msg_id",), skip={"b"})] == ["c"]


def test_reading_the_recent_and_counting_take_no_longer_with_more_records(backend: SQLiteBackend) -> None:
    """The steps are those of SQLite's virtual machine."""

    def steps_of(work: Callable[[SQLiteReader], object]) -> int:
        steps = 0

        def count_step() -> int:
            nonlocal steps
            steps += 1
            return 0

        with reading(backend) as reader:
            reader._connection.set_progress_handler(count_step, 1)
            work(reader)
        return steps

    found = []
    questions: list[Callable[[SQLiteReader], object]] = [
        lambda reader: found.append([msg_id for _, msg_id in reader.recent(2, None, set())]),
        lambda reader: found.append([msg_id for _, msg_id in reader.recent(2, (False, at(50), 51), {"0049"})]),
        lambda reader: reader.count(),
    ]
    steps = []
    for start, end in ((0, 100), (100, 2000)):
        add(backend, *(finished(f"{number:04}", submitted=at(number)) for number in range(start, end)))
        steps.append([steps_of(question) for question in questions])
    assert found == [["0099", "0098"], ["0048", "0047"], ["1999", "1998"], ["0048", "0047"]]
    assert 0 < max(steps[0]) < 200
    assert steps[0] == steps[1]


def test_more_rows_than_a_reader_takes_at_once(backend: SQLiteBackend) -> None:
    add(backend, *(finished(f"{number:04}", stdout=str(number), queue="task") for number in range(1234)))
    for raw in ({"queue": "task"}, {"stdout": {"$glob": "*"}}):
        with reading(backend) as reader:
            rows = reader.find(parse_query(raw), parse_keys(["stdout"]))
        assert [row.values["stdout"] for row in rows] == [str(number) for number in range(1234)]
    with reading(backend) as reader:
        assert len(reader.get([f"{number:04}" for number in range(0, 2000, 2)])) == 617
    assert drop(backend, parse_query({"stdout": {"$glob": "*1"}})) == 124
    check_account(backend)


def test_what_a_hub_takes_up_again_is_its_own(path: Path) -> None:
    first = make("a", submitted=at(0), header={"x": 1}, content={"x": 2}, buffers=[b"x"], stdout="so far")
    first.custody = b"c"
    with opened(path, owner="one") as backend:
        add(backend, first, finished("b"), make("c"))
        add(backend, finished("owed", client_uuid="s", owed=True, received=at(0)))
        add(
            backend, finished("old", client_uuid="s", received=at(9)), finished("new", client_uuid="t", received=at(20))
        )
        add(backend, finished("last", client_uuid="s", received=at(21)), finished("nobody", received=at(21)))
    with opened(path, owner="two") as backend:
        add(backend, make("d"), finished("e", client_uuid="u", received=at(99)))
        with reading(backend) as reader:
            assert [kept.record.msg_id for kept in reader.unfinished()] == ["d"]
            assert reader.undelivered(timedelta(0)) == [("e", "u")]
    with opened(path, owner="one") as backend, reading(backend) as reader:
        a, c = reader.unfinished()
        assert values(a.record) == values(first) | {"content": None, "buffers": None}
        assert (c.record.msg_id, c.arrival > a.arrival) == ("c", True)
        assert reader.undelivered(timedelta(seconds=1)) == [("owed", "s"), ("new", "t"), ("last", "s")]
        assert len(reader.undelivered(timedelta.max)) == 4
    with opened(path, owner="three") as backend, reading(backend) as reader:
        assert reader.undelivered(timedelta.max) == []


# --- the same as the oracle


class Model:
    """The records that a database must have: decoded, and in the order of their arrival."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Any]] = {}

    def apply(self, change: Change, given: dict[str, Any]) -> None:
        if change.removed or change.record is not None:
            self.records.pop(change.msg_id, None)
        if change.record is not None:
            self.records[change.msg_id] = dict(given)
        elif change.msg_id in self.records:
            record = self.records[change.msg_id]
            record.update(given)
            for key, texts in change.appended.items():
                record[key] += "".join(texts)


MSG_IDS = st.sampled_from(["a", "b", "task", "é", "\ud800", "\0"])
some_values = st.dictionaries(st.sampled_from(sorted(set(RECORD_KEYS) - {"msg_id"})), st.none(), max_size=4).flatmap(
    lambda keys: st.fixed_dictionaries({key: value_of(key) for key in keys})
)
pieces = st.dictionaries(st.sampled_from(sorted(TEXT_KEYS)), st.lists(st.sampled_from("aé\0\ud83d\ude00"), max_size=2))


@st.composite
def changes(draw: st.DrawFn) -> tuple[Change, dict[str, Any]]:
    """Draw a change, with its decoded values."""
    msg_id = draw(MSG_IDS)
    kind = draw(st.sampled_from(["add", "add", "update", "update", "remove"]))
    if kind == "add":
        values = draw(record_values) | {"msg_id": msg_id}
        return Change(msg_id, packed(values)), values
    if kind == "remove":
        return Change(msg_id, removed=True), {}
    values = draw(some_values)
    record = packed(empty_record() | values | {"msg_id": msg_id})
    return Change(msg_id, changes={key: getattr(record, key) for key in values}, appended=draw(pieces)), values


@pytest.mark.property
@given(st.lists(st.lists(changes(), max_size=5), max_size=4), queries(), queries())
def test_it_answers_as_the_oracle_does(
    batches: list[list[tuple[Change, dict[str, Any]]]], wanted: dict[str, Any], dropped: dict[str, Any]
) -> None:
    model = Model()
    with tempfile.TemporaryDirectory() as directory, opened(Path(directory, "tasks.db")) as backend:
        for batch in batches:
            backend.write([change for change, _ in batch])
            for change, given in batch:
                model.apply(change, given)
            check_account(backend)
        compare(backend, model, wanted)
        gone = [
            msg_id
            for msg_id, record in model.records.items()
            if record["completed"] is not None and oracle.matches(dropped, record)
        ]
        assert drop(backend, parse_query(dropped)) == len(gone)
        for msg_id in gone:
            del model.records[msg_id]
        check_account(backend)
        compare(backend, model, wanted)
        while backend.trim(ALL, at(0)):
            pass
        assert [kept.record.msg_id for kept in all_of(backend)] == [
            msg_id for msg_id, record in model.records.items() if record["completed"] is None
        ]


def all_of(backend: SQLiteBackend) -> list[Any]:
    with reading(backend) as reader:
        kept = reader.get([msg_id for _, msg_id in reader.history()])
    return sorted(kept.values(), key=lambda each: each.arrival)


def compare(backend: SQLiteBackend, model: Model, wanted: dict[str, Any]) -> None:
    expected = oracle.in_order(model.records.values())
    with reading(backend) as reader:
        history = reader.history()
        assert history == sorted(history)
        assert [msg_id for _, msg_id in history] == [record["msg_id"] for record in expected]
        kept = reader.get([*model.records, "nobody"])
        assert same_records(
            [kept[record["msg_id"]].record.as_dict() for record in expected if record["msg_id"] in kept], expected
        )
        assert sorted(kept, key=lambda msg_id: kept[msg_id].arrival) == list(model.records)
        matching = [record for record in expected if oracle.matches(wanted, record)]
        rows = reader.find(parse_query(wanted), RECORD_KEYS)
        assert same_records([row.values for row in rows], matching)
        places = {msg_id: place for place, msg_id in history}
        assert [row.place for row in rows] == [places[record["msg_id"]] for record in matching]
        (few, skip) = (parse_keys(["stdout", "label"]), {"a", "é"})
        assert same_records(
            [row.values for row in reader.find(parse_query(wanted), few, skip)],
            [{key: record[key] for key in few} for record in matching if record["msg_id"] not in skip],
        )


def same_records(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    return same(one, other)


# --- forgetting


def test_dropping_gives_the_space_back(backend: SQLiteBackend) -> None:
    empty = backend.size()
    for start in range(0, 3000, 500):
        add(backend, *(finished(str(n), content={"x": "y" * 1500}) for n in range(start, start + 500)))
    add(backend, make("unfinished"))
    before = backend.size()
    assert before > 4_000_000
    assert drop(backend, parse_query({"msg_id": {"$nin": [str(n) for n in range(100)]}})) == 2900
    assert backend.size() < before / 10
    assert drop(backend, EVERYTHING) == 100
    assert drop(backend, EVERYTHING) == 0
    assert backend.size() <= empty + (1 << 17)
    assert found(backend) == ["unfinished"]
    check_account(backend)


def test_dropping_beside_a_reader_waits_for_nobody(backend: SQLiteBackend) -> None:
    add(backend, *(finished(str(n), content={"x": "y" * 1500}) for n in range(300)))
    with reading(backend) as reader:
        assert drop(backend, EVERYTHING) == 300
        assert len(reader.history()) == 300
    assert found(backend) == []


def trimmed(backend: SQLiteBackend, keep: Retention) -> int:
    steps: list[int] = []
    while not steps or steps[-1] != 0:
        steps.append(backend.trim(keep, at(1000)))
        assert steps[-1] <= 200
        check_account(backend)
    return sum(steps)


def test_trimming_by_number(backend: SQLiteBackend) -> None:
    add(backend, *(finished(str(n), completed=at(500 - n)) for n in range(500)), make("unfinished"))
    assert trimmed(backend, Retention()) == 0
    assert trimmed(backend, Retention(records=500)) == 0
    assert trimmed(backend, Retention(records=10)) == 490
    assert found(backend) == [*map(str, range(10)), "unfinished"]


def test_trimming_by_age(backend: SQLiteBackend) -> None:
    add(backend, *(finished(str(n), completed=at(n)) for n in range(5)), make("unfinished"))
    assert trimmed(backend, Retention(age=timedelta(seconds=997))) == 3
    assert found(backend) == ["3", "4", "unfinished"]
    assert trimmed(backend, Retention(age=timedelta.max)) == 0


def test_trimming_goes_by_the_clock_of_the_hub(backend: SQLiteBackend) -> None:
    """The engine's clock, which sets ``completed``, may be wrong. The first two records have no other date."""
    add(backend, finished("1", completed=at(1)), finished("4", completed=at(4)), make("unfinished"))
    wrong = {"0": (9, 0), "2": (-99_999, 2), "3": (99_999, 3), "5": (-99_999, 5)}
    add(backend, *(finished(name, completed=at(c), received=at(r)) for name, (c, r) in wrong.items()))
    add(backend, make("received", received=at(0)))
    for left in ("12345", "2345", "345", "45", "5", ""):
        assert backend.trim(Retention(records=len(left)), at(0)) == 1
        assert sorted(found(backend)) == [*left, "received", "unfinished"]
        check_account(backend)
    add(backend, finished("behind", completed=at(-200_000), received=at(900)))
    add(backend, finished("ahead", completed=at(200_000), received=at(100)))
    assert trimmed(backend, Retention(age=timedelta(seconds=500))) == 1
    assert sorted(found(backend)) == ["behind", "received", "unfinished"]


def test_what_a_purge_finds_may_be_taken_up_again_meanwhile(backend: SQLiteBackend) -> None:
    add(backend, *(finished(str(n)) for n in range(4)))
    with reading(backend) as reader:
        arrivals = reader.completed(EVERYTHING)
    backend.write([Change("1", changes={"completed": None}), Change("2", removed=True)])
    add(backend, finished("3"))
    assert [backend.drop(arrivals[:2]), backend.drop(arrivals[2:])] == [1, 0]
    assert sorted(found(backend)) == ["1", "3"]
    check_account(backend)


def test_each_batch_has_a_number_that_readers_see(path: Path) -> None:
    last = 0
    for _ in range(2):
        with opened(path) as backend:
            for _ in range(3):
                batch = backend.batch()
                assert batch.number > last
                last = batch.number
                batch.take(Change("x", removed=True))
                batch.write()
                reader = backend.reader()
                assert reader.begin() == last
                backend.write([Change("x", removed=True)])
                reader.close()


def test_a_question_can_be_interrupted(backend: SQLiteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    add(backend, *(make(str(n)) for n in range(3)))
    asked, go_on = threading.Event(), threading.Event()

    def matches(query: Query, record: TaskRecord) -> bool:
        asked.set()
        return go_on.wait(60)

    monkeypatch.setattr(Query, "matches", matches)
    reader = backend.reader()
    reader.begin()
    errors: list[StoreError] = []

    def ask() -> None:
        try:
            reader.find(parse_query({"content.x": 1}), ("msg_id",))
        except StoreError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert asked.wait(60)
    reader.interrupt()
    go_on.set()
    thread.join(60)
    assert "interrupted" in str(errors[0])
    reader.close()


def test_a_question_that_sqlite_works_on_can_be_interrupted(backend: SQLiteBackend) -> None:
    reader = backend.reader()
    count = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"

    def ask() -> None:
        with suppress(sqlite3.OperationalError):
            reader._connection.execute(count)

    thread = threading.Thread(target=ask)
    thread.start()
    while thread.is_alive():
        reader.interrupt()
        thread.join(0.001)
    reader.close()


def test_trimming_by_bytes(backend: SQLiteBackend) -> None:
    add(
        backend,
        finished("a", content={"x": "y" * 1000}),
        finished("b", buffers=[b"x" * 100_000], completed=at(2)),
        finished("c", stdout="x" * 1000, completed=at(3)),
        finished("d", execute_input="x" * 1000, completed=at(4)),
    )
    assert trimmed(backend, Retention(bytes=103_100)) == 0
    assert trimmed(backend, Retention(bytes=102_100)) == 1
    assert trimmed(backend, Retention(bytes=2_010)) == 1
    assert found(backend) == ["c", "d"]
    assert trimmed(backend, Retention(bytes=0)) == 2


def test_trimming_gives_space_back_bit_by_bit(backend: SQLiteBackend) -> None:
    add(backend, *(finished(str(n), buffers=[b"x" * 100_000]) for n in range(400)))
    before = backend.size()
    assert trimmed(backend, ALL) == 400
    for _ in range(20):
        backend.trim(ALL, at(0))
    ((pages,),) = backend._connection.execute("PRAGMA page_count")
    assert pages * 8192 < before / 3


# --- the file


def test_only_its_user_may_read_the_file(path: Path, backend: SQLiteBackend) -> None:
    add(backend, make("a"))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert modes == {f"tasks.db{end}": 0o600 for end in ("", "-wal", "-shm", "-lock")}


def test_a_second_hub_is_refused_until_the_first_has_closed(path: Path) -> None:
    with opened(path) as backend:
        with pytest.raises(ConfigError, match=r"tasks\.db: another hub keeps its records in this file"):
            open_sqlite(path)
        add(backend, make("a"))
    backend.close()  # again
    with opened(path) as backend:
        assert found(backend) == ["a"]


def test_what_a_hub_left_in_the_log_when_it_was_killed_is_there(path: Path) -> None:
    other = path.with_name("other.db")
    with opened(path) as backend:
        add(backend, finished("a"))
        for end in ("", "-wal"):
            other.with_name(other.name + end).write_bytes(path.with_name(path.name + end).read_bytes())
    with opened(other) as backend:
        assert found(backend) == ["a"]


def test_it_closes_the_readers_that_are_left(path: Path) -> None:
    with opened(path) as backend:
        reader = backend.reader()
    with pytest.raises(StoreError, match="closed"):
        reader.begin()
    with pytest.raises(StoreError, match="closed"):
        backend.write([])
    reader.end()
    assert sorted(each.name for each in path.parent.iterdir()) == ["tasks.db", "tasks.db-lock"]


def other_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
        connection.commit()


def application(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 77")


def newer(path: Path) -> None:
    open_sqlite(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def cut(path: Path) -> None:
    fill(path)
    os.truncate(path, path.stat().st_size // 2)


def overwritten(path: Path) -> None:
    fill(path)
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(5 * 8192))


def fill(path: Path) -> None:
    with opened(path) as backend:
        add(backend, *(finished(str(n), content={"x": "y" * 1000}) for n in range(300)))


@pytest.mark.parametrize(
    ("make", "error", "told"),
    [
        (lambda path: path.write_text("Dear diary"), ConfigError, "not an SQLite database; name another file"),
        (other_program, ConfigError, "the SQLite database of another program; name another file"),
        (application, ConfigError, "the SQLite database of another program"),
        (newer, ConfigError, r"newer trio_hub \(version 99 of the tables; this version supports versions up to 4\)"),
        (cut, StoreError, "shorter than it should be, so it is damaged: stop the hub, and put back a copy"),
        (overwritten, StoreError, "damaged: stop the hub, and put back a copy"),
    ],
)
def test_a_file_that_cannot_be_used_is_left_alone(path: Path, make: Any, error: type[Exception], told: str) -> None:
    path.parent.mkdir()
    make(path)
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(error, match=f"^{path}: .*{told}"):
            open_sqlite(path)
    assert path.read_bytes() == before
    assert {each.name for each in path.parent.iterdir()} <= {"tasks.db", "tasks.db-lock"}


def test_a_newer_version_in_the_log_is_seen_and_left_there(path: Path) -> None:
    killed = path.with_name("killed.db")
    with opened(path):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
        for end in ("", "-wal"):
            killed.with_name(killed.name + end).write_bytes(path.with_name(path.name + end).read_bytes())
    before = [killed.with_name(killed.name + end).read_bytes() for end in ("", "-wal")]
    with pytest.raises(ConfigError, match="newer trio_hub"):
        open_sqlite(killed)
    assert [killed.with_name(killed.name + end).read_bytes() for end in ("", "-wal")] == before


def test_names_of_files_may_be_anything(tmp_path: Path) -> None:
    path = tmp_path / "a b?mode=memory#%20é" / "tasks&immutable=1.db"
    for _ in range(2):
        with opened(path) as backend:
            add(backend, finished("a"))
            assert found(backend) == ["a"]
    assert path.stat().st_size > 0


def test_an_empty_file_becomes_a_database(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    with opened(path) as backend:
        add(backend, finished("a"))
        ((vacuum,),) = backend._connection.execute("PRAGMA auto_vacuum")
        assert vacuum == 2


def test_a_directory_is_no_file(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"tasks\.db: cannot be opened: Is a directory; name another file"):
        open_sqlite(path)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    tmp_path.joinpath("file").touch()
    with pytest.raises(ConfigError, match="cannot be opened: Not a directory; name another file"):
        open_sqlite(tmp_path / "file" / "hub" / "tasks.db")


def test_damage_that_comes_to_light_later(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overwritten(path)
    monkeypatch.setattr(files, "CHECKED_AS_A_WHOLE", 0)
    with opened(path) as backend:
        with reading(backend) as reader, pytest.raises(StoreError, match=r"tasks\.db: .* damaged: stop the hub"):
            reader.find(EVERYTHING, RECORD_KEYS)
        with pytest.raises(StoreError, match=r"tasks\.db: .* damaged: stop the hub"):
            backend.write([Change(str(n), changes={"queue": "x"}) for n in range(300)])
        with pytest.raises(StoreError, match=r"tasks\.db: .* damaged: stop the hub"):
            drop(backend, EVERYTHING)


def test_a_file_of_an_older_version_is_brought_up_to_date(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path)

    def note(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE task SET queue = 'migrated'")

    monkeypatch.setattr(files, "STEPS", [*STEPS, ["CREATE INDEX extra ON task (queue)"], note])
    with opened(path) as backend:
        ((version,),) = backend._connection.execute("PRAGMA user_version")
        assert version == len(STEPS) + 2
        assert len(found(backend, Query.where(queue="migrated"))) == 300
    opened_again = open_sqlite(path)
    opened_again.close()


def test_a_file_whose_records_have_one_row_each_is_divided(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 1 of the tables had one row for each record."""
    monkeypatch.setattr(files, "STEPS", STEPS[:1])
    path.parent.mkdir(parents=True)
    with closing(files.open_file(path, synchronous=False)) as connection:
        connection.execute(
            "INSERT INTO task (arrival, msg_id, submitted, completed, owed, owner, size, custody, header, content, "
            "buffers, result_content) VALUES (7, 'a', 1, 2, 1, 'me', 13, ?, ?, ?, ?, ?)",
            (b"\0", b"{}", b'{"x":1}', b"\x90", b"{}"),
        )
        connection.execute(
            "INSERT INTO task (arrival, msg_id, owed, owner, size, header) VALUES (8, 'b', 0, '', 2, ?)", (b"{}",)
        )
        connection.execute("INSERT INTO piece VALUES (1, 7, 0, 3, ?)", (b"out",))
        connection.execute("UPDATE account SET arrivals = 8, records = 1, bytes = 16")
    monkeypatch.undo()
    with opened(path) as backend:
        assert found(backend) == ["a", "b"]
        record = whole(backend, "a")
        assert (record.content, record.buffers, record.result_content) == (b'{"x":1}', (), b"{}")
        assert (record.stdout, record.owed, record.custody) == ("out", True, b"\0")
        assert whole(backend, "b").result_header is None
        add(backend, make("c"))
        backend.write([Change("b", changes={"result_content": b"{}", "completed": at(0)})])
        assert found(backend) == ["a", "b", "c"]
        check_account(backend)
        assert drop(backend, EVERYTHING) == 2
        check_account(backend)


def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path)
    monkeypatch.setattr(files, "STEPS", [*STEPS, ["UPDATE task SET queue = 'x'", "SELECT missing"]])
    with pytest.raises(StoreError, match="no such column"):
        open_sqlite(path)
    monkeypatch.undo()
    with opened(path) as backend:
        assert len(found(backend, Query.where(queue=None))) == 300


# --- what goes wrong


def test_a_full_disk_changes_nothing_and_is_got_over(backend: SQLiteBackend) -> None:
    add(backend, finished("a"))
    connection = backend._connection
    ((pages,),) = connection.execute("PRAGMA page_count")
    connection.execute(f"PRAGMA max_page_count = {pages + 5}").fetchall()
    many = [Change(str(n), finished(str(n), content={"x": "y" * 1000})) for n in range(100)]
    for _ in range(2):
        with pytest.raises(StoreError, match=r"tasks\.db: database or disk is full; free some space .* tries again"):
            backend.write([Change("a", removed=True), *many])
        assert found(backend) == ["a"]
        check_account(backend)
    connection.execute("PRAGMA max_page_count = 100000").fetchall()
    backend.write([Change("a", removed=True), *many])
    assert len(found(backend)) == 100
    check_account(backend)


def test_a_database_that_cannot_be_written_to(backend: SQLiteBackend) -> None:
    backend._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError, match=r"attempt to write a readonly database; make sure that this user may write"):
        add(backend, make("a"))
    backend._connection.execute("PRAGMA query_only = OFF")
    add(backend, make("a"))
    assert found(backend) == ["a"]


def test_another_program_that_has_it_locked(path: Path, backend: SQLiteBackend) -> None:
    backend._connection.execute("PRAGMA busy_timeout = 1")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="database is locked; end the program that has locked the file"):
            add(backend, make("a"))
    add(backend, make("a"))


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_FSYNC])
def test_an_error_of_the_disk_says_that_the_hub_tries_again(path: Path, code: int) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    with pytest.raises(StoreError, match=r"disk I/O error; .*the hub tries again"), files.reporting(path):
        raise error


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY])
def test_a_hub_that_is_starting_does_not_promise_to_try_again(path: Path, code: int) -> None:
    error = sqlite3.OperationalError("some error")
    error.sqlite_errorcode = code
    with pytest.raises(StoreError, match="some error; ") as told, files.reporting(path, starting=True):
        raise error
    assert "again" not in str(told.value)


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (sqlite3.SQLITE_IOERR_SHMMAP, "cannot share memory between processes"),
        (sqlite3.SQLITE_IOERR_SHMOPEN, "cannot share memory between processes"),
        (sqlite3.SQLITE_IOERR_LOCK, "has no file locks that SQLite can use"),
        (sqlite3.SQLITE_PROTOCOL, "has no file locks that SQLite can use"),
    ],
)
def test_a_file_system_that_lacks_what_sqlite_needs_is_named_at_the_start(path: Path, code: int, what: str) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    expected = f"its file system {what}.*--db sqlite:////var/tmp/"
    with pytest.raises(StoreError, match=expected), files.reporting(path, starting=True):
        raise error


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks(number: int, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(ConfigError, match=r"has no file locks, as is often .*--db sqlite:////var/tmp/"):
        open_sqlite(path)


# --- speed depends on these


@pytest.mark.parametrize(
    ("raw", "index"),
    [
        ({"msg_id": "a"}, "sqlite_autoindex_task_1"),
        ({"msg_id": {"$in": ["a", "b"]}}, "sqlite_autoindex_task_1"),
        ({"engine_uuid": "e", "completed": {"$gte": at(0)}}, r"task_engine \(engine_uuid=\? AND completed>"),
        ({"engine_uuid": {"$in": ["e", "f"]}}, r"task_engine \(engine_uuid="),
        ({"client_uuid": "c", "completed": {"$lt": at(0)}}, r"task_client \(client_uuid=\?"),
        ({"completed": {"$gte": at(0)}}, r"task_completed \(completed>"),
        ({"submitted": {"$lt": at(0)}}, r"task_history \(submitted<"),
        ({"received": {"$gte": at(0), "$lt": at(1)}}, r"task_received \(received>"),
    ],
)
def test_usual_queries_use_an_index(backend: SQLiteBackend, raw: dict[str, Any], index: str) -> None:
    with reading(backend) as reader:
        statements: list[str] = []
        reader._connection.set_trace_callback(statements.append)
        reader.find(parse_query(raw), ("msg_id",))
        (statement,) = statements
        plan = " ".join(row[3] for row in reader._connection.execute(f"EXPLAIN QUERY PLAN {statement}"))
    assert re.search(index, plan), plan


def test_an_interrupt_reaches_sqlite_itself(path: Path) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with opened(path) as backend, reading(backend) as reader:
        began = threading.Event()
        told: list[Exception] = []

        def ask() -> None:
            reader._connection.set_progress_handler(began.set, 1)
            try:
                reader._connection.execute(endless).fetchall()
            except sqlite3.OperationalError as error:
                told.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        assert began.wait(30)
        reader.interrupt()
        asking.join(30)
        assert str(told[0]) == "interrupted"
        reader._connection.set_progress_handler(None, 0)
