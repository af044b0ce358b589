"""The store in memory: its limits and sizes, and that other tasks have their turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

import pytest
import trio
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trio_hub.errors import ConfigError
from trio_hub.records import RECORD_KEYS, MemoryStore, Query, memory, parse_query
from trio_hub.records.interface import no_checkpoint
from trio_hub.records.memory import SLICE
from trio_hub.records.record import TaskRecord

from ..databases.contract import at, finished, make
from . import oracle
from .strategies import packed

T = TypeVar("T")


def test_records_are_culled_in_the_order_in_which_the_hub_heard_of_their_ends() -> None:
    """The order is that of ``received``: ``completed`` is by the engine's clock, which may be wrong."""
    store = MemoryStore(max_records=2)
    for number, completed in enumerate((3, -99_999, 99_999, 1)):
        store.add(make(str(number)))
        store.update(str(number), {"completed": at(completed)})
    assert at_once(store.history()) == ["2", "3"]


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of an async function that does not wait."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise AssertionError("it waits")


def ids(store: MemoryStore) -> list[str]:
    return at_once(store.history())


# Bounds


def test_the_first_finished_go_first() -> None:
    store = MemoryStore(max_records=2)
    for msg_id in "abcd":
        store.add(make(msg_id))
    for msg_id in "bda":
        store.update(msg_id, {"completed": at(1)})
    assert ids(store) == ["a", "c", "d"]
    store.add(make("e"))
    assert ids(store) == ["a", "c", "d", "e"]
    store.add(finished("f"))
    assert set(ids(store)) == {"a", "c", "e", "f"}
    assert store.culled == 2


def test_unfinished_tasks_are_never_culled_and_crowd_out_no_result() -> None:
    store = MemoryStore(max_records=2, max_bytes=250)
    for number in range(10):
        store.add(make(str(number), buffers=[b"x" * 100]))
    store.add(finished("done"))
    assert len(store) == 11
    assert (store.total_bytes, store.finished_bytes) == (1000, 0)
    for number in range(10):
        store.update(str(number), {"completed": at(number)})
    assert set(ids(store)) == {"8", "9"}
    assert (store.total_bytes, store.finished_bytes, store.culled) == (200, 200, 9)


def test_a_task_that_is_taken_up_again_is_unfinished_again() -> None:
    store = MemoryStore(max_records=1)
    store.add(finished("a"))
    store.update("a", {"completed": None})
    store.add(finished("b"))
    assert ids(store) == ["a", "b"]
    store.update("a", {"completed": at(2)})
    assert ids(store) == ["a"]


def test_finishing_twice_does_not_make_it_younger() -> None:
    store = MemoryStore(max_records=2)
    store.add(finished("a"))
    store.add(finished("b"))
    store.update("a", {"completed": at(9)})
    store.add(finished("c"))
    assert ids(store) == ["b", "c"]


@pytest.mark.parametrize(
    ("msg_id", "changes"),
    [("a", {"result_buffers": (b"x" * 50,)}), ("b", {"result_content": b"{" + b" " * 60 + b"}", "completed": at(3)})],
)
def test_growing_beyond_the_bound_in_bytes_culls(msg_id: str, changes: dict[str, Any]) -> None:
    store = MemoryStore(max_bytes=100)
    store.add(finished("a", buffers=[b"x" * 60]))
    store.add(make("b"))
    store.update(msg_id, changes)
    assert ids(store) == ["b"]


def test_output_counts_as_utf_8() -> None:
    store = MemoryStore(max_bytes=9)
    store.add(finished("a", stdout="1"))
    store.append("a", "stdout", "é")
    store.append("a", "stderr", "\ud800")
    store.update("a", {"execute_input": "日"})
    assert (store.total_bytes, store.culled) == (9, 0)
    store.append("a", "stderr", "!")
    assert (store.total_bytes, store.culled) == (0, 1)


def test_a_value_of_a_wrong_type_changes_nothing() -> None:
    store = MemoryStore()
    store.add(make("a", queue="task"))
    with pytest.raises(TypeError):
        store.update("a", {"queue": "mux", "buffers": 3})
    assert store.total_bytes == 0
    assert at_once(store.get(["a"]))["a"].queue == "task"


@pytest.mark.parametrize(("max_records", "max_bytes"), [(0, 1), (1, -1)])
def test_bounds_are_positive(max_records: int, max_bytes: int) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        MemoryStore(max_records, max_bytes)


# Taking turns


def filled(checkpoint: Any, count: int) -> MemoryStore:
    store = MemoryStore(checkpoint=checkpoint)
    for number in range(count):
        store.add(finished(str(number), queue="task", submitted=at(number)))
    return store


async def test_long_reads_let_others_run() -> None:
    store = filled(trio.lowlevel.checkpoint, 4 * SLICE)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        for read, least in [
            (store.find(parse_query({"queue": "mux"})), 3),
            (store.find(parse_query({"queue": "task"})), 30),
            (store.get(await store.history()), 3),
            (store.drop(Query.everything()), 3),
        ]:
            turns = 0
            await read
            assert turns >= least
        nursery.cancel_scope.cancel()
    assert len(store) == 0


# The cost of a query


@pytest.mark.parametrize(
    ("query", "looked_at"),
    [
        ({"msg_id": "7"}, 1),
        ({"msg_id": {"$in": ["7", "1000", "never"]}, "queue": "task"}, 2),
        ({"msg_id": {"$in": []}}, 0),
        ({"queue": "mux"}, 2000),
    ],
)
def test_a_query_looks_at_what_may_match_and_copies_only_what_does(
    query: dict[str, Any], looked_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(no_checkpoint, 2000)
    counts: Counter[str] = Counter()

    def counted(of: type, name: str) -> None:
        method = getattr(of, name)

        def call(*args: Any) -> Any:
            counts[name] += 1
            return method(*args)

        monkeypatch.setattr(of, name, call)

    for of, name in ((Query, "matches"), (TaskRecord, "as_dict"), (TaskRecord, "copy")):
        counted(of, name)
    found = at_once(store.find(parse_query(query), ["queue"]))
    assert counts["matches"] == looked_at
    assert counts["as_dict"] == len(found) == (looked_at if "msg_id" in query else 0)
    assert counts["copy"] == 0
    counts.clear()
    assert len(at_once(store.get(["3", "4", "never"]))) == 2
    assert counts == {"copy": 2}
    counts.clear()
    assert at_once(store.drop(parse_query(query))) == len(found)
    assert counts["matches"] == looked_at
    assert not counts["copy"]


def test_find_while_the_store_changes() -> None:
    async def change() -> None:
        # before the end of the first slice, nothing below 40 has gone
        store.add(finished(f"new{len(store)}", queue="task"))
        store.update("1999", {"queue": "mux"})
        await store.drop(Query.where(msg_id="1000"))
        store.add(finished("1001", queue="task", stdout="replaced"))
        await store.history()

    store = filled(None, 2000)
    store._checkpoint = change
    found = at_once(store.find(Query.where(queue="task"), ["stdout"]))
    expected = [str(number) for number in range(2000) if number not in (1000, 1001, 1999)]
    assert [values["msg_id"] for values in found] == expected


def test_drop_while_the_store_changes() -> None:
    async def change() -> None:
        store.update("1500", {"completed": None})
        store._checkpoint = other
        assert await store.drop(parse_query({"msg_id": {"$in": ["1600", "1700"]}})) == 2
        store.add(finished("new", queue="task", submitted=at(5000)))

    async def other() -> None:
        pass

    store = filled(None, 2000)
    store._checkpoint = change
    assert at_once(store.drop(Query.where(queue="task"))) == 1997
    assert ids(store) == ["1500", "new"]
    assert (len(store), store.culled) == (2, 0)


# Accounts


MSG_IDS = st.sampled_from("abcdefgh")
BUFFERS = st.none() | st.lists(st.sampled_from([b"", b"x" * 3, b"y" * 30]), max_size=2)
OUTPUT = st.sampled_from(["", "out", "é\n", "日本"])
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "header": st.none() | st.sampled_from([{}, {"a": "é"}, {"msg_type": "x" * 9}]),
        "buffers": BUFFERS,
        "result_buffers": BUFFERS,
        "submitted": st.none() | st.integers(0, 3).map(at),
        "completed": st.none() | st.integers(4, 6).map(at),
        "queue": st.sampled_from(["task", "mux"]),
        "stdout": OUTPUT,
        "execute_input": st.none() | OUTPUT,
        "label": st.just("not counted"),
    },
)


def size_of(values: dict[str, Any]) -> int:
    record = packed(values)
    texts = [record.stdout, record.stderr, record.execute_input or ""]
    return record.buffer_bytes + len(record.header or b"") + sum(len(text.encode()) for text in texts)


class Accounts(RuleBasedStateMachine):
    """Compares a small store with a simple model: a list of decoded records in the order of arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore(max_records=4, max_bytes=80)
        self.model: list[dict[str, Any]] = []
        self.done: list[str] = []  # msg_ids of finished tasks, first finished first
        self.culled = 0

    def settle(self) -> None:
        for values in self.model:
            if values["completed"] and values["msg_id"] not in self.done:
                self.done.append(values["msg_id"])
        alive = {values["msg_id"] for values in self.model if values["completed"]}
        self.done = [msg_id for msg_id in self.done if msg_id in alive]
        while len(self.done) > 4 or self.finished_bytes() > 80:
            gone = self.done.pop(0)
            self.model = [values for values in self.model if values["msg_id"] != gone]
            self.culled += 1

    def finished_bytes(self) -> int:
        return sum(size_of(values) for values in self.model if values["completed"])

    def named(self, msg_id: str) -> list[dict[str, Any]]:
        return [values for values in self.model if values["msg_id"] == msg_id]

    @rule(msg_id=MSG_IDS, changes=CHANGES)
    def add(self, msg_id: str, changes: dict[str, Any]) -> None:
        record = make(msg_id, **changes)
        self.store.add(record)
        record.update({"buffers": (b"changed" * 100,), "completed": at(0)})  # is none of the store's business
        self.model = [values for values in self.model if values["msg_id"] != msg_id]
        self.done = [each for each in self.done if each != msg_id]
        self.model.append(make(msg_id, **changes).as_dict())
        self.settle()

    @rule(msg_id=MSG_IDS, changes=CHANGES)
    def update(self, msg_id: str, changes: dict[str, Any]) -> None:
        record = make(msg_id, **changes)
        self.store.update(msg_id, {key: getattr(record, key) for key in changes})
        for values in self.named(msg_id):
            values.update(changes)
        self.settle()

    @rule(msg_id=MSG_IDS, key=st.sampled_from(["stdout", "stderr"]), text=OUTPUT)
    def append(self, msg_id: str, key: str, text: str) -> None:
        self.store.append(msg_id, key, text)
        for values in self.named(msg_id):
            values[key] += text
        self.settle()

    @rule(query=st.sampled_from([{}, {"queue": "task"}, {"msg_id": {"$in": ["a", "b"]}}, {"stdout": "out"}]))
    def drop(self, query: dict[str, Any]) -> None:
        going = [each for each in self.model if each["completed"] and oracle.matches(query, each)]
        assert at_once(self.store.drop(parse_query(query))) == len(going)
        self.model = [values for values in self.model if values not in going]
        self.settle()

    # Reading is a rule and no invariant, so that many changes come upon each other without it.
    @precondition(lambda self: self.model)
    @rule()
    def read(self) -> None:
        records = at_once(self.store.get("abcdefgh"))
        assert {key: record.as_dict() for key, record in records.items()} == {
            values["msg_id"]: values for values in self.model
        }
        found = at_once(self.store.find(Query.everything(), RECORD_KEYS))
        assert found == oracle.in_order(self.model)

    @invariant()
    def counts_are_exact(self) -> None:
        assert len(self.store) == len(self.model)
        assert self.store.total_bytes == sum(map(size_of, self.model))
        assert self.store.finished_bytes == self.finished_bytes()
        assert self.store.culled == self.culled

    @invariant()
    def what_is_there_is_there_in_order(self) -> None:
        assert ids(self.store) == [values["msg_id"] for values in oracle.in_order(self.model)]

    @invariant()
    def bounds_hold_for_what_is_finished(self) -> None:
        assert len(self.done) <= 4
        assert self.store.finished_bytes <= 80


TestAccounts = pytest.mark.property(Accounts.TestCase)


class Looked(dict[str, Any]):
    """The records of a store. Counts how many are looked up, or sorted."""

    number = 0

    def __getitem__(self, msg_id: str) -> Any:
        self.number += 1
        return super().__getitem__(msg_id)

    def values(self) -> NoReturn:
        raise AssertionError("all records were read")


async def test_recent_looks_only_at_what_it_returns_and_at_late_records() -> None:
    store = MemoryStore()
    for number in range(2000):
        store.add(make(str(number), submitted=at(number)))
    store.add(make("late", submitted=at(1998.5)))
    store.update("7", {"submitted": at(1997.5)})
    looked = store._records = Looked(store._records)
    assert await store.recent(4) == ["1999", "late", "1998", "7"]
    assert await store.recent(2, "1998") == ["7", "1997"]
    assert await store.count() == 2001
    assert looked.number < 20


async def test_many_late_records_are_sorted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_LATE", 3)
    store = MemoryStore()
    for number in range(9, 0, -1):
        store.add(make(str(number), submitted=at(number)))
    assert await store.recent(3) == ["9", "8", "7"]
    looked = store._records = Looked(store._records)
    assert await store.recent(3, "8") == ["7", "6", "5"]
    store.add(make("0", submitted=at(0)))
    store.add(make("last", submitted=at(10)))
    store.discard("0")
    assert await store.recent(2) == ["last", "9"]
    assert looked.number < 20
    store.add(make("0", submitted=at(0)))
    with pytest.raises(AssertionError, match="all records"):
        await store.history()
