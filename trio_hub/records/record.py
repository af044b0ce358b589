"""The record of a request: the request, its client and engine, its result and output.

The 23 keys are those of IPython Parallel's task database, which stock clients expect in the answers to ``db_query``
and ``get_result``.
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
# JSON objects. They are kept as JSON text (UTF-8) and decoded only for readers.
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
# Texts that the hub only appends to.
TEXT_KEYS = frozenset(("stdout", "stderr"))
# Keys for the hub after a restart. Queries do not see them.
HUB_KEYS = ("custody", "owed", "note")
CHANGEABLE_KEYS = frozenset((*RECORD_KEYS, *HUB_KEYS)) - {"msg_id", "note"}
# Keys whose values users get in a form different from the stored one, or as a copy.
_NOT_AS_KEPT = PACKED_KEYS | BUFFER_KEYS | {"label"}

_decode = msgspec.json.Decoder().decode


# Nothing in a record refers back to the record, so the garbage collector need not track records.
class TaskRecord(msgspec.Struct, eq=False, gc=False):
    """The record of a request, as the hub and the stores keep it.

    Every attribute is None until it is known, except ``stdout`` and ``stderr``, which are ``""`` at first.

    - ``msg_id``, ``client_uuid`` (the client's session), ``engine_uuid``, ``queue`` (``"task"``, ``"mux"``,
      ``"broadcast"``), ``resubmitted`` (the msg_id it was resubmitted as), ``execute_input``: ``str``;
    - the keys in `PACKED_KEYS`: JSON text of an object, as ``bytes``;
    - the keys in `BUFFER_KEYS`: a tuple of buffers;
    - the keys in `DATE_KEYS`: an aware `datetime` in UTC;
    - ``label``: any JSON value.

    Three more are for the hub only (`HUB_KEYS`), and queries do not see them: ``custody``, ``bytes`` or None;
    ``owed``, whether the result is still to be sent to its client, which was away when the result came; and ``note``,
    whether this is not a task but a note of the hub for the hub after a restart. Users never see notes, and only
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
        """The size of all buffers of the request and of the result, in bytes."""
        return sum(map(len, self.buffers or ())) + sum(map(len, self.result_buffers or ()))

    def copy(self) -> TaskRecord:
        """Return a copy that shares the values with this record. Values are never changed in place."""
        return msgspec.structs.replace(self)

    def update(self, changes: dict[str, Any]) -> None:
        """Set the given keys. Raises `AttributeError` for an unknown key."""
        for key, value in changes.items():
            setattr(self, key, value)

    def as_dict(self, keys: Iterable[str] = RECORD_KEYS) -> dict[str, Any]:
        """Return a new dict of the given keys, with decoded JSON. Buffers are shared, not copied."""
        values = {key: getattr(self, key) for key in keys}
        for key in _NOT_AS_KEPT.intersection(values):
            values[key] = unpacked(key, values[key])
        return values


def unpacked(key: str, value: Any) -> Any:
    """Return the value of a record's key in the form that users get: decoded JSON, buffers as a list, or a copy.

    The hub does not read contents, so a value that should be JSON may be any bytes. A value that cannot be decoded is
    returned as a `str`, with bytes that are not UTF-8 escaped, so that such a record does not make queries fail.
    """
    if value is None:
        return None
    if key in PACKED_KEYS:
        try:
            return _decode(value)
        except (ValueError, RecursionError):  # the errors of msgspec are ValueErrors
            return _unpacked_slowly(value)
    if key in BUFFER_KEYS:
        return list(value)
    return deepcopy(value) if isinstance(value, dict | list) else value  # a label


def _unpacked_slowly(value: bytes) -> Any:
    """Decode JSON that msgspec refuses and stock sessions may write (NaN, lone surrogates), or return it as text."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value.decode("utf-8", "backslashreplace")


def empty_record() -> dict[str, Any]:
    """Return a dict with all 23 record keys and empty values."""
    return dict.fromkeys(RECORD_KEYS) | {"stdout": "", "stderr": ""}
