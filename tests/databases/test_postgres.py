"""The database in PostgreSQL: what it keeps, and what it does when its server fails."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trio_hub.databases.backend import Backend, Change, Reader, Retention
from trio_hub.databases.columns import CHUNK, SMALL
from trio_hub.databases.postgres import database as module
from trio_hub.databases.postgres.connection import LastingConnection
from trio_hub.databases.postgres.database import PostgresBackend, open_postgres
from trio_hub.errors import ConfigError, StoreError
from trio_hub.records import RECORD_KEYS, Query, TaskRecord, parse_keys, parse_query
from trio_hub.records.record import CHANGEABLE_KEYS

from ..records import oracle
from ..records.strategies import many_records, packed, queries
from . import server as server_module
from .contract import at, drop, finished, make
from .server import Server


@pytest.fixture
def backend(postgres_url: str) -> Iterator[PostgresBackend]:
    opened = open_postgres(postgres_url, owner="hub")
    yield opened
    opened.close()


@contextmanager
def reading(backend: Backend) -> Iterator[Reader]:
    reader = backend.reader()
    reader.begin()
    try:
        yield reader
    finally:
        reader.end()
        reader.close()


def add(*records: TaskRecord) -> list[Change]:
    return [Change(record.msg_id, record) for record in records]


def ids(backend: Backend) -> list[str]:
    with reading(backend) as reader:
        return [msg_id for _, msg_id in reader.history()]


def get(backend: Backend, msg_id: str) -> TaskRecord:
    with reading(backend) as reader:
        return reader.get([msg_id])[msg_id].record


def rows(url: str, table: str) -> int:
    with psycopg.connect(url) as connection:
        ((number,),) = connection.execute(f"SELECT count(*) FROM trio_hub.{table}".encode())
        return int(number)


def totals(url: str) -> tuple[int, int]:
    with psycopg.connect(url) as connection:
        ((records, size),) = connection.execute("SELECT sum(records)::int, sum(bytes)::int FROM trio_hub.totals")
        return records, size


def counted(url: str) -> tuple[int, int]:
    with psycopg.connect(url) as connection:
        ((records, size),) = connection.execute(
            "SELECT count(*)::int, coalesce(sum(bytes), 0)::int FROM trio_hub.records WHERE completed IS NOT NULL"
        )
        return records, size


def values(record: TaskRecord) -> dict[str, Any]:
    return {key: getattr(record, key) for key in (*RECORD_KEYS, "custody", "owed")}


# Reading written records


STRANGE = "a\0b\ud800\x01日本\\"


def strange_record(msg_id: str) -> TaskRecord:
    record = TaskRecord(
        msg_id,
        header=b'{"a": NaN,  "b": "\\u0000\\ud800"}',
        metadata=b"\x00\xff no JSON",
        content=b"",
        buffers=(b"", b"\0\1", memoryview(b"view")),
        submitted=datetime.min.replace(tzinfo=UTC),
        client_uuid=STRANGE,
        engine_uuid="",
        queue="task",
        label=[STRANGE, 10**400, {"b": 1, "a": None}],
        custody=b"\0\xff",
    )
    record.started = datetime.max.replace(tzinfo=UTC)
    record.completed = datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    record.received = at(0.000001)
    record.resubmitted = STRANGE * 1000
    record.result_buffers = ()
    record.execute_input = STRANGE
    record.stdout, record.stderr = STRANGE, "err"
    record.owed = True
    return record


@pytest.mark.parametrize("msg_id", ["plain", STRANGE, "", uuid.uuid4().hex * 1000])
def test_a_record_comes_back_as_it_was(backend: PostgresBackend, msg_id: str) -> None:
    record = strange_record(msg_id)
    backend.write(add(record))
    got = values(get(backend, msg_id))
    assert got == values(record) | {"buffers": (b"", b"\0\1", b"view")}
    assert [got[key].tzinfo for key in ("submitted", "started")] == [UTC, UTC]


@pytest.mark.parametrize("label", [False, 0, "", [], {}])
def test_a_label_may_be_nothing_much(backend: PostgresBackend, label: Any) -> None:
    backend.write(add(make("a", label=label)))
    assert get(backend, "a").label == label
    assert get(backend, "a").label is not None


def test_every_key_can_be_changed(backend: PostgresBackend) -> None:
    record = strange_record("a")
    changes = {key: getattr(record, key) for key in CHANGEABLE_KEYS}
    backend.write(add(TaskRecord("a")))
    backend.write([Change("a", changes=changes)])
    expected = values(record) | {"buffers": (b"", b"\0\1", b"view")}
    assert values(get(backend, "a")) == expected
    blank = TaskRecord("a")
    backend.write([Change("a", changes={key: getattr(blank, key) for key in CHANGEABLE_KEYS})])
    assert values(get(backend, "a")) == values(blank)


def test_the_earliest_and_latest_dates_are_in_order_and_found(backend: PostgresBackend) -> None:
    ends = [datetime.max.replace(tzinfo=UTC), None, datetime.min.replace(tzinfo=UTC), at(0)]
    backend.write(add(*(make(str(number), submitted=moment) for number, moment in enumerate(ends))))
    assert ids(backend) == ["2", "3", "0", "1"]
    with reading(backend) as reader:
        (found,) = reader.find(parse_query({"submitted": {"$gte": datetime.max}}), ("msg_id", "submitted"))
        assert found.values == {"msg_id": "0", "submitted": ends[0]}
        assert reader.find(parse_query({"submitted": datetime.min}), ("msg_id",))[0].values == {"msg_id": "2"}


def test_large_buffers_are_kept_outside_of_the_row(
    backend: PostgresBackend, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_hub.databases.columns.CHUNK", SMALL)
    assert CHUNK > SMALL
    large = (b"x" * (2 * SMALL + 1), b"", b"y" * SMALL)
    backend.write(add(make("a", buffers=large, completed=at(1))))
    backend.write([Change("a", changes={"result_buffers": large[:1]})])
    assert (get(backend, "a").buffers, get(backend, "a").result_buffers) == (large, large[:1])
    assert rows(postgres_url, "chunks") == 7
    backend.write([Change("a", changes={"buffers": (b"small",), "result_buffers": large[2:]})])
    assert (get(backend, "a").buffers, get(backend, "a").result_buffers) == ((b"small",), large[2:])
    assert rows(postgres_url, "chunks") == 1
    assert totals(postgres_url) == counted(postgres_url)
    backend.write([Change("a", removed=True)])
    assert rows(postgres_url, "chunks") == 0
    assert totals(postgres_url) == (0, 0)


def test_output_is_appended_without_rewriting_what_was_there(backend: PostgresBackend, postgres_url: str) -> None:
    backend.write(add(make("a", stdout="0")))
    for piece in ("1", "\0", "\ud83d", "\ude00"):
        backend.write([Change("a", appended={"stdout": [piece, ";"], "stderr": ["e"]})])
    record = get(backend, "a")
    assert (record.stdout, record.stderr) == ("01;\0;\ud83d;\ude00;", "eeee")
    assert rows(postgres_url, "output") == 9
    backend.write([Change("a", changes={"stdout": "new", "queue": "mux"}, appended={"stdout": ["er"]})])
    record = get(backend, "a")
    assert (record.stdout, record.stderr, record.queue) == ("newer", "eeee", "mux")


def test_a_record_added_again_arrives_anew(backend: PostgresBackend, postgres_url: str) -> None:
    large = (b"x" * SMALL,)
    backend.write(add(make("a", stdout="old", buffers=large, completed=at(0)), make("b")))
    backend.write(add(make("a", queue="mux")))
    with reading(backend) as reader:
        kept = reader.get(["a", "b"])
    assert kept["a"].arrival > kept["b"].arrival
    assert values(kept["a"].record) == values(make("a", queue="mux"))
    assert ids(backend) == ["b", "a"]
    assert (rows(postgres_url, "output"), rows(postgres_url, "chunks")) == (0, 0)
    assert totals(postgres_url) == (0, 0)


def test_changes_of_one_record_in_one_batch_come_in_order(backend: PostgresBackend) -> None:
    backend.write(
        [
            *add(make("a", queue="task")),
            Change("a", appended={"stdout": ["1"]}),
            Change("a", changes={"queue": "mux"}, appended={"stdout": ["2"]}),
            *add(make("b")),
            Change("b", removed=True),
            Change("nobody", changes={"queue": "mux"}, appended={"stdout": ["2"]}),
            Change("nobody", removed=True),
        ]
    )
    assert ids(backend) == ["a"]
    assert (get(backend, "a").queue, get(backend, "a").stdout) == ("mux", "12")


def test_a_large_batch_is_one_transaction(backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_hub.databases.postgres.writing._SEGMENT_BYTES", 10)
    bad = TaskRecord("bad", submitted=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cannot cast"):
        backend.write([*add(make("a", header={"x": 1})), *add(make("b", header={"x": 1})), Change("bad", bad)])
    assert ids(backend) == []
    backend.write([*add(make("a", header={"x": 1})), *add(make("b", header={"x": 1}))])
    assert ids(backend) == ["a", "b"]


@pytest.mark.parametrize(
    "values",
    [{"submitted": "soon"}, {"header": object()}, {"content": 1.5}, {"stdout": 3}, {"queue": b"x"}, {"buffers": 3}],
)
def test_what_cannot_be_written_is_no_store_error(backend: PostgresBackend, values: dict[str, Any]) -> None:
    backend.write(add(make("a")))
    with pytest.raises((ValueError, TypeError, AttributeError)):
        backend.write([*add(make("b")), Change("a", changes=values)])
    backend.write(add(make("c")))
    assert ids(backend) == ["a", "c"]


# Readers


def test_a_reader_sees_what_was_there_when_it_began(backend: PostgresBackend) -> None:
    backend.write(add(make("a")))
    reader = backend.reader()
    reader.begin()
    backend.write([*add(make("b")), Change("a", changes={"queue": "mux"}, appended={"stdout": ["x"]})])
    assert [msg_id for _, msg_id in reader.history()] == ["a"]
    assert values(reader.get(["a", "b"])["a"].record) == values(make("a"))
    assert [found.values for found in reader.find(Query.everything(), ("msg_id",))] == [{"msg_id": "a"}]
    reader.end()
    reader.begin()
    assert reader.get(["a"])["a"].record.stdout == "x"
    reader.end()
    reader.close()
    reader.close()
    with pytest.raises(StoreError, match="try again"):
        reader.history()


def test_find_in_slices_leaves_out_what_it_is_told(backend: PostgresBackend) -> None:
    backend.write(add(*(make(f"{number:04}", header={"n": number % 3}, stdout="x") for number in range(1203))))
    skip = {f"{number:04}" for number in range(0, 1203, 2)}
    with reading(backend) as reader:
        for query in ({}, {"header.n": {"$gte": 0}}):
            found = reader.find(parse_query(query), ("msg_id", "stdout"), skip)
            assert [each.values for each in found] == [
                {"msg_id": f"{number:04}", "stdout": "x"} for number in range(1, 1203, 2)
            ]
        assert len(reader.find(parse_query({"header.n": 1, "buffers": {"$exists": False}}), ("msg_id",))) == 401
        assert len(reader.get([f"{number:04}" for number in range(2000)])) == 1203


@pytest.mark.property
@settings(
    max_examples=max(60, settings().max_examples // 5), suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(many_records(), queries(), st.none() | st.lists(st.sampled_from(RECORD_KEYS), max_size=4))
def test_answers_are_those_of_the_language(
    backend: PostgresBackend, some: list[dict[str, Any]], query: dict[str, Any], keys: list[str] | None
) -> None:
    backend.write([Change(msg_id, removed=True) for msg_id in ids(backend)])
    backend.write(add(*map(packed, some)))
    ordered = oracle.in_order(some)
    expected = [record for record in ordered if oracle.matches(query, record)]
    wanted = parse_keys(keys)
    with reading(backend) as reader:
        found = reader.find(parse_query(query), wanted)
        assert [msg_id for _, msg_id in reader.history()] == [record["msg_id"] for record in ordered]
    assert [place for place, _ in found] == sorted(place for place, _ in found)
    # as text, since NaN is not equal to itself
    assert list(map(repr, (each.values for each in found))) == [
        repr({key: record[key] for key in wanted}) for record in expected
    ]
    done = [record["msg_id"] for record in expected if record["completed"] is not None]
    assert drop(backend, parse_query(query)) == len(done)
    assert ids(backend) == [record["msg_id"] for record in ordered if record["msg_id"] not in done]


# Records of an earlier hub


def test_owners_share_the_history_and_take_over_their_own(backend: PostgresBackend, postgres_url: str) -> None:
    other = open_postgres(postgres_url, owner="other\0")
    backend.write(add(make("a", content={"x": 1}, buffers=[b"x"], header={"y": 2}), finished("b")))
    other.write(add(make("c")))
    other.write([Change("a", changes={"queue": "mux"})])
    assert ids(backend) == ids(other) == ["b", "a", "c"]
    with reading(backend) as reader:
        (kept,) = reader.unfinished()
    assert (kept.record.msg_id, kept.record.queue, kept.record.header) == ("a", "mux", b'{"y": 2}')
    assert (kept.record.content, kept.record.buffers) == (None, None)
    with reading(other) as reader:
        assert [kept.record.msg_id for kept in reader.unfinished()] == ["c"]
    assert drop(other, Query.everything()) == 1
    assert ids(backend) == ["a", "c"]
    assert totals(postgres_url) == (0, 0)
    other.close()


def test_undelivered_are_the_owed_and_the_last(backend: PostgresBackend, postgres_url: str) -> None:
    other = open_postgres(postgres_url, owner="other")
    for number in range(6):
        backend.write(add(finished(str(number), client_uuid=f"c{number}", received=at(10 * number))))
    other.write(add(finished("theirs", client_uuid="x", received=at(1000))))
    backend.write([Change("1", changes={"owed": True}), Change("5", changes={"owed": True})])
    backend.write(add(finished("none", client_uuid="n"), finished("nobody", received=at(50))))
    with reading(backend) as reader:
        assert reader.undelivered(timedelta(seconds=10)) == [("1", "c1"), ("4", "c4"), ("5", "c5")]
        assert len(reader.undelivered(timedelta.max)) == 6
        assert reader.undelivered(timedelta(0)) == [("1", "c1"), ("5", "c5")]
    drop(other, Query.where(queue=None))
    with reading(other) as reader:
        assert reader.undelivered(timedelta(1)) == []
    other.close()


# Forgetting


def test_drop_spares_what_is_not_completed_and_gives_space_back(backend: PostgresBackend, postgres_url: str) -> None:
    backend.write(add(*(finished(str(number), content={"x": "y" * 3000}, stdout="z") for number in range(1500))))
    backend.write(add(make("open")))
    before = backend.size()
    assert drop(backend, parse_query({"content.x": {"$glob": "y*"}, "msg_id": {"$ne": "7"}})) == 1499
    assert ids(backend) == ["7", "open"]
    assert rows(postgres_url, "output") == 1
    assert 0 < backend.size() < before
    assert totals(postgres_url) == counted(postgres_url)


def test_trim_goes_by_number_bytes_and_age_the_oldest_first(
    backend: PostgresBackend, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRIM_RECORDS", 3)
    backend.write(add(*(make(str(n), completed=at(-n), content={"x": "y" * 91}) for n in range(20)), make("open")))
    backend.write([Change("19", changes={"owed": True})])
    assert totals(postgres_url) == (20, 2000)
    assert backend.trim(Retention(), at(0)) == 0
    assert backend.trim(Retention(records=15), at(0)) == 3
    assert backend.trim(Retention(records=15), at(0)) == 2
    assert backend.trim(Retention(records=15), at(0)) == 0
    assert backend.trim(Retention(bytes=1301), at(0)) == 2
    assert backend.trim(Retention(bytes=1301), at(0)) == 0
    assert backend.trim(Retention(age=timedelta(seconds=11)), at(0)) == 1
    assert backend.trim(Retention(age=timedelta.max), at(0)) == 0
    assert set(ids(backend)) == {*map(str, range(12)), "open"}
    backend.write([Change("0", changes={"completed": None}), Change("1", changes={"content": None})])
    assert totals(postgres_url) == counted(postgres_url) == (11, 1000)
    steps = []
    while gone := backend.trim(Retention(records=0), at(0)):
        steps.append(gone)
    assert steps == [3, 3, 3, 2]
    assert set(ids(backend)) == {"0", "open"}


def test_trim_goes_by_the_clock_of_the_hub(backend: PostgresBackend) -> None:
    """The engine's clock, which sets ``completed``, may be wrong. The first two records have no other date."""
    backend.write(add(finished("1", completed=at(1)), finished("4", completed=at(4)), make("open", received=at(0))))
    wrong = {"0": (9, 0), "2": (-99_999, 2), "3": (99_999, 3), "5": (-99_999, 5)}
    backend.write(add(*(finished(name, completed=at(c), received=at(r)) for name, (c, r) in wrong.items())))
    for left in ("12345", "2345", "345", "45", "5", ""):
        assert backend.trim(Retention(records=len(left)), at(0)) == 1
        assert sorted(ids(backend)) == [*left, "open"]
    backend.write(add(finished("behind", completed=at(-200_000), received=at(900))))
    assert backend.trim(Retention(age=timedelta(seconds=500)), at(1000)) == 0


def test_a_question_can_be_interrupted(backend: PostgresBackend) -> None:
    reader = backend.reader()
    reader.begin()
    errors: list[StoreError] = []

    def ask() -> None:
        try:
            with reader._snapshot() as connection:
                connection.execute("SELECT pg_sleep(60)")
        except StoreError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while thread.is_alive():
        reader.interrupt()
        thread.join(0.01)
    assert "has interrupted it" in str(errors[0])
    reader.close()


def test_each_batch_has_a_number_that_readers_see(backend: PostgresBackend) -> None:
    reader = backend.reader()
    for _ in range(2):
        batch = backend.batch()
        batch.take(Change("x", removed=True))
        assert reader.begin() < batch.number
        reader.end()
        batch.write()
        assert reader.begin() == batch.number
        reader.end()
    reader.close()


def test_a_step_of_trim_stops_at_so_many_bytes(backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRIM_BYTES", 150)
    backend.write(add(*(make(str(n), completed=at(n), content={"x": "y" * 91}) for n in range(5))))
    assert [backend.trim(Retention(records=0), at(0)) for _ in range(4)] == [2, 2, 1, 0]


def test_totals_follow_every_change(backend: PostgresBackend, postgres_url: str) -> None:
    large = (b"x" * SMALL,)
    for change in (
        Change("a", make("a", completed=at(0), stdout="\0", execute_input="é", buffers=[b"x"])),
        Change("b", make("b", header={"x": 1}, result_buffers=large)),
        Change("b", changes={"completed": at(1)}),
        Change("a", appended={"stdout": ["xyz", "é"], "stderr": [STRANGE]}),
        Change("a", changes={"stdout": "x", "execute_input": "longer", "buffers": large}, appended={"stderr": ["y"]}),
        Change("b", changes={"result_buffers": None, "header": b"{}"}),
        Change("a", changes={"completed": None}),
        Change("a", changes={"buffers": (b"z",)}),
        Change("a", changes={"completed": at(3)}),
        Change("b", make("b", completed=at(3))),
    ):
        backend.write([change])
        assert totals(postgres_url) == counted(postgres_url), change


def test_hubs_that_write_and_forget_at_the_same_time(backend: PostgresBackend, postgres_url: str) -> None:
    """If one hub forgets a record while another hub appends output to it, nothing of it stays behind."""
    other = open_postgres(postgres_url, owner="other")
    names = [f"{number:02}" for number in range(40)]

    def write() -> None:
        for round_ in range(15):
            backend.write(add(*(finished(name, buffers=[b"x" * SMALL]) for name in names)))
            backend.write([Change(name, appended={"stdout": [str(round_)]}) for name in reversed(names)])

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not writing.done():
            other.trim(Retention(records=5), at(0))
            drop(other, Query.where(msg_id=names[3]))
        writing.result()
    assert totals(postgres_url) == counted(postgres_url)
    drop(backend, Query.everything())
    assert [rows(postgres_url, table) for table in ("records", "output", "chunks")] == [0, 0, 0]
    other.close()


@pytest.mark.parametrize("vacuumed", [False, True])
def test_plans_that_were_made_for_small_tables_use_indexes(
    backend: PostgresBackend, postgres_url: str, vacuumed: bool
) -> None:
    """This also holds when the server's statistics say that the tables have hardly any rows."""
    backend.write(add(finished("first", stdout="x")))
    if vacuumed:
        drop(backend, Query.everything())
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("VACUUM trio_hub.records, trio_hub.output, trio_hub.chunks")
    batches = [[finished(f"{batch}.{n}", header={"x": n}, stdout="x") for n in range(100)] for batch in range(30)]
    for batch in batches:
        backend.write(add(*batch))
        backend.write([Change(record.msg_id, appended={"stdout": ["y"]}) for record in batch])
        backend.write([Change(record.msg_id, changes={"queue": "mux"}) for record in batch])
    backend.write([Change(record.msg_id, removed=True) for record in batches[0]])
    while backend.trim(Retention(records=0), at(0)):
        pass
    backend.close()  # flushes the server's statistics
    with psycopg.connect(postgres_url) as connection:
        scans = connection.execute(
            "SELECT relname, seq_tup_read FROM pg_stat_user_tables WHERE relname IN ('records', 'output', 'chunks')"
        ).fetchall()
    assert max(number for _, number in scans) < 3000, scans


# Opening


def test_hubs_that_start_at_the_same_moment(postgres_url: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda number: open_postgres(postgres_url, owner=f"hub{number}"), range(8)))
    for number, each in enumerate(opened):
        each.write(add(make(str(number))))
    assert sorted(ids(opened[0])) == list("01234567")
    for each in opened:
        each.close()
        each.close()
    assert rows(postgres_url, "batches") == 0


@pytest.mark.parametrize("synchronous", [False, True])
def test_synchronous_commit(postgres_url: str, synchronous: bool) -> None:
    backend = open_postgres(postgres_url, owner="hub", synchronous=synchronous)
    with backend._connection.call() as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on" if synchronous else "off",)
        assert connection.execute("SHOW application_name").fetchone() == ("trio_hub hub",)
    backend.close()


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("UPDATE trio_hub.version SET version = 99", r"later version of trio_hub \(99, .*upgrade"),
        ("UPDATE trio_hub.version SET product = 'x'", r"tables of another program \(batches, .*name another"),
        ("DROP TABLE trio_hub.version", "tables of another program .*name another"),
        ("DROP TABLE trio_hub.output", "tables output are missing"),
        (
            "DROP SCHEMA trio_hub CASCADE; CREATE SCHEMA trio_hub CREATE TABLE records (x int)",
            r"tables of another program \(records\)",
        ),
        (
            "DROP SCHEMA trio_hub CASCADE; CREATE SCHEMA trio_hub CREATE TABLE version (product int, version int)",
            r"tables of another program \(version\)",
        ),
    ],
)
def test_what_is_not_ours_is_not_touched(postgres_url: str, command: str, told: str) -> None:
    open_postgres(postgres_url, owner="hub").close()
    listing = "SELECT relname, xmin::text FROM pg_class WHERE relnamespace = 'trio_hub'::regnamespace ORDER BY 1"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(command.encode())
        before = connection.execute(listing.encode()).fetchall()
        with pytest.raises(ConfigError, match=told):
            open_postgres(postgres_url, owner="hub")
        assert connection.execute(listing.encode()).fetchall() == before


def test_tables_of_a_version_before_are_brought_up_to_date(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old = open_postgres(postgres_url, owner="old")
    old.write(add(make("a")))
    from trio_hub.databases.postgres import schema as postgres_schema

    steps = (*postgres_schema.STEPS, "CREATE TABLE trio_hub.more (x int)")
    monkeypatch.setattr(postgres_schema, "STEPS", steps)
    new = open_postgres(postgres_url, owner="new")
    assert ids(new) == ["a"]
    assert rows(postgres_url, "more") == 0
    open_postgres(postgres_url, owner="new").close()
    new.close()
    monkeypatch.undo()
    with pytest.raises(StoreError, match="another version of trio_hub has changed"):
        ids(old)
    old.close()


SECRET = "p@ss/wörd?%"


@pytest.fixture
def user(postgres_server: Server) -> Iterator[str]:
    """Create a user without any rights, whose password is `SECRET`."""
    postgres_server.sql(f"CREATE ROLE visitor LOGIN PASSWORD '{SECRET}'")
    yield "visitor"
    for (name,) in postgres_server.sql("SELECT datname FROM pg_database WHERE datallowconn"):
        postgres_server.sql("DROP OWNED BY visitor CASCADE", name)
    postgres_server.sql("DROP ROLE visitor")


def database_of(url: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])


def test_a_user_needs_rights(postgres_server: Server, postgres_url: str, user: str) -> None:
    name = database_of(postgres_url)
    url = postgres_server.url(name, user, SECRET)
    with pytest.raises(ConfigError, match=rf"permission denied.*GRANT CREATE ON DATABASE {name} TO visitor") as caught:
        open_postgres(url, owner="hub")
    assert SECRET not in f"{caught.value} {caught.value.__cause__}"
    open_postgres(postgres_url, owner="hub").close()
    with pytest.raises(ConfigError, match="GRANT USAGE ON SCHEMA trio_hub TO visitor"):
        open_postgres(url, owner="visitor")
    postgres_server.sql(f"GRANT USAGE ON SCHEMA trio_hub TO {user}", name)
    postgres_server.sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA trio_hub TO {user}", name)
    with pytest.raises(ConfigError, match=r"no right to INSERT batches.*GRANT ALL ON ALL TABLES"):
        open_postgres(url, owner="visitor")
    postgres_server.sql(f"GRANT ALL ON ALL TABLES IN SCHEMA trio_hub TO {user}", name)
    with pytest.raises(ConfigError, match=r"no right to use the sequences.*GRANT ALL ON ALL SEQUENCES"):
        open_postgres(url, owner="visitor")
    postgres_server.sql(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA trio_hub TO {user}", name)
    backend = open_postgres(url, owner="visitor")
    backend.write(add(finished("a", stdout="x", buffers=[b"x" * SMALL])))
    assert ids(backend) == ["a"]
    assert drop(backend, Query.everything()) == 1
    backend.close()


def test_a_user_with_a_schema_needs_no_right_to_create_one(
    postgres_server: Server, postgres_url: str, user: str
) -> None:
    name = database_of(postgres_url)
    postgres_server.sql(f"CREATE SCHEMA trio_hub AUTHORIZATION {user}", name)
    open_postgres(postgres_server.url(name, user, SECRET), owner="visitor").close()


def test_what_cannot_be_opened_is_told_without_the_password(
    postgres_server: Server, postgres_url: str, user: str
) -> None:
    sockets = postgres_server.sockets
    for url, told in (
        (postgres_server.url("postgres", user, "wr0ng"), "password authentication failed.*user and password are right"),
        (postgres_server.url("nowhere", "postgres", "wr0ng"), '"nowhere" does not exist.*createdb'),
        ("postgresql://u:wr0ng@host.invalid/db?connect_timeout=5", r"postgresql://u@host\.invalid/db.*check that"),
        ("postgresql://u:wr0ng@.bad/db", r"postgresql://u@\.bad/db"),
        (f"postgresql://u:wr0ng@/db?host={sockets}&port=1", "cannot be opened: .*check that its server runs"),
        ("postgresql://u:wr0ng@127.0.0.1:1/db", "Connection refused"),
        ("postgresql://u:wr0%zzng@host/db", r"://…@host/db.*%40 \(@\)"),
        ("postgresql://u:wr0@ng@host.invalid/db?connect_timeout=5", "@host.invalid/db"),
        ("postgresql://u:wr0/ng@.host/db", r"@\.host/db"),
        ("postgresql://u:1/wr0ng@.host/db", r"@\.host/db"),
        ("postgresql://u:wr0?ng@.host/db", r"@\.host/db"),
        ("postgresql:///db?password=wr0ng&nonsense=1", "password=…&nonsense"),
        ("mysql://u:wr0ng@host/db", r"'mysql://…@host/db' is no URL of a PostgreSQL"),
    ):
        with pytest.raises(ConfigError, match=told) as caught:
            open_postgres(url, owner="hub")
        everything = f"{caught.value} {caught.value.__cause__}"
        assert "wr0" not in everything, url
        assert "ng@" not in everything, url


@pytest.mark.parametrize("owner", ["", "x" * 201])
def test_owners_have_names(owner: str) -> None:
    with pytest.raises(ConfigError, match="owner"):
        open_postgres("postgresql:///", owner=owner)


def test_without_psycopg_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"pip install 'psycopg\[binary\]'"):
        open_postgres("postgresql:///", owner="hub")


def test_other_encodings_are_refused(postgres_server: Server) -> None:
    postgres_server.sql("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(ConfigError, match=r"encoded as LATIN1.*createdb --encoding=UTF8"):
        open_postgres(postgres_server.url("latin"), owner="hub")
    postgres_server.sql("DROP DATABASE latin")


# When the server fails


def cut(server: Server, url: str) -> None:
    """Cut all connections to a database."""
    server.sql(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        f" WHERE datname = '{database_of(url)}' AND pid <> pg_backend_pid()"
    )


def test_a_server_that_restarts(postgres_server: Server, postgres_url: str, backend: PostgresBackend) -> None:
    backend.write(add(finished("a")))
    changes = [*add(make("b")), Change("a", appended={"stdout": ["x"]})]
    postgres_server.stop("fast")
    for _ in range(2):
        with pytest.raises(StoreError, match=r"check that it runs .*keeps the records in memory, and tries again"):
            backend.write(changes)
    with pytest.raises(StoreError):
        drop(backend, Query.everything())
    with pytest.raises(StoreError):
        backend.trim(Retention(records=0), at(0))
    with pytest.raises(StoreError):
        backend.size()
    reader = backend.reader()
    with pytest.raises(StoreError):
        reader.begin()
    reader.end()
    postgres_server.start()
    backend.write(changes)
    assert ids(backend) == ["a", "b"]
    assert get(backend, "a").stdout == "x"
    reader.begin()
    assert len(reader.history()) == 2
    reader.close()


def test_a_connection_that_was_cut(postgres_server: Server, postgres_url: str, backend: PostgresBackend) -> None:
    reader = backend.reader()
    reader.begin()
    cut(postgres_server, postgres_url)
    with pytest.raises(StoreError, match="cannot be used now"):
        reader.history()
    with pytest.raises(StoreError, match="try again"):
        reader.history()
    reader.end()
    with pytest.raises(StoreError, match="cannot be used now"):
        backend.write(add(make("a")))
    backend.write(add(make("a")))
    reader.begin()
    assert [msg_id for _, msg_id in reader.history()] == ["a"]
    reader.end()
    cut(postgres_server, postgres_url)
    # no query was interrupted, so nothing is logged
    reader.begin()
    assert len(reader.get(["a"])) == 1
    reader.close()
    cut(postgres_server, postgres_url)
    backend.close()


def break_commit(
    monkeypatch: pytest.MonkeyPatch, server: Server, url: str, *, done: bool, unreachable: int = 0
) -> None:
    """The next commit of a write breaks its connection, after or before the server carried it out.

    After that, so many attempts to connect fail.
    """
    commit, connect = psycopg.Connection.commit, psycopg.connect
    failures = [0]

    def broken(connection: psycopg.Connection[Any]) -> None:
        monkeypatch.setattr(psycopg.Connection, "commit", commit)
        failures[0] = unreachable
        if done:
            commit(connection)
        cut(server, url)
        raise psycopg.OperationalError("cut in the middle")

    def failing(*args: Any, **kwargs: Any) -> Any:
        if failures[0] and kwargs.get("application_name"):
            failures[0] -= 1
            raise psycopg.OperationalError("unreachable")
        return connect(*args, **kwargs)

    monkeypatch.setattr(psycopg.Connection, "commit", broken)
    monkeypatch.setattr(psycopg, "connect", failing)


@pytest.mark.parametrize("unreachable", [0, 1, 2])
@pytest.mark.parametrize("done", [True, False])
def test_a_batch_is_not_carried_out_twice(
    monkeypatch: pytest.MonkeyPatch,
    postgres_server: Server,
    postgres_url: str,
    backend: PostgresBackend,
    done: bool,
    unreachable: int,
) -> None:
    backend.write(add(make("a", stdout="0"), make("b"), make("c")))
    changes = [
        Change("a", appended={"stdout": ["1", "2"]}),
        Change("b", changes={"stderr": "x"}, appended={"stderr": ["y"]}),
        Change("c", appended={"stdout": ["z"]}),
        *add(make("d")),
    ]
    break_commit(monkeypatch, postgres_server, postgres_url, done=done, unreachable=unreachable)
    attempts = 0
    while True:
        try:
            backend.write(changes)
            break
        except StoreError:
            attempts += 1
            # more has come in the meantime
            changes[0].appended["stdout"].append("3")
            changes[0].appended.setdefault("stderr", []).append("e")
    assert attempts == (unreachable if done else max(1, unreachable))
    record = get(backend, "a")
    assert record.stdout == "012" + "3" * attempts
    assert record.stderr == "e" * attempts
    assert get(backend, "b").stderr == "xy"
    assert get(backend, "c").stdout == "z"
    # the same text counts as a new error when it occurs again
    backend.write([Change("a", appended={"stdout": ["12"]}), Change("c", appended={"stdout": ["z"]})])
    assert get(backend, "a").stdout == "012" + "3" * attempts + "12"
    assert get(backend, "c").stdout == "zz"


def test_a_batch_in_doubt_may_come_in_parts(
    monkeypatch: pytest.MonkeyPatch, postgres_server: Server, postgres_url: str, backend: PostgresBackend
) -> None:
    backend.write(add(make("a"), make("b")))
    changes = [Change("a", appended={"stdout": ["1"]}), Change("b", appended={"stdout": ["2"]})]
    break_commit(monkeypatch, postgres_server, postgres_url, done=True, unreachable=1)
    with pytest.raises(StoreError):
        backend.write(changes)
    for change in changes:
        backend.write([change])
    assert (get(backend, "a").stdout, get(backend, "b").stdout) == ("1", "2")


def test_a_commit_that_is_still_under_way_is_ended(
    monkeypatch: pytest.MonkeyPatch, postgres_server: Server, postgres_url: str, backend: PostgresBackend
) -> None:
    """The client believes that the connection is dead; the server does not know that yet."""
    backend.write(add(make("a")))
    commit = psycopg.Connection.commit
    kept: list[psycopg.Connection[Any]] = []

    def silent(connection: psycopg.Connection[Any]) -> None:
        monkeypatch.setattr(psycopg.Connection, "commit", commit)
        kept.append(connection)
        raise psycopg.OperationalError("nothing came back")

    def lost(link: LastingConnection) -> None:
        monkeypatch.setattr(LastingConnection, "close", close)
        link._connection = None

    close = LastingConnection.close
    monkeypatch.setattr(psycopg.Connection, "commit", silent)
    monkeypatch.setattr(LastingConnection, "close", lost)
    changes = [Change("a", appended={"stdout": ["1"]})]
    with pytest.raises(StoreError, match="nothing came back"):
        backend.write(changes)
    with pytest.raises(psycopg.OperationalError):
        commit(kept[0])
    kept[0].close()
    backend.write(changes)
    assert get(backend, "a").stdout == "1"


def test_what_the_server_refuses_changes_nothing(postgres_url: str, backend: PostgresBackend) -> None:
    backend.write(add(make("a")))
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE trio_hub.output RENAME TO elsewhere")
        with pytest.raises(StoreError, match=r"does not exist .*restart the hub"):
            backend.write([*add(make("b")), Change("a", appended={"stdout": ["x"]})])
        connection.execute("ALTER TABLE trio_hub.elsewhere RENAME TO output")
    assert ids(backend) == ["a"]
    backend.write([*add(make("b")), Change("a", appended={"stdout": ["x"]})])
    assert get(backend, "a").stdout == "x"


def test_a_standby_is_refused(postgres_server: Server, postgres_url: str, backend: PostgresBackend) -> None:
    name = database_of(postgres_url)
    postgres_server.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    cut(postgres_server, postgres_url)
    for told in ("cannot be used now", "point the hub at the primary"):
        with pytest.raises(StoreError, match=told):
            backend.write(add(make("a")))
    postgres_server.sql(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    backend.write(add(make("a")))
    assert ids(backend) == ["a"]


# The server of these tests


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_without_a_server_ci_fails(monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(server_module, "find_binaries", lambda: None)
    with pytest.raises(outcome, match="apt-get install postgresql"):
        server_module.needed_binaries()


def test_the_server_ends_with_the_process_that_started_it(postgres_server: Server) -> None:
    """The server ends even if that process is killed, and has no time to clean up."""
    script = """if True:
        import os, signal, sys, tempfile
        from pathlib import Path
        from tests.databases.server import Server

        server = Server(Path(sys.argv[1]), Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp")))
        with server.watched() as watcher:
            server.create()
            server.start()
            pid = (server.data / "postmaster.pid").read_text().split()[0]
            print(watcher, pid, server.directory, flush=True)
            sys.stdin.read()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    with subprocess.Popen(
        [sys.executable, "-c", script, postgres_server.binaries],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        watcher, pid, directory = process.stdout.readline().split()
        descriptors = [os.pidfd_open(int(each)) for each in (watcher, pid)]
        process.communicate()
    for descriptor in descriptors:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(60_000), "it runs on"
        os.close(descriptor)
    assert not Path(directory).exists()
