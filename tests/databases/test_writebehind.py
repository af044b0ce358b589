"""Writing records in batches, in a thread: which records can be lost, and what readers see meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.databases.contract import at, finished, make, open_writer
from tests.databases.fake import FakeBackend
from tests.databases.sequences import steps, take
from trio_hub.cli.logs import TextFormatter
from trio_hub.databases import calls, layers, writer
from trio_hub.databases.backend import Change, Retention
from trio_hub.databases.backlog import Backlog
from trio_hub.databases.batches import NOBODY
from trio_hub.databases.layers import Layer
from trio_hub.databases.readers import OWN_READERS, USERS_READERS
from trio_hub.databases.retention import TRIM_EVERY, TRIM_PAUSE
from trio_hub.databases.writebehind import FLUSHES, WriteBehindStore
from trio_hub.databases.writer import AFTER_COMMIT, LAYERS
from trio_hub.errors import StoreError
from trio_hub.records import MemoryStore, Query

from ..runtime.support import eventually, within_limit

MIB = 1 << 20


@asynccontextmanager
async def closing(backend: FakeBackend, **settings: Any) -> AsyncIterator[WriteBehindStore]:
    """A writer whose task does not run, so that only `flush` writes."""
    store = WriteBehindStore(backend, **settings)
    async with within_limit():
        try:
            yield store
        finally:
            with trio.CancelScope(shield=True):
                await store.aclose()
    assert backend.closed
    assert not backend.readers
    assert not backend.busy


@asynccontextmanager
async def at_work(backend: FakeBackend, **settings: Any) -> AsyncIterator[WriteBehindStore]:
    async with within_limit(), open_writer(backend, **({"delay": 0} | settings)) as store:
        try:
            yield store
        finally:
            backend.gate.set()
            backend.read_gate.set()
            backend.find_gate.set()
    assert backend.closed
    assert not backend.readers


async def sleeps_for(seconds: float) -> None:
    """Wait until nothing will happen for so long, by a `MockClock`."""

    def next_deadline() -> float:
        return trio.lowlevel.current_statistics().seconds_to_next_deadline

    await eventually(lambda: next_deadline() == pytest.approx(seconds))


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [TextFormatter().format(record) for record in caplog.records if record.levelno >= logging.WARNING]


# Batches


async def test_what_comes_while_a_batch_is_written_is_the_next_batch() -> None:
    backend = FakeBackend()
    async with at_work(backend) as store:
        backend.gate.clear()
        store.add(make("a"))
        await eventually(lambda: backend.entered == 1)
        for msg_id in "bcb":
            store.add(make(msg_id))
        store.update("a", {"queue": "task"})
        await trio.testing.wait_all_tasks_blocked()
        assert backend.entered == 1
        assert store.statistics().pending == 3
        backend.gate.set()
        await store.flush()
        assert backend.batches == [["a"], ["c", "b", "a"]]
        assert (
            store.statistics().batches,
            store.statistics().written,
            store.statistics().pending,
            store.statistics().pending_bytes,
            store.statistics().lag,
        ) == (2, 4, 0, 0, 0)


async def test_a_change_waits_for_others_for_so_long(mock_clock: trio.testing.MockClock) -> None:
    backend = FakeBackend()
    async with at_work(backend, delay=0.05) as store:
        store.add(make("a"))
        await sleeps_for(0.05)
        mock_clock.jump(0.04)
        await sleeps_for(0.01)
        store.add(make("b"))
        assert store.statistics().lag == pytest.approx(0.04)
        assert backend.entered == 0
        mock_clock.jump(0.011)
        await eventually(lambda: store.statistics().pending == 0)
        assert backend.batches == [["a", "b"]]


async def test_a_large_backlog_is_written_without_delay(mock_clock: trio.testing.MockClock) -> None:
    backend = FakeBackend()
    async with at_work(backend, delay=0.05, max_backlog=1 << 20) as store:
        store.add(make("a"))
        await sleeps_for(0.05)
        store.update("a", {"result_buffers": (bytes(1 << 18),)})
        await eventually(lambda: store.statistics().pending == 0)
        assert not store.crowded
        store.add(make("b", buffers=(bytes(1 << 18),)))
        await eventually(lambda: store.statistics().pending == 0)
        store.add(make("c"))
        await sleeps_for(0.05)
        assert backend.batches == [["a"], ["b"]], "what is small waits again"


async def test_many_flushes_at_once_are_one_commit() -> None:
    backend = FakeBackend()
    async with closing(backend) as store, trio.open_nursery() as nursery:
        for number in range(10):
            store.add(make(str(number)))
            nursery.start_soon(store.flush)
    assert len(backend.batches) == 1


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ("add a, update a", "add a queue=2"),
        ("update a, update a", "change a queue=2"),
        ("update a, add a", "add a"),
        ("add a, add b, add a", "add b, add a"),
        ("add a, update b, update a", "add a queue=3, change b queue=2"),
        ("add a, append a, append a", "add a +xx"),
        ("append a, append a", "change a +xx"),
        ("append a, reset a, append a", "change a stdout=0+x"),
        ("add a, append a, reset a, append a", "add a +0x"),
        ("append a, add a", "add a"),
        ("add a, discard a", "remove a"),
        ("discard a, update a, append a", "remove a"),
        ("discard a, add a, update a", "add a queue=3"),
    ],
)
@pytest.mark.parametrize("frozen", [False, True], ids=["in one layer", "in a layer each"])
async def test_changes_of_one_record_are_merged(calls: str, expected: str, frozen: bool) -> None:
    backend = FakeBackend()
    async with closing(backend) as store:
        for number, call in enumerate(calls.split(", "), 1):
            what, msg_id = call.split()
            match what:
                case "add":
                    store.add(make(msg_id))
                case "update":
                    store.update(msg_id, {"queue": str(number)})
                case "reset":
                    store.update(msg_id, {"stdout": "0"})
                case "append":
                    store.append(msg_id, "stdout", "x")
                case _:
                    store.discard(msg_id)
            if frozen:
                await store.history()
        await store.flush()
        assert len(backend.batches) == 1
        assert ", ".join(map(described, backend.changes)) == expected


def described(change: Change) -> str:
    if change.removed:
        return f"remove {change.msg_id}"
    record = change.record
    told = f"{'change' if record is None else 'add'} {change.msg_id}"
    queue = change.changes.get("queue") if record is None else record.queue
    if queue:
        told += f" queue={queue}"
    if "stdout" in change.changes:
        told += f" stdout={change.changes['stdout']}"
    output = "".join(change.appended.get("stdout", ())) if record is None else record.stdout
    if output:
        told += f"{'' if 'stdout' in change.changes else ' '}+{output}"
    return told


# Reading


@pytest.mark.property
@given(steps=steps(failing=True), running=st.booleans())
async def test_readers_see_what_was_written_whether_it_is_in_the_database_or_not(
    steps: list[tuple[Any, ...]], running: bool
) -> None:
    backend, oracle = FakeBackend(), MemoryStore()
    async with at_work(backend) if running else closing(backend) as store:
        for step in [*steps, ("history",), ("find", {}), ("work",), ("flush",), ("history",), ("find", {})]:
            match step:
                case ["fail"]:
                    backend.failing = "the disk is full"
                case ["work"]:
                    backend.failing = None
                case ["flush"] if backend.failing and store.statistics().pending:
                    with pytest.raises(StoreError, match="full"):
                        await take(step, store, oracle)
                case ["drop", _] if backend.failing:
                    try:
                        await take(step, store, oracle)
                    except StoreError as error:
                        if "full" not in str(error):
                            raise
                    else:
                        assert not store.statistics().pending, "nothing was to be written, and nothing to be dropped"
                case _:
                    await take(step, store, oracle)
        assert store.statistics().not_persisted == 0


async def test_a_reader_sees_one_moment_whatever_is_committed_while_it_reads() -> None:
    backend = FakeBackend()
    async with at_work(backend, delay=3600) as store:
        for msg_id in "ab":
            store.add(make(msg_id, queue="task"))
        await store.flush()
        store.update("a", {"queue": "mux"})
        backend.read_gate.clear()
        async with trio.open_nursery() as nursery:
            answers: list[Any] = []

            async def ask() -> None:
                answers.append(await store.find(Query.everything(), ["queue"]))

            nursery.start_soon(ask)
            await eventually(lambda: backend.reading == 1)
            store.update("a", {"queue": "later"})
            store.update("b", {"queue": "later"})
            store.discard("b")
            await store.flush()
            backend.read_gate.set()
        assert answers == [[{"msg_id": "a", "queue": "mux"}, {"msg_id": "b", "queue": "task"}]]
        assert await store.history() == ["a"]


async def test_many_questions_leave_no_more_than_some_layers() -> None:
    backend = FakeBackend()
    async with closing(backend) as store:
        for number in range(5 * LAYERS):
            store.add(make(f"{number:03}", submitted=at(0)))
            store.append("000", "stdout", "x")
            await store.history()
            assert len(store._pending.layers()) <= LAYERS
        assert store.statistics().pending == 5 * LAYERS
        assert (await store.get(["000"]))["000"].stdout == "x" * 5 * LAYERS
        called: list[int] = []
        store.after_commit(lambda: called.append(1))
        await store.flush()
        assert called == [1]


async def test_a_few_readers_are_opened_when_needed_and_used_again() -> None:
    backend = FakeBackend()
    async with closing(backend) as store:
        store.add(finished("a"))
        await store.flush()
        assert backend.opened == 0
        for _ in range(3):
            assert await store.history() == ["a"]
        assert backend.opened == 1
        backend.read_gate.clear()
        order: list[int] = []

        async def ask(number: int) -> None:
            await store.history()
            order.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(USERS_READERS + 3):
                nursery.start_soon(ask, number)
                await trio.testing.wait_all_tasks_blocked(0.005)
            await eventually(lambda: backend.opened >= USERS_READERS)  # a thread opens each
            assert backend.opened == USERS_READERS
            backend.read_gate.set()
        assert sorted(order) == list(range(USERS_READERS + 3))
        assert len(backend.readers) == USERS_READERS


@pytest.mark.parametrize("where", ["begin", "the disk is gone"])
async def test_a_reader_that_fails_is_not_used_again(where: str) -> None:
    backend = FakeBackend()
    async with closing(backend) as store:
        store.add(finished("a"))
        await store.flush()
        await store.history()
        backend.unreadable = where
        for question in (
            lambda: store.history(),
            lambda: store.get(["a"]),
            lambda: store.find(Query.everything()),
            lambda: store.unfinished(),
            lambda: store.undelivered(timedelta(1)),
        ):
            with pytest.raises(StoreError, match=where):
                await question()
        assert not backend.readers
        backend.unreadable = None
        assert await store.history() == ["a"]


async def test_a_reader_that_has_lost_its_database_meanwhile_is_replaced_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = FakeBackend()
    async with closing(backend) as store:
        assert await store.history() == []
        (old,) = backend.readers

        def begin() -> None:
            raise StoreError("the server was started again")

        monkeypatch.setattr(old, "begin", begin)
        assert await store.history() == []
        assert backend.opened == 2
        assert old not in backend.readers


async def test_who_is_cancelled_while_reading_is_interrupted_and_its_reader_closed() -> None:
    backend = FakeBackend()
    async with closing(backend) as store:
        store.add(finished("a"))
        backend.read_gate.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.history)
            await eventually(lambda: backend.reading == 1)
            nursery.cancel_scope.cancel()
        assert not backend.readers
        backend.read_gate.set()
        assert await store.history() == ["a"]
        assert (backend.opened, len(backend.readers)) == (2, 1)


async def test_users_questions_do_not_hold_up_those_of_the_hub() -> None:
    backend = FakeBackend()
    async with at_work(backend) as store, trio.open_nursery() as nursery:
        store.add(make("a"))
        await store.flush()
        backend.find_gate.clear()
        for _ in range(2 * USERS_READERS):
            nursery.start_soon(quietly, partial(store.find, Query.everything()))
        await eventually(lambda: backend.opened == USERS_READERS)
        for _ in range(2 * OWN_READERS):
            assert list(await store.fetch(["a"])) == ["a"]
        assert [record.msg_id for record in await store.unfinished()] == ["a"]
        assert await store.notes() == []
        nursery.cancel_scope.cancel()


async def test_reading_goes_on_while_a_batch_is_written() -> None:
    backend = FakeBackend()
    async with at_work(backend) as store:
        store.add(make("a"))
        store.append("a", "stdout", "x")
        await store.flush()
        backend.gate.clear()
        store.append("a", "stdout", "y")
        await eventually(lambda: backend.entered == 2)
        store.append("a", "stdout", "z")
        for _ in range(LAYERS + 2):
            assert (await store.fetch(["a"]))["a"].stdout == "xyz"
            store.append("a", "stderr", "!")
        backend.gate.set()
        await store.flush()
        record = (await store.get(["a"]))["a"]
        assert (record.stdout, record.stderr) == ("xyz", "!" * (LAYERS + 2))


async def test_what_was_just_committed_is_not_seen_twice() -> None:
    """A reader begins after a commit, and before the writer knows of the commit."""
    backend = FakeBackend()
    async with at_work(backend) as store:
        store.add(make("a"))
        await store.flush()
        seen: list[str] = []
        done = threading.Event()

        async def look() -> None:
            seen.append((await store.fetch(["a"]))["a"].stdout)
            done.set()

        def committing() -> None:
            trio.from_thread.run_sync(partial(nursery.start_soon, look))
            done.wait()

        async with trio.open_nursery() as nursery:
            backend.committing = committing
            store.append("a", "stdout", "x")
            await store.flush()
        assert seen == ["x"]
        backend.committing = lambda: None


async def test_the_hub_before() -> None:
    backend = FakeBackend()
    async with closing(backend) as store:
        store.add(make("a", content={"x": 1}, buffers=[b"x"]))
        store.add(finished("b", received=at(2), client_uuid="c"))
        (left,) = await store.unfinished()
        assert (left.msg_id, left.content, left.buffers) == ("a", None, None)
        assert await store.undelivered(timedelta(seconds=1)) == [("b", "c")]
        store.add(make("d"))
        backend.failing = "full"
        with pytest.raises(StoreError, match="full"):
            await store.unfinished()
        backend.failing = None


# Cancellation


async def test_cancelled_while_writing_it_finishes_that_and_the_end_writes_the_rest() -> None:
    backend = FakeBackend()
    async with within_limit():
        store = WriteBehindStore(backend, delay=0)
        called: list[str] = []
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            backend.gate.clear()
            store.add(make("a"))
            store.after_commit(lambda: called.append("a"))
            await eventually(lambda: backend.entered == 1)
            store.add(make("b"))
            store.after_commit(lambda: called.append("b"))
            nursery.cancel_scope.cancel()
            backend.gate.set()
        assert (backend.batches, called, store.statistics().pending) == ([["a"]], ["a"], 1)
        store.add(make("c"))
        await store.aclose()
        assert (backend.batches, called) == ([["a"], ["b", "c"]], ["a", "b"])
        assert store.statistics().not_persisted == 0


@pytest.mark.parametrize("delay", [0, 3600])
@pytest.mark.parametrize("failing", [None, "full"])
@pytest.mark.parametrize("steps_before", range(8))
async def test_cancelled_anywhere_nothing_is_lost_nor_written_twice(
    delay: float, failing: str | None, steps_before: int
) -> None:
    backend = FakeBackend(failing=failing)
    async with within_limit():
        store = WriteBehindStore(backend, delay=delay, keep=Retention(records=100))
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            for task in (store.flush, store.history, lambda: store.drop(Query.where(msg_id="x"))):
                nursery.start_soon(quietly, task)
            for number in range(steps_before):
                store.add(make(str(number)))
                store.append("0", "stdout", "x")
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        backend.failing = None
        await store.aclose()
    assert sorted(backend.kept) == list(map(str, range(steps_before)))
    assert all(backend.kept[msg_id].record.stdout == "x" * steps_before for msg_id in list(backend.kept)[:1])
    assert not backend.readers


async def quietly(work: Callable[[], Any]) -> None:
    with suppress(StoreError):
        await work()


# A database that fails


async def test_while_it_fails_all_is_kept_and_it_is_tried_again_less_and_less_often(
    mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    backend = FakeBackend(failing="the disk is full; make room")
    async with at_work(backend) as store:
        store.add(make("a"))
        store.add(make("b"))
        for attempt, pause in enumerate([0.25, 0.5, 1, 2, 4, 5, 5], 1):
            await sleeps_for(pause)
            assert backend.entered == attempt
            store.update("a", {"queue": str(attempt)})
            mock_clock.jump(0.9 * pause)
            await sleeps_for(0.1 * pause)
            mock_clock.jump(0.1 * pause)
        await sleeps_for(5)
        assert (store.statistics().last_error, store.statistics().pending) == ("the disk is full; make room", 2)
        (told,) = errors(caplog)
        assert told.endswith('records=2 error="the disk is full; make room"')
        backend.failing = None
        await store.flush()
        assert backend.batches == [["a", "b"]]
        assert backend.kept["a"].record.queue == "7"
        assert errors(caplog)[1].endswith("the task database can be written again records=2 lost=0")
        assert (store.statistics().last_error, store.statistics().pending) == (None, 0)
        store.add(make("c"))  # for which there is no pause any more
        await eventually(lambda: store.statistics().pending == 0)
        assert store.statistics().not_persisted == 0


async def test_a_flush_tries_at_once_and_tells_why_it_failed() -> None:
    backend = FakeBackend(failing="the server is away")
    async with closing(backend) as store:
        await store.flush()  # there is nothing to flush
        store.add(make("a"))
        for _ in range(2):
            with pytest.raises(StoreError, match="the server is away"):
                await store.flush()
        assert backend.entered == 2
        with pytest.raises(StoreError, match="the server is away"):
            await store.drop(Query.everything())
        assert backend.drops == 0
        backend.failing = None
        await store.flush()


async def test_it_is_crowded_from_its_bound_on_until_a_quarter_is_gone() -> None:
    backend = FakeBackend()
    async with closing(backend, max_backlog=MIB) as store:
        assert not store.crowded
        for number in range(11):
            store.add(make(str(number), buffers=[bytes(100_000)]))
        assert store.statistics().pending_bytes > MIB
        assert store.crowded
        await store.flush()
        assert not store.crowded
        assert store.statistics().not_persisted == 0


def test_crowded_has_hysteresis() -> None:
    backlog = Backlog(MIB)

    def hold(size: int) -> None:
        """Set the size of the backlog, with one frozen layer in place of all others."""
        backlog.open = Layer({"b": Change("b")})
        backlog.replace(backlog.freeze(), {"a": Change("a")}, [size // 8] * 8)
        if backlog.weight > backlog.limit:
            backlog.grown()

    seen = []
    for size in (MIB * 7 // 8, MIB + 8, MIB * 7 // 8, MIB // 2, MIB * 7 // 8):
        hold(size)
        seen.append(backlog.crowded)
    assert seen == [False, True, True, False, False]


async def test_what_is_written_because_of_a_commit_is_flushed_too() -> None:
    backend = FakeBackend()
    async with closing(backend) as store:

        def again(number: int) -> None:
            store.add(make(str(number)))
            if number < 3:
                store.after_commit(lambda: again(number + 1))

        again(0)
        await store.flush_all()
        assert sorted(backend.kept) == ["0", "1", "2", "3"]
        assert store.statistics().pending == 0


async def test_what_never_ends_is_not_flushed_for_ever() -> None:
    async with closing(FakeBackend()) as store:

        def again() -> None:
            store.add(make("a"))
            store.after_commit(again)

        again()
        await store.flush_all()
        assert store.statistics().batches == FLUSHES


async def test_far_beyond_its_bound_the_oldest_finished_records_are_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = FakeBackend()
    async with closing(backend, max_backlog=MIB) as store:
        store.add(make("early"))
        await store.flush()
        backend.failing = "full"
        store.add(make("unfinished", buffers=[bytes(100_000)]))
        store.update("early", {"result_buffers": (bytes(100_000),), "completed": at(1)})
        for number in range(40):
            store.add(finished(f"{number:02}", result_buffers=[bytes(100_000)]))
            assert store.statistics().pending_bytes <= 2 * MIB
            if number % 7 == 0:
                with pytest.raises(StoreError):
                    await store.flush()
            if number % 5 == 0:
                await store.history()
        assert store.crowded
        there = await store.history()
        assert store.statistics().not_persisted + len(there) == 42
        lost = store.statistics().not_persisted - 1
        assert there == [*(f"{number:02}" for number in range(lost, 40)), "unfinished"]
        assert len([told for told in errors(caplog) if "given up" in told]) == 1
        backend.failing = None
        await store.flush()
        assert sorted(backend.kept) == sorted(there)
        assert store.statistics().not_persisted == lost + 1


async def test_unfinished_records_are_never_given_up_and_cost_no_search_each() -> None:
    async with closing(FakeBackend(), max_backlog=MIB) as store:
        for number in range(60):
            store.add(make(str(number), buffers=[bytes(100_000)]))
        assert (store.statistics().pending, store.statistics().not_persisted) == (60, 0)
        assert len(store._pending.layers()) < 40
        await store.flush()


async def test_what_the_database_cannot_hold_blocks_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    backend = FakeBackend(poison={"7", "31"})
    async with closing(backend) as store:
        for number in range(50):
            store.add(make(str(number), submitted=at(0)))
        called: list[int] = []
        store.after_commit(lambda: called.append(1))
        await store.flush()
        assert called == [1]
        assert list(backend.kept) == [str(number) for number in range(50) if number not in (7, 31)]
        assert (store.statistics().not_persisted, store.statistics().pending, store.statistics().written) == (2, 0, 48)
        (told,) = errors(caplog)
        assert told.endswith(
            "some records cannot be written to the task database, and are lost "
            'task=7 records=2 error="ValueError: 7 is no record"'
        )


async def test_a_culprit_that_is_alone_goes_too() -> None:
    backend = FakeBackend(poison={"a"})
    async with closing(backend) as store:
        store.add(make("a"))
        await store.flush()
        assert (store.statistics().not_persisted, backend.batches) == (1, [[NOBODY]])


async def test_a_database_that_fails_for_all_of_them_makes_no_culprits() -> None:
    backend = FakeBackend(poison={"a", NOBODY})
    async with closing(backend) as store:
        for msg_id in "abc":
            store.add(make(msg_id))
        with pytest.raises(StoreError, match=f"the task database failed: ValueError: {NOBODY} is no record"):
            await store.flush()
        assert (store.statistics().not_persisted, store.statistics().pending) == (0, 3)
        backend.poison.clear()
        await store.flush()
        assert list(backend.kept) == ["a", "b", "c"]


async def test_a_search_for_a_culprit_that_is_interrupted_keeps_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = FakeBackend(poison={"c"})
    original = backend.write

    def write(changes: list[Change]) -> None:
        if [change.msg_id for change in changes] == ["d"]:
            raise StoreError("just now")
        original(changes)

    monkeypatch.setattr(backend, "write", write)
    async with closing(backend) as store:
        for msg_id in "abcd":
            store.add(make(msg_id))
        with pytest.raises(StoreError, match="just now"):
            await store.flush()
        assert (list(backend.kept), store.statistics().pending, store.statistics().not_persisted) == (["a", "b"], 1, 1)
        monkeypatch.undo()
        await store.flush()
        assert list(backend.kept) == ["a", "b", "d"]


# After the commit


async def test_calls_come_after_their_batch_and_in_order(caplog: pytest.LogCaptureFixture) -> None:
    backend = FakeBackend()
    async with closing(backend) as store:
        called: list[Any] = []

        def call(name: str) -> Callable[[], None]:
            return lambda: called.append((name, sorted(backend.kept)))

        def nested() -> None:
            called.append("nested")
            store.after_commit(call("from within"))

        def broken() -> None:
            raise ValueError("broken")

        store.after_commit(call("at once"))
        assert called == [("at once", [])]
        store.add(make("a"))
        store.after_commit(call("1"))
        store.after_commit(broken)
        store.after_commit(nested)
        await store.history()  # the pending changes are in a separate layer now
        store.after_commit(call("2"))
        store.add(make("b"))
        store.after_commit(call("3"))
        backend.failing = "full"
        with pytest.raises(StoreError):
            await store.flush()
        store.after_commit(call("4"))
        assert len(called) == 1
        backend.failing = None
        await store.flush()
        both = ["a", "b"]
        assert called[1:] == [("1", both), "nested", ("2", both), ("3", both), ("4", both), ("from within", both)]
        assert "broken" in caplog.text
        assert store.failures == {AFTER_COMMIT: 1}
        store.after_commit(call("5"))
        assert called[-1] == ("5", both)


async def test_calls_wait_for_what_is_in_flight_only() -> None:
    backend = FakeBackend()
    async with at_work(backend) as store:
        called: list[str] = []
        backend.gate.clear()
        store.add(make("a"))
        await eventually(lambda: backend.entered == 1)
        store.after_commit(lambda: called.append("a"))
        store.add(make("b"))
        store.after_commit(lambda: called.append("b"))
        assert not called
        backend.gate.set()
        await eventually(lambda: len(called) == 2)
        assert called == ["a", "b"]


# Dropping, keeping, closing


async def test_what_is_written_while_records_are_dropped_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = FakeBackend()
    async with closing(backend) as store:
        store.add(finished("a"))
        original = backend.drop

        def drop(arrivals: Sequence[int]) -> int:
            trio.from_thread.run_sync(store.add, finished("b"))
            trio.from_thread.run_sync(store.append, "a", "stdout", "x")
            return original(arrivals)

        monkeypatch.setattr(backend, "drop", drop)
        assert await store.drop(Query.everything()) == 1
        assert await store.history() == ["b"]
        await store.flush()
        assert await store.history() == ["b"]


async def test_a_purge_lets_everybody_have_a_turn_between_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = FakeBackend()
    backend.write([Change(str(n), finished(str(n))) for n in range(200)])
    steps: list[int] = []
    committed_after: list[int] = []
    original = backend.drop

    def drop(arrivals: Sequence[int]) -> int:
        steps.append(len(arrivals))
        if len(steps) == 1:
            trio.from_thread.run_sync(meanwhile)
        return original(arrivals)

    def meanwhile() -> None:
        store.add(finished("0"))  # another record of this msg_id
        store.update("199", {"completed": None})
        store.after_commit(lambda: committed_after.append(len(steps)))

    monkeypatch.setattr(backend, "drop", drop)
    async with at_work(backend) as store:
        assert await store.drop(Query.everything()) == 199
        assert len(steps) > 2
        assert committed_after == [1], "the batch is written before the second step"
        assert await store.history() == ["199", "0"]
        assert (backend.tidied, backend.given_back) == (1, 2)
        assert await store.drop(Query.where(msg_id="x")) == 0
        assert backend.tidied == 1


async def test_one_large_record_does_not_crowd_the_store(caplog: pytest.LogCaptureFixture) -> None:
    backend = FakeBackend()
    async with closing(backend, max_backlog=MIB) as store:
        store.add(make("large", buffers=[bytes(5 * MIB)]))
        store.update("large", {"result_buffers": (bytes(5 * MIB),), "completed": at(1)})
        assert not store.crowded
        assert store.statistics().pending_bytes > 10 * MIB
        await store.history()
        assert (await store.get(["large"]))["large"].buffer_bytes == 10 * MIB
        for number in range(3):
            store.add(make(str(number), buffers=[bytes(5 * MIB)]))
        assert store.crowded
        assert store.statistics().not_persisted == 0
        await store.flush()
        assert not store.crowded
    assert not errors(caplog)


async def test_old_records_go_step_by_step_and_then_once_a_minute(
    mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    backend = FakeBackend()
    backend.write([Change(msg_id, finished(msg_id)) for msg_id in "abcd"])
    # no limit: it would be reached with the first jump
    async with open_writer(backend, keep=Retention(records=2), now=lambda: at(5)) as store:
        for _ in range(2):
            await sleeps_for(TRIM_PAUSE)
            mock_clock.jump(TRIM_PAUSE)
        await sleeps_for(TRIM_EVERY)
        assert (sorted(backend.kept), store.statistics().trimmed) == (["c", "d"], 2)
        backend.failing = "full"
        mock_clock.jump(TRIM_EVERY)
        await sleeps_for(TRIM_EVERY)
        assert "records that exceed the limits cannot be dropped from the database error=full" in caplog.text
        backend.failing = None
        mock_clock.jump(TRIM_EVERY)
        await sleeps_for(TRIM_EVERY)
        assert backend.trims == [(Retention(records=2), at(5))] * 5


async def test_closing_writes_what_is_pending_and_is_idempotent() -> None:
    backend = FakeBackend()
    store = WriteBehindStore(backend)
    store.add(make("a"))
    await store.history()
    async with within_limit(), trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(store.aclose)
    await store.aclose()
    await store.flush()
    assert (list(backend.kept), backend.closed, backend.readers) == (["a"], True, [])
    with pytest.raises(StoreError, match="closed"):
        await store.history()
    with pytest.raises(StoreError, match="closed"):
        await store.drop(Query.everything())
    assert "closed" in repr(store)


async def test_its_task_ends_when_it_is_closed() -> None:
    backend = FakeBackend(failing="full")
    async with within_limit(), trio.open_nursery() as nursery:
        idle, failing = WriteBehindStore(FakeBackend(), keep=Retention(records=1)), WriteBehindStore(backend, delay=0)
        for store in (idle, failing):
            await nursery.start(store.run)
        failing.add(make("a"))
        await eventually(lambda: failing.statistics().last_error is not None)
        assert "cannot write: full, 1 records pending" in repr(failing)
        for store in (idle, failing):
            await store.aclose()


async def test_what_cannot_be_written_at_the_end_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    backend = FakeBackend(failing="the disk is full")
    store = WriteBehindStore(backend)
    for msg_id in "abc":
        store.add(make(msg_id))
    await store.aclose()
    assert store.statistics().not_persisted == 3
    assert errors(caplog)[-1].endswith(
        'not written to the task database, and are lost records=3 reason="the disk is full"'
    )
    assert backend.closed


async def test_when_there_is_no_time_to_close_it_is_closed_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    backend = FakeBackend()
    async with within_limit():
        store = WriteBehindStore(backend)
        store.add(make("a"))
        await store.history()
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.aclose()
        assert scope.cancelled_caught
        assert backend.closed
        assert not backend.readers
        assert (store.statistics().not_persisted, backend.kept) == (1, {})
        assert errors(caplog)[-1].endswith('are lost records=1 reason="the time for it was over"')


async def test_closing_interrupts_whoever_reads() -> None:
    backend = FakeBackend()
    async with within_limit():
        store = WriteBehindStore(backend)
        store.add(finished("a"))
        await store.flush()
        backend.read_gate.clear()
        async with trio.open_nursery() as nursery:
            for question in (store.history, partial(store.fetch, ["a"]), partial(store.drop, Query.everything())):
                nursery.start_soon(refused, question)
            await eventually(lambda: backend.reading == 3)
            await store.aclose()
    assert backend.closed
    assert not backend.readers


async def refused(question: Callable[[], Any]) -> None:
    with pytest.raises(StoreError, match="interrupted"):
        await question()


async def test_a_question_that_does_not_end_is_given_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "INTERRUPT_LIMIT", 0.01)
    backend = FakeBackend(deaf=True)
    async with within_limit():
        store = WriteBehindStore(backend)
        backend.read_gate.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.history)
            await eventually(lambda: backend.reading == 1)
            nursery.cancel_scope.cancel()
        (told,) = errors(caplog)
        assert told.endswith('does not end; the hub does not wait for it any more call="answer a question"')
        assert len(backend.readers) == 1
        backend.read_gate.set()  # the thread of the query closes the reader
        await eventually(lambda: not backend.readers)
        await store.aclose()
    assert backend.closed


async def run_until_cancelled_while_writing(store: WriteBehindStore, backend: FakeBackend) -> None:
    """Run a store, and cancel it while its first batch, with the record a, waits at the gate of the database."""
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        backend.gate.clear()
        store.add(make("a"))
        await eventually(lambda: backend.entered == 1)
        nursery.cancel_scope.cancel()


async def test_a_batch_has_some_time_when_its_writer_is_cancelled_and_is_then_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writer, "PATIENCE", 0.01)
    backend = FakeBackend()
    async with within_limit():
        store = WriteBehindStore(backend, delay=0)
        await run_until_cancelled_while_writing(store, backend)
        assert (backend.kept, store.statistics().pending, store.statistics().last_error) == ({}, 1, "interrupted")
        await store.aclose()
        assert list(backend.kept) == ["a"]


async def test_a_database_that_hangs_does_not_keep_the_store_from_closing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer, "PATIENCE", 0.01)
    monkeypatch.setattr(calls, "INTERRUPT_LIMIT", 0.01)
    backend = FakeBackend()
    monkeypatch.setattr(backend, "interrupt", lambda: None)
    async with within_limit():
        store = WriteBehindStore(backend)
        store.add(make("a"))
        backend.gate.clear()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.aclose)
                await eventually(lambda: backend.entered == 1)  # a thread that has not begun is not waited for
                scope.cancel()
        assert scope.cancelled_caught
        assert not backend.closed
        assert store.statistics().not_persisted == 1
        assert [told.partition(" ")[2] for told in errors(caplog)]
        backend.gate.set()
        await eventually(lambda: list(backend.kept) == ["a"])


async def test_a_call_that_was_given_up_stays_so_when_a_later_call_cannot_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writer, "PATIENCE", 0.01)
    monkeypatch.setattr(calls, "INTERRUPT_LIMIT", 0.01)
    backend = FakeBackend()
    monkeypatch.setattr(backend, "interrupt", lambda: None)
    async with within_limit():
        store = WriteBehindStore(backend, delay=0)
        await run_until_cancelled_while_writing(store, backend)
        with trio.move_on_after(0.01) as scope:
            await store.aclose()  # its batch waits for the thread of the first one
        assert scope.cancelled_caught
        assert not backend.closed
        assert backend.entered == 1
        backend.gate.set()
        await eventually(lambda: list(backend.kept) == ["a"])


async def test_the_database_is_closed_after_a_step_that_fails_while_its_task_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = FakeBackend()
    began, gate = threading.Event(), threading.Event()

    def drop(arrivals: Sequence[int]) -> int:
        began.set()
        gate.wait()
        raise StoreError("the disk is full")

    monkeypatch.setattr(backend, "drop", drop)
    async with closing(backend) as store:
        store.add(finished("a"))
        await store.flush()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.drop, Query.everything())
            await eventually(began.is_set)
            nursery.cancel_scope.cancel()
            gate.set()


async def test_a_question_that_is_cancelled_before_it_begins_leaves_its_reader_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = FakeBackend()
    async with closing(backend) as store:
        for number in range(LAYERS + 1):
            store.add(make(f"{number}"))
            with trio.CancelScope() as scope:
                if number == LAYERS:

                    def merged(*args: Any) -> dict[str, Change]:
                        trio.from_thread.run_sync(scope.cancel)
                        return layers.merged(*args)

                    monkeypatch.setattr(writer, "merged", merged)
                await store.history()
        assert scope.cancelled_caught
        monkeypatch.undo()
        assert len(await store.history()) == LAYERS + 1
        assert backend.opened == 1


async def test_a_purge_that_tidies_for_long_does_not_delay_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "INTERRUPT_LIMIT", 0.01)
    backend = FakeBackend()
    began, gate, ended = threading.Event(), threading.Event(), threading.Event()

    def tidy(*, done: bool) -> None:
        began.set()
        gate.wait(60)
        ended.set()

    monkeypatch.setattr(backend, "tidy", tidy)
    async with closing(backend) as store:
        store.add(finished("a"))
        await store.flush()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.drop, Query.everything())
            await eventually(began.is_set)
            nursery.cancel_scope.cancel()
        assert not ended.is_set()
    gate.set()
    await eventually(ended.is_set)
