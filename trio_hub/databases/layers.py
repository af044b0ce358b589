"""Layers of pending changes: how changes are merged, and how they are applied to the records of the database.

New changes are merged into the open layer. A layer that is read or written is frozen first: it does not change any
more, so threads may read it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import attrgetter
from typing import Any, TypeAlias

from ..records.history import Place, place_of
from ..records.query import Query, parse_query
from ..records.record import CHANGEABLE_KEYS, TEXT_KEYS, TaskRecord
from .backend import LAST_ARRIVAL, Change, Found, Reader

__all__ = [
    "Changes",
    "Layer",
    "count_over",
    "find_over",
    "get_over",
    "history_over",
    "is_finished",
    "joined",
    "merged",
    "recent_over",
    "size_of",
]

# Changes by msg_id. Added records are in the order of their arrival.
Changes: TypeAlias = Mapping[str, Change]

# The approximate number of bytes that Python needs for a change and its record, without their values.
OVERHEAD = 500
# The number of records that are read from the database at a time, to be changed and compared. Some have large buffers.
FETCHED_AT_ONCE = 200
# The arrival number of pending records, which come after all records of the database.
_AFTER_ALL = 1 << 64


class Layer:
    """The changes since one point in time, merged to one change per record.

    - ``weight``: the approximate size in memory, in bytes: JSON, buffers, output and the objects themselves. But one
      change counts as at most ``most`` bytes; ``unweighed`` are the further bytes of larger changes;
    - ``since``: the time of the first change, by Trio's clock;
    - ``calls``: the calls to be made when these and all earlier changes are committed;
    - ``batch``: the number of the batch in which the changes are, or were, written; None before.
    """

    __slots__ = ("batch", "calls", "changes", "most", "since", "unweighed", "weight")

    def __init__(
        self,
        changes: dict[str, Change] | None = None,
        weight: int = 0,
        since: float = 0.0,
        calls: list[Callable[[], None]] | None = None,
        *,
        most: int = sys.maxsize,
        unweighed: int = 0,
    ) -> None:
        self.changes = {} if changes is None else changes
        self.weight = weight
        self.unweighed = unweighed
        self.most = most
        self.batch: int | None = None
        self.since = since
        self.calls: list[Callable[[], None]] = [] if calls is None else calls

    @property
    def size(self) -> int:
        """The approximate size of the changes in memory, in bytes."""
        return self.weight + self.unweighed

    def _weigh(self, size: int) -> None:
        if size > self.most:
            self.unweighed += size - self.most
            size = self.most
        self.weight += size

    def add(self, record: TaskRecord) -> None:
        """See `trio_hub.records.Store.add`."""
        changes, msg_id = self.changes, record.msg_id
        if msg_id in changes:
            del changes[msg_id]  # it arrives again, so it goes to the end
        size = OVERHEAD
        # Only the keys that the record of a new request has, since this is called for each request.
        for value in (record.header, record.metadata, record.content, record.custody):
            if value is not None:
                size += len(value)
        if record.buffers:
            size += sum(map(len, record.buffers))
        if record.completed is not None or record.stdout or record.stderr:
            size = _size_of_record(record)
        if size > self.most:
            self._weigh(size)
        else:
            self.weight += size
        changes[msg_id] = Change(msg_id, record.copy())

    def update(self, msg_id: str, changes: dict[str, Any]) -> None:
        """See `trio_hub.records.Store.update`."""
        if not CHANGEABLE_KEYS.issuperset(changes):
            raise AttributeError(
                f"these keys of a record cannot be changed: {', '.join(sorted(changes.keys() - CHANGEABLE_KEYS))}"
            )
        size = 0
        for value in changes.values():
            kind = type(value)
            if kind is bytes or kind is str:
                size += len(value)
            elif kind is tuple:
                size += sum(map(len, value))
        change = self.changes.get(msg_id)
        if change is None:
            self.changes[msg_id] = Change(msg_id, None, changes.copy())
            self._weigh(OVERHEAD + size)
        elif not change.removed:
            if change.appended:
                for key in TEXT_KEYS & changes.keys():
                    change.appended.pop(key, None)
            if change.record is None:
                change.changes.update(changes)
            else:
                change.record.update(changes)
            self._weigh(size)

    def append(self, msg_id: str, key: str, text: str) -> None:
        """See `trio_hub.records.Store.append`."""
        if key not in TEXT_KEYS:
            raise AttributeError(f"{key!r} is not text to append to")
        change = self.changes.get(msg_id)
        if change is None:
            change = self.changes[msg_id] = Change(msg_id)
            self.weight += OVERHEAD
        if not change.removed:
            change.appended.setdefault(key, []).append(text)
            self.weight += len(text)

    def discard(self, msg_id: str) -> None:
        """See `trio_hub.records.Store.discard`."""
        self.changes[msg_id] = Change(msg_id, removed=True)
        self.weight += OVERHEAD


def is_finished(change: Change) -> bool:
    """Return whether a change completes its record."""
    record = change.record
    return (record.completed if record is not None else change.changes.get("completed")) is not None


def size_of(change: Change) -> int:
    """Return the approximate size of a change in memory, in bytes."""
    size = _size_of_record(change.record) if change.record is not None else OVERHEAD
    size += sum(map(_size_of_value, change.changes.values()))
    return size + sum(map(len, (piece for pieces in change.appended.values() for piece in pieces)))


def _size_of_record(record: TaskRecord) -> int:
    return OVERHEAD + sum(_size_of_value(getattr(record, key)) for key in CHANGEABLE_KEYS)


def _size_of_value(value: Any) -> int:
    if isinstance(value, bytes | str):
        return len(value)
    return sum(map(len, value)) if isinstance(value, tuple) else 0


# Merging


def merged(layers: Sequence[Changes], only: Collection[str] | None = None) -> dict[str, Change]:
    """Return the merged changes of layers, given oldest first; with ``only``, of these records. The layers stay."""
    total: dict[str, Change] = {}
    for layer in layers:
        if only is None and not total:
            total = dict(layer)
            continue
        for msg_id, change in _items(layer, only):
            before = total.get(msg_id)
            if before is None:
                total[msg_id] = change
            elif change.removed or change.record is not None:
                del total[msg_id]  # a record that arrives again goes to the end
                total[msg_id] = change
            elif not before.removed:
                total[msg_id] = _sum(before, change)
    return total


def _items(layer: Changes, only: Collection[str] | None) -> Iterable[tuple[str, Change]]:
    if only is None:
        return layer.items()
    there = {msg_id for msg_id in only if msg_id in layer}
    if len(there) > 1:  # in the order of the layer
        return [(msg_id, change) for msg_id, change in layer.items() if msg_id in there]
    return [(msg_id, layer[msg_id]) for msg_id in there]


def _sum(before: Change, change: Change) -> Change:
    """Return two changes of one record as one change. The later one neither adds nor removes the record."""
    record, changes = before.record, before.changes
    if record is None:
        changes = changes | change.changes
    elif change.changes:
        record = record.copy()
        record.update(change.changes)
    appended = {}
    for key in TEXT_KEYS:
        pieces = [] if key in change.changes else before.appended.get(key, [])
        pieces = pieces + change.appended.get(key, [])
        if pieces:
            appended[key] = pieces
    return Change(change.msg_id, record, changes, appended)


def joined(change: Change) -> Change:
    """Return a change for the database: if it adds a record, appended output is moved into the record."""
    if change.record is None or not change.appended:
        return change
    return Change(change.msg_id, _with_output(change.record.copy(), change))


def _with_output(record: TaskRecord, change: Change) -> TaskRecord:
    for key, pieces in change.appended.items():
        setattr(record, key, getattr(record, key) + "".join(pieces))
    return record


# Reading


def get_over(layers: Sequence[Changes], reader: Reader, msg_ids: Sequence[str]) -> dict[str, TaskRecord]:
    """Do `trio_hub.records.Store.fetch` for the reader's snapshot with the layers applied."""
    asked = dict.fromkeys(msg_ids)
    pending = merged(layers, asked.keys())
    wanted = [msg_id for msg_id in asked if msg_id not in pending or _is_partial(pending[msg_id])]
    there = reader.get(wanted) if wanted else {}
    found = {}
    for msg_id in asked:
        record = there[msg_id].record if msg_id in there else None
        if msg_id in pending:
            record = _current(pending[msg_id], record)
        if record is not None:
            found[msg_id] = record
    return found


def find_over(layers: Sequence[Changes], reader: Reader, query: Query, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Do `trio_hub.records.Store.find` for the reader's snapshot with the layers applied. Keys: see `parse_keys`."""
    pending = merged(layers, query.exact_ids)
    found = reader.find(query, keys, pending)
    for arrival, record in _pending_records(pending, reader):
        if not record.note and query.matches(record):
            found.append(Found(place_of(record.submitted, arrival), record.as_dict(keys)))
    if pending:
        found.sort(key=attrgetter("place"))
    return [values for _, values in found]


def history_over(layers: Sequence[Changes], reader: Reader) -> list[str]:
    """Do `trio_hub.records.Store.history` for the reader's snapshot with the layers applied."""
    pending = merged(layers)
    places: list[tuple[Place, str]] = []
    for place, msg_id in reader.history():
        change = pending.get(msg_id)
        if change is None or (_is_partial(change) and "submitted" not in change.changes):
            places.append((place, msg_id))
        elif _is_partial(change):
            places.append((place_of(change.changes["submitted"], place[2]), msg_id))
    for arrival, change in enumerate(pending.values(), _AFTER_ALL):
        if change.record is not None and not change.record.note:
            places.append((place_of(change.record.submitted, arrival), change.msg_id))
    if pending:
        places.sort()
    return [msg_id for _, msg_id in places]


def recent_over(layers: Sequence[Changes], reader: Reader, limit: int, before: str | None) -> list[str] | None:
    """Do `trio_hub.records.Store.recent` for the reader's snapshot with the layers applied.

    Returns None if there is no record `before`. (An error would close the reader.)
    """
    places: dict[str, Place] = {}  # of the pending records that may have other places than in the database
    skip = set()
    moved = []
    for arrival, change in enumerate(merged(layers).values(), _AFTER_ALL):
        if not _is_partial(change):
            skip.add(change.msg_id)
            if change.record is not None and not change.record.note:
                places[change.msg_id] = place_of(change.record.submitted, arrival)
        elif "submitted" in change.changes:
            skip.add(change.msg_id)
            moved.append(change)
    there = _places_of(reader, [change.msg_id for change in moved])
    for change in moved:
        if change.msg_id in there:
            places[change.msg_id] = place_of(change.changes["submitted"], there[change.msg_id][2])
    end = None
    if before is not None:
        end = places.get(before) if before in skip else _places_of(reader, [before]).get(before)
        if end is None:
            return None
    limited = None if end is None else (end[0], end[1], min(end[2], LAST_ARRIVAL))
    found = reader.recent(limit, limited, skip)
    found += [(place, msg_id) for msg_id, place in places.items() if end is None or place < end]
    found.sort(reverse=True)
    return [msg_id for _, msg_id in found[:limit]]


def count_over(layers: Sequence[Changes], reader: Reader) -> int:
    """Do `trio_hub.records.Store.count` for the reader's snapshot with the layers applied."""
    replaced = [change for change in merged(layers).values() if not _is_partial(change)]
    added = sum(change.record is not None and not change.record.note for change in replaced)
    return reader.count() + added - len(_places_of(reader, [change.msg_id for change in replaced]))


def _places_of(reader: Reader, msg_ids: Sequence[str]) -> dict[str, Place]:
    """Return the places of existing records of the database, by msg_id. Notes are left out."""
    if not msg_ids:
        return {}
    found = reader.find(parse_query({"msg_id": {"$in": list(msg_ids)}}), ("msg_id",))
    return {each.values["msg_id"]: each.place for each in found}


def _pending_records(pending: Changes, reader: Reader) -> Iterator[tuple[int, TaskRecord]]:
    """Yield the arrival number and the present state of each record with pending changes."""
    partial = []
    for arrival, change in enumerate(pending.values(), _AFTER_ALL):
        if _is_partial(change):
            partial.append(change.msg_id)
            continue
        record = _current(change, None)
        if record is not None:
            yield arrival, record
    rest = iter(partial)
    while some := list(islice(rest, FETCHED_AT_ONCE)):
        for msg_id, kept in reader.get(some).items():
            record = _current(pending[msg_id], kept.record)
            if record is not None:
                yield kept.arrival, record


def _is_partial(change: Change) -> bool:
    """Return whether a change applies to a record in the database, which has to be read."""
    return change.record is None and not change.removed


def _current(change: Change, record: TaskRecord | None) -> TaskRecord | None:
    """Apply a change to a record of the database, or to None. Return a record that the caller may change, or None."""
    if change.removed:
        return None
    if change.record is not None:
        record = change.record.copy()
    elif record is None:
        return None
    else:
        record.update(change.changes)
    return _with_output(record, change)
