"""One task's record: what was asked, by whom, of whom, and what came of it.

The 23 keys are those of IPython Parallel's task database, as its clients' ``db_query`` and ``get_result``
expect them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from copy import deepcopy
from datetime import datetime
from typing import Any

import msgspec

from ..wire.frames import Buffer

__all__ = [
    "BUFFER_KEYS",
    "CHANGEABLE_KEYS",
    "DATE_KEYS",
    "HUB_KEYS",
    "PACKED_KEYS",
    "RECORD_KEYS",
    "TEXT_KEYS",
    "TaskRecord",
    "empty_record",
    "unpacked",
]

RECORD_KEYS = (
    "msg_id",
    "header",
    "metadata",
    "content",
    "buffers",
    "submitted",
    "client_uuid",
    "engine_uuid",
    "started",
    "completed",
    "resubmitted",
    "received",
    "result_header",
    "result_metadata",
    "result_content",
    "result_buffers",
    "queue",
    "execute_input",
    "execute_result",
    "error",
    "stdout",
    "stderr",
    "label",
)
# JSON objects, kept as the JSON text (UTF-8) they arrived in, and decoded only when somebody asks.
PACKED_KEYS = frozenset(
    (
        "header",
        "metadata",
        "content",
        "result_header",
        "result_metadata",
        "result_content",
        "execute_result",
        "error",
    )
)
BUFFER_KEYS = frozenset(("buffers", "result_buffers"))
DATE_KEYS = frozenset(("submitted", "started", "completed", "received"))
# Text that only ever grows.
TEXT_KEYS = frozenset(("stdout", "stderr"))
# What the hub notes for a hub that comes after it. No query sees these.
HUB_KEYS = ("custody", "owed", "note")
CHANGEABLE_KEYS = frozenset((*RECORD_KEYS, *HUB_KEYS)) - {"msg_id", "note"}
# What users see in another form than it is kept in, or as a copy.
_NOT_AS_KEPT = PACKED_KEYS | BUFFER_KEYS | {"label"}

_decode = msgspec.json.Decoder().decode


# Nothing in a record refers to it, so that the garbage collector need not look at each.
class TaskRecord(msgspec.Struct, eq=False, gc=False):
    """A task's record as the hub keeps it while the task is alive, and as stores are given it.

    Every attribute is None until it is known, except ``stdout`` and ``stderr``, which are ``""``.

    - ``msg_id``, ``client_uuid`` (the client's session), ``engine_uuid``, ``queue`` (``"task"``, ``"mux"``,
      ``"broadcast"``), ``resubmitted`` (the msg_id it was resubmitted as), ``execute_input``: ``str``;
    - those in `PACKED_KEYS`: JSON text of an object, as ``bytes``;
    - those in `BUFFER_KEYS`: a tuple of buffers;
    - those in `DATE_KEYS`: aware `datetime`, in UTC;
    - ``label``: any JSON value.

    Three more are for the hub alone (`HUB_KEYS`), and no query sees them: ``custody``, ``bytes`` or None; ``owed``,
    whether the result is still to be delivered to a client that was away when it came; and ``note``, whether this is no
    task, but a note of the hub for a hub that comes after it. Users never see notes, and nothing but
    `trio_hub.records.Store.discard` removes a note. A note is never completed.
    """

    msg_id: str
    header: bytes | None = None
    metadata: bytes | None = None
    content: bytes | None = None
    buffers: tuple[Buffer, ...] | None = None
    submitted: datetime | None = None
    client_uuid: str | None = None
    engine_uuid: str | None = None
    started: datetime | None = None
    completed: datetime | None = None
    resubmitted: str | None = None
    received: datetime | None = None
    result_header: bytes | None = None
    result_metadata: bytes | None = None
    result_content: bytes | None = None
    result_buffers: tuple[Buffer, ...] | None = None
    queue: str | None = None
    execute_input: str | None = None
    execute_result: bytes | None = None
    error: bytes | None = None
    stdout: str = ""
    stderr: str = ""
    label: Any = None
    custody: bytes | None = None
    owed: bool = False
    note: bool = False

    def __repr__(self) -> str:
        return f"<TaskRecord {self.msg_id} queue={self.queue} completed={self.completed}>"

    @property
    def buffer_bytes(self) -> int:
        """Size of all its buffers, request and result, in bytes."""
        return sum(map(len, self.buffers or ())) + sum(map(len, self.result_buffers or ()))

    def copy(self) -> TaskRecord:
        """Another record with the same values, which are shared: nobody changes them in place."""
        return msgspec.structs.replace(self)

    def update(self, changes: dict[str, Any]) -> None:
        """Set the keys given; an unknown key is an `AttributeError`."""
        for key, value in changes.items():
            setattr(self, key, value)

    def as_dict(self, keys: Iterable[str] = RECORD_KEYS) -> dict[str, Any]:
        """A new dict of the keys given, JSON text decoded; buffers are shared, not copied."""
        values = {key: getattr(self, key) for key in keys}
        for key in _NOT_AS_KEPT.intersection(values):
            values[key] = unpacked(key, values[key])
        return values


def unpacked(key: str, value: Any) -> Any:
    """The value of a record's key as users see it: JSON text decoded, buffer tuples as lists, and its own.

    Contents pass through the hub unread, so what should be JSON may be anything. Text that cannot be decoded
    is given as a `str`, bytes that are no UTF-8 escaped in it, so that one such record spoils no query.
    """
    if value is None:
        return None
    if key in PACKED_KEYS:
        try:
            return _decode(value)
        except (ValueError, RecursionError):  # msgspec has errors of its own kind, which are ValueErrors
            return _unpacked_slowly(value)
    if key in BUFFER_KEYS:
        return list(value)
    return deepcopy(value) if isinstance(value, dict | list) else value  # a label


def _unpacked_slowly(value: bytes) -> Any:
    """For what msgspec does not read: all else that a stock Session may write (NaN, lone surrogates), and no JSON."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value.decode("utf-8", "backslashreplace")


def empty_record() -> dict[str, Any]:
    """A dict with all 23 record keys and nothing in it."""
    return dict.fromkeys(RECORD_KEYS) | {"stdout": "", "stderr": ""}
