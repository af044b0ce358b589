"""A simple database for `WriteBehindStore`. Tests can make it fail, refuse changes, or wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count

from trio_hub.databases.backend import Change, Found, ListedBatch, Reader, Retention, StoredRecord
from trio_hub.errors import StoreError
from trio_hub.records.history import Place, place_of
from trio_hub.records.query import Query


@dataclass
class FakeBackend:
    """A `trio_hub.databases.backend.Backend` on dicts. Records are replaced, never changed, so copies are cheap.

    Switches, for tests:
    - ``failing``: why it can write nothing now; ``unreadable``: why nothing can be read;
    - ``poison``: the msg_ids of records that cannot be written, for no reason that it knows;
    - ``gate``: writing waits until it is open; ``entered``: the number of writes that have come to the gate;
    - ``read_gate``, ``reading``: the same for reading; ``find_gate``: for `find` only;
    - ``deaf``: whether readers that wait at a gate ignore `interrupt`;
    - ``committing``: called in the thread when readers see a batch, and its writer does not know that yet.
    """

    committing: Callable[[], None] = lambda: None

    failing: str | None = None
    unreadable: str | None = None
    poison: set[str] = field(default_factory=set)
    gate: threading.Event = field(default_factory=threading.Event)
    entered: int = 0
    read_gate: threading.Event = field(default_factory=threading.Event)
    reading: int = 0
    find_gate: threading.Event = field(default_factory=threading.Event)
    deaf: bool = False

    # Records of the calls, for tests to check
    batches: list[list[str]] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    drops: int = 0
    given_back: int = 0
    tidied: int = 0
    last: int = 0
    trims: list[tuple[Retention, datetime]] = field(default_factory=list)
    readers: list[FakeReader] = field(default_factory=list)
    opened: int = 0
    closed: bool = False
    busy: int = 0

    kept: dict[str, StoredRecord] = field(default_factory=dict)
    arrivals: int = 0

    def __post_init__(self) -> None:
        self.gate.set()
        self.read_gate.set()
        self.find_gate.set()
        self._alone = threading.Lock()
        self._moment = threading.Lock()
        self.interrupted = threading.Event()
        self.numbers = count(1)

    def write(self, changes: Sequence[Change]) -> None:
        self._write(changes, next(self.numbers))

    def _write(self, changes: Sequence[Change], number: int) -> None:
        with self.writing():
            self.entered += 1
            self.gate.wait()
            self._fail()
            if self.interrupted.is_set():
                self.interrupted.clear()
                raise StoreError("interrupted")
            msg_ids = [change.msg_id for change in changes]
            assert len(set(msg_ids)) == len(msg_ids), "one change for each record"
            kept = dict(self.kept)
            for change in changes:
                if change.msg_id in self.poison:
                    raise ValueError(f"{change.msg_id} is no record")
                self._apply(kept, change)
            with self._moment:
                self.kept = kept
                self.last = number
            self.committing()
            self.batches.append(msg_ids)
            self.changes += changes

    def batch(self) -> ListedBatch:
        return ListedBatch(next(self.numbers), self._write)

    def _apply(self, kept: dict[str, StoredRecord], change: Change) -> None:
        if change.removed:
            kept.pop(change.msg_id, None)
        elif change.record is not None:
            assert not change.changes, "they are in the record"
            assert not change.appended, "it is in the record"
            self.arrivals += 1
            kept.pop(change.msg_id, None)
            kept[change.msg_id] = StoredRecord(self.arrivals, change.record.copy())
        elif change.msg_id in kept:
            arrival, record = kept[change.msg_id]
            record = record.copy()
            record.update(change.changes)
            for key, pieces in change.appended.items():
                setattr(record, key, getattr(record, key) + "".join(pieces))
            kept[change.msg_id] = StoredRecord(arrival, record)

    def drop(self, arrivals: Sequence[int]) -> int:
        with self.writing():
            self.drops += 1
            self._fail()
            going = [
                msg_id
                for msg_id, (arrival, record) in self.kept.items()
                if arrival in set(arrivals) and record.completed is not None
            ]
            self.kept = {msg_id: kept for msg_id, kept in self.kept.items() if msg_id not in going}
            return len(going)

    def give_back(self) -> bool:
        """Give space back in two steps: the first call of two returns that there is more to do."""
        with self.writing():
            self.given_back += 1
            return self.given_back % 2 == 1

    def tidy(self, *, done: bool) -> None:
        self.tidied += done

    def interrupt(self) -> None:
        self.interrupted.set()
        self.gate.set()

    def trim(self, keep: Retention, now: datetime) -> int:
        """Drop at most one record."""
        with self.writing():
            self.trims.append((keep, now))
            self._fail()
            assert keep.records is not None
            done = sorted(
                (record.received or record.completed, msg_id)
                for msg_id, (_, record) in self.kept.items()
                if record.completed is not None
            )
            if len(done) <= keep.records:
                return 0
            self.kept = {msg_id: kept for msg_id, kept in self.kept.items() if msg_id != done[0][1]}
            return 1

    def reader(self) -> Reader:
        if self.unreadable:
            raise StoreError(self.unreadable)
        assert not self.closed
        reader = FakeReader(self)
        self.readers.append(reader)
        self.opened += 1
        return reader

    def size(self) -> int:
        return sum(record.buffer_bytes for _, record in self.kept.values())

    def close(self) -> None:
        assert not self.readers, "readers go first"
        assert not self.busy
        self.closed = True

    def _fail(self) -> None:
        if self.failing:
            raise StoreError(self.failing)

    @contextmanager
    def writing(self) -> Iterator[None]:
        assert not self.closed
        assert self._alone.acquire(blocking=False), "one writer at a time"
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1
            self._alone.release()


class FakeReader:
    def __init__(self, backend: FakeBackend) -> None:
        self._backend = backend
        self._seen: dict[str, StoredRecord] | None = None
        self._closed = False
        self._interrupted = False
        self._alone = threading.Lock()

    def begin(self) -> int:
        with self._using():
            assert self._seen is None, "end() comes first"
            if self._backend.unreadable == "begin":
                raise StoreError("begin")
            with self._backend._moment:
                self._seen = self._backend.kept
                return self._backend.last

    def get(self, msg_ids: Sequence[str]) -> dict[str, StoredRecord]:
        with self._using():
            seen = self._look()
            return {
                msg_id: StoredRecord(seen[msg_id].arrival, seen[msg_id].record.copy())
                for msg_id in msg_ids
                if msg_id in seen
            }

    def find(self, query: Query, keys: Sequence[str], skip: Container[str] = ()) -> list[Found]:
        with self._using():
            self._wait(self._backend.find_gate)
            assert not isinstance(skip, Sequence) or not skip, "each record is looked up in it"
            seen = self._look()
            return [
                Found(place, seen[msg_id].record.as_dict(keys))
                for place, msg_id in self._places(seen)
                if msg_id not in skip and query.matches(seen[msg_id].record)
            ]

    def completed(self, query: Query) -> list[int]:
        with self._using():
            return [
                arrival
                for arrival, record in self._look().values()
                if record.completed is not None and not record.note and query.matches(record)
            ]

    def history(self) -> list[tuple[Place, str]]:
        with self._using():
            return self._places(self._look())

    def recent(self, limit: int, before: Place | None, skip: Collection[str]) -> list[tuple[Place, str]]:
        with self._using():
            assert not isinstance(skip, Sequence), "each record is looked up in it"
            assert before is None or before[2] < 1 << 63, "databases cannot compare with more"
            places = self._places(self._look())
            before_it = [item for item in places if (before is None or item[0] < before) and item[1] not in skip]
            return before_it[::-1][:limit]

    def count(self) -> int:
        with self._using():
            return len(self._places(self._look()))

    def unfinished(self) -> list[StoredRecord]:
        with self._using():
            unfinished = []
            for arrival, record in sorted(self._look().values(), key=lambda kept: kept.arrival):
                if record.completed is None and not record.note:
                    record = record.copy()
                    record.content = record.buffers = None
                    unfinished.append(StoredRecord(arrival, record))
            return unfinished

    def notes(self) -> list[StoredRecord]:
        with self._using():
            notes = [kept for kept in self._look().values() if kept.record.note]
            return sorted(notes, key=lambda kept: kept.arrival)

    def undelivered(self, window: timedelta) -> list[tuple[str, str]]:
        with self._using():
            received = sorted(
                (record.received, arrival, record)
                for arrival, record in self._look().values()
                if record.received is not None
            )
            return [
                (record.msg_id, record.client_uuid or "")
                for moment, _, record in received
                if record.owed or moment >= received[-1][0] - window
            ]

    def interrupt(self) -> None:
        self._interrupted = True

    def end(self) -> None:
        with self._using():
            self._seen = None

    def close(self) -> None:
        with self._using():
            assert not self._closed
            self._closed = True
            self._backend.readers.remove(self)

    def _look(self) -> dict[str, StoredRecord]:
        self._backend.reading += 1
        self._wait(self._backend.read_gate)
        if self._backend.unreadable:
            raise StoreError(self._backend.unreadable)
        assert self._seen is not None, "begin() comes first"
        return self._seen

    def _wait(self, gate: threading.Event) -> None:
        while not gate.wait(0.002):
            if self._interrupted and not self._backend.deaf:
                raise StoreError("interrupted")

    def _places(self, seen: dict[str, StoredRecord]) -> list[tuple[Place, str]]:
        return sorted(
            (place_of(record.submitted, arrival), msg_id)
            for msg_id, (arrival, record) in seen.items()
            if not record.note
        )

    @contextmanager
    def _using(self) -> Iterator[None]:
        assert not self._closed
        assert self._alone.acquire(blocking=False), "one thread at a time"
        try:
            yield
        finally:
            self._alone.release()
