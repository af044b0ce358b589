"""The task database in memory.

The number and the size of the records of finished tasks are limited. The records of the tasks that finished first are
culled first. Records of unfinished tasks are never culled, since clients wait for them, and do not count towards the
limits. So a large burst of new tasks does not push out the results of earlier tasks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import islice
from operator import itemgetter
from typing import Any

import msgspec

from ..errors import ConfigError
from .history import EARLIEST, Place, place_of
from .interface import Checkpoint, StoreStatistics, no_checkpoint
from .output import MAX_OUTPUT, OutputLimit
from .query import Query, parse_keys
from .record import CHANGEABLE_KEYS, TaskRecord
from .sizes import MEASURES, size_of, text_bytes

__all__ = ["MemoryStore"]

# Readers await their checkpoint after this many records (0.02 to 1 ms of work).
SLICE = 100
# Returning a record requires decoding its JSON, which takes as long as checking this many records.
COST_OF_MATCH = 10
# The maximum number of records that were added out of order and that `recent` puts into their places at each call. With
# more of them, it sorts all records once.
MAX_LATE = 1000


class MemoryStore:
    """A `trio_hub.records.Store` in memory.

    Args:
        max_records: The maximum number of records of finished tasks. Further records are culled.
        max_bytes: The maximum size of these records in bytes: buffers, JSON text, source code and output (as UTF-8).
            The overhead of Python objects, about half a kilobyte per record, is not counted.
        max_output: See `trio_hub.records.output.OutputLimit`.
        checkpoint: Awaited by readers after every 100 records at most, so that they do not block the event loop.

    Attributes:
        total_bytes: The present size of all records in bytes, counted as for `max_bytes`.
        finished_bytes: The part of it that belongs to records of finished tasks.
        culled: The number of records culled so far.

    Raises:
        ConfigError: A limit is not positive.
    """

    durable = False
    crowded = False

    def __init__(
        self,
        max_records: int = 100_000,
        max_bytes: int = 1 << 30,
        *,
        max_output: int = MAX_OUTPUT,
        checkpoint: Checkpoint = no_checkpoint,
    ) -> None:
        if max_records < 1 or max_bytes < 1:
            raise ConfigError(f"max_records={max_records} and max_bytes={max_bytes} must be at least 1")
        self.max_records = max_records
        self.max_bytes = max_bytes
        self.total_bytes = 0
        self.finished_bytes = 0
        self.culled = 0
        self._checkpoint = checkpoint
        self._output = OutputLimit(max_output)
        self._records: dict[str, _Stored] = {}
        self._arrivals = 0
        self._notes: set[str] = set()  # the msg_ids of the records that are notes
        # The msg_ids of finished tasks, in the order in which they finished. (Finding the first item of a plain dict
        # takes time in the number of items removed before it.)
        self._finished: OrderedDict[str, None] = OrderedDict()
        # The msg_ids of late records. Without these, `_records` is in the order of `history`.
        self._late: set[str] = set()
        # The time of submission of the last record that is not late.
        self._last_submitted: datetime | None = EARLIEST

    def __len__(self) -> int:
        return len(self._records)

    def statistics(self) -> StoreStatistics:
        """See `trio_hub.records.Store.statistics`."""
        return StoreStatistics(size=self.total_bytes, trimmed=self.culled)

    async def run(self) -> None:
        """See `trio_hub.records.Store.run`. There is no background work."""

    def add(self, record: TaskRecord) -> None:
        """See `trio_hub.records.Store.add`."""
        msg_id, submitted = record.msg_id, record.submitted
        replaced = self._records.get(msg_id)
        if replaced is not None:
            self._forget(replaced)
        self._arrivals += 1
        kept = self._records[msg_id] = _Stored(record.copy(), self._arrivals, size_of(record))
        self.total_bytes += kept.size
        if submitted is not None and (self._last_submitted is None or submitted < self._last_submitted):
            self._late.add(msg_id)
        else:
            self._last_submitted = submitted
        if record.note:
            self._notes.add(msg_id)
        if record.completed is not None:
            self._finished[msg_id] = None
            self.finished_bytes += kept.size
            self._cull()

    def update(self, msg_id: str, changes: dict[str, Any]) -> None:
        """See `trio_hub.records.Store.update`."""
        kept = self._records.get(msg_id)
        if kept is None:
            _check_keys(changes)
            return
        finished = msg_id in self._finished
        try:
            grown = kept.change(changes)
        except KeyError:
            _check_keys(changes)
            raise
        self.total_bytes += grown
        if "submitted" in changes:
            self._late.add(msg_id)
        if finished:
            self.finished_bytes += grown
        if "completed" in changes and finished != (changes["completed"] is not None):
            if finished:
                del self._finished[msg_id]
                self.finished_bytes -= kept.size
            else:
                self._finished[msg_id] = None
                self.finished_bytes += kept.size
                finished = True
        if finished:
            self._cull()

    def append(self, msg_id: str, key: str, text: str) -> None:
        """See `trio_hub.records.Store.append`."""
        text = self._output.recorded(msg_id, key, text)
        kept = self._records.get(msg_id)
        if kept is not None and text:
            grown = kept.append(key, text)
            self.total_bytes += grown
            if msg_id in self._finished:
                self.finished_bytes += grown
                self._cull()

    def discard(self, msg_id: str) -> None:
        """See `trio_hub.records.Store.discard`."""
        kept = self._records.get(msg_id)
        if kept is not None:
            self._forget(kept)

    def after_commit(self, call: Callable[[], None]) -> None:
        """Call the function at once. Nothing in this database is more durable than memory."""
        call()

    async def get(self, msg_ids: Sequence[str]) -> dict[str, TaskRecord]:
        """See `trio_hub.records.Store.get`."""
        found = await self.fetch(msg_ids)
        return {msg_id: record for msg_id, record in found.items() if not record.note} if self._notes else found

    async def fetch(self, msg_ids: Sequence[str]) -> dict[str, TaskRecord]:
        """See `trio_hub.records.Store.fetch`."""
        found = {}
        for done, msg_id in enumerate(msg_ids, 1):
            kept = self._records.get(msg_id)
            if kept is not None:
                found[msg_id] = kept.current().copy()
            if done % SLICE == 0:
                await self._checkpoint()
        return found

    async def find(self, query: Query, keys: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """See `trio_hub.records.Store.find`. Records that are added while this waits at a checkpoint are not found."""
        wanted = parse_keys(keys)
        found = []
        work = 0
        for kept in self._candidates(query):
            if self._has(kept) and query.matches(kept.current()):
                found.append((kept.place, kept.record.as_dict(wanted)))
                work += COST_OF_MATCH
            work += 1
            if work >= SLICE:
                work = 0
                await self._checkpoint()
        found.sort(key=itemgetter(0))
        return [values for _, values in found]

    async def drop(self, query: Query) -> int:
        """See `trio_hub.records.Store.drop`. Records that are added while this waits at a checkpoint stay."""
        dropped = 0
        for done, kept in enumerate(self._candidates(query), 1):
            if self._has(kept) and kept.record.completed is not None and query.matches(kept.current()):
                self._forget(kept)
                dropped += 1
            if done % SLICE == 0:
                await self._checkpoint()
        return dropped

    async def history(self) -> list[str]:
        """See `trio_hub.records.Store.history`. Sorts only if records were added out of order since the last call."""
        if self._late:
            self._sort()
        if self._notes:
            return [msg_id for msg_id in self._records if msg_id not in self._notes]
        return list(self._records)

    async def recent(self, limit: int, before: str | None = None) -> list[str]:
        """See `trio_hub.records.Store.recent`. Sorts only if many records were added out of order since the last time.

        With `before`, this first passes all msg_ids that are newer.
        """
        if len(self._late) > MAX_LATE or before in self._late:
            self._sort()
        records, late, notes = self._records, self._late, self._notes
        msg_ids = reversed(records)
        found = [records[msg_id] for msg_id in late if msg_id not in notes]
        if before is not None:
            if before not in records or before in notes:
                raise KeyError(before)
            end = records[before].place
            found = [kept for kept in found if kept.place < end]
            for msg_id in msg_ids:  # `before` is not late, so all records that come before it follow
                if msg_id == before:
                    break
        in_order = (msg_id for msg_id in msg_ids if msg_id not in late and msg_id not in notes)
        found += [records[msg_id] for msg_id in islice(in_order, limit)]
        found.sort(key=_place, reverse=True)
        return [kept.record.msg_id for kept in found[:limit]]

    async def count(self) -> int:
        """See `trio_hub.records.Store.count`."""
        return len(self._records) - len(self._notes)

    def _sort(self) -> None:
        ordered = sorted(self._records.values(), key=_place)
        self._records = {kept.record.msg_id: kept for kept in ordered}
        self._last_submitted = ordered[-1].record.submitted if ordered else EARLIEST
        self._late.clear()

    async def unfinished(self) -> list[TaskRecord]:
        """Return an empty list: records of an earlier hub do not exist in memory."""
        return []

    async def notes(self) -> list[TaskRecord]:
        """Return the notes of this hub, since no hub was there before."""
        return [self._records[msg_id].current().copy() for msg_id in sorted(self._notes, key=self._arrival)]

    async def undelivered(self, window: timedelta) -> list[tuple[str, str]]:
        """Return an empty list: results of an earlier hub do not exist in memory."""
        return []

    async def flush(self) -> None:
        """Return at once. Nothing in this database is more durable than memory."""

    async def flush_all(self) -> None:
        """Return at once. Nothing waits to be written."""

    async def aclose(self) -> None:
        """Return at once. There is nothing to release."""

    def _candidates(self, query: Query) -> list[_Stored]:
        """Return the records that may match, as a new list, since the store may change while the caller iterates."""
        ids = query.exact_ids
        if ids is not None:
            return [self._records[msg_id] for msg_id in ids if msg_id in self._records and msg_id not in self._notes]
        if self._notes:
            return [kept for msg_id, kept in self._records.items() if msg_id not in self._notes]
        return list(self._records.values())

    def _arrival(self, msg_id: str) -> int:
        return self._records[msg_id].arrival

    def _has(self, kept: _Stored) -> bool:
        return self._records.get(kept.record.msg_id) is kept

    def _forget(self, kept: _Stored) -> None:
        msg_id = kept.record.msg_id
        del self._records[msg_id]
        self._notes.discard(msg_id)
        self._late.discard(msg_id)
        self._output.forget(msg_id)
        self.total_bytes -= kept.size
        if msg_id in self._finished:
            del self._finished[msg_id]
            self.finished_bytes -= kept.size

    def _cull(self) -> None:
        while len(self._finished) > self.max_records or self.finished_bytes > self.max_bytes:
            self._forget(self._records[next(iter(self._finished))])
            self.culled += 1


class _Stored(msgspec.Struct, eq=False, gc=False):
    """A record in the store, with its arrival number, its size in bytes, and output that is not yet joined to it."""

    record: TaskRecord
    arrival: int
    size: int
    # Output comes in many small pieces. Appending each piece to the text at once would copy the text every time.
    tails: dict[str, list[str]] | None = None

    @property
    def place(self) -> Place:
        """The sort key of `MemoryStore.history`."""
        return place_of(self.record.submitted, self.arrival)

    def current(self) -> TaskRecord:
        """Join the pending output to the record, and return the record."""
        if self.tails is not None:
            for key, pieces in self.tails.items():
                setattr(self.record, key, getattr(self.record, key) + "".join(pieces))
            self.tails = None
        return self.record

    def change(self, changes: dict[str, Any]) -> int:
        """Set keys, and return by how many bytes the record grew. Raises `KeyError` for a key that cannot be set."""
        record = self.record if self.tails is None else self.current()
        grown = 0
        for key, value in changes.items():
            measure = MEASURES[key]
            if measure is not None:
                if value:
                    grown += measure(value)
                if before := getattr(record, key):
                    grown -= measure(before)
        # After measuring, so that a value of a wrong type changes nothing.
        for key, value in changes.items():
            setattr(record, key, value)
        self.size += grown
        return grown

    def append(self, key: str, text: str) -> int:
        """Append output, and return by how many bytes the record grew."""
        if self.tails is None:
            self.tails = {}
        self.tails.setdefault(key, []).append(text)
        grown = text_bytes(text)
        self.size += grown
        return grown


def _check_keys(changes: dict[str, Any]) -> None:
    if not CHANGEABLE_KEYS.issuperset(changes):
        raise AttributeError(
            f"these keys of a record cannot be changed: {', '.join(sorted(changes.keys() - CHANGEABLE_KEYS))}"
        )


def _place(kept: _Stored) -> Place:
    return kept.place
